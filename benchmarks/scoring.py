"""How much faster is scoring with shared prefixes than stock lm-eval's HF model?

Both score the same requests with the same weights in one process; the output is ratios.

    python benchmarks/scoring.py --out results/scoring.json        (about 20 minutes on 2 cores)

Stock runs at batch size 1, its default, and on the two main sets of requests at 16 too; the ratio
is to the faster one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import time
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch.utils.flop_counter import FlopCounterMode

from unswayed.data.items import Item, load_items
from unswayed.data.personas import builtin_personas
from unswayed.models.load import load_lm
from unswayed.scoring.ask import encode_pair
from unswayed.scoring.chat import ChatFormat
from unswayed.scoring.prompts import continuations, question_text

STOCK_BATCH_SIZES = (1, 16)
LENGTHS = (50, 100, 200, 400, 800, 1600)
PERSONAS = (1, 3, 10, 30, 60)


class Stock(HFLM):
    """Stock lm-eval, which leaves white space at a prompt's end there, as ours does."""

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return encode_pair(self, context, continuation)


def make_requests(lm, items: list[Item], memories: list[str], scoring: str) -> list[Instance]:
    """One request per memory x item x option."""
    chat = ChatFormat(lm)
    return [
        Instance("loglikelihood", {}, (prompt, chat.delimiter + text), 0)
        for memory in memories
        for item in items
        for prompt in [
            chat.render(
                [
                    {"role": "system", "content": memory},
                    {"role": "user", "content": question_text(item, scoring)},
                ]
            )
        ]
        for text in continuations(item, scoring)
    ]


def memories_of(lm, number: int, tokens: int) -> list[str]:
    """`number` different memory texts of `tokens` tokens each, from the built-in personas."""
    texts = [" ".join(text for _, text in persona.texts()) for persona in builtin_personas()]
    made = []
    for i in range(number):
        ids = lm.tok_encode(" ".join(texts[(i + j) % len(texts)] for j in range(1 + tokens // 100)))
        made.append(lm.tok_decode(ids[:tokens]))
    return made


def seconds(lm, requests: list[Instance], repeats: int = 1) -> tuple[float, list[float]]:
    """Best wall time of scoring the requests, and the log-probabilities."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        results = lm.loglikelihood(requests, disable_tqdm=True)
        best = min(best, time.perf_counter() - start)
    return best, [log_prob for log_prob, _ in results]


def compare(lm, stock: dict[int, Stock], requests: list[Instance]) -> dict:
    """Times of both, their ratio and the largest difference of a score (nats)."""
    ours, scores = seconds(lm, requests, repeats=2)
    times, difference = {}, 0.0
    for batch_size, model in stock.items():
        times[batch_size], reference = seconds(model, requests)
        difference = max(difference, *(abs(a - b) for a, b in zip(scores, reference, strict=True)))
    fastest = min(times, key=times.get)
    return {
        "requests": len(requests),
        "ours_s": round(ours, 2),
        **{f"stock_bs{size}_s": round(value, 2) for size, value in times.items()},
        "ratio": round(times[fastest] / ours, 1),
        "largest_difference": float(f"{difference:.2g}"),
    }


def matmul_peak(repeats: int = 40) -> float:
    """GFLOP/s of a large float32 matrix product, the best of three shapes."""
    best = 0.0
    for m, k, n in ((1024, 576, 1536), (1024, 2048, 2048), (2048, 2048, 2048)):
        a, b = torch.randn(m, k), torch.randn(k, n)
        a @ b
        start = time.perf_counter()
        for _ in range(repeats):
            a @ b
        best = max(best, 2 * m * k * n * repeats / (time.perf_counter() - start) / 1e9)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    lm = load_lm(arguments.model)
    stock = {
        size: Stock(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=size)
        for size in STOCK_BATCH_SIZES
    }
    items = load_items(["understanding:45"])
    lm.loglikelihood(make_requests(lm, items[:2], ["Warm up."], "option"), disable_tqdm=True)

    found: dict = {
        "command": f"python benchmarks/scoring.py --model {arguments.model} --out {arguments.out}",
        "model": arguments.model,
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, float32",
        "versions": {
            p: importlib.metadata.version(p) for p in ("torch", "transformers", "lm-eval")
        },
    }
    option = make_requests(lm, items[:14], memories_of(lm, 3, 200), "option")
    found["option_text"] = compare(lm, stock, option)
    print("option text", found["option_text"], flush=True)
    letter = make_requests(lm, items[:14], memories_of(lm, 3, 200), "letter")
    found["letters"] = compare(lm, stock, letter)
    print("letters", found["letters"], flush=True)

    with FlopCounterMode(display=False) as counter:
        lm.loglikelihood(option, disable_tqdm=True)
    peak = matmul_peak()
    rate = counter.get_total_flops() / found["option_text"]["ours_s"] / 1e9
    found["peak"] = {
        "matmul_gflops": round(peak),
        "ours_gflops": round(rate),
        "share": round(rate / peak, 2),
    }
    print("peak", found["peak"], flush=True)

    default = {1: stock[1]}
    found["by_memory_tokens"] = []
    for tokens in LENGTHS:
        requests = make_requests(lm, items[:3], memories_of(lm, 2, tokens), "option")
        found["by_memory_tokens"].append({"tokens": tokens, **compare(lm, default, requests)})
        print(found["by_memory_tokens"][-1], flush=True)
    found["by_personas"] = []
    for number in PERSONAS:
        requests = make_requests(lm, items[:2], memories_of(lm, number, 200), "option")
        found["by_personas"].append({"personas": number, **compare(lm, default, requests)})
        print(found["by_personas"][-1], flush=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
