"""Can a model read a token tree, and the tree's mask in the form that its attention takes.

A tree is exact where attention is the only thing that mixes positions, its mask is ours to give,
and a position's embedding depends on nothing but its number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from unswayed.scoring.tree import Pack, build_tree, make_pack

SHAREABLE_LAYERS = {"full_attention", "sliding_attention"}
LENGTH_DEPENDENT_ROPE = {"longrope", "dynamic"}
SCORING, TRAINING = (1e-3, 0.1), (1e-4, 0.02)  # limits of a probe, nats per token: float32, less


def tree_obstacle(model: Any) -> str | None:
    """Why a transformers causal model cannot be given token trees, read from its config; or None.

    None is no proof: compare both paths on a few tokens before relying on it.
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


def probe_tokens(
    model: Any, room: int, vocabulary: int
) -> tuple[list[int], Callable[[int], list[int]]]:
    """Random tokens below `vocabulary`, past the sliding window if there is one but at most `room`,
    and a source of n more.
    """
    kinds, window = layer_kinds(model.config)
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> list[int]:
        return torch.randint(0, vocabulary, (n,), generator=generator).tolist()

    return draw(min(24 + (window if "sliding_attention" in kinds else 0), room)), draw


def probe(
    alone: Sequence[float],
    together: Callable[[], Sequence[float]],
    sizes: Sequence[int],
    limit: float,
) -> str | None:
    """Why a tree is not exact; None where it is.

    Args:
        alone: (n,) log-probabilities (nats) of texts, each scored by itself.
        together: the same from a tree.
        sizes: (n,) tokens of the texts.
        limit: nats per token, see `SCORING` and `TRAINING`.
    """
    try:
        values = together()
    except Exception as error:  # whatever a model of unknown code raises on a tree mask
        return f"a pass with a tree mask failed ({type(error).__name__}: {str(error)[:120]})"
    difference = max(abs(a - b) / n for a, b, n in zip(alone, values, sizes, strict=True))
    if not difference <= limit:
        return f"a probe differs by {difference:.2g} per token (limit {limit:g})"
    return None


@torch.inference_mode()
def why_padded(model: Any) -> str | None:
    """Why this model is trained on padded rows, or None where a tree is exact.

    Known obstacles are read from the config; then random texts are scored both ways.
    """
    if reason := tree_obstacle(model):
        return reason
    positions = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    vocabulary = model.get_input_embeddings().num_embeddings
    trunk, draw = probe_tokens(model, (positions or 64) - 8, vocabulary)
    first = trunk + draw(3)
    for text in (trunk + draw(7), trunk[:5] + draw(4), draw(6)):
        fault = probe(  # in pairs, so that a leak cannot average out
            [_log_prob(model, [first], False) + _log_prob(model, [text], False)],
            lambda text=text: [_log_prob(model, [first, text], True)],
            [len(first) + len(text) - 2],
            TRAINING[model.dtype != torch.float32],
        )
        if fault:
            return fault
    return None


def _log_prob(model: Any, texts: Sequence[list[int]], tree: bool) -> float:
    """Log-probability of all tokens but each text's first, from one pass over one token tree; or,
    of a single text, from a plain pass."""
    pack = make_pack(build_tree([(text[:1], text[1:]) for text in texts]), prefix=0)
    inputs = {"input_ids": pack.ids[None].to(model.device)}
    if tree:
        inputs["position_ids"] = pack.positions[None].to(model.device)
        inputs["attention_mask"] = tree_mask(model, pack, model.device)
    else:
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    log_probs = model(**inputs, use_cache=False).logits[0].float().log_softmax(-1)
    rows, targets = zip(*((row, read.target) for row, read in pack.reads), strict=True)
    return float(log_probs[list(rows), list(targets)].sum())


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
