"""The banks of PLUM: wordings of questions, English words, and what a model that writes is told."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Any

import yaml

from unswayed.plum.qa import TRAIN


@functools.cache
def bank(name: str) -> dict[str, Any]:
    """What `bank/NAME.yaml` holds."""
    return yaml.safe_load((files("unswayed.plum") / "bank" / f"{name}.yaml").read_text("utf-8"))


@functools.cache
def word_set(name: str) -> frozenset[str]:
    """A list of `bank/words.yaml`."""
    return frozenset(bank("words")[name].split())


def wording(kind: str, use: str) -> list[str]:
    """The templates of a kind ("contexts", "closed", "open", "outline") for training or not."""
    return bank("questions")[kind][TRAIN if use == TRAIN else "held_out"]
