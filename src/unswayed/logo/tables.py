"""What an evaluation showed: figures, tables and plots, from its answers alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pandas as pd
from scipy import stats

from unswayed.core.files import write_text
from unswayed.data.histories import Task
from unswayed.data.histories.metrics import (
    Difference,
    accuracy,
    cells,
    f1,
    mae,
    mean,
    paired_bootstrap,
    root,
    squared_errors,
)
from unswayed.display.numbers import MISSING
from unswayed.display.page import render_report
from unswayed.display.plots import svg
from unswayed.logo.plan import TEST
from unswayed.logo.sides import (
    CALIBRATED,
    FUSED,
    GLOBAL,
    LOCAL,
    PROMPTED,
    RETRIEVAL,
    WEIGHTS,
)
from unswayed.statistics.crossed import LEVEL, Estimate
from unswayed.statistics.trainings import with_trainings

MEDIATED = (WEIGHTS, PROMPTED, *FUSED)
AGAINST = (RETRIEVAL, LOCAL, CALIBRATED[0], GLOBAL, CALIBRATED[1], "means")  # what LoGo is to beat
WHOLE = "all"
HIGHEST = 2.0  # times the median, an error that is drawn
COLOURS = {
    "none": "lightgrey", "retrieval": "tab:cyan", "profile": "skyblue",
    "local-calibrated": "tab:blue", "global": "goldenrod", "global-calibrated": "tab:orange",
    "logo-weights": "tab:pink", "logo-prompt": "tab:purple", "logo-shrinkage": "tab:green",
    "logo-gate": "black", "logo-equal": "tab:brown", "means": "tab:red",
}  # fmt: skip


class Measure(NamedTuple):
    """A metric as a function of means over answers, see `unswayed.data.histories.metrics`.

    Attributes:
        parts: rows -> (n,) or (n, parts).
        value: means of these -> the metric.
    """

    parts: Callable[[pd.DataFrame], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]

    def of(self, frame: pd.DataFrame) -> float:
        parts = self.parts(frame)
        return float(self.value(parts.reshape(len(parts), -1).mean(axis=0)))


def measures(task: Task) -> dict[str, Measure]:
    """The task's metrics by name; the first is the one that the figures show."""
    if task.labels is None:
        return {
            name: Measure(lambda rows, name=name: rows[name].to_numpy(), mean)
            for name in ("rouge_l", "rouge_1")
        }
    exact = {
        "accuracy": Measure(lambda rows: accuracy(rows.prediction, rows.answer), mean),
        "macro_f1": Measure(lambda rows: cells(rows.prediction, rows.answer, task.labels), f1),
    }
    if not task.ordinal:
        return exact
    return {
        "mae": Measure(lambda rows: mae(rows.prediction, rows.answer), mean),
        "rmse": Measure(lambda rows: squared_errors(rows.expected, rows.answer), root),
        **exact,
    }


def slices(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Name and rows of each group of test users' cases; those without any are left out."""
    tested = frame[frame.part == TEST]
    whole = tested[tested.cut.isna()]
    yield WHOLE, whole
    for n in sorted(tested.cut.dropna().unique()):
        yield f"cold {n}", tested[tested.cut == n]
    for name, column in (("skewed", "skewed"), ("long balanced", "balanced")):
        if whole[column].any():
            yield name, whole[whole[column]]
    for number in sorted(whole.segment.unique()):
        yield f"segment {number}", whole[whole.segment == number]


class Figures(TypedDict, total=False):
    """Of a method on a slice; beside these, by name of each metric: mean (over seeds), and low and
    high of its 95 % interval, see `intervals_over`."""

    users: int
    answers: int
    weight_global: float | None  # its mean; None of a method that has none


class SliceDifference(TypedDict):
    """A mediator less another method: with the fields of `metrics.Difference`; its 95 % interval is
    as of `intervals_over`, the relative one over users alone."""

    slice: str
    mediator: str
    other: str
    metric: str


class Result(TypedDict):
    """What result.json holds."""

    task: dict[str, Any]  # name, labels (None for free text), ordinal
    metric: str  # the one that the figures show
    runs: list[dict[str, Any]]  # of the seeds that are done, see `evaluate`
    over: dict[str, str]  # measures, differences -> what their intervals are over
    measures: dict[str, dict[str, Figures]]  # slice -> method
    differences: list[SliceDifference]


def summarise(frame: pd.DataFrame, task: Task) -> dict[str, Any]:
    """`measures` and `differences` of a Result, from the answers of one or more seeds.

    Args:
        frame: rows of `evaluate.make_rows`, with a column seed.
    """
    metrics, by_slice, differences = measures(task), {}, []
    frame = frame.sort_values(["seed", "event"], kind="stable")  # pairs stand at the same place
    for name, rows in slices(frame):
        methods = dict(iter(rows.groupby("method", sort=False)))
        by_slice[name] = {method: figures(answers, metrics) for method, answers in methods.items()}
        differences += [
            {"slice": name, "mediator": mediator, "other": other, "metric": metric}
            | dataclasses.asdict(difference(methods[mediator], methods[other], measure))
            for mediator in MEDIATED
            for other in AGAINST
            if mediator in methods and other in methods
            for metric, measure in metrics.items()
        ]
    return {"measures": by_slice, "differences": differences}


def figures(rows: pd.DataFrame, metrics: dict[str, Measure]) -> Figures:
    """Of one method's answers on a slice."""
    weights = rows.weight_global.dropna()
    values: Figures = {
        "users": int(rows.user.nunique()),
        "answers": len(rows),
        "weight_global": float(weights.mean()) if len(weights) else None,
    }
    for name, measure in metrics.items():
        parts = measure.parts(rows)
        spread = paired_bootstrap(parts, np.zeros_like(parts), rows.user, 0, value=measure.value)
        of_each = [measure.of(answers) for _, answers in rows.groupby("seed")]
        low, high = _with_trainings(spread, of_each)
        values[name] = {"mean": float(np.mean(of_each)), "low": low, "high": high}
    return values


def difference(left: pd.DataFrame, right: pd.DataFrame, measure: Measure) -> Difference:
    """Left less right, row by row the same questions."""
    parts = measure.parts(left), measure.parts(right)
    spread = paired_bootstrap(*parts, left.user, 0, value=measure.value)
    seeds = left.seed.unique()
    of_each = [
        measure.of(left[left.seed == seed]) - measure.of(right[right.seed == seed])
        for seed in seeds
    ]
    low, high = _with_trainings(spread, of_each)
    return dataclasses.replace(spread, low=low, high=high)


def _with_trainings(
    spread: Difference, of_each: Sequence[float]
) -> tuple[float | None, float | None]:
    """Bounds of a figure for other users and trainings.

    Each training also has other test users, so the figures of the trainings hold some of what
    separates users, too: the interval errs upwards.

    Args:
        spread: over users, all trainings together.
        of_each: the figure of each training.
    """
    if spread.low is None:
        return None, None
    df = spread.n_users - 1
    se = (spread.high - spread.low) / 2 / float(stats.t.ppf((1 + LEVEL) / 2, df))
    size = (spread.n_answers, spread.n_users, 1)
    part = Estimate(spread.estimate, se, df, spread.low, spread.high, *size)
    mean = with_trainings(part, of_each)
    return mean.low, mean.high


def intervals_over(n_seeds: int) -> dict[str, str]:
    """What the intervals of measures and of differences are over."""
    return dict.fromkeys(("measures", "differences"), "users" + " and trainings" * (n_seeds > 1))


def write_result(
    out: Path, task: Task, runs: Sequence[dict[str, Any]], frame: pd.DataFrame
) -> Result:
    """Write result.json, tables.md and logo.svg of the seeds that are done; the result."""
    result = {
        "task": {"name": task.name, "labels": task.labels, "ordinal": task.ordinal},
        "metric": next(iter(measures(task))),
        "runs": list(runs),
        "over": intervals_over(len(runs)),
        **summarise(frame, task),
    }
    result = json.loads(json.dumps(result))
    write_text(out / "result.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    write_text(out / "tables.md", tables(result) + "\n")
    write_text(out / "logo.svg", draw(result))
    return result


# -- tables --------------------------------------------------------------------------------------


PARTS = ("note", "main", "slices", "differences", "weights", "recovered", "costs")


def tables(result: Result, parts: Sequence[str] = PARTS) -> str:
    """Tables in Markdown, without those for which the evaluation has nothing.

    Args:
        parts: of PARTS, or brief: methods x slices, without segments.
    """
    by_slice, runs, metric = result["measures"], result["runs"], result["metric"]
    differences = {
        (row["mediator"], row["other"], row["slice"]): row
        for row in result["differences"]
        if row["metric"] == metric
    }
    whole = by_slice[WHOLE]
    view = {
        "parts": parts,
        "identity": runs[0]["identity"],
        "users": runs[0]["users"],
        "over": result["over"],
        "seeds": [run["identity"]["settings"]["seed"] for run in runs],
        "whole": whole,
        "slices": by_slice,
        "brief": {n: methods for n, methods in by_slice.items() if not n.startswith("segment ")},
        "metric": metric,
        "title": metric_words(metric),
        "titles": {
            name: metric_words(name)
            for name in next(iter(whole.values()))
            if name not in Figures.__annotations__
        },
        "differences": differences,
        "pairs": list(dict.fromkeys(key[:2] for key in differences)),
        "fused": FUSED,
        "recovered": recovered_texts(result),
        "costs": costs(result),
        "cell": cell,
        "difference_cell": difference_cell,
    }
    return render_report("unswayed.logo", "tables.md.jinja", view).rstrip()


def recovered_texts(result: Result) -> dict[str, dict[str, str]]:
    """How well true communities are found, mean and range over seeds, see `evaluate.recovered`;
    empty where there is no truth."""
    runs = [run["recovered"] for run in result["runs"] if run.get("recovered")]

    def text(part: str, group: str) -> str:
        values = [run[part][group] for run in runs if run[part][group] is not None]
        if not values:
            return MISSING
        return f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    return {
        part: {group: text(part, group) for group in groups}
        for part, groups in (runs[0] if runs else {}).items()
    }


def costs(result: Result) -> list[tuple[str, int, float]]:
    """What asking and training took, over all seeds: (purpose, number, seconds)."""
    prompts: dict[str, tuple[int, float]] = {}
    for run in result["runs"]:
        for purpose, spent in run["asked"].items():
            n, seconds = prompts.get(purpose, (0, 0.0))
            prompts[purpose] = n + spent["prompts"], seconds + spent["seconds"]
    trained = [training for run in result["runs"] for training in run["training"]]
    rows = [
        *((f"prompts: {purpose}", *spent) for purpose, spent in prompts.items()),
        (
            "predictions, all together",
            sum(run["predictions"] for run in result["runs"]),
            sum(seconds for _, seconds in prompts.values()),
        ),
        (
            "training: samples",
            sum(training["samples"] for training in trained),
            sum(training["seconds"] for training in trained),
        ),
    ]
    return [row for row in rows if row[1]]


def cell(value: float, low: float | None, high: float | None, sign: str = "") -> str:
    """A value with its interval, if there is one."""
    text = f"{value:{sign}.3f}"
    return text if low is None else f"{text} ({low:{sign}.3f} to {high:{sign}.3f})"


def difference_cell(difference: dict[str, Any] | None) -> str:
    """A `Difference` as JSON has it, with its interval and relative to the second."""
    if difference is None:
        return MISSING
    text = cell(difference["estimate"], difference["low"], difference["high"], sign="+")
    relative = difference["relative"]
    return text if relative is None else f"{text}, {100 * relative:+.0f} %"


def metric_words(metric: str) -> str:
    """A metric as people write it."""
    names = {"mae": "MAE", "rmse": "RMSE", "macro_f1": "macro-F1", "rouge_l": "ROUGE-L",
             "rouge_1": "ROUGE-1"}  # fmt: skip
    return names.get(metric, metric)


# -- plot ----------------------------------------------------------------------------------------


def draw(result: Result) -> str:
    """An SVG: the first metric by known events and by segment, and the weight of the global side.

    Bars are 95 % intervals, see `intervals_over`. Of errors the axis ends at HIGHEST times the
    median point, beyond which only what nobody would use lies. The same input gives the same bytes.
    """
    by_slice, metric = result["measures"], result["metric"]
    numbered = {
        kind: {
            int(name.split()[1]): methods
            for name, methods in by_slice.items()
            if name.startswith(kind)
        }
        for kind in ("cold ", "segment ")
    }
    lines = {"events of the user that are known": numbered["cold "] | {"all": by_slice[WHOLE]}}
    if len(numbered["segment "]) > 1:
        lines["segment of time"] = numbered["segment "]

    def panels(figure: Any) -> None:
        *axes, weights = figure.subplots(1, 1 + len(lines))
        for axis, (title, groups) in zip(axes, lines.items(), strict=True):
            _draw_lines(axis, groups, metric)
            axis.set_xticks(range(len(groups)), list(map(str, groups)))
            axis.set(xlabel=title, ylabel=metric_words(metric))
            if metric == "mae":
                points = [
                    v[metric]["mean"] for methods in groups.values() for v in methods.values()
                ]
                axis.set_ylim(top=HIGHEST * float(np.median(points)))
        _draw_weights(weights, lines["events of the user that are known"])
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6,
            fontsize="small", frameon=False,
        )  # fmt: skip

    return svg((1 + 4.5 * (1 + len(lines)), 5), panels)


def _draw_weights(axis: Any, groups: dict[Any, dict[str, Figures]]) -> None:
    """The mean weight of the global side over the groups, a line per mediator that says it."""
    for method in FUSED:
        weights = [methods.get(method, {}).get("weight_global") for methods in groups.values()]
        points = {place: weight for place, weight in enumerate(weights) if weight is not None}
        axis.plot(list(points), list(points.values()), "o-", color=COLOURS[method], label=method)
    axis.set_xticks(range(len(groups)), list(map(str, groups)))
    axis.set(xlabel="events of the user that are known", ylabel="weight of the global side",
             ylim=(-0.02, 1.02))  # fmt: skip


def _draw_lines(axis: Any, groups: dict[Any, dict[str, Figures]], metric: str) -> None:
    """A line per method over the groups, each at its place."""
    names = list(dict.fromkeys(method for methods in groups.values() for method in methods))
    for shift, name in enumerate(names):
        values = {
            place: methods[name][metric]
            for place, methods in enumerate(groups.values())
            if name in methods
        }
        x = np.array(list(values)) + 0.03 * (shift - len(names) / 2)  # no bar hides another
        axis.plot(x, [value["mean"] for value in values.values()], "o-", color=COLOURS[name],
                  label=name, markersize=3, linewidth=1)  # fmt: skip
        for place, value in zip(x, values.values(), strict=True):
            if value["low"] is not None:
                axis.plot(
                    [place, place],
                    [value["low"], value["high"]],
                    color=COLOURS[name],
                    linewidth=0.8,
                )
