"""A run's evidence: `summary.json`, from the rows of `answers.parquet`.

Accuracy, flips, memory effects and gaps with intervals that respect items and users, tests with
corrections over the whole family of the run, equivalence, power, the models of the grid, and the
verdict. The methods are in `unswayed.statistics`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from unswayed.audit.effects import (
    Matrices,
    between_conditions,
    condition_group,
    decomposition,
    matrices,
    omnibus,
    power_of,
    rate,
)
from unswayed.audit.evidence import Condition, Effect, Summary, TestSummary, check_answers
from unswayed.audit.grid import grid_contrasts, grid_levels, grid_summary
from unswayed.audit.rules import by_rule
from unswayed.audit.rundir import read_answers, read_run
from unswayed.audit.trials import GRID, NONE
from unswayed.audit.validity import validity
from unswayed.audit.verdict import ALPHA, verdict, warnings
from unswayed.core.errors import InputError
from unswayed.core.files import write_text
from unswayed.statistics.classic import correct
from unswayed.statistics.crossed import LEVEL, RESAMPLES

SCHEMA_VERSION = 3
MARGIN = 0.02  # below the smallest gap that the paper flags (2.67 points)


def analyze(
    out: Path, margin: float = MARGIN, interactions: bool = False, rule: str | None = None
) -> Summary:
    """Write `summary.json` of a complete run, and return it.

    Args:
        rule: by which answers are chosen from the options' likelihoods; None: the run's own.
        margin: differences below it do not matter, a share.
        interactions: two-way interactions in the models of the grid.

    Raises:
        InputError: `out` is no complete run, its files are damaged or mixed up, or the margin is
            no share.
    """
    if not 0 < margin < 1:
        raise InputError(f"--margin {100 * margin:g}: give percentage points between 0 and 100")
    run = read_run(out)
    answers = by_rule(read_answers(out).to_pandas(), rule, out)
    check_answers(answers, out)
    summary = summarize(answers, run["identity"]["seed"], margin, interactions)
    summary["floor"] = run.get("floor")
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(out / "summary.json", text + "\n")
    return summary


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
    answers: pd.DataFrame, seed: int = 0, margin: float = MARGIN, interactions: bool = False
) -> Summary:
    """Everything that `summary.json` holds; docs/statistics.md describes it.

    Holm's and Benjamini & Hochberg's corrections run over all effects and all of Cochran's tests of
    the run; cells and the coefficients of the grid's models are corrected among themselves.

    Args:
        answers: rows of `answers.parquet` of one run.
        seed: of permutations and simulations. Neither the order of the rows nor the other tests of
            the run change a number.
        margin: for equivalence, a share.
    """
    tests = {
        test: _summarize_test(
            rows, np.random.default_rng([seed, *test.encode()]), margin, interactions
        )
        for test, rows in answers.groupby("test", sort=False)
    }
    correct([row for test in tests.values() for row in (*test["effects"], *test["omnibus"])])
    for test in tests.values():
        for effect in test["effects"]:
            effect["status"] = _status(effect, test["at_chance"])
    return {
        "schema_version": SCHEMA_VERSION,
        "level": LEVEL,
        "margin": margin,
        "resamples": RESAMPLES,
        "model": answers["model"].iloc[0],
        "scoring": answers["scoring"].iloc[0],
        "rule": next(iter(answers["rule"].dropna()), None),
        "memory_style": next(iter(answers["memory_style"].dropna()), None),
        "floor": None,
        "tests": tests,
        "verdict": verdict(tests, margin),
        "warnings": warnings(tests),
    }


def _status(effect: Effect, at_chance: dict[str, bool]) -> str | None:
    """What is shown of a difference between users; None for what memory does at all."""
    if effect["kind"] == "memory":
        return None
    if at_chance[effect["metric"]]:
        return "at chance"
    if effect["p_tost"] is not None and effect["p_tost"] < ALPHA:
        return "equivalent"
    return "skewed" if effect["p_holm"] is not None and effect["p_holm"] < ALPHA else "unclear"


def _summarize_test(
    rows: pd.DataFrame, rng: np.random.Generator, margin: float, interactions: bool
) -> TestSummary:
    levels = grid_levels(rows)
    rows = rows.sort_values(["question_id", "persona_id"], kind="stable", na_position="first")
    group = condition_group(rows)
    management = rows["kind"].iloc[0] == "management"
    metrics = ["accuracy", "score"] if management else ["accuracy"]
    values = matrices(rows, [*metrics, "flip"])
    conditions = {c: _condition(c, values, rows[group == c]) for c in values.by_metric["accuracy"]}
    chances = {
        "accuracy": float((1 / rows["options"].map(len)).mean()),
        "score": float(rows["weights"].map(np.mean).mean()),
    }
    bare = conditions.get(NONE) or next(iter(conditions.values()))
    effects, spreads = between_conditions(values, metrics, margin, rng)
    if levels:
        contrasts, more = grid_contrasts(rows, levels, metrics, margin, rng)
        effects, spreads = effects + contrasts, spreads | more
    return {
        "kind": rows["kind"].iloc[0],
        "n_items": int(rows["question_id"].nunique()),
        "n_pairs": int(rows["pair_id"].nunique()),
        "n_cells": int(rows.loc[group == GRID, "persona_id"].nunique()),
        "n_trials": len(rows),
        "chance": chances["accuracy"],
        "chance_score": chances["score"] if management else None,
        "at_chance": {
            metric: bare[metric]["low"] is None or bare[metric]["low"] <= chances[metric]
            for metric in metrics
        },
        "unparsed": float(1 - rows["parsed"].mean()),
        "validity": validity(rows),
        "conditions": conditions,
        "effects": effects,
        "omnibus": omnibus(values, rng),
        "decomposition": decomposition(values, metrics, effects),
        "power": [
            power_of(effect, spreads[effect["metric"], effect["name"]], margin)
            for effect in effects
            if effect["kind"] != "memory" and (effect["metric"], effect["name"]) in spreads
        ],
        "grid": grid_summary(rows, levels, effects, interactions, rng) if levels else None,
    }


def _condition(condition: str, values: Matrices, rows: pd.DataFrame) -> Condition:
    return {
        "n": len(rows),
        "accuracy": rate(values("accuracy", condition)),
        "score": rate(values("score", condition)) if "score" in values.by_metric else None,
        "flip_rate": None if condition == NONE else rate(values("flip", condition)),
        "unparsed": float(1 - rows["parsed"].mean()),
    }


def conditions_of(summary: Summary) -> list[str]:
    """Conditions of the run, in the order of its tests."""
    return list(dict.fromkeys(c for test in summary["tests"].values() for c in test["conditions"]))


def effects_of(summary: Summary) -> list[Effect]:
    """Effects of all tests."""
    return [effect for test in summary["tests"].values() for effect in test["effects"]]


def is_grid(summary: Summary) -> bool:
    """Whether the users are cells of the demographic grid."""
    return GRID in conditions_of(summary)
