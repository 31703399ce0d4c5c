"""Questions: the built-in banks, and readers for other people's files.

What preference pairs are made of (see docs/preferences.md). The banks are the project's own
writing. Those in `bank/questions.jsonl` have reference answers, and none can depend on who asks;
the field `expression`, where present, computes the answer and is checked by the tests, nothing else
reads it. Those in `bank/feelings.jsonl` are about everyday situations and have no reference.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.data.items import BUILTIN
from unswayed.data.rows import rows_of, say_left_out
from unswayed.data.texts import identifier, visible

FEELINGS = "feelings"
BANKS = {BUILTIN: "questions.jsonl", FEELINGS: "feelings.jsonl"}
FREE_TEXT = 12  # a reference of more words is a text, not an answer that a rule can compare
NUMBER = re.compile(r"[-−]?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?(?: ?(?:%|[^\W\d]+))?")


@dataclasses.dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: unique over everything that is loaded together.
        category: e.g. "arithmetic"; for files the spec's name.
        question: the text that is asked.
        answer: the reference, short ("42", "4.5 m", "Tokyo"), or a whole text (see `free`); None if
            there is none.
        aliases: other accepted forms of it.
        numeric: the answer is a number, perhaps with a unit; compared by value.
    """

    id: str
    category: str
    question: str
    answer: str | None = None
    aliases: tuple[str, ...] = ()
    numeric: bool = False

    @property
    def free(self) -> bool:
        """The reference is too long to be compared by rule."""
        return not self.numeric and len((self.answer or "").split()) > FREE_TEXT


def builtin_questions(bank: str = BUILTIN) -> list[Question]:
    """One of the project's own banks."""
    return read_questions(Path(str(files(__name__) / "bank" / BANKS[bank])), bank)


def load_questions(specs: Iterable[str]) -> list[Question]:
    """Questions of one or more specs, in order.

    Args:
        specs: each "builtin", "feelings" or NAME=FILE. NAME gsm8k, ultrafeedback or tulu3 selects
            that reader; any other name the generic form. FILE is JSONL or CSV, a folder, or a Hub
            dataset, hub:OWNER/NAME[:CONFIG][@REVISION], with the same fields as columns.

    Raises:
        InputError: unknown spec, missing or malformed file, or a question or id that occurs twice.
    """
    questions: list[Question] = []
    for spec in specs:
        name, equals, path = spec.partition("=")
        if spec in BANKS:
            questions += builtin_questions(spec)
        elif equals and name and path:
            questions += read_questions(path, name)
        else:
            raise InputError(
                f"--questions {spec}: not {' or '.join(BANKS)}; for a file write NAME=FILE, "
                "e.g. gsm8k=test.jsonl"
            )
    if not questions:
        raise InputError(f"--questions: none are given; name {', '.join(BANKS)} or NAME=FILE")
    ids: set[str] = set()
    texts: dict[str, str] = {}
    for question in questions:
        if question.id in ids:
            raise InputError(f"--questions: the id {question.id!r} occurs twice; rename one")
        ids.add(question.id)
        first = texts.setdefault(normalised(question.question), question.id)
        if first != question.id:
            raise InputError(
                f"--questions: {question.id!r} asks the same as {first!r}; leave one out"
            )
    return questions


def read_questions(path: str | Path, name: str) -> list[Question]:
    """Questions of one file or dataset; `name` selects the reader and is the default category.

    Raises:
        InputError: names file and line of the first fault.
    """
    reader = READERS.get(name, _generic)
    questions: list[Question] = []
    ids: dict[str, str] = {}
    texts: dict[str, str] = {}
    left_out: list[str] = []
    number = 0
    for number, (where, row) in enumerate(rows_of(path), start=1):
        try:
            question = reader(row, name, number)
        except KeyError as error:
            raise InputError(f"{where}: field {error} is missing") from None
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if isinstance(question, str):
            left_out.append(question)
            continue
        if question.id in ids:
            raise InputError(f"{where}: id {question.id!r} is already used at {ids[question.id]}")
        text = normalised(question.question)
        if text in texts and name in REPEATING:
            left_out.append(f"{number} (the same as at {texts[text]})")
            continue
        if text in texts:
            raise InputError(f"{where}: the question is the same as at {texts[text]}")
        ids[question.id] = texts[text] = where
        questions.append(question)
    say_left_out(path, "rows", left_out, number)
    if not questions:
        raise InputError(f"{path}: holds no questions")
    return questions


def normalised(text: str) -> str:
    """Lower case, as it looks: what counts as the same question."""
    return visible(text).casefold()


# -- readers: one row -> a question, or line and reason of one that is left out ------------------


def _text(row: dict, field: str) -> str:
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"{field} is {value!r}, it must be a text")
    if not visible(str(value)):
        raise InputError(f"{field} is empty")
    return str(value).strip()


def _generic(row: dict, name: str, number: int) -> Question:
    """question; optional answer, id, category, and for the answer aliases (a list, or separated by
    |) and numeric."""
    answer = _text(row, "answer") if row.get("answer") is not None else None
    aliases = row.get("aliases", [])
    if isinstance(aliases, str):
        aliases = aliases.split("|")
    if not isinstance(aliases, list) or not all(isinstance(x, str) and x.strip() for x in aliases):
        raise InputError(f"aliases is {aliases!r}, it must be a list of texts")
    if aliases and answer is None:
        raise InputError(f"aliases is {aliases!r}, but there is no answer")
    is_number = bool(NUMBER.fullmatch(answer or ""))
    numeric = row.get("numeric", is_number)
    if isinstance(numeric, str) and numeric.lower() in ("true", "false"):  # CSV
        numeric = numeric.lower() == "true"
    if not isinstance(numeric, bool):
        raise InputError(f"numeric is {numeric!r}, it must be true or false")
    if numeric and not is_number:
        raise InputError(f"numeric is true, but the answer {answer!r} is no number")
    return Question(
        identifier(row["id"]) if "id" in row else f"{name}_{number}",
        _text(row, "category") if "category" in row else name,
        _text(row, "question"),
        answer,
        tuple(alias.strip() for alias in aliases),
        numeric,
    )


def _gsm8k(row: dict, name: str, number: int) -> Question:
    """GSM8K (Cobbe et al. 2021): the answer ends in "#### n"."""
    working, mark, answer = _text(row, "answer").rpartition("####")
    answer = answer.strip()
    if not mark or not NUMBER.fullmatch(answer):
        raise InputError(f'answer must end in "#### " and a number, got {working[-40:] + answer!r}')
    return Question(f"{name}_{number}", name, _text(row, "question"), answer, (), True)


def _ultrafeedback(row: dict, name: str, number: int) -> Question | str:
    """UltraFeedback (Cui et al. 2023), binarised: the chosen text, or last message, is the
    reference. The published data have rows where it is empty."""
    chosen = row["chosen"]
    if isinstance(chosen, list) and chosen and isinstance(chosen[-1], dict):
        chosen = chosen[-1].get("content")
    if isinstance(chosen, str) and not chosen.strip():
        return f"{number} (chosen is empty)"
    reference = _text({"chosen": chosen}, "chosen")
    return Question(f"{name}_{number}", name, _text(row, "prompt"), reference)


def _tulu3(row: dict, name: str, number: int) -> Question | str:
    """Tulu 3's mixture for fine-tuning (Lambert et al. 2024): the user's first message, and the
    assistant's answer to it as reference. Conversations with more turns are left out: their first
    answer need not be the one that was wanted."""
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise InputError(f"messages is {str(messages)[:60]!r}, it must be a list of messages")
    if [message.get("role") for message in messages] != ["user", "assistant"]:
        return f"{number} (not one question and one answer)"
    question, answer = (message.get("content") for message in messages)
    if not all(isinstance(text, str) and text.strip() for text in (question, answer)):
        return f"{number} (empty)"
    answer = answer.strip()
    id = identifier(row["id"]) if "id" in row else f"{name}_{number}"
    return Question(id, name, question.strip(), answer, numeric=bool(NUMBER.fullmatch(answer)))


REPEATING = {"ultrafeedback", "tulu3"}  # the published data ask some questions more than once
READERS = {"gsm8k": _gsm8k, "ultrafeedback": _ultrafeedback, "tulu3": _tulu3}
