"""Several models: formatted view data; the templates only draw it."""

from __future__ import annotations

import textwrap
from typing import Any

from unswayed.compare.models import ModelsComparison
from unswayed.display.numbers import (
    MISSING,
    coefficient,
    coefficient_interval,
    count,
    interval,
    interval_parts,
    listed,
    p_value,
    percent,
)
from unswayed.display.page import sections
from unswayed.display.plots import margin_axis, position, shade, zoomed_axis
from unswayed.report.words import (
    FINDINGS,
    METRIC_LABELS,
    VERDICTS,
    effect_label,
    finding,
    points,
)

TOP = 20  # items listed

MEASURES = {
    "equal": "Share of equal answers",
    "kappa": "Cohen's kappa",
    "correct": "Correlation of correctness",
    "flip": "Correlation of flips",
}


def models_view(comparison: ModelsComparison) -> dict[str, Any]:
    """Everything that page and Markdown draw, formatted."""
    models = {model["label"]: model for model in comparison["models"]}
    order = comparison["order"]
    gaps = gap_panel(comparison)
    findings = {
        row["finding"] for rows in (gaps["groups"] if gaps else {}).values() for row in rows
    }
    trials, users = comparison["n_trials"], comparison["n_users"]
    basics = {
        "asked": f"{count(trials, 'trial')} each: {count(comparison['n_items'], 'item')}, "
        f"{count(users, 'remembered user')}",
        "level": f"{comparison['level']:.0%}",
        "resamples": comparison["resamples"],
    }
    return {
        **basics,
        "title": f"{len(order)} models on the same questions",
        "margin": points(comparison["margin"]),
        "measures": list(MEASURES.items()),
        "models": [
            {
                "number": str(i),
                "label": label,
                "status": models[label]["verdict"]["status"],
                "verdict": VERDICTS[models[label]["verdict"]["status"]],
                "text": _reason(models[label]["verdict"]["text"]),
                "unread": f"{models[label]['n_unread']:,}",
            }
            for i, label in enumerate(order, 1)
        ],
        "tree": tree_view(comparison),
        "maps": [heat_map(comparison, measure) for measure in MEASURES],
        "pairs": pair_rows(comparison),
        "tests": accuracy_tables(comparison),
        "gaps": gaps,
        "findings": {name: text for name, text in FINDINGS.items() if name in findings},
        "flips": flip_rows(comparison)[:TOP],
        "n_flipping": sum(item["n_any"] > 0 for item in comparison["flips"]),
        "never": [item["question_id"] for item in comparison["flips"] if not item["n_any"]],
        "methods": sections("unswayed.report", "models_methods.md.jinja", basics),
        "version": comparison["versions"]["unswayed"],
    }


def _reason(text: str) -> str:
    """A verdict's sentences without its first words, which stand beside it."""
    head, _, rest = text.partition(": ")
    return rest[0].upper() + rest[1:] if head.startswith(VERDICT_WORDS) else text


VERDICT_WORDS = ("Skewed", "Equivalent", "More data needed", "Cannot be judged")


def value_text(measure: str, value: dict[str, Any]) -> str:
    """Estimate and interval, in percent or as a coefficient."""
    return interval(value) if measure == "equal" else coefficient_interval(value)


def heat_map(comparison: ModelsComparison, measure: str) -> dict[str, Any]:
    """A measure between all models, in their hierarchical order."""
    values = {
        frozenset(pair["models"]): pair[measure]
        for pair in comparison["pairs"]
        if pair["test"] is None
    }
    order = comparison["order"]
    show = percent if measure == "equal" else coefficient

    def cell(a: str, b: str) -> dict[str, Any]:
        if a == b:
            return {"value": "", "shade": None, "mark": None}
        estimate = values[frozenset((a, b))]["estimate"]
        return {"value": show(estimate), "shade": shade(estimate), "mark": None}

    return {
        "measure": measure,
        "title": MEASURES[measure],
        "low": "0%" if measure == "equal" else "0 or less",
        "high": "100%" if measure == "equal" else "1",
        "rows": [
            {"number": i, "label": a, "cells": [cell(a, b) for b in order]}
            for i, a in enumerate(order, 1)
        ],
    }


def pair_rows(comparison: ModelsComparison) -> dict[str, list[dict[str, str]]]:
    """{test (or "all tests"): rows of the agreement of every two models}, formatted."""
    scopes = list(dict.fromkeys(pair["test"] for pair in comparison["pairs"]))
    number = {label: i for i, label in enumerate(comparison["order"], 1)}

    def place(pair: dict[str, Any]) -> list[int]:
        return sorted(number[label] for label in pair["models"])

    return {
        scope or ("all tests" if len(scopes) > 1 else "all trials"): [
            {
                "numbers": " – ".join(map(str, place(pair))),
                "models": listed(comparison["order"][i - 1] for i in place(pair)),
                **{measure: value_text(measure, pair[measure]) for measure in MEASURES},
                "n": f"{pair['equal']['n']:,}",
                "n_flips": f"{pair['flip']['n']:,}",
                "unread": f"{pair['n_unread_both']:,}",
                "notes": "; ".join(
                    f"{MEASURES[measure]}: {pair[measure]['note']}"
                    for measure in MEASURES
                    if pair[measure]["note"]
                ),
            }
            for pair in sorted(comparison["pairs"], key=place)
            if pair["test"] == scope
        ]
        for scope in scopes
    }


def tree_view(comparison: ModelsComparison) -> dict[str, Any]:
    """The tree of models as lines; positions in percent, across by share of equal answers."""
    n = len(comparison["order"])
    places = {label: i for i, label in enumerate(comparison["order"])}
    axis = zoomed_axis([1.0, *(1 - height for _, _, height in comparison["tree"])])
    nodes = [
        (axis.at(1.0), (places[model["label"]] + 0.5) * 100 / n) for model in comparison["models"]
    ]  # as (x, y)
    lines = []
    for a, b, height in comparison["tree"]:
        x, (xa, ya), (xb, yb) = axis.at(1 - height), nodes[a], nodes[b]
        lines += [(x, ya, xa, ya), (x, yb, xb, yb), (x, ya, x, yb)]
        nodes.append((x, (ya + yb) / 2))
    return {"axis": axis, "lines": [tuple(round(v, 2) for v in line) for line in lines]}


def accuracy_tables(comparison: ModelsComparison) -> list[dict[str, Any]]:
    """Per test: each model's accuracy and flips under each condition."""
    models = {model["label"]: model for model in comparison["models"]}
    tables = []
    for test, about in comparison["models"][0]["tests"].items():
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
                        "at_chance": models[label]["tests"][test]["at_chance"],
                        "cells": [
                            interval_parts(models[label]["tests"][test]["conditions"][c][key])
                            for key, names in (("accuracy", conditions), ("flip_rate", flipping))
                            for c in names
                        ],
                    }
                    for label in comparison["order"]
                ],
            }
        )
    return tables


def gap_panel(comparison: ModelsComparison) -> dict[str, Any] | None:
    """Differences between users, by test, metric and effect, a row per model, on one axis."""
    models = {model["label"]: model for model in comparison["models"]}
    effects = [
        (label, test, effect)
        for label in comparison["order"]
        for test, about in models[label]["tests"].items()
        for effect in about["effects"]
    ]
    if not effects:
        return None
    axis, margin = margin_axis(comparison["margin"], (effect for *_, effect in effects))
    groups: dict[str, list[dict[str, Any]]] = {}
    for label, test, effect in effects:
        title = f"{test}, {METRIC_LABELS[effect['metric']].lower()}: {effect_label(effect['name'])}"
        groups.setdefault(title, []).append(
            {
                "label": label,
                "difference": interval(effect, sign=True),
                "p_holm": p_value(effect["p_holm"]),
                "p_tost": p_value(effect["p_tost"]),
                "finding": finding(effect, 1 - comparison["level"]),
            }
            | position(effect, axis)
        )
    return {"axis": axis, "margin": margin, "groups": groups}


def flip_rows(comparison: ModelsComparison) -> list[dict[str, Any]]:
    """Items that flip in any model, formatted, as sorted in `comparison`."""
    n = len(comparison["order"])
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
                for label in comparison["order"]
            ],
        }
        for item in comparison["flips"]
        if item["n_any"]
    ]


def _whole(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.0f}"
