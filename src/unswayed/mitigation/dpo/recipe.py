"""One YAML file, one run: `recipes/dpo/*.yaml`, checked against the dataclasses of all three."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.recipes import check_keys, read_keys, recipe_command
from unswayed.mitigation.dpo.settings import DpoRecipe

# Fields of trl.DPOConfig that a recipe may not give, and why.
OURS = {
    "output_dir": "it is a key of the recipe itself",
    "seed": "it is a key of the recipe itself",
    "train_sampling_strategy": "the key order says it",
    "model_init_kwargs": "the keys model and dtype say it",
    "remove_unused_columns": "the trainer needs them",
    "prediction_loss_only": "nothing else is evaluated",
    "resume_from_checkpoint": "the same command goes on by itself",
    "truncation_mode": "nothing is truncated",
    "padding_free": "trl ignores it",
    "trust_remote_code": "no code from the Hub is run",
    "save_only_model": "going on needs the whole checkpoint",
    "fsdp": "the file given to accelerate launch says it",
    "deepspeed": "the file given to accelerate launch says it",
    "push_to_hub": "a run never uploads",
}


def read_recipe(paths: Sequence[Path]) -> DpoRecipe:
    """A recipe; with several files, the keys of later ones replace those of earlier ones.

    Raises:
        InputError: names the file and the key that is unknown, missing, twice there or of a wrong
            type.
    """
    return DpoRecipe(**read_keys(paths, DpoRecipe, SECTIONS, _check))


def _check(hints: dict[str, Any], values: dict[str, Any], where: Any, prefix: str = "") -> None:
    """As `check_keys`, after a look at what a recipe may not say."""
    if prefix == "training." and (ours := OURS.keys() & values.keys()):
        raise InputError(f"{where}: leave out training.{min(ours)}: {OURS[min(ours)]}")
    check_keys(hints, values, where, prefix)


def _training_hints() -> dict[str, Any]:
    from trl import DPOConfig

    return {name: hint for name, hint in _init_hints(DPOConfig).items() if name not in OURS}


def _lora_hints() -> dict[str, Any]:
    from peft import LoraConfig

    return _init_hints(LoraConfig)


def _init_hints(config: type) -> dict[str, Any]:
    hints = typing.get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config) if field.init}


SECTIONS = {"training": _training_hints, "lora": _lora_hints}


def run_recipe(doc: str, argv: Sequence[str] | None = None) -> int:
    """The recipe's shell: train, say where the adapter is; returns the exit code."""

    def work(config: Sequence[Path]) -> None:
        recipe = read_recipe(config)
        from unswayed.mitigation.dpo.train import train

        print(train(recipe))

    return recipe_command(doc, argv, work)
