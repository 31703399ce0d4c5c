"""Can a model read a token tree, and the tree's mask in the form that its attention takes.

A tree is exact where attention is the only thing that mixes positions, its mask is ours to give,
and a position's embedding depends on nothing but its number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from unswayed.scoring.tree import Block, Pack

SHAREABLE_LAYERS = {"full_attention", "sliding_attention"}
LENGTH_DEPENDENT_ROPE = {"longrope", "dynamic"}
CHANGES_SCORES = ("softcap", "position_bias", "s_aux", "cache")  # arguments of attention functions


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


class _Blockwise:
    """Attention of one pack, block by block; transformers' own wherever that is not the same.

    Queries that share a key-value head stand one below the other, so no key is repeated.
    """

    def __init__(self, blocks: list[Block]) -> None:
        self._blocks = blocks
        self._masks: dict[tuple[int, int], tuple[torch.Tensor, list[torch.Tensor]]] = {}

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        """(1, T, heads, width) from a query (1, heads, T, width) and keys of P + T tokens."""
        heads, shared = query.shape[1], key.shape[1]
        out = []
        for block, seen in zip(
            self._blocks, self._block_masks(mask, heads // shared, query.dtype), strict=True
        ):
            rows = query[:, :, slice(*block.rows)]
            mixed = scaled_dot_product_attention(
                rows.reshape(1, shared, -1, rows.shape[-1]),
                _picked(key, block, -2),
                _picked(value, block, -2),
                attn_mask=seen,
                scale=scaling,
            )
            out.append(mixed.reshape(1, heads, rows.shape[2], -1))
        return torch.cat(out, dim=2).transpose(1, 2).contiguous()

    def _block_masks(
        self, mask: torch.Tensor, repeats: int, dtype: torch.dtype
    ) -> list[torch.Tensor]:
        """Of each block what is added to its scores; made once for all layers with this mask."""
        kept = self._masks.get((id(mask), repeats))
        if kept is None:
            masks = []
            for block in self._blocks:
                seen = _picked(mask[0, 0, slice(*block.rows)], block, -1).repeat(repeats, 1)
                masks.append(torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, -torch.inf))
            kept = self._masks[id(mask), repeats] = (
                mask,
                masks,
            )  # kept, so that its id stays its own
        return kept[1]


def _picked(tensor: torch.Tensor, block: Block, dim: int) -> torch.Tensor:
    """What a block sees of a tensor with the keys in dimension `dim`."""
    parts = [tensor.narrow(dim, first, end - first) for first, end in block.keys]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


_blockwise: ContextVar[_Blockwise | None] = ContextVar("blockwise", default=None)


def _sdpa(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' kernel "sdpa", block by block while a pack is read (`blockwise`) on a CPU.

    A GPU would be given thousands of small kernels a pass, and a plan for every new shape.
    """
    ours = _blockwise.get()
    if (
        ours is None
        or query.device.type != "cpu"
        or attention_mask is None
        or attention_mask.dtype != torch.bool
        or attention_mask.shape[:2] != (1, 1)
        or attention_mask.shape[2:] != (query.shape[2], key.shape[2])
        or dropout
        or any(kwargs.get(name) is not None for name in CHANGES_SCORES)
    ):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    return ours(query, key, value, attention_mask, scaling), None


AttentionInterface.register("sdpa", _sdpa)


@contextmanager
def blockwise(pack: Pack) -> Iterator[None]:
    """Inside, attention with the pack's mask leaves out what the mask hides from whole blocks.

    The result is the same but for rounding. Models that do not take their attention from
    transformers' table go on reading the mask.
    """
    token = _blockwise.set(_Blockwise(pack.blocks))
    try:
        yield
    finally:
        _blockwise.reset(token)


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
