"""One question of an emotional test, and what makes one sound."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from unswayed.core.errors import InputError
from unswayed.core.ledger import digest

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
        options: two or more answers, all different.
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
        key: text of the best option, its letter (A is the first), or its index from 0.

    Raises:
        InputError: says which part is wrong and what was given.
    """
    if not isinstance(options, (list, tuple)):
        raise InputError(f"options of {id} must be a list, got {options!r}")
    for option in options:
        if not isinstance(option, (str, int, float)):
            raise InputError(f"an option of {id} is {option!r}, it must be a text")
    options = tuple(str(option).strip() for option in options)
    if not str(id).strip():
        raise InputError("id is empty")
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}, it must be one of {', '.join(KINDS)}")
    if not isinstance(scenario, str) or not scenario.strip():
        raise InputError(f"scenario of {id} is empty or not text")
    if len(options) < 2:
        raise InputError(f"{id} has {len(options)} option(s), it needs at least two")
    if len(options) > len(LETTERS):
        raise InputError(f"{id} has {len(options)} options, at most {len(LETTERS)} can be lettered")
    if "" in options:
        raise InputError(f"an option of {id} is empty")
    if len(set(options)) < len(options):
        raise InputError(f"{id} has the same option twice: {', '.join(options)}")
    index = _key_index(key, options, id)
    if weights is None:
        weights = [float(i == index) for i in range(len(options))]
    try:
        weights = tuple(float(weight) for weight in weights)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"weights of {id} are not numbers: {weights!r}") from None
    if len(weights) != len(options) or not all(0 <= weight <= 1 for weight in weights):
        raise InputError(f"{id} needs {len(options)} weights between 0 and 1, got {list(weights)}")
    if max(weights) != weights[index]:
        raise InputError(f"the key of {id} is not the option with the largest weight")
    return Item(
        str(id).strip(), test, kind, scenario.strip(), options, index, weights,
        persona_invariant, rationale,
    )  # fmt: skip


def _key_index(key: str | int, options: tuple[str, ...], id: str) -> int:
    if isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(options):
        return key
    text = str(key).strip()
    if text in options:
        return options.index(text)
    if len(text) == 1 and text.upper() in LETTERS[: len(options)]:
        return LETTERS.index(text.upper())
    raise InputError(f"key {key!r} of {id} is not among its options: {', '.join(options)}")
