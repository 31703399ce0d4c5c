"""Chat models behind an HTTP interface, through lm-eval's backends.

lm-eval's backend knows a service: its address, headers and the form of a request. Here is what an
audit needs on top: many requests at a time over connections that are kept, one text per reply
whatever the reply holds, the thinking kept, the likeliest first tokens where those are asked for,
requests tried again where that can help, and one clear line where it cannot.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import itertools
import json
import logging
import math
import re
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from lm_eval.models.api_models import JsonChatStr, TemplateAPI
from requests.certs import where
from requests.utils import get_environ_proxies, select_proxy
from tenacity import AsyncRetrying, RetryCallState

from unswayed.core.errors import InputError
from unswayed.scoring.completions import (
    OPENS_THOUGHT,
    THINKING_OFF,
    UnusableReply,
    first_tokens,
    reply_text,
)
from unswayed.scoring.servers import (
    KEPT,
    Trouble,
    address,
    error_text,
    retry_after,
    root_cause,
    tries,
    worth_another_try,
)

log = logging.getLogger(__name__)

IDLE = 2.0  # seconds after which a connection is not used again: servers close theirs from 5 on
ROUSED = 0.1  # seconds within which a pause ends when the work does


class Refused(Exception):
    """The server's answer to a request is an error.

    Attributes:
        reason: its words.
        after: seconds for which it asks.
    """

    def __init__(self, status: int, reason: str, after: float | None = None) -> None:
        super().__init__(status, reason)
        self.status, self.reason, self.after = status, reason, after


class ChatService:
    """Mixed into lm-eval's chat backends: asks one conversation per request.

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
        self._logged: set[str] = set()
        self._most_tokens = math.inf  # that the server lists, as far as it has said
        self._has_listed = False

    @classmethod
    def posts(cls) -> bool:
        """Whether requests go to `base_url`; else a package of the service's own sends them."""
        return cls.model_call is TemplateAPI.model_call

    def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
        """The texts of all requests; each goes to the cache hook as soon as it is there.

        Where the settings have `logprobs`, a text is what `first_tokens` makes of a reply, and the
        first request goes alone: what the server does not give shows before many are spent.

        Raises:
            InputError: the server cannot be reached, refuses a request, or gives no
                log-probabilities. What is under way then is waited for and kept, nothing new is
                asked.
        """
        stop = threading.Event()
        with ThreadPoolExecutor(1) as thread:  # the caller's may have a loop that is running
            try:
                return thread.submit(asyncio.run, self._ask_all(requests, stop)).result()
            finally:  # also after Ctrl-C
                stop.set()

    async def _ask_all(self, requests: list, stop: threading.Event) -> list[str]:
        texts: list[str] = [""] * len(requests)
        failures: list[Exception] = []
        waiting = enumerate(requests)

        async def work(session: aiohttp.ClientSession, queue: Iterator[tuple[int, Any]]) -> None:
            for place, request in queue:
                if stop.is_set():
                    return
                try:
                    texts[place] = await self._ask(session, *request.args, stop)
                    self.cache_hook.add_partial("generate_until", request.args, texts[place])
                except Exception as error:
                    failures.append(error)
                    stop.set()

        workers = max(1, self._concurrent)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(workers))
        async with self._session() as session:
            if not self._has_listed and any(r.args[1].get("logprobs") for r in requests[:1]):
                await work(session, itertools.islice(waiting, 1))
                self._has_listed = True
            await asyncio.gather(*(work(session, waiting) for _ in range(workers)))
        if failures:
            raise failures[0]
        return texts

    def _session(self) -> aiohttp.ClientSession:
        """Connections, as many as there are requests at a time."""
        trusted: ssl.SSLContext | bool = self.verify_certificate
        if trusted:
            trusted = ssl.create_default_context(cafile=self.ca_cert_path)
            if not self.ca_cert_path:
                trusted.load_verify_locations(where())
        headers = dict(self.header)
        if self.base_url and urlsplit(self.base_url).username:  # which then says who asks
            headers.pop("Authorization", None)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE, ssl=trusted),
            timeout=aiohttp.ClientTimeout(sock_connect=self.timeout, sock_read=self.timeout),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            # trust_env looks for proxy and netrc anew for each request, in a thread
            proxy=self.base_url and select_proxy(self.base_url, get_environ_proxies(self.base_url)),
        )

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        prompt: JsonChatStr | str,
        settings: dict,
        stop: threading.Event,
    ) -> str:
        """One reply's text; "" if every try brought an unusable one."""
        conversation = prompt.prompt if isinstance(prompt, JsonChatStr) else prompt
        read = self._first_tokens if settings.get("logprobs") else reply_text

        async def once() -> str:
            await self._wait_for_turn(stop)
            return read(await self._reply(session, conversation, settings))

        asking = AsyncRetrying(
            **tries(self.max_retries),
            sleep=functools.partial(_sleep, stop=stop),
            before_sleep=self._say_again,
        )
        try:
            return await asking(once)
        except UnusableReply as error:
            self._warn_once(f"a reply is unusable and counts as unparsed: {error}")
            return ""
        except Trouble as error:
            raise InputError(f"{error}. {KEPT}") from None

    def _say_again(self, state: RetryCallState) -> None:
        what = f"{state.outcome.exception()}; trying again, {max(1, self.max_retries)} times in all"
        self._warn_once(what)

    async def _reply(
        self, session: aiohttp.ClientSession, conversation: str, settings: dict
    ) -> Any:
        """What came of one try, parsed.

        Raises:
            Trouble: nothing of use.
            InputError: a refusal that stays.
        """
        while True:
            if settings.get("logprobs"):
                most = min(settings["top_logprobs"], self._most_tokens)
                settings = settings | {"top_logprobs": most}
            try:
                if self.posts():
                    return await self._post(session, conversation, settings)
                return await self._call(conversation, settings)
            except Refused as refusal:
                if refusal.status in (400, 422) and self._lists_fewer(settings, refusal.reason):
                    continue
                what = self._refusal(refusal)
                if worth_another_try(refusal.status):
                    raise Trouble(what, refusal.after) from None
                raise InputError(f"{what}. {KEPT}") from None

    async def _post(self, session: aiohttp.ClientSession, conversation: str, settings: dict) -> Any:
        payload = self._create_payload(
            json.loads(conversation),
            generate=True,
            gen_kwargs={k: copy.copy(v) for k, v in settings.items()},  # lm-eval changes them
            seed=self._seed,
            eos=self.eos_string,
        )
        try:
            async with session.post(self.base_url, json=payload) as response:
                body = await response.read()
        except TimeoutError:
            late = f"gave no reply within {self.timeout} s (model argument timeout)"
            raise Trouble(f"{self._server()} {late}") from None
        except (aiohttp.ClientError, OSError) as error:
            cause = root_cause(error).replace(self.base_url, address(self.base_url))
            raise Trouble(f"{self._server()} cannot be reached ({cause})") from None
        if response.status >= 400:
            after = retry_after(response.headers.get("Retry-After"))
            raise Refused(response.status, error_text(body), after)
        try:
            return json.loads(body)
        except ValueError:
            raise UnusableReply("it is not JSON") from None

    async def _call(self, conversation: str, settings: dict) -> Any:
        """By the service's own package, such as LiteLLM."""
        prompt = [JsonChatStr(conversation)]
        try:
            return await asyncio.to_thread(self.model_call, prompt, gen_kwargs=settings)
        except Exception as error:
            if (status := getattr(error, "status_code", None)) is None:
                raise
            raise Refused(status, str(error)) from None

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
        if self._most_tokens >= asked_for:  # else another request has read it
            numbers = [n for n in map(int, re.findall(r"\d+", reason)) if 0 < n < asked_for]
            if not numbers:
                return False
            self._most_tokens = max(numbers)
        self._warn_once(f"the server does not list {asked_for} tokens: fewer are asked for")
        return True

    async def _wait_for_turn(self, stop: threading.Event) -> None:
        """Sleep until the next request may start."""
        if self._apart:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + self._apart
            await _sleep(start - time.monotonic(), stop)

    def _server(self) -> str:
        return "the model's server" + (f" at {address(self.base_url)}" if self.base_url else "")

    def _refusal(self, refusal: Refused) -> str:
        """What the server refuses, without the API key ("EMPTY" is none)."""
        status, reason, hint = refusal.status, refusal.reason, ""
        reason = reason.replace(self.api_key, "***") if len(self.api_key) >= 8 else reason
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
        return f"{self._server()} answers {status}{hint}" + (f" ({reason})" if reason else "")

    def _warn_once(self, text: str) -> None:
        """Log a trouble the first time it comes up."""
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


async def _sleep(seconds: float, stop: threading.Event) -> None:
    """Raises: InputError: the work has ended meanwhile, for a reason of its own."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not stop.is_set():
        await asyncio.sleep(min(left, ROUSED))
    if stop.is_set():
        raise InputError(f"the work has ended. {KEPT}")
