"""One YAML file, one run: `recipes/dpo/*.yaml`, checked against the dataclasses of all three."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unswayed.commands import Parser, run_command
from unswayed.errors import InputError
from unswayed.files import read_yaml
from unswayed.memory.plum.recipe import check_keys, plain_values
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
    merged: dict[str, Any] = {}
    for path in paths:
        values = plain_values(read_yaml(path), path)
        if not isinstance(values, dict):
            raise InputError(f"{path}: a recipe is a mapping of keys to values")
        check_keys(typing.get_type_hints(DpoRecipe), values, path)
        for section, hints in SECTIONS.items():
            if section in values:
                if not isinstance(values[section], dict):
                    raise InputError(f"{path}: {section} must be a mapping of keys to values")
                for key in OURS.keys() & values[section].keys() if section == "training" else ():
                    raise InputError(f"{path}: leave out training.{key}: {OURS[key]}")
                check_keys(hints(), values[section], path, f"{section}.")
                values[section] = merged.get(section, {}) | values[section]
        merged |= values
    for field in dataclasses.fields(DpoRecipe):
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in merged:
            raise InputError(f"{paths[-1]}: the key {field.name} is missing")
    return DpoRecipe(**merged)


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
    parser = Parser(
        "train.py", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", type=Path, nargs="+", required=True, help="YAML; later files replace keys"
    )

    def work() -> None:
        recipe = read_recipe(parser.parse_args(argv).config)
        from unswayed.mitigation.dpo.train import train

        print(train(recipe))

    return run_command("train.py", work, interrupted="run it again to go on")
