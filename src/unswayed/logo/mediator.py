"""Mediators: one distribution from what the user's own past says and what everyone's says.

Both fused mediators are a log-linear mixture (logarithmic opinion pool: Genest & Zidek 1986,
doi 10.1214/ss/1177013825) of the local and the global distribution over the labels,

    log p = tau [(1 - g) log p_local + g log p_global] - log Z,

where g, between 0 and 1, is the weight of the global side. `shrinkage` takes g = k / (n + k) and
tau = 1: a user weighs as n observations against k of the population's, so with n = 0 the local
side, which then knows nothing of the user, has no say; `observations` says how many a history is
worth. `fit_gate` learns g and tau from users whose answers are known. The mediator that leaves the
decision to the model needs only `hint`.

A small model likes one label whatever it reads. Over closed labels a side is therefore corrected
first: by `contextual` where nothing is learned, by a `Calibration` where the gate is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, softmax

from unswayed.core.errors import InputError
from unswayed.data.histories import Event, Task, label_entropy
from unswayed.logo.calibration import (
    Calibration,
    fit_calibration,
    log_floored,
    minimise,
    surprise,
    user_weights,
)

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
        weight_global: g; the local side has 1 - g.
    """

    probabilities: np.ndarray
    weight_global: float


class MediatorRow(NamedTuple):
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


class HistoryFacts(NamedTuple):
    """What a gate looks at beside the two distributions; see `Row`."""

    n: int
    age: float | None


# -- closed forms --------------------------------------------------------------------------------


def mixture(p_local: np.ndarray, p_global: np.ndarray, g: float, tau: float = 1.0) -> np.ndarray:
    """(L,) the log-linear mixture; g is the weight of the global side, tau an inverse temperature.

    Raises:
        InputError: the two are not distributions over the same labels.
    """
    return softmax(tau * ((1 - g) * log_floored(p_local) + g * log_floored(p_global, len(p_local))))


def observations(past: Sequence[Event], task: Task, shown: int) -> float:
    """How many observations of the user the local side is worth: as many events as it shows, times
    the variety of the user's labels, their entropy over its maximum.

    A history with one label tells what the user says to some things, not how they choose between
    labels: it counts 0, however long. Texts count in full.

    Args:
        known: events before the question.
        shown: how many of them the local side shows at most.

    Returns:
        From 0 to `shown`. The formula is ours.
    """
    n = min(len(past), shown)
    if task.labels is None:
        return n
    return n * label_entropy(past, task.labels) / np.log(max(len(task.labels), 2))


def shrinkage(p_local: np.ndarray, p_global: np.ndarray, n: float, k: float = 5.0) -> Mediated:
    """The training-free mediator: g = k / (n + k).

    Args:
        n: how many observations of the user the local side is worth.
        k: how many observations the population's word is worth; above 0.

    Raises:
        InputError: n is below 0, k is not above 0, or see `mixture`.
    """
    if n < 0 or not k > 0:
        raise InputError(f"shrinkage with n = {n} and k = {k}: n must be from 0 and k above 0")
    return _mediated(p_local, p_global, k / (n + k))


def equal(p_local: np.ndarray, p_global: np.ndarray) -> Mediated:
    """Both sides weigh the same, whatever is known: what a mediator has to beat."""
    return _mediated(p_local, p_global, 0.5)


def hint(p_global: np.ndarray, labels: Sequence[str], task: Task) -> str:
    """The global prediction as a sentence: its two most probable labels, if above half a percent.

    Of labels with the same probability the earlier one is named first. In free text: the most
    probable text, without its probability, which is one among candidates only.
    """
    if task.labels is None:
        return f"People with a similar taste would write: {labels[int(np.argmax(p_global))]}"
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
    local, everyone = np.exp(log_floored(p_local)), np.exp(log_floored(p_global, len(p_local)))
    middle = (local + everyone) / 2
    divergence = _entropy(middle) - (_entropy(local) + _entropy(everyone)) / 2
    recency = np.nan if age is None else np.log1p(age)
    return np.array(
        [
            np.log1p(n),
            _entropy(local),
            _entropy(everyone),
            divergence,
            recency,
            local.max(),
            everyone.max(),
        ]
    )


@dataclasses.dataclass(frozen=True)
class LearnedMediator:
    """g = sigmoid(w . (1, z)), where z are the standardised features; a missing one counts 0.

    Both sides are calibrated first, if there are calibrations; features are of what comes out.

    Attributes:
        weights: (8,) w; the first is the constant. Positive: towards the global side.
        means, scales: (7,) by which the features are standardised.
        tau: inverse temperature of the mixture.
        converged: whether the fit reached an optimum.
        local, everyone: calibrations of the two sides, or None.
        features: names of the features.
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    tau: float
    converged: bool
    local: Calibration | None = None
    everyone: Calibration | None = None
    features: tuple[str, ...] = FEATURES

    def calibrated(
        self, p_local: np.ndarray, p_global: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Both sides as they are weighed."""
        return (
            self.local.of(p_local) if self.local else p_local,
            self.everyone.of(p_global) if self.everyone else p_global,
        )

    def mediate(self, p_local: np.ndarray, p_global: np.ndarray, facts: HistoryFacts) -> Mediated:
        """The mixture of the calibrated sides.

        Args:
            facts: (n, age), see `Row`.
        """
        n, age = facts
        p_local, p_global = self.calibrated(p_local, p_global)
        z = _standardised(features(p_local, p_global, n, age), self.means, self.scales)
        g = float(expit(self.weights[0] + (z * self.weights[1:]).sum()))
        return _mediated(p_local, p_global, g, self.tau)

    def as_json(self) -> dict[str, Any]:
        """The gate as JSON values."""
        return dataclasses.asdict(self)


EQUAL = LearnedMediator(
    (0.0,) * (1 + len(FEATURES)), (0.0,) * len(FEATURES), (1.0,) * len(FEATURES), 1.0, True
)


def fit_mediator(
    rows: Sequence[MediatorRow], l2: float = 1.0, calibrate: bool = False
) -> LearnedMediator:
    """The gate and temperature that make the users' answers most likely.

    Minimises  sum over users of the mean of -log p(answer)  +  l2 / 2 (|w|^2 + log(tau)^2), so
    that each user weighs the same, however much they answered. The penalty, a normal prior of
    variance 1 / l2, draws towards equal weights and no tempering. L-BFGS from w = 0 and tau = 1:
    the same rows give the same gate. For cold users to be weighed well, rows with histories cut to
    few events must be among them. Each side is calibrated by itself beforehand, so that it is as
    good as it can be alone.

    Args:
        rows: of users that the global module was not trained on.
        calibrate: the labels are the same in all rows, and both sides get a `Calibration`.

    Raises:
        InputError: no rows, or a row that is none (see `Row`).
    """
    local = everyone = None
    if calibrate and rows:
        locals_, globals_, answers, users = zip(
            *((row.p_local, row.p_global, row.answer, row.user) for row in rows), strict=True
        )
        local, everyone = (
            fit_calibration(side, answers, users, l2) for side in (locals_, globals_)
        )
        rows = [
            row._replace(p_local=local.of(row.p_local), p_global=everyone.of(row.p_global))
            for row in rows
        ]
    data = mediator_data(rows)
    l2 /= len({row.user for row in rows})
    optimum = minimise(
        penalised_loss, np.zeros(data.x.shape[1] + 1), data, l2, "the mediator's gate"
    )
    return LearnedMediator(
        weights=tuple(map(float, optimum.x[:-1])),
        means=tuple(map(float, data.means)),
        scales=tuple(map(float, data.scales)),
        tau=float(np.exp(optimum.x[-1])),
        converged=bool(optimum.success),
        local=local,
        everyone=everyone,
    )


class MediatorData(NamedTuple):
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


def mediator_data(rows: Sequence[MediatorRow]) -> MediatorData:
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
    weights = user_weights([row.user for row in rows])
    raw = np.array([features(row.p_local, row.p_global, row.n, row.age) for row in rows])
    present = np.where(np.isnan(raw), 0, weights[:, None])  # a feature's weights, where it is known
    present /= np.maximum(present.sum(axis=0), np.finfo(float).tiny)
    means = (present * np.nan_to_num(raw)).sum(axis=0)
    scales = np.sqrt((present * np.nan_to_num(raw - means) ** 2).sum(axis=0))
    scales = np.where(scales > 1e-9, scales, 1.0)
    z = _standardised(raw, means, scales)
    return MediatorData(
        x=np.column_stack([np.ones(len(rows)), z]),
        log_local=_padded([log_floored(row.p_local) for row in rows]),
        log_global=_padded([log_floored(row.p_global, len(row.p_local)) for row in rows]),
        answers=np.array([row.answer for row in rows]),
        weights=weights,
        means=means,
        scales=scales,
    )


def penalised_loss(theta: np.ndarray, data: MediatorData, l2: float) -> tuple[float, np.ndarray]:
    """What `fit_gate` minimises, per user (nats), and its gradient, at theta = (w, log tau)."""
    w, log_tau = theta[:-1], theta[-1]
    g = expit(data.x @ w)[:, None]
    toward = data.log_global - data.log_local
    logits = np.exp(log_tau) * (data.log_local + g * toward)
    loss, slope = surprise(logits, data.answers, data.weights)
    by_g = np.exp(log_tau) * (slope * toward).sum(axis=1) * (g * (1 - g))[:, 0]
    gradient = np.append(data.x.T @ by_g, (slope * logits).sum())
    return float(loss + l2 / 2 * theta @ theta), gradient + l2 * theta


# -- small parts ---------------------------------------------------------------------------------


def _mediated(p_local: np.ndarray, p_global: np.ndarray, g: float, tau: float = 1.0) -> Mediated:
    return Mediated(mixture(p_local, p_global, g, tau), g)


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
