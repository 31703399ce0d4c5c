"""A model that adapters are trained on: loaded, out of a loaded lm-eval model, under accelerate."""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError, one_line
from unswayed.models.embedded import model_label, model_path
from unswayed.models.load import GIVE, default_device, default_dtype, files_hash

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
    import transformers

    device = device or default_device()
    dtype = default_dtype(dtype, device)
    transformers.utils.logging.disable_progress_bar()
    path = model_path(name)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"model {name} cannot be loaded: {one_line(error)} {GIVE}") from error
    limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    base = _frozen(name, model, tokenizer, limit)
    if base.padded:
        log.warning("%s: samples are padded, training is slower: %s", name, base.padded)
    return base


def loaded_base(lm: Any, name: str) -> Base:
    """The base of adapters that are trained and switched on in an lm-eval model; it is frozen.

    Args:
        lm: of the backend hf-shared or hf.
        name: under which it was loaded.

    Raises:
        InputError: it is an encoder-decoder model.
    """
    if lm.backend != "causal":
        raise InputError(f"{name} is no causal model; memories are trained into those only")
    return _frozen(name, lm.model, lm.tokenizer, lm.max_length)


def _frozen(name: str, model: Any, tokenizer: Any, max_length: int | None) -> Base:
    from unswayed.scoring.attention import why_padded

    model.eval().requires_grad_(False)
    weights = weights_hash(model_path(name))
    return Base(model_label(name), weights, model, tokenizer, max_length, why_padded(model))


def load_launched(model: str, dtype: str) -> tuple[Any, Base]:
    """The `accelerate.Accelerator` of the processes that `accelerate launch` started, and the base
    model where these want it.

    Raises:
        InputError: they do not know of each other, or as `load_base`.
    """
    import torch
    from accelerate import Accelerator

    # Without a GPU accelerate has to be told, or each of several processes takes itself for the
    # only one, and all of them train all users.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise InputError(
            f"{started} processes were started, accelerate sees {accelerator.num_processes}: check "
            "distributed_type and use_cpu in the file given to accelerate launch"
        )
    device = "cpu" if is_sharded(accelerator) else str(accelerator.device)
    return accelerator, load_base(model, dtype, device)


def is_sharded(accelerator: Any) -> bool:
    """Whether the processes hold one model together."""
    from accelerate.utils import DistributedType

    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def weights_hash(path: str) -> str:
    """SHA-256 over the weight files of a model folder, or of a Hub model in the local cache."""
    from transformers.utils import cached_file

    folder = Path(path)
    if not folder.is_dir():
        folder = Path(cached_file(path, "config.json")).parent
    return files_hash(sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin")))
