"""Numbers and foreign words as text: what the command line, the Markdown and the pages share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

MISSING = "–"


def percent(share: float | None, sign: bool = False) -> str:
    """A share as percent, or a difference of shares as percentage points, to one decimal."""
    if share is None or math.isnan(share):
        return MISSING
    text = f"{100 * share:{'+' if sign else ''}.1f}"
    return "0.0" if float(text) == 0 else text


def interval(value: dict[str, Any] | None, sign: bool = False) -> str:
    """Estimate and interval in percent (points): "26.7 [13.3, 40.0]"."""
    if value is None or value["estimate"] is None:
        return MISSING
    bounds = f"{percent(value['low'], sign)}, {percent(value['high'], sign)}"
    return f"{percent(value['estimate'], sign)} [{MISSING if value['low'] is None else bounds}]"


def interval_parts(value: dict[str, Any] | None, sign: bool = False) -> tuple[str, str]:
    """As `interval`, the estimate and the bracketed bounds apart."""
    estimate, _, bounds = interval(value, sign).partition(" ")
    return estimate, bounds


def coefficient(value: float | None) -> str:
    """A kappa or a correlation, to two decimals."""
    if value is None:
        return MISSING
    text = f"{value:.2f}"
    return "0.00" if float(text) == 0 else text


def coefficient_interval(value: dict[str, Any]) -> str:
    """A kappa or a correlation with its interval: "0.53 [0.41, 0.62]"."""
    if value["estimate"] is None:
        return MISSING
    bounds = f"{coefficient(value['low'])}, {coefficient(value['high'])}"
    return f"{coefficient(value['estimate'])} [{MISSING if value['low'] is None else bounds}]"


def p_value(p: float | None) -> str:
    """A p-value to three decimals."""
    if p is None:
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """Seconds as "8 min 19 s"."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def about(seconds: float) -> str:
    """Seconds as a rounded "40 s", "12 min", "3.5 h" or "2.5 days"."""
    units = (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48), ("days", 86400, math.inf))
    unit, size = next((unit, size) for unit, size, end in units if seconds < end * size)
    return f"{two_digits(seconds / size)} {unit}"


def two_digits(value: float) -> str:
    """A size to two digits: "0.54", "12", "31,000", "2.4 million"."""
    if value == 0:
        return "0"
    places = 1 - math.floor(math.log10(abs(value)))
    value = round(value, places)
    for word, size in (("billion", 1e9), ("million", 1e6)):
        if value >= size:
            return f"{value / size:,.{1 if value < 10 * size else 0}f} {word}".replace(".0 ", " ")
    return f"{value:,.{max(0, places)}f}".removesuffix(".0")


def count(n: int, noun: str) -> str:
    """ "1 item", "1,691 trials"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def listed(words: Iterable[str]) -> str:
    """ "a, b and c"."""
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def typeset(text: str) -> str:
    """A formatted number with a true minus sign."""
    return re.sub(r"(?<![\w.)-])-(?=\d)", "−", text)


def markdown_text(text: str) -> str:
    """Foreign text on one line of Markdown, with nothing in it that acts as markup."""
    line = " ".join(text.split())
    printable = "".join(c for c in line if c.isprintable())
    return re.sub(r"([\\|`*]|<(?=[A-Za-z/!?])|(?<=\])\()", r"\\\1", printable)
