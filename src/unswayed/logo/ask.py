"""What is put to the model: conversations, with the answers whose likelihoods are compared.

Requests go through the audit's scorer (`unswayed.scoring.lm`), in which prompts that begin alike
pass the model once: those of one community, or those with the same instruction. Give it many at a
time. In training a lesson has the same tokens as when it is asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unswayed.core.errors import InputError
from unswayed.data.histories import Event
from unswayed.models.base import Base
from unswayed.models.load import loaded_lm
from unswayed.plum.samples import Sample
from unswayed.plum.settings import PlumSettings
from unswayed.scoring.ask import encode_pair, likelihoods, log_probs, open_prompts
from unswayed.scoring.chat import ChatFormat, Message, end_token


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

    candidates = [ChatFormat(lm).delimiter + label for label in labels]
    rows = log_probs(lm, prompts, [candidates] * len(prompts), names=["an answer"] * len(prompts))
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
    texts = [[delimiter + text for text in group] for group in candidates]
    rows = likelihoods(lm, prompts, texts, names=["an answer"] * len(prompts))
    return [softmax([result.nats / result.tokens for result in row]) for row in rows]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """An answer that a module learns to give.

    Attributes:
        event: whose answer it is, and to what.
        reads: the prompt.
        answer: what is to be said.
        module: number of the module that learns it, from 0.
        past: events of the same user, strictly before, of which it shows a profile and evidence.
    """

    event: Event
    reads: list[Message]
    answer: str
    module: int = 0
    past: tuple[Event, ...] = ()


def lesson_samples(
    base: Base,
    lessons: Sequence[Lesson],
    settings: PlumSettings,
    piece: Callable[[Lesson], str],
    too_long: Callable[[Lesson, str], str],
) -> list[Sample]:
    """Lessons as tokens to train on, the same as when they are asked; only the answer's count.

    Args:
        piece: of a lesson, the id under which it is trained.
        too_long: of a lesson and "makes ... more than the limit ...", the sentence for the user.

    Raises:
        InputError: a lesson is too long, or the tokenizer makes no token of its answer.
    """
    lm = loaded_lm(base.model, base.tokenizer)
    limit = min(settings.max_length, base.max_length or settings.max_length)
    prompts = open_prompts(lm, [lesson.reads for lesson in lessons])
    samples = []
    for lesson, prompt in zip(lessons, prompts, strict=True):
        sample = make_sample(lm, piece(lesson), prompt, lesson.answer, settings.qa_weight)
        if len(sample.ids) > limit:
            excess = f"makes a sample of {len(sample.ids)} tokens, more than the limit of {limit}"
            raise InputError(too_long(lesson, excess))
        samples.append(sample)
    return samples


def make_sample(lm: Any, piece: str, prompt: str, answer: str, weight: float) -> Sample:
    """A prompt and its true answer as tokens to train on, the same as when it is asked.

    Args:
        piece: the id under which it is trained.
        prompt: of `scoring.ask.open_prompts`.
        weight: of each token of the answer, and of the one that ends it; the prompt's have none.

    Raises:
        InputError: the tokenizer makes no token of the answer.
    """
    context, ids = encode_pair(lm, prompt, ChatFormat(lm).delimiter + answer)
    if not ids:
        raise InputError(f"the tokenizer makes no token of the answer {answer!r}: reword it")
    end = end_token(lm.tokenizer)  # what the template puts behind
    ids = ids if end is None else [*ids, end]
    weights = (0.0,) * len(context) + (weight,) * len(ids)
    return Sample(piece, answer, (*context, *ids), weights)
