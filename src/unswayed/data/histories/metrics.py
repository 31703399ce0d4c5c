"""Metrics of predictions, and their differences with intervals over users.

Each metric is a function of means over answers of something that every answer has: `accuracy`,
`mae` and ROUGE of one number, which is the metric itself, RMSE of the squared error, macro-F1 of
the cell of the confusion matrix. So one bootstrap serves them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from unswayed.core.errors import InputError

EQUAL = 1e-12  # differences below it are rounding

Value = Callable[[np.ndarray], np.ndarray]


def accuracy(predicted: Sequence[str], gold: Sequence[str]) -> np.ndarray:
    """(n,) 1.0 where the prediction is the answer, else 0.0; its mean is the accuracy."""
    return np.array([a == b for a, b in zip(predicted, gold, strict=True)], dtype=float)


def mae(predicted: Sequence[float], gold: Sequence[float]) -> np.ndarray:
    """(n,) absolute errors; their mean is the MAE. Labels may be given as texts of numbers."""
    return np.abs(np.asarray(predicted, dtype=float) - np.asarray(gold, dtype=float))


def squared_errors(predicted: Sequence[float], gold: Sequence[float]) -> np.ndarray:
    """(n,) squared errors, of which `root` makes the RMSE."""
    return mae(predicted, gold) ** 2


def cells(predicted: Sequence[str], gold: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """(n, L * L) with a 1.0 per answer in its cell of the confusion matrix, of which `f1` makes
    macro-F1. Rows of the matrix are answers, columns predictions, both in the order of `labels`.
    """
    place = {label: i for i, label in enumerate(labels)}
    flat = [place[b] * len(labels) + place[a] for a, b in zip(predicted, gold, strict=True)]
    return np.eye(len(labels) ** 2)[flat]


def rouge_1(predicted: Sequence[str], gold: Sequence[str]) -> np.ndarray:
    """(n,) F-measure of the words in common (Lin 2004), without stemming."""
    return _rouge("rouge1", predicted, gold)


def rouge_l(predicted: Sequence[str], gold: Sequence[str]) -> np.ndarray:
    """(n,) F-measure of the longest common subsequence (Lin 2004), without stemming."""
    return _rouge("rougeL", predicted, gold)


def mean(means: np.ndarray) -> np.ndarray:
    """(..., 1) -> (...)."""
    return means[..., 0]


def root(means: np.ndarray) -> np.ndarray:
    """RMSE of the mean of `squared_errors`: (..., 1) -> (...)."""
    return np.sqrt(means[..., 0])


def f1(means: np.ndarray) -> np.ndarray:
    """Macro-F1 of the mean of `cells`: (..., L * L) -> (...).

    The mean over all labels, as LaMP's own evaluation has it: a label that is neither given nor
    predicted counts 0.
    """
    n = round(means.shape[-1] ** 0.5)
    matrix = means.reshape(*means.shape[:-1], n, n)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    sizes = matrix.sum(-1) + matrix.sum(-2)
    return (2 * hits / np.where(sizes > 0, sizes, 1)).mean(-1)


@dataclasses.dataclass(frozen=True)
class Difference:
    """What separates two methods on the same answers.

    Attributes:
        estimate: metric of the first minus metric of the second.
        low, high: bounds of the 95 % interval; None with fewer than two users, or where nothing
            varies between them.
        relative, relative_low, relative_high: the same over the metric of the second; None where
            that is 0, also in a single resample.
        n_users, n_answers: how many there were.
    """

    estimate: float
    low: float | None
    high: float | None
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    n_users: int
    n_answers: int


def paired_bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    users: Sequence[Hashable],
    seed: int,
    n: int = 2000,
    value: Value = mean,
) -> Difference:
    """Difference of a metric between two methods, with a percentile interval over users.

    Users are drawn with replacement and bring all their answers to both methods (Efron &
    Tibshirani 1993, chapters 8 and 13), so the metric is of answers, the uncertainty of users.

    Args:
        a, b: (answers,) or (answers, parts), row by row the same answers: losses or scores, or
            `squared_errors` with value=root, or `cells` with value=f1.
        users: (answers,) whose answers they are.
        n: number of resamples.
        value: (..., parts) means -> (...) metric.

    Raises:
        InputError: no answers, or different numbers of them.
    """
    if not len(a) == len(b) == len(users) > 0:
        raise InputError(
            f"bootstrap: {len(a)} and {len(b)} answers of {len(users)} users must be equally many"
        )
    names, place = np.unique(np.asarray(users), return_inverse=True)
    counts = np.bincount(place).astype(float)
    sums = [_sums(np.asarray(parts, dtype=float), place, len(names)) for parts in (a, b)]
    first, second = (float(value(part.sum(0) / len(place))) for part in sums)
    relative = (first - second) / second if second else None
    low = high = relative_low = relative_high = None
    if len(names) > 1:
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)
        drawn = drawn.astype(float)
        firsts, seconds = (value(drawn @ part / (drawn @ counts)[:, None]) for part in sums)
        low, high = _bounds(firsts - seconds)
        if relative is not None and seconds.all():
            relative_low, relative_high = _bounds((firsts - seconds) / seconds)
    return Difference(
        *(first - second, low, high),
        *(relative, relative_low, relative_high),
        *(len(names), len(place)),
    )


def _sums(parts: np.ndarray, place: np.ndarray, n_users: int) -> np.ndarray:
    """(answers,) or (answers, parts) -> (users, parts)."""
    sums = np.zeros((n_users, *parts.reshape(len(parts), -1).shape[1:]))
    np.add.at(sums, place, parts.reshape(len(parts), -1))
    return sums


def _bounds(values: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    if np.ptp(values) <= EQUAL:
        return None, None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _rouge(kind: str, predicted: Sequence[str], gold: Sequence[str]) -> np.ndarray:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind])
    pairs = zip(predicted, gold, strict=True)
    return np.array([scorer.score(target, text)[kind].fmeasure for text, target in pairs])
