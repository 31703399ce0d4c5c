"""Whether prefixes are shared is a matter of the architecture, not of the dtype."""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t

from unswayed.models.base import load_base
from unswayed.scoring import attention, passes
from unswayed.scoring.exact import why_not_shared
from unswayed.scoring.lm import SharedPrefixLM
from unswayed.scoring.shrink import shrunken

DOCS = Path(__file__).parents[2] / "docs" / "backends.md"
HALF = ("bfloat16", "float16")
DTYPES = ("float32", *HALF)
WINDOW = 16
SHARED = {"vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DECODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LAYERS = {"layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}
GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256, "initializer_range": 0.2}
SOUND: dict[str, dict[str, Any]] = {
    "cohere": DECODER,
    "cohere2": DECODER | LAYERS | {"sliding_window": WINDOW},
    "deepseek_v3": DECODER
    | EXPERTS
    | {"n_routed_experts": 8, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 2}
    | {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4}
    | {"v_head_dim": 8, "num_key_value_heads": 4, "head_dim": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    | {"initializer_range": 0.2},
    "gemma": DECODER,
    "gemma2": DECODER | LAYERS | {"sliding_window": WINDOW, "query_pre_attn_scalar": 8},
    "gemma3_text": DECODER | LAYERS | {"sliding_window": WINDOW, "query_pre_attn_scalar": 8},
    "gemma4_text": DECODER
    | LAYERS
    | {"sliding_window": WINDOW, "global_head_dim": 16, "hidden_size_per_layer_input": 8}
    | {"vocab_size_per_layer_input": 96},
    "gpt2": GPT,
    "gpt_neox": DECODER,
    "gpt_oss": DECODER
    | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW}
    | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "gptj": GPT | {"rotary_dim": 4},
    "granite": DECODER,
    "llama": DECODER,
    "mistral": DECODER | {"sliding_window": WINDOW},
    "mixtral": DECODER | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmo2": DECODER,
    "olmo3": DECODER | LAYERS | {"sliding_window": WINDOW},
    "opt": DECODER | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": DECODER,
    "phi3": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER,
    "qwen3_moe": DECODER | EXPERTS | {"num_experts": 4, "mlp_only_layers": [0, 1]},
    "smollm3": DECODER | {"no_rope_layers": [1, 1, 0]},
    "stablelm": DECODER,
    "starcoder2": DECODER | {"sliding_window": WINDOW},
}
ROPE = {"rope_theta": 10000.0}
UNSOUND: dict[str, tuple[str, dict[str, Any], str]] = {
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "tree mask failed"),
    "gpt_neo": (
        "gpt_neo",
        {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 64}
        | {"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 256},
        "a probe differs",
    ),
    "jamba": (
        "jamba",
        DECODER | {"num_experts": 2, "mamba_d_state": 4, "use_mamba_kernels": False},
        "recurrent state",
    ),
    "llama with dynamic rope": (
        "llama",
        DECODER | {"rope_parameters": ROPE | {"rope_type": "dynamic", "factor": 2.0}},
        "rotary positions",
    ),
    "llama4_text": (
        "llama4_text",
        DECODER | {"num_local_experts": 2, "intermediate_size_mlp": 48},
        "chunked_attention",
    ),
    "mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2}, "recurrent state"),
    "mpt": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2}, "a probe differs"),
    "phi3 with longrope": (
        "phi3",
        DECODER
        | {"original_max_position_embeddings": 128}
        | {
            "rope_parameters": ROPE
            | {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
            | {"original_max_position_embeddings": 128, "partial_rotary_factor": 1.0}
        },
        "rotary positions",
    ),
    "qwen3_next": ("qwen3_next", DECODER | EXPERTS | {"num_experts": 4}, "recurrent state"),
    "recurrent_gemma": (
        "recurrent_gemma",
        DECODER | {"lru_width": 32, "attention_window_size": 16},
        "recurrent state",
    ),
}


@cache
def tiny(kind: str, dtype: str = "float32") -> Any:
    return built(kind, SOUND[kind], dtype)


def built(kind: str, settings: dict[str, Any], dtype: str = "float32") -> Any:
    torch.manual_seed(0)
    config = t.AutoConfig.for_model(kind, **(SHARED | settings))
    return t.AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype)).eval()


def forests() -> list[tuple[list[int], list[int]]]:
    """Contexts past the window, which share a beginning, and options of one to four tokens."""
    draw = random.Random(1)

    def some(n: int) -> list[int]:
        return [draw.randrange(3, 96) for _ in range(n)]

    trunk = some(WINDOW + 14)
    items = [trunk + some(5), trunk + some(9), some(4)]
    return [(item, some(n)) for item in items for n in (1, 2, 4)]


# -- which share ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SOUND)
def test_sound_architectures_share_in_half_precision(kind):
    assert [why_not_shared(tiny(kind, dtype)) for dtype in HALF] == [None, None]


@pytest.mark.parametrize(("dtype", "seed"), [("bfloat16", 2), ("float16", 5), ("float16", 8)])
def test_an_expert_that_rounding_chooses_is_no_fault(dtype, seed):
    """In these one token of the first probe passes another expert in the tree than alone."""
    settings = {"hidden_size": 64, "num_hidden_layers": 8, "initializer_range": 0.1}
    config = t.MixtralConfig(**(SHARED | SOUND["mixtral"] | settings | {"num_local_experts": 8}))
    torch.manual_seed(seed)
    model = t.MixtralForCausalLM(config).to(getattr(torch, dtype)).eval()
    assert why_not_shared(model) is None


@pytest.mark.parametrize("kind", SOUND)
def test_in_float32_shared_scores_are_those_of_plain_transformers(kind, tiny_model_dir):
    model = tiny(kind)
    tokenizer = t.AutoTokenizer.from_pretrained(tiny_model_dir("llama"))
    lm = SharedPrefixLM(pretrained=model, tokenizer=tokenizer, pack_tokens=8)
    requests = [(("", ""), context, answer) for context, answer in forests()]
    scores = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    assert lm.fallback_reason is None
    for (context, answer), (score, _) in zip(forests(), scores, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([context + answer[:-1]])).logits[0, len(context) - 1 :]
        plain = logits.log_softmax(-1)[range(len(answer)), answer].sum()
        assert abs(score - float(plain)) / len(answer) <= 1e-4


@pytest.mark.parametrize("name", UNSOUND)
def test_others_fall_back_with_their_reason(name):
    kind, settings, reason = UNSOUND[name]
    for dtype in ("float32", "bfloat16"):
        assert reason in why_not_shared(built(kind, settings, dtype))


def test_the_documentation_names_them():
    rows = [line.split("|") for line in DOCS.read_text().splitlines() if line.startswith("|")]
    named = {row[2].strip(): set(re.findall(r"`([^`]+)`", row[1])) for row in rows if len(row) > 3}
    assert named.pop("float32, bfloat16, float16") == set(SOUND)
    refused = [names for answer, names in named.items() if answer.startswith("none: ")]
    assert set().union(*refused) == {kind for kind, _, _ in UNSOUND.values()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_training_decides_the_same_way(dtype, tiny_model_dir):
    for name in ("llama", "gemma3", "mamba"):
        folder = str(tiny_model_dir(name, chat=True))
        base = load_base(folder, dtype=dtype, device="cpu")
        lm = SharedPrefixLM(pretrained=folder, dtype=dtype, device="cpu")
        assert base.padded == lm.fallback_reason
        assert (base.padded is None) == (name != "mamba")


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_kernels(dtype):
    for kernel in ("sdpa", "eager"):
        model = tiny("gemma3_text", dtype)
        model.set_attn_implementation(kernel)
        assert why_not_shared(model) is None
        assert attention.attention_kernel(shrunken(model)) == kernel


def test_adapters_do_not_change_the_answer():
    from peft import LoraConfig, get_peft_model

    model = built("llama", DECODER, "bfloat16")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).eval()
    assert why_not_shared(adapted) is None


# -- planted faults ------------------------------------------------------------------------------


def leak(patch: Any) -> None:
    """Siblings see what stands before them in the pack."""
    make = passes.make_pack

    def leaky(*args: Any, **kwargs: Any) -> Any:
        pack = make(*args, **kwargs)
        size = len(pack.ids)
        pack.mask[:, -size:] = torch.ones(size, size, dtype=torch.bool).tril()
        return pack

    patch.setattr(passes, "make_pack", leaky)


def one_leak(patch: Any) -> None:
    """The last token of a pack sees one token of a sibling, and all else is right."""
    make = passes.make_pack

    def leaky(*args: Any, **kwargs: Any) -> Any:
        pack = make(*args, **kwargs)
        pack.mask[-1, (~pack.mask[-1]).nonzero()[-1:]] = True
        return pack

    patch.setattr(passes, "make_pack", leaky)


def shift(patch: Any) -> None:
    """Options begin a position late."""
    make = passes.make_pack

    def late(nodes: Any, prefix: int, **kwargs: Any) -> Any:
        pack = make(nodes, prefix, **kwargs)
        pack.positions[pack.positions > 20] += 1
        return pack

    patch.setattr(passes, "make_pack", late)


def rows(patch: Any) -> None:
    """Positions count through the pack."""
    make = passes.make_pack

    def counted(nodes: Any, prefix: int, **kwargs: Any) -> Any:
        pack = make(nodes, prefix, **kwargs)
        pack.positions = prefix + torch.arange(len(pack.ids))
        return pack

    patch.setattr(passes, "make_pack", counted)


def uncropped(patch: Any) -> None:
    patch.setattr(passes, "crop", lambda cache, tokens: None)


def half_cropped(patch: Any) -> None:
    """One token too few is taken from the cache: a key of a sibling stays."""
    patch.setattr(passes, "crop", lambda cache, tokens: cache.crop(-max(1, tokens - 1)))


def cache_unseen(patch: Any) -> None:
    mask_of = passes.tree_mask

    def short(model: Any, pack: Any, device: Any) -> Any:
        pack.mask[:, : -len(pack.ids)] = False
        return mask_of(model, pack, device)

    patch.setattr(passes, "tree_mask", short)


def window_of(change: int) -> Any:
    def plant(patch: Any) -> None:
        kinds = attention.layer_kinds
        patch.setattr(
            attention, "layer_kinds", lambda config: (kinds(config)[0], kinds(config)[1] + change)
        )

    return plant


FAULTS = (leak, one_leak, shift, rows, uncropped, half_cropped, cache_unseen)


@pytest.mark.parametrize("kind", ["cohere2", "gemma4_text", "gpt2", "gpt_oss", "llama", "mistral"])
def test_planted_faults_are_found_in_half_precision(kind, monkeypatch):
    missed = []
    plants = FAULTS
    if "sliding_window" in SOUND[kind]:
        plants += window_of(1), window_of(-1), window_of(1000)
    for plant in plants:
        with monkeypatch.context() as patch:
            plant(patch)
            if why_not_shared(tiny(kind, "bfloat16")) is None:
                missed.append(plant)
    assert missed == []


class MaskIgnored(t.LlamaForCausalLM):
    def forward(self, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_code_that_ignores_the_mask_is_found(dtype):
    config = t.LlamaConfig(**(SHARED | DECODER))
    model = MaskIgnored(config).to(getattr(torch, dtype)).eval()
    assert "a probe differs by" in why_not_shared(model)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2", "qwen3_moe"])
def test_a_device_that_ignores_the_mask_is_found(kind, dtype, monkeypatch):
    """The small copy is right and the loaded model is not."""
    model = tiny(kind, dtype)
    forward = model.forward

    def blind(attention_mask: Any = None, **kwargs: Any) -> Any:
        tree = isinstance(attention_mask, dict) or getattr(attention_mask, "ndim", 0) == 4
        return forward(attention_mask=None if tree else attention_mask, **kwargs)

    monkeypatch.setattr(model, "forward", blind)
    assert "a probe differs by" in why_not_shared(model)


# -- the small copy ------------------------------------------------------------------------------


def test_the_copy_of_a_large_model_is_small():
    with torch.device("meta"):
        large = t.LlamaForCausalLM(
            t.LlamaConfig(
                hidden_size=8192,
                intermediate_size=28672,
                num_hidden_layers=8,
                num_attention_heads=64,
                num_key_value_heads=8,
            )
        )
    small = shrunken(large)
    assert sum(p.numel() for p in small.parameters()) < 3e6
    assert type(small) is type(large)
    assert small.dtype == torch.float32 and small.device.type == "cpu" and not small.training
    assert small.config.num_attention_heads > small.config.num_key_value_heads > 1


def test_the_copy_has_layers_of_every_kind():
    settings = DECODER | {"num_hidden_layers": 12, "sliding_window": 500}
    config = shrunken(built("gemma3_text", settings)).config
    assert config.layer_types == ["sliding_attention", "full_attention"]
    assert config.sliding_window < 10
    for kind in ("deepseek_v3", "qwen3_moe", "gemma4_text", "smollm3"):
        model = tiny(kind)
        assert {*map(type, shrunken(model).modules())} == {*map(type, model.modules())}


def test_the_copy_keeps_what_is_tied():
    for tied in (True, False):
        model = built("llama", DECODER | {"tie_word_embeddings": tied})
        small = shrunken(model)
        head, embeddings = small.get_output_embeddings(), small.get_input_embeddings()
        assert (head.weight is embeddings.weight) == tied


def test_no_random_state_changes():
    model = built("mixtral", SOUND["mixtral"])
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = torch.rand(3).tolist(), random.random(), np.random.rand()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    why_not_shared(model)
    assert (torch.rand(3).tolist(), random.random(), np.random.rand()) == expected


class Singular(t.MistralForCausalLM):
    """Made with more than a config, so that no small copy can be."""

    def __init__(self, config: Any, extra: int):
        super().__init__(config)


class SingularMaskIgnored(Singular):
    forward = MaskIgnored.forward


def singular(cls: type, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    config = t.MistralConfig(**(SHARED | DECODER | {"sliding_window": 40}))
    return cls(config, extra=1).to(dtype).eval()


def test_without_a_copy_float32_is_tried_on_the_model_itself(monkeypatch):
    assert why_not_shared(singular(Singular, torch.float32)) is None
    window_of(1)(monkeypatch)
    assert "a probe differs by" in why_not_shared(singular(Singular, torch.float32))


def test_without_a_copy_half_precision_falls_back():
    for dtype in (torch.bfloat16, torch.float16):
        reason = why_not_shared(singular(Singular, dtype))
        assert "no small copy can be tried in float32" in reason and "extra" in reason
