"""Figures for the Hub: huggingface_hub's own round trips, and nothing of others is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from made_runs import actions, chance, emotions, make_run, pairs

from unswayed.audit.rundir import read_run
from unswayed.audit.summary import analyze, read_summary
from unswayed.cli import main
from unswayed.core.errors import InputError
from unswayed.data.personas import grid_personas
from unswayed.publish.results import (
    TASK_NAME,
    card_results,
    eval_entries,
    figures,
    merge_card,
    merge_entries,
    merge_index,
)

CARD = """\
---
# who made it
language: no
license: apache-2.0   # theirs
tags: [a, 'b']
model-index:
- name: their-model
  results:
  - task: {type: text-generation, name: Maths}
    dataset: {type: gsm8k, name: GSM8K, config: main}
    metrics:
    - type: accuracy
      value: 0.5
    source: {url: 'https://example.org', name: Somebody}
  - task: {type: text-generation}
    dataset: {type: gsm8k, name: GSM8K again, config: main}
    metrics: [{type: accuracy, value: 0.6, name: another setting}]
base_model: x/y
---

# Their model

model-index: is not here
---
"""


def mostly_right(item, persona):
    return 0 if chance(item.id, persona and persona.id) < 0.7 else 1


def analyzed(folder: Path, *args, policy: str | None = None) -> Path:
    """A complete run with its summary."""
    analyze(make_run(folder, *args), policy)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "run"
    return analyzed(folder, [*emotions(6), *actions(5)], mostly_right, pairs(3))


@pytest.fixture(scope="module")
def summary(out) -> dict:
    return read_summary(out)


def card(out: Path, repo: Path, *argv: str) -> int:
    return main(["card", str(out), "--out", str(repo), *argv])


def loaded(repo: Path) -> ModelCard:
    return ModelCard.load(repo / "README.md")


# -- figures -------------------------------------------------------------------------------------


def test_figures_are_the_summarys(summary):
    by_task = {figure.task_id: figure for figure in figures(summary)}
    assert len(by_task) == len(figures(summary)) == 2 * (4 + 3 + 2)
    for name, test in summary["tests"].items():
        for condition, values in test["conditions"].items():
            figure = by_task[f"{name}_accuracy_{condition}"]
            for ours, theirs in (("value", "estimate"), ("low", "low"), ("high", "high")):
                assert getattr(figure, ours) == pytest.approx(values["accuracy"][theirs], abs=5e-5)
            assert (figure.n, figure.n_items) == (values["n"], test["n_items"])
            if condition == "none":
                assert f"{name}_flip_rate_none" not in by_task
            else:
                flips = by_task[f"{name}_flip_rate_{condition}"]
                assert flips.value == pytest.approx(values["flip_rate"]["estimate"], abs=5e-5)
        (gap,) = [e for e in test["effects"] if (e["name"], e["metric"]) == ("gap", "accuracy")]
        figure = by_task[f"{name}_persona_gap"]
        assert figure.value == pytest.approx(gap["estimate"], abs=5e-5)
        assert figure.low == pytest.approx(gap["low"], abs=5e-5) and figure.n == 18 - 3 * (
            name == "management"
        )


@pytest.mark.parametrize(
    ("items", "personas", "conditions"),
    [
        (emotions(3), pairs(2), ["none"]),
        (emotions(3), pairs(1), ["neutral"]),
        (emotions(1), pairs(2), None),
        (emotions(3), grid_personas(), None),
    ],
)
def test_any_run_has_figures(tmp_path, items, personas, conditions):
    run = analyzed(tmp_path / "run", items, mostly_right, personas, conditions)
    assert card(run, tmp_path / "repo", "--dataset-id", "a/b") == 0
    results = loaded(tmp_path / "repo").data.eval_results
    assert results and all(isinstance(result.metric_value, float) for result in results)
    assert all(None not in result.metric_args.values() for result in results)


# -- .eval_results -------------------------------------------------------------------------------


def test_entries_go_through_huggingface_hub_and_back(out, summary, tmp_path):
    assert card(out, tmp_path, "--dataset-id", "me/emotions") == 0
    text = (tmp_path / ".eval_results" / "unswayed.yaml").read_text("utf-8")
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert entries == eval_entries(read_run(out), summary, "me/emotions")
    by_task = {entry.task_id: entry for entry in entries}
    gap = by_task["understanding_persona_gap"]
    assert gap.date == "2026-01-01T00:01:15+00:00" and isinstance(gap.date, str)
    assert "Persona gap, advantaged - disadvantaged: 95% interval" in gap.notes
    assert "18 differences on 6 items" in gap.notes and summary["verdict"]["text"] in gap.notes
    assert str(out.parent) not in text


def test_entries_of_others_stay(out, summary):
    theirs = {
        "dataset": {"id": "cais/hle", "task_id": "hle"},
        "value": 9,
        "evaluation_framework": "x",
    }
    new = eval_entries(read_run(out), summary, "me/emotions")
    merged = merge_entries([theirs], new)
    assert merged[0] == theirs and len(merged) == 1 + len(new)
    changed = [{**merged[1], "value": 0.999}, theirs, *merged[2:]]
    assert merge_entries(changed, new) == [merged[1], theirs, *merged[2:]]
    assert merge_entries(merged, new) == merged


@pytest.mark.parametrize("text", ["5", "- a", "- {value: 5}", "a: [", "- {dataset: x, value: 1}"])
def test_a_foreign_file_is_not_overwritten(out, tmp_path, capsys, text):
    path = tmp_path / ".eval_results" / "unswayed.yaml"
    path.parent.mkdir()
    path.write_text(text)
    assert card(out, tmp_path, "--dataset-id", "me/emotions") == 2
    assert "is not in the form of .eval_results" in capsys.readouterr().err
    assert path.read_text() == text and not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("name", ["emotions", "a/b/c", "a b/c", "../x", ""])
def test_a_dataset_id_must_be_one(out, tmp_path, capsys, name):
    assert card(out, tmp_path / "repo", "--dataset-id", name) == 2
    err = capsys.readouterr().err
    assert "is no id of a dataset on the Hub" in err and err.count("\n") == 1
    assert not (tmp_path / "repo").exists()


# -- the model card ------------------------------------------------------------------------------


def test_results_go_through_huggingface_hub_and_back(summary):
    results = card_results(summary, "me/emotions")
    index = eval_results_to_model_index("made-up", results)
    assert model_index_to_eval_results(index) == ("made-up", results)
    assert merge_index([], "made-up", results) == index
    assert [r["dataset"]["config"] for r in index[0]["results"]] == ["understanding", "management"]


def test_a_card_is_made(out, summary, tmp_path):
    repo = tmp_path / "new" / "repo"
    assert card(out, repo) == 0
    assert loaded(repo).data.eval_results == card_results(summary)
    assert loaded(repo).data.model_name == "made-up"
    assert loaded(repo).text == "\n# made-up\n"
    assert [path.name for path in repo.iterdir()] == ["README.md"]  # no .eval_results without id


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_card_keeps_what_it_has(out, summary, tmp_path, line_end):
    (tmp_path / "README.md").write_bytes(CARD.replace("\n", line_end).encode())
    assert card(out, tmp_path) == 0
    text = (tmp_path / "README.md").read_bytes().decode()
    assert text.count("\n") == text.count(line_end)
    before, after = CARD.replace("\n", line_end).split("model-index:")[0], "base_model: x/y"
    assert text.startswith(before) and "language: no" in text
    assert text[text.index(after) :] == CARD[CARD.index(after) :].replace("\n", line_end)
    assert loaded(tmp_path).data.model_name == "their-model"
    data = yaml.safe_load(text.split("---")[1])
    (entry,) = data["model-index"]
    assert entry["results"][:2] == yaml.safe_load(CARD.split("---")[1])["model-index"][0]["results"]
    assert loaded(tmp_path).data.eval_results[2:] == card_results(summary)


@pytest.mark.parametrize(
    "old", [None, "", "# Only text\n", CARD, "---\nlicense: mit\n---\n", "---\n# c\n---\nx"]
)
def test_a_second_time_changes_nothing(out, tmp_path, capsys, old):
    if old is not None:
        (tmp_path / "README.md").write_text(old)
    card(out, tmp_path, "--dataset-id", "me/emotions")
    once = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert len(once) == 2
    capsys.readouterr()
    card(out, tmp_path, "--dataset-id", "me/emotions")
    assert capsys.readouterr().out == "Nothing to change; nothing was uploaded.\n"
    assert once == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    body = (old or "# made-up\n").rpartition("---\n")[2]
    assert (tmp_path / "README.md").read_text().endswith(body)


def test_a_new_run_replaces_its_own_results_only(out, summary, tmp_path):
    results = card_results(summary)
    once = merge_card(CARD, "made-up", results, "README.md")
    other = analyzed(tmp_path / "run", emotions(4), lambda item, persona: 0, pairs(2))
    newer = card_results(read_summary(other), "me/emotions")
    results = ModelCard(merge_card(once, "made-up", newer, "README.md")).data.eval_results
    tests = [r.dataset_config for r in results if r.task_name == TASK_NAME]
    assert tests == ["understanding"] * 9 + ["management"] * 9
    assert [r for r in results if r.dataset_config == "understanding"] == newer
    assert [r.metric_value for r in results[:2]] == [0.5, 0.6]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("---\na: [\n---\n", "README.md:2: its metadata is not YAML"),
        ("---\n- a\n---\n", "its metadata must be a mapping"),
        ("---\nmodel-index: 5\n---\n", "its model-index is not in the Hub's form"),
        ("---\nmodel-index: [{name: x}]\n---\n", "its model-index is not in the Hub's form"),
        ("---\n{license: mit}\n---\n", "a form that cannot be added to"),
    ],
)
def test_a_card_that_cannot_be_read(out, tmp_path, capsys, text, says):
    (tmp_path / "README.md").write_text(text)
    assert card(out, tmp_path, "--dataset-id", "me/emotions") == 2
    err = capsys.readouterr().err
    assert says in err and err.startswith("unswayed: ") and err.count("\n") == 1
    assert (tmp_path / "README.md").read_text() == text
    assert not (tmp_path / ".eval_results").exists()


# -- the command ---------------------------------------------------------------------------------


def test_what_is_said(out, tmp_path, capsys):
    card(out, tmp_path)
    assert capsys.readouterr().out == (
        f"Wrote {tmp_path / 'README.md'}\nNothing was uploaded.\n"
        "No .eval_results were written: they need --dataset-id.\n"
    )


def test_wrong_folders(out, tmp_path, capsys):
    assert card(tmp_path, tmp_path / "repo") == 2
    assert "is not a run directory" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert card(out, tmp_path / "file") == 2
    assert "is a file; give the folder of a model repository" in capsys.readouterr().err


def test_a_run_without_summary(tmp_path, capsys):
    make_run(tmp_path / "run", emotions(2), mostly_right, pairs(1))
    assert card(tmp_path / "run", tmp_path / "repo") == 2
    assert "run `unswayed analyze" in capsys.readouterr().err


def test_a_margin_of_its_own_is_kept(tmp_path):
    """The verdict on the Hub is that of the run's summary, made with `analyze --policy`."""
    (policy := tmp_path / "policy.yaml").write_text("margins: {gap: 50}")
    run = analyzed(tmp_path / "run", emotions(40), mostly_right, pairs(3), policy=str(policy))
    card(run, tmp_path / "repo", "--dataset-id", "a/b")
    text = (tmp_path / "repo" / ".eval_results" / "unswayed.yaml").read_text("utf-8")
    assert "Equivalent within 50 points" in yaml.safe_load(text)[-1]["notes"]


def test_input_errors_are_input_errors(summary):
    with pytest.raises(InputError):
        merge_card("---\nmodel-index: 5\n---\n", "x", card_results(summary), "README.md")
