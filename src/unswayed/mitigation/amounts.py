"""Numbers in a text, in digits and in words, with their units; words from bank/amounts.yaml."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from typing import Any

from unswayed.core.banks import read_bank

UNIT = re.compile(r"[\s*]*(%|per ?cent\b|[a-z]+\b)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Amount:
    """A number in a text: its value, its unit as written ("" if none) and its characters."""

    value: float
    unit: str
    start: int
    end: int


@functools.cache
def _words() -> dict[str, Any]:
    """The bank, its units as unit -> (dimension, size), with `small`, the values of words below a
    hundred, and `amount`, the pattern of a number."""
    bank = read_bank("unswayed.mitigation", "amounts")
    small = {word: i for i, word in enumerate(bank["ones"])}
    small |= {word: 10 * i for i, word in enumerate(bank["tens"], 2)}
    units = {
        unit: (dimension, size)
        for dimension, sizes in bank["units"].items()
        for names, size in sizes.items()
        for unit in names.split()
    }
    word = "|".join(sorted([*small, *bank["large"]], key=len, reverse=True))
    amount = re.compile(
        r"(?P<digits>(?<![\w.,])(?<!\d:)[-−]?[$€£]?"
        r"(?:\d{1,3}(?:[,\u202f\u00a0]\d{3})+|\d+)(?:\.\d+)?)"
        r"(?:(?:\s?/\s?(?P<under>[1-9]\d*))(?!\d)|(?P<scale> (?:hundred|thousand|million)\b))?|"
        rf"\b(?P<minus>minus )?(?P<words>(?:{word})(?:(?:[ -]| and )(?:{word}))*)"
        rf"(?P<and_half> and (?:a |one )?half)?(?:[ -](?P<parts>{'|'.join(bank['parts'])}))?\b|"
        r"\b(?:a |one )?(?P<part>half)\b(?! of)",
        re.IGNORECASE,
    )
    return bank | {"small": small, "units": units, "amount": amount}


def amounts(text: str) -> list[Amount]:
    """All numbers of a text, in digits and in words, in order."""
    words, numbers = _words(), []
    for match in words["amount"].finditer(text):
        after = UNIT.match(text, match.end())
        unit = after[1].lower() if after else ""
        if unit.replace(" ", "") == "percent":
            unit = "%"
        if unit != "%" and unit not in words["units"]:
            unit = ""
        end = after.end() if unit else match.end()
        numbers.append(Amount(_value(match, words), unit, match.start(), end))
    return numbers


def _value(match: re.Match[str], words: dict[str, Any]) -> float:
    """The number that the pattern has matched."""
    if match["digits"]:
        value = float(re.sub(r"[$€£,\u202f\u00a0]", "", match["digits"]).replace("−", "-"))
        value /= float(match["under"] or 1)
        return value * (words["large"][match["scale"].strip().lower()] if match["scale"] else 1)
    if not match["words"]:
        return 0.5
    total = below_thousand = 0
    for word in re.split(r"[ -]", match["words"].lower()):
        if word in words["small"]:
            below_thousand += words["small"][word]
        elif word == "hundred":
            below_thousand = max(below_thousand, 1) * 100
        elif word in words["large"]:
            total, below_thousand = total + max(below_thousand, 1) * words["large"][word], 0
    value = float(total + below_thousand)
    value /= words["parts"][match["parts"].lower()] if match["parts"] else 1
    value += 0.5 if match["and_half"] else 0
    return -value if match["minus"] else value


def same_amount(amount: Amount, reference: Amount) -> bool:
    """Equal values, after conversion where both units are known; 0.1 % off is equal for decimals.

    A percentage equals its decimal fraction. A number without a unit is read in the reference's.
    """
    value, expected = amount.value, reference.value
    if "%" in (amount.unit, reference.unit):
        if amount.unit != reference.unit and _close(
            value * (100 if reference.unit else 0.01), expected
        ):
            return True
    elif amount.unit and reference.unit:
        units = _words()["units"]
        (dimension, size), (other, other_size) = units[amount.unit], units[reference.unit]
        if dimension != other:
            return False
        value, expected = value * size, expected * other_size
    return _close(value, expected)


def _close(value: float, expected: float) -> bool:
    whole = value == int(value) and expected == int(expected)
    return math.isclose(value, expected, rel_tol=1e-9 if whole else 1e-3)
