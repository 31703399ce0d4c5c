"""PLUM as a memory of the audit: who the user is stands in the weights, not in the prompt.

A persona is told as short conversations in its own words, one for each slot. Questions on them are
made without a model (`augment.extract_pairs`), and a LoRA adapter is trained on all of them
together: learnt one after another, the last slot drives out those before it. The model then reads
the bare question, with the adapter switched on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

from unswayed.core.errors import InputError
from unswayed.data.personas import Persona
from unswayed.memory.conversation_memory import persona_conversations
from unswayed.memory.prompt import PromptMemory
from unswayed.models.adapters import (
    read_manifest,
    remembering,
    write_manifest,
)
from unswayed.models.base import Base
from unswayed.models.load import loaded_lm
from unswayed.plum.augment import Augmented
from unswayed.plum.qa import CLOSED, NEW_PHRASE, REPHRASED, QAPair
from unswayed.plum.recall import recall
from unswayed.plum.recipe import extracted_questions, read_recipe
from unswayed.plum.settings import AUGMENT_PERSONA, PlumSettings
from unswayed.scoring.chat import Message

ASK_ALL = (
    "What did I tell you about my {slot}?",
    "What do you know about my {slot}?",
    "What do you remember of my {slot}?",
    "Tell me what I said about my {slot}.",
)


@dataclasses.dataclass(frozen=True)
class PlumTraining:
    """How personas become adapters.

    Attributes:
        settings: of the training; always joint.
        augment: `AugmentSettings`.
    """

    settings: PlumSettings
    augment: dict[str, Any]


def read_training(recipe: Path | None) -> PlumTraining:
    """The defaults, or `settings` and `augment` of a recipe (`recipes/plum/*.yaml`).

    Its replay does not count: slots that are learnt together have nothing to replay.
    A recipe's other keys say what else it trains, and are not used.

    Raises:
        InputError: as `recipe.read_recipe`.
    """
    if recipe is None:
        return PlumTraining(PlumSettings(joint=True), AUGMENT_PERSONA)
    plum_recipe = read_recipe([recipe])
    augment = AUGMENT_PERSONA | (plum_recipe.augment or {})
    if augment.get("writer"):
        raise InputError(
            f"{recipe}: augment.writer: questions on personas are made of key phrases alone, leave "
            "it out"
        )
    settings = dataclasses.replace(plum_recipe.settings, joint=True, replay=0.0)
    return PlumTraining(settings, augment)


def persona_pairs(persona: Persona, training: PlumTraining) -> list[QAPair]:
    """Questions on what the user says of themself, slot by slot.

    Those on key phrases, and, so that every word is trained, those that ask for the whole slot.

    Raises:
        InputError: the texts are too short for questions on key phrases.
    """
    extracted = _extracted(persona, training).pairs()
    pairs = []
    for slot in persona_conversations(persona):
        name, answer = slot.id.replace("_", " "), f'You said: "{slot.turns[0]["content"]}"'
        pairs += [pair for pair in extracted if pair.conversation == slot.id]
        pairs += [QAPair(slot.id, "open", ask.format(slot=name), answer) for ask in ASK_ALL]
    return pairs


def persona_questions(persona: Persona, training: PlumTraining) -> list[QAPair]:
    """Held-out closed questions on what the user says: other wordings, trained and new phrases."""
    questions = _extracted(persona, training)
    held_out = questions.pairs(REPHRASED) + questions.pairs(NEW_PHRASE)
    return [pair for pair in held_out if pair.kind in CLOSED]


def _extracted(persona: Persona, training: PlumTraining) -> Augmented:
    try:
        return extracted_questions(persona_conversations(persona), training.augment)
    except InputError as error:
        raise InputError(
            f"persona {persona.id} cannot be trained into weights: {error}; personas of a few "
            "words, such as those of the grid, need --memory prompt, retrieval or gated"
        ) from None


class PlumMemory:
    """A LoRA adapter for each user, trained when first remembered and kept.

    Args:
        base: what adapters are trained on, see `models.base.loaded_base`.
        folder: each user's adapter goes into a folder here, named after the persona.
    """

    style = ""

    def __init__(self, base: Base, folder: Path, training: PlumTraining) -> None:
        self._base, self._folder, self._training = base, folder, training
        self.forget()

    @property
    def name(self) -> str:
        return "none" if self._user is None else "plum"

    def remember(self, persona: Persona) -> None:
        """Train the persona's adapter, or take the one that is there; its manifest says what it
        recalls.

        Raises:
            InputError: as `train.train`.
        """
        from unswayed.plum.train import train

        self.forget()
        folder = self._folder_of(persona)
        pairs = persona_pairs(persona, self._training)
        manifest = train(self._base, pairs, self._training.settings, folder)
        if "recall" not in manifest:
            tests = persona_questions(persona, self._training)
            with remembering(self._base, folder) as model:
                rows = recall(loaded_lm(model, self._base.tokenizer), tests, PromptMemory())
            right = {
                kind: [row["correct"] for row in rows if row["kind"] == kind] for kind in CLOSED
            }
            write_manifest(folder, manifest | {"recall": right})
        self._user = folder

    def messages(self, question: str) -> list[Message]:
        return [{"role": "user", "content": question}]

    def active(self, model: Any) -> AbstractContextManager[Any]:
        """Switches the user's adapter on in an lm-eval model (`model.model`)."""
        if self._user is None:
            return nullcontext()
        return remembering(dataclasses.replace(self._base, model=model.model), self._user)

    def forget(self) -> None:
        """Know no user; adapters stay on disk."""
        self._user: Path | None = None

    def recalled(self, personas: Iterable[Persona]) -> dict[str, list[bool]]:
        """Kind of question -> whether each was answered rightly, over all adapters together."""
        manifests = [read_manifest(self._folder_of(persona)) or {} for persona in personas]
        adapters = [manifest["recall"] for manifest in manifests if "recall" in manifest]
        return {kind: [right for answers in adapters for right in answers[kind]] for kind in CLOSED}

    def untrained(self, personas: Iterable[Persona]) -> int:
        """How many of the personas have no adapter."""
        return sum(read_manifest(self._folder_of(persona)) is None for persona in personas)

    def _folder_of(self, persona: Persona) -> Path:
        return self._folder / quote(persona.id, safe="")


class UntrainedPlum(PlumMemory):
    """The same prompts, without adapters."""

    def remember(self, persona: Persona) -> None:
        self.forget()
