"""Files of a model's folder, or of its repository on the Hub: where, and how damaged."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from re import Pattern
from typing import Any

from huggingface_hub import try_to_load_from_cache

from unswayed.core.errors import one_line

ADAPTER_CONFIG = "adapter_config.json"
POINTER = b"version https://git-lfs"
ALL_FILES = re.compile(r"\.(json|safetensors|bin|pt|gguf|model|jinja)$|^(vocab|merges)\.txt$")
# Damage to these goes unnoticed: they are texts, or transformers goes on without them.
UNNOTICED = re.compile(r"\.(model|jinja)$|^(vocab|merges)\.txt$|^generation_config\.json$")


def local_file(name: str, *files: str, revision: str | None = None) -> Path | None:
    """The first of some files that a folder, or the local copy of a Hub repository, holds."""
    folder = Path(name)
    for file in files:
        if folder.is_dir():
            if (folder / file).is_file():
                return folder / file
        elif isinstance(path := _cached(name, file, revision), str):
            return Path(path)
    return None


def _cached(name: str, file: str, revision: str | None) -> Any:
    try:
        return try_to_load_from_cache(name, file, revision=revision)
    except ValueError:  # no name of a repository either
        return None


def find_file(name: str, file: str, revision: str | None = None) -> str | None:
    """A file of a folder or a Hub repository, downloaded where it is not here yet; None if there is
    no such file, or no way to the Hub."""
    from transformers.utils import cached_file

    quiet = ("gated_repo", "missing_entries", "connection_errors")
    return cached_file(
        name,
        file,
        revision=revision,
        **{f"_raise_exceptions_for_{what}": False for what in quiet},
    )


def damage(name: str, revision: str | None = None, files: Pattern[str] = ALL_FILES) -> str:
    """What is wrong with files of a model or adapter, as far as they tell; "" if nothing."""
    found = local_file(name, "config.json", ADAPTER_CONFIG, revision=revision)
    folder = found.parent if found else Path(name)
    if not folder.is_dir():
        return ""
    present = [file for file in sorted(folder.iterdir()) if files.search(file.name)]
    if any(file.suffix == ".safetensors" for file in present):  # then no others are read
        present = [file for file in present if ".bin" not in file.name]
    for file in present:
        if fault := _fault(file):
            return f"{file.name} {fault}"
    return ""


def _fault(file: Path) -> str:
    with file.open("rb") as stream:
        head = stream.read(len(POINTER))
    if head == POINTER:
        return "is a pointer of git-lfs, not the file itself: run `git lfs pull` in its folder"
    if not head:
        return "is empty: download it again"
    if file.suffix == ".bin" and not zipfile.is_zipfile(file):
        return "is damaged or cut off: download it again"
    if file.suffix == ".safetensors" and not _is_whole(file):
        return "is damaged or cut off: download it again"
    if file.suffix != ".json":
        return ""
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        return f"is no JSON ({one_line(error, 80)}): restore it"
    if file.name.endswith(".index.json"):
        for shard in sorted(set(content.get("weight_map", {}).values())):
            if not (file.parent / shard).is_file():
                return f"names {shard}, which is not there: download that too"
    return ""


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says.

    The form: https://huggingface.co/docs/safetensors#format
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > file.stat().st_size:
            return False
        try:
            header = json.loads(stream.read(length))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError):
            return False
    return file.stat().st_size == 8 + length + max(ends, default=0)
