"""LoGo as a memory of the audit: what a persona said, and what people like them say.

The population are personas that are not asked about. Their communities are found by their texts,
and one LoRA adapter is trained on what they said of themselves, each lesson beneath the description
of its user's community. A persona that is asked about is placed in a community by its own texts.

The local side is the bare model, which reads the snippets nearest to the question; the global side
is the adapter, which reads the description of the community and nothing of the user. Either both
are asked and fused (`mediator.shrinkage`), or the adapter is on while the model reads both.

Every HELD-th base persona of the population is kept out of communities and adapter: its lessons
tell whether the adapter learnt anything.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from unswayed.core.files import read_json, write_json
from unswayed.data.personas import Persona
from unswayed.display.numbers import listed
from unswayed.logo.ask import lesson_samples
from unswayed.logo.communities import COMMUNITIES, Communities
from unswayed.logo.mediator import shrinkage
from unswayed.logo.population import (
    LatentSemantics,
    LogoTraining,
    base_ids,
    community_prompt,
    events_of,
    make_lessons,
    persona_communities,
    persona_texts,
    split,
)
from unswayed.memory.retrieval import RetrievalMemory
from unswayed.models.adapters import read_manifest, remembering, write_manifest
from unswayed.models.base import Base
from unswayed.plum.samples import Sample
from unswayed.plum.settings import PlumSettings
from unswayed.scoring.chat import Message

log = logging.getLogger(__name__)

SNIPPETS = 3  # as `--memory retrieval`
USERS = "users"  # what the adapter learns, in its manifest


def mean_loss(base: Base, model: Any, samples: Sequence[Sample], settings: PlumSettings) -> float:
    """Mean over the weighted tokens of all samples of -log p(token), in nats."""
    import torch

    from unswayed.plum.loss import padded_pass, total_weight, tree_pass, weighted_loss
    from unswayed.plum.train import within

    make_pass, normaliser = padded_pass if base.padded else tree_pass, total_weight(samples)
    with torch.no_grad():
        return sum(
            float(weighted_loss(model, make_pass(base.model, part), normaliser))
            for part in within(samples, settings.pass_tokens)
        )


# -- the memory ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class GlobalView:
    """The adapter, which reads of a user only what their community says."""

    description: str
    base: Base
    folder: Path

    def messages(self, question: str) -> list[Message]:
        return community_prompt(self.description, question)

    def active(self, model: Any) -> AbstractContextManager[Any]:
        """Switches the adapter on in an lm-eval model (`model.model`)."""
        return remembering(dataclasses.replace(self.base, model=model.model), self.folder)


class LogoMemory:
    """What the user said, and what a population that the user is not part of taught.

    Args:
        base: what the adapter is trained on, see `models.base.loaded_base`.
        folder: for the adapter and the communities, made when a user is first remembered and kept.
        population: personas to learn from, of at least two base personas.
        k: of `mediator.shrinkage`, how many slots the population's word is worth; None: the adapter
            is on while the model reads of user and community, and nothing is fused.
    """

    def __init__(
        self,
        base: Base,
        folder: Path,
        population: Sequence[Persona],
        training: LogoTraining,
        k: int | None,
    ) -> None:
        self._base, self._folder, self._training, self._k = base, folder, training, k
        self._learners, self._held_out = split(population)
        self._local = RetrievalMemory(SNIPPETS)
        self._communities: Communities | None = None
        self.style = "weights" if k is None else f"shrinkage-{k}"
        self.forget()

    @property
    def name(self) -> str:
        return "none" if self._global is None else "logo"

    def remember(self, persona: Persona) -> None:
        """Place the persona; the first time, learn from the population if that was not done.

        Raises:
            InputError: as `plum.train.train`.
        """
        self.learn()
        self._local.remember(persona)
        self._n = len(persona.slots)
        description = self._communities.descriptions[self.community(persona)]
        self._global = GlobalView(description, self._base, self._folder)

    def messages(self, question: str) -> list[Message]:
        """What the local side reads; where nothing is fused, with the community at the end."""
        messages = self._local.messages(question)
        if self._global is None or self._k is not None:
            return messages
        system, question_turn = messages
        content = system["content"] + self._global.description
        return [system | {"content": content}, question_turn]

    def active(self, model: Any) -> AbstractContextManager[Any]:
        if self._global is None or self._k is not None:
            return nullcontext()
        return self._global.active(model)

    def views(self) -> list[Any]:
        """The local and the global side; none where nothing is to be fused."""
        return [] if self._global is None or self._k is None else [self._local, self._global]

    def fuse(self, scores: Sequence[Sequence[float]]) -> list[float]:
        """Log-probabilities of the options (nats), from their scores in each of the views."""
        from scipy.special import softmax

        local, everyone = (softmax(np.asarray(side, dtype=float)) for side in scores)
        return np.log(shrinkage(local, everyone, self._n, self._k).probabilities).tolist()

    def forget(self) -> None:
        """Know no user; what was learnt from the population stays."""
        self._local.forget()
        self._n, self._global = 0, None

    # -- the population

    def learn(self) -> None:
        """Find communities and train the adapter, or take those that are there.

        The manifest says what the lessons held out lost (nats per token of the answer) before and
        after.
        """
        if self._communities is not None:
            return
        from unswayed.plum.train import train_samples

        communities, settings = self._load_communities(), self._training.settings
        samples: dict[str, list[Sample]] = {}
        for sample in self._samples(self._learners, communities):
            samples.setdefault(sample.conversation, []).append(sample)
        if read_manifest(self._folder, USERS) is None:
            lessons = sum(map(len, samples.values()))
            log.info(
                "one adapter to train, on %d lessons of %d users; it stays in %s",
                *(lessons, len(samples), self._folder),
            )
        manifest = train_samples(self._base, samples, settings, self._folder, learnt=USERS)
        if "held_out" not in manifest:
            checks = self._samples(self._held_out, communities)
            before = mean_loss(self._base, self._base.model, checks, settings)
            with remembering(self._base, self._folder) as model:
                after = mean_loss(self._base, model, checks, settings)
            loss = {"before": before, "after": after, "lessons": len(checks)}
            write_manifest(self._folder, manifest | {"held_out": loss})
        self._communities = communities

    def _samples(self, personas: Sequence[Persona], communities: Communities) -> list[Sample]:
        return lesson_samples(
            self._base,
            make_lessons(personas, communities),
            self._training.settings,
            lambda lesson: lesson.event.user,
            lambda lesson, excess: (
                f"persona {lesson.event.user} {excess}: shorten its texts, or raise max_length in "
                "the recipe's settings if the model can take it"
            ),
        )

    def _load_communities(self) -> Communities:
        """The communities on disk, or new ones, written there."""
        path = self._folder / COMMUNITIES
        complaint = "is no file of communities: remove the folder, and it is made again"
        if saved := read_json(path, ["kind", "centres", "descriptions"], complaint):
            embedder = LatentSemantics(persona_texts(self._learners))
            return Communities.from_json(saved, embedder)
        communities = persona_communities(self._learners, self._training)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(path, communities.as_json(), indent=1)
        return communities

    def community(self, persona: Persona) -> int:
        """The number, from 0, of the community of a persona; to be called after `learn`."""
        return self._communities.nearest(events_of(persona))

    def notes(self, personas: Sequence[Persona]) -> list[str]:
        """What a reader must know of the population, in sentences.

        Args:
            personas: those of the run.
        """
        if not personas:
            return []
        self.learn()
        loss = read_manifest(self._folder, USERS)["held_out"]
        groups = [
            f"{c + 1} ({len(members)}: {_made_of(members)})"
            for c, members in self._by_place(self._learners)
        ]
        placed = [
            f"{condition} "
            + listed(
                f"{len(members)} in {c + 1}" for c, members in self._by_place(personas, condition)
            )
            for condition in dict.fromkeys(persona.condition for persona in personas)
        ]
        notes = [
            f"The global memory learnt from {len(self._learners)} users, versions of "
            f"{len(base_ids(self._learners))} base personas that were not asked about. Found by "
            f"their texts, these fall into communities: {'; '.join(groups)}.",
            f"Users asked about were placed in these communities: {'; '.join(placed)}.",
            f"On {loss['lessons']} lessons of users that were neither learnt nor asked about, the "
            f"adapter's loss is {loss['after']:.3f} nats per token of the answer, against "
            f"{loss['before']:.3f} without it. If it is not lower, the global memory learnt "
            "nothing, and says nothing about the user.",
        ]
        if self._k is None:
            return notes
        slots = sorted({len(persona.slots) for persona in personas})
        weights = [f"{100 * self._k / (n + self._k):.0f} % with {n} slots known" for n in slots]
        return [*notes, f"The population's word weighed {listed(weights)}."]

    def _by_place(
        self, personas: Sequence[Persona], condition: str | None = None
    ) -> list[tuple[int, list[Persona]]]:
        """Communities with the personas, of a condition or of all, that are placed in them."""
        members: dict[int, list[Persona]] = {}
        for persona in personas:
            if condition in (None, persona.condition):
                members.setdefault(self.community(persona), []).append(persona)
        return sorted(members.items())


class UntrainedLogo(LogoMemory):
    """The same prompts, without the adapter; nothing is written."""

    def learn(self) -> None:
        if self._communities is None:
            self._communities = persona_communities(self._learners, self._training)


def _made_of(personas: Sequence[Persona]) -> str:
    """The conditions of some personas, the most frequent first."""
    counts = Counter(persona.condition for persona in personas)
    return listed(
        f"{100 * n / len(personas):.0f} % {condition}" for condition, n in counts.most_common()
    )
