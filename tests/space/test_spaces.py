"""The Space's tree for the Hub: pinned, whole, and the package in it is imported from there."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from unswayed.errors import InputError
from unswayed.hub import spaces
from unswayed.hub.push import metadata


@pytest.fixture(scope="module")
def tree(root, tmp_path_factory):
    return spaces.build_space(root, tmp_path_factory.mktemp("space") / "tree")


def test_the_card_pins_what_the_hub_needs(tree):
    found = metadata((tree / "README.md").read_text("utf-8"), "card")
    assert found["sdk"] == "gradio" and found["sdk_version"] == version("gradio")
    assert found["python_version"] == "3.11" and found["app_file"] == "app.py"
    assert found["license"] == "apache-2.0" and len(found["short_description"]) <= 60


def test_requirements_name_no_gradio_and_no_path(tree):
    lines = (tree / "requirements.txt").read_text("utf-8").splitlines()
    wanted = [line for line in lines if not line.startswith("#")]
    assert any(line.startswith("lm-eval[ifeval]") for line in wanted)
    assert not any("gradio" in line or "extra ==" in line or "/" in line for line in wanted)


def test_the_package_beside_the_app_is_the_one_that_runs(tree):
    code = (
        "import unswayed, importlib.metadata as m; from unswayed.space import pages, flips, models;"
        "print(unswayed.__file__, m.version('unswayed'), len(flips.items()), len(models.choices()),"
        "len(pages.style()) > 100, pages.text('about')[:2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tree)) and " 89 " in done.stdout and "True ##" in done.stdout


def test_the_tree_is_read_whole(tree):
    local = spaces.read_space(tree)
    assert local.kind == "space" and {"app.py", "results/flips.json"} <= local.files.keys()
    assert "unswayed/space/texts/about.md" in local.files and "README.md" not in local.files


def test_a_tree_is_built_anew_but_nothing_else_is_removed(root, tree, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="not empty and no Space"):
        spaces.build_space(root, tmp_path)
    assert (tmp_path / "mine.txt").exists()
    card = (tree / "README.md").read_text("utf-8")
    try:
        (tree / "README.md").write_text(card.replace("python_version", "other"))
        with pytest.raises(InputError, match="python_version is missing"):
            spaces.read_space(tree)
    finally:
        (tree / "README.md").write_text(card)
