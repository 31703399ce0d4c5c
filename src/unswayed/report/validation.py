"""What `unswayed validate` prints."""

from __future__ import annotations

from typing import Any

from unswayed.display.numbers import MISSING, interval, percent
from unswayed.display.tables import markdown_table

COLUMNS = [
    ("test", "Test"),
    ("way", "Scoring"),
    ("reads", "Reads"),
    ("accuracy", "Accuracy (%)"),
    ("chance", "Chance"),
    ("longest", "Longest (%)"),
    ("blind", "As without scenario (%)"),
    ("frequent", "Most frequent (%)"),
    ("mass", "Letter mass (%)"),
    ("changed", "Changed"),
]


def validation_text(result: dict[str, Any]) -> str:
    """The table of ways x tests, warnings, and the recommendation."""
    rows = [
        validation_row(result, way, test)
        for test in next(iter(result["ways"].values()))
        for way in result["ways"]
    ]
    columns = [(key, title) for key, title in COLUMNS if key != "changed" or result["precision"]]
    notes = [
        "In brackets: 95% intervals of accuracy; behind habits, an unbiased reader's share.",
        *_precision(result["precision"]),
    ]
    return "\n".join([markdown_table(rows, columns, 3), "", *notes, "", result["text"]])


def validation_row(result: dict[str, Any], way: str, test: str) -> dict[str, str]:
    """Formatted: a way of scoring on a test."""
    figures, precision = result["ways"][way][test], result["precision"]
    reading = figures["reading"]
    mass = reading["letter_mass"]
    return {
        "test": test,
        "way": f"letter, orders {result['orders']}" if way == "letter" else f"option, {way}",
        "reads": {True: "yes", False: "no", None: "cannot tell"}[figures["reads"]],
        "accuracy": interval(figures["accuracy"]),
        "chance": percent(figures["chance"]),
        **{name: _habit(reading[name]) for name in ("longest", "blind", "frequent")},
        "mass": percent(mass["estimate"]) if mass else MISSING,
        "changed": f"{precision['changed'][way]} of {precision['n']}" if precision else MISSING,
    }


def _habit(habit: dict[str, Any] | None) -> str:
    if habit is None:
        return MISSING
    return f"{percent(habit['estimate'])} ({percent(habit['unbiased'])})"


def _precision(precision: dict[str, Any] | None) -> list[str]:
    if precision is None:
        return []
    return [
        f"Changed: answers to {precision['n']} items over all tests that are others in "
        f"{precision['other']} than in {precision['loaded']}."
    ]
