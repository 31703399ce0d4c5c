"""Models of the demographic grid: which attribute changes how often the model is right.

`correct ~ gender + age + religion + ethnicity` with a random intercept per question, a linear mixed
model on the probability scale as in the paper (arXiv 2510.09905), and a logistic model beside it
with average marginal effects on the same scale. Treatment coding against the first level of each
attribute. Each model is fitted once; every contrast, joint test and marginal mean is a linear
combination (or a g-computation) read from that fit.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from unswayed.statistics.classic import correct
from unswayed.statistics.crossed import LEVEL


def analyse_grid(
    rows: pd.DataFrame,
    levels: dict[str, Sequence[str]],
    interactions: bool = False,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Fit both models and read the contrasts from them.

    Args:
        rows: one row per answer with question_id, the attributes of `levels`, and `correct`.
        levels: {attribute: its levels, the reference first}.
        interactions: add all two-way interactions; contrasts are then averages over the grid.

    Returns:
        The GRID object of summary.json less "cells" and the paired contrasts. A model that cannot
        be fitted is None-valued in its contrasts, and its notes say why.
    """
    attributes = list(levels)
    y = rows["correct"].astype(float).to_numpy()
    x, terms = design(rows, levels, interactions)
    groups = rows["question_id"].to_numpy()
    cells = pd.DataFrame(list(itertools.product(*levels.values())), columns=attributes)
    contrasts = [
        {"attribute": a, "level": b, "reference": levels[a][0], "name": contrast_name(a, b, levels)}
        for a in attributes
        for b in levels[a][1:]
    ]
    mixed = _fit_mixed(y, x, groups)
    logistic = _fit_logistic(y, x, groups, rows, attributes)
    weights: dict[str, list[np.ndarray]] = {a: [] for a in attributes}
    for contrast in contrasts:
        a = contrast["attribute"]
        plus = design(cells.assign(**{a: contrast["level"]}), levels, interactions)[0]
        minus = design(cells.assign(**{a: contrast["reference"]}), levels, interactions)[0]
        weights[a].append(plus.mean(axis=0) - minus.mean(axis=0))
        contrast["mixed"] = _linear(mixed, weights[a][-1], level)
        contrast["logistic"] = _marginal_effect(logistic, plus, minus, level)
    for name, fit in (("mixed", mixed), ("logistic", logistic)):
        lost = [c["name"] for c in contrasts if c[name] and c[name]["se"] is None]
        if lost:
            fit["about"]["notes"].append(f"no error can be estimated for {', '.join(lost)}")
    main = [_joint(mixed, np.array(weights[a])) for a in attributes]
    pairs = list(itertools.combinations(attributes, 2)) if interactions else []
    crossed = [_joint(mixed, _columns(terms, pair)) for pair in pairs]
    for family in ([c["mixed"] for c in contrasts], [c["logistic"] for c in contrasts]):
        correct([found for found in family if found])
    correct([*main, *crossed])
    means = []
    for a in attributes:
        for b in levels[a]:
            mean = design(cells.assign(**{a: b}), levels, interactions)[0].mean(axis=0)
            found = _linear(mixed, mean, level) or {}
            bounds = {key: found.get(key) for key in ("estimate", "low", "high")}
            means.append({"attribute": a, "level": b} | bounds)
    joined = " + ".join(attributes)
    return {
        "formula": f"correct ~ {f'({joined})**2' if interactions else joined}",
        "n": len(rows),
        "n_items": len(np.unique(groups)),
        "reference": {a: levels[a][0] for a in attributes},
        "mixed": mixed["about"],
        "logistic": logistic["about"],
        "contrasts": contrasts,
        "attributes": [{"attribute": a} | found for a, found in zip(attributes, main, strict=True)],
        "interactions": [
            {"name": f"{a} x {b}"} | found for (a, b), found in zip(pairs, crossed, strict=True)
        ],
        "means": means,
    }


def contrast_name(attribute: str, level: str, levels: dict[str, Sequence[str]]) -> str:
    """ "gender: female - male"."""
    return f"{attribute}: {level} - {levels[attribute][0]}"


def design(
    rows: pd.DataFrame, levels: dict[str, Sequence[str]], interactions: bool = False
) -> tuple[np.ndarray, list[frozenset[str]]]:
    """Treatment-coded design matrix (n, columns), and the attributes that make each column."""
    columns, terms = [np.ones(len(rows))], [frozenset()]
    main = [
        (a, (rows[a] == b).to_numpy(dtype=float)) for a, known in levels.items() for b in known[1:]
    ]
    for a, column in main:
        columns.append(column)
        terms.append(frozenset([a]))
    if interactions:
        for (a, left), (b, right) in itertools.combinations(main, 2):
            if a != b:
                columns.append(left * right)
                terms.append(frozenset([a, b]))
    return np.column_stack(columns), terms


def _fit_mixed(y: np.ndarray, x: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Linear mixed model by REML; "beta" is None where it cannot be fitted."""
    import statsmodels.api as sm

    about = {"method": "REML", "converged": False, "item_sd": None, "residual_sd": None}
    about["log_likelihood"], about["notes"] = None, []
    failed = {"about": about, "beta": None}
    if reason := _unfit(y, x, groups):
        about["notes"] = [reason]
        return failed
    if _explained(y, x, groups):
        about["notes"] = ["zero variance: questions and attributes explain every answer"]
        return failed
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = sm.MixedLM(y, x, groups=groups)
            fit = model.fit(reml=True, start_params=_mixed_start(y, x, groups))
        except np.linalg.LinAlgError as error:
            about["notes"] = [f"the linear mixed model cannot be fitted: {error}"]
            return failed
    k = x.shape[1]
    beta, cov = np.asarray(fit.fe_params), np.asarray(fit.cov_params())[:k, :k]
    item_variance = float(np.asarray(fit.cov_re)[0, 0])
    about |= {
        "converged": bool(fit.converged),
        "item_sd": float(np.sqrt(item_variance)),
        "residual_sd": float(np.sqrt(fit.scale)),
        "log_likelihood": float(fit.llf),
    }
    if not fit.converged:
        messages = dict.fromkeys(" ".join(str(w.message).split()) for w in caught)
        about["notes"] = ["the linear mixed model did not converge: its figures are not reliable"]
        about["notes"] += list(messages)
    if item_variance < 1e-6 * fit.scale:  # where statsmodels warns of the boundary, harmlessly
        about["notes"].append("the variance between questions is zero")
    if not (np.isfinite(beta).all() and np.isfinite(cov).all()):
        about |= {"converged": False, "log_likelihood": None}
        about["notes"].append("the linear mixed model has no finite errors")
        return failed
    return {"about": about, "beta": beta, "cov": cov}


def _mixed_start(y: np.ndarray, x: np.ndarray, groups: np.ndarray) -> Any:
    """Start of the search, from moments; statsmodels 0.15's own stops short of small variances."""
    from statsmodels.regression.mixed_linear_model import MixedLMParams

    codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    beta = np.linalg.lstsq(x, y)[0]
    rest = y - x @ beta
    means = np.bincount(codes, rest) / sizes
    within = ((rest - means[codes]) ** 2).sum() / max(len(y) - len(sizes) - x.shape[1] + 1, 1)
    between = means.var(ddof=1) - within / sizes.mean()
    ratio = max(between / within, 1e-6)
    return MixedLMParams.from_components(fe_params=beta, cov_re=np.array([[ratio]]))


def _explained(y: np.ndarray, x: np.ndarray, groups: np.ndarray) -> bool:
    """Nothing is left of y once each question has its own mean."""
    within = pd.DataFrame(np.column_stack([y, x])).groupby(groups).transform("mean")
    y, x = y - within[0].to_numpy(), x - within.iloc[:, 1:].to_numpy()
    rest = y - x @ np.linalg.lstsq(x, y)[0]
    return float(rest @ rest) < 1e-10 * len(y)


def _fit_logistic(
    y: np.ndarray, x: np.ndarray, groups: np.ndarray, rows: pd.DataFrame, attributes: list[str]
) -> dict[str, Any]:
    """Logistic GEE clustered by question; "beta" is None where it cannot be fitted."""
    import statsmodels.api as sm

    about = {"method": "GEE, exchangeable within questions, bias-reduced sandwich errors"}
    about |= {"converged": False, "notes": []}
    failed = {"about": about, "beta": None}
    if reason := _unfit(y, x, groups):
        about["notes"] = [reason]
        return failed
    for a in attributes:
        shares = pd.Series(y).groupby(rows[a].to_numpy()).mean()
        for b in shares.index[shares.isin([0.0, 1.0])]:
            right = "right" if shares[b] else "wrong"
            about["notes"].append(f"separation: every answer for {a} {b} is {right}")
    if about["notes"]:
        return failed
    constant = sum(len(set(part)) == 1 for _, part in pd.Series(y).groupby(groups))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = sm.GEE(
                y, x, groups, family=sm.families.Binomial(), cov_struct=sm.cov_struct.Exchangeable()
            )
            fit = model.fit(cov_type="bias_reduced", maxiter=200)
        except (np.linalg.LinAlgError, ValueError) as error:
            about["notes"] = [f"the logistic model cannot be fitted: {error}"]
            return failed
    if fit is None:
        reasons = "; ".join(" ".join(str(w.message).split()) for w in caught)
        about["notes"] = [f"the logistic model cannot be fitted: {reasons}"]
        return failed
    beta, cov = np.asarray(fit.params), np.asarray(fit.cov_params())
    notes = list(dict.fromkeys(" ".join(str(w.message).split()) for w in caught))
    if not fit.converged:
        notes.insert(0, "the logistic model did not converge: its figures are not reliable")
    if constant:
        notes.append(
            f"{constant} of {len(np.unique(groups))} questions have one outcome throughout"
        )
    about |= {"converged": bool(fit.converged), "notes": notes}
    if not (np.isfinite(beta).all() and np.isfinite(cov).all()) or np.abs(beta).max() > 15:
        notes.insert(0, "separation: a coefficient of the logistic model has no finite value")
        about["converged"] = False
        return failed
    return {"about": about, "beta": beta, "cov": cov, "df": len(np.unique(groups)) - 1}


def _unfit(y: np.ndarray, x: np.ndarray, groups: np.ndarray) -> str | None:
    """Why no model can be fitted at all."""
    if len(np.unique(groups)) < 2:
        return "one question only: the variance between questions cannot be estimated"
    if y.min() == y.max():
        return f"zero variance: all {len(y):,} answers are {'right' if y[0] else 'wrong'}"
    if np.linalg.matrix_rank(x) < x.shape[1]:
        return "a level, or a combination of levels, has no answers"
    if len(y) <= x.shape[1]:
        return f"too few answers: {len(y)} for {x.shape[1]} coefficients"
    return None


def _linear(fit: dict[str, Any], weights: np.ndarray, level: float) -> dict[str, Any] | None:
    """Estimate, interval and p (normal) of a linear combination of the coefficients."""
    if fit["beta"] is None:
        return None
    return _wald(float(weights @ fit["beta"]), float(weights @ fit["cov"] @ weights), np.inf, level)


def _marginal_effect(
    fit: dict[str, Any], plus: np.ndarray, minus: np.ndarray, level: float
) -> dict[str, Any] | None:
    """Average difference of predicted probabilities, by the delta method; t with items - 1 df.

    Args:
        plus, minus: designs of the same cells with the two levels.
    """
    if fit["beta"] is None:
        return None
    p_plus, p_minus = (1 / (1 + np.exp(-x @ fit["beta"])) for x in (plus, minus))
    gradient = ((p_plus * (1 - p_plus))[:, None] * plus).mean(axis=0)
    gradient -= ((p_minus * (1 - p_minus))[:, None] * minus).mean(axis=0)
    variance = float(gradient @ fit["cov"] @ gradient)
    return _wald(float((p_plus - p_minus).mean()), variance, fit["df"], level)


def _wald(estimate: float, variance: float, df: float, level: float) -> dict[str, Any]:
    """Without an error where its variance vanished or exploded: a share's difference is below 1."""
    if not 1e-12 < variance < 1:
        return {"estimate": estimate} | dict.fromkeys(("se", "low", "high", "p"))
    se = float(np.sqrt(variance))
    half = float(stats.t.ppf((1 + level) / 2, df)) * se
    p = float(2 * stats.t.sf(abs(estimate) / se, df))
    found = {"estimate": estimate, "se": se, "low": estimate - half, "high": estimate + half}
    return found | {"p": p}


def _columns(terms: list[frozenset[str]], attributes: Sequence[str]) -> np.ndarray:
    """One row per coefficient that belongs to exactly these attributes."""
    return np.eye(len(terms))[[term == frozenset(attributes) for term in terms]]


def _joint(fit: dict[str, Any], weights: np.ndarray) -> dict[str, Any]:
    """Wald test that several linear combinations (rows) of the coefficients are all zero."""
    found: dict[str, Any] = {"chi2": None, "df": len(weights), "p": None}
    if fit["beta"] is not None:
        values, cov = weights @ fit["beta"], weights @ fit["cov"] @ weights.T
        found["chi2"] = float(values @ np.linalg.solve(cov, values))
        found["p"] = float(stats.chi2.sf(found["chi2"], len(weights)))
    return found
