"""One question of an emotional test, and what makes one sound."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from unswayed.core.errors import InputError
from unswayed.core.ledger import digest
from unswayed.data.texts import INVISIBLE, identifier, visible

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
KINDS = ("understanding", "management")


@dataclasses.dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: unique within its test.
        test: name of the instrument, e.g. "understanding", "steu".
        kind: "understanding" (which emotion) or "management" (which action).
        scenario: the text that is asked, its question included.
        options: two or more answers, different to the eye.
        key: index of the best option.
        weights: expert effectiveness of each option in [0, 1] (management); for understanding
            items 1 for the key and 0 elsewhere.
        persona_invariant: False if annotators found that the answer may depend on who asks.
        rationale: why the key is right.
    """

    id: str
    test: str
    kind: str
    scenario: str
    options: tuple[str, ...]
    key: int
    weights: tuple[float, ...]
    persona_invariant: bool = True
    rationale: str = ""


def items_hash(items: Iterable[Item]) -> str:
    """SHA-256 of everything that the model and the scoring see of the items, in order."""
    return digest([dataclasses.astuple(item)[:7] for item in items], ensure_ascii=False)


def make_item(
    test: str,
    id: str,
    kind: str,
    scenario: str,
    options: Sequence[str],
    key: str | int,
    weights: Iterable[float] | None = None,
    persona_invariant: bool = True,
    rationale: str = "",
) -> Item:
    """An item from loose parts, checked.

    Args:
        options: texts or whole numbers.
        key: text of the best option, its letter (A is the first), or its place from 0 as a number.

    Raises:
        InputError: says which part is wrong and what was given.
    """
    id = identifier(id)
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}, it must be one of {', '.join(KINDS)}")
    if not isinstance(scenario, str) or not visible(scenario):
        raise InputError(f"scenario of {id} is empty or not text")
    options = _options(options, id)
    index = _key_index(key, options, id)
    if weights is None:
        weights = [float(i == index) for i in range(len(options))]
    try:
        weights = tuple(map(_weight, weights))
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"weights of {id} are not numbers: {weights!r}") from None
    if len(weights) != len(options) or not all(0 <= weight <= 1 for weight in weights):
        raise InputError(f"{id} needs {len(options)} weights between 0 and 1, got {list(weights)}")
    if not any(weights):
        raise InputError(f"weights of {id} are all 0: the key must have more")
    if max(weights) != weights[index]:
        raise InputError(f"the key of {id} is not the option with the largest weight")
    return Item(
        id, test, kind, scenario.strip(), options, index, weights, persona_invariant, rationale
    )


def _options(options: object, id: str) -> tuple[str, ...]:
    """Two to 26 texts that differ to the eye, without space around them."""
    if not isinstance(options, (list, tuple)):
        raise InputError(f"options of {id} must be a list, got {options!r}")
    for option in options:
        if isinstance(option, float):  # 1.0, 1.00 and 1e0 are one number, and three texts
            raise InputError(f'an option of {id} is {option!r}, write it as a text: "{option!r}"')
        if isinstance(option, bool) or not isinstance(option, (str, int)):
            raise InputError(f"an option of {id} is {option!r}, it must be a text")
    texts = tuple(str(option).strip() for option in options)
    if len(texts) < 2:
        raise InputError(f"{id} has {len(texts)} option(s), it needs at least two")
    if len(texts) > len(LETTERS):
        raise InputError(f"{id} has {len(texts)} options, at most {len(LETTERS)} can be lettered")
    first: dict[str, str] = {}
    for text in texts:
        if not (look := visible(text)):
            unseen = f", but for characters that cannot be seen: {text!a}" if text else ""
            raise InputError(f"an option of {id} is empty{unseen}")
        if (twin := first.setdefault(look, text)) != text:
            raise InputError(
                f"two options of {id} differ only in what cannot be seen: {twin!a} and "
                f"{text!a}; leave one out"
            )
    if len(first) < len(texts):
        raise InputError(f"{id} has the same option twice: {', '.join(texts)}")
    return texts


def _weight(value: object) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _key_index(key: object, options: tuple[str, ...], id: str) -> int:
    """Its place. A number is one, unless the options are numbers too and it could be their text."""
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise InputError(f"key {key!r} of {id} must be a text, a letter or a whole number")
    texts, text = [visible(option) for option in options], visible(str(key))
    named = texts.index(text) if text in texts else None
    if isinstance(key, int):
        if named != key and any(map(_is_number, texts)):
            raise InputError(
                f"key {key} of {id} may be a place or a text, since its options are numbers: "
                f"{', '.join(options)}; write the text of an option in quotes"
            )
        if 0 <= key < len(options):
            return key
    elif named is not None:
        return named
    elif len(text) == 1 and text.upper() in LETTERS[: len(options)]:
        return LETTERS.index(text.upper())
    raise InputError(f"key {key!r} of {id} is not among its options: {', '.join(options)}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def notes_on(items: Iterable[Item]) -> list[str]:
    """What to know of the options when their log-probabilities are read, a sentence each."""
    notes, items = [], list(items)
    prefixes = [
        f"{short!r} and {long!r} ({item.id})"
        for item in items
        for short, long in itertools.permutations(item.options, 2)
        if long.startswith(short)
    ]
    if prefixes:
        notes.append(
            f"An option begins another ({len(prefixes)} times, such as {prefixes[0]}): the sum of "
            "log-probabilities then favours the shorter, whatever the question."
        )
    unseen = [
        f"{option!a} ({item.id})"
        for item in items
        for option in item.options
        if INVISIBLE.search(option)
    ]
    if unseen:
        notes.append(
            "An option holds characters that cannot be seen, but that the model reads "
            f"({len(unseen)} times, such as {unseen[0]})."
        )
    return notes
