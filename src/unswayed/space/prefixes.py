"""A scoring model that keeps encoded prefixes from one call to the next.

A visitor of the Space asks one item at a time about users that other visitors ask about too. So a
user's notes are encoded once and kept, as long as `budget` tokens allow.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache

from unswayed.core.progress import Progress
from unswayed.scoring.lm import SharedPrefixLM
from unswayed.scoring.passes import crop
from unswayed.scoring.tree import Node, make_pack

BUDGET = 20_000  # tokens; 46 kB each for SmolLM2-135M in float32, so 0.9 GB


class PrefixKeepingLM(SharedPrefixLM):
    """`SharedPrefixLM` with prefixes that stay encoded.

    Not for several threads at once: a kept cache grows during a call, and is cropped after it.

    Args:
        pretrained, kwargs: as for `SharedPrefixLM`.
        budget: tokens of all kept prefixes together; the longest unused goes first.
    """

    def __init__(self, pretrained: Any, budget: int = BUDGET, **kwargs: Any) -> None:
        self._budget = budget
        self._kept: OrderedDict[tuple[int, ...], DynamicCache] = OrderedDict()
        super().__init__(pretrained, **kwargs)

    def keep(self, first: str, second: str) -> None:
        """Encode and keep what two prompts begin with, if this model shares prefixes."""
        if self.fallback_reason:
            return
        pairs = zip(self.tok_encode(first), self.tok_encode(second), strict=False)
        prefix = tuple(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if not prefix or prefix in self._kept or len(prefix) > self._budget:
            return
        cache = DynamicCache()
        with torch.inference_mode():
            self._forward(make_pack([Node(prefix, 0, n_tokens=len(prefix))], 0, whole=False), cache)
        self._kept[prefix] = cache
        while sum(map(len, self._kept)) > self._budget:
            self._kept.popitem(last=False)

    def _passes(self, tree: list[Node], budget: int, bar: Progress) -> Iterator[tuple]:
        root = tree[0]
        # The position before an answer is read, so it must not be in the prefix.
        first = min((read.offset for read in root.reads), default=len(root.tokens))
        prefix = max(
            (p for p in self._kept if len(p) <= first and root.tokens[: len(p)] == p),
            key=len,
            default=None,
        )
        if len(tree) > 1 or prefix is None:
            yield from super()._passes(tree, budget, bar)
            return
        self._kept.move_to_end(prefix)
        cache, before = self._kept[prefix], len(prefix)
        try:
            yield make_pack([without(root, before)], before), cache
            bar.add(root.n_leaves)
        finally:
            crop(cache, cache.get_seq_length() - before)


def without(node: Node, n: int) -> Node:
    """The node without its first `n` tokens, none of which is read."""
    return dataclasses.replace(
        node,
        tokens=node.tokens[n:],
        start=node.start + n,
        reads=[dataclasses.replace(read, offset=read.offset - n) for read in node.reads],
        n_tokens=node.n_tokens - n,
    )
