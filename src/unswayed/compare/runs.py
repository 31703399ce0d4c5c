"""Runs that are compared: whether they asked the same, what they are called, how they line up."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from unswayed.audit.evidence import check_answers
from unswayed.audit.flips import grouped
from unswayed.audit.rundir import model_name, read_answers, read_run
from unswayed.audit.summary import read_summary
from unswayed.core.errors import InputError

KEYS = ["test", "question_id", "persona_id"]
# What can tell runs of one model apart, in the order in which it is named.
MARKS = ("scoring", "rule", "orders", "memory", "memory_style", "seed", "dtype", "max_gen_toks")
MARKS += ("weights", "adapter weights")


def read_alike(
    dirs: Sequence[Path], same_users: bool = True
) -> tuple[list[dict[str, Any]], list[pd.DataFrame]]:
    """Records and answers of runs that asked the same.

    Args:
        same_users: refuse runs that asked about some users that the others did not, too.

    Raises:
        InputError: fewer than two runs, one of them incomplete, damaged or mixed up, or runs of
            different items, conditions or users; names the directories and what differs.
    """
    if len(dirs) < 2:
        raise InputError(f"{len(dirs)} run directory given: a comparison needs two or more")
    runs = [read_run(path) for path in dirs]
    tables = [read_answers(path).to_pandas() for path in dirs]
    for path, answers in zip(dirs, tables, strict=True):
        check_answers(answers, path)
    for path, run, answers in zip(dirs[1:], runs[1:], tables[1:], strict=True):
        items = _difference("items", tables[0], answers, KEYS[:2])
        users = _difference("personas", tables[0], answers, ["persona_id"])
        conditions = _difference("conditions", grouped(tables[0]), grouped(answers), ["condition"])
        differences = [items, conditions or (users if same_users else None)]
        if not any(differences):
            differences = [
                f"their {name} have the same names but other texts"
                for name in ("items", *([] if users else ["personas"]))
                if run["hashes"][name] != runs[0]["hashes"][name]
            ]
        if reasons := [text for text in differences if text]:
            raise InputError(
                f"{dirs[0]} and {path} did not ask the same: {'; '.join(reasons)}. Compare runs of "
                "the same items, conditions and personas"
            )
    return runs, tables


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


def read_summaries(dirs: Sequence[Path]) -> list[dict[str, Any]]:
    """Summaries of runs, made with one margin.

    Raises:
        InputError: one is missing or damaged, or their margins differ.
    """
    summaries = [read_summary(path) for path in dirs]
    for path, summary in zip(dirs, summaries, strict=True):
        if summary["rule"] != (run_rule := read_run(path)["identity"]["rule"]):
            raise InputError(
                f"{path} was analyzed by rule {summary['rule']}, its answers were chosen by "
                f"{run_rule}: run `unswayed analyze DIR` on it first"
            )
    if len(margins := {summary["margin"] for summary in summaries}) > 1:
        points = " and ".join(f"{100 * margin:g}" for margin in sorted(margins))
        raise InputError(
            f"the runs were judged with different margins ({points} points): run `unswayed "
            "analyze DIR --policy POLICY` on each with the same one"
        )
    return summaries


def model_labels(
    dirs: Sequence[Path], runs: Sequence[dict[str, Any]], summaries: Sequence[dict[str, Any]]
) -> list[str]:
    """A label per run: its model, and what tells it from runs of the same model.

    Raises:
        InputError: nothing tells two runs apart.
    """
    names = [model_name(run, summary) for run, summary in zip(runs, summaries, strict=True)]
    marks = [marks_of(run) for run in runs]
    labels = []
    for name, mark in zip(names, marks, strict=True):
        rivals = [other for rival, other in zip(names, marks, strict=True) if rival == name]
        differing = [key for key in MARKS if len({other[key] for other in rivals}) > 1]
        details = ", ".join(
            f"{key.replace('_', ' ')} {mark[key]}" for key in differing if mark[key]
        )
        labels.append(f"{name} ({details})" if differing else name)
    for i, j in itertools.combinations(range(len(labels)), 2):
        if labels[i] == labels[j]:
            raise InputError(
                f"{dirs[i]} and {dirs[j]} are the same run of {labels[i]}: nothing tells them "
                "apart. Leave one out"
            )
    return labels


def marks_of(run: Mapping[str, Any]) -> dict[str, str]:
    """What can tell a run from others of the same model: MARKS -> text, hashes shortened."""
    identity, model = run["identity"], run["model"] or {}
    weights = {"weights": model.get("revision"), "adapter weights": model.get("adapter_hash")}
    settings = {key: identity.get(key) for key in MARKS if key not in weights}
    return {key: str(value) for key, value in settings.items()} | {
        key: str(value)[:8] for key, value in weights.items()
    }
