"""McNemar, Cochran, Holm, Benjamini & Hochberg against hand calculations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unswayed.statistics.classic import cochran_q, correct, mcnemar_p


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_test(better, worse):
    differences = np.array([1.0] * better + [-1.0] * worse + [0.0] * 3 + [np.nan])
    expected = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar_p(differences) == pytest.approx(expected)
    assert mcnemar_p(differences.reshape(1, -1)) == mcnemar_p(-differences)


def test_mcnemar_by_hand():
    assert mcnemar_p(np.array([1, 1, 1, 1, 1, -1])) == pytest.approx(2 * (1 + 6) / 64)


def blocks(rng: np.random.Generator, n_items: int = 6, n_users: int = 4, k: int = 3):
    return (rng.random((n_items, n_users, k)) < 0.6).astype(float)


def test_cochran_by_hand():
    """Six blocks, three conditions: q = (k - 1)(k sum C^2 - N^2) / (k N - sum R^2)."""
    rows = [[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 0]]
    columns, total = (5, 4, 1), 10
    q = 2 * (3 * sum(c**2 for c in columns) - total**2) / (3 * total - (4 + 1 + 9 + 4 + 1 + 1))
    found = cochran_q(np.array(rows, float)[:, None], np.random.default_rng(0), 99)
    assert (found["q"], found["df"]) == (pytest.approx(q), 2)
    assert found["p_chi2"] == pytest.approx(math.exp(-q / 2))  # chi-squared with 2 df


def test_cochran_permutes_within_whole_items():
    answers = blocks(np.random.default_rng(1), n_items=4)
    by_item = answers.sum(axis=1)
    observed = ((by_item.sum(axis=0) - by_item.sum() / 3) ** 2).sum()
    spreads = [
        ((np.array(orders).sum(axis=0) - by_item.sum() / 3) ** 2).sum()
        for orders in itertools.product(*(itertools.permutations(row) for row in by_item))
    ]
    exact = np.mean([spread >= observed * (1 - 1e-9) for spread in spreads])
    found = cochran_q(answers, np.random.default_rng(0), 4000)["p"]
    assert found == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 4000) ** 0.5 + 1e-3)


def test_cochran_with_two_conditions_is_mcnemars_chi_square():
    answers = blocks(np.random.default_rng(2), 20, 5, 2)
    better, worse = [(answers[..., 0] - answers[..., 1] == sign).sum() for sign in (1, -1)]
    found = cochran_q(answers, np.random.default_rng(0), 99)
    assert found["q"] == pytest.approx((better - worse) ** 2 / (better + worse))


def test_copies_of_users_change_the_classic_p_only():
    answers = (np.random.default_rng(3).random((20, 1, 3)) < [0.75, 0.6, 0.5]).astype(float)
    once = cochran_q(answers, np.random.default_rng(0), 999)
    tenfold = cochran_q(np.repeat(answers, 10, axis=1), np.random.default_rng(0), 999)
    assert tenfold["q"] == pytest.approx(10 * once["q"])
    assert tenfold["p_chi2"] < once["p_chi2"]
    assert tenfold["p"] == once["p"]


def test_cochran_where_nothing_differs():
    alike = np.repeat(np.random.default_rng(0).integers(0, 2, (5, 4, 1)), 3, axis=2)
    assert cochran_q(alike.astype(float), np.random.default_rng(0)) is None


def test_the_permutation_p_is_uniform_under_exchange():
    """Items differ in difficulty and users share it: conditions are exchangeable all the same."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(300):
        chance = rng.beta(1, 1, (10, 1, 1))
        result = cochran_q((rng.random((10, 4, 3)) < chance).astype(float), rng, 99)
        found.append(result["p"] if result else 1.0)
    found = np.array(found)
    for level in (0.05, 0.2, 0.5):
        assert np.mean(found <= level) <= level + 3 * (level * (1 - level) / 300) ** 0.5
    assert np.mean(found <= 0.5) > 0.3  # little below the level, as there are many ties


def test_corrections_by_hand():
    rows = [{"p": 0.01}, {"p": None}, {"p": 0.04}, {"p": 0.03}, {"p": 0.5}]
    correct(rows)
    assert [row["p_holm"] for row in rows] == pytest.approx([0.04, None, 0.09, 0.09, 0.5])
    assert [row["p_bh"] for row in rows] == pytest.approx([0.04, None, 0.16 / 3, 0.16 / 3, 0.5])


def test_nothing_to_correct():
    rows = [{"p": None}]
    correct(rows)
    correct([])
    assert rows == [{"p": None, "p_holm": None, "p_bh": None}]
    single = [{"p": 0.2}]
    correct(single)
    assert single[0]["p_holm"] == single[0]["p_bh"] == pytest.approx(0.2)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=15)  # statsmodels collects garbage in each call
def test_corrections_only_raise_p_and_keep_their_order(values):
    rows = [{"p": p} for p in values]
    correct(rows)
    for row in rows:
        assert row["p"] <= row["p_bh"] + 1e-12 and row["p_bh"] <= row["p_holm"] + 1e-12
        assert row["p_holm"] <= 1
    ordered = sorted(rows, key=lambda row: row["p"])
    for key in ("p_holm", "p_bh"):
        assert all(a[key] <= b[key] + 1e-12 for a, b in itertools.pairwise(ordered))
