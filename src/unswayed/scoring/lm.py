"""A language model for lm-eval that encodes what prompts share once.

`--model hf-shared` scores any multiple-choice request of lm-eval like its `hf` model, with three
differences. Requests are merged into a token tree (`unswayed.scoring.tree`), so a persona is
encoded once for all items and an item once for all options. White space at the end of a prompt,
such as a chat template's newline, stays in the prompt, where `hf` scores it as the beginning of
every answer. And a prompt longer than the model's context is an error, where `hf` cuts it from the
left, the memory first.

Use it from Python::

    from unswayed.scoring.lm import SharedPrefixLM
    lm_eval.simple_evaluate(model=SharedPrefixLM(pretrained="..."), tasks=["arc_easy"])
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from transformers import DynamicCache

from unswayed.core.progress import Progress
from unswayed.scoring.ask import encode_pair
from unswayed.scoring.backends import check_length
from unswayed.scoring.exact import why_not_shared
from unswayed.scoring.hf import CheckpointLM
from unswayed.scoring.passes import passes, read_pack
from unswayed.scoring.tree import Node, Pack, Read, build_tree

log = logging.getLogger(__name__)

# Tokens per pass under pack_tokens="auto". Narrower passes waste the matrix product, wider ones
# leave the processor's caches; measured by benchmarks/scoring.py.
AUTO_TOKENS_CPU = 1024
AUTO_TOKENS_GPU = 8192

Request = tuple[tuple[str, str], list[int], list[int]]


@register_model("hf-shared")
class SharedPrefixLM(CheckpointLM):
    """lm-eval's HF causal model with shared prefixes, loaded as `CheckpointLM` does.

    Args:
        pretrained, batch_size, ...: those of `lm_eval.models.huggingface.HFLM`; `batch_size` holds
            for generation and for models whose prefixes are not shared.
        pack_tokens: tokens in one scoring pass. "auto" is a fixed number on CPU; on GPU it starts
            high and halves on memory errors. Scores do not depend on it beyond float rounding.

    Where sharing would not be exact (`unswayed.scoring.exact`) the stock path is used and a warning
    says why.
    """

    def __init__(self, pretrained: Any, pack_tokens: int | str = "auto", **kwargs: Any) -> None:
        self._pack_tokens = pack_tokens
        self._gpu_tokens = AUTO_TOKENS_GPU
        self._alone = False
        super().__init__(pretrained, **kwargs)

    # -- scoring -------------------------------------------------------------------------------

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Where lm-eval's moves the end of the prompt into the answer, ours does not."""
        return encode_pair(self, context, continuation)

    def _loglikelihood_tokens(
        self,
        requests: list[Request],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Sum of log-probabilities of each continuation, and whether it is the greedy one.

        Raises:
            InputError: a request does not fit the model's context; nothing is truncated.
        """
        for key, context, continuation in requests:  # key is None in loglikelihood_rolling
            text = key[0] if key else ""
            check_length(len(context), len(continuation) - 1, self.max_length, text)
        if self._alone:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs=1)
        if self.fallback_reason:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        try:
            results = self._score_shared(requests, disable_tqdm)
        except RecursionError:  # hundreds of requests, each the beginning of the next
            log.warning("the requests nest too deeply to share prefixes, scoring is slower")
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        for (key, _, _), result in zip(requests, results, strict=True):
            if key is not None:
                self.cache_hook.add_partial("loglikelihood", key, result)
        return results

    @contextmanager
    def unshared(self) -> Iterator[None]:
        """Inside, each request passes the model by itself on the stock path."""
        self._alone = True
        try:
            yield
        finally:
            self._alone = False

    def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
        """lm-eval's generation, after a check that no prompt would be cut."""
        for request in requests:
            context, settings = request.args
            new = normalize_gen_kwargs(settings, self.max_gen_toks)["max_gen_toks"]
            check_length(len(self.tok_encode(context)), int(new), self.max_length, context)
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def _score_shared(self, requests: list[Request], quiet: bool) -> list[tuple[float, bool]]:
        tree = build_tree([(context, continuation) for _, context, continuation in requests])
        total = sum(node.n_leaves for node in tree)

        def run(budget: int) -> list[tuple[float, bool]]:
            log_probs = [torch.zeros(len(c), dtype=torch.float64) for _, _, c in requests]
            greedy = [True] * len(requests)
            with closing(Progress(total, "options", quiet=quiet or self.rank != 0)) as bar:
                for pack, cache in self._passes(tree, budget, bar):
                    for read, log_prob, is_best in self._forward(pack, cache):
                        log_probs[read.request][read.rank] = log_prob
                        greedy[read.request] &= is_best
            return [(float(p.sum()), g) for p, g in zip(log_probs, greedy, strict=True)]

        if self._pack_tokens != "auto" or self.device.type == "cpu":
            return run(self.pass_tokens)
        while True:
            try:
                return run(self.pass_tokens)
            except RuntimeError as error:
                if not should_reduce_batch_size(error) or self._gpu_tokens < 64:
                    raise
            self._gpu_tokens //= 2  # kept: later requests start from what fitted
            clear_device_cache()

    @property
    def pass_tokens(self) -> int:
        """Tokens of a pass at most; a beginning that is longer passes by itself."""
        if self._pack_tokens != "auto":
            return int(self._pack_tokens)
        return AUTO_TOKENS_CPU if self.device.type == "cpu" else self._gpu_tokens

    def _passes(self, tree: list[Node], budget: int, bar: Progress):
        """Packs with the cache of their prefix; a subclass may have some of them encoded."""
        return passes(tree, budget, bar.add)

    def _forward(self, pack: Pack, cache: DynamicCache) -> list[tuple[Read, float, bool]]:
        with self._precision():
            return read_pack(self.model, pack, cache, self.device)

    def _precision(self) -> torch.autocast:
        dtype = self.mixed_precision_dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    # -- is sharing exact? ---------------------------------------------------------------------

    @cached_property
    def fallback_reason(self) -> str | None:
        """Why this model is scored by the stock path, or None if sharing is exact."""
        if self.backend != "causal":
            reason = "it is an encoder-decoder model"
        else:
            with self._precision():
                reason = why_not_shared(self.model)
        if reason:
            log.warning("%s: prefixes are not shared, scoring is slower: %s", self._name, reason)
        return reason

    @property
    def _name(self) -> str:
        return getattr(self.config, "_name_or_path", "") or type(self.model).__name__
