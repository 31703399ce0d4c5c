"""Gated memory: the notes about the user stand in the prompt only where the question needs them.

A question needs them if it is nearer to one of the notes than questions are that the notes cannot
help with. Such questions are those on the built-in conversations, in which other people ask about
their own lives; how near they come to this user's notes is counted, and the threshold is a
percentile of that. Only the order of the similarities matters, so the rule has no scale to tune.

Near means by words (TF-IDF), which needs no model; docs/memories.md says what that can do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from unswayed.core.errors import InputError
from unswayed.data.conversations import builtin_conversations, builtin_facts
from unswayed.data.personas import Persona
from unswayed.memory.prompt import PromptMemory
from unswayed.memory.registry import Mechanism
from unswayed.scoring.chat import Message

NAME = "gated"


class NoteFilter:
    """Which questions need some texts.

        score(q) = max over the texts d of  cos(tfidf(q), tfidf(d))
        needs(q) = score(q) > the percentile of score over the questions that do not

    tfidf and its smoothed idf are scikit-learn's, without English stop words. How rare a word is
    is counted over the texts and a corpus of everyday language: without that, the frame of an
    item ("... likely to feel?") would count as a rare word.

    Args:
        texts: what may be needed; at least one.
        unrelated: questions that do not need them.
        corpus: texts in everyday language.
        percentile: in (0, 100), the share of `unrelated` that stays out.

    Attributes:
        threshold: a cosine in [0, 1]. Where it is 0, one common word opens the gate.
    """

    def __init__(
        self,
        texts: Sequence[str],
        unrelated: Sequence[str],
        corpus: Sequence[str],
        percentile: float,
    ) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._words = TfidfVectorizer(stop_words="english").fit([*corpus, *texts])
        self._rows = self._words.transform(texts)
        self.threshold = float(np.percentile(self.scores(unrelated), percentile))

    def scores(self, questions: Sequence[str]) -> np.ndarray:
        """(n,) cosines of each question and the text nearest to it; 0 where no word is shared."""
        return (self._words.transform(questions) @ self._rows.T).max(axis=1).toarray().ravel()

    def needs(self, question: str) -> bool:
        return bool(self.scores([question])[0] > self.threshold)


class GatedMemory:
    """Prompt memory (style system) for questions that need it; else as if there were none.

    Args:
        percentile: of the questions that do not need the memory, how many are kept from it.
    """

    def __init__(self, percentile: int = 95) -> None:
        self.style = f"tfidf-{percentile}"
        self._percentile = percentile
        self._unrelated = [fact.question for fact in builtin_facts()]
        self._corpus = [turn["content"] for talk in builtin_conversations() for turn in talk.turns]
        self._bare, self._notes = PromptMemory(), PromptMemory()
        self.forget()

    @property
    def name(self) -> str:
        return NAME if self._filter else "none"

    def remember(self, persona: Persona) -> None:
        self._notes.remember(persona)
        texts = [text for _, text in persona.texts()]
        self._filter = NoteFilter(texts, self._unrelated, self._corpus, self._percentile)

    def messages(self, question: str) -> list[Message]:
        needed = self._filter is not None and self._filter.needs(question)
        return (self._notes if needed else self._bare).messages(question)

    def active(self, model: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def forget(self) -> None:
        self._notes.forget()
        self._filter: NoteFilter | None = None


def parse_style(style: str) -> int:
    """Percentile of a style such as "tfidf-95".

    Raises:
        InputError: it has another form.
    """
    if match := re.fullmatch("tfidf-([1-9][0-9]?)", style):
        return int(match[1])
    raise InputError(
        f"memory style {style!r} is not of the form tfidf-Q, which --memory gated has, Q a "
        "percentile from 1 to 99"
    )


def describe(style: str) -> str:
    return (
        f"The memory mechanism was gated, in the style {style}: notes about the user stand in "
        "the system prompt only where the question is nearer to one of them, by the words they "
        f"share (TF-IDF), than {parse_style(style)} % of questions that they cannot help with. "
        "All other prompts are those without memory."
    )


def opened(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How often the gate let the memory in, by condition."""
    let_in: dict[str, list[bool]] = {}
    for row in rows:
        if row["persona_id"] is not None:
            let_in.setdefault(row["condition"], []).append(row["system_prompt"] is not None)
    if not let_in:
        return []
    shares = ", ".join(
        f"{100 * sum(passed) / len(passed):.1f} % of {len(passed)} under {condition}"
        for condition, passed in let_in.items()
    )
    return [
        f"The gate let the memory into these prompts: {shares}. The others are the prompts without "
        "memory, where nothing can flip."
    ]


MECHANISM = Mechanism(
    default_style="tfidf-95",
    check=lambda options, personas: parse_style(options.memory_style),
    make=lambda options, lm, waiting: GatedMemory(parse_style(options.memory_style)),
    describe=describe,
    notes=lambda memory, personas, rows: opened(rows),
    gates=True,
    in_prompt=True,
)
