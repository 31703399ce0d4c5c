"""Agreement of two raters, against scikit-learn and statsmodels, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score, matthews_corrcoef
from statsmodels.stats.inter_rater import cohens_kappa

from unswayed.statistics import agreement
from unswayed.statistics.agreement import (
    cluster,
    equal_share,
    estimate,
    item_tables,
    kappa,
    phi,
    resampled_items,
    resampled_users,
)


def raters(n_items: int = 20, n_users: int = 6, k: int = 4, seed: int = 1):
    """Codes of two raters who share half of their choices, and each trial's item."""
    rng = np.random.default_rng(seed)
    items = np.repeat(np.arange(n_items), n_users)
    left = rng.integers(k, size=n_items)[items]
    right = np.where(rng.random(len(items)) < 0.5, left, rng.integers(k, size=len(items)))
    return left, right, items


def test_tables_add_up_to_the_counts():
    left, right, items = raters()
    tables = item_tables(left, right, items, 20, 4)
    assert tables.shape == (20, 4, 4)
    assert (tables.sum((1, 2)) == 6).all()
    for i, a, b in ((0, 0, 0), (3, 1, 2), (7, 2, 2)):
        assert tables[i, a, b] == ((items == i) & (left == a) & (right == b)).sum()


@pytest.mark.parametrize("seed", range(5))
def test_against_other_libraries(seed):
    left, right, items = raters(seed=seed)
    table = item_tables(left, right, items, 20, 4).sum(0)
    assert equal_share(table) == pytest.approx((left == right).mean())
    assert kappa(table) == pytest.approx(cohen_kappa_score(left, right))
    assert kappa(table) == pytest.approx(cohens_kappa(table, return_results=False))
    binary = item_tables(left > 1, right > 1, items, 20, 2).sum(0)
    assert phi(binary) == pytest.approx(matthews_corrcoef(left > 1, right > 1))
    assert phi(binary) == pytest.approx(np.corrcoef(left > 1, right > 1)[0, 1])


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_bounds_and_undefined_values(pairs):
    left, right = np.array(pairs).T
    table = item_tables(left, right, np.zeros(len(left), int), 1, 2).sum(0)
    constant = len(set(left)) == 1 or len(set(right)) == 1
    assert np.isnan(phi(table)) == constant
    assert np.isnan(kappa(table)) == (len(set(left) | set(right)) == 1)
    assert constant or -1 - 1e-9 <= phi(table) <= 1 + 1e-9


def test_one_constant_rater_has_a_kappa_of_zero():
    left, right = np.zeros(8, int), np.tile([0, 1], 4)
    assert kappa(item_tables(left, right, np.arange(8), 8, 2).sum(0)) == 0


def test_intervals_are_those_of_resampled_items(monkeypatch):
    """The vectorised bootstrap against a loop that draws the same items."""
    monkeypatch.setattr(agreement, "RESAMPLES", 400)
    left, right, items = raters(n_items=12)
    resampled = resampled_items(12, np.random.default_rng(0))
    assert (resampled.sum(1) == 12).all()
    result = estimate(item_tables(left, right, items, 12, 4), kappa, resampled)
    tail = 100 * stats.norm.cdf(stats.t.ppf(0.025, 11) * np.sqrt(12 / 11))
    values = []
    for weights in resampled.astype(int):
        rows = np.concatenate([np.flatnonzero(items == i) for i in np.repeat(range(12), weights)])
        values.append(cohen_kappa_score(left[rows], right[rows]))
    assert (result["low"], result["high"]) == pytest.approx(
        tuple(np.percentile(values, [tail, 100 - tail]))
    )
    assert result["low"] < result["estimate"] < result["high"]
    assert (result["n"], result["n_items"], result["note"]) == (72, 12, None)


@pytest.mark.parametrize("n_users", [6, 10])
def test_crossed_intervals_cover_where_users_differ(n_users, monkeypatch):
    """Users decide as much as items and chance, but not of trials without memory."""
    monkeypatch.setattr(agreement, "RESAMPLES", 999)
    rng, hits, n_items = np.random.default_rng(2), 0, 40
    true = (0.5 + n_users * stats.norm.cdf(0.5)) / (1 + n_users)
    items, users = np.divmod(np.arange(n_items * (1 + n_users)), 1 + n_users)
    for _ in range(300):
        of_item, of_user = rng.normal(size=n_items), rng.normal(size=1 + n_users)
        latent = of_item[items] + rng.normal(size=len(items))
        latent = np.where(users > 0, latent + of_user[users] + 0.5 * np.sqrt(3), latent)
        equal = latent > 0
        tables = item_tables(
            equal.astype(int), np.ones_like(users), np.arange(len(items)), len(items), 2
        )
        drawn = resampled_items(n_items, rng), resampled_users(n_users, rng)
        result = estimate(tables.reshape(n_items, -1, 2, 2), equal_share, *drawn)
        hits += result["low"] <= true <= result["high"]
    assert hits / 300 >= 0.93


@pytest.mark.slow
def test_intervals_cover_the_true_agreement():
    """Kappa of raters who share 60 % of their items' choices, trials of an item all alike."""
    rng, hits, true = np.random.default_rng(5), 0, 0.6
    for _ in range(300):
        choice = rng.integers(4, size=60)
        other = np.where(rng.random(60) < true, choice, rng.integers(4, size=60))
        items = np.repeat(np.arange(60), 5)
        tables = item_tables(choice[items], other[items], items, 60, 4)
        result = estimate(tables, kappa, resampled_items(60, rng)[:999])
        hits += result["low"] <= true <= result["high"]
    assert 0.91 <= hits / 300 <= 0.98


def test_undefined_measures_say_why():
    items, same = np.arange(6), np.zeros(6, int)
    resampled = resampled_items(6, np.random.default_rng(0))
    result = estimate(item_tables(same, same, items, 6, 2), kappa, resampled)
    assert result["estimate"] is result["low"] is None
    assert "do not vary" in result["note"] and result["n"] == 6
    empty = estimate(np.zeros((6, 2, 2)), phi, resampled)
    assert empty["n"] == 0 and "no trials" in empty["note"]
    rare = same.copy()
    rare[0] = 1  # a third of the resamples lack it
    result = estimate(item_tables(rare, rare, items, 6, 2), phi, resampled)
    assert result["estimate"] == 1 and result["low"] is None and "undefined in 3" in result["note"]
    one = estimate(item_tables(rare, same, same, 1, 2), equal_share, np.ones((9, 1)))
    assert one["estimate"] == pytest.approx(5 / 6) and one["low"] is None
    assert "single item" in one["note"]


def test_cluster_puts_alike_things_side_by_side():
    distances = np.array(
        [[0, 0.9, 0.1, 0.8], [0.9, 0, 0.7, 0.2], [0.1, 0.7, 0, 0.8], [0.8, 0.2, 0.8, 0]]
    )
    order, merges = cluster(distances)
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}
    assert abs(order.index(2) - order.index(1)) == 1  # 0.7 is the shortest bridge
    assert [frozenset(m[:2]) for m in merges] == [{0, 2}, {1, 3}, {4, 5}]
    assert [m[2] for m in merges] == pytest.approx([0.1, 0.2, 0.8])
    assert cluster(np.array([[0, 0.3], [0.3, 0]]))[0] in ([0, 1], [1, 0])
