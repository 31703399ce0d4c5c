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
    (tmp_path / "docs").mkdir()
    names = [page.relative_to(ROOT) for page in module.PAGES]
    copies = [Path(shutil.copy(ROOT / name, tmp_path / name)) for name in names]
    monkeypatch.setattr(module, "PAGES", copies)
    return module


def test_the_pages_show_the_stored_results(maker, tmp_path):
    for page in maker.PAGES:  # every table is written anew
        text = page.read_text("utf-8")
        emptied = re.sub(
            r"(<!-- results:[\w ]+ -->\n).*?(<!-- /results)", r"\1\2", text, flags=re.DOTALL
        )
        assert emptied != text
        page.write_text(emptied, "utf-8")
    maker.fill()
    for page in maker.PAGES:
        original = ROOT / page.relative_to(tmp_path)
        assert page.read_text("utf-8") == original.read_text("utf-8")


def test_every_result_names_its_command_and_no_path_of_a_machine():
    files = sorted((ROOT / "results").glob("*.json"))
    assert {file.stem for file in files} >= {"demo", "scoring"}
    for file in files:
        text = file.read_text("utf-8")
        assert json.loads(text)["command"].startswith(("unswayed ", "python ")), file.name
        assert not re.search(r"/(home|root|tmp|work|Users)/", text), file.name


def test_the_plots_show_the_stored_results(maker):
    def lines(svg: str) -> list[float]:
        return [float(number) for at in re.findall(r"[ML] (\S+) (\S+)", svg) for number in at]

    for name, draw in maker.PLOTS.items():
        drawn = draw(json.loads((ROOT / f"results/{name}.json").read_text("utf-8")))
        stored = (ROOT / f"docs/images/{name}.svg").read_text("utf-8")
        assert lines(stored) == pytest.approx(lines(drawn), abs=0.1), name
