"""A prompt that does not fit is an error; nothing is cut in silence."""

from __future__ import annotations

import pytest
from lm_eval.models.huggingface import HFLM

from unswayed.core.errors import InputError
from unswayed.scoring.lm import SharedPrefixLM

ROOM = 48
NAMES = ("llama", "gpt2", "gemma3")
GREEDY = {"until": ["\n\n"], "do_sample": False}


def config(name: str) -> dict:
    return {"n_positions" if name == "gpt2" else "max_position_embeddings": ROOM}


def words(lm, tokens: int, first: str = "joy") -> str:
    """A text of exactly that many tokens, BOS included."""
    text = first
    while len(lm.tok_encode(text)) < tokens:
        text += " A"
    assert len(lm.tok_encode(text)) == tokens
    return text


@pytest.fixture
def encoded(monkeypatch):
    """Lengths of all inputs that reach any model's forward or generate."""
    seen = []

    def spy(method):
        original = getattr(HFLM, method)

        def wrapped(self, *args, **kwargs):
            seen.append((args[0] if args else kwargs["context"]).shape[1])
            return original(self, *args, **kwargs)

        monkeypatch.setattr(HFLM, method, wrapped)

    spy("_model_call")
    spy("_model_generate")
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_that_just_fits_is_scored_like_stock(name, load, instances, difference, encoded):
    stock = load(HFLM, name, config(name))
    lm = load(SharedPrefixLM, name, config(name))
    assert lm.max_length == ROOM and lm.fallback_reason is None
    encoded.clear()
    # The last token of the answer is predicted, not read: it needs no room.
    requests = instances([(words(lm, ROOM), " A"), (words(lm, ROOM - 2, "anger"), " A A A")])
    expected = stock.loglikelihood(requests, disable_tqdm=True)
    assert encoded == [ROOM, ROOM]
    assert difference(lm.loglikelihood(requests, disable_tqdm=True), expected) <= 1e-3


@pytest.mark.parametrize("name", [*NAMES, "mamba"])
def test_one_token_too_many_is_an_error(name, load, instances, passes):
    if name == "mamba":  # has no limit of its own, and falls back
        lm = load(SharedPrefixLM, name, max_length=ROOM)
    else:
        lm = load(SharedPrefixLM, name, config(name))
    for context, answer in ((1, 1), (0, 2), (-1, 3)):
        requests = instances([("joy", " A"), (words(lm, ROOM + context), " A" * answer)])
        with passes(lm) as widths, pytest.raises(InputError) as caught:
            lm.loglikelihood(requests, disable_tqdm=True)
        message = str(caught.value)
        assert f"{ROOM + context} tokens and {answer - 1} more" in message
        assert f"{ROOM} tokens" in message
        assert "joy A" in message, "says which prompt"
        assert widths == [], "found before any work is done"


def test_a_limit_set_by_hand_counts(load, instances):
    lm = load(SharedPrefixLM, "llama", max_length=20)
    assert lm.fallback_reason is None
    fits = instances([(words(lm, 20), " A")])
    assert len(lm.loglikelihood(fits, disable_tqdm=True)) == 1
    with pytest.raises(InputError, match="context of 20 tokens"):
        lm.loglikelihood(instances([(words(lm, 21), " A")]), disable_tqdm=True)


@pytest.mark.parametrize("name", [*NAMES, "mamba"])
def test_generation_of_a_prompt_that_just_fits_equals_stock(name, load, instances, encoded):
    extra = {"max_length": ROOM} if name == "mamba" else {}
    size = {} if name == "mamba" else config(name)
    stock = load(HFLM, name, size, **extra)
    lm = load(SharedPrefixLM, name, size, **extra)
    settings = {**GREEDY, "max_gen_toks": 8}
    pairs = [(words(lm, ROOM - 8), settings), ("Question: How does Anna feel? Answer:", settings)]
    requests = instances(pairs, "generate_until")
    expected = stock.generate_until(requests, disable_tqdm=True)
    assert sorted(encoded)[-1] == ROOM - 8
    assert lm.generate_until(requests, disable_tqdm=True) == expected
    assert any(expected)


def test_generation_without_room_for_the_answer_is_an_error(load, instances, encoded):
    lm = load(SharedPrefixLM, "llama", config("llama"))
    settings = {**GREEDY, "max_gen_toks": 8}
    pairs = [("joy", settings), (words(lm, ROOM - 7), settings)]
    with pytest.raises(InputError) as caught:
        lm.generate_until(instances(pairs, "generate_until"), disable_tqdm=True)
    message = str(caught.value)
    assert f"{ROOM - 7} tokens" in message and "8 more" in message and f"{ROOM} tokens" in message
    assert encoded == []


def test_generation_counts_the_default_length_of_answers(load, instances):
    lm = load(SharedPrefixLM, "llama", {"max_position_embeddings": 300})
    assert lm.max_gen_toks == 256
    with pytest.raises(InputError, match=r"45 tokens and 256 more .* 300 tokens"):
        lm.generate_until(instances([(words(lm, 45), GREEDY)], "gen"), disable_tqdm=True)
    fits = instances([(words(lm, 44), {**GREEDY, "until": [" "]})], "gen")
    assert len(lm.generate_until(fits, disable_tqdm=True)) == 1


ALIASES = ("max_new_tokens", "max_tokens", "max_completion_tokens")


def test_other_names_for_the_length_of_answers(load, instances):
    lm = load(SharedPrefixLM, "llama", config("llama"))
    stock = load(HFLM, "llama", config("llama"))
    for alias in ALIASES:
        requests = instances([(words(lm, ROOM - 8), {**GREEDY, alias: 8})], "generate_until")
        expected = stock.generate_until(requests, disable_tqdm=True)
        assert lm.generate_until(requests, disable_tqdm=True) == expected


def test_nothing_is_cut_under_other_names(load, instances, encoded):
    lm = load(SharedPrefixLM, "llama", {"max_position_embeddings": 400})
    prompt = words(lm, 100)  # fits with 256 more, not with 380
    for alias in ALIASES:
        settings = {**GREEDY, "until": [" "], alias: 380}
        with pytest.raises(InputError, match=r"100 tokens and 380 more"):
            lm.generate_until(instances([(prompt, settings)], "generate_until"), disable_tqdm=True)
    assert encoded == []


def test_generation_does_no_needless_work(load, instances, passes):
    lm = load(SharedPrefixLM, "llama", config("llama"))
    requests = instances([("joy", {**GREEDY, "max_gen_toks": 4})], "generate_until")
    with passes(lm) as widths:
        lm.generate_until(requests, disable_tqdm=True)
    assert sum(widths) < ROOM
