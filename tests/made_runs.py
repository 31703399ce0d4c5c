"""Complete run directories whose answers a function gives: no model is needed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.rundir import open_run
from unswayed.audit.trials import (
    NONE,
    SCHEMA,
    Outcome,
    add_flips,
    choose_personas,
    make_row,
    trials_of,
)
from unswayed.core.files import write_json, write_table
from unswayed.data.items import Item, make_item
from unswayed.data.personas import VERSIONS, Persona
from unswayed.memory.prompt import PromptMemory
from unswayed.scoring.chat import plain_text

Answer = Callable[[Item, Persona | None], int | None]
WEIGHTS = [1.0, 0.5, 0.25, 0.0]


def emotions(n: int, test: str = "understanding") -> list[Item]:
    """Understanding items; option 0 is the key of each."""
    options = ["Joy", "Fear", "Anger", "Pride"]
    texts = [f"Something happens ({i}). What do they feel?" for i in range(n)]
    return [make_item(test, f"u{i}", "understanding", t, options, "Joy")
            for i, t in enumerate(texts)]  # fmt: skip


def actions(n: int, test: str = "management") -> list[Item]:
    """Management items; option 0 is the key of each."""
    options = ["Talk", "Wait", "Shout", "Leave"]
    texts = [f"Something happens ({i}). What should I do?" for i in range(n)]
    return [make_item(test, f"m{i}", "management", t, options, "Talk", weights=WEIGHTS)
            for i, t in enumerate(texts)]  # fmt: skip


def pairs(n: int) -> list[Persona]:
    """Persona pairs with neutral memories."""
    return [
        Persona(f"p{i}-{version}", version, f"p{i}", (("about", f"{version} text of p{i}."),))
        for i in range(n)
        for version in VERSIONS
    ]


def chance(*key: object) -> float:
    """A number in [0, 1) that depends on nothing but the key."""
    return random.Random(repr(key)).random()


def make_run(
    out: Path,
    items: Sequence[Item],
    answer: Answer,
    personas: Sequence[Persona],
    conditions: Sequence[str] | None = None,
    scoring: str = "option",
) -> Path:
    """A complete run directory in which `answer` stands in for the model."""
    grid = personas[0].pair_id is None
    arguments = AuditArguments(
        model="made-up",
        out=out,
        conditions=conditions,
        scoring=scoring,
        personas="grid" if grid else None,
    )
    chosen = choose_personas(personas, arguments.conditions, None)
    run = open_run(out, arguments, list(items), chosen)
    memory = PromptMemory("system")
    rows = [
        make_row(
            trial,
            Outcome(answer(trial.item, trial.persona)),
            prompt=plain_text(trial.messages),
            scoring=scoring,
            rule=arguments.rule,
            model="made-up",
            seed=0,
        )
        for profile in [None] * (NONE in arguments.conditions) + chosen
        for trial in trials_of(items, profile, memory, scoring, seed=0)
    ]
    write_table(add_flips(rows), SCHEMA, out / "answers.parquet")
    prompts = hashlib.sha256("\0".join(row["prompt"] for row in rows).encode()).hexdigest()
    run["hashes"]["prompts"] = prompts
    run |= {
        "status": "complete",
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:15+00:00",
        "seconds": 75.0,
        "n_trials": len(rows),
        "model": {"revision": "r" * 40, "dtype": "float32", "device": "cpu", "parameters": 1234},
    }
    write_json(out / "run.json", run)
    return out
