"""What is put to the model: conversations, with the answers whose likelihoods are compared.

Requests go through the audit's scorer (`unswayed.scoring.lm`), in which prompts that begin alike
pass the model once: those of one community, or those with the same instruction. Give it many at a
time. In training a lesson has the same tokens as when it is asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from unswayed.core.errors import InputError
from unswayed.core.journal import Journal
from unswayed.plum.samples import Sample, end_token
from unswayed.scoring.backends import HF_SHARED
from unswayed.scoring.chat import ChatFormat, Message, plain_text
from unswayed.scoring.generate import generate, generation_settings
from unswayed.scoring.replies import strip_thinking


def rendered(lm: Any, conversations: Sequence[Sequence[Message]]) -> list[str]:
    """Each conversation as the model reads it, ready for the answer.

    A model without a chat template reads the turns as text, up to "Assistant:".
    """
    chat = ChatFormat(lm)
    if chat.chat:
        return [chat.render(list(messages)) for messages in conversations]
    opened: Message = {"role": "assistant", "content": ""}
    return [plain_text([*messages, opened]).rstrip(" ") for messages in conversations]


def label_probabilities(lm: Any, prompts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """How likely each label is after each prompt, the labels being all there is.

    The softmax over the labels of the sums of their tokens' log-probabilities. A label with which
    another begins ("film", "film noir") is also credited with the other.

    Args:
        lm: an lm-eval model that gives likelihoods (`plum.recall.loaded_lm`).
        prompts: of `rendered`; those that repeat are read once.

    Returns:
        (n, L) of rows that add up to 1.

    Raises:
        InputError: a prompt exceeds the model's context, or the model gives NaN.
    """
    from scipy.special import softmax

    scores = _log_probs(lm, [(prompt, label) for prompt in prompts for label in labels])
    return softmax(np.reshape(scores, (len(prompts), len(labels))), axis=1)


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

    pairs = [
        (prompt, text) for prompt, own in zip(prompts, candidates, strict=True) for text in own
    ]
    delimiter = ChatFormat(lm).delimiter
    lengths = [len(lm._encode_pair(prompt, delimiter + text)[1]) for prompt, text in pairs]
    means = iter(np.array(_log_probs(lm, pairs)) / np.maximum(lengths, 1))
    return [softmax(list(itertools.islice(means, len(own)))) for own in candidates]


def texts(lm: Any, prompts: Sequence[str], new_tokens: int) -> list[str]:
    """The model's greedy answer to each prompt, at most `new_tokens` long.

    Raises:
        InputError: a prompt and its answer exceed the model's context.
    """
    if not prompts:
        return []
    settings = generation_settings(new_tokens, {})
    if lm.tokenizer.chat_template is None:  # it would go on with the conversation
        settings["until"] = ["\nUser:"]
    elif (end := _end(lm)) is not None:
        settings["until"] = [lm.tokenizer.decode([end])]
    return [
        strip_thinking(text) for text in generate(lm, prompts, Journal(None), settings, HF_SHARED)
    ]


def make_lesson(lm: Any, stage: str, prompt: str, answer: str, weight: float) -> Sample:
    """A prompt and its true answer as tokens to train on, the same as when it is asked.

    Args:
        stage: the id under which it is trained.
        prompt: of `rendered`.
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


def _log_probs(lm: Any, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Sum of the log-probabilities (nats) of each answer's tokens after its prompt."""
    from lm_eval.api.instance import Instance

    if not pairs:
        return []
    delimiter = ChatFormat(lm).delimiter
    requests = [
        Instance("loglikelihood", {}, (prompt, delimiter + text), 0) for prompt, text in pairs
    ]
    scores = [score for score, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    if np.isnan(scores).any():
        raise InputError("the model gave NaN for an answer: its weights or dtype are broken")
    return scores
