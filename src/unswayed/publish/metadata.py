"""The metadata of cards: how they are read and joined, and which files their configs name."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import Any

import yaml

from unswayed.core.cards import CARD
from unswayed.core.errors import InputError


def metadata(card: str, where: str) -> dict[str, Any]:
    """The metadata of a card: the YAML between its first two lines `---`; may be empty.

    Raises:
        InputError: it is not in the Hub's form; names `where`.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    block = REGEX_YAML_BLOCK.search(card)
    try:
        found = yaml.safe_load(block[2]) if block else None
        found = {} if found is None else found
        for config in found.get("configs") or []:
            if not isinstance(config["config_name"], str):
                raise TypeError(f"config_name {config['config_name']!r} is no text")
            matching(patterns(config), [])
        for name, entry in infos(found).items():
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
    return found


def infos(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The entries of `dataset_info` by config; a single one may stand without a list."""
    entries = found.get("dataset_info") or []
    entries = entries if isinstance(entries, list) else [entries]
    return {entry.get("config_name", "default"): entry for entry in entries}


def merged_card(card: str, remote: dict[str, Any]) -> str:
    """The local card with what the remote card says of other configs; the text is the local one.

    Metadata that the local card does not have, such as the conditions of access, stay too.
    """
    ours = metadata(card, CARD)
    configs = ours.get("configs", [])
    named = {config["config_name"] for config in configs}
    others = others_of(remote, named)
    described = [
        {"config_name": name} | entry for name, entry in infos(remote).items() if name not in named
    ]
    merged = ours | {key: value for key, value in remote.items() if key not in ours}
    if any(config.get("default") for config in configs):  # there can be one only
        others = [{k: v for k, v in config.items() if k != "default"} for config in others]
    if others:
        merged["configs"] = configs + others
    if described:
        own = [{"config_name": name} | entry for name, entry in infos(ours).items()]
        merged["dataset_info"] = own + described
    return with_metadata(card, merged)


def with_metadata(card: str, found: dict[str, Any]) -> str:
    """The card with other metadata; as it is if they are the same."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK
    from huggingface_hub.utils import yaml_dump

    if found == metadata(card, CARD):
        return card
    front = yaml_dump(found, sort_keys=False).rstrip("\n")
    if block := REGEX_YAML_BLOCK.search(card):
        return card[: block.start(2)] + front + card[block.end(2) :]
    return f"---\n{front}\n---\n\n{card}"


def others_of(remote: dict[str, Any], named: Iterable[str]) -> list[dict[str, Any]]:
    """Configs of a repository's metadata whose names are not among these."""
    return [c for c in remote.get("configs") or [] if c["config_name"] not in named]


def patterns(config: dict[str, Any]) -> list[str]:
    """Globs of a config's files, from any form of `data_files` and `data_dir`."""
    folder, given = config.get("data_dir", ""), config.get("data_files")
    if given is None:
        return [posixpath.join(folder, "**")] if folder else []
    entries = given if isinstance(given, list) else [given]
    paths = [entry["path"] if isinstance(entry, dict) else entry for entry in entries]
    flat = [p for path in paths for p in (path if isinstance(path, list) else [path])]
    return [posixpath.normpath(posixpath.join(folder, p)) for p in flat]


def matching(globs: Iterable[str], files: Iterable[str]) -> list[str]:
    """Files that any of the globs matches; `*` stays within a folder, `**` does not."""
    from fsspec.utils import glob_translate

    wanted = [re.compile(glob_translate(glob)) for glob in globs]
    return [file for file in files if any(regex.match(file) for regex in wanted)]
