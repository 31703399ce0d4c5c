"""Whether it is still the same experiment, and what it has come to so far.

A folder holds one experiment: its identity, a JSON object, and the values that are finished. What
is finished is never computed again, however often the experiment is interrupted, and another one
does not go on there.

    with Ledger(folder / "journal.jsonl", identity) as ledger:
        accuracy = ledger.once("accuracy", lambda: measure(model))
        write_json(folder / "result.json", {"identity": identity, "accuracy": accuracy})
    ledger.remove()
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.journal import Journal

REMEDY = "go on with the same settings and data, or give another --out"


class Ledger:
    """Values as JSON under keys, each kept at once in a journal; a context that closes it.

    Args:
        path: of the journal.
        identity: what makes two experiments the same, as JSON values; None if it was checked.
        remedy: the end of the complaint about another identity.

    Raises:
        InputError: the journal was begun with another identity.
    """

    def __init__(self, path: Path, identity: Any = None, remedy: str = REMEDY) -> None:
        self._journal = Journal(path)
        if identity is not None:
            with self:
                check_same(self.once("identity", lambda: identity), identity, path.parent, remedy)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error: Any) -> None:
        self._journal.close()

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """What `compute` returns, called only once however often the experiment is interrupted."""
        if key not in self:
            start = time.perf_counter()
            value = compute()
            seconds = round(time.perf_counter() - start, 2)
            self._journal.add(key, json.dumps({"value": value, "seconds": seconds}))
        return self.value(key)

    def __contains__(self, key: str) -> bool:
        return self._journal.get(key) is not None

    def value(self, key: str) -> Any:
        return json.loads(self._journal.get(key))["value"]

    def seconds(self, key: str) -> float:
        """How long it took to compute."""
        return json.loads(self._journal.get(key))["seconds"]

    def remove(self) -> None:
        """The result is written: the journal goes."""
        self._journal.remove()


def as_json(value: Any) -> Any:
    """A value as a JSON file gives it back: tuples are lists, dataclasses objects, paths texts."""

    def plain(value: Any) -> Any:
        return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else str(value)

    return json.loads(json.dumps(value, default=plain))


def digest(value: Any, **options: Any) -> str:
    """SHA-256 of a value as `json.dumps` writes it with these options, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, **options).encode()).hexdigest()


def differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ: the key, "a.b" for one within another, and both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before | now:
            yield from differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
    elif before != now:
        yield name, before, now


def check_same(before: Any, now: Any, folder: Path, remedy: str = REMEDY) -> None:
    """Refuse to go on with another experiment than was begun.

    Args:
        before, now: what makes two experiments the same, as JSON values.

    Raises:
        InputError: names the first key that differs, and both values.
    """
    for name, old, new in differences(before, now):
        raise InputError(f"{folder} was begun with {name} {old}, now it is {new}: {remedy}")
