"""Conversations: what a model is to remember, the built-in bank, and readers for files.

The built-in bank (`bank/conversations.jsonl`) is the project's own writing, in the form `chat` with
further fields; see docs/conversations.md.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.data.conversations.conversation import Conversation, in_time_order, make_conversation
from unswayed.data.conversations.readers import READERS, read_conversations
from unswayed.data.rows import json_rows

__all__ = [
    "BUILTIN", "Conversation", "Fact", "builtin_conversations", "builtin_facts", "builtin_near",
    "in_time_order", "load_conversations", "make_conversation", "read_conversations",
]  # fmt: skip

BUILTIN = "builtin"
BANK = Path(__file__).with_name("bank") / "conversations.jsonl"


@dataclasses.dataclass(frozen=True)
class Fact:
    """One thing to remember of a built-in conversation, asked in two wordings.

    Attributes:
        conversation: the conversation's id.
        question: open question for training; the answer does not occur in it.
        answer: short phrase, verbatim from the conversation and in no other one.
        yes: closed question for training whose true answer is yes; it contains the answer.
        no: closed question for training whose true answer is no; it names a thing that was not
            said there, often one that was said in the conversation `builtin_near` pairs it with.
        held_out_question, held_out_yes, held_out_no: the same in other words, for evaluation only;
            `held_out_no` names another thing that was not said.
    """

    conversation: str
    question: str
    answer: str
    yes: str
    no: str
    held_out_question: str
    held_out_yes: str
    held_out_no: str


def builtin_conversations() -> list[Conversation]:
    """The project's own bank of 44 conversations, in the order of time."""
    return read_conversations(BANK, "chat")


def builtin_facts() -> list[Fact]:
    """The facts of the built-in conversations, three or more for each, in the bank's order."""
    return [
        Fact(conversation=row["id"], **fact) for _, row in json_rows(BANK) for fact in row["facts"]
    ]


def builtin_near() -> dict[str, str]:
    """Deliberate near-misses: id -> id of the conversation on a near topic with other facts."""
    return {row["id"]: row["near"] for _, row in json_rows(BANK) if "near" in row}


def load_conversations(specs: Iterable[str]) -> list[Conversation]:
    """Conversations of one or more specs, in the order of time.

    Args:
        specs: each "builtin", "oasst=FILE", "sharegpt=FILE" or "chat=FILE".

    Raises:
        InputError: unknown spec, missing or malformed file, or ids that occur twice.
    """
    loaded: list[Conversation] = []
    for spec in specs:
        form, _, path = spec.partition("=")
        if spec == BUILTIN:
            loaded += builtin_conversations()
        elif form in READERS and path:
            loaded += read_conversations(path, form)
        else:
            forms = ", ".join(f"{name}=FILE" for name in READERS)
            raise InputError(f"conversations {spec!r}: not one of {BUILTIN}, {forms}")
    twice = [id for id, count in Counter(c.id for c in loaded).items() if count > 1]
    if twice:
        raise InputError(
            f"conversations: the id {twice[0]!r} occurs in several sources; change it in one"
        )
    return in_time_order(loaded)
