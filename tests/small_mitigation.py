"""A whole mitigation in small: personas, items, pairs, benchmarks, a recipe; for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from small_benchmarks import write_ifeval, write_mmlu

from unswayed.data.personas import Persona, load_personas
from unswayed.mitigation.sampling import prompt_with_memory

SLOTS = ("demographic_attributes", "family_background", "social_connections", "personal_assets")
TEXTS = {
    "advantaged": ("{I} {am} a surgeon.", "big house", "many friends of {my} family", "savings"),
    "disadvantaged": ("{I} {am} a cleaner.", "small room", "lives alone", "no savings"),
    "neutral": ("{I} like tea.", "reads a lot", "likes birds", "green shirts"),
}
BASES = ("p1", "p2", "p3", "p4")
SPARED = 2


def write_personas(path: Path) -> Path:
    """Four base personas with the same words but for their numbers."""
    rows = [
        {"id": base}
        | {
            version: {slot: f"{text} {base}" for slot, text in zip(SLOTS, texts, strict=True)}
            for version, texts in TEXTS.items()
        }
        for base in BASES
    ]
    path.write_text(yaml.safe_dump(rows))
    return path


def write_items(path: Path, count: int = 8) -> Path:
    rows = [
        {
            "id": f"i{i}",
            "scenario": f"Anna loses her job number {i}. How does she feel?",
            "options": ["joy", "sadness", "anger", "relief"],
            "key": ("joy", "sadness", "anger", "relief")[i % 4],
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def training_rows(personas: list[Persona], question: str = "What is {}?") -> list[dict[str, Any]]:
    users = [p for p in personas if p.condition != "neutral"]
    return [
        {
            "prompt": prompt_with_memory(
                " ".join(t for _, t in users[i % len(users)].texts()), question.format(i)
            ),
            "chosen": [{"role": "assistant", "content": f"relief {i}"}],
            "rejected": [{"role": "assistant", "content": "anger shame"}],
        }
        for i in range(8)
    ]


def write_tree(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "constructed").mkdir(parents=True)
    for split, some in (("train", rows), ("test", rows[:2])):
        Dataset.from_list(some).to_parquet(folder / "constructed" / f"{split}-0.parquet")
    files = [{"split": s, "path": f"constructed/{s}-*"} for s in ("train", "test")]
    head = yaml.safe_dump({"configs": [{"config_name": "constructed", "data_files": files}]})
    distance = "* longest run of words shared with an item: 3\n* highest cosine to an item: 0.7"
    text = (
        f"## Distance to the test items\n\n{distance}\n\nDropped were runs.\n\n## Questions\n\nx\n"
    )
    (folder / "README.md").write_text(f"---\n{head}---\n\n# Pairs\n\n{text}")
    return folder


def write_parts(folder: Path, tiny_model_dir: Callable[..., Path]) -> dict[str, Any]:
    """Files in the folder; options of a mitigation, all but `out`."""
    personas = write_personas(folder / "personas.yaml")
    trained = [p for p in load_personas(str(personas)) if p.pair_id in BASES[SPARED:]]
    recipe = {
        "model": str(tiny_model_dir("llama", chat=True, max_position_embeddings=2048)),
        "dataset": str(write_tree(folder / "tree", training_rows(trained))),
        "output_dir": str(folder / "adapter"),
        "training": {
            "per_device_train_batch_size": 4, "num_train_epochs": 3, "learning_rate": 0.02,
            "gradient_checkpointing": False, "logging_steps": 1, "save_steps": 2,
        },
        "lora": {"r": 4},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    mmlu = write_mmlu(folder / "mmlu", {"law": 3, "anatomy": 2})
    ifeval = write_ifeval(folder / "ifeval.jsonl")
    return {
        "recipe": [folder / "recipe.yaml"],
        "items": [f"mine={write_items(folder / 'items.jsonl')}"],
        "personas": str(personas),
        "capability": [
            f"mmlu={mmlu}", f"ifeval={ifeval}", "questions=4", "shots=0", "prompts=2",
            "max_gen_toks=4",
        ],
        "baselines": True,
    }  # fmt: skip
