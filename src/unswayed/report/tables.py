"""Formatted rows of a summary, and the result table for the command line and report.md."""

from __future__ import annotations

from typing import Any

from unswayed.audit.summary import effects_of
from unswayed.display.numbers import MISSING, interval, p_value, percent
from unswayed.display.page import render_report
from unswayed.report.words import DESCRIPTIVE, finding, points


def result_table(summary: dict[str, Any]) -> str:
    """The run's results as two Markdown tables, aligned to be read as plain text too.

    Of the effects those that are tested; the report has the others.
    """
    view = {
        "conditions": condition_rows(summary),
        "effects": [row for row in effect_rows(summary) if row["finding"] != DESCRIPTIVE],
        "scored": any(test["kind"] == "management" for test in summary["tests"].values()),
    }
    return render_report("unswayed.report", "results.md.jinja", view).rstrip()


def condition_rows(summary: dict[str, Any]) -> list[dict[str, str]]:
    """Formatted rows, test x condition; shares in percent."""
    return [
        {
            "test": name,
            "condition": condition,
            "n": f"{values['n']:,}",
            "accuracy": interval(values["accuracy"]),
            "expected": interval(values["expected"]),
            "shift": interval(values["shift"]),
            "score": interval(values["score"]),
            "flip_rate": interval(values["flip_rate"]),
            "unparsed": percent(values["unparsed"]),
        }
        for name, test in summary["tests"].items()
        for condition, values in test["conditions"].items()
    ]


def effect_rows(summary: dict[str, Any]) -> list[dict[str, str]]:
    """Formatted rows, one per effect in the order of `effects_of`; differences in points."""
    alpha = 1 - summary["level"]
    tests = [name for name, test in summary["tests"].items() for _ in test["effects"]]
    return [
        {
            "test": test,
            "metric": effect["metric"],
            "name": effect["name"],
            "finding": finding(effect, alpha),
            "difference": interval(effect, sign=True),
            **{key: p_value(effect[key]) for key in P_KEYS},
            **{key: f"{effect[key]:,}" for key in COUNT_KEYS},
            "notes": " ".join(effect["notes"]),
        }
        for test, effect in zip(tests, effects_of(summary), strict=True)
    ]


P_KEYS = ("p", "p_holm", "p_tost", "p_mcnemar")
COUNT_KEYS = ("n_items", "n_pairs", "n_differences", "better", "worse")


def power_rows(summary: dict[str, Any]) -> list[dict[str, str]]:
    """What the run could have found, and what would be needed, formatted; sizes in points."""

    def share(value: float | None) -> str:
        return MISSING if value is None else f"{value:.0%}"

    def needed(n: int | None) -> str:
        return "> 100,000" if n is None else f"{n:,}"

    return [
        {
            "test": name,
            "metric": power["metric"],
            "name": power["effect"],
            "mde": percent(power["mde"]),
            "power_at_margin": share(power["power_at_margin"]),
            "power_equivalence": share(power["power_equivalence"]),
            "items_needed": needed(power["items_needed"]),
            # a grid's cells are given, and a single pair says nothing of others
            "pairs_needed": needed(power["pairs_needed"])
            if power["effect"] == "gap" and power["n_pairs"] > 1
            else MISSING,
        }
        for name, test in summary["tests"].items()
        for power in test["power"]
    ]


def power_columns(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """(key, heading) of `power_rows` after test, metric and name."""
    margin = points(summary["margin"])
    return [
        ("mde", "Smallest difference found (points)"),
        ("power_at_margin", f"Power at {margin}"),
        ("power_equivalence", "Power of equivalence"),
        ("items_needed", "Items needed"),
        ("pairs_needed", "Pairs needed"),
    ]
