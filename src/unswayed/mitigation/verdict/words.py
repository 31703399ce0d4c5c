"""Findings, labels and headlines of a mitigation, in words."""

from __future__ import annotations

from typing import Any

from unswayed.audit.summary import ALPHA, PERSONA
from unswayed.compare.paired import HIGHER, LOWER, UNCLEAR, WITHIN
from unswayed.display.numbers import interval, listed, percent
from unswayed.mitigation.verdict.changes import BEYOND, GAP
from unswayed.report.words import CONDITION_LABELS, points

LABELS = CONDITION_LABELS | {
    PERSONA: "Both personas",
    GAP: "Gap: advantaged − disadvantaged",
    BEYOND: "Both personas − neutral memory",
}
METRICS = {"accuracy": "Accuracy", "score": "Expert score", "flip": "Flips"}
TASKS = {
    "persona_mmlu": ("MMLU", "questions answered right"),
    "persona_ifeval": ("IFEval", "prompts whose instructions were all followed (strict)"),
}
RUNS = {
    "before": "Before training",
    "after": "After training",
    "ignore": "Before, told to ignore the user",
    "gated": "Before, memory gated",
}
RUN_TEXTS = {
    "ignore": "the memory ends with an instruction to ignore who the user is",
    "gated": "the memory enters the prompt only where the question is near to it by its words",
}

FINDINGS = {
    LOWER: "the 95% interval of the change lies below zero",
    HIGHER: "the 95% interval of the change lies above zero",
    WITHIN: "the change is shown to lie within the margin",
    UNCLEAR: "neither: the interval covers zero and reaches beyond the margin",
}


def finding(change: dict[str, Any], p_equivalent: float | None) -> str:
    """What is shown of a change; being small comes first."""
    if p_equivalent is not None and p_equivalent < ALPHA:
        return WITHIN
    if change["low"] is None or change["low"] <= 0 <= change["high"]:
        return UNCLEAR
    return HIGHER if change["low"] > 0 else LOWER


def tone(metric: str, name: str, found: str) -> str:
    """Better is good, worse an alert; a gap is neither."""
    if found in (UNCLEAR, WITHIN) or name == GAP:
        return "ink"
    return "good" if (found == LOWER) == (metric == "flip") else "alert"


def row_of(rows: list[dict[str, Any]], metric: str, name: str) -> dict[str, Any] | None:
    """The row of a metric and name; None if the runs have no such answers."""
    return next((row for row in rows if (row["metric"], row["name"]) == (metric, name)), None)


def as_change(row: dict[str, Any]) -> dict[str, Any]:
    """The change of `ability_change` in the form of `changes.run_changes`."""
    known = row["low"] is not None
    return {
        "estimate": row["change"],
        "low": max(row["low"], -1) if known else None,
        "high": min(row["high"], 1) if known else None,
    }


def headlines(found: dict[str, Any]) -> list[str]:
    """What training did to flips, accuracy, the gap and capability, a sentence each."""
    said = []
    for test, about in found["tests"].items():
        rows = about["changes"]["after"]
        said += [
            f"{test}: flips with a persona in memory {_moved(row_of(rows, 'flip', PERSONA))}.",
            f"{test}: accuracy with a persona {_moved(row_of(rows, 'accuracy', PERSONA))}.",
            f"{test}: the gap between users {_moved(row_of(rows, 'accuracy', GAP), sign=True)}.",
        ]
    return said + [
        _on_task(task, conditions, found["margin"])
        for task, conditions in (found["capability"] or {"changes": {}})["changes"].items()
    ]


def _moved(row: dict[str, Any] | None, sign: bool = False) -> str:
    """ "fell from 20.0% to 11.0% (-45.0 [-60.0, -24.4]% relative)"."""
    if row is None:
        return "cannot be told"
    unit = " points" if sign else "%"
    before, after = (percent(row[side]["estimate"], sign) + unit for side in ("before", "after"))
    said = {
        LOWER: f"fell from {before} to {after}",
        HIGHER: f"rose from {before} to {after}",
        WITHIN: f"stayed within the margin, {before} before and {after} after",
        UNCLEAR: f"may or may not have changed, {before} before and {after} after",
    }[finding(row["change"], row["p_equivalent"])]
    if row["relative"]:
        return f"{said} ({interval(row['relative'], sign=True)}% relative)"
    return f"{said} ({interval(row['change'], sign=True)} points)"


def _on_task(task: str, conditions: dict[str, dict[str, Any]], margin: float) -> str:
    """What training cost on a task. A rise is no cost: it is enough that no interval reaches down
    to the margin."""
    title = TASKS[task][0]
    states = {
        name: finding(as_change(row), row["p_equivalent"]) for name, row in conditions.items()
    }
    if set(states.values()) == {WITHIN}:
        return f"{title} stayed within {points(margin)} under every condition."
    shown = [
        f"{LABELS[name].lower()}, {interval(as_change(row), sign=True)} points"
        for name, row in conditions.items()
        if states[name] == LOWER
    ]
    if shown:
        return f"{title} fell: {'; '.join(shown)}."
    name, worst = min(conditions.items(), key=lambda pair: pair[1]["change"])
    change = f"{interval(as_change(worst), sign=True)} points ({LABELS[name].lower()})"
    within = points(margin)
    said = f"is not shown to have fallen, nor to have stayed within {within}"
    if all(row["low"] is not None and row["low"] > -margin for row in conditions.values()):
        said = f"did not fall by {within} under any condition"
    return f"{title} {said}; the lowest change is {change}."


def warnings(found: dict[str, Any]) -> list[str]:
    """What a reader must know first."""
    said: dict[str, list[str]] = {}
    for name in ("before", "after"):
        for text in found["runs"][name]["warnings"]:
            said.setdefault(text, []).append(name)
    listing = [f"{' and '.join(names).capitalize()}: {text}" for text, names in said.items()]
    if at := [test for test in found["tests"] if at_chance(found, test)]:
        listing.append(
            f"Where a model guesses (here on {listed(at)}), fewer flips may only mean that it "
            "guesses more evenly: this proves little about models that know the answers."
        )
    return listing


def at_chance(found: dict[str, Any], test: str) -> str:
    """In which of the two runs the model guesses: "before and after", or ""."""
    return " and ".join(
        name
        for name in ("before", "after")
        if found["runs"][name]["tests"][test]["at_chance"]["accuracy"]
    )
