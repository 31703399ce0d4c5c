"""What to audit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unswayed.audit.trials import (
    CONDITIONS,
    GRID_CONDITIONS,
    PAIR_CONDITIONS,
    other_personas,
)
from unswayed.core.errors import InputError
from unswayed.data.personas import Persona, load_personas
from unswayed.memory.registry import DEFAULT, find_mechanism
from unswayed.scoring.backends import HF_SHARED
from unswayed.scoring.prompts import SCORINGS

# Settings of a request that follow from the scoring or have an option of their own.
FIXED_SETTINGS = {
    "until", "stop", "max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens",
}  # fmt: skip


@dataclasses.dataclass
class AuditArguments:
    """What to audit; the command line's options with the same names and meanings."""

    model: str
    out: Path
    adapter: str | None = None
    items: Sequence[str] = ("builtin",)
    decisions: Path | None = None
    conditions: Sequence[str] | None = None  # all that the personas have
    pairs: int | None = None
    personas: str | None = None
    memory: str = DEFAULT
    memory_style: str | None = None  # the memory's default
    plum_recipe: Path | None = None
    scoring: str = "option"
    seed: int = 0
    batch_size: int | str = "auto"
    max_gen_toks: int = 256
    device: str | None = None
    dtype: str = "auto"
    backend: str = HF_SHARED
    model_args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gen_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    resume: bool = False

    def __post_init__(self) -> None:
        if self.conditions is None:
            self.conditions = GRID_CONDITIONS if self.personas == "grid" else PAIR_CONDITIONS
        if unknown := [c for c in self.conditions if c not in CONDITIONS]:
            raise InputError(f"condition {unknown[0]!r} is not one of {', '.join(CONDITIONS)}")
        if len(set(self.conditions)) < len(self.conditions):
            raise InputError(f"--conditions names one twice: {' '.join(self.conditions)}")
        if not self.conditions:
            raise InputError("--conditions is empty")
        mechanism = find_mechanism(self.memory)
        if self.memory_style is None:
            self.memory_style = mechanism.default_style
        if self.scoring not in SCORINGS:
            raise InputError(f"scoring {self.scoring!r} is not one of {', '.join(SCORINGS)}")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: give a number from 0")
        if self.max_gen_toks < 1:
            raise InputError(f"--max-gen-toks {self.max_gen_toks}: give a number from 1")
        if self.batch_size != "auto" and int(self.batch_size) < 1:
            raise InputError(f"--batch-size {self.batch_size}: give a number from 1 or auto")
        if self.gen_kwargs and self.scoring != "generate":
            raise InputError("--gen-kwargs has no meaning without --scoring generate")
        if fixed := FIXED_SETTINGS & self.gen_kwargs.keys():
            raise InputError(
                f"--gen-kwargs {min(fixed)}=...: answers end where the model ends them, or after "
                "--max-gen-toks"
            )

    def population(self) -> list[Persona]:
        """All versions of the base personas that are not asked about."""
        return other_personas(load_personas(self.personas), self.pairs)
