"""Simulated audits whose truth is given: who is right, or how probable the right answer is.

Each generator draws the answers of I items x J users under every condition. They differ in what a
gap is made of: few items that react, items with signs of their own, few users, or a latent margin.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import pandas as pd
from scipy import optimize, stats
from scipy.special import expit

from unswayed.audit.trials import NONE, SCHEMA, add_flips
from unswayed.data.personas import grid_personas

RIGHT = 0.7  # share of items that are answered right where nothing reacts
REACTING, SPREAD = 0.15, 1.0  # of `clustered`: share of cells that react, its sd over items (logit)
ITEM, CELL, BASE, NOISE = 0.5, 0.5, 1.5, 0.5  # sds of `latent`: of the shift, of the margin
VERSIONS = ("neutral", "advantaged", "disadvantaged")


@dataclasses.dataclass(frozen=True)
class Audit:
    """Answers with their truth.

    Attributes:
        values: condition -> (I, J) right (1) or wrong (0), or the probability of the key; NaN where
            the trial is missing. Without memory J is 1.
        gap: true gap between users at large; these: between the J users that were drawn.
        read: condition -> (I, J) whether the answer could be read; without it all could.
    """

    values: dict[str, np.ndarray]
    gap: float
    these: float
    read: dict[str, np.ndarray] | None = None


def mean_logistic(mean: np.ndarray | float, sd: float) -> np.ndarray:
    """Mean of a logistic-normal variable, by Gauss-Hermite quadrature; the shape of `mean`."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    return expit(np.asarray(mean)[..., None] + sd * nodes) @ weights / weights.sum()


def of_differences(
    rng: np.random.Generator, differences: np.ndarray, gap: float, these: float | None = None
) -> Audit:
    """An audit in which nothing but these differences (I, J) in {-1, 0, 1} reacts to the user."""
    base = (rng.random((len(differences), 1)) < RIGHT).astype(float)
    neutral = np.broadcast_to(base, differences.shape)
    sides = {
        name: np.where(differences == 0, base, sign * differences > 0)
        for name, sign in (("advantaged", 1), ("disadvantaged", -1))
    }
    these = gap if these is None else these
    return Audit({NONE: base, "neutral": neutral, **sides}, gap, these)


# -- generators ----------------------------------------------------------------------------------


def rare(
    rng: np.random.Generator, n_items: int, n_users: int, items: float, cells: float = 1.0
) -> Audit:
    """A share of the items favours the advantaged, in a share of its cells, for all users alike."""
    reacts = (rng.random((n_items, 1)) < items) & (rng.random((n_items, n_users)) < cells)
    return of_differences(rng, reacts.astype(float), items * cells)


def signs(
    rng: np.random.Generator, n_items: int, n_users: int, items: float, cells: float = 1.0
) -> Audit:
    """As `rare`, but each item favours whom it likes: no gap on average."""
    reacts = (rng.random((n_items, 1)) < items) & (rng.random((n_items, n_users)) < cells)
    return of_differences(rng, reacts * rng.choice([-1.0, 1.0], (n_items, 1)), 0.0)


def concentrated(
    rng: np.random.Generator, n_items: int, n_users: int, users: float, loss: float
) -> Audit:
    """A share of the users loses a share of its answers, the others nothing."""
    hit = rng.random((1, n_users)) < users
    differences = (hit & (rng.random((n_items, n_users)) < loss)).astype(float)
    return of_differences(rng, differences, users * loss, float(hit.mean()) * loss)


@functools.cache
def _tilt(gap: float, sd: float) -> float:
    share = _reacting()
    return optimize.brentq(lambda m: share * (2 * mean_logistic(m, sd) - 1) - gap, -20, 20)


@functools.cache
def _reacting() -> float:
    return float(mean_logistic(np.log(REACTING / (1 - REACTING)), SPREAD))


def clustered(
    rng: np.random.Generator, n_items: int, n_users: int, gap: float, item_sd: float, user_sd: float
) -> Audit:
    """Some cells of each item react; the odds that they favour the advantaged vary over items and
    over users (standard deviations in logits)."""
    base = np.log(REACTING / (1 - REACTING)) + SPREAD * rng.standard_normal((n_items, 1))
    reacts = rng.random((n_items, n_users)) < expit(base)
    mean = _tilt(gap, float(np.hypot(item_sd, user_sd)))
    users = mean + user_sd * rng.standard_normal((1, n_users))
    odds = users + item_sd * rng.standard_normal((n_items, 1))
    favours = np.where(rng.random((n_items, n_users)) < expit(odds), 1.0, -1.0)
    these = _reacting() * float((2 * mean_logistic(users, item_sd) - 1).mean())
    return of_differences(rng, reacts * favours, gap, these)


def _share(at: np.ndarray | float, sd: float, steepness: float) -> np.ndarray:
    """Mean outcome of normal margins at `at` with a spread of `sd`."""
    if steepness:
        return mean_logistic(steepness * np.asarray(at), steepness * sd)
    return stats.norm.cdf(np.asarray(at) / sd)


@functools.cache
def _place(share: float, sd: float, steepness: float) -> float:
    return optimize.brentq(lambda at: float(_share(at, sd, steepness)) - share, -60, 60)


def latent(
    rng: np.random.Generator,
    n_items: int,
    n_users: int,
    gap: float,
    accuracy: float = RIGHT,
    user_sd: float = 0.3,
    steepness: float = 0.0,
) -> Audit:
    """The key leads by a normal margin, which the user shifts: right where it is above zero.

    Args:
        accuracy: mean of both versions.
        user_sd: of the shift, over users.
        steepness: the outcome is not right or wrong but expit(steepness x margin), q of the key.
    """
    cells, items = (n_items, n_users), (n_items, 1)
    bare = BASE * rng.standard_normal(items)
    margin = bare + NOISE * rng.standard_normal(cells)
    users = user_sd * rng.standard_normal((1, n_users))
    shift = ITEM * rng.standard_normal(items) + users + CELL * rng.standard_normal(cells)
    own = np.sqrt(BASE**2 + NOISE**2 + (ITEM**2 + CELL**2) / 4)
    sd = float(np.hypot(own, user_sd / 2))
    high, low = (_place(accuracy + s * gap / 2, sd, steepness) for s in (1, -1))
    middle = (high + low) / 2
    margins = {
        NONE: bare + middle,
        "neutral": margin + middle,
        "advantaged": margin + high + shift / 2,
        "disadvantaged": margin + low - shift / 2,
    }
    values = {
        name: expit(steepness * at) if steepness else (at > 0).astype(float)
        for name, at in margins.items()
    }
    sides = _share(high + users / 2, own, steepness) - _share(low - users / 2, own, steepness)
    return Audit(values, gap, float(sides.mean()))


def missing(rng: np.random.Generator, n_items: int, n_users: int, trials: float, **design) -> Audit:
    """As `latent`, with a share of the trials of every second user's versions missing."""
    audit = latent(rng, n_items, n_users, **design)
    values = {
        name: np.where((rng.random(v.shape) < trials) & (np.arange(v.shape[1]) % 2 == 1), np.nan, v)
        for name, v in audit.values.items()
    }
    return dataclasses.replace(audit, values=values)


def unread(
    rng: np.random.Generator, n_items: int, n_users: int, shares: dict[str, float], **design
) -> Audit:
    """As `rare`, with a share of each condition's answers that cannot be read: they are wrong."""
    audit = rare(rng, n_items, n_users, **design)
    read = {name: rng.random(v.shape) >= shares.get(name, 0.0) for name, v in audit.values.items()}
    values = {name: np.where(read[name], v, 0.0) for name, v in audit.values.items()}
    return dataclasses.replace(audit, values=values, read=read)


def grid(
    rng: np.random.Generator,
    n_items: int,
    own: float = 0.0,
    pairs: float = 0.0,
    lost: float = 0.0,
    changed: float = 0.05,
) -> tuple[np.ndarray, np.ndarray]:
    """Answers without memory (I, 1) and of 81 cells (I, 81); no attribute has a mean effect.

    Args:
        own: sd (logits) of an item's own reaction to each level; pairs: to each two levels.
        lost: share of the items that are right in general and wrong in the last cell.
        changed: share of answers that change at random.
    """
    people = pd.DataFrame([dict(p.attributes) for p in grid_personas()])
    logits = 1.5 * rng.standard_normal((n_items, 1)) + np.log(RIGHT / (1 - RIGHT))
    bare = logits > 0
    pull = np.zeros((n_items, len(people)))
    for names, sd in [
        *((([name]), own) for name in people),
        *((list(two), pairs) for two in itertools.combinations(people, 2)),
    ]:
        codes = people.groupby(names).ngroup().to_numpy()
        effects = sd * rng.standard_normal((n_items, codes.max() + 1))
        pull += (effects - effects.mean(axis=1, keepdims=True))[:, codes]
    right = logits + pull > 0 if own or pairs else np.broadcast_to(bare, pull.shape)
    right = right ^ (rng.random(pull.shape) < changed)
    right[:, -1] &= rng.random(n_items) >= lost
    return bare.astype(float), right.astype(float)


# -- answers as an audit writes them --------------------------------------------------------------


def answers(audit: Audit) -> pd.DataFrame:
    """Rows of `answers.parquet`; of probabilities with 2 to 4 options, scored by letter."""
    parts = []
    for condition, values in audit.values.items():
        read = np.ones(values.shape, bool) if audit.read is None else audit.read[condition]
        users = [
            {} if condition == NONE else {"persona_id": f"{condition}-{j}", "pair_id": f"{j:03d}"}
            for j in range(values.shape[1])
        ]
        parts += _rows(condition, values, read, users)
    return _frame(parts)


def grid_answers(bare: np.ndarray, cells: np.ndarray) -> pd.DataFrame:
    """Rows of `answers.parquet` of a grid."""
    parts = _rows(NONE, bare, np.ones(bare.shape, bool), [{}])
    for j, person in enumerate(grid_personas()):
        column = cells[:, j : j + 1]
        user = {"persona_id": person.id, **dict(person.attributes)}
        parts += _rows(person.condition, column, np.ones(column.shape, bool), [user])
    return _frame(parts)


def _frame(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(add_flips(rows), columns=SCHEMA.names)


def _rows(condition: str, values: np.ndarray, read: np.ndarray, users: list[dict]) -> list[dict]:
    drawn = bool(((values > 0) & (values < 1)).any())
    memory = NONE if condition == NONE else "prompt"
    rows = []
    for i, j in itertools.product(*map(range, values.shape)):
        if np.isnan(values[i, j]):
            continue
        n = 2 + i % 3 if drawn else 4
        key = i % n
        options = [f"{i:03d}{letter}" for letter in "abcd"[:n]]
        if drawn:
            odds = np.full(n, (1 - values[i, j]) / (n - 1))
            odds[key] = values[i, j]
            picked = int(odds.argmax())
        else:
            picked = key if values[i, j] else (key + 1) % n
        rows.append(
            dict.fromkeys(SCHEMA.names)
            | users[j]
            | {
                "question_id": f"{i:03d}",
                "test": "simulated",
                "kind": "understanding",
                "condition": condition,
                "memory": memory,
                "options": options,
                "option_order": list(range(n)),
                "weights": [float(o == key) for o in range(n)],
                "gold_label": options[key],
                "answer": options[picked] if read[i, j] else None,
                "correct": bool(read[i, j]) and picked == key,
                "score": float(read[i, j] and picked == key),
                "parsed": bool(read[i, j]),
                "option_scores": np.log(odds).tolist() if drawn else None,
                "option_tokens": [1] * n if drawn else None,
                "scoring": "letter" if drawn else "generate",
                "rule": "sum" if drawn else None,
                "model": "simulated",
                "seed": 0,
            }
        )
    return rows
