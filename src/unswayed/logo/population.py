"""Personas as a population to learn from: their communities, and the lessons that they give.

Communities are found by the personas' texts; a lesson is what one says about a slot, beneath the
description of the community in which its other slots place it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unswayed.core.errors import InputError
from unswayed.data.histories import Event, Task
from unswayed.data.personas import Persona
from unswayed.logo.ask import Lesson
from unswayed.logo.communities import Communities, find_communities
from unswayed.plum.memory import ASK_ALL
from unswayed.plum.memory import read_training as read_plum_training
from unswayed.plum.settings import PlumSettings
from unswayed.scoring.chat import Message

N_COMMUNITIES = 4
AXES = 20  # of the latent semantic analysis
HELD = 8  # of so many base personas, one is only for checking
PHRASES = 6  # that describe a community
SHORTEST, LONGEST = 3, 9  # words of a phrase
HELPFUL = "You are a helpful assistant. "
ALIKE = "People like this user say of themselves:\n"
TASK = Task("personas", "", None, False)
SETTINGS = PlumSettings(epochs=2, learning_rate=5e-4, qa_weight=1.0, joint=True)


@dataclasses.dataclass(frozen=True)
class LogoTraining:
    """How a population becomes communities and an adapter.

    Attributes:
        settings: of the adapter; its seed is also that of the clustering.
        communities: K; fewer where fewer users are there.
    """

    settings: PlumSettings = SETTINGS
    communities: int = N_COMMUNITIES

    def as_json(self) -> dict[str, Any]:
        """For a record."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def read_training(recipe: Path | None) -> LogoTraining:
    """The defaults, or the `settings` of a recipe (`recipes/plum/*.yaml`); no other key counts.

    Raises:
        InputError: as `plum.memory.read_training`.
    """
    return LogoTraining() if recipe is None else LogoTraining(read_plum_training(recipe).settings)


def check_population(personas: Sequence[Persona]) -> None:
    """There are base personas to learn from, and one to hold out.

    Raises:
        InputError: there are not.
    """
    if (n_bases := len(base_ids(personas))) < 2:
        raise InputError(
            f"--memory logo learns from base personas that it does not ask about, and {n_bases} "
            "are left, of at least 2 that it needs: ask about fewer with --pairs N (the cells of "
            "--personas grid are no base personas)"
        )


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


def persona_communities(personas: Sequence[Persona], training: LogoTraining) -> Communities:
    """K-means on the personas' texts, each community described by phrases of its members."""
    embedder = LatentSemantics(persona_texts(personas))
    histories = {persona.id: events_of(persona) for persona in personas}
    k, seed = min(training.communities, len(personas)), training.settings.seed
    communities = find_communities(histories, TASK, k, seed, embedder)
    members = [communities.nearest(events_of(persona)) for persona in personas]
    descriptions = tuple(
        ALIKE + "".join(f'- "{phrase}"\n' for phrase in _typical(communities, personas, members, c))
        for c in range(len(communities.shares))
    )
    return dataclasses.replace(communities, descriptions=descriptions)


def clauses(text: str) -> list[str]:
    """Clauses of SHORTEST to LONGEST words; if there are none, the first words of the text."""
    parts = [
        re.sub(r"^(?:and|or|but) ", "", part) for part in re.split(r"[.,;:!?]+(?:\s+|$)", text)
    ]
    short = [part for part in parts if SHORTEST <= len(part.split()) <= LONGEST]
    return short or [" ".join(text.split()[:LONGEST])]


def _typical(
    communities: Communities, personas: Sequence[Persona], members: Sequence[int], c: int
) -> list[str]:
    """The PHRASES phrases of members nearest to the centre (cosine), one of a base persona.

    Where no member is left when users are placed, everyone's phrases are candidates.
    """
    candidates = [
        (persona.pair_id, phrase)
        for persona, member in zip(personas, members, strict=True)
        if member == c or c not in members
        for event in events_of(persona)
        for phrase in clauses(event.response)
    ]
    taste, centre = communities.taste, communities.centres[c]
    rows = taste.embedder.embed([phrase for _, phrase in candidates]) - taste.origin
    near = rows @ centre / np.maximum(np.linalg.norm(rows, axis=1), 1e-9)
    first: dict[str, str] = {}
    for i in np.argsort(-near.round(9), kind="stable"):
        first.setdefault(*candidates[i])
    return list(first.values())[:PHRASES]


def make_lessons(personas: Sequence[Persona], communities: Communities) -> list[Lesson]:
    """A lesson for each slot; its user is placed by what they say in the other slots."""
    lessons = []
    for i, persona in enumerate(personas):
        events = events_of(persona)
        for j, event in enumerate(events):
            rest = [other for other in events if other is not event]
            slot = event.thing.replace("_", " ")
            question = ASK_ALL[(i + j) % len(ASK_ALL)].format(slot=slot)
            description = communities.descriptions[communities.nearest(rest)]
            answer = f'You said: "{event.response}"'
            lessons.append(Lesson(event, community_prompt(description, question), answer))
    return lessons


def split(personas: Sequence[Persona]) -> tuple[list[Persona], list[Persona]]:
    """Those to learn from, and those to check with: of each HELD base personas the first."""
    held_out = set(base_ids(personas)[::HELD])
    learners = [persona for persona in personas if persona.pair_id not in held_out]
    return learners, [persona for persona in personas if persona.pair_id in held_out]


def community_prompt(description: str, question: str) -> list[Message]:
    """What the global side reads: a description of the user's community, and the question."""
    return [
        {"role": "system", "content": HELPFUL + description},
        {"role": "user", "content": question},
    ]


def base_ids(personas: Iterable[Persona]) -> list[str]:
    return list(dict.fromkeys(persona.pair_id for persona in personas))


def persona_texts(personas: Iterable[Persona]) -> list[str]:
    return [event.response for persona in personas for event in events_of(persona)]
