"""Hotelling's T2 against statsmodels, and where it must not give a number."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multivariate import test_mvmean as mvmean

from unswayed.statistics.hotelling import hotelling
from unswayed.statistics.mixed import analyse_grid

LEVELS = {"gender": ["male", "female", "other"], "age": ["mid", "young", "old"]}


def normal(n_items: int, q: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.2, 1, (n_items, q)) * np.arange(1, q + 1)


@given(st.integers(3, 40), st.integers(2, 5), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_it_is_that_of_statsmodels(n_items, q, seed):
    values = normal(n_items, q, seed)
    result = hotelling(values)
    if n_items <= q:
        assert result["p"] is None and "too few" in result["note"]
        return
    reference = mvmean(values)
    assert result["f"] == pytest.approx(reference.statistic, rel=1e-6)
    assert (result["df1"], result["df2"]) == reference.df
    assert result["p"] == pytest.approx(reference.pvalue, rel=1e-5)
    assert result["note"] is None


def test_one_contrast_is_a_t_test():
    values = normal(20, 1)
    t = stats.ttest_1samp(values[:, 0], 0)
    assert hotelling(values)["f"] == pytest.approx(t.statistic**2)
    assert hotelling(values)["p"] == pytest.approx(t.pvalue)


@given(st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_which_level_is_the_reference_does_not_matter(seed):
    values = normal(15, 3, seed)
    other = values @ np.array([[1.0, -1, 0], [0, 1, 1], [2, 0, 1]])
    assert hotelling(other)["p"] == pytest.approx(hotelling(values)["p"])


def test_contrasts_that_go_together_count_once():
    values = normal(15, 2)
    result = hotelling(np.column_stack([values, values.sum(axis=1), np.zeros(15)]))
    reference = hotelling(values)
    assert result["p"] == pytest.approx(reference["p"])
    assert (result["df1"], result["df2"]) == (2, 13)
    assert result["note"] == "only 2 of 4 contrasts vary apart"


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (np.zeros((9, 2)), "no item is answered differently"),
        (np.full((9, 2), 0.5), "a contrast is the same on every item"),
        (np.column_stack([np.arange(9.0), np.ones(9)]), "a contrast is the same on every item"),
        (np.ones((2, 2)), "2 items are too few for 2 contrasts"),
        (np.ones((1, 1)), "1 items are too few for 1 contrasts"),
    ],
)
def test_where_there_is_no_test(values, note):
    result = hotelling(values)
    assert note in result["note"]
    assert {result[key] for key in ("f", "df1", "df2", "p")} == {None}


# -- beside the mixed model ----------------------------------------------------------------------


def grid(right: np.ndarray) -> pd.DataFrame:
    """Answers (I, cells) as rows."""
    cells = list(itertools.product(*LEVELS.values()))
    return pd.DataFrame(
        [
            {"question_id": f"q{i}", **dict(zip(LEVELS, cell, strict=True)), "correct": right[i, j]}
            for i in range(len(right))
            for j, cell in enumerate(cells)
        ]
    )


def level_contrasts(rows: pd.DataFrame, attribute: str) -> np.ndarray:
    means = rows.astype({"correct": float}).pivot_table(
        index="question_id", columns=attribute, values="correct"
    )
    reference, *others = LEVELS[attribute]
    return (means[others].sub(means[reference], axis=0)).to_numpy()


@pytest.mark.parametrize("interactions", [False, True])
def test_beside_each_wald_test_stands_that_over_items(interactions):
    rows = grid(np.random.default_rng(0).random((25, 9)) < 0.6)
    result = analyse_grid(rows, LEVELS, interactions)
    for test in result.attributes:
        reference = hotelling(level_contrasts(rows, test["attribute"]))
        for key, value in reference.items():
            assert test["robust"][key] == (value if key == "note" else pytest.approx(value)), key
        assert test["robust"]["p_holm"] >= test["robust"]["p"]
    if interactions:
        cells = rows["correct"].to_numpy(float).reshape(25, 3, 3)
        apart = cells[:, 1:, 1:] - cells[:, 1:, :1] - cells[:, :1, 1:] + cells[:, :1, :1]
        (test,) = result.interactions
        assert test["robust"]["f"] == pytest.approx(hotelling(apart.reshape(25, 4))["f"])
        assert (test["robust"]["df1"], test["robust"]["df2"]) == (4, 21)


def test_missing_answers_are_adjusted_for_within_the_item():
    """A missing easy cell must not make its level look worse."""
    rng = np.random.default_rng(1)
    right = np.tile([False, True, True], (30, 3)) ^ (rng.random((30, 9)) < 0.1)
    rows = grid(right)
    hole = (rows["gender"] == "male") & (rows["age"] != "mid")
    rows = rows[~(hole & (rng.random(len(rows)) < 0.5))]
    result = {t["attribute"]: t["robust"] for t in analyse_grid(rows, LEVELS).attributes}
    assert result["gender"]["p"] > 0.05 > 1e-6 > result["age"]["p"]
    gone = rows[~((rows["question_id"] == "q3") & (rows["age"] == "old"))]
    for test in analyse_grid(gone, LEVELS).attributes:
        assert test["robust"]["p"] is None
        assert "an item lacks answers for a level" in test["robust"]["note"]


def own_ways(rng: np.random.Generator) -> np.ndarray:
    """Answers (30 items, 9 cells): an item reacts to each gender as it likes, none is preferred."""
    own = np.repeat(rng.normal(0, 1.5, (30, 3)), 3, axis=1)
    return own + rng.normal(0, 0.5, (30, 9)) > 0


def test_its_level_where_items_react_in_their_own_ways():
    rng, studies = np.random.default_rng(0), 500
    genders = (own_ways(rng).reshape(30, 3, 3).mean(axis=2) for _ in range(studies))
    wrong = sum(hotelling(g[:, 1:] - g[:, :1])["p"] < 0.05 for g in genders)
    low, high = stats.binom.ppf([0.001, 0.999], studies, 0.05)
    assert low <= wrong <= high


def test_the_wald_test_takes_each_repetition_for_new():
    rng = np.random.default_rng(0)
    pairs = [analyse_grid(grid(own_ways(rng)), LEVELS).attributes[0] for _ in range(8)]
    assert max(gender["robust"]["p"] / gender["p"] for gender in pairs) > 5
    assert all(gender["robust"]["p"] > gender["p"] for gender in pairs)
