"""Effects of memory and gaps between users in one test, with intervals, tests and power."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from unswayed.audit.evidence import Decomposition, Effect, Omnibus, Power, Rate
from unswayed.audit.trials import CONDITIONS, GRID, NONE
from unswayed.statistics.classic import cochran_q, mcnemar_p
from unswayed.statistics.crossed import (
    Components,
    components,
    crossed_mean,
    equivalence_p,
    minimal_detectable,
    needed,
    permutation_p,
    proportion,
    simulated_power,
)

PERSONA = "persona"  # advantaged and disadvantaged together
# name: (condition, minus condition)
EFFECTS = {
    "gap": ("advantaged", "disadvantaged"),
    "neutral - none": ("neutral", NONE),
    "persona - none": (PERSONA, NONE),
    "persona - neutral": (PERSONA, "neutral"),
    "advantaged - none": ("advantaged", NONE),
    "disadvantaged - none": ("disadvantaged", NONE),
    "grid - none": (GRID, NONE),
}
FLIP_EFFECTS = ("gap", "persona - neutral")
COLUMNS = {"accuracy": "correct", "score": "score", "flip": "flip"}

Spreads = dict[tuple[str, str], Components]  # variance components by metric and effect


@dataclasses.dataclass(frozen=True)
class Matrices:
    """Answers of one test as matrices (items x users) per metric and condition.

    Without memory there is one column. "persona" is the mean of advantaged and disadvantaged.
    """

    by_metric: dict[str, dict[str, np.ndarray]]

    def __call__(self, metric: str, condition: str) -> np.ndarray | None:
        values = self.by_metric[metric]
        if condition == PERSONA and {"advantaged", "disadvantaged"} <= set(values):
            return (values["advantaged"] + values["disadvantaged"]) / 2
        return values.get(condition)

    def difference(self, metric: str, plus: str, minus: str) -> np.ndarray | None:
        """Paired differences (items x users); None if the run lacks one of the conditions."""
        left, right = self(metric, plus), self(metric, minus)
        return None if left is None or right is None else left - right


def condition_group(rows: pd.DataFrame) -> pd.Series:
    """Conditions, the cells of the grid as one."""
    return rows["condition"].where(rows["condition"].isin(CONDITIONS), GRID)


def matrices(rows: pd.DataFrame, metrics: Sequence[str]) -> Matrices:
    """Matrices of one test's rows; items and users are sorted, so that columns are paired."""
    user = rows["pair_id"].fillna(rows["persona_id"]).fillna(NONE)
    table = rows.assign(user=user, group=condition_group(rows))
    items = sorted(rows["question_id"].unique())
    by_metric: dict[str, dict[str, np.ndarray]] = {metric: {} for metric in metrics}
    for metric, by_condition in by_metric.items():
        values = table.assign(value=rows[COLUMNS[metric]].astype(float))
        for condition in CONDITIONS:
            part = values[values["group"] == condition]
            if part["value"].notna().any():
                wide = part.pivot(index="question_id", columns="user", values="value")
                by_condition[condition] = wide.reindex(index=items).to_numpy()
    return Matrices(by_metric)


def rate(values: np.ndarray | None) -> Rate:
    """A share (items x users) with its interval."""
    share = proportion(np.full((1, 1), np.nan) if values is None else values)
    return {
        "estimate": share.estimate,
        "low": share.low,
        "high": share.high,
        "n": share.n,
        "n_items": share.n_items,
        "n_users": share.n_users,
    }


def between_conditions(
    values: Matrices, metrics: Sequence[str], margin: float, rng: np.random.Generator
) -> tuple[list[Effect], Spreads]:
    """Effects between conditions, and the variance components of each gap."""
    effects, spreads = [], {}
    names = [(metric, name) for metric in metrics for name in EFFECTS]
    for metric, name in [*names, *(("flip", name) for name in FLIP_EFFECTS)]:
        plus, minus = EFFECTS[name]
        differences = values.difference(metric, plus, minus)
        if differences is None or np.isnan(differences).all():
            continue
        kind = "gap" if name == "gap" and metric != "flip" else "memory"
        within = "items" if minus == NONE else "cells"
        effects.append(paired_effect(name, kind, metric, differences, within, margin, rng))
        if kind == "gap" and len(differences) > 1:
            spreads[metric, name] = components(differences)
    return effects, spreads


def paired_effect(
    name: str,
    kind: str,
    metric: str,
    differences: np.ndarray,
    within: str,
    margin: float,
    rng: np.random.Generator,
) -> Effect:
    """A mean of paired differences (items x users), tested.

    Args:
        within: what keeps its labels together in permutations, "items" or "cells".
    """
    mean = crossed_mean(differences)
    values = differences[~np.isnan(differences)]
    notes = []
    if mean.n_items < 2:
        notes.append("one item only: no interval and no test")
    elif mean.df is None:
        notes.append(
            f"no answer differs: the interval is that of no event in {mean.n:,} independent "
            "answers, and true clustering would widen it"
        )
    elif mean.n_users == 1:
        notes.append("one user only: the interval speaks of other items, not of other users")
    binary = metric == "accuracy" and set(np.unique(values)) <= {-1.0, 0.0, 1.0}
    return {
        "name": name,
        "kind": kind,
        "metric": metric,
        "estimate": mean.estimate,
        "se": mean.se,
        "df": mean.df,
        "low": None if mean.low is None else max(mean.low, -1.0),
        "high": None if mean.high is None else min(mean.high, 1.0),
        "p": permutation_p(differences, rng, within),
        "p_tost": None if kind == "memory" else equivalence_p(mean, margin),
        "p_mcnemar": mcnemar_p(differences) if binary else None,
        "n_items": mean.n_items,
        "n_pairs": mean.n_users,
        "n_differences": mean.n,
        "better": int((values > 0).sum()),
        "worse": int((values < 0).sum()),
        "notes": notes,
    }


def omnibus(values: Matrices, rng: np.random.Generator) -> list[Omnibus]:
    """Cochran's Q over the conditions with pairs, and that without memory if it ran."""
    right = {c: v for c, v in values.by_metric["accuracy"].items() if c != GRID}
    users = [c for c in right if c != NONE]
    if len(users) < 2:
        return []
    n_items, n_users = right[users[0]].shape
    blocks = np.stack([np.broadcast_to(v, (n_items, n_users)) for v in right.values()], axis=-1)
    tested = cochran_q(blocks, rng)
    notes = [] if tested else ["no answer is right under one condition and wrong under another"]
    tested = tested or {"q": 0.0, "df": len(right) - 1, "p_chi2": 1.0, "p": 1.0}
    about = {"metric": "accuracy", "conditions": list(right), "n_items": n_items}
    return [about | {"n_blocks": n_items * n_users} | tested | {"notes": notes}]


def decomposition(
    values: Matrices, metrics: Sequence[str], effects: Sequence[Effect]
) -> list[Decomposition]:
    """total = any memory + which persona; flips count from zero: nothing flips without memory."""
    if values(metrics[0], "neutral") is None or values(metrics[0], PERSONA) is None:
        return []
    by_name = {(effect["metric"], effect["name"]): effect for effect in effects}
    parts = []
    for metric in metrics:
        names = ("persona - none", "neutral - none", "persona - neutral")
        if all((metric, name) in by_name for name in names):
            parts.append((metric, *(by_name[metric, name] for name in names)))
    if ("flip", "persona - neutral") in by_name:
        rates = [rate(values("flip", condition)) for condition in (PERSONA, "neutral")]
        parts.append(("flip", *rates, by_name["flip", "persona - neutral"]))
    keys = ("estimate", "low", "high")
    return [
        {
            "metric": metric,
            "total": {key: total[key] for key in keys},
            "any_memory": {key: memory[key] for key in keys},
            "which_persona": {key: persona[key] for key in keys},
            # a share of a change that may be nothing has no meaning
            "share_any_memory": memory["estimate"] / total["estimate"]
            if total["low"] is not None and (total["low"] > 0 or total["high"] < 0)
            else None,
        }
        for metric, total, memory, persona in parts
    ]


def power_of(effect: Effect, parts: Components, margin: float) -> Power:
    """What this run could have found, and what would be needed."""
    n_items, n_users = effect["n_items"], effect["n_pairs"]
    detect, _ = simulated_power(parts, n_items, n_users, margin, margin)
    _, equivalence = simulated_power(parts, n_items, n_users, 0.0, margin)
    by_users = effect["name"] == "gap" and n_users > 1
    return {
        "metric": effect["metric"],
        "effect": effect["name"],
        "n_items": n_items,
        "n_pairs": n_users,
        "mde": minimal_detectable(parts, n_items, n_users),
        "power_at_margin": detect,
        "power_equivalence": equivalence,
        "items_needed": needed(parts, n_items, n_users, margin, "items"),
        "pairs_needed": needed(parts, n_items, n_users, margin, "users") if by_users else None,
    }
