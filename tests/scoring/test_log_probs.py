"""The one door to likelihoods: what its errors say, and what repeats."""

from __future__ import annotations

import math

import pytest

from unswayed.core.errors import InputError
from unswayed.scoring.ask import likelihoods, log_probs


class Model:
    """Gives minus the length of a text; NaN for "broken"."""

    tokenizer = None
    max_length = 8
    asked: list[tuple[str, str]]

    def tok_encode(self, text: str) -> list[int]:
        return list(range(len(text)))

    def loglikelihood(self, requests, disable_tqdm):
        self.asked = [request.args for request in requests]
        return [(math.nan if text == "broken" else -len(text), True) for _, text in self.asked]


def test_what_repeats_is_asked_once():
    model = Model()
    assert log_probs(model, ["p", "q", "p"], [["ab", "c"], ["ab"], ["c"]]) == [[-2, -1], [-2], [-1]]
    assert model.asked == [("p", "ab"), ("p", "c"), ("q", "ab")]
    assert log_probs(model, [], []) == []


def test_a_broken_model_is_named_with_what_it_was_asked():
    prompts, candidates = ["p", "q"], [["a"], ["a", "broken"]]
    with pytest.raises(InputError, match=r"^the model gave NaN: its weights or dtype are broken$"):
        log_probs(Model(), prompts, candidates)
    with pytest.raises(InputError, match=r"gave NaN for item two: .* broken \(try float32\)$"):
        likelihoods(Model(), prompts, candidates, "hf", ["item one", "item two"], " (try float32)")


@pytest.mark.parametrize("error", [NotImplementedError, ValueError])
def test_errors_of_a_backend_are_one_line(error, monkeypatch):
    def fails(self, requests, disable_tqdm):
        raise error("no\nlikelihoods")

    monkeypatch.setattr(Model, "loglikelihood", fails)
    with pytest.raises(InputError, match=r"--backend vllm .*: no likelihoods\."):
        likelihoods(Model(), ["p"], [["a"]], "vllm")


def test_only_other_backends_are_measured():
    long = ["a text too long"]
    with pytest.raises(InputError, match="context of 8 tokens"):
        likelihoods(Model(), long, [["a"]], "hf")
    assert log_probs(Model(), long, [["a"]]) == [[-1]]  # hf-shared looks itself
