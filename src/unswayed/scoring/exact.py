"""Is a model exact on token trees? Tried, since no config says so.

Whether masks, positions and cached prefixes mean the same to a model on both paths is a matter of
its architecture. So a small copy of it (`shrunken`) decides, in float32, where rounding is a
thousandth of a fault; and it decides for every dtype, since half precision hides small faults and
adds nothing but noise. The model itself then reads a few tokens, in case its device, kernel or
adapter does otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from unswayed.scoring.attention import layer_kinds, tree_obstacle
from unswayed.scoring.passes import passes, read_pack
from unswayed.scoring.shrink import shrunken
from unswayed.scoring.tree import build_tree

LIMIT = 2e-4  # nats per token on the copy: rounding stays below 2e-5, faults are above 5e-3
NOISE = 5  # times that, or what another batch shape changes, on the model itself
# Tokens in one pass, and rows of attention at a time: through the cache, and all at once, by blocks
# and without.
SIZES = ((6, 4), (10**6, 4), (10**6, 10**6))
TRUNK = 16  # tokens that the texts of a probe share; longer than the window of a small copy
PROBES = 3  # of a model in half precision: rounding may choose another expert in one of them


def why_not_shared(model: Any) -> str | None:
    """Why token trees are not exact on a causal model, or None where they are.

    Args:
        model: of transformers, or a PEFT model around one, in evaluation mode.
    """
    return tree_obstacle(model) or _architecture_fault(model) or _own_fault(model)


def _architecture_fault(model: Any) -> str | None:
    """From a small copy in float32; from the model itself where there is none and it is float32."""
    kind = model.device.type
    with torch.autocast(kind, enabled=False), torch.autocast("cpu", enabled=False):
        try:
            small = shrunken(model)
            texts = _texts(small, _past_window(small))
            alone = _alone(small, texts)
        except Exception as error:  # whatever code of an unknown kind raises
            if model.dtype == torch.float32:
                return _own_fault(model, _past_window(model))
            return f"no small copy can be tried in float32 ({_line(error)}): load it in float32"
        return _fault(small, texts, alone, LIMIT)


def _own_fault(model: Any, trunk: int = TRUNK) -> str | None:
    """From the model as it is, against what another batch shape changes; a fault shows in every
    probe."""
    fault = None
    for seed in range(1 if model.dtype == torch.float32 else PROBES):
        texts = _texts(model, trunk, seed)
        alone = _alone(model, texts)
        fault = _fault(model, texts, alone, NOISE * max(LIMIT, _noise(model, texts, alone)))
        if fault is None:
            return None
    return fault


def _fault(model: Any, texts: Sequence[list[int]], alone: torch.Tensor, limit: float) -> str | None:
    """What differs by more than `limit` between a tree and the texts alone."""
    for budget, block_tokens in SIZES:
        try:
            together = _together(model, texts, budget, block_tokens)
        except Exception as error:  # whatever a model raises on a tree mask
            return f"a pass with a tree mask failed ({_line(error)})"
        difference = float((together - alone).abs().max())
        if not difference <= limit:
            return f"a probe differs by {difference:.2g} per token (limit {limit:.2g})"
    return None


def _past_window(model: Any) -> int:
    kinds, window = layer_kinds(model.config)
    return TRUNK + (window if "sliding_attention" in kinds else 0)


def _texts(model: Any, trunk: int, seed: int = 0) -> list[list[int]]:
    """Random tokens: a trunk, two items that continue it, two options each; and a stranger."""
    draw = torch.Generator().manual_seed(seed)
    config = model.config.get_text_config(decoder=True)
    vocabulary = min(config.vocab_size, len(model.get_input_embeddings().weight))
    positions = getattr(config, "max_position_embeddings", None)

    def some(tokens: int) -> list[int]:
        return torch.randint(0, vocabulary, (tokens,), generator=draw).tolist()

    stem = some(min(trunk, (positions or trunk + 9) - 9))
    items = [stem + some(4), stem + some(5)]
    return [*(item + some(tokens) for item in items for tokens in (3, 4)), some(6)]


@torch.inference_mode()
def _alone(model: Any, texts: Sequence[list[int]]) -> torch.Tensor:
    """Log-probabilities (nats) of all tokens but each text's first, a plain pass for each text."""
    rows = [torch.tensor([text], device=model.device) for text in texts]
    return _picked([model(input_ids=row, use_cache=False).logits[0] for row in rows], texts)


@torch.inference_mode()
def _noise(model: Any, texts: Sequence[list[int]], alone: torch.Tensor) -> float:
    """Largest change of `alone` in one pass over padded rows, or its last binary digit."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([torch.tensor(text) for text in texts], batch_first=True).to(model.device)
    seen = pad([torch.ones(len(text)) for text in texts], batch_first=True).long().to(model.device)
    logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits
    kind = model.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype
    digit = torch.finfo(dtype).eps * alone.abs().max()
    return max(float((_picked(logits, texts) - alone).abs().max()), float(digit))


def _picked(logits: Sequence[torch.Tensor], texts: Sequence[list[int]]) -> torch.Tensor:
    """What logits (T, V) of each text say of its tokens, on CPU."""
    return torch.cat(
        [
            scores[: len(text) - 1].float().log_softmax(-1)[range(len(text) - 1), text[1:]].cpu()
            for scores, text in zip(logits, texts, strict=True)
        ]
    )


def _together(
    model: Any, texts: Sequence[list[int]], budget: int, block_tokens: int
) -> torch.Tensor:
    """The same from one tree."""
    values = [torch.zeros(len(text) - 1) for text in texts]
    tree = build_tree([(text[:1], text[1:]) for text in texts])
    for pack, cache in passes(tree, budget, int, block_tokens):
        for read, log_prob, _ in read_pack(model, pack, cache, model.device):
            values[read.request][read.rank] = log_prob
    return torch.cat(values)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"
