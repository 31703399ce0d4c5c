"""Many contrasts on the same items at once: the max-T test over whole-item sign flips.

Items are the clusters, what is compared (the cells of a grid) is fixed. If no contrast differs from
zero, the sign of an item's vector of contrasts means nothing, so items are flipped whole, over all
contrasts jointly, and each |t| is compared with the largest one of each flip: single-step adjusted
p-values that hold the family-wise error whatever the contrasts have in common (Westfall & Young
1993, Resampling-Based Multiple Testing, ch. 2). A flip leaves sums of squares as they are, so t
under a flip needs the mean alone, which is a matrix product.

A cell that is right throughout differs from the mean of all cells by the others' rare errors only,
which hardly vary: its own t is huge and means nothing. So no contrast is credited with less than
the mean variance of its kind (ours; a floor like that of Tusher et al. 2001, PNAS 98:5116).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from unswayed.core.errors import InputError
from unswayed.statistics.crossed import LEVEL, RESAMPLES

ROUNDING = 1e-12  # of a share or of a variance's sum of squares: smaller ones are zero
TIE = 1 - 1e-9  # of |t|: as extreme, up to rounding


@dataclasses.dataclass(frozen=True)
class MaxT:
    """Tests of K contrasts; arrays are (K,), in the unit of the values.

    Attributes:
        estimate: mean over items; se: its standard error, from the larger of the contrast's own
            variance and the mean one of its kind.
        t: estimate / se; infinite where nothing of the kind varies over items, but is not 0.
        p: adjusted for all K, at least 1 / (1 + resamples).
        critical: |t| beyond which p < 1 - LEVEL; infinite where so few items cannot reach that.
        low, high: simultaneous bounds at LEVEL, estimate +- critical * se: they leave out 0 where
            p < 1 - LEVEL. NaN where se is 0, so that no error can be read, or critical infinite.
        resamples: flips beside the observed signs.
    """

    estimate: np.ndarray
    se: np.ndarray
    t: np.ndarray
    p: np.ndarray
    critical: float
    low: np.ndarray
    high: np.ndarray
    n_items: int
    resamples: int


def max_t(
    values: np.ndarray,
    rng: np.random.Generator,
    kinds: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
) -> MaxT:
    """Test that each of K contrasts is zero on average over items.

    Args:
        values: (I, K) an item's value of each contrast (shares), I >= 2, none missing.
        kinds: (K,) contrasts of one kind have one variance if there are no differences; by default
            each is its own kind.
        resamples: random flips; where there are no more than that, every flip is made once.

    Raises:
        InputError: a value is missing, or there is one item only.
    """
    values = np.asarray(values, dtype=float)
    n_items, k = values.shape
    if n_items < 2:
        raise InputError(f"contrasts over {n_items} item: at least two are needed for an error")
    if not np.isfinite(values).all():
        raise InputError("an item has no value for a contrast: leave it out or answer it")
    values = np.where(np.abs(values) < ROUNDING, 0.0, values)
    kinds = np.arange(k) if kinds is None else np.asarray(kinds)
    same = (kinds[:, None] == kinds).astype(float)
    average = same / same.sum(axis=0)

    estimate = values.mean(axis=0)
    squares = (values**2).mean(axis=0)
    se = _errors(estimate, squares, n_items, average)
    t = _ratio(estimate, se)
    largest = []
    for signs in _flips(n_items, rng, resamples, max(1, 2_000_000 // (n_items + k))):
        means = signs @ values / n_items
        largest.append(np.abs(_ratio(means, _errors(means, squares, n_items, average))).max(axis=1))
    largest = np.sort(np.concatenate(largest))
    extreme = len(largest) - np.searchsorted(largest, np.abs(t) * TIE)
    most = math.ceil(round((1 - LEVEL) * (1 + len(largest)), 9)) - 2  # as extreme, with p < .05
    critical = float(largest[-1 - most] / TIE) if most >= 0 else math.inf
    bounded = (se > 0) & math.isfinite(critical)
    half = np.multiply(critical, se, out=np.full(k, np.nan), where=bounded)
    return MaxT(
        estimate=estimate,
        se=se,
        t=t,
        p=(1 + extreme) / (1 + len(largest)),
        critical=critical,
        low=estimate - half,
        high=estimate + half,
        n_items=n_items,
        resamples=len(largest),
    )


def _errors(
    means: np.ndarray, squares: np.ndarray, n_items: int, average: np.ndarray
) -> np.ndarray:
    """Standard errors of means (..., K) over items, from mean squares (K,)."""
    variance = (squares - means**2) / (n_items - 1)  # of the mean
    variance[variance < ROUNDING * squares] = 0.0
    return np.sqrt(np.maximum(variance, variance @ average))


def _ratio(means: np.ndarray, se: np.ndarray) -> np.ndarray:
    """t of means, infinite where only the error is 0."""
    infinite = np.where(means == 0, 0.0, np.copysign(np.inf, means))
    return np.divide(means, se, out=infinite, where=se > 0)


def _flips(n_items: int, rng: np.random.Generator, resamples: int, chunk: int):
    """Signs (flips, I) in chunks, the observed ones left out.

    Turning all signs at once does not change |t|, so where all flips are made, the last item keeps
    its own.
    """
    every = 2 ** (n_items - 1) - 1
    count = min(every, resamples)
    for start in range(0, count, chunk):
        size = min(chunk, count - start)
        if every <= resamples:
            numbers = np.arange(start + 1, start + 1 + size)[:, None]  # 0 is the observed signs
            flipped = numbers >> np.arange(n_items) & 1
        else:
            flipped = rng.integers(0, 2, (size, n_items), dtype=np.int8)
        yield 1.0 - 2.0 * flipped


# -- contrasts of a grid -------------------------------------------------------------------------


def cell_contrasts(cells: pd.DataFrame) -> pd.DataFrame:
    """Each cell less the mean of all: weights (n_cells, n_cells), columns ("cell", its levels).

    Args:
        cells: (n_cells, attributes) levels; values (I, n_cells) @ the weights are the items'
            contrasts, of the kinds in the first level of the columns.
    """
    names = [("cell", ", ".join(levels)) for levels in cells.itertuples(index=False)]
    n = len(cells)
    columns = pd.MultiIndex.from_tuples(names, names=["kind", "name"])
    return pd.DataFrame(np.eye(n) - 1 / n, index=cells.index, columns=columns)


def interaction_contrasts(cells: pd.DataFrame) -> pd.DataFrame:
    """How far each two attributes do not add up: weights (n_cells, contrasts).

    For a level of each of two attributes, mean of the cells with both - mean of those with the
    one - mean of those with the other + mean of all; columns ("gender x age", "female, 65+").
    Attributes with a single level have none.

    Args:
        cells: (n_cells, attributes) levels, every combination once.

    Raises:
        InputError: the grid is not balanced; level means would then differ in the other attributes.
    """
    levels = {a: cells[a].unique() for a in cells if cells[a].nunique() > 1}
    whole = math.prod(len(names) for names in levels.values())
    if len(cells) != whole or cells.duplicated().any():
        raise InputError(
            f"interactions need every combination of {', '.join(levels)} once: there are "
            f"{len(cells.drop_duplicates())} of {whole} in {len(cells)} cells"
        )
    weights = {}
    for (a, of_a), (b, of_b) in itertools.combinations(levels.items(), 2):
        for i, j in itertools.product(of_a, of_b):
            left = (cells[a] == i).to_numpy() - 1 / len(of_a)
            right = (cells[b] == j).to_numpy() - 1 / len(of_b)
            weights[f"{a} x {b}", f"{i}, {j}"] = left * right * len(of_a) * len(of_b) / whole
    columns = pd.MultiIndex.from_tuples(weights, names=["kind", "name"])
    return pd.DataFrame(list(weights.values()), columns=cells.index, index=columns).T
