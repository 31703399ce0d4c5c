"""Sweeps of PLUM: experiments that differ in a few settings (`recipes/plum/sweeps/*.yaml`).

Tables and the plot are made from results alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import logging
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unswayed.core.errors import InputError
from unswayed.core.files import without_folders, write_text
from unswayed.core.recipes import check_section, merge
from unswayed.display.numbers import MISSING
from unswayed.plum import forgetting
from unswayed.plum.experiment import finished, run_experiment
from unswayed.plum.material import ABILITY_NUMBERS, PlumExperiment, seeded
from unswayed.plum.recipe import SECTIONS, check_values, read_recipe
from unswayed.plum.settings import PlumSettings
from unswayed.sweep import (
    cell,
    chosen,
    groups,
    over_seeds,
    plan,
    read_sweep_file,
    repeating,
    sweep_command,
    write_sweep,
)

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Experiments by name, each to be done with every seed."""

    seeds: tuple[int, ...]
    runs: dict[str, PlumExperiment]


# -- the file ------------------------------------------------------------------------------------


def read_sweep(
    path: Path, overrides: Mapping[str, Any] | None = None, base: Path | None = None
) -> Sweep:
    """A sweep file. What a run says goes before what the sweep says, and that before its base;
    `settings` and `augment` key by key, and `augment: null` goes back to the built-in questions.

    Args:
        overrides: keys of an experiment, put above what the file says.
        base: a recipe instead of the file's `base`.

    Raises:
        InputError: names file, run and the key that is unknown, missing or of a wrong type.
    """
    file = read_sweep_file(path, _layer)
    below = _base(file.base if base is None else str(base.absolute()), path)
    runs: dict[str, PlumExperiment] = {}
    for name, own in file.runs.items():
        where = f"{path}: run {name}"
        merged = merge(SECTIONS, below, file.shared, own, overrides or {})
        if "model" not in merged:
            raise InputError(f"{where}: the key model is missing; a base has it")
        try:
            settings = PlumSettings(**merged.get("settings", {}))
            runs[name] = PlumExperiment(**merged | {"settings": settings})
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return Sweep(file.seeds, runs)


def _base(base: Any, path: Path) -> dict[str, Any]:
    """A recipe, found from the sweep file, or keys that stand there themselves."""
    if isinstance(base, dict):
        return _layer(base, f"{path}: base")
    if not isinstance(base, str):
        raise InputError(f"{path}: base must be a recipe's path or a mapping of keys to values")
    recipe = read_recipe([path.parent / base])
    found = {
        "model": recipe.model,
        "dtype": recipe.dtype,
        "augment": recipe.augment,
        "settings": dataclasses.asdict(recipe.settings),
    }
    if len(recipe.users) == 1:  # of several users it would not be clear whose are meant
        found["conversations"] = next(iter(recipe.users.values()))
    return found


def _layer(values: dict[str, Any], where: str, more: Sequence[str] = ()) -> dict[str, Any]:
    """Some keys of an experiment, after a check."""
    hints = typing.get_type_hints(PlumExperiment)
    check_values(hints | dict.fromkeys(more), values, where)
    for name, known in SECTIONS.items():
        section = values.get(name, {})
        if section is None and name == "augment":
            continue
        check_section(section, where, name)
        check_values(known(), section, where, f"{name}.")
        if "seed" in section:
            raise InputError(f"{where}: {name}.seed: give the sweep's seeds as seeds: [0, 1, 2]")
    if not isinstance(values.get("ability", {}), dict | None):
        raise InputError(f"{where}: ability must be a mapping of keys to values")
    return values


# -- running it ----------------------------------------------------------------------------------


def run_sweep(doc: str, argv: Sequence[str] | None = None) -> int:
    """The script's shell: run what is not finished, print the tables; returns the exit code."""
    return sweep_command(doc, argv, _add_options, _run)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--conversations", nargs="+", metavar="SPEC", help="instead of the file's")
    parser.add_argument("--first", type=int, metavar="N", help="conversations, in order of time")
    parser.add_argument("--base", type=Path, metavar="RECIPE", help="instead of the file's")
    parser.add_argument(
        "--baselines", action="store_true", help="ask other memories the same, without training"
    )
    parser.add_argument(
        "--ability", nargs="+", metavar="KEY=VALUE", default=[],
        help="ask about general ability before and after: mmlu=FOLDER questions=200",
    )  # fmt: skip


def _run(arguments: argparse.Namespace) -> None:
    overrides = {
        "conversations": arguments.conversations,
        "first": arguments.first,
        "baselines": arguments.baselines or None,
        "ability": _ability(arguments.ability),
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    sweep = read_sweep(arguments.config, overrides, arguments.base)
    seeds = tuple(arguments.seeds or sweep.seeds)
    wanted = chosen(sweep.runs, arguments.only)
    command, out = _command(arguments), arguments.out
    planned = plan(sweep.runs, seeds, out)
    bases = _Bases()
    results = {}
    for (name, seed), folder in planned.items():
        experiment = seeded(sweep.runs[name], seed)
        if found := finished(experiment, bases.get(experiment), folder):
            results[name, seed] = found | {"name": name}  # another sweep may call it otherwise
    log.info("%d of %d runs are finished", len(results), len(planned))
    for (name, seed), folder in planned.items():
        if (name, seed) in results or name not in wanted:
            continue
        log.info("run %s, seed %d: %s", name, seed, folder)
        experiment = seeded(sweep.runs[name], seed)
        record = {"name": name, "seed": seed, "command": f"{command} --only {name}"}
        results[name, seed] = run_experiment(experiment, bases.get(experiment), folder, record)
        for set_name, curve in results[name, seed]["forgetting"].items():
            write_text(folder / f"{set_name}.svg", forgetting.draw(curve))
        _write(out, arguments.config.stem, command, [results[k] for k in planned if k in results])
    found = [results[key] for key in planned if key in results]
    _write(out, arguments.config.stem, command, found)
    print(tables(found))
    print(f"\n{out / 'sweep.md'}, {out / 'sweep.svg'}")


class _Bases:
    """The model of one experiment after another; loaded again only when another one is needed."""

    def __init__(self) -> None:
        self._key, self._base = None, None

    def get(self, experiment: PlumExperiment) -> Any:
        from unswayed.models.base import load_base

        if self._key != (key := (experiment.model, experiment.dtype)):
            self._key, self._base = key, load_base(*key)
        return self._base


def _ability(given: Sequence[str]) -> dict[str, Any] | None:
    """Of KEY=VALUE texts; None if there are none."""
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or (key in ABILITY_NUMBERS and not value.isdecimal()):
            raise InputError(f"--ability {text}: give mmlu=FOLDER questions=200, or the like")
        found[key] = int(value) if key in ABILITY_NUMBERS else value
    return found or None


def _command(arguments: argparse.Namespace) -> str:
    """What repeats the sweep, without paths of this machine."""
    return repeating(
        "plum",
        arguments.config,
        base=arguments.base and [f"recipes/plum/{arguments.base.name}"],
        conversations=[without_folders(one) for one in arguments.conversations or ()],
        first=arguments.first and [arguments.first],
        seeds=arguments.seeds,
        baselines=arguments.baselines,
        ability=[without_folders(one) for one in arguments.ability],
    )


def _write(out: Path, name: str, command: str, results: Sequence[dict[str, Any]]) -> None:
    """The files of a sweep; `sweep.json` has all of the results but their rows."""
    short = [{key: one[key] for key in one if key != "rows"} for one in results]
    facts = {"sweep": name, "command": command}
    write_sweep(out, facts, short, tables(results), draw(results))


# -- tables --------------------------------------------------------------------------------------


def tables(results: Sequence[dict[str, Any]]) -> str:
    """All tables that the results give, in Markdown."""
    made = (make(results) for make in (recall_table, halves_table, memory_table, ability_table))
    note = (
        "Percent and points; means over seeds, and with three seeds or more their 95 % interval "
        "over seeds."
    )
    return "\n\n".join([note, *(text for text in made if text)])


def recall_table(results: Sequence[dict[str, Any]]) -> str:
    """Recall at the end of each run, how it swung, and what was forgotten."""
    lines = [
        "| Run | seeds | questions | recall | yes | no | Yes said, lowest and highest "
        "| first conversation below its peak | backward transfer | open | training per "
        "conversation (s) |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, own in groups(results).items():
        for set_name in _sets(own):
            recall = [one["recall"][set_name] for one in own]
            curves = [one["forgetting"][set_name] for one in own if set_name in one["forgetting"]]
            said = [point["said_yes"] for curve in curves for point in curve["over_time"]]
            seconds = [
                sum(stage["seconds"] for stage in one["training"]) / len(one["conversations"])
                for one in own
            ]
            cells = [
                *(cell([_share(one[key]) for one in recall]) for key in ("closed", "yes", "no")),
                f"{100 * min(said):.0f}, {100 * max(said):.0f}" if said else MISSING,
                cell([(curve["first"] or {}).get("lost") for curve in curves]),
                cell([curve["backward_transfer"] for curve in curves], share=False),
                cell([_share(one["open"]) for one in recall]),
                f"{np.mean(seconds):.1f}",
            ]
            head = f"| {name} | {len(own)} | {set_name.replace('_', ' ')} | "
            lines.append(head + " | ".join(cells) + " |")
    return "\n".join(lines)


def halves_table(results: Sequence[dict[str, Any]]) -> str:
    """The first half of the conversations before and after the second; "" with one conversation."""
    lines = []
    keys = ("first_when_learnt", "first_at_end", "second_at_end")
    for name, own in groups(results).items():
        for set_name in _sets(own):
            found = [one["forgetting"][set_name]["halves"] for one in own if set_name in
                     one["forgetting"]]  # fmt: skip
            if any(half["first_at_end"] for half in found):
                cells = [cell([_share(half[key]) for half in found]) for key in keys]
                head = f"| {name} | {set_name.replace('_', ' ')} | "
                lines.append(head + " | ".join(cells) + " |")
    if not lines:
        return ""
    return "\n".join(
        [
            "| Run | questions | first half, when learnt | first half, at the end | second half, "
            "at the end |",
            "|---|---|--:|--:|--:|",
            *lines,
        ]
    )


def memory_table(results: Sequence[dict[str, Any]]) -> str:
    """PLUM beside other memories on the same questions; "" where none were asked."""
    lines = []
    for name, own in groups([one for one in results if one["baselines"]]).items():
        for set_name in own[0]["baselines"]:
            others = [one["baselines"][set_name] for one in own]
            asked = [("plum", [one["recall"][set_name] for one in own])]
            for same in zip(*others, strict=True):
                label = f"{same[0]['memory']} {same[0]['style']}".strip()
                if any(one["recall"] is None for one in same):
                    longest = max(one["longest"] for one in same)
                    label += f" (does not fit: {longest:,} of {same[0]['context']:,} tokens)"
                asked.append((label, [one["recall"] for one in same]))
            for label, recall in asked:
                cells = [
                    cell([_share(one and one[key]) for one in recall])
                    for key in ("closed", "yes", "no")
                ]
                head = f"| {name} | {len(own)} | {set_name.replace('_', ' ')} | {label} | "
                lines.append(head + " | ".join(cells) + " |")
    if not lines:
        return ""
    head = "| Run | seeds | questions | memory | recall | yes | no |\n|---|--:|---|---|--:|--:|--:|"
    return "\n".join([head, *lines])


def ability_table(results: Sequence[dict[str, Any]]) -> str:
    """General ability before and after; "" where it was not asked."""
    lines = []
    for name, own in groups([one for one in results if one["ability"]]).items():
        for task in own[0]["ability"]:
            found = [one["ability"][task] for one in own]
            cells = [
                cell([one["before"] for one in found]),
                cell([one["after"] for one in found]),
                cell([one["change"] for one in found], share=False),
                " ".join(f"{100 * one['low']:+.1f} to {100 * one['high']:+.1f};" for one in found)
                .rstrip(";"),
            ]  # fmt: skip
            lines.append(f"| {name} | {task} | {found[0]['n']} | " + " | ".join(cells) + " |")
    if not lines:
        return ""
    head = (
        "| Run | task | questions | before | after | change | change of each seed, 95 % over "
        "questions |\n|---|---|--:|--:|--:|--:|--:|"
    )
    return "\n".join([head, *lines])


def _sets(results: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for one in results for name in one["recall"]))


def _share(found: dict[str, Any] | None) -> float | None:
    return found and found["recall"]


# -- plot ----------------------------------------------------------------------------------------


def draw(results: Sequence[dict[str, Any]]) -> str:
    """An SVG of a sweep: recall at the end by run, recall and share of Yes over time.

    The same input gives the same bytes. Curves are means over seeds, of the first set of questions.
    """
    import matplotlib
    from matplotlib.figure import Figure

    runs = groups(results)
    style = {"svg.hashsalt": "unswayed", "svg.fonttype": "none", "font.family": "sans-serif"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(13, 4.6), layout="constrained")
        ends, lines, said = figure.subplots(1, 3, width_ratios=[4, 3, 3])
        _draw_ends(ends, runs)
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(runs)))
        for (name, own), colour in zip(runs.items(), colours, strict=True):
            for axis, read in (
                (lines, lambda point: point["closed"]["recall"]),
                (said, lambda point: point["said_yes"]),
            ):
                at = _over_time(own, read)
                single = "o" if len(at) == 1 else None
                axis.plot(list(at), list(at.values()), label=name, color=colour, marker=single)
        lines.set(ylabel=f"recall so far, {_first_set(results)}")
        said.set(ylabel=f"share of Yes said, {_first_set(results)}")
        for axis in (lines, said):
            axis.axhline(0.5, color="lightgrey", linewidth=0.8, zorder=0)
            axis.set(ylim=(-0.02, 1.02), xlabel="conversations learnt")
            axis.xaxis.get_major_locator().set_params(integer=True)
        # Below the panels, where no point can hide behind them.
        look = {"fontsize": "small", "frameon": False}
        figure.legend(*ends.get_legend_handles_labels(), loc="outside lower left", ncols=2, **look)
        figure.legend(*said.get_legend_handles_labels(), loc="outside lower right", ncols=5, **look)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _draw_ends(axis: Any, runs: Mapping[str, list[dict[str, Any]]]) -> None:
    """Recall at the end: a point for each run, set of questions and answer."""
    looks = (("closed", "yes and no", "black"), ("yes", "answer is yes", "tab:blue"),
             ("no", "answer is no", "tab:orange"))  # fmt: skip
    sets = _sets([one for own in runs.values() for one in own])  # up to three
    count = len(sets) * len(looks)
    for i, set_name in enumerate(sets):
        for k, (key, label, colour) in enumerate(looks):
            at, found = [], []
            for place, own in enumerate(runs.values()):
                shares = [_share(one["recall"].get(set_name, {}).get(key)) for one in own]
                if all(share is not None for share in shares):
                    at.append(place + 0.7 * ((i * len(looks) + k + 0.5) / count - 0.5))
                    found.append(over_seeds(shares))
            means = [one["mean"] for one in found]
            face = colour if i == 0 else "white"
            axis.plot(
                at, means, "os^"[i], color=colour, markerfacecolor=face, markersize=5,
                label=f"{label}, {set_name.replace('_', ' ')}",
            )  # fmt: skip
            for x, one in zip(at, found, strict=True):
                if one["low"] is not None:
                    axis.plot([x, x], [one["low"], one["high"]], color=colour, linewidth=1)
    axis.axhline(0.5, color="lightgrey", linewidth=0.8, zorder=0)
    long = any(len(name) > 8 for name in runs)
    axis.set_xticks(range(len(runs)), list(runs), rotation=20 if long else 0)
    axis.set(ylim=(-0.02, 1.02), xlabel="run", ylabel="recall at the end")


def _first_set(results: Sequence[dict[str, Any]]) -> str:
    return next(iter(_sets(results)), "").replace("_", " ")


def _over_time(results: Sequence[dict[str, Any]], read: Any) -> dict[int, float]:
    """Conversations learnt -> mean over seeds, of the first set of questions."""
    found: dict[int, list[float]] = {}
    for one in results:
        curve = next(iter(one["forgetting"].values()), {"over_time": []})
        for point in curve["over_time"]:
            found.setdefault(point["after"], []).append(read(point))
    return {after: float(np.mean(values)) for after, values in sorted(found.items())}
