"""What an experiment has found so far, and whether it is still the same experiment.

A folder holds one experiment. What was found once is never asked again, however often it is
interrupted, and another experiment does not go on there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.journal import Journal


class Findings:
    """Values as JSON under keys, each kept at once in a journal."""

    def __init__(self, path: Path) -> None:
        self.journal = Journal(path)

    def once(self, key: str, find: Callable[[], Any]) -> Any:
        """What `find` gives, found only once however often the experiment is interrupted."""
        if not self.has(key):
            start = time.perf_counter()
            value = find()
            seconds = round(time.perf_counter() - start, 2)
            self.journal.add(key, json.dumps({"value": value, "seconds": seconds}))
        return self.value(key)

    def has(self, key: str) -> bool:
        return self.journal.get(key) is not None

    def value(self, key: str) -> Any:
        return json.loads(self.journal.get(key))["value"]

    def seconds(self, key: str) -> float:
        """How long it took to find."""
        return json.loads(self.journal.get(key))["seconds"]


def check_same(before: Any, now: Any, folder: Path, name: str = "") -> None:
    """Refuse to go on with another experiment than was begun.

    Args:
        before, now: what makes two experiments the same, as JSON values.

    Raises:
        InputError: names the first key that differs, and both values.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before | now:
            check_same(before.get(key), now.get(key), folder, f"{name}.{key}".lstrip("."))
    elif before != now:
        raise InputError(
            f"{folder} was begun with {name} {before}, now it is {now}: go on with the same "
            "settings and data, or give another --out"
        )
