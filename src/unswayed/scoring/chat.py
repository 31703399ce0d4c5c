"""Conversations, and how they become the text that a model reads."""

from __future__ import annotations

import json
from typing import Any

from unswayed.core.errors import InputError

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}

# Stand-ins for texts, to see what a chat template puts around them.
QUESTION, ANSWER = "unswayedquestion", "unswayedanswer"


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
        self.note, self.delimiter = "", ""
        if self._as_messages:
            return
        tokenizer = getattr(lm, "tokenizer", None)
        self.chat = getattr(tokenizer, "chat_template", None) is not None
        self.system_role = self.chat and takes_system_role(tokenizer)
        if not self.chat:
            self.delimiter = " "
            self.note = "The model has no chat template: memory and question were given as text."
        elif not self.system_role:
            self.note = (
                "The model's chat template has no system role: what would stand there was put "
                "in front of the first user turn."
            )

    def render(self, messages: list[Message], open_turn: bool = False) -> str:
        """The prompt as one string, ready for the answer.

        `open_turn`: plain text, too, goes on to the assistant's turn, "Assistant:".
        """
        if self._as_messages:
            return json.dumps(messages, ensure_ascii=False)
        if not self.chat:
            if not open_turn:
                return plain_text(messages)
            return plain_text([*messages, {"role": "assistant", "content": ""}]).rstrip(" ")
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


# -- what a chat template makes of a question and its answer ---------------------------------------


def answered(tokenizer: Any, question: str, answer: str) -> str:
    """A question and its answer as the chat template renders them; plain text without one.

    Raises:
        InputError: the template fails.
    """
    import jinja2

    messages: list[Message] = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    if tokenizer.chat_template is None:
        return (tokenizer.bos_token if _adds_bos(tokenizer) else "") + plain_text(messages)
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False)
    except jinja2.exceptions.TemplateError as error:
        raise InputError(f"the model's chat template fails on a question: {error}") from None


def template_parts(tokenizer: Any) -> tuple[str, str, str]:
    """What stands before a question, between question and answer, and after the answer.

    Raises:
        InputError: the template fails, or does not show both once each.
    """
    text = answered(tokenizer, QUESTION, ANSWER)
    before, has_question, rest = text.partition(QUESTION)
    between, has_answer, after = rest.partition(ANSWER)
    if not (has_question and has_answer) or QUESTION in rest or ANSWER in after:
        raise InputError(
            "the model's chat template does not show a question and its answer once each: "
            f"{text[:200]!r}; take another model or mend its template"
        )
    return before, between, after


def end_token(tokenizer: Any) -> int | None:
    """The special token that ends an answer, in training too; None if there is none.

    Args:
        tokenizer: one that gives character offsets.

    Raises:
        InputError: as `template_parts`.
    """
    before, between, after = template_parts(tokenizer)
    answer_end = len(before + QUESTION + between + ANSWER)
    encoded = tokenizer(
        before + QUESTION + between + ANSWER + after,
        add_special_tokens=False,
        return_offsets_mapping=True,
    )
    special = special_ids(tokenizer)
    for token, (start, _) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        if start >= answer_end and token in special:
            return token
    return tokenizer.eos_token_id


def special_ids(tokenizer: Any) -> set[int]:
    """The tokenizer's special tokens."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer of a base model begins every text with BOS by itself."""
    return tokenizer.bos_token_id is not None and tokenizer("x")["input_ids"][:1] == [
        tokenizer.bos_token_id
    ]
