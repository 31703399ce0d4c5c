"""The pairs as training reads them: in a folder, CONFIG/train.parquet and CONFIG/test.parquet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from unswayed.core.files import write_table
from unswayed.core.recipes import read_keys, recipe_command
from unswayed.mitigation.preferences import build_pairs
from unswayed.mitigation.preferences.columns import TRAINING, Row
from unswayed.mitigation.preferences.settings import PreferenceSettings
from unswayed.mitigation.preferences.steps import CONSTRUCTED, OWN, SAMPLED, prompt_of

CONFIGS = (SAMPLED, CONSTRUCTED, OWN)


def write_pairs(settings: PreferenceSettings) -> Path:
    """Build the pairs and write them for training; returns the folder, work_dir/pairs.

    Raises:
        InputError: as `build_pairs`.
    """
    pairs, _ = build_pairs(settings)
    folder = Path(settings.work_dir) / "pairs"
    for config in CONFIGS:
        for split, rows in training_rows(pairs, config, settings).items():
            write_table(rows, pa.schema(TRAINING), folder / config / f"{split}.parquet")
    return folder


def training_rows(
    pairs: Sequence[Row], config: str, settings: PreferenceSettings
) -> dict[str, list[Row]]:
    """The rows of a config by split, train and test, without an empty one; a question is in one of
    them in every config."""
    splits: dict[str, list[Row]] = {"train": [], "test": []}
    for pair in pairs:
        if pair["source"] == config:
            testing = in_test_split(pair["question_id"], settings.seed, settings.test_share)
            splits["test" if testing else "train"].append(_training_row(pair))
    return {split: rows for split, rows in splits.items() if rows}


def _training_row(pair: Row) -> Row:
    """A pair in the conversational form of trl, with what is known of it."""
    row = pair | {"prompt": prompt_of(pair), "reference": pair["answer"]}
    for role in ("chosen", "rejected"):
        row[role] = [{"role": "assistant", "content": pair[role]}]
    return {name: row[name] for name in TRAINING}


def in_test_split(question_id: str, seed: int, share: float) -> bool:
    """Whether a question's pairs are for testing; depends on nothing but question and seed."""
    drawn = hashlib.sha256(f"{seed}/{question_id}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") < share * 2**64


def run_recipe(doc: str, argv: Sequence[str] | None = None) -> int:
    """The shell of recipes/dpo/pairs.py: build, say where the pairs are; returns the exit code."""

    def work(config: Sequence[Path]) -> None:
        settings = PreferenceSettings(**read_keys(config, PreferenceSettings, {}))
        settings.check()
        print(write_pairs(settings))

    return recipe_command(doc, argv, work, "pairs.py")
