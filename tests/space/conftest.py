"""A tiny model as the Space's only addition, and a Space around it."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

START = 300  # seconds


@pytest.fixture
def tiny(tiny_model_dir, monkeypatch) -> str:
    """Name of a tiny model that may be chosen, the default."""
    name = str(tiny_model_dir("llama", chat=True, max_position_embeddings=4096))
    monkeypatch.setenv("UNSWAYED_SPACE_MODELS", name)
    return name


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[str]]:
    """`with serving(command, folder, env) as url`: a Space that runs, its log in the folder."""

    @contextmanager
    def serving(command: Sequence[str | Path], folder: Path, env: dict[str, str]) -> Iterator[str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = env | {
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(folder / "gradio"),
            "TMPDIR": str(folder),
        }
        with (folder / "log").open("w") as log:
            app = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}/"
        try:
            give_up = time.monotonic() + START
            while True:
                try:
                    urllib.request.urlopen(url, timeout=5)
                    break
                except OSError:
                    assert app.poll() is None, (folder / "log").read_text("utf-8")
                    assert time.monotonic() < give_up, "the Space does not answer"
                    time.sleep(1)
            yield url
        finally:
            app.terminate()
            app.wait(30)

    return serving
