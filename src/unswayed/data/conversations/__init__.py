"""Conversations: what a model is to remember, the built-in bank, and readers for files.

The built-in bank (`bank/conversations.jsonl`) is the project's own writing, in the form `chat` with
further fields; see docs/conversations.md. OpenAssistant trees, ShareGPT-like files and plain chat
files are read from the user's own copy and are never part of this package.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.core.files import read_text

log = logging.getLogger(__name__)

BUILTIN = "builtin"


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
    return read_conversations(_bank(), "chat")


def builtin_facts() -> list[Fact]:
    """The facts of the built-in conversations, three or more for each, in the bank's order."""
    return [
        Fact(conversation=row["id"], **fact) for _, row in _rows(_bank()) for fact in row["facts"]
    ]


def builtin_near() -> dict[str, str]:
    """Deliberate near-misses: id -> id of the conversation on a near topic with other facts."""
    return {row["id"]: row["near"] for _, row in _rows(_bank()) if "near" in row}


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
    twice = [id for id, count in Counter(one.id for one in loaded).items() if count > 1]
    if twice:
        raise InputError(
            f"conversations: the id {twice[0]!r} occurs in several sources; change it in one"
        )
    return in_time_order(loaded)


def read_conversations(path: str | Path, form: str) -> list[Conversation]:
    """Conversations of a file of the form "oasst", "sharegpt" or "chat", in the file's order.

    The file is JSONL or one JSON list. A conversation without an id is called FILE_NUMBER. Trees
    without a usable path, and system messages, are left out with one warning each.

    Raises:
        InputError: names file, line (or place in the list) and field of the first fault.
    """
    path, read = Path(path), READERS[form]
    conversations: list[Conversation] = []
    places: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    systems = 0
    for number, (where, row) in enumerate(_rows(path), start=1):
        try:
            found = read(row)
            if isinstance(found, str):
                skipped[found] += 1
                continue
            id, time, turns = found
            if turns and turns[0]["role"] == "system":
                turns, systems = turns[1:], systems + 1
            one = make_conversation(f"{path.stem}_{number}" if id is None else id, time, turns)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if one.id in places:
            raise InputError(f"{where}: id {one.id!r} is already used at {places[one.id]}")
        places[one.id] = where
        conversations.append(one)
    if skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        log.warning("%s: left out %d of %d trees: %s", path, skipped.total(), number, reasons)
    if systems:
        log.warning("%s: left out the system message of %d conversations", path, systems)
    if not conversations:
        raise InputError(f"{path}: holds no conversations")
    return conversations


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
        checked.append({"role": role, "content": _whole(content.strip(), f"turn {number}")})
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
        _whole(str(id).strip(), "id"), None if time is None else _utc(time), tuple(checked)
    )


def in_time_order(conversations: Iterable[Conversation]) -> list[Conversation]:
    """Earliest first; one without a time stays behind the one before it, or at the very start."""
    keyed, last = [], datetime.min.replace(tzinfo=UTC)
    for one in conversations:
        if one.time is not None:
            last = datetime.fromisoformat(one.time)
        keyed.append((last, one))
    return [one for _, one in sorted(keyed, key=lambda pair: pair[0])]


def _bank() -> Path:
    return Path(str(files("unswayed.data.conversations") / "bank" / "conversations.jsonl"))


def _whole(text: str, what: str) -> str:
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


def _rows(path: Path) -> Iterable[tuple[str, dict]]:
    """(place, object) of each row of a JSONL file or of each entry of one JSON list."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        rows = [(f"{path}, entry {n}", row) for n, row in enumerate(_json(text, str(path)), 1)]
    else:
        # Not splitlines(): it also splits at U+2028, U+0085 and six more, inside texts.
        lines = enumerate(text.split("\n"), start=1)
        rows = ((f"{path}:{n}", _json(line, f"{path}:{n}")) for n, line in lines if line.strip())
    for where, row in rows:
        if not isinstance(row, dict):
            raise InputError(f"{where}: a JSON object is needed, got {str(row)[:40]!r}")
        yield where, row


def _json(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from None


# -- readers: one row -> id, time and turns, or the reason why it is left out -------------------


def _turns(row: dict, field: str, role: str, content: str, roles: dict[str, str]) -> list[dict]:
    """The messages in row[field], with our names for keys and roles."""
    messages = row.get(field)
    if not isinstance(messages, list):
        raise InputError(f"field {field} must be a list of messages, got {str(messages)[:40]!r}")
    turns = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or role not in message or content not in message:
            raise InputError(f"turn {number} of {field} needs the fields {role} and {content}")
        if not isinstance(message[role], str) or message[role] not in roles:
            raise InputError(
                f"{role} of turn {number} is {message[role]!r}, it must be {' or '.join(roles)}"
            )
        turns.append({"role": roles[message[role]], "content": message[content]})
    return turns


def _chat(row: dict) -> tuple:
    roles = {"user": "user", "assistant": "assistant", "system": "system"}
    turns = _turns(row, "messages", "role", "content", roles)
    return row.get("id"), row.get("time"), turns


def _sharegpt(row: dict) -> tuple:
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    turns = _turns(row, "conversations", "from", "value", roles)
    return row.get("id"), row.get("time"), turns


def _oasst(row: dict) -> tuple | str:
    """OpenAssistant trees (Köpf et al. 2023, arXiv 2304.07327): the best-ranked path.

    At each message the reply of the lowest `rank` is taken (0 is the best), the first one where
    ranks are missing or equal; deleted messages are not followed; a last prompt without an answer
    is cut off.
    """
    roles = {"prompter": "user", "assistant": "assistant"}
    path, replies = [], [row.get("prompt")]
    while replies:
        for message in replies:
            if not isinstance(message, dict) or not {"role", "text"} <= message.keys():
                raise InputError(f"message {len(path) + 1} of the tree needs role and text")
            if not isinstance(message.get("rank"), (int, float, type(None))):
                raise InputError(f"rank is {message['rank']!r}, it must be a number")
        replies = [message for message in replies if not message.get("deleted")]
        if not replies:
            break
        best = min(
            replies, key=lambda reply: float("inf") if reply.get("rank") is None else reply["rank"]
        )
        path.append(best)
        replies = best.get("replies") or []
        if not isinstance(replies, list):
            raise InputError(f"replies of message {len(path)} must be a list")
    turns = _turns({"path": path}, "path", "role", "text", roles)
    if turns and turns[-1]["role"] == "user":
        turns.pop()
    if not turns:
        return "without an answer"
    expected = ["user", "assistant"] * (len(turns) // 2)
    if [turn["role"] for turn in turns] != expected:
        return "whose roles do not alternate"
    root = path[0]
    id = row.get("message_tree_id", root.get("message_id"))
    return id, root.get("created_date"), turns


READERS: dict[str, Callable[[dict], tuple | str]] = {
    "oasst": _oasst,
    "sharegpt": _sharegpt,
    "chat": _chat,
}
