"""`unswayed mitigate`: audit, train, audit again, and say what changed.

OUT/before and OUT/after are run directories, and so are OUT/baselines/ignore and gated;
OUT/capability has what was answered on MMLU and IFEval. What does not depend on training (before,
baselines, capability before) may lie in a folder that several mitigations of one model share. The
adapter is where the recipe says, so one that was trained already (on several GPUs, say) is taken as
it is. Each finished step is kept, and the same command goes on with the next. mitigation.json,
report.md and report.html are made from these, again on every call.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unswayed import __version__
from unswayed.audit.arguments import AuditArguments
from unswayed.audit.gate import outcome
from unswayed.audit.policy import find_policy
from unswayed.audit.rundir import read_run
from unswayed.audit.summary import read_summary
from unswayed.compare.runs import read_alike
from unswayed.core.errors import InputError
from unswayed.core.files import read_text
from unswayed.data.items import keep_invariant, load_items
from unswayed.data.personas import load_personas
from unswayed.display.page import write_reports
from unswayed.memory import gated, prompt
from unswayed.mitigation.arguments import MitigateArguments
from unswayed.mitigation.capability import (
    SAME,
    capability_change,
    capability_settings,
    check_capability_data,
    kept_capability,
)
from unswayed.mitigation.dpo.card import write_card
from unswayed.mitigation.dpo.recipe import read_recipe
from unswayed.mitigation.dpo.settings import DpoRecipe, start_adapter
from unswayed.mitigation.verdict.changes import MARGIN, run_changes
from unswayed.mitigation.verdict.page import card_rows, view
from unswayed.mitigation.verdict.record import Mitigation
from unswayed.mitigation.verdict.separation import card_distance, check_items, unseen_pairs
from unswayed.models.embedded import model_label
from unswayed.models.hashes import checkpoint_hash
from unswayed.report import finished_audit
from unswayed.report.checklist import check_run, tally
from unswayed.statistics.crossed import LEVEL

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
BEFORE, AFTER = "before", "after"
# name: memory and style that a user would try before training
BASELINES = {"ignore": (prompt.NAME, "ignore"), "gated": (gated.NAME, None)}
# What every audit takes from the arguments as it is.
ASKED = (
    "items", "decisions", "personas", "scoring", "rule", "orders", "max_gen_toks", "seed",
    "batch_size",
)  # fmt: skip


def mitigate(arguments: MitigateArguments) -> Mitigation:
    """Do all steps, or those that are left; returns what mitigation.json holds.

    Raises:
        InputError: wrong input, mostly before anything is asked or trained; training saw items or
            users of the audit; or a step that is kept was made of another model, adapter, data or
            settings. Finished steps are kept.
    """
    from unswayed.mitigation.dpo.train import read_run as read_training
    from unswayed.mitigation.dpo.train import train

    recipe = read_recipe(arguments.recipe)
    out, shared = out_folders(arguments)
    if arguments.policy:
        find_policy(arguments.policy)
    settings = capability_settings(arguments.capability)
    separation = check_separation(arguments, recipe)
    pairs = separation["users"]
    if settings:
        settings |= {"pairs": pairs, "personas": arguments.personas}
        questions = check_capability_data(settings)

    start = start_adapter(recipe)
    runs = {BEFORE: audit(arguments, recipe, pairs, shared / BEFORE, start)}
    log.info("training")
    adapter = str(train(recipe))
    runs[AFTER] = audit(arguments, recipe, pairs, out / AFTER, adapter)
    check_same_model(runs[BEFORE], runs[AFTER], start, adapter)
    capability = None
    if settings:
        how = (settings, questions, arguments.batch_size)
        answers = [
            kept_capability(folder / "capability", name, runs[name], *how)
            for name, folder in ((BEFORE, shared), (AFTER, out))
        ]
        capability = {"settings": settings, "changes": capability_change(*answers)}
    if arguments.baselines:
        for name, memory in BASELINES.items():
            folder = shared / "baselines" / name
            runs[name] = audit(arguments, recipe, pairs, folder, start, *memory)
            check_same_model(runs[BEFORE], runs[name], start, start)

    training = read_training(Path(adapter))
    record: Mitigation = {
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
    write_record(record, out)
    write_card(Path(adapter), training, card_rows(record))
    return record


def out_folders(arguments: MitigateArguments) -> tuple[Path, Path]:
    """Where to write what depends on training, and what does not.

    Raises:
        InputError: one is a file.
    """
    folders = (Path(arguments.out), Path(arguments.shared or arguments.out))
    for option, folder in zip(("--out", "--shared"), folders, strict=True):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{option} {folder} is a file; give a folder")
    return folders


def check_separation(arguments: MitigateArguments, recipe: DpoRecipe) -> dict[str, Any]:
    """What training saw of the audit, as mitigation.json has it; `users`: persona pairs to ask.

    Raises:
        InputError: training saw items of the audit, or spared too few users.
    """
    from unswayed.mitigation.dpo.train import quiet, recipe_pairs, training_arguments

    items = keep_invariant(load_items(arguments.items), arguments.decisions)
    with quiet():
        trained, _ = recipe_pairs(recipe, training_arguments(recipe))
    unseen = unseen_pairs(load_personas(arguments.personas), trained, arguments.pairs)
    separation = check_items(trained, items)
    return separation | {"users": unseen, "card": card_distance(recipe.dataset)}


# -- audits --------------------------------------------------------------------------------------


def audit(
    arguments: MitigateArguments,
    recipe: DpoRecipe,
    pairs: int,
    folder: Path,
    adapter: str | None,
    memory: str = prompt.NAME,
    memory_style: str | None = None,
) -> Path:
    """The run directory of a finished audit, with summary and report.

    Args:
        pairs: number of persona pairs, those that training spared.
    """
    log.info("%s: audit", folder)
    return finished_audit(
        AuditArguments(
            model=recipe.model, adapter=adapter, out=folder, dtype=recipe.dtype, resume=True,
            pairs=pairs, memory=memory, memory_style=memory_style,
            **{name: getattr(arguments, name) for name in ASKED},
        ),
        again=False,
    )  # fmt: skip


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
        if folder and model["adapter_hash"] != checkpoint_hash(folder):
            raise InputError(
                f"{run} asked another adapter than the one that is in {folder} now: name another "
                "--out, or move that run away"
            )


def run_facts(run: Path, policy: str | None) -> dict[str, Any]:
    """Verdict, warnings and notes of a run, and what the policy says of it."""
    record, summary = read_run(run), read_summary(run)
    checked = None
    if policy:
        checks, judged = check_run(run, policy)
        checked = {
            "policy": judged["policy"]["name"],
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
            name: {key: test[key] for key in ("chance", "chance_score")}
            | {"at_chance": not test["knows"]["above"]}
            for name, test in summary["tests"].items()
        },
        **{key: record["identity"][key] for key in ("scoring", "seed", "memory", "memory_style")},
    }


def compare(runs: Mapping[str, Path]) -> dict[str, Any]:
    """Test -> its size, and the changes of every other run against the one before training."""
    names = [name for name in runs if name != BEFORE]
    _, (before, *tables) = read_alike([runs[BEFORE], *(runs[name] for name in names)])
    changes = [run_changes(before, table) for table in tables]
    return {
        test: {
            "n_items": int(rows["question_id"].nunique()),
            "n_pairs": int(rows["pair_id"].nunique()),
            "changes": {name: of[test] for name, of in zip(names, changes, strict=True)},
        }
        for test, rows in before.groupby("test", sort=False)
    }


# -- what is written -----------------------------------------------------------------------------


def write_record(record: Mitigation, out: Path) -> None:
    """mitigation.json, and the report drawn from it."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    templates = {"report.md": "mitigation.md.jinja", "report.html": "mitigation.html.jinja"}
    texts = {"mitigation.json": text}
    write_reports(out, "unswayed.mitigation", view(record), templates, texts)
