"""Trees: a folder that is a whole dataset repository of the Hub, Parquet files and card.

    README.md                                the card; its metadata names configs and features
    <config>/<split>-00000-of-00001.parquet  the rows

`datasets.load_dataset(TREE, CONFIG)` reads it as it stands, and it can be uploaded as it stands.
The same content gives the same bytes; a tree appears at once or not at all.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import yaml

from unswayed import __version__
from unswayed.core.cards import CARD, read_metadata, with_metadata
from unswayed.core.errors import InputError
from unswayed.core.files import replacing, write_text

MARK = "unswayed"  # key in the card's metadata by which we know a tree of ours
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclasses.dataclass(frozen=True)
class Tree:
    """A dataset before it is written.

    Attributes:
        name: of the dataset, e.g. "persona_steu"; a tree replaces only one of its own name.
        tables: config -> split -> rows.
        metadata: the card's metadata, without what `write_tree` adds from the tables.
        facts: how it was made (seed, hashes), machine-readable, for the metadata.
        body: the card's text.
    """

    name: str
    tables: Mapping[str, Mapping[str, datasets.Dataset]]
    metadata: Mapping[str, Any]
    facts: Mapping[str, Any]
    body: str


def write_tree(tree: Tree, out: Path) -> Path:
    """Write a tree, in place of an older one of the same dataset; returns where it is.

    Raises:
        InputError: the tables are not fit to publish, or something else is at `out`; nothing is
            written then.
    """
    check_tables(tree.tables)
    check_replaceable(out, tree.name)
    with replacing(out) as new:
        _write_files(tree, new)
    return out.resolve()


def check_tables(tables: Mapping[str, Mapping[str, datasets.Dataset]]) -> None:
    """Every split has rows, and all configs have the same columns and types.

    Raises:
        InputError: names config, split and column of the first fault.
    """
    if not tables:
        raise InputError("the dataset has no config: choose at least one")
    first: tuple[str, datasets.Features] | None = None
    for config, splits in tables.items():
        if not splits:
            raise InputError(f"config {config} has no split")
        for split, table in splits.items():
            if len(table) == 0:
                raise InputError(f"config {config}, split {split}: no row is left")
            first = first or (config, table.features)
            if [*table.features.items()] != [*first[1].items()]:  # order too
                raise InputError(_drift(first[0], first[1], config, table.features))


def check_replaceable(out: Path, name: str) -> None:
    """Nothing is at `out`, or an older tree of this dataset and nothing else.

    Raises:
        InputError: says what is there.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise InputError(f"--output_dir {out} is not a folder: name a new or an empty one")
    if not any(out.iterdir()):
        return
    metadata = card_metadata(out)
    try:
        if metadata[MARK]["dataset"] != name:
            raise KeyError(name)
        patterns = [file["path"] for config in metadata["configs"] for file in config["data_files"]]
    except (KeyError, TypeError):
        raise InputError(
            f"--output_dir {out} is not empty and holds no tree of {name}: name another folder"
        ) from None
    for path in sorted(path for path in out.rglob("*") if not path.is_dir()):
        relative = path.relative_to(out).as_posix()
        if not any(fnmatch.fnmatchcase(relative, pattern) for pattern in (CARD, *patterns)):
            raise InputError(
                f"--output_dir {out} holds {relative}, which is no part of the tree of {name} and "
                "would be lost: move it, or name another folder"
            )


def card_metadata(tree: Path) -> dict[str, Any]:
    """Metadata of a tree's card; empty if there is no card that can be read."""
    try:
        metadata = read_metadata((tree / CARD).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _write_files(tree: Tree, folder: Path) -> None:
    """The Parquet files, and the card: metadata in the Hub's form, then the body."""
    configs, infos, n_rows = [], [], 0
    for config, splits in tree.tables.items():
        (folder / config).mkdir(parents=True)
        paths = {split: folder / config / f"{split}-00000-of-00001.parquet" for split in splits}
        for split, table in splits.items():
            table.to_parquet(paths[split])
            n_rows += len(table)
        files = [{"split": split, "path": f"{config}/{split}-*.parquet"} for split in splits]
        configs.append({"config_name": config, "data_files": files})
        info = datasets.DatasetInfo(
            features=table.features,
            splits=[
                {"name": split, "num_bytes": table.data.nbytes, "num_examples": len(table)}
                for split, table in splits.items()
            ],
            download_size=sum(path.stat().st_size for path in paths.values()),
            dataset_size=sum(table.data.nbytes for table in splits.values()),
        )
        # The form that push_to_hub writes.
        infos.append({"config_name": config, **info._to_yaml_dict()})
    metadata = {
        **tree.metadata,
        "size_categories": [size_category(n_rows)],
        MARK: {"dataset": tree.name, "version": __version__, **tree.facts},
        "configs": configs,
        "dataset_info": infos,
    }
    write_text(folder / CARD, with_metadata(f"{tree.body.strip()}\n", metadata))


def size_category(rows: int) -> str:
    """The Hub's word for a number of rows."""
    return next((word for limit, word in SIZES if rows < limit), "n>1M")


def _drift(first: str, expected: datasets.Features, config: str, other: datasets.Features) -> str:
    """In words, where the columns of two configs differ."""
    name = next((n for n in {**expected, **other} if expected.get(n) != other.get(n)), None)
    if name is None:
        return f"config {config} has the columns of {first} in another order"
    if name not in other:
        return f"config {config} lacks the column {name}, which {first} has"
    if name not in expected:
        return f"config {config} has the column {name}, which {first} lacks"
    return f"column {name} is {expected[name]} in config {first} but {other[name]} in {config}"
