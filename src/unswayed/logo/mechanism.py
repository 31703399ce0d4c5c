"""LoGo's entry in the registry of memory mechanisms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from unswayed.core.errors import InputError
from unswayed.data.personas import Persona, personas_hash
from unswayed.logo.memory import LogoMemory, UntrainedLogo
from unswayed.logo.population import check_population, read_training
from unswayed.memory.registry import Mechanism, Options
from unswayed.models.base import loaded_base
from unswayed.plum.mechanism import check_in_process

WEIGHTS = "weights"


def parse_style(style: str) -> int | None:
    """K of a style such as "shrinkage-5"; None if nothing is fused.

    Raises:
        InputError: it has another form.
    """
    if style == WEIGHTS:
        return None
    if match := re.fullmatch("shrinkage-([1-9][0-9]*)", style):
        return int(match[1])
    raise InputError(
        f"memory style {style!r} is not {WEIGHTS} or of the form shrinkage-K, which --memory logo "
        "has, K how many of the user's slots the population's word is worth"
    )


def _check(options: Options, personas: Sequence[Persona]) -> None:
    check_in_process(options)
    if parse_style(options.memory_style) is not None and options.scoring == "generate":
        raise InputError(
            f"--memory-style {options.memory_style} fuses the likelihoods of the options, and "
            f"--scoring generate gives none: take --scoring option or letter, or --memory-style "
            f"{WEIGHTS}"
        )
    check_population(options.population())
    read_training(options.plum_recipe)


def _settings(options: Options) -> dict[str, Any]:
    training = read_training(options.plum_recipe)
    return training.as_json() | {"population": personas_hash(options.population())}


def _make(
    options: Options, lm: Any, waiting: Sequence[Persona], kind: type[LogoMemory] = LogoMemory
) -> LogoMemory:
    return kind(
        loaded_base(lm, options.model),
        options.out / "memories" / "population",
        options.population(),
        read_training(options.plum_recipe),
        parse_style(options.memory_style),
    )


def _describe(style: str) -> str:
    k = parse_style(style)
    how = (
        f"what it makes of either side was fused, the population counting {k} / (n + {k}) with "
        "n slots of the user known"
        if k
        else "it read both, with the adapter switched on"
    )
    return (
        f"The memory mechanism was logo, in the style {style}: a local memory, the snippets of "
        "what the user said nearest to the question by the words they share (BM25), and a "
        "global one, a LoRA adapter trained on what users said who were not asked about, which "
        f"reads what is typical of the user's community. The model was asked, and {how}."
    )


MECHANISM = Mechanism(
    default_style="shrinkage-5",
    check=_check,
    make=_make,
    prepare=LogoMemory.learn,
    untrained=partial(_make, kind=UntrainedLogo),
    settings=_settings,
    describe=_describe,
    notes=lambda memory, personas, rows: memory.notes(personas),
    takes_recipe=True,
    retrieves=True,
)
