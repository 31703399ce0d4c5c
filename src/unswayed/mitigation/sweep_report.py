"""What a sweep of DPO says: figures from mitigation.json alone, tables, and the plot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from unswayed.core.files import without_folders
from unswayed.display.numbers import interval, listed, markdown_text, percent
from unswayed.display.page import render_markdown
from unswayed.display.plots import svg
from unswayed.display.tables import markdown_table
from unswayed.mitigation.capability import SOURCES
from unswayed.mitigation.dpo.curves import points
from unswayed.mitigation.mitigate import AFTER, BASELINES, BEFORE
from unswayed.mitigation.verdict.page import COMPARED
from unswayed.mitigation.verdict.words import LABELS, RUNS, TASKS, as_change, row_of
from unswayed.sweep import Key, cell, groups, range_of

SIDES = ("before", "after", "change")
ACCURACY = "accuracy"  # the cost of training that is always known
NO_MEMORY = "none"  # the condition under which capability is drawn: stock MMLU and IFEval

Measures = dict[str, dict[str, Any]]  # of COMPARED -> before, after, change, relative: shares
# Test -> what needs no training: at_chance; BEFORE, measure -> estimate, low, high; and the
# baselines that were asked, each with its `Measures`.
References = dict[str, dict[str, Any]]
Trainings = dict[str, dict[str, Measures]]  # run -> test -> of all its trainings together


class TrainingFigures(TypedDict):
    pairs: int
    steps: int
    seconds: float  # of training since it was last begun or gone on with
    # train (the last that was logged) and test: the share of pairs whose chosen answer gained on
    # the rejected one, None where unknown.
    preference_accuracy: dict[str, float | None]


class SweepLine(TypedDict):
    """A result in `sweep.json`: no path of this machine, no text of an item."""

    name: str
    seed: int
    recipe: dict[str, Any]  # the keys in which it differs
    tests: dict[str, dict[str, Any]]  # n_items, n_pairs, at_chance, and those of `Measures`
    capability: dict[str, Any] | None  # task -> condition, as in `capability_change`
    training: TrainingFigures


def sweep_line(key: Key, own_keys: Mapping[str, Any], mitigation: Mapping[str, Any]) -> SweepLine:
    """The line of a run and seed.

    Args:
        own_keys: in which the run's recipe differs.
        mitigation: what mitigation.json holds.
    """
    return {
        "name": key[0],
        "seed": key[1],
        "recipe": {
            name: without_folders(value) if isinstance(value, str) else value
            for name, value in own_keys.items()
        },
        "tests": {
            test: {
                "n_items": about["n_items"],
                "n_pairs": about["n_pairs"],
                "at_chance": _at_chance(mitigation, AFTER, test),
                **measures(about["changes"][AFTER]),
            }
            for test, about in mitigation["tests"].items()
        },
        "capability": mitigation["capability"] and mitigation["capability"]["changes"],
        "training": _training_figures(mitigation),
    }


def references(mitigations: Iterable[Mapping[str, Any]]) -> References:
    """What needs no training, of all tests."""
    tests: References = {}
    for mitigation in mitigations:
        for test, about in mitigation["tests"].items():
            row = tests.setdefault(test, {"at_chance": _at_chance(mitigation, BEFORE, test)})
            changes = about["changes"]
            row[BEFORE] = {key: row["before"] for key, row in measures(changes[AFTER]).items()}
            row |= {name: measures(changes[name]) for name in BASELINES if name in changes}
    return tests


def measures(rows: list[dict[str, Any]]) -> Measures:
    """The measures of COMPARED that the runs have."""
    compared = {key: row_of(rows, metric, name) for key, (metric, name, _) in COMPARED.items()}
    parts = (*SIDES, "relative")
    return {key: {part: row[part] for part in parts} for key, row in compared.items() if row}


def _at_chance(mitigation: Mapping[str, Any], run: str, test: str) -> bool:
    return mitigation["runs"][run]["tests"][test]["at_chance"]


def _training_figures(mitigation: Mapping[str, Any]) -> TrainingFigures:
    training, history = mitigation["training"], mitigation["curves"]
    return {
        "pairs": training["data"]["train"],
        "steps": max(row["step"] for row in history),
        "seconds": points(history, "train_runtime")[-1][1],
        "preference_accuracy": {
            "train": training["result"].get("rewards/accuracies"),
            "test": training["result"].get("eval_rewards/accuracies"),
        },
    }


# -- tables --------------------------------------------------------------------------------------


def tables(untrained: References, lines: Sequence[SweepLine], together: Trainings) -> str:
    """All tables, in Markdown."""
    tests = [
        {
            "name": markdown_text(test),
            "n_items": lines[0]["tests"][test]["n_items"],
            "n_pairs": lines[0]["tests"][test]["n_pairs"],
            "effects": effect_table(untrained[test], lines, test, together),
            "seeds": seed_table(lines, test),
        }
        for test in untrained
    ]
    view = {
        "guesses": [text for test in untrained if (text := _guesses(untrained[test], lines, test))],
        "tests": tests,
        "capability": any(line["capability"] for line in lines) and capability_table(lines),
        "training": training_table(lines),
    }
    return render_markdown("unswayed.mitigation", "sweep.md.jinja", view).removesuffix("\n")


def _guesses(untrained: Mapping[str, Any], lines: Sequence[SweepLine], test: str) -> str:
    """Where the model is at chance on a test; "" if nowhere."""
    after = sum(line["tests"][test]["at_chance"] for line in lines)
    where = ["before training"] * untrained["at_chance"]
    where += [f"after {after} of {len(lines)} trainings"] * bool(after)
    if not where:
        return ""
    return (
        f"on {markdown_text(test)} the model is at chance {listed(where)}; fewer flips may then "
        "only mean that it guesses more evenly."
    )


def _effect_columns(first: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    columns = list(first)
    for key, (*_, title) in COMPARED.items():
        columns += [(key, title), (f"{key} change", "Change")]
        columns += [(f"{key} relative", "Relative (%)")] * (key == "flips")
    return columns


def effect_table(
    untrained: Mapping[str, Any], lines: Sequence[SweepLine], test: str, together: Trainings
) -> str:
    """Flips, accuracy and gap with a persona: before, by run, and of the baselines.

    Of a run of several seeds whose answers are not `together`, the range of its trainings.
    """
    before = untrained[BEFORE]
    rows = [
        {"run": RUNS[BEFORE], "seeds": "", "flips relative": ""}
        | {key: interval(value, key == "gap") for key, value in before.items()}
        | {f"{key} change": "" for key in before}
    ]
    for name, seeds in groups(lines).items():
        of_each = [line["tests"][test] for line in seeds]
        if len(seeds) == 1:
            cells = _training_cells(of_each[0])
        elif name in together:
            cells = _training_cells(together[name][test])
        else:
            cells = _range_cells(of_each)
        rows.append({"run": name, "seeds": str(len(seeds))} | cells)
    rows += [
        {"run": RUNS[name], "seeds": ""} | _training_cells(untrained[name])
        for name in BASELINES
        if name in untrained
    ]
    return markdown_table(rows, _effect_columns([("run", "Run"), ("seeds", "Seeds")]), left=1)


def seed_table(lines: Sequence[SweepLine], test: str) -> str:
    """The same of each training, with its own intervals."""
    rows = [
        {"run": name, "seed": str(line["seed"])} | _training_cells(line["tests"][test])
        for name, seeds in groups(lines).items()
        for line in seeds
    ]
    return markdown_table(rows, _effect_columns([("run", "Run"), ("seed", "Seed")]), left=1)


def _training_cells(measures: Measures) -> dict[str, str]:
    """Cells of one run: values after, changes, relative change."""
    cells = {}
    for key in COMPARED:
        cells[key] = interval(measures[key]["after"], key == "gap")
        cells[f"{key} change"] = interval(measures[key]["change"], sign=True)
        cells[f"{key} relative"] = interval(measures[key]["relative"], sign=True)
    return cells


def _range_cells(of_each: Sequence[Measures]) -> dict[str, str]:
    """The same of several trainings: means, and the lowest and highest of them."""
    cells = {}
    for key in COMPARED:
        sides = [of_one[key] for of_one in of_each]
        relative = [side["relative"] and side["relative"]["estimate"] for side in sides]
        cells[key] = cell([side["after"]["estimate"] for side in sides], share=key != "gap")
        cells[f"{key} change"] = cell([side["change"]["estimate"] for side in sides], share=False)
        cells[f"{key} relative"] = cell(relative, share=False)
    return cells


def capability_table(lines: Sequence[SweepLine]) -> str:
    """MMLU and IFEval before and after, under each condition, where they were asked."""
    columns = [("run", "Run"), ("task", "Task"), ("condition", "Condition"), ("n", "n")]
    columns += [(side, side.capitalize()) for side in SIDES]
    columns.append(("seeds", "Change of each seed"))
    rows = []
    for task in _tasks(lines):
        with_task = [line for line in lines if task in (line["capability"] or {})]
        for name, seeds in groups(with_task).items():
            for condition, first in seeds[0]["capability"][task].items():
                changes = [line["capability"][task][condition] for line in seeds]
                rows.append(
                    {
                        "run": name,
                        "task": TASKS[task][0],
                        "condition": LABELS[condition],
                        "n": f"{first['n']:,}",
                        "before": percent(first["before"]),  # asked once for all
                        "after": cell([change["after"] for change in changes]),
                        "change": cell([change["change"] for change in changes], share=False),
                        "seeds": "; ".join(
                            interval(as_change(change), sign=True) for change in changes
                        ),
                    }
                )
    return markdown_table(rows, columns, left=3)


def training_table(lines: Sequence[SweepLine]) -> str:
    """What each run took, as means over trainings."""
    columns = [("run", "Run"), ("seeds", "Seeds"), ("pairs", "Pairs"), ("steps", "Steps"),
               ("seconds", "Seconds"), ("train", "Preference accuracy (%)"),
               ("test", "On test pairs (%)")]  # fmt: skip
    rows = []
    for name, seeds in groups(lines).items():
        training = [line["training"] for line in seeds]
        row = {"run": name, "seeds": str(len(seeds))}
        for key in ("pairs", "steps", "seconds"):
            row[key] = f"{np.mean([figures[key] for figures in training]):,.0f}"
        for key in ("train", "test"):
            row[key] = cell([figures["preference_accuracy"][key] for figures in training])
        rows.append(row)
    return markdown_table(rows, columns, left=1)


def _tasks(lines: Sequence[SweepLine]) -> list[str]:
    """The tasks that were asked of any run."""
    tasks = {task for line in lines for task in line["capability"] or ()}
    return [task for task in SOURCES.values() if task in tasks]


# -- plot ----------------------------------------------------------------------------------------

Point = tuple[float, float]  # what it costs: a change, higher is better; what is left: lower is


def pareto_front(points: Sequence[Point]) -> list[bool]:
    """Whether no other point is at least as good in both and better in one.

    Args:
        points: (higher is better, lower is better).
    """
    return [not any((a >= x and b <= y) and (a > x or b < y) for a, b in points) for x, y in points]


def place(line: SweepLine, test: str, cost: str, left: str) -> Point | None:
    """A training in the plot: (change of accuracy or capability, flips or size of the gap), as
    shares; None where the task was not asked.

    Args:
        cost: "accuracy", or a task, then without memory.
        left: "flips" or "gap".
    """
    y = abs(line["tests"][test][left]["after"]["estimate"])
    if cost == ACCURACY:
        return line["tests"][test][ACCURACY]["change"]["estimate"], y
    conditions = (line["capability"] or {}).get(cost)
    return conditions and (conditions[NO_MEMORY]["change"], y)


def untrained_places(untrained: Mapping[str, Any], cost: str, left: str) -> dict[str, Point]:
    """Where the model before training lies in the plot, and where the baselines do.

    Without memory a baseline's prompts are those of the model before training, so capability does
    not change there.

    Args:
        untrained: `references` of a test.
        cost, left: as in `place`.
    """
    places = {BEFORE: (0.0, abs(untrained[BEFORE][left]["estimate"]))}
    for name in BASELINES:
        if name in untrained:
            x = untrained[name][ACCURACY]["change"]["estimate"] if cost == ACCURACY else 0.0
            places[name] = (x, abs(untrained[name][left]["after"]["estimate"]))
    return places


def draw(untrained: References, lines: Sequence[SweepLine]) -> str:
    """An SVG: what is left of flips and gap, over what training cost; a row per test and measure.

    The same input gives the same bytes. The arguments are those of `tables`.
    """
    costs = {ACCURACY: "change of accuracy with a persona (points)"}
    costs |= {task: f"change of {TASKS[task][0]}, no memory (points)" for task in _tasks(lines)}
    rests = {"flips": "flips with a persona (%)", "gap": "gap, without its sign (points)"}
    rows = [(test, left) for test in untrained for left in rests]
    runs = groups(lines)

    def draw_panels(figure: Any) -> None:
        import matplotlib

        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(runs)))
        grid = figure.subplots(len(rows), len(costs), squeeze=False, sharey="row", sharex="col")
        for i, (test, left) in enumerate(rows):
            for k, (cost, words) in enumerate(costs.items()):
                places = {
                    name: [at for line in seeds if (at := place(line, test, cost, left))]
                    for name, seeds in runs.items()
                }
                fixed = untrained_places(untrained[test], cost, left)
                _draw_panel(grid[i, k], places, fixed, colours)
                if i == len(rows) - 1:
                    grid[i, k].set_xlabel(words)
            grid[i, 0].set_ylabel(f"{test}\n{rests[left]}")
            grid[i, 0].set_ylim(bottom=0)
        figure.suptitle("Better is down and to the right.", fontsize="small", x=0.01, ha="left")
        _draw_legend(figure, grid, list(runs), 2 * len(costs) + 1)

    return svg((1.2 + 3.8 * len(costs), 0.9 + 2.9 * len(rows)), draw_panels)


def _draw_legend(figure: Any, grid: Any, runs: Sequence[str], columns: int) -> None:
    """Below all panels, the runs first."""
    labels: dict[str, Any] = {}
    for axis in grid.flat:  # a run may be missing from some panels
        handles, names = axis.get_legend_handles_labels()
        labels |= dict(zip(names, handles, strict=True))
    order = [*runs, *(label for label in labels if label not in runs)]
    figure.legend(
        [labels[name] for name in order], order, loc="outside lower center",
        ncols=min(len(order), columns), fontsize="small", frameon=False,
    )  # fmt: skip


def _draw_panel(
    axis: Any,
    runs: Mapping[str, Sequence[Point]],
    fixed: Mapping[str, Point],
    colours: Sequence[Any],
) -> None:
    """Runs (means, ranges of trainings, trainings), references, and the front."""
    means: dict[str, Point] = {}
    for (name, seeds), colour in zip(runs.items(), colours, strict=True):
        if not seeds:
            continue
        across, down = (range_of([100 * at[k] for at in seeds]) for k in (0, 1))
        x, y = means[name] = across["mean"], down["mean"]
        axis.plot(x, y, "o", color=colour, markersize=7, label=name, zorder=4)
        if len(seeds) > 1:
            axis.plot(*(100 * np.array(seeds).T), ".", color=colour, markersize=3, zorder=3)
        if across["low"] is not None:
            look = {"color": colour, "linewidth": 1, "zorder": 2}
            axis.plot([across["low"], across["high"]], [y, y], **look)
            axis.plot([x, x], [down["low"], down["high"]], **look)
    for name, marker in zip((BEFORE, *BASELINES), "Xv^", strict=True):
        if name in fixed:
            x, y = means[name] = tuple(100 * value for value in fixed[name])
            axis.plot(x, y, marker, color="dimgrey", markersize=7, label=RUNS[name], zorder=3,
                      linestyle="none")  # fmt: skip
    front = pareto_front(list(means.values()))
    best = [at for at, ringed in zip(means.values(), front, strict=True) if ringed]
    axis.plot(
        *zip(*sorted(best), strict=True), "o:", color="black", markerfacecolor="none",
        markersize=12, linewidth=0.8, label="Pareto front", zorder=1,
    )  # fmt: skip
    axis.axvline(0, color="lightgrey", linewidth=0.8, zorder=0)
