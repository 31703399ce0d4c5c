"""A figure over several trainings: what varies between items, users and trainings.

Each of S trainings (seeds) answers the same items about the same users, so a figure is the mean of
S x items x users and its variance

    V = V(mean over the trainings) + s2 / S,

the crossed variance (`crossed`) of the items x users matrix averaged over the trainings, and the
variance s2 of the trainings' own means. The latter holds a little of what the former does, so V
errs upwards. The quantile is Cochran & Cox's (1950, Experimental Designs): those of t with the
crossed degrees of freedom and with S - 1, each weighted by its part of V. Satterthwaite's degrees
of freedom cover too little with two trainings that differ much, 87 % in simulations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from unswayed.statistics.crossed import LEVEL, TINY, Estimate, crossed_mean


def trainings_mean(values: np.ndarray) -> Estimate:
    """Mean over trainings x items x users with an interval for other items, users and trainings.

    Args:
        values: (S, I, J), NaN is missing. With one training it is `crossed_mean` of its matrix.
    """
    return with_trainings(crossed_mean(over_trainings(values)), training_means(values))


def over_trainings(values: np.ndarray) -> np.ndarray:
    """(S, I, J) -> (I, J): the mean over the trainings that have a value, NaN where none has."""
    present = ~np.isnan(values)
    count = present.sum(axis=0)
    sums = np.where(present, values, 0.0).sum(axis=0)
    return np.divide(sums, count, out=np.full(count.shape, np.nan), where=count > 0)


def training_means(values: np.ndarray) -> list[float]:
    """(S, I, J) -> the mean of each training that has any value."""
    return [float(np.nanmean(matrix)) for matrix in values if not np.isnan(matrix).all()]


def with_trainings(part: Estimate, means: Sequence[float]) -> Estimate:
    """An estimate whose interval takes in how much trainings differ.

    The interval is never narrower than that of `part`; it has no single df, and no p.

    Args:
        part: of the mean over the trainings, with the interval for other items and users.
        means: the figure of each training; of one alone, nothing is taken in.
    """
    if part.low is None or len(means) < 2:
        return part
    between, within = float(np.var(means, ddof=1)) / len(means), part.se**2
    if between < TINY:
        return part
    tail = (1 + LEVEL) / 2
    quantiles = (stats.t.ppf(tail, df) if df else 0.0 for df in (part.df, len(means) - 1))
    variance = within + between
    weights = (within / variance, between / variance)
    half = float(np.sqrt(variance)) * float(np.dot(weights, list(quantiles)))
    low, high = part.estimate - half, part.estimate + half
    return dataclasses.replace(
        part, se=float(np.sqrt(variance)), df=None, p=None,
        low=min(low, part.low), high=max(high, part.high),
    )  # fmt: skip
