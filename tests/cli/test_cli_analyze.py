"""`unswayed analyze` and `report` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_runs import chance, emotions, make_run, pairs

from unswayed.audit.trials import SCHEMA
from unswayed.cli import main
from unswayed.core.files import write_json, write_table
from unswayed.data.personas import grid_personas
from unswayed.statistics import max_t, power


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(max_t.max_t, "__defaults__", (None, 199))
    monkeypatch.setattr(power, "DRAWS", 200)


def right_for(share: float, skew: float = 0.0):
    """Right on a share of the answers, less often for the disadvantaged."""

    def answer(item, persona):
        less = skew if persona is not None and persona.condition == "disadvantaged" else 0.0
        user = persona.pair_id if persona is not None else None
        return 0 if chance(item.id, user) < share - less else 1

    return answer


def run_of(
    path: Path, share: float = 0.8, skew: float = 0.0, users=None, model="m", scoring="option"
) -> Path:
    answer = right_for(share, skew)
    make_run(path, emotions(20), answer, users or pairs(6), scoring=scoring)
    run = json.loads((path / "run.json").read_text("utf-8"))
    run["identity"]["model"] = model
    write_json(path / "run.json", run)
    rows = [row | {"model": model} for row in pq.read_table(path / "answers.parquet").to_pylist()]
    write_table(rows, SCHEMA, path / "answers.parquet")
    return path


def refusal(capsys, *argv: str) -> str:
    """The one line that a command ends with."""
    assert main(list(argv)) == 2
    err = capsys.readouterr().err
    assert err.startswith("unswayed: ") and err.count("\n") == 1, err
    return err


def test_a_skewed_run_is_called_so(tmp_path, capsys):
    out = run_of(tmp_path / "run", skew=0.6, scoring="generate")
    assert main(["analyze", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "advantaged users get better answers than disadvantaged ones" in shown
    assert (out / "report.html").exists() and (out / "report.md").exists()


def test_report_draws_what_analyze_wrote(tmp_path, capsys):
    out = run_of(tmp_path / "run")
    assert "run `unswayed analyze" in refusal(capsys, "report", str(out))
    main(["analyze", str(out)])
    before = (out / "summary.json").read_bytes()
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "summary.json").read_bytes() == before
    assert "5 points" in (out / "report.html").read_text("utf-8")


def test_interactions_on_request(tmp_path, capsys):
    out = run_of(tmp_path / "run", users=grid_personas())
    assert main(["analyze", str(out)]) == 0
    (test,) = json.loads((out / "summary.json").read_text("utf-8"))["tests"].values()
    assert test["grid"]["interactions"] == [] and len(test["grid"]["contrasts"]) == 8
    assert main(["analyze", str(out), "--interactions"]) == 0
    (test,) = json.loads((out / "summary.json").read_text("utf-8"))["tests"].values()
    assert test["grid"]["interactions"][0]["name"] == "gender x age"
    assert len(test["grid"]["interactions"]) == 6


def test_several_models_side_by_side(tmp_path, capsys):
    runs = [run_of(tmp_path / name, share, model=name) for name, share in (("a", 0.9), ("b", 0.6))]
    assert main(["analyze", *map(str, runs), "--out", str(tmp_path / "both")]) == 0
    assert "agreement.html" in capsys.readouterr().out
    content = json.loads((tmp_path / "both" / "agreement.json").read_text("utf-8"))
    assert {model["label"] for model in content["models"]} == {"a", "b"}
    for path in runs:
        assert (path / "summary.json").exists() and (path / "report.html").exists()


def test_runs_that_cannot_be_compared_are_refused_before_any_work(tmp_path, capsys):
    first = run_of(tmp_path / "one", model="a")
    second = run_of(tmp_path / "other", users=pairs(4), model="b")
    both = ["analyze", str(first), str(second)]
    assert "add --out" in refusal(capsys, *both)
    assert "did not ask the same" in refusal(capsys, *both, "--out", str(tmp_path / "x"))
    assert not (first / "summary.json").exists() and not (tmp_path / "x").exists()
    assert "--out is for" in refusal(capsys, "analyze", str(first), "--out", str(tmp_path / "x"))


def test_one_pair_says_nothing_of_other_users(tmp_path, capsys):
    out = run_of(tmp_path / "run", users=pairs(1))
    assert "one persona pair only" in refusal(capsys, "analyze", str(out))


def test_no_run_and_half_a_run(tmp_path, capsys):
    assert "is not a run directory" in refusal(capsys, "analyze", str(tmp_path))
    out = run_of(tmp_path / "run")
    (out / "answers.parquet").write_bytes(b"PAR1")
    assert "damaged" in refusal(capsys, "analyze", str(out))
    (out / "run.json").write_text("{}")
    assert "is no record of an audit" in refusal(capsys, "analyze", str(out))


def test_rows_of_two_runs_in_one_directory(tmp_path, capsys):
    first, second = run_of(tmp_path / "one", model="a"), run_of(tmp_path / "other", model="b")
    rows = [*pq.read_table(first / "answers.parquet").to_pylist()]
    rows += pq.read_table(second / "answers.parquet").to_pylist()
    write_table(rows, SCHEMA, first / "answers.parquet")
    run = json.loads((first / "run.json").read_text("utf-8")) | {"n_trials": len(rows)}
    write_json(first / "run.json", run)
    assert "mixes rows of different models" in refusal(capsys, "analyze", str(first))


def test_another_rule_reads_a_run_again(tmp_path, capsys):
    """By the sum option 0 wins everywhere, by pmi as the run says; the report follows."""
    out = run_of(tmp_path / "run", share=0.8)
    rows = pq.read_table(out / "answers.parquet").to_pylist()
    for row in rows:
        n, picked = len(row["options"]), row["options"].index(row["answer"])
        row["option_scores"] = [-1.0] + [-2.0] * (n - 1)
        row["option_priors"] = list(row["option_scores"])
        row["option_priors"][picked] -= 1.0
        row["option_tokens"] = [1] * n
    write_table(rows, SCHEMA, out / "answers.parquet")
    assert main(["analyze", str(out)]) == 0
    by_pmi = json.loads((out / "summary.json").read_text("utf-8"))
    assert main(["analyze", str(out), "--rule", "sum"]) == 0
    by_sum = json.loads((out / "summary.json").read_text("utf-8"))
    assert (by_pmi["rule"], by_sum["rule"]) == ("pmi", "sum")
    (test,) = by_sum["tests"]
    accuracies = [s["tests"][test]["conditions"]["advantaged"]["accuracy"]["estimate"]
                  for s in (by_pmi, by_sum)]  # fmt: skip
    assert accuracies[0] < accuracies[1] == 1.0
    assert "rule sum" in (out / "report.md").read_text("utf-8")
    assert rows == pq.read_table(out / "answers.parquet").to_pylist()  # which stays as it is
    capsys.readouterr()
    assert "not one of sum, char, token, pmi" in refusal(capsys, "analyze", str(out), "--rule", "x")
    other = run_of(tmp_path / "other", model="n")
    assert main(["analyze", str(other)]) == 0
    compare = ("compare", str(out), str(other), "--out", str(tmp_path / "both"))
    assert "was analyzed by rule sum, its answers were chosen by pmi" in refusal(capsys, *compare)
