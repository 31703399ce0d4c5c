"""An experiment's settings, and the questions that follow from them."""

from __future__ import annotations

import dataclasses
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.files import without_folders
from unswayed.core.ledger import as_json, digest
from unswayed.data.conversations import Conversation, builtin_facts, load_conversations
from unswayed.models.base import Base
from unswayed.models.embedded import EMBEDDED, model_label
from unswayed.plum.qa import HELD_OUT, TRAIN, LabelledPair, QAPair, bank_pairs
from unswayed.plum.recipe import extracted_questions, training_pairs, write_training
from unswayed.plum.settings import AugmentSettings, PlumSettings

ABILITY_TASKS = ("mmlu", "arc", "hellaswag")
ABILITY_NUMBERS = ("questions", "seed", "shots")
LATER = ("open", "baselines", "ability")  # can be asked of a finished experiment too


@dataclasses.dataclass(frozen=True)
class PlumExperiment:
    """What is trained and what is asked; the seed is that of `settings`, and of `augment`.

    Attributes:
        model: Hub id, folder or the embedded model's name.
        conversations: sources: builtin, oasst=FILE, sharegpt=FILE or chat=FILE.
        first: take this many of them, in the order of time; None takes all.
        learn: train and ask about the first so many of these only; the others still lend their
            phrases to negatives. None takes all.
        dtype, augment, settings: as in a recipe.
        evaluate_every: conversations between evaluations; after the last there is always one.
        open: at the end, answer open questions too (slow). This, ability and baselines can also be
            asked of a finished experiment.
        ability: where the data of mmlu, arc and hellaswag are, and questions, seed, shots: settings
            of the ability tasks, asked before and after. None asks none.
        baselines: ask the same under no memory, retrieval, a summary and the full context.
        embedder: the model whose vectors the retrieval by embeddings compares.
    """

    model: str
    conversations: list[str] | None = None
    first: int | None = None
    learn: int | None = None
    dtype: str = "auto"
    augment: dict[str, Any] | None = None
    settings: PlumSettings = dataclasses.field(default_factory=PlumSettings)
    evaluate_every: int = 1
    open: bool = False
    ability: dict[str, Any] | None = None
    baselines: bool = False
    embedder: str = EMBEDDED

    def __post_init__(self) -> None:
        specs = self.conversations
        if not (isinstance(specs, list) and specs and all(isinstance(spec, str) for spec in specs)):
            raise InputError(
                f"conversations are {specs!r}: give a list of sources in the file, or "
                "--conversations SPEC"
            )
        for name in ("first", "learn"):
            number = getattr(self, name)
            if number is not None and (type(number) is not int or number < 1):
                raise InputError(f"{name} is {number!r}, it must be a whole number from 1")
        if self.evaluate_every < 1:
            raise InputError(f"evaluate_every is {self.evaluate_every}, it must be at least 1")
        ability = self.ability or {}
        allowed = (*ABILITY_TASKS, *ABILITY_NUMBERS)
        if unknown := ability.keys() - set(allowed):
            raise InputError(f"unknown key ability.{min(unknown)}; known are {', '.join(allowed)}")
        if ability and not ability.keys() & set(ABILITY_TASKS):
            raise InputError(
                f"ability names no data: give one of {', '.join(ABILITY_TASKS)} with a source"
            )


def seeded(experiment: PlumExperiment, seed: int) -> PlumExperiment:
    """The experiment with this seed for its questions and its training."""
    augment = experiment.augment
    return dataclasses.replace(
        experiment,
        settings=dataclasses.replace(experiment.settings, seed=seed),
        augment=None if augment is None else augment | {"seed": seed},
    )


@dataclasses.dataclass(frozen=True)
class Material:
    """What an experiment trains and asks.

    Attributes:
        conversations: all of them, those without questions included.
        pairs: to train on, conversations in the order of time.
        tests: held-out questions, conversations in the same order.
        left_out: conversation's id, reason and number of the questions that could not be made.
    """

    conversations: list[Conversation]
    pairs: list[QAPair]
    tests: list[LabelledPair]
    left_out: list[list[Any]]

    @property
    def order(self) -> list[str]:
        """Ids of the conversations that are learnt, in order."""
        return list(dict.fromkeys(pair.conversation for pair in self.pairs))


def make_material(experiment: PlumExperiment) -> Material:
    """The conversations and questions of an experiment.

    Raises:
        InputError: as `load_conversations`, `extract_pairs` and `training_pairs`; or fewer
            conversations than `first`.
    """
    conversations = load_conversations(experiment.conversations)
    if experiment.first is not None and experiment.first > len(conversations):
        sources = ", ".join(map(without_folders, experiment.conversations))
        raise InputError(
            f"first is {experiment.first}, but {sources} holds {len(conversations)} conversations"
        )
    conversations = conversations[: experiment.first]
    if experiment.augment is None:
        pairs, left_out = training_pairs(conversations, None), []
        ids = {pair.conversation for pair in pairs}
        tests = [
            LabelledPair(pair, HELD_OUT, "", "")
            for pair in bank_pairs(builtin_facts())[1]
            if pair.conversation in ids
        ]
    else:
        questions = extracted_questions(conversations, experiment.augment)
        pairs = questions.pairs()
        tests = [question for question in questions.questions if question.use != TRAIN]
        left_out = [[*key, count] for key, count in questions.left_out.items()]
    order = list(dict.fromkeys(pair.conversation for pair in pairs))
    learnt = {id: place for place, id in enumerate(order[: experiment.learn])}
    return Material(
        conversations,
        [pair for pair in pairs if pair.conversation in learnt],
        sorted(  # stable
            (test for test in tests if test.pair.conversation in learnt),
            key=lambda test: learnt[test.pair.conversation],
        ),
        left_out,
    )


def with_written(experiment: PlumExperiment, material: Material) -> Material:
    """Where a model is to write the training pairs: with these, and what it wrote on. Else as it
    is."""
    settings = AugmentSettings(**experiment.augment or {})
    if not settings.writer:
        return material
    written = write_training(
        [talk for talk in material.conversations if talk.id in material.order],
        settings,
        [test.pair for test in material.tests],
        experiment.model,
        experiment.dtype,
    )
    ids = {pair.conversation for pair in written.pairs()}
    return dataclasses.replace(
        material,
        pairs=written.pairs(),
        tests=[test for test in material.tests if test.pair.conversation in ids],
        left_out=[[*key, count] for key, count in written.left_out.items()],
    )


def make_identity(experiment: PlumExperiment, base: Base, material: Material) -> dict[str, Any]:
    """What makes two experiments the same, as JSON, without paths of this machine."""
    identity = dataclasses.asdict(experiment) | {
        "model": base.name,
        "weights": base.weights,
        "conversations": list(map(without_folders, experiment.conversations)),
        "embedder": model_label(experiment.embedder),
        "hashes": {
            name: digest(rows)[:16]
            for name, rows in {
                "conversations": list(map(dataclasses.astuple, material.conversations)),
                "training": list(map(dataclasses.astuple, material.pairs)),
                "held_out": [
                    [test.use, test.source, dataclasses.astuple(test.pair)]
                    for test in material.tests
                ],
            }.items()
        },
    }
    for later in LATER:
        del identity[later]
    if writer := (experiment.augment or {}).get("writer"):
        identity["augment"]["writer"] = model_label(writer)
    return as_json(identity)
