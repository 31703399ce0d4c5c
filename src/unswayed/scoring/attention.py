"""Can a model read a token tree, and the tree's mask in the form that its attention takes.

A tree is exact where attention is the only thing that mixes positions, its mask is ours to give,
and a position's embedding depends on nothing but its number.
"""

from __future__ import annotations

from typing import Any

import torch

from unswayed.scoring.tree import Pack

SHAREABLE_LAYERS = {"full_attention", "sliding_attention"}
LENGTH_DEPENDENT_ROPE = {"longrope", "dynamic"}


def tree_obstacle(model: Any) -> str | None:
    """Why a transformers causal model cannot be given token trees, read from its config; or None.

    None is no proof: see `unswayed.scoring.exact`.
    """
    if getattr(model, "_is_stateful", False):
        return "it keeps a recurrent state instead of a cache of keys and values"
    kinds, _ = layer_kinds(model.config)
    if unknown := kinds - SHAREABLE_LAYERS:
        return f"it has layers of kind {', '.join(sorted(unknown))}"
    if rope := rope_types(model.config) & LENGTH_DEPENDENT_ROPE:
        return f"its rotary positions ({', '.join(sorted(rope))}) depend on the longest prompt"
    if (kernel := attention_kernel(model)) not in ("sdpa", "eager"):
        return f"attention kernel {kernel} takes no tree mask (load it with sdpa to share)"
    return None


def tree_mask(model: Any, pack: Pack, device: Any) -> torch.Tensor | dict[str, torch.Tensor]:
    """The pack's mask in the form that the model's attention reads, per kind of layer.

    Returns:
        (1, 1, T, P + T) for T tokens after a cache of P: bool, or for the kernel "eager" what is
        added to the scores; a dict of these if the model has several kinds of layers.
    """
    kinds, window = layer_kinds(model.config)
    prefix = pack.mask.shape[1] - pack.mask.shape[0]
    key_positions = torch.cat([torch.arange(prefix), pack.positions])

    def ready(kind: str) -> torch.Tensor:
        mask = pack.mask
        if kind == "sliding_attention":
            mask = mask & (pack.positions[:, None] - key_positions[None] < window)
        mask = mask[None, None].to(device)
        if attention_kernel(model) == "eager":  # adds the mask to the scores
            mask = torch.zeros_like(mask, dtype=model.dtype).masked_fill(
                ~mask, torch.finfo(model.dtype).min
            )
        return mask

    masks = {kind: ready(kind) for kind in sorted(kinds)}
    return next(iter(masks.values())) if len(masks) == 1 else masks


def layer_kinds(config: Any) -> tuple[set[str], int | None]:
    """Kinds of attention layers in a transformers config, and the sliding window in tokens."""
    config = config.get_text_config(decoder=True)
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds:
        kinds = {"sliding_attention"} if window else {"full_attention"}
    return kinds, window


def rope_types(config: Any) -> set[str]:
    """Kinds of rotary position embedding in a transformers config."""
    parameters = getattr(config.get_text_config(decoder=True), "rope_parameters", None) or {}
    per_layer = [value for value in parameters.values() if isinstance(value, dict)]
    return {p["rope_type"] for p in (parameters, *per_layer) if p.get("rope_type")}


def attention_kernel(model: Any) -> str | None:
    """Name of the attention implementation that transformers chose for the model."""
    return model.config.get_text_config(decoder=True)._attn_implementation
