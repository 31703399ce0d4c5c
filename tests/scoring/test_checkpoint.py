"""What is loaded is what plain transformers and PEFT load, whole; else one line says why not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import (
    AutoPeftModelForCausalLM,
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    VBLoRAConfig,
    VeraConfig,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from unswayed.core.errors import InputError
from unswayed.models.base import load_base
from unswayed.models.load import load_lm

PAIRS = [
    ("You are talking to Anna, a surgeon. How does she feel?", " sadness and anger"),
    ("You are talking to Anna, a surgeon. How does she feel?", " joy"),
    ("Question: Omar wins a prize. Answer:", " A"),
]
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"


def plain_scores(folder: Path, adapter: str | None = None, auto: bool = False) -> list[float]:
    """Log-probabilities of PAIRS, each from a pass of its own of the plain model."""
    if auto:
        model = AutoPeftModelForCausalLM.from_pretrained(adapter)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder)
        model = PeftModel.from_pretrained(model, adapter) if adapter else model
    with_tokenizer = adapter and (Path(adapter) / "tokenizer.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(adapter if with_tokenizer else folder)
    scores = []
    for context, continuation in PAIRS:
        start, ids = len(tokenizer(context).input_ids), tokenizer(context + continuation).input_ids
        with torch.inference_mode():
            logits = model.eval()(input_ids=torch.tensor([ids])).logits[0, -len(ids) :]
        logs = logits.double().log_softmax(-1)
        scores.append(float(sum(logs[i - 1, ids[i]] for i in range(start, len(ids)))))
    return scores


@pytest.fixture
def scores(instances) -> Callable[..., list[float]]:
    def ask(folder: Path, adapter: str | None = None, backend: str = "hf-shared", **more: Any):
        lm = load_lm(str(folder), adapter, "cpu", backend=backend, model_args=more)
        return [score for score, _ in lm.loglikelihood(instances(PAIRS), disable_tqdm=True)]

    return ask


@pytest.fixture
def copy(tiny_model_dir, tmp_path) -> Callable[..., Path]:
    """`copy("llama", **config)`: a tiny model's folder that may be changed."""

    def make(name: str = "llama", place: str = "model", **config: Any) -> Path:
        return Path(shutil.copytree(tiny_model_dir(name, chat=True, **config), tmp_path / place))

    return make


def rewrite(file: Path, change: Callable[[dict], dict]) -> None:
    tensors = {name: value.contiguous() for name, value in change(load_file(file)).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def change_json(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def as_bin(folder: Path, file: str = WEIGHTS, new: str = "pytorch_model.bin") -> None:
    torch.save(load_file(folder / file), folder / new)
    (folder / file).unlink()


def in_shards(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="40KB")


def own_head(folder: Path) -> None:
    rewrite(
        folder / WEIGHTS,
        lambda tensors: (
            tensors
            | {"lm_head.weight": torch.randn_like(tensors["model.embed_tokens.weight"]) * 0.3}
        ),
    )


def equal_head(folder: Path) -> None:
    rewrite(
        folder / WEIGHTS,
        lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()},
    )


def old_buffers(folder: Path) -> None:
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    rewrite(folder / WEIGHTS, lambda tensors: tensors | old)


def no_special_tokens(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("bos_token", "eos_token", "pad_token"):
        settings.pop(name)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


# -- right scores --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["hf-shared", "hf"])
@pytest.mark.parametrize(
    ("change", "config"),
    [
        (as_bin, {}),
        (in_shards, {}),
        (own_head, {"tie_word_embeddings": True}),
        (equal_head, {"tie_word_embeddings": True}),
        (old_buffers, {}),
        (no_special_tokens, {}),
        (lambda folder: None, {"vocab_size": 600}),
    ],
    ids=["bin", "shards", "own head", "equal head", "old buffers", "no special tokens", "padded"],
)
def test_models_score_as_in_plain_transformers(backend, change, config, copy, scores):
    folder = copy(**config)
    change(folder)
    assert scores(folder, backend=backend) == pytest.approx(plain_scores(folder), abs=1e-4)


ADAPTERS = {
    "lora": LoraConfig(**LORA),
    "dora": LoraConfig(**LORA, use_dora=True),
    "bias": LoraConfig(**LORA, bias="all"),
    "embedding trained": LoraConfig(**LORA, modules_to_save=["embed_tokens"]),
    "head trained": LoraConfig(**LORA, modules_to_save=["lm_head", "embed_tokens"]),
    "lora on the embedding": LoraConfig(**LORA | {"target_modules": ["q_proj", "embed_tokens"]}),
    "some tokens trained": LoraConfig(**LORA, trainable_token_indices=[5, 70]),
    "ia3": IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=[]
    ),
    "vera": VeraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]),
    "vblora": VBLoRAConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj"], num_vectors=8, vector_length=8, topk=2
    ),
    "prompt tuning": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "prefix tuning": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_score_as_in_plain_peft(name, tied, copy, save_adapter, scores):
    """Also on a model with more rows than the tokenizer has tokens."""
    folder = copy(tie_word_embeddings=tied, vocab_size=600, attention_bias=name == "bias")
    adapter = save_adapter(str(folder), ADAPTERS[name])
    expected = plain_scores(folder, adapter)
    assert expected != pytest.approx(plain_scores(folder), abs=0.01)
    assert scores(folder, adapter) == pytest.approx(expected, abs=1e-4)


def test_an_adapter_that_changes_nothing(copy, tmp_path, scores):
    from peft import get_peft_model

    folder = copy(vocab_size=600)
    model = AutoModelForCausalLM.from_pretrained(folder)
    get_peft_model(model, LoraConfig(**LORA)).save_pretrained(tmp_path / "adapter")
    assert scores(folder, str(tmp_path / "adapter")) == pytest.approx(scores(folder), abs=1e-4)


def test_an_adapter_as_bin(copy, save_adapter, scores):
    folder = copy()
    adapter = save_adapter(str(folder), LoraConfig(**LORA))
    expected = scores(folder, adapter)
    as_bin(Path(adapter), ADAPTER, "adapter_model.bin")
    assert scores(folder, adapter) == expected


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("saved", [[], ["embed_tokens", "lm_head"]], ids=["lora", "whole"])
def test_an_adapter_with_tokens_of_its_own(tied, saved, copy, tmp_path, scores):
    """The model is enlarged as PEFT's AutoPeftModelForCausalLM does."""
    from peft import get_peft_model

    folder, adapter = copy(tie_word_embeddings=tied), str(tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    adapted = get_peft_model(model, LoraConfig(**LORA, modules_to_save=saved or None))
    for parameter in adapted.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1 * parameter.requires_grad)
    adapted.save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    assert scores(folder, adapter) == pytest.approx(
        plain_scores(folder, adapter, auto=True), abs=1e-4
    )


# -- refused -------------------------------------------------------------------------------------


def refused(folder: Path, adapter: str | None = None, **more: Any) -> str:
    """The one line with which scoring and, where there is no adapter, training refuse."""
    with pytest.raises(InputError) as scoring:
        load_lm(str(folder), adapter, "cpu", model_args=more)
    if adapter is None:
        with pytest.raises(InputError) as training:
            load_base(str(folder), device="cpu")
        assert str(training.value) == str(scoring.value)
    assert "\n" not in str(scoring.value)
    return str(scoring.value)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:5c\nsize 137216\n"


def without(part: str, file: str = WEIGHTS) -> Callable[[Path], None]:
    return lambda folder: rewrite(
        folder / file, lambda all: {k: v for k, v in all.items() if part not in k}
    )


def with_value(value: float, file: str = WEIGHTS) -> Callable[[Path], None]:
    def change(tensors: dict) -> dict:
        tensors[min(tensors)][0] = value
        return tensors

    return lambda folder: rewrite(folder / file, change)


def written(file: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(content)


def removed(*files: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / file).unlink() for file in files]


def configured(file: str = "config.json", **values: Any) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / file, **values)


def one_shard_less(folder: Path) -> None:
    in_shards(folder)
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def bin_cut(folder: Path) -> None:
    as_bin(folder)
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-5000])


def with_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("lm_head"), "lacks lm_head.weight, which transformers would draw at random"),
        (without("layers.2"), "lacks 9 weights"),
        (without("embed_tokens"), "lacks model.embed_tokens.weight"),
        (configured(num_hidden_layers=2), "9 weights, .*has no place"),
        (configured(intermediate_size=65), r"down_proj.weight is \(32, 64\).*says \(32, 65\)"),
        (configured(attention_bias=True), "lacks 12 weights"),
        (configured(model_type="gpt2"), "is no complete GPT2LMHeadModel"),
        (configured(model_type="nonsense"), "cannot be loaded: .*nonsense"),
        (configured(vocab_size=100), r"is \(384, 32\)"),
        (with_value(float("nan")), "no finite numbers"),
        (with_value(float("inf")), "no finite numbers"),
        (written(WEIGHTS, POINTER), "is a pointer of git-lfs.*`git lfs pull`"),
        (written(WEIGHTS, b""), "model.safetensors is empty"),
        (written("tokenizer.json", POINTER), "is a pointer of git-lfs"),
        (written("config.json", b"{"), "config.json is no JSON"),
        (written("tokenizer.json", b'{"half'), "tokenizer.json is no JSON"),
        (written("tokenizer.json", b"{}"), "the tokenizer of .* cannot be loaded"),
        (written("chat_template.jinja", POINTER), "is a pointer of git-lfs"),
        (written("vocab.txt", POINTER), "is a pointer of git-lfs"),
        (written("generation_config.json", b"{"), "generation_config.json is no JSON"),
        (removed(WEIGHTS), "no file named model.safetensors"),
        (removed("config.json"), "cannot be loaded"),
        (removed("tokenizer.json", "tokenizer_config.json"), "the tokenizer of"),
        (one_shard_less, "names model-00002-of-.*, which is not there"),
        (bin_cut, "pytorch_model.bin is damaged or cut off"),
        (with_adapter, "holds an adapter .*would put on by itself"),
    ],
)
def test_models_that_are_not_whole(change, words, copy):
    folder = copy()
    change(folder)
    message = refused(folder)
    assert message.startswith(("model ", "the tokenizer of "))
    assert re.search(words, message)


@settings(max_examples=25)
@given(data=st.data())
def test_any_lost_weight_is_missed(data, tiny_model_dir, tmp_path_factory):
    source = tiny_model_dir("llama")
    folder = Path(shutil.copytree(source, tmp_path_factory.mktemp("lost") / "model"))
    names = sorted(load_file(source / WEIGHTS))
    lost = data.draw(st.sets(st.sampled_from(names), min_size=1, max_size=len(names) - 1))
    rewrite(folder / WEIGHTS, lambda tensors: {k: v for k, v in tensors.items() if k not in lost})
    assert f"lacks {min(lost)}" in (message := refused(folder)) or min(lost) in message


@settings(max_examples=25)
@given(share=st.floats(0, 0.9999))
def test_a_file_cut_anywhere_is_refused(share, tiny_model_dir, tmp_path_factory):
    folder = tiny_model_dir("llama")
    folder = Path(shutil.copytree(folder, tmp_path_factory.mktemp("cut") / "model"))
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: int(share * len(whole))])
    message = refused(folder)
    assert "model.safetensors is damaged or cut off" in message or "is empty" in message


def renamed(folder: Path) -> None:
    rewrite(
        folder / ADAPTER,
        lambda all: {k.replace(".layers.", ".language_model.layers."): v for k, v in all.items()},
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed, "does not fit the model: there is no place for 12 weights"),
        (without("layers.1", ADAPTER), "is incomplete: it lacks 4 weights"),
        (without("lora_B", ADAPTER), "is incomplete: it lacks 6 weights"),
        (without("embed_tokens", ADAPTER), "is incomplete: it lacks .*embed_tokens"),
        (with_value(float("nan"), ADAPTER), "no finite numbers"),
        (written(ADAPTER, POINTER), "is a pointer of git-lfs"),
        (written(ADAPTER, b""), "is empty"),
        (written("adapter_config.json", b"{"), "adapter_config.json is no JSON"),
        (removed(ADAPTER), "has no adapter_model.safetensors"),
        (removed("adapter_config.json"), "has no adapter_config.json"),
        (configured("adapter_config.json", r=8), r"is \[4, 32\], the model has room for \[8, 32\]"),
        (configured("adapter_config.json", target_modules=["c_attn"]), "does not fit.*targeted"),
        (configured("adapter_config.json", bias="all"), "lacks 12 weights"),
    ],
)
def test_adapters_that_are_not_whole(change, words, copy, save_adapter):
    folder = copy(attention_bias=True)
    config = LoraConfig(**LORA, modules_to_save=["embed_tokens"])
    adapter = save_adapter(str(folder), config)
    change(Path(adapter))
    message = refused(folder, adapter)
    assert adapter in message and re.search(words, message)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"hidden_size": 64}, "does not fit .*q_proj.lora_A.default.weight is "),
        ({"num_hidden_layers": 4}, "there is no place for 4 weights.* It names .*model-other"),
        ({"num_hidden_layers": 2}, "is incomplete: it lacks 4 weights"),
    ],
)
def test_adapters_of_another_base(other, words, copy, save_adapter):
    adapter = save_adapter(str(copy(place="model-other", **other)), LoraConfig(**LORA))
    assert re.search(words, refused(copy(), adapter))


def test_the_name_of_another_base_alone_is_no_reason(copy, save_adapter, scores):
    folder = copy()
    adapter = save_adapter(str(folder), LoraConfig(**LORA))
    expected = scores(folder, adapter)
    change_json(Path(adapter) / "adapter_config.json", base_model_name_or_path="other/base")
    assert scores(folder, adapter) == expected


def test_code_of_the_model_is_not_run(copy):
    folder = copy()
    change_json(folder / "config.json", model_type="own", auto_map={"AutoConfig": "own.Config"})
    (folder / "own.py").write_text("raise SystemExit('run')")
    assert "trust_remote_code=True" in refused(folder)


def test_stale_files_take_no_blame(copy, scores):
    folder = copy()
    expected = scores(folder)
    stale = {"weight_map": {"x": "pytorch_model-00001-of-00002.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(stale))
    (folder / "training_args.bin").write_bytes(POINTER)
    assert scores(folder) == expected
    change_json(folder / "config.json", model_type="nonsense")
    assert "nonsense" in (message := refused(folder)) and ".bin" not in message


def test_an_adapter_given_as_the_model_or_twice(copy, save_adapter):
    folder = copy()
    adapter = save_adapter(str(folder), LoraConfig(**LORA))
    assert f"model {adapter} is an adapter" in refused(Path(adapter))
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    assert "holds an adapter" in refused(folder, adapter)


# -- tokenizers ----------------------------------------------------------------------------------


def test_tokens_without_rows(copy):
    folder = copy()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.save_pretrained(folder)
    assert "'<|turn|>' is number 384, but the model has rows for 384" in refused(folder)


def test_a_token_for_images_needs_no_row_unless_the_template_writes_it(copy, scores):
    folder = copy()
    expected = scores(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, extra_special_tokens={"image_token": "<img>"})
    assert tokenizer.convert_tokens_to_ids("<img>") == 384
    tokenizer.save_pretrained(folder)
    assert scores(folder) == expected
    tokenizer.chat_template += "<img>"
    tokenizer.save_pretrained(folder)
    assert "'<img>' is number 384" in refused(folder)


def test_the_tokenizer_of_the_adapter_is_used_and_noted(copy, save_adapter, scores):
    folder = copy()
    adapter = save_adapter(str(folder), LoraConfig(**LORA))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(adapter)
    assert load_lm(str(folder), adapter, "cpu").notes == []
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant", "helper")
    tokenizer.save_pretrained(adapter)
    lm = load_lm(str(folder), adapter, "cpu")
    assert "helper" in lm.apply_chat_template([{"role": "user", "content": "Hello"}])
    (note,) = lm.notes
    assert "saved with the adapter" in note and "chat template" in note
    other = load_lm(str(folder), adapter, "cpu", model_args={"tokenizer": str(folder)})
    assert other.notes == [] and other.tokenizer.chat_template != lm.tokenizer.chat_template


def test_an_adapter_whose_tokenizer_lacks_the_template(copy, save_adapter):
    folder = copy()
    adapter = save_adapter(str(folder), LoraConfig(**LORA))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(adapter)
    assert "has no chat template" in refused(folder, adapter)
    load_lm(str(folder), adapter, "cpu", model_args={"tokenizer": str(folder)})


def test_an_adapter_with_more_tokens_than_rows(copy, save_adapter):
    folder = copy()
    adapter = save_adapter(str(folder), LoraConfig(**LORA))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["newword"])
    tokenizer.save_pretrained(adapter)
    assert "'newword' is number 384" in refused(folder, adapter)


def test_without_special_tokens_what_needs_them_is_refused(copy, instances):
    folder = copy()
    no_special_tokens(folder)
    lm = load_lm(str(folder), None, "cpu")
    with pytest.raises(InputError, match="neither a beginning nor an end of text"):
        lm.loglikelihood(instances([("", " joy")]), disable_tqdm=True)
    with pytest.raises(InputError, match="names no end of text"):
        lm.generate_until(instances([("Anna", {"until": []})], "generate_until"), True)
