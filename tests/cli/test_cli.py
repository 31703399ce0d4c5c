"""The command line: every wrong input is one clear line and exit code 2, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from unswayed.cli import main
from unswayed.core.commands import run_command

ROW = {"id": "a", "scenario": "It rains. What is felt?", "options": ["Joy", "Fear"], "key": "Joy"}
PERSONA = "- id: x\n  advantaged: {demographic_attributes: A, family_background: B}\n"


def run(capsys, *argv: str) -> tuple[int, str]:
    code = main(list(argv))
    return code, capsys.readouterr().err


@pytest.fixture
def audit(capsys, tmp_path):
    """Run `unswayed audit` with an output folder; gives exit code and its one line."""

    def call(*argv: str, model: str = "smollm2-135m") -> tuple[int, str]:
        out = tmp_path / "out"
        code, err = run(capsys, "audit", "--model", model, "--out", str(out), *argv)
        assert not (out / "answers.parquet").exists()
        return code, err

    return call


def jsonl(path, *rows) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return f"mine={path}"


def test_a_reader_that_has_seen_enough():
    """As with `| head`: no word, and the exit code of a closed pipe."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "unswayed", "tasks", "path"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([ROW, '{"id": "b", '], "items.jsonl:2: not JSON"),
        ([ROW | {"key": "Envy"}], "items.jsonl:1: key 'Envy' of a is not among its options"),
        ([ROW, ROW], "items.jsonl:2: id 'a' is already used at"),
        ([ROW | {"options": ["Joy"]}], "items.jsonl:1: a has 1 option(s), it needs at least two"),
        ([{"id": "a"}], "items.jsonl:1: field 'scenario' is missing"),
    ],
)
def test_bad_items(audit, tmp_path, rows, text):
    spec = jsonl(tmp_path / "items.jsonl", *rows)
    code, err = audit("--items", spec)
    assert code == 2 and text in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--items", "mine=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--items", "stue"], "--items stue: not one of builtin, understanding, management"),
        (["--conditions", "rich"], "condition 'rich' is not one of"),
        (["--conditions", "none", "none"], "names one twice"),
        (["--pairs", "31"], "--pairs 31: between 1 and 30 pairs are there"),
        (["--pairs", "x"], "argument --pairs: invalid int value: 'x'"),
        (["--memory-style", "poem"], "memory style 'poem' is not one of"),
        (["--scoring", "vibes"], "scoring 'vibes' is not one of"),
        (["--batch-size", "many"], "neither a number nor auto"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--personas", "nobody.yaml"], "nobody.yaml: no such file"),
        (["--decisions", "nothing.csv"], "nothing.csv: no such file"),
    ],
)
def test_bad_arguments(audit, argv, text):
    code, err = audit(*argv)
    assert code == 2 and text in err and err.startswith("unswayed: ") and err.count("\n") == 1


def test_a_persona_without_a_dimension(audit, tmp_path):
    path = tmp_path / "personas.yaml"
    path.write_text(PERSONA)
    code, err = audit("--personas", str(path))
    assert code == 2
    assert "personas.yaml:2: x.advantaged lacks the dimension social_connections" in err


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("./no-such-folder", "there is no such folder"),
        ("nobody/no-such-model", "model nobody/no-such-model cannot be loaded"),
    ],
)
def test_unknown_models(audit, tmp_path, model, text):
    spec = jsonl(tmp_path / "items.jsonl", ROW)
    code, err = audit("--items", spec, "--pairs", "1", model=model)
    assert code == 2 and text in err
    assert sum(line.startswith("unswayed: ") for line in err.splitlines()) == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("argv", "text"),
    [(["--device", "abacus"], "--device abacus: "), (["--dtype", "float7"], "float7")],
)
def test_an_unknown_device_or_dtype(audit, tmp_path, tiny_model_dir, argv, text):
    spec = jsonl(tmp_path / "items.jsonl", ROW)
    model = str(tiny_model_dir("llama", chat=True))
    code, err = audit("--items", spec, *argv, model=model)
    assert code == 2 and text in err and "Traceback" not in err


def test_an_unknown_adapter(audit, tmp_path, tiny_model_dir):
    spec = jsonl(tmp_path / "items.jsonl", ROW)
    model = str(tiny_model_dir("llama", chat=True))
    code, err = audit("--items", spec, "--adapter", str(tmp_path / "no"), model=model)
    assert code == 2 and "there is no such folder" in err
    shutil.rmtree(tmp_path / "out")
    code, err = audit("--items", spec, "--adapter", model, model=model)  # a folder, no adapter
    assert code == 2 and "is no adapter: it has no adapter_config.json" in err


def test_report_of_something_else(capsys, tmp_path):
    code, err = run(capsys, "report", str(tmp_path))
    assert code == 2 and "is not a run directory" in err


def test_model_path_of_an_unknown_name(capsys):
    code, err = run(capsys, "model", "path", "gpt-7")
    assert code == 2 and "'gpt-7' is not embedded; known is smollm2-135m" in err


def test_no_command_and_unknown_command(capsys):
    assert run(capsys)[0] == 2
    assert run(capsys, "adit")[0] == 2


def test_a_package_that_is_not_installed(capsys):
    def work():
        import unheard_of.part  # noqa: F401

    assert run_command("unswayed mitigate", work) == 2
    assert capsys.readouterr().err == (
        "unswayed mitigate: this needs the package unheard_of: `pip install unheard_of`\n"
    )


def test_a_module_of_this_package_that_is_missing_is_a_bug():
    def work():
        import unswayed.unheard_of  # noqa: F401

    with pytest.raises(ModuleNotFoundError):
        run_command("unswayed", work)


def test_help_is_quick_and_loads_nothing_heavy():
    start = time.monotonic()
    code = (
        "import sys; from unswayed.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pandas', 'pyarrow', 'lm_eval'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "audit" in done.stdout
    assert time.monotonic() - start < 20  # a hang, not a stopwatch
