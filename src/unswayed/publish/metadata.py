"""The metadata of cards: how they are read and joined, and which files their configs name."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import Any

import yaml

from unswayed.core.cards import CARD, read_metadata, with_metadata
from unswayed.core.errors import InputError


def metadata(card: str, where: object) -> dict[str, Any]:
    """The metadata of a card; may be empty.

    Raises:
        InputError: it is not in the Hub's form; names `where`.
    """
    try:
        content = read_metadata(card)
        for config in content.get("configs") or []:
            if not isinstance(config["config_name"], str):
                raise TypeError(f"config_name {config['config_name']!r} is no text")
            matching(patterns(config), [])
        for name, entry in infos(content).items():
            _ = name.strip(), [split["name"] for split in entry.get("splits") or []]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 2})" if mark else ""  # after the line ---
        raise InputError(f"{where}: its metadata is not YAML{line}; mend it") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: its metadata is not in the Hub's form ({type(error).__name__}: {error}); "
            "mend it"
        ) from None
    return content


def infos(metadata: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The entries of `dataset_info` by config; a single one may stand without a list."""
    entries = metadata.get("dataset_info") or []
    entries = entries if isinstance(entries, list) else [entries]
    return {entry.get("config_name", "default"): entry for entry in entries}


def merged_card(card: str, remote: dict[str, Any]) -> str:
    """The local card with what the remote card says of other configs; the text is the local one.

    Metadata that the local card does not have, such as the conditions of access, stay too.
    """
    local = metadata(card, CARD)
    configs = local.get("configs", [])
    names = {config["config_name"] for config in configs}
    others = others_of(remote, names)
    merged = local | {key: value for key, value in remote.items() if key not in local}
    if any(config.get("default") for config in configs):  # there can be one only
        others = [{k: v for k, v in config.items() if k != "default"} for config in others]
    if others:
        merged["configs"] = configs + others
    described = [*infos(local).items()]
    described += [(name, entry) for name, entry in infos(remote).items() if name not in names]
    if len(described) > len(infos(local)):
        merged["dataset_info"] = [{"config_name": name} | entry for name, entry in described]
    return with_metadata(card, merged)


def others_of(remote: dict[str, Any], names: Iterable[str]) -> list[dict[str, Any]]:
    """Configs of a repository's metadata whose names are not among these."""
    return [c for c in remote.get("configs") or [] if c["config_name"] not in names]


def patterns(config: dict[str, Any]) -> list[str]:
    """Globs of a config's files, from any form of `data_files` and `data_dir`."""
    folder, files = config.get("data_dir", ""), config.get("data_files")
    if files is None:
        return [posixpath.join(folder, "**")] if folder else []
    entries = files if isinstance(files, list) else [files]
    paths = [entry["path"] if isinstance(entry, dict) else entry for entry in entries]
    flat = [p for path in paths for p in (path if isinstance(path, list) else [path])]
    return [posixpath.normpath(posixpath.join(folder, p)) for p in flat]


def matching(globs: Iterable[str], files: Iterable[str]) -> list[str]:
    """Files that any of the globs matches; `*` stays within a folder, `**` does not."""
    from fsspec.utils import glob_translate

    expressions = [re.compile(glob_translate(glob)) for glob in globs]
    return [file for file in files if any(regex.match(file) for regex in expressions)]
