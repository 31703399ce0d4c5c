"""Several memories: formatted view data; the templates only draw it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unswayed.audit.effects import PERSONA
from unswayed.audit.trials import NEUTRAL, NONE
from unswayed.compare.memories import MemoriesComparison, MemoriesTest
from unswayed.compare.paired import (
    BEYOND,
    DIFFERENCES,
    GAP,
    HIGHER,
    LOWER,
    UNCLEAR,
    WITHIN,
)
from unswayed.display.numbers import (
    MISSING,
    count,
    interval,
    interval_parts,
    p_value,
    percent,
)
from unswayed.display.page import sections
from unswayed.display.plots import Axis, ends, margin_axis, position, share_axis, zoomed_axis
from unswayed.display.tables import markdown_table
from unswayed.memory.registry import describe
from unswayed.report.words import CONDITION_LABELS, EFFECT_LABELS, METRIC_LABELS, VERDICTS, points

PLOTTED = (NEUTRAL, "advantaged", "disadvantaged")  # one lane each
LABELS = CONDITION_LABELS | {
    PERSONA: "Both personas",
    GAP: EFFECT_LABELS[GAP],
    BEYOND: "Beyond neutral memory",
}
MAIN = (PERSONA, GAP, BEYOND)  # the comparisons that are not folded in
# metric, name, heading: what the table of key figures holds
KEY_FIGURES = (
    ("flip", PERSONA, "Flips with a persona (%)"),
    ("flip", BEYOND, "Flips beyond neutral (points)"),
    ("accuracy", PERSONA, "Accuracy with a persona (%)"),
    ("accuracy", GAP, "Gap (points)"),
)
P_COLUMNS = (
    ("p", "p"),
    ("p_holm", "p (Holm)"),
    ("p_bh", "p (BH)"),
    ("p_equivalent", "p (equivalence)"),
    ("p_equivalent_holm", "p (equivalence, Holm)"),
)


def memories_view(comparison: MemoriesComparison) -> dict[str, Any]:
    """Everything that page and Markdown draw, formatted."""
    findings = {
        row["finding"] for test in comparison["tests"].values() for row in test["differences"]
    }
    n_items, n_pairs = comparison["n_items"], comparison["n_pairs"]
    basics = {key: comparison[key] for key in ("reference", "families")} | {
        "asked": f"{count(n_items, 'item')}, {count(n_pairs, 'persona pair')} each",
        "level": f"{comparison['level']:.0%}",
        "margin": points(comparison["margin"]),
    }
    about = {key: comparison[key] for key in ("model", "scoring", "seed")}
    about["shared_notes"] = shared_notes(comparison)
    return basics | {
        "title": f"{comparison['model']} under {len(comparison['memories'])} memories",
        "headlines": headlines(comparison),
        "warnings": comparison["warnings"],
        "memories": memory_rows(comparison),
        "labels": {condition: LABELS[condition] for condition in PLOTTED},
        "flips": share_panels(comparison, ["flip"]),
        "gaps": gap_panels(comparison),
        "accuracy": share_panels(comparison, ["accuracy", "score"]),
        "key_table": key_table(comparison),
        "levels": level_rows(comparison),
        "differences": difference_panels(comparison),
        "p_columns": list(P_COLUMNS),
        "findings": [name for name in (LOWER, HIGHER, WITHIN, UNCLEAR) if name in findings],
        "methods": sections("unswayed.report", "memories_methods.md.jinja", basics | about),
        "version": comparison["versions"]["unswayed"],
    }


def _names(comparison: MemoriesComparison) -> list[str]:
    return [memory["name"] for memory in comparison["memories"]]


def _levels(
    test: MemoriesTest, metric: str, name: str, memories: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Memory -> value, in the order of `memories`; without those that have none."""
    rows = {
        row["memory"]: row
        for row in test["levels"]
        if (row["metric"], row["name"]) == (metric, name)
    }
    return {memory: rows[memory] for memory in memories if memory in rows}


def headlines(comparison: MemoriesComparison) -> list[str]:
    """Which memories do most and least, a sentence per test, and how many differ."""
    sentences, findings, reference = [], [], comparison["reference"]
    for name, test in comparison["tests"].items():
        findings += [row["finding"] for row in test["differences"]]
        flips = _levels(test, "flip", PERSONA, _names(comparison))
        gaps = _levels(test, "accuracy", GAP, _names(comparison))
        parts = [f"with a persona {_range(flips, '%')} of the answers flip"] if flips else []
        parts += [f"the gap is {_range(gaps, ' points', sign=True)}"] if gaps else []
        if parts:
            sentences.append(f"{name}: {', and '.join(parts)}.")
    n = sum(finding in (LOWER, HIGHER) for finding in findings)
    differ = "1 shows a difference" if n == 1 else f"{n} show a difference"
    return [
        *sentences,
        f"Of {count(len(findings), 'comparison')} with {reference}, {differ} and "
        f"{findings.count(WITHIN)} are shown to lie within ±{points(comparison['margin'])}, both "
        "after Holm's correction within each metric.",
    ]


def _range(values: dict[str, dict[str, Any]], unit: str, sign: bool = False) -> str:
    """ "3.1% (gated) to 25.0% (prompt)", or the one value of all."""
    low, high = (pick(values, key=lambda memory: values[memory]["estimate"]) for pick in (min, max))
    texts = [percent(values[memory]["estimate"], sign) + unit for memory in (low, high)]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} ({low}) to {texts[1]} ({high})"


def memory_rows(comparison: MemoriesComparison) -> list[dict[str, str]]:
    """What each memory is, what its run says of it, and the run's own verdict."""
    shared = shared_notes(comparison)
    return [
        {
            "name": memory["name"],
            "text": describe(memory["memory"], memory["memory_style"]),
            "notes": " ".join(note for note in memory["notes"] if note not in shared),
            "status": memory["verdict"]["status"],
            "verdict": VERDICTS[memory["verdict"]["status"]],
        }
        for memory in comparison["memories"]
    ]


def shared_notes(comparison: MemoriesComparison) -> list[str]:
    """Notes that all runs have, which say nothing of the memory."""
    first, *rest = (memory["notes"] for memory in comparison["memories"])
    return [note for note in first if all(note in notes for notes in rest)]


# -- what each memory does -----------------------------------------------------------------------


def share_panels(comparison: MemoriesComparison, metrics: Iterable[str]) -> list[dict[str, Any]]:
    """Per test and metric, a row per memory with a lane per condition, on one axis."""
    return [
        panel
        for name, test in comparison["tests"].items()
        for metric in metrics
        if (panel := _share_panel(comparison, name, test, metric))
    ]


def _share_panel(
    comparison: MemoriesComparison, title: str, test: dict[str, Any], metric: str
) -> dict[str, Any] | None:
    levels = {
        name: rows
        for name in (*PLOTTED, PERSONA, BEYOND)
        if (rows := _levels(test, metric, name, _names(comparison)))
    }
    if not levels:
        return None
    bare = _levels(test, metric, NONE, [comparison["reference"]]).get(comparison["reference"])
    shares = [row for name in levels if name != BEYOND for row in levels[name].values()]
    values = [end for row in (*shares, bare) for end in ends(row)]
    axis = _axis(metric, values)
    return {
        "test": title,
        "size": f"{count(test['n_items'], 'item')}, {count(test['n_pairs'], 'pair')}",
        "metric": METRIC_LABELS[metric],
        "axis": axis,
        "bare": interval(bare) if bare else "",
        "bare_x": axis.inside(bare["estimate"]) if bare else None,
        "columns": [(name, LABELS[name]) for name in levels],
        "rows": [
            {
                "label": memory,
                "lanes": [
                    {"condition": name} | position(rows.get(memory), axis)
                    for name, rows in levels.items()
                    if name in PLOTTED
                ],
                "cells": [
                    interval_parts(rows.get(memory), sign=name in DIFFERENCES.values())
                    for name, rows in levels.items()
                ],
            }
            for memory in _names(comparison)
        ],
    }


def _axis(metric: str, values: list[float | None]) -> Axis:
    """Flips from zero; other shares only where there are any."""
    shares = [value for value in values if value is not None]
    return share_axis(max(shares, default=0)) if metric == "flip" else zoomed_axis(shares)


def gap_panels(comparison: MemoriesComparison) -> list[dict[str, Any]]:
    """Per test and metric, the gap under each memory, all on one axis."""
    gaps = [
        (name, metric, _levels(test, metric, GAP, _names(comparison)))
        for name, test in comparison["tests"].items()
        for metric in ("accuracy", "score")
    ]
    axis, margin = margin_axis(
        comparison["margin"], (row for *_, rows in gaps for row in rows.values())
    )
    return [
        {
            "test": name,
            "metric": METRIC_LABELS[metric],
            "axis": axis,
            "margin": margin,
            "rows": [
                {"label": memory, "value": interval(row, sign=True)}
                | position(row, axis)
                | _against(comparison, name, memory, metric, GAP)
                for memory, row in rows.items()
            ],
        }
        for name, metric, rows in gaps
        if rows
    ]


def _against(
    comparison: MemoriesComparison, test: str, memory: str, metric: str, name: str
) -> dict[str, str]:
    """The difference from the reference, and its p."""
    row = next(
        (
            row
            for row in comparison["tests"][test]["differences"]
            if (row["memory"], row["metric"], row["name"]) == (memory, metric, name)
        ),
        None,
    )
    if row is None:
        return {
            "against": "reference" if memory == comparison["reference"] else MISSING,
            "p_holm": "",
        }
    return {"against": interval(row, sign=True), "p_holm": p_value(row["p_holm"])}


# -- memories against the reference --------------------------------------------------------------


def difference_panels(comparison: MemoriesComparison) -> list[dict[str, Any]]:
    """Per test, formatted rows of the memories on one axis, and by what was compared."""
    differences = [row for test in comparison["tests"].values() for row in test["differences"]]
    axis, margin = margin_axis(comparison["margin"], differences)
    panels = []
    for name, test in comparison["tests"].items():
        rows = [_formatted(row) | position(row, axis) for row in test["differences"]]
        groups: dict[str, dict[str, list[dict[str, Any]]]] = {"main": {}, "rest": {}}
        for difference, row in zip(test["differences"], rows, strict=True):
            part = groups["main" if difference["name"] in MAIN else "rest"]
            title = _title(difference["metric"], difference["name"])
            part.setdefault(title, []).append(row)
        panels.append({"test": name, "axis": axis, "margin": margin, "rows": rows} | groups)
    return panels


def _title(metric: str, name: str) -> str:
    """ "Flips: advantaged user", "Flips beyond neutral memory"."""
    label = LABELS[name][0].lower() + LABELS[name][1:]
    return f"{METRIC_LABELS[metric]}{' ' if name in DIFFERENCES.values() else ': '}{label}"


def _formatted(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "memory": row["memory"],
        "metric": METRIC_LABELS[row["metric"]],
        "label": LABELS[row["name"]],
        "difference": interval(row, sign=True),
        **{key: p_value(row[key]) for key, _ in P_COLUMNS},
        "finding": row["finding"],
        "n": f"{row['n_items']:,} / {row['n']:,}",
    }


def level_rows(comparison: MemoriesComparison) -> dict[str, list[dict[str, str]]]:
    """Test -> a row for each metric and condition, with a cell for each memory, by its name."""
    return {
        name: [
            {"metric": METRIC_LABELS[metric], "label": LABELS[condition]}
            | _cells(comparison, test, metric, condition)
            for metric, condition in dict.fromkeys(
                (row["metric"], row["name"]) for row in test["levels"]
            )
        ]
        for name, test in comparison["tests"].items()
    }


def _cells(
    comparison: MemoriesComparison, test: MemoriesTest, metric: str, name: str
) -> dict[str, str]:
    """Memory -> value with its interval."""
    levels = _levels(test, metric, name, _names(comparison))
    sign = name in DIFFERENCES.values()
    return {memory: interval(levels.get(memory), sign) for memory in _names(comparison)}


def key_table(comparison: MemoriesComparison) -> str:
    """Key figures of every test and memory as Markdown, with intervals."""
    rows = []
    for name, test in comparison["tests"].items():
        if bare := _levels(test, "accuracy", NONE, [comparison["reference"]]):
            rows.append({"test": name, "memory": NONE, **{key: MISSING for *_, key in KEY_FIGURES}})
            rows[-1][KEY_FIGURES[2][2]] = interval(bare[comparison["reference"]])
        cells = {key: _cells(comparison, test, metric, what) for metric, what, key in KEY_FIGURES}
        rows += [
            {"test": name, "memory": memory} | {key: cells[key][memory] for key in cells}
            for memory in _names(comparison)
        ]
    columns = [("test", "Test"), ("memory", "Memory"), *((key, key) for *_, key in KEY_FIGURES)]
    return markdown_table(rows, columns, left=2)
