"""Token trees against what they stand for, spelled out naively from the requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unswayed.scoring.tree import Node, build_tree, make_pack

Tokens = tuple[int, ...]

tokens = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple)
forests = st.lists(st.tuples(tokens, tokens), min_size=1, max_size=14)


def sequence(request: tuple[Tokens, Tokens]) -> Tokens:
    """What the model has to read: everything but the last target."""
    context, continuation = request
    return context + continuation[:-1]


def walk(nodes: list[Node], path: Tokens = ()) -> Iterator[tuple[Node, Tokens]]:
    """Every node with the tokens on the way from its root to its own end."""
    for node in nodes:
        yield node, path + node.tokens
        yield from walk(node.children, path + node.tokens)


def prefixes(sequences: set[Tokens]) -> set[Tokens]:
    return {s[:n] for s in sequences for n in range(1, len(s) + 1)}


@given(forests)
def test_every_target_is_read_once_after_its_own_prefix(requests):
    seen = Counter()
    for node, path in walk(build_tree(requests)):
        for read in node.reads:
            context, continuation = requests[read.request]
            assert 0 <= read.offset < len(node.tokens)
            assert path[: node.start + read.offset + 1] == context + continuation[: read.rank]
            assert read.target == continuation[read.rank]
            seen[read.request, read.rank] += 1
    assert seen == {(i, rank): 1 for i, (_, c) in enumerate(requests) for rank in range(len(c))}


@given(forests)
def test_every_distinct_prefix_is_stored_once(requests):
    tree = build_tree(requests)
    sequences = {sequence(request) for request in requests}
    stored = [path[:n] for node, path in walk(tree) for n in range(node.start + 1, len(path) + 1)]
    assert Counter(stored) == Counter(prefixes(sequences))
    assert sum(node.n_tokens for node in tree) == len(prefixes(sequences))
    assert sum(node.n_leaves for node in tree) == len(sequences)


@given(forests)
def test_counts_hold_in_every_subtree(requests):
    sequences = {sequence(request) for request in requests}
    for node, path in walk(build_tree(requests)):
        first = path[: node.start + 1]
        inside = {s for s in sequences if s[: len(first)] == first}
        assert node.n_leaves == len(inside)
        assert node.n_tokens == len({p for p in prefixes(inside) if len(p) > node.start})


@given(forests)
def test_nodes_are_maximal_and_in_order(requests):
    tree = build_tree(requests)
    sequences = {sequence(request) for request in requests}
    for siblings in [tree, *(node.children for node, _ in walk(tree))]:
        firsts = [node.tokens[0] for node in siblings]
        assert firsts == sorted(set(firsts))
    for node, path in walk(tree):
        assert node.start == len(path) - len(node.tokens)
        assert all(child.start == len(path) for child in node.children)
        assert len(node.children) != 1 or path in sequences, "a needless cut"


@given(forests, st.randoms(use_true_random=False))
def test_order_of_requests_does_not_matter(requests, random):
    order = random.sample(range(len(requests)), len(requests))

    def shape(nodes: list[Node], name) -> list:
        return [
            (n.tokens, {(r.offset, name(r.request), r.rank, r.target) for r in n.reads})
            for n, _ in walk(nodes)
        ]

    shuffled = build_tree([requests[i] for i in order])
    assert shape(build_tree(requests), lambda i: i) == shape(shuffled, lambda i: order[i])


def test_a_persona_an_item_and_its_options():
    persona, item = (1, 2), (3, 4)
    tree = build_tree([(persona + item, (5, 6)), (persona + item, (7,)), (persona, (3, 4))])
    (root,) = tree
    assert root.tokens == (1, 2, 3)  # the third request ends here: its 4 is only a target
    assert [(r.offset, r.request, r.rank, r.target) for r in root.reads] == [
        (1, 2, 0, 3),
        (2, 2, 1, 4),
    ]
    (item_node,) = root.children
    assert item_node.tokens == (4,)
    assert {(r.request, r.target) for r in item_node.reads} == {(0, 5), (1, 7)}
    assert [child.tokens for child in item_node.children] == [(5,)]
    assert (root.n_tokens, root.n_leaves) == (5, 3)


def test_nothing_to_build():
    assert build_tree([]) == []


@pytest.mark.parametrize("request_", [((), (1,)), ((1,), ()), ((), ())])
def test_context_and_continuation_must_not_be_empty(request_):
    with pytest.raises(ValueError, match="at least one context and one continuation token"):
        build_tree([((1,), (2,)), request_])


def check_pack(nodes: list[Node], prefix: Tokens, requests, whole: bool) -> None:
    """Rows of the pack against the paths of its nodes, after a cached `prefix`."""
    pack = make_pack(nodes, len(prefix), whole=whole)
    inside = list(walk(nodes, prefix)) if whole else [(n, prefix + n.tokens) for n in nodes]
    size = sum(len(node.tokens) for node, _ in inside)
    assert pack.ids.dtype == pack.positions.dtype == torch.long
    assert pack.ids.shape == pack.positions.shape == (size,)
    assert pack.mask.dtype == torch.bool
    assert pack.mask.shape == (size, len(prefix) + size)

    ids = list(prefix) + pack.ids.tolist()
    positions = list(range(len(prefix))) + pack.positions.tolist()
    spelled = []
    for row in range(size):
        visible = pack.mask[row].nonzero()[:, 0].tolist()
        assert visible[-1] == len(prefix) + row, "a token sees itself last, nothing later"
        assert [positions[k] for k in visible] == list(range(len(visible)))
        spelled.append(tuple(ids[k] for k in visible))
    expected = [path[:n] for node, path in inside for n in range(node.start + 1, len(path) + 1)]
    assert Counter(spelled) == Counter(expected)

    for row, read in pack.reads:
        context, continuation = requests[read.request]
        assert spelled[row] == context + continuation[: read.rank]
    assert Counter(read for _, read in pack.reads) == Counter(
        read for node, _ in inside for read in node.reads
    )


@given(forests)
def test_a_packed_token_sees_its_own_prefix_and_nothing_else(requests):
    check_pack(build_tree(requests), (), requests, whole=True)


@given(forests, st.data())
def test_a_pack_after_a_cached_prefix(requests, data):
    inner = [(n, path) for n, path in walk(build_tree(requests)) if n.children]
    if inner:
        node, path = data.draw(st.sampled_from(inner))
        first = data.draw(st.integers(0, len(node.children) - 1))
        check_pack(node.children[first:], path, requests, whole=True)


@given(forests, st.data())
def test_a_pack_of_a_node_without_its_descendants(requests, data):
    tree = build_tree(requests)
    node, path = data.draw(st.sampled_from(list(walk(tree))))
    check_pack([node], path[: node.start], requests, whole=False)
    assert make_pack([node], node.start, whole=False).ids.tolist() == list(node.tokens)


@given(forests, st.integers(0, 3), st.integers(1, 9))
def test_blocks_hold_each_row_once_and_every_key_that_it_sees(requests, prefix, block_tokens):
    tree = build_tree(requests)
    for whole in (True, False):
        pack = make_pack(tree, prefix, whole, block_tokens)
        rows = [row for block in pack.blocks for row in range(*block.rows)]
        assert rows == list(range(len(pack.ids)))
        for block in pack.blocks:
            assert all(end < first for (_, end), (first, _) in pairwise(block.keys))
            keys = [key for first, end in block.keys for key in range(first, end)]
            seen = pack.mask[slice(*block.rows)].any(0)
            assert seen.nonzero().flatten().tolist() == keys
