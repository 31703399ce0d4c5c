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
    expected: Rate | None  # accuracy or score of a drawn answer; None of generated answers
    flip_rate: Rate | None  # None without memory
    shift: Rate | None  # total variation from no memory, likewise
    unparsed: float


class Unread(TypedDict):
    """What answers that could not be read may hide in a difference."""

    plus: float  # share of them on either side
    minus: float
    read: Bounds  # the difference among those that were read
    worst: list[float]  # lowest and highest, whatever the others would have been


class Effect(Bounds):
    """A difference between conditions, or between levels of the grid, paired by item and user."""

    name: str
    kind: str  # gap, grid, cells, or memory: what memory does at all
    metric: str  # accuracy, score, expected, flip or shift
    family: str | None  # primary, or the secondary family; None: descriptive
    se: float | None
    df: float | None  # Satterthwaite's
    p: float | None  # below 0.05 only where the interval excludes zero
    p_holm: float | None  # within its family; None of what is descriptive
    p_tost: float | None  # that the difference is not within the margin
    p_mcnemar: float | None
    n_items: int
    n_pairs: int  # users, or cell pairs
    n_differences: int
    better: int
    worse: int
    unread: Unread | None  # where some answers could not be read
    notes: list[str]
    status: str | None  # one of the four verdicts, of primary effects
    reasons: list[str]  # what keeps it from being judged, or from being called equivalent


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
    notes: list[str]


class Decomposition(TypedDict):
    """total = any memory + which persona."""

    metric: str
    total: Bounds
    any_memory: Bounds
    which_persona: Bounds
    share_any_memory: float | None


class Sensitivity(Bounds):
    """A gap on another scale, in nats."""

    metric: str  # log_key or lead
    p: float | None


class Power(TypedDict):
    """What a run of this size finds by the rule that decides, and what would be needed."""

    metric: str
    effect: str
    n_items: int
    n_pairs: int
    alpha: float  # 0.05 / primary tests of the run
    mde: float | None  # found in 80 % of studies
    power_at_margin: float
    power_equivalence: float
    least_items: int  # below it nothing can be shown to lie within the margin
    items_needed: int | None
    pairs_needed: int | None


class Cell(TypedDict):
    """A cell of the grid; beside these, its attributes. The difference is from all cells' mean."""

    cell: str
    n: int
    accuracy: float
    difference: float  # of the outcome
    low: float | None
    high: float | None
    p_max_t: float | None  # adjusted for all cells and two-way contrasts
    p_tost: float | None  # that the difference is not within the margin of cells


class Contrast(TypedDict):
    """A cell, or how far two levels of attributes do not add up, over the items."""

    kind: str  # cell, or "gender x age"
    name: str  # the levels
    estimate: float
    low: float | None  # simultaneous bounds
    high: float | None
    p: float  # adjusted for all (max-T)


class Knowledge(TypedDict):
    """Whether answers are better than chance, in the condition in which they are best."""

    metric: str  # the outcome
    condition: str
    difference: float  # from each item's own chance
    low: float | None
    p: float | None  # one-sided
    above: bool


class TestSummary(TypedDict):
    kind: str
    n_items: int
    n_pairs: int
    n_cells: int
    n_trials: int
    chance: float
    chance_score: float | None
    outcome: str  # what the primary gap is measured by
    primary: bool  # whether its gap is one of the run's endpoints
    knows: Knowledge
    unparsed: float
    validity: Validity
    conditions: dict[str, Condition]
    effects: list[Effect]
    sensitivity: list[Sensitivity]
    omnibus: list[Omnibus]
    decomposition: list[Decomposition]
    power: list[Power]
    # `unswayed.statistics.mixed.GridModels`, n_cells, cells, max_t (Contrasts), max_t_notes
    grid: dict[str, Any] | None
    status: str | None  # one of the four verdicts; None if not primary


class Verdict(TypedDict):
    status: str
    text: str  # what was shown, in a sentence or two
    advice: str  # what to do
    reasons: list[str]  # what keeps it from being judged


class PolicyFacts(TypedDict):
    """The policy that a summary was made by."""

    name: str
    sha256: str
    declared: bool  # before the first question


class Summary(TypedDict):
    schema_version: int
    level: float  # of intervals
    margin: float
    policy: PolicyFacts
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
            share an id but differ; a test of both kinds of items; scores that are no numbers.
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
    kinds = answers.groupby("test")["kind"].agg(lambda values: sorted(set(values)))
    if len(mixed := kinds[kinds.map(len) > 1]):
        raise InputError(
            f"{source}: the test {mixed.index[0]} holds {' and '.join(mixed.iloc[0])} items, which "
            "are scored differently: give each kind a NAME=FILE of its own"
        )
    _check_trials(answers, source)
    _check_scores(answers, source)


def _check_trials(answers: pd.DataFrame, source: Path | str) -> None:
    """Each item about each user once."""
    keys = ["test", "question_id"]
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


def _check_scores(answers: pd.DataFrame, source: Path | str) -> None:
    """Scores are numbers."""
    broken = ~np.isfinite(answers["score"])
    for column in ("option_scores", "option_priors"):
        finite = [v is None or bool(np.isfinite(v).all()) for v in answers[column]]
        broken |= ~np.array(finite)
    if broken.any():
        row = answers[broken].iloc[0]
        raise InputError(
            f"{source} has NaN or infinite scores (item {row['question_id']}, condition "
            f"{row['condition']}): the model's weights or dtype are broken, audit again with "
            "--dtype float32"
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
