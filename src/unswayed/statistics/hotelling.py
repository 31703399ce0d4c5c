"""Hotelling's T2: are several contrasts of the same items all zero on average?

Items are the only evidence: each gives one vector of contrasts, whatever it was asked about, so
that what an item's answers have in common counts once (Hotelling 1931, Annals of Mathematical
Statistics 2:360). Beside the Wald tests of the mixed model, which take an item's reaction to an
attribute for noise between its answers.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from scipy import stats

ROUNDING = 1e-9  # of the largest singular value


class Joint(TypedDict):
    """F = (I - q) / (q (I - 1)) T2 on (q, I - q) degrees of freedom; None, with a note, if none.

    q is the number of contrasts that vary apart; the note says so where it is below all.
    """

    f: float | None
    df1: int | None
    df2: int | None
    p: float | None
    note: str | None


def hotelling(values: np.ndarray) -> Joint:
    """Test that the mean over items of each contrast is zero.

    Args:
        values: (I, q) an item's contrasts.
    """
    n_items, q = values.shape
    mean = values.mean(axis=0)
    _, spread, directions = np.linalg.svd(values - mean, full_matrices=False)
    least = ROUNDING * max(np.linalg.norm(values), 1.0)
    rank = int((spread > least).sum())
    if n_items <= q:
        return untested(f"{n_items} items are too few for {q} contrasts")
    directions = directions[:rank]
    if np.linalg.norm(mean - mean @ directions.T @ directions) * n_items**0.5 > least:
        return untested("a contrast is the same on every item, so that it has no error")
    if rank == 0:
        return untested("no item is answered differently")
    t2 = n_items * (n_items - 1) * float((((directions @ mean) / spread[:rank]) ** 2).sum())
    f, df = (n_items - rank) / (rank * (n_items - 1)) * t2, n_items - rank
    note = f"only {rank} of {q} contrasts vary apart" if rank < q else None
    return {"f": f, "df1": rank, "df2": df, "p": float(stats.f.sf(f, rank, df)), "note": note}


def untested(note: str) -> Joint:
    """No test, and why."""
    return {"f": None, "df1": None, "df2": None, "p": None, "note": note}
