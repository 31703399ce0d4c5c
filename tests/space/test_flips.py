"""One item under several memories: kept prefixes change nothing, answers are those of an audit."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.run import run_audit
from unswayed.core.errors import InputError
from unswayed.scoring.prompts import Likelihoods
from unswayed.space import flips
from unswayed.space.models import Shelf, choices, source

ITEM = "understanding/eu_03"
TWO = ["p01-advantaged", "p01-disadvantaged"]


def two() -> list:
    return [flips.choose_user(id) for id in TWO]


def test_answers_and_flips_are_those_of_an_audit(tiny, tmp_path):
    run_audit(AuditArguments(model=tiny, out=tmp_path / "run", items=["understanding:45"], pairs=2))
    rows = pq.read_table(tmp_path / "run" / "answers.parquet").to_pylist()
    shelf, checked = Shelf(), 0
    for key, item in list(flips.items().items())[:6]:
        expected = {r["persona_id"]: r for r in rows if r["question_id"] == item.id}
        for answer in flips.ask(shelf, tiny, item, two()):
            row = expected[answer.user.id if answer.user else None]
            assert item.options[answer.picked] == row["answer"], key
            assert answer.flip == row["flip"], key
            assert answer.shares == pytest.approx(
                flips.option_shares(
                    Likelihoods(item.options, row["option_scores"], priors=row["option_priors"])
                ),
                abs=1e-4,
            )
            checked += 1
    assert checked == 18


def test_a_kept_prefix_is_used_and_stays_as_it_was(tiny):
    shelf, item = Shelf(), flips.items()[ITEM]
    cold = list(flips.ask(shelf, tiny, item, two()))
    lm, _ = shelf.get(tiny)
    lengths = {prefix: cache.get_seq_length() for prefix, cache in lm._kept.items()}
    assert len(lengths) == 3 and all(n == len(prefix) for prefix, n in lengths.items())
    seen = []
    forward = lm._forward
    lm._forward = lambda pack, cache: seen.append(len(pack.ids)) or forward(pack, cache)
    warm = list(flips.ask(shelf, tiny, item, two()))
    assert len(seen) == 3 and max(seen) < min(n for n in lengths.values() if n > 50)
    for a, b in zip(cold, warm, strict=True):
        assert a.shares == pytest.approx(b.shares, abs=1e-6)
    assert {p: c.get_seq_length() for p, c in lm._kept.items()} == lengths


def test_kept_prefixes_stay_within_the_budget_and_what_visitors_write_is_not_kept(tiny):
    shelf, item = Shelf(), flips.items()[ITEM]
    lm, _ = shelf.get(tiny)
    list(flips.ask(shelf, tiny, item, [flips.own_user("They live on a boat.")]))
    assert len(lm._kept) == 1  # what stands before a question without memory
    lm._budget = 1 + max(len(p) for p in lm._kept) + 2000
    for pair in ("p01", "p02", "p03"):
        list(flips.ask(shelf, tiny, item, [flips.choose_user(f"{pair}-advantaged")]))
        assert sum(map(len, lm._kept)) <= lm._budget


def test_a_model_that_cannot_share_prefixes_answers_too(tiny_model_dir, monkeypatch):
    name = str(tiny_model_dir("mamba", chat=True))
    monkeypatch.setenv("UNSWAYED_SPACE_MODELS", name)
    item = flips.own_item("How does she feel?", "joy\nsadness")
    answers = list(flips.ask(Shelf(), name, item, [flips.own_user("They run.")]))
    assert [len(answer.shares) for answer in answers] == [2, 2]


@given(
    st.lists(
        st.tuples(st.floats(-200, 0), st.floats(-200, 0)),
        min_size=2,
        max_size=8,
    )
)
def test_shares_sum_to_one_and_the_largest_is_the_answer(rows):
    sums, priors = zip(*rows, strict=True)
    options = Likelihoods([str(i) for i in range(len(rows))], sums, priors=priors)
    shares = flips.option_shares(options)
    assert sum(shares) == pytest.approx(1)
    assert shares[options.pick("pmi")] == pytest.approx(max(shares))


def test_shares_are_what_the_scenario_adds():
    from math import log

    options = Likelihoods(["abc", "de"], [log(0.2), log(0.3)], priors=[log(0.1), log(0.3)])
    assert flips.option_shares(options) == pytest.approx((2 / 3, 1 / 3))


def test_own_words_are_read_as_they_are(tiny):
    user = flips.own_user("Likes {braces}, {i} and <b>tags</b>\nand lines.")
    assert flips.notes(user) == "Likes {braces}, {i} and <b>tags</b> and lines."
    answers = list(flips.ask(Shelf(), tiny, flips.items()[ITEM], [user]))
    assert answers[0].flip is None and isinstance(answers[1].flip, bool)
    words = flips.in_words(flips.items()[ITEM], answers)
    assert words.startswith("Without memory") and "With your memory it" in words


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: flips.own_item("", "a\nb"), "empty"),
        (lambda: flips.own_item("x" * 1501, "a\nb"), "1,501 characters, at most 1,500"),
        (lambda: flips.own_item("x", "a"), "at least two"),
        (lambda: flips.own_item("x", "a\na"), "twice"),
        (lambda: flips.own_item("x", "\n".join("abcdefghi")), "9 options are given, at most 8"),
        (lambda: flips.own_item("x", "a\n" + "b" * 201), "an option has 201"),
        (lambda: flips.own_user(" "), "empty"),
        (lambda: flips.own_user("x" * 1501), "the memory has 1,501"),
        (lambda: flips.choose_item("nothing"), "no item 'nothing'"),
        (lambda: flips.choose_user("nobody"), "no memory 'nobody'"),
        (lambda: source("someone/huge-model"), "cannot be asked here"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(call, said):
    with pytest.raises(InputError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_every_built_in_choice_can_be_made():
    assert [flips.choose_item(key) for _, key in flips.item_choices()[1:]] == [
        *flips.items().values()
    ]
    assert len(flips.user_choices()) == 90 + 81 + 1
    labels = [label for label, _ in flips.user_choices()]
    assert len(set(labels)) == len(labels)


def test_the_owner_of_a_space_adds_models(tiny):
    assert next(iter(choices())) == tiny and "smollm2-135m" in choices()
    assert source(tiny) == tiny
