"""How much faster is a step of DPO than with trl's own DPOTrainer?

Both train the same LoRA from the same first weights on the same batches of the same pairs, in one
process and in turns, once with batches of random pairs and once with batches of pairs about the
same user. The output is seconds per step and seconds of the reference's log-probabilities per batch
of each, their ratios, and the peak memory of either, weights included. The losses of all steps and
the loss of either's adapter after training are part of it: they must be equal.

    python benchmarks/dpo_training.py --out results/dpo_training.json   (6 minutes on one core)

trl runs without gradient checkpointing, which is faster than its defaults, on weights of the same
dtype. A large model cannot keep the activations of a batch: with `--pass-pairs N` N pairs pass at a
time and gradients accumulate, but for pairs about the same user here, which together are a tree.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from meter import clock, peak_gb, restart_peak
from peft import get_peft_model_state_dict, set_peft_model_state_dict
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

RANDOM, USER = "random pairs", "pairs about the same user"


def recipe_of(
    model: str, dataset: str, folder: str, batch_size: int, pass_pairs: int | None = None
) -> DpoRecipe:
    """One epoch over the pairs as they stand, a loss per step; nothing is saved.

    Args:
        pass_pairs: of a batch, that pass the model at a time; None: all.
    """
    pass_pairs = pass_pairs or batch_size
    return DpoRecipe(
        model,
        dataset,
        folder,
        order="by_persona",  # trl takes the pairs as they stand
        training={
            "per_device_train_batch_size": pass_pairs,
            "gradient_accumulation_steps": batch_size // pass_pairs,
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


@contextmanager
def trained(
    recipe: DpoRecipe, base: Base, pairs: list[PreferencePair], stock: bool
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A trainer that has trained, its adapter still on the model, and what `measure` returns."""
    restart_peak()
    arguments = training_arguments(recipe)
    start = clock()
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
    built = clock()
    trainer.train()
    done = clock()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    times = {"reference_s": built - start, "training_s": done - built}
    yield trainer, times | {"losses": losses, "peak_gb": peak_gb()}
    trainer.model.unload()


def measure(
    recipe: DpoRecipe, base: Base, pairs: list[PreferencePair], stock: bool
) -> dict[str, Any]:
    """Seconds of the reference and of training, losses, peak memory (GB); nothing is written."""
    with trained(recipe, base, pairs, stock) as (_, run):
        return run


def loss_after(trainer: Any) -> float:
    """Mean loss over the batches that it was trained on."""
    with torch.no_grad():
        losses = [
            float(trainer.compute_loss(trainer.model, batch))
            for batch in trainer.get_train_dataloader()
        ]
    return sum(losses) / len(losses)


def in_turns(
    recipes: dict[str, DpoRecipe], base: Base, pairs: list[PreferencePair]
) -> dict[str, dict[str, Any]]:
    """What either gives; with the loss after training of either's adapter, computed here."""
    with trained(recipes["trl"], base, pairs, stock=True) as (trainer, stock):
        adapter = {
            name: tensor.detach().clone()
            for name, tensor in get_peft_model_state_dict(trainer.model).items()
        }
    with trained(recipes["ours"], base, pairs, stock=False) as (trainer, ours):
        ours["loss_after"] = loss_after(trainer)
        set_peft_model_state_dict(trainer.model, adapter)
        stock["loss_after"] = loss_after(trainer)
    return {"ours": ours, "trl": stock}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="auto", help="of the base model; auto: float32 on CPU")
    parser.add_argument("--dataset", default="runs/datasets/persona_preferences")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", nargs="+", choices=[RANDOM, USER], default=[RANDOM, USER])
    parser.add_argument("--pass-pairs", type=int, help="see above; without it, the whole batch")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    base = load_base(arguments.model, arguments.dtype)
    everything = read_splits(arguments.dataset, "constructed")["train"]
    count, size = arguments.steps * arguments.batch_size, arguments.batch_size
    orders = {
        RANDOM: training_pairs(everything, count),
        USER: by_persona(everything, size, 0)[:count],
    }
    result: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/dpo_training.py", *sys.argv[1:]]),
        "model": arguments.model,
        "dtype": str(base.model.dtype).removeprefix("torch."),
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, {base.model.device}",
        "versions": {
            p: importlib.metadata.version(p) for p in ("torch", "transformers", "peft", "trl")
        },
        "steps": arguments.steps,
        "batch_size": size,
        "by_batch": [],
    }
    for name in arguments.batches:
        pairs = orders[name]
        with tempfile.TemporaryDirectory() as folder, quiet():
            passes = {"trl": arguments.pass_pairs, "ours": arguments.pass_pairs}
            if name == USER:
                passes["ours"] = None
            recipes = {
                who: recipe_of(arguments.model, arguments.dataset, folder, size, at_once)
                for who, at_once in passes.items()
            }
            runs = [in_turns(recipes, base, pairs) for _ in range(arguments.repetitions)]
        best = {
            f"{who}_{part}": min(run[who][part] for run in runs) / arguments.steps
            for who in ("ours", "trl")
            for part in ("reference_s", "training_s")
        }
        row = {
            "batches": name,
            "ratio": round(best["trl_training_s"] / best["ours_training_s"], 2),
            "reference_ratio": round(best["trl_reference_s"] / best["ours_reference_s"], 2),
        }
        for who, run in runs[0].items():
            row |= {
                f"{who}_step_s": round(best[f"{who}_training_s"], 2),
                f"{who}_steps_per_s": float(f"{1 / best[f'{who}_training_s']:.3g}"),
                f"{who}_reference_s": round(best[f"{who}_reference_s"], 2),
                f"{who}_peak_gb": run["peak_gb"],
                f"{who}_losses": run["losses"],
                f"{who}_loss_after": run["loss_after"],
            }
        result["by_batch"].append(row)
        print(result["by_batch"][-1], flush=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
