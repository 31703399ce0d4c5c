"""Whether the questions are read: by hand, against simulated readers, in words."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import chance, make_run, pairs

from unswayed.audit.summary import analyze
from unswayed.audit.validity import most_frequent_of_reader, of_reader, reading, validity
from unswayed.cli import main
from unswayed.data.items import make_item
from unswayed.report import write_report

UNREAD = None


def row(options, key, pick, item=0, user=None, blind=None, order=None, turns=1, **more) -> dict:
    """A row of answers; `pick`, `key` and `blind` are indices of options."""
    return {
        "test": "t",
        "question_id": f"q{item:03}",
        "condition": "none" if user is None else "neutral",
        "persona_id": user,
        "pair_id": user,
        "options": list(options),
        "option_order": order or list(range(len(options))),
        "gold_label": options[key],
        "answer": None if pick is None else options[pick],
        "correct": pick == key,
        "parsed": pick is not None,
        "blind_answer": None if blind is None else options[blind],
        "letter_mass": None,
        "order_scores": [[0.0]] * turns if turns > 1 else None,
        "scoring": "option",
        "rule": "char",
    } | more


def worded(lengths) -> list[str]:
    """An option of each length, all different."""
    return ["abcdefghij"[i] * n for i, n in enumerate(lengths)]


# -- by hand -------------------------------------------------------------------------------------


def test_habits_by_hand():
    """Two right of four; q1 has two longest options, q3 is unread."""
    rows = [
        row(["aaa", "bb", "c"], 0, 0, item=0, blind=0),
        row(["aaa", "bbb", "c"], 2, 1, item=1, blind=1),
        row(["aa", "bbb", "c"], 0, 0, item=2, blind=2),
        row(["aa", "bb", "ccc"], 0, UNREAD, item=3, blind=0),
        row(["aaa", "b", "c", "d"], 1, 3, item=4),
    ]
    about = reading(pd.DataFrame(rows))
    longest, blind = about["longest"], about["blind"]
    assert (longest["estimate"], longest["n"], longest["n_items"]) == (2 / 4, 4, 4)
    p = 2 / 4  # right of those read
    expected = [p, (1 - p) * 2 / 2, (1 - p) * 1 / 2, (1 - p) * 1 / 3]
    assert longest["unbiased"] == pytest.approx(np.mean(expected))
    assert (blind["estimate"], blind["n"]) == (2 / 3, 3)
    p = 2 / 3  # of those that were also asked without the scenario
    assert blind["unbiased"] == pytest.approx(np.mean([p, (1 - p) / 2, (1 - p) / 2]))
    assert about["unread"]["estimate"] == 1 / 5
    assert about["first"] is about["letter_mass"] is None  # of option text
    assert (about["frequent"]["option"], about["frequent"]["estimate"]) == (
        "aa",
        1 / 4,
    )  # of equals


def test_places_are_those_shown():
    """q0 shows the third option first, q1 the second; both are picked, and so is q2's last."""
    options = ["a", "b", "c"]
    rows = [
        row(options, 2, 2, item=0, order=[2, 0, 1], scoring="letter"),
        row(options, 0, 1, item=1, order=[1, 2, 0], scoring="letter"),
        row(options, 0, 0, item=2, order=[2, 1, 0], scoring="letter"),
    ]
    about = reading(pd.DataFrame(rows))
    p = 2 / 3
    assert about["first"]["estimate"] == pytest.approx(2 / 3)
    assert about["first"]["unbiased"] == pytest.approx(np.mean([p, (1 - p) / 2, (1 - p) / 2]))
    assert (about["frequent"]["option"], about["frequent"]["estimate"]) == ("A", 2 / 3)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_place_that_wins_in_every_order(turns):
    """In two orders A goes to two options, of which the mean takes one; in three it cancels."""
    options = ["a", "b", "c"]
    rng = np.random.default_rng(0)
    rows = []
    for item in range(30):
        order = [int(i) for i in rng.permutation(3)]
        pick = order[int(rng.integers(turns))]  # one that stood under A
        key = int(rng.integers(3))
        rows.append(row(options, key, pick, item, order=order, turns=turns, scoring="letter"))
    found = validity(pd.DataFrame(rows))
    about = found["readings"]["none"]
    if turns == 3:
        assert about["first"] is about["frequent"] is None and found["reads"]
        return
    assert about["first"]["estimate"] == 1 and about["frequent"]["option"] == "A"
    assert about["first"]["unbiased"] == pytest.approx(turns / 3, abs=0.08)
    assert found["reads"] is False and found["reason"] == ["none", "first"]


def test_a_user_in_several_conditions_is_one():
    rows = [
        row(["aa", "b"], 1, pick, item, user=f"p{user}", condition=condition)
        for item in range(4)
        for user in range(3)
        for condition, pick in (("neutral", 0), ("advantaged", 1))
    ]
    longest = validity(pd.DataFrame(rows))["readings"]["memory"]["longest"]
    assert (longest["estimate"], longest["n_items"], longest["n_users"]) == (0.5, 4, 3)


# -- readers -------------------------------------------------------------------------------------


@given(st.data())
def test_an_unbiased_reader_picks_marked_options_as_often_as_said(data):
    n = data.draw(st.integers(2, 6))
    marks = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    key, right = data.draw(st.integers(0, n - 1)), data.draw(st.floats(0, 1))
    chances = [right if i == key else (1 - right) / (n - 1) for i in range(n)]
    expected = sum(p for p, mark in zip(chances, marks, strict=True) if mark)
    assert of_reader(marks, key, right) == pytest.approx(expected)


@pytest.mark.parametrize("right", [0.0, 0.4, 1.0])
def test_the_most_frequent_option_of_readers_is_the_mean_over_all_there_are(right):
    names = [[{"x"}, {"y"}, {"z"}], [{"x"}, {"z"}], [{"y"}, {"x"}, {"w"}], [{"w", "x"}, {"y", "z"}]]
    keys, weights = [0, 1, 0, 1], [0.1, 0.4, 0.3, 0.2]
    expected = 0.0
    for picks in itertools.product(*map(range, map(len, names))):
        p, shares = 1.0, dict.fromkeys("wxyz", 0.0)
        for options, key, weight, pick in zip(names, keys, weights, picks, strict=True):
            p *= right if pick == key else (1 - right) / (len(options) - 1)
            for name in options[pick]:
                shares[name] += weight
        expected += p * max(shares.values())
    found = most_frequent_of_reader(names, keys, weights, right)
    assert found == pytest.approx(expected, abs=0.01)


items_of = st.lists(
    st.tuples(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(0, 5)),
    min_size=1,
    max_size=12,
)


@given(items_of, st.sampled_from(["option", "letter"]))
def test_a_perfect_reader_is_never_flagged(items, scoring):
    rows = [
        row(worded(lengths), key % len(lengths), key % len(lengths), i, blind=0, scoring=scoring)
        for i, (lengths, key) in enumerate(items)
    ]
    found = validity(pd.DataFrame(rows))
    assert found["reads"] is not False and found["warnings"] == []
    for habit in ("longest", "blind", "first", "frequent"):
        about = found["readings"]["none"][habit]
        assert about is None or about["unbiased"] == pytest.approx(about["estimate"])
    json.dumps(found, allow_nan=False)


@given(st.integers(0, 10_000), st.sampled_from(["option", "letter"]))
def test_a_reader_that_takes_the_longest_is_flagged(seed, scoring):
    """Whatever the lengths; each of four options is the key as often as the others."""
    rng = np.random.default_rng(seed)
    rows = []
    for item in range(24):
        lengths = [int(n) for n in rng.permutation(9)[:4] + 1]
        longest = lengths.index(max(lengths))
        order = [int(i) for i in rng.permutation(4)]
        key = (longest + item) % 4
        rows.append(row(worded(lengths), key, longest, item, order=order, scoring=scoring))
    found = validity(pd.DataFrame(rows))
    about = found["readings"]["none"]["longest"]
    assert found["reads"] is False and found["reason"] == ["none", "longest"]
    assert about["estimate"] == 1 and about["unbiased"] == pytest.approx(0.25)


def test_a_reader_that_does_not_mind_the_scenario_is_flagged_under_a_memory_too():
    rows = []
    for item in range(30):
        pick = item % 3
        shared = {"options": ["a", "b", "c"], "key": (item // 3) % 3, "item": item}
        rows.append(row(**shared, pick=shared["key"], blind=pick))
        rows += [row(**shared, pick=pick, blind=pick, user=f"p{u}") for u in range(3)]
    found = validity(pd.DataFrame(rows))
    assert found["reason"] == ["memory", "blind"]
    assert (
        "100% of its picks with a memory are what it picks without the scenario"
        in (found["warnings"][0])
    )


def test_options_of_one_length_and_one_item_show_nothing():
    rows = [row(["aa", "bb"], 0, i % 2, i) for i in range(20)]
    found = validity(pd.DataFrame(rows))
    assert found["readings"]["none"]["longest"]["estimate"] == 1
    assert found["readings"]["none"]["longest"]["unbiased"] == 1 and found["reads"]
    for alone in (rows[:1], [row(["aa", "b"], 0, UNREAD, i) for i in range(9)]):
        assert validity(pd.DataFrame(alone))["reads"] is None


# -- warnings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mass", "warned"), [(0.49, True), (0.51, False)])
def test_a_warning_where_letters_are_not_what_the_model_says(mass, warned):
    masses = [mass - 0.3, mass + 0.3] * 5
    rows = [
        row(["a", "b"], 0, i % 2, i, letter_mass=value, scoring="letter")
        for i, value in enumerate(masses)
    ]
    found = validity(pd.DataFrame(rows))
    assert found["readings"]["none"]["letter_mass"]["estimate"] == pytest.approx(mass)
    assert [w[:30] for w in found["warnings"]] == ["On t the letters have 49% of t"] * warned


@pytest.mark.parametrize(("n", "warned"), [(2, False), (3, True)])
def test_a_warning_where_much_is_unread(n, warned):
    rows = [row(["a", "b"], 0, UNREAD if i < n else i % 2, i) for i in range(20)]
    found = validity(pd.DataFrame(rows))
    assert any("could not be read" in text for text in found["warnings"]) == warned
    assert found["reads"]


# -- in words ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_length(tmp_path_factory):
    """A run of a model that takes the longest option, with its report."""
    options = ["Joy", "Sadness", "Fear", "Contemptuousness"]
    texts = [f"Something happens ({i}). What do they feel?" for i in range(24)]
    items = [
        make_item("feel", f"u{i}", "understanding", text, options, options[i % 4])
        for i, text in enumerate(texts)
    ]

    def answer(item, persona):
        return 3 if chance(item.id, persona and persona.id) < 0.95 else 0

    out = make_run(tmp_path_factory.mktemp("validity") / "run", items, answer, pairs(2))
    analyze(out)
    write_report(out)
    return out


def test_what_is_not_read_is_said_first_everywhere(by_length, capsys):
    summary = json.loads((by_length / "summary.json").read_text("utf-8"))
    text = summary["warnings"][0]
    assert summary["tests"]["feel"]["validity"]["reads"] is False
    assert text.startswith(
        "On feel this model does not read the question under this scoring, --scoring option "
        "--rule pmi ("
    )
    instead = "try --scoring letter or another --rule, or see `unswayed validate --model NAME`."
    assert instead in text
    assert main(["report", str(by_length)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"Warning: {text}\n") and printed.count(text) == 1
    markdown = (by_length / "report.md").read_text("utf-8")
    page = (by_length / "report.html").read_text("utf-8")
    for whole, words in (
        (markdown, text.replace("`", "\\`")),
        (page, "this model does not read the question"),
    ):
        assert whole.count(words) == 1
        assert whole.index(words) < whole.index(summary["verdict"]["text"][:20])
    assert "Validity: the questions of feel are not read" in page
    assert summary["tests"]["feel"]["effects"], "nothing is hidden"


def test_every_figure_of_validity_stands_in_markdown_and_page(by_length):
    from unswayed.display.numbers import interval, percent

    summary = json.loads((by_length / "summary.json").read_text("utf-8"))
    markdown, page = ((by_length / f"report.{kind}").read_text("utf-8") for kind in ("md", "html"))
    for about in summary["tests"]["feel"]["validity"]["readings"].values():
        for name in ("longest", "frequent", "unread"):
            assert interval(about[name]) in markdown and interval(about[name]) in page
        assert percent(about["longest"]["unbiased"]) in markdown
    assert "The most frequent: Contemptuousness" in markdown
