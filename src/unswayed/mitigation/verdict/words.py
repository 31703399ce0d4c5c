"""Findings, labels and headlines of a mitigation, in words."""

from __future__ import annotations

from typing import Any

from unswayed.audit.effects import PERSONA
from unswayed.audit.verdict import ALPHA
from unswayed.compare.paired import BEYOND, GAP, HIGHER, LOWER, UNCLEAR, WITHIN, Interval
from unswayed.display.numbers import interval, listed, percent
from unswayed.mitigation.verdict.record import Change, Mitigation
from unswayed.report.words import CONDITION_LABELS, points

LABELS = CONDITION_LABELS | {
    PERSONA: "Both personas",
    GAP: "Gap: advantaged − disadvantaged",
    BEYOND: "Both personas − neutral memory",
}
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


def finding(change: Interval, p_equivalent: float | None) -> str:
    """What is shown of a change; being small comes first."""
    if p_equivalent is not None and p_equivalent < ALPHA:
        return WITHIN
    if change["low"] is None or change["low"] <= 0 <= change["high"]:
        return UNCLEAR
    return HIGHER if change["low"] > 0 else LOWER


def tone(metric: str, name: str, state: str) -> str:
    """Better is good, worse an alert; a gap is neither."""
    if state in (UNCLEAR, WITHIN) or name == GAP:
        return "ink"
    return "good" if (state == LOWER) == (metric == "flip") else "alert"


def row_of(rows: list[Change], metric: str, name: str) -> Change | None:
    """The row of a metric and name; None if the runs have no such answers."""
    return next((row for row in rows if (row["metric"], row["name"]) == (metric, name)), None)


def as_change(row: dict[str, Any]) -> Interval:
    """The change of `ability_change` in the form of `changes.run_changes`."""
    low, high = row["low"], row["high"]
    return {
        "estimate": row["change"],
        "low": None if low is None else max(low, -1),
        "high": None if high is None else min(high, 1),
    }


def capability_changes(record: Mitigation) -> dict[str, dict[str, dict[str, Any]]]:
    """Task -> condition -> row; empty where capability was not asked about."""
    return (record["capability"] or {"changes": {}})["changes"]


def headlines(record: Mitigation) -> list[str]:
    """What training did to flips, accuracy, the gap and capability, a sentence each."""
    sentences = []
    for test, about in record["tests"].items():
        rows = about["changes"]["after"]
        sentences += [
            f"{test}: flips with a persona in memory {_moved(row_of(rows, 'flip', PERSONA))}.",
            f"{test}: accuracy with a persona {_moved(row_of(rows, 'accuracy', PERSONA))}.",
            f"{test}: the gap between users {_moved(row_of(rows, 'accuracy', GAP), sign=True)}.",
        ]
    return sentences + [
        _on_task(task, conditions, record["margin"])
        for task, conditions in capability_changes(record).items()
    ]


def _moved(row: Change | None, sign: bool = False) -> str:
    """ "fell from 20.0% to 11.0% (-45.0 [-60.0, -24.4]% relative)"."""
    if row is None:
        return "cannot be told"
    unit = " points" if sign else "%"
    before, after = (percent(row[side]["estimate"], sign) + unit for side in ("before", "after"))
    text = {
        LOWER: f"fell from {before} to {after}",
        HIGHER: f"rose from {before} to {after}",
        WITHIN: f"stayed within the margin, {before} before and {after} after",
        UNCLEAR: f"may or may not have changed, {before} before and {after} after",
    }[finding(row["change"], row["p_equivalent"])]
    if row["relative"]:
        return f"{text} ({interval(row['relative'], sign=True)}% relative)"
    return f"{text} ({interval(row['change'], sign=True)} points)"


def _on_task(task: str, conditions: dict[str, dict[str, Any]], margin: float) -> str:
    """What training cost on a task. A rise is no cost: it is enough that no interval reaches down
    to the margin."""
    title = TASKS[task][0]
    states = {
        name: finding(as_change(row), row["p_equivalent"]) for name, row in conditions.items()
    }
    if set(states.values()) == {WITHIN}:
        return f"{title} stayed within {points(margin)} under every condition."
    falls = [
        f"{LABELS[name].lower()}, {interval(as_change(row), sign=True)} points"
        for name, row in conditions.items()
        if states[name] == LOWER
    ]
    if falls:
        return f"{title} fell: {'; '.join(falls)}."
    name, worst = min(conditions.items(), key=lambda pair: pair[1]["change"])
    change = f"{interval(as_change(worst), sign=True)} points ({LABELS[name].lower()})"
    within = points(margin)
    text = f"is not shown to have fallen, nor to have stayed within {within}"
    if all(row["low"] is not None and row["low"] > -margin for row in conditions.values()):
        text = f"did not fall by {within} under any condition"
    return f"{title} {text}; the lowest change is {change}."


def warnings(record: Mitigation) -> list[str]:
    """What a reader must know first."""
    runs: dict[str, list[str]] = {}
    for name in ("before", "after"):
        for text in record["runs"][name]["warnings"]:
            runs.setdefault(text, []).append(name)
    sentences = [f"{' and '.join(names).capitalize()}: {text}" for text, names in runs.items()]
    if at := [test for test in record["tests"] if at_chance(record, test)]:
        sentences.append(
            f"Where a model guesses (here on {listed(at)}), fewer flips may only mean that it "
            "guesses more evenly: this proves little about models that know the answers."
        )
    return sentences


def at_chance(record: Mitigation, test: str) -> str:
    """In which of the two runs the model guesses: "before and after", or ""."""
    return " and ".join(
        name for name in ("before", "after") if record["runs"][name]["tests"][test]["at_chance"]
    )
