"""One YAML file, one run: `recipes/plum/*.yaml`, checked against the dataclasses here."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.recipes import check_keys, read_keys, recipe_command
from unswayed.data.conversations import (
    Conversation,
    builtin_facts,
    builtin_near,
    load_conversations,
)
from unswayed.models.adapters import read_manifest
from unswayed.plum.augment import Augmented, extract_pairs
from unswayed.plum.qa import TRAIN, QAPair, bank_pairs
from unswayed.plum.settings import SELF, AugmentSettings, PlumSettings
from unswayed.plum.writer import asking, write_pairs


@dataclasses.dataclass(frozen=True)
class PlumRecipe:
    """A training run.

    Attributes:
        model: Hub id, folder or the embedded model's name.
        users: name -> sources of the user's conversations: builtin, oasst=FILE, sharegpt=FILE or
            chat=FILE.
        output_dir: each user's memory goes into a folder of that name here.
        dtype: of the base model, as in torch; "auto" is float32 on CPU, else the checkpoint's.
        augment: `AugmentSettings`, by which questions are made; without it, the built-in
            conversations' own questions are taken.
        settings: how to train.
    """

    model: str
    users: dict[str, list[str]]
    output_dir: str
    dtype: str = "auto"
    augment: dict[str, Any] | None = None
    settings: PlumSettings = dataclasses.field(default_factory=PlumSettings)


def read_recipe(paths: Sequence[Path]) -> PlumRecipe:
    """A recipe; with several files, the keys of later ones replace those of earlier ones.

    Raises:
        InputError: names the file and the key that is unknown, missing, twice there or of a wrong
            type.
    """
    keys = read_keys(paths, PlumRecipe, SECTIONS, check_values)
    return PlumRecipe(**keys | {"settings": PlumSettings(**keys.get("settings", {}))})


SECTIONS = {
    "settings": lambda: typing.get_type_hints(PlumSettings),
    "augment": lambda: typing.get_type_hints(AugmentSettings),
}


def check_values(hints: dict[str, Any], values: dict[str, Any], where: Any, prefix: str = ""):
    """As `check_keys`, and the values of `targets` and `users`."""
    check_keys(hints, values, where, prefix)
    if "targets" in values and not (
        isinstance(values["targets"], str) or _texts(values["targets"])
    ):
        raise InputError(f"{where}: {prefix}targets must be all-linear or a list of module names")
    if "users" in values:
        users = values["users"]
        if not (isinstance(users, dict) and users and all(map(_texts, users.values()))):
            raise InputError(
                f"{where}: users must map names to lists of sources, e.g. {{me: [builtin]}}"
            )
        values["users"] = {str(name): sources for name, sources in users.items()}


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def extracted_questions(
    conversations: Sequence[Conversation], augment: dict[str, Any]
) -> Augmented:
    """Questions on conversations from key phrases, as a recipe's `augment` has them made."""
    return extract_pairs(conversations, AugmentSettings(**augment), builtin_near())


def write_training(
    conversations: Sequence[Conversation],
    settings: AugmentSettings,
    held_out: Sequence[QAPair],
    model: str,
    dtype: str,
) -> Augmented:
    """Training pairs by the settings' writer; `model` is the one that is trained.

    Raises:
        InputError: nothing that it wrote can be used, or a conversation exceeds its context.
    """
    writer = model if settings.writer == SELF else settings.writer
    ask = asking(writer, dtype, settings.per_conversation)
    written = write_pairs(conversations, ask, settings.per_conversation, held_out)
    if not written.questions:
        raise InputError(
            f"{writer} wrote nothing on {len(conversations)} conversations that can be used: take "
            "a larger writer, or leave augment.writer out"
        )
    return written


def training_pairs(
    conversations: Sequence[Conversation],
    augment: dict[str, Any] | None,
    model: str = "",
    dtype: str = "auto",
) -> list[QAPair]:
    """Pairs for training, conversations in the order given; the arguments are as in `PlumRecipe`.

    Raises:
        InputError: there are no questions on a conversation.
    """
    if augment is not None:
        settings = AugmentSettings(**augment)
        questions = extract_pairs(conversations, settings, builtin_near())
        if not settings.writer:
            return questions.pairs()
        held_out = [question.pair for question in questions.questions if question.use != TRAIN]
        return write_training(conversations, settings, held_out, model, dtype).pairs()
    trained: dict[str, list[QAPair]] = {}
    for pair in bank_pairs(builtin_facts())[0]:
        trained.setdefault(pair.conversation, []).append(pair)
    ids = [conversation.id for conversation in conversations]
    for id in ids:
        if id not in trained:
            raise InputError(
                f"conversation {id!r} is not a built-in one and has no questions of its own: let "
                "the recipe make them with augment: {}"
            )
    return [pair for id in ids for pair in trained[id]]


def run_recipe(doc: str, argv: Sequence[str] | None = None) -> int:
    """The recipe's shell: train, say where the memories are; returns the exit code."""

    def work(config: Sequence[Path]) -> None:
        recipe = read_recipe(config)
        users = {
            user: training_pairs(
                load_conversations(sources), recipe.augment, recipe.model, recipe.dtype
            )
            for user, sources in recipe.users.items()
        }
        from unswayed.plum.users import train_users

        out = Path(recipe.output_dir)
        for user in train_users(recipe.model, users, recipe.settings, out, recipe.dtype):
            learned = read_manifest(out / user)["conversations"]
            print(f"{out / user}: {len(learned)} conversations")

    return recipe_command(doc, argv, work)
