"""Chat models behind an HTTP interface, through lm-eval's backends.

lm-eval's backend knows a service: its address, headers and the form of a request. Here is what an
audit needs on top: one text per reply whatever the reply holds, the thinking kept, the likeliest
first tokens where those are asked for, requests tried again where that can help, and one clear
line where it cannot.
"""

from __future__ import annotations

import json
import logging
import math
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import requests
from lm_eval.models.api_models import JsonChatStr

from unswayed.core.errors import InputError

log = logging.getLogger(__name__)

TEMPORARY = {408, 409, 425, 429}  # HTTP statuses worth another try, next to all from 500
LONGEST_PAUSE = 60.0  # seconds before another try, whatever the server asks for
KEPT = "Finished answers are kept: mend it and run the same command again (an audit with --resume)"


# With it a server whose chat template allows it leaves the thinking out.
THINKING_OFF = """--gen-kwargs '{"chat_template_kwargs": {"enable_thinking": false}}'"""
# A token that begins a thought: <think>, [THINK], <|START_THINKING|>, <|channel|>, ...
OPENS_THOUGHT = re.compile(
    r"\s*[<\[◁]\W*(?:\w+[_:])?(?:think|thinking|thought|reasoning|channel)\b", re.IGNORECASE
)
ZERO = -9999.0  # what vLLM sends for the logarithm of 0
SUM_ERROR = 0.01  # of a sum of listed probabilities, that logarithms in half precision may make


class UnusableReply(ValueError):
    """A reply arrived, and there is no answer in it."""


class ChatService:
    """Mixed into lm-eval's chat backends: asks one conversation per request, in threads.

    Model arguments of lm-eval that count here: `num_concurrent` requests at a time, `max_retries`
    tries in all, `timeout` in seconds for a reply to begin. Ours: `requests_per_minute` at most.
    """

    takes_messages = True  # a prompt is a conversation, as JSON
    lists_tokens = False  # the likeliest ones, with log-probabilities

    def __init__(self, requests_per_minute: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if requests_per_minute is not None and not requests_per_minute > 0:
            raise ValueError(f"requests_per_minute={requests_per_minute} must be above 0")
        self._apart = 60.0 / requests_per_minute if requests_per_minute else 0.0  # seconds
        self._next_start = 0.0
        self._lock = threading.Lock()
        self._logged: set[str] = set()
        self._most_tokens = math.inf  # that the server lists, as far as it has said

    def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
        """The texts of all requests; each goes to the cache hook as soon as it is there.

        Where the settings have `logprobs`, a text is what `first_tokens` makes of a reply.

        Raises:
            InputError: the server cannot be reached, refuses a request, or gives no
                log-probabilities. What is under way then is waited for and kept, nothing new is
                asked.
        """
        stop = threading.Event()
        failures: list[Exception] = []

        def answer(request: Any) -> str | None:
            if stop.is_set():
                return None
            try:
                prompt, settings = request.args
                if not isinstance(prompt, JsonChatStr):  # which lm-eval's own tasks bring
                    prompt = JsonChatStr(prompt)
                text = self._ask(prompt, settings, stop)
                with self._lock:
                    self.cache_hook.add_partial("generate_until", request.args, text)
                return text
            except Exception as error:
                failures.append(error)
                stop.set()
                return None

        with ThreadPoolExecutor(max(1, self._concurrent)) as pool:
            try:
                texts = list(pool.map(answer, requests))
            finally:  # also after Ctrl-C
                stop.set()
        if failures:
            raise failures[0]
        return texts

    def _ask(self, prompt: JsonChatStr, settings: dict, stop: threading.Event) -> str:
        """One reply's text; "" if every try brought an unusable one."""
        read, tries = reply_text, max(1, self.max_retries)
        if settings.get("logprobs"):
            read, most = self._first_tokens, min(settings["top_logprobs"], self._most_tokens)
            settings = settings | {"top_logprobs": most}
        for number in range(1, tries + 1):
            again, response = number < tries, None
            self._wait_for_turn(stop)
            try:
                return read(self.model_call([prompt], gen_kwargs=settings))
            except (UnusableReply, requests.exceptions.InvalidJSONError) as error:
                what = str(error) if isinstance(error, UnusableReply) else "it is not JSON"
                if not again:
                    self._warn_once(f"a reply is unusable and counts as unparsed: {what}")
                    return ""
            except Exception as error:
                response = getattr(error, "response", None)
                status = getattr(error if response is None else response, "status_code", None)
                if status is None and not isinstance(error, requests.RequestException):
                    raise
                if status in (400, 422) and self._lists_fewer(settings, self._reason(error)):
                    return self._ask(prompt, settings, stop)
                what = self._failure(error, status)
                if not again or (status and status < 500 and status not in TEMPORARY):
                    raise InputError(f"{what}. {KEPT}") from None
            self._warn_once(f"{what}; trying again, {tries} times in all")
            if stop.wait(pause(number, response)):  # another request has ended the work
                raise InputError(f"{what}. {KEPT}")
        raise AssertionError("the last try returns or raises")

    def _first_tokens(self, reply: Any) -> str:
        text = first_tokens(reply)
        if OPENS_THOUGHT.match(json.loads(text)["text"]):
            self._warn_once(f"the model thinks where a letter should come: try {THINKING_OFF}")
        return text

    def _lists_fewer(self, settings: dict, reason: str) -> bool:
        """Whether a refusal says how many tokens the server lists; no more are asked for then.

        A number that was not the limit is refused in its turn, and the next smaller one is tried.
        """
        asked_for = settings.get("top_logprobs")
        if not settings.get("logprobs") or "logprobs" not in reason.lower():
            return False
        with self._lock:
            if self._most_tokens >= asked_for:  # else another request has read it
                numbers = [n for n in map(int, re.findall(r"\d+", reason)) if 0 < n < asked_for]
                if not numbers:
                    return False
                self._most_tokens = max(numbers)
        self._warn_once(f"the server does not list {asked_for} tokens: fewer are asked for")
        return True

    def _wait_for_turn(self, stop: threading.Event) -> None:
        """Sleep until the next request may start; returns at once if the work has ended."""
        if not self._apart:
            return
        with self._lock:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + self._apart
        stop.wait(start - time.monotonic())

    def _reason(self, error: Exception) -> str:
        """What the server says of a refusal; without the API key ("EMPTY" is none)."""
        response = getattr(error, "response", None)
        reason = error_text(response) if response is not None else str(error)
        return reason.replace(self.api_key, "***") if len(self.api_key) >= 8 else reason

    def _failure(self, error: Exception, status: int | None) -> str:
        """What went wrong, without anything secret."""
        server = "the model's server" + (f" at {address(self.base_url)}" if self.base_url else "")
        if status is None:
            if isinstance(error, requests.Timeout):
                return f"{server} gave no reply within {self.timeout} s (model argument timeout)"
            return f"{server} cannot be reached ({root_cause(error)})"
        reason, hint = self._reason(error), ""
        if "logprobs" in reason.lower():
            hint = (
                ": if it lists fewer tokens, --gen-kwargs top_logprobs=N; if it gives no "
                "log-probabilities, --scoring generate"
            )
        elif status in (401, 403):
            hint = ": is the API key in the environment right?"
        elif status in (404, 405):
            hint = ": base_url is the full address of the chat, often .../v1/chat/completions"
        elif status == 400 and "temperature" in reason.lower():
            hint = ": some models take no temperature, try --gen-kwargs temperature=none"
        return f"{server} answers {status}{hint}" + (f" ({reason})" if reason else "")

    def _warn_once(self, text: str) -> None:
        """Log a trouble the first time it comes up."""
        with self._lock:
            if text not in self._logged:
                self._logged.add(text)
                log.warning("%s", text)

    def _create_payload(self, messages: list[dict], **kwargs: Any) -> dict:
        """The backend's request, without the fields that are empty or null.

        Servers differ in what they make of an empty list of stop sequences: some refuse it, and
        lm-eval 0.4.13 makes [null] of it for Anthropic.
        """
        temperature = kwargs["gen_kwargs"].get("temperature")
        payload = super()._create_payload(messages, **kwargs)
        if payload.get("temperature") != temperature:  # its rule for some names of OpenAI's
            self._warn_once(f"lm-eval asks this model with temperature {payload['temperature']}")
        for name in {"stop", "stop_sequences"} & payload.keys():
            payload[name] = [text for text in payload[name] if text]
        return {name: value for name, value in payload.items() if value not in (None, [])}


def reply_text(reply: Any) -> str:
    """The text of a chat completion (OpenAI's form or Anthropic's), its thinking in front.

    Thinking that came in a field of its own is put into <think>...</think>; the block stays open if
    nothing follows it.

    Raises:
        UnusableReply: it has neither form.
    """
    if not isinstance(reply, dict):
        raise UnusableReply(f"it is a {type(reply).__name__}, not a chat completion")
    try:
        if "choices" in reply:
            message = reply["choices"][0]["message"]
            content = message.get("content")
            thinking = message.get("reasoning_content") or message.get("reasoning") or ""
        else:
            content, thinking = reply["content"], ""
        if isinstance(content, list):  # blocks of text, of thinking and of other kinds
            thinking += "".join(block.get("thinking") or "" for block in content)
            content = "".join(block.get("text") or "" for block in content)
        text = content or ""
        if thinking:
            thinking = f"<think>{thinking}</think>\n" if text else f"<think>{thinking}"
        text = "".join([thinking, text])  # join, as it refuses what is no text
        return text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text either
    except (KeyError, IndexError, TypeError, AttributeError):
        raise UnusableReply(f"it has no message in it: {str(reply)[:200]}") from None


def first_tokens(reply: Any) -> str:
    """What a chat completion lists as the likeliest first tokens, as JSON.

    {"text": the reply's, as `reply_text`; "tokens": [[token, nats], ...], none where the reply
    begins with a thought or says nothing}.

    Raises:
        UnusableReply: it is no chat completion.
        InputError: it has text, but no log-probabilities.
    """
    text = reply_text(reply)
    try:
        first = reply["choices"][0]["logprobs"]["content"][0]
        listed = [
            [str(entry["token"]), float(entry["logprob"])]
            for entry in first["top_logprobs"]
            if entry["logprob"] is not None
        ]
    except (KeyError, IndexError, TypeError, ValueError):
        listed = []
    if not listed and text and not OPENS_THOUGHT.match(text):
        raise InputError(
            "the server gives no log-probabilities of tokens (top_logprobs), which letters are "
            f"read from: use --scoring generate. {KEPT}"
        )
    tokens = [[token, nats] for token, nats in listed if nats > ZERO]
    if any(math.isnan(nats) for _, nats in listed):
        raise InputError("the server gives NaN as a log-probability: its model or dtype is broken")
    total = sum(math.exp(min(nats, 1.0)) for _, nats in tokens)
    if total > 1.0 + SUM_ERROR:
        raise InputError(
            f"the server's top_logprobs are no log-probabilities (they add up to {total:.2f}; vLLM "
            "gives them with --logprobs-mode raw_logprobs): use --scoring generate"
        )
    if len(tokens) > 1 and tokens[0][1] < tokens[1][1]:
        del tokens[0]  # vLLM puts the token that was drawn in front, listed or not
    top = tokens[0][0] if tokens else ""
    if OPENS_THOUGHT.match(text) or OPENS_THOUGHT.match(top):
        text, tokens = text or top, []
    return json.dumps({"text": text, "tokens": tokens})


def error_text(response: requests.Response) -> str:
    """What a server says about a refusal, in at most 300 characters."""
    try:
        text = response.json()
    except requests.exceptions.InvalidJSONError:
        text = response.text
    for field in ("error", "message", "detail"):  # {"error": {"message": ...}}, {"detail": ...}
        if isinstance(text, dict) and text.get(field):
            text = text[field]
    return " ".join(str(text).split())[:300]


def pause(tried: int, response: requests.Response | None) -> float:
    """Seconds before another try: the server's Retry-After if it is a number, else lm-eval's."""
    seconds = "" if response is None else response.headers.get("Retry-After", "")
    if seconds.isdigit():
        return min(LONGEST_PAUSE, float(seconds))
    return min(10.0, max(1.0, 2.0 ** (tried - 2)))


def address(url: str) -> str:
    """Scheme, host and port of a URL; no path, no password."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def root_cause(error: BaseException) -> str:
    """The innermost reason of an error, such as "Connection refused"."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
