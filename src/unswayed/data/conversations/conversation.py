"""A conversation of one user, and what makes one sound."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from unswayed.core.errors import InputError
from unswayed.data.texts import identifier, visible

EPOCH = re.compile(r"\d{10}(\d{3})?(\.\d+)?")
FIRST, LAST = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (1990, 2100))


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


class Unlearnable(InputError):
    """A conversation that is whole, but of a kind that cannot be learnt: files may hold some."""


def make_conversation(
    id: object, time: object, turns: Sequence[Mapping[str, object]]
) -> Conversation:
    """A conversation from loose parts, checked; space around texts is removed.

    Args:
        id: text or a whole number.
        time: see `moment`, or None.
        turns: each with `role` and `content`.

    Raises:
        Unlearnable: a role, a content or the order of turns is not as in `Conversation`.
        InputError: says which other part is wrong and what was given.
    """
    id = identifier(id)
    time = None if time is None else moment(time)
    if not turns:
        raise Unlearnable("holds no turns; a user's turn and an answer are needed")
    checked = []
    for number, turn in enumerate(turns, start=1):
        role, content = turn["role"], turn["content"]
        if role not in ("user", "assistant"):
            raise Unlearnable(f"role of turn {number} is {role!r}, it must be user or assistant")
        if not isinstance(content, str):
            raise Unlearnable(f"turn {number} is {str(content)[:40]!r}, it must be a text")
        if not visible(content):
            raise Unlearnable(f"turn {number} is empty")
        checked.append({"role": role, "content": content.strip()})
    roles = [turn["role"] for turn in checked]
    if len(set(roles)) == 1:
        raise Unlearnable(f"only the {roles[0]} speaks; a user's turn and an answer are needed")
    if roles[0] != "user":
        raise Unlearnable("turn 1 is the assistant's; the user must begin")
    for number, (before, role) in enumerate(pairwise(roles), start=2):
        if role == before:
            raise Unlearnable(f"turn {number} is the {role}'s again; user and assistant alternate")
    if roles[-1] == "user":
        raise Unlearnable(f"turn {len(roles)}, the last, is the user's; add its answer or drop it")
    return Conversation(id, time, tuple(checked))


def moment(time: object) -> str:
    """A point in time as ISO 8601 in UTC.

    Args:
        time: ISO 8601, in UTC where it names no offset; or, between 1990 and 2100, seconds or
            milliseconds since 1970, a number or its digits.

    Raises:
        InputError: it is neither.
    """
    since_1970 = time if not isinstance(time, bool) else None
    if isinstance(time, str) and EPOCH.fullmatch(time.strip()):
        since_1970 = float(time)
    try:
        if not isinstance(since_1970, (int, float)):
            moment = _calendar(time.strip())
        elif FIRST <= since_1970 < LAST:
            moment = datetime.fromtimestamp(since_1970, UTC)
        elif FIRST <= since_1970 / 1000 < LAST:
            moment = datetime.fromtimestamp(since_1970 / 1000, UTC)
        else:
            raise ValueError
        return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
    except (AttributeError, ValueError, OverflowError):
        raise InputError(
            f"time is {time!r}, it must be ISO 8601, e.g. 2025-01-06T08:10:00Z, or seconds since "
            "1970"
        ) from None


def _calendar(text: str) -> datetime:
    if text.isdecimal() and len(text) != len("20250106"):  # Python would find a time of day in it
        raise ValueError
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def in_time_order(conversations: Iterable[Conversation]) -> list[Conversation]:
    """Earliest first; one without a time stays behind the one before it, or at the very start."""
    keyed, last = [], datetime.min.replace(tzinfo=UTC)
    for conversation in conversations:
        if conversation.time is not None:
            last = datetime.fromisoformat(conversation.time)
        keyed.append((last, conversation))
    return [conversation for _, conversation in sorted(keyed, key=lambda pair: pair[0])]
