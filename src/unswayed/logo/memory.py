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
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from unswayed.core.errors import InputError
from unswayed.core.files import read_text, write_text
from unswayed.data.histories import Event, Task
from unswayed.data.personas import Persona
from unswayed.logo.communities import Communities, find_communities
from unswayed.logo.local import listed
from unswayed.logo.mediator import shrinkage
from unswayed.memory.retrieval import RetrievalMemory
from unswayed.models.adapters import read_manifest, remembering, write_manifest
from unswayed.models.base import Base
from unswayed.plum.memory import ASK_ALL
from unswayed.plum.memory import read_training as read_plum_training
from unswayed.plum.samples import Sample
from unswayed.plum.settings import PlumSettings
from unswayed.scoring.chat import Message

log = logging.getLogger(__name__)

COMMUNITIES = 4
SNIPPETS = 3  # as `--memory retrieval`
AXES = 20  # of the latent semantic analysis
HELD = 8  # of so many base personas, one is only for checking
PHRASES = 6  # that describe a community
SHORTEST, LONGEST = 3, 9  # words of a phrase
FILE = "communities.json"

HELPFUL = "You are a helpful assistant. "
ALIKE = "People like this user say of themselves:\n"
TASK = Task("personas", "", None, False)
SETTINGS = PlumSettings(epochs=2, learning_rate=5e-4, qa_weight=1.0, joint=True)


@dataclasses.dataclass(frozen=True)
class Training:
    """How a population becomes communities and an adapter.

    Attributes:
        settings: of the adapter; its seed is also that of the clustering.
        communities: K; fewer where fewer users are there.
    """

    settings: PlumSettings = SETTINGS
    communities: int = COMMUNITIES

    def as_json(self) -> dict[str, Any]:
        """For a record."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def read_training(recipe: Path | None) -> Training:
    """The defaults, or the `settings` of a recipe (`recipes/plum/*.yaml`); no other key counts.

    Raises:
        InputError: as `plum.memory.read_training`.
    """
    return Training() if recipe is None else Training(read_plum_training(recipe).settings)


def check_population(personas: Sequence[Persona]) -> None:
    """There are base personas to learn from, and one to hold out.

    Raises:
        InputError: there are not.
    """
    if (left := len(_bases(personas))) < 2:
        raise InputError(
            f"--memory logo learns from base personas that it does not ask about, and {left} are "
            "left, of at least 2 that it needs: ask about fewer with --pairs N (the cells of "
            "--personas grid are no base personas)"
        )


# -- communities ---------------------------------------------------------------------------------


class LatentSemantics:
    """Latent semantic analysis (Deerwester et al. 1990): TF-IDF on its first AXES singular vectors.

    Args:
        texts: what the vocabulary, its rarity and the axes come from.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._words = TfidfVectorizer().fit(texts)
        rows = self._words.transform(texts)
        self._axes = TruncatedSVD(min(AXES, rows.shape[1]), random_state=0).fit(rows)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) rows of length 1; 0 for a text that shares no word."""
        rows = self._axes.transform(self._words.transform(texts))
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(lengths > 1e-9, lengths, 1)


def events_of(persona: Persona) -> list[Event]:
    """What a persona says of itself, slot by slot."""
    texts = persona.texts(first_person=True)
    return [Event(persona.id, i, "", text, thing=slot) for i, (slot, text) in enumerate(texts)]


def persona_communities(personas: Sequence[Persona], training: Training) -> Communities:
    """K-means on the personas' texts, each community described by phrases of its members."""
    embedder = LatentSemantics(_texts(personas))
    histories = {persona.id: events_of(persona) for persona in personas}
    k, seed = min(training.communities, len(personas)), training.settings.seed
    found = find_communities(histories, TASK, k, seed, embedder)
    members = [found.nearest(events_of(persona)) for persona in personas]
    descriptions = tuple(
        ALIKE + "".join(f'- "{phrase}"\n' for phrase in _typical(found, personas, members, c))
        for c in range(len(found.shares))
    )
    return dataclasses.replace(found, descriptions=descriptions)


def clauses(text: str) -> list[str]:
    """Clauses of SHORTEST to LONGEST words; if there are none, the first words of the text."""
    found = [
        re.sub(r"^(?:and|or|but) ", "", part) for part in re.split(r"[.,;:!?]+(?:\s+|$)", text)
    ]
    short = [part for part in found if SHORTEST <= len(part.split()) <= LONGEST]
    return short or [" ".join(text.split()[:LONGEST])]


def _typical(
    communities: Communities, personas: Sequence[Persona], members: Sequence[int], c: int
) -> list[str]:
    """The PHRASES phrases of members nearest to the centre (cosine), one of a base persona.

    Where no member is left when users are placed, everyone's phrases are candidates.
    """
    said = [
        (persona.pair_id, phrase)
        for persona, member in zip(personas, members, strict=True)
        if member == c or c not in members
        for event in events_of(persona)
        for phrase in clauses(event.response)
    ]
    taste, centre = communities.taste, communities.centres[c]
    rows = taste.embedder.embed([phrase for _, phrase in said]) - taste.origin
    near = rows @ centre / np.maximum(np.linalg.norm(rows, axis=1), 1e-9)
    first: dict[str, str] = {}
    for i in np.argsort(-near.round(9), kind="stable"):
        first.setdefault(*said[i])
    return list(first.values())[:PHRASES]


# -- lessons -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What a user of the population says about one slot.

    Attributes:
        persona: its id.
        reads: the prompt.
    """

    persona: str
    reads: list[Message]
    answer: str


def make_lessons(personas: Sequence[Persona], communities: Communities) -> list[Lesson]:
    """A lesson for each slot; its user is placed by what they say in the other slots."""
    lessons = []
    for i, persona in enumerate(personas):
        events = events_of(persona)
        for j, event in enumerate(events):
            others = [other for other in events if other is not event]
            slot = event.thing.replace("_", " ")
            question = ASK_ALL[(i + j) % len(ASK_ALL)].format(slot=slot)
            description = communities.descriptions[communities.nearest(others)]
            answer = f'You said: "{event.response}"'
            lessons.append(Lesson(persona.id, _alike(description, question), answer))
    return lessons


def split(personas: Sequence[Persona]) -> tuple[list[Persona], list[Persona]]:
    """Those to learn from, and those to check with: of each HELD base personas the first."""
    held = set(_bases(personas)[::HELD])
    learnt = [persona for persona in personas if persona.pair_id not in held]
    return learnt, [persona for persona in personas if persona.pair_id in held]


def _alike(description: str, question: str) -> list[Message]:
    return [
        {"role": "system", "content": HELPFUL + description},
        {"role": "user", "content": question},
    ]


def _samples(base: Base, lessons: Sequence[Lesson], settings: PlumSettings) -> list[Sample]:
    """The lessons as tokens, of which the answer's count.

    Raises:
        InputError: one is too long.
    """
    from unswayed.logo.ask import make_lesson
    from unswayed.models.load import loaded_lm
    from unswayed.scoring.ask import open_prompts

    lm = loaded_lm(base.model, base.tokenizer)
    limit = min(settings.max_length, base.max_length or settings.max_length)
    prompts = open_prompts(lm, [lesson.reads for lesson in lessons])
    samples = [
        make_lesson(lm, lesson.persona, prompt, lesson.answer, settings.qa_weight)
        for lesson, prompt in zip(lessons, prompts, strict=True)
    ]
    for sample in samples:
        if len(sample.ids) > limit:
            raise InputError(
                f"persona {sample.conversation} makes a sample of {len(sample.ids)} tokens, more "
                f"than the limit of {limit}: shorten its texts, or raise max_length in the "
                "recipe's settings if the model can take it"
            )
    return samples


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
        return _alike(self.description, question)

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
        training: Training,
        k: int | None,
    ) -> None:
        self._base, self._folder, self._training, self._k = base, folder, training, k
        self._learnt, self._held = split(population)
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
        system, asked = messages
        return [system | {"content": system["content"] + self._global.description}, asked]

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

        local, everyone = (softmax(np.asarray(one, dtype=float)) for one in scores)
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

        communities, settings = self._find(), self._training.settings
        samples: dict[str, list[Sample]] = {}
        for sample in _samples(self._base, make_lessons(self._learnt, communities), settings):
            samples.setdefault(sample.conversation, []).append(sample)
        if read_manifest(self._folder) is None:
            lessons = sum(map(len, samples.values()))
            log.info(
                "one adapter to train, on %d lessons of %d users; it stays in %s",
                *(lessons, len(samples), self._folder),
            )
        manifest = train_samples(self._base, samples, settings, self._folder)
        if "held_out" not in manifest:
            checks = _samples(self._base, make_lessons(self._held, communities), settings)
            before = mean_loss(self._base, self._base.model, checks, settings)
            with remembering(self._base, self._folder) as model:
                after = mean_loss(self._base, model, checks, settings)
            found = {"before": before, "after": after, "lessons": len(checks)}
            write_manifest(self._folder, manifest | {"held_out": found})
        self._communities = communities

    def _find(self) -> Communities:
        """The communities on disk, or new ones, written there."""
        path = self._folder / FILE
        if path.exists():
            embedder = LatentSemantics(_texts(self._learnt))
            return Communities.from_json(json.loads(read_text(path)), embedder)
        found = persona_communities(self._learnt, self._training)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found.as_json(), ensure_ascii=False, indent=1) + "\n")
        return found

    def community(self, persona: Persona) -> int:
        """The number, from 0, of the community of a persona; to be called after `learn`."""
        return self._communities.nearest(events_of(persona))

    def notes(self, asked: Sequence[Persona]) -> list[str]:
        """What a reader must know of the population, in sentences.

        Args:
            asked: the personas of the run.
        """
        if not asked:
            return []
        self.learn()
        loss = read_manifest(self._folder)["held_out"]
        groups = [
            f"{c + 1} ({len(own)}: {_made_of(own)})" for c, own in self._by_place(self._learnt)
        ]
        placed = [
            f"{condition} "
            + listed([f"{len(own)} in {c + 1}" for c, own in self._by_place(asked, condition)])
            for condition in dict.fromkeys(persona.condition for persona in asked)
        ]
        notes = [
            f"The global memory learnt from {len(self._learnt)} users, versions of "
            f"{len(_bases(self._learnt))} base personas that were not asked about. Found by their "
            f"texts, these fall into communities: {'; '.join(groups)}.",
            f"Users asked about were placed in these communities: {'; '.join(placed)}.",
            f"On {loss['lessons']} lessons of users that were neither learnt nor asked about, the "
            f"adapter's loss is {loss['after']:.3f} nats per token of the answer, against "
            f"{loss['before']:.3f} without it. If it is not lower, the global memory learnt "
            "nothing, and says nothing about the user.",
        ]
        if self._k is None:
            return notes
        slots = sorted({len(persona.slots) for persona in asked})
        weights = [f"{100 * self._k / (n + self._k):.0f} % with {n} slots known" for n in slots]
        return [*notes, f"The population's word weighed {listed(weights)}."]

    def _by_place(
        self, personas: Sequence[Persona], condition: str | None = None
    ) -> list[tuple[int, list[Persona]]]:
        """Communities with the personas, of a condition or of all, that are placed in them."""
        found: dict[int, list[Persona]] = {}
        for persona in personas:
            if condition in (None, persona.condition):
                found.setdefault(self.community(persona), []).append(persona)
        return sorted(found.items())


def _made_of(personas: Sequence[Persona]) -> str:
    """The conditions of some personas, the most frequent first."""
    counts = Counter(persona.condition for persona in personas)
    return listed(
        [f"{100 * n / len(personas):.0f} % {condition}" for condition, n in counts.most_common()]
    )


def _bases(personas: Iterable[Persona]) -> list[str]:
    return list(dict.fromkeys(persona.pair_id for persona in personas))


def _texts(personas: Iterable[Persona]) -> list[str]:
    return [event.response for persona in personas for event in events_of(persona)]
