"""Sweeps: runs that differ in a few settings, as data, and what all seeds of a run say together.

A sweep file names a base, what all runs share, and for each run only its differences; every run is
done with every seed, in OUT/NAME-SEED. What is finished is not done again. PLUM and DPO each say
which keys a run has, how one is done and which tables and plot its results make (`Sweep`).
"""

from __future__ import annotations

import abc
import argparse
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from unswayed.core.commands import Parser, run_command
from unswayed.core.errors import InputError
from unswayed.core.files import without_folders, write_text
from unswayed.core.recipes import read_mapping
from unswayed.display.numbers import MISSING, percent

log = logging.getLogger(__name__)

SWEEP_KEYS = ("base", "seeds", "runs")  # of a sweep file, beside those of a run
Key = tuple[str, int]  # name of a run, seed


class SweepReport(NamedTuple):
    """What results say together."""

    facts: Mapping[str, Any]  # of the whole sweep, for sweep.json
    results: Sequence[Mapping[str, Any]]  # a line of sweep.json for each run and seed
    tables: str  # Markdown
    plot: str  # SVG


class Sweep(abc.ABC):
    """One command; made from its options.

    Attributes:
        room: folder in `recipes/`.
        repeated: options that the repeating command has too, in order -> what stands before each
            value, whose folders are left out.
        always: run what is finished too, as it may lack what is asked now.
        seeds: of the file.
        runs: name -> what is done with every seed.
    """

    room: ClassVar[str]
    repeated: ClassVar[Mapping[str, str]]
    always: ClassVar[bool] = False
    seeds: Sequence[int]
    runs: Mapping[str, Any]

    @staticmethod
    @abc.abstractmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """Options beside --config, --out, --only and --seeds."""

    @abc.abstractmethod
    def prepare(self, names: set[str], seeds: Sequence[int]) -> None:
        """Checks before any of these runs is done."""

    @abc.abstractmethod
    def finished(self, key: Key, folder: Path) -> Any:
        """The result of a run and seed, None if it is not finished there."""

    @abc.abstractmethod
    def run(self, key: Key, folder: Path, place: str, command: str) -> Any:
        """Do a run with a seed, or what is left of it; its result. `place` is such as "1 of 6",
        `command` repeats the sweep."""

    @abc.abstractmethod
    def report(self, results: dict[Key, Any], last: Key | None) -> SweepReport:
        """Tables and plot of all results; `last` was run last, None if nothing was run."""


# -- the file ------------------------------------------------------------------------------------


class SweepFile(NamedTuple):
    """What a sweep file says."""

    base: Any  # as it stands there, None if it does not
    shared: dict[str, Any]  # keys that all runs share
    runs: dict[str, dict[str, Any]]  # name -> keys in which the run differs
    seeds: tuple[int, ...]  # each once; 0 if none are given


def read_sweep_file(path: Path, check: Callable[..., dict[str, Any]]) -> SweepFile:
    """A sweep file.

    Args:
        check: called with some keys of a run, where they stand, and which other keys may stand
            there; returns them.

    Raises:
        InputError: not such a file, a run without a name of its own, or as `check`.
    """
    values = read_mapping(path, "sweep")
    frame = {key: values.pop(key, None) for key in SWEEP_KEYS}
    shared = check(values, f"{path}", SWEEP_KEYS)
    runs: dict[str, dict[str, Any]] = {}
    for number, run in enumerate(_list_of(frame["runs"], dict, path, "runs"), start=1):
        name = str(run.pop("name", ""))
        if name in ("", ".", "..") or Path(name).name != name or name in runs:
            raise InputError(
                f"{path}: run {number} is called {name!r}: each needs a name of its own, which "
                "becomes a folder's"
            )
        runs[name] = check(run, f"{path}: run {name}", ("name",))
    seeds = [0] if frame["seeds"] is None else _list_of(frame["seeds"], int, path, "seeds")
    return SweepFile(frame["base"], shared, runs, tuple(dict.fromkeys(seeds)))


def _list_of(value: Any, kind: type, path: Path, key: str) -> list:
    if not (isinstance(value, list) and value and all(type(entry) is kind for entry in value)):
        what = "mappings with a name each" if kind is dict else "whole numbers"
        raise InputError(f"{path}: {key} must be a list of {what}")
    return value


def make_runs(path: Path, file: SweepFile, make: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Name -> what `make` makes of the keys in which the run differs; errors name file and run."""
    runs = {}
    for name, keys in file.runs.items():
        try:
            runs[name] = make(keys)
        except InputError as error:
            raise InputError(f"{path}: run {name}: {error}") from None
    return runs


def run_folder(out: Path, key: Key) -> Path:
    """Where a run and seed is done."""
    return out / f"{key[0]}-{key[1]}"


# -- the command ---------------------------------------------------------------------------------


def sweep_parser(kind: type[Sweep], doc: str) -> argparse.ArgumentParser:
    """The options of a script that runs sweeps."""
    parser = Parser(
        "sweep.py", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="a sweep's YAML")
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these runs only")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of the file's")
    kind.add_options(parser)
    return parser


def run_sweep(kind: type[Sweep], doc: str, argv: Sequence[str] | None = None) -> int:
    """The shell of a script: run what is not finished, print the tables; returns the exit code.

    Args:
        doc: of the script.
        argv: its arguments; None takes those of the process.
    """

    def work() -> None:
        arguments = sweep_parser(kind, doc).parse_args(argv)
        _run(kind(arguments), arguments)

    return run_command("sweep.py", work, interrupted="run it again to go on")


def _run(sweep: Sweep, arguments: argparse.Namespace) -> None:
    seeds, out = tuple(arguments.seeds or sweep.seeds), arguments.out
    names = set(arguments.only or sweep.runs)
    if unknown := names - set(sweep.runs):
        raise InputError(f"--only {min(unknown)}: the runs are {', '.join(sweep.runs)}")
    sweep.prepare(names, seeds)
    places = {(name, seed): run_folder(out, (name, seed)) for seed in seeds for name in sweep.runs}
    results = {key: sweep.finished(key, folder) for key, folder in places.items()}
    results = {key: result for key, result in results.items() if result}
    log.info("%d of %d runs are finished", len(results), len(places))
    command = repeating_command(sweep, arguments)
    facts = {"sweep": arguments.config.stem, "command": command}
    todo = [key for key in places if key[0] in names and (sweep.always or key not in results)]
    for number, key in enumerate(todo, start=1):
        results[key] = sweep.run(key, places[key], f"{number} of {len(todo)}", command)
        in_order = {place: results[place] for place in places if place in results}
        tables = write_sweep(out, facts, sweep.report(in_order, key))
    if not todo:
        tables = write_sweep(out, facts, sweep.report(results, None))
    print(tables)
    print(f"\n{out / 'sweep.md'}, {out / 'sweep.svg'}")


def repeating_command(sweep: Sweep, arguments: argparse.Namespace) -> str:
    """What repeats a sweep, with the options that were given, without folders of this machine."""
    config = f"recipes/{sweep.room}/sweeps/{arguments.config.name}"
    words = [f"python recipes/{sweep.room}/sweep.py --config {config}"]
    for name, prefix in sweep.repeated.items():
        if values := getattr(arguments, name):
            values = [] if values is True else values if isinstance(values, list) else [values]
            words += [f"--{name}", *(prefix + without_folders(value) for value in values)]
    return " ".join([*words, "--out DIR"])


def write_sweep(out: Path, facts: Mapping[str, Any], report: SweepReport) -> str:
    """`sweep.json` (a line for each result), `sweep.md` and `sweep.svg`; returns the tables."""
    out.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(line, ensure_ascii=False) for line in report.results)
    head = json.dumps({**facts, **report.facts}, ensure_ascii=False).removesuffix("}")
    write_text(out / "sweep.json", f'{head}, "results": [\n{lines}\n]}}\n')
    write_text(out / "sweep.md", f"`{facts['command']}`\n\n{report.tables}\n")
    write_text(out / "sweep.svg", report.plot)
    return report.tables


# -- over seeds ----------------------------------------------------------------------------------


def groups(results: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Results by the name of their run, in the order given."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_name.setdefault(result["name"], []).append(result)
    return by_name


def range_of(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, and of several trainings the lowest and the highest: a range, no interval."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    return {"mean": mean, "low": min(values), "high": max(values)}


def cell(values: Sequence[float | None], share: bool = True) -> str:
    """Percent or points: the mean, and of several trainings their range in parentheses, or "each"
    where all are the same; a dash unless all are known."""
    if not values or any(value is None for value in values):
        return MISSING
    mean, low, high = (percent(value, not share) for value in range_of(values).values())
    if len(values) < 2:
        return mean
    return f"{mean} ({'each' if low == high else f'{low} to {high}'})"
