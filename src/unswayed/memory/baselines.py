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
        self._texts = [transcript(conversation.turns) for conversation in conversations]

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
        texts = [transcript(conversation.turns) for conversation in conversations]
        by_text = zip(texts, conversations, strict=True)
        new = [(text, talk) for text, talk in by_text if text not in self._summaries]
        if self._ask is None:
            summaries = [first_sentences(talk) for _, talk in new]
        else:
            requests = [[{"role": "user", "content": SUMMARISE + text}] for text, _ in new]
            summaries = [text.strip() for text in self._ask(requests)] if requests else []
        made = dict(zip((text for text, _ in new), summaries, strict=True))
        self._summaries = {text: (self._summaries | made)[text] for text in texts}
        if empty := sum(not summary for summary in self._summaries.values()):
            log.warning("%d of %d conversations have an empty summary", empty, len(texts))

    def recall(self, question: str) -> list[str]:
        return [summary for summary in self._summaries.values() if summary]

    def forget(self) -> None:
        self._summaries: dict[str, str] = {}  # by transcript


def first_sentences(conversation: Conversation) -> str:
    """The first sentence of each of the user's turns."""
    turns = [turn["content"] for turn in conversation.turns if turn["role"] == "user"]
    return " ".join(SENTENCE.split(text.strip())[0] for text in turns)
