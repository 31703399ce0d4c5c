"""Models of the demographic grid: which attribute changes how often the model is right.

`correct ~ gender + age + religion + ethnicity` with a random intercept per question, a linear mixed
model on the probability scale as in the paper (arXiv 2510.09905), and a logistic model beside it
with average marginal effects on the same scale. Treatment coding against the first level of each
attribute. Each model is fitted once; every contrast, joint test and marginal mean is a linear
combination (or a g-computation) read from that fit.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from scipy import stats

from unswayed.statistics.classic import correct
from unswayed.statistics.crossed import LEVEL
from unswayed.statistics.hotelling import Joint, hotelling, untested


class About(TypedDict, total=False):
    """A model of the grid in summary.json; the logistic one has method, converged and notes."""

    method: str
    converged: bool
    item_sd: float | None  # standard deviation between questions, of shares
    residual_sd: float | None
    log_likelihood: float | None  # restricted
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes:
        beta: (k,) coefficients, None where it cannot be fitted; cov: (k, k), theirs.
        df: of t; infinite for a normal.
    """

    about: About
    beta: np.ndarray | None = None
    cov: np.ndarray | None = None
    df: float = np.inf


@dataclasses.dataclass(frozen=True)
class GridModels:
    """Both models of the grid: the GRID object of summary.json less cells and paired contrasts.

    Differences and means are shares; those of a model that cannot be fitted are None, and its notes
    say why.

    Attributes:
        reference: attribute -> the level that others are compared with.
        contrasts: attribute, level, reference, name, and in "mixed" and "logistic" estimate, se,
            low, high, p and its corrections.
        attributes, interactions: joint Wald tests (chi2, df, p and its corrections), and in
            "robust" those over items (`hotelling.Joint` and its corrections).
        means: attribute, level and the marginal mean with its interval.
    """

    formula: str
    n: int
    n_items: int
    reference: dict[str, str]
    mixed: About
    logistic: About
    contrasts: list[dict[str, Any]]
    attributes: list[dict[str, Any]]
    interactions: list[dict[str, Any]]
    means: list[dict[str, Any]]


def analyse_grid(
    rows: pd.DataFrame, levels: dict[str, Sequence[str]], interactions: bool = False
) -> GridModels:
    """Fit both models and read the contrasts from them.

    Args:
        rows: one row per answer with question_id, the attributes of `levels`, and `correct`.
        levels: {attribute: its levels, the reference first}.
        interactions: add all two-way interactions; contrasts are then averages over the grid.
    """
    attributes = list(levels)
    y = rows["correct"].astype(float).to_numpy()
    x, terms = design(rows, levels, interactions)
    groups = rows["question_id"].to_numpy()
    mixed = fit_mixed(y, x, groups)
    logistic = fit_logistic(y, x, groups, rows, attributes)
    cells = pd.DataFrame(list(itertools.product(*levels.values())), columns=attributes)
    at = {  # the design of all cells, each given that level
        (a, b): design(cells.assign(**{a: b}), levels, interactions)[0]
        for a in attributes
        for b in levels[a]
    }
    contrasts, weights = [], []
    for a in attributes:
        reference, *others = levels[a]
        weights.append(
            np.array([at[a, b].mean(axis=0) - at[a, reference].mean(axis=0) for b in others])
        )
        contrasts += [
            {
                "attribute": a,
                "level": b,
                "reference": reference,
                "name": contrast_name(a, b, levels),
                "mixed": _linear(mixed, row),
                "logistic": _marginal_effect(logistic, at[a, b], at[a, reference]),
            }
            for b, row in zip(others, weights[-1], strict=True)
        ]
    _correct_contrasts(contrasts, {"mixed": mixed, "logistic": logistic})
    pairs = list(itertools.combinations(attributes, 2)) if interactions else []
    tests = _joint_tests(
        mixed,
        item_coefficients(y, x, groups),
        [{"attribute": a} for a in attributes] + [{"name": f"{a} x {b}"} for a, b in pairs],
        weights + [_columns(terms, pair) for pair in pairs],
    )
    joined = " + ".join(attributes)
    return GridModels(
        formula=f"correct ~ {f'({joined})**2' if interactions else joined}",
        n=len(rows),
        n_items=len(np.unique(groups)),
        reference={a: levels[a][0] for a in attributes},
        mixed=mixed.about,
        logistic=logistic.about,
        contrasts=contrasts,
        attributes=tests[: len(attributes)],
        interactions=tests[len(attributes) :],
        means=[_mean(mixed, a, b, cells) for (a, b), cells in at.items()],
    )


def _correct_contrasts(contrasts: list[dict[str, Any]], fits: dict[str, Fit]) -> None:
    """Correct the contrasts of each model, and note those without an error."""
    for model, fit in fits.items():
        correct([contrast[model] for contrast in contrasts if contrast[model]])
        lost = [c["name"] for c in contrasts if c[model] and c[model]["se"] is None]
        if lost:
            fit.about["notes"].append(f"no error can be estimated for {', '.join(lost)}")


def contrast_name(attribute: str, level: str, levels: dict[str, Sequence[str]]) -> str:
    """ "gender: female - male"."""
    return f"{attribute}: {level} - {levels[attribute][0]}"


def design(
    rows: pd.DataFrame, levels: dict[str, Sequence[str]], interactions: bool = False
) -> tuple[np.ndarray, list[frozenset[str]]]:
    """Treatment-coded design matrix (n, columns), and the attributes that make each column."""
    columns, terms = [np.ones(len(rows))], [frozenset()]
    main = [
        (a, (rows[a] == b).to_numpy(dtype=float)) for a, names in levels.items() for b in names[1:]
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


def fit_mixed(y: np.ndarray, x: np.ndarray, groups: np.ndarray) -> Fit:
    """Linear mixed model by REML."""
    import statsmodels.api as sm

    about: About = {"method": "REML", "converged": False, "item_sd": None, "residual_sd": None}
    about["log_likelihood"], about["notes"] = None, []
    failed = Fit(about)
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
    return Fit(about, beta, cov)


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


def fit_logistic(
    y: np.ndarray, x: np.ndarray, groups: np.ndarray, rows: pd.DataFrame, attributes: list[str]
) -> Fit:
    """Logistic GEE clustered by question."""
    import statsmodels.api as sm

    about: About = {"method": "GEE, exchangeable within questions, bias-reduced sandwich errors"}
    about |= {"converged": False, "notes": []}
    failed = Fit(about)
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
    return Fit(about, beta, cov, len(np.unique(groups)) - 1)


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


def _linear(fit: Fit, weights: np.ndarray) -> dict[str, Any] | None:
    """Estimate, interval and p of a linear combination (k,) of the coefficients."""
    if fit.beta is None:
        return None
    return _wald(float(weights @ fit.beta), float(weights @ fit.cov @ weights), fit.df)


def _mean(fit: Fit, attribute: str, level: str, cells: np.ndarray) -> dict[str, Any]:
    """Marginal mean over the designs (n, k) of all cells with that level."""
    estimate = _linear(fit, cells.mean(axis=0)) or {}
    bounds = {key: estimate.get(key) for key in ("estimate", "low", "high")}
    return {"attribute": attribute, "level": level} | bounds


def _marginal_effect(fit: Fit, plus: np.ndarray, minus: np.ndarray) -> dict[str, Any] | None:
    """Average difference of predicted probabilities, by the delta method; t with items - 1 df.

    Args:
        plus, minus: (n, k) designs of the same cells with the two levels.
    """
    if fit.beta is None:
        return None
    p_plus, p_minus = (1 / (1 + np.exp(-x @ fit.beta)) for x in (plus, minus))
    gradient = ((p_plus * (1 - p_plus))[:, None] * plus).mean(axis=0)
    gradient -= ((p_minus * (1 - p_minus))[:, None] * minus).mean(axis=0)
    variance = float(gradient @ fit.cov @ gradient)
    return _wald(float((p_plus - p_minus).mean()), variance, fit.df)


def _wald(estimate: float, variance: float, df: float) -> dict[str, Any]:
    """Without an error where its variance vanished or exploded: a share's difference is below 1."""
    if not 1e-12 < variance < 1:
        return {"estimate": estimate} | dict.fromkeys(("se", "low", "high", "p"))
    se = float(np.sqrt(variance))
    half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * se
    p = float(2 * stats.t.sf(abs(estimate) / se, df))
    return {
        "estimate": estimate, "se": se, "low": estimate - half, "high": estimate + half, "p": p,
    }  # fmt: skip


def _columns(terms: list[frozenset[str]], attributes: Sequence[str]) -> np.ndarray:
    """One row per coefficient that belongs to exactly these attributes."""
    return np.eye(len(terms))[[term == frozenset(attributes) for term in terms]]


def item_coefficients(y: np.ndarray, x: np.ndarray, groups: np.ndarray) -> np.ndarray | None:
    """(I, k) least squares within each item; None if an item's answers leave a coefficient open."""
    fits = [np.linalg.lstsq(x[groups == item], y[groups == item]) for item in np.unique(groups)]
    if min(rank for _, _, rank, _ in fits) < x.shape[1]:
        return None
    return np.array([beta for beta, *_ in fits])


def _joint_tests(
    fit: Fit, by_item: np.ndarray | None, names: list[dict[str, str]], weights: list[np.ndarray]
) -> list[dict[str, Any]]:
    """Tests that the linear combinations (rows) of each weights are all zero.

    Wald's of the fit, and in "robust" Hotelling's of the items' own coefficients (I, k).
    """
    tests = [
        name | _wald_test(fit, own) | {"robust": _over_items(by_item, own)}
        for name, own in zip(names, weights, strict=True)
    ]
    correct(tests)
    correct([test["robust"] for test in tests])
    return tests


def _wald_test(fit: Fit, weights: np.ndarray) -> dict[str, Any]:
    chi2 = p = None
    if fit.beta is not None:
        values, cov = weights @ fit.beta, weights @ fit.cov @ weights.T
        chi2 = float(values @ np.linalg.solve(cov, values))
        p = float(stats.chi2.sf(chi2, len(weights)))
    return {"chi2": chi2, "df": len(weights), "p": p}


def _over_items(by_item: np.ndarray | None, weights: np.ndarray) -> Joint:
    if by_item is None:
        return untested("an item lacks answers for a level, or for a combination of levels")
    return hotelling(by_item @ weights.T)
