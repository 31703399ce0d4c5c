"""Rows of preference data as pairs: answers alone, or both sides as whole chats."""

from __future__ import annotations

from itertools import takewhile
from typing import Any, TypedDict

from unswayed.core.errors import InputError
from unswayed.data.roles import ROLES
from unswayed.data.texts import visible
from unswayed.scoring.chat import Message

DIALOGUE = ("\n\nHuman:", "\n\nAssistant:")  # of texts as in hh-rlhf (Bai et al. 2022)


class PreferencePair(TypedDict):
    """A conversation up to the question, and two answers to it of one message each."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


class NotLearnable(InputError):
    """A row that is whole but teaches nothing, or cannot be taught: data may hold some."""


def preference_pair(row: dict[str, Any]) -> PreferencePair:
    """The pair of a row.

    Args:
        row: `prompt`, a text or messages; `chosen` and `rejected`, each a text, a message in a
            list, or the whole chat that ends in it. The prompt is then what both chats begin with,
            and may be left out; a text must be one of its messages.

    Raises:
        NotLearnable: the sides look the same or are empty, or chats part before the last message.
        InputError: says what is in another form.
    """
    sides = [_messages(row, part, "assistant") for part in ("chosen", "rejected")]
    if (1 in (lengths := {*map(len, sides)})) and len(lengths) > 1:
        raise InputError(
            "one of chosen and rejected is a whole chat, the other an answer: make both the answer"
        )
    before = list(takewhile(lambda both: both[0] == both[1], zip(*sides, strict=False)))
    before = [message for message, _ in before][: min(map(len, sides)) - 1]
    chosen, rejected = (side[len(before) :] for side in sides)
    if max(map(len, (chosen, rejected))) > 1:
        raise NotLearnable("chosen and rejected part before their last messages")
    for part, (answer,) in (("chosen", chosen), ("rejected", rejected)):
        if answer["role"] != "assistant":
            raise InputError(f"{part} must end in an assistant message")
        if not visible(answer["content"]):
            raise NotLearnable(f"{part} is empty")
    if visible(chosen[0]["content"]) == visible(rejected[0]["content"]):
        raise NotLearnable("chosen and rejected are the same text")
    prompt = _prompt(row, before)
    if prompt[-1]["role"] != "user":
        raise InputError("prompt must end in a user message")
    if not visible(prompt[-1]["content"]):
        raise NotLearnable("prompt is empty")
    return PreferencePair(prompt=prompt, chosen=chosen, rejected=rejected)


def _prompt(row: dict[str, Any], before: list[Message]) -> list[Message]:
    """What stands before the answer: `prompt`, or the beginning of both chats if they have one."""
    if not before:
        return _messages(row, "prompt", "user")
    prompt = row.get("prompt")
    spoken = [message for message in before if message["role"] != "system"]
    if isinstance(prompt, str):
        fits = prompt.strip() in [message["content"].strip() for message in spoken]
    else:
        fits = prompt is None or _messages(row, "prompt", "user") in (before, spoken)
    if not fits:
        raise InputError(
            "prompt is not what the chats in chosen and rejected begin with: leave it out, or keep "
            "only the last message of chosen and rejected"
        )
    return before


def _messages(row: dict[str, Any], part: str, role: str) -> list[Message]:
    """A part as messages; a text is one of this role."""
    value = row.get(part)
    if isinstance(value, str):
        if all(mark in value for mark in DIALOGUE):
            raise InputError(
                f"{part} is a whole dialogue in one text: split it into messages, each with role "
                "and content"
            )
        return [Message(role=role, content=value)]
    messages = [_message(message) for message in value] if isinstance(value, list) else []
    if not messages or None in messages:
        raise InputError(
            f"{part} must be a text or a list of messages, each with role and content; see "
            "recipes/dpo/README.md"
        )
    for message in messages:
        if message["role"] not in ROLES:
            raise NotLearnable(f"{part} has a message of the role {message['role']!r}")
    return [Message(role=ROLES[m["role"]], content=m["content"]) for m in messages]


def _message(value: Any) -> Message | None:
    """A message by either pair of names; None if it is none."""
    for keys in (("role", "content"), ("from", "value")):
        if isinstance(value, dict) and all(isinstance(value.get(key), str) for key in keys):
            return Message(zip(("role", "content"), map(value.get, keys), strict=True))
    return None
