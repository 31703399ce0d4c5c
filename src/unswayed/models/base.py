"""A model that adapters are trained on: loaded, out of a loaded lm-eval model, under accelerate."""

from __future__ import annotations

import dataclasses
import logging
from datetime import timedelta
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.ranks import launched
from unswayed.models.dtypes import default_dtype
from unswayed.models.embedded import model_label, model_path
from unswayed.models.hashes import source_of, weights_hash
from unswayed.models.load import default_device
from unswayed.scoring.checkpoint import check_rows, load_complete, load_tokenizer, refusing

log = logging.getLogger(__name__)

PATIENCE = timedelta(weeks=4)  # a process that is done waits for the others


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
    from transformers import AutoModelForCausalLM

    device = device or default_device()
    path = model_path(name)
    model = load_complete(AutoModelForCausalLM, path, dtype=default_dtype(dtype, device))
    tokenizer = load_tokenizer(path)
    check_rows(model, tokenizer, name)
    with refusing(name):
        model.to(device)
    limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    base = _frozen(name, model, tokenizer, limit, weights_hash(name))
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
    weights = weights_hash(name, **source_of(lm))
    return _frozen(name, lm.model, lm.tokenizer, lm.max_length, weights)


def _frozen(name: str, model: Any, tokenizer: Any, max_length: int | None, weights: str) -> Base:
    from unswayed.scoring.exact import why_not_shared

    model.eval().requires_grad_(False)
    return Base(model_label(name), weights, model, tokenizer, max_length, why_not_shared(model))


def load_launched(model: str, dtype: str) -> tuple[Any, Base]:
    """The `accelerate.Accelerator` of the processes that `accelerate launch` started, and the base
    model where these want it.

    Raises:
        InputError: they do not know of each other, or as `load_base`.
    """
    import torch
    from accelerate import Accelerator, InitProcessGroupKwargs

    # Without a GPU accelerate has to be told, or each of several processes takes itself for the
    # only one, and all of them train all users.
    patient = InitProcessGroupKwargs(timeout=PATIENCE)
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), kwargs_handlers=[patient])
    started = launched()
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
