"""The report on a mitigation: formatted view data, from what mitigation.json holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from unswayed.audit.effects import PERSONA
from unswayed.compare.paired import GAP
from unswayed.display.numbers import MISSING, count, interval, markdown_text, percent
from unswayed.display.page import sections
from unswayed.display.plots import margin_axis, position
from unswayed.mitigation.dpo.curves import draw
from unswayed.mitigation.verdict.record import Change, Mitigation
from unswayed.mitigation.verdict.words import (
    FINDINGS,
    LABELS,
    RUN_TEXTS,
    RUNS,
    TASKS,
    as_change,
    at_chance,
    capability_changes,
    finding,
    headlines,
    row_of,
    tone,
    warnings,
)
from unswayed.report.words import METRIC_LABELS, points

# What users are compared by: metric and name in the changes, heading.
COMPARED = {
    "flips": ("flip", PERSONA, "Flips with a persona (%)"),
    "accuracy": ("accuracy", PERSONA, "Accuracy with a persona (%)"),
    "gap": ("accuracy", GAP, "Gap (points)"),
}


def view(record: Mitigation) -> dict[str, Any]:
    """Everything that page and Markdown draw, formatted."""
    effects, capability = effect_panels(record), capability_panels(record)
    findings = {row["finding"] for panel in [*effects, *capability] for row in panel["rows"]}
    basics = {"level": f"{record['level']:.0%}", "margin": points(record["margin"])}
    settings = (record["capability"] or {"settings": {}})["settings"]
    about = {
        "after": record["runs"]["after"],
        "settings": [
            f"{key} {Path(value).name if isinstance(value, str) else value}"
            for key, value in settings.items()
            if value is not None
        ],
    }
    return basics | {
        "model": record["model"],
        "headlines": headlines(record),
        "warnings": warnings(record),
        "findings": {name: text for name, text in FINDINGS.items() if name in findings},
        "keys": key_numbers(record, capability),
        "verdicts": verdict_rows(record),
        "checks": check_tables(record),
        "effects": effects,
        "baselines": baseline_tables(record),
        "compared": [(key, title) for key, (*_, title) in COMPARED.items()],
        "capability": capability,
        "separation": sections("unswayed.mitigation", "separation.md.jinja", record["separation"]),
        "card": (record["separation"]["card"] or {}).get("text"),
        "training": training_rows(record),
        "curves": _svg(record["curves"]),
        "methods": sections("unswayed.mitigation", "mitigation_methods.md.jinja", basics | about),
        "version": record["version"],
    }


def _svg(history: list[dict[str, Any]]) -> str:
    """The curves as a part of a page: without the head of a file, as wide as the page."""
    drawn = draw(history)
    return re.sub(r' (width|height)="[\d.]+pt"', "", drawn[drawn.index("<svg") :], count=2)


# -- what changed --------------------------------------------------------------------------------


def key_numbers(record: Mitigation, capability: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The numbers at the top: title, text and, per test, value, and change as an aside."""
    texts = {
        "flips": "Answers that differ from the same model's answer to the same question without "
        "memory. Each model is compared with itself.",
        "accuracy": "How often the best answer is picked when the model knows the user; fewer "
        "flips are worth little if it falls.",
        "gap": "Accuracy for advantaged minus accuracy for disadvantaged users. 0 is equal "
        "treatment.",
    }

    def value(test: str, row: Change) -> tuple[str, str, str]:
        sides = (percent(row[s]["estimate"], row["name"] == GAP) for s in ("before", "after"))
        aside = f"{interval(row['change'], sign=True)} points"
        if row["relative"]:
            aside += f"; {interval(row['relative'], sign=True)}% relative"
        return test, " → ".join(sides), aside

    keys = [
        {
            "title": title,
            "values": [
                value(test, row)
                for test, about in record["tests"].items()
                if (row := row_of(about["changes"]["after"], metric, name))
            ],
            "text": texts[key],
        }
        for key, (metric, name, title) in COMPARED.items()
    ]
    return keys + [
        {
            "title": f"{panel['title']} (%)",
            "values": [
                (row["label"], f"{row['before']} → {row['after']}", f"{row['change']} points")
                for row in panel["rows"]
            ],
            "text": panel["text"],
        }
        for panel in capability
    ]


def effect_panels(record: Mitigation) -> list[dict[str, Any]]:
    """Per test, formatted rows of every metric with positions on one axis."""
    panels = []
    for test, about in record["tests"].items():
        rows = about["changes"]["after"]
        axis, margin = margin_axis(record["margin"], (row["change"] for row in rows))
        panels.append(
            {
                "test": test,
                "size": f"{count(about['n_items'], 'item')}, {count(about['n_pairs'], 'pair')}",
                "at_chance": at_chance(record, test),
                "axis": axis,
                "margin": margin,
                "rows": [
                    {
                        "group": METRIC_LABELS[row["metric"]],
                        "metric": METRIC_LABELS[row["metric"]],
                        "relative": interval(row["relative"], sign=True),
                    }
                    | _row(row["name"], row["metric"], row, row["change"], axis)
                    for row in rows
                ],
            }
        )
    return panels


def capability_panels(record: Mitigation) -> list[dict[str, Any]]:
    """Per task, formatted rows of every condition with positions on one axis."""
    panels = []
    for task, conditions in capability_changes(record).items():
        axis, margin = margin_axis(record["margin"], map(as_change, conditions.values()))
        title, text = TASKS[task]
        n = next(iter(conditions.values()))["n"]
        panels.append(
            {
                "title": title,
                "text": f"Share of {n:,} {text}.",
                "axis": axis,
                "margin": margin,
                "rows": [
                    {"n": f"{row['n']:,}"} | _row(name, "accuracy", row, as_change(row), axis)
                    for name, row in conditions.items()
                ],
            }
        )
    return panels


def _row(
    name: str, metric: str, row: dict[str, Any], change: dict[str, Any], axis: Any
) -> dict[str, Any]:
    state = finding(change, row["p_equivalent"])
    signed = " − " in LABELS[name]
    return {
        "label": LABELS[name],
        **{
            side: interval(row[side], signed) if isinstance(row[side], dict) else percent(row[side])
            for side in ("before", "after")
        },
        "change": interval(change, sign=True),
        "finding": state,
        "tone": tone(metric, name, state),
    } | position(change, axis)


def baseline_tables(record: Mitigation) -> list[dict[str, Any]]:
    """Per test, what training and each baseline give, and their change against before."""
    names = [name for name in record["runs"] if name != "before"]
    if names == ["after"]:
        return []
    tables = []
    for test, about in record["tests"].items():
        first = about["changes"]["after"]
        rows = [("before", {key: row_of(first, *where[:2]) for key, where in COMPARED.items()})]
        rows += [
            (name, {k: row_of(about["changes"][name], *w[:2]) for k, w in COMPARED.items()})
            for name in names
        ]
        tables.append(
            {
                "test": test,
                "rows": [
                    {"label": RUNS[name], "text": RUN_TEXTS.get(name, "")}
                    | {key: _compared(key, row, name) for key, row in cells.items()}
                    for name, cells in rows
                ],
            }
        )
    return tables


def _compared(key: str, row: dict[str, Any] | None, run: str) -> tuple[str, str]:
    """The value under a run, and its change against the run before training."""
    if row is None:
        return MISSING, ""
    side, signed = ("before" if run == "before" else "after"), key == "gap"
    change = "" if run == "before" else f"{interval(row['change'], sign=True)} points"
    return interval(row[side], signed), change


# -- verdicts, training --------------------------------------------------------------------------


def verdict_rows(record: Mitigation) -> list[dict[str, str]]:
    """Each run's own verdict, and what the policy says of it."""
    return [
        {
            "label": RUNS[name],
            "status": run["verdict"]["status"],
            "text": run["verdict"]["text"],
            "check": run["check"]["tally"] if run["check"] else "",
            "notes": " ".join(run["notes"]),
        }
        for name, run in record["runs"].items()
    ]


def check_tables(record: Mitigation) -> list[dict[str, Any]]:
    """The checks of the policy before and after, where there is one."""
    return [
        {"label": RUNS[name], "tally": run["check"]["tally"], "checks": run["check"]["checks"]}
        for name, run in record["runs"].items()
        if run["check"]
    ]


def training_rows(record: Mitigation) -> list[tuple[str, str]]:
    """(what, value) of the training run; files and folders by their names."""
    recipe = record["training"]["recipe"]
    settings = {key: recipe[key] for key in ("order", "consistency", "dtype", "seed")}
    settings |= recipe["training"] | {f"lora {key}": v for key, v in recipe["lora"].items()}
    view = record["training"] | {
        "dataset": Path(recipe["dataset"]).name,
        "mix": Path(recipe["mix"] or "").name,
        "settings": settings,
        "model": record["runs"]["after"]["model"],
        "json": json.dumps,
    }
    return sections("unswayed.mitigation", "training.md.jinja", view)


def card_rows(record: Mitigation) -> list[dict[str, str]]:
    """Rows for the adapter's card: the figures of the headlines, and capability."""
    rows = [
        (f"{test}: {title}", row["before"]["estimate"], row["after"]["estimate"], row["change"])
        for test, about in record["tests"].items()
        for metric, name, title in COMPARED.values()
        if (row := row_of(about["changes"]["after"], metric, name))
    ]
    rows += [
        (f"{TASKS[task][0]}, {LABELS[name].lower()} (%)", row["before"], row["after"],
         as_change(row))
        for task, conditions in capability_changes(record).items()
        for name, row in conditions.items()
    ]  # fmt: skip
    return [
        {
            "measure": markdown_text(measure),
            "before": percent(before),
            "after": percent(after),
            "change (points)": interval(change, sign=True),
        }
        for measure, before, after, change in rows
    ]
