"""Conversations, and how they become the text that a model reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from unswayed.scoring.template import ANSWER, QUESTION, Message, chat_template, common_prefix


class ChatFormat:
    """How a model's conversation becomes text; built once per model.

    A chat service takes the conversation as it is and applies the template itself: there the text
    is the messages as JSON.

    Args:
        lm: an lm-eval model.
        thinks: answers are generated, so the model may think first; else they are scored, after a
            thought that is closed at once.

    Attributes:
        note: what had to be done differently from a plain chat template, or "".
        delimiter: what stands between the prompt and an option (lm-eval's target_delimiter).
        stops: texts at which a generated answer ends.
        opened: the mark of a thought that the prompt opens, or "".

    Raises:
        InputError: the chat template cannot be used (`template.ChatTemplate`).
    """

    def __init__(self, lm: Any, thinks: bool = False) -> None:
        self._as_messages, self._thinks = getattr(lm, "takes_messages", False), thinks
        self.note, self.delimiter, self.opened = "", "", ""
        self.stops: list[str] = []
        self._template = None
        tokenizer = getattr(lm, "tokenizer", None)
        if self._as_messages:
            return
        if getattr(tokenizer, "chat_template", None) is None:
            self.delimiter = " "
            self.note = "The model has no chat template: memory and question were given as text."
            return
        self._template = chat_template(tokenizer, getattr(lm, "chat_template_args", None))
        notes = list(self._template.notes)
        ends = map(tokenizer.decode, self._template.end_tokens)
        self.stops = [*ends, *self._template.stops]
        if thinks:
            self.opened = self._template.opened
        else:
            self.delimiter = self._template.delimiter
            if self._template.closes_thought:
                notes.append("The model's thought before an answer was closed at once.")
        self.note = " ".join(notes)

    def render(self, messages: list[Message], open_turn: bool = False) -> str:
        """The prompt as one string, ready for the answer; every message is in it.

        `open_turn`: plain text, too, goes on to the assistant's turn, "Assistant:".

        Raises:
            InputError: the chat template refuses, drops or changes a message.
        """
        if self._as_messages:
            return json.dumps(messages, ensure_ascii=False)
        if self._template is not None:
            return self._template.render(messages, self._thinks)
        if not open_turn:
            return plain_text(messages)
        return plain_text([*messages, {"role": "assistant", "content": ""}]).rstrip(" ")

    def reply(self, text: str) -> str:
        """A generated text, in front of it the mark of the thought that the prompt opened."""
        return self.opened + text if text else ""


def plain_text(messages: list[Message]) -> str:
    """A conversation for a base model. Without earlier turns it is system text + question."""
    *before, last = messages
    if all(message["role"] == "system" for message in before):
        return "".join(message["content"] for message in messages)
    names = {"user": "User: ", "assistant": "Assistant: ", "system": ""}
    turns = [names[message["role"]] + message["content"].strip() + "\n" for message in before]
    return "".join(turns) + names[last["role"]] + last["content"]


# -- a conversation and its answer, for training ---------------------------------------------------


def answered(tokenizer: Any, question: str, answer: str) -> str:
    """A question and its answer as the chat template renders them; plain text without one.

    Raises:
        InputError: the template fails, drops or changes the question, or shows no answers.
    """
    messages: list[Message] = [{"role": "user", "content": question}]
    if tokenizer.chat_template is not None:
        return chat_template(tokenizer).answered(messages, answer)
    text = plain_text([*messages, {"role": "assistant", "content": answer}])
    return (tokenizer.bos_token if _adds_bos(tokenizer) else "") + text


def template_parts(tokenizer: Any) -> tuple[str, str, str]:
    """What stands before a question, between question and answer, and after the answer.

    Raises:
        InputError: as `answered`.
    """
    before, _, rest = answered(tokenizer, QUESTION, ANSWER).partition(QUESTION)
    between, _, after = rest.partition(ANSWER)
    return before, between, after


def with_answers(
    tokenizer: Any, messages: list[Message], answers: Sequence[str]
) -> tuple[list[int], list[list[int]]]:
    """Token ids of a conversation up to the answer, and of each answer behind it with its end.

    An answer begins behind what all of them share with the prompt, and ends with the token that
    ends an answer: white space that a chat template puts behind that is not learnt.

    Raises:
        InputError: the template refuses, drops or changes a message.
    """
    if tokenizer.chat_template is None:
        prompt, delimiter, ending = plain_text(messages), " ", tokenizer.eos_token or ""
    else:
        template = chat_template(tokenizer)
        prompt, delimiter, ending = template.render(messages), template.delimiter, template.ending
    texts = [prompt, *(f"{prompt}{delimiter}{answer.strip()}{ending}" for answer in answers)]
    special = tokenizer.chat_template is None
    first, *wholes = tokenizer(texts, add_special_tokens=special)["input_ids"]
    shared = min(common_prefix(first, whole) for whole in wholes)
    return first[:shared], [whole[shared:] for whole in wholes]


def end_token(tokenizer: Any) -> int | None:
    """The token that ends an answer, in training too; None if there is none.

    Raises:
        InputError: as `template.chat_template`.
    """
    end = None if tokenizer.chat_template is None else chat_template(tokenizer).end
    return tokenizer.eos_token_id if end is None else end


def end_tokens(tokenizer: Any, generation_config: Any, of_template: Iterable[int]) -> list[int]:
    """Tokens at which a generated answer ends: the template's, the tokenizer's and the model's."""
    of_model = generation_config.eos_token_id
    ends = {*of_template, tokenizer.eos_token_id}
    ends.update(of_model if isinstance(of_model, list) else [of_model])
    return sorted(ends - {None})


def _adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer of a base model begins every text with BOS by itself."""
    return tokenizer.bos_token_id is not None and tokenizer("x")["input_ids"][:1] == [
        tokenizer.bos_token_id
    ]
