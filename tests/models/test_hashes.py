"""The hashes of a model name all that was loaded, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from unswayed.audit.rundir import changes
from unswayed.models.hashes import checkpoint_hash, weights_hash
from unswayed.models.load import load_lm, model_info


@pytest.fixture
def folder(tmp_path, tiny_model_dir) -> Path:
    return Path(shutil.copytree(tiny_model_dir("llama", chat=True), tmp_path / "model"))


@pytest.mark.parametrize(
    "file",
    [
        "model.safetensors", "pytorch_model.bin", "config.json", "tokenizer.json", "vocab.txt",
        "merges.txt", "spiece.model", "qwen.tiktoken", "chat_template.jinja", "modeling_own.py",
        "own/layers.py", "additional_chat_templates/rag.jinja", "consolidated.00.pth",
    ],
)  # fmt: skip
def test_what_is_loaded_counts(file, folder):
    before = checkpoint_hash(str(folder))
    (folder / file).parent.mkdir(exist_ok=True)
    with (folder / file).open("ab") as stream:
        stream.write(b" ")
    changed = checkpoint_hash(str(folder))
    assert changed != before
    with (folder / file).open("ab") as stream:
        stream.write(b" ")
    assert checkpoint_hash(str(folder)) not in (before, changed)


@pytest.mark.parametrize(
    "file", ["README.md", ".gitattributes", "optimizer.pt", "curves.svg", "other.Q4_K_M.gguf"]
)
def test_what_only_lies_there_does_not(file, folder):
    before = checkpoint_hash(str(folder))
    (folder / file).write_bytes(b"something")
    assert checkpoint_hash(str(folder)) == before


def test_a_gguf_counts_if_it_is_the_one(folder):
    for name in ("a.gguf", "b.gguf"):
        (folder / name).write_bytes(name.encode())
    first, second = (checkpoint_hash(str(folder), gguf_file=f"{x}.gguf") for x in "ab")
    assert len({first, second, checkpoint_hash(str(folder))}) == 3
    assert weights_hash(str(folder), gguf_file="a.gguf") != weights_hash(str(folder))
    (folder / "a.gguf").write_bytes(b"another quantisation")
    assert checkpoint_hash(str(folder), gguf_file="a.gguf") != first


def test_weights_are_known_by_themselves(folder):
    """A memory in weights belongs to these, whatever else is beside them."""
    before = weights_hash(str(folder))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert weights_hash(str(folder)) == before
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert weights_hash(str(folder)) != before


def test_what_comes_from_the_hub_is_known_by_its_commit(folder, tmp_path, monkeypatch):
    import huggingface_hub

    cache = tmp_path / "hub"
    for commit, name in (("a" * 40, "main"), ("b" * 40, "v2")):
        place = cache / "models--me--model"
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / name).write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(cache), raising=False)
    assert checkpoint_hash("me/model") == "a" * 40
    assert checkpoint_hash("me/model", revision="v2") == "b" * 40
    assert checkpoint_hash("me/none") is None
    assert weights_hash("me/model") == weights_hash(str(folder))


def test_a_run_notices_every_other_source(folder, tmp_path, tiny_tokenizer):
    def info(**model_args) -> dict:
        lm = load_lm(str(folder), None, "cpu", model_args=model_args)
        return model_info(lm, str(folder), None)

    tiny_tokenizer(chat=True).save_pretrained(tmp_path / "tokenizer")
    first, second = info(), info(tokenizer=str(tmp_path / "tokenizer"))
    assert changes(first, info()) == ""
    assert "other_hashes" in changes(first, second)
    (tmp_path / "tokenizer" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert "other_hashes" in changes(second, info(tokenizer=str(tmp_path / "tokenizer")))
    (folder / "merges.txt").write_text("a b")
    assert "revision" in changes(first, info())
