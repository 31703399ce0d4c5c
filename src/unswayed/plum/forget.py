"""What `unswayed remember forget` does: a memory removed, or conversations taken out of one.

What was learnt cannot be taken out of an adapter: it is trained anew on all others.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.data.conversations import Conversation, load_conversations
from unswayed.models.adapters import MANIFEST, adapter_folder, read_manifest, write_manifest
from unswayed.plum.recipe import read_recipe, training_pairs
from unswayed.plum.remember import (
    StoredMemory,
    check_augment,
    chosen_settings,
    count,
    describe,
    duration,
    known_ids,
    load_named,
    memory_manifest,
    no_memory,
    train_noted,
)
from unswayed.plum.settings import PlumSettings

log = logging.getLogger(__name__)


def forget_all(folder: Path) -> list[Path]:
    """Remove a memory; what else lies in its folder stays.

    Returns:
        What was removed.

    Raises:
        InputError: there is none.
    """
    if read_manifest(folder) is None:
        raise no_memory(folder)
    # The manifest goes last: as long as it is there, the same command finishes the work.
    removed = [*_scratches(folder), *_adapters(folder), folder / MANIFEST]
    for path in removed:
        path.unlink() if path.is_file() else shutil.rmtree(path)
    if not any(folder.iterdir()):
        folder.rmdir()
        removed.append(folder)
    return removed


def forget(
    folder: Path,
    ids: Sequence[str],
    specs: Sequence[str],
    model: str | None = None,
    recipe: Path | None = None,
) -> StoredMemory:
    """Forget conversations: train anew on all others, with the memory's settings.

    What was learnt cannot be taken out of an adapter, and the texts are not kept, so the sources of
    the others are needed. Training goes on in a hidden folder beside the memory, which stays as it
    is until the new one is whole; the same call goes on after an interruption.

    Args:
        ids: of the conversations to forget.
        specs: sources that hold all others; those to forget, and ones that the memory does not
            hold, are left out.
        model: as in `answers`.
        recipe: as in `learn`, for a memory whose manifest does not say how its questions came
            about; its settings must be those of the memory.

    Raises:
        InputError: the memory does not know an id, or others are not among the sources.
    """
    manifest = memory_manifest(folder)
    unknown = [id for id in ids if id not in known_ids(manifest)]
    if unknown:
        if len(unknown) == len(ids) and _tidy(folder, manifest):
            return describe(folder)  # all was done but the sweeping
        raise InputError(
            f"{folder} knows no conversation {unknown[0]!r}: `unswayed remember list` shows what "
            "it knows"
        )
    kept = [id for id in known_ids(manifest) if id not in ids]
    if not kept:
        raise InputError(f"{folder} knows nothing else: forget it with --all")
    remaining = _remaining(folder, kept, ids, specs)
    plum_recipe = read_recipe([recipe]) if recipe else None
    settings, augment = chosen_settings(manifest, plum_recipe, ())
    check_augment(manifest, augment, folder)
    if PlumSettings(**manifest["settings"]) != settings:
        raise InputError(f"{folder} was trained with other settings than those of {recipe}")
    name, dtype = model or manifest["base"]["model"], plum_recipe.dtype if plum_recipe else "auto"
    pairs = training_pairs(remaining, augment, name, dtype)
    log.info("%s", _cost(manifest, ids, kept))
    scratch = _scratch(folder, [*kept, settings, augment, manifest["base"]["weights"]])
    for other in _scratches(folder):
        if other != scratch:
            log.info("removed %s, left by the forgetting of something else", other)
            shutil.rmtree(other)
    base = load_named(name, dtype, manifest if model is None else None)
    adapter_folder(base, folder)  # is it this base model?
    train_noted(base, pairs, settings, augment, scratch)
    _replace(folder, scratch, kept, augment)
    return describe(folder)


def _replace(folder: Path, scratch: Path, kept: Sequence[str], augment: dict[str, Any]) -> None:
    """Put the memory that was trained in the scratch folder in place of the old one.

    Raises:
        InputError: it does not hold all that is to be kept.
    """
    # A kill may have come before `augment` was noted.
    manifest = memory_manifest(scratch) | {"augment": augment}
    if known_ids(manifest) != kept:
        lost = next(id for id in kept if id not in known_ids(manifest))
        raise InputError(
            f"{folder} stays as it is: without what is forgotten there is too little text to ask "
            f"about {lost!r}; forget that too, or give sources with its whole text"
        )
    name = manifest["adapter"]["folder"]
    partial = folder / f"{name}.partial"
    for leftover in (partial, folder / name):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(scratch / name, partial)
    partial.rename(folder / name)
    write_manifest(folder, manifest)
    _tidy(folder, manifest)


def _remaining(
    folder: Path, kept: Sequence[str], ids: Sequence[str], specs: Sequence[str]
) -> list[Conversation]:
    """The conversations to keep, in the order in which they were learnt."""
    by_id = {conversation.id: conversation for conversation in load_conversations(specs)}
    missing = [id for id in kept if id not in by_id]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(kept)} conversations that {folder} is to keep are not "
            f"among the sources, first {missing[0]!r}: give the text of all of them with "
            "--conversations, a memory does not hold it"
        )
    more = [id for id in by_id if id not in kept and id not in ids]
    if more:
        log.info(
            "%s, first %s, not in the memory: left out; `unswayed remember train` learns them",
            count(len(more)), more[0],
        )  # fmt: skip
    return [by_id[id] for id in kept]


def _cost(manifest: dict[str, Any], ids: Sequence[str], kept: Sequence[str]) -> str:
    """What forgetting costs, in words; the time is that of the first training, by samples."""
    entries = manifest["conversations"]
    timed = [entry for entry in entries if "seconds" in entry]
    samples = sum(entry["samples"] for entry in entries if entry["id"] in kept)
    if timed:
        rate = sum(entry["seconds"] for entry in timed) / sum(entry["samples"] for entry in timed)
        took = f"about {duration(rate * samples)}, if it goes as fast as before"
    else:
        took = "how long that took before is not known"
    return (
        f"To forget {', '.join(ids)}, all else is learnt anew: {count(len(kept))}, {samples} "
        f"samples x {manifest['settings']['epochs']} epochs, {took}."
    )


def _scratch(folder: Path, what: Sequence[Any]) -> Path:
    """Where one forgetting trains: another set of conversations gives another name."""
    folder = Path(os.path.abspath(folder))
    digest = hashlib.sha256(repr(what).encode()).hexdigest()[:12]
    return folder.with_name(f".{folder.name}.forget-{digest}")


def _scratches(folder: Path) -> list[Path]:
    folder = Path(os.path.abspath(folder))
    prefix = f".{folder.name}.forget-"
    return sorted(path for path in folder.parent.iterdir() if path.name.startswith(prefix))


def _tidy(folder: Path, manifest: dict[str, Any]) -> list[Path]:
    """Remove adapters that the manifest does not name, and the scratch it came from; says which."""
    named = folder / manifest["adapter"]["folder"]
    old = [path for path in _adapters(folder) if path != named]
    for path in _scratches(folder):
        trained = read_manifest(path)
        if trained is not None and trained["adapter"] == manifest["adapter"]:
            old.append(path)
    for path in old:
        shutil.rmtree(path)
    return old


def _adapters(folder: Path) -> list[Path]:
    """Adapters of a memory, also half written ones."""
    return sorted(folder.glob("adapter-[0-9][0-9][0-9][0-9][0-9]*"))
