"""What an evaluation found: figures, tables and plots, from its answers alone."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

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
from unswayed.sweep import over_seeds

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


def summarise(frame: pd.DataFrame, task: Task) -> dict[str, Any]:
    """Everything that answers of one or more seeds give.

    Args:
        frame: rows of `evaluate.make_rows`, with a column seed.

    Returns:
        measures: slice -> method -> users, answers, per metric mean, low and high over seeds, and
            interval (low and high over users, all seeds together); weight_global: its mean.
        differences: per slice, mediator, other method and metric: mediator less other, with 95 %
            interval over users, all seeds together (`metrics.Difference`).
    """
    found: dict[str, Any] = {"measures": {}, "differences": []}
    known = measures(task)
    frame = frame.sort_values(["seed", "event"], kind="stable")  # pairs stand at the same place
    for name, rows in slices(frame):
        methods = {method: own for method, own in rows.groupby("method", sort=False)}
        found["measures"][name] = {method: figures(own, known) for method, own in methods.items()}
        for mediator in MEDIATED:
            for other in AGAINST:
                if mediator in methods and other in methods:
                    pair = methods[mediator], methods[other]
                    for key, measure in known.items():
                        found["differences"].append(
                            {"slice": name, "mediator": mediator, "other": other, "metric": key}
                            | dataclasses.asdict(difference(*pair, measure))
                        )
    return found


def figures(rows: pd.DataFrame, known: dict[str, Measure]) -> dict[str, Any]:
    """Of one method, as `summarise` returns them."""
    weights = rows.weight_global.dropna()
    found: dict[str, Any] = {
        "users": int(rows.user.nunique()),
        "answers": len(rows),
        "weight_global": float(weights.mean()) if len(weights) else None,
    }
    for key, measure in known.items():
        parts = measure.parts(rows)
        spread = paired_bootstrap(parts, np.zeros_like(parts), rows.user, 0, value=measure.value)
        found[key] = over_seeds([measure.of(own) for _, own in rows.groupby("seed")]) | {
            "interval": [spread.low, spread.high]
        }
    return found


def difference(one: pd.DataFrame, other: pd.DataFrame, measure: Measure) -> Difference:
    """One less other, row by row the same questions."""
    parts = measure.parts(one), measure.parts(other)
    return paired_bootstrap(*parts, one.user, 0, value=measure.value)


def write_result(
    out: Path, task: Task, runs: Sequence[dict[str, Any]], frame: pd.DataFrame
) -> dict[str, Any]:
    """Write result.json, tables.md and logo.svg of the seeds that are done; the result."""
    result = {
        "task": {"name": task.name, "labels": task.labels, "ordinal": task.ordinal},
        "metric": next(iter(measures(task))),
        "runs": list(runs),
        **summarise(frame, task),
    }
    result = json.loads(json.dumps(result))
    write_text(out / "result.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    write_text(out / "tables.md", tables(result) + "\n")
    write_text(out / "logo.svg", draw(result))
    return result


# -- tables --------------------------------------------------------------------------------------


def tables(result: dict[str, Any]) -> str:
    """All tables in Markdown."""
    runs = result["runs"]
    seeds = ", ".join(str(run["identity"]["settings"]["seed"]) for run in runs)
    identity, users = runs[0]["identity"], runs[0]["users"]
    whole = next(iter(result["measures"][WHOLE].values()))
    note = (
        f"{identity['model']}, {identity['histories']}, seeds {seeds}; {users['train']} users to "
        f"learn from, {users['fit']} for the gate, {users['test']} for the test, of whom "
        f"{whole['users']} were asked {whole['answers']} questions. In brackets 95 % intervals: in "
        "the first table over seeds, from three on, elsewhere over users, all seeds together."
    )
    made = (
        main_table(result), slice_table(result), difference_table(result), weight_table(result),
        recovered_table(result), cost_table(result),
    )  # fmt: skip
    return "\n\n".join([note, *(text for text in made if text)])


def main_table(result: dict[str, Any]) -> str:
    """Methods x metrics, over all questions."""
    whole = result["measures"][WHOLE]
    names = [key for key in next(iter(whole.values())) if key not in NOT_METRICS]
    rows = [
        [method, *(cell(one[name]["mean"], one[name]["low"], one[name]["high"]) for name in names)]
        for method, one in whole.items()
    ]
    return markdown_table(["Method", *map(metric_words, names)], rows)


NOT_METRICS = ("users", "answers", "weight_global")


def brief_table(result: dict[str, Any]) -> str:
    """Methods x slices, the first metric, without segments."""
    metric = result["metric"]
    slices = {
        name: found for name, found in result["measures"].items() if not name.startswith("segment ")
    }
    counts = [next(iter(found.values())) for found in slices.values()]
    rows = [["users, answers", *(f"{one['users']}, {one['answers']}" for one in counts)]]
    for method in result["measures"][WHOLE]:
        own = [found[method][metric] for found in slices.values()]
        rows.append([method, *(cell(one["mean"], *one["interval"]) for one in own)])
    return markdown_table([metric_words(metric), *slices], rows)


def slice_table(result: dict[str, Any]) -> str:
    """Slices x methods, the first metric."""
    metric = result["metric"]
    methods = list(result["measures"][WHOLE])
    rows = []
    for name, found in result["measures"].items():
        cells = [
            cell(found[method][metric]["mean"], *found[method][metric]["interval"])
            if method in found
            else MISSING
            for method in methods
        ]
        some = next(iter(found.values()))
        rows.append([name, f"{some['users']}, {some['answers']}", *cells])
    return markdown_table([f"{metric_words(metric)} by slice", "users, answers", *methods], rows)


def difference_table(result: dict[str, Any]) -> str:
    """What LoGo gains or loses against each other method, the first metric."""
    metric, names = result["metric"], list(result["measures"])
    found = {
        (one["mediator"], one["other"], one["slice"]): one
        for one in result["differences"]
        if one["metric"] == metric
    }
    rows = []
    for mediator, other in dict.fromkeys(key[:2] for key in found):
        cells = []
        for name in names:
            one = found.get((mediator, other, name))
            if one is None:
                cells.append(MISSING)
                continue
            cells.append(difference_cell(one))
        rows.append([f"{mediator} - {other}", *cells])
    return markdown_table([f"Difference in {metric_words(metric)}", *names], rows) if rows else ""


def weight_table(result: dict[str, Any]) -> str:
    """Mean weight of the global side, of the mediators that say it."""
    rows = [
        [
            method,
            *(
                MISSING
                if method not in found or found[method]["weight_global"] is None
                else f"{100 * found[method]['weight_global']:.0f} %"
                for found in result["measures"].values()
            ),
        ]
        for method in FUSED
        if method in result["measures"][WHOLE]
    ]
    return markdown_table(["Weight of the global side", *result["measures"]], rows) if rows else ""


def recovered_table(result: dict[str, Any]) -> str:
    """How well true communities are found, see `evaluate.recovered`; "" where there is no truth."""
    found = [run["recovered"] for run in result["runs"] if run.get("recovered")]
    if not found:
        return ""
    groups = list(next(iter(found[0].values())))
    rows = []
    for part in found[0]:
        own = [
            [one[part][group] for one in found if one[part][group] is not None] for group in groups
        ]
        rows.append([part, *(_ranged(values) for values in own)])
    return markdown_table(["Adjusted Rand index", *groups], rows)


def cost_table(result: dict[str, Any]) -> str:
    """What asking and training took, over all seeds."""
    asked: dict[str, list[float]] = {}
    for run in result["runs"]:
        for what, one in run["asked"].items():
            total = asked.setdefault(what, [0, 0.0])
            total[0] += one["prompts"]
            total[1] += one["seconds"]
    rows = [_cost(f"prompts: {what}", *spent) for what, spent in asked.items()]
    if n := sum(run["predictions"] for run in result["runs"]):
        rows.append(_cost("predictions, all together", n, sum(s for _, s in asked.values())))
    trained = [one for run in result["runs"] for one in run["training"]]
    if n := sum(one["samples"] for one in trained):
        rows.append(_cost("training: samples", n, sum(one["seconds"] for one in trained)))
    return markdown_table(["Cost", "number", "seconds per 1,000"], rows) if rows else ""


def _ranged(values: Sequence[float]) -> str:
    """Mean and range over seeds."""
    if not values:
        return MISSING
    return f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _cost(what: str, n: int, seconds: float) -> list[str]:
    return [what, f"{n:,}", f"{1000 * seconds / n:.0f}"]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Texts to the left in the first column, numbers to the right in the others."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value: float, low: float | None, high: float | None, sign: str = "") -> str:
    """A value with its interval, if there is one."""
    text = f"{value:{sign}.3f}"
    return text if low is None else f"{text} ({low:{sign}.3f} to {high:{sign}.3f})"


def difference_cell(found: dict[str, Any]) -> str:
    """A `Difference` as JSON has it, with its interval and relative to the second."""
    text = cell(found["estimate"], found["low"], found["high"], sign="+")
    relative = found["relative"]
    return text if relative is None else f"{text}, {100 * relative:+.0f} %"


def metric_words(metric: str) -> str:
    """A metric as people write it."""
    names = {"mae": "MAE", "rmse": "RMSE", "macro_f1": "macro-F1", "rouge_l": "ROUGE-L",
             "rouge_1": "ROUGE-1"}  # fmt: skip
    return names.get(metric, metric)


# -- plot ----------------------------------------------------------------------------------------


def draw(result: dict[str, Any]) -> str:
    """An SVG: the first metric by known events and by segment, and the weight of the global side.

    Bars are 95 % intervals over users. Of errors the axis ends at HIGHEST times the median point,
    beyond which only what nobody would use lies. The same input gives the same bytes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    found, metric = result["measures"], result["metric"]
    cold = {int(name.split()[1]): one for name, one in found.items() if name.startswith("cold ")}
    time = {int(n.split()[1]): one for n, one in found.items() if n.startswith("segment ")}
    lines = {"events of the user that are known": cold | {"all": found[WHOLE]}}
    if len(time) > 1:
        lines["segment of time"] = time
    style = {"svg.hashsalt": "unswayed", "svg.fonttype": "none", "font.family": "sans-serif"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(1 + 4.5 * (1 + len(lines)), 5), layout="constrained")
        *axes, weights = figure.subplots(1, 1 + len(lines))
        for axis, (what, groups) in zip(axes, lines.items(), strict=True):
            _draw_lines(axis, groups, metric)
            axis.set_xticks(range(len(groups)), list(map(str, groups)))
            axis.set(xlabel=what, ylabel=metric_words(metric))
            if metric == "mae":
                points = [own[metric]["mean"] for one in groups.values() for own in one.values()]
                axis.set_ylim(top=HIGHEST * float(np.median(points)))
        _draw_weights(weights, lines["events of the user that are known"])
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6,
            fontsize="small", frameon=False,
        )  # fmt: skip
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _draw_weights(axis: Any, groups: dict[Any, dict[str, Any]]) -> None:
    """The mean weight of the global side over the groups, a line per mediator that says it."""
    for method in FUSED:
        own = [one.get(method, {}).get("weight_global") for one in groups.values()]
        known = {place: weight for place, weight in enumerate(own) if weight is not None}
        axis.plot(list(known), list(known.values()), "o-", color=COLOURS[method], label=method)
    axis.set_xticks(range(len(groups)), list(map(str, groups)))
    axis.set(xlabel="events of the user that are known", ylabel="weight of the global side",
             ylim=(-0.02, 1.02))  # fmt: skip


def _draw_lines(axis: Any, groups: dict[Any, dict[str, Any]], metric: str) -> None:
    """A line per method over the groups, each at its place."""
    names = list(dict.fromkeys(method for one in groups.values() for method in one))
    for shift, name in enumerate(names):
        at = [place for place, one in enumerate(groups.values()) if name in one]
        own = [one[name][metric] for one in groups.values() if name in one]
        x = np.array(at) + 0.03 * (shift - len(names) / 2)  # so that bars do not hide each other
        axis.plot(x, [one["mean"] for one in own], "o-", color=COLOURS[name], label=name,
                  markersize=3, linewidth=1)  # fmt: skip
        for place, one in zip(x, own, strict=True):
            if one["interval"][0] is not None:
                axis.plot([place, place], one["interval"], color=COLOURS[name], linewidth=0.8)
