"""Conversations, and how they become the text that a model reads."""

from __future__ import annotations

import json
from typing import Any

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}


class ChatFormat:
    """How a model's conversation becomes text; built once per model.

    A chat service takes the conversation as it is and applies the template itself: there the text
    is the messages as JSON.

    Attributes:
        note: what had to be done differently from a plain chat template, or "".
        delimiter: what stands between the prompt and an option (lm-eval's target_delimiter).
    """

    def __init__(self, lm: Any) -> None:
        self._lm = lm
        self._as_messages = getattr(lm, "takes_messages", False)
        if self._as_messages:
            self.note, self.delimiter = "", ""
            return
        tokenizer = getattr(lm, "tokenizer", None)
        self.chat = getattr(tokenizer, "chat_template", None) is not None
        self.system_role = self.chat and takes_system_role(tokenizer)
        self.delimiter = "" if self.chat else " "
        if not self.chat:
            self.note = "The model has no chat template: memory and question were given as text."
        elif not self.system_role:
            self.note = (
                "The model's chat template has no system role: what would stand there was put "
                "in front of the first user turn."
            )
        else:
            self.note = ""

    def render(self, messages: list[Message]) -> str:
        """The prompt as one string, ready for the answer."""
        if self._as_messages:
            return json.dumps(messages, ensure_ascii=False)
        if not self.chat:
            return plain_text(messages)
        if not self.system_role:  # SharedPrefixLM does so itself, other backends do not
            messages = fold_system(messages)
        return self._lm.apply_chat_template(messages)


def takes_system_role(tokenizer: Any) -> bool:
    """Whether a system message survives the chat template (some raise, some drop it)."""
    import jinja2

    marker = "unswayed-system-marker"
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "system", "content": marker}, {"role": "user", "content": "x"}],
            tokenize=False,
            add_generation_prompt=True,
        )
    except jinja2.exceptions.TemplateError:
        return False
    return marker in text


def fold_system(messages: list[Message]) -> list[Message]:
    """The same conversation with the system message in front of the first user turn."""
    if messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    return [{"role": "user", "content": f"{system['content']}\n{first['content']}"}, *rest]


def plain_text(messages: list[Message]) -> str:
    """A conversation for a base model. Without earlier turns it is system text + question."""
    *before, last = messages
    if all(message["role"] == "system" for message in before):
        return "".join(message["content"] for message in messages)
    names = {"user": "User: ", "assistant": "Assistant: ", "system": ""}
    turns = [names[message["role"]] + message["content"].strip() + "\n" for message in before]
    return "".join(turns) + names[last["role"]] + last["content"]
