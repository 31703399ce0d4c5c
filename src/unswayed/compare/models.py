"""Several models on the same items and users: how alike they answer, and which items flip.

Two runs are compared trial by trial. An answer that could not be read is an answer of its own (two
unread answers are equal), as it is what the model did; it counts as wrong, and is no flip. How
many there are is reported.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from unswayed.audit.flips import grouped, scenarios
from unswayed.audit.rundir import model_name
from unswayed.audit.trials import NONE, USER_CONDITIONS
from unswayed.compare.runs import KEYS, model_labels, read_alike, read_summaries
from unswayed.statistics.agreement import (
    LEVEL,
    RESAMPLES,
    cluster,
    equal_share,
    estimate,
    item_tables,
    kappa,
    phi,
    resampled_items,
    resampled_users,
)
from unswayed.statistics.crossed import FEWEST_USERS

SCHEMA_VERSION = 1
SEED = 0
UNREAD = -1


class ModelRow(TypedDict):
    """A run, as in its summary; of its effects those between users."""

    label: str  # the model, and what tells it from other runs of it
    model: str
    scoring: str
    memory_style: str
    seed: int
    n_unread: int  # answers
    verdict: dict[str, Any]
    tests: dict[str, dict[str, Any]]  # test -> kind, at_chance, conditions, effects


class ModelPair(TypedDict):
    """How alike two models answer; measures as of `statistics.agreement.estimate`."""

    models: list[str]  # two labels
    test: str | None  # None: all of them
    n_unread_both: int  # trials
    equal: dict[str, Any]  # share of equal answers
    kappa: dict[str, Any]
    correct: dict[str, Any]  # phi coefficients
    flip: dict[str, Any]


class ItemFlips(TypedDict):
    """In how many models an item's answer flips."""

    test: str
    question_id: str
    text: str
    n_any: int  # models in which it flips for a user
    n_most: int  # for more than half of the users
    mean: float  # of the shares
    shares: dict[str, float | None]  # label -> share of users, None where unknown


class ModelsComparison(TypedDict):
    """What agreement.json holds."""

    schema_version: int
    level: float  # of intervals
    resamples: int
    margin: float  # share
    n_items: int
    n_users: int
    n_trials: int  # of each model
    conditions: list[str]
    versions: dict[str, str]
    models: list[ModelRow]
    order: list[str]  # labels, alike models side by side
    tree: list[list[float]]  # merges (cluster, cluster, height) of `models`, see `cluster`
    pairs: list[ModelPair]
    flips: list[ItemFlips]  # the item that flips in most models first


def compare_models(dirs: Sequence[Path]) -> ModelsComparison:
    """Agreement of two or more complete runs.

    Args:
        dirs: run directories with the same items, conditions and users, each with its summary.

    Raises:
        InputError: fewer than two runs, one of them incomplete, damaged or mixed up, the same run
            twice, or runs of different items, conditions or users.
    """
    runs, tables = read_alike(dirs)
    summaries = read_summaries(dirs)
    labels = model_labels(dirs, runs, summaries)
    aligned = [_aligned(answers, tables[0]) for answers in tables]
    pairs = _pairs(labels, aligned)
    whole = [pair for pair in pairs if pair["test"] is None]
    distances = np.zeros((len(dirs), len(dirs)))
    for pair, (i, j) in zip(whole, itertools.combinations(range(len(dirs)), 2), strict=True):
        distances[i, j] = distances[j, i] = 1 - pair["equal"]["estimate"]
    order, tree = cluster(distances)
    return {
        "schema_version": SCHEMA_VERSION,
        "level": LEVEL,
        "resamples": RESAMPLES,
        "margin": summaries[0]["margin"],
        "n_items": len(tables[0][KEYS[:2]].drop_duplicates()),
        "n_users": int(tables[0]["persona_id"].nunique()),
        "n_trials": len(tables[0]),
        "conditions": list(dict.fromkeys(grouped(tables[0])["condition"])),
        "versions": {"unswayed": runs[0]["versions"]["unswayed"]},
        "models": [
            _model(label, run, summary, answers)
            for label, run, summary, answers in zip(labels, runs, summaries, aligned, strict=True)
        ],
        "order": [labels[i] for i in order],
        "tree": [list(merge) for merge in tree],
        "pairs": pairs,
        "flips": _flips(labels, aligned, scenarios(tables[0])),
    }


# -- agreement -----------------------------------------------------------------------------------


def _aligned(answers: pd.DataFrame, first: pd.DataFrame) -> pd.DataFrame:
    """Trials in the order of the first run, with `choice`: the option's number in the item."""
    order = pd.MultiIndex.from_frame(first[KEYS].fillna(NONE))
    rows = grouped(answers).set_index(pd.MultiIndex.from_frame(answers[KEYS].fillna(NONE)))
    rows = rows.loc[order].reset_index(drop=True)
    choices = [
        list(options).index(answer) if parsed else UNREAD
        for options, answer, parsed in zip(
            rows["options"], rows["answer"], rows["parsed"], strict=True
        )
    ]
    return rows.assign(choice=choices)


def _pairs(labels: Sequence[str], runs: Sequence[pd.DataFrame]) -> list[ModelPair]:
    """Agreement of every two runs, over all tests and, if there are several, in each."""
    tests = list(dict.fromkeys(runs[0]["test"]))
    pairs = []
    for scope in [None, *(tests if len(tests) > 1 else [])]:
        rows = np.ones(len(runs[0]), bool) if scope is None else runs[0]["test"] == scope
        parts = [run[rows] for run in runs]
        items = parts[0].groupby(KEYS[:2], sort=False).ngroup().to_numpy()
        users = pd.factorize(parts[0]["user"])[0] + 1  # 0: no memory
        rng = np.random.default_rng(SEED)
        drawn = resampled_items(items.max() + 1, rng), _drawn_users(users.max(), rng)
        for (a, left), (b, right) in itertools.combinations(zip(labels, parts, strict=True), 2):
            unread = (left["choice"] == UNREAD) & (right["choice"] == UNREAD)
            pairs.append(
                {"models": [a, b], "test": scope, "n_unread_both": int(unread.sum())}
                | _agreement(left, right, items, users, drawn)
            )
    return pairs


def _drawn_users(n_users: int, rng: np.random.Generator) -> np.ndarray | None:
    """Resamples of the users; with fewer than FEWEST_USERS it is about these."""
    return resampled_users(n_users, rng) if n_users >= FEWEST_USERS else None


def _agreement(
    left: pd.DataFrame,
    right: pd.DataFrame,
    items: np.ndarray,
    users: np.ndarray,
    drawn: tuple[np.ndarray, np.ndarray | None],
) -> dict[str, Any]:
    """The measures of two runs; items, users: (n,) numbers, drawn: resamples of both."""
    n_items, n_users = items.max() + 1, 1 if drawn[1] is None else drawn[1].shape[1]
    cells = items if drawn[1] is None else items * n_users + users

    def tables(a: np.ndarray, b: np.ndarray, cells: np.ndarray) -> np.ndarray:
        k = int(max(a.max(initial=1), b.max(initial=1))) + 1
        counts = item_tables(a, b, cells, n_items * n_users, k)
        return counts if drawn[1] is None else counts.reshape(n_items, n_users, k, k)

    # choices from 1; an unread answer is choice 0
    choices = tables(left["choice"].to_numpy() + 1, right["choice"].to_numpy() + 1, cells)
    correct = [run["correct"].to_numpy().astype(int) for run in (left, right)]
    comparable = (left["flip"].notna() & right["flip"].notna()).to_numpy()
    flips = [run["flip"].to_numpy()[comparable].astype(int) for run in (left, right)]
    return {
        "equal": estimate(choices, equal_share, *drawn),
        "kappa": estimate(choices, kappa, *drawn),
        "correct": estimate(tables(*correct, cells), phi, *drawn),
        "flip": estimate(tables(*flips, cells[comparable]), phi, *drawn),
    }


# -- models and items ----------------------------------------------------------------------------


def _model(
    label: str, run: dict[str, Any], summary: dict[str, Any], answers: pd.DataFrame
) -> ModelRow:
    """What a model does under each condition, and its differences between users."""
    return {
        "label": label,
        "model": model_name(run, summary),
        "scoring": summary["scoring"],
        "memory_style": summary["memory_style"],
        "seed": run["identity"]["seed"],
        "n_unread": int((answers["choice"] == UNREAD).sum()),
        "verdict": summary["verdict"],
        "tests": {
            name: {
                "kind": test["kind"],
                "at_chance": not test["knows"]["above"],
                "conditions": {
                    condition: {key: values[key] for key in ("accuracy", "flip_rate")}
                    for condition, values in test["conditions"].items()
                },
                "effects": [effect for effect in test["effects"] if effect["kind"] != "memory"],
            }
            for name, test in summary["tests"].items()
        },
    }


def _flips(
    labels: Sequence[str], runs: Sequence[pd.DataFrame], texts: dict[tuple[str, str], str]
) -> list[ItemFlips]:
    """Per item, the share of users under whom it flips in each model; neutral memories are none."""
    shares = {}
    for label, run in zip(labels, runs, strict=True):
        comparable = run[run["condition"].isin(USER_CONDITIONS) & run["flip"].notna()]
        flips = comparable.astype({"flip": float}).groupby(KEYS[:2], sort=False)["flip"]
        shares[label] = flips.mean()
    items: list[ItemFlips] = [
        {
            "test": key[0],
            "question_id": key[1],
            "text": texts[key],
            "n_any": int((row > 0).sum()),
            "n_most": int((row > 0.5).sum()),
            "mean": float(row.mean()),
            "shares": {label: None if np.isnan(row[label]) else row[label] for label in labels},
        }
        for key, row in pd.DataFrame(shares).iterrows()
    ]
    return sorted(items, key=lambda item: (-item["n_any"], -item["n_most"], -item["mean"]))
