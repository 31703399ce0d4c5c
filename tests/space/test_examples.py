"""Stored flips: true ones, of built-in items, and still asked today."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.run import run_audit
from unswayed.core.errors import InputError
from unswayed.space import flips
from unswayed.space.events import Space
from unswayed.space.examples import flips_of, main, read_examples


@pytest.fixture(scope="module")
def run(tiny_model_dir, tmp_path_factory):
    """A run on built-in items and one of a file."""
    folder = tmp_path_factory.mktemp("examples")
    foreign = folder / "foreign.jsonl"
    row = {"id": "eu_01", "scenario": "A secret test.", "options": ["x", "y"], "key": "x"}
    foreign.write_text(json.dumps(row) + "\n")
    model = str(tiny_model_dir("llama", chat=True, max_position_embeddings=4096))
    items = ["understanding:45", f"foreign={foreign}"]
    return run_audit(AuditArguments(model=model, out=folder / "run", items=items, pairs=2))


def test_stored_flips_are_the_runs_own(run):
    rows = pq.read_table(run / "answers.parquet").to_pylist()
    answers = {(f"{r['test']}/{r['question_id']}", r["persona_id"]): r["answer"] for r in rows}
    expected = {
        (key, pair)
        for key in flips.items()
        for pair in ("p01", "p02")
        if (key, None) in answers
        and answers[key, f"{pair}-advantaged"] != answers[key, f"{pair}-disadvantaged"]
    }
    examples = flips_of(run)
    assert expected and {(f["item"], f["users"][0][:3]) for f in examples} == expected
    for flip in examples:
        assert flip["answers"] == [answers[flip["item"], id] for id in (None, *flip["users"])]


def test_the_command_keeps_no_text_of_others_and_the_space_reads_it(run, tmp_path, tiny, capsys):
    file = tmp_path / "flips.json"
    assert main([str(run), str(file)]) == 0
    text = file.read_text("utf-8")
    assert "secret" not in text and str(tmp_path) not in text
    space = Space(file)
    state, note = space.surprise(tiny)
    assert state.item in flips.items() and state.a.endswith("-advantaged")
    assert note.startswith("Stored:")
    page = space.flip(state)
    assert "The answer flips" in page  # the same model flips again


def test_flips_of_items_that_are_gone_are_left_out(tmp_path):
    file = tmp_path / "flips.json"
    flip = {"item": "understanding/eu_00", "users": ["p01-advantaged"], "answers": ["a"]}
    file.write_text(json.dumps({"model": "m", "flips": [flip]}))
    assert read_examples(file)["flips"] == []
    file.write_text("[]")
    with pytest.raises(InputError, match="holds no stored flips"):
        read_examples(file)


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "x.json")]) == 2
    assert "not a run directory" in capsys.readouterr().err


def test_the_repositorys_flips_are_still_asked(root):
    file = root / "results" / "flips.json"
    flips = json.loads(file.read_text("utf-8"))["flips"]
    assert len(read_examples(file)["flips"]) == len(flips) > 10
