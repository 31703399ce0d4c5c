"""One item under no memory and under others: probabilities of the options, answers, flips."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import cache

from unswayed.audit.trials import NONE
from unswayed.core.errors import InputError
from unswayed.data.items import Item, builtin_items, make_item
from unswayed.data.personas import Persona, builtin_personas, grid_personas
from unswayed.display.numbers import percent
from unswayed.memory.prompt import PromptMemory
from unswayed.report.words import CONDITION_LABELS
from unswayed.scoring.ask import log_probs
from unswayed.scoring.prompts import (
    DEFAULT_RULES,
    Likelihoods,
    continuations,
    question_text,
)
from unswayed.space.models import Shelf

SCORING = "option"
OWN = "own"  # the choice to write something oneself
SCENARIO, OPTION, OPTIONS, NOTES = 1500, 200, 8, 1500  # the longest texts, in characters; how many


@dataclasses.dataclass(frozen=True)
class OwnWords(Persona):
    """A user whom a visitor describes; the text is taken as it is, braces included."""

    def texts(self, first_person: bool = False) -> list[tuple[str, str]]:
        return list(self.slots)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the model answers under one memory.

    Attributes:
        user: whom it remembers, None without memory.
        shares: of the options, together 1: softmax over what an audit compares, the options'
            log-probability less that without the scenario. The largest is the answer.
        picked: index of the answer.
        flip: it differs from the answer without memory; None without memory.
    """

    user: Persona | None
    shares: tuple[float, ...]
    picked: int
    flip: bool | None

    @property
    def label(self) -> str:
        return CONDITION_LABELS[NONE] if self.user is None else user_label(self.user)


# -- what can be chosen --------------------------------------------------------------------------


@cache
def items() -> dict[str, Item]:
    """The built-in items by "test/id"."""
    return {f"{item.test}/{item.id}": item for item in builtin_items()}


@cache
def users() -> dict[str, Persona]:
    """The built-in personas and the cells of the grid by id."""
    return {persona.id: persona for persona in (*builtin_personas(), *grid_personas())}


def item_choices() -> list[tuple[str, str]]:
    """(label, "test/id") of each built-in item, after the visitor's own."""
    return [("Write your own", OWN)] + [
        (f"{item.kind}: {_short(item.scenario, 90)}", key) for key, item in items().items()
    ]


def user_choices() -> list[tuple[str, str]]:
    """(label, id) of each user, after the visitor's own words."""
    return [("Write your own", OWN)] + [
        (user_label(user) + ("" if user.attributes else f": {_short(notes(user), 60)}"), id)
        for id, user in users().items()
    ]


def user_label(user: Persona) -> str:
    """A user's short name."""
    if isinstance(user, OwnWords):
        return "Your memory"
    if user.attributes:
        return f"Grid: {', '.join(level for _, level in user.attributes)}"
    return f"{CONDITION_LABELS[user.condition]} ({user.pair_id})"


def notes(user: Persona) -> str:
    """What the model reads of the user."""
    return " ".join(text for _, text in user.texts())


def own_item(scenario: str, options: str) -> Item:
    """An item that a visitor wrote, its options one a line. It has no right answer: key is 0.

    Raises:
        InputError: empty, too long, or options that cannot be used.
    """
    lines = [line.strip() for line in options.splitlines() if line.strip()]
    _check_length("the scenario", scenario, SCENARIO)
    if len(lines) > OPTIONS:
        raise InputError(f"{len(lines)} options are given, at most {OPTIONS} can be")
    for line in lines:
        _check_length("an option", line, OPTION)
    return make_item(OWN, "your item", "understanding", scenario, lines, 0)


def own_user(text: str) -> Persona:
    """A user whom a visitor describes.

    Raises:
        InputError: empty or too long.
    """
    _check_length("the memory", text, NOTES)
    if not text.strip():
        raise InputError("the memory is empty: write what the model knows of the user")
    return OwnWords(OWN, OWN, None, (("notes", " ".join(text.split())),))


def choose_item(key: str, scenario: str = "", options: str = "") -> Item:
    """The item of a choice.

    Raises:
        InputError: there is no such item, or the visitor's own cannot be used.
    """
    if key == OWN:
        return own_item(scenario, options)
    if key not in items():
        raise InputError(f"there is no item {key!r}; choose one of the list")
    return items()[key]


def choose_user(id: str, text: str = "") -> Persona:
    """The user of a choice.

    Raises:
        InputError: there is no such user, or the visitor's own cannot be used.
    """
    if id == OWN:
        return own_user(text)
    if id not in users():
        raise InputError(f"there is no memory {id!r}; choose one of the list")
    return users()[id]


def _check_length(what: str, text: str, most: int) -> None:
    if len(text) > most:
        raise InputError(f"{what} has {len(text):,} characters, at most {most:,} can be asked")


def _short(text: str, n: int) -> str:
    return text if len(text) <= n else text[: n - 1].rstrip() + "…"


# -- asking --------------------------------------------------------------------------------------


def ask(shelf: Shelf, model: str, item: Item, users: Sequence[Persona]) -> Iterator[Answer]:
    """The answers without memory, then about each user; between two, others may use the models.

    Raises:
        InputError: the model cannot be asked here, or a prompt does not fit it.
    """
    bare = None
    for user in (None, *users):
        with shelf.lock:
            shares = _ask(shelf, model, item, user)
        picked = shares.index(max(shares))
        bare = picked if user is None else bare
        yield Answer(user, shares, picked, None if user is None else picked != bare)


def _ask(shelf: Shelf, model: str, item: Item, user: Persona | None) -> tuple[float, ...]:
    lm, chat = shelf.get(model)
    memory = PromptMemory()
    if user is not None:
        memory.remember(user)
    prompt, blind = (
        chat.render(memory.messages(question_text(item, SCORING, blind=blind)))
        for blind in (False, True)
    )
    if not isinstance(user, OwnWords):  # what visitors write is not kept
        lm.keep(prompt, blind)
    texts = continuations(item, SCORING)
    candidates = [chat.delimiter + text for text in texts]
    sums, priors = log_probs(lm, [prompt, blind], [candidates] * 2)
    return option_shares(Likelihoods(texts, sums, priors=priors))


def option_shares(options: Likelihoods) -> tuple[float, ...]:
    """Shares of the options, as in `Answer`: the softmax of what the audit's rule compares."""
    values = options.scores(DEFAULT_RULES[SCORING])
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    return tuple(weight / sum(weights) for weight in weights)


# -- in words ------------------------------------------------------------------------------------


def in_words(item: Item, answers: Sequence[Answer]) -> str:
    """What changed, in a sentence for each memory."""
    bare, *others = answers
    before = f"{percent(bare.shares[bare.picked])} %"
    parts = [f"Without memory the model answers “{item.options[bare.picked]}” ({before})."]
    for answer in others:
        option, share = item.options[answer.picked], f"{percent(answer.shares[answer.picked])} %"
        if answer.flip:
            change = f"answers “{option}” ({share}): the answer flips."
        else:
            change = f"still answers “{option}” ({before} → {share})."
        parts.append(f"{_remembering(answer.user)} it {change}")
    return " ".join(parts)


def _remembering(user: Persona) -> str:
    users = {"advantaged": "an advantaged user", "disadvantaged": "a disadvantaged user",
             "neutral": "a user's tastes and habits"}  # fmt: skip
    if isinstance(user, OwnWords):
        return "With your memory"
    if user.attributes:
        return f"Remembering a user who is {', '.join(level for _, level in user.attributes)},"
    return f"Remembering {users[user.condition]} ({user.pair_id})"
