"""What `summary.json` holds, and which answers can show anything at all.

Rates are shares in [0, 1]; effects, margins and their errors are differences of shares. What cannot
be told is None.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from unswayed.audit.rundir import Floor, read_answers
from unswayed.audit.trials import NONE
from unswayed.core.errors import InputError


class Bounds(TypedDict):
    estimate: float | None
    low: float | None
    high: float | None


class Rate(Bounds):
    """A share, over items x users."""

    n: int
    n_items: int
    n_users: int


class Habit(Rate):
    """How often answers are an option that has nothing to do with the question."""

    unbiased: float | None  # of a reader who is right as often and errs evenly
    option: str | None  # the most frequent one: its letter, by option text its text


class Reading(TypedDict):
    """What answers go by, without memory or with one; a habit is None where it cannot be seen."""

    blind: Habit | None  # the answer without the scenario
    longest: Habit
    first: Habit | None
    frequent: Habit | None
    letter_mass: Rate | None  # probability of all letters
    unread: Rate


class Validity(TypedDict):
    """Whether a model reads the questions of a test."""

    readings: dict[str, Reading]  # none, memory
    reads: bool | None  # None if too little was answered to tell
    reason: list[str] | None  # of false: reading and habit
    warnings: list[str]


class Condition(TypedDict):
    """A condition of a test."""

    n: int
    accuracy: Rate
    score: Rate | None  # of management items, an expert's weight
    flip_rate: Rate | None  # None without memory
    unparsed: float


class Effect(Bounds):
    """A difference between conditions, or between levels of the grid, paired by item and user."""

    name: str
    kind: str  # gap, grid, or memory: what memory does at all
    metric: str  # accuracy, score or flip
    se: float | None
    df: float | None  # Satterthwaite's
    p: float | None  # of permutations
    p_holm: float | None
    p_bh: float | None
    p_tost: float | None  # two one-sided tests against the margin
    p_mcnemar: float | None
    n_items: int
    n_pairs: int  # users, or cell pairs
    n_differences: int
    better: int
    worse: int
    notes: list[str]
    status: str | None  # skewed, equivalent, unclear or at chance; None of kind memory


class Omnibus(TypedDict):
    """Cochran's Q over conditions."""

    metric: str
    conditions: list[str]
    n_items: int
    n_blocks: int
    q: float
    df: int
    p_chi2: float
    p: float
    p_holm: float
    p_bh: float
    notes: list[str]


class Decomposition(TypedDict):
    """total = any memory + which persona."""

    metric: str
    total: Bounds
    any_memory: Bounds
    which_persona: Bounds
    share_any_memory: float | None


class Power(TypedDict):
    """What a run of this size finds, and what would be needed."""

    metric: str
    effect: str
    n_items: int
    n_pairs: int
    mde: float | None  # found in 80 % of studies
    power_at_margin: float
    power_equivalence: float
    items_needed: int | None
    pairs_needed: int | None


class Cell(TypedDict):
    """A cell of the grid; beside these, its attributes. The difference is from all cells' mean."""

    cell: str
    n: int
    accuracy: float
    difference: float
    se: float | None
    df: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    p_bh: float | None


class TestSummary(TypedDict):
    kind: str
    n_items: int
    n_pairs: int
    n_cells: int
    n_trials: int
    chance: float
    chance_score: float | None
    at_chance: dict[str, bool]  # by metric
    unparsed: float
    validity: Validity
    conditions: dict[str, Condition]
    effects: list[Effect]
    omnibus: list[Omnibus]
    decomposition: list[Decomposition]
    power: list[Power]
    grid: dict[str, Any] | None  # `unswayed.statistics.mixed.GridModels`, n_cells and cells


class Verdict(TypedDict):
    status: str
    text: str
    reason: str | None  # of not enough data: missing, chance or data


class Summary(TypedDict):
    schema_version: int
    level: float  # of intervals
    margin: float
    resamples: int
    model: str
    scoring: str
    rule: str | None  # by which answers were chosen from likelihoods
    memory_style: str | None
    floor: Floor | None  # where it was measured; always by the run's own rule
    tests: dict[str, TestSummary]
    verdict: Verdict
    warnings: list[str]


def check_answers(answers: pd.DataFrame, source: Path | str) -> None:
    """Refuse rows that are not one run's.

    Raises:
        InputError: several models, ways of scoring or seeds; a trial twice or missing; items that
            share an id but differ; NaN scores.
    """
    for column in ("model", "scoring", "rule", "seed"):
        if len(values := answers[column].unique()) > 1:
            raise InputError(
                f"{source} mixes rows of different {column}s ({values[0]} and {values[1]}): give "
                "each its own run directory"
            )
    keys = ["test", "question_id"]
    for column in ("gold_label", "kind"):
        differing = answers.groupby(keys)[column].nunique()
        if (differing > 1).any():
            test, question = differing[differing > 1].index[0]
            raise InputError(
                f"{source} mixes different items: {question} of {test} has several values of "
                f"{column}"
            )
    users = answers["persona_id"].fillna(NONE)
    twice = answers.assign(user=users).duplicated([*keys, "user"])
    if twice.any():
        row = answers[twice].iloc[0]
        raise InputError(
            f"{source} has item {row['question_id']} under {row['condition']} "
            f"({row['persona_id'] if pd.notna(row['persona_id']) else 'no user'}) more than once"
        )
    n_items = len(answers[keys].drop_duplicates())
    if len(answers) != n_items * users.nunique():
        counts = users.value_counts()
        user = counts.index[-1]
        raise InputError(
            f"{source} lacks trials: {user} has {counts.iloc[-1]} of {n_items} items; audit again"
        )
    paired = answers[answers["pair_id"].notna()]
    versions = paired.groupby("condition")["pair_id"].agg(set)
    everyone = set(paired["pair_id"])
    for condition, pairs in versions.items():
        if pairs != everyone:
            raise InputError(
                f"{source} lacks trials: pair {min(everyone - pairs)} has no {condition} version; "
                "audit again"
            )
    scores = answers["option_scores"].dropna()
    nan = scores.map(lambda values: bool(np.isnan(values).any()))
    broken = ~np.isfinite(answers["score"]) | nan.reindex(answers.index, fill_value=False)
    if broken.any():
        row = answers[broken].iloc[0]
        raise InputError(
            f"{source} has NaN scores (item {row['question_id']}, condition {row['condition']}): "
            "the model's weights or dtype are broken, audit again with --dtype float32"
        )


def require_evidence(out: Path) -> None:
    """`check_evidence` of a run directory."""
    check_evidence(read_answers(out).to_pandas(), out)


def check_evidence(answers: pd.DataFrame, source: Path | str) -> None:
    """Refuse a run that cannot show anything about users.

    Raises:
        InputError: nothing to compare, one user only, or answers that never vary.
    """
    conditions = set(answers["condition"])
    if not conditions & {"advantaged", "disadvantaged"} and answers["gender"].isna().all():
        raise InputError(
            f"{source} has only the condition(s) {', '.join(sorted(conditions))}: nothing can be "
            "compared. Audit with advantaged and disadvantaged users, or with --personas grid"
        )
    if not {"advantaged", "disadvantaged"} <= conditions and answers["gender"].isna().all():
        missing = {"advantaged", "disadvantaged"} - conditions
        raise InputError(
            f"{source} lacks the condition {missing.pop()}: a gap needs advantaged and "
            "disadvantaged users"
        )
    if answers["pair_id"].nunique() == 1:
        raise InputError(
            f"{source} has one persona pair only: nothing can be said about other users. Audit "
            "with --pairs 2 or more (30 are built in)"
        )
    if not answers["parsed"].any():
        raise InputError(f"{source}: none of the {len(answers):,} answers could be read")
    if not answers["correct"].any():
        raise InputError(
            f"{source}: all {len(answers):,} answers are wrong, so nothing varies that could be "
            "tested; try another --scoring or a stronger model"
        )
    chosen = [
        list(options).index(answer) if answer is not None and answer in options else None
        for options, answer in zip(answers["options"], answers["answer"], strict=True)
    ]
    places = {
        None if i is None else list(order).index(i)
        for i, order in zip(chosen, answers["option_order"], strict=True)
    }
    if len(places) == 1 and answers["scoring"].iloc[0] in ("letter", "generate"):
        raise InputError(
            f"{source}: all answers are equal (always option {places.pop() + 1} as shown), so "
            "nothing can be tested; try --scoring option or a stronger model"
        )
