"""Regular expressions that lie as data in a bank, where their words can be read and extended."""

from __future__ import annotations

import functools
import re
from importlib.resources import files


@functools.cache
def patterns(package: str, bank: str) -> dict[str, re.Pattern[str]]:
    """The regular expressions of a package's `bank/BANK.yaml` by key; case does not matter to them.

    Each key of the file holds a list of alternatives; {key} in one of them stands for the
    alternatives of that other key.
    """
    import yaml

    lists = yaml.safe_load((files(package) / "bank" / f"{bank}.yaml").read_text(encoding="utf-8"))

    def expression(key: str) -> str:
        return re.sub(r"\{([a-z_]+)\}", lambda name: expression(name[1]), "|".join(lists[key]))

    return {key: re.compile(expression(key), re.IGNORECASE) for key in lists}
