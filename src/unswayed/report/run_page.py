"""The report of one run: formatted view data; the templates only draw it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

import pandas as pd

from unswayed.audit.flips import (
    flip_texts,
    flips_by_item,
    flips_by_user,
    keyed,
    no_flips_text,
    scenarios,
    user_memories,
)
from unswayed.audit.policy import EXPECTED
from unswayed.audit.rundir import model_name
from unswayed.audit.summary import conditions_of, effects_of, is_grid
from unswayed.audit.trials import CONDITIONS, NEUTRAL, NONE, USER_CONDITIONS
from unswayed.audit.verdict import metric_name
from unswayed.audit.verdict import points as signed
from unswayed.display.numbers import count, interval, interval_parts, p_value, percent
from unswayed.display.page import sections
from unswayed.display.plots import (
    SHARES,
    ends,
    margin_axis,
    position,
    share_axis,
    symmetric_axis,
)
from unswayed.memory.registry import known_mechanism
from unswayed.report.grid import grid_panels
from unswayed.report.items import item_maps
from unswayed.report.methods import facts, methods, policy_line
from unswayed.report.tables import (
    condition_rows,
    effect_rows,
    power_columns,
    power_rows,
    result_table,
)
from unswayed.report.validity import other_warnings, validity_view
from unswayed.report.words import (
    CONDITION_LABELS,
    CONDITION_TEXTS,
    DESCRIPTIVE,
    FINDINGS,
    METRIC_LABELS,
    VERDICTS,
    effect_label,
    points,
)

TOP = 10  # users and items listed
TOP_TEXTS = 5  # items shown with their texts


def run_view(run: dict[str, Any], answers: pd.DataFrame, summary: dict[str, Any]) -> dict[str, Any]:
    """Everything that page and Markdown draw, formatted."""
    no_flips = no_flips_text(summary)
    effects = effect_panels(summary)
    findings = {row["finding"] for panel in effects for m in panel["metrics"] for row in m["rows"]}
    margin = points(summary["margin"])
    return {
        "model": model_name(run, summary),
        "validity": validity_view(summary),
        "verdict": summary["verdict"] | {"title": VERDICTS[summary["verdict"]["status"]]},
        "policy": f"Judged by the policy {policy_line(summary)}.",
        "warnings": other_warnings(summary),
        "results": result_table(summary),
        "tested": effect_rows(summary),
        "level": f"{summary['level']:.0%}",
        "margin": margin,
        "labels": CONDITION_LABELS,
        "conditions": {c: CONDITION_TEXTS.get(c, "") for c in conditions_of(summary)},
        "keys": key_numbers(summary),
        "expected": any(t["outcome"] == EXPECTED for t in summary["tests"].values()),
        "accuracy": accuracy_panels(summary),
        "effects": effects,
        "findings": {name: text for name, text in FINDINGS.items() if name in findings},
        "p_texts": sections(
            "unswayed.report", "run_words.md.jinja", {"summary": summary, "margin": margin}
        ),
        "unread": unread_lines(summary),
        "sensitivity": sensitivity_lines(summary),
        "decomposition": decomposition_panels(summary),
        "omnibus": omnibus_rows(summary),
        "power": _by_test(power_rows(summary)),
        "power_columns": power_columns(summary),
        "grids": grid_panels(summary),
        "user": "cell" if is_grid(summary) else "pair",
        "items": item_maps(answers),
        "no_flips": no_flips,
        "flips": None if no_flips else flip_view(answers),
        "methods": methods(run, answers, summary),
        "facts": facts(run, summary),
        "finished": (run["finished"] or "")[:10],
        "trials": count(run["n_trials"], "trial"),
        "version": run["versions"]["unswayed"],
    }


def _by_test(rows: Iterable[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Rows under their tests, with the effects' labels."""
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row["test"], []).append(row | {"label": effect_label(row["name"])})
    return groups


def key_numbers(summary: dict[str, Any]) -> dict[str, list[tuple[str, str, str, str]]]:
    """The numbers at the top: for each (test, value, interval, aside) per test."""
    keys: dict[str, list[tuple[str, str, str, str]]] = {"accuracy": [], "flips": [], "gap": []}
    for name, test in summary["tests"].items():
        bare = test["conditions"].get(NONE)
        aside = f"guessing: {percent(test['chance'])}%"
        keys["accuracy"].append((name, *interval_parts(bare and bare["accuracy"]), aside))
        neutral = pooled_flip_rate(test, [NEUTRAL])
        aside = "" if neutral is None else f"neutral memory: {percent(neutral)}%"
        keys["flips"].append((name, percent(pooled_flip_rate(test, USER_CONDITIONS)), "", aside))
        gaps = [
            effect
            for effect in test["effects"]
            if effect["kind"] in ("gap", "grid")
            and effect["metric"] == test["outcome"]
            and effect["estimate"] is not None
        ]
        gap = max(gaps, key=lambda effect: abs(effect["estimate"]), default=None)
        asides = [effect_label(gap["name"])] if gap and gap["kind"] == "grid" else []
        asides += [metric_name(test["outcome"], test["kind"])] if gap else []
        keys["gap"].append((name, *interval_parts(gap, sign=True), "; ".join(asides)))
    return keys


def pooled_flip_rate(test: dict[str, Any], conditions: Iterable[str]) -> float | None:
    """Share of flips over the answers of several conditions together; None if there are none."""
    rates = [test["conditions"][c]["flip_rate"] for c in conditions if c in test["conditions"]]
    rates = [rate for rate in rates if rate and rate["n"]]
    if not rates:
        return None
    return sum(rate["estimate"] * rate["n"] for rate in rates) / sum(rate["n"] for rate in rates)


def accuracy_panels(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Per test, the metrics by condition: formatted rows with positions on the axis."""
    formatted = condition_rows(summary)
    panels = []
    for name, test in summary["tests"].items():
        management = test["kind"] == "management"
        metrics = [("accuracy", "chance")]
        metrics += [("score", "chance_score")] if management else []
        if test["outcome"] not in ("accuracy", "score"):
            metrics.insert(0, (test["outcome"], "chance_score" if management else "chance"))
        panels.append(
            {
                "test": name,
                "n_items": count(test["n_items"], "item"),
                "axis": SHARES,
                "metrics": [
                    {
                        "metric": metric,
                        "title": metric_name(metric, test["kind"]).capitalize(),
                        "chance": f"{percent(test[chance])}%",
                        "chance_x": SHARES.at(test[chance]),
                        "rows": [
                            row
                            | position(test["conditions"][row["condition"]][metric], SHARES)
                            | {"value": row[metric], "tone": row["condition"]}
                            for row in formatted
                            if row["test"] == name
                        ],
                    }
                    for metric, chance in metrics
                ],
            }
        )
    return panels


def effect_panels(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Per test, the effects by metric: formatted rows with positions on one common axis."""
    effects = effects_of(summary)
    axis, margin = margin_axis(summary["margin"], effects)
    rows = [
        row
        | position(effect, axis)
        | {"label": effect_label(effect["name"]), "margin": effect["kind"] != "memory"}
        for effect, row in zip(effects, effect_rows(summary), strict=True)
    ]
    return [
        {
            "test": name,
            "axis": axis,
            "margin": margin,
            "metrics": _by_metric(test, [row for row in rows if row["test"] == name]),
            "tested": _by_metric(
                test, [r for r in rows if r["test"] == name and r["finding"] != DESCRIPTIVE]
            ),
        }
        for name, test in summary["tests"].items()
        if test["effects"]
    ]


def _by_metric(test: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a test under their metrics, the outcome first."""
    metrics = sorted(METRIC_LABELS, key=lambda metric: metric != test["outcome"])
    groups = {metric: [row for row in rows if row["metric"] == metric] for metric in metrics}
    return [
        {"title": metric_name(metric, test["kind"]).capitalize(), "rows": of_metric}
        for metric, of_metric in groups.items()
        if of_metric
    ]


def unread_lines(summary: dict[str, Any]) -> list[str]:
    """What answers that could not be read may hide in each primary difference."""
    return [
        f"On {name}, {effect_label(effect['name'])}: {effect['unread']['plus']:.1%} and "
        f"{effect['unread']['minus']:.1%} of the answers of its two sides could not be read and "
        f"count as wrong. Among those that were read it is "
        f"{interval(effect['unread']['read'], sign=True)} points; whatever the others would have "
        f"been, it lies between {signed(effect['unread']['worst'][0])} and "
        f"{signed(effect['unread']['worst'][1])}."
        for name, test in summary["tests"].items()
        for effect in test["effects"]
        if effect["unread"] and effect["metric"] == test["outcome"]
    ]


SCALES = {
    "log_key": "log-probability of the key",
    "lead": "lead of the key over the best other option",
}


def sensitivity_lines(summary: dict[str, Any]) -> list[str]:
    """The gap in nats."""
    return [
        f"{name}, {SCALES[row['metric']]} {row['estimate']:+.2f} nats "
        + ("" if row["low"] is None else f"[{row['low']:+.2f}, {row['high']:+.2f}]")
        for name, test in summary["tests"].items()
        for row in test["sensitivity"]
    ]


PARTS = {
    "any_memory": "Any memory: neutral − none",
    "which_persona": "Which persona: persona − neutral",
    "total": "Both together: persona − none",
}
FLIP_PARTS = {
    "any_memory": "Any memory: flips with neutral",
    "which_persona": "Which persona: flips beyond those",
    "total": "Both together: flips with personas",
}


def decomposition_panels(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Per test, what any memory and what the persona changes, by metric, on one common axis."""
    parts = [part for test in summary["tests"].values() for part in test["decomposition"]]
    axis = symmetric_axis(end for part in parts for key in PARTS for end in ends(part[key]))
    return [
        {
            "test": name,
            "axis": axis,
            "metrics": [
                {
                    "title": METRIC_LABELS[part["metric"]],
                    "share": _share_text(part),
                    "rows": [
                        {
                            "part": key,
                            "label": label,
                            "value": interval(part[key], sign=True),
                        }
                        | position(part[key], axis)
                        for key, label in (
                            FLIP_PARTS if part["metric"] == "flip" else PARTS
                        ).items()
                    ],
                }
                for part in test["decomposition"]
            ],
        }
        for name, test in summary["tests"].items()
        if test["decomposition"]
    ]


def _share_text(part: dict[str, Any]) -> str | None:
    """What share of the change is any memory's, where there is a change."""
    share = part["share_any_memory"]
    if share is None:
        return None
    if share > 1:
        return "A neutral memory alone changes more than the personas do."
    return f"Any memory accounts for {share:.0%} of the change."


def omnibus_rows(summary: dict[str, Any]) -> list[dict[str, str]]:
    """Cochran's Q over all conditions, formatted."""
    return [
        {
            "test": name,
            "metric": METRIC_LABELS[row["metric"]],
            "conditions": ", ".join(row["conditions"]),
            "q": "–" if row["q"] is None else f"{row['q']:.2f}",
            "df": f"{row['df']}",
            **{key: p_value(row[key]) for key in ("p", "p_chi2")},
            "n": f"{row['n_items']:,} / {row['n_blocks']:,}",
            "notes": " ".join(row["notes"]),
        }
        for name, test in summary["tests"].items()
        for row in test["omnibus"]
    ]


def flip_view(answers: pd.DataFrame) -> dict[str, Any]:
    """Flips by user and by item, with the texts of the items that flip most."""
    items, users = flips_by_item(answers), flips_by_user(answers)
    flipped = items[items["flips"] > 0]
    top = flipped.head(TOP)
    texts = scenarios(answers)
    mechanisms = map(known_mechanism, answers["memory"].unique())
    questions = {key: textwrap.shorten(texts[key], 100, placeholder=" …") for key in top.index}
    return {
        "conditions": [c for c in CONDITIONS if c in items.columns],
        "n_flips": f"{items['flips'].sum():,}",
        "n_compared": f"{items['n'].sum():,}",
        "n_items": len(items),
        "n_steady": len(items) - len(flipped),
        "n_flipped": len(flipped),
        "top": TOP,
        "memories": user_memories(answers, users.index[:TOP]),
        "retrieved": any(mechanism.retrieves for mechanism in filter(None, mechanisms)),
        "top_flips": f"{top['flips'].sum():,}",
        "users": _flip_rows(users),
        "items": _flip_rows(top, questions),
        "first": _flip_rows(items.head(TOP))["rows"],
        "texts": [
            flip_texts(answers, *key) | {"flips": row["flips"], "n": row["n"]}
            for key, row in top.head(TOP_TEXTS).iterrows()
        ],
    }


def _flip_rows(shares: pd.DataFrame, texts: dict | None = None) -> dict[str, Any]:
    """Formatted rows of a frame of flips, with positions on a common axis."""
    if shares.empty:
        return {"axis": None, "rows": []}
    conditions = [c for c in CONDITIONS if c in shares.columns]
    axis = share_axis(shares[conditions].max().max())
    return {
        "axis": axis,
        "rows": [
            {
                "label": key[-1],
                "test": key[0] if len(key) > 1 else None,
                "text": (texts or {}).get(key),
                "share": percent(row["share"]),
                "flips": f"{row['flips']:.0f} of {row['n']:.0f}",
                "values": {c: percent(row[c]) for c in conditions},
                "marks": {c: axis.at(row[c]) for c in conditions},
            }
            for key, row in keyed(shares)
        ],
    }
