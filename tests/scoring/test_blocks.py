"""Attention block by block: what is left out is what the mask hides."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from unswayed.scoring.attention import blockwise, tree_mask
from unswayed.scoring.tree import Pack, build_tree, make_pack

TEXTS = [
    (*range(5, 15), *item, *option)
    for item in ((20, 21, 22), (30, 31))
    for option in ((40, 41), (50,))
]


def logits(model: Any, pack: Pack, blocks: bool) -> torch.Tensor:
    """(T, V) of a pack, by its blocks or by its mask alone."""

    def forward() -> torch.Tensor:
        return model(
            input_ids=pack.ids[None],
            position_ids=pack.positions[None],
            attention_mask=tree_mask(model, pack, "cpu"),
            past_key_values=DynamicCache(),
        ).logits[0]

    with torch.inference_mode():
        if not blocks:
            return forward()
        with blockwise(pack):
            return forward()


def unmasked_between_blocks(pack: Pack) -> Pack:
    """With a mask that shows each block the keys that it leaves out."""
    mask = torch.ones_like(pack.mask)
    for block in pack.blocks:
        rows = slice(*block.rows)
        for first, end in block.keys:
            mask[rows, first:end] = pack.mask[rows, first:end]
    return dataclasses.replace(pack, mask=mask)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3", "gpt2"])
def test_blocks_look_at_their_own_keys_only(tiny_model_dir, name: str):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir(name), attn_implementation="sdpa")
    tree = build_tree([(text[:1], (*text[1:], 60)) for text in TEXTS])
    pack = make_pack(tree, 0, block_tokens=4)
    assert len(pack.blocks) > 4
    by_mask = logits(model, pack, blocks=False)
    torch.testing.assert_close(logits(model, pack, blocks=True), by_mask, atol=2e-5, rtol=1e-4)
    open_pack = unmasked_between_blocks(pack)
    torch.testing.assert_close(logits(model, open_pack, blocks=True), by_mask, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(logits(model, open_pack, blocks=False), by_mask, atol=1e-3)


def test_gradients_through_blocks(tiny_model_dir):
    model = AutoModelForCausalLM.from_pretrained(
        tiny_model_dir("llama"), attn_implementation="sdpa"
    )
    pack = make_pack(build_tree([(text[:1], (*text[1:], 60)) for text in TEXTS]), 0, block_tokens=4)
    mask = tree_mask(model, pack, "cpu")
    gradients = []
    for blocks in (False, True):
        model.zero_grad()
        inputs = {"input_ids": pack.ids[None], "position_ids": pack.positions[None]}
        if blocks:
            with blockwise(pack):
                out = model(**inputs, attention_mask=mask, use_cache=False).logits
        else:
            out = model(**inputs, attention_mask=mask, use_cache=False).logits
        out.logsumexp(-1).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for by_mask, by_block in zip(*gradients, strict=True):
        torch.testing.assert_close(by_block, by_mask, atol=1e-4, rtol=1e-3)
