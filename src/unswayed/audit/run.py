"""`unswayed audit`: put every trial to the model and write the run directory.

The work is cut into parts, one per persona (and one without memory). A finished part is a file
that appears at once, so a run that is killed goes on with the next part; since a part is always
scored as a whole, its scores do not depend on how often the run was interrupted. Generated answers
that do not depend on each other are kept one by one as well (`unswayed.core.journal`).
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.rundir import (
    Run,
    changes,
    now,
    open_run,
    read_answers,
    read_part,
)
from unswayed.audit.trials import (
    NONE,
    SCHEMA,
    Trial,
    add_flips,
    choose_personas,
    make_row,
    trials_of,
)
from unswayed.core.errors import InputError
from unswayed.core.files import file_hash, write_json, write_table
from unswayed.core.journal import Journal
from unswayed.core.progress import Progress
from unswayed.data.items import Item, keep_invariant, load_items
from unswayed.data.personas import Persona, load_personas
from unswayed.memory import FusedMemory, Memory
from unswayed.memory.registry import check_memory, find_mechanism
from unswayed.models.embedded import model_label
from unswayed.models.load import check_backend, load_lm, model_info
from unswayed.scoring.ask import generate, generation_settings, log_probs
from unswayed.scoring.backends import HF_SHARED, answers_singly
from unswayed.scoring.chat import ChatFormat
from unswayed.scoring.prompts import (
    choice_scores,
    continuations,
    option_order,
    pick_option,
    question_text,
)
from unswayed.scoring.replies import extract_answer

log = logging.getLogger(__name__)


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
    run = open_run(out, arguments, items, personas)
    if run["status"] == "complete":
        log.info("%s is complete, nothing to score", out)
        read_answers(out)  # says so if it is damaged
        return out

    lm, chat = _load(arguments, out, run)
    profiles: list[Persona | None] = [None] if NONE in arguments.conditions else []
    profiles += personas
    parts = {out / "parts" / f"{i:04d}.parquet": profile for i, profile in enumerate(profiles)}
    scored = {part: rows for part in parts if (rows := read_part(part, len(items))) is not None}
    waiting = [user for part, user in parts.items() if user is not None and part not in scored]
    mechanism = find_mechanism(arguments.memory)
    memory = mechanism.make(arguments, lm, waiting)
    start = time.monotonic()
    rows = _score_parts(lm, chat, memory, arguments, items, parts, scored)
    run["seconds"] = round(time.monotonic() - start, 1)
    run["notes"] += mechanism.notes(memory, personas, rows)
    if silent := sum(row["raw_text"] == "" for row in rows):
        run["notes"].append(f"{silent} of {len(rows)} answers were empty: they count as unparsed.")
    _finish(out, run, add_flips(rows))
    return out


def _load(arguments: AuditArguments, out: Path, run: Run) -> tuple[Any, ChatFormat]:
    """The model and its chat format, noted in `run.json`.

    Raises:
        InputError: it cannot be loaded, or is not the one with which the run was begun.
    """
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
    if run["model"] not in (None, info) and (changed := changes(run["model"], info)):
        raise InputError(
            f"{out} was begun with other weights or another dtype or device: {changed}. Choose "
            "another --out."
        )
    chat = ChatFormat(lm)
    run["model"], run["notes"] = info, [chat.note] if chat.note else []
    if info["fallback_reason"]:
        run["notes"].append(f"Prefixes were not shared: {info['fallback_reason']}.")
    write_json(out / "run.json", run, indent=2)
    return lm, chat


def _score_parts(
    lm: Any,
    chat: ChatFormat,
    memory: Memory,
    arguments: AuditArguments,
    items: Sequence[Item],
    parts: Mapping[Path, Persona | None],
    scored: dict[Path, list[dict]],
) -> list[dict]:
    """Rows of all parts, in order; those that are not `scored` yet are asked and written."""
    singly = answers_singly(lm)
    journals = {
        part: Journal(part.with_suffix(".jsonl") if singly else None, lambda: progress.add(1))
        for part in parts
        if part not in scored
    }
    answered = sum(map(len, journals.values()))
    if scored or answered:
        more = f", and {answered} answers of others" if answered else ""
        log.info("resuming: %d of %d parts are already scored%s", len(scored), len(parts), more)
    done = len(scored) * len(items) + answered
    progress = Progress(len(parts) * len(items), "trials", done=done)
    try:
        for part, journal in journals.items():
            trials = list(trials_of(items, parts[part], memory, arguments.scoring, arguments.seed))
            scored[part] = score(lm, chat, trials, memory, arguments, journal)
            write_table(scored[part], SCHEMA, part)
            progress.add(len(items) - len(journal))  # those in the journal are counted
            journal.remove()
    finally:
        progress.close()
    return [row for part in parts for row in scored[part]]


def _finish(out: Path, run: Run, rows: list[dict]) -> None:
    """Write the answers and the complete record; the parts go."""
    write_table(rows, SCHEMA, out / "answers.parquet")
    prompts = "\0".join(row["prompt"] for row in rows)
    run["status"] = "complete"
    run["finished"] = now()
    run["n_trials"] = len(rows)
    run["hashes"]["answers"] = file_hash(out / "answers.parquet")
    run["hashes"]["prompts"] = hashlib.sha256(prompts.encode()).hexdigest()
    write_json(out / "run.json", run, indent=2)
    shutil.rmtree(out / "parts")


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
