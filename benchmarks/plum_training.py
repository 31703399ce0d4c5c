"""How much faster does PLUM train than TRL's SFTTrainer?

Both train the same LoRA from the same first weights on the same batches of the same samples, in one
process and in turns; the output is tokens per second of each at its best (tokens of samples;
padding does not count), steps per second, their ratio, and the peak memory of either, weights
included. lambda is 1, TRL's loss, so that both must arrive at the same weights: the loss of either
after training is part of the output.

    python benchmarks/plum_training.py --out results/plum_training.json   (20 minutes on 2 cores)

TRL runs without gradient checkpointing, which is faster than its defaults, on weights of the same
dtype.
Its `packing` is left out: without a kernel for variable lengths, samples would see each other.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from meter import clock, peak_gb, restart_peak

from unswayed.data.conversations import builtin_facts
from unswayed.models.adapters import adapted, remembering
from unswayed.models.base import Base, load_base
from unswayed.plum.loss import padded_pass, total_weight, tree_pass, weighted_loss
from unswayed.plum.qa import QAPair, bank_pairs
from unswayed.plum.samples import Sample, make_sample
from unswayed.plum.settings import PlumSettings
from unswayed.plum.train import epoch_batches, train


def loss_after(base: Base, model: Any, samples: list[Sample]) -> float:
    """Mean loss over the samples (nats per token)."""
    make_pass = padded_pass if base.padded else tree_pass
    with torch.no_grad():
        return float(weighted_loss(model, make_pass(base.model, samples), total_weight(samples)))


def ours(
    base: Base, pairs: list[QAPair], samples: list[Sample], settings: PlumSettings
) -> tuple[float, float]:
    """Seconds from pairs to the written memory, and the loss after."""
    folder = Path(tempfile.mkdtemp())
    try:
        start = clock()
        train(base, pairs, settings, folder)
        seconds = clock() - start
        with remembering(base, folder) as model:
            return seconds, loss_after(base, model, samples)
    finally:
        shutil.rmtree(folder)


def stock(base: Base, samples: list[Sample], settings: PlumSettings) -> tuple[float, float]:
    """Seconds of SFTTrainer.train() alone, and the loss after; nothing is written."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from trl import SFTConfig, SFTTrainer

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(self.train_dataset)

    batches = [
        batch
        for epoch in range(settings.epochs)
        for batch in epoch_batches(samples, [], settings, epoch)
    ]
    if {len(batch) for batch in batches} != {settings.batch_size}:
        raise SystemExit("the number of samples must be a multiple of the batch size")
    rows = [{"input_ids": list(sample.ids)} for batch in batches for sample in batch]
    with (
        adapted(base, settings.lora(), settings.seed) as model,
        tempfile.TemporaryDirectory() as folder,
    ):
        config = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=settings.batch_size,
            num_train_epochs=1,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=0,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = InOrder(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=base.tokenizer,
        )
        start = clock()
        trainer.train()
        seconds = clock() - start
        model.eval()
        return seconds, loss_after(base, model, samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="auto", help="of the base model; auto: float32 on CPU")
    parser.add_argument("--conversations", type=int, default=8, help="of the built-in ones")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 24])
    parser.add_argument("--steps", type=int, help="of an epoch; without it, all samples")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    base = load_base(arguments.model, arguments.dtype)
    pairs = bank_pairs(builtin_facts())[0]
    ids = list(dict.fromkeys(pair.conversation for pair in pairs))[: arguments.conversations]
    pairs = [pair for pair in pairs if pair.conversation in ids]
    result: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/plum_training.py", *sys.argv[1:]]),
        "model": arguments.model,
        "dtype": str(base.model.dtype).removeprefix("torch."),
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, {base.model.device}",
        "versions": {
            p: importlib.metadata.version(p) for p in ("torch", "transformers", "peft", "trl")
        },
        "by_batch_size": [],
    }
    for size in arguments.batch_sizes:
        settings = PlumSettings(
            qa_weight=1.0, epochs=arguments.epochs, batch_size=size, warmup=0.0, joint=True
        )
        some = pairs[: arguments.steps * size] if arguments.steps else pairs
        samples = [make_sample(base.tokenizer, pair, 1.0, 1024) for pair in some]
        runs: dict[str, list[tuple[float, float]]] = {"ours": [], "trl": []}
        peaks: dict[str, float] = {}
        for _ in range(arguments.repetitions):
            restart_peak()
            runs["ours"].append(ours(base, some, samples, settings))
            peaks["ours"] = peak_gb()
            restart_peak()
            runs["trl"].append(stock(base, samples, settings))
            peaks["trl"] = peak_gb()
        tokens = arguments.epochs * sum(len(sample.ids) for sample in samples)
        steps = arguments.epochs * len(samples) // size
        best = {name: min(seconds for seconds, _ in each) for name, each in runs.items()}
        row: dict[str, Any] = {"batch_size": size, "samples": len(samples), "tokens": tokens}
        row["ratio"] = round(best["trl"] / best["ours"], 2)
        for name, each in runs.items():
            row |= {
                f"{name}_tokens_per_s": round(tokens / best[name], 1),
                f"{name}_steps_per_s": float(f"{steps / best[name]:.3g}"),
                f"{name}_s": [round(seconds, 2) for seconds, _ in each],
                f"{name}_peak_gb": peaks[name],
                f"{name}_loss": each[0][1],
            }
        result["by_batch_size"].append(row)
        print(row, flush=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
