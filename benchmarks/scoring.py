"""How much faster is scoring with shared prefixes than stock lm-eval's HF model?

Both score the same requests with the same weights in one process; the output is ratios, the share
of the processor's matrix peak that is reached, and what priors and several orders of letters add.

    python benchmarks/scoring.py --out results/scoring.json        (about 6 minutes on 2 cores)

The ratio is to the faster of stock's batch sizes. Stock passes a random sample of the prompts, with
all their options; its time for all of them follows by their tokens. Growth with memories, items and
options is in `benchmarks/growth.py`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import random
import shlex
import sys
import time
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch.utils.flop_counter import FlopCounterMode

from unswayed.data.items import Item, load_items
from unswayed.data.personas import builtin_personas
from unswayed.models.embedded import model_label
from unswayed.models.load import load_lm
from unswayed.scoring.ask import encode_pair, generation_settings
from unswayed.scoring.chat import ChatFormat
from unswayed.scoring.prompts import continuations, question_text

STOCK_BATCH_SIZES = (1, 16)
MEMORY_TOKENS = 200
NEW_TOKENS = 32  # of a generated answer


class Stock(HFLM):
    """Stock lm-eval, which leaves white space at a prompt's end there, as ours does."""

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return encode_pair(self, context, continuation)


def make_requests(
    lm,
    items: list[Item],
    memories: list[str],
    scoring: str,
    orders: int = 1,
    priors: bool = False,
) -> list[Instance]:
    """One request per memory x item x option, for each order and, with priors, without scenario."""
    chat = ChatFormat(lm)
    return [
        Instance("loglikelihood", {}, (prompt, chat.delimiter + text), 0)
        for memory in memories
        for item in items
        for order in range(orders)
        for blind in ([False, True] if priors else [False])
        for prompt in [
            chat.render(
                [
                    {"role": "system", "content": memory},
                    {"role": "user", "content": question_text(item, scoring, 0, order, blind)},
                ]
            )
        ]
        for text in continuations(item, scoring, 0, order)
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


def sampled(requests: list[Instance], prompts: int) -> list[int]:
    """Places of the requests of so many prompts, drawn at random."""
    texts = list(dict.fromkeys(request.args[0] for request in requests))
    chosen = set(random.Random(0).sample(texts, min(prompts, len(texts))))
    return [i for i, request in enumerate(requests) if request.args[0] in chosen]


def tokens_of(lm, requests: list[Instance]) -> int:
    """What passes the model if nothing is shared."""
    return sum(len(lm.tok_encode("".join(request.args))) for request in requests)


def compare(lm, stock: dict[int, Stock], requests: list[Instance], prompts: int) -> dict:
    """Times of both, their ratio and the largest difference of a score (nats)."""
    ours, scores = seconds(lm, requests, repeats=2)
    places = sampled(requests, prompts)
    part = [requests[i] for i in places]
    scale = tokens_of(lm, requests) / tokens_of(lm, part)
    times, difference = {}, 0.0
    for batch_size, model in stock.items():
        took, reference = seconds(model, part)
        times[batch_size] = took * scale
        pairs = zip(places, reference, strict=True)
        difference = max(difference, *(abs(scores[i] - value) for i, value in pairs))
    return {
        "requests": len(requests),
        "of_these_by_stock": len(part),
        "ours_s": round(ours, 2),
        **{f"stock_bs{size}_s": round(value, 2) for size, value in times.items()},
        "ratio": round(min(times.values()) / ours, 1),
        "largest_difference": float(f"{difference:.2g}"),
    }


def compare_generation(lm, stock: Stock, prompts: list[str]) -> dict:
    """Greedy answers one by one, by both; whether they are the same."""
    settings = generation_settings(NEW_TOKENS, {})
    times, texts = [], []
    for model in (lm, stock):
        requests = [Instance("generate_until", {}, (text, dict(settings)), 0) for text in prompts]
        start = time.perf_counter()
        texts.append(model.generate_until(requests, disable_tqdm=True))
        times.append(time.perf_counter() - start)
    return {
        "prompts": len(prompts),
        "ours_s": round(times[0], 2),
        "stock_s": round(times[1], 2),
        "ratio": round(times[1] / times[0], 2),
        "same": sum(a == b for a, b in zip(*texts, strict=True)),
    }


def matmul_peak(dtype: torch.dtype = torch.float32, repeats: int = 20) -> float:
    """GFLOP/s of a large matrix product in a dtype, the best of all runs of three shapes."""
    best = 0.0
    for m, k, n in ((1024, 576, 1536), (1024, 2048, 2048), (2048, 2048, 2048)):
        a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        for _ in range(repeats):
            start = time.perf_counter()
            a @ b
            best = max(best, 2 * m * k * n / (time.perf_counter() - start) / 1e9)
    return best


def peak_share(lm, requests: list[Instance]) -> dict:
    """Matrix products per second while requests are scored, beside bare ones; attention's own
    products are left out."""
    with FlopCounterMode(display=False) as counter:
        lm.loglikelihood(requests, disable_tqdm=True)
    shares = []
    for _ in range(3):  # the processor's clock varies
        took, _ = seconds(lm, requests)
        rate, peak = counter.get_total_flops() / took / 1e9, matmul_peak(lm.model.dtype)
        shares.append((rate / peak, rate, peak))
    share, rate, peak = sorted(shares)[1]
    return {
        "matmul_gflops": round(peak),
        "ours_gflops": round(rate),
        "share": round(share, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--items", type=int, default=14)
    parser.add_argument("--memories", type=int, default=3)
    parser.add_argument("--sample", type=int, default=8, help="prompts that stock passes")
    parser.add_argument("--pack-tokens", type=int, nargs="*", default=[], help="tried beside")
    parser.add_argument("--name", help="the model's in the output; default: as given")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    lm = load_lm(arguments.model, dtype=arguments.dtype)
    stock = {
        size: Stock(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=size)
        for size in STOCK_BATCH_SIZES
    }
    items = load_items(["understanding:45"])[: arguments.items]
    memories = memories_of(lm, arguments.memories, MEMORY_TOKENS)
    name = arguments.name or model_label(arguments.model)
    command = [name if part == arguments.model else part for part in sys.argv[1:]]
    lm.loglikelihood(make_requests(lm, items[:2], ["Warm up."], "option"), disable_tqdm=True)

    result: dict = {
        "command": shlex.join(["python", "benchmarks/scoring.py", *command]),
        "model": name,
        "dtype": arguments.dtype,
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}",
        "versions": {
            p: importlib.metadata.version(p) for p in ("torch", "transformers", "lm-eval")
        },
        "shape": f"{len(memories)} memories of {MEMORY_TOKENS} tokens x {len(items)} items",
        "shared": lm.fallback_reason is None,
    }

    def keep(part: str, value: object) -> None:
        result[part] = value
        print(part, value, flush=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")

    option, letter = (make_requests(lm, items, memories, way) for way in ("option", "letter"))
    keep("peak", peak_share(lm, option))
    keep("option_text", compare(lm, stock, option, arguments.sample))
    keep("letters", compare(lm, stock, letter, arguments.sample * len(items[0].options)))
    more = {
        "priors": (option, make_requests(lm, items, memories, "option", priors=True)),
        "orders_2": (letter, make_requests(lm, items, memories, "letter", orders=2)),
        "orders_4": (letter, make_requests(lm, items, memories, "letter", orders=4)),
    }
    times = {key: [seconds(lm, part, 2)[0] for part in both] for key, both in more.items()}
    keep("times_as_long", {key: round(b / a, 2) for key, (a, b) in times.items()})
    widths = {}
    for width in arguments.pack_tokens:
        lm._pack_tokens = width
        widths[width] = round(seconds(lm, option, 2)[0], 2)
    lm._pack_tokens = "auto"
    keep("option_text_s_by_pack_tokens", widths)
    prompts = list(dict.fromkeys(request.args[0] for request in letter))[:3]
    keep("generation", compare_generation(lm, stock[1], prompts))


if __name__ == "__main__":
    main()
