"""What is put to the model: likelihoods of labels and texts, written answers, lessons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from unswayed.core.errors import InputError
from unswayed.logo.ask import (
    label_probabilities,
    make_sample,
    text_probabilities,
)
from unswayed.models.base import Base, load_base
from unswayed.models.load import find_backend, loaded_lm
from unswayed.plum.loss import tree_pass, weighted_loss
from unswayed.scoring.ask import open_prompts, replies

LABELS = ("1", "2", "joy", "a mix of sadness and anger")
SYSTEMS = ("", "Anna likes the house.", "Anna likes the small room.")
CONVERSATIONS = [
    [*([{"role": "system", "content": system}] if system else []),
     {"role": "user", "content": f"How does Omar feel?\n{thing}"}]
    for system in SYSTEMS
    for thing in ("The prize", "The job")
]  # fmt: skip


@pytest.fixture(scope="module")
def base(tiny_model_dir) -> Any:
    made: dict[bool, Base] = {}

    def make(chat: bool = True) -> Base:
        if chat not in made:
            made[chat] = load_base(str(tiny_model_dir("llama", chat=chat)), device="cpu")
        return made[chat]

    return make


@pytest.fixture(scope="module")
def lm(base) -> Any:
    return {chat: loaded_lm(base(chat).model, base(chat).tokenizer) for chat in (True, False)}


def log_probs(base: Base, context: list[int], answer: list[int]) -> list[float]:
    """Of each token of the answer, by a plain forward pass."""
    with torch.no_grad():
        logits = base.model(input_ids=torch.tensor([context + answer])).logits[0].double()
    found = logits.log_softmax(-1)
    start = len(context) - 1
    return [float(found[start + i, token]) for i, token in enumerate(answer)]


def test_what_a_model_reads(lm):
    chat, plain = (open_prompts(lm[key], CONVERSATIONS) for key in (True, False))
    assert chat[2] == (
        "<|im_start|>system\nAnna likes the house.<|im_end|>\n<|im_start|>user\n"
        "How does Omar feel?\nThe prize<|im_end|>\n<|im_start|>assistant\n"
    )
    assert plain[0] == "User: How does Omar feel?\nThe prize\nAssistant:"
    assert plain[2] == "Anna likes the house.\nUser: How does Omar feel?\nThe prize\nAssistant:"


@pytest.mark.parametrize("chat", [True, False])
def test_labels_by_hand(lm, base, chat: bool):
    prompts = open_prompts(lm[chat], CONVERSATIONS)
    found = label_probabilities(lm[chat], prompts, LABELS)
    assert found.shape == (6, 4)
    delimiter = "" if chat else " "
    for prompt, row in zip(prompts, found, strict=True):
        sums = []
        for label in LABELS:
            context, answer = lm[chat]._encode_pair(prompt, delimiter + label)
            sums.append(sum(log_probs(base(chat), context, answer)))
        expected = np.exp(sums) / np.exp(sums).sum()
        assert row == pytest.approx(expected, abs=1e-4)
        assert row.sum() == pytest.approx(1)


def test_as_the_stock_library_scores(lm, base):
    stock = find_backend("hf")(
        pretrained=base().model, tokenizer=base().tokenizer, batch_size=1, backend="causal"
    )
    prompts = open_prompts(lm[True], CONVERSATIONS)
    ours, theirs = (label_probabilities(one, prompts, LABELS) for one in (lm[True], stock))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_neither_order_nor_company_matters(lm):
    prompts = open_prompts(lm[True], CONVERSATIONS)
    whole = label_probabilities(lm[True], prompts, LABELS)
    again = label_probabilities(lm[True], [*prompts[::-1], prompts[0]], LABELS)
    np.testing.assert_allclose(again[:-1][::-1], whole, atol=1e-5)
    np.testing.assert_allclose(again[-1], whole[0], atol=1e-5)
    alone = [label_probabilities(lm[True], [prompt], LABELS)[0] for prompt in prompts]
    np.testing.assert_allclose(alone, whole, atol=1e-5)
    assert label_probabilities(lm[True], [], LABELS).shape == (0, 4)


def test_texts_by_their_mean_per_token(lm, base):
    prompts = open_prompts(lm[True], CONVERSATIONS[:2])
    candidates = [("joy", "a mix of joy and relief, because of the prize"), ("shame",)]
    first, second = text_probabilities(lm[True], prompts, candidates)
    means = []
    for text in candidates[0]:
        context, answer = lm[True]._encode_pair(prompts[0], text)
        means.append(np.mean(log_probs(base(), context, answer)))
    assert first == pytest.approx(np.exp(means) / np.exp(means).sum(), abs=1e-5)
    assert second == pytest.approx([1.0])


@pytest.mark.parametrize("chat", [True, False])
def test_written_answers_are_the_greedy_ones(lm, base, chat: bool):
    prompts = open_prompts(lm[chat], CONVERSATIONS[:2])
    for prompt, text in zip(prompts, replies(lm[chat], prompts, 6), strict=True):
        ids = lm[chat].tok_encode(prompt)
        start = len(ids)
        with torch.no_grad():
            for _ in range(6):
                ids.append(
                    int(base(chat).model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
                )
        greedy = base(chat).tokenizer.decode(ids[start:])
        for stop in ("<|im_end|>", "</s>", "\nUser:"):
            greedy = greedy.split(stop)[0]
        assert text == greedy.strip()
    assert replies(lm[chat], [], 6) == []


def test_a_lesson_is_what_is_asked(lm, base):
    """The loss of a lesson is minus the log-likelihood of the label when it is asked."""
    prompt = open_prompts(lm[True], CONVERSATIONS)[2]
    for label in LABELS:
        sample = make_sample(lm[True], "segment 1", prompt, label, 3.0)
        context, answer = lm[True]._encode_pair(prompt, label)
        end = base().tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert sample.ids == (*context, *answer, end)
        assert sample.weights == (0.0,) * len(context) + (3.0,) * (len(answer) + 1)
        with torch.no_grad():
            loss = weighted_loss(base().model, tree_pass(base().model, [sample]), 1.0)
        expected = -3 * sum(log_probs(base(), context, [*answer, end]))
        assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_a_base_model_stops_at_eos(lm, base):
    prompt = open_prompts(lm[False], CONVERSATIONS)[0]
    assert make_sample(lm[False], "s", prompt, "joy", 1.0).ids[-1] == (
        base(False).tokenizer.eos_token_id
    )


def test_what_does_not_fit_is_refused(lm):
    long = open_prompts(lm[True], [[{"role": "user", "content": "joy " * 600}]])
    with pytest.raises(InputError, match=r"a prompt of \d+ tokens and .* context of 512 tokens"):
        label_probabilities(lm[True], long, LABELS)
    with pytest.raises(InputError, match=r"context of 512 tokens"):
        replies(lm[True], long, 4)


def test_nan_is_refused(tiny_model_dir):
    broken = load_base(str(tiny_model_dir("llama", chat=True)), device="cpu")
    one = loaded_lm(broken.model, broken.tokenizer)
    prompts = open_prompts(one, CONVERSATIONS[:1])
    label_probabilities(one, prompts, LABELS)  # the probe is past
    broken.model.get_output_embeddings().weight.data[5] = float("nan")
    with pytest.raises(InputError, match="the model gave NaN"):
        label_probabilities(one, prompts, LABELS)
