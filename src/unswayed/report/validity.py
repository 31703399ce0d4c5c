"""Whether the questions are read, before any other number: sentences, rows, positions."""

from __future__ import annotations

from typing import Any

from unswayed.audit.validity import (
    HABITS,
    LETTER_MASS,
    READINGS,
    UNREAD,
    gives_away,
    habit_text,
    option_name,
)
from unswayed.display.numbers import MISSING, count, interval, percent
from unswayed.display.plots import SHARES, position

HABIT_LABELS = {
    "blind": "As without the scenario",
    "longest": "The longest option",
    "first": "The option shown first",
    "frequent": "The most frequent: {}",
}


def validity_view(summary: dict[str, Any]) -> dict[str, Any]:
    """What page and Markdown draw."""
    tests = summary["tests"]
    ignored = [name for name, test in tests.items() if test["validity"]["reads"] is False]
    measurable = any(test["validity"]["reads"] is not None for test in tests.values())
    return {
        "title": f"the questions of {', '.join(ignored)} are not read"
        if ignored
        else "nothing shows that the questions are ignored"
        if measurable
        else "cannot be told",
        "warnings": validity_warnings(summary),
        "statements": validity_statements(summary),
        "rows": validity_rows(summary),
        "axis": SHARES,
    }


def validity_lines(summary: dict[str, Any]) -> list[str]:
    """Warnings on validity, then what speaks for it, then the numerical floor."""
    warnings = [f"Warning: {text}" for text in validity_warnings(summary)]
    return warnings + validity_statements(summary)


def validity_warnings(summary: dict[str, Any]) -> list[str]:
    return [text for test in summary["tests"].values() for text in test["validity"]["warnings"]]


def validity_statements(summary: dict[str, Any]) -> list[str]:
    """On each test that is not shown to be unread, and on the numerical floor."""
    lines = []
    for name, test in summary["tests"].items():
        if test["validity"]["reads"]:
            lines.append(_read(name, test["validity"]["readings"], summary["scoring"]))
        elif test["validity"]["reads"] is None:
            lines.append(f"On {name} too little was answered to tell whether the model reads it.")
    return lines + ([_floor(summary["floor"])] if summary["floor"] else [])


def _floor(floor: dict[str, Any]) -> str:
    changed = f"{floor['changed']} changed" if floor["changed"] else "none changed"
    return (
        f"Numerical floor: of {count(floor['n'], 'answer')} asked again one prompt at a time, "
        f"{changed}; the largest difference is {nats(floor['largest'])}."
    )


def nats(difference: float) -> str:
    """To one digit below 1, else to one decimal."""
    if difference < 1e-4:
        return "below 0.0001 nats"
    return f"{difference:.1g} nats" if difference < 1 else f"{difference:.1f} nats"


def other_warnings(summary: dict[str, Any]) -> list[str]:
    """Warnings of a summary that are not on validity."""
    on_validity = validity_warnings(summary)
    return [text for text in summary["warnings"] if text not in on_validity]


def _read(test: str, readings: dict[str, Any], scoring: str) -> str:
    where, figures = next(iter(readings.items()))
    shares = [
        f"{figures[name]['estimate']:.0%} {habit_text(name, figures[name], scoring)} "
        f"({figures[name]['unbiased']:.0%})"
        for name in HABITS
        if figures[name] and figures[name]["low"] is not None
    ]
    return (
        f"On {test} nothing shows that the model ignores the question: of its picks "
        f"{READINGS[where]}, in brackets those of an unbiased reader, {', '.join(shares)}."
    )


def validity_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Formatted rows, test x reading x figure, with positions on the axis of shares."""
    return [
        {"test": test, "where": READINGS[where]} | row
        for test, figures in summary["tests"].items()
        for where, reading in figures["validity"]["readings"].items()
        for row in _reading_rows(reading)
    ]


def _reading_rows(reading: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        _row(
            HABIT_LABELS[name].format(option_name(reading[name])),
            reading[name],
            "not read" if gives_away(reading[name]) else "",
            reading[name]["unbiased"],
        )
        for name in HABITS
        if reading[name]
    ]
    if mass := reading["letter_mass"]:
        low = mass["estimate"] < LETTER_MASS
        rows.append(_row("Probability of all letters", mass, "low" if low else ""))
    high = reading["unread"]["estimate"] > UNREAD
    return [*rows, _row("Unread answers", reading["unread"], "high" if high else "")]


def _row(label: str, value: dict[str, Any], finding: str, unbiased: float | None = None) -> dict:
    return {
        "label": label,
        "share": interval(value),
        "unbiased": percent(unbiased),
        "unbiased_x": None if unbiased is None else SHARES.at(unbiased),
        "finding": finding or MISSING,
    } | position(value, SHARES)
