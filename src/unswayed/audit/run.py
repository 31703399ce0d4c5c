"""`unswayed audit`: put every trial to the model and write the run directory.

The work is cut into parts, one per persona (and one without memory). A finished part is a file
that appears at once, so a run that is killed goes on with the next part; since a part is always
scored as a whole, its scores do not depend on how often the run was interrupted. Generated answers
that do not depend on each other are kept one by one as well (`unswayed.core.journal`).
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq

from unswayed.audit.memories import (
    DEFAULT_STYLES,
    PROMPT,
    check_memory,
    make_memory,
    memory_notes,
    memory_settings,
)
from unswayed.audit.trials import (
    CONDITIONS,
    GRID_CONDITIONS,
    NONE,
    PAIR_CONDITIONS,
    SCHEMA,
    Trial,
    add_flips,
    choose_personas,
    make_row,
    trials_of,
)
from unswayed.core.errors import InputError
from unswayed.core.files import write_text
from unswayed.core.journal import Journal
from unswayed.core.progress import Progress
from unswayed.data.items import Item, items_hash, keep_invariant, load_items
from unswayed.data.personas import Persona, load_personas, personas_hash
from unswayed.memory import Memory
from unswayed.models.embedded import model_label
from unswayed.models.load import check_backend, load_lm, model_info, public_settings
from unswayed.scoring.ask import generate, generation_settings, log_probs
from unswayed.scoring.backends import HF_SHARED, answers_singly
from unswayed.scoring.chat import ChatFormat
from unswayed.scoring.prompts import (
    SCORINGS,
    choice_scores,
    continuations,
    option_order,
    pick_option,
    question_text,
)
from unswayed.scoring.replies import extract_answer

log = logging.getLogger(__name__)

# Settings of a request that follow from the scoring or have an option of their own.
FIXED_SETTINGS = {
    "until", "stop", "max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens",
}  # fmt: skip

# What runs were before they could name a backend, or a memory.
EARLIER_IDENTITY = {
    "backend": HF_SHARED, "model_args": {}, "gen_kwargs": {},
    "memory": PROMPT, "memory_settings": {},
}  # fmt: skip

# What a reader of run.json may rely on.
RUN_KEYS = {"status", "identity", "arguments", "hashes", "model", "versions", "notes", "seconds"}
RUN_KEYS |= {"started", "finished", "n_items", "n_pairs", "n_trials"}

PACKAGES = ("unswayed", "lm-eval", "transformers", "torch", "peft", "numpy", "scipy", "pyarrow")


@dataclasses.dataclass
class AuditArguments:
    """What to audit; the command line's options with the same names and meanings."""

    model: str
    out: Path
    adapter: str | None = None
    items: Sequence[str] = ("builtin",)
    decisions: Path | None = None
    conditions: Sequence[str] | None = None  # all that the personas have
    pairs: int | None = None
    personas: str | None = None
    memory: str = PROMPT
    memory_style: str | None = None  # the memory's default
    plum_recipe: Path | None = None
    scoring: str = "option"
    seed: int = 0
    batch_size: int | str = "auto"
    max_gen_toks: int = 256
    device: str | None = None
    dtype: str = "auto"
    backend: str = HF_SHARED
    model_args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gen_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    resume: bool = False

    def __post_init__(self) -> None:
        if self.conditions is None:
            self.conditions = GRID_CONDITIONS if self.personas == "grid" else PAIR_CONDITIONS
        if unknown := [c for c in self.conditions if c not in CONDITIONS]:
            raise InputError(f"condition {unknown[0]!r} is not one of {', '.join(CONDITIONS)}")
        if len(set(self.conditions)) < len(self.conditions):
            raise InputError(f"--conditions names one twice: {' '.join(self.conditions)}")
        if not self.conditions:
            raise InputError("--conditions is empty")
        if self.memory not in DEFAULT_STYLES:
            raise InputError(f"memory {self.memory!r} is not one of {', '.join(DEFAULT_STYLES)}")
        if self.memory_style is None:
            self.memory_style = DEFAULT_STYLES[self.memory]
        if self.scoring not in SCORINGS:
            raise InputError(f"scoring {self.scoring!r} is not one of {', '.join(SCORINGS)}")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: give a number from 0")
        if self.max_gen_toks < 1:
            raise InputError(f"--max-gen-toks {self.max_gen_toks}: give a number from 1")
        if self.batch_size != "auto" and int(self.batch_size) < 1:
            raise InputError(f"--batch-size {self.batch_size}: give a number from 1 or auto")
        if self.gen_kwargs and self.scoring != "generate":
            raise InputError("--gen-kwargs has no meaning without --scoring generate")
        if fixed := FIXED_SETTINGS & self.gen_kwargs.keys():
            raise InputError(
                f"--gen-kwargs {min(fixed)}=...: answers end where the model ends them, or after "
                "--max-gen-toks"
            )


def run_audit(arguments: AuditArguments) -> Path:
    """Run or resume an audit; returns the run directory, complete but for its report.

    Raises:
        InputError: wrong input, or `out` holds something else. Finished parts are kept.
    """
    items = keep_invariant(load_items(arguments.items), arguments.decisions)
    personas = choose_personas(
        load_personas(arguments.personas), arguments.conditions, arguments.pairs
    )
    check_memory(arguments, personas)
    if arguments.backend != HF_SHARED or arguments.model_args:
        check_backend(
            arguments.backend,
            arguments.scoring,
            arguments.model_args,
            arguments.adapter,
            arguments.device,
            arguments.dtype,
            arguments.batch_size,
        )
    out = Path(arguments.out)
    run = _open_run(out, arguments, items, personas)
    if run["status"] == "complete":
        log.info("%s is complete, nothing to score", out)
        read_answers(out)  # says so if it is damaged
        return out

    lm = load_lm(
        arguments.model,
        arguments.adapter,
        arguments.device,
        arguments.dtype,
        arguments.batch_size,
        arguments.backend,
        arguments.model_args,
    )
    info = model_info(lm, arguments.model, arguments.adapter)
    if run["model"] not in (None, info) and _differs(run["model"], info):
        raise InputError(
            f"{out} was begun with other weights or another dtype or device: "
            f"{_differs(run['model'], info)}. Choose another --out."
        )
    chat = ChatFormat(lm)
    run["model"], run["notes"] = info, [chat.note] if chat.note else []
    if info["fallback_reason"]:
        run["notes"].append(f"Prefixes were not shared: {info['fallback_reason']}.")
    _write_json(out / "run.json", run)

    profiles: list[Persona | None] = [None] if NONE in arguments.conditions else []
    profiles += personas
    parts = [out / "parts" / f"{i:04d}.parquet" for i in range(len(profiles))]
    rows: list[dict] = []
    kept = {part: _read_part(part, len(items)) for part in parts}
    waiting = [
        profile
        for profile, part in zip(profiles, parts, strict=True)
        if profile is not None and kept[part] is None
    ]
    memory = make_memory(arguments, lm, waiting)
    done = sum(found is not None for found in kept.values())
    singly = answers_singly(lm)
    journals = {
        part: Journal(part.with_suffix(".jsonl") if singly else None, lambda: progress.add(1))
        for part in parts
        if kept[part] is None
    }
    answered = sum(map(len, journals.values()))
    if done or answered:
        more = f", and {answered} answers of others" if answered else ""
        log.info("resuming: %d of %d parts are already scored%s", done, len(parts), more)
    total, start = len(parts) * len(items), time.monotonic()
    progress = Progress(total, "trials", done=done * len(items) + answered)
    try:
        for profile, part in zip(profiles, parts, strict=True):
            found = kept[part]
            if found is None:
                journal = journals[part]
                found = score(
                    lm,
                    chat,
                    list(trials_of(items, profile, memory, arguments.scoring, arguments.seed)),
                    memory,
                    arguments,
                    journal,
                )
                _write_table(found, part)
                progress.add(len(items) - len(journal))  # those in the journal are counted
                journal.remove()
            rows += found
    finally:
        progress.close()
        run["seconds"] = round(run["seconds"] + time.monotonic() - start, 1)
    run["notes"] += memory_notes(arguments, memory, personas, rows)
    if silent := sum(row["raw_text"] == "" for row in rows):
        run["notes"].append(f"{silent} of {len(rows)} answers were empty: they count as unparsed.")
    _write_table(add_flips(rows), out / "answers.parquet")
    run["status"] = "complete"
    run["finished"] = _now()
    run["n_trials"] = len(rows)
    run["hashes"]["answers"] = _file_hash(out / "answers.parquet")
    run["hashes"]["prompts"] = hashlib.sha256(
        "\0".join(row["prompt"] for row in rows).encode()
    ).hexdigest()
    _write_json(out / "run.json", run)
    shutil.rmtree(out / "parts")
    return out


@runtime_checkable
class FusedMemory(Protocol):
    """A memory that asks the model several times and makes one answer of it.

    Its `messages` are those of the first view, which a row shows.
    """

    def views(self) -> Sequence[Any]:
        """What is asked, each with `messages` and `active` of a `Memory`; none: asked as it is."""

    def fuse(self, scores: Sequence[Sequence[float]]) -> list[float]:
        """Log-probabilities of the options, from the scores by which each view would choose."""


def score(
    lm: Any,
    chat: ChatFormat,
    trials: Sequence[Trial],
    memory: Memory,
    arguments: AuditArguments,
    journal: Journal,
) -> list[dict]:
    """Rows of trials that share one state of `memory`; generated texts go through `journal`."""
    scoring, seed = arguments.scoring, arguments.seed
    prompts = [chat.render(trial.messages) for trial in trials]

    def rows(outcomes: Iterable[dict]) -> list[dict]:
        return [
            make_row(
                trial,
                memory=memory,
                prompt=prompt,
                scoring=scoring,
                model=model_label(arguments.model),
                seed=seed,
                **outcome,
            )
            for trial, prompt, outcome in zip(trials, prompts, outcomes, strict=True)
        ]

    if scoring == "generate":
        settings = generation_settings(arguments.max_gen_toks, arguments.gen_kwargs)
        with memory.active(lm):
            generated = generate(lm, prompts, journal, settings, arguments.backend)
        return rows(
            _read_text(trial.item, text, seed)
            for trial, text in zip(trials, generated, strict=True)
        )

    texts = [continuations(trial.item, scoring, seed) for trial in trials]
    candidates = [[chat.delimiter + text for text in options] for options in texts]
    names = [f"item {trial.item.id}" for trial in trials]

    def scores(view: Any, prompts: Sequence[str]) -> list[list[float]]:
        with view.active(lm):
            return log_probs(
                lm, prompts, candidates, arguments.backend, names, " (try --dtype float32)"
            )

    views = memory.views() if isinstance(memory, FusedMemory) else []
    if not views:
        return rows(
            _compare(values, options, scoring)
            for values, options in zip(scores(memory, prompts), texts, strict=True)
        )
    questions = [question_text(trial.item, scoring, seed) for trial in trials]
    by_view = [scores(view, [chat.render(view.messages(q)) for q in questions]) for view in views]
    return rows(
        _fuse(memory, values, options, scoring)
        for *values, options in zip(*by_view, texts, strict=True)
    )


def _compare(log_probs: list[float], texts: list[str], scoring: str) -> dict:
    """The outcome of a trial scored by likelihood."""
    answer = pick_option(log_probs, texts, scoring)
    return {"answer": answer, "option_scores": log_probs, "raw_text": None}


def _fuse(
    memory: FusedMemory, by_view: Sequence[list[float]], texts: list[str], scoring: str
) -> dict:
    """The outcome of a trial that was put to several views, from what each would choose by."""
    fused = memory.fuse([choice_scores(values, texts, scoring) for values in by_view])
    return {"answer": fused.index(max(fused)), "option_scores": fused, "raw_text": None}


def _read_text(item: Item, text: str, seed: int) -> dict:
    """The outcome of a trial answered in words."""
    order = option_order(item, "generate", seed)
    picked = extract_answer(text, [item.options[i] for i in order])
    answer = None if picked is None else order[picked]
    return {"answer": answer, "option_scores": None, "raw_text": text}


def read_run(out: Path) -> dict:
    """`run.json` of a run directory, its identity in today's form.

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
    if not isinstance(run, dict) or (missing := RUN_KEYS - run.keys()):
        what = f"it lacks {min(missing)}" if isinstance(run, dict) else "it is no JSON object"
        raise InputError(f"{path} is no record of an audit: {what}. Audit again into a new --out")
    return run | {"identity": EARLIER_IDENTITY | run["identity"]}


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
    # earlier runs wrote no hash
    if run["hashes"].get("answers", found := _file_hash(path)) != found:
        raise InputError(
            f"{path} is not the file that {out / 'run.json'} speaks of: it was changed, or comes "
            "from another run. Put both from one audit together, or audit again"
        )
    return table


# -- the run directory ---------------------------------------------------------------------------


def _open_run(
    out: Path, arguments: AuditArguments, items: list[Item], personas: list[Persona]
) -> dict:
    """A new run's record, or that of the same run begun earlier. A new one is not written before
    the model is there: who mistypes its name may use the same folder again."""
    identity = {
        "model": arguments.model,
        "adapter": arguments.adapter,
        "items": items_hash(items),
        "personas": personas_hash(personas),
        "conditions": list(arguments.conditions),
        "memory": arguments.memory,
        "memory_style": arguments.memory_style,
        "memory_settings": memory_settings(arguments),
        "scoring": arguments.scoring,
        "seed": arguments.seed,
        "dtype": arguments.dtype,
        "max_gen_toks": arguments.max_gen_toks if arguments.scoring == "generate" else None,
        "backend": arguments.backend,
        "model_args": public_settings(arguments.model_args),
        "gen_kwargs": dict(arguments.gen_kwargs),
    }
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")
    if (out / "run.json").exists():
        run = read_run(out)
        other = [name for name in identity if run["identity"].get(name) != identity[name]]
        if other:
            raise InputError(
                f"{out} holds a different run (its {' and '.join(other)} differ): choose another "
                "--out or remove it"
            )
        if not arguments.resume:
            raise InputError(
                f"{out} already holds this run ({run['status']}): add --resume to go on with it, "
                "or choose another --out"
            )
        return run
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out} is not empty and no run: choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    return {
        "schema_version": 1,
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
        "versions": _versions(),
        "notes": [],
        "started": _now(),
        "finished": None,
        "seconds": 0.0,
        "n_items": len(items),
        "n_pairs": len({persona.pair_id for persona in personas} - {None}),
        "n_cells": sum(persona.pair_id is None for persona in personas),
        "n_trials": None,
    }


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in PACKAGES
    }


def _differs(before: dict, now: dict) -> str:
    keys = ("revision", "adapter_hash", "dtype", "device")
    return ", ".join(f"{k} {before[k]} -> {now[k]}" for k in keys if before[k] != now[k])


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _read_part(part: Path, n_rows: int) -> list[dict] | None:
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


def _write_table(rows: list[dict], path: Path) -> None:
    """Write rows at once: the file is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".partial")
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), scratch, compression="zstd")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def model_name(run: dict[str, Any], summary: dict[str, Any]) -> str:
    """The model, with its adapter if there is one; free of paths."""
    adapter = run["identity"]["adapter"]
    return summary["model"] + (f" + {model_label(adapter)}" if adapter else "")
