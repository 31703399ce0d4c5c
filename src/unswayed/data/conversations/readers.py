"""Readers of conversations: OpenAssistant trees, ShareGPT-like files and plain chat files.

They are read from the user's own copy and are never part of this package.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.core.files import read_text
from unswayed.data.conversations.conversation import Conversation, make_conversation
from unswayed.data.rows import check_object, json_lines, parse_json

log = logging.getLogger(__name__)


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
    for number, (where, row) in enumerate(object_rows(path), start=1):
        try:
            parts = read(row)
            if isinstance(parts, str):
                skipped[parts] += 1
                continue
            id, time, turns = parts
            if turns and turns[0]["role"] == "system":
                turns, systems = turns[1:], systems + 1
            id = f"{path.stem}_{number}" if id is None else id
            conversation = make_conversation(id, time, turns)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if first := places.get(conversation.id):
            raise InputError(f"{where}: id {conversation.id!r} is already used at {first}")
        places[conversation.id] = where
        conversations.append(conversation)
    if skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        log.warning("%s: left out %d of %d trees: %s", path, skipped.total(), number, reasons)
    if systems:
        log.warning("%s: left out the system message of %d conversations", path, systems)
    if not conversations:
        raise InputError(f"{path}: holds no conversations")
    return conversations


def object_rows(path: Path) -> Iterator[tuple[str, dict]]:
    """(place, object) of each row of a JSONL file or of each entry of one JSON list."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        for number, row in enumerate(parse_json(text, path), start=1):
            where = f"{path}, entry {number}"
            yield where, check_object(row, where)
    else:
        for number, row in json_lines(path, text):
            yield f"{path}:{number}", row


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
