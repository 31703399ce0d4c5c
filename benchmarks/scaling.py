"""What memories in the weights cost at scale, on paper, from measured inputs.

    python benchmarks/scaling.py results/plum_oasst.json

Measured: samples and tokens of a conversation and seconds on this CPU, from a sweep's results.
Computed: sizes of adapters, floating-point operations. Assumed: ASSUMED, to be replaced by your
own. Prints the Markdown that stands in docs/scaling.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
import transformers

from unswayed.core.commands import Parser, run_command
from unswayed.core.errors import InputError
from unswayed.core.files import read_text
from unswayed.models.embedded import EMBEDDED, model_path

RANK = 16
CONVERSATIONS = 100  # of a user
USERS = 1_000_000
ASSUMED = {
    "GPU": "80 GB, 990 TFLOP/s dense in bfloat16 (H100 SXM data sheet)",
    "share of its peak that training reaches": 0.35,
    "price of a GPU hour (USD)": 2.5,
    "share of its memory for weights and adapters": 0.75,  # the rest: cache of keys and values
    "host to GPU (GB/s)": 25.0,
    "storage (USD per TB and month)": 20.0,
}
PEAK, GPU_BYTES = 990e12, 80e9
# Llama 3 8B by its published shape.
LLAMA = {
    "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip


def shapes(config: transformers.PretrainedConfig) -> tuple[int, int]:
    """Parameters of a model, and of a LoRA adapter on all its linear layers but the output."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    linear = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    adapter = sum(RANK * (module.in_features + module.out_features) for module in linear)
    return sum(p.numel() for p in model.parameters()), adapter


def measured(path: Path) -> dict[str, float]:
    """Tokens and seconds of training per conversation, over runs that learn one at a time.

    Raises:
        InputError: it is no sweep's result, or has no such run.
    """
    try:
        stages = [
            stage
            for run in json.loads(read_text(path))["results"]
            for stage in run["training"]
            if len(stage["conversations"]) == 1
        ]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no sweep.json: give that of a sweep of recipes/plum") from None
    if not stages:
        raise InputError(f"{path} has no run that learnt one conversation after another")
    return {name: fmean(stage[name] for stage in stages) for name in ("tokens", "seconds")}


def rows(name: str, config: transformers.PretrainedConfig, tokens: float) -> dict[str, str]:
    """The figures of one model, in words."""
    parameters, adapter = shapes(config)
    size = 2 * adapter  # bfloat16
    # forward and backward without gradients of frozen weights: 4 per parameter and token
    seconds = 4 * parameters * tokens / (PEAK * ASSUMED["share of its peak that training reaches"])
    hours = seconds * CONVERSATIONS * USERS / 3600
    room = GPU_BYTES * ASSUMED["share of its memory for weights and adapters"] - 2 * parameters
    stored = size * USERS / 1e12
    return {
        "model": name,
        "parameters": f"{parameters / 1e9:.2f} B",
        "adapter, bfloat16 (MB)": f"{size / 1e6:,.1f}",
        "training a conversation (GPU s)": f"{seconds:.2g}",
        f"{CONVERSATIONS} conversations (USD)": f"{_dollars(CONVERSATIONS * seconds):.2g}",
        "a million such users, trained once (GPU hours)": f"{hours:,.0f}",
        "the same (USD)": f"{hours * ASSUMED['price of a GPU hour (USD)']:,.0f}",
        "their adapters stored (TB)": f"{stored:,.1f}",
        "the same, a month (USD)": f"{stored * ASSUMED['storage (USD per TB and month)']:,.0f}",
        "adapters resident on one GPU": f"{room / size:,.0f}",
        "fetching one from host memory (ms)": f"{1e-6 * size / ASSUMED['host to GPU (GB/s)']:.2g}",
    }


def _dollars(seconds: float) -> float:
    return seconds / 3600 * ASSUMED["price of a GPU hour (USD)"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("scaling.py", description="Print what memories in the weights cost.")
    parser.add_argument("sweep", type=Path, help="results of a sweep, JSON")
    path = parser.parse_args(argv).sweep
    found = measured(path)
    embedded = transformers.AutoConfig.from_pretrained(model_path(EMBEDDED))
    llama = transformers.LlamaConfig(**LLAMA)
    tables = [rows(n, c, found["tokens"]) for n, c in ((EMBEDDED, embedded), ("Llama 3 8B", llama))]
    speed = 4 * shapes(embedded)[0] * found["tokens"] / found["seconds"]
    print(
        f"Measured: {found['tokens']:,.0f} tokens trained a conversation (all epochs and replayed "
        f"samples), {found['seconds']:.0f} s on one CPU thread with {EMBEDDED}, which is "
        f"{speed / 1e9:.0f} GFLOP/s.\n"
    )
    print("Assumed: " + "; ".join(f"{name}: {value}" for name, value in ASSUMED.items()) + ".\n")
    print("| | " + " | ".join(table["model"] for table in tables) + " |")
    print("|---|" + "--:|" * len(tables))
    for name in list(tables[0])[1:]:
        print(f"| {name} | " + " | ".join(table[name] for table in tables) + " |")


if __name__ == "__main__":
    sys.exit(run_command("scaling.py", main))
