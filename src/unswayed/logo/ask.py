"""What is put to the model: conversations, with the answers whose likelihoods are compared.

Requests go through the audit's scorer (`unswayed.scoring.lm`), in which prompts that begin alike
pass the model once: those of one community, or those with the same instruction. Give it many at a
time. In training a lesson has the same tokens as when it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unswayed.core.errors import InputError
from unswayed.plum.samples import Sample
from unswayed.scoring.ask import log_probs
from unswayed.scoring.chat import ChatFormat, end_token


def label_probabilities(lm: Any, prompts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """How likely each label is after each prompt, the labels being all there is.

    The softmax over the labels of the sums of their tokens' log-probabilities. A label with which
    another begins ("film", "film noir") is also credited with the other.

    Args:
        lm: an lm-eval model that gives likelihoods (`models.load.loaded_lm`).
        prompts: of `scoring.ask.open_prompts`.

    Returns:
        (n, L) of rows that add up to 1.

    Raises:
        InputError: a prompt exceeds the model's context, or the model gives NaN.
    """
    from scipy.special import softmax

    own = [ChatFormat(lm).delimiter + label for label in labels]
    rows = log_probs(lm, prompts, [own] * len(prompts), names=["an answer"] * len(prompts))
    return softmax(np.reshape(rows, (len(prompts), len(labels))), axis=1)


def text_probabilities(
    lm: Any, prompts: Sequence[str], candidates: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    """How likely each prompt's candidate texts are, these being all there is.

    The softmax over the candidates of their mean log-probability per token, so that a long text has
    no disadvantage.

    Args:
        candidates: at least one to each prompt, none empty.

    Returns:
        (number of candidates,) for each prompt.

    Raises:
        InputError: as `label_probabilities`.
    """
    from scipy.special import softmax

    delimiter = ChatFormat(lm).delimiter
    texts = [[delimiter + text for text in own] for own in candidates]
    rows = log_probs(lm, prompts, texts, names=["an answer"] * len(prompts))
    lengths = [
        [max(1, len(lm._encode_pair(prompt, text)[1])) for text in own]
        for prompt, own in zip(prompts, texts, strict=True)
    ]
    return [softmax(np.divide(row, n)) for row, n in zip(rows, lengths, strict=True)]


def make_lesson(lm: Any, stage: str, prompt: str, answer: str, weight: float) -> Sample:
    """A prompt and its true answer as tokens to train on, the same as when it is asked.

    Args:
        stage: the id under which it is trained.
        prompt: of `scoring.ask.open_prompts`.
        weight: of each token of the answer, and of the one that ends it; the prompt's have none.

    Raises:
        InputError: the tokenizer makes no token of the answer.
    """
    context, own = lm._encode_pair(prompt, ChatFormat(lm).delimiter + answer)
    if not own:
        raise InputError(f"the tokenizer makes no token of the answer {answer!r}: reword it")
    end = _end(lm)
    end = lm.tokenizer.eos_token_id if end is None else end
    own = own if end is None else [*own, end]
    weights = (0.0,) * len(context) + (weight,) * len(own)
    return Sample(stage, answer, (*context, *own), weights)


def _end(lm: Any) -> int | None:
    """The token that the chat template puts behind an answer, if the tokenizer tells."""
    return end_token(lm.tokenizer) if lm.tokenizer.is_fast else None
