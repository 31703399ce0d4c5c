"""PLUM's entry in the registry of memory mechanisms."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.ledger import as_json
from unswayed.data.personas import Persona
from unswayed.memory.registry import Mechanism, Options
from unswayed.models.base import loaded_base
from unswayed.plum.memory import PlumMemory, UntrainedPlum, persona_pairs, read_training
from unswayed.scoring.backends import HF_SHARED

log = logging.getLogger(__name__)

IN_PROCESS = (HF_SHARED, "hf")  # backends whose weights can be trained and switched


def check_in_process(options: Options) -> None:
    """A mechanism that trains weights can do so here.

    Raises:
        InputError: not with this backend, or there is an adapter already.
    """
    if options.backend not in IN_PROCESS:
        raise InputError(
            f"--memory {options.memory} trains and switches weights in this process, which "
            f"--backend {options.backend} cannot: use {' or '.join(IN_PROCESS)}"
        )
    if options.adapter:
        raise InputError(
            f"--memory {options.memory} puts an adapter of its own on the model, so there is no "
            "room for --adapter: merge that into the model first (peft's merge_and_unload), or "
            "leave it out"
        )


def _check(options: Options, personas: Sequence[Persona]) -> None:
    if options.memory_style:
        raise InputError(
            f"--memory-style {options.memory_style} has no meaning with --memory plum, which "
            "puts nothing into the prompt: leave it out"
        )
    check_in_process(options)
    training = read_training(options.plum_recipe)
    for persona in personas:
        persona_pairs(persona, training)


def _make(options: Options, lm: Any, waiting: Sequence[Persona]) -> PlumMemory:
    memory, folder = _memory(options, lm, PlumMemory), options.out / "memories"
    if n := memory.untrained(waiting):
        log.info("adapters to train: %d, one for each persona; they stay in %s", n, folder)
    return memory


def _memory(options: Options, lm: Any, kind: type[PlumMemory]) -> PlumMemory:
    training = read_training(options.plum_recipe)
    return kind(loaded_base(lm, options.model), options.out / "memories", training)


def _recalled(memory: PlumMemory, personas: Sequence[Persona]) -> list[str]:
    shares = [
        f"{100 * sum(right) / len(right):.0f} % of {len(right)} whose answer is {kind}"
        for kind, right in memory.recalled(personas).items()
        if right
    ]
    if not shares:
        return []
    return [
        f"Asked what the users of this run had told them, the adapters answered {shares[0]} rightly"
        f"{''.join(f', and {share}' for share in shares[1:])} (held-out questions, {len(personas)} "
        "adapters; chance is 50 %). Where they recall little, small effects say little about the "
        "user."
    ]


MECHANISM = Mechanism(
    default_style="",
    check=_check,
    make=_make,
    untrained=lambda options, lm, waiting: _memory(options, lm, UntrainedPlum),
    settings=lambda options: as_json(read_training(options.plum_recipe)),
    describe=lambda style: (
        "The memory mechanism was plum: what each user says of themself was trained into a LoRA "
        "adapter of their own, and nothing about the user stands in the prompt."
    ),
    notes=lambda memory, personas, rows: _recalled(memory, personas),
    takes_recipe=True,
)
