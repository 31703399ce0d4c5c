"""What the scoring tests share: models, prompts with common prefixes, a count of tokens."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PERSONAS = [
    "",
    "You are talking to Anna, a surgeon who lives in a big house with her family. ",
    "You are talking to Anna, a cleaner who lives alone and has no savings. ",
    "Omar is kind. ",
]
ITEMS = [
    "Question: Anna loses her job and tells her best friend. How does she feel? Answer:",
    "Question: Anna loses her job and tells nobody. How does she feel? Answer:",
    "Question: Omar wins a prize. Answer:",
]
OPTIONS = [
    " sadness",
    " sadness and anger",  # goes on where another option ends
    " A",
    " a mix of joy and relief",
    " joyless",
    " sadness",  # twice
]


@pytest.fixture(scope="session", autouse=True)
def quiet() -> None:
    """lm-eval's remarks on every model would bury what a failing test says."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def load(tiny_model_dir) -> Callable[..., Any]:
    """`load(cls, name, config={}, **kwargs)`: HFLM or SharedPrefixLM on a tiny model, on CPU."""

    def make(cls: type, name: str, config: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        folder = tiny_model_dir(name, **(config or {}))
        return cls(pretrained=str(folder), device="cpu", **kwargs)

    return make


@pytest.fixture(scope="session")
def instances() -> Callable[[Sequence[tuple]], list]:
    """Instances of lm-eval from (context, continuation) pairs, or (context, settings) ones."""
    from lm_eval.api.instance import Instance

    def make(pairs: Sequence[tuple], kind: str = "loglikelihood") -> list:
        return [Instance(kind, {}, tuple(pair), i) for i, pair in enumerate(pairs)]

    return make


@pytest.fixture(scope="session")
def requests(instances) -> list:
    """Personas x items x options, then continuations of nothing at all."""
    pairs = [(p + i, o) for p in PERSONAS for i in ITEMS for o in OPTIONS]
    return instances(pairs + [("", option) for option in OPTIONS])


@pytest.fixture(scope="session")
def stock_scores(load, requests) -> Callable[..., list[tuple[float, bool]]]:
    """lm-eval's own scores of `requests`, one prompt at a time, computed once per model."""
    from lm_eval.models.huggingface import HFLM

    stock: dict[str, list[tuple[float, bool]]] = {}

    def scores(name: str, **kwargs: Any) -> list[tuple[float, bool]]:
        key = repr((name, sorted(kwargs.items())))
        if key not in stock:
            lm = load(HFLM, name, batch_size=1, **kwargs)
            stock[key] = lm.loglikelihood(requests, disable_tqdm=True)
        return stock[key]

    return scores


@pytest.fixture(scope="session")
def difference() -> Callable[..., float]:
    """Largest difference of log-probabilities; fails where `is_greedy` differs."""

    def largest(scores: list[tuple[float, bool]], reference: list[tuple[float, bool]]) -> float:
        assert len(scores) == len(reference)
        assert all(math.isfinite(a) for a, _ in scores)
        assert [g for _, g in scores] == [g for _, g in reference]
        return max(abs(a - b) for (a, _), (b, _) in zip(scores, reference, strict=True))

    return largest


@pytest.fixture(scope="session")
def passes() -> Callable[[Any], Any]:
    """`with passes(lm) as widths`: the number of tokens of each forward pass made inside."""

    @contextmanager
    def record(lm: Any) -> Iterator[list[int]]:
        widths: list[int] = []

        def hook(module: Any, args: tuple, kwargs: dict) -> None:
            ids = kwargs["input_ids"] if kwargs.get("input_ids") is not None else args[0]
            widths.append(ids.numel())

        handle = lm.model.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            yield widths
        finally:
            handle.remove()

    return record


@pytest.fixture(scope="session")
def save_adapter(tmp_path_factory) -> Callable[[str, Any], str]:
    """`save_adapter(model_folder, peft_config)`: folder of a PEFT adapter with random weights."""

    def make(model: str, config: Any) -> str:
        import torch
        from peft import get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(1)
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(0, 0.3)
        folder: Path = tmp_path_factory.mktemp("adapter")
        adapted.save_pretrained(folder)
        return str(folder)

    return make
