"""What changes a model between its loading and its scoring is found at the start."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig

from unswayed.core.errors import InputError
from unswayed.models.load import load_lm, model_info
from unswayed.scoring.lm import SharedPrefixLM


class Retied(SharedPrefixLM):
    def _create_model(self, *args, **kwargs):
        super()._create_model(*args, **kwargs)
        self._model.lm_head.weight = self._model.model.embed_tokens.weight


class Shrunk(SharedPrefixLM):
    def _create_model(self, *args, **kwargs):
        super()._create_model(*args, **kwargs)
        self._model.resize_token_embeddings(len(self.tokenizer))


class Twice(SharedPrefixLM):
    def _create_model(self, *args, **kwargs):
        super()._create_model(*args, **kwargs)
        for module in self._model.modules():
            if hasattr(module, "lora_B"):
                delta = module.get_delta_weight("default")
                module.base_layer.weight.data += delta


class Half(SharedPrefixLM):
    def _create_model(self, *args, **kwargs):
        super()._create_model(*args, **kwargs)
        self._model.to(torch.bfloat16)


class Rounded(SharedPrefixLM):
    """Weights that went through half precision, in a model that is float32 again."""

    def _create_model(self, *args, **kwargs):
        super()._create_model(*args, **kwargs)
        self._model.to(torch.bfloat16).float()


class Dropping(SharedPrefixLM):
    def _create_model(self, *args, **kwargs):
        super()._create_model(*args, **kwargs)
        self._model.model.layers[1].mlp.down_proj.weight.data.zero_()


@pytest.mark.parametrize(
    ("fault", "dtype"),
    [(fault, "float32") for fault in (Retied, Shrunk, Twice, Half, Rounded, Dropping)]
    + [(fault, "bfloat16") for fault in (Retied, Shrunk, Twice, Dropping)],
)
def test_planted_faults(fault, dtype, tiny_model_dir, save_adapter):
    folder = str(tiny_model_dir("llama", vocab_size=600))
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    adapter = save_adapter(folder, config) if fault is Twice else None
    load_lm(folder, adapter, "cpu", dtype)
    with pytest.raises(InputError, match=r"is not scored as plain|was loaded in torch\.float32"):
        load_lm(folder, adapter, "cpu", dtype, backend=fault)


@pytest.mark.parametrize("backend", ["hf-shared", "hf"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "gemma3", "mistral", "mamba"])
def test_sound_models_pass(name, dtype, backend, tiny_model_dir):
    folder = str(tiny_model_dir(name))
    lm = load_lm(folder, None, "cpu", dtype, backend=backend)
    limit = 1e-5 if dtype == "float32" else 0.1
    assert 0 <= model_info(lm, folder, None)["difference"] < limit


def test_a_model_in_memory_stays_as_it_is(tiny_model_dir, tiny_tokenizer):
    """Its head is not tied again, and it can be tied afterwards."""
    from transformers import AutoModelForCausalLM

    from unswayed.models.load import loaded_lm

    folder = tiny_model_dir("llama", tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    loaded_lm(model, tiny_tokenizer())
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    model.tie_weights()
    assert model.lm_head.weight is model.model.embed_tokens.weight
