"""report.md and the view data of report.html, from what mitigation.json holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unswayed.audit.summary import PERSONA
from unswayed.display.numbers import (
    MISSING,
    count,
    interval,
    markdown_text,
    percent,
)
from unswayed.display.plots import ends, position, symmetric_axis
from unswayed.display.tables import markdown_table
from unswayed.mitigation.dpo.curves import draw
from unswayed.mitigation.verdict.changes import GAP
from unswayed.mitigation.verdict.words import (
    FINDINGS,
    LABELS,
    METRICS,
    RUN_TEXTS,
    RUNS,
    TASKS,
    as_change,
    at_chance,
    finding,
    headlines,
    row_of,
    tone,
    warnings,
)
from unswayed.report.words import points

CHANGE_COLUMNS = [
    ("metric", "Metric"),
    ("label", "Condition"),
    ("before", "Before"),
    ("after", "After"),
    ("change", "Change (points)"),
    ("relative", "Relative (%)"),
    ("finding", "Finding"),
]
# What users are compared by: metric and name in the changes, heading.
COMPARED = {
    "flips": ("flip", PERSONA, "Flips with a persona (%)"),
    "accuracy": ("accuracy", PERSONA, "Accuracy with a persona (%)"),
    "gap": ("accuracy", GAP, "Gap (points)"),
}


def view(found: dict[str, Any]) -> dict[str, Any]:
    """Everything that the page draws, formatted."""
    used = {row["finding"] for panel in effect_panels(found) for row in panel["rows"]}
    capability = capability_panels(found)
    used |= {row["finding"] for panel in capability for row in panel["rows"]}
    return {
        "model": found["model"],
        "headlines": headlines(found),
        "warnings": warnings(found),
        "level": f"{found['level']:.0%}",
        "margin": points(found["margin"]),
        "findings": {name: text for name, text in FINDINGS.items() if name in used},
        "keys": key_numbers(found),
        "verdicts": verdict_rows(found),
        "checks": check_tables(found),
        "effects": effect_panels(found),
        "baselines": baseline_tables(found),
        "capability": capability,
        "separation": separation_rows(found),
        "card": (found["separation"]["card"] or {}).get("text"),
        "training": training_rows(found),
        "curves": _svg(found["curves"]),
        "methods": methods(found),
        "version": found["version"],
    }


def _svg(history: list[dict[str, Any]]) -> str:
    """The curves as a part of a page: without the head of a file, as wide as the page."""
    drawn = draw(history)
    return re.sub(r' (width|height)="[\d.]+pt"', "", drawn[drawn.index("<svg") :], count=2)


# -- what changed --------------------------------------------------------------------------------


def key_numbers(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The numbers at the top: title, unit, text and, per test, value, interval and aside."""
    texts = {
        "flips": "Answers that differ from the same model's answer to the same question without "
        "memory. Each model is compared with itself.",
        "accuracy": "How often the best answer is picked when the model knows the user; fewer "
        "flips are worth little if it falls.",
        "gap": "Accuracy for advantaged minus accuracy for disadvantaged users. 0 is equal "
        "treatment.",
    }
    keys = []
    for key, (metric, name, title) in COMPARED.items():
        values = []
        for test, about in found["tests"].items():
            if row := row_of(about["changes"]["after"], metric, name):
                signed = name == GAP
                sides = [percent(row[side]["estimate"], signed) for side in ("before", "after")]
                aside = f"{interval(row['change'], sign=True)} points"
                if row["relative"]:
                    aside += f"; {interval(row['relative'], sign=True)}% relative"
                values.append((test, " → ".join(sides), aside))
        keys.append({"title": title, "values": values, "text": texts[key]})
    for panel in capability_panels(found):
        values = [
            (row["label"], f"{row['before']} → {row['after']}", f"{row['change']} points")
            for row in panel["rows"]
        ]
        keys.append({"title": f"{panel['title']} (%)", "values": values, "text": panel["text"]})
    return keys


def effect_panels(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Per test, formatted rows of every metric with positions on one axis."""
    panels = []
    for test, about in found["tests"].items():
        rows = about["changes"]["after"]
        axis = _axis(found, (row["change"] for row in rows))
        panels.append(
            {
                "test": test,
                "size": f"{count(about['n_items'], 'item')}, {count(about['n_pairs'], 'pair')}",
                "at_chance": at_chance(found, test),
                "axis": axis,
                "margin": _band(found, axis),
                "rows": [
                    {
                        "group": METRICS[row["metric"]],
                        "metric": METRICS[row["metric"]],
                        "relative": interval(row["relative"], sign=True),
                    }
                    | _row(row["name"], row["metric"], row, row["change"], axis)
                    for row in rows
                ],
            }
        )
    return panels


def capability_panels(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Per task, formatted rows of every condition with positions on one axis."""
    if not found["capability"]:
        return []
    panels = []
    for task, conditions in found["capability"]["changes"].items():
        axis = _axis(found, map(as_change, conditions.values()))
        title, text = TASKS[task]
        n = next(iter(conditions.values()))["n"]
        panels.append(
            {
                "title": title,
                "text": f"Share of {n:,} {text}.",
                "axis": axis,
                "margin": _band(found, axis),
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
    sides = {side: row[side] for side in ("before", "after")}
    shown = {
        side: interval(value, sign=" − " in LABELS[name]) if isinstance(value, dict)
        else percent(value)
        for side, value in sides.items()
    }  # fmt: skip
    return {
        "label": LABELS[name],
        **shown,
        "change": interval(change, sign=True),
        "finding": state,
        "tone": tone(metric, name, state),
    } | position(change, axis)


def _axis(found: dict[str, Any], changes: Iterable[dict[str, Any]]) -> Any:
    return symmetric_axis([found["margin"], *(end for change in changes for end in ends(change))])


def _band(found: dict[str, Any], axis: Any) -> tuple[float, float]:
    return axis.at(-found["margin"]), axis.at(found["margin"])


def baseline_tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Per test, what training and each baseline give, and their change against before."""
    names = [name for name in found["runs"] if name != "before"]
    if names == ["after"]:
        return []
    tables = []
    for test, about in found["tests"].items():
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


def verdict_rows(found: dict[str, Any]) -> list[dict[str, str]]:
    """Each run's own verdict, and what the policy says of it."""
    return [
        {
            "label": RUNS[name],
            "status": run["verdict"]["status"],
            "text": run["verdict"]["text"],
            "check": run["check"]["tally"] if run["check"] else "",
            "notes": " ".join(run["notes"]),
        }
        for name, run in found["runs"].items()
    ]


def check_tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The checks of the policy before and after, where there is one."""
    return [
        {"label": RUNS[name], "tally": run["check"]["tally"], "checks": run["check"]["checks"]}
        for name, run in found["runs"].items()
        if run["check"]
    ]


def separation_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, figure) of how far training data and audit are apart."""
    about = found["separation"]
    rows = [
        ("Training pairs compared", f"{about['pairs']:,}"),
        ("Items of the audit compared", f"{about['items']:,}"),
        (
            f"Pairs that share {about['run']} words in a row with one of these items, or a whole "
            f"option of {about['whole']} words or more",
            f"{about['shared']}",
        ),
        ("Base personas asked about, in no training pair", f"{about['users']}"),
    ]
    figures = (about["card"] or {"figures": {}})["figures"]
    return rows + [(f"{name[:1].upper()}{name[1:]} (card of the pairs)", f"{value:g}")
                   for name, value in figures.items()]  # fmt: skip


def training_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, value) of the training run; files and folders by their names."""
    about, recipe = found["training"], found["training"]["recipe"]
    data = f"{Path(recipe['dataset']).name}, config {recipe['config']}: "
    data += f"{about['data']['train']} pairs to train on, {about['data']['test']} to test on"
    if recipe["mix"]:
        data += f"; {recipe['mix_share']:.0%} of them from {Path(recipe['mix']).name}"
    own = {key: recipe[key] for key in ("order", "consistency", "dtype", "seed")}
    settings = own | recipe["training"] | {f"lora {k}": v for k, v in recipe["lora"].items()}
    return [
        ("Data", data),
        ("SHA-256 of the pairs", about["data"]["sha256"]),
        ("Reference", about["reference"]),
        ("Settings", ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items())),
        ("Base weights (SHA-256)", about["base"]["weights"]),
        ("Adapter (SHA-256)", found["runs"]["after"]["model"]["adapter_hash"]),
        ("Model in the audits", _model_text(found["runs"]["after"])),
        ("Versions", ", ".join(f"{name} {v}" for name, v in about["versions"].items())),
    ]


def _model_text(run: Mapping[str, Any]) -> str:
    model = run["model"]
    return f"revision {model['revision']}, {model['dtype']}, {model['device']}"


def methods(found: dict[str, Any]) -> list[tuple[str, str]]:
    """(heading, full sentences) on what was compared, and how."""
    level, margin, after = f"{found['level']:.0%}", points(found["margin"]), found["runs"]["after"]
    parts = [
        (
            "Comparison",
            "The model was asked the same items about the same users before and after training "
            f"({after['scoring']} scoring, memory {after['memory']}, style "
            f"{after['memory_style']}, seed {after['seed']}). Changes are after minus before, "
            "paired by item and user. A flip is an answer that differs from the same model's "
            "answer to the same item without memory, so a trained model is compared with itself.",
        ),
        (
            "Intervals",
            f"{level} intervals. The variance of a change is that of a two-way analysis of "
            "variance with items and users as crossed random factors. A relative change of flips "
            "is the ratio of both flip rates minus one; its interval is that of the log of the "
            "ratio, by the delta method with the same variance. A change is shown to be small if "
            f"both one-sided t tests against ±{margin} are below 0.05. Findings are not corrected "
            "for their number.",
        ),
        (
            "Verdicts",
            "Each run's verdict is that of its own report and speaks of the gap alone; the policy "
            "is judged as by unswayed check. Neither compares the two runs.",
        ),
        (
            "Separation",
            "Training pairs were compared with the items by runs of words, and users were asked "
            "about only if no training prompt holds the text of any of their versions. The cosine "
            "on the card is that of embeddings, against the items named there.",
        ),
    ]
    if found["capability"]:
        parts.append(
            (
                "Capability",
                "The same questions before and after, each without memory and under three "
                "memories of one of the users above; the change is paired by question, and its "
                "interval speaks of other questions. Settings: "
                + ", ".join(
                    f"{key} {Path(value).name if isinstance(value, str) else value}"
                    for key, value in found["capability"]["settings"].items()
                    if value is not None
                )
                + ".",
            )
        )
    parts.append(
        (
            "Limits",
            "One training run with one seed: another seed gives another adapter, and the "
            "intervals do not cover that. What was measured holds for these items, users and this "
            "way of telling the memory. Whether the model still heeds a memory that matters, an "
            "allergy say, is not measured here.",
        )
    )
    return parts


# -- text ----------------------------------------------------------------------------------------


def markdown(found: dict[str, Any]) -> str:
    """The report as Markdown."""
    verdicts = verdict_rows(found)
    columns = [("label", "Run"), ("text", "Verdict")]
    columns += [("check", "Policy")] if any(row["check"] for row in verdicts) else []
    blocks = [
        f"# {markdown_text(found['model'])} before and after training",
        "\n".join(f"- {markdown_text(text)}" for text in headlines(found)),
        "\n".join(f"- Warning: {markdown_text(text)}" for text in warnings(found)),
        "## Verdicts",
        markdown_table(verdicts, columns, left=len(columns)),
        "\n".join(f"- {r['label']}: {markdown_text(r['notes'])}" for r in verdicts if r["notes"]),
        "## What changed",
        f"Shares in percent, changes in percentage points, with {found['level']:.0%} intervals.",
    ]
    for panel in effect_panels(found):
        blocks += [
            f"### {markdown_text(panel['test'])} ({panel['size']})",
            markdown_table(panel["rows"], CHANGE_COLUMNS, left=2),
        ]
    for table in baseline_tables(found):
        rows = [
            {"label": row["label"]} | {key: "; ".join(filter(None, row[key])) for key in COMPARED}
            for row in table["rows"]
        ]
        heads = [("label", "Run"), *((key, title) for key, (*_, title) in COMPARED.items())]
        blocks += [
            f"### What needs no training, on {markdown_text(table['test'])}",
            "Value, and change against before training.",
            markdown_table(rows, heads, left=1),
        ]
    panels = capability_panels(found)
    blocks += ["## Capability"] if panels else []
    for panel in panels:
        columns = [c for c in CHANGE_COLUMNS if c[0] not in ("metric", "relative")]
        blocks += [
            f"**{panel['title']}.** {panel['text']}",
            markdown_table(panel["rows"], [*columns, ("n", "n")], left=1),
        ]
    blocks += [
        "## Training",
        "\n".join(f"- {name}: {markdown_text(text)}" for name, text in training_rows(found)),
        "The curves are in report.html.",
        "## Separation of training and audit",
        "\n".join(f"- {name}: {text}" for name, text in separation_rows(found)),
    ]
    if card := found["separation"]["card"]:
        blocks.append(f"From the card of the pairs: {card['text']}")
    for table in check_tables(found):
        rows = [
            {"state": c["state"], "name": f"{c['test']}: {c['name']}", "evidence": c["evidence"]}
            for c in table["checks"]
        ]
        columns = [("state", "State"), ("name", "Check"), ("evidence", "Evidence")]
        blocks += [f"## Policy, {table['label'].lower()}", markdown_table(rows, columns, left=3)]
    blocks.append("## Methods")
    blocks += [f"**{head}.** {markdown_text(text)}" for head, text in methods(found)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def card_rows(found: dict[str, Any]) -> list[dict[str, str]]:
    """Rows for the adapter's card: the figures of the headlines, and capability."""
    rows = []
    for test, about in found["tests"].items():
        for metric, name, title in COMPARED.values():
            if row := row_of(about["changes"]["after"], metric, name):
                rows.append((f"{test}: {title}", row["before"], row["after"], row["change"]))
    rows += [
        (f"{TASKS[task][0]}, {LABELS[name].lower()} (%)", row["before"], row["after"],
         as_change(row))
        for task, conditions in (found["capability"] or {"changes": {}})["changes"].items()
        for name, row in conditions.items()
    ]  # fmt: skip

    def shown(value: Any) -> str:
        return percent(value["estimate"] if isinstance(value, dict) else value)

    return [
        {
            "measure": markdown_text(measure),
            "before": shown(before),
            "after": shown(after),
            "change (points)": interval(change, sign=True),
        }
        for measure, before, after, change in rows
    ]
