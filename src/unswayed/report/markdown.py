"""report.md: the report for pull requests and terminals."""

from __future__ import annotations

from typing import Any

import pandas as pd

from unswayed.audit.flips import flips_by_item, flips_by_user, keyed, no_flips_text
from unswayed.audit.rundir import model_name
from unswayed.audit.summary import is_grid
from unswayed.audit.trials import CONDITIONS
from unswayed.display.numbers import markdown_table, markdown_text, percent
from unswayed.report.grid import grid_panels
from unswayed.report.methods import facts, methods
from unswayed.report.run_page import TOP, decomposition_panels, omnibus_rows
from unswayed.report.tables import (
    effect_rows,
    power_columns,
    power_rows,
    power_text,
    result_table,
)
from unswayed.report.words import VERDICTS, p_texts


def markdown(run: dict[str, Any], answers: pd.DataFrame, summary: dict[str, Any]) -> str:
    """The report as Markdown: verdict, tables, methods."""
    verdict = summary["verdict"]
    blocks = [
        f"# Audit of {markdown_text(model_name(run, summary))}",
        f"**{VERDICTS[verdict['status']]}.** {markdown_text(verdict['text'])}",
    ]
    if summary["warnings"]:
        blocks.append("\n".join(f"- Warning: {markdown_text(w)}" for w in summary["warnings"]))
    blocks += [
        "## Results",
        f"Shares in percent with {summary['level']:.0%} intervals; effects in percentage points.",
        result_table(summary),
        *_tests(summary),
        *_decomposition(summary),
        *_omnibus(summary),
    ]
    if power := power_rows(summary):
        columns = [("test", "Test"), ("metric", "Metric"), ("name", "Effect")]
        columns += power_columns(summary)
        blocks += ["## What this run could find", power_text(summary)]
        blocks.append(markdown_table(power, columns, left=3))
    blocks += _grid(summary)
    blocks.append("## Flips")
    if reason := no_flips_text(summary):
        blocks.append(reason)
    else:
        user = "cell" if is_grid(summary) else "pair"
        for name, shares in [(user, flips_by_user(answers)), ("item", flips_by_item(answers))]:
            blocks += _flips(name, shares)
    blocks.append("## Methods")
    blocks += [
        f"**{head}.** {markdown_text(text)}" for head, text in methods(run, answers, summary)
    ]
    blocks.append(
        "\n".join(f"- {name}: {markdown_text(value)}" for name, value in facts(run, summary))
    )
    return "\n\n".join(blocks) + "\n"


def _tests(summary: dict[str, Any]) -> list[str]:
    """All p-values and counts of the effects."""
    rows = effect_rows(summary)
    if not rows:
        return []
    columns = [
        ("test", "Test"),
        ("metric", "Metric"),
        ("name", "Effect"),
        ("p", "p"),
        ("p_holm", "p (Holm)"),
        ("p_bh", "p (BH)"),
        ("p_tost", "p (equivalence)"),
        ("p_mcnemar", "p (McNemar)"),
        ("n_pairs", "Users"),
        ("n_differences", "Pairs of answers"),
        ("better", "Better"),
        ("worse", "Worse"),
    ]
    notes = [
        "- " + markdown_text(f"{row['test']}, {row['metric']}, {row['name']}: {row['notes']}")
        for row in rows
        if row["notes"]
    ]
    return [
        "## Tests",
        markdown_table(rows, columns, left=3),
        "\n".join(f"- {name}: {text}" for name, text in p_texts(summary)),
        *(["Notes:", "\n".join(notes)] if notes else []),
    ]


def _decomposition(summary: dict[str, Any]) -> list[str]:
    rows = [
        {"test": panel["test"], "metric": metric["title"]}
        | {row["part"]: row["value"] for row in metric["rows"]}
        for panel in decomposition_panels(summary)
        for metric in panel["metrics"]
    ]
    columns = [
        ("test", "Test"),
        ("metric", "Metric"),
        ("any_memory", "Any memory (points)"),
        ("which_persona", "Which persona (points)"),
        ("total", "Both together (points)"),
    ]
    return ["## Any memory or which persona", markdown_table(rows, columns, left=2)] if rows else []


def _omnibus(summary: dict[str, Any]) -> list[str]:
    columns = [
        ("test", "Test"),
        ("metric", "Metric"),
        ("conditions", "Conditions"),
        ("q", "Q"),
        ("df", "df"),
        ("p", "p"),
        ("p_holm", "p (Holm)"),
        ("p_bh", "p (BH)"),
        ("p_chi2", "p (chi-squared)"),
        ("n", "Items / blocks"),
    ]
    rows = omnibus_rows(summary)
    if not rows:
        return []
    return ["## All conditions together (Cochran's Q)", markdown_table(rows, columns, left=3)]


def _grid(summary: dict[str, Any]) -> list[str]:
    blocks = []
    for panel in grid_panels(summary):
        columns = [("label", "Contrast")]
        columns += [
            column
            for method, title in panel["methods"].items()
            for column in ((method, f"{title} (points)"), (f"{method}_p", "p"))
        ]
        rows = [
            {"label": contrast["label"]}
            | {m["method"]: m["value"] for m in contrast["methods"]}
            | {f"{m['method']}_p": m["p"] for m in contrast["methods"]}
            for contrast in panel["contrasts"]
        ]
        joint = [("name", "Attribute"), ("chi2", "Chi-squared"), ("df", "df"), ("p", "p")]
        joint.append(("p_holm", "p (Holm)"))
        blocks += [
            f"## Grid: {markdown_text(panel['test'])}",
            f"{panel['n']} answers, {panel['n_items']} items, {panel['n_cells']} cells; reference: "
            f"{markdown_text(panel['reference'])}.",
            markdown_table(rows, columns, left=1),
        ]
        if panel["joint"]:
            blocks += [
                "Joint tests of the mixed model:",
                markdown_table(panel["joint"], joint, left=1),
            ]
        blocks.append(
            "\n".join(f"- {name}: {markdown_text(text)}" for name, text in panel["notes"])
        )
    return blocks


def _flips(name: str, shares: pd.DataFrame) -> list[str]:
    conditions = [c for c in CONDITIONS if c in shares.columns]
    columns = [("label", name.capitalize()), ("flips", "Flips")]
    columns += [("share", "all (%)"), *((c, f"{c} (%)") for c in conditions)]
    rows = [
        {"label": " / ".join(key), "flips": f"{row['flips']:.0f} of {row['n']:.0f}"}
        | {c: percent(row[c]) for c in ["share", *conditions]}
        for key, row in keyed(shares.head(TOP))
    ]
    title = f"The {name}s that flip most (up to {TOP} of {len(shares)}):"
    return [title, markdown_table(rows, columns, left=1)]
