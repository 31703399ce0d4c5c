"""The run directory: what it holds, and how it is begun, read and written.

`run.json` says what was asked of which model, `answers.parquet` has a row per trial
(`unswayed.audit.trials.SCHEMA`). While a run goes on, `parts/` holds one file per persona.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import logging
import platform
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.policy import GRID, PAIRS, check_endpoints, find_policy, outcome_of, policy_of
from unswayed.audit.trials import SCHEMA
from unswayed.core.errors import InputError
from unswayed.core.files import file_hash, require_folder
from unswayed.data.items import Item, items_hash
from unswayed.data.personas import Persona, personas_hash
from unswayed.memory.registry import find_mechanism
from unswayed.models.embedded import model_label
from unswayed.models.load import public_settings

log = logging.getLogger(__name__)

PACKAGES = ("unswayed", "lm-eval", "transformers", "torch", "peft", "numpy", "scipy", "pyarrow")


class Identity(TypedDict):
    """What makes two audits the same run; hashes are SHA-256."""

    model: str
    adapter: str | None
    items: str  # hash
    personas: str  # hash
    conditions: list[str]
    memory: str
    memory_style: str
    memory_settings: dict[str, Any]  # the mechanism's own
    scoring: str
    rule: str | None  # of generated answers None
    orders: int  # of the options, by letters
    seed: int
    dtype: str
    max_gen_toks: int | None  # of generated answers only
    backend: str
    model_args: dict[str, Any]
    gen_kwargs: dict[str, Any]


class Floor(TypedDict):
    """What changes where trials are asked again, one at a time (`unswayed.audit.floor`)."""

    n: int  # trials
    changed: int  # answers
    largest: float  # difference of an option's log-probability, nats
    rule: str  # by which answers were chosen
    condition: str  # of the trials


class Endpoint(TypedDict):
    """A difference between users by which a run is judged."""

    test: str
    difference: str  # gap, or grid: levels of attributes, cells and two-way contrasts
    outcome: str
    margin: float  # a share


class Run(TypedDict, total=False):
    """`run.json`; readers may rely on RUN_KEYS."""

    schema_version: int
    status: str  # running or complete
    identity: Identity
    arguments: dict[str, Any]  # of AuditArguments
    hashes: dict[str, str]  # of items and personas; once complete, of answers and prompts
    model: dict[str, Any] | None  # `model_info`; None before it is loaded
    versions: dict[str, str]  # of Python and PACKAGES
    notes: list[str]  # sentences for a reader
    started: str  # ISO 8601, UTC
    finished: str | None
    seconds: float  # spent scoring
    n_items: int
    n_pairs: int  # persona pairs
    n_cells: int  # of the grid
    n_trials: int | None
    floor: Floor | None  # None until it is measured, and where it cannot be
    policy: dict[str, Any]  # `unswayed.audit.policy.Policy`, declared before the first question
    endpoints: list[Endpoint]  # primary, likewise


RUN_KEYS = Run.__annotations__.keys() - {
    "schema_version", "n_cells", "floor", "policy", "endpoints",
}  # fmt: skip


def read_run(out: Path) -> Run:
    """`run.json` of a run directory.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    path = out / "run.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{out} is not a run directory: it has no run.json") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error})") from None
    if not isinstance(run, dict):
        missing = "it is no JSON object"
    elif lacking := RUN_KEYS - run.keys() or Identity.__annotations__.keys() - run["identity"]:
        missing = f"it lacks {min(lacking)}"
    else:
        return run
    raise InputError(f"{path} is no record of an audit: {missing}. Audit again into a new --out")


def read_answers(out: Path) -> pa.Table:
    """`answers.parquet` of a complete run, checked against `run.json` and the schema.

    Raises:
        InputError: missing, damaged or not what the run wrote.
    """
    path = out / "answers.parquet"
    run = read_run(out)
    if run["status"] != "complete":
        raise InputError(f"{out} is not complete: run the same audit again with --resume")
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing, though the run was complete; audit again") from None
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is damaged or half-written ({str(error).splitlines()[0]}): move {out} away "
            "and audit again"
        ) from None
    if missing := [name for name in SCHEMA.names if name not in table.column_names]:
        raise InputError(f"{path} lacks the column {missing[0]}")
    if table.num_rows != run["n_trials"]:
        raise InputError(f"{path} has {table.num_rows} rows, the run wrote {run['n_trials']}")
    written = file_hash(path)
    if run["hashes"].get("answers", written) != written:  # earlier runs wrote no hash
        raise InputError(
            f"{path} is not the file that {out / 'run.json'} speaks of: it was changed, or comes "
            "from another run. Put both from one audit together, or audit again"
        )
    return table


def identity_of(arguments: AuditArguments, items: list[Item], personas: list[Persona]) -> Identity:
    """What the run of these arguments is known by."""
    return {
        "model": arguments.model,
        "adapter": arguments.adapter,
        "items": items_hash(items),
        "personas": personas_hash(personas),
        "conditions": list(arguments.conditions),
        "memory": arguments.memory,
        "memory_style": arguments.memory_style,
        "memory_settings": find_mechanism(arguments.memory).settings(arguments),
        "scoring": arguments.scoring,
        "rule": arguments.rule,
        "orders": arguments.orders,
        "seed": arguments.seed,
        "dtype": arguments.dtype,
        "max_gen_toks": arguments.max_gen_toks if arguments.scoring == "generate" else None,
        "backend": arguments.backend,
        "model_args": public_settings(arguments.model_args),
        "gen_kwargs": dict(arguments.gen_kwargs),
    }


def _declared(
    arguments: AuditArguments, items: list[Item], personas: list[Persona]
) -> dict[str, Any]:
    """The policy of a new run and the endpoints that it makes primary.

    Raises:
        InputError: the policy has a fault, or declares what the run will not have.
    """
    cells = any(persona.pair_id is None for persona in personas)
    conditions = {GRID if persona.pair_id is None else persona.condition for persona in personas}
    policy = find_policy(arguments.policy or (GRID if cells else PAIRS))
    tests = list(dict.fromkeys(item.test for item in items))
    outcome = outcome_of(policy, arguments.scoring)
    if arguments.policy is not None:
        check_endpoints(policy, tests, sorted(conditions))
    compared = "grid" if cells else "gap" if {"advantaged", "disadvantaged"} <= conditions else None
    return {
        "policy": dataclasses.asdict(policy),
        "endpoints": [
            {
                "test": test,
                "difference": compared,
                "outcome": outcome,
                "margin": policy.margin(compared),
            }
            for test in (policy.tests or tests)
            if compared
        ],
    }


def open_run(
    out: Path, arguments: AuditArguments, items: list[Item], personas: list[Persona]
) -> Run:
    """A new run's record, or that of the same run begun earlier. A new one is not written before
    the model is there: who mistypes its name may use the same folder again."""
    identity = identity_of(arguments, items, personas)
    declared = _declared(arguments, items, personas)
    require_folder(out)
    if (out / "run.json").exists():
        run = read_run(out)
        other = [name for name in identity if run["identity"][name] != identity[name]]
        if other:
            raise InputError(
                f"{out} holds a different run (its {' and '.join(other)} differ): choose another "
                "--out or remove it"
            )
        if arguments.policy is not None:
            policy_of(run, arguments.policy, out)
        if not arguments.resume:
            raise InputError(
                f"{out} already holds this run ({run['status']}): add --resume to go on with it, "
                "or choose another --out"
            )
        return run
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out} is not empty and no run: choose another folder")
    return {
        "schema_version": 2,
        "status": "running",
        "identity": identity,
        "arguments": {
            key: str(value) if isinstance(value, Path) else value
            for key, value in dataclasses.asdict(arguments).items()
            if key not in ("out", "resume")
        }
        | {"model_args": identity["model_args"]},
        "hashes": {"items": identity["items"], "personas": identity["personas"]},
        "model": None,
        "versions": versions(),
        "notes": [],
        "started": now(),
        "finished": None,
        "seconds": 0.0,
        "n_items": len(items),
        "n_pairs": len({persona.pair_id for persona in personas} - {None}),
        "n_cells": sum(persona.pair_id is None for persona in personas),
        "n_trials": None,
        "floor": None,
        **declared,
    }


def versions() -> dict[str, str]:
    """Of Python and PACKAGES."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in PACKAGES
    }


def changes(before: dict, now: dict) -> str:
    keys = ("revision", "adapter_hash", "other_hashes", "dtype", "device")
    then = {key: before.get(key, now[key]) for key in keys}  # earlier runs lack some
    return ", ".join(f"{k} {then[k]} -> {now[k]}" for k in keys if then[k] != now[k])


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def read_part(part: Path, n_rows: int) -> list[dict] | None:
    """Rows of a finished part; None if it is missing or not whole."""
    if not part.exists():
        return None
    try:
        rows = pq.read_table(part, schema=SCHEMA).to_pylist()
    except (OSError, pa.ArrowException):
        rows = []
    if len(rows) == n_rows:
        return rows
    log.warning("%s is damaged and will be scored again", part)
    return None


def model_name(run: Run, summary: dict[str, Any]) -> str:
    """The model, with its adapter if there is one; free of paths."""
    adapter = run["identity"]["adapter"]
    return summary["model"] + (f" + {model_label(adapter)}" if adapter else "")
