"""How fast are scoring and training on a GPU beside stock lm-eval and TRL, and is sharing exact?

Two models of real shapes with random weights, made on the device, and a small tokenizer learnt from
the package's own texts: nothing is downloaded. Everything runs in one process; each part has a time
limit, and the results are written after every part, so that a run that is cut off leaves what it
has.

    python benchmarks/gpu.py --out results/gpu.json              (8 minutes at most)
    python benchmarks/gpu.py --tiny --out runs/gpu.json          (tiny shapes; needs no GPU)

Weights are bfloat16, LoRA's are float32. TRL runs without gradient checkpointing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib.metadata
import logging
import os
import random
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from lm_eval.api.instance import Instance
from scaling import LLAMA
from scoring import Stock, make_requests, memories_of, seconds
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from unswayed.core.commands import Parser, run_command
from unswayed.core.errors import InputError
from unswayed.core.files import write_json
from unswayed.data.items import load_items
from unswayed.data.personas import builtin_personas
from unswayed.data.questions import builtin_questions
from unswayed.models.base import Base
from unswayed.scoring.ask import encode_pair
from unswayed.scoring.attention import attention_kernel
from unswayed.scoring.exact import why_not_shared
from unswayed.scoring.lm import SharedPrefixLM
from unswayed.scoring.prompts import continuations, question_text

# The published shapes of Llama 3 8B and Gemma 2 2B.
SHAPES: dict[str, dict[str, Any]] = {
    "llama-8b": LLAMA | {"model_type": "llama", "max_position_embeddings": 8192},
    "gemma2-2b": {
        "model_type": "gemma2", "vocab_size": 256_000, "hidden_size": 2304,
        "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256,
        "sliding_window": 4096, "max_position_embeddings": 8192,
    },
}  # fmt: skip
VOCABULARY = 2048  # of the tokenizer
# Weights are drawn wider, since a narrow layer passes less on; prompts are longer than the window.
TINY_SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2,
}  # fmt: skip
TINY_SHAPES = {
    "llama-8b": TINY_SHAPE,
    "gemma2-2b": TINY_SHAPE | {"query_pre_attn_scalar": 8, "sliding_window": 64},
}
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        items, memories, memory_tokens: of scoring; every item is asked under every memory.
        batch_sizes: of stock lm-eval.
        widths: values of pack_tokens.
        steps, batch_size: of DPO.
        conversations, epochs, plum_batch_sizes: of PLUM, among the built-in ones.
        repetitions: of trainings; the fastest counts, as the first one warms up.
        matrix: side of the matrices by which the device's peak is measured.
    """

    items: int = 45
    memories: int = 4
    memory_tokens: int = 200
    batch_sizes: tuple[int, ...] = (1, 16, 64)
    widths: tuple[int, ...] = (2048, 4096, 8192, 16384, 32768)
    steps: int = 6
    batch_size: int = 8
    conversations: int = 8
    epochs: int = 2
    plum_batch_sizes: tuple[int, ...] = (8, 24)
    repetitions: int = 2
    matrix: int = 8192


TINY = Size(2, 2, 80, (1, 4), (64, 512), 2, 2, 1, 1, (3,), 1, 128)


# -- models and what they are asked --------------------------------------------------------------


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of the built-in personas, items and questions, with a chat template."""
    texts = [text for persona in builtin_personas() for _, text in persona.texts()]
    texts += [question_text(item, "option") for item in load_items(["builtin"])]
    texts += [question.question for question in builtin_questions()]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=special[0],
        bos_token=special[1],
        eos_token=special[4],
        chat_template=TEMPLATE,
    )


def build(name: str, tiny: bool, tokenizer: Any, device: str) -> Base:
    """A model of one of SHAPES with random weights, made on the device."""
    config = AutoConfig.for_model(**SHAPES[name] | (TINY_SHAPES[name] if tiny else {}))
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.eval().requires_grad_(False)
    length = config.max_position_embeddings
    return Base(name, "random", model, tokenizer, length, why_not_shared(model))


def shared(base: Base, pack_tokens: int | str = "auto") -> SharedPrefixLM:
    """Scoring with shared prefixes; whether it is exact has been tried."""
    lm = SharedPrefixLM(
        base.model, pack_tokens, tokenizer=base.tokenizer, backend="causal", batch_size=1
    )
    assert lm.fallback_reason == base.padded
    return lm


def stock(base: Base, batch_size: int) -> Stock:
    return Stock(base.model, tokenizer=base.tokenizer, backend="causal", batch_size=batch_size)


def audit_requests(lm: Any, scoring: str, items: int, memories: int, tokens: int) -> list[Instance]:
    """Those of the first built-in items under so many memories."""
    return make_requests(
        lm, load_items([f"understanding:{items}"]), memories_of(lm, memories, tokens), scoring
    )


def preference_pairs(count: int) -> list[dict[str, Any]]:
    """Constructed pairs: each question of the bank under two users."""
    from unswayed.mitigation.constructed import construct

    rng = random.Random(0)
    questions, personas = builtin_questions(), builtin_personas()
    pairs = []
    for question in rng.sample(questions, len(questions)):
        alike = [q for q in questions if q.category == question.category and q != question]
        for persona in rng.sample(personas[:8], 2):
            with contextlib.suppress(InputError):  # no wrong answer can be made
                answers = construct(question, persona, alike, rng)
                memory = " ".join(text for _, text in persona.texts())
                prompt = [
                    {"role": "system", "content": memory},
                    {"role": "user", "content": question.question},
                ]
                chosen, rejected = ([{"role": "assistant", "content": text}] for text in answers)
                pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        if len(pairs) >= count:
            return pairs[:count]
    return pairs


# -- parts: each fills what it is given ----------------------------------------------------------


def exactness(base: Base, size: Size, result: dict[str, Any]) -> None:
    """Differences (nats per answer) to plain passes, one answer at a time.

    Beside them what another batch shape changes by itself, stock lm-eval, and another memory.
    """
    result["why_not_shared"] = base.padded
    _differences(base, min(size.items, 8), size, result)


def float32(base: Base, size: Size, result: dict[str, Any]) -> None:
    """The same in float32, for a few items; the model stays in float32."""
    base.model.float()
    result["why_not_shared"] = why_not_shared(base.model)
    _differences(base, 2, size, result)


def _differences(base: Base, items: int, size: Size, result: dict[str, Any]) -> None:
    lm = shared(base)
    requests = audit_requests(lm, "option", items, size.memories, size.memory_tokens)
    options = len(continuations(load_items(["understanding:1"])[0], "option"))
    alone = plain_scores(lm, requests, 1)
    under_one_memory = len(requests) // size.memories
    others = {
        "shared": seconds(lm, requests)[1],
        "other_batch_shape": plain_scores(lm, requests, size.batch_sizes[1]),
        "lm_eval": seconds(stock(base, 1), requests)[1],
        "other_memory": alone[under_one_memory:] + alone[:under_one_memory],
    }
    result["answers"], choices = len(requests), best(alone, options)
    for name, scores in others.items():
        apart = [abs(a - b) for a, b in zip(scores, alone, strict=True)]
        same = [a == b for a, b in zip(best(scores, options), choices, strict=True)]
        result[name] = {
            "largest": max(apart),
            "mean": fmean(apart),
            "choices_changed": 1 - fmean(same),
        }


@torch.inference_mode()
def plain_scores(lm: Any, requests: Sequence[Instance], batch_size: int) -> list[float]:
    """Log-probabilities of the answers (nats) from plain passes over rows padded on the right."""
    scores = []
    for i in range(0, len(requests), batch_size):
        pairs = [encode_pair(lm, *request.args) for request in requests[i : i + batch_size]]
        rows = [torch.tensor(context + answer[:-1]) for context, answer in pairs]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(lm.device)
        for (context, answer), logits in zip(
            pairs, lm.model(input_ids=ids, use_cache=False).logits, strict=True
        ):
            read = logits[len(context) - 1 :][: len(answer)].float().log_softmax(-1)
            scores.append(float(read[range(len(answer)), answer].sum()))
    return scores


def best(scores: Sequence[float], options: int) -> list[int]:
    """The likeliest of each question's options."""
    groups = (scores[i : i + options] for i in range(0, len(scores), options))
    return [max(range(options), key=group.__getitem__) for group in groups]


def option_text(base: Base, size: Size, result: dict[str, Any]) -> None:
    _scoring(base, size, "option", result)


def letters(base: Base, size: Size, result: dict[str, Any]) -> None:
    _scoring(base, size, "letter", result)


def _scoring(base: Base, size: Size, scoring: str, result: dict[str, Any]) -> None:
    """Trials per second of ours and of stock lm-eval at its faster batch size."""
    lm = shared(base)
    workload = (scoring, size.items, size.memories, size.memory_tokens)
    requests, trials = audit_requests(lm, *workload), size.items * size.memories
    result |= {"trials": trials, "requests": len(requests)}
    with memory(result, "ours"):
        result["ours_first_s"], best_s = seconds(lm, requests)[0], seconds(lm, requests, 2)[0]
    result |= {"ours_s": best_s, "ours_trials_per_s": trials / best_s}
    with FlopCounterMode(display=False) as counter:
        lm.loglikelihood(requests, disable_tqdm=True)
    result["ours_tflops"] = counter.get_total_flops() / best_s / 1e12
    result["attention"] = attention_kernel(base.model)
    operations = map(str, counter.get_flop_counts()["Global"])
    result["fused_kernels"] = [name for name in operations if "attention" in name]
    times = result["stock_s"] = {}
    for batch_size in size.batch_sizes:
        with memory(result, f"stock_{batch_size}"), unless_too_large(times, batch_size):
            times[batch_size] = seconds(stock(base, batch_size), requests)[0]
    fastest = min(filter(None, times.values()))
    result |= {"stock_trials_per_s": trials / fastest, "ratio": fastest / best_s}


def pack_tokens(base: Base, size: Size, result: dict[str, Any]) -> None:
    """Seconds of scoring by tokens in one pass and by attention kernel: first run, second run."""
    kernels = {"default": contextlib.nullcontext()}
    if attention_kernel(base.model) == "sdpa":
        kernels["efficient"] = sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    result["runs"] = []
    for kernel, chosen in kernels.items():
        with chosen:
            for width in size.widths:
                row: dict[str, Any] = {"kernel": kernel, "pack_tokens": width}
                result["runs"].append(row)
                lm = shared(base, width)
                workload = ("option", size.items, size.memories, size.memory_tokens)
                requests = audit_requests(lm, *workload)
                with memory(row, "peak"), unless_too_large(row, "second_s"):
                    row["first_s"] = seconds(lm, requests)[0]
                    row["second_s"] = seconds(lm, requests)[0]
    done = [row for row in result["runs"] if row.get("second_s")]
    result["fastest"] = min(done, key=lambda row: row["second_s"])


def dpo(base: Base, size: Size, result: dict[str, Any]) -> None:
    """Steps per second of LoRA DPO, by order of the pairs; see dpo_training.py."""
    from dpo_training import measure, recipe_of

    from unswayed.mitigation.dpo.pairs import by_persona, training_pairs
    from unswayed.mitigation.dpo.train import quiet

    count = size.steps * size.batch_size
    pairs = preference_pairs(4 * count)
    orders = {
        "random pairs": training_pairs(pairs, count),
        "pairs about the same user": by_persona(pairs, size.batch_size, 0)[:count],
    }
    for order, chosen in orders.items():
        row = result[order] = {"steps": size.steps, "batch_size": size.batch_size}
        best: dict[str, dict[str, float]] = {}
        for _ in range(size.repetitions):
            for who in ("ours", "trl"):
                with tempfile.TemporaryDirectory() as folder, quiet(), memory(row, who):
                    recipe = recipe_of(base.name, "constructed", folder, size.batch_size)
                    run = measure(recipe, base, chosen, stock=who == "trl")
                row[f"{who}_losses"] = run.pop("losses")
                before = best.get(who, run)
                best[who] = {part: min(run[part], before[part]) for part in run}
        row |= {f"{who}_steps_per_s": size.steps / best[who]["training_s"] for who in best}
        row |= {f"{who}_reference_s": best[who]["reference_s"] for who in best}
        for ratio, part in (("ratio", "training_s"), ("reference_ratio", "reference_s")):
            row[ratio] = best["trl"][part] / best["ours"][part]


def plum(base: Base, size: Size, result: dict[str, Any]) -> None:
    """Steps per second of PLUM and of TRL's SFTTrainer, by batch size; see plum_training.py."""
    import plum_training

    from unswayed.data.conversations import builtin_facts
    from unswayed.plum.qa import bank_pairs
    from unswayed.plum.samples import make_sample
    from unswayed.plum.settings import PlumSettings

    pairs = bank_pairs(builtin_facts())[0]
    ids = list(dict.fromkeys(pair.conversation for pair in pairs))[: size.conversations]
    pairs = [pair for pair in pairs if pair.conversation in ids]
    samples = [make_sample(base.tokenizer, pair, 1.0, 1024) for pair in pairs]
    for batch_size in size.plum_batch_sizes:
        settings = PlumSettings(
            qa_weight=1.0, epochs=size.epochs, batch_size=batch_size, warmup=0.0, joint=True
        )
        steps = size.epochs * len(samples) // batch_size
        row = result[f"batches of {batch_size}"] = {"steps": steps}
        best: dict[str, float] = {}
        for _ in range(size.repetitions):
            with memory(row, "ours"):
                took, row["ours_loss"] = plum_training.ours(base, pairs, samples, settings)
            best["ours"] = min(took, best.get("ours", took))
            with memory(row, "trl"):
                took, row["trl_loss"] = plum_training.stock(base, samples, settings)
            best["trl"] = min(took, best.get("trl", took))
        row |= {f"{who}_steps_per_s": steps / took for who, took in best.items()}
        row["ratio"] = best["trl"] / best["ours"]


# In order of worth, with the longest that each may take, in seconds.
PARTS: dict[str, tuple[Callable[[Base, Size, dict[str, Any]], None], int]] = {
    "exactness": (exactness, 45),
    "option_text": (option_text, 90),
    "letters": (letters, 40),
    "dpo": (dpo, 90),
    "plum": (plum, 70),
    "pack_tokens": (pack_tokens, 60),
    "float32": (float32, 40),  # the last: the model stays in float32
}


# -- time, memory, the machine -------------------------------------------------------------------


class TimeUp(BaseException):
    """A part has reached its limit; no `except Exception` on the way may keep it."""


@contextlib.contextmanager
def time_limit(limit: float) -> Iterator[None]:
    """Raises TimeUp inside after so many seconds."""

    def stop(*_: Any) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def memory(result: dict[str, Any], name: str) -> Iterator[None]:
    """Notes the peak of GPU memory inside (GiB); of a CPU nothing."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    yield
    if torch.cuda.is_available():
        result[f"{name}_gib"] = torch.cuda.max_memory_allocated() / 2**30


@contextlib.contextmanager
def unless_too_large(result: dict[Any, Any], name: Any) -> Iterator[None]:
    """Notes None where memory runs out."""
    try:
        yield
    except torch.OutOfMemoryError:
        result[name] = None
    free()


def free() -> None:
    """Give back memory that nothing holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def matrix_peak(device: str, dtype: torch.dtype, side: int, repeats: int = 30) -> float:
    """TFLOP/s of a product of square matrices, random as weights are."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    for number in (3, repeats):  # the first warms up
        start = time.perf_counter()
        for _ in range(number):
            product = a @ b
        float(product[0, 0])  # waits for the device
        took = time.perf_counter() - start
    return 2 * side**3 * repeats / took / 1e12


def machine(device: str, size: Size) -> dict[str, Any]:
    if device == "cpu":
        named = {"device": f"CPU, {torch.get_num_threads()} threads"}
    else:
        named = {
            "device": torch.cuda.get_device_name(),
            "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    peaks = {
        f"{str(dtype).removeprefix('torch.')}_tflops": matrix_peak(device, dtype, size.matrix)
        for dtype in (torch.bfloat16, torch.float32)
    }
    libraries = ("torch", "transformers", "lm-eval", "peft", "trl")
    return named | peaks | {"versions": {name: version(name) for name in libraries}}


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # parts that need it say so


# -- the run -------------------------------------------------------------------------------------


def attempt(limit: float, result: dict[str, Any], work: Callable[..., Any], *args: Any) -> Any:
    """What the work returns; None, and why in the result, if it failed or was stopped."""
    start = time.perf_counter()
    try:
        with time_limit(limit):
            return work(*args)
    except TimeUp:
        result["stopped"] = f"after {limit:.0f} s"
    except Exception:  # whatever it is, the parts after it may do
        result["error"] = traceback.format_exc().splitlines()[-8:]
    finally:
        result["seconds"] = time.perf_counter() - start
    return None


def measure_model(
    make: Callable[[], Base], size: Size, peak: float, until: float, results: dict[str, Any]
) -> Iterator[str]:
    """All parts with a model; yields the name of each when its result is there.

    A part that failed or was stopped may leave the model changed: the next one gets a new model.

    Args:
        peak: of matrix products, TFLOP/s.
        until: when the time for everything is over, of `time.monotonic`.
    """
    base = None
    for part, (work, limit) in PARTS.items():
        if base is None:
            free()
            left, result = until - time.monotonic(), results.setdefault("build", {})
            base = attempt(min(60, left), result, make) if left > 5 else None
            yield "build"
        left, result = until - time.monotonic(), results.setdefault(part, {})
        if base is None or left < 5:
            result["stopped"] = "there was no model, or no time left"
        else:
            attempt(min(limit, left), result, work, base, size, result)
            if result.keys() & {"stopped", "error"}:
                base = None
        if "ours_tflops" in result:
            result["share_of_peak"] = result["ours_tflops"] / peak
        yield part


def rounded(value: Any) -> Any:
    """Four digits of every float."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("gpu.py", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON, written after every part")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, on a CPU too")
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--seconds", type=float, default=480, help="for everything")
    arguments = parser.parse_args(argv)
    until = time.monotonic() + arguments.seconds
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.tiny:
        raise InputError(
            "there is no GPU that torch can use: run it where there is one, or give --tiny, which "
            "tries everything with tiny shapes"
        )
    size = TINY if arguments.tiny else Size()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # its remarks on every model
    tokenizer = make_tokenizer()
    report: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/gpu.py", *(argv or sys.argv[1:])]),
        "machine": machine(device, size),
        "models": {name: {} for name in arguments.models},
    }
    for name, results in report["models"].items():
        make = partial(build, name, arguments.tiny, tokenizer, device)
        peak = report["machine"]["bfloat16_tflops"]
        for part in measure_model(make, size, peak, until, results):
            write_json(arguments.out, rounded(report), indent=2)
            print(name, part, rounded(results[part]), flush=True)
    parts = [result for results in report["models"].values() for result in results.values()]
    return int(any("error" in result for result in parts))


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # trl would spread batches over several
    sys.exit(run_command("gpu.py", main))
