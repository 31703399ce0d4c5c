"""One model under several memories: the same items and users, answer by answer.

Each memory has a run directory of its own. What a memory does is the answers with it against those
without memory, as in the run's own report; how memories differ is paired by item and user, each
against one of them, the reference.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unswayed.audit.flips import grouped
from unswayed.audit.rundir import model_name
from unswayed.audit.summary import ALPHA
from unswayed.audit.trials import NONE
from unswayed.compare.agreement import (
    KEYS,
    marks_of,
    read_summaries,
    require_alike,
)
from unswayed.compare.paired import HIGHER, LOWER, SHARES, UNCLEAR, WITHIN, bounded, level, measured
from unswayed.core.errors import InputError
from unswayed.display.numbers import count, listed
from unswayed.memory.registry import DEFAULT
from unswayed.statistics.classic import correct
from unswayed.statistics.crossed import (
    LEVEL,
    RESAMPLES,
    Estimate,
    crossed_mean,
    equivalence_p,
    permutation_p,
)

SCHEMA_VERSION = 1


def compare_memories(dirs: Sequence[Path], reference: str | None = None) -> dict[str, Any]:
    """Several memories of one model side by side.

    Args:
        dirs: complete run directories of the same model, weights, dtype, items, conditions, scoring
            and seed, each with its summary; of users only those count that all runs have.
        reference: name of the memory that the others are compared with, as of `memory_names`;
            default: prompt, or the first if there is none of that name.

    Returns:
        {"schema_version", "model", "scoring", "seed", "level", "margin", "resamples", "reference",
        "n_items", "n_pairs", "n_comparisons", "conditions", "warnings", "versions",
        "memories": [{"name", "memory", "memory_style", "memory_settings", "notes" (of its run),
            "n_pairs" (of its run), "n_unread", "n_bare_differing", "verdict" (of its run)}],
        "tests": {test: {"kind", "n_items", "n_pairs", "chance", "chance_score", "at_chance",
            "levels": [{"memory", "metric", "name", "estimate", "low", "high", "n", "n_items",
                "n_pairs"}],
            "differences": [{"memory", "metric", "name", "estimate", "low", "high", "p", "p_holm",
                "p_bh", "p_equivalent", "finding", "n", "n_items", "n_pairs"}]}}}.
        Metrics and names are those of `unswayed.compare.paired.measured`. Differences are the
        memory minus the reference; their p-values are of `permutation_p`, and Holm's and
        Benjamini & Hochberg's corrections run over all of them. "n_bare_differing" counts
        items whose answer without memory is not the reference's.

    Raises:
        InputError: fewer than two runs, one of them incomplete, damaged or mixed up; runs of
            different models, settings, items or conditions; the same memory twice; fewer than two
            persona pairs in common; or no memory is called `reference`.
    """
    runs, tables = require_alike(dirs, same_users=False)
    _check_settings(dirs, runs, tables)
    names = memory_names(dirs, runs)
    if reference is None:
        reference = DEFAULT if DEFAULT in names else names[0]
    if reference not in names:
        raise InputError(
            f"--reference {reference} is none of these runs' memories, which are {listed(names)}"
        )
    tables, pairs = _common_users(dirs, runs, tables)
    summaries = read_summaries(dirs)
    by_name = dict(zip(names, tables, strict=True))
    bare = {name: _bare_differing(by_name[reference], table) for name, table in by_name.items()}
    summary = summaries[names.index(reference)]
    margin, seed = summary["margin"], runs[0]["identity"]["seed"]
    tests = {
        test: {key: about[key] for key in ("kind", "n_items", "chance", "chance_score")}
        | {"n_pairs": pairs, "at_chance": about["at_chance"]}
        | _compare_test(
            test,
            {name: table[table["test"] == test] for name, table in by_name.items()},
            reference,
            margin,
            seed,
        )
        for test, about in summary["tests"].items()
    }
    differences = [row for test in tests.values() for row in test["differences"]]
    correct(differences)
    for row in differences:
        row["finding"] = _finding(row)
    found = {
        "schema_version": SCHEMA_VERSION,
        "model": model_name(runs[0], summary),
        "scoring": summary["scoring"],
        "seed": seed,
        "level": LEVEL,
        "margin": margin,
        "resamples": RESAMPLES,
        "reference": reference,
        "n_items": len(tables[0][KEYS[:2]].drop_duplicates()),
        "n_pairs": pairs,
        "n_comparisons": sum(row["p"] is not None for row in differences),
        "conditions": list(dict.fromkeys(grouped(tables[0])["condition"])),
        "versions": {"unswayed": runs[0]["versions"]["unswayed"]},
        "memories": [
            {
                "name": name,
                **{key: run["identity"][key] for key in ("memory", "memory_style")},
                "memory_settings": run["identity"]["memory_settings"],
                "notes": run["notes"],
                "n_pairs": run["n_pairs"],
                "n_unread": int((~by_name[name]["parsed"]).sum()),
                "n_bare_differing": bare[name],
                "verdict": own["verdict"],
            }
            for name, run, own in zip(names, runs, summaries, strict=True)
        ],
        "tests": tests,
    }
    return found | {"warnings": _warnings(found)}


# -- are these runs comparable? ------------------------------------------------------------------


def memory_names(dirs: Sequence[Path], runs: Sequence[dict[str, Any]]) -> list[str]:
    """A name per run: its mechanism, and where several have the same one, its style too.

    Raises:
        InputError: two runs have the same mechanism and style.
    """
    known = [(run["identity"]["memory"], run["identity"]["memory_style"]) for run in runs]
    for i, j in itertools.combinations(range(len(known)), 2):
        if known[i] == known[j]:
            memory, style = known[i]
            raise InputError(
                f"{dirs[i]} and {dirs[j]} have the same memory, {memory}"
                f"{f' in the style {style}' if style else ''}: leave one out"
            )
    mechanisms = [memory for memory, _ in known]
    return [
        f"{memory}-{style}" if mechanisms.count(memory) > 1 and style else memory
        for memory, style in known
    ]


def _check_settings(
    dirs: Sequence[Path], runs: Sequence[dict[str, Any]], tables: Sequence[pd.DataFrame]
) -> None:
    """Refuse runs that differ in more than the memory and the users."""
    settings = [_settings(run, table) for run, table in zip(runs, tables, strict=True)]
    for path, own in zip(dirs[1:], settings[1:], strict=True):
        found = [
            f"{name} {settings[0][name]} against {value}"
            for name, value in own.items()
            if value != settings[0][name]
        ]
        if found:
            raise InputError(
                f"{dirs[0]} and {path} differ in more than the memory: {'; '.join(found)}. "
                "Compare runs of one model with the same settings"
            )


def _settings(run: dict[str, Any], answers: pd.DataFrame) -> dict[str, str]:
    marks = marks_of(run)
    known = {key: value for key, value in marks.items() if key not in ("memory", "memory_style")}
    dtype = (run["model"] or {}).get("dtype") or marks["dtype"]
    wording = json.dumps(run["identity"]["gen_kwargs"], sort_keys=True)
    return {"model": answers["model"].iloc[0]} | known | {"dtype": dtype, "gen_kwargs": wording}


def _common_users(
    dirs: Sequence[Path], runs: Sequence[dict[str, Any]], tables: Sequence[pd.DataFrame]
) -> tuple[list[pd.DataFrame], int]:
    """Rows without memory and of the persona pairs that all runs have, and how many these are.

    Raises:
        InputError: fewer than two, or users of different files.
    """
    users = [set(table["pair_id"].dropna()) for table in tables]
    for path, run, own in zip(dirs[1:], runs[1:], users[1:], strict=True):
        sources = [one["arguments"].get("personas") for one in (runs[0], run)]
        if own != users[0] and sources[0] != sources[1]:
            shown = [source or "built-in" for source in sources]
            raise InputError(
                f"{dirs[0]} and {path} asked about other users of different sources ({shown[0]} "
                f"and {shown[1]}): equal names need not be equal users. Audit with the same "
                "--personas"
            )
    common = set.intersection(*users)
    if len(common) < 2:
        raise InputError(
            f"{listed(map(str, dirs))} have {count(len(common), 'persona pair')} in common (cells "
            "of the grid are none): a comparison needs two or more"
        )
    return [
        table[table["pair_id"].isna() | table["pair_id"].isin(common)] for table in tables
    ], len(common)


def _bare_differing(reference: pd.DataFrame, own: pd.DataFrame) -> int:
    """Number of items that two runs answer differently without memory."""
    answers = [
        table[table["condition"] == NONE].set_index(KEYS[:2])["answer"].fillna("")
        for table in (reference, own)
    ]
    return int((answers[0] != answers[1].reindex(answers[0].index)).sum())


# -- one test ------------------------------------------------------------------------------------


def _compare_test(
    test: str, tables: dict[str, pd.DataFrame], reference: str, margin: float, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """Levels of each memory, and its differences from the reference."""
    values = {name: measured(rows) for name, rows in tables.items()}
    base = values[reference]
    levels = [
        {"memory": memory, "metric": metric, "name": name} | _row(level(name, matrix), 1)
        for memory, own in values.items()
        for (metric, name), matrix in own.items()
    ]
    differences = [
        {"memory": memory, "metric": metric, "name": name}
        | _difference(matrix - base[metric, name], [test, metric, name], name, margin, seed)
        for memory, own in values.items()
        for (metric, name), matrix in own.items()
        if memory != reference and name != NONE and (metric, name) in base
    ]
    return {"levels": levels, "differences": differences}


def _row(found: Estimate, limit: float) -> dict[str, Any]:
    return bounded(found, limit) | {
        "n": found.n,
        "n_items": found.n_items,
        "n_pairs": found.n_users,
    }


def _difference(
    differences: np.ndarray, key: Sequence[str], name: str, margin: float, seed: int
) -> dict[str, Any]:
    """A mean difference between two memories (items x users).

    The permutations depend on what is compared, not on which runs there are.
    """
    found = crossed_mean(differences)
    rng = np.random.default_rng([seed, *"\0".join(key).encode()])
    return _row(found, 1 if name in SHARES else 2) | {
        "p": permutation_p(differences, rng),
        "p_equivalent": equivalence_p(found, margin),
    }


def _finding(row: dict[str, Any]) -> str:
    """What is shown of a difference; being small comes first, as in a run's own report."""
    if row["p_equivalent"] is not None and row["p_equivalent"] < ALPHA:
        return WITHIN
    if row["p_holm"] is None or row["p_holm"] >= ALPHA:
        return UNCLEAR
    return HIGHER if row["estimate"] > 0 else LOWER


# -- in words ------------------------------------------------------------------------------------


def _warnings(found: dict[str, Any]) -> list[str]:
    """What a reader must know first."""
    memories, said = found["memories"], []
    if any(memory["n_pairs"] != found["n_pairs"] for memory in memories):
        shown = listed(f"{memory['n_pairs']} under {memory['name']}" for memory in memories)
        said.append(
            f"The runs asked about different numbers of persona pairs ({shown}): only the "
            f"{found['n_pairs']} that all of them have are compared. Notes and verdicts of the "
            "runs speak of all of theirs."
        )
    said += [
        f"Without memory, the runs of {memory['name']} and {found['reference']} differ in "
        f"{memory['n_bare_differing']} of {count(found['n_items'], 'answer')}, though model and "
        "prompts should be the same. Flips are counted against each run's own answers, and what "
        "differs between these two may not be the memory's doing."
        for memory in memories
        if memory["n_bare_differing"]
    ]
    for name, test in found["tests"].items():
        if any(test["at_chance"].values()):
            said.append(
                f"Without memory the model cannot be distinguished from chance on {name}: how its "
                "accuracy and its gap differ between memories means nothing there, and flips may "
                "only show how unsure its guesses are."
            )
    said += [
        f"{count(memory['n_unread'], 'answer')} under {memory['name']} could not be read; they "
        "count as wrong and not as flips."
        for memory in memories
        if memory["n_unread"]
    ]
    return said
