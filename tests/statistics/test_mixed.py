"""Models of the grid: planted effects come out, and no data set breaks them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unswayed.statistics.mixed import GridModels, analyse_grid, contrast_name, design, fit_mixed

LEVELS = {"gender": ["male", "female"], "age": ["mid", "young", "old"]}
CELLS = [dict(zip(LEVELS, cell, strict=True)) for cell in itertools.product(*LEVELS.values())]


def grid(n_items: int, right: Callable[[int, dict, float], bool], seed: int = 0) -> pd.DataFrame:
    """Answers by `right(item, cell, a random number)`."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        [
            {"question_id": f"q{i}", **cell, "correct": bool(right(i, cell, rng.random()))}
            for i in range(n_items)
            for cell in CELLS
        ]
    )


def noise(i: int, cell: dict, u: float) -> bool:
    return u < 0.6


def by_name(result: GridModels, model: str) -> dict[str, dict]:
    return {c["name"]: c[model] for c in result.contrasts}


# -- what it finds -------------------------------------------------------------------------------


def test_planted_effects_are_recovered():
    base = np.random.default_rng(1).uniform(0.3, 0.7, 300)
    rows = grid(
        300,
        lambda i, c, u: u < base[i] + 0.1 * (c["gender"] == "female") - 0.2 * (c["age"] == "old"),
    )
    result = analyse_grid(rows, LEVELS)
    planted = {"gender: female - male": 0.1, "age: young - mid": 0.0, "age: old - mid": -0.2}
    for model in ("mixed", "logistic"):
        assert getattr(result, model)["converged"]
        for name, contrast in by_name(result, model).items():
            assert abs(contrast["estimate"] - planted[name]) < 3 * contrast["se"] < 0.12
            assert (contrast["p_holm"] < 0.01) == (planted[name] != 0)
    by_attribute = {a["attribute"]: a for a in result.attributes}
    assert [by_attribute[a]["df"] for a in LEVELS] == [1, 2]
    assert max(a["p_holm"] for a in by_attribute.values()) < 1e-4
    assert (result.n, result.n_items, result.interactions) == (1800, 300, [])
    assert result.formula == "correct ~ gender + age"
    assert result.reference == {"gender": "male", "age": "mid"}
    assert result.mixed["item_sd"] == pytest.approx(0.4 / 12**0.5, abs=0.05)


def test_a_planted_interaction_is_found():
    rows = grid(200, lambda i, c, u: u < 0.4 + 0.3 * (c == {"gender": "female", "age": "old"}))
    result = analyse_grid(rows, LEVELS, interactions=True)
    (crossed,) = result.interactions
    assert (crossed["name"], crossed["df"]) == ("gender x age", 2)
    assert crossed["p_holm"] < 1e-6
    assert result.formula == "correct ~ (gender + age)**2"
    # an average over the grid, not the effect at the reference level
    gender = by_name(result, "mixed")["gender: female - male"]["estimate"]
    assert gender == pytest.approx(0.1, abs=0.05)
    nothing = analyse_grid(grid(200, noise), LEVELS, interactions=True)
    assert nothing.interactions[0]["p"] > 0.01


def test_balanced_contrasts_are_differences_of_shares():
    """With or without interactions, in both models; only the errors differ."""
    rows = grid(40, lambda i, c, u: u < 0.3 + i / 100 + 0.1 * (c["age"] == "old"))
    plain, crossed = analyse_grid(rows, LEVELS), analyse_grid(rows, LEVELS, interactions=True)
    for attribute, levels in LEVELS.items():
        shares = rows.groupby(attribute)["correct"].mean()
        for level in levels[1:]:
            name = contrast_name(attribute, level, LEVELS)
            share = shares[level] - shares[levels[0]]
            assert by_name(plain, "mixed")[name]["estimate"] == pytest.approx(share)
            assert by_name(crossed, "mixed")[name]["estimate"] == pytest.approx(share)
            assert by_name(crossed, "logistic")[name]["estimate"] == pytest.approx(share, rel=1e-4)
            assert by_name(plain, "logistic")[name]["estimate"] == pytest.approx(share, rel=0.02)
        for mean in (m for m in plain.means if m["attribute"] == attribute):
            assert mean["estimate"] == pytest.approx(shares[mean["level"]])
            assert mean["low"] < mean["estimate"] < mean["high"]


def test_questions_that_react_differently_widen_the_clustered_error_only():
    """A random intercept takes each repetition for evidence of its own; see docs/statistics.md."""
    rows = grid(30, lambda i, c, u: u < (0.9 if (i % 2 == 0) == (c["gender"] == "male") else 0.1))
    result = analyse_grid(rows, LEVELS)
    name = "gender: female - male"
    assert by_name(result, "logistic")[name]["se"] > 1.5 * by_name(result, "mixed")[name]["se"]


def test_our_start_reaches_what_the_default_reaches():
    import statsmodels.api as sm

    base = np.random.default_rng(3).uniform(0, 1, 25)
    rows = grid(25, lambda i, c, u: u < base[i]).sample(frac=0.8, random_state=0)
    x, _ = design(rows, LEVELS)
    y, groups = rows["correct"].to_numpy(float), rows["question_id"].to_numpy()
    reference = sm.MixedLM(y, x, groups=groups).fit(reml=True)
    result = fit_mixed(y, x, groups)
    assert reference.converged and result.about["notes"] == []
    assert result.beta == pytest.approx(np.asarray(reference.fe_params), abs=1e-3)
    assert np.sqrt(np.diag(result.cov)) == pytest.approx(np.asarray(reference.bse_fe), rel=1e-3)
    assert result.about["log_likelihood"] >= reference.llf
    assert result.about["log_likelihood"] == pytest.approx(reference.llf, abs=1e-3)
    assert result.about["item_sd"] == pytest.approx(float(reference.cov_re[0, 0]) ** 0.5, rel=0.01)


def test_the_restricted_likelihood_has_no_higher_point_nearby():
    from scipy import stats

    rows = grid(10, lambda i, c, u: u < 0.2 + 0.06 * i, seed=5)
    x, _ = design(rows, LEVELS)
    y, groups = rows["correct"].to_numpy(float), rows["question_id"].to_numpy()
    about = fit_mixed(y, x, groups).about
    # the likelihood of contrasts that are free of the fixed effects
    free = np.linalg.svd(x.T)[2][x.shape[1] :]
    same = (groups[:, None] == groups[None, :]).astype(float)

    def likelihood(item_sd: float, residual_sd: float) -> float:
        cov = item_sd**2 * same + residual_sd**2 * np.eye(len(y))
        values = stats.multivariate_normal.logpdf(free @ y, cov=free @ cov @ free.T)
        return float(values - np.linalg.slogdet(x.T @ x)[1] / 2)

    best = likelihood(about["item_sd"], about["residual_sd"])
    assert best == pytest.approx(about["log_likelihood"])
    for a, b in itertools.product((0.95, 1, 1.05), repeat=2):
        assert likelihood(about["item_sd"] * a, about["residual_sd"] * b) <= best + 1e-9


def test_the_order_of_rows_does_not_matter():
    rows = grid(12, noise)
    a, b = analyse_grid(rows, LEVELS), analyse_grid(rows.sample(frac=1, random_state=1), LEVELS)
    for model in ("mixed", "logistic"):
        for name, contrast in by_name(a, model).items():
            assert by_name(b, model)[name] == pytest.approx(contrast, abs=1e-6)


def test_corrections_run_over_the_contrasts_of_each_model():
    result = analyse_grid(grid(40, noise, seed=3), LEVELS)
    for model in ("mixed", "logistic"):
        p = [c[model]["p"] for c in result.contrasts]
        smallest = min(result.contrasts, key=lambda c: c[model]["p"])[model]
        assert smallest["p_holm"] == pytest.approx(min(1, 3 * min(p)))


# -- what it refuses, and says so ----------------------------------------------------------------


def checked(rows: pd.DataFrame, interactions: bool = False) -> GridModels:
    """No warning, no NaN, the same keys always."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = analyse_grid(rows, LEVELS, interactions)
    json.dumps(dataclasses.asdict(result), allow_nan=False)
    assert [c["name"] for c in result.contrasts] == [
        contrast_name(a, b, LEVELS) for a, levels in LEVELS.items() for b in levels[1:]
    ]
    assert len(result.means) == 5 and len(result.attributes) == 2
    for model in ("mixed", "logistic"):
        about = getattr(result, model)
        fitted = [c[model] is not None for c in result.contrasts]
        assert all(fitted) or (not any(fitted) and about["notes"] and not about["converged"])
    return result


ONE = "one question only: the variance between questions cannot be estimated"
EMPTY = "a level, or a combination of levels, has no answers"
EXPLAINED = "zero variance: questions and attributes explain every answer"


@pytest.mark.parametrize("interactions", [False, True])
@pytest.mark.parametrize(
    "rows, note",
    [
        (grid(1, noise), ONE),
        (grid(5, lambda i, c, u: True), "zero variance: all 30 answers are right"),
        (grid(5, lambda i, c, u: False), "zero variance: all 30 answers are wrong"),
        (grid(9, noise).query("age != 'old'"), EMPTY),
        (grid(9, noise).query("age != 'mid'"), EMPTY),
        (grid(9, noise).groupby("question_id").head(1), EMPTY),
    ],
    ids=["one question", "all right", "all wrong", "no level", "no reference", "one row each"],
)
def test_neither_model_can_be_fitted(rows, note, interactions):
    result = checked(rows, interactions)
    assert result.mixed["notes"] == result.logistic["notes"] == [note]
    assert {c[m] for c in result.contrasts for m in ("mixed", "logistic")} == {None}
    assert result.mixed["item_sd"] is None and result.means[0]["estimate"] is None
    assert {(a["chi2"], a["p_holm"]) for a in result.attributes} == {(None, None)}


def test_an_empty_combination_matters_to_interactions_only():
    rows = grid(40, noise).query("age != 'old' or gender != 'female'")
    assert checked(rows).mixed["converged"]
    assert checked(rows, interactions=True).mixed["notes"] == [EMPTY]


def test_separation():
    rows = grid(30, lambda i, c, u: c["age"] == "young" or u < 0.5)
    result = checked(rows)
    assert result.logistic["notes"] == ["separation: every answer for age young is right"]
    assert by_name(result, "logistic")["age: old - mid"] is None
    assert by_name(result, "mixed")["age: young - mid"]["estimate"] > 0.3


def test_separation_of_a_combination():
    rows = grid(30, lambda i, c, u: c == {"gender": "female", "age": "old"} or u < 0.5)
    assert checked(rows).logistic["converged"]
    notes = checked(rows, interactions=True).logistic["notes"]
    assert notes[0] == "separation: a coefficient of the logistic model has no finite value"


@pytest.mark.parametrize(
    "right",
    [lambda i, c, u: i % 2, lambda i, c, u: c["gender"] == "male"],
    ids=["only the question", "only an attribute"],
)
def test_no_residual_variance(right):
    assert checked(grid(8, right)).mixed["notes"] == [EXPLAINED]


def test_no_variance_between_questions():
    """Each question is right equally often, so the estimate is at its bound."""
    result = checked(grid(8, lambda i, c, u: (c["gender"] == "male") != (c["age"] == "mid")))
    assert result.mixed["item_sd"] < 1e-4 and result.mixed["converged"]
    assert "the variance between questions is zero" in result.mixed["notes"]
    # all questions react alike: the clustered error vanishes, and none is made up
    gender = by_name(result, "logistic")["gender: female - male"]
    assert gender["estimate"] == pytest.approx(-1 / 3)
    assert (gender["se"], gender["low"], gender["p"], gender["p_holm"]) == (None,) * 4
    assert result.logistic["notes"][-1].startswith("no error can be estimated for gender: female")


def test_questions_with_one_outcome_are_counted():
    notes = checked(grid(20, lambda i, c, u: i < 3 or u < 0.5, seed=2)).logistic["notes"]
    assert any(note.endswith("of 20 questions have one outcome throughout") for note in notes)


def test_a_logistic_model_that_does_not_converge_says_so(monkeypatch):
    import statsmodels.api as sm

    fit = sm.GEE.fit
    monkeypatch.setattr(sm.GEE, "fit", lambda self, **kw: fit(self, **kw | {"maxiter": 2}))
    rows = grid(30, lambda i, c, u: u < 0.2 + 0.02 * i).sample(frac=0.6, random_state=0)
    result = checked(rows)
    assert not result.logistic["converged"]
    assert "the logistic model did not converge" in result.logistic["notes"][0]
    assert result.contrasts[0]["logistic"]["estimate"] is not None


def test_a_mixed_model_that_does_not_converge_says_so(monkeypatch):
    import statsmodels.api as sm

    fit = sm.MixedLM.fit
    short = {"method": ["cg"], "maxiter": 1, "start_params": None}
    monkeypatch.setattr(sm.MixedLM, "fit", lambda self, **kw: fit(self, **kw | short))
    rows = grid(30, lambda i, c, u: u < 0.2 + 0.02 * i).sample(frac=0.6, random_state=0)
    result = checked(rows)
    assert not result.mixed["converged"]
    assert "the linear mixed model did not converge" in result.mixed["notes"][0]


def test_a_logistic_model_that_gives_up_says_so(monkeypatch):
    import statsmodels.api as sm

    def fit(self, **settings):
        warnings.warn("singular", stacklevel=2)

    monkeypatch.setattr(sm.GEE, "fit", fit)
    notes = checked(grid(30, noise)).logistic["notes"]
    assert notes == ["the logistic model cannot be fitted: singular"]


@settings(max_examples=8)
@given(
    st.integers(2, 5),
    st.sampled_from([0.02, 0.2, 0.5, 0.97]),
    st.sampled_from([1.0, 0.7, 0.4]),
    st.integers(0, 10**6),
    st.booleans(),
)
def test_no_data_set_breaks_it(n_items, share, kept, seed, interactions):
    rows = grid(n_items, lambda i, c, u: u < share, seed).sample(frac=kept, random_state=seed)
    result = checked(rows, interactions)
    for contrast in result.contrasts:
        for model in ("mixed", "logistic"):
            if contrast[model] and contrast[model]["se"] is not None:
                assert contrast[model]["low"] < contrast[model]["estimate"]
                assert 0 <= contrast[model]["p"] <= contrast[model]["p_holm"] <= 1


# -- the design ----------------------------------------------------------------------------------


def test_design_by_hand():
    rows = pd.DataFrame({"gender": ["male", "female", "female"], "age": ["old", "mid", "young"]})
    x, terms = design(rows, LEVELS, interactions=True)
    assert x.tolist() == [[1, 0, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 1, 0]]
    assert [len(term) for term in terms] == [0, 1, 1, 1, 2, 2]
    assert terms[4] == {"gender", "age"}
    assert design(rows, LEVELS)[0].tolist() == x[:, :4].tolist()
