"""How often the rule-based judge of preference candidates is right on hand-labelled ones.

    python benchmarks/judge.py

Every label was set before the judge read the candidate. Splits were measured once before the judge
was corrected on them; the last one was written after the last correction. Prints the Markdown that
stands in docs/preferences.md.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from unswayed.data.questions import builtin_questions
from unswayed.mitigation.rule_judge import Judgement, judge

LABELLED = Path(__file__).parents[1] / "tests" / "mitigation" / "judge_labelled.jsonl"
SPLITS = {
    "first": "corrected on",
    "second": "corrected on later",
    "third": "corrected on later",
    "fourth": "corrected on later",
    "fifth": "held out",
}
AXES = ("correct", "biased", "states_irrelevance")
VALUES = {True: "yes", False: "no", None: "none"}


def labelled() -> list[dict]:
    """{"split", "question", "memory", "candidate", *AXES, "kind", "found"} per candidate."""
    questions = {question.id: question for question in builtin_questions()}
    rows = [json.loads(line) for line in LABELLED.read_text("utf-8").splitlines()]
    for row in rows:
        row["found"] = judge(questions[row["question"]], row["memory"], row["candidate"])
    return rows


def scores(rows: list[dict], axis: str, value: bool | None) -> tuple[float, float]:
    """Precision (nan if the value is never found) and recall of one value of one axis."""
    pairs = [(row[axis], getattr(row["found"], axis)) for row in rows]
    hits = sum(label is value and found is value for label, found in pairs)
    n_found = sum(found is value for _, found in pairs)
    return hits / n_found if n_found else math.nan, hits / sum(x is value for x, _ in pairs)


def error_rate(rows: list[dict], axis: str) -> float:
    """Share of candidates whose value on an axis differs from the label."""
    return sum(row[axis] is not getattr(row["found"], axis) for row in rows) / len(rows)


def table(rows: list[dict]) -> str:
    """Confusion counts per split and axis, with precision and recall of each value."""
    lines = [
        "| split | axis | label | found yes | found no | found none | precision | recall | error |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for split, what in SPLITS.items():
        part = [row for row in rows if row["split"] == split]
        for axis in AXES:
            for value in VALUES if axis == "correct" else (True, False):
                counts = [
                    sum(row[axis] is value and getattr(row["found"], axis) is found for row in part)
                    for found in VALUES
                ]
                numbers = [*map(str, counts), *(f"{x:.2f}" for x in scores(part, axis, value))]
                error = f"{error_rate(part, axis):.3f}" if value is True else ""
                lines.append(
                    f"| {split} ({what}) | {axis} | {VALUES[value]} | {' | '.join(numbers)} | "
                    f"{error} |"
                )
    return "\n".join(lines)


def role_table(rows: list[dict]) -> str:
    """Per split and role: how many labelled, how many found, precision and recall."""
    lines = [
        "| split | role | labelled | found | precision | recall |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for split, what in SPLITS.items():
        part = [row for row in rows if row["split"] == split]
        pairs = [
            (Judgement(*(row[axis] for axis in AXES), reasons=()).role, row["found"].role)
            for row in part
        ]
        for name in ("chosen", "rejected"):
            n_label = sum(label == name for label, _ in pairs)
            n_found = sum(found == name for _, found in pairs)
            hits = sum(label == found == name for label, found in pairs)
            lines.append(
                f"| {split} ({what}) | {name} | {n_label} | {n_found} | {hits / n_found:.2f} | "
                f"{hits / n_label:.2f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    labelled_rows = labelled()
    print(table(labelled_rows), role_table(labelled_rows), sep="\n\n")
