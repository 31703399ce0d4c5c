"""Global memory: LoRA modules, one for each community, that learn how its people answer.

Time is cut into segments. A stage is what can be learnt by the end of one: communities of the
training users, found on their events up to then, and a draw of their answers from that segment
itself. Communities are found anew at each stage; one that has most of its people in common with one
of the stage before goes on with its module. The modules go through the stages in order, with PLUM's
trainer. A question of a later segment is answered by the modules, and with the communities, of the
stage before: nothing that happened since can enter, and users who are not training users nowhere.

A lesson is learnt by the module of the community in which its user's other events place them. Some
lessons also show what was known of their user before: the profile and the nearest events. From
these the module learns to weigh a person against a community, with short histories too. Its
profiles are always counted, also where the model writes those that it reads without the module.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unswayed.core.errors import InputError
from unswayed.core.files import read_json, write_json
from unswayed.core.ledger import as_json, digest
from unswayed.core.recipes import recipe_command
from unswayed.data.histories import Event, Task, load_histories, past_of, segments
from unswayed.logo.ask import Lesson, lesson_samples
from unswayed.logo.communities import COMMUNITIES, Communities, find_communities
from unswayed.logo.local import counted_profile, local_prompt, retrieve
from unswayed.logo.recipe import LogoRecipe, LogoSettings, read_recipe
from unswayed.models.base import Base
from unswayed.plum.samples import Sample
from unswayed.plum.settings import PlumSettings
from unswayed.plum.train import train_samples
from unswayed.scoring.chat import Message

log = logging.getLogger(__name__)

SEGMENTS = "segments"  # what the modules learn, in their manifests
UNLIKELY = 0.05  # a community that is less likely than this has no say


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the global memory learns by the end of a segment.

    Attributes:
        segment: its number, from 1.
        communities: of the training users, by their events up to its end.
        modules: (K,) number of each community's module.
        lessons: from its events.
    """

    segment: int
    communities: Communities
    modules: tuple[int, ...]
    lessons: tuple[Lesson, ...]

    @property
    def id(self) -> str:
        return f"segment {self.segment}"


def make_stages(
    task: Task,
    parts: Sequence[Sequence[Event]],
    users: Sequence[str],
    logo: LogoSettings,
    seed: int,
    embedder: Any = None,
) -> list[Stage]:
    """A stage for each segment.

    Args:
        parts: segments, in the order of time.
        users: who may be learnt from.
        seed: of the draws and of the clustering.
        embedder: has `embed(texts)`; None clusters by tastes. Evidence is found as the settings
            say.

    Raises:
        InputError: a segment has no answer of these users.
    """
    learners, stages = set(users), []
    near = evidence_embedder(logo)
    past: dict[str, list[Event]] = defaultdict(list)
    for number, part in enumerate(parts, start=1):
        taught_events = [event for event in part if event.user in learners]
        for event in taught_events:
            past[event.user].append(event)
        answered = [event for event in taught_events if event.response]
        if not answered:
            raise InputError(
                f"segment {number} has no answer of a user to learn from: take "
                "fewer segments, or more users"
            )
        k = min(logo.communities, len(past))
        communities = find_communities(dict(past), task, k, seed, embedder)
        modules = (
            _continued(stages[-1], communities, past)
            if stages
            else tuple(range(len(communities.shares)))
        )
        rng = random.Random(f"{seed}/{number}")
        lessons = []
        for event in fair_draw(answered, logo.samples_per_segment, rng):
            context = _lesson_context(past[event.user], event, logo, rng)
            reads = module_prompt(task, event.query, context, logo, near)
            # Placed by what it shows, as when it is asked; or by all other events, if by none.
            placed_by = context or [other for other in past[event.user] if other is not event]
            lessons.append(
                Lesson(
                    event, reads, event.response, modules[communities.nearest(placed_by)], context
                )
            )
        stages.append(Stage(number, communities, modules, tuple(lessons)))
    return stages


def _continued(
    before: Stage, communities: Communities, histories: Mapping[str, Sequence[Event]]
) -> tuple[int, ...]:
    """(K,) modules of new communities: so that as many users as possible keep theirs (Kuhn 1955).
    A community that is left over takes a number that no other has."""
    from scipy.optimize import linear_sum_assignment

    shared = np.zeros((len(communities.shares), len(before.modules)))
    for events in histories.values():
        shared[communities.nearest(events), before.communities.nearest(events)] += 1
    continued = {
        int(new): before.modules[old]
        for new, old in zip(*linear_sum_assignment(shared, maximize=True), strict=True)
    }
    free = (number for number in itertools.count() if number not in continued.values())
    return tuple(
        continued[c] if c in continued else next(free) for c in range(len(communities.shares))
    )


def _lesson_context(
    past: Sequence[Event], event: Event, logo: LogoSettings, rng: random.Random
) -> tuple[Event, ...]:
    """What a lesson knows of its user: nothing, all that was before, or the beginning of it."""
    before = past_of(past, event)
    if rng.random() >= logo.evidence_share:
        return ()
    return before[: rng.choice([*(n for n in logo.cold if 0 < n < len(before)), len(before)])]


def module_prompt(
    task: Task, query: str, past: Sequence[Event], logo: LogoSettings, embedder: Any = None
) -> list[Message]:
    """What a module reads: the question and, if anything is known, the user's past.

    Args:
        past: events before the question; () leaves the decision to the community.
        embedder: of `evidence_embedder`.
    """
    evidence = retrieve(past, query, logo.evidence, embedder)
    return local_prompt(task, query, evidence, counted_profile(past, task))


def fair_draw(events: Sequence[Event], count: int, rng: random.Random) -> list[Event]:
    """At most `count` events, of each user as many as of any other as far as they have them; in
    the order given.
    """
    by_user: dict[str, list[int]] = defaultdict(list)
    for place, event in enumerate(events):
        by_user[event.user].append(place)
    rounds = []
    for places in by_user.values():
        rng.shuffle(places)
        rounds += [(turn, rng.random(), place) for turn, place in enumerate(places)]
    return [events[place] for place in sorted(place for *_, place in sorted(rounds)[:count])]


def trained_modules(stages: Sequence[Stage]) -> list[int]:
    """Numbers of the modules that have learnt anything by the end of these stages, sorted."""
    return sorted({lesson.module for stage in stages for lesson in stage.lessons})


def module_weights(
    stages: Sequence[Stage], past: Sequence[Event], alone: bool = False
) -> dict[int, float]:
    """Modules that have a say about a user after these stages, and how much: p of the community.

    Modules that have learnt nothing are left out, and communities less likely than UNLIKELY.

    Args:
        past: what the user is placed by.
        alone: the likeliest has it all.
    """
    trained = trained_modules(stages)
    places = zip(stages[-1].modules, stages[-1].communities.place(past).tolist(), strict=True)
    p = {module: share for module, share in places if module in trained}
    best = max(p, key=p.__getitem__)
    if alone or p[best] < UNLIKELY:
        return {best: 1.0}
    likely = {module: share for module, share in p.items() if share >= UNLIKELY}
    return {module: share / sum(likely.values()) for module, share in likely.items()}


# -- training ------------------------------------------------------------------------------------


def train_global(
    base: Base,
    stages: Sequence[Stage],
    settings: PlumSettings,
    folder: Path,
    on_stage: Callable[[Any, int, Stage], None] = lambda model, module, stage: None,
    accelerator: Any = None,
) -> dict[int, dict[str, Any]]:
    """Train the modules through the stages, one after another, or go on.

    Args:
        folder: for communities.json, and a folder with adapter and manifest for each module.
        on_stage: called with the model, a module on, its number and the stage that it has learnt,
            after each stage in which it has lessons and before that checkpoint.
        accelerator: as in `unswayed.plum.train.train`.

    Returns:
        Module -> PLUM's manifest, in which segments stand in the place of conversations.

    Raises:
        InputError: a lesson is too long, or the folder holds another memory.
    """
    samples: dict[int, dict[str, list[Sample]]] = {module: {} for module in trained_modules(stages)}
    for stage in stages:
        made = lesson_samples(base, stage.lessons, settings, lambda _, s=stage: s.id, _too_long)
        for lesson, sample in zip(stage.lessons, made, strict=True):
            samples[lesson.module].setdefault(stage.id, []).append(sample)
    if accelerator is None or accelerator.is_main_process:
        _write_communities(folder, stages)
    by_id = {stage.id: stage for stage in stages}
    manifests = {}
    for module, pieces in samples.items():
        log.info("module of community %d: %d lessons", module + 1, sum(map(len, pieces.values())))
        manifests[module] = train_samples(
            base,
            pieces,
            settings,
            module_folder(folder, module),
            lambda model, done, module=module: on_stage(model, module, by_id[done[-1]]),
            accelerator,
            SEGMENTS,
        )
    return manifests


def _too_long(lesson: Lesson, excess: str) -> str:
    return (
        f"event {lesson.event.id!r} {excess}: shorten its query or response, lower "
        "logo.evidence_share or logo.evidence, or raise settings.max_length if the model can take "
        "it"
    )


def module_folder(folder: Path, module: int) -> Path:
    """Where a module lies, in the folder of the global memory."""
    return folder / f"community-{module + 1}"


def _write_communities(folder: Path, stages: Sequence[Stage]) -> None:
    """What the modules are trained with; another memory's folder is refused."""
    content = {
        "stages": [
            {
                "id": stage.id,
                "lessons": digest([[e.event.id, e.reads, e.module] for e in stage.lessons])[:16],
                "modules": list(stage.modules),
                "communities": stage.communities.as_json(),
            }
            for stage in stages
        ]
    }
    path = folder / COMMUNITIES
    complaint = "is no file of communities: train in another folder"
    if saved := read_json(path, ["stages"], complaint):
        before = saved["stages"]
        if before != as_json(content["stages"])[: len(before)]:
            raise InputError(
                f"{folder} was begun with other histories, settings or communities: go on with the "
                "same ones, or train anew in another folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, content, indent=1)


def train_recipe(recipe: LogoRecipe) -> dict[int, dict[str, Any]]:
    """Train the global memory of a recipe on all users and all segments, into its output_dir.

    For use, that is: an evaluation leaves users and the last segment out and trains its own. Under
    several processes of `accelerate launch` every process takes its share of each batch.

    Returns:
        See `train_global`.
    """
    from unswayed.models.base import load_launched

    histories, logo, settings = load_histories(recipe.histories), recipe.logo, recipe.settings
    stages = make_stages(
        histories.task,
        segments(histories.events, logo.segments),
        histories.users,
        logo,
        settings.seed,
        community_embedder(logo),
    )
    accelerator, base = load_launched(recipe.model, recipe.dtype)
    several = accelerator if accelerator.num_processes > 1 else None
    return train_global(base, stages, settings, Path(recipe.output_dir), accelerator=several)


def community_embedder(logo: LogoSettings) -> Any:
    """What embeds users' events, None if communities are found by tastes."""
    return caching_embedder(logo.embedder) if logo.communities_by == "embedding" else None


def evidence_embedder(logo: LogoSettings) -> Any:
    """What a user's events are found by, None if they are found by words."""
    return caching_embedder(logo.embedder) if logo.evidence_by == "embedding" else None


class CachingEmbedder:
    """An embedder that reads each text once: events come back with every question."""

    def __init__(self, embedder: Any) -> None:
        self._embedder, self._rows = embedder, {}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d), as `unswayed.models.vectors.Embedder.embed`."""
        if new := [text for text in dict.fromkeys(texts) if text not in self._rows]:
            self._rows.update(zip(new, self._embedder.embed(new), strict=True))
        return np.array([self._rows[text] for text in texts])


@functools.cache
def caching_embedder(model: str) -> CachingEmbedder:
    """The embedder of a model, loaded once."""
    from unswayed.models.vectors import Embedder

    return CachingEmbedder(Embedder(model))


def run_recipe(doc: str, argv: Sequence[str] | None = None) -> int:
    """The recipe's shell: train the global memory, say where it is; returns the exit code."""

    def work(config: Sequence[Path]) -> None:
        recipe = read_recipe(config)

        for module, manifest in train_recipe(recipe).items():
            for entry in manifest[SEGMENTS]:
                place = module_folder(Path(recipe.output_dir), module)
                print(f"{place}: {entry['id']}, {entry['samples']} samples")

    return recipe_command(doc, argv, work)
