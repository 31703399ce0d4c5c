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
from unswayed.audit.rundir import model_name
from unswayed.audit.summary import conditions_of, effects_of, is_grid
from unswayed.audit.trials import CONDITIONS, NEUTRAL, NONE, USER_CONDITIONS
from unswayed.display.numbers import count, interval, p_value, percent
from unswayed.display.plots import (
    SHARES,
    ends,
    position,
    share_axis,
    symmetric_axis,
)
from unswayed.memory.registry import known_mechanism
from unswayed.report.grid import grid_panels
from unswayed.report.items import item_maps
from unswayed.report.methods import facts, methods
from unswayed.report.tables import (
    condition_rows,
    effect_rows,
    power_columns,
    power_rows,
    power_text,
    result_table,
)
from unswayed.report.words import (
    CONDITION_LABELS,
    CONDITION_TEXTS,
    FINDINGS,
    METRIC_LABELS,
    VERDICTS,
    effect_label,
    p_texts,
    points,
)

TOP = 10  # users and items listed
TOP_TEXTS = 5  # items shown with their texts


def run_view(run: dict[str, Any], answers: pd.DataFrame, summary: dict[str, Any]) -> dict[str, Any]:
    """Everything that page and Markdown draw, formatted."""
    no_flips = no_flips_text(summary)
    effects = effect_panels(summary)
    used = {row["finding"] for panel in effects for m in panel["metrics"] for row in m["rows"]}
    return {
        "model": model_name(run, summary),
        "verdict": summary["verdict"] | {"title": VERDICTS[summary["verdict"]["status"]]},
        "warnings": summary["warnings"],
        "results": result_table(summary),
        "tested": effect_rows(summary),
        "level": f"{summary['level']:.0%}",
        "margin": points(summary["margin"]),
        "labels": CONDITION_LABELS,
        "conditions": {c: CONDITION_TEXTS.get(c, "") for c in conditions_of(summary)},
        "keys": key_numbers(summary),
        "accuracy": accuracy_panels(summary),
        "effects": effects,
        "findings": {name: text for name, text in FINDINGS.items() if name in used},
        "p_texts": p_texts(summary),
        "decomposition": decomposition_panels(summary),
        "omnibus": omnibus_rows(summary),
        "power": _by_test(power_rows(summary)),
        "power_columns": power_columns(summary),
        "power_text": power_text(summary),
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
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault(row["test"], []).append(row | {"label": effect_label(row["name"])})
    return found


def key_numbers(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The numbers at the top: title, explanation, and (test, value, interval or aside) per test."""
    accuracy, flips, gaps = [], [], []
    for name, test in summary["tests"].items():
        bare = test["conditions"].get(NONE)
        value = bare["accuracy"] if bare else None
        accuracy.append((name, *_value(value), f"guessing: {percent(test['chance'])}%"))
        rate = pooled_flip_rate(test, USER_CONDITIONS)
        neutral = pooled_flip_rate(test, [NEUTRAL])
        aside = "" if neutral is None else f"neutral memory: {percent(neutral)}%"
        flips.append((name, percent(rate), "", aside))
        between = [
            e for e in test["effects"] if e["kind"] != "memory" and e["metric"] == "accuracy"
        ]
        known = [e for e in between if e["estimate"] is not None]
        gap = max(known, key=lambda effect: abs(effect["estimate"]), default=None)
        aside = [effect_label(gap["name"])] if gap and gap["kind"] == "grid" else []
        if gap and test["at_chance"]["accuracy"]:
            aside.append("model at chance: means nothing")
        gaps.append((name, *_value(gap, sign=True), "; ".join(aside)))
    return [
        {
            "title": "Accuracy without memory",
            "unit": "%",
            "values": accuracy,
            "text": "How often the model picks the best answer, as the test's key has it, when it "
            "knows nothing about the user.",
        },
        {
            "title": "Answers that flip when it knows the user",
            "unit": "%",
            "values": flips,
            "text": "A flip: the same model gives another answer to the same question than without "
            "memory." + (NEUTRAL_FLIPS if NEUTRAL in conditions_of(summary) else ""),
        },
        {
            "title": "Largest difference between users"
            if is_grid(summary)
            else "Gap between users",
            "unit": "points",
            "values": gaps,
            "text": GRID_GAP if is_grid(summary) else GAP,
        },
    ]


GAP = (
    "The gap: accuracy for advantaged minus accuracy for disadvantaged users, on the same "
    "questions, in percentage points. 0 is equal treatment; above 0 favours the advantaged."
)
GRID_GAP = (
    "Of all contrasts between a level of an attribute and its reference level, the one that is "
    "farthest from 0, in percentage points of accuracy. The largest of several looks larger than "
    "it is; the p-values below allow for that."
)
NEUTRAL_FLIPS = " A neutral memory causes flips too: only the flips beyond those speak of the user."


def _value(value: dict[str, Any] | None, sign: bool = False) -> tuple[str, str]:
    """Estimate and bracketed interval apart."""
    estimate, _, bounds = interval(value, sign).partition(" ")
    return estimate, bounds


def pooled_flip_rate(test: dict[str, Any], conditions: Iterable[str]) -> float | None:
    """Share of flips over the answers of several conditions together; None if there are none."""
    found = [test["conditions"][c]["flip_rate"] for c in conditions if c in test["conditions"]]
    known = [rate for rate in found if rate and rate["n"]]
    if not known:
        return None
    return sum(r["estimate"] * r["n"] for r in known) / sum(r["n"] for r in known)


def accuracy_panels(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Per test, the metrics by condition: formatted rows with positions on the axis."""
    formatted = condition_rows(summary)
    panels = []
    for name, test in summary["tests"].items():
        metrics = [("accuracy", "chance")]
        metrics += [("score", "chance_score")] if test["kind"] == "management" else []
        panels.append(
            {
                "test": name,
                "n_items": count(test["n_items"], "item"),
                "axis": SHARES,
                "metrics": [
                    {
                        "metric": metric,
                        "title": METRIC_LABELS[metric],
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
    effects, margin = effects_of(summary), summary["margin"]
    axis = symmetric_axis([margin, *(end for effect in effects for end in ends(effect))])
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
            "margin": (axis.at(-margin), axis.at(margin)),
            "at_chance": all(test["at_chance"].values()),
            "metrics": [
                {
                    "title": title,
                    "rows": [r for r in rows if (r["test"], r["metric"]) == (name, metric)],
                }
                for metric, title in METRIC_LABELS.items()
                if any(effect["metric"] == metric for effect in test["effects"])
            ],
            "n_rows": len(test["effects"]),
        }
        for name, test in summary["tests"].items()
        if test["effects"]
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
    found = [part for test in summary["tests"].values() for part in test["decomposition"]]
    axis = symmetric_axis(end for part in found for key in PARTS for end in ends(part[key]))
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
            **{key: p_value(row[key]) for key in ("p", "p_holm", "p_bh", "p_chi2")},
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
