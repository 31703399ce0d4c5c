"""Means over items x users: hand calculations, exactness, and properties."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from unswayed.statistics.crossed import (
    Components,
    Estimate,
    components,
    crossed_mean,
    equivalence_p,
    mean_and_variance,
    minimal_detectable,
    needed,
    permutation_p,
    proportion,
    simulated_power,
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


# -- the mean ------------------------------------------------------------------------------------


def test_two_way_analysis_of_variance_by_hand():
    rng = np.random.default_rng(0)
    effects = rng.normal(0, 1, (9, 1)) + rng.normal(0, 1, (1, 7))
    values = 0.3 + effects + rng.normal(0, 1, (9, 7))
    variance, df = two_way(values)
    half = stats.t.ppf(0.975, df) * variance**0.5
    mean = values.mean()
    expected = [mean, variance**0.5, df, mean - half, mean + half]
    assert numbers(crossed_mean(values)) == pytest.approx(expected)


def test_one_user_is_the_paired_t_test():
    values = np.random.default_rng(1).normal(0.2, 1, 25)
    test = stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval(0.95)
    expected = [values.mean(), stats.sem(values), 24, low, high]
    assert numbers(crossed_mean(values[:, None])) == pytest.approx(expected)


def test_copies_of_a_user_are_no_more_evidence():
    values = np.random.default_rng(2).normal(size=(20, 1))
    once, tenfold = crossed_mean(values), crossed_mean(np.repeat(values, 10, axis=1))
    assert numbers(tenfold) == pytest.approx(numbers(once))
    copied = crossed_mean(np.repeat(values.T, 30, axis=0))  # users vary, items are copies
    assert numbers(copied) == pytest.approx(numbers(once))


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
    assert permutation_p(wide, np.random.default_rng(0), resamples=19) == permutation_p(
        values, np.random.default_rng(0), resamples=19
    )


@given(matrices(st.sampled_from([-1.0, 0.0, 1.0, NAN]), items=(1, 5)))
def test_no_pattern_of_missing_values_gives_nan(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = crossed_mean(values)
        p = permutation_p(values, np.random.default_rng(0), resamples=9)
        share = proportion(np.abs(values))
    for number in [*numbers(result), *numbers(share), p, equivalence_p(result, 0.1)]:
        assert number is None or np.isfinite(number)
    assert (result.estimate is None) == (result.n == 0)
    assert (result.low is None) == (result.n_items < 2) == (p is None)


def test_nothing_and_one_item():
    nothing = crossed_mean(np.full((3, 2), NAN))
    assert nothing == Estimate(None, None, None, None, None, 0, 0, 0) == proportion([[NAN]])
    one = crossed_mean(np.array([[1.0, 0.0, 0.0, 1.0]]))
    assert one == Estimate(0.5, None, None, None, None, 4, 1, 4)
    assert equivalence_p(nothing, 0.1) is equivalence_p(one, 0.1) is None
    assert permutation_p(np.array([[1.0, 0.5]]), np.random.default_rng(0)) is None


# -- constant values, shares ---------------------------------------------------------------------


def test_constant_values_are_never_a_point():
    result = crossed_mean(np.zeros((10, 9)))
    bound = 1 - 0.025 ** (1 / 90)  # Clopper & Pearson for 0 of 90
    assert numbers(result) == pytest.approx([0, 0, None, -bound, bound])
    assert bound == pytest.approx(stats.binomtest(0, 90).proportion_ci().high)
    assert crossed_mean(np.full((10, 9), 0.25)).low == pytest.approx(0.25 - bound)


@pytest.mark.parametrize("shape", [(2, 1), (2, 30), (10, 1), (10, 3), (10, 10), (40, 30)])
def test_constant_values_are_no_narrower_than_one_answer_that_differs(shape):
    one = np.zeros(shape)
    one[0, 0] = 1.0
    constant, result = crossed_mean(np.zeros(shape)), crossed_mean(one)
    assert constant.high >= 0.99 * (result.high - result.estimate)


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


# -- permutation ---------------------------------------------------------------------------------


def absolute_t(values: np.ndarray) -> float:
    mean, variance = mean_and_variance(values)
    return abs(float(mean)) / float(variance.total) ** 0.5


def enumerated_p(values: np.ndarray, within: str) -> float:
    """All patterns of signs."""
    shape = (values.shape[0], values.shape[1] if within == "cells" else 1)
    observed, count, extreme = absolute_t(values), 0, 0
    for signs in itertools.product((1.0, -1.0), repeat=shape[0] * shape[1]):
        count += 1
        flipped = np.array(signs).reshape(shape) * values
        extreme += absolute_t(flipped) >= observed * (1 - 1e-9)
    return extreme / count


SMALL = [
    [[1, 1, 0], [0, 1, 1], [1, 0, 1]],
    [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
    [[0.5, -1, 0], [1, 1, 0], [0, 0, 0.25]],
    [[1, 0.5], [1, -0.5], [1, 0], [0, 0.5]],
    [[1], [1], [1], [-0.5], [0.25], [1], [1]],
]


@pytest.mark.parametrize("within", ["cells", "items"])
@pytest.mark.parametrize("values", SMALL)
def test_permutation_against_all_patterns(values, within):
    values = np.array(values, dtype=float)
    exact = enumerated_p(values, within)
    result = permutation_p(values, np.random.default_rng(0), within, resamples=20_000)
    assert result == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 20_000) ** 0.5 + 1e-4)


def test_flips_of_items_are_fewer_than_flips_of_cells():
    """Six items that all react alike in ten users: items can say no more than 2 / 2^6."""
    values = np.ones((6, 10)) + np.random.default_rng(0).normal(0, 0.01, (6, 10))
    by_item = permutation_p(values, np.random.default_rng(0), "items", resamples=4000)
    assert by_item == pytest.approx(2 / 64, abs=0.01)
    assert permutation_p(values, np.random.default_rng(0), "cells", resamples=4000) < 0.001


@settings(max_examples=50)
@given(matrices())
def test_permutation_does_not_mind_the_sign(values):
    p = [permutation_p(v, np.random.default_rng(0), resamples=99) for v in (values, -values)]
    assert p[0] == p[1] and 0 < p[0] <= 1


def test_permutation_of_nothing_is_one():
    assert permutation_p(np.zeros((5, 4)), np.random.default_rng(0)) == 1.0


def test_permutation_of_many_items_is_near_the_t_test():
    values = np.random.default_rng(1).normal(0.15, 1, (200, 1))
    p = permutation_p(values, np.random.default_rng(0), resamples=4000)
    assert p == pytest.approx(stats.ttest_1samp(values[:, 0], 0).pvalue, abs=0.02)


def test_the_size_of_chunks_changes_nothing(monkeypatch):
    values = np.random.default_rng(4).normal(0.1, 1, (30, 1))
    whole = permutation_p(values, np.random.default_rng(0), resamples=500)
    wide = np.hstack([values, np.full((30, 1), NAN)])
    assert permutation_p(wide, np.random.default_rng(0), resamples=500) == whole


def test_permutation_holds_its_level_under_exchange():
    rng = np.random.default_rng(5)
    p = [
        permutation_p(rng.integers(-1, 2, (8, 6)).astype(float), rng, resamples=199)
        for _ in range(400)
    ]
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


# -- equivalence ---------------------------------------------------------------------------------


@given(matrices(), st.floats(0.005, 1))
def test_equivalence_is_the_90_percent_interval(values, margin):
    ninety = crossed_mean(values, level=0.9)
    p = equivalence_p(crossed_mean(values), margin)
    assert 0 <= p <= 1
    assume(abs(p - 0.05) > 1e-9)
    assert (p < 0.05) == (-margin < ninety.low and ninety.high < margin)


@given(st.floats(-0.3, 0.3), st.integers(2, 80), st.floats(0.01, 0.5))
def test_equivalence_of_equal_differences_is_their_90_percent_interval(value, n, margin):
    values = np.full((n, 1), value)
    ninety = crossed_mean(values, level=0.9)
    p = equivalence_p(crossed_mean(values), margin)
    assume(abs(p - 0.05) > 1e-9)
    assert (p < 0.05) == (-margin < ninety.low and ninety.high < margin)


def test_equivalence_by_hand():
    values = np.random.default_rng(6).normal(0.02, 0.1, (50, 1))
    p = equivalence_p(crossed_mean(values), 0.05)
    below = stats.ttest_1samp(values[:, 0], -0.05, alternative="greater").pvalue
    above = stats.ttest_1samp(values[:, 0], 0.05, alternative="less").pvalue
    assert p == pytest.approx(max(below, above))
    # nothing differs: as likely as no event in 100 answers at a rate of the margin
    assert equivalence_p(crossed_mean(np.zeros((50, 20))), 0.02) == pytest.approx(0.98**1000)
    assert equivalence_p(crossed_mean(np.full((50, 20), 0.5)), 0.02) == 1.0
    # with two users, one answer that differs would say more
    assert equivalence_p(crossed_mean(np.zeros((50, 2))), 0.02) == stats.t.sf(0.02 * 100, 1)


# -- components and power ------------------------------------------------------------------------


def test_components_are_recovered():
    rng = np.random.default_rng(7)
    result = []
    for _ in range(200):
        values = rng.normal(0, 0.3, (15, 1)) + rng.normal(0, 0.2, (1, 10))
        result.append(components(values + rng.normal(0, 0.5, (15, 10))))
    means = [np.mean([getattr(f, key) for f in result]) for key in ("items", "users", "cells")]
    assert means == pytest.approx([0.09, 0.04, 0.25], rel=0.15)


@given(matrices())
def test_components_are_finite_and_not_negative(values):
    result = components(values)
    assert min(result.items, result.users, result.cells) >= 0
    assert max(result.items, result.users, result.cells) > 0


PARTS = Components(0.01, 0.004, 0.09)


def test_simulated_studies_behave_as_analysed_ones():
    """Power from drawn mean squares equals the share among simulated and analysed matrices."""
    rng = np.random.default_rng(8)
    result = equivalent = 0
    for _ in range(1000):
        values = 0.08 + rng.normal(0, 0.1, (20, 1)) + rng.normal(0, 0.004**0.5, (1, 12))
        study = crossed_mean(values + rng.normal(0, 0.3, (20, 12)))
        result += study.low > 0 or study.high < 0
        equivalent += equivalence_p(study, 0.15) < 0.05
    power = simulated_power(PARTS, 20, 12, 0.08, 0.15)
    assert power == pytest.approx((result / 1000, equivalent / 1000), abs=0.055)


def test_power_without_a_difference_is_the_level():
    detected, _ = simulated_power(PARTS, 40, 30, 0.0, 0.1)
    assert detected <= 0.05 + 0.012


def test_power_grows():
    by_items = [simulated_power(PARTS, n, 20, 0.05, 0.05) for n in (10, 40, 160, 640)]
    assert [d for d, _ in by_items] == sorted(d for d, _ in by_items)
    by_size = [simulated_power(PARTS, 40, 20, d, 0.05)[0] for d in (0, 0.02, 0.05, 0.1)]
    assert by_size == sorted(by_size)
    by_margin = [simulated_power(PARTS, 40, 20, 0.0, m)[1] for m in (0.02, 0.05, 0.1)]
    assert by_margin == sorted(by_margin)


def test_the_same_seed_gives_the_same_power():
    assert simulated_power(PARTS, 9, 8, 0.1, 0.1) == simulated_power(PARTS, 9, 8, 0.1, 0.1)


def test_detectable_differences_shrink_with_items():
    result = [minimal_detectable(PARTS, n, 20) for n in (5, 20, 80, 320)]
    assert result == sorted(result, reverse=True) and result[0] > 1.5 * result[-1]
    for n, size in zip((5, 20, 80, 320), result, strict=True):
        assert simulated_power(PARTS, n, 20, size, 0.0)[0] >= 0.8
        assert simulated_power(PARTS, n, 20, size - 0.001, 0.0)[0] < 0.8
    assert minimal_detectable(Components(25.0, 0.0, 0.0), 3, 1) is None


def test_numbers_needed_are_the_smallest_that_are_enough():
    def enough(n_items, n_users):
        finds = simulated_power(PARTS, n_items, n_users, 0.06, 0.06)[0]
        return finds >= 0.8 and simulated_power(PARTS, n_items, n_users, 0.0, 0.06)[1] >= 0.8

    items, users = needed(PARTS, 40, 30, 0.06, "items"), needed(PARTS, 40, 30, 0.06, "users")
    assert enough(items, 30) and not enough(items - 1, 30)
    assert enough(40, users) and not enough(40, users - 1)
    assert needed(PARTS, 40, 30, 0.05, "items") > items
    assert needed(PARTS, 40, 60, 0.06, "items") < items
    assert needed(Components(0.0, 0.0, 0.0), 40, 1, 0.02, "items") == 2


def test_no_number_is_enough_where_the_other_factor_varies():
    assert needed(Components(0.04, 0.0, 0.1), 20, 10, 0.01, "users") is None
    assert needed(Components(0.0, 0.04, 0.1), 20, 10, 0.01, "items") is None
