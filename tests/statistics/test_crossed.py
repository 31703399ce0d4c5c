"""Means over items x users: hand calculations, exactness, and properties."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import optimize, stats

from unswayed.statistics.crossed import (
    Estimate,
    crossed_mean,
    equivalence_p,
    fewest_items,
    johnson_interval,
    johnson_p,
    mean_and_variance,
    proportion,
)

NAN = np.nan
DIFFERENCES = st.sampled_from([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0])
RATES = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.0])


def matrices(values=DIFFERENCES, items=(2, 7), users=(1, 6)):
    shapes = st.tuples(st.integers(*items), st.integers(*users))
    return shapes.flatmap(lambda shape: arrays(float, shape, elements=values))


def numbers(result: Estimate) -> list:
    return [result.estimate, result.se, result.df, result.low, result.high]


def two_way(values: np.ndarray) -> tuple[float, float]:
    """Variance of the mean and its degrees of freedom, from sums of squares term by term."""
    n_items, n_users = values.shape
    n = values.size
    grand = values.mean()
    ss_items = n_users * sum((values[i].mean() - grand) ** 2 for i in range(n_items))
    ss_users = n_items * sum((values[:, j].mean() - grand) ** 2 for j in range(n_users))
    ss_rest = ((values - grand) ** 2).sum() - ss_items - ss_users
    dfs = [n_items - 1, n_users - 1, (n_items - 1) * (n_users - 1)]
    parts = [ss / df / n for ss, df in zip((ss_items, ss_users, ss_rest), dfs, strict=True)]
    variance = parts[0] + parts[1] - parts[2]
    return variance, variance**2 / sum(p**2 / df for p, df in zip(parts, dfs, strict=True))


def skewed_t(r: np.ndarray, mean: float) -> float:
    """Hall's (1992) monotone form of Johnson's t of item means, term by term."""
    n, d = len(r), r - r.mean()
    s2 = (d**2).sum() / (n - 1)
    skewness = n / ((n - 1) * (n - 2)) * (d**3).sum() / s2**1.5
    t = (r.mean() - mean) / (s2 / n) ** 0.5
    return (
        t + skewness * t**2 / (3 * n**0.5) + skewness / (6 * n**0.5) + skewness**2 * t**3 / (27 * n)
    )


def skewed_interval(r: np.ndarray, level: float = 0.95) -> list[float]:
    """Means at which it reaches the quantiles of t, by search."""
    reach = stats.t.ppf((1 + level) / 2, len(r) - 1)
    return [
        optimize.brentq(lambda mean, x=x: skewed_t(r, mean) - x, r.mean() - 50, r.mean() + 50)
        for x in (reach, -reach)
    ]


# -- the mean ------------------------------------------------------------------------------------


def test_two_way_analysis_of_variance_by_hand():
    rng = np.random.default_rng(0)
    effects = rng.normal(0, 1, (9, 1)) + rng.normal(0, 1, (1, 7))
    values = 0.3 + effects + rng.normal(0, 1, (9, 7))
    variance, df = two_way(values)
    half = stats.t.ppf(0.975, df) * variance**0.5
    mean, (below, above) = values.mean(), skewed_interval(values.mean(axis=1))
    expected = [mean, variance**0.5, df, min(mean - half, below), max(mean + half, above)]
    result = crossed_mean(values)
    assert numbers(result) == pytest.approx(expected)
    t, at_zero = mean / variance**0.5, skewed_t(values.mean(axis=1), 0)
    p = max(2 * stats.t.sf(abs(t), df), 2 * stats.t.sf(abs(at_zero), 8))
    assert result.p == pytest.approx(p)


def test_one_user_is_the_paired_t_test_where_nothing_is_skewed():
    half = np.random.default_rng(1).normal(0.2, 1, 12)
    values = 0.2 + np.concatenate([half, -half])
    test = stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval(0.95)
    expected = [values.mean(), stats.sem(values), 23, low, high]
    assert numbers(crossed_mean(values[:, None])) == pytest.approx(expected)


def test_copies_of_a_user_are_no_more_evidence():
    values = np.random.default_rng(2).normal(size=(20, 1))
    once, tenfold = crossed_mean(values), crossed_mean(np.repeat(values, 10, axis=1))
    assert numbers(tenfold) == pytest.approx(numbers(once))
    copied = crossed_mean(np.repeat(values.T, 30, axis=0))  # users vary, items are copies
    assert (copied.estimate, copied.se, copied.df) == pytest.approx(numbers(once)[:3])


@given(matrices(), st.randoms(use_true_random=False))
def test_order_does_not_matter(values, random):
    rows, columns = list(range(values.shape[0])), list(range(values.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    shuffled = values[rows][:, columns]
    assert numbers(crossed_mean(shuffled)) == pytest.approx(numbers(crossed_mean(values)))


@given(matrices())
def test_a_change_of_sign_mirrors_the_interval(values):
    result, mirrored = crossed_mean(values), crossed_mean(-values)
    assert mirrored.estimate == pytest.approx(-result.estimate)
    assert (mirrored.low, mirrored.high) == pytest.approx((-result.high, -result.low))


@given(matrices())
def test_degrees_of_freedom_and_order_of_bounds(values):
    result = crossed_mean(values)
    assert result.low < result.estimate < result.high
    if result.df is not None:
        i, j = values.shape[0] - 1, values.shape[1] - 1
        assert result.df == i if j == 0 else min(i, j) <= result.df <= i * j


@given(matrices(users=(2, 6)))
def test_the_variance_is_never_below_its_floor(values):
    _, variance = mean_and_variance(values)
    assert variance.total >= min(variance.items, variance.users) - 1e-15
    assert variance.total >= variance.cells / 4


def test_the_floor_where_items_and_users_vary_less_than_chance():
    checkerboard = np.indices((6, 6)).sum(axis=0) % 2 * 2.0 - 1
    _, variance = mean_and_variance(checkerboard)
    assert variance.items == variance.users == pytest.approx(0)
    assert variance.total == pytest.approx(variance.cells / 4)
    assert crossed_mean(checkerboard).df == 5


# -- missing values ------------------------------------------------------------------------------


def test_one_missing_value_changes_little():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(20, 1)) + rng.normal(size=(1, 15)) + rng.normal(size=(20, 15))
    holed = values.copy()
    holed[4, 7] = NAN
    whole, result = crossed_mean(values), crossed_mean(holed)
    assert result.n == 299 and (result.n_items, result.n_users) == (20, 15)
    assert result.estimate == pytest.approx(np.nanmean(holed))
    assert numbers(result)[1:] == pytest.approx(numbers(whole)[1:], rel=0.1)


@given(matrices(users=(2, 5), items=(3, 6)), st.data())
def test_empty_rows_and_columns_are_dropped(values, data):
    row = data.draw(st.integers(0, values.shape[0]))
    column = data.draw(st.integers(0, values.shape[1]))
    wide = np.insert(np.insert(values, row, NAN, axis=0), column, NAN, axis=1)
    assert crossed_mean(wide) == crossed_mean(values)
    if values.min() >= 0:
        assert proportion(wide) == proportion(values)
    assert equivalence_p(wide, 0.1) == equivalence_p(values, 0.1)


@given(matrices(st.sampled_from([-1.0, 0.0, 1.0, NAN]), items=(1, 5)))
def test_no_pattern_of_missing_values_gives_nan(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = crossed_mean(values)
        p = equivalence_p(values, 0.1)
        share = proportion(np.abs(values))
    for number in [*numbers(result), *numbers(share), result.p, p]:
        assert number is None or np.isfinite(number)
    assert (result.estimate is None) == (result.n == 0)
    assert (result.low is None) == (result.n_items < 2) == (result.p is None) == (p is None)


def test_nothing_and_one_item():
    nothing = crossed_mean(np.full((3, 2), NAN))
    assert equivalence_p(np.full((3, 2), NAN), 0.1) is equivalence_p(np.ones((1, 4)), 0.1) is None
    assert nothing == Estimate(None, None, None, None, None, 0, 0, 0) == proportion([[NAN]])
    one = crossed_mean(np.array([[1.0, 0.0, 0.0, 1.0]]))
    assert one == Estimate(0.5, None, None, None, None, 4, 1, 4)


# -- constant values, shares ---------------------------------------------------------------------


def test_constant_values_are_never_a_point():
    result = crossed_mean(np.zeros((10, 9)))
    bound = 1 - 0.025 ** (1 / 10)  # Clopper & Pearson for 0 of 10 items
    assert numbers(result) == pytest.approx([0, 0, None, -bound, bound]) and result.p == 1
    assert bound == pytest.approx(stats.binomtest(0, 10).proportion_ci().high)
    assert crossed_mean(np.full((10, 9), 0.25)).low == pytest.approx(0.25 - bound)


@given(matrices(RATES))
def test_shares_stay_within_zero_and_one_and_hold_the_estimate(values):
    result = proportion(values)
    assert 0 <= result.low <= result.estimate <= result.high <= 1
    assert result.high - result.low > 0.01
    mirrored = proportion(1 - values)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - result.high, 1 - result.low))


@pytest.mark.parametrize("right", [1, 7, 20, 39])
def test_independent_answers_of_one_user_are_clopper_pearson(right):
    """Korn & Graubard divide by the unbiased variance, so it is that of n - 1 answers."""
    values = np.array([1.0] * right + [0.0] * (40 - right))[:, None]
    result, p = proportion(values), right / 40
    assert result.low == pytest.approx(stats.beta.ppf(0.025, p * 39, (1 - p) * 39 + 1))
    assert result.high == pytest.approx(stats.beta.ppf(0.975, p * 39 + 1, (1 - p) * 39))
    exact = stats.binomtest(right, 40).proportion_ci()
    assert (result.low, result.high) == pytest.approx((exact.low, exact.high), abs=0.005)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_of_zero_and_one_count_items_only(share):
    result = proportion(np.full((12, 30), share))
    exact = stats.binomtest(int(12 * share), 12).proportion_ci()
    assert (result.low, result.high) == pytest.approx((exact.low, exact.high))


@given(matrices(RATES), st.sampled_from([0.5, 0.8, 0.9]))
def test_a_higher_level_is_wider(values, level):
    narrow, wide = proportion(values, level), proportion(values, 0.99)
    assert wide.low <= narrow.low + 1e-12 and narrow.high <= wide.high + 1e-12


# -- p and interval ------------------------------------------------------------------------------

BEYOND = st.sampled_from([-0.2, 0.0, 0.1, 0.4, 0.9])


@given(matrices(), BEYOND, st.integers(1, 5))
def test_p_is_below_the_level_only_where_the_interval_excludes_zero(values, beyond, copies):
    result = crossed_mean(np.repeat(values, copies, axis=0) + beyond)
    assume(min(abs(result.low), abs(result.high), abs(result.p - 0.05)) > 1e-7)
    assert (result.p < 0.05) == (result.low > 0 or result.high < 0)


def test_p_and_interval_where_only_users_differ():
    values = np.tile(np.linspace(0.9, 1.0, 20), (3, 1))  # as in all three items
    result = crossed_mean(values)
    assert result.p == pytest.approx(2 * (1 - 0.95) ** 3) and result.low > 0
    weaker = crossed_mean(values - 0.5)
    assert weaker.p > 0.05 and weaker.low < 0


@given(matrices(items=(3, 8)))
def test_the_interval_holds_both_the_crossed_and_johnsons(values):
    result = crossed_mean(values)
    low, high = johnson_interval(values)
    assert result.low <= low + 1e-12 and high - 1e-12 <= result.high
    if result.df is not None:
        half = result.se * stats.t.ppf(0.975, result.df)
        assert result.low <= result.estimate - half and result.estimate + half <= result.high


@given(matrices(items=(4, 9)), st.sampled_from([0.8, 0.9, 0.95]))
def test_johnson_against_its_formula(values, level):
    r = values.mean(axis=1)
    assume(np.ptp(r) > 0.01)
    low, high = johnson_interval(values, level)
    assert [low, high] == pytest.approx(skewed_interval(r, level), abs=1e-6)
    at_most, at_least = johnson_p(values, 0.1)
    assert at_most == pytest.approx(stats.t.sf(skewed_t(r, 0.1), len(r) - 1), abs=1e-9)
    assert at_most + at_least == pytest.approx(1)
    # neither bound is rejected by less or more than half of what is left
    assert johnson_p(values, low)[0] == pytest.approx((1 - level) / 2)
    assert johnson_p(values, high)[1] == pytest.approx((1 - level) / 2)


def test_johnson_where_item_means_do_not_vary():
    """Zero events among the items, whatever the users do."""
    values = np.tile([0.0, 1.0, 0.2, 0.8], (12, 1))
    low, high = johnson_interval(values)
    assert johnson_p(values, low)[0] == pytest.approx(0.025)
    assert johnson_p(values, high)[1] == pytest.approx(0.025)


@pytest.mark.parametrize("reacting", [2, 3])
def test_a_few_items_that_react_fully_show_neither_a_difference_nor_equivalence(reacting):
    values = np.zeros((41, 30))
    values[:reacting] = 1.0
    result = crossed_mean(values)
    assert result.low < 0 < result.high and result.p > 0.05
    assert equivalence_p(values, 0.05) > 0.05


# -- equivalence ---------------------------------------------------------------------------------


@given(matrices(), st.floats(0.005, 0.9))
def test_equivalence_is_the_largest_of_its_parts(values, margin):
    p, n = equivalence_p(values, margin), len(values)
    parts = [(1 - margin) ** n, johnson_p(values, -margin)[0], johnson_p(values, margin)[1]]
    result = crossed_mean(values)
    if result.df is not None:
        parts += [
            stats.t.sf((result.estimate + margin) / result.se, result.df),
            stats.t.cdf((result.estimate - margin) / result.se, result.df),
        ]
        if values.shape[1] >= fewest_items(margin):  # the claim is about users at large
            parts += [johnson_p(values.T, -margin)[0], johnson_p(values.T, margin)[1]]
    assert p == pytest.approx(max(parts)) and 0 <= p <= 1


@given(matrices(), st.floats(0.005, 0.9))
def test_equivalence_needs_the_90_percent_interval_and_enough_items(values, margin):
    ninety = crossed_mean(values, level=0.9)
    p = equivalence_p(values, margin)
    assume(abs(p - 0.05) > 1e-9)
    enough = len(values) >= fewest_items(margin)
    within = enough and -margin < ninety.low and ninety.high < margin
    at_large = values.shape[1] >= fewest_items(margin)  # then users are tested too
    assert within >= (p < 0.05) if at_large else within == (p < 0.05)


@pytest.mark.parametrize(("margin", "least"), [(0.05, 59), (0.02, 149), (0.1, 29)])
def test_too_few_items_show_no_equivalence(margin, least):
    assert fewest_items(margin) == least
    for n, shown in ((least - 1, False), (least, True)):
        assert (equivalence_p(np.zeros((n, 30)), margin) < 0.05) == shown
        near = np.random.default_rng(0).normal(0, 1e-3, (n, 30))
        assert (equivalence_p(near, margin) < 0.05) == shown


def test_equivalence_of_no_differing_answer_counts_items_not_answers():
    assert equivalence_p(np.zeros((50, 20)), 0.02) == pytest.approx(0.98**50)
    assert equivalence_p(np.full((50, 20), 0.01), 0.02) == pytest.approx(0.99**50)
    assert equivalence_p(np.full((50, 20), 0.5), 0.02) == 1.0
