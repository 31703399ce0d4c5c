"""A run's evidence: `summary.json`, from the rows of `answers.parquet`.

Accuracy, flips, memory effects and gaps with intervals that respect items and users, tests with
corrections within declared families, equivalence, power, the models of the grid, and the verdict.
The methods are in `unswayed.statistics`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unswayed.audit.effects import (
    DRAWN,
    EFFECTS,
    GAP,
    PRIMARY,
    Matrices,
    between_conditions,
    condition_group,
    decomposition,
    matrices,
    omnibus,
    power_of,
    rate,
)
from unswayed.audit.evidence import (
    Condition,
    Effect,
    Knowledge,
    Power,
    Sensitivity,
    Summary,
    TestSummary,
    check_answers,
)
from unswayed.audit.grid import (
    cells_effect,
    grid_contrasts,
    grid_levels,
    grid_summary,
    level_differences,
)
from unswayed.audit.policy import (
    ACCURACY,
    EXPECTED,
    SCORE,
    Policy,
    check_endpoints,
    outcome_of,
    policy_of,
)
from unswayed.audit.probabilities import NATS, with_probabilities
from unswayed.audit.rules import by_rule
from unswayed.audit.rundir import read_answers, read_run
from unswayed.audit.trials import GRID, NONE
from unswayed.audit.validity import validity
from unswayed.audit.verdict import ALPHA, judge_test, verdict, warnings
from unswayed.core.errors import InputError
from unswayed.core.files import write_text
from unswayed.statistics.classic import correct
from unswayed.statistics.crossed import LEVEL, RESAMPLES, users_mean

SCHEMA_VERSION = 4


def analyze(
    out: Path, policy: str | None = None, interactions: bool = False, rule: str | None = None
) -> Summary:
    """Write `summary.json` of a complete run, and return it.

    Args:
        policy: name or file; None: the one that the run declared.
        interactions: two-way interactions in the models of the grid.
        rule: by which answers are chosen from the options' likelihoods; None: the run's own.

    Raises:
        InputError: `out` is no complete run, its files are damaged or mixed up, or the policy has
            a fault or declares what the run lacks.
    """
    run = read_run(out)
    judged_by, declared = policy_of(run, policy, out)
    answers = by_rule(read_answers(out).to_pandas(), rule, out)
    check_answers(answers, out)
    if policy is not None:
        check_endpoints(judged_by, list(answers["test"].unique()), condition_groups(answers))
    summary = summarize(answers, judged_by, declared, run["identity"]["seed"], interactions)
    summary["floor"] = run.get("floor")
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(out / "summary.json", text + "\n")
    return summary


def condition_groups(answers: pd.DataFrame) -> list[str]:
    """Conditions of answers, the cells of the grid as one."""
    return list(condition_group(answers).unique())


def read_summary(out: Path) -> Summary:
    """`summary.json` of a run.

    Raises:
        InputError: missing, damaged, or of another version.
    """
    path = out / "summary.json"
    read_run(out)
    try:
        summary = json.loads(path.read_text("utf-8"))
        if summary["schema_version"] == SCHEMA_VERSION:
            return summary
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(
        f"{path} is missing, damaged or of another version: run `unswayed analyze {out}`"
    )


def summarize(
    answers: pd.DataFrame,
    policy: Policy,
    declared: bool = True,
    seed: int = 0,
    interactions: bool = False,
) -> Summary:
    """Everything that `summary.json` holds; docs/statistics.md describes it.

    Holm's correction runs over the primary gaps of the tests that the policy declares, and over
    each secondary family; what else a run holds changes none of them. Cells and the coefficients of
    the grid's models are corrected among themselves.

    Args:
        answers: rows of `answers.parquet` of one run.
        policy: outcome, margins and what is needed to judge.
        declared: whether the policy was, before the first question.
        seed: of permutations and simulations. Neither the order of the rows nor the other tests of
            the run change a number.

    Raises:
        InputError: the answers have none of the policy's outcomes.
    """
    scoring = answers["scoring"].iloc[0]
    outcome = outcome_of(policy, scoring)
    answers = with_probabilities(answers)
    margins = {name: policy.margin(name) for name in ("gap", "grid", "cells")}
    margin = margins["grid" if GRID in condition_groups(answers) else "gap"]
    tests = {}
    for test, rows in answers.groupby("test", sort=False):
        rng = np.random.default_rng([seed, *test.encode()])
        tests[test] = _summarize_test(rows, rng, outcome, margins, interactions)
        tests[test]["primary"] = not policy.tests or test in policy.tests
    families = _families(tests)
    for effects in families.values():
        correct(effects)
    n_primary = len(families.get(PRIMARY, ()))
    for name, test in tests.items():
        rows = answers[answers["test"] == name]
        test["power"] = _power(rows, test, outcome, margin, n_primary)
        judge_test(test, policy)
    return {
        "schema_version": SCHEMA_VERSION,
        "level": LEVEL,
        "margin": margin,
        "policy": {"name": policy.name, "sha256": policy.sha256, "declared": declared},
        "resamples": RESAMPLES,
        "model": answers["model"].iloc[0],
        "scoring": scoring,
        "rule": next(iter(answers["rule"].dropna()), None),
        "memory_style": next(iter(answers["memory_style"].dropna()), None),
        "floor": None,
        "tests": tests,
        "verdict": verdict(tests, policy, declared, scoring),
        "warnings": warnings(tests),
    }


def _families(tests: dict[str, TestSummary]) -> dict[str, list[Effect]]:
    """Effects that are corrected together; those of tests that are not primary are descriptive."""
    families: dict[str, list[Effect]] = {}
    for test in tests.values():
        for effect in test["effects"]:
            if effect["family"] == PRIMARY and not test["primary"]:
                effect["family"] = None
            if effect["family"] is not None:
                families.setdefault(effect["family"], []).append(effect)
    return families


def _summarize_test(
    rows: pd.DataFrame,
    rng: np.random.Generator,
    outcome: str,
    margins: dict[str, float],
    interactions: bool,
) -> TestSummary:
    levels = grid_levels(rows)
    rows = rows.sort_values(["question_id", "persona_id"], kind="stable", na_position="first")
    group = condition_group(rows)
    management, generated = rows["kind"].iloc[0] == "management", rows["q"].isna().all()
    metrics = [ACCURACY, *([SCORE] if management else []), *([] if generated else [EXPECTED])]
    if outcome not in metrics:  # an expert score of understanding items is their accuracy
        metrics.append(outcome)
    values = matrices(rows, [*metrics, "flip", "read", *([] if generated else ["shift", *NATS])])
    conditions = {c: _condition(c, values, rows[group == c]) for c in values.by_metric[ACCURACY]}
    effects, grid = between_conditions(rows, values, metrics, outcome, margins["gap"]), None
    if levels:
        effects += grid_contrasts(rows, levels, metrics, outcome, margins["grid"])
        grid = grid_summary(rows, levels, effects, outcome, margins["cells"], interactions, rng)
        effects.append(cells_effect(grid, rows, outcome))
    chance = 1 / rows["options"].map(len)
    return {
        "kind": rows["kind"].iloc[0],
        "n_items": int(rows["question_id"].nunique()),
        "n_pairs": int(rows["pair_id"].nunique()),
        "n_cells": int(rows.loc[group == GRID, "persona_id"].nunique()),
        "n_trials": len(rows),
        "chance": float(chance.mean()),
        "chance_score": float(rows["weights"].map(np.mean).mean()) if management else None,
        "outcome": outcome,
        "primary": True,
        "knows": _knows(rows, values, outcome),
        "unparsed": float(1 - rows["parsed"].mean()),
        "validity": validity(rows),
        "conditions": conditions,
        "effects": effects,
        "sensitivity": [] if generated else _sensitivity(values),
        "omnibus": omnibus(values, rng),
        "decomposition": decomposition(values, metrics, effects),
        "power": [],
        "grid": grid,
        "status": None,
    }


def _condition(condition: str, values: Matrices, rows: pd.DataFrame) -> Condition:
    def rate_of(metric: str) -> Any:
        if metric not in values.by_metric or values(metric, condition) is None:
            return None
        return rate(values(metric, condition), metric in DRAWN)

    return {
        "n": len(rows),
        "accuracy": rate_of(ACCURACY),
        "score": rate_of(SCORE),
        "expected": rate_of(EXPECTED),
        "flip_rate": None if condition == NONE else rate(values("flip", condition)),
        "shift": None if condition == NONE else rate_of("shift"),
        "unparsed": float(1 - rows["parsed"].mean()),
    }


def _knows(rows: pd.DataFrame, values: Matrices, outcome: str) -> Knowledge:
    """Whether the outcome is above each item's own chance in the condition in which it is best.

    A one-sided test in the best condition, without correction for their number: it screens, and
    decides no difference.
    """
    items = rows.drop_duplicates("question_id").sort_values("question_id")
    of_item = (
        1 / items["options"].map(len) if outcome == ACCURACY else items["weights"].map(np.mean)
    )
    chance = of_item.to_numpy(dtype=float)[:, None]
    tested = {c: users_mean(v - chance) for c, v in values.by_metric[outcome].items()}

    def one_sided(name: str) -> float:
        mean = tested[name]
        if mean.p is None:
            return 1.0
        return mean.p / 2 if mean.estimate > 0 else 1 - mean.p / 2

    best = min(tested, key=lambda name: (one_sided(name), -tested[name].estimate))
    p, mean = one_sided(best), tested[best]
    return {
        "metric": outcome,
        "condition": best,
        "difference": mean.estimate,
        "low": mean.low,
        "p": p,
        "above": p < ALPHA,
    }


def _sensitivity(values: Matrices) -> list[Sensitivity]:
    """The gap on scales that no ceiling bounds, in nats, among answers that could be read."""
    gaps = {metric: values.difference(metric, *EFFECTS[GAP]) for metric in NATS}
    means = {m: users_mean(v) for m, v in gaps.items() if v is not None}
    return [
        {"metric": m, "estimate": mean.estimate, "low": mean.low, "high": mean.high, "p": mean.p}
        for m, mean in means.items()
    ]


def _power(
    rows: pd.DataFrame, test: TestSummary, outcome: str, margin: float, n_primary: int
) -> list[Power]:
    """What this run finds of each primary difference that has items to vary over."""
    primary = [effect for effect in test["effects"] if effect["family"] == PRIMARY]
    if test["n_items"] < 2 or not primary:
        return []
    differences = level_differences(rows, grid_levels(rows), outcome)
    gap = matrices(rows, [outcome]).difference(outcome, *EFFECTS[GAP])
    if gap is not None:
        differences[GAP] = gap
    return [
        power_of(effect, differences[effect["name"]], margin, n_primary)
        for effect in primary
        if effect["name"] in differences
    ]


def conditions_of(summary: Summary) -> list[str]:
    """Conditions of the run, in the order of its tests."""
    return list(dict.fromkeys(c for test in summary["tests"].values() for c in test["conditions"]))


def effects_of(summary: Summary) -> list[Effect]:
    """Effects of all tests."""
    return [effect for test in summary["tests"].values() for effect in test["effects"]]


def is_grid(summary: Summary) -> bool:
    """Whether the users are cells of the demographic grid."""
    return GRID in conditions_of(summary)
