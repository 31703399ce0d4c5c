"""`unswayed logo compare`: evaluations that asked the same questions with other settings.

An ablation is an evaluation with a line on top of its recipe. What it gains or loses is paired by
question; intervals are over users, of all seeds that every evaluation has.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from unswayed.compare.agreement import require_folder
from unswayed.core.errors import InputError
from unswayed.core.files import read_text, write_text
from unswayed.data.histories import Task
from unswayed.logo.evaluate import ANSWERS
from unswayed.logo.plan import TEST
from unswayed.logo.tables import (
    Measure,
    cell,
    difference,
    difference_cell,
    figures,
    markdown_table,
    measures,
    metric_words,
    slices,
)

QUESTION = ["seed", "user", "event", "at", "n", "segment", "skewed", "balanced", "answer"]
NOT_SETTINGS = ("methods", "settings.seed")


def write_comparison(dirs: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write comparison.json and comparison.md; returns the first one's content, see `compare`."""
    require_folder(out)
    found = compare(dirs)
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, ensure_ascii=False, indent=1)
    write_text(out / "comparison.json", text + "\n")
    write_text(out / "comparison.md", comparison_table(found) + "\n")
    return found


def compare(dirs: Sequence[Path]) -> dict[str, Any]:
    """What each evaluation gains or loses against the first.

    Args:
        dirs: folders of `evaluate`, called by their names. Methods and seeds that not all have are
            left out.

    Returns:
        metric: name of the first one. seeds: that all have. evaluations: name -> setting -> its
        value, as far as it is not the first one's; of the first, those of it that differ anywhere.
        measures: slice -> method -> name -> `tables.figures`. differences: per slice, method, other
        evaluation and metric: that less the first (`histories.metrics.Difference`). same: methods
        that said the same everywhere.

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
    seeds = _common(
        {name: [_seed(run) for run in result["runs"]] for name, result in results.items()}, "seed"
    )
    frames = {name: _read_answers(folder, seeds) for name, folder in zip(names, dirs, strict=True)}
    methods = _common({name: list(dict.fromkeys(f.method)) for name, f in frames.items()}, "method")
    first, *others = names
    for name in others:
        _check_questions(frames[first], frames[name], first, name, methods)
    known = measures(_task(results[first]["task"]))
    told = list(dict(slices(frames[first])))
    parts = {
        name: {
            label: {method: own for method, own in rows.groupby("method", sort=False)}
            for label, rows in slices(frame)
        }
        for name, frame in frames.items()
    }
    return {
        "metric": next(iter(known)),
        "seeds": seeds,
        "evaluations": _settings(results),
        "measures": {
            label: {
                method: {name: figures(parts[name][label][method], known) for name in names}
                for method in methods
            }
            for label in told
        },
        "differences": [
            {"evaluation": name, "slice": label, "method": method, "metric": metric}
            | dataclasses.asdict(
                difference(parts[name][label][method], parts[first][label][method], measure)
            )
            for label in told
            for method in methods
            for name in others
            for metric, measure in known.items()
        ],
        "same": [
            method
            for method in methods
            if all(_alike(frames[first], frames[name], method, known) for name in others)
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


def _common(found: dict[str, list], what: str) -> list:
    """What all have, in the order of the first."""
    first, *others = found.values()
    common = [one for one in first if all(one in other for other in others)]
    if not common:
        each = "; ".join(f"{name}: {', '.join(map(str, own))}" for name, own in found.items())
        raise InputError(f"logo compare: the evaluations have no {what} in common ({each})")
    return common


def _check_questions(
    one: pd.DataFrame, other: pd.DataFrame, first: str, name: str, methods: Sequence[str]
) -> None:
    for method in methods:
        asked = [
            frame[frame.method == method][QUESTION].to_numpy().tolist() for frame in (one, other)
        ]
        if asked[0] != asked[1]:
            raise InputError(
                f"logo compare: {name} and {first} put {len(asked[1]):,} and {len(asked[0]):,} "
                f"questions to {method}, and not the same: histories, test_share, segments, cold "
                "and questions_per_user must be alike"
            )


def _alike(one: pd.DataFrame, other: pd.DataFrame, method: str, known: dict[str, Measure]) -> bool:
    own = [frame[frame.method == method] for frame in (one, other)]
    return all((measure.parts(own[0]) == measure.parts(own[1])).all() for measure in known.values())


def _settings(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Evaluation -> what of its identity is not the first one's; see `compare`."""
    flat = {
        name: {
            key: value
            for key, value in _flat(result["runs"][0]["identity"])
            if key not in NOT_SETTINGS
        }
        for name, result in results.items()
    }
    first, *others = flat
    found: dict[str, dict[str, Any]] = {first: {}}
    for name in others:
        keys = dict.fromkeys([*flat[first], *flat[name]])
        odd = [key for key in keys if flat[name].get(key) != flat[first].get(key)]
        found[name] = {key: flat[name].get(key) for key in odd}
        found[first] |= {key: flat[first].get(key) for key in odd}
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# -- tables --------------------------------------------------------------------------------------


def comparison_table(found: dict[str, Any]) -> str:
    """The first metric of every method and evaluation, and what separates these, in Markdown."""
    told = list(found["measures"])
    if sum(label.startswith("segment ") for label in told) == 1:  # it is the whole
        told = [label for label in told if not label.startswith("segment ")]
    note = (
        f"Seeds {', '.join(map(str, found['seeds']))}; "
        + "; ".join(map(_told_settings, found["evaluations"].items()))
        + ". In brackets 95 % intervals over users, all seeds together."
    )
    made = note, _measured(found, told), _apart(found, told)
    return "\n\n".join(text for text in made if text)


def _told_settings(one: tuple[str, dict[str, Any]]) -> str:
    name, own = one
    return f"{name}: {', '.join(f'{key} {value}' for key, value in own.items()) or 'the same'}"


def _measured(found: dict[str, Any], told: Sequence[str]) -> str:
    """Methods and evaluations x slices; one line where all evaluations say the same."""
    metric, measured = found["metric"], [found["measures"][label] for label in told]
    first = next(iter(found["evaluations"]))
    some = [next(iter(own.values()))[first] for own in measured]
    rows = [["users, answers", *(f"{one['users']}, {one['answers']}" for one in some)]]
    for method in measured[0]:
        alike = method in found["same"]
        for name in [first] if alike else found["evaluations"]:
            own = [one[method][name][metric] for one in measured]
            cells = [cell(one["mean"], *one["interval"]) for one in own]
            rows.append([method if alike else f"{method}, {name}", *cells])
    return markdown_table([metric_words(metric), *told], rows)


def _apart(found: dict[str, Any], told: Sequence[str]) -> str:
    """Methods and other evaluations x slices: less the first; "" where all say the same."""
    metric, (first, *others) = found["metric"], found["evaluations"]
    known = {
        (one["method"], one["evaluation"], one["slice"]): one
        for one in found["differences"]
        if one["metric"] == metric
    }
    rows = [
        [
            f"{method}: {name} - {first}",
            *(difference_cell(known[method, name, label]) for label in told),
        ]
        for method in found["measures"][told[0]]
        if method not in found["same"]
        for name in others
    ]
    return markdown_table([f"Difference in {metric_words(metric)}", *told], rows) if rows else ""
