"""The tables of README and docs are those of results/, and name their commands."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def maker(tmp_path, monkeypatch):
    """results/make.py, working on copies of the pages."""
    spec = importlib.util.spec_from_file_location("results_make", ROOT / "results" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    copies = [Path(shutil.copy(page, tmp_path)) for page in module.PAGES]
    monkeypatch.setattr(module, "ORIGINALS", module.PAGES, raising=False)
    monkeypatch.setattr(module, "PAGES", copies)
    return module


def test_the_pages_show_the_stored_results(maker):
    maker.fill()
    for page, original in zip(maker.PAGES, maker.ORIGINALS, strict=True):
        assert page.read_text("utf-8") == original.read_text("utf-8")


def test_every_result_names_its_command_and_no_path_of_a_machine():
    files = sorted((ROOT / "results").glob("*.json"))
    assert {file.stem for file in files} >= {"demo", "scoring", "steu"}
    for file in files:
        text = file.read_text("utf-8")
        assert json.loads(text)["command"].startswith(("unswayed ", "python ")), file.name
        assert not re.search(r"/(home|root|tmp|work|Users)/", text), file.name
