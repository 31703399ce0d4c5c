"""What training costs: MMLU and IFEval before and after, without memory and with each.

Without memory the questions are those of lm-eval's `mmlu` and `ifeval`; see tasks/capability. The
paper (arXiv 2510.09905) reports that MMLU rises and that instruction following falls.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unswayed.audit.rundir import read_run
from unswayed.core.errors import InputError, one_line
from unswayed.core.files import read_text, write_text
from unswayed.core.journal import Journal
from unswayed.core.ledger import differences, digest
from unswayed.models.load import load_lm, model_info
from unswayed.plum.ability import MARGIN, ability_change
from unswayed.scoring.harness import task_samples

log = logging.getLogger(__name__)

# What counts as right; IFEval's headline figure: all instructions of a prompt, strictly.
METRICS = {"persona_mmlu": "acc", "persona_ifeval": "prompt_level_strict_acc"}
SOURCES = {"mmlu": "persona_mmlu", "ifeval": "persona_ifeval"}  # data: task
NUMBERS = ("questions", "shots", "prompts", "seed", "max_gen_toks")
SAME = ("revision", "dtype", "device")  # of a model, in all steps

Answers = dict[str, dict[str, list[float]]]  # task -> condition -> 0 or 1 per question


def check_capability(
    lm: Any, settings: Mapping[str, Any], tasks: Sequence[str] = tuple(METRICS)
) -> Answers:
    """Whether each question is answered right, under each condition.

    Args:
        lm: an lm-eval model (`load_lm`, `loaded_lm`); IFEval takes any, MMLU one that gives
            likelihoods. Answers are generated greedily, `batch_size` of them at a time.
        settings: those of tasks/capability, e.g. {"mmlu": folder, "questions": 1000, "ifeval":
            file, "prompts": 100}; also max_gen_toks (default 1280, as in lm-eval's `ifeval`).
        tasks: of METRICS.

    Returns:
        Task -> condition -> 0 or 1 per question; the same questions in the same order for the same
        settings, whatever the model.

    Raises:
        InputError: wrong settings, or a prompt that does not fit the model's context.
    """
    if unknown := [name for name in tasks if name not in METRICS]:
        raise InputError(f"task {unknown[0]!r} is not one of {', '.join(METRICS)}")
    chosen = dict(settings)
    length = chosen.pop("max_gen_toks", None)
    tokenizer = getattr(lm, "tokenizer", None)
    chat = getattr(tokenizer, "chat_template", "") is not None  # a service has its own
    generation = {} if length is None else {"max_gen_toks": length}
    answers: Answers = {}
    for name, samples in task_samples(lm, tasks, chosen, chat, generation).items():
        answers[name] = {}
        for sample in samples:
            condition = sample["doc"]["condition"]
            value = float(sample[f"{METRICS[name]}_{condition}"])
            answers[name].setdefault(condition, []).append(value)
    return answers


def capability_change(
    before: Mapping[str, Mapping[str, Sequence[float]]],
    after: Mapping[str, Mapping[str, Sequence[float]]],
    margin: float = MARGIN,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Accuracy before and after, and the difference paired by question.

    Args:
        before, after: as `check_capability` gives them with the same settings.
        margin: a change below it does not matter.

    Returns:
        Task -> condition -> before, after, change, low, high (95 %), n and p_equivalent, as in
        `ability_change`.

    Raises:
        InputError: other questions or conditions were asked after than before.
    """
    counts, counts_after = _counts(before), _counts(after)
    if counts != counts_after:
        raise InputError(
            f"capability before ({counts}) and after ({counts_after}) cannot be paired: ask both "
            "with the same settings"
        )
    return {task: ability_change(before[task], after[task], margin) for task in before}


def _counts(answers: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, int]:
    """Task and condition -> number of questions."""
    return {
        f"{task} {condition}": len(values)
        for task, by_condition in answers.items()
        for condition, values in by_condition.items()
    }


# -- of a mitigation -----------------------------------------------------------------------------


def capability_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Settings of the capability tasks from NAME=VALUE; empty without any.

    Raises:
        InputError: an unknown or repeated name, no number where one is needed, or no data.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in (*SOURCES, *NUMBERS) or not value:
            allowed = ", ".join(f"{name}=..." for name in (*SOURCES, *NUMBERS))
            raise InputError(f"--capability {text!r} is not one of {allowed}")
        if name in settings:
            raise InputError(f"--capability has {name} twice")
        if name in NUMBERS and not value.isdecimal():
            raise InputError(f"--capability {text}: give a whole number")
        settings[name] = int(value) if name in NUMBERS else value
    if settings and not settings.keys() & SOURCES.keys():
        raise InputError("--capability names no data: add mmlu=FOLDER, ifeval=FILE, or both")
    if settings.get("max_gen_toks") == 0:
        raise InputError("--capability max_gen_toks=0: give a number from 1")
    return settings


def check_capability_data(settings: Mapping[str, Any]) -> dict[str, str]:
    """The questions can be read and drawn, before anything is asked.

    Returns:
        Task -> SHA-256 of its questions, each under every condition.

    Raises:
        InputError: they cannot.
    """
    from datasets.exceptions import DatasetsError

    from unswayed.tasks.capability.utils import load_persona_ifeval, load_persona_mmlu

    load, hashes = {"mmlu": load_persona_mmlu, "ifeval": load_persona_ifeval}, {}
    for source in SOURCES.keys() & settings.keys():
        try:
            rows = load[source](**settings)["test"].to_list()
        except (OSError, ValueError, DatasetsError) as error:
            raise InputError(
                f"--capability {source}={settings[source]} cannot be loaded: {one_line(error, 200)}"
            ) from error
        hashes[SOURCES[source]] = digest(rows, sort_keys=True)
    return hashes


def kept_capability(
    folder: Path,
    name: str,
    run: Path,
    settings: Mapping[str, Any],
    questions: Mapping[str, str],
    batch_size: int | str,
) -> Answers:
    """`check_capability` of the model of a run; each task is kept in a file of its own.

    Texts are kept one by one while a task goes on. A file belongs to one model, settings and
    questions.

    Args:
        questions: what `check_capability_data` returns.

    Raises:
        InputError: as `check_capability`, the model is no longer the one of the run, or answers
            to other questions are kept.
    """
    record = read_run(run)
    identity = record["identity"]
    model = {key: record["model"][key] for key in (*SAME, "adapter_hash")}
    answers: Answers = {}
    for task in [task for source, task in SOURCES.items() if source in settings]:
        key = digest([task, settings, model], sort_keys=True)
        path = folder / f"{name}-{task}-{key[:12]}.json"
        if not path.exists():
            log.info("%s: %s", name, task)
            where = (identity["model"], identity["adapter"])
            lm = load_lm(*where, None, identity["dtype"], batch_size)
            now = model_info(lm, *where)
            for other, *_ in differences(model, {key: now[key] for key in model}):
                raise InputError(
                    f"{run} asked another model than the one that is there now ({other} "
                    "differs): name another --out"
                )
            with kept_texts(lm, path.with_suffix(".jsonl")) as journal:
                right = check_capability(lm, settings, [task])
            about = {"task": task, "settings": settings, "model": model}
            about["questions"] = questions[task]
            write_text(path, json.dumps(about | right) + "\n")
            journal.remove()
        stored = json.loads(read_text(path))
        if stored.get("questions", questions[task]) != questions[task]:  # earlier files have none
            raise InputError(
                f"{path} answers other questions than the data of {task} hold now: restore the "
                "data, or move that file away"
            )
        answers[task] = stored[task]
    return answers


@contextlib.contextmanager
def kept_texts(lm: Any, path: Path) -> Iterator[Journal]:
    """Within, texts that `lm` generates are kept one by one, and none is generated twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    journal, generate = Journal(path), lm.generate_until

    def generate_until(requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        missing = [request for request in requests if journal.get(request.args[0]) is None]
        if missing:
            lm.set_cache_hook(journal)
            generate(missing, disable_tqdm=disable_tqdm)
        return [journal.get(request.args[0]) for request in requests]

    lm.generate_until = generate_until
    try:
        yield journal
    finally:
        lm.generate_until = generate
        journal.close()
