"""Letters read from the likeliest first tokens that a chat service lists (`top_logprobs`).

A token counts as a letter if it is that letter, with white space or a tokenizer's mark for it
around it ("A", " A", "▁A"); the probabilities of such tokens are added up. A likelihood taken in
this process is that of one token, the letter right after the prompt, and so never above this sum.

Of a letter that is not listed only this is certain: no token of it is likelier than the last one
listed, nor than what all listed ones leave. The smaller of the two stands for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from unswayed.core.journal import Journal
from unswayed.scoring.ask import generate, generation_settings
from unswayed.scoring.completions import SUM_ERROR
from unswayed.scoring.prompts import Likelihoods

MOST_TOKENS = 20  # what OpenAI and, unless told otherwise, vLLM list at most
SPACES = str.maketrans(dict.fromkeys("Ġ▁Ċĉč", " "))  # byte-level BPE's and SentencePiece's


def served_letters(
    lm: Any,
    prompts: Sequence[str],
    letters: Sequence[Sequence[str]],
    journal: Journal,
    gen_kwargs: Mapping[str, Any],
    backend: str,
) -> list[Likelihoods]:
    """What a chat service says of the letters of questions, one token asked for each.

    Args:
        lm: a `scoring.api.ChatService` that lists tokens.
        prompts: n conversations (`ChatFormat.render`).
        letters: n lists.
        journal: keeps each reply as it arrives.
        gen_kwargs: further settings of the requests; `top_logprobs` at most 20 of them listed.
        backend: the name under which `lm` was loaded.

    Raises:
        InputError: as `generate`; the server gives no log-probabilities.
    """
    settings = generation_settings(1, {"logprobs": True, "top_logprobs": MOST_TOKENS, **gen_kwargs})
    replies = generate(lm, prompts, journal, settings, backend)
    return [listed_letters(reply, row) for reply, row in zip(replies, letters, strict=True)]


def listed_letters(reply: str, letters: Sequence[str]) -> Likelihoods:
    """The log-probabilities of letters in what is kept of a reply (`completions.first_tokens`).

    Without any letter in it, `sums` is None.
    """
    tokens = json.loads(reply)["tokens"] if reply else []
    logs: dict[str, list[float]] = {letter: [] for letter in letters}
    for token, nats in tokens:
        logs.get(token.translate(SPACES).strip(), []).append(nats)
    listed = [bool(logs[letter]) for letter in letters]
    if not any(listed):
        return Likelihoods(letters, None, listed=listed)
    rest = 1.0 - sum(math.exp(nats) for _, nats in tokens)
    least = min(nats for _, nats in tokens)
    bound = math.nextafter(min(least, math.log(max(rest, SUM_ERROR))), -math.inf)
    sums = [_log_sum(logs[letter]) if logs[letter] else bound for letter in letters]
    return Likelihoods(letters, sums, [1] * len(sums), listed=listed)


def reply_said(reply: str) -> str:
    """The text of what is kept of a reply; "" of an unusable one."""
    return json.loads(reply)["text"] if reply else ""


def _log_sum(logs: Sequence[float]) -> float:
    """The logarithm of the sum of exponentials."""
    most = max(logs)
    return most + math.log(sum(math.exp(nats - most) for nats in logs))
