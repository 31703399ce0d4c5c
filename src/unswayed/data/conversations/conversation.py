"""A conversation of one user, and what makes one sound."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from unswayed.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Conversation:
    """One conversation of one user.

    Attributes:
        id: unique within what is loaded together.
        time: when it began, ISO 8601 in UTC ("2025-01-06T08:10:00Z"), or None if unknown.
        turns: each {"role": "user" or "assistant", "content": text}; the user begins, the two take
            turns, the assistant has the last word.
    """

    id: str
    time: str | None
    turns: tuple[dict[str, str], ...]


def make_conversation(
    id: object, time: object, turns: Sequence[Mapping[str, object]]
) -> Conversation:
    """A conversation from loose parts, checked; space around texts is removed.

    Args:
        id: text or a whole number.
        time: ISO 8601, in UTC where it names no offset, or None.
        turns: each with `role` and `content`.

    Raises:
        InputError: says which part is wrong and what was given.
    """
    if not isinstance(id, (str, int)) or isinstance(id, bool) or not str(id).strip():
        raise InputError(f"id is {id!r}, it must be a text")
    if not turns:
        raise InputError("holds no turns; a user's turn and an answer are needed")
    checked = []
    for number, turn in enumerate(turns, start=1):
        role, content = turn["role"], turn["content"]
        if role not in ("user", "assistant"):
            raise InputError(f"role of turn {number} is {role!r}, it must be user or assistant")
        if not isinstance(content, str):
            raise InputError(f"turn {number} is {str(content)[:40]!r}, it must be a text")
        if not content.strip():
            raise InputError(f"turn {number} is empty")
        checked.append({"role": role, "content": _encodable(content.strip(), f"turn {number}")})
    roles = [turn["role"] for turn in checked]
    if len(set(roles)) == 1:
        raise InputError(f"only the {roles[0]} speaks; a user's turn and an answer are needed")
    if roles[0] != "user":
        raise InputError("turn 1 is the assistant's; the user must begin")
    for number, (before, role) in enumerate(pairwise(roles), start=2):
        if role == before:
            raise InputError(f"turn {number} is the {role}'s again; user and assistant alternate")
    if roles[-1] == "user":
        raise InputError(f"turn {len(roles)}, the last, is the user's; add its answer or drop it")
    return Conversation(
        _encodable(str(id).strip(), "id"), None if time is None else _utc(time), tuple(checked)
    )


def in_time_order(conversations: Iterable[Conversation]) -> list[Conversation]:
    """Earliest first; one without a time stays behind the one before it, or at the very start."""
    keyed, last = [], datetime.min.replace(tzinfo=UTC)
    for conversation in conversations:
        if conversation.time is not None:
            last = datetime.fromisoformat(conversation.time)
        keyed.append((last, conversation))
    return [conversation for _, conversation in sorted(keyed, key=lambda pair: pair[0])]


def _encodable(text: str, what: str) -> str:
    """The text, if it can be written as UTF-8: JSON may hold halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what} is not text: {error.reason} at {error.start}") from None
    return text


def _utc(time: object) -> str:
    try:
        moment = datetime.fromisoformat(time)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"time is {time!r}, it must be ISO 8601, e.g. 2025-01-06T08:10:00Z"
        ) from None
