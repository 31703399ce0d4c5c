"""What training changed: runs of the same items and users, answer by answer.

A change is after minus before, paired by item and user; its variance is that of
`unswayed.statistics.crossed`, which respects both, and of several trainings that of
`unswayed.statistics.trainings`, which respects these too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from unswayed.compare.paired import SHARES, Interval, bounded, level, measured
from unswayed.mitigation.verdict.record import Change
from unswayed.statistics.crossed import equivalence_p
from unswayed.statistics.trainings import (
    over_trainings,
    training_means,
    trainings_mean,
    with_trainings,
)

MARGIN = 0.02  # a change below two points does not matter


def run_changes(before: pd.DataFrame, *after: pd.DataFrame) -> dict[str, list[Change]]:
    """What differs after training: test -> rows, one for each metric and name.

    Args:
        before: rows of `answers.parquet`.
        after: those of each training; the same items, users and conditions.
    """
    return {
        test: _test_changes(rows, [run[run["test"] == test] for run in after])
        for test, rows in before.groupby("test", sort=False)
    }


def _test_changes(before: pd.DataFrame, after: Sequence[pd.DataFrame]) -> list[Change]:
    old, new = measured(before), [measured(run) for run in after]
    return [
        {"metric": metric, "name": name}
        | _change(metric, name, matrix, np.stack([run[metric, name] for run in new]))
        for (metric, name), matrix in old.items()
        if all((metric, name) in run for run in new)
    ]


def _change(metric: str, name: str, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Of items x users before, and trainings x items x users after."""
    share = name in SHARES
    change = trainings_mean(after - before)
    new = with_trainings(level(name, over_trainings(after)), training_means(after))
    return {
        "before": bounded(level(name, before), 1),
        "after": bounded(new, 1),
        "change": bounded(change, 1 if share else 2),
        "p_equivalent": equivalence_p(after[0] - before, MARGIN) if len(after) == 1 else None,
        "relative": relative_change(before, after) if share and metric == "flip" else None,
        "n_items": change.n_items,
        "n_pairs": change.n_users,
    }


def relative_change(before: np.ndarray, after: np.ndarray) -> Interval | None:
    """mean(after) / mean(before) - 1 with its 95 % interval.

    The interval is that of the log of the ratio by the delta method: an answer's influence on it is
    after / mean(after) - before / mean(before), and the variance of its mean respects items,
    users and trainings. Where both sides are equal throughout, it is the interval of the difference
    as a share of mean(before).

    Args:
        before: items x users; after: trainings x items x users. No value is below 0; NaN is
            missing, and then counts on neither side.

    Returns:
        None if nothing is known or mean(before) is 0; no bounds if mean(after) is 0, whose log
        there is none of, or with one item.
    """
    paired = ~np.isnan(before) & ~np.isnan(after).any(axis=0)
    before, after = (np.where(paired, side, np.nan) for side in (before, after))
    if not paired.any() or not (old := float(np.nanmean(before))):
        return None
    new = float(np.nanmean(after))
    relative: Interval = {"estimate": new / old - 1, "low": None, "high": None}
    if not new:
        return relative
    log_ratio = trainings_mean(after / new - before / old)
    if log_ratio.low is None:
        return relative
    if not log_ratio.se:
        change = trainings_mean(after - before)
        return relative | {"low": change.low / old, "high": change.high / old}
    low, high = (new / old * math.exp(end) - 1 for end in (log_ratio.low, log_ratio.high))
    return relative | {"low": low, "high": high}
