"""What two runs of the same items and users are compared by, value by value.

Differences between runs are paired by item and user; the variance of their mean is that of
`unswayed.statistics.crossed`, which respects both.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import pandas as pd

from unswayed.audit.effects import EFFECTS, PERSONA, Matrices, matrices
from unswayed.audit.trials import PAIR_CONDITIONS
from unswayed.statistics.crossed import Estimate, proportion, users_mean

SHARES = (*PAIR_CONDITIONS, PERSONA)  # PERSONA: advantaged and disadvantaged together
GAP, BEYOND = "gap", "persona - neutral"
DIFFERENCES = {"accuracy": GAP, "score": GAP, "flip": BEYOND}
# What is shown of a difference between two runs.
LOWER, HIGHER, WITHIN, UNCLEAR = "lower", "higher", "within the margin", "unclear"


class Interval(TypedDict):
    """A share or a difference of shares with its 95 % interval; None where there is none."""

    estimate: float | None
    low: float | None
    high: float | None


def measured(rows: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Values of one test under each condition, and their differences between users.

    Args:
        rows: rows of `answers.parquet` of one test and run, with persona pairs.

    Returns:
        (metric, name) -> items x users, both sorted, NaN where nothing is known. Metrics are
        accuracy, score (of management items) and flip; names are conditions, "persona", and "gap"
        or, of flips, "persona - neutral". What the run cannot tell is left out, such as flips
        without memory.
    """
    management = rows["kind"].iloc[0] == "management"
    values = matrices(rows, ["accuracy", *(["score"] if management else []), "flip"])
    by_name = {
        (metric, name): _values(values, metric, name)
        for metric in values.by_metric
        for name in (*SHARES, DIFFERENCES[metric])
    }
    return {key: matrix for key, matrix in by_name.items() if matrix is not None}


def _values(values: Matrices, metric: str, name: str) -> np.ndarray | None:
    if name == DIFFERENCES[metric]:
        return values.difference(metric, *EFFECTS[name])
    return values(metric, name)


def level(name: str, values: np.ndarray) -> Estimate:
    """Mean of what `measured` calls `name`, with the interval of a share or of a difference."""
    return proportion(values) if name in SHARES else users_mean(values)


def bounded(mean: Estimate, limit: float) -> Interval:
    """Estimate and interval, cut at +-limit."""
    low, high = mean.low, mean.high
    return {
        "estimate": mean.estimate,
        "low": None if low is None else max(low, -limit),
        "high": None if high is None else min(high, limit),
    }
