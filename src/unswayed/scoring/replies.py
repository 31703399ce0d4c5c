"""What a generated text says: thinking blocks, JSON objects, the option that it picks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from unswayed.data.items import LETTERS

_MARK = r"(?:\w+:)?(?:think|thinking|thought|reasoning)"
_OPEN, _CLOSE = (
    rf"(?:<{slash}{_MARK}>|\[{slash}{_MARK}\]|◁{slash}{_MARK}▷)" for slash in ("", "/")
)
THINKING = re.compile(f"{_OPEN}.*?{_CLOSE}", re.DOTALL | re.IGNORECASE)
LAST_THOUGHT = re.compile(_CLOSE, re.IGNORECASE)
OPEN_THOUGHT = re.compile(_OPEN, re.IGNORECASE)


def strip_thinking(text: str) -> str:
    """The answer without thinking blocks; "" if thinking never ended.

    A closing tag without an opening one (templates may put the opening tag into the prompt) ends
    the thinking too.
    """
    text = THINKING.sub("", text)
    if closed := list(LAST_THOUGHT.finditer(text)):
        text = text[closed[-1].end() :]
    return "" if OPEN_THOUGHT.search(text) else text.strip()


def json_objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects in a reply, in the order in which they begin; thinking is not read."""
    text = strip_thinking(text)
    objects = []
    for start in (i for i, c in enumerate(text) if c == "{"):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            objects.append(value)
    return objects


def extract_answer(text: str, options: Sequence[str]) -> int | None:
    """Index into `options` of the one that a generated text picks, or None if it picks none.

    In this order, thinking blocks removed: a JSON field "answer"; the text is a letter; "answer is
    X" or "Answer: X" (the last such statement); a line or the text that opens with a letter and a
    mark ("B." or "(B)"); the only option whose text occurs.
    """
    text = strip_thinking(text)
    letters = LETTERS[: len(options)]

    def index(value: str) -> int | None:
        value = value.strip().strip("*`\"'").strip().rstrip(".)").lstrip("(")
        if len(value) == 1 and value.upper() in letters:
            return letters.index(value.upper())
        same = [i for i, option in enumerate(options) if option.lower().strip(".") == value.lower()]
        return same[0] if len(same) == 1 else None

    for match in re.finditer(r"\{[^{}]*\}", text):
        try:
            field = json.loads(match[0]).get("answer")
        except json.JSONDecodeError:
            continue
        if field is not None and (picked := index(str(field))) is not None:
            return picked
    if (picked := index(text)) is not None:
        return picked
    # A letter counts if the statement ends there: "Answer: A person ..." states no letter.
    stated = re.findall(
        rf"(?:answer|option|choice)\b(?:\s+is)?\s*:?\s*[*`\"']*\(?([{letters}])"
        r"(?=[*`\"']*\)?(?:[.,:;)]|\s*$|\s+(?:because|since|as|-)\b))",
        text,
        re.IGNORECASE | re.MULTILINE,
    )
    if stated:
        return letters.index(stated[-1].upper())
    named = re.findall(r"answer(?:\s+is)?\s*:?\s*([^\n]+)", text, re.IGNORECASE)
    if named and (picked := index(named[-1])) is not None:
        return picked
    opened = re.findall(
        rf"^\s*[*`\"']*(?:\(([{letters}])\)|([{letters}])[.):])", text, re.MULTILINE
    )
    if len(set(opened)) == 1:
        return letters.index("".join(opened[0]))
    return _only_label(text, options)


def _only_label(text: str, options: Sequence[str]) -> int | None:
    """The only option whose text occurs as words; a label inside a longer label does not count."""
    rest = text.lower()
    matches = []
    for i in sorted(range(len(options)), key=lambda i: -len(options[i])):
        pattern = rf"(?<!\w){re.escape(options[i].lower().rstrip('.'))}(?!\w)"
        rest, count = re.subn(pattern, " ", rest)
        if count:
            matches.append(i)
    return matches[0] if len(matches) == 1 else None
