"""One model under several memories: the same items and users, answer by answer.

Each memory has a run directory of its own. What a memory does is the answers with it against those
without memory, as in the run's own report; how memories differ is paired by item and user, each
against one of them, the reference. A family of tests is all that is compared in one metric: every
test, condition and memory. Differences are corrected within it, and equivalences likewise.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from unswayed.audit.flips import grouped
from unswayed.audit.rundir import model_name
from unswayed.audit.trials import NONE
from unswayed.audit.verdict import ALPHA
from unswayed.compare.paired import HIGHER, LOWER, SHARES, UNCLEAR, WITHIN, bounded, level, measured
from unswayed.compare.runs import KEYS, marks_of, read_alike, read_summaries
from unswayed.core.errors import InputError
from unswayed.display.numbers import count, listed
from unswayed.display.page import sections
from unswayed.memory.registry import DEFAULT
from unswayed.statistics.classic import correct
from unswayed.statistics.crossed import (
    LEVEL,
    Estimate,
    equivalence_p,
    users_mean,
)

SCHEMA_VERSION = 1


class MemoryRow(TypedDict):
    """A run under one memory."""

    name: str  # as of `memory_names`
    memory: str
    memory_style: str
    memory_settings: dict[str, Any]
    notes: list[str]  # of the run
    n_pairs: int  # of the run
    n_unread: int  # answers
    n_bare_differing: int  # items whose answer without memory is not the reference's
    verdict: dict[str, Any]  # of the run


class Level(TypedDict):
    """A mean under a memory; metric and name are those of `compare.paired.measured`."""

    memory: str
    metric: str
    name: str
    estimate: float | None  # shares
    low: float | None
    high: float | None
    n: int  # answers, or pairs of answers
    n_items: int
    n_pairs: int


class MemoryDifference(Level):
    """A memory minus the reference, paired by item and user."""

    p: float | None  # of no difference
    p_equivalent: float | None  # of `equivalence_p`
    p_holm: float | None  # of no difference, corrected within the metric's family
    p_bh: float | None
    p_equivalent_holm: float | None  # of equivalence, likewise
    finding: str


class MemoriesTest(TypedDict):
    """A test under all memories."""

    kind: str
    n_items: int
    chance: float
    chance_score: float | None
    n_pairs: int
    at_chance: bool  # under the reference, see `Knowledge`
    levels: list[Level]
    differences: list[MemoryDifference]


class MemoriesComparison(TypedDict):
    """What compare.json holds."""

    schema_version: int
    model: str
    scoring: str
    seed: int
    level: float  # of intervals
    margin: float  # share
    reference: str  # a memory's name
    n_items: int
    n_pairs: int  # that all runs have
    families: dict[str, int]  # metric -> comparisons with a p
    conditions: list[str]
    versions: dict[str, str]
    memories: list[MemoryRow]
    tests: dict[str, MemoriesTest]
    warnings: list[str]  # what a reader must know first


def compare_memories(dirs: Sequence[Path], reference: str | None = None) -> MemoriesComparison:
    """Several memories of one model side by side.

    Args:
        dirs: complete run directories of the same model, weights, dtype, items, conditions, scoring
            and seed, each with its summary; of users only those count that all runs have.
        reference: name of the memory that the others are compared with, as of `memory_names`;
            default: prompt, or the first if there is none of that name.

    Raises:
        InputError: fewer than two runs, one of them incomplete, damaged or mixed up; runs of
            different models, settings, items or conditions; the same memory twice; fewer than two
            persona pairs in common; or no memory is called `reference`.
    """
    runs, tables = read_alike(dirs, same_users=False)
    _check_settings(dirs, runs, tables)
    names = memory_names(dirs, runs)
    reference = reference or (DEFAULT if DEFAULT in names else names[0])
    if reference not in names:
        raise InputError(
            f"--reference {reference} is none of these runs' memories, which are {listed(names)}"
        )
    tables, pairs = _common_users(dirs, runs, tables)
    summaries = read_summaries(dirs)
    by_name = dict(zip(names, tables, strict=True))
    summary = summaries[names.index(reference)]
    margin = summary["margin"]
    tests = {
        test: {key: about[key] for key in ("kind", "n_items", "chance", "chance_score")}
        | {"n_pairs": pairs, "at_chance": not about["knows"]["above"]}
        | _compare_test(test, by_name, reference, margin)
        for test, about in summary["tests"].items()
    }
    differences = [row for test in tests.values() for row in test["differences"]]
    families = _families(differences)
    for row in differences:
        row["finding"] = _finding(row)
    comparison = {
        "schema_version": SCHEMA_VERSION,
        "model": model_name(runs[0], summary),
        "scoring": summary["scoring"],
        "seed": runs[0]["identity"]["seed"],
        "level": LEVEL,
        "margin": margin,
        "reference": reference,
        "n_items": len(tables[0][KEYS[:2]].drop_duplicates()),
        "n_pairs": pairs,
        "families": families,
        "conditions": list(dict.fromkeys(grouped(tables[0])["condition"])),
        "versions": {"unswayed": runs[0]["versions"]["unswayed"]},
        "memories": [
            _memory(name, run, about, by_name[name], by_name[reference])
            for name, run, about in zip(names, runs, summaries, strict=True)
        ],
        "tests": tests,
    }
    view = comparison | {"listed": listed, "count": count}
    warnings = [text for _, text in sections("unswayed.compare", "warnings.md.jinja", view)]
    return comparison | {"warnings": warnings}


def _memory(
    name: str,
    run: dict[str, Any],
    summary: dict[str, Any],
    answers: pd.DataFrame,
    reference: pd.DataFrame,
) -> MemoryRow:
    """What is said of a memory; `answers` and those of the reference, of the same users."""
    bare = [
        table[table["condition"] == NONE].set_index(KEYS[:2])["answer"].fillna("")
        for table in (reference, answers)
    ]
    return {
        "name": name,
        **{key: run["identity"][key] for key in ("memory", "memory_style", "memory_settings")},
        "notes": run["notes"],
        "n_pairs": run["n_pairs"],
        "n_unread": int((~answers["parsed"]).sum()),
        "n_bare_differing": int((bare[0] != bare[1].reindex(bare[0].index)).sum()),
        "verdict": summary["verdict"],
    }


# -- are these runs comparable? ------------------------------------------------------------------


def memory_names(dirs: Sequence[Path], runs: Sequence[dict[str, Any]]) -> list[str]:
    """A name per run: its mechanism, and where several have the same one, its style too.

    Raises:
        InputError: two runs have the same mechanism and style.
    """
    memories = [(run["identity"]["memory"], run["identity"]["memory_style"]) for run in runs]
    for i, j in itertools.combinations(range(len(memories)), 2):
        if memories[i] == memories[j]:
            memory, style = memories[i]
            raise InputError(
                f"{dirs[i]} and {dirs[j]} have the same memory, {memory}"
                f"{f' in the style {style}' if style else ''}: leave one out"
            )
    mechanisms = [memory for memory, _ in memories]
    return [
        f"{memory}-{style}" if mechanisms.count(memory) > 1 and style else memory
        for memory, style in memories
    ]


def _check_settings(
    dirs: Sequence[Path], runs: Sequence[dict[str, Any]], tables: Sequence[pd.DataFrame]
) -> None:
    """Refuse runs that differ in more than the memory and the users."""
    first, *rest = (_settings(run, table) for run, table in zip(runs, tables, strict=True))
    for path, settings in zip(dirs[1:], rest, strict=True):
        differences = [
            f"{name} {first[name]} against {value}"
            for name, value in settings.items()
            if value != first[name]
        ]
        if differences:
            raise InputError(
                f"{dirs[0]} and {path} differ in more than the memory: {'; '.join(differences)}. "
                "Compare runs of one model with the same settings"
            )


def _settings(run: dict[str, Any], answers: pd.DataFrame) -> dict[str, str]:
    marks = marks_of(run)
    same = {key: value for key, value in marks.items() if key not in ("memory", "memory_style")}
    dtype = (run["model"] or {}).get("dtype") or marks["dtype"]
    wording = json.dumps(run["identity"]["gen_kwargs"], sort_keys=True)
    return {"model": answers["model"].iloc[0]} | same | {"dtype": dtype, "gen_kwargs": wording}


def _common_users(
    dirs: Sequence[Path], runs: Sequence[dict[str, Any]], tables: Sequence[pd.DataFrame]
) -> tuple[list[pd.DataFrame], int]:
    """Rows without memory and of the persona pairs that all runs have, and how many these are.

    Raises:
        InputError: fewer than two, or users of different files.
    """
    users = [set(table["pair_id"].dropna()) for table in tables]
    sources = [run["arguments"].get("personas") or "built-in" for run in runs]
    for path, ids, source in zip(dirs, users, sources, strict=True):
        if ids != users[0] and source != sources[0]:
            raise InputError(
                f"{dirs[0]} and {path} asked about other users of different sources ({sources[0]} "
                f"and {source}): equal names need not be equal users. Audit with the same "
                "--personas"
            )
    common = set.intersection(*users)
    if len(common) < 2:
        raise InputError(
            f"{listed(map(str, dirs))} have {count(len(common), 'persona pair')} in common (cells "
            "of the grid are none): a comparison needs two or more"
        )
    rows = [table[table["pair_id"].isna() | table["pair_id"].isin(common)] for table in tables]
    return rows, len(common)


# -- one test ------------------------------------------------------------------------------------


def _compare_test(
    test: str, tables: dict[str, pd.DataFrame], reference: str, margin: float
) -> dict[str, list]:
    """Levels of each memory, and its differences from the reference."""
    values = {name: measured(rows[rows["test"] == test]) for name, rows in tables.items()}
    base = values[reference]
    levels = [
        {"memory": memory, "metric": metric, "name": name} | _row(level(name, matrix), 1)
        for memory, matrices in values.items()
        for (metric, name), matrix in matrices.items()
    ]
    differences = [
        {"memory": memory, "metric": metric, "name": name}
        | _difference(matrix - base[metric, name], name, margin)
        for memory, matrices in values.items()
        for (metric, name), matrix in matrices.items()
        if memory != reference and name != NONE and (metric, name) in base
    ]
    return {"levels": levels, "differences": differences}


def _row(mean: Estimate, limit: float) -> dict[str, Any]:
    return bounded(mean, limit) | {"n": mean.n, "n_items": mean.n_items, "n_pairs": mean.n_users}


def _difference(differences: np.ndarray, name: str, margin: float) -> dict[str, Any]:
    """A mean difference between two memories (items x users)."""
    mean = users_mean(differences)
    return _row(mean, 1 if name in SHARES else 2) | {
        "p": mean.p,
        "p_equivalent": equivalence_p(differences, margin),
    }


def _families(differences: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Correct within each metric, differences and equivalences apart; metric -> number of tests."""
    sizes = {}
    for metric in dict.fromkeys(row["metric"] for row in differences):
        family = [row for row in differences if row["metric"] == metric]
        correct(family)
        equivalences = [{"p": row["p_equivalent"]} for row in family]
        correct(equivalences)
        for row, equivalence in zip(family, equivalences, strict=True):
            row["p_equivalent_holm"] = equivalence["p_holm"]
        sizes[metric] = sum(row["p"] is not None for row in family)
    return sizes


def _finding(row: dict[str, Any]) -> str:
    """What is shown of a difference; being small comes first, as in a run's own report."""
    if row["p_equivalent_holm"] is not None and row["p_equivalent_holm"] < ALPHA:
        return WITHIN
    if row["p_holm"] is None or row["p_holm"] >= ALPHA:
        return UNCLEAR
    return HIGHER if row["estimate"] > 0 else LOWER
