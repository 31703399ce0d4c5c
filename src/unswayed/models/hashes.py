"""Which weights, tokenizer and code were loaded: a commit on the Hub, or SHA-256 of the files."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers.utils.hub import extract_commit_hash

from unswayed.core.files import file_hash
from unswayed.models.embedded import model_path
from unswayed.scoring.repository import ADAPTER_CONFIG, local_file

# Beside a model, but never loaded with it: what describes it, and what training needs to go on.
NOT_LOADED = re.compile(
    r"^(\.|README|LICENSE|optimizer|scheduler|scaler|rng_state|training_args|trainer_state|events)"
    r"|\.(md|html|pdf|svg|png|jpe?g|gif|log|csv|parquet|gguf)$"
)
NAMES = ("config.json", ADAPTER_CONFIG, "tokenizer_config.json", "tokenizer.json")


def checkpoint_hash(
    name: str, revision: str | None = None, subfolder: str = "", gguf_file: str | None = None
) -> str | None:
    """The commit of a Hub repository, or SHA-256 over a folder's files that can change what is
    loaded: names and contents of weights, configuration, tokenizer, templates and code.

    Args:
        name: Hub id, folder or the embedded model's name.
        revision, subfolder, gguf_file: as in transformers.

    Returns:
        None if there is neither a folder nor a copy of the repository.
    """
    folder = Path(model_path(name))
    if folder.is_dir():
        return files_hash(_loaded_files(folder / subfolder, gguf_file))
    names = [*NAMES, *filter(None, [gguf_file])]
    places = [f"{subfolder}/{file}" for file in names if subfolder] + names
    file = local_file(name, *places, revision=revision)
    return extract_commit_hash(str(file), None) if file else None


def weights_hash(
    name: str, revision: str | None = None, subfolder: str = "", gguf_file: str | None = None
) -> str:
    """SHA-256 over the weight files alone, of a folder or of a Hub model's local copy.

    Args: as `checkpoint_hash`, whose loading has succeeded.
    """
    folder = Path(model_path(name))
    if not folder.is_dir():
        names = [f"{subfolder}/config.json", "config.json", *filter(None, [gguf_file])]
        folder = local_file(name, *names[not subfolder :], revision=revision).parent
    elif subfolder:
        folder = folder / subfolder
    if gguf_file:
        return files_hash([folder / gguf_file])
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    return files_hash(weights)


def source_of(lm: Any) -> dict[str, Any]:
    """What of a repository or folder an lm-eval model was loaded from, for the hashes."""
    defaults = {"revision": None, "subfolder": "", "gguf_file": None}
    return {part: getattr(lm, part, default) for part, default in defaults.items()}


def _loaded_files(folder: Path, gguf_file: str | None) -> list[Path]:
    """Files of a folder, and templates and code below it."""
    files = {file for file in folder.iterdir() if not NOT_LOADED.search(file.name)}
    files |= {*folder.glob("additional_chat_templates/*.jinja"), *folder.rglob("*.py")}
    if gguf_file:
        files.add(folder / gguf_file)
    return sorted(file for file in files if file.is_file())


def files_hash(files: Iterable[Path]) -> str:
    """SHA-256 over files' names and contents."""
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        digest.update(file.name.encode())
        digest.update(bytes.fromhex(_unchanged(file.resolve(), state.st_size, state.st_mtime_ns)))
    return digest.hexdigest()


@functools.cache
def _unchanged(file: Path, size: int, time: int) -> str:
    """SHA-256 of a file as long as it has this size and time (ns) of modification."""
    return file_hash(file)
