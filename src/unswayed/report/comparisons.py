"""Comparisons written: JSON, Markdown and a page; what differs decides which one is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unswayed.audit.rundir import read_run
from unswayed.compare.memories import compare_memories
from unswayed.compare.models import compare_models
from unswayed.compare.runs import marks_of
from unswayed.compare.settings import SettingsComparison, compare_settings
from unswayed.core.files import require_folder
from unswayed.display.page import render_report, write_reports
from unswayed.logo.tables import cell, difference_cell, metric_words
from unswayed.report.memories_page import headlines, key_table, memories_view
from unswayed.report.models_page import models_view


def settings_view(comparison: SettingsComparison) -> dict[str, Any]:
    """What the tables hold, of the first metric."""
    labels = list(comparison["measures"])
    if sum(label.startswith("segment ") for label in labels) == 1:  # it is the whole
        labels = [label for label in labels if not label.startswith("segment ")]
    return {
        **comparison,
        "title": metric_words(comparison["metric"]),
        "labels": labels,
        "reference": next(iter(comparison["evaluations"])),
        "methods": list(comparison["measures"][labels[0]]),
        "differences": {
            (row["method"], row["evaluation"], row["slice"]): row
            for row in comparison["differences"]
            if row["metric"] == comparison["metric"]
        },
        "cell": cell,
        "difference_cell": difference_cell,
    }


def settings_tables(comparison: SettingsComparison) -> str:
    """The first metric of every method and evaluation, and what separates these, in Markdown."""
    return render_report("unswayed.report", "settings.md.jinja", settings_view(comparison)).rstrip()


class Kind(NamedTuple):
    """A comparison.

    Attributes:
        name: of its files.
        compare: makes it of directories, and of a reference if there is one.
        view: its content -> what the templates draw.
        pages: ending of a file -> template.
        json: options of `json.dumps`.
    """

    name: str
    compare: Callable[..., Mapping[str, Any]]
    view: Callable[[Any], dict[str, Any]]
    pages: dict[str, str]
    json: dict[str, Any]


STRICT = {"indent": 2, "allow_nan": False}
KINDS = {
    "models": Kind(
        "agreement", compare_models, models_view,
        {"md": "models.md.jinja", "html": "models.html.jinja"}, STRICT,
    ),
    "memories": Kind(
        "compare", compare_memories, memories_view,
        {"md": "memories.md.jinja", "html": "memories.html.jinja"}, STRICT,
    ),
    "settings": Kind(
        "comparison", compare_settings, settings_view, {"md": "settings.md.jinja"}, {"indent": 1}
    ),
}  # fmt: skip


def kind_of(dirs: Sequence[Path]) -> str:
    """Which comparison directories ask for, a key of KINDS.

    Evaluations of LoGo differ in their settings. Runs differ in their memory; in their model, if
    all have the same memory and something else sets them apart.

    Raises:
        InputError: one is neither.
    """
    if all((path / "result.json").exists() for path in dirs):
        return "settings"
    if len(dirs) < 2:
        return "memories"
    runs = [read_run(path) for path in dirs]
    memories = {(run["identity"]["memory"], run["identity"]["memory_style"]) for run in runs}
    settings = {(run["identity"]["model"], *marks_of(run).items()) for run in runs}
    return "models" if len(memories) == 1 < len(settings) else "memories"


def write_comparison(
    kind: str, dirs: Sequence[Path], out: Path, **options: Any
) -> Mapping[str, Any]:
    """Write a comparison's files; returns the content of the JSON one.

    Args:
        kind: key of KINDS.
        options: of `compare_memories`.

    Raises:
        InputError: as the comparison does, or `out` is no folder.
    """
    require_folder(out)
    name, compare, view, pages, options_of_json = KINDS[kind]
    comparison = compare(dirs, **options)
    write_reports(
        out,
        "unswayed.report",
        view(comparison),
        {f"{name}.{ending}": template for ending, template in pages.items()},
        {f"{name}.json": json.dumps(comparison, ensure_ascii=False, **options_of_json) + "\n"},
    )
    return comparison


def comparison_text(kind: str, comparison: Mapping[str, Any], out: Path) -> str:
    """What the command line says of a comparison that was written to `out`."""
    if kind == "models":
        return f"Report: {out / 'agreement.html'}"
    if kind == "settings":
        return f"{settings_tables(comparison)}\n\n{out / 'comparison.md'}"
    lines = [key_table(comparison), "", *headlines(comparison)]
    lines += [f"Warning: {text}" for text in comparison["warnings"]]
    return "\n".join([*lines, "", f"Report: {out / 'compare.html'}"])
