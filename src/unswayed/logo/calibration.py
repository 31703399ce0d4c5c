"""Calibration of a side: a small model likes one label whatever it reads, and is corrected for it.

A probability below FLOOR counts as FLOOR and the rest is scaled to 1: no side can rule a label out
for good, and nothing becomes NaN.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from unswayed.core.errors import InputError

log = logging.getLogger(__name__)

FLOOR = 1e-6


def contextual(p: np.ndarray, content_free: np.ndarray) -> np.ndarray:
    """(L,) p without the model's taste for labels: over its answer to a question without content.

    Contextual calibration (Zhao et al. 2021, arXiv 2102.09690): proportional to p / p_free.
    """
    return softmax(log_floored(p) - log_floored(content_free, len(p)))


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Vector scaling (Guo et al. 2017, arXiv 1706.04599): softmax(slope log p + biases).

    Attributes:
        slope: inverse temperature, above 0.
        biases: (L,) of the labels, in nats.
        converged: whether the fit reached an optimum.
    """

    slope: float
    biases: tuple[float, ...]
    converged: bool

    def of(self, p: np.ndarray) -> np.ndarray:
        """(L,) the calibrated distribution."""
        return softmax(self.slope * log_floored(p, len(self.biases)) + np.asarray(self.biases))


def fit_calibration(
    sides: Sequence[np.ndarray], answers: Sequence[int], users: Sequence[str], l2: float = 1.0
) -> Calibration:
    """The calibration that makes the users' answers most likely.

    Minimises  sum over users of the mean of -log p(answer)  +  l2 / 2 (|biases|^2 + log(slope)^2):
    the penalty, a normal prior of variance 1 / l2, draws towards what the side says by itself.

    Args:
        sides: (N) distributions (L,) of one side.
        answers: (N) indices of labels.
        users: (N) whose answers they are.
    """
    log_p = np.array([log_floored(p) for p in sides])
    data = log_p, np.asarray(answers), user_weights(users)
    l2 /= len(set(users))
    optimum = minimise(calibration_loss, np.zeros(1 + log_p.shape[1]), data, l2, "a calibration")
    slope, biases = float(np.exp(optimum.x[0])), tuple(map(float, optimum.x[1:]))
    return Calibration(slope, biases, bool(optimum.success))


def calibration_loss(
    theta: np.ndarray, data: tuple[np.ndarray, np.ndarray, np.ndarray], l2: float
) -> tuple[float, np.ndarray]:
    """What `fit_calibration` minimises, per user (nats), and its gradient.

    Args:
        theta: (log slope, biases).
        data: (N, L) log-probabilities, (N,) answers, (N,) weights that add up to 1.
    """
    log_side, answers, weights = data
    scaled = np.exp(theta[0]) * log_side
    loss, slope = surprise(scaled + theta[1:], answers, weights)
    gradient = np.append((slope * scaled).sum(), slope.sum(axis=0))
    return float(loss + l2 / 2 * theta @ theta), gradient + l2 * theta


def minimise(loss: Any, start: np.ndarray, data: Any, l2: float, what: str) -> Any:
    """scipy's OptimizeResult; says what did not converge."""
    from scipy.optimize import minimize

    optimum = minimize(
        loss, start, args=(data, l2), jac=True, method="L-BFGS-B", options={"maxiter": 1000}
    )
    if not optimum.success:
        log.warning("%s did not converge: %s", what, optimum.message)
    return optimum


def surprise(
    logits: np.ndarray, answers: np.ndarray, weights: np.ndarray
) -> tuple[float, np.ndarray]:
    """Weighted mean of -log p(answer) (nats), and its slope (N, L) by the logits."""
    log_p = log_softmax(logits, axis=1)
    rows = np.arange(len(log_p))
    slope = weights[:, None] * np.exp(log_p)
    slope[rows, answers] -= weights
    return float(-weights @ log_p[rows, answers]), slope


def user_weights(users: Sequence[str]) -> np.ndarray:
    """(N,) that add up to 1, and to the same for each user."""
    _, user, counts = np.unique(users, return_inverse=True, return_counts=True)
    return 1 / (counts[user] * len(counts))


def log_floored(p: np.ndarray, size: int | None = None) -> np.ndarray:
    """Logarithms of a floored distribution; `size` is how many labels it must have."""
    p = np.asarray(p, dtype=float)
    if p.ndim != 1 or not len(p) or (size is not None and len(p) != size):
        raise InputError(f"distributions over the same labels are needed, got {p.shape} and {size}")
    if not (np.all(p >= 0) and abs(p.sum() - 1) < 1e-3):
        raise InputError(f"no distribution: {p.tolist()}; probabilities from 0 that add up to 1")
    floored = np.maximum(p, FLOOR)
    return np.log(floored / floored.sum())
