"""Several models on the same items and users: how alike they answer, and which items flip.

Two runs are compared trial by trial. An answer that could not be read is an answer of its own (two
unread answers are equal), as it is what the model did; it counts as wrong, and is no flip. How
many there are is reported.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unswayed.audit.flips import grouped, scenarios
from unswayed.audit.rundir import model_name, read_answers, read_run
from unswayed.audit.summary import check_answers, read_summary
from unswayed.audit.trials import NONE, USER_CONDITIONS
from unswayed.core.errors import InputError
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
)

SCHEMA_VERSION = 1
SEED = 0
KEYS = ["test", "question_id", "persona_id"]
# What can tell runs of one model apart, in the order in which it is named.
MARKS = ("scoring", "memory", "memory_style", "seed", "dtype", "max_gen_toks")
MARKS += ("weights", "adapter weights")
UNREAD = -1


def compare_runs(dirs: Sequence[Path]) -> dict[str, Any]:
    """Agreement of two or more complete runs.

    Args:
        dirs: run directories with the same items, conditions and users, each with its summary.

    Returns:
        {"schema_version", "level", "resamples", "margin", "n_items", "n_users", "n_trials",
        "conditions", "versions",
        "models": [{"label", "model", "scoring", "memory_style", "seed", "n_unread", "verdict",
            "tests": {test: {"conditions", "effects"}}}],  as in its summary, effects between users
        "order": labels, alike models side by side,
        "tree": merges as (cluster, cluster, height) over the models' numbers, see `cluster`,
        "pairs": [{"models": (label, label), "test": None (all) or its name, "n_unread_both",
            "equal", "kappa", "correct", "flip"}],  each as of `statistics.agreement.estimate`
        "flips": [{"test", "question_id", "text", "n_any", "n_most", "mean", "shares"}]}  per item,
            the one that flips in most models first; shares of users, None where unknown.

    Raises:
        InputError: fewer than two runs, one of them incomplete, damaged or mixed up, the same run
            twice, or runs of different items, conditions or users.
    """
    runs, tables = require_alike(dirs)
    summaries = read_summaries(dirs)
    labels = run_labels(dirs, runs, summaries)
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


def require_folder(out: Path) -> None:
    """Refuse an output folder that is a file.

    Raises:
        InputError: it is.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")


# -- are these runs comparable? ------------------------------------------------------------------


def read_summaries(dirs: Sequence[Path]) -> list[dict[str, Any]]:
    """Summaries of runs, made with one margin.

    Raises:
        InputError: one is missing or damaged, or their margins differ.
    """
    summaries = [read_summary(path) for path in dirs]
    if len(margins := {summary["margin"] for summary in summaries}) > 1:
        shown = " and ".join(f"{100 * margin:g}" for margin in sorted(margins))
        raise InputError(
            f"the runs were analyzed with different margins ({shown} points): run `unswayed "
            "analyze DIR --margin POINTS` on each with the same one"
        )
    return summaries


def require_alike(
    dirs: Sequence[Path], same_users: bool = True
) -> tuple[list[dict[str, Any]], list[pd.DataFrame]]:
    """Records and answers of runs that can be compared.

    Args:
        same_users: see `check_alike`.

    Raises:
        InputError: fewer than two runs, one of them incomplete, damaged or mixed up, or runs of
            different items, conditions or users.
    """
    if len(dirs) < 2:
        raise InputError(f"{len(dirs)} run directory given: a comparison needs two or more")
    runs = [read_run(path) for path in dirs]
    tables = [read_answers(path).to_pandas() for path in dirs]
    for path, answers in zip(dirs, tables, strict=True):
        check_answers(answers, path)
    check_alike(dirs, runs, tables, same_users)
    return runs, tables


def check_alike(
    dirs: Sequence[Path],
    runs: Sequence[dict[str, Any]],
    tables: Sequence[pd.DataFrame],
    same_users: bool = True,
) -> None:
    """Refuse runs that did not ask the same.

    Args:
        same_users: refuse runs that asked about some users that the others did not, too.

    Raises:
        InputError: names the directories and what differs.
    """
    first = tables[0]
    for path, run, answers in zip(dirs[1:], runs[1:], tables[1:], strict=True):
        items = _difference("items", first, answers, KEYS[:2])
        users = _difference("personas", first, answers, ["persona_id"])
        conditions = _difference("conditions", grouped(first), grouped(answers), ["condition"])
        found = [items, conditions or (users if same_users else None)]
        found = [text for text in found if text]
        if not found:
            found = [
                f"their {name} have the same names but other texts"
                for name in ("items", *([] if users else ["personas"]))
                if run["hashes"][name] != runs[0]["hashes"][name]
            ]
        if found:
            raise InputError(
                f"{dirs[0]} and {path} did not ask the same: {'; '.join(found)}. Compare runs of "
                "the same items, conditions and personas"
            )


def _difference(
    name: str, left: pd.DataFrame, right: pd.DataFrame, columns: list[str]
) -> str | None:
    """What one has and the other has not: "items differ (41 against 45; ...)"."""
    sets = [set(map(tuple, frame[columns].dropna().to_numpy())) for frame in (left, right)]
    if sets[0] == sets[1]:
        return None
    example = min(sets[0] ^ sets[1])
    where = "first" if example in sets[0] else "second"
    return (
        f"{name} differ ({len(sets[0])} against {len(sets[1])}; {example[-1]} is only in the "
        f"{where})"
    )


def run_labels(
    dirs: Sequence[Path], runs: Sequence[dict[str, Any]], summaries: Sequence[dict[str, Any]]
) -> list[str]:
    """A label per run: its model, and what tells it from runs of the same model.

    Raises:
        InputError: nothing tells two runs apart.
    """
    names = [model_name(run, summary) for run, summary in zip(runs, summaries, strict=True)]
    marks = [marks_of(run) for run in runs]
    labels = []
    for name, own in zip(names, marks, strict=True):
        rivals = [mark for other, mark in zip(names, marks, strict=True) if other == name]
        told = [key for key in MARKS if len({mark[key] for mark in rivals}) > 1]
        details = ", ".join(f"{key.replace('_', ' ')} {own[key]}" for key in told if own[key])
        labels.append(f"{name} ({details})" if told else name)
    for i, j in itertools.combinations(range(len(labels)), 2):
        if labels[i] == labels[j]:
            raise InputError(
                f"{dirs[i]} and {dirs[j]} are the same run of {labels[i]}: nothing tells them "
                "apart. Leave one out"
            )
    return labels


def marks_of(run: dict[str, Any]) -> dict[str, str]:
    """What can tell a run from others of the same model: MARKS -> text, hashes shortened."""
    identity, model = run["identity"], run["model"] or {}
    weights = {"weights": model.get("revision"), "adapter weights": model.get("adapter_hash")}
    known = {key: identity.get(key) for key in MARKS if key not in weights}
    return {key: str(value) for key, value in known.items()} | {
        key: str(value)[:8] for key, value in weights.items()
    }


# -- agreement -----------------------------------------------------------------------------------


def _aligned(answers: pd.DataFrame, first: pd.DataFrame) -> pd.DataFrame:
    """Trials in the order of the first run, with `choice`: the option's number in the item."""
    order = pd.MultiIndex.from_frame(first[KEYS].fillna(NONE))
    found = grouped(answers).set_index(pd.MultiIndex.from_frame(answers[KEYS].fillna(NONE)))
    found = found.loc[order].reset_index(drop=True)
    choices = [
        list(options).index(answer) if parsed else UNREAD
        for options, answer, parsed in zip(
            found["options"], found["answer"], found["parsed"], strict=True
        )
    ]
    return found.assign(choice=choices)


def _pairs(labels: Sequence[str], runs: Sequence[pd.DataFrame]) -> list[dict[str, Any]]:
    """Agreement of every two runs, over all tests and, if there are several, in each."""
    tests = list(dict.fromkeys(runs[0]["test"]))
    scopes = [None, *(tests if len(tests) > 1 else [])]
    found = []
    for scope in scopes:
        rows = np.ones(len(runs[0]), bool) if scope is None else runs[0]["test"] == scope
        parts = [run[rows] for run in runs]
        items = parts[0].groupby(KEYS[:2], sort=False).ngroup().to_numpy()
        resampled = resampled_items(items.max() + 1, np.random.default_rng(SEED))
        for (a, left), (b, right) in itertools.combinations(zip(labels, parts, strict=True), 2):
            unread = (left["choice"] == UNREAD) & (right["choice"] == UNREAD)
            found.append(
                {"models": [a, b], "test": scope, "n_unread_both": int(unread.sum())}
                | _agreement(left, right, items, resampled)
            )
    return found


def _agreement(
    left: pd.DataFrame, right: pd.DataFrame, items: np.ndarray, resampled: np.ndarray
) -> dict[str, Any]:
    n_items = resampled.shape[1]

    def tables(a: np.ndarray, b: np.ndarray, items: np.ndarray) -> np.ndarray:
        return item_tables(a, b, items, n_items, int(max(a.max(initial=1), b.max(initial=1))) + 1)

    # choices from 1; an unread answer is choice 0
    choices = tables(left["choice"].to_numpy() + 1, right["choice"].to_numpy() + 1, items)
    correct = [run["correct"].to_numpy().astype(int) for run in (left, right)]
    known = (left["flip"].notna() & right["flip"].notna()).to_numpy()
    flips = [run["flip"].to_numpy()[known].astype(int) for run in (left, right)]
    return {
        "equal": estimate(choices, equal_share, resampled),
        "kappa": estimate(choices, kappa, resampled),
        "correct": estimate(tables(*correct, items), phi, resampled),
        "flip": estimate(tables(*flips, items[known]), phi, resampled),
    }


# -- models and items ----------------------------------------------------------------------------


def _model(
    label: str, run: dict[str, Any], summary: dict[str, Any], answers: pd.DataFrame
) -> dict[str, Any]:
    """One model's row: what it does under each condition, and its differences between users."""
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
                "at_chance": test["at_chance"],
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
) -> list[dict[str, Any]]:
    """Per item, the share of users under whom it flips in each model; neutral memories are none."""
    shares = {}
    for label, run in zip(labels, runs, strict=True):
        known = run[run["condition"].isin(USER_CONDITIONS) & run["flip"].notna()]
        flips = known.astype({"flip": float}).groupby(KEYS[:2], sort=False)["flip"]
        shares[label] = flips.mean()
    table = pd.DataFrame(shares)
    found = [
        {
            "test": key[0],
            "question_id": key[1],
            "text": texts[key],
            "n_any": int((row > 0).sum()),
            "n_most": int((row > 0.5).sum()),
            "mean": float(row.mean()),
            "shares": {label: None if np.isnan(row[label]) else row[label] for label in labels},
        }
        for key, row in table.iterrows()
    ]
    return sorted(found, key=lambda item: (-item["n_any"], -item["n_most"], -item["mean"]))
