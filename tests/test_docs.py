"""The documentation names files that are there, and rooms as the import contract has them."""

from __future__ import annotations

import configparser
import pkgutil
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for pattern in ("*.md", "docs/*.md", "recipes/*/README.md", "src/unswayed/tasks/*/README.md")
    for path in sorted(ROOT.glob(pattern))
]
PATH = re.compile(
    r"`((?:src|tests|benchmarks|recipes|configs|datasets_scripts|spaces|metrics|results|docs)/[\w./*-]*)`"
)
NAME = re.compile(r"`(unswayed(?:\.\w+)+)")


def test_paths_in_documentation_exist():
    missing = [
        f"{page.relative_to(ROOT)}: {path}"
        for page in PAGES
        for path in PATH.findall(page.read_text("utf-8"))
        if not any(ROOT.glob(path))
    ]
    assert not missing, "\n".join(missing)


def test_python_names_in_documentation_exist():
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        for name in NAME.findall(page.read_text("utf-8"))
        if not importable(name)
    ]
    assert not missing, "\n".join(missing)


def importable(name: str) -> bool:
    """Whether it is a module, or an attribute of one."""
    try:
        return bool(pkgutil.resolve_name(name))
    except (ImportError, AttributeError):
        return False


def test_architecture_lists_the_rooms_of_the_import_contract_in_its_order():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    layers = re.findall(r"\w+", config["importlinter:contract:rooms"]["layers"])
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    tree = page[: page.index("## ")]  # before the first section
    rooms = re.findall(r"^ {4}(\w+)(?:/|\.py) ", tree, re.MULTILINE)
    assert rooms == layers
