"""The Space's tree for the Hub: pinned, whole, and the package in it is imported from there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest

from unswayed.core.errors import InputError
from unswayed.data.items import builtin_items
from unswayed.publish import spaces
from unswayed.publish.metadata import metadata


@pytest.fixture(scope="module")
def tree(root, tmp_path_factory):
    """Built in place of an older one."""
    out = tmp_path_factory.mktemp("space") / "tree"
    for name in ("app.py", "unswayed/stale.py", "unswayed-0.0.dist-info/METADATA"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("old")
    return spaces.build_space(root, out)


def test_the_card_pins_what_the_hub_needs(tree):
    card = metadata((tree / "README.md").read_text("utf-8"), "card")
    assert card["sdk"] == "gradio" and card["sdk_version"] == version("gradio")
    assert card["python_version"] == "3.11" and card["app_file"] == "app.py"
    assert card["license"] == "apache-2.0" and len(card["short_description"]) <= 60


def test_requirements_name_no_gradio_and_no_path(tree):
    lines = (tree / "requirements.txt").read_text("utf-8").splitlines()
    packages = [line for line in lines if not line.startswith(("#", "--extra-index-url https://"))]
    assert any(line.startswith("lm-eval[ifeval]") for line in packages)
    assert not any("gradio" in line or "extra ==" in line or "/" in line for line in packages)


def test_the_package_beside_the_app_is_the_one_that_runs(tree):
    code = (
        "import unswayed, importlib.metadata as m; from unswayed.space import pages, flips, models;"
        "print(unswayed.__file__, m.version('unswayed'), len(flips.items()), len(models.choices()),"
        "len(pages.style()) > 100, pages.text('about')[:2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=True
    )
    number = len(builtin_items())
    assert done.stdout.startswith(str(tree)) and f" {number} " in done.stdout
    assert "True ##" in done.stdout


def test_the_tree_is_read_whole(tree):
    local = spaces.read_space(tree)
    assert local.kind == "space" and {"app.py", "results/flips.json"} <= local.files.keys()
    assert "unswayed/space/texts/about.md" in local.files and "README.md" not in local.files
    assert "unswayed/stale.py" not in local.files and len(list(tree.glob("*.dist-info"))) == 1
    assert list(tree.parent.iterdir()) == [tree]


def content(folder) -> dict[str, bytes]:
    """All files of a folder and those beside it."""
    files = (path for path in folder.parent.rglob("*") if path.is_file())
    return {str(path.relative_to(folder.parent)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["mine.txt"], "not empty and no Space built before"),
        (["app.py", "models.py"], "not empty and no Space built before"),  # somebody's Flask
        (["unswayed-1.dist-info/METADATA", "x.py"], "not empty and no Space built before"),
        (["app.py", "unswayed-1.dist-info/METADATA", ".git/HEAD"], "holds .git, which would be"),
    ],
)
def test_what_the_build_did_not_make_is_not_removed(root, tmp_path, files, said):
    out = tmp_path / "out"
    for name in files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    before = content(out)
    with pytest.raises(InputError, match=said):
        spaces.build_space(root, out)
    assert content(out) == before
    with pytest.raises(InputError, match="is not a folder"):
        spaces.build_space(root, out / files[0])


def test_the_repositorys_own_folder_is_not_removed(root, tmp_path):
    out = shutil.copytree(root / "spaces" / "memory_flips", tmp_path / "memory_flips")
    before = content(out)
    with pytest.raises(InputError, match="no Space built before"):
        spaces.build_space(root, out)
    assert content(out) == before


def test_a_failed_build_leaves_the_last_tree(root, tree, tmp_path):
    before, broken = content(tree), tmp_path / "broken"
    for name in ("spaces", "results"):
        shutil.copytree(root / name, broken / name)
    (broken / "src").mkdir()
    for name in ("setup.cfg", "README.md", "LICENSE"):
        shutil.copy(root / name, broken / name)
    (broken / "pyproject.toml").write_text("[")
    with pytest.raises(InputError, match="cannot be built"):
        spaces.build_space(broken, tree)
    assert content(tree) == before


def test_a_card_that_pins_no_python_is_refused(tree):
    card = (tree / "README.md").read_text("utf-8")
    try:
        (tree / "README.md").write_text(card.replace("python_version", "other"))
        with pytest.raises(InputError, match="python_version is missing"):
            spaces.read_space(tree)
    finally:
        (tree / "README.md").write_text(card)
