"""`persona_preferences`: pairs for DPO in which the better answer keeps the memory out."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from datasets import Dataset, Features, List, Value

from unswayed.core.errors import InputError
from unswayed.core.files import without_folders
from unswayed.datasets.cards import make_tree, question_source
from unswayed.datasets.persona_sets import choose_configs
from unswayed.datasets.trees import Tree
from unswayed.mitigation.preferences import build_pairs, in_test_split
from unswayed.mitigation.preferences.columns import Row
from unswayed.mitigation.preferences.settings import PreferenceSettings
from unswayed.mitigation.preferences.steps import CONSTRUCTED, OWN, SAMPLED, prompt_of
from unswayed.mitigation.sampling import INSTRUCTIONS

log = logging.getLogger(__name__)

NAME = "persona_preferences"
CONFIGS = (SAMPLED, CONSTRUCTED, OWN)
MESSAGES = List({"role": Value("string"), "content": Value("string")})

# What trl's DPOTrainer reads, then what it leaves alone.
PREFERENCE_FEATURES = Features(
    {
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        **{name: Value("string") for name in ("question_id", "category", "reference", "source")},
        **{name: Value("string") for name in ("persona_id", "pair_id", "condition")},
        "chosen_kind": Value("string"),
        "rejected_kind": Value("string"),
        "reward": Value("string"),
        "chosen_reward": Value("float64"),
        "rejected_reward": Value("float64"),
        "shared_words": Value("int32"),
        "similarity": Value("float64"),
        "tokens": Value("int32"),
    }
)


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
        splits = split([row for row in pairs if row["source"] == config], settings)
        if "train" in splits:
            tables[config] = splits
        elif any(passage.source == config for passage in funnel):
            log.warning("config %s is left out: no pair of it is left to train on", config)
    if not tables:
        raise InputError(
            f"none of {len(pairs)} pairs is for training in {', '.join(chosen)}: use more "
            "questions, or a smaller --test_share"
        )
    sources = [question_source(spec) for spec in settings.questions or ["builtin"]]
    counts = {
        config: {name: len(table) for name, table in splits.items()}
        for config, splits in tables.items()
    }
    facts = {
        "seed": settings.seed,
        "prompts_sha256": texts_hash([row["prompt"] for row in rows_of(tables)]),
        "instructions_sha256": texts_hash(list(INSTRUCTIONS.items())),
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
        own=any(source.own for source in sources),
        license_statement=license_statement,
        sources=sources,
        counts=counts,
        funnel=funnel,
        overlap=overlap_figures(pairs),
        settings=settings,
        against=[without_folders(spec) for spec in settings.against or ["the built-in items"]],
        command=command,
    )


def split(pairs: Sequence[Row], settings: PreferenceSettings) -> dict[str, Dataset]:
    """train and test, without an empty one; a question is in one of them in every config."""
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for pair in pairs:
        testing = in_test_split(pair["question_id"], settings.seed, settings.test_share)
        rows["test" if testing else "train"].append(preference_row(pair))
    return {
        name: Dataset.from_list(some, PREFERENCE_FEATURES) for name, some in rows.items() if some
    }


def preference_row(pair: Row) -> dict[str, Any]:
    """A pair in the conversational form of trl, with what is known of it."""
    texts = {
        role: [{"role": "assistant", "content": pair[role]}] for role in ("chosen", "rejected")
    }
    known = {"prompt": prompt_of(pair), **texts}
    known["reference"] = pair["answer"]
    return {name: known[name] if name in known else pair[name] for name in PREFERENCE_FEATURES}


def rows_of(tables: dict[str, dict[str, Dataset]]) -> list[dict[str, Any]]:
    """All rows, in the order of configs and splits."""
    return [row for splits in tables.values() for table in splits.values() for row in table]


def texts_hash(content: Any) -> str:
    """SHA-256 of some texts, as JSON."""
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


def overlap_figures(pairs: Sequence[Row]) -> dict[str, float]:
    """How near the published pairs come to the test items."""
    return {
        "longest run of words shared with an item": max(row["shared_words"] for row in pairs),
        "highest cosine to an item": max(row["similarity"] for row in pairs),
    }
