"""What a memory of conversations is compared with: all of them in the prompt, or a summary of each.

No memory at all is `PromptMemory` that was told nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence

from unswayed.data.conversations import Conversation
from unswayed.memory.conversation_memory import ConversationMemory, transcript
from unswayed.scoring.chat import Message

log = logging.getLogger(__name__)

Ask = Callable[[list[list[Message]]], list[str]]  # conversations -> the model's answers

SUMMARISE = (
    "Summarise this conversation between a user and an assistant in at most three sentences. Keep "
    "names, places, numbers and what was decided. Write the summary only.\n\n"
)
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


class FullMemory(ConversationMemory):
    """Full context: every conversation, word for word."""

    def __init__(self) -> None:
        self.forget()

    @property
    def name(self) -> str:
        return "full" if self._texts else "none"

    def remember_conversations(self, conversations: Sequence[Conversation]) -> None:
        self._texts = [transcript(one.turns) for one in conversations]

    def recall(self, question: str) -> list[str]:
        return self._texts


class SummaryMemory(ConversationMemory):
    """A summary of every conversation.

    What is summarised stays known while the memory grows: when told the same conversations and
    more, only the new ones are summarised. An empty summary is left out, with a warning.

    Args:
        ask: has a model answer conversations, here a request for each summary. Without it the
            summary is extractive: the first sentence of each of the user's turns.
    """

    def __init__(self, ask: Ask | None = None) -> None:
        self._ask = ask
        self.style = "extractive" if ask is None else "written"
        self.forget()

    @property
    def name(self) -> str:
        return "summary" if self._summaries else "none"

    def remember_conversations(self, conversations: Sequence[Conversation]) -> None:
        told = [transcript(one.turns) for one in conversations]
        known = self._summaries
        new = [(text, one) for text, one in zip(told, conversations, strict=True)]
        new = [(text, one) for text, one in new if text not in known]
        if self._ask is None:
            texts = [first_sentences(one) for _, one in new]
        else:
            asked = [[{"role": "user", "content": SUMMARISE + text}] for text, _ in new]
            texts = [text.strip() for text in self._ask(asked)] if asked else []
        known = known | {text: found for (text, _), found in zip(new, texts, strict=True)}
        self._summaries = {text: known[text] for text in told}
        if empty := sum(not summary for summary in self._summaries.values()):
            log.warning("%d of %d conversations have an empty summary", empty, len(told))

    def recall(self, question: str) -> list[str]:
        return [summary for summary in self._summaries.values() if summary]

    def forget(self) -> None:
        self._summaries: dict[str, str] = {}  # by transcript


def first_sentences(conversation: Conversation) -> str:
    """The first sentence of each of the user's turns."""
    own = [turn["content"] for turn in conversation.turns if turn["role"] == "user"]
    return " ".join(SENTENCE.split(text.strip())[0] for text in own)
