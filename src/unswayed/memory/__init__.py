"""Memory: the mechanism that lets the model know the user.

The audit talks to every mechanism through this one interface; each lives in a module of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from unswayed.data.personas import Persona
from unswayed.scoring.chat import Message


class Memory(Protocol):
    """What a memory mechanism does.

    Attributes:
        name: the mechanism: "none", "prompt", ...
        style: how it enters the prompt, or "" where there is only one way.
    """

    name: str
    style: str

    def remember(self, persona: Persona) -> None:
        """Take in what the user is or said; replaces what was known before."""

    def messages(self, question: str) -> list[Message]:
        """The conversation that the model reads for a question, the question last."""

    def active(self, model: Any) -> AbstractContextManager[None]:
        """Around a call to the model: switch weights that hold the memory on, then off."""

    def forget(self) -> None:
        """Know nothing again."""


@runtime_checkable
class FusedMemory(Protocol):
    """A memory that asks the model several times and makes one answer of it.

    Its `messages` are those of the first view, which a row shows.
    """

    def views(self) -> Sequence[Any]:
        """What is asked, each with `messages` and `active` of a `Memory`; none: asked as it is."""

    def fuse(self, scores: Sequence[Sequence[float]]) -> list[float]:
        """Log-probabilities of the options, from the scores by which each view would choose."""
