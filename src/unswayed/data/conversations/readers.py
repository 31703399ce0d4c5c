"""Readers of conversations: OpenAssistant trees, ShareGPT-like files and plain chat files.

They are read from the user's own copy and are never part of this package.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.data.conversations.conversation import (
    Conversation,
    Unlearnable,
    make_conversation,
    moment,
)
from unswayed.data.roles import ROLES
from unswayed.data.rows import json_rows, say_left_out

log = logging.getLogger(__name__)

TIMES = (
    "time", "timestamp", "tstamp", "create_time", "created_at", "createdAt", "created_date",
    "created", "datetime", "date",
)  # fmt: skip


def read_conversations(path: str | Path, form: str) -> list[Conversation]:
    """Conversations of a file of the form "oasst", "sharegpt" or "chat", in the file's order.

    The file is JSONL or one JSON list. A conversation without an id is called FILE_NUMBER.
    Conversations that cannot be learnt are left out, and so is of others what comes before the
    user's first turn and behind the last answer; a warning each says how many.

    Raises:
        InputError: names file, line (or place in the list) and field of the first fault; or none
            can be learnt.
    """
    path, read = Path(path), READERS[form]
    conversations: list[Conversation] = []
    places: dict[str, str] = {}
    left_out: list[str] = []
    cut: Counter[str] = Counter()
    first_fault, number = "", 0
    for number, (where, row) in enumerate(json_rows(path), start=1):
        id = f"{path.stem}_{number}" if row.get("id") is None else row["id"]
        try:
            tree_id, time, turns = read(row)
            id = id if tree_id is None else tree_id
            turns, parts = _learnt_part(turns)
            conversation = make_conversation(id, time, turns)
        except Unlearnable as reason:
            first_fault = first_fault or f"{where}: {reason}"
            left_out.append(f"{id} ({reason})")
            continue
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if first := places.get(conversation.id):
            raise InputError(f"{where}: id {conversation.id!r} is already used at {first}")
        places[conversation.id] = where
        cut.update(parts)
        conversations.append(conversation)
    if not conversations:
        raise InputError(first_fault or f"{path}: holds no conversations")
    say_left_out(path, "conversations", left_out, number)
    for part, count in cut.items():
        log.warning("%s: left out %s of %d conversations", path, part, count)
    return conversations


def _learnt_part(turns: list[dict]) -> tuple[list[dict], list[str]]:
    """From the user's first turn to the last answer, and names of what is around it."""
    roles = [turn["role"] for turn in turns]
    start, end, parts = 0, len(roles), []
    if roles[:1] == ["system"]:
        start, parts = 1, ["the system message"]
    if {"user", "assistant"} <= set(roles):
        if roles[start] == "assistant":
            start = roles.index("user")
            parts.append("what the assistant says before the user")
        if roles[-1] == "user":
            end -= 1
            parts.append("the user's last turn, which has no answer,")
    return turns[start:end], parts


# -- readers: one row -> id (unless it is its field `id`), time and turns -------------------------


def _turns(row: dict, field: str, role: str, content: str) -> list[dict]:
    """The messages in row[field], with our names for keys and roles."""
    messages = row.get(field)
    if not isinstance(messages, list):
        raise Unlearnable(f"field {field} must be a list of messages, got {str(messages)[:40]!r}")
    turns = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or role not in message or content not in message:
            raise Unlearnable(f"turn {number} of {field} needs the fields {role} and {content}")
        if not isinstance(message[role], str):
            raise Unlearnable(f"{role} of turn {number} is {message[role]!r}, it must be a text")
        turns.append({"role": ROLES.get(message[role], message[role]), "content": message[content]})
    return turns


def _time(row: dict, field: str) -> str | None:
    """When a conversation began: as it says itself, else as its first message says."""
    messages = row[field]
    for source in (row, *messages[:1]):
        times = {name: source[name] for name in TIMES if source.get(name) is not None}
        if "time" in times:
            return moment(times["time"])
        moments = {}
        for name, time in times.items():
            try:
                moments[name] = moment(time)
            except InputError as error:
                raise InputError(f"field {name}: {error}") from None
        if len(set(moments.values())) > 1:
            given = ", ".join(f"{name} {time}" for name, time in moments.items())
            raise InputError(f"which is the time, {given}? Add a field time")
        if moments:
            return next(iter(moments.values()))
    return None


def _chat(row: dict) -> tuple:
    turns = _turns(row, "messages", "role", "content")
    return None, _time(row, "messages"), turns


def _sharegpt(row: dict) -> tuple:
    turns = _turns(row, "conversations", "from", "value")
    return None, _time(row, "conversations"), turns


def _oasst(row: dict) -> tuple:
    """OpenAssistant trees (Köpf et al. 2023, arXiv 2304.07327): the best-ranked path.

    At each message the reply of the lowest `rank` is taken (0 is the best), the first one where
    ranks are missing or equal; deleted messages are not followed; a last prompt without an answer
    is cut off.
    """
    path, replies = [], [row.get("prompt")]
    while replies:
        for message in replies:
            if not isinstance(message, dict) or not {"role", "text"} <= message.keys():
                raise Unlearnable(f"message {len(path) + 1} of the tree needs role and text")
            if not isinstance(message.get("rank"), (int, float, type(None))):
                raise Unlearnable(f"rank is {message['rank']!r}, it must be a number")
        replies = [message for message in replies if not message.get("deleted")]
        if not replies:
            break
        best = min(
            replies, key=lambda reply: float("inf") if reply.get("rank") is None else reply["rank"]
        )
        path.append(best)
        replies = best.get("replies") or []
        if not isinstance(replies, list):
            raise Unlearnable(f"replies of message {len(path)} must be a list")
    turns = _turns({"path": path}, "path", "role", "text")
    if turns and turns[-1]["role"] == "user":
        turns.pop()
    if not turns:
        raise Unlearnable("without an answer")
    root = path[0]
    return row.get("message_tree_id", root.get("message_id")), root.get("created_date"), turns


READERS: dict[str, Callable[[dict], tuple]] = {
    "oasst": _oasst,
    "sharegpt": _sharegpt,
    "chat": _chat,
}
