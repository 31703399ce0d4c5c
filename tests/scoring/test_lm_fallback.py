"""Where sharing would not be exact, SharedPrefixLM says why and scores like stock."""

from __future__ import annotations

import logging

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM, LlamaForCausalLM

from unswayed.scoring import attention
from unswayed.scoring.attention import layer_kinds
from unswayed.scoring.hf import CheckpointLM
from unswayed.scoring.lm import SharedPrefixLM


@pytest.fixture
def around(tiny_model_dir):
    """`around(LlamaSubclass)`: the tiny Llama's weights in another class, and its tokenizer."""

    def make(cls: type, **kwargs) -> dict:
        folder = tiny_model_dir("llama")
        return {
            "pretrained": cls.from_pretrained(folder, **kwargs).eval(),
            "tokenizer": AutoTokenizer.from_pretrained(folder),
        }

    return make


def warnings_of(caplog) -> list[str]:
    return [
        r.getMessage()
        for r in caplog.records
        if r.name == "unswayed.scoring.lm" and r.levelno == logging.WARNING
    ]


def check_falls_back(lm, requests, caplog, reason: str) -> None:
    """Same scores as stock, bit by bit, and one warning that names the reason."""
    stock = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer)
    expected = stock.loglikelihood(requests, disable_tqdm=True)
    results = lm.loglikelihood(requests, disable_tqdm=True)
    again = lm.loglikelihood(requests[:6], disable_tqdm=True)
    assert results == expected and again == expected[:6]
    assert reason in lm.fallback_reason
    (message,) = warnings_of(caplog)
    assert "not shared" in message and lm.fallback_reason in message


def test_recurrent_state(load, requests, stock_scores, caplog):
    lm = load(SharedPrefixLM, "mamba")
    check_falls_back(lm, requests, caplog, "recurrent state")
    assert lm.loglikelihood(requests, disable_tqdm=True) == stock_scores("mamba")


def test_no_warning_where_prefixes_are_shared(load, requests, caplog):
    lm = load(SharedPrefixLM, "llama")
    lm.loglikelihood(requests, disable_tqdm=True)
    assert lm.fallback_reason is None
    assert warnings_of(caplog) == []


def test_falling_back_costs_no_more_than_stock(load, requests, passes):
    stock, lm = load(HFLM, "mamba"), load(SharedPrefixLM, "mamba")
    with passes(stock) as stock_widths:
        stock.loglikelihood(requests, disable_tqdm=True)
    with passes(lm) as widths:
        lm.loglikelihood(requests, disable_tqdm=True)
    assert widths == stock_widths


class MaskIgnored(LlamaForCausalLM):
    """Siblings see each other."""

    def forward(self, *args, attention_mask=None, **kwargs):
        return super().forward(*args, attention_mask=None, **kwargs)


class PositionsIgnored(LlamaForCausalLM):
    """Positions run on through the pack."""

    def forward(self, *args, position_ids=None, **kwargs):
        return super().forward(*args, position_ids=None, **kwargs)


class NotANumber(LlamaForCausalLM):
    """A difference of NaN is no small difference."""

    def forward(self, *args, attention_mask=None, **kwargs):
        result = super().forward(*args, attention_mask=attention_mask, **kwargs)
        if attention_mask is not None and attention_mask.dim() == 4:
            result.logits = result.logits * float("nan")
        return result


@pytest.mark.parametrize("pack_tokens", [30, "auto"])
@pytest.mark.parametrize("cls", [MaskIgnored, PositionsIgnored, NotANumber])
def test_a_wrong_tree_pass_is_found_by_the_probe(cls, pack_tokens, around, requests, caplog):
    lm = SharedPrefixLM(**around(cls), pack_tokens=pack_tokens)
    check_falls_back(lm, requests, caplog, "a probe differs by")


def test_a_pass_that_raises_on_a_tree_mask(around, requests, caplog):
    class MaskRefused(LlamaForCausalLM):
        def forward(self, *args, attention_mask=None, **kwargs):
            if attention_mask is not None and attention_mask.dim() != 2:
                raise NotImplementedError("attention_mask must be (batch, tokens)")
            return super().forward(*args, attention_mask=attention_mask, **kwargs)

    lm = SharedPrefixLM(**around(MaskRefused))
    check_falls_back(lm, requests, caplog, "NotImplementedError: attention_mask must be")


def test_an_architecture_that_takes_no_tree_mask(around, requests, caplog):
    """Bloom builds its ALiBi biases from a mask of two dimensions."""
    tokenizer = around(LlamaForCausalLM)["tokenizer"]
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=384, hidden_size=32, n_layer=2, n_head=4)
    lm = SharedPrefixLM(pretrained=BloomForCausalLM(config).eval(), tokenizer=tokenizer)
    check_falls_back(lm, requests, caplog, "a pass with a tree mask failed (ValueError")


@pytest.mark.parametrize("kernel", ["flex_attention", "flash_attention_2"])
def test_kernels_without_tree_masks(kernel, around, requests, caplog, monkeypatch):
    monkeypatch.setattr(attention, "attention_kernel", lambda model: kernel)
    lm = SharedPrefixLM(**around(LlamaForCausalLM))
    check_falls_back(lm, requests, caplog, f"attention kernel {kernel} takes no tree mask")


@pytest.mark.parametrize("kind", ["chunked_attention", "conv"])
def test_unknown_kinds_of_layers(kind, around, requests, caplog, monkeypatch):
    monkeypatch.setattr(attention, "layer_kinds", lambda config: ({"full_attention", kind}, None))
    lm = SharedPrefixLM(**around(LlamaForCausalLM))
    check_falls_back(lm, requests, caplog, f"layers of kind {kind}")


def test_encoder_decoder_models(around):
    lm = SharedPrefixLM(**around(LlamaForCausalLM))
    lm.backend = "seq2seq"
    assert "encoder-decoder" in lm.fallback_reason


def test_prompt_tuning_puts_tokens_before_the_mask(tiny_model_dir, save_adapter, requests, caplog):
    from peft import PromptTuningConfig

    folder = str(tiny_model_dir("llama"))
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    adapter = save_adapter(folder, config)
    arguments = {"pretrained": folder, "peft": adapter, "device": "cpu"}
    expected = HFLM(**arguments).loglikelihood(requests, disable_tqdm=True)
    lm = SharedPrefixLM(**arguments)
    assert lm.loglikelihood(requests, disable_tqdm=True) == expected
    assert "a pass with a tree mask failed" in lm.fallback_reason
    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize(
    ("name", "kinds", "window"),
    [
        ("llama", {"full_attention"}, None),
        ("gpt2", {"full_attention"}, None),
        ("qwen3", {"full_attention"}, None),
        ("gemma3", {"sliding_attention", "full_attention"}, 16),
        ("mistral", {"sliding_attention"}, 16),
    ],
)
def test_layer_kinds(name, kinds, window, load):
    assert layer_kinds(load(HFLM, name).model.config) == (kinds, window)


def test_the_probe_runs_once(around, requests, passes):
    lm = SharedPrefixLM(**around(LlamaForCausalLM))
    with passes(lm) as first:
        lm.loglikelihood(requests, disable_tqdm=True)
    with passes(lm) as second:
        lm.loglikelihood(requests, disable_tqdm=True)
    assert 0 < len(second) < len(first)


# -- known gaps ----------------------------------------------------------------------------------


@pytest.fixture
def many_items():
    """One persona of 60 tokens, 40 items of 10, 3 options of 2: more than one pass."""
    draw = torch.Generator().manual_seed(3)

    def some(n: int) -> list[int]:
        return torch.randint(5, 384, (n,), generator=draw).tolist()

    persona, items = some(60), [some(10) for _ in range(40)]
    return [(("", ""), persona + item, some(2)) for item in items for _ in range(3)]


def test_a_model_that_loses_its_cache_is_found_by_the_probe(around, many_items, difference):
    class CacheIgnored(LlamaForCausalLM):
        """Takes a cache and a mask, and looks at neither the cache nor the mask's part for it."""

        def forward(self, *args, past_key_values=None, attention_mask=None, **kwargs):
            if attention_mask is not None and attention_mask.dim() == 4:
                attention_mask = attention_mask[..., -attention_mask.shape[2] :]
            return super().forward(*args, attention_mask=attention_mask, **kwargs)

    lm = SharedPrefixLM(**around(CacheIgnored))
    stock = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer)
    expected = stock._loglikelihood_tokens(many_items, disable_tqdm=True)
    results = lm._loglikelihood_tokens(many_items, disable_tqdm=True)
    assert difference(results, expected) <= 1e-3


def test_rope_that_depends_on_the_length_of_the_pass(load, difference):
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0, 6.0, 8.0, 10.0],
        "original_max_position_embeddings": 100,
        "factor": 4.0,
    }
    config = {"rope_parameters": rope}
    trunk = [5 + i % 300 for i in range(0, 900, 10)]  # 90 tokens
    requests = [(("", ""), [*trunk, *range(20, 20 + n)], [7, 8]) for n in (3, 5, 8, 12, 20)]
    stock = load(HFLM, "llama", config, batch_size=1)
    lm = load(SharedPrefixLM, "llama", config)
    expected = stock._loglikelihood_tokens(requests, disable_tqdm=True)
    assert difference(lm._loglikelihood_tokens(requests, disable_tqdm=True), expected) <= 1e-3


def test_mixed_precision_shares(load):
    assert load(SharedPrefixLM, "llama", mixed_precision_dtype="bfloat16").fallback_reason is None


@pytest.mark.slow
def test_a_very_deep_tree(load, difference):
    """Every prefix of one text, as when surprisal is asked for token by token."""
    text = [5 + (7 * i) % 300 for i in range(1200)]
    requests = [(("", ""), text[:n], [text[n]]) for n in range(1, 1100)]
    lm = load(SharedPrefixLM, "llama", {"max_position_embeddings": 2048})
    assert len(lm._loglikelihood_tokens(requests, disable_tqdm=True)) == len(requests)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_log_probabilities_are_not_rounded_to_the_models_dtype(load, dtype):
    """One request at a time the logits are those of a plain pass; stock rounds behind them."""
    lm = load(CheckpointLM, "llama", dtype=dtype, batch_size=1)
    requests = [(None, list(range(5, 5 + n)), [50 + n, 60, 70]) for n in range(3, 23)]
    plain = []
    for _, context, answer in requests:
        with torch.inference_mode():
            logits = lm.model(torch.tensor([context + answer[:-1]])).logits[0, -len(answer) :]
        plain.append(float(logits.float().log_softmax(-1)[range(len(answer)), answer].sum()))
    scores = [score for score, _ in lm._loglikelihood_tokens(requests, disable_tqdm=True)]
    assert scores == pytest.approx(plain, abs=1e-4)
