"""What mitigation.json holds."""

from __future__ import annotations

from typing import Any, TypedDict

from unswayed.compare.paired import Interval
from unswayed.mitigation.dpo.settings import DpoRun


class Change(TypedDict):
    """What training changed of one metric under one condition, as of `changes.run_changes`."""

    metric: str  # accuracy, score (of management items), flip
    name: str  # a condition, "persona", "gap" or "persona - neutral"
    before: Interval  # shares
    after: Interval
    change: Interval  # after minus before
    p_equivalent: float | None  # that the change is within the margin; None of several trainings
    relative: Interval | None  # of shares of flips, see `changes.relative_change`
    n_items: int
    n_pairs: int


class MitigationTest(TypedDict):
    """A test in all runs."""

    n_items: int
    n_pairs: int
    changes: dict[str, list[Change]]  # run -> against the run before training


class MitigationRun(TypedDict):
    """A run: after its summary and record."""

    verdict: dict[str, Any]
    warnings: list[str]
    notes: list[str]
    check: dict[str, Any] | None  # policy, outcome, tally, checks; None without a policy
    model: dict[str, str | None]  # revision, dtype, device, adapter_hash
    tests: dict[str, dict[str, Any]]  # chance, chance_score, at_chance
    scoring: str
    seed: int
    memory: str
    memory_style: str


class Mitigation(TypedDict):
    """mitigation.json."""

    schema_version: int
    version: str  # of this package
    level: float  # of intervals
    margin: float  # share
    model: str
    runs: dict[str, MitigationRun]  # before, after, and the baselines ignore and gated
    tests: dict[str, MitigationTest]
    capability: dict[str, Any] | None  # settings, and changes: task -> condition -> row
    separation: dict[str, Any]  # of `separation.check_items`; users: asked about; card
    training: DpoRun
    curves: list[dict[str, Any]]  # trl's log
