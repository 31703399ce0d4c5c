"""Effects of memory and gaps between users in one test, with intervals, tests and power."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from unswayed.audit.evidence import Decomposition, Effect, Omnibus, Power, Rate, Unread
from unswayed.audit.probabilities import NATS, identity_shift, shifts
from unswayed.audit.trials import CONDITIONS, GRID, NONE
from unswayed.statistics.classic import cochran_q, mcnemar_p
from unswayed.statistics.crossed import (
    FEWEST_USERS,
    LEVEL,
    crossed_mean,
    equivalence_p,
    fewest_items,
    proportion,
    users_mean,
)
from unswayed.statistics.power import components, minimal_detectable, needed, simulated_power

PERSONA = "persona"  # advantaged and disadvantaged together
GAP, IDENTITY = "gap", "identity"
# name: (condition, minus condition)
EFFECTS = {
    GAP: ("advantaged", "disadvantaged"),
    "neutral - none": ("neutral", NONE),
    "persona - none": (PERSONA, NONE),
    "persona - neutral": (PERSONA, "neutral"),
    "advantaged - none": ("advantaged", NONE),
    "disadvantaged - none": ("disadvantaged", NONE),
    "grid - none": (GRID, NONE),
}
# Of flips and shifts, which are differences from no memory already.
FROM_NONE = {"flip": (GAP, "persona - neutral"), "shift": ("persona - neutral",)}
COLUMNS = {
    "accuracy": "correct",
    "score": "score",
    "expected": "expected",
    "flip": "flip",
    "read": "parsed",
    **{name: name for name in NATS},
}
DRAWN = ("expected", "score", "shift")  # means of values, not shares of answers
PRIMARY = "primary"


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


def with_users(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the columns user (pair or cell; none) and group (of conditions)."""
    user = rows["pair_id"].fillna(rows["persona_id"]).fillna(NONE)
    return rows.assign(user=user, group=condition_group(rows))


def matrices(rows: pd.DataFrame, metrics: Sequence[str]) -> Matrices:
    """Matrices of one test's rows; items and users are sorted, so that columns are paired.

    Args:
        metrics: of `COLUMNS`, or shift. All but accuracy, score, flip and read need the columns of
            `with_probabilities`.
    """
    table = with_users(rows)
    items = sorted(rows["question_id"].unique())
    by_metric: dict[str, dict[str, np.ndarray]] = {metric: {} for metric in metrics}
    for metric, by_condition in by_metric.items():
        if metric == "shift":
            by_condition |= shifts(table)
            continue
        values = table.assign(value=rows[COLUMNS[metric]].astype(float))
        for condition in CONDITIONS:
            part = values[values["group"] == condition]
            if part["value"].notna().any():
                wide = part.pivot(index="question_id", columns="user", values="value")
                by_condition[condition] = wide.reindex(index=items).to_numpy()
    return Matrices(by_metric)


def rate(values: np.ndarray | None, drawn: bool = False) -> Rate:
    """A share (items x users) with its interval.

    Args:
        drawn: values are no answers but means in [0, 1], which vary less than right and wrong.
    """
    values = np.full((1, 1), np.nan) if values is None else values
    share = crossed_mean(values) if drawn else proportion(values)
    return {
        "estimate": share.estimate,
        "low": share.low and max(share.low, 0.0),
        "high": share.high and min(share.high, 1.0),
        "n": share.n,
        "n_items": share.n_items,
        "n_users": share.n_users,
    }


def between_conditions(
    rows: pd.DataFrame, values: Matrices, metrics: Sequence[str], outcome: str, margin: float
) -> list[Effect]:
    """Effects between conditions.

    Args:
        rows: of one test, with the columns of `with_probabilities`.
        metrics: accuracy, and score and expected where there are any.
        outcome: the one of them whose gap is primary.
    """
    names = [(metric, name) for metric in metrics for name in EFFECTS]
    names += [(m, name) for m, of in FROM_NONE.items() if m in values.by_metric for name in of]
    effects = []
    for metric, name in names:
        plus, minus = EFFECTS[name]
        differences = values.difference(metric, plus, minus)
        if differences is None or np.isnan(differences).all():
            continue
        kind = "gap" if name == GAP and metric in metrics else "memory"
        effect = paired_effect(name, kind, metric, differences, margin, outcome)
        if kind == "gap":
            sides = values(metric, plus), values(metric, minus)
            effect |= unread(*sides, values("read", plus), values("read", minus), margin)
        effects.append(effect)
    identity = identity_shift(with_users(rows)) if "shift" in values.by_metric else None
    if identity is not None and not np.isnan(identity).all():
        effects.append(paired_effect(IDENTITY, "memory", "shift", identity, margin, outcome))
    return effects


def family(name: str, kind: str, metric: str, outcome: str) -> str | None:
    """The tests that are corrected together, over a run's tests; None of what is descriptive."""
    if metric == outcome:
        secondary = ("neutral - none", "persona - neutral", "grid - none")
        return PRIMARY if kind != "memory" else name if name in secondary else None
    if metric in FROM_NONE and name != GAP:
        return f"{name}, {metric}"
    return None


def paired_effect(
    name: str, kind: str, metric: str, differences: np.ndarray, margin: float, outcome: str
) -> Effect:
    """A mean of paired differences (items x users), tested.

    With fewer than FEWEST_USERS users it is about these: their mean, with items as the clusters.
    """
    mean, notes = users_mean(differences), []
    values = differences[~np.isnan(differences)]
    if 0 < mean.n_users < FEWEST_USERS:
        users = "this user" if mean.n_users == 1 else f"these {mean.n_users} users"
        notes.append(f"of {users} only, over items")
    if mean.n_items < 2:
        notes.append("one item only: no interval and no test")
    elif mean.df is None:
        notes.append(
            f"no answer differs: the interval is that of no event among {mean.n_items:,} items"
        )
    binary = metric == "accuracy" and set(np.unique(values)) <= {-1.0, 0.0, 1.0}
    return {
        "name": name,
        "kind": kind,
        "metric": metric,
        "family": family(name, kind, metric, outcome),
        "estimate": mean.estimate,
        "se": mean.se,
        "df": mean.df,
        "low": None if mean.low is None else max(mean.low, -1.0),
        "high": None if mean.high is None else min(mean.high, 1.0),
        "p": mean.p,
        "p_holm": None,
        "p_tost": None if kind == "memory" else equivalence_p(differences, margin),
        "p_mcnemar": mcnemar_p(differences) if binary else None,
        "n_items": mean.n_items,
        "n_pairs": mean.n_users,
        "n_differences": mean.n,
        "better": int((values > 0).sum()),
        "worse": int((values < 0).sum()),
        "unread": None,
        "notes": notes,
        "status": None,
        "reasons": [],
    }


def unread(
    plus: np.ndarray,
    minus: np.ndarray,
    plus_read: np.ndarray,
    minus_read: np.ndarray,
    margin: float,
) -> dict[str, Unread | float | None]:
    """What unread answers may hide in a difference, and the p of equivalence whatever they hide.

    Args:
        plus, minus: (I, J) values of both sides in [0, 1], unread answers being wrong; plus_read,
            minus_read: 1 where the answer could be read.

    Returns:
        `unread` of an Effect (and its `p_tost`, the largest over both worst cases); nothing where
        all was read.
    """
    read, other = plus_read > 0, minus_read > 0
    if read.all() and other.all():
        return {}
    least = np.where(read, plus, 0.0) - np.where(other, minus, 1.0)
    most = np.where(read, plus, 1.0) - np.where(other, minus, 0.0)
    among = np.where(read & other, plus - minus, np.nan)
    mean = users_mean(among) if not np.isnan(among).all() else crossed_mean(among)
    counts: Unread = {
        "plus": float(1 - read.mean()),
        "minus": float(1 - other.mean()),
        "read": {"estimate": mean.estimate, "low": mean.low, "high": mean.high},
        "worst": [float(np.mean(least)), float(np.mean(most))],
    }
    tost = [equivalence_p(values, margin) for values in (plus - minus, least, most)]
    return {"unread": counts, "p_tost": None if None in tost else max(tost)}


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
    for metric in FROM_NONE:
        if (metric, "persona - neutral") in by_name:
            drawn = metric in DRAWN
            rates = [rate(values(metric, group), drawn) for group in (PERSONA, "neutral")]
            parts.append((metric, *rates, by_name[metric, "persona - neutral"]))
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


def power_of(effect: Effect, differences: np.ndarray, margin: float, n_tests: int) -> Power:
    """What a run of this size finds by the rule that decides, and what would be needed.

    Args:
        differences: (I, J), what the effect is the mean of.
        n_tests: primary tests of the run, which share alpha.
    """
    at_large = effect["n_pairs"] >= FEWEST_USERS
    values = differences if at_large else np.nanmean(differences, axis=1)[:, None]
    parts, alpha = components(values), (1 - LEVEL) / n_tests
    sizes = effect["n_items"], effect["n_pairs"] if at_large else 1
    detect, _ = simulated_power(parts, *sizes, margin, margin, alpha)
    _, equivalence = simulated_power(parts, *sizes, 0.0, margin, alpha)
    by_users = effect["name"] == GAP and at_large
    return {
        "metric": effect["metric"],
        "effect": effect["name"],
        "n_items": effect["n_items"],
        "n_pairs": effect["n_pairs"],
        "alpha": alpha,
        "mde": minimal_detectable(parts, *sizes, alpha),
        "power_at_margin": detect,
        "power_equivalence": equivalence,
        "least_items": fewest_items(margin),
        "items_needed": needed(parts, *sizes, margin, "items", alpha),
        "pairs_needed": needed(parts, *sizes, margin, "users", alpha) if by_users else None,
    }
