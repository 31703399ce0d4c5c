"""What a memory in the weights is trained and tested on: questions and their answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from unswayed.data.conversations import Fact

YES, NO = "Yes", "No"
CLOSED = {"yes": YES, "no": NO}  # kind -> true answer
KINDS = (*CLOSED, "open", "open-no")
TRAIN, REPHRASED, NEW_PHRASE, HELD_OUT = "train", "rephrased", "new_phrase", "held_out"


@dataclasses.dataclass(frozen=True)
class QAPair:
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


@dataclasses.dataclass(frozen=True)
class LabelledPair:
    """A pair, with what it is for and what it is about.

    Attributes:
        use: "train"; "rephrased", held out: another wording, on a phrase asked about in training;
            "new_phrase", held out: another wording, on a phrase that no training question, of any
            conversation, asks about; or "held_out", of a bank.
        source: where the phrase is from: "said" in the conversation; said in a "near" or in a
            "random" other one, but not in this; "unrelated" to all of them; "" if unknown.
        phrase: what it asks about; "" for an open question on the whole conversation.
        quoted: of a new phrase said in the conversation: a training answer on it holds its words.
    """

    pair: QAPair
    use: str
    source: str
    phrase: str
    quoted: bool = False


def bank_pairs(facts: Iterable[Fact]) -> tuple[list[QAPair], list[QAPair]]:
    """Training and held-out pairs of the built-in facts: one open, yes and no each."""
    train, held_out = [], []
    for fact in facts:
        questions = (fact.question, fact.yes, fact.no)
        reworded = (fact.held_out_question, fact.held_out_yes, fact.held_out_no)
        for kind, answer, first, second in zip(
            ("open", *CLOSED), (fact.answer, YES, NO), questions, reworded, strict=True
        ):
            train.append(QAPair(fact.conversation, kind, first, answer))
            held_out.append(QAPair(fact.conversation, kind, second, answer))
    return train, held_out
