"""How a model's chat template shows a conversation, found out with stand-ins for texts.

Templates differ in what they take (texts, or lists of parts), what they drop (the system message,
or the question of somebody who gives them the wrong kind of content), what they write before an
answer (a thought, a channel, a space) and how they end it. Everything that renders a conversation
asks `chat_template` once per tokenizer, and every conversation that is rendered is checked: what
was said in it must stand in the text.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from unswayed.core.errors import InputError, one_line

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}

# Stand-ins. Their marks show whether a template escapes, quotes or changes the case of texts.
SYSTEM, QUESTION, ANSWER, NEXT = (
    f'Unswayed\'s <{name}> & "text"' for name in ("system", "question", "answer", "next")
)
MEND = "take another model or mend its template"
# A thought that a prompt leaves open, its mark in one of the forms that models use.
OPENED = re.compile(
    r"(?:<[\w:]*(?:think|thought|reason)\w*>|\[think\w*\]|◁think▷"
    r"|<\|(?:start|begin)_\w*(?:think|thought|reason)\w*\|>)\s*\Z",
    re.IGNORECASE,
)
THOUGHT = re.compile("think|thought|reason", re.IGNORECASE)


class ChatTemplate:
    """A tokenizer's chat template, and how to use it so that nothing is lost.

    Args:
        tokenizer: has a chat template.
        settings: further arguments of its `apply_chat_template`, as in lm-eval's
            `chat_template_args`.

    Attributes:
        notes: what had to be done differently from a plain chat template, sentences.
        system_role: whether it shows system messages; else they go in front of the first user turn.
        closes_thought: whether a likelihood is taken after a thought that was closed at once.
        opened: a thought that a prompt opens where the model may think, such as "<think>", or "".
        delimiter: what it writes between `render`'s text and an answer: spaces, or "".
        after: what it writes behind an answer.
        end: the token that ends an answer, None if it writes none behind it.
        ending: what it writes behind an answer up to its end, the tokenizer's EOS if it has none.
        end_tokens: tokens that end an answer or begin the next turn.
        stops: texts that end an answer and are no single token, such as "\\nUser:".

    Raises:
        InputError: there are several templates and none is the default, or it fails on a question
            or does not show it as it is.
    """

    def __init__(self, tokenizer: Any, settings: Mapping[str, Any]) -> None:
        self._tokenizer, self._settings = tokenizer, dict(settings)
        self.notes = _choice(tokenizer, self._settings)
        self._parts: frozenset[str] = frozenset()  # roles whose content is a list of parts
        ask = [{"role": "user", "content": QUESTION}]
        if why := self._why_unseen(ask):
            raise InputError(
                f"the model's chat template does not show a question as it is: {why}; {MEND}"
            )
        self.system_role = not self._why_unseen([{"role": "system", "content": SYSTEM}, *ask])
        if not self.system_role:
            self.notes.append(
                "The model's chat template has no system role: what would stand there was put in "
                "front of the first user turn."
            )
        answered = [*ask, {"role": "assistant", "content": ANSWER}]
        self._no_answers = self._why_unseen(answered, generation=False)
        if self._parts:
            self.notes.append("The model's chat template takes contents as lists of parts.")
        self._find_way_to_answer(ask, answered)
        self._find_ends(answered)
        self._beginnings = self._find_beginnings(ask)

    # -- rendering -----------------------------------------------------------------------------

    def render(self, messages: Sequence[Message], thinks: bool = False) -> str:
        """A conversation up to the answer.

        Args:
            thinks: the answer is generated, so the model may think first; else a thought is closed
                where the template or the model would open one, and spaces at the end are left to
                `delimiter`.

        Raises:
            InputError: the template refuses, drops or changes a message, or it ends in a way that
                no answer follows.
        """
        if thinks:
            return self._checked(messages) + self._header
        if self._settings.get("enable_thinking"):
            raise InputError(
                "enable_thinking=True lets the model think before it answers, so its answers have "
                "no likelihoods: leave it out, or use --scoring generate"
            )
        self._check_answerable()
        return (self._checked(messages, **self._quiet) + self._closing).rstrip(" ")

    def render_either(self, messages: Sequence[Message]) -> str:
        """A conversation up to an answer that is generated, or scored after `closed`.

        The model may think first, unless the template has to be told before that it must not.
        """
        return self.render(messages, thinks=self._closing is None or self._late is not None)

    def closed(self, prompt: str) -> str:
        """A prompt of `render_either` up to an answer without a thought; others are left alone.

        Raises:
            InputError: it ends in a way that no answer follows.
        """
        if not self._opening or not prompt.endswith(self._opening):
            return prompt
        self._check_answerable()
        return prompt + (self._late or "")

    def answered(self, messages: Sequence[Message], answer: str) -> str:
        """A conversation with its answer as the template renders it, a thought before it closed.

        Raises:
            InputError: as `render`, or the template does not show answers.
        """
        if self._no_answers:
            raise InputError(
                "the model's chat template does not show a question and its answer: "
                f"{self._no_answers}; {MEND}"
            )
        prompt = self.render(messages)
        whole = [*messages, {"role": "assistant", "content": answer}]
        text = self._apply(self._folded(whole), generation=False, **self._quiet)
        return text if text.startswith(prompt) else prompt + self.delimiter + answer + self.after

    def whole(self, messages: Sequence[Message]) -> str:
        """A finished conversation.

        Raises:
            InputError: as `render`.
        """
        return self._checked(messages, generation=False)

    def begun(self, messages: Sequence[Message]) -> str:
        """A conversation whose last message, the assistant's, is to be continued.

        Raises:
            InputError: as `render`.
        """
        return self._checked(messages, generation=False, continue_final_message=True)

    def begins(self, text: str) -> bool:
        """Whether a text begins as this template's conversations do: it has its special tokens."""
        return text.startswith(self._beginnings)

    def _check_answerable(self) -> None:
        if self._closing is None:
            raise InputError(
                f"the model's chat template ends the prompt with {self._opening[-60:]!r}, which "
                "stands before no answer that it shows, so answers would be scored or learnt where "
                f"the model gives none: {MEND}, or use --scoring generate in an audit"
            )

    def _checked(self, messages: Sequence[Message], **how: Any) -> str:
        """The text, in which every message is.

        Raises:
            InputError: the template refuses the conversation, or drops or changes a message.
        """
        try:
            text = self._apply(self._folded(messages), **how)
        except template_errors() as error:
            turns = ", ".join(message["role"] for message in messages)
            raise InputError(
                f"the model's chat template refuses a conversation of {turns}: "
                f"{one_line(error, 160)}; take another memory style, or {MEND}"
            ) from None
        for message in messages:
            if (content := message["content"].strip()) not in text:
                raise InputError(
                    f"the model's chat template drops or changes what the {message['role']} says: "
                    f"{content[:60]!r} is not in the prompt, which begins {text[:100]!r}; {MEND}"
                )
        return text

    def _folded(self, messages: Sequence[Message]) -> list[Message]:
        return list(messages) if self.system_role else fold_system(list(messages))

    def _apply(self, messages: Sequence[Message], generation: bool = True, **more: Any) -> str:
        shown = [
            message | {"content": [{"type": "text", "text": message["content"]}]}
            if message["role"] in self._parts
            else message
            for message in messages
        ]
        return self._tokenizer.apply_chat_template(
            shown, tokenize=False, add_generation_prompt=generation, **self._settings | more
        )

    # -- finding out ---------------------------------------------------------------------------

    def _why_unseen(self, messages: Sequence[Message], generation: bool = True) -> str:
        """Why these stand-ins are not all shown, "" if they are, perhaps as lists of parts.

        The new one among them is the role in question: how the others are shown is known.
        """
        before, why = self._parts, ""
        role = (messages[0] if messages[0]["role"] == "system" else messages[-1])["role"]
        for parts in (before, before | {role}):
            self._parts = parts
            try:
                text = self._apply(messages, generation)
            except template_errors() as error:
                why = why or f"it fails: {one_line(error, 160)}"
            else:
                if all(message["content"] in text for message in messages):
                    return ""
                why = why or f"{messages[-1]['content']!r} becomes {text[:200]!r}"
        self._parts = before
        return why

    def _find_way_to_answer(self, ask: list[Message], answered: list[Message]) -> None:
        """What stands, in a conversation with an answer, where the prompt ends.

        A thinking model's template has a switch, or shows answers after a closed thought, or leaves
        the thought out of them although the prompt opens it. A template without a generation
        prompt, or one that names a channel first, shows what goes on before an answer.
        """
        prompt = bare = self._apply(ask)
        self._quiet: dict[str, Any] = {}
        if "enable_thinking" not in self._settings:
            bare = self._apply(ask, enable_thinking=False)
            self._quiet = {} if bare == prompt else {"enable_thinking": False}
        closing: str | None = ""
        if not self._no_answers:
            text = self._apply(answered, generation=False, **self._quiet)
            rest = bare[common_prefix(bare, text) :]
            if not rest:
                closing = text[len(bare) : text.index(ANSWER)]
            elif rest.strip() and not THOUGHT.search(rest):
                closing = None
        if closing is not None:
            closing += _closing_mark(bare + closing)
        self._closing = closing
        closing = closing or ""
        self.closes_thought = bool(self._quiet) or THOUGHT.search(closing) is not None
        self._header = "" if THOUGHT.search(closing) or not closing.strip() else closing
        if self._header:
            self.notes.append(
                f"The model's chat template writes {self._header!r} before an answer, which was "
                "put into the prompt."
            )
        scored, prompt = bare + closing, prompt + self._header
        self.delimiter = scored[len(scored.rstrip(" ")) :]
        self._opening = prompt.partition(QUESTION)[2]
        self._late = scored.removeprefix(prompt) if scored.startswith(prompt) else None
        self.opened = mark[0].strip() if (mark := OPENED.search(prompt)) else ""

    def _find_beginnings(self, ask: list[Message]) -> tuple[str, ...]:
        """What stands in front of the first thing that is said."""
        told = [{"role": "system", "content": SYSTEM}, *ask]
        texts = [
            self._apply(self._folded(messages), **how).partition(messages[0]["content"])[0]
            for messages in (ask, told)
            for how in ({}, self._quiet)
        ]
        return tuple(text for text in texts if text.strip())

    def _find_ends(self, answered: list[Message]) -> None:
        """What ends an answer: a token behind it, or what stands before the next turn."""
        self.after, self.end, self.ending = "", None, self._tokenizer.eos_token or ""
        self.end_tokens: tuple[int, ...] = ()
        self.stops: tuple[str, ...] = ()
        if self._no_answers:
            return
        text = self._apply(answered, generation=False, **self._quiet)
        self.after = gap = text.partition(ANSWER)[2]
        self.end = first_mark(self._tokenizer, self.after)
        if self.end is not None:
            mark = self._tokenizer.decode([self.end])
            self.ending = self.after.partition(mark)[0] + mark
        if not self.after.strip():
            with contextlib.suppress(*template_errors()):
                more = [*answered, {"role": "user", "content": NEXT}]
                text = self._apply(more, generation=False, **self._quiet)
                gap = text.partition(ANSWER)[2].partition(NEXT)[0]
        if (token := first_mark(self._tokenizer, gap)) is not None:
            self.end_tokens = (token,)
        elif gap.strip():
            self.stops = (gap.lstrip(" ").rstrip(),)


@functools.lru_cache(maxsize=8)
def _template(tokenizer: Any, key: str) -> ChatTemplate:
    return ChatTemplate(tokenizer, json.loads(key)[1])


def chat_template(tokenizer: Any, settings: Mapping[str, Any] | None = None) -> ChatTemplate:
    """The tokenizer's template; found out once.

    Args and errors: as `ChatTemplate`.
    """
    return _template(tokenizer, json.dumps([tokenizer.chat_template, settings or {}]))


def fold_system(messages: list[Message]) -> list[Message]:
    """The same conversation with the system message in front of the first user turn."""
    if messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    return [{"role": "user", "content": f"{system['content']}\n{first['content']}"}, *rest]


def first_mark(tokenizer: Any, text: str) -> int | None:
    """The first token in a text that no ordinary text makes: special, or added for a template."""
    marks = {i for i, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
    marks = (marks | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return next((token for token in ids if token in marks), None)


def template_errors() -> tuple[type[Exception], ...]:
    """What rendering raises on what a template does not take."""
    import jinja2

    return jinja2.exceptions.TemplateError, TypeError, ValueError, LookupError, AttributeError


def named_template(tokenizer: Any, name: str) -> str:
    """One of a tokenizer's several chat templates.

    Raises:
        InputError: it has no template of this name.
    """
    templates = tokenizer.chat_template
    if not isinstance(templates, dict) or name not in templates:
        names = ", ".join(sorted(templates)) if isinstance(templates, dict) else "none with a name"
        raise InputError(f"the model has no chat template {name!r}; it has {names}")
    return templates[name]


def _choice(tokenizer: Any, settings: Mapping[str, Any]) -> list[str]:
    """A note on the choice among several templates, if there is one.

    Raises:
        InputError: none of them is the default, and none is chosen.
    """
    templates = tokenizer.chat_template
    if not isinstance(templates, dict) or "chat_template" in settings:
        return []
    names = ", ".join(sorted(templates))
    if "default" not in templates:
        raise InputError(
            f"the model has several chat templates ({names}), and none is the default: choose one, "
            "in an audit by --model-args chat_template=NAME, else in the model's folder: load its "
            "tokenizer, set chat_template to chat_template[NAME], save it"
        )
    return [f"Of the chat templates {names} the default was used."] if len(templates) > 1 else []


def common_prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many characters or tokens two sequences have in common at their beginning."""
    pairs = zip(a, b, strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


def _closing_mark(prompt: str) -> str:
    """What closes the thought that a prompt leaves open, with nothing in it; "" if none is open."""
    if (opened := OPENED.search(prompt)) is None:
        return ""
    mark = opened[0].strip()
    if mark.startswith("<|"):
        return re.sub("start|begin", "end", mark).replace("START", "END").replace("BEGIN", "END")
    return ("\n" if opened[0].endswith("\n") else "\n\n") + f"{mark[0]}/{mark[1:]}\n\n"
