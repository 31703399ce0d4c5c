"""Evaluations of LoGo that asked the same questions with other settings.

An ablation is an evaluation with a line on top of its recipe. What it gains or loses is paired by
question; intervals are over users and trainings, of all seeds that every evaluation has.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd

from unswayed.core.errors import InputError
from unswayed.core.files import read_text
from unswayed.data.histories import Task
from unswayed.logo.evaluate import ANSWERS
from unswayed.logo.plan import TEST
from unswayed.logo.tables import (
    Measure,
    difference,
    figures,
    intervals_over,
    measures,
    slices,
)

QUESTION = ["seed", "user", "event", "at", "n", "segment", "skewed", "balanced", "answer"]
NOT_SETTINGS = ("methods", "settings.seed")


class SettingsComparison(TypedDict):
    """What comparison.json holds."""

    metric: str  # the first one
    seeds: list[int]  # that all evaluations have
    evaluations: dict[str, dict[str, Any]]  # name -> setting -> value, where it is not the first's;
    # of the first, those of it that differ anywhere
    over: dict[str, str]  # see `tables.intervals_over`
    measures: dict[str, dict[str, dict[str, Any]]]  # slice -> method -> name -> `tables.figures`
    differences: list[dict[str, Any]]  # evaluation, slice, method, metric: that less the first
    # (`histories.metrics.Difference`)
    same: list[str]  # methods that said the same everywhere


def compare_settings(dirs: Sequence[Path]) -> SettingsComparison:
    """What each evaluation gains or loses against the first.

    Args:
        dirs: folders of `evaluate`, called by their names. Methods and seeds that not all have are
            left out.

    Raises:
        InputError: fewer than two folders, two of one name, one that is no evaluation, or
            evaluations without a seed or method in common or with other questions.
    """
    names = [folder.resolve().name for folder in dirs]
    if len(dirs) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"logo compare: {', '.join(map(str, dirs))}: give two folders or more, each with "
            "another name"
        )
    results = dict(zip(names, map(_read_result, dirs), strict=True))
    runs = {name: result["runs"] for name, result in results.items()}
    seeds = _common({name: list(map(_seed, records)) for name, records in runs.items()}, "seed")
    frames = {name: _read_answers(folder, seeds) for name, folder in zip(names, dirs, strict=True)}
    methods = _common({name: list(dict.fromkeys(f.method)) for name, f in frames.items()}, "method")
    first, *rest = names
    for name in rest:
        _check_questions(frames[first], frames[name], first, name, methods)
    metrics = measures(_task(results[first]["task"]))
    parts = {
        name: {
            label: dict(iter(rows.groupby("method", sort=False))) for label, rows in slices(frame)
        }
        for name, frame in frames.items()
    }
    return {
        "metric": next(iter(metrics)),
        "seeds": seeds,
        "over": intervals_over(len(seeds)),
        "evaluations": _settings(results),
        "measures": {
            label: {
                method: {name: figures(parts[name][label][method], metrics) for name in names}
                for method in methods
            }
            for label in parts[first]
        },
        "differences": [
            {"evaluation": name, "slice": label, "method": method, "metric": metric}
            | dataclasses.asdict(
                difference(parts[name][label][method], parts[first][label][method], measure)
            )
            for label in parts[first]
            for method in methods
            for name in rest
            for metric, measure in metrics.items()
        ],
        "same": [
            method
            for method in methods
            if all(_alike(frames[first], frames[name], method, metrics) for name in rest)
        ],
    }


# -- reading -------------------------------------------------------------------------------------


def _read_result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    text = read_text(path)
    try:
        result = json.loads(text)
        if result["runs"] and {"labels", "ordinal"} <= result["task"].keys():
            return result
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(f"{path} is no result of `unswayed logo evaluate`")


def _read_answers(folder: Path, seeds: Sequence[int]) -> pd.DataFrame:
    """Answers of test users; questions stand at the same place in all methods and evaluations."""
    frames = []
    for seed in seeds:
        path = folder / f"seed-{seed}" / ANSWERS
        try:
            frames.append(pd.read_parquet(path).assign(seed=seed))
        except (OSError, ValueError):  # pyarrow's own errors are ValueErrors
            raise InputError(
                f"{path} is not there or cannot be read: run again what made it"
            ) from None
    frame = pd.concat(frames, ignore_index=True)
    frame = frame[frame.part == TEST].assign(
        at=frame.cut.fillna(-1), answer=frame.answer.fillna("")
    )
    return frame.sort_values(QUESTION, kind="stable", ignore_index=True)


def _seed(run: dict[str, Any]) -> int:
    return run["identity"]["settings"]["seed"]


def _task(saved: dict[str, Any]) -> Task:
    """As far as metrics need it."""
    labels = saved["labels"]
    return Task(saved.get("name", ""), "", labels and tuple(labels), saved["ordinal"])


# -- what they share -----------------------------------------------------------------------------


def _common(values: dict[str, list], what: str) -> list:
    """What all have, in the order of the first."""
    first, *rest = values.values()
    common = [value for value in first if all(value in other for other in rest)]
    if not common:
        each = "; ".join(f"{name}: {', '.join(map(str, v))}" for name, v in values.items())
        raise InputError(f"logo compare: the evaluations have no {what} in common ({each})")
    return common


def _check_questions(
    left: pd.DataFrame, right: pd.DataFrame, first: str, name: str, methods: Sequence[str]
) -> None:
    for method in methods:
        questions = [
            frame[frame.method == method][QUESTION].to_numpy().tolist() for frame in (left, right)
        ]
        if questions[0] != questions[1]:
            raise InputError(
                f"logo compare: {name} and {first} put {len(questions[1]):,} and "
                f"{len(questions[0]):,} questions to {method}, and not the same: histories, "
                "test_share, segments, cold and questions_per_user must be alike"
            )


def _alike(
    left: pd.DataFrame, right: pd.DataFrame, method: str, metrics: dict[str, Measure]
) -> bool:
    rows = [frame[frame.method == method] for frame in (left, right)]
    return all(
        (metric.parts(rows[0]) == metric.parts(rows[1])).all() for metric in metrics.values()
    )


def _settings(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Evaluation -> what of its identity is not the first one's; see `SettingsComparison`."""
    flat = {
        name: {
            key: value
            for key, value in _flat(result["runs"][0]["identity"])
            if key not in NOT_SETTINGS
        }
        for name, result in results.items()
    }
    first, *rest = flat
    differing: dict[str, dict[str, Any]] = {first: {}}
    for name in rest:
        keys = dict.fromkeys([*flat[first], *flat[name]])
        odd = [key for key in keys if flat[name].get(key) != flat[first].get(key)]
        differing[name] = {key: flat[name].get(key) for key in odd}
        differing[first] |= {key: flat[first].get(key) for key in odd}
    return differing


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
