"""McNemar's test, Cochran's Q, and corrections for many tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import cochrans_q, mcnemar

from unswayed.statistics.crossed import RESAMPLES


def mcnemar_p(differences: np.ndarray) -> float:
    """Two-sided exact p of McNemar (1947) from paired differences of right (1) and wrong (0).

    It takes the pairs as independent, which answers to one item or about one user are not: given
    for comparison with work that reports it.

    Args:
        differences: values in {-1, 0, 1, NaN}, any shape.
    """
    better, worse = int((differences == 1).sum()), int((differences == -1).sum())
    return float(mcnemar([[0, better], [worse, 0]], exact=True).pvalue)


def cochran_q(
    answers: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, float | int] | None:
    """Cochran's (1950) Q: do several conditions have equal accuracy on the same blocks?

    The classic p takes the I x J blocks (items x users) as independent. The permutation p
    exchanges the conditions within whole items, so that it respects that the users' answers to an
    item go together.

    Args:
        answers: (I, J, k) right (1) or wrong (0) for k >= 2 conditions.

    Returns:
        {"q", "df", "p_chi2", "p"}, None if no block differs between conditions.
    """
    n_items, _, k = answers.shape
    blocks = answers.reshape(-1, k)
    if (blocks.max(axis=1) == blocks.min(axis=1)).all():
        return None
    classic = cochrans_q(blocks)
    by_item = answers.sum(axis=1)  # (I, k): the columns' sums of Q move only with these

    def spread(sums: np.ndarray) -> np.ndarray:
        return ((sums - sums.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)

    observed = spread(by_item.sum(axis=0))
    extreme = 0
    chunk = max(1, 1_000_000 // by_item.size)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        shuffled = rng.permuted(np.broadcast_to(by_item, (size, n_items, k)), axis=-1)
        extreme += int((spread(shuffled.sum(axis=1)) >= observed * (1 - 1e-9)).sum())
    return {
        "q": float(classic.statistic),
        "df": k - 1,
        "p_chi2": float(classic.pvalue),
        "p": (1 + extreme) / (1 + resamples),
    }


def correct(rows: Sequence[dict]) -> None:
    """Fill `p_holm` (Holm 1979) and `p_bh` (Benjamini & Hochberg 1995) of one family of tests.

    Rows whose `p` is None were not tested and get None.
    """
    for row in rows:
        row["p_holm"] = row["p_bh"] = None
    tested = [row for row in rows if row["p"] is not None]
    if not tested:
        return
    p = np.array([row["p"] for row in tested])
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    holm = np.minimum(steps, 1.0)[np.argsort(order)]
    for row, of_holm, bh in zip(tested, holm, stats.false_discovery_control(p), strict=True):
        row["p_holm"], row["p_bh"] = float(of_holm), float(bh)
