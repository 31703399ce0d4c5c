"""`--limit N`: a preview with the first items of each test."""

from __future__ import annotations

import pytest

from unswayed.audit.rundir import read_answers, read_run
from unswayed.cli import main
from unswayed.core.errors import InputError
from unswayed.data.items import items_hash, load_items
from unswayed.report import finished_audit


def test_the_first_items_of_each_test_are_asked(arguments, items_file):
    out = finished_audit(
        arguments(items=["builtin", f"mine={items_file}"], limit=2, pairs=1, conditions=["none"])
    )
    ids = [(row["test"], row["question_id"]) for row in read_answers(out).to_pylist()]
    whole = load_items(["understanding:2", "management:2", f"mine={items_file}"])[:-1]
    assert ids == [(item.test, item.id) for item in whole]
    run = read_run(out)
    assert run["n_items"] == 6 and run["hashes"]["items"] == items_hash(whole)
    said = "This is a preview of the first 2 items of each test."
    assert said in run["notes"]
    for name in ("report.md", "report.html"):
        assert said in (out / name).read_text("utf-8")


def test_decisions_come_first(arguments, tmp_path):
    """What is left out because of its user is not among the first."""
    (tmp_path / "d.csv").write_text("id,persona_invariant\na,no\n")
    given = arguments(decisions=tmp_path / "d.csv", limit=1, conditions=["none"])
    assert [row["question_id"] for row in read_answers(finished_audit(given)).to_pylist()] == ["b"]


def test_another_limit_is_another_run(arguments):
    finished_audit(arguments(limit=1, pairs=1, conditions=["none"]))
    for limit in (2, None):
        with pytest.raises(InputError, match=r"a different run \(its items differ"):
            finished_audit(arguments(limit=limit, pairs=1, conditions=["none"], resume=True))


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("0", "--limit 0: give a number of items from 1"),
        ("-1", "--limit -1: give a number of items from 1"),
        ("3", "--limit 3: no test has more than 3 items, leave it out"),
        ("many", "argument --limit: invalid int value: 'many'"),
    ],
)
def test_wrong_limits_end_in_one_line(chat_model, items_file, tmp_path, capsys, limit, words):
    command = ["audit", "--model", str(chat_model), "--items", f"mine={items_file}"]
    assert main([*command, "--out", str(tmp_path / "run"), "--limit", limit]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / "run").exists()
