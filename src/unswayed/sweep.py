"""Sweeps: runs that differ in a few settings, as data, and what all seeds of a run say together.

A sweep file names a base, what all runs share, and for each run only its differences; every run is
done with every seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unswayed.core.commands import Parser, run_command
from unswayed.core.errors import InputError
from unswayed.core.files import write_text
from unswayed.core.recipes import read_mapping
from unswayed.display.numbers import MISSING, percent

OWN_KEYS = ("base", "seeds", "runs")  # of a sweep file, beside those of a run
ENOUGH_SEEDS = 3  # for an interval

Key = tuple[str, int]  # name of a run, seed


# -- the file ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SweepFile:
    """What a sweep file says.

    Attributes:
        base: as it stands there, None if it does not.
        shared: keys that all runs share.
        runs: name -> keys in which the run differs.
        seeds: each once; 0 if none are given.
    """

    base: Any
    shared: dict[str, Any]
    runs: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]


def read_sweep_file(path: Path, check: Callable[..., dict[str, Any]]) -> SweepFile:
    """A sweep file.

    Args:
        check: called with some keys of a run, where they stand, and which other keys may stand
            there; returns them.

    Raises:
        InputError: not such a file, a run without a name of its own, or as `check`.
    """
    values = read_mapping(path, "sweep")
    own = {key: values.pop(key, None) for key in OWN_KEYS}
    shared = check(values, f"{path}", OWN_KEYS)
    runs: dict[str, dict[str, Any]] = {}
    for number, run in enumerate(_list_of(own["runs"], dict, path, "runs"), start=1):
        name = str(run.pop("name", ""))
        if name in ("", ".", "..") or Path(name).name != name or name in runs:
            raise InputError(
                f"{path}: run {number} is called {name!r}: each needs a name of its own, which "
                "becomes a folder's"
            )
        runs[name] = check(run, f"{path}: run {name}", ("name",))
    seeds = [0] if own["seeds"] is None else _list_of(own["seeds"], int, path, "seeds")
    return SweepFile(own["base"], shared, runs, tuple(dict.fromkeys(seeds)))


def _list_of(value: Any, kind: type, path: Path, key: str) -> list:
    if not (isinstance(value, list) and value and all(type(one) is kind for one in value)):
        what = "mappings with a name each" if kind is dict else "whole numbers"
        raise InputError(f"{path}: {key} must be a list of {what}")
    return value


# -- the script ----------------------------------------------------------------------------------


def sweep_command(
    doc: str,
    argv: Sequence[str] | None,
    add_options: Callable[[argparse.ArgumentParser], None],
    work: Callable[[argparse.Namespace], None],
) -> int:
    """The shell of a script that runs a sweep; returns the exit code.

    Args:
        argv: its arguments; None takes those of the process.
        add_options: adds options beside --config, --out, --only and --seeds.
        work: called with the options.
    """
    parser = Parser(
        "sweep.py", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="a sweep's YAML")
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these runs only")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of the file's")
    add_options(parser)
    return run_command(
        "sweep.py", lambda: work(parser.parse_args(argv)), interrupted="run it again to go on"
    )


def chosen(runs: Iterable[str], only: Sequence[str] | None) -> set[str]:
    """The runs that are to be done: all, or those that are named.

    Raises:
        InputError: there is no such run.
    """
    known = list(runs)
    if unknown := set(only or ()) - set(known):
        raise InputError(f"--only {min(unknown)}: the runs are {', '.join(known)}")
    return set(only or known)


def plan(runs: Iterable[str], seeds: Sequence[int], out: Path) -> dict[Key, Path]:
    """Each run and seed, and its folder; all runs with the first seed first."""
    names = list(runs)
    return {(name, seed): out / f"{name}-{seed}" for seed in seeds for name in names}


def repeating(room: str, config: Path, **options: Sequence[Any] | bool | None) -> str:
    """The command that repeats a sweep of `recipes/ROOM`, with the options that were given."""
    parts = [f"python recipes/{room}/sweep.py --config recipes/{room}/sweeps/{config.name}"]
    for name, values in options.items():
        if values:
            parts += [f"--{name}", *map(str, [] if values is True else values)]
    return " ".join([*parts, "--out DIR"])


def write_sweep(
    out: Path,
    facts: Mapping[str, Any],
    results: Iterable[Mapping[str, Any]],
    tables: str,
    plot: str,
) -> None:
    """`sweep.json` (a line for each result), `sweep.md` and `sweep.svg`.

    Args:
        facts: of the whole sweep; `command` is among them.
    """
    out.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in results)
    head = json.dumps(facts, ensure_ascii=False).removesuffix("}")
    write_text(out / "sweep.json", f'{head}, "results": [\n{lines}\n]}}\n')
    write_text(out / "sweep.md", f"`{facts['command']}`\n\n{tables}\n")
    write_text(out / "sweep.svg", plot)


# -- over seeds ----------------------------------------------------------------------------------


def groups(results: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Results by the name of their run, in the order given."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        found.setdefault(result["name"], []).append(result)
    return found


def over_seeds(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, and with three values or more its 95 % interval by Student's t."""
    from scipy import stats

    mean, n = float(np.mean(values)), len(values)
    if n < ENOUGH_SEEDS:
        return {"mean": mean, "low": None, "high": None}
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def cell(values: Sequence[float | None], share: bool = True) -> str:
    """Percent or points, with an interval where there is one; a dash unless all are known."""
    if not values or any(value is None for value in values):
        return MISSING
    found = over_seeds(values)
    low, high = (found[key] for key in ("low", "high"))
    if share and low is not None:
        low, high = max(low, 0.0), min(high, 1.0)
    mean, *bounds = (percent(value, not share) for value in (found["mean"], low, high))
    return mean if low is None else f"{mean} ({' to '.join(bounds)})"
