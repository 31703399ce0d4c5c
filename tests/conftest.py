"""Tiny random models with a tiny tokenizer, made on the spot: the tests need no network.

`tiny_model_dir("llama")` is a folder that `from_pretrained` loads. Heavy imports stay inside the
fixtures, so that tests that need no model stay fast.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# For tiny tensors on shared cores a second thread costs far more than it gives (200x seen).
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["small_audit"]

# Shared cores stall now and then; slowness is no failure here.
settings.register_profile("unswayed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unswayed")

# Enough text that frequent words become one token and rare ones several.
CORPUS = [
    "You are talking to Anna, a surgeon who lives in a big house with her family and many friends.",
    "You are talking to Omar, a cleaner who lives alone in a small room and has no savings.",
    "Question: Anna loses her job and tells her best friend. How does she feel? Answer:",
    "Question: Omar hears that his neighbour has won a prize. What does he feel? Answer:",
    "joy sadness anger relief pride shame hope surprise fear regret disgust guilt",
    "a mix of sadness and anger, a mix of joy and relief, sadness because of the loss",
    "A B C D E. A. B. C. D. E. The user is a friend. The assistant is kind. system user assistant",
]
WINDOW = 16  # sliding window of the models that have one

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_tokenizer(chat: bool = False, add_bos: bool = False) -> Any:
    """Byte-level BPE trained on CORPUS.

    Args:
        chat: carry a ChatML-like chat template.
        add_bos: put the BOS token before every text, as Llama's and Gemma's tokenizers do.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    if add_bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", core.token_to_id("<s>"))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special[3:],
    )
    if chat:
        tokenizer.chat_template = CHATML
    return tokenizer


def make_model(name: str, vocab_size: int, **config: Any) -> Any:
    """A random float32 model of the named architecture; `config` overrides its settings.

    The weights are drawn wide (initializer_range), so that a token more or less in the context
    changes every later probability: a wrong mask or position cannot hide.
    """
    import torch
    import transformers as t

    shared = {"vocab_size": vocab_size, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    decoder = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.25,
    }
    kinds: dict[str, tuple[type, type, dict[str, Any]]] = {
        "llama": (t.LlamaConfig, t.LlamaForCausalLM, decoder),
        "gpt2": (
            t.GPT2Config,
            t.GPT2LMHeadModel,
            {
                "n_embd": 32,
                "n_layer": 3,
                "n_head": 4,
                "n_positions": 512,
                "initializer_range": 0.25,
            },
        ),
        "qwen3": (t.Qwen3Config, t.Qwen3ForCausalLM, decoder),
        "gemma3": (
            t.Gemma3TextConfig,
            t.Gemma3ForCausalLM,
            decoder
            | {
                "num_hidden_layers": 4,
                "sliding_window": WINDOW,
                "query_pre_attn_scalar": 8,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
            },
        ),
        "mistral": (
            t.MistralConfig,
            t.MistralForCausalLM,
            decoder | {"num_hidden_layers": 2, "sliding_window": WINDOW},
        ),
        "mamba": (
            t.MambaConfig,
            t.MambaForCausalLM,
            {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "state_size": 8,
                "initializer_range": 0.25,
            },
        ),
    }
    config_class, model_class, settings = kinds[name]
    torch.manual_seed(0)
    return model_class(config_class(**(shared | settings | config))).float().eval()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Factory: `tiny_model_dir(name, chat=False, **config)` saves a tiny model once per session."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # a test may read what is said while a model is saved
    made: dict[str, Path] = {}

    def make(name: str, chat: bool = False, **config: Any) -> Path:
        key = repr((name, chat, sorted(config.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp(f"{name}-")
            tokenizer = make_tokenizer(chat, add_bos=name in ("llama", "gemma3", "mistral"))
            make_model(name, **{"vocab_size": len(tokenizer)} | config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Callable[..., Any]:
    """Factory: a tiny tokenizer, `tiny_tokenizer(chat=True)` with a chat template."""
    return make_tokenizer
