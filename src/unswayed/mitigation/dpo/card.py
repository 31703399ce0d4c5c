"""The card of what was trained: what went in, how it was trained, what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unswayed.core.cards import CARD, read_metadata, with_metadata
from unswayed.core.errors import InputError
from unswayed.core.files import read_text, write_text
from unswayed.mitigation.dpo.curves import MEASURES
from unswayed.models.adapters import is_memory
from unswayed.models.embedded import EMBEDDED, EMBEDDED_ID

MERGED = "merged"  # folder of the merged model, within the adapter's
PRIVATE = {"private_memory": True}  # in a card's metadata: `unswayed publish` refuses the folder


def from_memory(place: Path) -> bool:
    """Whether an adapter or a model was trained from a user's memory, or is one; false for an id on
    the Hub.

    Raises:
        InputError: the metadata of its card cannot be read.
    """
    import yaml

    card = place / CARD
    if is_memory(place) or not card.is_file():
        return is_memory(place)
    try:
        about = read_metadata(read_text(card)).get("unswayed")
    except (AttributeError, InputError, yaml.YAMLError):
        raise InputError(
            f"{card}: its metadata cannot be read, so whether a user's memory is in there is "
            "unknown: mend it"
        ) from None
    return isinstance(about, dict) and bool(about.get("private_memory"))


def mark_private(folder: Path) -> None:
    """Say in the card of a checkpoint, as peft writes it, that a user's memory is in there."""
    card = folder / CARD
    text = read_text(card) if card.exists() else ""
    write_text(card, with_metadata(text, read_metadata(text) | {"unswayed": PRIVATE}))


def write_card(
    folder: Path, facts: Mapping[str, Any], table: Sequence[Mapping[str, str]] | None = None
) -> None:
    """Write README.md of an adapter's folder, and of the merged model in it if there is one.

    The base model's licence decides what may be done with them, so a card names none.

    Args:
        facts: `train.read_run` of the folder, with `result`.
        table: rows of the effect before and after, as text; each has the columns of the first.
    """
    for place, merged in ((folder, False), (folder / MERGED, True)):
        if place.is_dir():
            write_text(place / CARD, _card(facts, table, merged))


def _card(facts: Mapping[str, Any], table: Sequence[Mapping[str, str]] | None, merged: bool) -> str:
    name = facts["base"]["model"]
    metadata = {
        "base_model": EMBEDDED_ID if name == EMBEDDED else name,
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["unswayed", "dpo", "lora", "trl", "bias", "user-memory"],
    }
    if facts.get("private_memory"):
        metadata["unswayed"] = PRIVATE
    what = "The model with a LoRA adapter in its weights" if merged else "A LoRA adapter"
    curves = "" if merged else "All values are in `curves.json`, drawn in `curves.svg`.\n\n"
    effect = _table(table) if table else "Not measured yet: `unswayed mitigate` fills this in."
    text = f"""\
# {name}, trained to keep memories of the user out of its answers

{what}, trained with [DPO](https://arxiv.org/abs/2305.18290) on pairs
whose better answer does not let what is remembered about the user in, after the recipe of
[arXiv 2510.09905](https://arxiv.org/abs/2510.09905).

## Before and after

{effect}

## Data

{_data(facts)}

## Training

Reference: {facts["reference"]}.

{_table(_settings(facts["recipe"]))}

{_table([{"library": name, "version": found} for name, found in facts["versions"].items()])}

## Curves, last values

{_table(_curves(facts["result"]))}

{curves}## Limits

It was trained from the base model with the weights of SHA-256
`{facts["base"]["weights"]}`, on questions whose answer cannot depend on who asks; where a memory
ought to matter, measure whether it still does before you use it.
"""
    return with_metadata(text, metadata)


def _data(facts: Mapping[str, Any]) -> str:
    recipe, data = facts["recipe"], facts["data"]
    mixed = (
        f"; {recipe['mix_share']:.0%} of the training pairs are from {Path(recipe['mix']).name}"
        if recipe["mix"]
        else ""
    )
    return (
        f"{Path(recipe['dataset']).name}, config {recipe['config']}: {data['train']} pairs to "
        f"train on, {data['test']} to test on{mixed}. SHA-256 of the pairs: `{data['sha256']}`."
    )


def _settings(recipe: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per setting; files and folders are not named here."""
    own = ("order", "consistency", "dtype", "seed")
    values = {key: recipe[key] for key in own} | {
        f"{section}.{key}": value
        for section in ("training", "lora")
        for key, value in recipe[section].items()
    }
    if recipe["adapter"]:
        values["adapter"] = Path(recipe["adapter"]).name
    return [{"setting": key, "value": json.dumps(value)} for key, value in values.items()]


def _curves(result: Mapping[str, float]) -> list[dict[str, str]]:
    return [
        {
            "measure": words,
            "training": _number(result.get(key)),
            "test": _number(result.get(f"eval_{key}")),
        }
        for key, words in MEASURES.items()
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([row[key] for key in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
