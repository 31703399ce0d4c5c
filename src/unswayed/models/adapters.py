"""A user's memory: a LoRA adapter on a base model, and on disk.

A user's folder holds `manifest.json` and one PEFT adapter, which the manifest names; never a word
of what was said. A checkpoint is written beside the old one and counts once the manifest names it.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.files import file_hash, read_json, write_json
from unswayed.models.base import Base

MANIFEST = "manifest.json"
WEIGHTS = "adapter_model.safetensors"
CONVERSATIONS = "conversations"


# -- what is on disk -----------------------------------------------------------------------------


def read_manifest(folder: Path, learnt: str | None = CONVERSATIONS) -> dict[str, Any] | None:
    """The manifest of a memory in weights, None if nothing has been trained there.

    Its fields: base (model, weights), settings, what was learnt (each id, samples, losses: the mean
    of each epoch in nats), adapter (folder and SHA-256 of the weights).

    Args:
        learnt: what the memory was trained on, piece by piece: the field's name. None where it does
            not matter.

    Raises:
        InputError: the file is no manifest of such a memory.
    """
    return read_json(
        folder / MANIFEST,
        ("base", "settings", *filter(None, [learnt]), "adapter"),
        "is no manifest of a memory: restore it, or train into another folder",
    )


def is_memory(folder: Path) -> bool:
    """Whether it is the folder of a user's memory, or the adapter in one."""
    return any(
        (place / MANIFEST).exists() and any(place.glob(f"adapter-*/{WEIGHTS}"))
        for place in (folder, folder.resolve().parent)
    )


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Replace the manifest of a user's memory."""
    write_json(folder / MANIFEST, manifest, indent=2)


def adapter_folder(base: Base, folder: Path) -> Path:
    """The PEFT adapter of a user's memory, after a check that it belongs to the base model.

    Raises:
        InputError: there is none, it is damaged, or it was trained on another model.
    """
    manifest = read_manifest(folder, None)
    if manifest is None:
        raise InputError(f"{folder}: no memory has been trained there (no {MANIFEST})")
    trained_on = manifest["base"]
    if trained_on["weights"] != base.weights:
        raise InputError(
            f"{folder}: this memory was trained on {trained_on['model']} (weights "
            f"{trained_on['weights'][:12]}), not on {base.name} (weights {base.weights[:12]}): use "
            "that model, or train anew in another folder"
        )
    adapter = folder / manifest["adapter"]["folder"]
    weights = adapter / WEIGHTS
    if not weights.exists() or file_hash(weights) != manifest["adapter"]["sha256"]:
        raise InputError(f"{adapter}: the adapter is not the one of the manifest: restore it")
    return adapter


def write_checkpoint(
    folder: Path, manifest: dict[str, Any], number: int, config: Any, tensors: dict[str, Any]
) -> dict[str, Any]:
    """A checkpoint: adapter first, then the manifest that names it, then the old one goes.

    Args:
        number: of the checkpoint, how many pieces have been learnt.
    """
    from safetensors.torch import save_file

    name = f"adapter-{number:05d}"
    scratch = folder / (name + ".partial")
    for leftover in (scratch, folder / name):  # of a run that was killed just here
        shutil.rmtree(leftover, ignore_errors=True)
    scratch.mkdir(parents=True)
    save_file(tensors, scratch / WEIGHTS, metadata={"format": "pt"})
    config.target_modules = sorted(config.target_modules)  # a set has no fixed order
    config.save_pretrained(str(scratch))
    scratch.rename(folder / name)
    adapter = {"folder": name, "sha256": file_hash(folder / name / WEIGHTS)}
    manifest = manifest | {"adapter": adapter}
    write_manifest(folder, manifest)
    for old in folder.glob("adapter-*"):
        if old.name != name:
            shutil.rmtree(old)
    return manifest


# -- LoRA on the model ---------------------------------------------------------------------------


@contextmanager
def remembering(base: Base, folder: Path) -> Iterator[Any]:
    """`with remembering(base, folder) as model`: the base model with the memory switched on.

    Raises:
        InputError: as `adapter_folder`.
    """
    from peft import LoraConfig

    adapter = adapter_folder(base, folder)
    seed = read_manifest(folder, None)["settings"]["seed"]
    with adapted(base, LoraConfig.from_pretrained(str(adapter)), seed, adapter) as model:
        yield model


@contextmanager
def adapted(base: Base, config: Any, seed: int, adapter: Path | None = None) -> Iterator[Any]:
    """The base model with an adapter, new from the seed or from a folder; taken off afterwards.

    Args:
        config: a `peft.LoraConfig`; its base model becomes `base`.

    Raises:
        InputError: the model has no such modules.
    """
    import torch
    from peft import get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    config.base_model_name_or_path = None  # or peft warns that the model has another name
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():  # peft asks the model for an attribute that has a new name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            model = get_peft_model(base.model, config)
    except ValueError as error:
        raise InputError(
            f"LoRA cannot be put on {base.name}: {' '.join(str(error).split())}"
        ) from None
    config.base_model_name_or_path = base.name
    if adapter is not None:
        set_peft_model_state_dict(model, load_file(adapter / WEIGHTS))
    model.eval()
    try:
        yield model
    finally:
        model.unload()
