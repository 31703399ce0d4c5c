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

Where few items cause what happens, the mean is skewed and t too sure of itself. So every interval
is the hull, and every p the larger, of the crossed t's and of Johnson's (1978, JASA 73:536) t of
the item means, which corrects for skewness, in the monotone form of Hall (1992, JRSS B 54:221), by
which it has an interval; p and interval thus agree.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import stats
from scipy.special import stdtr, stdtrit  # Student's t: its distribution and quantiles, by df

LEVEL = 0.95
RESAMPLES = 9999
FEWEST_USERS = 6  # below it nothing is said of users at large
TINY = 1e-14
EQUAL = 1e-9  # differences below it are rounding


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
    p: float | None = None  # two-sided, of a mean of zero; above 1 - level if the interval holds it


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
    """Mean of items x users with an interval and the p of a mean of zero.

    The interval is the hull of the crossed t interval and of Johnson's. Where no value differs from
    another, it is that of zero events among the items (Clopper & Pearson 1934), for differences in
    [-1, 1]: never a point, and without df.

    Args:
        values: (I, J), NaN is missing.
    """
    values, n = occupied(values)
    if n == 0:
        return Estimate(None, None, None, None, None, 0, 0, 0)
    shape = {"n": n, "n_items": values.shape[0], "n_users": values.shape[1]}
    if values.shape[0] < 2:
        return Estimate(float(np.nanmean(values)), None, None, None, None, **shape)
    mean, variance = mean_and_variance(values)
    mean = float(mean)
    if not varies(values):
        half = no_event_half(shape["n_items"], level)
        p = min(1.0, 2 * no_event_p(abs(mean), shape["n_items"]))
        return Estimate(mean, 0.0, None, mean - half, mean + half, **shape, p=p)
    se, df = float(np.sqrt(variance.total)), float(variance.df)
    half = se * float(stdtrit(df, (1 + level) / 2))
    below, above = johnson_interval(values, level)
    p = max(2 * float(stdtr(df, -abs(mean) / se)), 2 * min(johnson_p(values, 0.0)))
    low, high = min(mean - half, below), max(mean + half, above)
    return Estimate(mean, se, df, low, high, **shape, p=min(p, 1.0))


def users_mean(values: np.ndarray, level: float = LEVEL) -> Estimate:
    """Mean over items and users at large; with fewer than FEWEST_USERS, of these, over items.

    Args:
        values: (I, J), NaN is missing.
    """
    mean = crossed_mean(values, level)
    if not 0 < mean.n_users < FEWEST_USERS:
        return mean
    seen = values[~np.isnan(values).all(axis=1)]
    fixed = crossed_mean(np.nanmean(seen, axis=1)[:, None], level)
    return dataclasses.replace(fixed, n=mean.n, n_users=mean.n_users)


def varies(values: np.ndarray) -> bool:
    """Whether any value differs from another by more than rounding."""
    return bool(np.nanmax(values) - np.nanmin(values) > EQUAL)


def proportion(values: np.ndarray, level: float = LEVEL) -> Estimate:
    """Mean of values in [0, 1] with the interval of Korn & Graubard (1998, Survey Methodology 24).

    It is Clopper & Pearson's with the effective number of answers p (1 - p) / V, adjusted for the
    degrees of freedom; at 0 and 1, where V says nothing, that number is the number of items.

    Args:
        values: (I, J) in [0, 1], NaN is missing.
    """
    values, n = occupied(values)
    mean = crossed_mean(values, level)
    if mean.low is None:
        return mean
    p = mean.estimate
    if not mean.se:
        # all equal: without variation, each item is taken as one answer
        effective = float(mean.n_items)
    else:
        ratio = stdtrit(n - 1, (1 + level) / 2) / stdtrit(mean.df, (1 + level) / 2)
        effective = min(p * (1 - p) / mean.se**2 * ratio**2, float(n))
    low, high = binomial_bounds(p, effective, level)
    return dataclasses.replace(mean, low=low, high=high)


def binomial_bounds(p: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Clopper & Pearson's interval of a share p of n answers, which need not be whole numbers."""
    tail, hits, misses = (1 - level) / 2, p * n, (1 - p) * n
    low = float(stats.beta.ppf(tail, hits, misses + 1)) if p > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, misses)) if p < 1 else 1.0
    return low, high


def occupied(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Rows and columns that hold any value, and the number of values."""
    values = np.asarray(values, dtype=float)
    present = ~np.isnan(values)
    return values[present.any(axis=1)][:, present.any(axis=0)], int(present.sum())


# -- tests ---------------------------------------------------------------------------------------


def johnson_p(values: np.ndarray, mean: float) -> tuple[float, float]:
    """One-sided p of a true mean of at most, and of at least, `mean`, corrected for skewness.

    With the t = (mean(r) - mean) / sqrt(s2 / I) of the I item means r, their variance s2, their
    skewness g (third central moment over s^3, both unbiased) and k = g / sqrt(I), Johnson's t and
    the cubic term that makes it monotone in t (Hall 1992),

        t + k (t^2 / 3 + 1 / 6) + k^2 t^3 / 27,    I - 1 degrees of freedom.

    Where the item means do not vary it is the p of zero events among the items.

    Args:
        values: (I, J) with I >= 2, NaN is missing.

    Returns:
        p of "at most", small if the mean is shown to be larger; p of "at least" likewise.
    """
    center, se, k, n = _skewed_mean(values)
    d = center - mean
    if se <= EQUAL:
        p = no_event_p(abs(d), n)
        return (p, 1.0) if d > 0 else (1.0, p)
    t = d / se
    t += k * (t**2 / 3 + 1 / 6) + k**2 * t**3 / 27
    return float(stdtr(n - 1, -t)), float(stdtr(n - 1, t))


def johnson_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Means that neither one-sided test of `johnson_p` rejects at half of 1 - level."""
    center, se, k, n = _skewed_mean(values)
    if se <= EQUAL:
        half = no_event_half(n, level)
        return center - half, center + half
    reach = float(stdtrit(n - 1, (1 + level) / 2))
    return (
        float(center - se * _untransformed(reach, k)),
        float(center - se * _untransformed(-reach, k)),
    )


def _untransformed(x: float, k: float) -> float:
    """The t that Johnson's monotone form takes to x."""
    return x if abs(k) < EQUAL else float(3 / k * (np.cbrt(1 + k * (x - k / 6)) - 1))


def _skewed_mean(values: np.ndarray) -> tuple[float, float, float, int]:
    """Mean of the item means, its standard error, their skewness / sqrt(I), and I."""
    r = np.nanmean(values, axis=1)
    n, s = len(r), float(r.std(ddof=1))
    third = float(((r - r.mean()) ** 3).sum()) * n / ((n - 1) * (n - 2)) if n > 2 else 0.0
    k = third / s**3 / np.sqrt(n) if s > EQUAL else 0.0
    return float(r.mean()), s / np.sqrt(n), k, n


def no_event_p(share: float, n: int) -> float:
    """Probability that none of n independent items shows what a share of them does."""
    return float((1 - min(share, 1.0)) ** n)


def no_event_half(n: int, level: float) -> float:
    """Half the width of an interval where n items show no event: Clopper & Pearson's bound."""
    return float(1 - ((1 - level) / 2) ** (1 / n))


def fewest_items(margin: float) -> int:
    """Number of items below which nothing can be shown to lie within +-margin.

    With fewer, a share `margin` of items that react fully, in one direction, would too often stay
    unseen: I >= ln .05 / ln(1 - margin), 59 for 5 points, 149 for 2.
    """
    return int(np.ceil(np.log(1 - LEVEL) / np.log1p(-margin)))


def equivalence_p(values: np.ndarray, margin: float) -> float | None:
    """p of the claim that the true mean lies within +-margin, None with fewer than two items.

    It is the largest of the two one-sided crossed t tests (Schuirmann 1987), of Johnson's at item
    level, and of the probability that items at a rate of the margin stay unseen (`fewest_items`).
    With as many users the claim is about users at large, and Johnson's test holds over them too.

    Args:
        values: (I, J) differences in [-1, 1], NaN is missing.
    """
    values, n = occupied(values)
    if n == 0 or values.shape[0] < 2:
        return None
    unseen = no_event_p(margin, values.shape[0])
    if not varies(values):
        left = margin - abs(float(np.nanmean(values)))
        return no_event_p(max(left, 0.0), values.shape[0])
    mean, variance = mean_and_variance(values)
    se, df = float(np.sqrt(variance.total)), float(variance.df)
    below = float(stdtr(df, -(float(mean) + margin) / se))
    above = float(stdtr(df, (float(mean) - margin) / se))
    at_large = values.shape[1] >= fewest_items(margin)
    skewed = [
        max(johnson_p(means, -margin)[0], johnson_p(means, margin)[1])
        for means in ([values, values.T] if at_large else [values])
    ]
    return max(below, above, *skewed, unseen)
