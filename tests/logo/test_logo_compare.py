"""Evaluations side by side: what is paired, what is refused, the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from unswayed.cli import main
from unswayed.compare.settings import compare_settings
from unswayed.core.errors import InputError
from unswayed.data.histories import Task
from unswayed.logo.rows import as_frame
from unswayed.logo.tables import write_result
from unswayed.report.comparisons import settings_tables

TASK = Task("stars", "", tuple("12345"), True)


def saved(
    folder: Path,
    said: dict[str, list[int]],
    seeds: tuple[int, ...] = (0, 1),
    task: Task = TASK,
    **logo: Any,
) -> Path:
    """An evaluation of four users with a question each, whose answers are 1, 2, 4, 5.

    Args:
        said: method -> predictions.
    """
    runs, frames = [], []
    for seed in seeds:
        rows = [
            {"user": user, "event": f"{user}1", "part": "test", "segment": 5, "cut": cut, "n": 3,
             "skewed": user == "a", "balanced": False, "method": method, "answer": str(answer),
             "prediction": str(found), "expected": float(found), "rouge_1": found / 5,
             "rouge_l": found / 5}
            for method, predictions in said.items()
            for user, answer, found in zip("abcd", (1, 2, 4, 5), predictions, strict=True)
            for cut in (None, 0)
        ]  # fmt: skip
        (folder / f"seed-{seed}").mkdir(parents=True)
        as_frame(rows).to_parquet(folder / f"seed-{seed}" / "answers.parquet")
        frames.append(as_frame(rows).assign(seed=seed))
        identity = {"model": "tiny", "histories": "stars", "methods": list(said),
                    "logo": {"communities": 4} | logo, "settings": {"seed": seed}}  # fmt: skip
        runs.append(
            {"identity": identity, "users": {"train": 4, "fit": 0, "test": 4}, "asked": {},
             "predictions": 0, "training": []}
        )  # fmt: skip
    write_result(folder, task, runs, pd.concat(frames, ignore_index=True))
    return folder


def test_differences_by_hand(tmp_path: Path):
    full = saved(tmp_path / "full", {"global": [1, 2, 4, 5], "means": [3, 3, 3, 3]})
    one = saved(
        tmp_path / "one", {"means": [3, 3, 3, 3], "global": [2, 3, 5, 4]}, (1, 7), communities=1
    )
    found = compare_settings([full, one])
    assert (found["metric"], found["seeds"], found["same"]) == ("mae", [1], ["means"])
    assert found["evaluations"] == {
        "full": {"logo.communities": 4}, "one": {"logo.communities": 1}
    }  # fmt: skip
    whole = found["measures"]["all"]["global"]
    assert [whole[name]["mae"]["mean"] for name in ("full", "one")] == [0, 1]
    key = ("slice", "method", "metric")
    told = {tuple(row[k] for k in key): row for row in found["differences"]}
    row = told["all", "global", "mae"]
    assert (row["evaluation"], row["estimate"], row["low"], row["high"]) == ("one", 1, None, None)
    assert (row["n_users"], row["n_answers"], row["relative"]) == (4, 4, None)
    assert told["skewed", "global", "accuracy"]["estimate"] == -1
    assert told["cold 0", "means", "rmse"]["estimate"] == 0
    text = settings_tables(found)
    assert "full: logo.communities 4; one: logo.communities 1." in text
    assert "| means | 1.500 " in text and "segment 5" not in text
    assert "| global: one - full | +1.000 | +1.000 | +1.000 |" in text
    back = compare_settings([one, full])
    assert next(
        row["estimate"]
        for row in back["differences"]
        if tuple(row[k] for k in key) == ("all", "global", "mae")
    ) == pytest.approx(-1)


def test_free_text(tmp_path: Path):
    notes = Task("notes", "", None, False)
    full = saved(tmp_path / "full", {"global": [1, 2, 4, 5]}, task=notes)
    same = saved(tmp_path / "same", {"global": [1, 2, 4, 5]}, task=notes)
    found = compare_settings([full, same])
    assert (found["metric"], found["same"]) == ("rouge_l", ["global"])
    text = settings_tables(found)
    assert "full: the same; same: the same." in text and "Difference" not in text


def test_the_command(tmp_path: Path, capsys):
    full = saved(tmp_path / "full", {"global": [1, 2, 4, 5], "means": [3] * 4})
    one = saved(tmp_path / "one", {"global": [1, 2, 4, 4]}, joint=True)
    out = tmp_path / "out"
    assert main(["logo", "compare", str(full), str(one), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert (out / "comparison.md").read_text() in said and "one: logo.joint True" in said
    found = json.loads((out / "comparison.json").read_text())
    assert found["differences"] and str(tmp_path) not in json.dumps(found)


def test_what_cannot_be_compared(tmp_path: Path, capsys):
    full = saved(tmp_path / "full", {"global": [1, 2, 4, 5]})
    twin = saved(tmp_path / "deep" / "full", {"global": [1, 2, 4, 5]})
    means = saved(tmp_path / "means", {"means": [1, 2, 4, 5]})
    later = saved(tmp_path / "later", {"global": [1, 2, 4, 5]}, (8,))
    other = saved(tmp_path / "other", {"global": [1, 2, 4, 5]})
    lost = saved(tmp_path / "lost", {"global": [1, 2, 4, 5]})
    odd = tmp_path / "odd"
    odd.mkdir()
    for path in other.glob("*/answers.parquet"):
        pd.read_parquet(path).assign(answer="3").to_parquet(path)
    (lost / "seed-1" / "answers.parquet").write_bytes(b"nothing")
    for dirs, message in (
        ([full], "give two folders or more, each with another name"),
        ([full, twin], "give two folders or more, each with another name"),
        ([full, means], r"no method in common \(full: global; means: means\)"),
        ([full, later], r"no seed in common \(full: 0, 1; later: 8\)"),
        ([full, other], "put 16 and 16 questions to global, and not the same"),
        ([full, lost], r"answers\.parquet is not there or cannot be read"),
        ([full, odd], r"result\.json: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            compare_settings(dirs)
    (odd / "result.json").write_text('{"runs": []}')
    out = tmp_path / "out"
    assert main(["logo", "compare", str(full), str(odd), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "is no result of `unswayed logo evaluate`" in error and error.count("\n") == 1
    assert not out.exists()
    assert main(["logo", "compare", str(full), str(means), "--out", str(odd / "result.json")]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err
