"""Rewards of candidate answers: a reward model's logit, or the likelihood of the reference.

Zero is the line between good and bad in both, so that chosen > 0 > rejected can be asked of
either (the paper's filter, arXiv 2510.09905).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from unswayed.core.errors import InputError
from unswayed.models.embedded import model_label
from unswayed.models.vectors import check_length, context_length, load_reader
from unswayed.scoring.ask import likelihoods
from unswayed.scoring.chat import ChatFormat, Message, plain_text
from unswayed.scoring.replies import strip_thinking
from unswayed.scoring.template import chat_template

PROBE = "So the answer is"  # of eight wordings the one that separates best (docs/preferences.md)


class Candidate(NamedTuple):
    """A candidate to score: the conversation it answers, the right answer, its own text."""

    prompt: list[Message]
    reference: str
    text: str


class Reward(Protocol):
    """What scores candidates; `name` says in records and cards which reward it was."""

    name: str

    def score(self, candidates: Sequence[Candidate]) -> list[float]: ...


class ClassifierReward:
    """A reward model: sequence classification with one logit; it does not see the reference.

    Args:
        model: Hub id or folder.
        device: as in torch; None takes the GPU if there is one.

    Raises:
        InputError: it cannot be loaded, was not trained as one, or has several logits.
    """

    def __init__(self, model: str, device: str | None = None) -> None:
        import transformers

        self.name = model_label(model)
        self._tokenizer, self._model = load_reader(
            transformers.AutoModelForSequenceClassification, model, device
        )
        if (labels := self._model.config.num_labels) != 1:
            raise InputError(
                f"{model} has {labels} labels, a reward model has one: give a model with "
                "num_labels 1 in its config.json"
            )
        self._limit = context_length(self._tokenizer, self._model.config)

    def score(self, candidates: Sequence[Candidate]) -> list[float]:
        """The raw logits, one at a time: many reward models read the last token that is no
        padding, and some have no padding token.

        Raises:
            InputError: a conversation exceeds the model's context; nothing is truncated.
        """
        import torch

        rendered = [self._render(candidate) for candidate in candidates]
        for ids, candidate in zip(rendered, candidates, strict=True):
            check_length(len(ids), self._limit, candidate.text)
        with torch.inference_mode():
            return [
                float(self._model(torch.tensor([ids], device=self._model.device)).logits.float())
                for ids in rendered
            ]

    def _render(self, candidate: Candidate) -> list[int]:
        """Token ids of the conversation with the candidate as the assistant's turn."""
        messages = [*candidate.prompt, {"role": "assistant", "content": candidate.text}]
        if self._tokenizer.chat_template is None:
            return self._tokenizer(plain_text(messages))["input_ids"]
        text = chat_template(self._tokenizer).whole(messages)
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]


class ReferenceReward:
    """How much more likely a candidate makes the reference answer: a reward without a reward model.

    log p(reference | prompt, candidate, probe) - log p(reference | prompt, probe) under the policy,
    in nats per token of the reference; the probe is "So the answer is". Thinking blocks are not
    read.

    Args:
        lm: lm-eval's model, see `unswayed.models.load.load_lm`.
    """

    name = "reference margin"

    def __init__(self, lm: Any) -> None:
        self._lm, self._chat = lm, ChatFormat(lm)

    def score(self, candidates: Sequence[Candidate]) -> list[float]:
        """The margins; all likelihoods are asked in one call, so that prompts are encoded once.

        Raises:
            InputError: the model gives NaN, or a text exceeds its context.
        """
        pairs = [
            (self._chat.render(prompt) + self._chat.delimiter + answer + PROBE, f" {reference}")
            for prompt, reference, text in candidates
            for answer in (f"{strip_thinking(text)}\n\n", "")
        ]
        prompts, references = [prompt for prompt, _ in pairs], [[text] for _, text in pairs]
        rows = likelihoods(self._lm, prompts, references, hint=" (try float32)")
        results = [result for (result,) in rows]
        return [
            (with_it.nats - without.nats) / without.tokens
            for with_it, without in zip(results[::2], results[1::2], strict=True)
        ]


def drop_reason(chosen: float, rejected: float, margin: float) -> str | None:
    """Why a pair with these rewards must go, None if it may stay."""
    if not chosen > 0:
        return "reward of chosen not above 0"
    if not rejected < 0:
        return "reward of rejected not below 0"
    return None if chosen - rejected >= margin else "rewards closer than the margin"
