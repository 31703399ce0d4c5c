"""What a study of items x users can find: from variance components to simulated studies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import stats

from unswayed.statistics.crossed import (
    LEVEL,
    Variance,
    fewest_items,
    mean_and_variance,
    occupied,
    varies,
)

POWER = 0.8
DRAWS = 4000  # simulated studies per question of power
MOST_NEEDED = 100_000  # items or users


@dataclasses.dataclass(frozen=True)
class Components:
    """Variance components of a difference: between items, between users, within (residual)."""

    items: float
    users: float
    cells: float


def components(differences: np.ndarray) -> Components:
    """Moment estimates from I items x J users (I >= 2), none below zero.

    Where no difference differs from another, items vary as if as many of them reacted fully as may
    have stayed unseen, 1 - .05^(1 / I) of them.
    """
    values, n = occupied(differences)
    if not varies(values):
        return Components(1 - (1 - LEVEL) ** (1 / len(values)), 0.0, 0.0)
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
    alpha: float = 1 - LEVEL,
) -> tuple[float, float]:
    """Shares of simulated studies that find a true difference, and that show equivalence.

    A study of normal values is fully described by its mean and mean squares, so these are drawn:
    the mean is normal, the mean squares are scaled chi-squares, all independent. Values without
    skewness leave Johnson's correction nothing to do.

    Args:
        alpha: of the two-sided test, 0.05 divided by the number of tests of its family, where
            Holm's correction begins. A claim of equivalence is made at 0.05 of each difference.

    Returns:
        (share with p < alpha in the two-sided t test, share with both one-sided tests against
        +-margin below 0.05; none with fewer than `fewest_items`).
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
    detected = 2 * stats.t.sf(np.abs(mean) / se, df) < alpha
    equivalent = np.abs(mean) + stats.t.ppf(LEVEL, df) * se < margin
    shown = float(equivalent.mean()) if n_items >= fewest_items(margin) else 0.0
    return float(detected.mean()), shown


def minimal_detectable(
    parts: Components, n_items: int, n_users: int, alpha: float = 1 - LEVEL
) -> float | None:
    """Smallest true difference, in steps of 0.1 points, found in 80 % of simulated studies."""

    def enough(step: int) -> bool:
        difference = step / 1000
        return simulated_power(parts, n_items, n_users, difference, 0.5, alpha)[0] >= POWER

    step = _smallest(enough, 1000)
    return None if step is None else step / 1000


def needed(
    parts: Components,
    n_items: int,
    n_users: int,
    margin: float,
    what: str,
    alpha: float = 1 - LEVEL,
) -> int | None:
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
        finds = simulated_power(parts, *sizes, margin, margin, alpha)[0]
        return finds >= POWER and simulated_power(parts, *sizes, 0.0, margin)[1] >= POWER

    return _smallest(enough, MOST_NEEDED, least=2)


def _smallest(enough: Callable[[int], bool], most: int, least: int = 1) -> int | None:
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
