"""`unswayed validate`: the same figures as an audit without memory, and which way to take."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from unswayed.audit.rules import by_rule
from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_answers
from unswayed.audit.validation import on_test, recommend, skill_of
from unswayed.cli import main
from unswayed.display.numbers import interval
from unswayed.statistics.crossed import johnson_interval


@pytest.fixture
def validated(capsys, chat_model, items_file, tmp_path):
    """`validated(*options)`: exit code, the JSON written, and what was printed."""

    def call(*argv: str):
        out = tmp_path / "figures.json"
        spec = [] if "--items" in argv else ["--items", f"mine={items_file}"]
        code = main(["validate", "--model", str(chat_model), *spec, "--out", str(out), *argv])
        text = capsys.readouterr()
        found = json.loads(out.read_text("utf-8")) if out.exists() else None
        return code, found, text

    return call


def test_figures_are_those_of_audits_without_memory(validated, arguments):
    code, found, text = validated("--orders", "3")
    assert code == 0 and list(found["ways"]) == ["sum", "char", "token", "pmi", "letter"]
    bare = {"conditions": ["none"]}
    options = read_answers(run_audit(arguments("option", **bare))).to_pandas()
    letters = run_audit(arguments("letter", scoring="letter", orders=3, **bare))
    frames = {rule: by_rule(options, rule, "it") for rule in ("sum", "char", "token", "pmi")}
    frames["letter"] = read_answers(letters).to_pandas()
    for way, frame in frames.items():
        expected = on_test(frame)
        about = found["ways"][way]["mine"]
        assert about["accuracy"] == expected["accuracy"]
        assert about["reading"]["longest"] == expected["reading"]["longest"]
        assert about["reading"]["blind"] == expected["reading"]["blind"]
        assert interval(expected["accuracy"]) in text.out
        assert found["skill"][way] == skill_of({"mine": expected})
    assert 0 < found["ways"]["letter"]["mine"]["reading"]["letter_mass"]["estimate"] <= 1
    assert found["precision"]["loaded"] == "float32" and found["precision"]["n"] == 3
    assert found["precision"]["other"] == "bfloat16 autocast"
    assert found["text"] in text.out and found["text"].count("\n") == 0


def test_a_half_model_is_compared_with_float32(validated):
    code, found, _ = validated("--dtype", "bfloat16")
    assert code == 0
    assert [found["precision"][key] for key in ("loaded", "other")] == ["bfloat16", "float32"]
    assert all(0 <= n <= 3 for n in found["precision"]["changed"].values())


def test_more_options_than_letters_leave_letters_out(validated, tmp_path):
    options = [f"option {i}" for i in range(12)]
    rows = [{"id": "a", "scenario": "Which?", "options": options, "key": options[3]}]
    (tmp_path / "many.jsonl").write_text(json.dumps(rows[0]) + "\n", "utf-8")
    code, found, text = validated("--items", f"many={tmp_path / 'many.jsonl'}")
    assert code == 0 and "letter" not in found["ways"] and "cannot tell" in text.out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--out", "nowhere/figures.json"], "--out nowhere/figures.json: give a file in a folder"),
        (["--orders", "0"], "--orders 0: give a number from 1"),
        (["--items", "stue"], "--items stue: not one of builtin"),
        (["--seed", "-1"], "--seed -1: give a number from 0"),
        (["--backend", "local-chat-completions"], "gives no likelihoods of options"),
        (["--backend", "nothing"], "--backend 'nothing' is not one of"),
        (["--model-args", "x"], "--model-args 'x' is not of the form name=value"),
        (["--scoring", "letter"], "unrecognized arguments: --scoring letter"),
        (["--model", "./no-such-folder"], "there is no such folder"),
    ],
)
def test_wrong_input_is_one_line(validated, argv, words):
    code, found, text = validated(*argv)
    assert (code, found, text.out) == (2, None, "")
    assert words in text.err and text.err.count("\n") == 1, text.err


# -- which way -----------------------------------------------------------------------------------


def way(right: int, longest: int, test: str = "t", n: int = 40) -> dict:
    """A way on a test of n items with four options: so many right, so many longest picked."""
    options = ["a", "bb", "ccc", "dddd"]
    rows = []
    for i in range(n):
        key = i % 3
        pick = 3 if i < longest else key if i < longest + right else (key + 1) % 3
        rows.append(
            {
                "test": test, "question_id": f"q{i}", "condition": "none", "persona_id": None,
                "pair_id": None, "options": options, "option_order": [0, 1, 2, 3],
                "gold_label": options[key], "answer": options[pick], "correct": pick == key,
                "parsed": True, "blind_answer": None, "letter_mass": None, "order_scores": None,
                "scoring": "option", "rule": "sum",
            }
        )  # fmt: skip
    return {test: on_test(pd.DataFrame(rows))}


def recommended(**ways: dict) -> tuple[str | None, str]:
    return recommend(ways, {name: skill_of(tests) for name, tests in ways.items()}, 2)


def test_the_way_that_reads_and_is_farthest_above_chance_is_recommended():
    best, text = recommended(sum=way(10, 30), char=way(22, 0), pmi=way(25, 0))
    assert best == "pmi" and text.startswith("Recommended: --scoring option --rule pmi.")
    assert "(50% of the way from chance to all right" in text and "these items" in text
    best, text = recommended(pmi=way(20, 0), letter=way(30, 0))
    assert best == "letter" and "--scoring letter --orders 2" in text


def test_a_way_must_read_every_test():
    half = way(38, 0, "t") | way(2, 38, "u")
    assert recommended(char=half, sum=way(20, 0, "t") | way(20, 0, "u"))[0] == "sum"


def test_tests_together_may_be_above_chance_where_none_is_alone():
    """14 of 40 right at a chance of 25%: by hand, skill 2/15, half an interval 0.206 for one."""
    one, four = way(14, 0), {name: way(14, 0)["t"] for name in "tuvw"}
    assert skill_of(one)["estimate"] == pytest.approx((14 / 40 - 0.25) / 0.75)
    by_item = (np.array([1.0] * 14 + [0.0] * 26)[:, None] - 0.25) / 0.75
    half = 2.0227 * math.sqrt(0.35 * 0.65 / 39) / 0.75
    low = min(2 / 15 - half, johnson_interval(by_item)[0])
    assert skill_of(one)["low"] == pytest.approx(low, abs=1e-4)
    assert skill_of(four)["low"] == pytest.approx(2 / 15 - (2 / 15 - low) / 2, abs=1e-4)
    assert recommended(sum=one)[0] is None and recommended(sum=four)[0] == "sum"


def test_where_nothing_is_of_use_it_is_said():
    assert recommended(sum=way(5, 35), char=way(2, 38)) == (
        None,
        "None of these ways reads the questions: more than half of the answers go by a habit "
        "whatever is asked, so differences between users would be differences of that habit. Take "
        "a larger or an instruction-tuned model.",
    )
    best, text = recommended(sum=way(8, 10), char=way(2, 38))
    assert best is None and text.startswith("What reads the questions (sum) cannot be told from")
