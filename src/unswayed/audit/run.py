"""`unswayed audit`: put every trial to the model and write the run directory.

The work is cut into parts, one per persona (and one without memory). A finished part is a file
that appears at once, so a run that is killed goes on with the next part; since a part is always
scored as a whole, its scores do not depend on how often the run was interrupted. A backend that
makes batches itself is asked many parts in one call, user by user, so that it never waits for the
last answers of one. Answers that do not depend on each other are kept one by one as well
(`unswayed.core.journal`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.floor import measure_floor
from unswayed.audit.outcomes import answers_in_words, n_questions, outcomes, reading_notes
from unswayed.audit.ranks import (
    all_rows,
    begin,
    check_launch,
    check_model,
    in_step,
    own_arguments,
    scored_parts,
)
from unswayed.audit.rundir import (
    Run,
    changes,
    now,
    read_answers,
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
from unswayed.core.progress import Progress, waiting
from unswayed.core.ranks import ALONE, Ranks
from unswayed.data.items import Item, first_items, keep_invariant, load_items, notes_on
from unswayed.data.personas import Persona, load_personas
from unswayed.display.numbers import count
from unswayed.memory import Memory
from unswayed.memory.registry import check_memory, find_mechanism
from unswayed.models.embedded import model_label
from unswayed.models.load import check_backend, load_lm, model_info
from unswayed.scoring.backends import HF_SHARED, answers_singly, is_service, takes_many
from unswayed.scoring.chat import ChatFormat

log = logging.getLogger(__name__)

# Trials of parts that are asked in one call: the bank's 89 items with all 30 pairs. Their prompts
# are in memory together, and vLLM, which gives its answers at the end, loses so many to a kill.
MOST_TOGETHER = 8192


def run_audit(arguments: AuditArguments, ranks: Ranks = ALONE) -> Path:
    """Run or resume an audit; returns the run directory, complete but for its report.

    Args:
        ranks: processes that share the work.

    Raises:
        InputError: wrong input, or `out` holds something else. Finished parts are kept.
    """
    items, personas = checked(arguments)
    check_launch(ranks, arguments)
    out = Path(arguments.out)
    run = begin(ranks, arguments, items, personas)
    if run["status"] == "complete":
        log.info("%s is complete, nothing to score", out)
        read_answers(out)  # says so if it is damaged
        return out

    if arguments.dtype == "auto" and run["model"] and (begun := run["model"]["dtype"]):
        arguments = dataclasses.replace(arguments, dtype=begun)
    arguments = own_arguments(ranks, arguments)
    lm, chat = _load(arguments, out, run, ranks)
    parts = parts_of(arguments, personas)
    scored = scored_parts(ranks, parts, len(items))
    waiting = [user for part, user in parts.items() if user is not None and part not in scored]
    mechanism = find_mechanism(arguments.memory)
    memory = mechanism.make(arguments, lm, waiting)
    if waiting:
        ranks.first(lambda: mechanism.prepare(memory))
    start = time.monotonic()
    _score_parts(lm, chat, memory, arguments, items, parts, scored, run, ranks)
    rows = all_rows(ranks, parts, scored, len(items))
    if ranks.rank == 0:
        run["seconds"] = round(time.monotonic() - start, 1)
        run["notes"] += mechanism.notes(memory, personas, rows)
        for note in notes_on(items) if arguments.scoring == "option" else ():
            log.warning("%s", note)
            run["notes"].append(note)
        run["notes"] += reading_notes(rows)
        _finish(out, run, add_flips(rows))
    ranks.meet()
    return out


def checked(arguments: AuditArguments) -> tuple[list[Item], list[Persona]]:
    """What is asked about whom, after all checks that need no model and no folder.

    Raises:
        InputError: wrong input.
    """
    items = keep_invariant(load_items(arguments.items), arguments.decisions)
    if arguments.limit is not None:
        items = first_items(items, arguments.limit)
    personas = choose_personas(
        load_personas(arguments.personas), arguments.conditions, arguments.pairs
    )
    check_memory(arguments, personas)
    if arguments.backend != HF_SHARED or arguments.model_args or arguments.gen_kwargs:
        check_backend(
            arguments.backend,
            arguments.scoring,
            arguments.model_args,
            arguments.adapter,
            arguments.device,
            arguments.dtype,
            arguments.batch_size,
            arguments.gen_kwargs,
        )
    return items, personas


def parts_of(arguments: AuditArguments, personas: Sequence[Persona]) -> dict[Path, Persona | None]:
    """The files of a run that goes on, and whom each is about; None is without memory."""
    users: list[Persona | None] = [None] if NONE in arguments.conditions else []
    folder = Path(arguments.out) / "parts"
    return {folder / f"{i:04d}.parquet": user for i, user in enumerate([*users, *personas])}


def loaded(arguments: AuditArguments) -> Any:
    """The lm-eval model of an audit.

    Raises:
        InputError: it cannot be loaded.
    """
    with waiting(f"loading {model_label(arguments.model)}"):
        return load_lm(
            arguments.model,
            arguments.adapter,
            arguments.device,
            arguments.dtype,
            arguments.batch_size,
            arguments.backend,
            arguments.model_args,
        )


def _load(arguments: AuditArguments, out: Path, run: Run, ranks: Ranks) -> tuple[Any, ChatFormat]:
    """The model and its chat format, noted in `run.json`.

    Raises:
        InputError: it cannot be loaded, or is not the one with which the run was begun, or not the
            same on all ranks.
    """
    with nullcontext() if in_step(arguments) else ranks.hidden():
        lm = loaded(arguments)
        info = model_info(lm, arguments.model, arguments.adapter)
    if run["model"] not in (None, info) and (changed := changes(run["model"], info)):
        raise InputError(
            f"{out} was begun with other weights or another dtype or device: {changed}. Choose "
            "another --out."
        )
    check_model(ranks, info)
    chat = ChatFormat(lm, thinks=arguments.scoring == "generate")
    run["model"], run["notes"] = info, [chat.note] if chat.note else []
    run["notes"] += getattr(lm, "notes", [])
    if arguments.limit is not None:
        first = count(arguments.limit, "item")
        run["notes"].append(f"This is a preview of the first {first} of each test.")
    if info["fallback_reason"]:
        run["notes"].append(f"Prefixes were not shared: {info['fallback_reason']}.")
    ranks.first(lambda: write_json(out / "run.json", run, indent=2))
    return lm, chat


def _score_parts(
    lm: Any,
    chat: ChatFormat,
    memory: Memory,
    arguments: AuditArguments,
    items: Sequence[Item],
    parts: Mapping[Path, Persona | None],
    scored: dict[Path, list[dict]],
    run: Run,
    ranks: Ranks,
) -> None:
    """Ask and write what is not `scored` yet of the parts, this rank's share of it.

    With the first of them the numerical floor is measured, unless `run` has it.
    """
    waiting = [part for part in parts if part not in scored]
    calls = _calls(waiting, len(items), lm, arguments, lambda: progress.add(1))
    sizes = {
        part: n_questions(items, persona is None, arguments, is_service(type(lm)))
        for part, persona in parts.items()
    }
    answered = sum(map(len, {journal for _, journal in calls}))
    if scored or answered:
        more = f", and {answered} answers of others" if answered else ""
        log.info("resuming: %d of %d parts are already scored%s", len(scored), len(parts), more)
    done = sum(sizes[part] for part in scored) + answered
    what = "answers" if answers_in_words(arguments, is_service(type(lm))) else "options"
    together, n_items = in_step(arguments), len(items)
    ranks.meet()  # nobody reads a journal any more that another goes on with
    with Progress(sum(sizes.values()), what, done=done) as progress, ranks.counting(progress):
        for call, journal in ranks.shares(calls, together):
            trials: list[Trial] = []
            for part in call:
                about = (parts[part], memory, arguments.scoring, arguments.seed)
                trials += trials_of(items, *about)
            units = sum(sizes[part] for part in call) - len(journal)  # those in it are counted
            with progress.step(units):
                rows = score(lm, chat, trials, memory, arguments, journal)
            if run.get("floor") is None and (ranks.rank == 0 or together):
                first, n = (trials[:n_items], rows[:n_items]), n_items * len(parts)
                run["floor"] = measure_floor(lm, chat, *first, memory, arguments, n)
                if ranks.rank == 0:
                    write_json(Path(arguments.out) / "run.json", run, indent=2)
            for i, part in enumerate(call):
                scored[part] = rows[i * n_items : (i + 1) * n_items]
                if ranks.rank == 0 or not together:
                    write_table(scored[part], SCHEMA, part)
            journal.remove()
        ranks.meet()


def _calls(
    waiting: Sequence[Path],
    n_items: int,
    lm: Any,
    arguments: AuditArguments,
    on_answer: Callable[[], None],
) -> list[tuple[Sequence[Path], Journal]]:
    """Parts that are asked together, and the journal of their answers."""
    singly = answers_singly(lm) and not in_step(arguments)

    def journal(part: Path) -> Journal:
        return Journal(part.with_suffix(".jsonl") if singly else None, on_answer)

    if not (takes_many(lm, arguments.backend) and find_mechanism(arguments.memory).in_prompt):
        return [([part], journal(part)) for part in waiting]
    size, common = max(1, MOST_TOGETHER // n_items), journal(Path(arguments.out) / "parts/answers")
    return [(waiting[i : i + size], common) for i in range(0, len(waiting), size)]


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
    """Rows of trials under which `memory` leaves the model in one state; generated texts go
    through `journal`."""
    model = model_label(arguments.model)
    return [
        make_row(
            trial,
            outcome,
            prompt=chat.render(trial.messages),
            scoring=arguments.scoring,
            rule=arguments.rule,
            model=model,
            seed=arguments.seed,
        )
        for trial, outcome in zip(
            trials, outcomes(lm, chat, trials, memory, arguments, journal), strict=True
        )
    ]
