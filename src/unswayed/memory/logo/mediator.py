"""Mediators: one distribution from what the user's own past says and what everyone's says.

Both fused mediators are a log-linear mixture (logarithmic opinion pool: Genest & Zidek 1986,
doi 10.1214/ss/1177013825) of the local and the global distribution over the labels,

    log p = tau [(1 - g) log p_local + g log p_global] - log Z,

where g, between 0 and 1, is the weight of the global side. `shrinkage` takes g = k / (n + k) and
tau = 1: a user of whom n events are known weighs as n observations against k of the population's,
so with n = 0 the local side, which then knows nothing of the user, has no say. `fit_gate` learns g
and tau from users whose answers are known. The mediator that leaves the decision to the model
needs only `hint`.

A probability below FLOOR counts as FLOOR and the rest is scaled to 1: no side can rule a label out
for good, and nothing becomes NaN.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, log_softmax, softmax

from unswayed.errors import InputError
from unswayed.histories import Task

log = logging.getLogger(__name__)

FLOOR = 1e-6
ABSENT = -1e6  # log-probability of what is no candidate
FEATURES = (
    "length of the history",
    "uncertainty of the local side",
    "uncertainty of the global side",
    "disagreement of the two",
    "age of what is known",
    "confidence of the local side",
    "confidence of the global side",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Mediated:
    """A mediated prediction.

    Attributes:
        probabilities: (L,), over the labels.
        weight_local, weight_global: they add up to 1; None where the model decided by itself.
        reason: in words, why the two sides weigh so.
    """

    probabilities: np.ndarray
    weight_local: float | None
    weight_global: float | None
    reason: str


class Row(NamedTuple):
    """What the gate learns from: one question to a user whose answer is known.

    Attributes:
        user: whose answer it is.
        p_local, p_global: (L,) distributions over the labels, in the same order.
        n: number of the user's events that were known.
        age: time since the newest of them, in any unit; None if n is 0.
        answer: index of the label that the user gave.
    """

    user: str
    p_local: np.ndarray
    p_global: np.ndarray
    n: int
    age: float | None
    answer: int


class Facts(NamedTuple):
    """What a gate looks at beside the two distributions; see `Row`."""

    n: int
    age: float | None


# -- closed forms --------------------------------------------------------------------------------


def mixture(p_local: np.ndarray, p_global: np.ndarray, g: float, tau: float = 1.0) -> np.ndarray:
    """(L,) the log-linear mixture; g is the weight of the global side, tau an inverse temperature.

    Raises:
        InputError: the two are not distributions over the same labels.
    """
    return softmax(tau * ((1 - g) * _log(p_local) + g * _log(p_global, len(p_local))))


def shrinkage(p_local: np.ndarray, p_global: np.ndarray, n: int, k: float = 5.0) -> Mediated:
    """The training-free mediator: g = k / (n + k).

    Args:
        n: number of the user's known events.
        k: how many events the population's word is worth; above 0.

    Raises:
        InputError: n is below 0, k is not above 0, or see `mixture`.
    """
    if n < 0 or not k > 0:
        raise InputError(f"shrinkage with n = {n} and k = {k}: n must be from 0 and k above 0")
    g = k / (n + k)
    return _mediated(p_local, p_global, g, f"n = {n} known against k = {k:g}")


def equal(p_local: np.ndarray, p_global: np.ndarray) -> Mediated:
    """Both sides weigh the same, whatever is known: what a mediator has to beat."""
    return _mediated(p_local, p_global, 0.5, "equal weights")


def hint(p_global: np.ndarray, labels: Sequence[str], task: Task) -> str:
    """The global prediction as a sentence: its two most probable labels, if above half a percent.

    Of labels with the same probability the earlier one is named first.
    """
    best = np.argsort(-np.asarray(p_global), kind="stable")[:2]
    named = [f"{labels[i]} ({100 * p_global[i]:.0f} %)" for i in best if p_global[i] >= 0.005]
    verb = "give" if task.ordinal else "answer"
    return f"People with a similar taste would {verb} {' or '.join(named)}."


# -- the gate ------------------------------------------------------------------------------------


def features(p_local: np.ndarray, p_global: np.ndarray, n: int, age: float | None) -> np.ndarray:
    """(7,) what g depends on, in the order of FEATURES.

    log(1 + n); the entropies of both sides and their Jensen-Shannon divergence (nats);
    log(1 + age), NaN if nothing is known; the largest probability of each side.
    """
    one, other = np.exp(_log(p_local)), np.exp(_log(p_global, len(p_local)))
    middle = (one + other) / 2
    divergence = _entropy(middle) - (_entropy(one) + _entropy(other)) / 2
    recency = np.nan if age is None else np.log1p(age)
    return np.array(
        [np.log1p(n), _entropy(one), _entropy(other), divergence, recency, one.max(), other.max()]
    )


@dataclasses.dataclass(frozen=True)
class Gate:
    """g = sigmoid(w . (1, z)), where z are the standardised features; a missing one counts 0.

    Attributes:
        weights: (8,) w; the first is the constant. Positive: towards the global side.
        means, scales: (7,) by which the features are standardised.
        tau: inverse temperature of the mixture.
        converged: whether the fit reached an optimum.
        features: names of the features.
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    tau: float
    converged: bool
    features: tuple[str, ...] = FEATURES

    def mediate(self, p_local: np.ndarray, p_global: np.ndarray, facts: Facts) -> Mediated:
        """The mixture, and the two features that moved g most (in logits, + towards global).

        Args:
            facts: (n, age), see `Row`.
        """
        n, age = facts
        z = _standardised(features(p_local, p_global, n, age), self.means, self.scales)
        moves = z * self.weights[1:]
        most = np.argsort(-np.abs(moves), kind="stable")[:2]
        reason = " and ".join(f"{self.features[i]} ({moves[i]:+.2f})" for i in most)
        g = float(expit(self.weights[0] + moves.sum()))
        return _mediated(p_local, p_global, g, reason, self.tau)

    def as_json(self) -> dict[str, Any]:
        """The gate as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Gate:
        """The gate that `as_json` gave."""
        lists = ("weights", "means", "scales", "features")
        return cls(**{**values, **{name: tuple(values[name]) for name in lists}})


def fit_gate(rows: Sequence[Row], l2: float = 0.01) -> Gate:
    """The gate and temperature that make the users' answers most likely.

    Minimises  mean over users of the mean of -log p(answer)  +  l2 / 2 (|w|^2 + log(tau)^2), so
    that each user weighs the same, however much they answered. The penalty draws towards equal
    weights and no tempering. L-BFGS from w = 0 and tau = 1: the same rows give the same gate. For
    cold users to be weighed well, rows with histories cut to few events must be among them.

    Args:
        rows: of users that the global module was not trained on.

    Raises:
        InputError: no rows, or a row that is none (see `Row`).
    """
    from scipy.optimize import minimize

    data = gate_data(rows)
    found = minimize(
        penalised_loss,
        np.zeros(data.x.shape[1] + 1),
        args=(data, l2),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 1000},
    )
    if not found.success:
        log.warning("the mediator's gate did not converge: %s", found.message)
    return Gate(
        weights=tuple(map(float, found.x[:-1])),
        means=tuple(map(float, data.means)),
        scales=tuple(map(float, data.scales)),
        tau=float(np.exp(found.x[-1])),
        converged=bool(found.success),
    )


class GateData(NamedTuple):
    """Rows as arrays.

    Attributes:
        x: (N, 8) a constant and the standardised features.
        log_local, log_global: (N, L); ABSENT for labels that a row lacks.
        answers: (N,) indices of labels.
        weights: (N,) that add up to 1, and to the same for each user.
        means, scales: (7,) of the features, weighted alike.
    """

    x: np.ndarray
    log_local: np.ndarray
    log_global: np.ndarray
    answers: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    scales: np.ndarray


def gate_data(rows: Sequence[Row]) -> GateData:
    """The rows as arrays, features standardised; a feature that never varies becomes 0.

    Raises:
        InputError: see `fit_gate`.
    """
    if not rows:
        raise InputError("the mediator's gate has nothing to learn from: give answers of fit users")
    for row in rows:
        if not 0 <= row.answer < len(row.p_local):
            raise InputError(
                f"a row of user {row.user!r} has {len(row.p_local)} labels and the answer "
                f"{row.answer}: give the index of one of its labels"
            )
    _, user, counts = np.unique([row.user for row in rows], return_inverse=True, return_counts=True)
    weights = 1 / (counts[user] * len(counts))
    raw = np.array([features(row.p_local, row.p_global, row.n, row.age) for row in rows])
    known = np.where(np.isnan(raw), 0, weights[:, None])  # a feature's weights, where it is known
    known /= np.maximum(known.sum(axis=0), np.finfo(float).tiny)
    means = (known * np.nan_to_num(raw)).sum(axis=0)
    scales = np.sqrt((known * np.nan_to_num(raw - means) ** 2).sum(axis=0))
    scales = np.where(scales > 1e-9, scales, 1.0)
    z = _standardised(raw, means, scales)
    return GateData(
        x=np.column_stack([np.ones(len(rows)), z]),
        log_local=_padded([_log(row.p_local) for row in rows]),
        log_global=_padded([_log(row.p_global, len(row.p_local)) for row in rows]),
        answers=np.array([row.answer for row in rows]),
        weights=weights,
        means=means,
        scales=scales,
    )


def penalised_loss(theta: np.ndarray, data: GateData, l2: float) -> tuple[float, np.ndarray]:
    """What `fit_gate` minimises (nats), and its gradient, at theta = (w, log tau)."""
    w, log_tau = theta[:-1], theta[-1]
    g = expit(data.x @ w)[:, None]
    toward = data.log_global - data.log_local
    logits = np.exp(log_tau) * (data.log_local + g * toward)
    log_p = log_softmax(logits, axis=1)
    rows = np.arange(len(log_p))
    loss = -data.weights @ log_p[rows, data.answers]
    slope = data.weights[:, None] * np.exp(log_p)  # of the loss, by the logits
    slope[rows, data.answers] -= data.weights
    by_g = np.exp(log_tau) * (slope * toward).sum(axis=1) * (g * (1 - g))[:, 0]
    gradient = np.append(data.x.T @ by_g, (slope * logits).sum())
    return float(loss + l2 / 2 * theta @ theta), gradient + l2 * theta


# -- small parts ---------------------------------------------------------------------------------


def _mediated(
    p_local: np.ndarray, p_global: np.ndarray, g: float, why: str, tau: float = 1.0
) -> Mediated:
    p = mixture(p_local, p_global, g, tau)
    return Mediated(p, 1 - g, g, f"everyone counts {100 * g:.0f} %: {why}")


def _log(p: np.ndarray, size: int | None = None) -> np.ndarray:
    """Logarithms of a floored distribution; `size` is how many labels it must have."""
    p = np.asarray(p, dtype=float)
    if p.ndim != 1 or not len(p) or (size is not None and len(p) != size):
        raise InputError(f"distributions over the same labels are needed, got {p.shape} and {size}")
    if not (np.all(p >= 0) and abs(p.sum() - 1) < 1e-3):
        raise InputError(f"no distribution: {p.tolist()}; probabilities from 0 that add up to 1")
    floored = np.maximum(p, FLOOR)
    return np.log(floored / floored.sum())


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """(N, L) rows of one length; between free texts, questions differ in how many there are."""
    padded = np.full((len(rows), max(map(len, rows))), ABSENT)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded


def _entropy(p: np.ndarray) -> float:
    return float(-(p * np.log(p)).sum())


def _standardised(raw: np.ndarray, means: Sequence[float], scales: Sequence[float]) -> np.ndarray:
    return np.nan_to_num((raw - np.asarray(means)) / np.asarray(scales))
