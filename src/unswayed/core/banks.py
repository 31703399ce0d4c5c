"""Words, wordings and regular expressions that lie as data in a package's `bank/NAME.yaml`."""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import Any


@functools.cache
def read_bank(package: str, name: str) -> Any:
    """What the file holds."""
    import yaml

    return yaml.safe_load((files(package) / "bank" / f"{name}.yaml").read_text(encoding="utf-8"))


@functools.cache
def patterns(package: str, name: str) -> dict[str, re.Pattern[str]]:
    """Regular expressions by key; case does not matter to them.

    Each key of the file holds a list of alternatives; {key} in one of them stands for the
    alternatives of that other key.
    """
    lists = read_bank(package, name)

    def expression(key: str) -> str:
        return re.sub(r"\{([a-z_]+)\}", lambda other: expression(other[1]), "|".join(lists[key]))

    return {key: re.compile(expression(key), re.IGNORECASE) for key in lists}
