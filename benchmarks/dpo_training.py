"""How much faster is a step of DPO than with trl's own DPOTrainer?

Both train the same LoRA from the same first weights on the same batches of the same pairs, in one
process and in turns, once with batches of random pairs and once with batches of pairs about the
same user. The output is seconds per step and seconds of the reference's log-probabilities per batch
of each, and their ratios. The losses of all steps are part of it: they must be equal.

    python benchmarks/dpo_training.py --out results/dpo_training.json   (6 minutes on one core)

trl runs without gradient checkpointing and in float32 on CPU, which is faster than its defaults.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import DPOTrainer

from unswayed.mitigation.dpo.pairs import (
    PreferencePair,
    by_persona,
    encoded,
    read_splits,
    training_pairs,
)
from unswayed.mitigation.dpo.settings import DpoRecipe
from unswayed.mitigation.dpo.train import make_trainer, quiet, starting_policy, training_arguments
from unswayed.models.base import Base, load_base


def recipe_of(model: str, dataset: str, folder: str, batch_size: int) -> DpoRecipe:
    """One epoch over the pairs as they stand, a loss per step; nothing is saved."""
    return DpoRecipe(
        model,
        dataset,
        folder,
        order="by_persona",  # trl takes the pairs as they stand
        training={
            "per_device_train_batch_size": batch_size,
            "num_train_epochs": 1,
            "learning_rate": 5e-5,
            "gradient_checkpointing": False,
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
        },
        lora={"r": 16, "lora_alpha": 32},
    )


class Stock(DPOTrainer):
    """trl's, on the same tokens as ours."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset


def measure(
    recipe: DpoRecipe, base: Base, pairs: list[PreferencePair], stock: bool
) -> dict[str, Any]:
    """Seconds of the reference and of training, and the losses; nothing is written."""
    arguments = training_arguments(recipe)
    start = time.perf_counter()
    if stock:
        trainer = Stock(
            model=base.model,
            args=arguments,
            train_dataset=Dataset.from_list(encoded(pairs, base.tokenizer)),
            processing_class=base.tokenizer,
            peft_config=starting_policy(recipe, base)[1],
        )
    else:
        trainer = make_trainer(recipe, base, arguments, pairs, [])
    built = time.perf_counter()
    trainer.train()
    done = time.perf_counter()
    trainer.model.unload()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"reference_s": built - start, "training_s": done - built, "losses": losses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dataset", default="runs/datasets/persona_preferences")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    base = load_base(arguments.model)
    everything = read_splits(arguments.dataset, "constructed")["train"]
    count, size = arguments.steps * arguments.batch_size, arguments.batch_size
    orders = {
        "random pairs": training_pairs(everything, count),
        "pairs about the same user": by_persona(everything, size, 0)[:count],
    }
    found: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/dpo_training.py", *sys.argv[1:]]),
        "model": arguments.model,
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, {base.model.device}",
        "versions": {
            p: importlib.metadata.version(p) for p in ("torch", "transformers", "peft", "trl")
        },
        "steps": arguments.steps,
        "batch_size": size,
        "by_batch": [],
    }
    for name, pairs in orders.items():
        with tempfile.TemporaryDirectory() as folder, quiet():
            recipe = recipe_of(arguments.model, arguments.dataset, folder, size)
            runs: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
            for _ in range(arguments.repetitions):
                runs["ours"].append(measure(recipe, base, pairs, stock=False))
                runs["trl"].append(measure(recipe, base, pairs, stock=True))
        best = {
            f"{who}_{part}": min(run[part] for run in each) / arguments.steps
            for who, each in runs.items()
            for part in ("reference_s", "training_s")
        }
        found["by_batch"].append(
            {
                "batches": name,
                "ours_step_s": round(best["ours_training_s"], 2),
                "trl_step_s": round(best["trl_training_s"], 2),
                "ratio": round(best["trl_training_s"] / best["ours_training_s"], 2),
                "ours_reference_s": round(best["ours_reference_s"], 2),
                "trl_reference_s": round(best["trl_reference_s"], 2),
                "reference_ratio": round(best["trl_reference_s"] / best["ours_reference_s"], 2),
                "ours_losses": runs["ours"][0]["losses"],
                "trl_losses": runs["trl"][0]["losses"],
            }
        )
        print(found["by_batch"][-1], flush=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
