"""Where a prompt ends and an answer begins, in tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.models.huggingface import HFLM

from unswayed.scoring.ask import encode_pair
from unswayed.scoring.lm import SharedPrefixLM

TEXTS = st.text(alphabet="ab joy\n.:", min_size=1, max_size=12)


@pytest.fixture(scope="module")
def shared(load):
    return load(SharedPrefixLM, "gpt2")


@given(prompt=TEXTS, answer=TEXTS)
def test_the_prompt_keeps_its_tokens(shared, prompt, answer):
    context, ids = encode_pair(shared, prompt, answer)
    assert context == shared.tok_encode(prompt)
    if prompt[-1:].isspace():
        assert shared.tokenizer.decode(context + ids) == prompt + answer
    else:
        assert (context, ids) == HFLM._encode_pair(shared, prompt, answer)
    assert shared._encode_pair(prompt, answer) == (context, ids)


def test_what_would_merge_with_the_prompts_end_is_encoded_by_itself(shared):
    merged = shared.tok_encode("He feels joy")
    context, ids = encode_pair(shared, "He feels ", "joy")
    assert merged[: len(context)] != context  # " joy" is one token
    assert context + ids != merged
    assert shared.tokenizer.decode(ids) == "joy"
