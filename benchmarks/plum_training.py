"""How much faster does PLUM train than TRL's SFTTrainer?

Both train the same LoRA from the same first weights on the same batches of the same samples, in one
process and in turns; the output is tokens per second of each at its best (tokens of samples;
padding does not count) and their ratio. lambda is 1, TRL's loss, so that both must arrive at the
same weights: the loss of either after training is part of the output.

    python benchmarks/plum_training.py --out results/plum_training.json   (20 minutes on 2 cores)

TRL runs without gradient checkpointing and in float32 on CPU, which is faster than its defaults.
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
import time
from pathlib import Path
from typing import Any

import torch

from unswayed.data.conversations import builtin_facts
from unswayed.models.adapters import adapted, remembering
from unswayed.models.base import Base, load_base
from unswayed.plum.loss import padded_pass, total_weight, weighted_loss
from unswayed.plum.qa import QAPair, bank_pairs
from unswayed.plum.samples import Sample, make_sample
from unswayed.plum.settings import PlumSettings
from unswayed.plum.train import epoch_batches, train


def loss_after(model: Any, samples: list[Sample]) -> float:
    """Mean loss over the samples, one by one (nats per token)."""
    with torch.no_grad():
        losses = [weighted_loss(model, padded_pass(model, [one]), 1.0) for one in samples]
    return float(sum(losses)) / total_weight(samples)


def ours(
    base: Base, pairs: list[QAPair], samples: list[Sample], settings: PlumSettings
) -> tuple[float, float]:
    """Seconds from pairs to the written memory, and the loss after."""
    folder = Path(tempfile.mkdtemp())
    try:
        start = time.perf_counter()
        train(base, pairs, settings, folder)
        seconds = time.perf_counter() - start
        with remembering(base, folder) as model:
            return seconds, loss_after(model, samples)
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
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        model.eval()
        return seconds, loss_after(model, samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--conversations", type=int, default=8, help="of the built-in ones")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 24])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    base = load_base(arguments.model)
    pairs = bank_pairs(builtin_facts())[0]
    ids = list(dict.fromkeys(pair.conversation for pair in pairs))[: arguments.conversations]
    pairs = [pair for pair in pairs if pair.conversation in ids]
    samples = [make_sample(base.tokenizer, pair, 1.0, 1024) for pair in pairs]
    tokens = arguments.epochs * sum(len(sample.ids) for sample in samples)
    found: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/plum_training.py", *sys.argv[1:]]),
        "model": arguments.model,
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, {base.model.device}",
        "versions": {
            p: importlib.metadata.version(p) for p in ("torch", "transformers", "peft", "trl")
        },
        "samples": len(samples),
        "tokens": tokens,
        "by_batch_size": [],
    }
    for size in arguments.batch_sizes:
        settings = PlumSettings(
            qa_weight=1.0, epochs=arguments.epochs, batch_size=size, warmup=0.0, joint=True
        )
        runs: dict[str, list[tuple[float, float]]] = {"ours": [], "trl": []}
        for _ in range(arguments.repetitions):
            runs["ours"].append(ours(base, pairs, samples, settings))
            runs["trl"].append(stock(base, samples, settings))
        best = {name: min(seconds for seconds, _ in each) for name, each in runs.items()}
        found["by_batch_size"].append(
            {
                "batch_size": size,
                "ours_tokens_per_s": round(tokens / best["ours"], 1),
                "trl_tokens_per_s": round(tokens / best["trl"], 1),
                "ratio": round(best["trl"] / best["ours"], 2),
                "ours_s": [round(seconds, 2) for seconds, _ in runs["ours"]],
                "trl_s": [round(seconds, 2) for seconds, _ in runs["trl"]],
                "ours_loss": runs["ours"][0][1],
                "trl_loss": runs["trl"][0][1],
            }
        )
        print(found["by_batch_size"][-1], flush=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
