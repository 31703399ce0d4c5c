"""A model that adapters are trained on, and which weights it has."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.models.embedded import model_label, model_path

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Base:
    """A frozen model on which adapters are trained.

    Attributes:
        name: as the user gave it, without a path of this machine.
        weights: SHA-256 of its weight files; an adapter belongs to these.
        max_length: positions that the model has, or None.
        padded: why samples are padded instead of packed as a tree, or None.
    """

    name: str
    weights: str
    model: Any
    tokenizer: Any
    max_length: int | None
    padded: str | None


def load_base(name: str, dtype: str = "auto", device: str | None = None) -> Base:
    """A model to train on.

    Args:
        name: Hub id, folder or the embedded model's name.
        dtype: a torch dtype's name; "auto" is float32 on CPU, else the checkpoint's. The adapter
            itself is always float32.
        device: as in torch; None takes the GPU if there is one.

    Raises:
        InputError: it cannot be loaded.
    """
    import torch
    import transformers

    from unswayed.scoring.attention import why_padded

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if dtype == "auto" and torch.device(device).type == "cpu":
        dtype = "float32"
    transformers.utils.logging.disable_progress_bar()
    path = model_path(name)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"model {name} cannot be loaded: {' '.join(str(error).split())[:240]} Give a Hub id, a "
            "folder with config.json and safetensors, or smollm2-135m."
        ) from error
    model.eval().requires_grad_(False)
    padded = why_padded(model)
    if padded:
        log.warning("%s: samples are padded, training is slower: %s", name, padded)
    limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return Base(model_label(name), weights_hash(path), model, tokenizer, limit, padded)


def weights_hash(path: str) -> str:
    """SHA-256 over the weight files of a model folder, or of a Hub model in the local cache."""
    from transformers.utils import cached_file

    folder = Path(path)
    if not folder.is_dir():
        folder = Path(cached_file(path, "config.json")).parent
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin")):
        with file.open("rb") as stream:
            digest.update(file.name.encode())
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
