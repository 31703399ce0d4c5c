"""How often the detector of `unswayed traces` is right on hand-labelled traces.

    python benchmarks/traces.py

The labels were set before the detector was written. It was corrected on the first split only; the
second was left alone. Prints the Markdown that stands in docs/traces.md.
"""

from __future__ import annotations

import json
from pathlib import Path

from unswayed.audit.traces.detector import LABELS, facts_of, read, stems

LABELLED = Path(__file__).parents[1] / "tests" / "audit" / "traces_labelled.jsonl"
SPLITS = {"first": "corrected on", "second": "held out"}


def labelled() -> list[dict[str, str]]:
    """{"split", "memory", "item", "trace", "label", "kind", "found"} per trace."""
    rows = [json.loads(line) for line in LABELLED.read_text("utf-8").splitlines()]
    for row in rows:
        item = stems(row["item"])
        row["found"] = read(row["trace"], facts_of(row["memory"], item), item).label
    return rows


def scores(rows: list[dict[str, str]], label: str) -> tuple[float, float]:
    """Precision and recall of one label."""
    hits = sum(row["label"] == row["found"] == label for row in rows)
    return (
        hits / sum(row["found"] == label for row in rows),
        hits / sum(row["label"] == label for row in rows),
    )


def table(rows: list[dict[str, str]]) -> str:
    """Confusion table per split, with precision and recall of each label."""
    names = " | ".join(f"found {label}" for label in LABELS)
    lines = [f"| split | label | {names} | precision | recall |", "|---|---|--:|--:|--:|--:|--:|"]
    for split, what in SPLITS.items():
        part = [row for row in rows if row["split"] == split]
        for label in LABELS:
            counts = [
                sum((row["label"], row["found"]) == (label, found) for row in part)
                for found in LABELS
            ]
            numbers = [*map(str, counts), *(f"{value:.2f}" for value in scores(part, label))]
            lines.append(f"| {split} ({what}) | {label} | {' | '.join(numbers)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(labelled()))
