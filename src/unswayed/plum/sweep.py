"""Sweeps of PLUM: experiments that differ in a few settings (`recipes/plum/sweeps/*.yaml`).

Tables and the plot are made from results alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unswayed.core.errors import InputError
from unswayed.core.files import write_text
from unswayed.core.recipes import check_layer, merge
from unswayed.display.numbers import MISSING, interval
from unswayed.display.plots import svg
from unswayed.plum import forgetting
from unswayed.plum.experiment import finished, run_experiment
from unswayed.plum.figures import ExperimentResult
from unswayed.plum.forgetting import transfers
from unswayed.plum.material import ABILITY_NUMBERS, PlumExperiment, seeded
from unswayed.plum.recipe import SECTIONS, check_values, read_recipe
from unswayed.plum.settings import PlumSettings
from unswayed.statistics.trainings import trainings_mean
from unswayed.sweep import (
    Key,
    Sweep,
    SweepReport,
    cell,
    groups,
    make_runs,
    range_of,
    read_sweep_file,
)

log = logging.getLogger(__name__)

Results = Sequence[ExperimentResult]


class PlumSweep(Sweep):
    """A sweep of PLUM. What a run says goes before what the sweep says, and that before its base;
    `settings` and `augment` key by key, and `augment: null` goes back to the built-in questions.
    Options go before all.

    Raises:
        InputError: names file, run and the key that is unknown, missing or of a wrong type.
    """

    room = "plum"
    repeated: typing.ClassVar = {
        "base": "recipes/plum/", "conversations": "", "first": "", "seeds": "", "baselines": "",
        "ability": "",
    }  # fmt: skip

    def __init__(self, arguments: argparse.Namespace) -> None:
        from unswayed.models.base import load_base

        options = {
            "conversations": arguments.conversations,
            "first": arguments.first,
            "baselines": arguments.baselines or None,
            "ability": _ability(arguments.ability),
        }
        options = {key: value for key, value in options.items() if value is not None}
        path, base = arguments.config, arguments.base
        file = read_sweep_file(path, _layer)
        below = _base(file.base if base is None else str(base.absolute()), path)

        def make(keys: dict[str, Any]) -> PlumExperiment:
            merged = merge(SECTIONS, below, file.shared, keys, options)
            if "model" not in merged:
                raise InputError("the key model is missing; a base has it")
            settings = PlumSettings(**merged.get("settings", {}))
            return PlumExperiment(**merged | {"settings": settings})

        self.runs: dict[str, PlumExperiment] = make_runs(path, file, make)
        self.seeds = file.seeds
        # Loaded again only when another one is needed.
        self._load = functools.lru_cache(maxsize=1)(load_base)

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--conversations", nargs="+", metavar="SPEC", help="instead of the file's")
        add("--first", type=int, metavar="N", help="conversations, in order of time")
        add("--base", type=Path, metavar="RECIPE", help="instead of the file's")
        add("--baselines", action="store_true", help="ask other memories the same, without "
            "training")  # fmt: skip
        add("--ability", nargs="+", metavar="KEY=VALUE", default=[],
            help="ask about general ability before and after: mmlu=FOLDER questions=200",
        )  # fmt: skip

    def prepare(self, names: set[str], seeds: Sequence[int]) -> None:
        """All was checked in reading."""

    def finished(self, key: Key, folder: Path) -> ExperimentResult | None:
        experiment = seeded(self.runs[key[0]], key[1])
        result = finished(experiment, self._load(experiment.model, experiment.dtype), folder)
        return result and result | {"name": key[0]}  # another sweep may call it otherwise

    def run(self, key: Key, folder: Path, place: str, command: str) -> ExperimentResult:
        log.info("run %s, seed %d: %s", *key, folder)
        experiment = seeded(self.runs[key[0]], key[1])
        record = {"name": key[0], "seed": key[1], "command": f"{command} --only {key[0]}"}
        base = self._load(experiment.model, experiment.dtype)
        result = run_experiment(experiment, base, folder, record)
        for set_name, curve in result["forgetting"].items():
            write_text(folder / f"{set_name}.svg", forgetting.draw(curve))
        return result

    def report(self, results: dict[Key, ExperimentResult], last: Key | None) -> SweepReport:
        whole = list(results.values())
        lines = [{name: run[name] for name in run if name != "rows"} for run in whole]
        return SweepReport({}, lines, tables(whole), draw(whole))


def _base(base: Any, path: Path) -> dict[str, Any]:
    """A recipe, found from the sweep file, or keys that stand there themselves."""
    if isinstance(base, dict):
        return _layer(base, f"{path}: base")
    if not isinstance(base, str):
        raise InputError(f"{path}: base must be a recipe's path or a mapping of keys to values")
    keys = dataclasses.asdict(read_recipe([path.parent / base]))
    users = keys.pop("users")
    del keys["output_dir"]
    if len(users) == 1:  # of several users it would not be clear whose are meant
        keys["conversations"] = next(iter(users.values()))
    return keys


def _layer(values: dict[str, Any], where: str, frame: Sequence[str] = ()) -> dict[str, Any]:
    """Some keys of an experiment, after a check."""
    hints = typing.get_type_hints(PlumExperiment) | dict.fromkeys(frame)
    sections = dict(SECTIONS)
    if values.get("augment", {}) is None:
        del sections["augment"]
    check_layer(values, where, hints, sections, check_values)
    for name in sections:
        if "seed" in values.get(name, {}):
            raise InputError(f"{where}: {name}.seed: give the sweep's seeds as seeds: [0, 1, 2]")
    if not isinstance(values.get("ability", {}), dict | None):
        raise InputError(f"{where}: ability must be a mapping of keys to values")
    return values


def _ability(texts: Sequence[str]) -> dict[str, Any] | None:
    """Of KEY=VALUE texts; None if there are none."""
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or (key in ABILITY_NUMBERS and not value.isdecimal()):
            raise InputError(f"--ability {text}: give mmlu=FOLDER questions=200, or the like")
        settings[key] = int(value) if key in ABILITY_NUMBERS else value
    return settings or None


# -- tables --------------------------------------------------------------------------------------


def tables(results: Results) -> str:
    """All tables that the results give, in Markdown."""
    texts = (make(results) for make in (recall_table, halves_table, memory_table, ability_table))
    note = (
        "Percent and points. In brackets 95 % intervals over conversations, and of several seeds "
        "over trainings too; in parentheses the range of trainings, lowest to highest."
    )
    return "\n\n".join([note, *filter(None, texts)])


def _table(columns: Sequence[str], texts: Sequence[int], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; the columns at these places are texts, others numbers. "" without rows."""
    if not rows:
        return ""
    rule = "|".join("---" if i in texts else "--:" for i in range(len(columns)))
    lines = [f"| {' | '.join(columns)} |", f"|{rule}|"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows])


def recall_table(results: Results) -> str:
    """Recall at the end of each run, how it swung, and what was forgotten."""
    rows = []
    for name, runs in groups(results).items():
        seconds = [
            sum(stage["seconds"] for stage in run["training"]) / len(run["conversations"])
            for run in runs
        ]
        for set_name in _sets(runs):
            recall = [run["recall"][set_name] for run in runs]
            curves = [run["forgetting"][set_name] for run in runs if set_name in run["forgetting"]]
            yes = [point["said_yes"] for curve in curves for point in curve["over_time"]]
            rows.append(
                [
                    name, len(runs), _words(set_name),
                    _over_conversations(curves, lambda matrix: matrix[-1]),
                    *(_recall_cell(recall, key) for key in ("yes", "no")),
                    f"{100 * min(yes):.0f}, {100 * max(yes):.0f}" if yes else MISSING,
                    cell([(curve["first"] or {}).get("lost") for curve in curves]),
                    _over_conversations(curves, transfers, sign=True),
                    _recall_cell(recall, "open"),
                    f"{np.mean(seconds):.1f}",
                ]
            )  # fmt: skip
    columns = ["Run", "seeds", "questions", "recall", "yes", "no", "Yes said, lowest and highest",
               "first conversation below its peak", "backward transfer", "open",
               "training per conversation (s)"]  # fmt: skip
    return _table(columns, (0, 2), rows)


# Of R, as of `forgetting`: the first half of the conversations when learnt and at the end, and the
# second half at the end.
HALVES: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda matrix: matrix[len(matrix) // 2 - 1, : len(matrix) // 2],
    lambda matrix: matrix[-1, : len(matrix) // 2],
    lambda matrix: matrix[-1, len(matrix) // 2 :],
)


def halves_table(results: Results) -> str:
    """The first half of the conversations before and after the second; "" with one conversation."""
    rows = []
    for name, runs in groups(results).items():
        for set_name in _sets(runs):
            curves = [run["forgetting"][set_name] for run in runs if set_name in run["forgetting"]]
            if any(curve["halves"]["first_at_end"] for curve in curves):
                cells = [_over_conversations(curves, half) for half in HALVES]
                rows.append([name, _words(set_name), *cells])
    columns = ["Run", "questions", "first half, when learnt", "first half, at the end",
               "second half, at the end"]  # fmt: skip
    return _table(columns, (0, 1), rows)


def memory_table(results: Results) -> str:
    """PLUM beside other memories on the same questions; "" where none were asked."""
    rows = []
    for name, runs in groups([run for run in results if run["baselines"]]).items():
        for set_name in runs[0]["baselines"]:
            memories = [("plum", [run["recall"][set_name] for run in runs])]
            for same in zip(*(run["baselines"][set_name] for run in runs), strict=True):
                label = f"{same[0]['memory']} {same[0]['style']}".strip()
                if any(row["recall"] is None for row in same):
                    longest = max(row["longest"] for row in same)
                    label += f" (does not fit: {longest:,} of {same[0]['context']:,} tokens)"
                memories.append((label, [row["recall"] for row in same]))
            for label, recall in memories:
                cells = [_recall_cell(recall, key) for key in ("closed", "yes", "no")]
                rows.append([name, len(runs), _words(set_name), label, *cells])
    columns = ["Run", "seeds", "questions", "memory", "recall", "yes", "no"]
    return _table(columns, (0, 2, 3), rows)


def ability_table(results: Results) -> str:
    """General ability before and after; "" where it was not asked."""
    rows = []
    for name, runs in groups([run for run in results if run["ability"]]).items():
        for task in runs[0]["ability"]:
            seeds = [run["ability"][task] for run in runs]
            bounds = [f"{100 * seed['low']:+.1f} to {100 * seed['high']:+.1f}" for seed in seeds]
            cells = [cell([seed[key] for seed in seeds]) for key in ("before", "after")]
            cells += [cell([seed["change"] for seed in seeds], share=False), "; ".join(bounds)]
            rows.append([name, task, seeds[0]["n"], *cells])
    columns = ["Run", "task", "questions", "before", "after", "change",
               "change of each seed, 95 % over questions"]  # fmt: skip
    return _table(columns, (0, 1), rows)


def _sets(results: Results) -> list[str]:
    return list(dict.fromkeys(name for run in results for name in run["recall"]))


def _words(set_name: str) -> str:
    return set_name.replace("_", " ")


def _share(recall: Mapping[str, Any] | None, key: str) -> float | None:
    """The recall under a key; None where nothing was asked."""
    share = recall and recall.get(key)
    return share and share["recall"]


def _recall_cell(recall: Sequence[Mapping[str, Any] | None], key: str) -> str:
    """The recall under a key: of one training with its interval, of several with their range."""
    share = recall[0] and recall[0].get(key)
    if len(recall) == 1 and share:
        return interval({"estimate": share["recall"], **share})
    return cell([_share(seed, key) for seed in recall])


def _over_conversations(
    curves: Sequence[Mapping[str, Any]],
    read: Callable[[np.ndarray], np.ndarray],
    sign: bool = False,
) -> str:
    """A mean with its interval for other conversations and trainings.

    Args:
        curves: of each training, as of `forgetting`.
        read: (T, T) recall by time and conversation -> a value for each of some conversations.
    """
    values = [read(np.array(curve["matrix"], dtype=float)) for curve in curves]
    if not values or any(np.isnan(of_one).all() for of_one in values):
        return MISSING
    mean = dataclasses.asdict(trainings_mean(np.stack(values)[:, :, None]))
    if mean["low"] is not None:
        mean |= {"low": max(mean["low"], -1.0 if sign else 0.0), "high": min(mean["high"], 1.0)}
    return interval(mean, sign)


# -- plot ----------------------------------------------------------------------------------------


def draw(results: Results) -> str:
    """An SVG of a sweep: recall at the end by run, recall and share of Yes over time.

    The same input gives the same bytes. Curves are means over seeds, of the first set of questions.
    """
    return svg((13, 4.6), lambda figure: _draw(figure, results))


def _draw(figure: Any, results: Results) -> None:
    import matplotlib

    runs, first_set = groups(results), _words(next(iter(_sets(results)), ""))
    ends, lines, yes = figure.subplots(1, 3, width_ratios=[4, 3, 3])
    _draw_ends(ends, runs)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(runs)))
    for (name, seeds), colour in zip(runs.items(), colours, strict=True):
        for axis, read in (
            (lines, lambda point: point["closed"]["recall"]),
            (yes, lambda point: point["said_yes"]),
        ):
            at = _over_time(seeds, read)
            single = "o" if len(at) == 1 else None
            axis.plot(list(at), list(at.values()), label=name, color=colour, marker=single)
    lines.set(ylabel=f"recall so far, {first_set}")
    yes.set(ylabel=f"share of Yes said, {first_set}")
    for axis in (lines, yes):
        axis.axhline(0.5, color="lightgrey", linewidth=0.8, zorder=0)
        axis.set(ylim=(-0.02, 1.02), xlabel="conversations learnt")
        axis.xaxis.get_major_locator().set_params(integer=True)
    # Below the panels, where no point can hide behind them.
    look = {"fontsize": "small", "frameon": False}
    figure.legend(*ends.get_legend_handles_labels(), loc="outside lower left", ncols=2, **look)
    figure.legend(*yes.get_legend_handles_labels(), loc="outside lower right", ncols=5, **look)


def _draw_ends(axis: Any, runs: Mapping[str, list[ExperimentResult]]) -> None:
    """Recall at the end: a point for each run, set of questions and answer."""
    looks = (("closed", "yes and no", "black"), ("yes", "answer is yes", "tab:blue"),
             ("no", "answer is no", "tab:orange"))  # fmt: skip
    sets = _sets([run for seeds in runs.values() for run in seeds])  # up to three
    count = len(sets) * len(looks)
    for i, set_name in enumerate(sets):
        for k, (key, label, colour) in enumerate(looks):
            at, recall = [], []
            for place, seeds in enumerate(runs.values()):
                shares = [_share(run["recall"].get(set_name), key) for run in seeds]
                if all(share is not None for share in shares):
                    at.append(place + 0.7 * ((i * len(looks) + k + 0.5) / count - 0.5))
                    recall.append(range_of(shares))
            face = colour if i == 0 else "white"
            axis.plot(
                at, [mean["mean"] for mean in recall], "os^"[i], color=colour,
                markerfacecolor=face, markersize=5, label=f"{label}, {_words(set_name)}",
            )  # fmt: skip
            for x, mean in zip(at, recall, strict=True):
                if mean["low"] is not None:
                    axis.plot([x, x], [mean["low"], mean["high"]], color=colour, linewidth=1)
    axis.axhline(0.5, color="lightgrey", linewidth=0.8, zorder=0)
    long = any(len(name) > 8 for name in runs)
    axis.set_xticks(range(len(runs)), list(runs), rotation=20 if long else 0)
    axis.set(ylim=(-0.02, 1.02), xlabel="run", ylabel="recall at the end")


def _over_time(results: Results, read: Any) -> dict[int, float]:
    """Conversations learnt -> mean over seeds, of the first set of questions."""
    values: dict[int, list[float]] = {}
    for run in results:
        curve = next(iter(run["forgetting"].values()), {"over_time": []})
        for point in curve["over_time"]:
            values.setdefault(point["after"], []).append(read(point))
    return {after: float(np.mean(seeds)) for after, seeds in sorted(values.items())}
