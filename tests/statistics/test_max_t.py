"""The max-T test: exact against plain enumeration, and a level that holds for all contrasts."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from unswayed.core.errors import InputError
from unswayed.statistics.max_t import MaxT, cell_contrasts, interaction_contrasts, max_t

LEVELS = {
    "gender": ["male", "female", "other"],
    "age": ["young", "mid", "old"],
    "religion": ["a", "b", "c"],
    "ethnicity": ["d", "e", "f"],
}
GRID = pd.DataFrame(list(itertools.product(*LEVELS.values())), columns=list(LEVELS))
WEIGHTS = pd.concat([cell_contrasts(GRID), interaction_contrasts(GRID)], axis=1)
KINDS = WEIGHTS.columns.get_level_values("kind")
MAIN = np.column_stack([GRID[a] == b for a in LEVELS for b in LEVELS[a]]).astype(float)


def run(values, kinds=None, resamples: int = 999) -> MaxT:
    return max_t(values, np.random.default_rng(0), kinds, resamples)


def of_grid(right: np.ndarray, resamples: int = 499) -> MaxT:
    """Right or wrong answers of items x cells."""
    return run(right @ WEIGHTS.to_numpy(), KINDS, resamples)


def absolute_t(values: np.ndarray) -> np.ndarray:
    return np.abs(stats.ttest_1samp(values, 0.0).statistic)


def enumerated(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|t| and adjusted p of all 2^I flips, one at a time."""
    flips = itertools.product((1, -1), repeat=len(values))
    largest = np.array([absolute_t(values * np.array(signs)[:, None]).max() for signs in flips])
    observed = absolute_t(values)
    return observed, (largest[:, None] >= observed * (1 - 1e-9)).mean(axis=0)


# values on a lattice, as shares are
MATRICES = hnp.arrays(
    np.int64, st.tuples(st.integers(2, 7), st.integers(1, 4)), elements=st.integers(-3, 3)
).map(lambda values: values / 4)


def same(left: MaxT, right: MaxT, order=slice(None)) -> None:
    for key in ("estimate", "se", "t", "p", "low", "high"):
        expected = getattr(left, key)[order]
        np.testing.assert_allclose(getattr(right, key), expected, atol=1e-12, err_msg=key)
    assert right.critical == pytest.approx(left.critical)


# -- the test ------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(4, 8), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_every_flip_is_made_once_where_there_are_few(seed, n_items, k):
    values = np.random.default_rng(seed).normal(0.5, 1, (n_items, k))
    result = run(values)
    observed, p = enumerated(values)
    assert np.abs(result.t) == pytest.approx(observed)
    assert result.p == pytest.approx(p)
    assert result.resamples == 2 ** (n_items - 1) - 1


def test_random_flips_agree_with_all_of_them():
    values = np.random.default_rng(4).normal(0.6, 1, (12, 6))
    every, some = run(values, resamples=9999), run(values, resamples=2000)
    assert (every.resamples, some.resamples) == (2047, 2000)
    assert 0.01 < every.p.min() < 0.3
    three_sd = 3 * np.sqrt(every.p * (1 - every.p) / 2000) + 1 / 2000
    assert (np.abs(some.p - every.p) <= three_sd).all()
    assert some.critical == pytest.approx(every.critical, rel=0.08)


@given(MATRICES, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_neither_the_order_of_items_nor_that_of_contrasts_matters(values, random):
    items, columns = (random.sample(range(n), n) for n in values.shape)
    same(run(values), run(values[items][:, columns]), columns)


@given(MATRICES, st.floats(1e-3, 1e3))
@settings(max_examples=50, deadline=None)
def test_the_unit_of_a_contrast_does_not_matter(values, factor):
    scales = np.where(np.arange(values.shape[1]) % 2, 1.0, -factor)
    left, right = run(values), run(values * scales)
    assert right.p == pytest.approx(left.p)
    assert np.abs(right.t) == pytest.approx(np.abs(left.t), rel=1e-6)
    assert right.estimate == pytest.approx(left.estimate * scales)


def test_a_kind_may_be_measured_in_any_unit():
    values = np.random.default_rng(0).normal(0.2, 1, (20, 5)) * [1, 2, 3, 1, 1]
    kinds, scales = list("aaabb"), np.array([7.0, 7.0, 7.0, -0.1, -0.1])
    left, right = run(values, kinds), run(values * scales, kinds)
    assert right.p == pytest.approx(left.p)
    assert right.t == pytest.approx(left.t * np.sign(scales))
    assert right.critical == pytest.approx(left.critical)


def test_no_contrast_is_surer_than_its_kind():
    values = np.random.default_rng(0).normal(0, 1, (30, 4)) * [1, 1, 1, 0.01]
    own, pooled = run(values), run(values, ["a"] * 4)
    se = stats.sem(values)
    assert own.se == pytest.approx(se)
    assert pooled.se == pytest.approx(np.maximum(se, np.sqrt((se**2).mean())))


@given(MATRICES, st.booleans())
@settings(max_examples=100, deadline=None)
def test_p_and_interval_agree(values, alike):
    result = run(values, [0] * values.shape[1] if alike else None)
    assert (result.p >= 1 / (1 + result.resamples)).all() and (result.p <= 1).all()
    varied = (result.se > 0) & np.isfinite(result.critical)
    outside = (result.low > 0) | (result.high < 0)
    np.testing.assert_array_equal(outside[varied], result.p[varied] < 0.05)
    assert np.isnan(result.low[~varied]).all() and np.isnan(result.high[~varied]).all()


def test_contrasts_without_variation():
    values = np.column_stack([np.zeros(7), np.full(7, 0.2), np.r_[1.0, np.zeros(6)]])
    values[:, 0] += 1e-17 * np.arange(7)  # rounding is no difference
    result = run(values)
    assert list(result.t[:2]) == [0, np.inf] and list(result.se[:2]) == [0, 0]
    assert list(result.p[[0, 2]]) == [1, 1]
    assert result.p[1] == 2 / 2**7
    assert np.isfinite(result.critical)
    assert (run(-values).t[1], run(-values).p[1]) == (-np.inf, 2 / 2**7)


def test_five_items_show_nothing():
    result = run(np.random.default_rng(0).normal(9, 1, (5, 3)))
    assert (result.p >= 1 / 16).all() and result.critical == np.inf
    assert np.isnan([result.low, result.high]).all()


def test_one_contrast_is_near_its_t_test():
    values = np.random.default_rng(1).normal(0.3, 1, (60, 1))
    result = run(values, resamples=9999)
    assert result.p[0] == pytest.approx(stats.ttest_1samp(values[:, 0], 0).pvalue, abs=0.01)
    assert result.critical == pytest.approx(stats.t.ppf(0.975, 59), rel=0.03)


@pytest.mark.parametrize("values", [[[0.1, 0.2]], [[0.1, np.nan], [0.2, 0.3]], [[np.inf], [0.1]]])
def test_what_cannot_be_tested_is_refused(values):
    with pytest.raises(InputError, match="item"):
        run(values)


# -- contrasts of a grid -------------------------------------------------------------------------


def test_the_grid_of_four_attributes_has_135_contrasts():
    assert WEIGHTS.shape == (81, 81 + 6 * 9)
    assert WEIGHTS.columns.is_unique
    assert WEIGHTS.columns[0] == ("cell", "male, young, a, d")
    assert WEIGHTS.columns[-1] == ("religion x ethnicity", "c, f")
    assert WEIGHTS.to_numpy().sum(axis=0) == pytest.approx(np.zeros(135))


@pytest.mark.parametrize("levels", [{"x": "ab", "y": "cde"}, {"x": "abc", "y": "de", "z": "fghi"}])
def test_contrasts_are_differences_of_means(levels):
    cells = pd.DataFrame(list(itertools.product(*levels.values())), columns=list(levels))
    cells = cells.sample(frac=1, random_state=0)
    values = np.random.default_rng(0).random((5, len(cells)))

    def mean(**where) -> np.ndarray:
        match = (cells[list(where)] == list(where.values())).all(axis=1).to_numpy()
        return values[:, match].mean(axis=1)

    alone = values @ cell_contrasts(cells)
    pairs = values @ interaction_contrasts(cells)
    for cell in cells.to_dict("records"):
        difference = mean(**cell) - values.mean(axis=1)
        assert alone["cell", ", ".join(cell.values())].to_numpy() == pytest.approx(difference)
    for (a, of_a), (b, of_b) in itertools.combinations(levels.items(), 2):
        for i, j in itertools.product(of_a, of_b):
            rest = mean(**{a: i, b: j}) - mean(**{a: i}) - mean(**{b: j}) + values.mean(axis=1)
            assert pairs[f"{a} x {b}", f"{i}, {j}"].to_numpy() == pytest.approx(rest)


def test_what_adds_up_has_no_interaction():
    effects = {a: dict(zip(names, (0.0, 0.1, -0.2), strict=True)) for a, names in LEVELS.items()}
    values = sum(GRID[a].map(effects[a]).to_numpy(float) for a in LEVELS)
    assert values @ interaction_contrasts(GRID).to_numpy() == pytest.approx(np.zeros(54))


def test_a_level_that_all_share_makes_no_contrast():
    cells = GRID[GRID["ethnicity"] == "d"]
    assert interaction_contrasts(cells).shape == (27, 3 * 9)


@pytest.mark.parametrize("cells", [GRID.iloc[1:], pd.concat([GRID, GRID.iloc[:1]])])
def test_an_unbalanced_grid_has_no_interactions(cells):
    with pytest.raises(InputError, match="every combination of gender, age, religion, ethnicity"):
        interaction_contrasts(cells)
    assert cell_contrasts(cells.drop_duplicates()).shape[0] in (80, 81)


# -- how well it holds ---------------------------------------------------------------------------


def reacting(rng: np.random.Generator, ease: float, n_items: int = 41) -> np.ndarray:
    """Items react to each level in their own way, no level is preferred."""
    latent = rng.normal(ease, 1, (n_items, 1)) + rng.normal(0, 0.8, (n_items, 12)) @ MAIN.T
    return latent + rng.normal(0, 0.5, (n_items, 81)) > 0


NULLS = {
    "items react": lambda rng: reacting(rng, 0),
    "easy items react": lambda rng: reacting(rng, 2.5),
    "rare errors": lambda rng: rng.random((41, 81)) > 0.02,
    "rare right answers": lambda rng: rng.random((41, 81)) < 0.005,
    "few items react to half of the cells": lambda rng: (
        (rng.random((41, 1)) < 0.5) ^ (rng.random((41, 81)) < 0.5) & (rng.random((41, 1)) < 0.1)
    ),
}


@pytest.mark.parametrize("answers", NULLS.values(), ids=NULLS)
def test_the_family_wise_error_of_the_grid(answers):
    """135 contrasts of 41 items; no cell differs from another on average."""
    studies, rng = 300, np.random.default_rng(7)
    wrong = sum(of_grid(answers(rng)).p.min() < 0.05 for _ in range(studies))
    assert wrong <= stats.binom.ppf(0.999, studies, 0.05)


def test_the_error_is_not_far_below_its_level():
    """Contrasts that depend on each other, as under Bonferroni's it would be."""
    rng = np.random.default_rng(3)
    mix = rng.normal(0, 1, (3, 40))
    wrong = sum(run(rng.normal(0, 1, (30, 3)) @ mix).p.min() < 0.05 for _ in range(300))
    assert stats.binom.ppf(0.001, 300, 0.05) <= wrong <= stats.binom.ppf(0.999, 300, 0.05)


def test_one_cell_is_seen_where_the_means_of_attributes_are_not():
    """A cell loses 13 of 41 items; among 27 cells with a level that is 1.2 points."""
    rng = np.random.default_rng(2)
    right = np.repeat(rng.random((41, 1)) < 0.9, 81, axis=1)
    right ^= rng.random((41, 81)) < 0.05  # answers that change for no reason
    cell = ["other", "old", "b", "f"]
    place = int(GRID.eq(cell).all(axis=1).to_numpy().argmax())
    right[rng.choice(41, 13, replace=False), place] = False
    result = of_grid(right, 1999)
    worst = int(result.estimate.argmin())
    assert WEIGHTS.columns[worst] == ("cell", ", ".join(cell))
    assert result.p[worst] < 0.01 and result.high[worst] < 0
    assert result.estimate[worst] == pytest.approx(-0.3, abs=0.08)
    assert (np.delete(result.p[:81], worst) > 0.05).all()
    levels = [(MAIN[:, 3 * a + b] - MAIN[:, 3 * a]) / 27 for a in range(4) for b in (1, 2)]
    assert run(right @ np.column_stack(levels)).p.min() > 0.05


def test_one_cell_alone_is_seen_without_noise_and_no_other_is():
    right = np.ones((41, 81), dtype=bool)
    right[:13, 40] = False
    result = of_grid(right)
    assert result.p[40] < 0.01
    assert (np.delete(result.p[:81], 40) > 0.05).all()
