"""What a memory in the weights is trained and tested on: a question and its answer."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Pair:
    """One question on a conversation, with its answer, to train or test a memory.

    Attributes:
        conversation: the conversation's id.
        kind: "yes" or "no" for a closed question, by its true answer; "open" for an open question
            on what was said, "open-no" for one on what was not.
        question, answer: the text.
    """

    conversation: str
    kind: str
    question: str
    answer: str
