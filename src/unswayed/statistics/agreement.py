"""Agreement of two raters on the same trials: share equal, Cohen's kappa, phi.

Everything is computed from contingency tables, one per item and user, which simply add up. Trials
of one item resemble each other, and so do those about one user, so intervals come from the crossed
bootstrap (McCullagh 2000, Bernoulli 6:285; Owen 2007, AOAS 1:386): items and users are drawn apart,
and a trial counts as often as its item times its user. It errs to the safe side: where trials vary
on their own, intervals are too wide. Percentiles are expanded for few clusters (Hesterberg 2015,
Am. Stat. 69:371). The same resamples serve every pair of raters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

LEVEL = 0.95
RESAMPLES = 9999
UNDEFINED = 0.05  # largest share of resamples that may leave a measure undefined

Statistic = Callable[[np.ndarray], np.ndarray]


def item_tables(
    left: np.ndarray, right: np.ndarray, items: np.ndarray, n_items: int, k: int
) -> np.ndarray:
    """Contingency tables of two raters' codes, one per item.

    Args:
        left, right: codes 0 ... k - 1, one per trial.
        items: the item of each trial, 0 ... n_items - 1.

    Returns:
        Counts of shape (n_items, k, k): rows are `left`'s codes, columns `right`'s.
    """
    flat = (items * k + left) * k + right
    return np.bincount(flat, minlength=n_items * k * k).reshape(n_items, k, k).astype(float)


def equal_share(tables: np.ndarray) -> np.ndarray:
    """Share of equal codes in tables of shape (..., k, k); NaN for an empty table."""
    return _ratio(np.trace(tables, axis1=-2, axis2=-1), tables.sum((-2, -1)))


def kappa(tables: np.ndarray) -> np.ndarray:
    """Cohen's kappa (Cohen 1960) of tables of shape (..., k, k).

    NaN where it is undefined: in an empty table, and where both raters always give one same code.
    """
    n, equal = tables.sum((-2, -1)), np.trace(tables, axis1=-2, axis2=-1)
    expected = (tables.sum(-1) * tables.sum(-2)).sum(-1)  # times n squared
    return _ratio(n * equal - expected, n**2 - expected)


def phi(tables: np.ndarray) -> np.ndarray:
    """Correlation of two yes-or-no codes, from tables of shape (..., 2, 2).

    NaN where it is undefined: where one rater always gives the same code.
    """
    both, neither = tables[..., 1, 1], tables[..., 0, 0]
    left, right = tables[..., 1, 0], tables[..., 0, 1]
    margins = tables.sum(-1).prod(-1) * tables.sum(-2).prod(-1)
    return _ratio(both * neither - left * right, np.sqrt(margins))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient, NaN where `below` is zero; both are exact integers, or its square root is."""
    below = np.asarray(below, float)
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)


def resampled_items(n_items: int, rng: np.random.Generator) -> np.ndarray:
    """How often each item comes up in each resample; shape (RESAMPLES, n_items)."""
    return rng.multinomial(n_items, np.full(n_items, 1 / n_items), size=RESAMPLES).astype(float)


def resampled_users(n_users: int, rng: np.random.Generator) -> np.ndarray:
    """How often each user counts in each resample, after trials without memory, which count once;
    shape (RESAMPLES, 1 + n_users).
    """
    drawn = rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=RESAMPLES)
    return np.column_stack([np.ones(RESAMPLES), drawn])


def estimate(
    tables: np.ndarray, statistic: Statistic, items: np.ndarray, users: np.ndarray | None = None
) -> dict[str, Any]:
    """A measure of agreement with its interval.

    Args:
        tables: (n_items, k, k), see `item_tables`; with `users` (n_items, 1 + n_users, k, k).
        statistic: `equal_share`, `kappa` or `phi`.
        items: (resamples, n_items), see `resampled_items`.
        users: (resamples, 1 + n_users), see `resampled_users`; None: users are taken as given.

    Returns:
        {"estimate", "low", "high", "n" (trials), "n_items", "note"}; None where it is undefined,
        with a note that says why.
    """
    n_clusters = len(tables)
    if users is None:
        tables, users = tables[:, None], np.ones((len(items), 1))
    else:
        n_clusters = min(n_clusters, users.shape[1] - 1)
    counts = tables.sum((1, -2, -1))
    result = {
        "estimate": None,
        "low": None,
        "high": None,
        "n": int(counts.sum()),
        "n_items": int((counts > 0).sum()),
        "note": None,
    }
    if result["n"] == 0:
        return result | {"note": "no trials can be compared"}
    value = float(statistic(tables.sum((0, 1))))
    if np.isnan(value):
        return result | {"note": "undefined: a model's values do not vary"}
    result["estimate"] = value
    if result["n_items"] < 2:
        return result | {"note": "no interval from a single item"}
    k = tables.shape[-1]
    drawn = sum(
        weights[:, None] * (items @ tables[:, user].reshape(len(tables), -1))
        for user, weights in enumerate(users.T)
    )
    values = statistic(drawn.reshape(-1, k, k))
    undefined = np.isnan(values).mean()
    if undefined > UNDEFINED:
        return result | {"note": f"no interval: undefined in {undefined:.0%} of the resamples"}
    bound = stats.t.ppf((1 - LEVEL) / 2, n_clusters - 1)
    tail = 100 * stats.norm.cdf(bound * np.sqrt(n_clusters / (n_clusters - 1)))
    result["low"], result["high"] = map(float, np.nanpercentile(values, [tail, 100 - tail]))
    return result


def cluster(distances: np.ndarray) -> tuple[list[int], list[tuple[int, int, float]]]:
    """Hierarchical order of two or more things: average linkage, neighbours as alike as can be.

    Args:
        distances: (n, n), symmetric, zero on the diagonal.

    Returns:
        The order of the leaves (Bar-Joseph et al. 2001), and the merges as (cluster, cluster,
        height): numbers below n are leaves, n + i is the cluster that merge i made.
    """
    condensed = squareform(distances, checks=False)
    tree = hierarchy.linkage(condensed, method="average", optimal_ordering=True)
    merges = [(int(a), int(b), float(height)) for a, b, height, _ in tree]
    return [int(leaf) for leaf in hierarchy.leaves_list(tree)], merges
