"""Items: questions of emotional tests, the built-in bank, and readers for other people's files.

The built-in bank (`bank/*.jsonl`) is the project's own writing, in the generic form that any user
file may take too; see docs/items.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.data.items.item import KINDS, LETTERS, Item, items_hash, make_item, notes_on
from unswayed.data.items.readers import READERS, read_flag, read_items
from unswayed.data.rows import rows_of

__all__ = [
    "BUILTIN", "KINDS", "LETTERS", "READERS", "Item", "builtin_items", "first_items", "items_hash",
    "keep_invariant", "load_items", "make_item", "notes_on", "read_items",
]  # fmt: skip

BUILTIN = "builtin"


def builtin_items() -> list[Item]:
    """The project's own bank: all understanding items, then all management items."""
    return load_items([BUILTIN])


def load_items(specs: Iterable[str]) -> list[Item]:
    """Items of one or more specs, in order.

    Args:
        specs: each "builtin", a built-in test's name ("understanding", "management"), one of these
            with the number of its first items ("builtin:89"), or NAME=FILE. NAME steu, stem,
            emobench_eu or emobench_ea selects that reader; any other name the generic form. FILE
            may also be a folder or a Hub dataset, hub:owner/name, with the same fields as columns.

    Raises:
        InputError: unknown spec, missing or malformed file, ids that occur twice in a test, or a
            test of both kinds of items.
    """
    items: list[Item] = []
    for spec in specs:
        name, _, path = spec.partition("=")
        if name and path:
            items += read_items(path, test=name)
        else:
            items += _of_the_bank(spec)
    seen: set[tuple[str, str]] = set()
    first: dict[str, Item] = {}
    for item in items:
        if (item.test, item.id) in seen:
            raise InputError(f"--items: test {item.test} has the id {item.id!r} twice")
        seen.add((item.test, item.id))
        other = first.setdefault(item.test, item)
        if item.kind != other.kind:
            raise InputError(
                f"--items: test {item.test} mixes kinds of items, which are scored differently "
                f"({other.id} is of {other.kind}, {item.id} is of {item.kind}): give each kind a "
                "NAME=FILE of its own"
            )
    return items


def _of_the_bank(spec: str) -> list[Item]:
    """Items of NAME or NAME:N; "builtin:N" takes N in turn from both halves, then sorts by half.

    Raises:
        InputError: another name, or N is no number of items that are there.
    """
    name, colon, number = spec.partition(":")
    if name not in (BUILTIN, *KINDS):
        raise InputError(
            f"--items {spec}: not one of {', '.join((BUILTIN, *KINDS))}; "
            "for a file write NAME=FILE, e.g. steu=steu.jsonl"
        )
    bank = Path(__file__).with_name("bank")
    tests = KINDS if name == BUILTIN else (name,)
    parts = [read_items(bank / f"{test}.jsonl", test) for test in tests]
    if colon:
        most = min(len(parts) * len(part) + i for i, part in enumerate(parts))
        if number not in map(str, range(1, most + 1)):
            raise InputError(f"--items {spec}: {name}:N takes N from 1 to {most}")
        parts = [part[: len(range(i, int(number), len(parts)))] for i, part in enumerate(parts)]
    return list(itertools.chain(*parts))


def keep_invariant(items: Iterable[Item], decisions: Path | None = None) -> list[Item]:
    """Items whose answer must not depend on who asks.

    Args:
        items: all items.
        decisions: annotators' decisions, a JSONL or CSV file with `id` and `persona_invariant` and
            optionally `test`; they override the items' own flag.

    Raises:
        InputError: a decision on an unknown item, or nothing is left.
    """
    items = list(items)
    flags = {(item.test, item.id): item.persona_invariant for item in items}
    if decisions is not None:
        places: dict[tuple[str, str], str] = {}
        for where, row in rows_of(decisions):
            if "id" not in row or "persona_invariant" not in row:
                raise InputError(f"{where}: needs the fields id and persona_invariant")
            id = str(row["id"]).strip()
            keys = [k for k in flags if k[1] == id and row.get("test") in (None, "", k[0])]
            if not keys:
                raise InputError(f"{where}: no item has the id {row['id']!r}")
            flag = read_flag(row["persona_invariant"], where)
            for key in keys:
                if key in places and flags[key] != flag:
                    raise InputError(
                        f"{where}: contradicts {places[key]} on {id!r}; "
                        "give one decision for each item"
                    )
                flags[key], places[key] = flag, where
        if not places:
            raise InputError(f"{decisions}: holds no decisions; leave --decisions out")
    invariant = [item for item in items if flags[item.test, item.id]]
    if not invariant:
        raise InputError("no persona-invariant item is left")
    return invariant


def first_items(items: Iterable[Item], n: int) -> list[Item]:
    """The first `n` items of each test.

    Raises:
        InputError: no test has more.
    """
    by_test: dict[str, list[Item]] = {}
    for item in items:
        by_test.setdefault(item.test, []).append(item)
    if n >= (most := max(map(len, by_test.values()))):
        raise InputError(f"--limit {n}: no test has more than {most} items, leave it out")
    return [item for of_test in by_test.values() for item in of_test[:n]]
