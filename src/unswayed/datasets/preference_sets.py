"""`persona_preferences`: pairs for DPO in which the better answer keeps the memory out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version

import pyarrow as pa
from datasets import Dataset, Features

from unswayed.core.errors import InputError
from unswayed.core.files import without_folders
from unswayed.core.ledger import digest
from unswayed.datasets.cards import make_tree, question_source
from unswayed.datasets.persona_sets import choose_configs
from unswayed.datasets.trees import Tree
from unswayed.mitigation.preferences import build_pairs
from unswayed.mitigation.preferences.columns import TRAINING, Row
from unswayed.mitigation.preferences.settings import PreferenceSettings
from unswayed.mitigation.preferences.training import CONFIGS, training_rows
from unswayed.mitigation.sampling import INSTRUCTIONS

log = logging.getLogger(__name__)

NAME = "persona_preferences"
FEATURES = Features.from_arrow_schema(pa.schema(TRAINING))


def preference_tree(
    settings: PreferenceSettings,
    *,
    configs: Sequence[str] | None,
    license_statement: str | None,
    command: str,
) -> Tree:
    """Build the pairs and put them into configs by source, split by question.

    Raises:
        InputError: wrong settings or input, or no training pair is left.
    """
    chosen = choose_configs(configs, CONFIGS)
    pairs, funnel = build_pairs(settings)
    tables: dict[str, dict[str, Dataset]] = {}
    for config in chosen:
        rows = training_rows(pairs, config, settings)
        splits = {split: Dataset.from_list(part, FEATURES) for split, part in rows.items()}
        if "train" in splits:
            tables[config] = splits
        elif any(passage.source == config for passage in funnel):
            log.warning("config %s is left out: no pair of it is left to train on", config)
    if not tables:
        raise InputError(
            f"none of {len(pairs)} pairs is for training in {', '.join(chosen)}: use more "
            "questions, or a smaller --test_share"
        )
    facts = {
        "seed": settings.seed,
        "prompts_sha256": digest(
            [p for splits in tables.values() for table in splits.values() for p in table["prompt"]],
            ensure_ascii=False,
        ),
        "instructions_sha256": digest(list(INSTRUCTIONS.items()), ensure_ascii=False),
        "generator": settings.generator if settings.generates else None,
        "judge": settings.judge,
        "reward": next((row["reward"] for row in pairs if row["reward"]), None),
        "policy": settings.policy,
        "max_length": settings.max_length,
        "funnel": [vars(passage) for passage in funnel],
        "libraries": {name: version(name) for name in ("datasets", "lm-eval", "transformers")},
    }
    return make_tree(
        NAME,
        tables,
        facts,
        "preferences",
        sources=[question_source(spec) for spec in settings.questions or ["builtin"]],
        license_statement=license_statement,
        overlap=overlap_figures(pairs),
        settings=settings,
        against=[without_folders(spec) for spec in settings.against or ["the built-in items"]],
        command=command,
    )


def overlap_figures(pairs: Sequence[Row]) -> dict[str, float]:
    """How near the published pairs come to the test items."""
    return {
        "longest run of words shared with an item": max(row["shared_words"] for row in pairs),
        "highest cosine to an item": max(row["similarity"] for row in pairs),
    }
