"""Metrics by hand and against scikit-learn; the bootstrap against what it must cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, root_mean_squared_error

from unswayed.core.errors import InputError
from unswayed.data.histories.metrics import (
    accuracy,
    cells,
    f1,
    mae,
    paired_bootstrap,
    root,
    rouge_1,
    rouge_l,
    squared_errors,
)

LABELS = ("a", "b", "c")
answers = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=40
)


def rmse(predicted, gold) -> float:
    return float(root(squared_errors(predicted, gold).mean(0, keepdims=True)))


def macro_f1(predicted, gold) -> float:
    return float(f1(cells(predicted, gold, LABELS).mean(0)))


def test_by_hand():
    assert accuracy(["1", "2", "3"], ["1", "3", "3"]).tolist() == [1, 0, 1]
    assert mae(["1", "2", "5"], ["1", "4", "4"]).tolist() == [0, 2, 1]
    assert rmse([1.5, 2, 5], ["1", "4", "4"]) == pytest.approx(((0.25 + 4 + 1) / 3) ** 0.5)
    assert squared_errors([3], [1]).tolist() == [4]


@given(answers)
def test_macro_f1_is_scikit_learns(pairs):
    predicted, gold = zip(*pairs, strict=True)
    theirs = f1_score(gold, predicted, labels=LABELS, average="macro", zero_division=0)
    assert macro_f1(predicted, gold) == pytest.approx(theirs)


@given(st.lists(st.tuples(st.floats(1, 5), st.integers(1, 5)), min_size=1, max_size=20))
def test_rmse_is_scikit_learns(pairs):
    predicted, gold = zip(*pairs, strict=True)
    assert rmse(predicted, gold) == pytest.approx(root_mean_squared_error(gold, predicted))


def test_rouge_by_hand():
    # Six words against four: three in common; "the kettle sang" in order.
    long, short = "the old kettle in Bergen sang", "the kettle sang loudly"
    assert rouge_1([long], [short])[0] == pytest.approx(2 * 3 / 10)
    assert rouge_l([long], [short])[0] == pytest.approx(2 * 3 / 10)
    turned = "sang kettle the"
    assert rouge_1([turned], ["the kettle sang"])[0] == 1
    assert rouge_l([turned], ["the kettle sang"])[0] == pytest.approx(1 / 3)
    assert rouge_1(["", "kettle"], ["kettle", "kettle"]).tolist() == [0, 1]


# -- bootstrap -----------------------------------------------------------------------------------


@given(answers, st.integers(0, 9))
def test_identical_predictions_differ_by_exactly_nothing(pairs, seed):
    predicted, gold = zip(*pairs, strict=True)
    users = [f"u{n % 3}" for n in range(len(pairs))]
    for parts, value in (
        (accuracy(predicted, gold), None),
        (cells(predicted, gold, LABELS), f1),
    ):
        more = {"value": value} if value else {}
        difference = paired_bootstrap(parts, parts, users, seed, n=50, **more)
        assert difference.estimate == 0
        assert (difference.low, difference.high) == (None, None)  # never bounds without width


@given(answers, answers)
def test_estimate_is_the_difference_of_the_metrics(first, second):
    n = min(len(first), len(second))
    a, b = [p for p, _ in first[:n]], [p for p, _ in second[:n]]
    gold = [g for _, g in first[:n]]
    parts = (cells(a, gold, LABELS), cells(b, gold, LABELS))
    difference = paired_bootstrap(*parts, range(n), 0, n=10, value=f1)
    assert difference.estimate == pytest.approx(macro_f1(a, gold) - macro_f1(b, gold))
    assert (difference.n_users, difference.n_answers) == (n, n)


def test_resamples_are_of_users_by_hand():
    """Two users: a resample is (1, 1), (0, 2) or (2, 0) of them, so metrics are one of three."""
    a, b, users = np.array([1.0, 1, 4]), np.array([2.0, 2, 2]), ["u", "u", "v"]
    difference = paired_bootstrap(a, b, users, 0)
    assert difference.estimate == pytest.approx(0)
    assert (difference.low, difference.high) == (-1, 2)
    assert difference.relative == pytest.approx(0)
    assert (difference.relative_low, difference.relative_high) == (-0.5, 1)
    squared = paired_bootstrap(a**2, b**2, users, 0, value=root)
    assert squared.estimate == pytest.approx(6**0.5 - 2)
    assert (squared.low, squared.high) == (-1, 2)


def test_same_seed_same_interval_whatever_the_order():
    rng = np.random.default_rng(0)
    a, b, users = rng.random(60), rng.random(60), rng.integers(9, size=60)
    first = paired_bootstrap(a, b, users, 5)
    turned = paired_bootstrap(a[::-1], b[::-1], users[::-1], 5)
    assert turned.low == pytest.approx(first.low) and turned.high == pytest.approx(first.high)
    assert paired_bootstrap(a, b, users, 6).low != first.low


def test_a_metric_of_nought_has_no_relative_difference():
    difference = paired_bootstrap(np.ones(4), np.zeros(4), list("uvwx"), 0)
    assert (difference.estimate, difference.relative, difference.relative_low) == (1, None, None)


def test_wrong_numbers_of_answers():
    with pytest.raises(InputError, match="3 and 2 answers of 3 users"):
        paired_bootstrap(np.ones(3), np.ones(2), list("uvw"), 0)
    with pytest.raises(InputError, match="0 and 0 answers"):
        paired_bootstrap(np.ones(0), np.ones(0), [], 0)


@pytest.mark.parametrize("value", ["mean", "root"])
def test_the_interval_covers_the_truth_as_often_as_it_says(value):
    """Users of unequal size with effects of their own, 300 simulations; truth by the law."""
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(300):
        sizes = rng.integers(3, 12, size=50)
        users = np.repeat(np.arange(50), sizes)
        errors_a = rng.normal(0, 1, len(users)) * rng.choice([0.8, 1.2], 50)[users]
        errors_b = rng.normal(0, 1, len(users)) * rng.choice([0.9, 1.5], 50)[users]
        if value == "mean":
            truth = (2 / np.pi) ** 0.5 * (1.0 - 1.2)
            difference = paired_bootstrap(abs(errors_a), abs(errors_b), users, seed, 400)
        else:
            truth = ((0.64 + 1.44) / 2) ** 0.5 - ((0.81 + 2.25) / 2) ** 0.5
            difference = paired_bootstrap(errors_a**2, errors_b**2, users, seed, 400, root)
        hits += difference.low <= truth <= difference.high
    assert 0.90 <= hits / 300 <= 0.98
