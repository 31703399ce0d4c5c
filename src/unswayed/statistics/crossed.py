"""Means over items x users, where the answers to one item and those about one user go together.

Everything starts from a matrix of I items x J users (base personas, or grid cells), NaN where an
answer is missing. Items and users are crossed random factors, so the variance of the overall mean
is that of the two-way random-effects analysis of variance,

    V = V_items + V_users - V_cells,    V_items = MS_items / n,  V_users = MS_users / n,
                                        V_cells = MS_residual / n,  n = number of cells,

with degrees of freedom after Satterthwaite (1946): the quasi-F of Clark (1973, J. Verbal Learning
and Verbal Behavior 12:335) for the "language as fixed effect" problem, and the balanced case of
Cameron, Gelbach & Miller (2011, JBES 29:238). As the sum can by chance fall towards zero, V is at
least the smaller of V_items and V_users, and a quarter of V_cells; with this floor (ours) intervals
hold their level in `benchmarks/calibration.py`. With one user, items are the only clusters.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 9999
POWER = 0.8
DRAWS = 4000  # simulated studies per question of power
MOST_NEEDED = 100_000  # items or users
TINY = 1e-14


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty; None where there is none (no value, or one item only).

    Attributes:
        se: standard error; df: Satterthwaite degrees of freedom; low, high: bounds at the level.
        n, n_items, n_users: values, rows and columns that have any.
    """

    estimate: float | None
    se: float | None
    df: float | None
    low: float | None
    high: float | None
    n: int
    n_items: int
    n_users: int


@dataclasses.dataclass(frozen=True)
class Variance:
    """Parts of the variance of means; arrays over a leading axis of studies, or scalars.

    Attributes:
        items, users, cells: V_items, V_users (0 with one user), V_cells of the module's docstring.
        n_items, n_users: I, J.
    """

    items: np.ndarray
    users: np.ndarray
    cells: np.ndarray
    n_items: int
    n_users: int

    @property
    def total(self) -> np.ndarray:
        """V; zero only if nothing varies."""
        if self.n_users == 1:
            return np.maximum(self.items, TINY)
        floor = np.maximum(np.minimum(self.items, self.users), self.cells / 4)
        return np.maximum(np.maximum(self.items + self.users - self.cells, floor), TINY)

    @property
    def df(self) -> np.ndarray:
        """Satterthwaite degrees of freedom, never below those of the smaller factor."""
        i, j = self.n_items - 1, self.n_users - 1
        if j == 0:
            return np.full(np.shape(self.items), float(i))
        parts = self.items**2 / i + self.users**2 / j + self.cells**2 / (i * j)
        return np.clip(self.total**2 / np.maximum(parts, TINY**2), min(i, j), i * j)


def mean_and_variance(values: np.ndarray) -> tuple[np.ndarray, Variance]:
    """Mean over the last two axes and the parts of its variance.

    Args:
        values: (..., I, J) with I >= 2; NaN is missing. Every row and column has a value.
    """
    n_items, n_users = values.shape[-2:]
    present = ~np.isnan(values)
    n = present.sum(axis=(-2, -1))
    filled = np.where(present, values, 0.0)
    mean = filled.sum(axis=(-2, -1)) / n
    in_row, in_column = present.sum(axis=-1), present.sum(axis=-2)
    rows = filled.sum(axis=-1) - mean[..., None] * in_row
    columns = filled.sum(axis=-2) - mean[..., None] * in_column
    items = n_items / (n_items - 1) * (rows**2).sum(axis=-1) / n**2
    if n_users == 1:
        zero = np.zeros_like(items)
        return mean, Variance(items, zero, zero, n_items, 1)
    users = n_users / (n_users - 1) * (columns**2).sum(axis=-1) / n**2
    residual = (filled**2).sum(axis=(-2, -1)) - n * mean**2
    residual -= (rows**2 / in_row).sum(axis=-1) + (columns**2 / in_column).sum(axis=-1)
    df = np.maximum(n - n_items - n_users + 1, 1)
    cells = np.maximum(residual, 0.0) / df / n  # an approximation where values are missing
    return mean, Variance(items, users, cells, n_items, n_users)


def crossed_mean(values: np.ndarray, level: float = LEVEL) -> Estimate:
    """Mean of items x users with a t interval.

    Where no value differs from another, the interval is that of zero events among n independent
    answers (Clopper & Pearson 1934), or that of a single differing answer if wider, as with few
    items or users; so it is never a point. It then has no df.

    Args:
        values: (I, J), NaN is missing.
    """
    values, n = _occupied(values)
    if n == 0:
        return Estimate(None, None, None, None, None, 0, 0, 0)
    shape = {"n": n, "n_items": values.shape[0], "n_users": values.shape[1]}
    if values.shape[0] < 2:
        return Estimate(float(np.nanmean(values)), None, None, None, None, **shape)
    mean, variance = mean_and_variance(values)
    if np.nanmax(values) == np.nanmin(values):
        half = 1 - ((1 - level) / 2) ** (1 / n)
        half = max(half, float(stats.t.ppf((1 + level) / 2, _fewest_df(*values.shape))) / n)
        return Estimate(float(mean), 0.0, None, float(mean - half), float(mean + half), **shape)
    se, df = float(np.sqrt(variance.total)), float(variance.df)
    half = se * float(stats.t.ppf((1 + level) / 2, df))
    return Estimate(float(mean), se, df, float(mean - half), float(mean + half), **shape)


def _fewest_df(n_items: int, n_users: int) -> int:
    """Degrees of freedom of the smaller factor."""
    return (n_items if n_users == 1 else min(n_items, n_users)) - 1


def proportion(values: np.ndarray, level: float = LEVEL) -> Estimate:
    """Mean of values in [0, 1] with the interval of Korn & Graubard (1998, Survey Methodology 24).

    It is Clopper & Pearson's with the effective number of answers p (1 - p) / V, adjusted for the
    degrees of freedom; at 0 and 1, where V says nothing, that number is the number of items.

    Args:
        values: (I, J) in [0, 1], NaN is missing.
    """
    values, n = _occupied(values)
    mean = crossed_mean(values, level)
    if mean.low is None:
        return mean
    p = mean.estimate
    if not mean.se:
        # all equal: without variation, each item is taken as one answer
        effective = float(mean.n_items)
    else:
        ratio = stats.t.ppf((1 + level) / 2, n - 1) / stats.t.ppf((1 + level) / 2, mean.df)
        effective = min(p * (1 - p) / mean.se**2 * ratio**2, float(n))
    low, high = binomial_bounds(p, effective, level)
    return dataclasses.replace(mean, low=low, high=high)


def binomial_bounds(p: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Clopper & Pearson's interval of a share p of n answers, which need not be whole numbers."""
    tail, hits, misses = (1 - level) / 2, p * n, (1 - p) * n
    low = float(stats.beta.ppf(tail, hits, misses + 1)) if p > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, misses)) if p < 1 else 1.0
    return low, high


def _occupied(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Rows and columns that hold any value, and the number of values."""
    values = np.asarray(values, dtype=float)
    present = ~np.isnan(values)
    return values[present.any(axis=1)][:, present.any(axis=0)], int(present.sum())


# -- tests ---------------------------------------------------------------------------------------


def permutation_p(
    differences: np.ndarray,
    rng: np.random.Generator,
    within: str = "cells",
    resamples: int = RESAMPLES,
) -> float | None:
    """Two-sided p of a mean difference of zero: flip the labels of the two conditions at random.

    A flip of labels changes the sign of a difference. The statistic is |t| with the variance that
    respects both clusters (a studentised permutation test; Chung & Romano 2013, Annals of
    Statistics 41:484): the test is exact if the labels mean nothing at all, and keeps its level for
    large I and J if only their mean effect is zero while items and users react differently.

    Args:
        differences: (I, J), NaN is missing.
        within: "cells" flips each item x user on its own; "items" flips whole items, for
            differences from one common answer per item (that without memory).

    Returns:
        None with fewer than two items, 1 if all differences are zero.
    """
    differences, n = _occupied(differences)
    if n == 0 or differences.shape[0] < 2:
        return None
    if not np.nan_to_num(differences).any():
        return 1.0
    observed = _absolute_t(differences)
    shape = (differences.shape[0], differences.shape[1] if within == "cells" else 1)
    chunk = max(1, 1_000_000 // differences.size)
    extreme = 0
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        signs = rng.integers(0, 2, (size, *shape), dtype=np.int8) * 2.0 - 1.0
        extreme += int((_absolute_t(signs * differences) >= observed * (1 - 1e-9)).sum())
    return (1 + extreme) / (1 + resamples)


def _absolute_t(differences: np.ndarray) -> np.ndarray:
    """|t| of (..., I, J)."""
    mean, variance = mean_and_variance(differences)
    return np.abs(mean) / np.sqrt(variance.total)


def equivalence_p(mean: Estimate, margin: float) -> float | None:
    """Larger p of the two one-sided t tests (Schuirmann 1987) that |mean| >= margin.

    Below 0.05 the 90 % interval lies within +-margin. Where no answer differs, the p is that of
    zero events among n independent answers at a rate of what is left to the margin, or that of a
    single differing answer if larger.
    """
    if mean.se is None:
        return None
    if mean.df is None:
        left = margin - abs(mean.estimate)
        independent = np.clip(1 - left, 0, 1) ** mean.n
        single = stats.t.sf(left * mean.n, _fewest_df(mean.n_items, mean.n_users))
        return float(max(independent, single))
    below = stats.t.sf((mean.estimate + margin) / mean.se, mean.df)
    above = stats.t.cdf((mean.estimate - margin) / mean.se, mean.df)
    return float(max(below, above))


# -- power ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Components:
    """Variance components of a difference: between items, between users, within (residual)."""

    items: float
    users: float
    cells: float


def components(differences: np.ndarray) -> Components:
    """Moment estimates from I items x J users (I >= 2), none below zero.

    Where no difference differs from another, the residual is the upper 95 % bound of a rate of
    zero events, as in `crossed_mean`.
    """
    values, n = _occupied(differences)
    if np.nanmax(values) == np.nanmin(values):
        return Components(0.0, 0.0, 1 - 0.05 ** (1 / n))
    _, v = mean_and_variance(values)
    if v.n_users == 1:
        return Components(float(v.items) * v.n_items, 0.0, 0.0)
    items = max(float(v.items - v.cells), 0.0) * v.n_items
    users = max(float(v.users - v.cells), 0.0) * v.n_users
    return Components(items, users, float(v.cells) * n)


def simulated_power(
    parts: Components,
    n_items: int,
    n_users: int,
    difference: float,
    margin: float,
) -> tuple[float, float]:
    """Shares of simulated studies that find a true difference, and that show equivalence.

    A study of normal values is fully described by its mean and mean squares, so these are drawn:
    the mean is normal, the mean squares are scaled chi-squares, all independent.

    Returns:
        (share with p < 1 - LEVEL in the two-sided t test, share with both one-sided tests against
        +-margin below that).
    """
    rng = np.random.default_rng(0)
    n = n_items * n_users
    true = (
        parts.items / n_items + parts.cells / n,
        parts.users / n_users + parts.cells / n,
        parts.cells / n,
    )
    i, j = n_items - 1, n_users - 1
    draws = [
        scale * rng.chisquare(df, DRAWS) / df if df else np.zeros(DRAWS)
        for scale, df in zip(true, (i, j, i * j), strict=True)
    ]
    spread = true[0] if n_users == 1 else true[0] + true[1] - true[2]
    mean = difference + np.sqrt(spread) * rng.standard_normal(DRAWS)
    variance = Variance(*draws, n_items, n_users)
    se, df = np.sqrt(variance.total), variance.df
    detected = 2 * stats.t.sf(np.abs(mean) / se, df) < 1 - LEVEL
    equivalent = np.abs(mean) + stats.t.ppf(LEVEL, df) * se < margin
    return float(detected.mean()), float(equivalent.mean())


def minimal_detectable(parts: Components, n_items: int, n_users: int) -> float | None:
    """Smallest true difference, in steps of 0.1 points, found in 80 % of simulated studies."""

    def enough(step: int) -> bool:
        return simulated_power(parts, n_items, n_users, step / 1000, 0.0)[0] >= POWER

    step = _smallest(enough, 1000)
    return None if step is None else step / 1000


def needed(parts: Components, n_items: int, n_users: int, margin: float, what: str) -> int | None:
    """Smallest number of items or users with which a study decides; the other number stays.

    It decides if 80 % of simulated studies find a true difference of the margin's size, and 80 %
    show equivalence if the true difference is zero.

    Args:
        what: "items" or "users".

    Returns:
        None if not even MOST_NEEDED are enough, since the other factor's variance stays.
    """

    def enough(count: int) -> bool:
        sizes = (count, n_users) if what == "items" else (n_items, count)
        finds = simulated_power(parts, *sizes, margin, margin)[0]
        return finds >= POWER and simulated_power(parts, *sizes, 0.0, margin)[1] >= POWER

    return _smallest(enough, MOST_NEEDED, least=2)


def _smallest(enough, most: int, least: int = 1) -> int | None:
    """Smallest number in [least, most] that is enough, by doubling and halving."""
    high = least
    while not enough(high):
        if high == most:
            return None
        high = min(2 * high, most)
    low = max(high // 2, least - 1)  # not enough, or below the least
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high
