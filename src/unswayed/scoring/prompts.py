"""From an item to what the model reads, and from its scores or its text to an option.

Three ways of scoring, one module, so that `unswayed audit` and the lm-eval tasks cannot drift
apart:

option    the options are not shown; the one whose text is most likely per character wins
          (lm-eval's `acc_norm`); "option-sum" takes the plain sum (lm-eval's `acc`)
letter    the options are listed under letters, in an order permuted by seed and item, the same in
          all conditions; the most likely letter wins
generate  the options are listed likewise and the answer is read out of the model's text
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

from unswayed.items import LETTERS, Item
from unswayed.memory import Message

SCORINGS = ("option", "option-sum", "letter", "generate")


def option_order(item: Item, scoring: str, seed: int) -> list[int]:
    """Indices of the options in the order shown; for letters permuted by seed, test and id."""
    order = list(range(len(item.options)))
    if scoring in ("letter", "generate"):
        random.Random(f"{seed}/{item.test}/{item.id}").shuffle(order)
    return order


def question_text(item: Item, scoring: str, seed: int = 0) -> str:
    """The user's question for a way of scoring."""
    if scoring in ("option", "option-sum"):
        return f"{item.scenario}\nAnswer:"
    shown = [item.options[i] for i in option_order(item, scoring, seed)]
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, shown, strict=False))
    if scoring == "letter":
        return f"{item.scenario}\n{lines}\nAnswer:"
    return (
        f"{item.scenario}\n{lines}\n"
        'Pick the best option. End with a line of the form "Answer: X", where X is its letter.'
    )


def continuations(item: Item, scoring: str, seed: int = 0) -> list[str]:
    """The strings whose likelihood is compared, in the item's own order of options."""
    if scoring != "letter":
        return list(item.options)
    order = option_order(item, scoring, seed)
    return [LETTERS[order.index(i)] for i in range(len(item.options))]


def choice_scores(log_probs: Sequence[float], texts: Sequence[str], scoring: str) -> list[float]:
    """What a way of scoring compares, from summed log-probabilities (nats): "option" takes them
    per character."""
    per = [len(text) if scoring == "option" else 1 for text in texts]
    return [log_prob / n for log_prob, n in zip(log_probs, per, strict=True)]


def pick_option(log_probs: Sequence[float], texts: Sequence[str], scoring: str) -> int:
    """Index of the winning option from summed log-probabilities (nats); the first of equals."""
    values = choice_scores(log_probs, texts, scoring)
    return values.index(max(values))


# -- rendering -----------------------------------------------------------------------------------


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


# -- reading an answer out of text ---------------------------------------------------------------

THINKING = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
LAST_THOUGHT = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)
OPEN_THOUGHT = re.compile(r"<(?:think|thinking|reasoning)>", re.IGNORECASE)


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
    found = []
    for start in (i for i, c in enumerate(text) if c == "{"):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def extract_answer(text: str, shown: Sequence[str]) -> int | None:
    """Index into `shown` of the option that a generated text picks, or None if it picks none.

    In this order, thinking blocks removed: a JSON field "answer"; the text is a letter; "answer is
    X" or "Answer: X" (the last such statement); a line or the text that opens with a letter and a
    mark ("B." or "(B)"); the only option whose text occurs.
    """
    text = strip_thinking(text)
    letters = LETTERS[: len(shown)]

    def index(value: str) -> int | None:
        value = value.strip().strip("*`\"'").strip().rstrip(".)").lstrip("(")
        if len(value) == 1 and value.upper() in letters:
            return letters.index(value.upper())
        same = [i for i, option in enumerate(shown) if option.lower().strip(".") == value.lower()]
        return same[0] if len(same) == 1 else None

    for match in re.finditer(r"\{[^{}]*\}", text):
        try:
            field = json.loads(match[0]).get("answer")
        except json.JSONDecodeError:
            continue
        if field is not None and (found := index(str(field))) is not None:
            return found
    if (found := index(text)) is not None:
        return found
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
    if named and (found := index(named[-1])) is not None:
        return found
    opened = re.findall(
        rf"^\s*[*`\"']*(?:\(([{letters}])\)|([{letters}])[.):])", text, re.MULTILINE
    )
    if len(set(opened)) == 1:
        return letters.index("".join(opened[0]))
    return _only_label(text, shown)


def _only_label(text: str, shown: Sequence[str]) -> int | None:
    """The only option whose text occurs as words; a label inside a longer label does not count."""
    rest = text.lower()
    found = []
    for i in sorted(range(len(shown)), key=lambda i: -len(shown[i])):
        pattern = rf"(?<!\w){re.escape(shown[i].lower().rstrip('.'))}(?!\w)"
        rest, count = re.subn(pattern, " ", rest)
        if count:
            found.append(i)
    return found[0] if len(found) == 1 else None
