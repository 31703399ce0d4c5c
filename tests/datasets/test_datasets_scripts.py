"""The build scripts: what they print, refuse and leave behind."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest

from unswayed.datasets.trees import card_metadata

FOLDER = Path(__file__).parents[2] / "datasets_scripts"
NAMES = ("persona_steu", "persona_stem", "personas", "memory_conversations")
OWN = {"id": "w1", "scenario": "A bridge is closed.", "options": ["Joy", "Fear"], "key": "Fear"}


def run(name: str, *argv: object) -> int:
    """The script in this process; its exit code."""
    path = FOLDER / f"{name}.py"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit:
        patch.setattr(sys, "argv", [str(path), *map(str, argv)])
        runpy.run_path(str(path), run_name="__main__")
    return exit.value.code


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "secret folder" / "mine.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(OWN))
    return path


@pytest.fixture
def pushed(monkeypatch) -> list[dict]:
    calls: list[dict] = []

    def publish(tree: Path, repo_id: str, *, private: bool = True, message: str) -> str:
        calls.append({"tree": tree, "repo_id": repo_id, "private": private, "message": message})
        return f"https://hub/{repo_id}"

    fake = types.ModuleType("unswayed.publish.push")
    fake.publish = publish
    monkeypatch.setitem(sys.modules, "unswayed.publish.push", fake)
    return calls


@pytest.mark.parametrize("name", NAMES)
def test_as_a_command(tmp_path: Path, name: str):
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--output_dir", "out/tree"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / "tree")
    first_line = "default/train: " if name == "memory_conversations" else "explicit/test: "
    assert first_line in done.stdout
    assert os.listdir(tmp_path / "out") == ["tree"]
    card = (tmp_path / "out" / "tree" / "README.md").read_text("utf-8")
    assert f"python datasets_scripts/{name}.py\n" in card and str(tmp_path) not in card
    # In another process, elsewhere: the same bytes.
    assert run(name, "--output_dir", tmp_path / "again") == 0
    for path in (tmp_path / "again").rglob("*.*"):
        twin = tmp_path / "out" / "tree" / path.relative_to(tmp_path / "again")
        assert path.read_bytes() == twin.read_bytes()


def test_datasets_cli_accepts_every_tree(tmp_path: Path):
    command = [sys.executable, "-m", "datasets.commands.datasets_cli", "test"]
    for name in NAMES:
        assert run(name, "--output_dir", tmp_path / name) == 0
        tested = subprocess.run(
            [*command, str(tmp_path / name), "--all_configs", "--cache_dir", str(tmp_path / "c")],
            capture_output=True,
            text=True,
        )
        assert tested.returncode == 0, tested.stderr
        assert "Test successful." in tested.stdout


def test_help_needs_no_datasets():
    code = (
        "import sys; sys.argv = ['x', '--help']; import runpy\n"
        f"try: runpy.run_path({str(FOLDER / 'persona_steu.py')!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert not {'datasets', 'torch', 'lm_eval'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("--output_dir", "--push_to_hub", "--items", "Build `persona_steu`"):
        assert word in done.stdout


# -- the user's own items ------------------------------------------------------------------------


def test_own_items_are_named_and_hashed_and_have_no_licence(tmp_path: Path, own: Path):
    out = tmp_path / "tree"
    assert run("persona_steu", "--items", f"steu_like={own}", "--output_dir", out) == 0
    card = (out / "README.md").read_text("utf-8")
    assert "license" not in card_metadata(out)
    assert "mine.jsonl (SHA-256 of the file" in card and "must not be published" in card
    assert "the instrument `steu_like` of whoever built this dataset" in card
    assert "--items steu_like=mine.jsonl" in card
    assert str(tmp_path) not in card and "secret" not in card


def test_whose_instrument_it_is(tmp_path: Path):
    path = tmp_path / "steu.jsonl"
    path.write_text(json.dumps({"id": "s1", "text": "X?", "options": ["a", "b"], "key": "a"}))
    out = tmp_path / "tree"
    assert run("persona_steu", "--items", f"steu={path}", "--output_dir", out) == 0
    assert "(STEU) of MacCann & Roberts (2008" in (out / "README.md").read_text("utf-8")


def test_own_items_are_pushed_only_with_a_licence_statement(
    tmp_path: Path, own: Path, pushed: list[dict], capsys
):
    argv = ["--items", f"x={own}", "--output_dir", tmp_path / "t", "--push_to_hub", "--repo_id"]
    for statement in ([], ["--license_statement", "  "]):
        assert run("persona_steu", *argv, "me/x", *statement) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "--license_statement" in error
    assert pushed == [] and not (tmp_path / "t").exists()

    assert run("persona_steu", *argv, "me/x", "--license_statement", "By\npermission.") == 0
    assert [call["repo_id"] for call in pushed] == ["me/x"]
    card = (tmp_path / "t" / "README.md").read_text("utf-8")
    assert "> By permission." in card and card_metadata(tmp_path / "t")["license"] == "other"


def test_decisions_leave_items_out(tmp_path: Path, capsys):
    path = tmp_path / "decisions.jsonl"
    path.write_text('{"id": "eu_01", "persona_invariant": false}')
    out = tmp_path / "tree"
    argv = ["--items", "understanding:9", "--configs", "none", "--decisions", path]
    assert run("persona_steu", *argv, "--output_dir", out) == 0
    assert "none/test: 8 rows" in capsys.readouterr().out
    command = "--configs none --items understanding:9 --decisions decisions.jsonl"
    assert command in (out / "README.md").read_text("utf-8")


# -- pushing -------------------------------------------------------------------------------------


def test_pushed_only_when_asked_and_private_unless_public(tmp_path: Path, pushed: list[dict]):
    argv = ["--configs", "grid", "--output_dir", tmp_path / "t"]
    assert run("personas", *argv) == 0 and pushed == []
    before = (tmp_path / "t" / "README.md").read_bytes()
    assert run("personas", *argv, "--push_to_hub", "--repo_id", "me/p") == 0
    assert run("personas", *argv, "--push_to_hub", "--repo_id", "me/p", "--public") == 0
    assert [call["private"] for call in pushed] == [True, False]
    assert pushed[0]["tree"] == (tmp_path / "t").resolve()
    assert (tmp_path / "t" / "README.md").read_bytes() == before  # where it goes is not in it


# -- wrong input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--configs", "nope"], "--configs 'nope' is not one of none, neutral, explicit, grid"),
        (["--configs"], "--configs: expected at least one argument"),
        (["--scoring", "sum"], "--scoring 'sum' is not one of option, letter, generate"),
        (["--seed", "x"], "--seed: invalid int value"),
        (["--bogus"], "unknown argument --bogus"),
        (["--out", "x"], "unknown argument --out"),
        (["--items", "management"], "persona_stem the others"),
        (["--items", "mine=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--items", "mine=latin.csv"], "latin.csv: cannot be read as UTF-8 text"),
        (["--items", "mine=half.jsonl"], r"'\ud800' is half of a surrogate pair"),
        (["--items", "mine=varies.jsonl"], "no persona-invariant item is left"),
        (["--items", "mine=twice.jsonl"], "is already used at"),
        (["--push_to_hub"], "--push_to_hub needs --repo_id"),
        (["--repo_id", "a/b"], "do nothing without --push_to_hub"),
        (["--public"], "do nothing without --push_to_hub"),
        (["--license_statement", "MIT"], "--license_statement is for texts of your own"),
    ],
)
def test_wrong_input_is_one_line(tmp_path: Path, monkeypatch, capsys, argv: list[str], words: str):
    monkeypatch.chdir(tmp_path)
    Path("latin.csv").write_bytes(b"id,scenario\n1,\xe9\n")
    Path("half.jsonl").write_text(json.dumps(OWN | {"scenario": "\ud800"}))
    Path("varies.jsonl").write_text(json.dumps(OWN | {"persona_invariant": False}))
    Path("twice.jsonl").write_text(f"{json.dumps(OWN)}\n{json.dumps(OWN)}\n")
    before = sorted(os.listdir())
    assert run("persona_steu", "--output_dir", "tree", *argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err and captured.err.startswith("persona_steu.py: ")
    assert captured.err.count("\n") == 1
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--sampled", "0"], "--sampled 0 alone makes no pair"),
        (["--questions", "mine=latin.jsonl"], "latin.jsonl: cannot be read as UTF-8 text"),
        (["--questions", "mine=twice.jsonl"], "twice.jsonl:2: the question is the same"),
        (["--questions", "twice.jsonl"], "for a file write NAME=FILE"),
        (["--against", "steu=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--configs", "mixed"], "--configs 'mixed' is not one of sampled, constructed"),
        (["--policy", "./nowhere"], "./nowhere"),
        (["--generator_backend", "nobody"], "'nobody' is not one of"),
        (
            ["--questions", "mine=one.jsonl", "--push_to_hub", "--repo_id", "me/x"],
            "say with --license_statement",
        ),
        (["--max_length", "8"], "longer than 8 tokens"),
        (["--similarity", "0.01"], "embedding overlap"),
    ],
)
def test_wrong_preferences_are_one_line(
    tmp_path: Path, monkeypatch, capsys, tiny_model_dir, argv: list[str], words: str
):
    monkeypatch.chdir(tmp_path)
    tiny = tiny_model_dir("llama", chat=True)
    row = {"question": "What is 6 x 7?", "answer": "42"}
    Path("latin.jsonl").write_bytes(b'{"question": "\xe9", "answer": "1"}\n')
    Path("twice.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(row)}\n")
    Path("one.jsonl").write_text(json.dumps(row))
    models = ["--policy", tiny, "--embedder", tiny, "--margin", "0"]
    fixed = ["--output_dir", "tree", "--n_questions", "40", "--constructed", "2", *models]
    sampled = [] if "--sampled" in argv or "--generator_backend" in argv else ["--sampled", "0"]
    if argv == ["--sampled", "0"]:
        fixed = models
    assert run("persona_preferences", *fixed, *sampled, *argv) == 2
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert last.startswith("persona_preferences.py: ") and words in last
    assert "Traceback" not in captured.err and not Path("tree").exists()


def test_a_full_folder_is_left_alone(tmp_path: Path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert run("personas", "--output_dir", tmp_path) == 2
    assert "is not empty and holds no tree of personas" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["thesis.txt"]
    assert run("personas", "--output_dir", tmp_path / "thesis.txt" / "x") == 2
    assert capsys.readouterr().err.count("\n") == 1
