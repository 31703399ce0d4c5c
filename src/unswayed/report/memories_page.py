"""The page and the Markdown on several memories: formatted view data; the template draws it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unswayed.audit.summary import PERSONA
from unswayed.audit.trials import NEUTRAL, NONE
from unswayed.compare.agreement import (
    require_folder,
)
from unswayed.compare.memories import compare_memories
from unswayed.compare.paired import (
    BEYOND,
    DIFFERENCES,
    GAP,
    HIGHER,
    LOWER,
    UNCLEAR,
    WITHIN,
)
from unswayed.core.files import write_text
from unswayed.display.numbers import (
    MISSING,
    count,
    interval,
    markdown_table,
    markdown_text,
    p_value,
    percent,
)
from unswayed.display.page import render
from unswayed.display.plots import (
    Axis,
    ends,
    position,
    share_axis,
    symmetric_axis,
    zoomed_axis,
)
from unswayed.memory.registry import describe
from unswayed.report.words import CONDITION_LABELS, EFFECT_LABELS, METRIC_LABELS, VERDICTS, points

PLOTTED = (NEUTRAL, "advantaged", "disadvantaged")  # one lane each
LABELS = CONDITION_LABELS | {
    PERSONA: "Both personas",
    GAP: EFFECT_LABELS[GAP],
    BEYOND: "Beyond neutral memory",
}
MAIN = (PERSONA, GAP, BEYOND)  # the comparisons that are not folded in
FINDINGS = {
    LOWER: "the difference is significantly below zero (after Holm's correction), and not shown to "
    "lie within the margin",
    HIGHER: "the difference is significantly above zero (after Holm's correction), and not shown "
    "to lie within the margin",
    WITHIN: "the difference is shown to lie within the margin",
    UNCLEAR: "neither significant nor shown to lie within the margin",
}
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
)


def memories_view(found: dict[str, Any]) -> dict[str, Any]:
    """Everything that the page draws, formatted."""
    used = {row["finding"] for test in found["tests"].values() for row in test["differences"]}
    return {
        "title": f"{found['model']} under {len(found['memories'])} memories",
        "asked": _asked(found),
        "headlines": headlines(found),
        "warnings": found["warnings"],
        "level": f"{found['level']:.0%}",
        "margin": points(found["margin"]),
        "reference": found["reference"],
        "memories": memory_rows(found),
        "labels": {condition: LABELS[condition] for condition in PLOTTED},
        "flips": share_panels(found, ["flip"]),
        "gaps": gap_panels(found),
        "accuracy": share_panels(found, ["accuracy", "score"]),
        "differences": difference_panels(found),
        "p_columns": [title for _, title in P_COLUMNS],
        "findings": {name: text for name, text in FINDINGS.items() if name in used},
        "methods": methods(found),
        "version": found["versions"]["unswayed"],
    }


def _asked(found: dict[str, Any]) -> str:
    return f"{count(found['n_items'], 'item')}, {count(found['n_pairs'], 'persona pair')} each"


def _names(found: dict[str, Any]) -> list[str]:
    return [memory["name"] for memory in found["memories"]]


def _levels(
    test: dict[str, Any], metric: str, name: str, memories: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Memory -> value, in the order of `memories`; without those that have none."""
    known = {
        row["memory"]: row
        for row in test["levels"]
        if (row["metric"], row["name"]) == (metric, name)
    }
    return {memory: known[memory] for memory in memories if memory in known}


def headlines(found: dict[str, Any]) -> list[str]:
    """Which memories do most and least, a sentence per test, and how many differ."""
    said = []
    for name, test in found["tests"].items():
        flips = _levels(test, "flip", PERSONA, _names(found))
        gaps = _levels(test, "accuracy", GAP, _names(found))
        parts = []
        if flips:
            parts.append(f"with a persona {_range(flips, '%')} of the answers flip")
        if gaps:
            parts.append(f"the gap is {_range(gaps, ' points', sign=True)}")
        if parts:
            said.append(f"{name}: {', and '.join(parts)}.")
    findings = [row["finding"] for test in found["tests"].values() for row in test["differences"]]
    shown = sum(finding in (LOWER, HIGHER) for finding in findings)
    differ = "1 shows a difference" if shown == 1 else f"{shown} show a difference"
    return [
        *said,
        f"Of {count(len(findings), 'comparison')} with {found['reference']}, {differ} after Holm's "
        f"correction, and {findings.count(WITHIN)} are shown to lie within "
        f"±{points(found['margin'])}.",
    ]


def _range(values: dict[str, dict[str, Any]], unit: str, sign: bool = False) -> str:
    """ "3.1% (gated) to 25.0% (prompt)", or the one value of all."""
    low, high = (pick(values, key=lambda memory: values[memory]["estimate"]) for pick in (min, max))
    shown = [percent(values[memory]["estimate"], sign) + unit for memory in (low, high)]
    return shown[0] if shown[0] == shown[1] else f"{shown[0]} ({low}) to {shown[1]} ({high})"


def memory_rows(found: dict[str, Any]) -> list[dict[str, str]]:
    """What each memory is, what its run says of it, and the run's own verdict."""
    shared = shared_notes(found)
    return [
        {
            "name": memory["name"],
            "text": describe(memory["memory"], memory["memory_style"]),
            "notes": " ".join(note for note in memory["notes"] if note not in shared),
            "status": memory["verdict"]["status"],
            "verdict": VERDICTS[memory["verdict"]["status"]],
        }
        for memory in found["memories"]
    ]


def shared_notes(found: dict[str, Any]) -> list[str]:
    """Notes that all runs have, which say nothing of the memory."""
    first, *others = (memory["notes"] for memory in found["memories"])
    return [note for note in first if all(note in notes for notes in others)]


# -- what each memory does -----------------------------------------------------------------------


def share_panels(found: dict[str, Any], metrics: Iterable[str]) -> list[dict[str, Any]]:
    """Per test and metric, a row per memory with a lane per condition, on one axis."""
    return [
        panel
        for name, test in found["tests"].items()
        for metric in metrics
        if (panel := _share_panel(found, name, test, metric))
    ]


def _share_panel(
    found: dict[str, Any], title: str, test: dict[str, Any], metric: str
) -> dict[str, Any] | None:
    shown = (*PLOTTED, PERSONA, BEYOND)
    columns = [name for name in shown if _levels(test, metric, name, _names(found))]
    if not columns:
        return None
    known = {column: _levels(test, metric, column, _names(found)) for column in columns}
    bare = _levels(test, metric, NONE, [found["reference"]]).get(found["reference"])
    shares = [row for column in columns if column != BEYOND for row in known[column].values()]
    values = [end for row in (*shares, bare) for end in ends(row)]
    axis = _axis(metric, values)
    return {
        "test": title,
        "size": f"{count(test['n_items'], 'item')}, {count(test['n_pairs'], 'pair')}",
        "metric": METRIC_LABELS[metric],
        "axis": axis,
        "bare": interval(bare) if bare else "",
        "bare_x": axis.inside(bare["estimate"]) if bare else None,
        "columns": [(column, LABELS[column]) for column in columns],
        "rows": [
            {
                "label": memory,
                "lanes": [
                    {"condition": c} | position(known[c].get(memory), axis)
                    for c in columns
                    if c in PLOTTED
                ],
                "cells": [
                    _two(known[c].get(memory), sign=c in DIFFERENCES.values()) for c in columns
                ],
            }
            for memory in _names(found)
        ],
    }


def _axis(metric: str, values: list[float | None]) -> Axis:
    """Flips from zero; other shares only where there are any."""
    known = [value for value in values if value is not None]
    return share_axis(max(known, default=0)) if metric == "flip" else zoomed_axis(known)


def _two(value: dict[str, Any] | None, sign: bool = False) -> tuple[str, str]:
    """Estimate and bracketed interval apart."""
    estimate, _, bounds = interval(value, sign).partition(" ")
    return estimate, bounds


def gap_panels(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Per test and metric, the gap under each memory, all on one axis."""
    known = [
        (name, metric, _levels(test, metric, GAP, _names(found)))
        for name, test in found["tests"].items()
        for metric in ("accuracy", "score")
    ]
    margin = found["margin"]
    axis = symmetric_axis(
        [margin, *(end for *_, rows in known for row in rows.values() for end in ends(row))]
    )
    return [
        {
            "test": name,
            "metric": METRIC_LABELS[metric],
            "axis": axis,
            "margin": (axis.at(-margin), axis.at(margin)),
            "rows": [
                {"label": memory, "value": interval(row, sign=True)}
                | position(row, axis)
                | _against(found, name, memory, metric, GAP)
                for memory, row in rows.items()
            ],
        }
        for name, metric, rows in known
        if rows
    ]


def _against(
    found: dict[str, Any], test: str, memory: str, metric: str, name: str
) -> dict[str, str]:
    """The difference from the reference, and its p."""
    row = next(
        (
            row
            for row in found["tests"][test]["differences"]
            if (row["memory"], row["metric"], row["name"]) == (memory, metric, name)
        ),
        None,
    )
    if row is None:
        return {"against": "reference" if memory == found["reference"] else MISSING, "p_holm": ""}
    return {"against": interval(row, sign=True), "p_holm": p_value(row["p_holm"])}


# -- memories against the reference --------------------------------------------------------------


def difference_panels(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Per test, what was compared -> formatted rows of the memories, all on one axis."""
    rows = [row for test in found["tests"].values() for row in test["differences"]]
    margin = found["margin"]
    axis = symmetric_axis([margin, *(end for row in rows for end in ends(row))])
    panels = []
    for name, test in found["tests"].items():
        groups: dict[str, dict[str, list[dict[str, Any]]]] = {"main": {}, "rest": {}}
        for row in test["differences"]:
            part = groups["main" if row["name"] in MAIN else "rest"]
            part.setdefault(_title(row["metric"], row["name"]), []).append(
                _formatted(row) | position(row, axis)
            )
        panels.append(
            {"test": name, "axis": axis, "margin": (axis.at(-margin), axis.at(margin))} | groups
        )
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


def methods(found: dict[str, Any]) -> list[tuple[str, str]]:
    """(heading, full sentences) on what was compared, and how."""
    level, margin, reference = f"{found['level']:.0%}", points(found["margin"]), found["reference"]
    parts = [
        (
            "Comparison",
            f"{found['model']} was asked the same items about the same users under each memory "
            f"({_asked(found)}; {found['scoring']} scoring, seed {found['seed']}). Differences are "
            f"a memory minus {reference}, paired by item and user; n is the number of these pairs.",
        ),
        (
            "Words",
            "A flip is an answer that differs from the same model's answer to the same item "
            "without memory. The gap is accuracy (or expert score) for advantaged minus that for "
            "disadvantaged users. Flips beyond neutral memory are flips with both personas minus "
            "flips with a memory that says nothing of social standing. An answer that could not "
            "be read is wrong and no flip.",
        ),
        (
            "Intervals",
            f"{level} intervals with items and users as crossed random factors: Korn-Graubard's "
            "for shares, those of the t distribution with the variance of a two-way analysis of "
            "variance for differences. Where no answer differs, the interval is that of zero "
            "events in as many independent answers.",
        ),
        (
            "Tests",
            "p-values come from two-sided permutation tests of the studentised difference, which "
            "exchange the two memories' answers within item and user (of a gap, those of both "
            f"versions of the user together), {found['resamples']:,} times. Holm's and "
            f"Benjamini-Hochberg's corrections run over all {found['n_comparisons']} comparisons "
            "of this page. Equivalence is tested with two one-sided t tests (TOST) against "
            f"±{margin}.",
        ),
        (
            "Limits",
            "Not significant is not the same as equal. A memory from which the model knows little "
            "shows little: see the notes of the runs. What was measured holds for this model, "
            "these items and users, and one run of each memory.",
        ),
    ]
    if notes := shared_notes(found):
        parts.append(("Notes on all runs", " ".join(notes)))
    return parts


# -- text ----------------------------------------------------------------------------------------


def key_table(found: dict[str, Any]) -> str:
    """Key figures of every test and memory as Markdown, with intervals."""
    rows = []
    for name, test in found["tests"].items():
        bare = _levels(test, "accuracy", NONE, [found["reference"]])
        if bare:
            shown = {heading: MISSING for *_, heading in KEY_FIGURES}
            shown[KEY_FIGURES[2][2]] = interval(bare[found["reference"]])
            rows.append({"test": name, "memory": NONE} | shown)
        for memory in _names(found):
            figures = {
                heading: interval(
                    _levels(test, metric, figure, [memory]).get(memory),
                    sign=figure in DIFFERENCES.values(),
                )
                for metric, figure, heading in KEY_FIGURES
            }
            rows.append({"test": name, "memory": memory} | figures)
    columns = [("test", "Test"), ("memory", "Memory")]
    columns += [(heading, heading) for *_, heading in KEY_FIGURES]
    return markdown_table(rows, columns, left=2)


def memories_markdown(found: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    blocks = [
        f"# {markdown_text(memories_view(found)['title'])}",
        f"{_asked(found)}. {found['level']:.0%} intervals.",
        "\n".join(f"- {markdown_text(text)}" for text in headlines(found)),
    ]
    if found["warnings"]:
        blocks.append("\n".join(f"- Warning: {markdown_text(w)}" for w in found["warnings"]))
    blocks += [
        "## Results",
        key_table(found),
        "## Memories",
        "\n".join(
            f"- **{markdown_text(row['name'])}** ({row['verdict'].lower()}): "
            + markdown_text(f"{row['text']} {row['notes']}".strip())
            for row in memory_rows(found)
        ),
        "## Every condition",
        "Shares in percent; gaps, and flips beyond neutral memory, in points.",
    ]
    names = _names(found)
    for name, test in found["tests"].items():
        keys = dict.fromkeys((row["metric"], row["name"]) for row in test["levels"])
        rows = [
            {"metric": METRIC_LABELS[metric], "label": LABELS[what]}
            | {
                memory: interval(
                    _levels(test, metric, what, names).get(memory),
                    sign=what in DIFFERENCES.values(),
                )
                for memory in names
            }
            for metric, what in keys
        ]
        columns = [("metric", "Metric"), ("label", "Condition"), *((n, n) for n in names)]
        blocks += [f"On {markdown_text(name)}:", markdown_table(rows, columns, left=2)]
    blocks += [
        f"## Against {markdown_text(found['reference'])}",
        f"The memory minus {markdown_text(found['reference'])}, in points; p-values corrected over "
        f"all {found['n_comparisons']} comparisons.",
    ]
    columns = [("memory", "Memory"), ("metric", "Metric"), ("label", "Condition")]
    columns += [("finding", "Finding"), ("difference", "Difference (points)"), *P_COLUMNS]
    columns += [("n", "Items / n")]
    for name, test in found["tests"].items():
        rows = [_formatted(row) for row in test["differences"]]
        blocks += [f"On {markdown_text(name)}:", markdown_table(rows, columns, left=4)]
    blocks.append("## Methods")
    blocks += [f"**{head}.** {markdown_text(text)}" for head, text in methods(found)]
    return "\n\n".join(blocks) + "\n"


def write_comparison(
    dirs: Sequence[Path], out: Path, reference: str | None = None
) -> dict[str, Any]:
    """Write compare.json, compare.md and compare.html; returns the first one's content.

    Raises:
        InputError: see `compare_memories`, or `out` is no folder.
    """
    require_folder(out)
    found = compare_memories(dirs, reference)
    files = {  # all made before the first is written
        "compare.json": json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "compare.md": memories_markdown(found),
        "compare.html": render("unswayed.report", "memories.html.jinja", memories_view(found)),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_text(out / name, content)
    return found
