"""Stored results as tables: figures are those of the files."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from unswayed.core.errors import InputError
from unswayed.space import tables


def value(estimate: float) -> dict:
    return {"estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.1}


def test_an_audits_figures_in_percent(root):
    path = root / "results" / "demo.json"
    summary = json.loads(path.read_text("utf-8"))["summary"]
    view = tables.show_file(path)
    assert len(view.first) == sum(len(t["conditions"]) for t in summary["tests"].values())
    row = view.first.iloc[0]
    accuracy = summary["tests"]["understanding"]["conditions"]["none"]["accuracy"]
    assert row["Accuracy"] == round(100 * accuracy["estimate"], 1)
    assert row["Accuracy, low"] == round(100 * accuracy["low"], 1)
    assert len(view.second) == sum(len(t["effects"]) for t in summary["tests"].values())
    assert summary["verdict"]["text"] in view.note and "unswayed audit" in view.note
    assert view.plots.count("<table") == 4
    assert view.first["Accuracy"].dtype.kind == "f"  # sorted as numbers
    assert tables.records(view)["first"][0]["Test"] == "understanding"


def test_only_results_that_can_be_shown_are_offered(root):
    stored = tables.stored(root / "results")
    assert {"demo (an audit)", "grid (an audit)"} <= set(stored)
    assert not any(label.startswith(("calibration", "flips")) for label in stored)
    for path in stored.values():
        assert len(tables.show_file(path and root / path).first)


def test_memories_side_by_side_under_any_key():
    level = {"memory": "plum", "metric": "flip", "name": "neutral", **value(0.25)}
    comparison = {
        "model": "m", "reference": "prompt", "warnings": ["Beware."],
        "memories": [{"name": "prompt"}, {"name": "plum"}],
        "tests": {"steu": {
            "levels": [level],
            "differences": [level | {"finding": "lower", "p_holm": 0.01234} | value(-0.2)],
        }},
    }  # fmt: skip
    form, inner = tables.form_of({"command": "unswayed compare", "comparison": comparison})
    assert (form, inner) == (tables.MEMORIES, comparison)
    view = tables.memories_view(comparison, "")
    assert view.first.iloc[0]["Value"] == 25.0
    assert view.second.iloc[0].to_dict() | {"Points": -20.0, "Finding": "lower"} == (
        view.second.iloc[0].to_dict()
    )
    assert view.second.iloc[0]["Memory"] == "plum − prompt" and "Beware." in view.note
    assert "plum: Neutral memory" in view.plots


def test_before_and_after_training():
    sides = {"before": value(0.3), "after": value(0.1), "change": value(-0.2), "relative": None}
    sweep = {
        "model": "m", "level": 0.95, "margin": 0.02, "references": {},
        "results": [{
            "name": "base", "seed": 1, "recipe": {}, "capability": None,
            "tests": {"steu": {"n_items": 3, "n_pairs": 2, "at_chance": False, "flips": sides}},
            "training": {"pairs": 9, "steps": 3, "seconds": 90.0,
                         "preference_accuracy": {"train": 0.75, "test": None}},
        }],
    }  # fmt: skip
    form, inner = tables.form_of(sweep)
    assert form == tables.TRAININGS
    view = tables.trainings_view(inner, "")
    assert list(view.first["Value"]) == [30.0, 10.0, -20.0]
    assert view.second.iloc[0]["Minutes"] == 1.5
    assert view.second.iloc[0]["Preference accuracy, train (%)"] == 75.0
    assert "base, seed 1: before" in view.plots


def test_what_a_visitor_names(tmp_path, monkeypatch):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InputError, match="no result of"):
        tables.show_source(str(tmp_path / "x.json"))
    with pytest.raises(InputError, match="run directory"):
        tables.show_source(str(tmp_path))
    monkeypatch.setenv("SPACE_ID", "owner/name")
    for path in (str(tmp_path), "/etc/passwd", ""):
        with pytest.raises(InputError, match="give a dataset of the Hub"):
            tables.show_source(path)
    with pytest.raises(InputError, match="no public dataset"):
        tables.show_source("hub:nobody/nothing")


def test_rows_of_other_datasets_are_refused():
    with pytest.raises(InputError, match="the column question_id is missing"):
        tables.summary_of(pd.DataFrame({"text": ["a"]}), "hub:a/b")
