"""Choosing items: specs, annotators' decisions, and the hash that identifies a set."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.items import (
    KINDS,
    builtin_items,
    items_hash,
    keep_invariant,
    load_items,
    make_item,
)

# `items_hash` of the bank's first edition: figures in results/ were measured on it.
FIRST_BANK = "738301bbaa362785eddc8fd9ada40ad4874d6ebce18fad6e3100a07aaa2989a2"


def item(id: str, test: str = "t", invariant: bool = True):
    return make_item(
        test, id, "understanding", f"{id}?", ["x", "y"], "x", persona_invariant=invariant
    )


def ids(items) -> list[str]:
    return [f"{item.test}:{item.id}" for item in items]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# -- load_items ----------------------------------------------------------------------------------


def test_builtin_is_understanding_then_management():
    both = load_items(["builtin"])
    assert both == builtin_items()
    assert both == load_items(["understanding", "management"])
    assert [test for test, _ in itertools.groupby(item.test for item in both)] == [
        "understanding", "management",
    ]  # fmt: skip
    assert all(item.kind == item.test for item in both)


def test_specs_keep_their_order():
    tests = [item.test for item in load_items(["management:3", "understanding:2"])]
    assert tests == ["management"] * 3 + ["understanding"] * 2


def test_builtin_89_is_the_bank_as_it_first_was():
    items = load_items(["builtin:89"])
    assert Counter(item.test for item in items) == {"understanding": 45, "management": 44}
    assert items == load_items(["understanding:45", "management:44"])
    assert items_hash(items) == FIRST_BANK


@given(st.integers(1, 89))
def test_n_items_are_the_first_of_both_halves(n):
    items = load_items([f"builtin:{n}"])
    halves = [[item for item in items if item.test == test] for test in KINDS]
    assert items == halves[0] + halves[1] and len(items) == n
    assert len(halves[0]) - len(halves[1]) == n % 2
    for half, test in zip(halves, KINDS, strict=True):
        assert half == load_items([test])[: len(half)]
        assert not half or half == load_items([f"{test}:{len(half)}"])


def test_file_spec_names_the_test_and_may_hold_equals_signs_in_its_path(tmp_path):
    row = {"id": "eu_01", "scenario": "Q?", "options": ["x", "y"], "key": "y"}
    path = write(tmp_path / "a=b.jsonl", json.dumps(row))
    items = load_items(["understanding:5", f"mine={path}"])
    assert len(items) == 6
    assert (items[-1].test, items[-1].id) == ("mine", "eu_01")  # ids are per test


def test_no_specs_no_items():
    assert load_items([]) == []


# -- keep_invariant ------------------------------------------------------------------------------


def test_without_decisions_the_items_own_flag_counts():
    items = [item("a"), item("b", invariant=False), item("c")]
    assert ids(keep_invariant(items)) == ["t:a", "t:c"]


def test_the_whole_bank_is_kept():
    assert keep_invariant(builtin_items()) == builtin_items()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("d.jsonl", '{"id": "a", "persona_invariant": false}\n{"id": "b", "persona_invariant": 1}'),
        ("d.csv", "id,persona_invariant\na,FALSE\nb,yes\n"),
        ("d.csv", "persona_invariant,annotator,id\n0,r1,a\n1,r2,b\n"),
    ],
)
def test_decisions_override_the_flag_in_both_directions(tmp_path, name, text):
    items = [item("a"), item("b", invariant=False), item("c")]
    assert ids(keep_invariant(items, write(tmp_path / name, text))) == ["t:b", "t:c"]


def test_a_decision_without_a_test_holds_for_every_test(tmp_path):
    items = [item("a", "t"), item("a", "u"), item("b", "u")]
    path = write(tmp_path / "d.csv", "id,persona_invariant\na,no\n")
    assert ids(keep_invariant(items, path)) == ["u:b"]


def test_a_decision_with_a_test_holds_for_that_test(tmp_path):
    items = [item("a", "t"), item("a", "u"), item("b", "u")]
    path = write(tmp_path / "d.csv", "test,id,persona_invariant\nu,a,no\n,b,no\n")
    assert ids(keep_invariant(items, path)) == ["t:a"]


def test_a_number_as_id(tmp_path):
    path = write(tmp_path / "d.jsonl", '{"id": 7, "persona_invariant": false}\n')
    assert ids(keep_invariant([item("7"), item("8")], path)) == ["t:8"]


def test_spaces_around_an_id_do_not_matter(tmp_path):
    path = write(tmp_path / "d.csv", "id,persona_invariant\n a ,no\n")
    assert ids(keep_invariant([item("a"), item("b")], path)) == ["t:b"]


def test_agreeing_decisions_may_be_repeated(tmp_path):
    path = write(tmp_path / "d.csv", "id,persona_invariant\na,no\na,no\n")
    assert ids(keep_invariant([item("a"), item("b")], path)) == ["t:b"]


def test_contradicting_decisions_are_an_error(tmp_path):
    """One row per annotator is a likely file; the last row must not win without a word."""
    path = write(tmp_path / "d.csv", "id,persona_invariant\na,no\nb,no\na,yes\n")
    with pytest.raises(InputError, match=r"d\.csv:4: contradicts .*d\.csv:2 on"):
        keep_invariant([item("a"), item("b"), item("c")], path)


def test_items_are_not_changed_by_decisions(tmp_path):
    items = [item("a"), item("b")]
    path = write(tmp_path / "d.csv", "id,persona_invariant\na,no\n")
    assert keep_invariant(items, path) == [items[1]]
    assert items[0].persona_invariant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,persona_invariant\na,no\nzz,no\n", ":3: no item has the id 'zz'"),
        ("test,id,persona_invariant\nu,a,no\n", ":2: no item has the id 'a'"),
        ("id,persona_invariant\na,perhaps\n", ":2: persona_invariant is 'perhaps', it must be"),
        ("id,persona_invariant\n", ": holds no decisions; leave --decisions out"),
        ("", ": holds no decisions; leave --decisions out"),
        ("id,decision\na,no\n", ":2: needs the fields id and persona_invariant"),
        ("id,persona_invariant\na,\n", ":2: needs the fields id and persona_invariant"),
    ],
)
def test_faulty_decisions(tmp_path, text, message):
    path = write(tmp_path / "d.csv", text)
    with pytest.raises(InputError) as caught:
        keep_invariant([item("a"), item("b")], path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_missing_decisions_file(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv: no such file"):
        keep_invariant([item("a")], tmp_path / "gone.csv")


def test_nothing_left(tmp_path):
    with pytest.raises(InputError, match="no persona-invariant item is left"):
        keep_invariant([item("a", invariant=False)])
    path = write(tmp_path / "d.csv", "id,persona_invariant\na,no\nb,no\n")
    with pytest.raises(InputError, match="no persona-invariant item is left"):
        keep_invariant([item("a"), item("b")], path)


# -- items_hash ----------------------------------------------------------------------------------

BASE = make_item("t", "a", "management", "Q?", ["x", "y", "z"], "x", [1, 0.5, 0.25])


@pytest.mark.parametrize(
    "change",
    [
        {"id": "b"},
        {"test": "u"},
        {"kind": "understanding"},
        {"scenario": "Q!"},
        {"options": ("x", "y", "w")},
        {"options": ("x", "z", "y")},
        {"key": 1},
        {"weights": (1.0, 0.5, 0.2)},
    ],
)
def test_hash_changes_with_every_scored_part(change):
    assert items_hash([dataclasses.replace(BASE, **change)]) != items_hash([BASE])


@pytest.mark.parametrize("change", [{"rationale": "other"}, {"persona_invariant": False}])
def test_hash_ignores_what_neither_the_model_nor_the_scoring_sees(change):
    assert items_hash([dataclasses.replace(BASE, **change)]) == items_hash([BASE])


def test_hash_depends_on_order_and_number():
    a, b = item("a"), item("b")
    assert len({items_hash(items) for items in ([a], [a, b], [b, a], [])}) == 4


def test_hash_is_a_sha256_and_the_same_for_any_iterable():
    items = builtin_items()
    assert items_hash(iter(items)) == items_hash(items)
    assert len(bytes.fromhex(items_hash(items))) == 32
