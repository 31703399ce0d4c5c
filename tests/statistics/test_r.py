"""The same numbers from R: lme4's mixed models, base R for the rest (r/README.md).

`expected.json` is kept, so that the comparison needs no R; one test runs `check.R` again.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from unswayed.statistics.classic import cochran_q, correct, mcnemar_p
from unswayed.statistics.crossed import (
    crossed_mean,
    equivalence_p,
    johnson_interval,
    johnson_p,
    proportion,
)
from unswayed.statistics.max_t import cell_contrasts, interaction_contrasts, max_t
from unswayed.statistics.mixed import analyse_grid, design, fit_logistic, fit_mixed
from unswayed.statistics.power import Components, components, minimal_detectable, simulated_power

HERE = Path(__file__).parent / "r"
EXPECTED = json.loads((HERE / "expected.json").read_text("utf-8"))
ATTRIBUTES = ("gender", "age", "religion", "ethnicity")
LEVELS = {a: ["0", "1", "2"] for a in ATTRIBUTES}
CONDITIONS = ("none", "neutral", "advantaged", "disadvantaged")


MIXED_REL = 1e-4  # two searches end at slightly different ratios of the variances


def close(expected, rel: float = 1e-6):
    return pytest.approx(expected, rel=rel, abs=rel * 1e-2)


def grid(which: str = "mixed") -> pd.DataFrame:
    rows = pd.read_csv(HERE / "grid.csv", dtype=dict.fromkeys(ATTRIBUTES, str))
    rows = rows.rename(columns={"item": "question_id"})
    return rows[np.arange(1, len(rows) + 1) % 7 != 0] if "holes" in which else rows


def named(values: np.ndarray) -> dict[str, float]:
    """Values of the columns of `design` by R's names, with or without interactions."""
    main = [(a, f"{a}{b}") for a in ATTRIBUTES for b in LEVELS[a][1:]]
    crossed = [f"{m}:{n}" for (a, m), (b, n) in itertools.combinations(main, 2) if a != b]
    names = ["(Intercept)", *(name for _, name in main), *crossed]
    assert len(values) in (len(names), len(names) - len(crossed))
    return dict(zip(names, values, strict=False))


@pytest.fixture(scope="module")
def analysed():
    """Each model is fitted once for all tests."""
    result = {}

    def of(which: str) -> dict:
        if which not in result:
            result[which] = analyse_grid(grid(which), LEVELS, "interactions" in which)
        return result[which]

    return of


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    """Matrices (items x pairs) of right answers; one column without memory."""
    rows = pd.read_csv(HERE / "pairs.csv")
    return {
        c: part.pivot(index="item", columns="pair", values="correct").to_numpy(float)
        for c, part in rows.groupby("condition")
    }


# -- the linear mixed model against lmer ---------------------------------------------------------

MIXED = ("mixed", "mixed_interactions", "mixed_holes", "mixed_holes_interactions")


@pytest.mark.parametrize("which", MIXED)
def test_coefficients_and_standard_errors(which):
    rows, interactions = grid(which), "interactions" in which
    x, _ = design(rows, LEVELS, interactions)
    fit = fit_mixed(rows["correct"].to_numpy(float), x, rows["question_id"].to_numpy())
    assert fit.about["converged"]
    assert named(fit.beta) == close(EXPECTED[which]["beta"], MIXED_REL)
    assert named(np.sqrt(np.diag(fit.cov))) == close(EXPECTED[which]["se"], MIXED_REL)


@pytest.mark.parametrize("which", MIXED)
def test_variance_components_and_reml_likelihood(analysed, which):
    about, expected = analysed(which).mixed, EXPECTED[which]
    assert about["method"] == "REML"
    assert about["item_sd"] == close(expected["item_sd"], MIXED_REL)
    assert about["residual_sd"] == close(expected["residual_sd"], MIXED_REL)
    assert about["log_likelihood"] == close(expected["log_likelihood"], 1e-8)


@pytest.mark.parametrize("which", MIXED)
def test_contrasts_and_marginal_means(analysed, which):
    result, expected = analysed(which), EXPECTED[which]
    assert len(result.contrasts) == len(expected["contrasts"]) == 8
    for row in result.contrasts:
        reference = expected["contrasts"][f"{row['attribute']} {row['level']}"]
        for key in ("estimate", "se", "low", "high"):
            assert row["mixed"][key] == close(reference[key], MIXED_REL), key
        assert row["mixed"]["p"] == close(reference["p"], MIXED_REL)
    assert len(result.means) == len(expected["means"]) == 12
    for row in result.means:
        reference = expected["means"][f"{row['attribute']} {row['level']}"]
        half = stats.norm.ppf(0.975) * reference["se"]
        assert row["estimate"] == close(reference["estimate"], MIXED_REL)
        assert row["low"] == close(reference["estimate"] - half, MIXED_REL)
        assert row["high"] == close(reference["estimate"] + half, MIXED_REL)


@pytest.mark.parametrize("which", MIXED)
def test_joint_wald_tests(analysed, which):
    result, expected = analysed(which), EXPECTED[which]
    joint = {row["attribute"]: row for row in result.attributes}
    joint |= {row["name"]: row for row in result.interactions}
    wanted = expected["attributes"] | expected.get("interactions", {})
    assert set(joint) == set(wanted) and len(wanted) == (10 if "interactions" in which else 4)
    for name, reference in wanted.items():
        assert joint[name]["chi2"] == close(reference["chi2"], MIXED_REL), name
        assert joint[name]["df"] == reference["df"]
        assert joint[name]["p"] == close(reference["p"], 1e-3)


@pytest.mark.parametrize("which", MIXED)
def test_joint_tests_over_items(analysed, which):
    result = analysed(which)
    joint = {row["attribute"]: row["robust"] for row in result.attributes}
    joint |= {row["name"]: row["robust"] for row in result.interactions}
    assert joint.keys() == EXPECTED[which]["robust"].keys()
    for name, reference in EXPECTED[which]["robust"].items():
        assert {key: joint[name][key] for key in reference} == close(reference), name


# -- all cells and interactions ------------------------------------------------------------------


def by_cell(items: range) -> tuple[np.ndarray, pd.DataFrame]:
    """Right answers (items, cells), and the cells' levels."""
    rows = grid()
    wide = rows.pivot(index="question_id", columns=list(ATTRIBUTES), values="correct")
    return wide.loc[items].to_numpy(float), wide.columns.to_frame(index=False)


def test_max_t_of_the_grid():
    right, cells = by_cell(range(1, 10))
    weights = pd.concat([cell_contrasts(cells), interaction_contrasts(cells)], axis=1)
    kinds = weights.columns.get_level_values("kind")
    names = [f"{kind}: {name}" for kind, name in weights.columns]
    compare_max_t(right @ weights.to_numpy(), names, kinds, EXPECTED["max_t"]["grid"])


def test_max_t_of_contrasts_on_their_own():
    right, cells = by_cell(range(4, 14))
    names = [f"{a} {b}" for a in ATTRIBUTES for b in LEVELS[a][1:]]
    values = [
        right[:, cells[a] == b].mean(axis=1) - right[:, cells[a] == LEVELS[a][0]].mean(axis=1)
        for a in ATTRIBUTES
        for b in LEVELS[a][1:]
    ]
    compare_max_t(np.column_stack(values), names, None, EXPECTED["max_t"]["levels"])


def compare_max_t(values, names, kinds, expected) -> None:
    result = max_t(values, np.random.default_rng(0), kinds)
    assert result.critical == close(expected["critical"])
    assert set(names) == set(expected["contrasts"])
    rows = [expected["contrasts"][name] for name in names]
    for key in ("estimate", "se", "t", "p", "low", "high"):
        reference = np.array([row[key] for row in rows])
        np.testing.assert_allclose(getattr(result, key), reference, 1e-6, 1e-10, err_msg=key)
    assert result.p.min() < 0.05


# -- the logistic model --------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["gee", "gee_holes_interactions"])
def test_logistic_coefficients_and_bias_reduced_errors(which):
    rows, interactions = grid(which), "interactions" in which
    x, _ = design(rows, LEVELS, interactions)
    y, groups = rows["correct"].to_numpy(float), rows["question_id"].to_numpy()
    fit = fit_logistic(y, x, groups, rows, list(ATTRIBUTES))
    assert named(fit.beta) == close(EXPECTED[which]["beta"])
    assert named(np.sqrt(np.diag(fit.cov))) == close(EXPECTED[which]["se"], 1e-5)


@pytest.mark.parametrize("which", ["gee", "gee_holes_interactions"])
def test_average_marginal_effects(analysed, which):
    for row in analysed(which.replace("gee", "mixed")).contrasts:
        reference = EXPECTED[which]["effects"][f"{row['attribute']} {row['level']}"]
        for key in ("estimate", "se", "low", "high"):
            assert row["logistic"][key] == close(reference[key], 1e-5), key
        assert row["logistic"]["p"] == close(reference["p"], 1e-5)


def test_average_marginal_effects_of_statsmodels():
    """Its `get_margeff` sets each dummy to 0 and 1, which means contrasts for two levels only."""
    import statsmodels.api as sm

    rows = grid()
    rows = rows[(rows[list(ATTRIBUTES)] != "2").all(axis=1)]
    levels = {a: ["0", "1"] for a in ATTRIBUTES}
    x, _ = design(rows, levels)
    exchangeable = sm.cov_struct.Exchangeable()
    groups = rows["question_id"].to_numpy()
    model = sm.GEE(
        rows["correct"], x, groups, family=sm.families.Binomial(), cov_struct=exchangeable
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = model.fit(cov_type="bias_reduced").get_margeff(dummy=True)
    result = [c["logistic"] for c in analyse_grid(rows, levels).contrasts]
    assert [f["estimate"] for f in result] == close(list(reference.margeff), 1e-5)
    assert [f["se"] for f in result] == close(list(reference.margeff_se), 1e-5)


# -- classic tests -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED["mcnemar"])
def test_mcnemar(answers, name):
    plus, minus = name.split(" - ")
    differences, expected = answers[plus] - answers[minus], EXPECTED["mcnemar"][name]
    assert (differences > 0).sum() == expected["better"]
    assert (differences < 0).sum() == expected["worse"]
    assert mcnemar_p(differences) == close(expected["p"], 1e-9)


@pytest.mark.parametrize("which", ["all", "users"])
def test_cochran(answers, which):
    chosen = CONDITIONS if which == "all" else CONDITIONS[1:]
    blocks = np.stack([np.broadcast_to(answers[c], (30, 12)) for c in chosen], axis=-1)
    result = cochran_q(blocks, np.random.default_rng(0), resamples=9)
    expected = EXPECTED["cochran"][which]
    assert (result["q"], result["df"]) == (close(expected["q"], 1e-9), expected["df"])
    assert result["p_chi2"] == close(expected["p"], 1e-8)


def test_corrections_for_many_tests():
    expected = EXPECTED["adjust"]
    rows = [{"p": p} for p in expected["p"]]
    correct(rows)
    assert [row["p_holm"] for row in rows] == close(expected["holm"], 1e-9)
    assert [row["p_bh"] for row in rows] == close(expected["bh"], 1e-9)


# -- crossed means -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED["crossed"])
def test_crossed_mean_and_components(answers, name):
    """In balanced data with positive components, REML and analysis of variance are the same."""
    plus, minus = name.split(" - ")
    differences, expected = answers[plus] - answers[minus], EXPECTED["crossed"][name]
    result = crossed_mean(differences)
    assert result.se == close(expected["se_anova"], 1e-9)
    for key in ("estimate", "se", "df", "low", "high", "p"):
        assert getattr(result, key) == close(expected[key], 1e-5), key
    ninety = crossed_mean(differences, level=0.9)
    assert (ninety.low, ninety.high) == close((expected["low90"], expected["high90"]), 1e-5)
    parts = components(differences)
    for key in ("items", "users", "cells"):
        assert getattr(parts, key) == close(expected[key], 1e-4), key
    margin = expected["margin"]
    assert equivalence_p(differences, margin) == close(expected["p_equivalence"], 1e-5)
    compare_johnson(differences, margin, expected["johnson"])


@pytest.mark.parametrize("name", EXPECTED["one_user"])
def test_one_user_is_a_paired_t_test_and_johnsons(name):
    expected = EXPECTED["one_user"][name]
    values = np.array(expected["values"], dtype=float)[:, None]
    result, margin = crossed_mean(values), expected["margin"]
    for key in ("estimate", "se", "df", "low", "high", "p"):
        assert getattr(result, key) == close(expected[key], 1e-8), key
    assert equivalence_p(values, margin) == close(expected["p_equivalence"], 1e-8)
    compare_johnson(values, margin, expected["johnson"])
    if name != "pairs":  # the t test alone would be too sure
        assert expected["p_tost"] < expected["p_equivalence"] / 1.2


def compare_johnson(values: np.ndarray, margin: float, expected: dict[str, float]) -> None:
    assert johnson_interval(values) == close((expected["low"], expected["high"]))
    assert 2 * min(johnson_p(values, 0.0)) == close(expected["p"])
    assert johnson_p(values, -margin)[0] == close(expected["above"])
    assert johnson_p(values, margin)[1] == close(expected["below"])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_korn_graubard(answers, condition):
    result, expected = proportion(answers[condition]), EXPECTED["proportion"][condition]
    for key in ("estimate", "low", "high"):
        assert getattr(result, key) == close(expected[key], 1e-8), key


@pytest.mark.parametrize("case", EXPECTED["power"], ids=lambda case: f"n={case['n']}")
def test_power_within_monte_carlo_error(case):
    """power.t.test, and the two one-sided tests by integration; 4,000 draws: 3 sd are 0.024."""
    parts = Components(case["sd"] ** 2, 0.0, 0.0)
    power = simulated_power(parts, case["n"], 1, case["delta"], case["margin"])
    assert power == pytest.approx((case["power"], case["equivalence"]), abs=0.024)
    result = minimal_detectable(parts, case["n"], 1)
    assert result == pytest.approx(case["detectable"], rel=0.03)


# -- R itself ------------------------------------------------------------------------------------


def has_lme4() -> bool:
    if not shutil.which("Rscript"):
        return False
    asked = ["Rscript", "-e", 'quit(status = !requireNamespace("lme4", quietly = TRUE))']
    return subprocess.run(asked, capture_output=True).returncode == 0


def flat(value, path: str = "") -> dict[str, float]:
    if isinstance(value, (dict, list)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, part in pairs for k, v in flat(part, f"{path}/{key}").items()}
    return {path: value}


def test_r_still_says_the_same(tmp_path):
    if not has_lme4():
        pytest.skip("Rscript with lme4 is not installed (r-base-core, r-cran-lme4)")
    for name in ("check.R", "grid.csv", "pairs.csv"):
        shutil.copy(HERE / name, tmp_path)
    subprocess.run(["Rscript", "check.R"], cwd=tmp_path, check=True, capture_output=True)
    again = json.loads((tmp_path / "expected.json").read_text("utf-8"))
    again["versions"] = EXPECTED["versions"]
    result, stored = flat(again), flat(EXPECTED)
    assert result.keys() == stored.keys()
    for key, value in stored.items():
        assert result[key] == (value if isinstance(value, str) else close(value, 1e-4)), key


def test_the_data_are_what_the_script_makes():
    import importlib.util

    spec = importlib.util.spec_from_file_location("make_r_data", HERE / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    grid_rows = make.grid(np.random.default_rng(1))
    pair_rows = make.pairs(np.random.default_rng(2))
    assert pd.read_csv(HERE / "grid.csv").values.tolist() == [list(row) for row in grid_rows]
    assert pd.read_csv(HERE / "pairs.csv").values.tolist() == [list(row) for row in pair_rows]
