"""The card of what was trained: what went in, how it was trained, what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unswayed.core.cards import CARD, read_metadata, with_metadata
from unswayed.core.errors import InputError
from unswayed.core.files import read_text, write_text
from unswayed.display.page import render_markdown
from unswayed.mitigation.dpo.curves import MEASURES
from unswayed.mitigation.dpo.settings import DpoRun
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
    folder: Path, facts: DpoRun, table: Sequence[Mapping[str, str]] | None = None
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


def _card(facts: DpoRun, table: Sequence[Mapping[str, str]] | None, merged: bool) -> str:
    name, recipe = facts["base"]["model"], facts["recipe"]
    metadata = {
        "base_model": EMBEDDED_ID if name == EMBEDDED else name,
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["unswayed", "dpo", "lora", "trl", "bias", "user-memory"],
    }
    if facts.get("private_memory"):
        metadata["unswayed"] = PRIVATE
    view = {
        "merged": merged,
        "effect": table,
        "dataset": Path(recipe["dataset"]).name,
        "mix": recipe["mix"] and Path(recipe["mix"]).name,
        "mix_share": f"{recipe['mix_share']:.0%}",
        "settings": _settings(recipe),
        "libraries": [{"library": name, "version": v} for name, v in facts["versions"].items()],
        "curves": [
            {"measure": words, "training": _number(facts["result"].get(key)),
             "test": _number(facts["result"].get(f"eval_{key}"))}
            for key, words in MEASURES.items()
        ],
    }  # fmt: skip
    return with_metadata(
        render_markdown("unswayed.mitigation", "adapter.md.jinja", {**facts, **view}), metadata
    )


def _settings(recipe: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per setting; files and folders are not named here."""
    values = {key: recipe[key] for key in ("order", "consistency", "dtype", "seed")}
    for section in ("training", "lora"):
        values |= {f"{section}.{key}": value for key, value in recipe[section].items()}
    if recipe["adapter"]:
        values["adapter"] = Path(recipe["adapter"]).name
    return [{"setting": key, "value": json.dumps(value)} for key, value in values.items()]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
