"""Histories as JSONL, one event per line: user, time, query, response [, about, thing, id]."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import pairwise
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.data.histories.events import Event, Histories, Task, make_histories
from unswayed.data.rows import json_rows
from unswayed.data.texts import visible

log = logging.getLogger(__name__)

MAX_LABELS = 20
SECONDS, MILLISECONDS = 1e8, 1e11  # since 1970: from 1973 on either can be told by its size


def read(path: str | Path) -> Histories:
    """Histories of a JSONL file; lines that are out of time are sorted, with a warning.

    The responses are labels if there are at most 20 different ones and each occurs at least twice,
    and a scale if all of these are numbers; else they are free text.

    Raises:
        InputError: names file, line and field of the first fault.
    """
    path = Path(path)
    rows = [(where, _event(where, row)) for where, row in json_rows(path)]
    if not rows:
        raise InputError(f"{path}: holds no events; give one JSON object a line")
    if any(e.time >= MILLISECONDS for _, e in rows):
        for where, event in rows:
            if SECONDS <= event.time < MILLISECONDS:
                raise InputError(
                    f"{where}: time is {event.time:.0f}, seconds since 1970, where others are "
                    "milliseconds: write all in one unit"
                )
    late = sum(a.time > b.time for (_, a), (_, b) in pairwise(rows))
    if late:
        log.warning(
            "%s: %d of %d events are earlier than the line before; sorted", path, late, len(rows)
        )
    return make_histories(_task(path, rows), rows)


def _task(path: Path, rows: list[tuple[str, Event]]) -> Task:
    counts = Counter(event.response for _, event in rows)
    once = [(where, event.response) for where, event in rows if counts[event.response] == 1]
    if len(counts) > MAX_LABELS or once:
        if once and len(counts) <= MAX_LABELS:
            log.warning("%s: responses count as free text: %r occurs only once", *once[0])
        return Task(path.stem, "What does this person answer?", None, ordinal=False)
    numbers = all(_is_number(label) for label in counts)
    first: dict[object, str] = {}
    for label in counts:
        if (twin := first.setdefault(float(label) if numbers else visible(label), label)) != label:
            raise InputError(
                f"{path}: the responses {twin!a} and {label!a} are the same "
                f"{'number' if numbers else 'to the eye'}: write it in one way"
            )
    if numbers:
        labels = tuple(sorted(counts, key=float))
        ask = f"Which number, from {labels[0]} to {labels[-1]}, does this person give?"
        return Task(path.stem, ask, labels, ordinal=True)
    labels = tuple(sorted(counts))
    ask = f"Which of these does this person answer: {', '.join(labels)}?"
    return Task(path.stem, ask, labels, ordinal=False)


def _is_number(text: str) -> bool:
    try:
        return float(text) - float(text) == 0  # neither nan nor inf
    except ValueError:
        return False


def _event(where: str, row: dict) -> Event:
    time = row.get("time")
    if not isinstance(time, (int, float)) or isinstance(time, bool):
        raise InputError(
            f"{where}: time is {time!r}, it must be a number, such as seconds since 1970"
        )
    about = [] if row.get("about") is None else row["about"]
    if not isinstance(about, list) or not all(isinstance(tag, str) for tag in about):
        raise InputError(f"{where}: about is {about!r}, it must be a list of texts")
    return Event(
        user=_text(where, row, "user"),
        time=float(str(time)),  # float() itself raises for huge whole numbers; so they become inf
        query=_text(where, row, "query"),
        response=_text(where, row, "response"),
        about=tuple(about),
        thing=_text(where, row, "thing", ""),
        id=_text(where, row, "id", ""),
    )


def _text(where: str, row: dict, field: str, otherwise: str | None = None) -> str:
    """A text, or a number as text with all its digits, without space around it; 4.0 is 4."""
    value = row.get(field, otherwise)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    if not isinstance(value, str) or (not visible(value) and otherwise is None):
        raise InputError(f"{where}: {field} is {value!r}, it must be a text or a number")
    return value.strip()
