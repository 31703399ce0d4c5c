"""How fast a model in this process is, from about a second, and what memory it takes."""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from unswayed.core.journal import Journal
from unswayed.scoring.ask import generate, generation_settings

LEAST = 1.0  # seconds to measure
BACKENDS_OF_TORCH = ("hf-shared", "hf")


@dataclasses.dataclass(frozen=True)
class Speed:
    """Estimated from a measurement.

    Attributes:
        audit: seconds that all questions take, at most in generation.
        measured: seconds that were measured.
        new_tokens: per second, of generated answers; 0 of likelihoods.
    """

    audit: float
    measured: float
    new_tokens: float = 0.0


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Bytes.

    Attributes:
        weights: of the model.
        dtype: of the weights.
        cache: of the longest sequence, or of a batch of them; None where the config does not tell.
        widest_pass: what a pass computes of the vocabulary at most, and in float32 of it.
        peak: what was taken so far at most: of a GPU, else of this process.
    """

    weights: int
    dtype: str
    cache: int | None
    widest_pass: int
    peak: int


def rate(
    ask: Callable[[Any], Any], work: Callable[[Any], float], questions: Sequence[Any]
) -> tuple[float, float]:
    """Work per second, and the seconds measured.

    Ever more of the questions are asked in one call, until calls took a second; the last call
    counts, which is the one most like the whole.
    """
    ask(questions[:1])  # first calls allocate and find out
    n, seconds = 1, 0.0
    while True:
        start = time.perf_counter()
        ask(questions[:n])
        last = time.perf_counter() - start
        seconds += last
        if seconds >= LEAST or n >= len(questions):
            return work(questions[:n]) / last, seconds
        n = min(len(questions), 2 * n)


def generation_times(
    lm: Any, prompts: Sequence[str], most: int, gen_kwargs: Any, backend: str
) -> tuple[float, float, float]:
    """Seconds up to the first new token of a batch, for each further one, and measured in all.

    Args:
        prompts: a batch.
        most: new tokens of an answer.
    """

    def timed(n: int) -> tuple[float, int]:
        fixed = {"min_new_tokens": n} if backend in BACKENDS_OF_TORCH else {}
        settings = generation_settings(n, gen_kwargs | fixed)
        start = time.perf_counter()
        texts = generate(lm, prompts, Journal(None), settings, backend)
        took = time.perf_counter() - start
        return took, n if fixed else max(1, *(len(lm.tok_encode(text)) for text in texts))

    timed(1)
    first, _ = timed(1)
    n, seconds, step = 1, first, first
    while seconds < LEAST and n < most:
        n = min(most, 4 * n)
        took, made = timed(n)
        seconds += took
        step = max(0.0, took - first) / (made - 1) if made > 1 else took
    return first, step, seconds


def footprint(network: Any, device: Any, cached: int, passed: int) -> Footprint:
    """Of a torch model.

    Args:
        cached: tokens that its cache holds at most.
        passed: tokens of a pass whose probabilities are wanted, at most.
    """
    import torch

    if torch.device(device).type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
    each, vocabulary = cache_bytes(network), network.config.get_text_config().vocab_size
    return Footprint(
        weights=sum(p.numel() * p.element_size() for p in network.parameters()),
        dtype=str(network.dtype).removeprefix("torch."),
        cache=None if each is None else each * cached,
        widest_pass=passed * vocabulary * (network.dtype.itemsize + 4),
        peak=peak,
    )


def cache_bytes(network: Any) -> int | None:
    """Keys and values of a token in all layers; None where the config does not tell."""
    config = network.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    layers, hidden = (getattr(config, n, None) for n in ("num_hidden_layers", "hidden_size"))
    if not (heads and layers and hidden):
        return None
    size = getattr(config, "head_dim", None) or hidden // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    return 2 * layers * groups * size * network.dtype.itemsize


def attention_share(network: Any) -> float:
    """What a token costs for each token that it looks back on, the token itself being 1: twice the
    layers' width over the parameters that it passes; 0 where the config does not tell."""
    config = network.config.get_text_config()
    layers, hidden = (getattr(config, n, None) for n in ("num_hidden_layers", "hidden_size"))
    if not (layers and hidden):
        return 0.0
    embedding = network.get_input_embeddings().weight.numel()
    passed = sum(p.numel() for p in network.parameters()) - embedding
    return 2 * layers * hidden / max(passed, 1)
