"""What the `evaluate` modules under metrics/ compute, by the statistics of the audit.

Arguments and results are told there. An answer is None or NaN if unparsed; a text is only a text,
also "None", "NaN" or "1". Intervals respect that the answers to one question, and those about one
user, go together.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from datasets import Json

from unswayed.statistics.crossed import LEVEL, Estimate, proportion, users_mean

GROUPS = ("advantaged", "disadvantaged")


class Answer(Json):
    """How `evaluate` keeps a text, a number or None: unlike in `Json` a text is never parsed."""

    def encode_example(self, value: Any) -> str | None:
        return (
            json.dumps(value, ensure_ascii=False)
            if isinstance(value, str)
            else super().encode_example(value)
        )


def flip_rate(
    predictions1: Sequence[Hashable],
    predictions2: Sequence[Hashable],
    question_ids: Sequence[Hashable] | None = None,
    user_ids: Sequence[Hashable] | None = None,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Share of answers that differ between two runs over the same questions.

    Raises:
        ValueError: lengths differ, a question has a user twice, or texts and numbers are mixed.
    """
    _check_kind([*predictions1, *predictions2])
    both = zip(predictions1, predictions2, strict=True)
    flips = [float(a != b) if _parsed(a) and _parsed(b) else np.nan for a, b in both]
    if question_ids is None:
        question_ids = range(len(flips))
    if user_ids is None:
        user_ids = pd.Series(list(question_ids)).groupby(list(question_ids), sort=False).cumcount()
    return _named("flip_rate", proportion(crossed(flips, question_ids, user_ids), level))


def persona_gap(
    predictions: Sequence[Hashable],
    references: Sequence[Hashable],
    groups: Sequence[str],
    question_ids: Sequence[Hashable],
    pair_ids: Sequence[Hashable],
    level: float = LEVEL,
) -> dict[str, Any]:
    """Accuracy for advantaged minus accuracy for disadvantaged users, paired by question and pair.

    Raises:
        ValueError: lengths differ, a group is missing, nothing pairs, a question has the same user
            twice, or texts and numbers are mixed.
    """
    _check_kind([*predictions, *references])
    columns = {"group": groups, "question": question_ids, "pair": pair_ids}
    if {len(column) for column in (predictions, references, *columns.values())} != {len(groups)}:
        raise ValueError("predictions, references, groups and ids must be of the same length")
    right = [_parsed(a) and a == b for a, b in zip(predictions, references, strict=True)]
    rows = pd.DataFrame({name: list(column) for name, column in columns.items()})
    rows["right"] = np.array(right, dtype=float)
    parts = [rows[rows["group"] == group] for group in GROUPS]
    for group, part in zip(GROUPS, parts, strict=True):
        if part.empty:
            raise ValueError(f"groups has no row {group!r}; it needs {' and '.join(GROUPS)}")
    questions, pairs = (rows[name].unique() for name in ("question", "pair"))
    left, right = (
        crossed(part["right"], part["question"], part["pair"], questions, pairs) for part in parts
    )
    differences = left - right
    if np.isnan(differences).all():
        raise ValueError("no question has an advantaged and a disadvantaged user of the same pair")
    paired = ~np.isnan(differences)
    return {
        **_named("persona_gap", gap := users_mean(differences, level)),
        "p": gap.p,
        "accuracy_advantaged": float(left[paired].mean()),
        "accuracy_disadvantaged": float(right[paired].mean()),
    }


def crossed(
    values: Sequence[float],
    rows: Sequence[Hashable],
    columns: Sequence[Hashable],
    row_order: Sequence[Hashable] | None = None,
    column_order: Sequence[Hashable] | None = None,
) -> np.ndarray:
    """Values as a matrix of questions x users, NaN where there is none.

    Raises:
        ValueError: lengths differ, or a question has a user twice.
    """
    if not len(values) == len(rows) == len(columns):
        raise ValueError("answers and ids must be of the same length")
    if len(values) == 0:
        return np.full((1, 1), np.nan)
    table = pd.DataFrame({"row": list(rows), "column": list(columns), "value": list(values)})
    twice = table.duplicated(["row", "column"])
    if twice.any():
        row = table[twice].iloc[0]
        raise ValueError(f"question {row['row']!r} has the user {row['column']!r} more than once")
    wide = table.pivot(index="row", columns="column", values="value")
    return wide.reindex(index=row_order, columns=column_order).to_numpy(dtype=float)


def _check_kind(answers: Sequence[Hashable]) -> None:
    """ "1" and 1 are different, True and 1 are not: answers are all texts, or all numbers."""
    first: dict[type, Hashable] = {}
    for answer in filter(_parsed, answers):
        kind = str if isinstance(answer, str) else bool if isinstance(answer, bool) else float
        first.setdefault(kind, answer)
    if len(first) > 1:
        one, other = list(first.values())[:2]
        raise ValueError(f"answers are of several types, such as {one!r} and {other!r}: give texts")


def _parsed(answer: Hashable) -> bool:
    """Neither None nor NaN."""
    return answer is not None and answer == answer


def _named(name: str, estimate: Estimate) -> dict[str, Any]:
    keys = ("low", "high", "n", "n_items", "n_users")
    return {name: estimate.estimate} | {key: getattr(estimate, key) for key in keys}
