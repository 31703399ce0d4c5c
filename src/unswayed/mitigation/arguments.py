"""What to train, and what to ask before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from unswayed.audit.arguments import AuditArguments
from unswayed.core.arguments import REQUIRED, option
from unswayed.core.commands import batch_size

AS_IN_AUDIT = "as in `unswayed audit`"


@dataclasses.dataclass
class MitigateArguments:
    """What to train and ask; the command line's options with the same names and meanings."""

    recipe: Sequence[Path] = option(
        REQUIRED,
        "what to train, on which pairs, YAML; later files replace keys; see recipes/dpo",
        metavar="FILE",
    )
    out: Path = option(
        REQUIRED, "for runs and report; the adapter goes where the recipe says", metavar="DIR"
    )
    shared: Path | None = option(
        None,
        "for what does not depend on training, kept for other recipes of the same model; default: "
        "--out",
        metavar="DIR",
    )
    items: Sequence[str] = option(AuditArguments.items, AS_IN_AUDIT, metavar="SPEC")
    decisions: Path | None = option(None, AS_IN_AUDIT, metavar="FILE")
    personas: str | None = option(
        None, "your own pairs, YAML; default: 30 built-in pairs", metavar="FILE"
    )
    pairs: int | None = option(
        None,
        "only the first N persona pairs, none of which training may have seen; default: all before "
        "the first that it saw",
        metavar="N",
    )
    scoring: str = option(AuditArguments.scoring, "option, letter or generate")
    rule: str | None = option(None, "of option: sum, char, token or pmi (default)", metavar="NAME")
    orders: int = option(1, "of letter: in how many orders the options are listed", metavar="N")
    max_gen_toks: int = option(
        AuditArguments.max_gen_toks, "new tokens per generated answer of an audit"
    )
    seed: int = option(AuditArguments.seed, "of the audits; the recipe has one for training")
    batch_size: int | str = option(AuditArguments.batch_size, AS_IN_AUDIT, type=batch_size)
    capability: Sequence[str] = option(
        (),
        "ask MMLU and IFEval too, before and after: mmlu=FOLDER, ifeval=FILE (or Hub ids); "
        "questions, shots, prompts, seed, max_gen_toks",
        metavar="NAME=VALUE",
    )
    baselines: bool = option(
        False, "also audit, untrained, an instruction to ignore the user and a gated memory"
    )
    policy: str | None = option(None, "judge each run as `unswayed check` does", metavar="NAME")
