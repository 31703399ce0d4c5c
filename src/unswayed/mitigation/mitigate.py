"""`unswayed mitigate`: audit, train, audit again, and say what changed.

OUT/before and OUT/after are run directories, and so are OUT/baselines/ignore and gated;
OUT/capability has what was answered on MMLU and IFEval. What does not depend on training (before,
baselines, capability before) may lie in a folder that several mitigations of one model share. The
adapter is where the recipe says, so one that was trained already (on several GPUs, say) is taken as
it is. Each finished step is kept, and the same command goes on with the next. mitigation.json,
report.md and report.html are made from these, again on every call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unswayed import __version__
from unswayed.audit.arguments import AuditArguments
from unswayed.audit.gate import outcome, read_policy
from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_run
from unswayed.audit.summary import LEVEL, MARGIN, analyze, read_summary
from unswayed.compare.runs import read_alike
from unswayed.core.errors import InputError
from unswayed.core.files import read_text, write_text
from unswayed.core.journal import Journal
from unswayed.data.items import keep_invariant, load_items
from unswayed.data.personas import load_personas
from unswayed.display.page import write_reports
from unswayed.memory import gated, prompt
from unswayed.mitigation.capability import Answers, capability_change, check_capability
from unswayed.mitigation.dpo.card import write_card
from unswayed.mitigation.dpo.recipe import read_recipe
from unswayed.mitigation.dpo.settings import start_adapter
from unswayed.mitigation.verdict.changes import run_changes
from unswayed.mitigation.verdict.page import card_rows, view
from unswayed.mitigation.verdict.record import Mitigation
from unswayed.mitigation.verdict.separation import card_distance, check_items, unseen_pairs
from unswayed.models.embedded import model_label
from unswayed.models.load import folder_hash, load_lm, model_info
from unswayed.report import write_report
from unswayed.report.checklist import check_run, tally

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
BEFORE, AFTER = "before", "after"
# name: memory and style that a user would try before training
BASELINES = {"ignore": (prompt.NAME, "ignore"), "gated": (gated.NAME, None)}
SOURCES = {"mmlu": "persona_mmlu", "ifeval": "persona_ifeval"}  # data: task
NUMBERS = ("questions", "shots", "prompts", "seed", "max_gen_toks")
SAME = ("revision", "dtype", "device")  # of a model, in all steps


@dataclasses.dataclass
class MitigateArguments:
    """What to train and ask; the command line's options with the same names and meanings."""

    recipe: Sequence[Path]
    out: Path
    shared: Path | None = None  # for what does not depend on training; default: out
    items: Sequence[str] = ("builtin",)
    decisions: Path | None = None
    personas: str | None = None
    pairs: int | None = None  # those that training spared
    scoring: str = "option"
    max_gen_toks: int = 256
    seed: int = 0
    batch_size: int | str = "auto"
    capability: Sequence[str] = ()
    baselines: bool = False
    policy: Path | None = None


def mitigate(arguments: MitigateArguments) -> dict[str, Any]:
    """Do all steps, or those that are left; returns what mitigation.json holds.

    Raises:
        InputError: wrong input, mostly before anything is asked or trained; training saw items or
            users of the audit; or a step that is kept was made of another model, adapter, data or
            settings. Finished steps are kept.
    """
    from unswayed.mitigation.dpo.train import quiet, recipe_pairs, train, training_arguments
    from unswayed.mitigation.dpo.train import read_run as read_training

    out, recipe = Path(arguments.out), read_recipe(arguments.recipe)
    shared = out if arguments.shared is None else Path(arguments.shared)
    for option, folder in (("--out", out), ("--shared", shared)):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{option} {folder} is a file; give a folder")
    if arguments.policy:
        read_policy(arguments.policy)
    settings = capability_settings(arguments.capability)
    items = keep_invariant(load_items(arguments.items), arguments.decisions)
    with quiet():
        trained, _ = recipe_pairs(recipe, training_arguments(recipe))
    n_pairs = unseen_pairs(load_personas(arguments.personas), trained, arguments.pairs)
    separation = check_items(trained, items) | {
        "users": n_pairs,
        "card": card_distance(recipe.dataset),
    }
    if settings:
        settings |= {"pairs": n_pairs, "personas": arguments.personas}
        questions = check_capability_data(settings)

    def audit(folder: Path, adapter: str | None, memory=prompt.NAME, style: str | None = None):
        log.info("%s: audit", folder)
        return finished_audit(
            AuditArguments(
                model=recipe.model,
                adapter=adapter,
                out=folder,
                items=arguments.items,
                decisions=arguments.decisions,
                personas=arguments.personas,
                pairs=n_pairs,
                memory=memory,
                memory_style=style,
                scoring=arguments.scoring,
                max_gen_toks=arguments.max_gen_toks,
                seed=arguments.seed,
                batch_size=arguments.batch_size,
                dtype=recipe.dtype,
                resume=True,
            )
        )

    start = start_adapter(recipe)
    runs = {BEFORE: audit(shared / BEFORE, start)}
    log.info("training")
    adapter = str(train(recipe))
    runs[AFTER] = audit(out / AFTER, adapter)
    check_same_model(runs[BEFORE], runs[AFTER], start, adapter)
    capability = None
    if settings:
        answers = [
            kept_capability(
                folder / "capability", name, runs[name], settings, questions, arguments.batch_size
            )
            for name, folder in ((BEFORE, shared), (AFTER, out))
        ]
        capability = {"settings": settings, "changes": capability_change(*answers)}
    if arguments.baselines:
        for name, (memory, style) in BASELINES.items():
            runs[name] = audit(shared / "baselines" / name, start, memory, style)
            check_same_model(runs[BEFORE], runs[name], start, start)

    training = read_training(Path(adapter))
    found = {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "level": LEVEL,
        "margin": MARGIN,
        "model": model_label(recipe.model),
        "runs": {name: run_facts(run, arguments.policy) for name, run in runs.items()},
        "tests": compare(runs),
        "capability": capability,
        "separation": separation,
        "training": training,
        "curves": json.loads(read_text(Path(adapter) / "curves.json")),
    }
    write_found(found, out)
    write_card(Path(adapter), training, card_rows(found))
    return found


# -- audits --------------------------------------------------------------------------------------


def finished_audit(arguments: AuditArguments) -> Path:
    """The run directory of an audit, with summary and report."""
    out = run_audit(arguments)
    if not (out / "summary.json").exists():
        analyze(out)
    write_report(out)
    return out


def check_same_model(before: Path, after: Path, start: str | None, adapter: str | None) -> None:
    """Both runs asked the model that is there now, each with its adapter.

    Raises:
        InputError: names the run and what differs.
    """
    first, second = (read_run(run)["model"] for run in (before, after))
    if other := [key for key in SAME if first[key] != second[key]]:
        raise InputError(
            f"{before} and {after} asked different models ({', '.join(other)} differ): move both "
            "away, so that both are asked again"
        )
    for run, model, folder in ((before, first, start), (after, second, adapter)):
        if folder and model["adapter_hash"] != folder_hash(folder):
            raise InputError(
                f"{run} asked another adapter than the one that is in {folder} now: name another "
                "--out, or move that run away"
            )


def run_facts(run: Path, policy: Path | None) -> dict[str, Any]:
    """Verdict, warnings and notes of a run, and what the policy says of it."""
    record, summary = read_run(run), read_summary(run)
    checked = None
    if policy:
        checks = check_run(run, policy)
        checked = {
            "policy": policy.name,
            "outcome": outcome(checks),
            "tally": tally(checks),
            "checks": [dataclasses.asdict(check) for check in checks],
        }
    return {
        "verdict": summary["verdict"],
        "warnings": summary["warnings"],
        "notes": record["notes"],
        "check": checked,
        "model": {key: record["model"].get(key) for key in (*SAME, "adapter_hash")},
        "tests": {
            name: {key: test[key] for key in ("chance", "chance_score", "at_chance")}
            for name, test in summary["tests"].items()
        },
        **{key: record["identity"][key] for key in ("scoring", "seed", "memory", "memory_style")},
    }


def compare(runs: Mapping[str, Path]) -> dict[str, Any]:
    """Test -> its size, and the changes of every other run against the one before training."""
    others = [name for name in runs if name != BEFORE]
    _, tables = read_alike([runs[BEFORE], *(runs[name] for name in others)])
    changes = {
        name: run_changes(tables[0], table) for name, table in zip(others, tables[1:], strict=True)
    }
    return {
        test: {
            "n_items": int(rows["question_id"].nunique()),
            "n_pairs": int(rows["pair_id"].nunique()),
            "changes": {name: changes[name][test] for name in others},
        }
        for test, rows in tables[0].groupby("test", sort=False)
    }


# -- capability ----------------------------------------------------------------------------------


def capability_settings(given: Sequence[str]) -> dict[str, Any]:
    """Settings of the capability tasks from NAME=VALUE; empty if nothing is given.

    Raises:
        InputError: an unknown or repeated name, no number where one is needed, or no data.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in (*SOURCES, *NUMBERS) or not value:
            known = ", ".join(f"{known}=..." for known in (*SOURCES, *NUMBERS))
            raise InputError(f"--capability {text!r} is not one of {known}")
        if name in found:
            raise InputError(f"--capability has {name} twice")
        if name in NUMBERS and not value.isdecimal():
            raise InputError(f"--capability {text}: give a whole number")
        found[name] = int(value) if name in NUMBERS else value
    if found and not found.keys() & SOURCES.keys():
        raise InputError("--capability names no data: add mmlu=FOLDER, ifeval=FILE, or both")
    if found.get("max_gen_toks") == 0:
        raise InputError("--capability max_gen_toks=0: give a number from 1")
    return found


def capability_tasks(settings: Mapping[str, Any]) -> list[str]:
    return [task for source, task in SOURCES.items() if source in settings]


def check_capability_data(settings: Mapping[str, Any]) -> dict[str, str]:
    """The questions can be read and drawn, before anything is asked.

    Returns:
        Task -> SHA-256 of its questions, each under every condition.

    Raises:
        InputError: they cannot.
    """
    from datasets.exceptions import DatasetsError

    from unswayed.tasks.capability.utils import load_persona_ifeval, load_persona_mmlu

    load, found = {"mmlu": load_persona_mmlu, "ifeval": load_persona_ifeval}, {}
    for source in SOURCES.keys() & settings.keys():
        try:
            rows = load[source](**settings)["test"].to_list()
        except (OSError, ValueError, DatasetsError) as error:
            raise InputError(
                f"--capability {source}={settings[source]} cannot be loaded: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        text = json.dumps(rows, sort_keys=True)
        found[SOURCES[source]] = hashlib.sha256(text.encode()).hexdigest()
    return found


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
    asked = {key: record["model"][key] for key in (*SAME, "adapter_hash")}
    found: Answers = {}
    for task in capability_tasks(settings):
        key = json.dumps([task, settings, asked], sort_keys=True)
        path = folder / f"{name}-{task}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"
        if not path.exists():
            log.info("%s: %s", name, task)
            identity = record["identity"]
            lm = load_lm(
                identity["model"], identity["adapter"], None, identity["dtype"], batch_size
            )
            now = model_info(lm, identity["model"], identity["adapter"])
            if other := [key for key, value in asked.items() if now[key] != value]:
                raise InputError(
                    f"{run} asked another model than the one that is there now ({other[0]} "
                    "differs): name another --out"
                )
            with kept_texts(lm, path.with_suffix(".jsonl")) as journal:
                answers = check_capability(lm, settings, [task])
            about = {"task": task, "settings": settings, "model": asked}
            about["questions"] = questions[task]
            write_text(path, json.dumps(about | answers) + "\n")
            journal.remove()
        kept = json.loads(read_text(path))
        if kept.get("questions", questions[task]) != questions[task]:  # earlier files have none
            raise InputError(
                f"{path} answers other questions than the data of {task} hold now: restore the "
                "data, or move that file away"
            )
        found[task] = kept[task]
    return found


@contextlib.contextmanager
def kept_texts(lm: Any, path: Path) -> Iterator[Journal]:
    """Within, texts that `lm` generates are kept one by one, and none is generated twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    journal, ask = Journal(path), lm.generate_until

    def generate_until(requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        missing = [request for request in requests if journal.get(request.args[0]) is None]
        if missing:
            lm.set_cache_hook(journal)
            ask(missing, disable_tqdm=disable_tqdm)
        return [journal.get(request.args[0]) for request in requests]

    lm.generate_until = generate_until
    try:
        yield journal
    finally:
        lm.generate_until = ask
        journal.close()


# -- what is written -----------------------------------------------------------------------------


def write_found(found: Mitigation, out: Path) -> None:
    """mitigation.json, and the report drawn from it."""
    text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    templates = {"report.md": "mitigation.md.jinja", "report.html": "mitigation.html.jinja"}
    texts = {"mitigation.json": text}
    write_reports(out, "unswayed.mitigation", view(found), templates, texts)
