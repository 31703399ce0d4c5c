"""What training changed: two runs of the same items and users, answer by answer.

A change is after minus before, paired by item and user; its variance is that of
`unswayed.statistics.crossed`, which respects both.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from unswayed.audit.summary import EFFECTS, MARGIN, PERSONA, Matrices, matrices
from unswayed.audit.trials import PAIR_CONDITIONS
from unswayed.statistics.crossed import Estimate, crossed_mean, equivalence_p, proportion

SHARES = (*PAIR_CONDITIONS, PERSONA)  # PERSONA: advantaged and disadvantaged together
GAP, BEYOND = "gap", "persona - neutral"
DIFFERENCES = {"accuracy": GAP, "score": GAP, "flip": BEYOND}


def run_changes(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """What differs between two runs, test by test.

    Args:
        before, after: rows of `answers.parquet`; the same items, users and conditions.

    Returns:
        Test -> rows, one per metric (accuracy, score of management items, flip) and name (a
        condition, "persona", "gap" or "persona - neutral"): {"metric", "name", "before", "after",
        "change": {"estimate", "low", "high"}, "p_equivalent": that the change is within the margin,
        "relative": as `relative_change` for shares of flips, else None, "n_items", "n_pairs"}.
    """
    return {
        test: _test_changes(rows, after[after["test"] == test])
        for test, rows in before.groupby("test", sort=False)
    }


def _test_changes(before: pd.DataFrame, after: pd.DataFrame) -> list[dict[str, Any]]:
    management = before["kind"].iloc[0] == "management"
    metrics = ["accuracy", *(["score"] if management else []), "flip"]
    sides = [matrices(rows, metrics) for rows in (before, after)]
    found = []
    for metric in metrics:
        for name in (*SHARES, DIFFERENCES[metric]):
            values = [_values(side, metric, name) for side in sides]
            if all(one is not None for one in values):
                found.append({"metric": metric, "name": name} | _change(metric, name, *values))
    return found


def _values(side: Matrices, metric: str, name: str) -> np.ndarray | None:
    """Items x users; None if there is nothing, as for flips without memory."""
    if name == DIFFERENCES[metric]:
        return side.difference(metric, *EFFECTS[name])
    return side(metric, name)


def _change(metric: str, name: str, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    share = name in SHARES
    mean, limit = (proportion, 1) if share else (crossed_mean, 2)
    change = crossed_mean(after - before)
    return {
        "before": bounded(mean(before), 1),
        "after": bounded(mean(after), 1),
        "change": bounded(change, limit),
        "p_equivalent": equivalence_p(change, MARGIN),
        "relative": relative_change(before, after) if share and metric == "flip" else None,
        "n_items": change.n_items,
        "n_pairs": change.n_users,
    }


def bounded(found: Estimate, limit: float) -> dict[str, float | None]:
    """Estimate and interval, cut at +-limit."""
    known = found.low is not None
    return {
        "estimate": found.estimate,
        "low": max(found.low, -limit) if known else None,
        "high": min(found.high, limit) if known else None,
    }


def relative_change(before: np.ndarray, after: np.ndarray) -> dict[str, float | None] | None:
    """mean(after) / mean(before) - 1 with its 95 % interval.

    The interval is that of the log of the ratio by the delta method: an answer's influence on it is
    after / mean(after) - before / mean(before), and the variance of its mean respects items and
    users. Where both sides are equal throughout, it is the interval of the difference as a share of
    mean(before).

    Args:
        before, after: items x users, no value below 0; NaN is missing, and then counts on neither
            side.

    Returns:
        None if nothing is known or mean(before) is 0; no bounds if mean(after) is 0, whose log
        there is none of, or with one item.
    """
    known = ~np.isnan(before) & ~np.isnan(after)
    before, after = (np.where(known, side, np.nan) for side in (before, after))
    if not known.any() or not (old := float(np.nanmean(before))):
        return None
    new = float(np.nanmean(after))
    found: dict[str, float | None] = {"estimate": new / old - 1, "low": None, "high": None}
    if not new:
        return found
    log_ratio = crossed_mean(after / new - before / old)
    if log_ratio.low is None:
        return found
    if log_ratio.df is None:
        change = crossed_mean(after - before)
        return found | {"low": change.low / old, "high": change.high / old}
    low, high = (new / old * math.exp(end) - 1 for end in (log_ratio.low, log_ratio.high))
    return found | {"low": low, "high": high}
