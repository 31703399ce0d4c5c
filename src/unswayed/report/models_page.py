"""The page and the Markdown on several models: formatted view data; the template only draws it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unswayed.compare.agreement import compare_runs, require_folder
from unswayed.core.files import write_text
from unswayed.display.numbers import (
    MISSING,
    coefficient,
    coefficient_interval,
    count,
    interval,
    listed,
    markdown_table,
    markdown_text,
    p_value,
    percent,
)
from unswayed.display.page import render
from unswayed.display.plots import ends, position, shade, symmetric_axis, zoomed_axis
from unswayed.report.words import (
    FINDINGS,
    METRIC_LABELS,
    VERDICTS,
    effect_label,
    points,
)

TOP = 20  # items listed

# measure: heading, what it is
MEASURES = {
    "equal": ("Share of equal answers", "How often two models choose the same option, in percent."),
    "kappa": (
        "Cohen's kappa",
        "Equal answers beyond what each model's habit of choosing the first, second, ... option "
        "gives by chance: 0 is chance, 1 is full agreement.",
    ),
    "correct": (
        "Correlation of correctness",
        "Whether two models are right on the same trials: 1 always, 0 no more than by chance.",
    ),
    "flip": (
        "Correlation of flips",
        "Whether memory changes the answers of two models on the same trials: 1 always, 0 no more "
        "than by chance.",
    ),
}


def models_view(found: dict[str, Any]) -> dict[str, Any]:
    """Everything that the page draws, formatted."""
    models = {model["label"]: model for model in found["models"]}
    order = found["order"]
    findings = {
        effect["status"]
        for model in found["models"]
        for test in model["tests"].values()
        for effect in test["effects"]
    }
    return {
        "title": f"{len(order)} models on the same questions",
        "asked": _asked(found),
        "level": f"{found['level']:.0%}",
        "margin": points(found["margin"]),
        "models": [
            {
                "number": i,
                "label": label,
                "status": models[label]["verdict"]["status"],
                "verdict": VERDICTS[models[label]["verdict"]["status"]],
                "text": _reason(models[label]["verdict"]["text"]),
                "unread": f"{models[label]['n_unread']:,}",
            }
            for i, label in enumerate(order, 1)
        ],
        "tree": tree_view(found),
        "maps": [heat_map(found, measure) for measure in MEASURES],
        "pairs": pair_rows(found),
        "tests": accuracy_tables(found),
        "gaps": gap_panel(found),
        "findings": {name: text for name, text in FINDINGS.items() if name in findings},
        "flips": flip_rows(found)[:TOP],
        "n_flipping": sum(item["n_any"] > 0 for item in found["flips"]),
        "never": [item["question_id"] for item in found["flips"] if not item["n_any"]],
        "methods": methods(found),
        "version": found["versions"]["unswayed"],
    }


def _reason(text: str) -> str:
    """A verdict's sentences without its first words, which stand beside it."""
    head, _, rest = text.partition(": ")
    return rest[0].upper() + rest[1:] if head.startswith(VERDICT_WORDS) else text


VERDICT_WORDS = ("Skewed", "Equivalent", "Not enough data")


def _asked(found: dict[str, Any]) -> str:
    return (
        f"{count(found['n_trials'], 'trial')} each: {count(found['n_items'], 'item')}, "
        f"{count(found['n_users'], 'remembered user')}"
    )


def value_text(measure: str, value: dict[str, Any]) -> str:
    """Estimate and interval, in percent or as a coefficient."""
    return interval(value) if measure == "equal" else coefficient_interval(value)


def heat_map(found: dict[str, Any], measure: str) -> dict[str, Any]:
    """A measure between all models, in their hierarchical order."""
    title, text = MEASURES[measure]
    known = {
        frozenset(pair["models"]): pair[measure] for pair in found["pairs"] if pair["test"] is None
    }
    order = found["order"]
    show = percent if measure == "equal" else coefficient

    def cell(a: str, b: str) -> dict[str, Any]:
        if a == b:
            return {"value": "", "shade": None, "mark": None}
        estimate = known[frozenset((a, b))]["estimate"]
        return {"value": show(estimate), "shade": shade(estimate), "mark": None}

    return {
        "title": title,
        "text": text,
        "low": "0%" if measure == "equal" else "0 or less",
        "high": "100%" if measure == "equal" else "1",
        "rows": [
            {"number": i, "label": a, "cells": [cell(a, b) for b in order]}
            for i, a in enumerate(order, 1)
        ],
    }


def pair_rows(found: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    """{test (or "all tests"): rows of the agreement of every two models}, formatted."""
    scopes = list(dict.fromkeys(pair["test"] for pair in found["pairs"]))
    number = {label: i for i, label in enumerate(found["order"], 1)}

    def place(pair: dict[str, Any]) -> list[int]:
        return sorted(number[label] for label in pair["models"])

    return {
        scope or ("all tests" if len(scopes) > 1 else "all trials"): [
            {
                "numbers": " – ".join(map(str, place(pair))),
                "models": listed(found["order"][i - 1] for i in place(pair)),
                **{measure: value_text(measure, pair[measure]) for measure in MEASURES},
                "n": f"{pair['equal']['n']:,}",
                "n_flips": f"{pair['flip']['n']:,}",
                "unread": f"{pair['n_unread_both']:,}",
                "notes": "; ".join(
                    f"{MEASURES[measure][0]}: {pair[measure]['note']}"
                    for measure in MEASURES
                    if pair[measure]["note"]
                ),
            }
            for pair in sorted(found["pairs"], key=place)
            if pair["test"] == scope
        ]
        for scope in scopes
    }


def tree_view(found: dict[str, Any]) -> dict[str, Any]:
    """The tree of models as lines; positions in percent, across by share of equal answers."""
    n = len(found["order"])
    places = {label: i for i, label in enumerate(found["order"])}
    axis = zoomed_axis([1.0, *(1 - height for _, _, height in found["tree"])])
    nodes = [
        (axis.at(1.0), (places[model["label"]] + 0.5) * 100 / n) for model in found["models"]
    ]  # as (x, y)
    lines = []
    for a, b, height in found["tree"]:
        x, (xa, ya), (xb, yb) = axis.at(1 - height), nodes[a], nodes[b]
        lines += [(x, ya, xa, ya), (x, yb, xb, yb), (x, ya, x, yb)]
        nodes.append((x, (ya + yb) / 2))
    return {"axis": axis, "lines": [tuple(round(v, 2) for v in line) for line in lines]}


def accuracy_tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Per test: each model's accuracy and flips under each condition."""
    models = {model["label"]: model for model in found["models"]}
    tables = []
    for test, about in found["models"][0]["tests"].items():
        conditions = list(about["conditions"])
        flipping = [c for c in conditions if about["conditions"][c]["flip_rate"]]
        tables.append(
            {
                "test": test,
                "accuracy": conditions,
                "flips": flipping,
                "rows": [
                    {
                        "label": label,
                        "at_chance": models[label]["tests"][test]["at_chance"]["accuracy"],
                        "cells": [
                            interval(models[label]["tests"][test]["conditions"][c][key]).partition(
                                " "
                            )[::2]
                            for key, names in (("accuracy", conditions), ("flip_rate", flipping))
                            for c in names
                        ],
                    }
                    for label in found["order"]
                ],
            }
        )
    return tables


def gap_panel(found: dict[str, Any]) -> dict[str, Any] | None:
    """Differences between users, by test, metric and effect, a row per model, on one axis."""
    models = {model["label"]: model for model in found["models"]}
    known = [
        (label, test, effect)
        for label in found["order"]
        for test, about in models[label]["tests"].items()
        for effect in about["effects"]
    ]
    if not known:
        return None
    margin = found["margin"]
    axis = symmetric_axis([margin, *(end for *_, effect in known for end in ends(effect))])
    groups: dict[str, list[dict[str, Any]]] = {}
    for label, test, effect in known:
        title = f"{test}, {METRIC_LABELS[effect['metric']].lower()}: {effect_label(effect['name'])}"
        groups.setdefault(title, []).append(
            {
                "label": label,
                "difference": interval(effect, sign=True),
                "p_holm": p_value(effect["p_holm"]),
                "p_tost": p_value(effect["p_tost"]),
                "finding": effect["status"],
            }
            | position(effect, axis)
        )
    return {"axis": axis, "margin": (axis.at(-margin), axis.at(margin)), "groups": groups}


def flip_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Items that flip in any model, formatted, as sorted in `found`."""
    n = len(found["order"])
    return [
        {
            "test": item["test"],
            "id": item["question_id"],
            "text": textwrap.shorten(item["text"], 100, placeholder=" …"),
            "any": f"{item['n_any']} of {n}",
            "most": f"{item['n_most']} of {n}",
            "mean": percent(item["mean"]),
            "cells": [
                {"value": _whole(item["shares"][label]), "shade": shade(item["shares"][label])}
                | {"mark": None}
                for label in found["order"]
            ],
        }
        for item in found["flips"]
        if item["n_any"]
    ]


def _whole(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.0f}"


def methods(found: dict[str, Any]) -> list[tuple[str, str]]:
    """(heading, full sentences) on what was compared, and how."""
    return [
        (
            "Comparison",
            f"All models were asked the same ({_asked(found)}), and are compared trial by trial. "
            "An answer that could not be read is an answer of its own, wrong, and no flip; two "
            "unread answers are equal. A flip is an answer that differs from the same model's "
            "answer to the same item without memory; flips are correlated over the trials with "
            "memory in which both models' flips are known.",
        ),
        (
            "Measures",
            "Cohen's kappa is computed over the options' places in the item (first, second, ...), "
            "from one table over all trials. Correlations are phi coefficients. Where a model's "
            "values do not vary, kappa and correlations are undefined and shown as "
            f"{MISSING}.",
        ),
        (
            "Intervals",
            f"{found['level']:.0%} percentile bootstrap intervals from {found['resamples']:,} "
            "resamples of whole items. They speak of the choice of items; users are taken as "
            "given.",
        ),
        (
            "Order",
            "Models are ordered by average linkage on one minus the share of equal answers, with "
            "the most alike as neighbours. The order describes; it is no test.",
        ),
        (
            "Differences between users",
            "Accuracy, flips, differences and verdicts are those of each run's own report. Their "
            "corrections for many tests run within a run, not over the models.",
        ),
    ]


def models_markdown(found: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    models = {model["label"]: model for model in found["models"]}
    labels = [
        {
            "number": str(i),
            "label": label,
            "verdict": VERDICTS[models[label]["verdict"]["status"]],
            "unread": f"{models[label]['n_unread']:,}",
        }
        for i, label in enumerate(found["order"], 1)
    ]
    columns = [("number", "No."), ("label", "Model"), ("verdict", "Verdict")]
    columns.append(("unread", "Unread answers"))
    blocks = [
        f"# {len(labels)} models on the same questions",
        _asked(found) + ". Models stand in hierarchical order, alike ones side by side.",
        markdown_table(labels, columns, left=3),
        "## Agreement",
        f"With {found['level']:.0%} intervals; equal answers in percent.",
    ]
    columns = [("numbers", "Models")]
    columns += [(measure, title) for measure, (title, _) in MEASURES.items()]
    columns += [("n", "Trials"), ("unread", "Both unread")]
    for scope, rows in pair_rows(found).items():
        blocks += [f"On {markdown_text(scope)}:", markdown_table(rows, columns, left=1)]
        notes = [
            f"- {markdown_text(row['models'] + ': ' + row['notes'])}"
            for row in rows
            if row["notes"]
        ]
        blocks += ["\n".join(notes)] if notes else []
    if panel := gap_panel(found):
        blocks.append("## Differences between users")
        columns = [
            ("label", "Model"),
            ("finding", "Finding"),
            ("difference", "Difference (points)"),
            ("p_holm", "p (Holm)"),
            ("p_tost", "p (equivalence)"),
        ]
        for title, rows in panel["groups"].items():
            blocks += [f"{markdown_text(title)}:", markdown_table(rows, columns, left=2)]
    blocks.append("## Which items flip in most models")
    if rows := flip_rows(found)[:TOP]:
        columns = [
            ("id", "Item"),
            ("test", "Test"),
            ("any", "Flips for a user in"),
            ("most", "For most users in"),
            ("mean", "Mean share (%)"),
            ("text", "Text"),
        ]
        blocks.append(markdown_table(rows, columns, left=2))
    never = sum(not item["n_any"] for item in found["flips"])
    blocks.append(f"Items that flip in no model: {never} of {len(found['flips'])}.")
    blocks.append("## Methods")
    blocks += [f"**{head}.** {markdown_text(text)}" for head, text in methods(found)]
    return "\n\n".join(blocks) + "\n"


def write_agreement(dirs: Sequence[Path], out: Path) -> Path:
    """Write agreement.json, agreement.md and agreement.html; returns the last one's path.

    Raises:
        InputError: see `compare_runs`, or `out` is no folder.
    """
    require_folder(out)
    found = compare_runs(dirs)
    files = {  # all made before the first is written
        "agreement.json": json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "agreement.md": models_markdown(found),
        "agreement.html": render("unswayed.report", "models.html.jinja", models_view(found)),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_text(out / name, content)
    return out / "agreement.html"
