"""What memories of conversations share: how a persona is told, and how texts enter the prompt.

A memory of conversations is told them by `remember_conversations`, a persona by `remember`, as one
short conversation for each thing the user says of themself. Both replace what was known before.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from unswayed.data.conversations import Conversation
from unswayed.data.personas import Persona
from unswayed.memory.prompt import ACKNOWLEDGED
from unswayed.scoring.chat import Message

REMEMBERED = (
    "You are a helpful assistant. This is what you remember from earlier conversations with the "
    "user:\n\n"
)
SPEAKERS = {"user": "User: ", "assistant": "Assistant: "}


def persona_conversations(persona: Persona) -> list[Conversation]:
    """A persona as conversations: one exchange for each slot, in the user's own words."""
    return [
        Conversation(
            id=name,
            time=None,
            turns=(
                {"role": "user", "content": text},
                {"role": "assistant", "content": ACKNOWLEDGED},
            ),
        )
        for name, text in persona.texts(first_person=True)
    ]


def transcript(turns: Sequence[Message]) -> str:
    """Turns as text, one paragraph each that begins with who speaks."""
    return "\n".join(SPEAKERS[turn["role"]] + turn["content"] for turn in turns)


class ConversationMemory:
    """A memory that puts texts about earlier conversations into the system prompt.

    A subclass says what it keeps (`remember_conversations`) and which texts it puts there for a
    question (`recall`). No texts, no system message.
    """

    name: str
    style = ""

    def remember(self, persona: Persona) -> None:
        self.remember_conversations(persona_conversations(persona))

    def remember_conversations(self, conversations: Sequence[Conversation]) -> None:
        """Take in conversations, in the order of time; replaces what was known before."""
        raise NotImplementedError

    def recall(self, question: str) -> list[str]:
        """The texts that the model reads for a question."""
        raise NotImplementedError

    def messages(self, question: str) -> list[Message]:
        bare = [{"role": "user", "content": question}]
        texts = self.recall(question)
        if not texts:
            return bare
        content = REMEMBERED + "".join(f"{text}\n\n" for text in texts)
        return [{"role": "system", "content": content}, *bare]

    def active(self, model: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def forget(self) -> None:
        self.remember_conversations([])
