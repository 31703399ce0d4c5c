"""Files of visitors: what is wrong is said in a line without a path of the server."""

from __future__ import annotations

import json
import stat
import tempfile
import time
from pathlib import Path

import pytest

from unswayed.core.errors import InputError
from unswayed.space import uploads
from unswayed.space.events import Space, Turns
from unswayed.space.links import State

ITEM = {"id": "w1", "scenario": "What do they feel?", "options": ["joy", "anger"], "key": "joy"}


def rows(n: int, **changes) -> str:
    return "".join(json.dumps(ITEM | {"id": f"w{i}"} | changes) + "\n" for i in range(n))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"id": "w1", "scenario"', "a.jsonl:1: not JSON"),
        ("a.jsonl", "", "a.jsonl: holds no items"),
        ("a.jsonl", rows(1, key="x"), "not among its options"),
        ("a.jsonl", rows(21), "has 21 items, at most 20"),
        ("a.jsonl", rows(1, scenario="x" * 1501), "the scenario of w0 has 1,501"),
        ("a.jsonl", rows(1, options=["joy", "y" * 201]), "an option of w0 has 201"),
        ("a.jsonl", rows(1, options=["joy", *map(str, range(8))]), "9 options, at most 8"),
        ("a.jsonl", "x" * 200_001, "200,001 bytes, at most 200,000"),
        ("a.csv", "id,scenario\nw1,x,y\n", "a.csv:2: more values than columns"),
        ("a.exe", "x", "ends in .jsonl or .csv"),
        ("a.jsonl", "[" * 100_000, "a.jsonl: not JSON"),
        ("a.jsonl", b"\xff\xfe", "cannot be read as UTF-8"),
    ],
)
def test_items_that_cannot_be_asked(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=said) as caught:
        uploads.check_items(path)
    assert str(tmp_path) not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("- id: [", "a.yaml:"),
        ("- id: b\n", "has none of the versions"),
        ("[" * 5_000, "nested too deeply|not YAML"),
        ("".join(f"- id: b{i}\n  neutral: {{a: x}}\n" for i in range(5)), "5 personas, at most 4"),
        ("- id: b\n  neutral: {a: " + "x" * 1501 + "}\n", "1,501 characters"),
        ("- id: b\n  neutral: {a: '{evil.__class__}'}\n", "unknown placeholder"),
    ],
)
def test_personas_that_cannot_be_asked(tmp_path, content, said):
    path = tmp_path / "a.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        uploads.check_personas(path)
    assert str(tmp_path) not in str(caught.value)


def test_settings_that_cannot_be_used(tmp_path, tiny):
    with pytest.raises(InputError, match="give a file"):
        next(uploads.audit(tiny, None, None, 2, tmp_path))
    path = tmp_path / "a.jsonl"
    path.write_text(rows(2))
    with pytest.raises(InputError, match="5 persona pairs"):
        next(uploads.audit(tiny, path, None, 5, tmp_path))
    with pytest.raises(InputError, match="cannot be asked here"):
        next(uploads.audit("other/model", path, None, 2, tmp_path))


def test_a_cancelled_audit_ends_its_process(tmp_path, tiny, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text(rows(2))
    started = []
    popen = uploads.subprocess.Popen
    monkeypatch.setattr(
        uploads.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1]
    )
    states = uploads.audit(tiny, path, None, 2, tmp_path)
    assert next(states) == uploads.Audit(0, 7)
    assert started[0].poll() is None
    states.close()
    assert started[0].poll() is not None


@pytest.mark.slow
def test_a_small_audit_gives_its_report_and_leaves_nothing(tmp_path, tiny, monkeypatch):
    path = tmp_path / "mine.jsonl"
    path.write_text(rows(2, scenario="<script>alert(1)</script> What do they feel?"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for state in Space().audit("s", tiny, str(path), None, 2):
        if state[1]:
            report, answers = map(Path, state[1])
            assert (report.name, answers.name) == ("report.html", "answers.parquet")
            assert "<script>alert" not in report.read_text("utf-8")
    assert "Done" in state[0] and state[2] == 1.0
    assert list(tmp_path.iterdir()) == [path]


def test_one_long_piece_of_work_at_a_time_for_each_session():
    turns = Turns()
    with (
        turns.of("a"),
        turns.of("b"),
        pytest.raises(InputError, match="still running"),
        turns.of("a"),
    ):
        pass
    with turns.of("a"):
        pass
    with pytest.raises(ZeroDivisionError), turns.of("a"):
        _ = 1 / 0
    with turns.of("a"):
        pass


def test_a_sweep_tells_how_far_it_is_and_can_be_ended(tiny):
    space, begun = Space(), time.monotonic()
    state = State(tiny, "understanding/eu_01")
    sweep = space.sweep("s", state)
    assert "Loading" in next(sweep)[0]
    note, table = next(sweep)
    assert "0 of 60 users" in note and len(table) == 0
    note, table = next(sweep)
    assert "1 of 60 users" in note and list(table["Pair"]) == ["p01"]
    _, (busy, _) = space.sweep("s", state)
    assert "still running" in busy
    sweep.close()
    again = space.sweep("s", state)
    next(again)
    assert "0 of 60" in next(again)[0]
    assert time.monotonic() - begun < 60


def test_an_audits_folder_is_private_and_goes_when_it_is_cancelled(tmp_path, tiny, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text(rows(2))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    space = Space()
    states = space.audit("s", tiny, str(path), None, 2)
    next(states)
    assert "0 of 7 users" in next(states)[0]
    (folder,) = (found for found in tmp_path.iterdir() if found != path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and list(folder.glob("audit-*.log"))
    states.close()
    assert list(tmp_path.iterdir()) == [path]
    with space.turns.of("s"):
        pass
