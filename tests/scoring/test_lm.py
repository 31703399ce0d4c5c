"""SharedPrefixLM against lm-eval's own `hf` model: the same scores for less work."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.models.huggingface import HFLM

from unswayed.scoring import attention
from unswayed.scoring import lm as lm_module
from unswayed.scoring.attention import attention_kernel, layer_kinds
from unswayed.scoring.lm import SharedPrefixLM

SHAREABLE = ("llama", "gpt2", "qwen3", "gemma3", "mistral")
WINDOWED = ("gemma3", "mistral")
WINDOW = 16
TOLERANCE = 1e-3


def trust(lm: SharedPrefixLM) -> SharedPrefixLM:
    """Share whatever the probe would say."""
    lm.__dict__["fallback_reason"] = None
    return lm


def exact_stock(lm: SharedPrefixLM) -> HFLM:
    """The stock model around the same weights, without its logits cache.

    The cache of lm-eval 0.4.13 mixes up requests whose context + continuation[:-1] are the same
    tokens and whose continuations differ in length: it reads the first logits of the longest one,
    not the last (`torch.gather` in HFLM._loglikelihood_tokens).
    """
    return HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=1, logits_cache=False)


def test_the_requests_are_worth_testing(load, requests):
    lm = load(HFLM, "mistral")
    pairs = [request.args for request in requests]
    encoded = [lm._encode_pair(c, o) if c else ([1], lm.tok_encode(o)) for c, o in pairs]
    lengths = [len(continuation) for _, continuation in encoded]
    assert 1 in lengths and max(lengths) > 4
    assert len(set(pairs)) < len(pairs), "some requests are identical"
    assert any(
        a is not b and a[0] == b[0] and a[1] == b[1][: len(a[1])] and len(a[1]) < len(b[1])
        for a in encoded
        for b in encoded
    ), "some option is a prefix of another"
    contexts = [len(context) for context, _ in encoded]
    assert min(contexts) == 1 and max(contexts) > 3 * WINDOW


# -- the same scores -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAREABLE)
def test_same_scores_as_stock_whatever_the_batch(name, load, requests, stock_scores, difference):
    stock = stock_scores(name)
    ways = [{"pack_tokens": n} for n in (1, 8, 40, 10_000, "auto")]  # 1: as deep as can be
    ways += [{"batch_size": n} for n in (1, 3, 64, "auto")]
    scores = []
    for way in ways:
        lm = load(SharedPrefixLM, name, **way)
        assert lm.fallback_reason is None
        results = lm.loglikelihood(requests, disable_tqdm=True)
        assert all(type(p) is float and type(greedy) is bool for p, greedy in results)
        by_args = dict(zip((r.args for r in requests), results, strict=True))
        assert results == [by_args[r.args] for r in requests], "identical requests"
        scores.append(results)
    worst = max(difference(results, stock) for results in scores)
    print("largest difference:", worst)
    assert worst <= TOLERANCE
    assert max(difference(results, scores[0]) for results in scores) <= 1e-4


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_both_attention_kernels(name, kernel, load, requests, stock_scores, difference):
    stock = stock_scores(name, attn_implementation=kernel)
    for pack_tokens in ("auto", 8):
        lm = load(SharedPrefixLM, name, attn_implementation=kernel, pack_tokens=pack_tokens)
        assert attention_kernel(lm.model) == kernel
        assert lm.fallback_reason is None
        assert difference(lm.loglikelihood(requests, disable_tqdm=True), stock) <= TOLERANCE


@pytest.mark.parametrize("name", SHAREABLE)
def test_greedy_continuations_are_recognised(name, load, difference):
    """What the model itself would write, and the same with its last or its first token wrong."""
    stock = load(HFLM, name, batch_size=1)

    def best(ids: list[int]) -> int:
        with torch.no_grad():
            return int(stock.model(torch.tensor([ids])).logits[0, -1].argmax())

    requests = []
    for seed in range(3):
        draw = random.Random(seed)
        context = [1] + [draw.randrange(5, 384) for _ in range(WINDOW + 4 * seed)]
        written: list[int] = []
        for _ in range(4):
            written.append(best(context + written))
            wrong_token = (written[-1] + 1) % 384
            late, early = [*written[:-1], wrong_token], [*written[:-1], wrong_token]
            early.append(best(context + early))
            requests += [(("", ""), context, answer) for answer in (list(written), late, early)]
    expected = stock._loglikelihood_tokens(requests, disable_tqdm=True)
    assert [greedy for _, greedy in expected] == [True, False, False] * 12
    for pack_tokens in (1, 30, "auto"):
        lm = load(SharedPrefixLM, name, pack_tokens=pack_tokens)
        assert lm.fallback_reason is None
        results = lm._loglikelihood_tokens(requests, disable_tqdm=True)
        assert difference(results, expected) <= TOLERANCE


token = st.integers(5, 8)
trunk = st.lists(st.integers(5, 383), max_size=30)
branch = st.tuples(
    st.integers(0, 30),  # how much of the trunk it shares
    st.lists(token, min_size=1, max_size=8),
    st.lists(token, min_size=1, max_size=6),
)


@pytest.mark.parametrize("name", SHAREABLE)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(
    trunk=trunk,
    branches=st.lists(branch, min_size=1, max_size=8),
    pack_tokens=st.sampled_from([1, 2, 5, 12, 40, "auto"]),
)
def test_any_forest_of_tokens(name, load, difference, trunk, branches, pack_tokens):
    requests = [(("", ""), trunk[:n] + context, answer) for n, context, answer in branches]
    shared = trust(load(SharedPrefixLM, name, pack_tokens=pack_tokens))
    stock = exact_stock(shared)
    expected = stock._loglikelihood_tokens(requests, disable_tqdm=True)
    assert difference(shared._loglikelihood_tokens(requests, disable_tqdm=True), expected) <= 1e-3


def test_contexts_and_answers_that_meet_in_the_same_tokens(load, difference):
    """5 6|7 8 and 5|6 7 9 and 5 6 7|3: one sequence of the model, cut in three places."""
    requests = [(("", ""), [5, 6], [7, 8]), (("", ""), [5], [6, 7, 9]), (("", ""), [5, 6, 7], [3])]
    lm = load(SharedPrefixLM, "llama")
    assert lm.fallback_reason is None
    expected = exact_stock(lm)._loglikelihood_tokens(requests, disable_tqdm=True)
    assert difference(lm._loglikelihood_tokens(requests, disable_tqdm=True), expected) <= TOLERANCE


def test_order_of_requests_does_not_matter(load, requests):
    lm = load(SharedPrefixLM, "gemma3", pack_tokens=30)
    order = random.Random(0).sample(range(len(requests)), len(requests))
    straight = lm.loglikelihood(requests, disable_tqdm=True)
    mixed = lm.loglikelihood([requests[i] for i in order], disable_tqdm=True)
    assert mixed == [straight[i] for i in order]


def test_no_requests(load):
    assert load(SharedPrefixLM, "llama").loglikelihood([], disable_tqdm=True) == []


def test_rolling_likelihood(load, instances):
    texts = instances([("Anna loses her job.",), ("You are talking to Omar. " * 5,)], "rolling")
    stock = load(HFLM, "llama", batch_size=1, max_length=32)
    shared = load(SharedPrefixLM, "llama", batch_size=1, max_length=32)
    expected = stock.loglikelihood_rolling(texts, disable_tqdm=True)
    assert shared.loglikelihood_rolling(texts, disable_tqdm=True) == pytest.approx(
        expected, abs=TOLERANCE
    )


def test_answers_reach_the_cache_of_lm_eval(load, requests):
    class Hook:
        def __init__(self):
            self.seen = []

        def add_partial(self, kind, key, answer):
            self.seen.append((kind, key, answer))

    lm = load(SharedPrefixLM, "llama")
    assert lm.fallback_reason is None
    lm.cache_hook = hook = Hook()
    results = lm.loglikelihood(requests, disable_tqdm=True)
    assert hook.seen == [
        ("loglikelihood", request.args, answer)
        for request, answer in zip(requests, results, strict=True)
    ]


# -- the comparison would notice -----------------------------------------------------------------


@pytest.mark.parametrize("name", SHAREABLE)
def test_a_mask_that_is_not_a_tree_would_be_noticed(name, load, requests, stock_scores):
    """With siblings in sight of each other the scores are far off: the models depend on context."""

    class Causal(SharedPrefixLM):
        def _forward(self, pack, cache):
            size = len(pack.ids)
            pack.mask[:, -size:] = torch.ones(size, size, dtype=torch.bool).tril()
            return super()._forward(pack, cache)

    stock = load(HFLM, name)  # a model in memory is not checked against the plain one
    lm = trust(Causal(pretrained=stock.model, tokenizer=stock.tokenizer))
    results = lm.loglikelihood(requests, disable_tqdm=True)
    off = [abs(a - b) for (a, _), (b, _) in zip(results, stock_scores(name), strict=True)]
    assert sum(d > 0.1 for d in off) > len(off) / 2


@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_left_out_would_be_noticed(name, load, requests, stock_scores, monkeypatch):
    lm = trust(load(SharedPrefixLM, name))
    kinds, window = layer_kinds(lm.model.config)
    assert window == WINDOW
    for wrong in (WINDOW - 1, WINDOW + 1, 10_000):
        monkeypatch.setattr(attention, "layer_kinds", lambda config, w=wrong: (kinds, w))
        results = lm.loglikelihood(requests, disable_tqdm=True)
        off = [abs(a - b) for (a, _), (b, _) in zip(results, stock_scores(name), strict=True)]
        assert sum(d > 0.01 for d in off) > len(off) / 2


# -- for less work -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAREABLE)
def test_far_fewer_tokens_go_through_the_model(name, load, requests, passes):
    stock = load(HFLM, name, batch_size=1)
    with passes(stock) as stock_widths:
        stock.loglikelihood(requests, disable_tqdm=True)
    distinct = set()
    for request in requests:
        context, answer = request.args
        if context:
            ids, target = stock._encode_pair(context, answer)
        else:
            ids, target = [stock.prefix_token_id], stock.tok_encode(answer, False)
        sequence = (*ids, *target[:-1])
        distinct |= {sequence[:n] for n in range(1, len(sequence) + 1)}
    for pack_tokens in (1, 40, 10_000, "auto"):
        lm = load(SharedPrefixLM, name, pack_tokens=pack_tokens)
        assert lm.fallback_reason is None
        with passes(lm) as widths:
            lm.loglikelihood(requests, disable_tqdm=True)
        assert sum(widths) == len(distinct), "every distinct prefix is encoded exactly once"
        assert sum(widths) < sum(stock_widths) / 4


def test_pack_tokens_bounds_the_width_of_a_pass(load, passes, monkeypatch):
    """A trunk of 10 tokens and 20 options of 5, which together fit or do not fit one pass."""
    trunk = list(range(10, 20))
    requests = [(("", ""), [*trunk, 100 + i], [7] * 5) for i in range(20)]

    def widths(pack_tokens):
        lm = trust(load(SharedPrefixLM, "llama", pack_tokens=pack_tokens))
        with passes(lm) as measured:
            lm._loglikelihood_tokens(requests, disable_tqdm=True)
        return measured

    assert widths(110) == [110]
    assert widths(109) == [10, 100]
    assert widths(50) == [10, 50, 50]
    assert widths(49) == [10, 45, 45, 10]
    assert widths(5) == [10, *[5] * 20]
    assert widths(1) == [10, *[5] * 20], "a run that is shared is never cut"
    assert widths("auto") == [110]
    monkeypatch.setattr(lm_module, "AUTO_TOKENS_CPU", 50)
    assert widths("auto") == [10, 50, 50]


def test_only_wanted_positions_are_projected(load, requests):
    lm = load(SharedPrefixLM, "llama")
    assert lm.fallback_reason is None
    projected = []
    lm.model.lm_head.register_forward_hook(lambda m, a, out: projected.append(out.shape[1]))
    lm.loglikelihood(requests, disable_tqdm=True)
    targets = sum(len(lm.tok_encode(r.args[1], False)) for r in requests)
    assert 0 < sum(projected) < targets


@pytest.mark.parametrize("pack_tokens", [1, 40, "auto"])
def test_progress_counts_every_distinct_option_once(pack_tokens, load, requests, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, what, quiet):
            self.total, self.n, self.quiet = total, 0, quiet
            bars.append(self)

        def add(self, n):
            self.n += n

        def close(self):
            pass

    lm = load(SharedPrefixLM, "gpt2", pack_tokens=pack_tokens)
    assert lm.fallback_reason is None
    monkeypatch.setattr(lm_module, "Progress", Bar)
    lm.loglikelihood(requests, disable_tqdm=True)
    lm.loglikelihood(requests)
    for bar in bars:
        assert bar.n == bar.total > 30
    assert [bar.quiet for bar in bars] == [True, False]


# -- GPU memory ----------------------------------------------------------------------------------


class NotCpu(str):
    """A device that torch takes for "cpu" and the code for a GPU."""

    type = "cuda"


@pytest.fixture
def small_gpu(load, monkeypatch):
    """A SharedPrefixLM that believes in a GPU on which passes over 40 tokens do not fit."""
    lm = load(SharedPrefixLM, "llama")
    assert lm.fallback_reason is None
    widths, budgets = [], []

    def hook(module, args, kwargs):
        width = kwargs["input_ids"].numel()
        if width > 40:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        widths.append(width)

    lm.model.register_forward_pre_hook(hook, with_kwargs=True)
    stock_passes = SharedPrefixLM._passes

    def spy(self, tree, budget, bar):
        budgets.append(budget)
        return stock_passes(self, tree, budget, bar)

    monkeypatch.setattr(SharedPrefixLM, "_passes", spy)
    monkeypatch.setattr(SharedPrefixLM, "device", property(lambda self: NotCpu("cpu")))
    lm._gpu_tokens = 64
    lm.widths, lm.budgets = widths, budgets
    return lm


@pytest.fixture
def wide():
    return [(("", ""), [5, 6, 7, 100 + i], [8, 9, 10]) for i in range(50)]


def test_auto_makes_passes_smaller_until_they_fit(small_gpu, wide, load, difference):
    expected = load(HFLM, "llama")._loglikelihood_tokens(wide, disable_tqdm=True)
    results = small_gpu._loglikelihood_tokens(wide, disable_tqdm=True)
    assert difference(results, expected) <= TOLERANCE
    assert small_gpu.budgets[0] == 64 and small_gpu.budgets[-1] <= 40
    assert max(small_gpu.widths) > 20, "no smaller than needed"


def test_auto_halves_its_passes(small_gpu, wide):
    small_gpu._loglikelihood_tokens(wide, disable_tqdm=True)
    assert small_gpu.budgets == [64, 32]


def test_other_errors_are_not_taken_for_lack_of_memory(small_gpu, wide):
    def broken(module, args, kwargs):
        raise RuntimeError("a kernel is broken")

    small_gpu.model.register_forward_pre_hook(broken, with_kwargs=True, prepend=True)
    with pytest.raises(RuntimeError, match="a kernel is broken"):
        small_gpu._loglikelihood_tokens(wide, disable_tqdm=True)
    assert small_gpu.budgets == [64]
