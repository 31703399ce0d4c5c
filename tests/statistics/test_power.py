"""Power: components are recovered, and what is printed agrees with studies that are analysed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unswayed.statistics.crossed import crossed_mean, equivalence_p
from unswayed.statistics.power import (
    Components,
    components,
    minimal_detectable,
    needed,
    simulated_power,
)


def test_components_are_recovered():
    rng = np.random.default_rng(7)
    result = []
    for _ in range(200):
        values = rng.normal(0, 0.3, (15, 1)) + rng.normal(0, 0.2, (1, 10))
        result.append(components(values + rng.normal(0, 0.5, (15, 10))))
    means = [np.mean([getattr(f, key) for f in result]) for key in ("items", "users", "cells")]
    assert means == pytest.approx([0.09, 0.04, 0.25], rel=0.15)


@given(
    arrays(
        float,
        st.tuples(st.integers(2, 7), st.integers(1, 6)),
        elements=st.sampled_from([-1.0, 0.0, 0.5]),
    )
)
def test_components_are_finite_and_not_negative(values):
    result = components(values)
    assert min(result.items, result.users, result.cells) >= 0
    assert max(result.items, result.users, result.cells) > 0


PARTS = Components(0.01, 0.004, 0.09)


def test_simulated_studies_behave_as_analysed_ones():
    """Power from drawn mean squares equals the share among simulated and analysed matrices."""
    rng = np.random.default_rng(8)
    found = equivalent = 0
    for _ in range(600):
        values = 0.08 + rng.normal(0, 0.1, (20, 1)) + rng.normal(0, 0.004**0.5, (1, 12))
        values += rng.normal(0, 0.3, (20, 12))
        found += crossed_mean(values).p < 0.05 / 3
        equivalent += equivalence_p(values, 0.15) < 0.05
    power = simulated_power(PARTS, 20, 12, 0.08, 0.15, alpha=0.05 / 3)
    assert power == pytest.approx((found / 600, equivalent / 600), abs=0.06)


def test_power_without_a_difference_is_the_level():
    detected, _ = simulated_power(PARTS, 40, 30, 0.0, 0.1)
    assert detected <= 0.05 + 0.012


def test_a_smaller_alpha_lowers_power_and_asks_for_more():
    detected = [simulated_power(PARTS, 60, 20, 0.06, 0.06, 0.05 / k) for k in (1, 2, 8)]
    assert detected[0][0] > detected[1][0] > detected[2][0]
    assert len({equivalent for _, equivalent in detected}) == 1  # claimed at 0.05 each
    sizes = [minimal_detectable(PARTS, 60, 20, 0.05 / k) for k in (1, 2, 8)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert needed(PARTS, 60, 30, 0.06, "items", 0.05 / 8) > needed(PARTS, 60, 30, 0.06, "items")


def test_no_equivalence_below_the_fewest_items():
    tiny = Components(1e-6, 0.0, 1e-6)
    powers = [simulated_power(tiny, n, 10, 0.0, 0.05)[1] for n in (58, 59)]
    assert powers == [0.0, 1.0]


def test_components_where_no_difference_differs():
    assert components(np.zeros((40, 10))) == Components(pytest.approx(1 - 0.05 ** (1 / 40)), 0, 0)


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
        assert simulated_power(PARTS, n, 20, size, 0.5)[0] >= 0.8
        assert simulated_power(PARTS, n, 20, size - 0.001, 0.5)[0] < 0.8
    assert minimal_detectable(Components(25.0, 0.0, 0.0), 3, 1) is None


def test_numbers_needed_are_the_smallest_that_are_enough():
    def enough(n_items, n_users):
        finds = simulated_power(PARTS, n_items, n_users, 0.06, 0.06)[0]
        return finds >= 0.8 and simulated_power(PARTS, n_items, n_users, 0.0, 0.06)[1] >= 0.8

    items, users = needed(PARTS, 60, 30, 0.06, "items"), needed(PARTS, 60, 30, 0.06, "users")
    assert enough(items, 30) and not enough(items - 1, 30)
    assert enough(60, users) and not enough(60, users - 1)
    assert needed(PARTS, 40, 30, 0.05, "items") > items
    assert needed(Components(0.0, 0.0, 0.0), 40, 1, 0.02, "items") == 149  # the guard alone
    assert needed(Components(0.0, 0.0, 0.0), 148, 10, 0.02, "users") is None


def test_no_number_is_enough_where_the_other_factor_varies():
    assert needed(Components(0.04, 0.0, 0.1), 20, 10, 0.01, "users") is None
    assert needed(Components(0.0, 0.04, 0.1), 20, 10, 0.01, "items") is None
