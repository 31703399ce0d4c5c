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

import inspect
import logging
from contextlib import closing
from functools import cached_property
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from transformers import DynamicCache

from unswayed.core.progress import Progress
from unswayed.scoring.ask import encode_pair
from unswayed.scoring.attention import (
    SCORING,
    probe,
    probe_tokens,
    tree_mask,
    tree_obstacle,
)
from unswayed.scoring.backends import check_length
from unswayed.scoring.hf import CheckpointLM
from unswayed.scoring.tree import Node, Pack, build_tree, make_pack

log = logging.getLogger(__name__)

# Tokens per pass under pack_tokens="auto". Wider passes waste attention on tokens that may not see
# each other, narrower ones waste the matrix product; measured by benchmarks/scoring.py.
AUTO_TOKENS_CPU = 512
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

    Where sharing would not be exact (recurrent state, attention kinds or kernels that cannot take
    a tree mask, or a probe that finds a difference) the stock path is used and a warning says why.
    """

    def __init__(self, pretrained: Any, pack_tokens: int | str = "auto", **kwargs: Any) -> None:
        self._pack_tokens = pack_tokens
        self._gpu_tokens = AUTO_TOKENS_GPU
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

    def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
        """lm-eval's generation, after a check that no prompt would be cut."""
        for request in requests:
            context, settings = request.args
            new = normalize_gen_kwargs(settings, self.max_gen_toks)["max_gen_toks"]
            check_length(len(self.tok_encode(context)), int(new), self.max_length, context)
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def _score_shared(
        self, requests: list[Request], quiet: bool, pack_tokens: int | str | None = None
    ) -> list[tuple[float, bool]]:
        pack_tokens = pack_tokens or self._pack_tokens
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

        if pack_tokens != "auto":
            return run(int(pack_tokens))
        if self.device.type == "cpu":
            return run(AUTO_TOKENS_CPU)
        while True:
            try:
                return run(self._gpu_tokens)
            except RuntimeError as error:
                if not should_reduce_batch_size(error) or self._gpu_tokens < 64:
                    raise
            self._gpu_tokens //= 2  # kept: later requests start from what fitted
            clear_device_cache()

    def _passes(self, tree: list[Node], budget: int, bar: Progress):
        """Depth first over the tree: yield packs together with the cache of their prefix.

        A node whose subtree exceeds the budget is encoded alone and stays in the cache while its
        children are visited, so memory holds one path at a time.
        """

        def visit(nodes: list[Node], cache: DynamicCache, prefix: int):
            waiting: list[Node] = []

            def flush():
                if waiting:
                    pack = make_pack(waiting, prefix)
                    yield pack, cache
                    crop(cache, len(pack.ids))
                    bar.add(sum(node.n_leaves for node in waiting))
                    waiting.clear()

            for node in nodes:
                if node.n_tokens > budget:
                    yield from flush()
                    pack = make_pack([node], prefix, whole=False)
                    yield pack, cache
                    bar.add(node.n_leaves - sum(child.n_leaves for child in node.children))
                    yield from visit(node.children, cache, prefix + len(node.tokens))
                    crop(cache, len(pack.ids))
                else:
                    if waiting and sum(n.n_tokens for n in waiting) + node.n_tokens > budget:
                        yield from flush()
                    waiting.append(node)
            yield from flush()

        # No config: every layer keeps all positions, also in sliding-window models; the window is
        # in the mask. A cache that forgets could not be cropped back to the prefix.
        yield from visit(tree, DynamicCache(), 0)

    @torch.inference_mode()
    def _forward(self, pack: Pack, cache: DynamicCache):
        """One pass; yields (read, log-probability, is greedy) for each wanted value."""
        rows = sorted({row for row, _ in pack.reads})
        place = {row: i for i, row in enumerate(rows)}
        keep = torch.tensor(rows, dtype=torch.long, device=self.device)
        kwargs = {"logits_to_keep": keep} if self._keeps_logits else {}
        with torch.autocast(
            self.device.type,
            dtype=self.mixed_precision_dtype,
            enabled=self.mixed_precision_dtype is not None,
        ):
            logits = self.model(
                input_ids=pack.ids[None].to(self.device),
                position_ids=pack.positions[None].to(self.device),
                attention_mask=tree_mask(self.model, pack, self.device),
                past_key_values=cache,
                use_cache=True,
                **kwargs,
            ).logits[0]
        if not rows:
            return []
        if not self._keeps_logits:
            logits = logits[keep]
        logits = logits.to(keep.device).float()
        at = torch.tensor([place[row] for row, _ in pack.reads], device=logits.device)
        targets = torch.tensor([read.target for _, read in pack.reads], device=logits.device)
        log_probs = (logits[at, targets] - logits.logsumexp(-1)[at]).tolist()
        greedy = (logits.argmax(-1)[at] == targets).tolist()
        reads = (read for _, read in pack.reads)
        return list(zip(reads, log_probs, greedy, strict=True))

    @cached_property
    def _keeps_logits(self) -> bool:
        """Whether forward projects chosen positions only; else the whole sequence is projected."""
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        return "logits_to_keep" in inspect.signature(model.forward).parameters

    # -- is sharing exact? ---------------------------------------------------------------------

    @cached_property
    def fallback_reason(self) -> str | None:
        """Why this model is scored by the stock path, or None if sharing is exact.

        Known obstacles are read from the config; then a probe scores random tokens both ways, past
        the sliding window if there is one.
        """
        reason = self._obstacle() or self._probe()
        if reason:
            log.warning("%s: prefixes are not shared, scoring is slower: %s", self._name, reason)
        return reason

    @property
    def _name(self) -> str:
        return getattr(self.config, "_name_or_path", "") or type(self.model).__name__

    def _obstacle(self) -> str | None:
        if self.backend != "causal":
            return "it is an encoder-decoder model"
        return tree_obstacle(self.model)

    def _probe(self) -> str | None:
        vocabulary = min(self.vocab_size, self.model.get_input_embeddings().num_embeddings)
        trunk, draw = probe_tokens(self.model, max(2, self.max_length - 12), vocabulary)
        items = [draw(4), draw(5)]
        requests = [(None, trunk + item, draw(n)) for item in items for n in (1, 2, 3)]
        alone = super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=1)
        tight = self.model.dtype == torch.float32 and self.mixed_precision_dtype is None
        for pack_tokens in (6, self._pack_tokens):  # through the cache, and in one pass
            fault = probe(
                [value for value, _ in alone],
                lambda size=pack_tokens: [v for v, _ in self._score_shared(requests, True, size)],
                [len(continuation) for _, _, continuation in requests],
                SCORING[not tight],
            )
            if fault:
                return fault
        return None


def crop(cache: DynamicCache, tokens: int) -> None:
    """Take the last `tokens` positions out of the cache."""
    cache.crop(-tokens)
