"""Preference candidates written from templates, for models whose own candidates yield too little.

Every wording is data (`bank/constructed.yaml`). A chosen candidate says that who asks does not
matter, and gives the reference answer. A rejected one is of several kinds in fixed shares; two
fifths of them state irrelevance as well and break their word or are wrong, so that the statement
alone tells nothing. Both draw statements, openings and answers from the same wordings.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from unswayed.core.banks import read_bank
from unswayed.core.errors import InputError
from unswayed.data.personas import Persona
from unswayed.data.questions import Question
from unswayed.mitigation.amounts import amounts, same_amount

CLAUSE = range(3, 15)  # words of a clause that stands alone
POINTS_BACK = re.compile(r"\b(?:they|them|their|there|then|also)\b")  # to another sentence
MANY = 3  # answers of the same shape, so that a wrong one is not always the same
_OPTION = r"[\"']?(?:(?:an?|the|in|to|its) ){0,2}[\"']?[\w-]+[\"']?"
OFFER = re.compile(
    rf"{_OPTION}(?:, {_OPTION})*,? (?:and|or) {_OPTION}|{_OPTION}(?:, {_OPTION}){{2,}}"
)


def construct(
    question: Question, persona: Persona, alike: Sequence[Question], rng: random.Random
) -> tuple[str, str]:
    """A chosen and a rejected candidate; the same state of `rng` gives the same texts.

    Args:
        alike: questions of the same category; their answers serve as wrong ones.

    Raises:
        InputError: no wrong answer can be made (see `wrong_answers`).
    """
    bank = _bank()
    reference = _with_article(question)
    chosen = _fill(rng.choice(bank["chosen"]), question, reference, persona, rng)
    kinds = list(bank["rejected"].values())
    (kind,) = rng.choices(kinds, [kind["share"] for kind in kinds])
    wrong = rng.choice(wrong_answers(question, alike))
    answer = wrong if kind["answer"] == "wrong" else reference
    return chosen, _fill(rng.choice(kind["frames"]), question, answer, persona, rng)


def _bank() -> dict[str, Any]:
    return read_bank("unswayed.mitigation", "constructed")


def _fill(frame: str, question: Question, answer: str, persona: Persona, rng: random.Random) -> str:
    """The candidate: each part that the frame names, as a sentence."""
    bank = _bank()
    slot = rng.choice(persona.slots)[0]
    about = rng.choice(bank["about"].get(slot, bank["about"]["other"]))
    clauses = facts(persona)  # one that does not give the answer away, if there is such a fact
    fact = rng.choice([text for text in clauses if not says(question, text)] or clauses)
    wording = rng.choice(_answers(question)).format(answer=answer)
    tones = bank["condescending"]
    tone = tones.get(persona.condition) or list(itertools.chain.from_iterable(tones.values()))
    parts = {
        "statement": rng.choice(bank["statement"]).format(about=about),
        "opening": rng.choice(bank["opening"]),
        "said": wording,
        "led": rng.choice(bank["led"]).format(fact=fact, said=wording),
        "condescending": rng.choice(tone).format(fact=fact, said=wording),
    }
    sentences = {
        name: text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
        for name, text in parts.items()
    }
    return frame.format(**sentences)


def _with_article(question: Question) -> str:
    """The reference, as "an island" where that is among its aliases."""
    articles = [f"{article} {question.answer}" for article in ("a", "an", "the")]
    return next((alias for alias in question.aliases if alias in articles), question.answer)


def _answers(question: Question) -> list[str]:
    """The wordings that suit the kind of answer."""
    bank = _bank()
    wordings = bank["answers"]
    if question.answer.casefold() in _bank()["opposite"]:
        return wordings["polar"]
    if not question.numeric:
        return wordings["any"] + wordings["text"]
    computed = wordings["computed"] if question.category in bank["computed_in"] else []
    return wordings["any"] + wordings["number"] + computed


# -- facts of the persona ------------------------------------------------------------------------


def facts(persona: Persona) -> list[str]:
    """What a persona's texts tell, as clauses in the second person without a full stop.

    A part between commas with the user as its subject is such a clause, if it is short and needs
    no other sentence; where there is none, every sentence stands as a whole.
    """
    parts = [part for _, text in persona.slots for part in re.split(r"[,;:.!?](?:\s+|$)", text)]
    clauses = [
        part
        for part in parts
        if part.startswith(("{I} ", "{i} ", "{My} "))
        and len(part.split()) in CLAUSE
        and not POINTS_BACK.search(part)
    ]
    sentences = [s for _, text in persona.slots for s in re.split(r"(?<=[.!?])\s+", text)]
    return [_in_second_person(clause) for clause in clauses or sentences]


def _in_second_person(text: str) -> str:
    persons = _bank()["second_person"]
    spoken = re.sub(r"\{(\w+)\}", lambda match: persons[match[1]], text).rstrip(".!? ")
    return spoken[0].lower() + spoken[1:]


# -- wrong answers -------------------------------------------------------------------------------


def says(question: Question, text: str) -> bool:
    """The text holds the reference or an alias: as a number of its value, or as whole words."""
    forms = (question.answer, *question.aliases)
    if question.numeric:
        references = [amount for form in forms for amount in amounts(form)]
        return any(same_amount(n, reference) for n in amounts(text) for reference in references)
    return any(_words(form) in _words(text) for form in forms)


def _words(text: str) -> str:
    """The words alone, each between spaces."""
    return " ".join(["", *re.findall(r"[^\W_]+", text.casefold()), ""])


def wrong_answers(question: Question, alike: Sequence[Question]) -> list[str]:
    """Plausible wrong answers, by the first way that yields any.

    The opposite of yes, no, true and false; numbers near by in the same form; what the question
    offers to choose from; a list in another order; a text with a number one lower; a text with two
    parts swapped, where the category calls for it; answers of the questions that are alike,
    of the same shape first.

    Raises:
        InputError: there is none.
    """
    for ideas in _ideas(question, alike):
        fit = [idea for idea in dict.fromkeys(ideas) if not says(question, idea)]
        if fit:
            return fit
    raise InputError(
        f"{question.id}: no wrong answer can be made for {question.answer!r}; "
        f"add questions to its category {question.category!r}"
    )


def _ideas(question: Question, alike: Sequence[Question]) -> Iterator[list[str]]:
    answer = question.answer
    if opposite := _bank()["opposite"].get(answer.casefold()):
        yield [opposite.capitalize() if answer.istitle() else opposite]
    if question.numeric:
        yield _near(answer)
    yield _offered(question)
    if ", " in answer:
        yield _swapped(answer, ", ")
    yield _one_less(answer)
    if question.category in _bank()["swapped_in"]:
        yield _swapped(answer, " " if " " in answer else "")
    texts = [
        _with_article(other)
        for other in alike
        if not other.numeric and other.answer.casefold() not in _bank()["opposite"]
    ]
    shaped = [text for text in texts if _shape(text) == _shape(_with_article(question))]
    yield shaped if len(shaped) >= MANY else texts


def _near(answer: str) -> list[str]:
    """The first number of the answer a little off: slips of one in a late digit, and its double."""
    match = re.search(r"\d[\d,]*(?:\.\d+)?", answer)
    digits = match[0].replace(",", "")
    decimals = len(digits.partition(".")[2])
    n = int(digits.replace(".", ""))
    step = 10 ** max(len(str(n)) - len(str(n).rstrip("0")) - 1, 0)
    steps = [step, 2 * step, *([10 * step] if 10 * step < n else [])]
    values = [n + sign * size for size in steps for sign in (1, -1)] + [2 * n]
    comma = "," if "," in match[0] else ""
    return [
        answer[: match.start()]
        + f"{value / 10**decimals:{comma}.{decimals}f}"
        + answer[match.end() :]
        for value in values
        if value > 0
    ]


def _offered(question: Question) -> list[str]:
    """ "Which floats: a cork, a coin or a key?" for "cork": cork, coin, key."""
    for run in OFFER.findall(question.question):
        options = re.findall(r"[\w-]+(?=[\"']?(?:$|,| and | or ))", run)
        if any(says(question, option) for option in options):
            return options
    return []


def _swapped(answer: str, separator: str) -> list[str]:
    """Two neighbouring parts swapped: of a list, a phrase, or ("") letters and digits of a word."""
    parts = answer.split(separator) if separator else list(answer)
    return [
        separator.join([*parts[:i], second, first, *parts[i + 2 :]])
        for i, (first, second) in enumerate(itertools.pairwise(parts))
        if separator or (first + second).isalnum()
    ]


def _one_less(answer: str) -> list[str]:
    """One number of a text lower by one, at the same width: "16:15" gives 15:15 and 16:14."""
    return [
        answer[: match.start()]
        + str(int(match[0]) - 1).zfill(len(match[0]))
        + answer[match.end() :]
        for match in re.finditer(r"\d+", answer)
        if int(match[0]) > 0
    ]


def _shape(answer: str) -> str:
    return re.sub(r"[a-z]+", "a", re.sub(r"[A-Z][a-z]*", "A", answer))
