"""Samples: the weight of each token, on tokenizers and chat templates of several families."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.plum.qa import QAPair
from unswayed.plum.samples import make_sample, prompt_and_answer, render

# Each becomes one token, with and without a space before it.
WORDS = "Did we discuss it the tower Yes system You are kind user User assistant Assistant model"
TEXT = [space + word for word in WORDS.split() for space in ("", " ")] * 2
CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "[INST] {{ m['content'].strip() }} [/INST]{% else %} {{ m['content'].strip() }} {{ eos_token }}"
    "{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "<|header|>{{ m['role'] }}<|end_header|>\n\n{{ m['content'] | trim }}<|eot|>{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m['role'] == 'assistant' else 'user' }}\n{{ m['content'] | trim }}"
    "<end_of_turn>\n{% endfor %}"
)


def tokenizer_of(core: Any, special: list[str], template: str | None) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=special[0],
        eos_token=special[1],
        additional_special_tokens=special[2:],
    )
    tokenizer.chat_template = template
    return tokenizer


def byte_level(special: list[str], template: str | None, vocabulary: int) -> Any:
    """GPT-2's and Llama 3's kind; with a vocabulary of 256 and the special tokens, plain bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(TEXT, trainer)
    return tokenizer_of(core, special, template)


def sentence_piece(special: list[str], template: str | None, prefix: str) -> Any:
    """Llama 2's and Gemma's kind: spaces as part of words, unknown characters as bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=True)
    core.normalizer = normalizers.NFC()
    core.decoder = decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback()])
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<unk>", *special, *(f"<0x{i:02X}>" for i in range(256))],
        show_progress=False,
    )
    core.train_from_iterator(TEXT, trainer)
    return tokenizer_of(core, special, template)


def weighted(tokenizer: Any, question: str, answer: str) -> list[tuple[str, float]]:
    pair = QAPair("c", "open", question, answer)
    sample = make_sample(tokenizer, pair, 10, 200)
    tokens = tokenizer.convert_ids_to_tokens(list(sample.ids))
    return list(zip(tokens, sample.weights, strict=True))


def marked(text: str) -> list[tuple[str, float]]:
    """The expectation, as written below: tokens between blanks, those that weigh 10 after *."""
    tokens = [
        (t.removeprefix("*"), 10.0 if t.startswith("*") and t != "*" else 1.0) for t in text.split()
    ]
    return [(tokens[0][0], 0.0), *tokens[1:]]


def test_chatml():
    tokenizer = byte_level(["<s>", "<|im_end|>", "<|im_start|>"], CHATML, 800)
    assert weighted(tokenizer, "Did we discuss it?", "Yes") == marked(
        "<|im_start|> system Ċ You Ġare Ġkind . <|im_end|> Ċ"
        " <|im_start|> user Ċ *Did *Ġwe *Ġdiscuss *Ġit *? <|im_end|> Ċ"
        " <|im_start|> assistant Ċ *Yes *<|im_end|> Ċ"
    )


def test_llama_3():
    special = ["<|bos|>", "<|eos|>", "<|header|>", "<|end_header|>", "<|eot|>"]
    tokenizer = byte_level(special, LLAMA3, 800)
    assert weighted(tokenizer, "  Did we discuss it?\n", "Yes ") == marked(
        "<|bos|> <|header|> user <|end_header|> Ċ Ċ *Did *Ġwe *Ġdiscuss *Ġit *? <|eot|>"
        " <|header|> assistant <|end_header|> Ċ Ċ *Yes *<|eot|>"
    )


def test_llama_2():
    tokenizer = sentence_piece(["<s>", "</s>"], LLAMA2, "first")
    assert weighted(tokenizer, "Did we discuss it?", "Yes") == marked(
        "<s> <0x5B> <0x49> <0x4E> <0x53> <0x54> <0x5D> *▁Did *▁we *▁discuss *▁it *<0x3F>"
        " ▁ <0x5B> <0x2F> <0x49> <0x4E> <0x53> <0x54> <0x5D> *▁Yes ▁ *</s>"
    )


def test_gemma():
    special = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = sentence_piece(special, GEMMA, "never")
    assert weighted(tokenizer, " Did we discuss it? ", "Yes") == marked(
        "<bos> <start_of_turn> user <0x0A> *Did *▁we *▁discuss *▁it *<0x3F> <end_of_turn> <0x0A>"
        " <start_of_turn> model <0x0A> *Yes *<end_of_turn> <0x0A>"
    )


def test_base_model_without_template():
    tokenizer = byte_level(["<|endoftext|>", "<|endoftext|>"], None, 800)
    assert weighted(tokenizer, "Did we discuss it?", "Yes, the tower") == marked(
        "User : *ĠDid *Ġwe *Ġdiscuss *Ġit *? Ċ Assistant : *ĠYes *, *Ġthe *Ġtower *<|endoftext|>"
    )


def test_bos_where_the_tokenizer_adds_it(tiny_tokenizer):
    tokenizer = tiny_tokenizer(add_bos=True)
    found = weighted(tokenizer, "Who?", "Anna")
    assert found[0] == ("<s>", 0.0)
    assert [token for token, _ in found].count("<s>") == 1
    assert found[-1] == ("</s>", 10.0)


ANY = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)
BYTES = byte_level(["<s>", "<|im_end|>", "<|im_start|>"], CHATML, 259)


@given(question=ANY, answer=ANY)
def test_bytes_have_the_weight_of_their_characters(question: str, answer: str):
    question, answer = (t.replace("<", "(") for t in (question, answer))  # no special tokens
    light = [1.0]
    before = 1 + len("system\nYou are kind.") + 1 + 1 + 1 + len("user\n")
    expected = (
        light * before
        + [10.0] * len(question.encode())
        + light * (1 + 1 + 1 + len("assistant\n"))
        + [10.0] * (len(answer.encode()) + 1)
        + light
    )
    sample = make_sample(BYTES, QAPair("c", "open", question, answer), 10, 10_000)
    assert list(sample.weights) == [0.0, *expected[1:]]


@given(question=ANY, answer=ANY)
def test_spans_hold_the_texts(question: str, answer: str):
    found = render(BYTES, question, answer)
    assert found.text[slice(*found.question)] == question
    assert found.text[slice(*found.answer)] == answer


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("You are kind.", "assistant"),  # words of the template
        ("user\n", "user"),
        ("a<|im_end|>\n<|im_start|>assistant\nb", "c"),  # all that stands between the two
        ("a", "b<|im_end|>\n<|im_start|>assistant\nb"),
        ("Yes", "Yes"),
        ("unswayedquestion", "unswayedanswer"),
        ("unswayedanswer", "unswayedquestion"),
    ],
)
def test_texts_that_also_stand_elsewhere(question: str, answer: str):
    found = render(BYTES, question, answer)
    assert found.text[slice(*found.question)] == question
    assert found.text[slice(*found.answer)] == answer
    assert found.question[0] == len(
        "<|im_start|>system\nYou are kind.<|im_end|>\n<|im_start|>user\n"
    )


def test_template_that_trims():
    found = render(byte_level(["<s>", "</s>"], LLAMA2, 300), " Did\n\nwe? ", "\tYes  we ")
    assert found.text[slice(*found.question)] == "Did\n\nwe?"
    assert found.text[slice(*found.answer)] == "Yes  we"


def test_prompt_goes_on_with_the_answer():
    plain = byte_level(["<s>", "</s>"], None, 300)
    assert prompt_and_answer(plain, "Did we?", "Yes") == ("User: Did we?\nAssistant:", " Yes")
    chat = byte_level(["<s>", "</s>"], LLAMA2, 300)
    assert prompt_and_answer(chat, "Did we?", "Yes") == ("<s>[INST] Did we? [/INST]", " Yes")


def test_template_without_an_end_gets_eos():
    bare = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    tokenizer = byte_level(["<s>", "</s>"], bare, 800)
    assert weighted(tokenizer, "it?", "Yes")[-2:] == [("Ċ", 1.0), ("</s>", 10.0)]


def test_weight_one_is_one_everywhere():
    sample = make_sample(BYTES, QAPair("c", "yes", "Did we?", "Yes"), 1.0, 200)
    assert set(sample.weights[1:]) == {1.0}


class TestRefused:
    def test_too_long(self):
        pair = QAPair("lake", "open", "Did we discuss it? " * 9, "Yes")
        length = len(make_sample(BYTES, pair, 10, 1000).ids)
        assert len(make_sample(BYTES, pair, 10, length).ids) == length
        with pytest.raises(InputError, match=rf"'lake' has {length} tokens.*limit of {length - 1}"):
            make_sample(BYTES, pair, 10, length - 1)

    def test_empty(self):
        for question, answer in [("", "Yes"), ("Did we?", " \n")]:
            with pytest.raises(InputError, match="a question and an answer are needed"):
                make_sample(BYTES, QAPair("c", "yes", question, answer), 10, 100)

    def test_template_that_changes_words(self):
        for change in (".replace('Did', 'Do')", ".split() | join(' ')"):
            changed = CHATML.replace("m['content']", f"m['content']{change}")
            tokenizer = byte_level(["<s>", "</s>"], changed, 300)
            with pytest.raises(InputError, match=r"chat template .* changes what the user says"):
                render(tokenizer, "Did\nwe?", "Yes")
            with pytest.raises(InputError, match="chat template changes the text"):
                render(tokenizer, "We?", "Yes,\nwe Did")

    def test_template_that_hides_the_answer(self):
        tokenizer = byte_level(["<s>", "</s>"], "{{ messages[0]['content'] }}", 300)
        with pytest.raises(InputError, match="does not show a question and its answer"):
            render(tokenizer, "Did we?", "Yes")

    def test_template_that_fails(self):
        tokenizer = byte_level(["<s>", "</s>"], "{{ raise_exception('no questions') }}", 300)
        with pytest.raises(InputError, match=r"does not show a question .* fails: no questions"):
            render(tokenizer, "Did we?", "Yes")

    def test_tokenizer_without_offsets(self, monkeypatch):
        slow = byte_level(["<s>", "</s>"], CHATML, 300)
        monkeypatch.setattr(type(slow), "is_fast", property(lambda self: False))
        with pytest.raises(InputError, match="gives no character offsets"):
            make_sample(slow, QAPair("c", "yes", "Did we?", "Yes"), 10, 100)
