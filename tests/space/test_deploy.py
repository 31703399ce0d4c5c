"""As on the Hub: the tree's requirements in a fresh environment, and app.py starts there."""

from __future__ import annotations

import os
import re
import subprocess
import venv
from pathlib import Path

import pytest

from unswayed.publish import spaces
from unswayed.publish.metadata import metadata

MINUTES = 60
UNREACHABLE = "NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError"


@pytest.fixture(scope="module")
def tree(root, tmp_path_factory) -> Path:
    return spaces.build_space(root, tmp_path_factory.mktemp("deploy") / "tree")


@pytest.fixture(scope="module")
def python(tree) -> Path:
    """The interpreter of an environment with what the Hub installs, and nothing else."""
    home = tree.parent / "env"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    sdk = metadata((tree / "README.md").read_text("utf-8"), "card")["sdk_version"]
    for what in (["-r", str(tree / "requirements.txt")], [f"gradio=={sdk}"]):
        done = subprocess.run(
            [python, "-m", "pip", "install", "-q", *what],
            capture_output=True, text=True, timeout=20 * MINUTES,
            env=os.environ | {"PIP_RETRIES": "0"},  # the index of torch may be out of reach
        )  # fmt: skip
        if done.returncode and re.search(UNREACHABLE, done.stderr):
            pytest.skip("the package registry cannot be reached")
        assert done.returncode == 0, done.stderr[-2000:]
    return python


@pytest.mark.slow
def test_the_tree_starts_with_its_requirements_alone(tree, python, tiny, tmp_path, serving):
    from gradio_client import Client

    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {"UNSWAYED_SPACE_MODELS": tiny}
    with serving([python, tree / "app.py"], tmp_path, env) as url:
        client = Client(url, verbose=False)
        reply = client.predict(
            item="understanding/eu_01", a="p01-advantaged", b="p01-disadvantaged", api_name="/flip"
        )
        results = client.predict(api_name="/choices")["results"]
    assert [answer["user"] for answer in reply["answers"]][1:] == [
        "p01-advantaged", "p01-disadvantaged"
    ]  # fmt: skip
    assert "demo (an audit)" in results
    where = subprocess.run(
        [python, "-c", "import unswayed; print(unswayed.__file__)"],
        cwd=tree, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(tree))
