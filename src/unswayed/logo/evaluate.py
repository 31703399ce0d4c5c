"""`unswayed logo evaluate`: train the global memory, ask every method the same, compare.

OUT/seed-N holds one seed: the module, `journal.jsonl` while it goes on, then `answers.parquet`, a
row per case and method, and `run.json`. OUT itself holds what is derived from these: `result.json`,
`tables.md` and `logo.svg`. What was asked once is not asked again, and an interrupted evaluation
goes on to the same answers. When it is done, nothing of it holds a word of the histories but ids,
labels, and tags in the descriptions of communities.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unswayed.core.errors import InputError
from unswayed.core.files import read_json, whole, without_folders, write_json
from unswayed.core.ledger import Ledger, as_json, check_same, digest
from unswayed.data.histories import Histories, Task, before, load_histories
from unswayed.data.histories.metrics import rouge_l
from unswayed.logo.globals import SEGMENTS, Stage, community_embedder, train_global, trained_modules
from unswayed.logo.mediator import (
    EQUAL,
    LearnedMediator,
    MediatorRow,
    fit_mediator,
)
from unswayed.logo.plan import FIT, TEST, Plan, TargetView, make_plan
from unswayed.logo.recipe import LogoRecipe
from unswayed.logo.rows import LEARNED, MEANS, OF_LABELS, as_frame, make_rows
from unswayed.logo.sides import (
    CALIBRATED,
    FUSED,
    GLOBAL,
    MODULE,
    OWN_PAST,
    PROMPTED,
    Sides,
)
from unswayed.models.base import Base, load_base

log = logging.getLogger(__name__)

METHODS = (*OWN_PAST, CALIBRATED[0], GLOBAL, CALIBRATED[1], *MODULE[1:], PROMPTED, *FUSED, MEANS)
LONG = 10  # known events from which a user can be placed
ANSWERS, RUN, JOURNAL, ADAPTER = "answers.parquet", "run.json", "journal.jsonl", "module"


def evaluate(
    recipe: LogoRecipe, out: Path, seeds: Sequence[int] = (), methods: Sequence[str] = ()
) -> dict[str, Any]:
    """Evaluate a recipe with every seed, and write tables and figures of all.

    Args:
        seeds: instead of the recipe's.
        methods: of METHODS; all if none are given. In free text those OF_LABELS are left out.

    Returns:
        The result, as in result.json; see `tables.summarise`.

    Raises:
        InputError: unknown methods, histories that do not allow the settings or any of the
            methods, or a folder that holds another evaluation.
    """
    from unswayed.logo.tables import write_result

    seeds = tuple(dict.fromkeys(seeds)) or (recipe.settings.seed,)
    if unknown := set(methods) - set(METHODS):
        raise InputError(f"method {min(unknown)!r} is not one of {', '.join(METHODS)}")
    histories = load_histories(recipe.histories)
    chosen = [
        method
        for method in METHODS
        if method in (methods or METHODS)
        and not (method in OF_LABELS and histories.task.labels is None)
    ]
    if not chosen:
        raise InputError(
            f"histories {recipe.histories}: responses are free text, which {', '.join(OF_LABELS)} "
            "cannot be asked about: choose other methods"
        )
    base, runs, frames = None, [], []
    for seed in seeds:
        folder = out / f"seed-{seed}"
        seed_recipe = dataclasses.replace(
            recipe, settings=dataclasses.replace(recipe.settings, seed=seed)
        )
        base = base or load_base(recipe.model, recipe.dtype)
        log.info("seed %d: %s", seed, folder)
        run, frame = run_seed(seed_recipe, histories, base, chosen, folder)
        runs.append(run)
        frames.append(frame.assign(seed=seed))
        result = write_result(out, histories.task, runs, pd.concat(frames, ignore_index=True))
    return result


def run_seed(
    recipe: LogoRecipe, histories: Histories, base: Base, methods: Sequence[str], folder: Path
) -> tuple[dict[str, Any], pd.DataFrame]:
    """One seed, or what is left of it.

    Returns:
        The run: identity, users, training (per module: community, segments, samples, losses in
        nats, seconds), asked (what -> prompts, seconds), predictions (that a model had a part in),
        gates (segment -> `Gate.as_json`, with what calibrates both sides), content_free
        (`Sides.content_free`), recovered (see `recovered`). And its answers, see `make_rows`.
    """
    identity = make_identity(recipe, histories, base, methods)
    complaint = "is no run of an evaluation: remove its folder, and it is run again"
    if run := read_json(folder / RUN, ["identity", "training", "asked"], complaint):
        check_same(run["identity"], identity, folder)
        return run, pd.read_parquet(folder / ANSWERS)
    logo = recipe.logo
    with_gate = bool(set(LEARNED) & set(methods))
    plan = make_plan(histories, logo, recipe.settings.seed, with_gate, community_embedder(logo))
    with Ledger(folder / JOURNAL, identity) as ledger:
        sides = Sides(plan, logo, methods, ledger)
        training = _ask(recipe, base, plan, sides, ledger, folder)
    mediators = fit_mediators(plan, sides, logo.l2) if with_gate else {}
    rows = make_rows(plan, sides, methods, mediators, logo)
    run = {
        "identity": identity,
        "users": {part: len(users) for part, users in dataclasses.asdict(plan.split).items()},
        "training": training,
        "asked": {
            what: {"prompts": n, "seconds": round(sides.asker.seconds[what], 2)}
            for what, n in sides.asker.n_prompts.items()
        },
        "predictions": sum(row["method"] != MEANS for row in rows),
        "gates": {str(segment): mediator.as_json() for segment, mediator in mediators.items()},
        "content_free": None if sides.content_free is None else sides.content_free.tolist(),
        "recovered": recovered(plan, histories),
    }
    with whole(folder / ANSWERS) as scratch:
        as_frame(rows).to_parquet(scratch)
    write_json(folder / RUN, run, indent=1)
    ledger.remove()
    return run, pd.read_parquet(folder / ANSWERS)


def _ask(
    recipe: LogoRecipe, base: Base, plan: Plan, sides: Sides, ledger: Ledger, folder: Path
) -> list[dict[str, Any]]:
    """Everything that a model has to say; returns how the modules were trained."""
    from unswayed.models.load import loaded_lm

    lm = loaded_lm(base.model, base.tokenizer)
    sides.ask_own_past(lm)
    training = []
    if sides.speakers:
        memories = (
            [(ADAPTER, plan.stages, plan.asked_segments)]
            if not recipe.settings.joint
            else [(f"{ADAPTER}-{n}", plan.stages[: n - 1], [n]) for n in plan.asked_segments]
        )
        for name, stages, numbers in memories:
            training += _train(recipe, base, stages, numbers, sides, ledger, folder / name)
        for number, module in sorted(sides.speakers - sides.answered):  # trained by a run before
            if _asked_key(number, module) not in ledger:
                raise InputError(
                    f"{folder} has modules that are trained past segment {number}, but lacks what "
                    "they answered: remove the folder and run again"
                )
            sides.ask_global(lm, number, module)
        sides.join_global()
    sides.ask_prompted(lm)
    sides.ask_candidates(lm)
    return training


def _train(
    recipe: LogoRecipe,
    base: Base,
    stages: Sequence[Stage],
    numbers: Sequence[int],
    sides: Sides,
    ledger: Ledger,
    folder: Path,
) -> list[dict[str, Any]]:
    """Train a module per community through some stages, and ask each about segments that follow.

    Args:
        numbers: of the segments that are asked about.
    """
    from unswayed.models.load import loaded_lm

    clock = time.perf_counter()
    learnt = {  # module -> segments in which it has lessons
        module: [stage.segment for stage in stages if module in trained_modules([stage])]
        for module in trained_modules(stages)
    }

    def on_stage(model: Any, module: int, stage: Stage) -> None:
        nonlocal clock
        spent = round(time.perf_counter() - clock, 2)
        ledger.once(f"trained {folder.name} {module} {stage.segment}", lambda: spent)
        later = min((n for n in learnt[module] if n > stage.segment), default=math.inf)
        for number in numbers:
            if stage.segment < number <= later and (number, module) in sides.speakers:
                sides.ask_global(loaded_lm(model, base.tokenizer), number, module)
                ledger.once(_asked_key(number, module), lambda: True)
        clock = time.perf_counter()

    manifests = train_global(base, stages, recipe.settings, folder, on_stage)
    training = []
    for module, manifest in manifests.items():
        keys = [f"trained {folder.name} {module} {segment}" for segment in learnt[module]]
        stages_learnt = manifest[SEGMENTS]
        training.append(
            {
                "community": module + 1,
                "segments": len(stages_learnt),
                "samples": recipe.settings.epochs * sum(one["samples"] for one in stages_learnt),
                "losses": [one["losses"] for one in stages_learnt],
                "seconds": round(sum(ledger.value(key) for key in keys if key in ledger), 2),
            }
        )
    return training


def _asked_key(number: int, module: int) -> str:
    """The finding that a module was asked about a segment."""
    return f"asked {number} {module}"


# -- identity ------------------------------------------------------------------------------------


def make_identity(
    recipe: LogoRecipe, histories: Histories, base: Base, methods: Sequence[str]
) -> dict[str, Any]:
    """What makes two runs the same, as JSON, without paths of this machine."""
    events = [dataclasses.astuple(event) for event in histories.events]
    return as_json(
        {
            "model": base.name,
            "weights": base.weights,
            "histories": without_folders(recipe.histories),
            "events": digest(events)[:16],
            "methods": methods,
            "logo": recipe.logo,
            "settings": recipe.settings,
        }
    )


# -- from what was said to answers ---------------------------------------------------------------


def fit_mediators(plan: Plan, sides: Sides, l2: float) -> dict[int, LearnedMediator]:
    """Segment of test questions -> gate, from the fit users' answers in the segments before it.

    If there are none, both sides weigh the same there.
    """
    rows = []
    for i, view in enumerate(plan.views):
        if view.target.part == FIT and i in sides.sides:
            candidates, p_local, p_global = sides.sides[i]
            answer = _best(candidates, view, plan.task)
            row = MediatorRow(
                view.target.event.user, p_local, p_global, len(view.past), view.age, answer
            )
            rows.append((view.target.segment, row))
    tested = sorted({c.target.segment for c in plan.views if c.target.part == TEST})
    mediators = {}
    for s in tested:
        if earlier := [row for number, row in rows if number < s]:
            mediators[s] = fit_mediator(earlier, l2, calibrate=plan.task.labels is not None)
        else:
            log.warning("no fit user has an answer before segment %d: equal weights there", s)
            mediators[s] = EQUAL
    return mediators


def _best(candidates: Sequence[str], view: TargetView, task: Task) -> int:
    """The label that was given; of candidate texts the one nearest to what was given (ROUGE-L)."""
    answer = view.target.event.response
    if task.labels is not None:
        return task.labels.index(answer)
    return int(np.argmax(rouge_l(candidates, [answer] * len(candidates))))


def recovered(plan: Plan, histories: Histories) -> dict[str, dict[str, float | None]] | None:
    """How well the last stage places users by their events before the last segment; None where
    there is no truth.

    Returns:
        Part -> the adjusted Rand index against the true communities, of "all" users with any event,
        of "long" ones, with at least LONG, and of "regular" ones: those of them who were not
        planted as cold or skewed. None if there are none.
    """
    from sklearn.metrics import adjusted_rand_score

    truth = (histories.truth or {}).get("community")
    if truth is None:
        return None
    communities, start = plan.stages[-1].communities, plan.parts[-1][0].time
    planted = {*histories.truth["cold"], *histories.truth["skewed"]}
    past = {user: before(histories.of(user), start) for user in histories.users}

    def index(users: Iterable[str]) -> float | None:
        users = list(users)
        placed = [communities.nearest(past[user]) for user in users]
        return (
            float(adjusted_rand_score([truth[user] for user in users], placed)) if users else None
        )

    index_by_part = {}
    for part, users in dataclasses.asdict(plan.split).items():
        long = [user for user in users if len(past[user]) >= LONG]
        index_by_part[part] = {
            "all": index(user for user in users if past[user]),
            "long": index(long),
            "regular": index(user for user in long if user not in planted),
        }
    return index_by_part
