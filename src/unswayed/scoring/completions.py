"""What a chat completion says: its text, or the likeliest first tokens with log-probabilities.

OpenAI's form and Anthropic's; replies are taken as parsed JSON, whatever they hold.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from unswayed.core.errors import InputError
from unswayed.scoring.servers import KEPT, Trouble

# With it a server whose chat template allows it leaves the thinking out.
THINKING_OFF = """--gen-kwargs '{"chat_template_kwargs": {"enable_thinking": false}}'"""
# A token that begins a thought: <think>, [THINK], <|START_THINKING|>, <|channel|>, ...
OPENS_THOUGHT = re.compile(
    r"\s*[<\[◁]\W*(?:\w+[_:])?(?:think|thinking|thought|reasoning|channel)\b", re.IGNORECASE
)
ZERO = -9999.0  # what vLLM sends for the logarithm of 0
SUM_ERROR = 0.01  # of a sum of listed probabilities, that logarithms in half precision may make


class UnusableReply(Trouble):
    """A reply arrived, and there is no answer in it."""


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
