"""Agreement of two raters on the same trials: share equal, Cohen's kappa, phi.

Everything is computed from contingency tables, one per item, which simply add up. Intervals are
percentile bootstrap intervals over whole items (trials of one item resemble each other): the
same resamples of items serve every pair of raters, and a resample's table is a weighted sum of the
items' tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
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


def estimate(tables: np.ndarray, statistic: Statistic, resampled: np.ndarray) -> dict[str, Any]:
    """A measure of agreement with its interval.

    Args:
        tables: (n_items, k, k), see `item_tables`.
        statistic: `equal_share`, `kappa` or `phi`.
        resampled: (resamples, n_items), see `resampled_items`.

    Returns:
        {"estimate", "low", "high", "n" (trials), "n_items", "note"}; None where it is undefined,
        with a note that says why.
    """
    counts = tables.sum((-2, -1))
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
    value = float(statistic(tables.sum(0)))
    if np.isnan(value):
        return result | {"note": "undefined: a model's values do not vary"}
    result["estimate"] = value
    if result["n_items"] < 2:
        return result | {"note": "no interval from a single item"}
    k = tables.shape[-1]
    values = statistic((resampled @ tables.reshape(len(tables), -1)).reshape(-1, k, k))
    undefined = np.isnan(values).mean()
    if undefined > UNDEFINED:
        return result | {"note": f"no interval: undefined in {undefined:.0%} of the resamples"}
    tail = 100 * (1 - LEVEL) / 2
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
