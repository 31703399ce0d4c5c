"""The datasets of personas and of items asked under them.

`item_tree` asks exactly what `unswayed audit` asks: the rows come from its trials, and a column
means what it means in `answers.parquet`; only what a model's answer would fill is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, Features, List, Value

from unswayed.audit.trials import (
    GRID,
    NONE,
    SCHEMA,
    Outcome,
    choose_personas,
    make_row,
    trials_of,
)
from unswayed.core.errors import InputError
from unswayed.core.ledger import digest
from unswayed.data.items import KINDS, Item, items_hash, keep_invariant, load_items
from unswayed.data.personas import (
    ATTRIBUTES,
    Persona,
    builtin_personas,
    grid_personas,
    personas_hash,
)
from unswayed.datasets.arguments import ItemArguments
from unswayed.datasets.cards import make_tree, source_of
from unswayed.datasets.trees import Tree
from unswayed.memory.prompt import PromptMemory

SPLIT = "test"
CONFIGS = {  # config -> conditions
    "none": (NONE,),
    "neutral": ("neutral",),
    "explicit": ("advantaged", "disadvantaged"),
    "grid": (GRID,),
}
SCORINGS = ("option", "letter", "generate")
DATASETS = {"understanding": "persona_steu", "management": "persona_stem"}  # kind -> dataset

# The columns of answers.parquet that a model's answer fills, or which model it is.
ANSWERED = (
    "prompt", "answer", "correct", "score", "flip", "option_scores", "option_tokens",
    "option_priors", "order_scores", "letter_mass", "option_listed", "blind_answer", "raw_text",
    "parsed", "rule", "model",
)  # fmt: skip
TRIAL_FEATURES = Features.from_arrow_schema(
    pa.schema([field for field in SCHEMA if field.name not in ANSWERED])
)
PERSONA_FEATURES = Features(
    {
        "persona_id": Value("string"),
        "condition": Value("string"),
        "pair_id": Value("string"),
        **{name: Value("string") for name in ATTRIBUTES},
        "slots": List(
            {
                "name": Value("string"),
                "template": Value("string"),
                "third_person": Value("string"),
                "first_person": Value("string"),
            }
        ),
        "system_prompt": Value("string"),
    }
)


def item_tree(kind: str, arguments: ItemArguments, command: str) -> Tree:
    """Every item of one test under every user of each config.

    Args:
        kind: "understanding" (persona_steu) or "management" (persona_stem); the default items.
        command: what built it, for the card.

    Raises:
        InputError: unknown config or scoring, items that cannot be read, are of another kind or
            none of which is left.
    """
    scoring, seed = arguments.scoring, arguments.seed
    chosen = choose_configs(arguments.configs, CONFIGS)
    if scoring not in SCORINGS:
        raise InputError(f"--scoring {scoring!r} is not one of {', '.join(SCORINGS)}")
    spec = arguments.items or kind
    test_items = items_of_kind(spec, arguments.decisions, kind)
    rows = {config: trial_rows(test_items, config, scoring, seed) for config in chosen}
    facts = {
        "seed": seed,
        "scoring": scoring,
        "items_sha256": items_hash(test_items),
        "prompts_sha256": {config: prompts_hash(rows[config]) for config in chosen},
    }
    return make_tree(
        DATASETS[kind],
        _tables(rows, TRIAL_FEATURES),
        facts,
        "items",
        sources=[source_of(spec)],
        license_statement=arguments.license_statement,
        kind=kind,
        test=test_items[0].test,
        n_items=len(test_items),
        command=command,
    )


def persona_tree(*, configs: Sequence[str] | None, command: str) -> Tree:
    """The profiles themselves; configs as in the test sets, without `none`.

    Raises:
        InputError: unknown config.
    """
    chosen = choose_configs(configs, [config for config in CONFIGS if config != NONE])
    users = {config: users_of(config) for config in chosen}
    rows = {config: [persona_row(user) for user in users[config]] for config in chosen}
    hashes = {config: personas_hash(users[config]) for config in chosen}
    facts = {"personas_sha256": hashes}
    tables = _tables(rows, PERSONA_FEATURES)
    return make_tree("personas", tables, facts, "personas", command=command)


def _tables(rows: Mapping[str, list[dict]], features: Features) -> dict[str, dict[str, Dataset]]:
    """Rows by config as tables of the one split."""
    return {config: {SPLIT: Dataset.from_list(rows[config], features)} for config in rows}


def choose_configs(configs: Sequence[str] | None, allowed: Iterable[str]) -> list[str]:
    """The chosen configs in the order of the allowed ones, which are all chosen if None.

    Raises:
        InputError: one is not allowed.
    """
    allowed = list(allowed)
    if unknown := [config for config in configs or () if config not in allowed]:
        raise InputError(f"--configs {unknown[0]!r} is not one of {', '.join(allowed)}")
    return allowed if configs is None else [config for config in allowed if config in configs]


def items_of_kind(spec: str, decisions: str | None, kind: str) -> list[Item]:
    """Persona-invariant items of a spec, all of one kind.

    Raises:
        InputError: also if one is of another kind.
    """
    items = load_items([spec])
    if wrong := [item for item in items if item.kind != kind]:
        raise InputError(
            f"--items {spec}: {len(wrong)} of {len(items)} items ask for {wrong[0].kind}, the "
            f"first is {wrong[0].id}; {DATASETS[kind]} takes {kind} items, "
            f"{DATASETS[next(k for k in KINDS if k != kind)]} the others"
        )
    return keep_invariant(items, Path(decisions) if decisions else None)


def users_of(config: str) -> list[Persona | None]:
    """The users of a config, in order; None stands for no memory."""
    if config == "none":
        return [None]
    personas = grid_personas() if config == "grid" else builtin_personas()
    return list(choose_personas(personas, CONFIGS[config], None))


def trial_rows(items: Sequence[Item], config: str, scoring: str, seed: int) -> list[dict]:
    """Rows of a config, user by user, with the columns of TRIAL_FEATURES."""
    memory = PromptMemory()
    rows = []
    for user in users_of(config):
        for trial in trials_of(items, user, memory, scoring, seed):
            row = make_row(trial, Outcome(), prompt="", scoring=scoring, rule=None,
                           model="", seed=seed)  # fmt: skip
            rows.append({name: row[name] for name in TRIAL_FEATURES})
    return rows


def persona_row(persona: Persona) -> dict:
    """A profile with its texts, and the system message that the audit makes of it."""
    memory = PromptMemory()
    memory.remember(persona)
    third, first = persona.texts(), persona.texts(first_person=True)
    return {
        "persona_id": persona.id,
        "condition": persona.condition,
        "pair_id": persona.pair_id,
        **{name: None for name in ATTRIBUTES},
        **dict(persona.attributes),
        "slots": [
            {"name": name, "template": template, "third_person": they, "first_person": i}
            for (name, template), (_, they), (_, i) in zip(persona.slots, third, first, strict=True)
        ],
        "system_prompt": memory.messages("")[0]["content"],
    }


def prompts_hash(rows: Iterable[dict]) -> str:
    """SHA-256 of the system and user prompts, in order (JSON, UTF-8)."""
    prompts = [[row["system_prompt"], row["user_prompt"]] for row in rows]
    return digest(prompts, ensure_ascii=False)
