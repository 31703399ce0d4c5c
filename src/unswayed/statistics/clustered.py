"""A proportion whose answers come in clusters, such as questions on the same conversation.

Unlike in `crossed`, what a cluster holds has no counterpart in another one, so clusters are the
only random factor.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats

from unswayed.statistics.crossed import LEVEL, Estimate, binomial_bounds


def clustered_proportion(values: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """Mean of values in [0, 1] with the interval of Korn & Graubard (1998, Survey Methodology 24).

    The variance is that of a ratio over clusters, V = I / (I - 1) sum_i (sum_j (y_ij - p))^2 / n^2
    for I clusters and n values; the interval is Clopper & Pearson's with the effective number
    p (1 - p) / V of values, adjusted for I - 1 degrees of freedom. Where all values are equal, V
    says nothing and that number is I. With one value per cluster it is `crossed.proportion` of one
    user.

    Args:
        values: (n,); clusters: (n,) names.

    Returns:
        `n_items` is the number of clusters; no bounds with fewer than two.
    """
    y = np.asarray(values, dtype=float)
    n = len(y)
    if n == 0:
        return Estimate(None, None, None, None, None, 0, 0, 0)
    _, place = np.unique(np.asarray(clusters), return_inverse=True)
    p, count = float(y.mean()), int(place.max()) + 1
    if count < 2:
        return Estimate(p, None, None, None, None, n, count, 1)
    sums = np.bincount(place, weights=y - p)
    variance = count / (count - 1) * float((sums**2).sum()) / n**2
    df, tail = float(count - 1), (1 - LEVEL) / 2
    if y.min() == y.max():
        effective, df = float(count), None
    else:
        ratio = stats.t.ppf(1 - tail, n - 1) / stats.t.ppf(1 - tail, df)
        effective = min(p * (1 - p) / variance * ratio**2, float(n)) if variance > 0 else float(n)
    return Estimate(p, float(np.sqrt(variance)), df, *binomial_bounds(p, effective), n, count, 1)
