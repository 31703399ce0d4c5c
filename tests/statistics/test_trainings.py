"""Figures over several trainings: by hand, at their ends, and their coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unswayed.statistics.crossed import crossed_mean
from unswayed.statistics.trainings import over_trainings, trainings_mean, with_trainings

NAN = np.nan


def studies(n: int, trainings: int, spread: float, seed: int = 0) -> np.ndarray:
    """(n, S, 40, 8) answers with a true mean of zero: items, users, trainings and noise vary."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(0, 0.1, (n, 1, 40, 1))
        + rng.normal(0, 0.03, (n, 1, 1, 8))
        + rng.normal(0, spread, (n, trainings, 1, 1))
        + rng.normal(0, 0.1, (n, trainings, 40, 1))
        + rng.normal(0, 0.3, (n, trainings, 40, 8))
    )


@pytest.mark.parametrize("trainings", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.1])
def test_coverage(trainings, spread):
    """At least 93 % of 600 studies; where trainings do not differ, V errs upwards."""
    means = [trainings_mean(study) for study in studies(600, trainings, spread)]
    covered = sum(mean.low <= 0 <= mean.high for mean in means) / 600
    assert 0.93 <= covered <= (0.97 if spread == 0.1 else 1)


def test_without_trainings_in_it_an_interval_covers_too_little():
    means = [crossed_mean(over_trainings(study)) for study in studies(300, 3, 0.1)]
    assert sum(mean.low <= 0 <= mean.high for mean in means) / 300 < 0.7


def test_by_hand():
    values = studies(1, 3, 0.05)[0]
    part, means = crossed_mean(values.mean(axis=0)), values.mean(axis=(1, 2))
    between = means.var(ddof=1) / 3
    variance = part.se**2 + between
    quantile = part.se**2 * stats.t.ppf(0.975, part.df) + between * stats.t.ppf(0.975, 2)
    mean = trainings_mean(values)
    assert mean.estimate == pytest.approx(values.mean())
    assert mean.se == pytest.approx(variance**0.5)
    assert mean.high - mean.estimate == pytest.approx(quantile / variance**0.5)


@given(st.integers(1, 4), st.integers(0, 1000))
def test_never_narrower_than_over_items_and_users_and_never_a_point(trainings, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-1, 2, (trainings, 6, 3)).astype(float)
    if seed % 3 == 0:
        values[:] = 0.0
    part, mean = crossed_mean(values.mean(axis=0)), trainings_mean(values)
    assert mean.low <= part.low and mean.high >= part.high
    assert mean.high > mean.low


def test_one_training_or_equal_ones_add_nothing():
    matrix = studies(1, 1, 0.0)[0, 0]
    assert trainings_mean(matrix[None]) == crossed_mean(matrix)
    thrice, once = trainings_mean(np.stack([matrix] * 3)), crossed_mean(matrix)
    assert [thrice.low, thrice.high] == pytest.approx([once.low, once.high])


def test_missing_values():
    values = studies(1, 3, 0.05)[0]
    values[0, 0] = NAN  # an item that one training lacks
    values[:, 1, 2] = NAN  # an answer that all lack
    mean = trainings_mean(values)
    assert mean.n == 40 * 8 - 1 and np.isfinite([mean.low, mean.high]).all()
    values[2] = NAN  # a training without answers is none
    assert trainings_mean(values) == trainings_mean(values[:2])


def test_nothing_to_widen():
    nothing = crossed_mean(np.full((3, 2), NAN))
    assert with_trainings(nothing, [0.1, 0.9]) == nothing
