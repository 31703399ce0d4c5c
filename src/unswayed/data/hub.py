"""Datasets of the Hub, or folders that are such datasets, as rows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from unswayed.core.cards import CARD
from unswayed.core.errors import InputError, one_line

HUB = "hub:"


def hub_source(source: str) -> tuple[str, str | None, str | None]:
    """Repository, config and revision of "hub:OWNER/NAME[:CONFIG][@REVISION]"."""
    where, _, revision = source.removeprefix(HUB).partition("@")
    name, _, config = where.partition(":")
    return name, config or None, revision or None


def read_dataset(source: str, config: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """The rows of a dataset by split.

    Args:
        source: a folder, a Hub id, or hub:OWNER/NAME[:CONFIG][@REVISION].
        config: of the dataset, if the source names none; in a folder without a card, a folder.

    Raises:
        InputError: it cannot be loaded.
    """
    import datasets

    name, revision = source, None
    if source.startswith(HUB):
        name, own, revision = hub_source(source)
        config = own or config
    elif not (Path(name) / CARD).exists() and (Path(name) / (config or "")).is_dir():
        name, config = str(Path(name) / (config or "")), None
    try:
        if not Path(name).is_dir():
            return _rows(datasets.load_dataset(name, config, revision=revision))
        # Where a card names configs, datasets caches by the folder's name alone: another folder of
        # that name, or a tree built anew, would give the old rows.
        with tempfile.TemporaryDirectory() as cache:
            return _rows(datasets.load_dataset(name, config, cache_dir=cache))
    except Exception as error:  # datasets, huggingface_hub and pyarrow raise many kinds
        raise InputError(f"dataset {source} cannot be loaded: {one_line(error, 200)}") from error


def _rows(splits: Any) -> dict[str, list[dict[str, Any]]]:
    return {split: list(rows) for split, rows in splits.items()}
