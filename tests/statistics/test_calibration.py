"""The simulated audits of benchmarks/ have the truth that they claim, and are judged."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch):
    """benchmarks/calibration.py and benchmarks/generators.py."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("calibration"), importlib.import_module("generators")


def kinds(calibration) -> list[dict]:
    """One design of each generator, outcome and size of gap."""
    pairs = [design for design in calibration.designs() if design["sample"] != "grid"]
    return list({json.dumps(d["parameters"]): d for d in pairs}.values())


def test_the_gap_of_each_generator_is_the_one_it_claims(bench):
    calibration, generators = bench
    rng = np.random.default_rng(0)
    for design in kinds(calibration):
        if design["sample"] == "unread":  # what is unread counts as wrong, so the gap seen differs
            continue
        sample = getattr(generators, design["sample"])
        audits = [sample(rng, 400, 60, **design["parameters"]) for _ in range(12)]
        off = [np.nanmean(a.values["advantaged"] - a.values["disadvantaged"]) - a.these
               for a in audits]  # fmt: skip
        error = np.std(off, ddof=1) / np.sqrt(len(off))
        assert abs(np.mean(off)) < 5 * error + 1e-9, design
        gaps = [a.these - a.gap for a in audits]
        error = np.std(gaps, ddof=1) / np.sqrt(len(gaps))
        assert abs(np.mean(gaps)) < 5 * error + 1e-9, design


def test_the_functions_and_the_way_from_answers_to_the_gate_agree(bench):
    calibration, _ = bench
    chosen = {"rare": 59, "unread": 59, "latent": 59}
    bar = calibration.Progress(10, "audits", quiet=True)
    for design in kinds(calibration):
        if design["n_items"] == chosen.get(design["sample"]) and design["public"]:
            chosen.pop(design["sample"])
            found = calibration.public_pairs(design, 1, bar)
            assert found["largest_difference"] < 1e-9
            assert found["refused"]["rate"] == 0
    missing = next(d for d in kinds(calibration) if d["sample"] == "missing")
    assert calibration.public_pairs(missing, 1, bar)["refused"]["rate"] == 1


def test_what_is_in_the_file_is_not_simulated_again(bench, monkeypatch, tmp_path):
    calibration, _ = bench
    few = [d | {"public": False} for d in calibration.designs() if d["sample"] in ("rare", "grid")]
    out = tmp_path / "calibration.json"
    command = ["calibration.py", "--runs", "2", "--grids", "1", "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setattr(calibration, "designs", lambda: [few[0], few[-1]])
    calibration.main()
    whole = json.loads(out.read_text("utf-8"))
    assert [row["covered"]["n"] for row in whole["designs"].values()] == [2, 1]

    key = next(iter(whole["designs"]))
    kept = whole["designs"].pop(key)
    out.write_text(json.dumps(whole), "utf-8")
    calibration.main()
    again = json.loads(out.read_text("utf-8"))
    assert again["designs"][key] == kept


def test_few_users_who_lose_are_not_called_equivalent_at_large(bench):
    calibration, _ = bench
    design = next(d for d in calibration.designs() if d["n_users"] == 60)
    found = calibration.of_pairs(design, 100, calibration.Progress(100, "audits", quiet=True))
    assert found["false_equivalent"]["n"] == 100
    assert found["false_equivalent"]["low"] <= 0.06
