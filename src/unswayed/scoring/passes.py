"""From a token tree to log-probabilities: passes of a model after a cache of shared prefixes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import DynamicCache

from unswayed.scoring.attention import blockwise, tree_mask
from unswayed.scoring.tree import BLOCK_TOKENS, Node, Pack, Read, make_pack


def passes(
    tree: list[Node], budget: int, done: Callable[[int], Any], block_tokens: int = BLOCK_TOKENS
) -> Iterator[tuple[Pack, DynamicCache]]:
    """Depth first over the tree: packs together with the cache of their prefix.

    A node whose subtree exceeds the budget is encoded alone and stays in the cache while its
    children are visited, so memory holds one path at a time.

    Args:
        tree: roots, see `build_tree`.
        budget: tokens in one pass.
        done: told after a pass how many distinct sequences ended in it.
        block_tokens: as in `make_pack`.
    """

    def visit(nodes: list[Node], cache: DynamicCache, prefix: int):
        waiting: list[Node] = []

        def flush():
            if waiting:
                pack = make_pack(waiting, prefix, block_tokens=block_tokens)
                yield pack, cache
                crop(cache, len(pack.ids))
                done(sum(node.n_leaves for node in waiting))
                waiting.clear()

        for node in nodes:
            if node.n_tokens > budget:
                yield from flush()
                pack = make_pack([node], prefix, whole=False, block_tokens=block_tokens)
                yield pack, cache
                done(node.n_leaves - sum(child.n_leaves for child in node.children))
                yield from visit(node.children, cache, prefix + len(node.tokens))
                crop(cache, len(pack.ids))
            else:
                if waiting and sum(n.n_tokens for n in waiting) + node.n_tokens > budget:
                    yield from flush()
                waiting.append(node)
        yield from flush()

    # No config: every layer keeps all positions, also in sliding-window models; the window is
    # in the mask. A cache that forgets could not be cropped back to the prefix.
    yield from visit(tree, DynamicCache(), 0)


def crop(cache: DynamicCache, tokens: int) -> None:
    """Take the last `tokens` positions out of the cache."""
    cache.crop(-tokens)


@torch.inference_mode()
def read_pack(
    model: Any, pack: Pack, cache: DynamicCache, device: Any
) -> list[tuple[Read, float, bool]]:
    """One pass: each wanted log-probability (nats), and whether its target is the greedy one.

    Args:
        model: causal model of transformers, or a PEFT model around one.
        pack: tokens after the prefix in the cache, which they are added to.
        device: of the inputs.
    """
    rows = sorted({row for row, _ in pack.reads})
    place = {row: i for i, row in enumerate(rows)}
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    # Some forwards project chosen positions onto the vocabulary, others the whole sequence. Rows
    # stay a list, which indexes on whatever device the last layer is.
    chooses = "logits_to_keep" in inspect.signature(base.forward).parameters
    with blockwise(pack):
        logits = model(
            input_ids=pack.ids[None].to(device),
            position_ids=pack.positions[None].to(device),
            attention_mask=tree_mask(model, pack, device),
            past_key_values=cache,
            use_cache=True,
            **({"logits_to_keep": rows} if chooses else {}),
        ).logits[0]
    if not rows:
        return []
    if not chooses:
        logits = logits[rows]
    logits = logits.to(device).float()
    at = torch.tensor([place[row] for row, _ in pack.reads], device=logits.device)
    targets = torch.tensor([read.target for _, read in pack.reads], device=logits.device)
    log_probs = (logits[at, targets] - logits.logsumexp(-1)[at]).tolist()
    greedy = (logits.argmax(-1)[at] == targets).tolist()
    return list(zip((read for _, read in pack.reads), log_probs, greedy, strict=True))
