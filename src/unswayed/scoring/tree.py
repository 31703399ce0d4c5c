"""Token trees: what many prompts share is stored, and later encoded, once.

An audit asks the same items under many personas, and every item has several options: as token
sequences these form a tree (persona, then item, then option). This module builds that tree from
plain token lists and packs pieces of it into forward passes. It knows nothing of models: a pack is
token ids, position ids and an attention mask in which a token sees its ancestors and nothing else
(tree attention, as in SpecInfer, arXiv 2305.09781, section 4.2). A pack is also cut into blocks of
rows that see the same few ranges of keys, so that attention need not look at what the mask hides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

BLOCK_TOKENS = 128  # smaller blocks look at fewer hidden keys, but each takes a call per layer
MOST_BLOCKS = 16  # in a pack of one size of subtrees, about


@dataclass(frozen=True)
class Read:
    """One wanted log-probability: that of `target` after the token at `offset` of a node."""

    offset: int
    request: int
    rank: int  # place of the target in the request's continuation
    target: int


@dataclass
class Node:
    """A run of tokens that the same requests share, and the nodes that continue it."""

    tokens: tuple[int, ...]
    start: int  # position of the first token in the whole sequence
    children: list[Node] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    n_tokens: int = 0  # in the whole subtree
    n_leaves: int = 0  # distinct sequences that end in the subtree


def build_tree(requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Node]:
    """Merge requests into a forest of shared prefixes.

    Args:
        requests: pairs (context, continuation) of token ids, both non-empty.

    Returns:
        Root nodes in lexicographic order of their tokens. The last token of each continuation is
        a target only and is not part of the tree.
    """
    if any(not context or not continuation for context, continuation in requests):
        raise ValueError("a request needs at least one context and one continuation token")
    sequences = [(*context, *continuation[:-1]) for context, continuation in requests]
    order = sorted(range(len(requests)), key=sequences.__getitem__)

    def grow(group: list[int], start: int) -> Node:
        first, last = sequences[group[0]], sequences[group[-1]]
        end = start
        shortest = min(len(first), len(last))
        while end < shortest and first[end] == last[end]:
            end += 1
        node = Node(tokens=first[start:end], start=start, n_tokens=end - start)
        for i in group:
            context, continuation = requests[i]
            for position in range(max(start, len(context) - 1), end):
                rank = position - len(context) + 1
                node.reads.append(Read(position - start, i, rank, continuation[rank]))
        longer = [i for i in group if len(sequences[i]) > end]
        node.children = [grow(part, end) for part in split(longer, end)]
        node.n_tokens += sum(child.n_tokens for child in node.children)
        node.n_leaves = sum(child.n_leaves for child in node.children) + (len(longer) < len(group))
        return node

    def split(group: list[int], position: int) -> list[list[int]]:
        parts: list[list[int]] = []
        for i in group:
            if parts and sequences[parts[-1][0]][position] == sequences[i][position]:
                parts[-1].append(i)
            else:
                parts.append([i])
        return parts

    return [grow(part, 0) for part in split(order, 0)]


@dataclass(frozen=True)
class Block:
    """Rows of a pack, and the only keys that any of them may see.

    Attributes:
        rows: (first, end) in the pack.
        keys: ranges (first, end) in the cached prefix and the pack behind it, in order and apart.
    """

    rows: tuple[int, int]
    keys: tuple[tuple[int, int], ...]


@dataclass
class Pack:
    """Tree tokens that go through the model in one pass, after a cached prefix.

    Attributes:
        ids, positions: (T,) long tensors.
        mask: (T, P + T) bool tensor, True where a token may look; P is the cached prefix length.
        blocks: all rows, in order.
        reads: for each wanted log-probability the row (token index in the pack) and the Read.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    blocks: list[Block]
    reads: list[tuple[int, Read]]


def make_pack(
    nodes: Sequence[Node], prefix: int, whole: bool = True, block_tokens: int = BLOCK_TOKENS
) -> Pack:
    """Lay out `nodes` (siblings at position `prefix`) for one pass.

    Args:
        nodes: siblings that all continue the same cached prefix.
        prefix: number of tokens in the cache, P.
        whole: include all descendants; otherwise only the nodes' own tokens.
        block_tokens: rows of a block at most, but a sixteenth of a large pack in any case.
    """
    ids: list[int] = []
    positions: list[int] = []
    reads: list[tuple[int, Read]] = []
    ends: list[int] = []  # of each row: where the rows end that see it, those of its subtree

    def lay(node: Node) -> None:
        row, own = len(ids), len(node.tokens)
        ids.extend(node.tokens)
        positions.extend(range(node.start, node.start + own))
        reads.extend((row + read.offset, read) for read in node.reads)
        ends.extend([row + (node.n_tokens if whole else own)] * own)
        if whole:
            for child in node.children:
                lay(child)

    for node in nodes:
        lay(node)
    size = len(ids)
    rows = torch.arange(size)[:, None]
    tree = (rows >= rows.T) & (rows < torch.tensor(ends))
    mask = torch.cat([torch.ones(size, prefix, dtype=torch.bool), tree], dim=1)
    most = max(block_tokens, size // MOST_BLOCKS)
    blocks = list(_blocks(nodes, prefix, 0, ((0, prefix),), whole, most))
    return Pack(torch.tensor(ids), torch.tensor(positions), mask, blocks, reads)


def _blocks(
    nodes: Sequence[Node],
    prefix: int,
    row: int,
    seen: tuple[tuple[int, int], ...],
    whole: bool,
    most: int,
) -> Iterator[Block]:
    """Siblings laid out from `row` on: small subtrees together, a large one by its parts.

    Args:
        seen: ranges of keys that all of them see.
        most: rows of a block.
    """

    def block(first: int, end: int, key: int) -> Block:
        """Rows that see each other's keys from row `key` on."""
        return Block((first, end), _joined(*seen, (prefix + key, prefix + end)))

    first = row  # of siblings that wait for more
    for node in nodes:
        own = len(node.tokens)
        tokens = node.n_tokens if whole else own
        if row > first and row + tokens - first > most:
            yield block(first, row, first)
            first = row
        if tokens > most:
            for part in range(row, row + own, most):
                yield block(part, min(part + most, row + own), row)
            if whole:
                past = _joined(*seen, (prefix + row, prefix + row + own))
                yield from _blocks(node.children, prefix, row + own, past, whole, most)
            first = row + tokens
        row += tokens
    if row > first:
        yield block(first, row, first)


def _joined(*ranges: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Ranges in order, without empty ones; those that touch become one."""
    apart: list[tuple[int, int]] = []
    for first, end in ranges:
        if apart and apart[-1][1] == first:
            apart[-1] = (apart[-1][0], end)
        elif end > first:
            apart.append((first, end))
    return tuple(apart)
