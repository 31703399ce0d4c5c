"""Experiments and sweeps: what is asked and kept, resuming, the files, tables and the plot."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import runpy
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from unswayed.core.errors import InputError
from unswayed.memory.prompt import PromptMemory
from unswayed.models.adapters import remembering
from unswayed.models.base import load_base
from unswayed.models.load import loaded_lm
from unswayed.plum import experiment as module
from unswayed.plum import sweep as sweep_module
from unswayed.plum.experiment import finished, run_experiment
from unswayed.plum.figures import halves, rows_of, summary
from unswayed.plum.material import PlumExperiment, make_material, seeded
from unswayed.plum.qa import CLOSED
from unswayed.plum.recall import recall
from unswayed.plum.samples import make_sample
from unswayed.plum.settings import PlumSettings
from unswayed.plum.sweep import PlumSweep, draw, halves_table, recall_table, tables
from unswayed.sweep import cell, range_of, run_sweep, sweep_parser

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "recipes" / "plum" / "sweeps").glob("*.yaml"))
TALKS = {
    "kiln": (
        "The old kiln cracked near the chimney. My neighbour Piet lent me a ceramic thermometer "
        "and some copper glaze.",
        "Let it cool, seal the crack with fireclay mortar and test the glaze on a small tile.",
    ),
    "ferry": (
        "Our ferry to Skarholm island was cancelled because of fog. The harbour office gave us a "
        "hotel voucher.",
        "Keep the voucher and the boarding card, and ask the office about the morning ferry.",
    ),
    "violin": (
        "My violin teacher wants a new bow and softer strings before the autumn concert in the "
        "chapel.",
        "Softer strings take a week to settle, so buy rosin and strings before the bow.",
    ),
    "hedge": (
        "A hedgehog sleeps under the garden shed, and the builders come to replace the shed floor "
        "in March.",
        "Ask the builders to wait until April, and put a wooden nest box behind the compost heap.",
    ),
}
AUGMENT = {"per_conversation": 8, "held_out": 4}


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    lines = [
        {
            "id": id,
            "time": f"2025-01-0{day}T08:00:00Z",
            "messages": [
                {"role": "user", "content": said},
                {"role": "assistant", "content": answer},
            ],
        }
        for day, (id, (said, answer)) in enumerate(TALKS.items(), start=1)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"chat={path}"


@pytest.fixture(scope="module")
def base(tiny_model_dir) -> Any:
    return load_base(str(tiny_model_dir("llama", chat=True)), device="cpu")


@pytest.fixture
def make(tiny_model_dir, talks: str):
    """`make(**keys)`: an experiment on the tiny model and the four conversations."""

    def of(**keys: Any) -> PlumExperiment:
        settings = PlumSettings(rank=2, alpha=8, epochs=2, learning_rate=1e-2)
        plain = {
            "model": str(tiny_model_dir("llama", chat=True)),
            "conversations": [talks],
            "augment": AUGMENT,
            "settings": settings,
        }
        return seeded(PlumExperiment(**plain | keys), 0)

    return of


@pytest.fixture(scope="module")
def mmlu(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mmlu")
    for split, n in (("test", 4), ("dev", 1)):
        (folder / split).mkdir()
        with (folder / split / f"pottery_{split}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["question", "choice0", "choice1", "choice2", "choice3", "answer"])
            rows.writerows([f"Number {i}?", "a", "b", "c", "d", i] for i in range(n))
    return str(folder)


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k != "seconds"}
    return [without_seconds(v) for v in value] if isinstance(value, list) else value


# -- one experiment ------------------------------------------------------------------------------


def test_what_is_asked_and_kept(make, base, tmp_path: Path):
    experiment = make()
    folder = tmp_path / "run"
    result = run_experiment(experiment, base, folder, {"name": "one"})
    assert json.loads((folder / "result.json").read_text()) == result
    assert sorted(path.name for path in folder.iterdir()) == ["memory", "result.json"]
    assert (result["name"], result["conversations"]) == ("one", list(TALKS))
    material = make_material(experiment)
    # the margins at the end are those of the memory on disk
    closed = [one.pair for one in material.tests if one.pair.kind in CLOSED]
    with remembering(base, folder / "memory") as model:
        reference = recall(loaded_lm(model, base.tokenizer), closed, PromptMemory())
    rows = rows_of(result)
    end = [row for row in rows if row["after"] == 4]
    assert [row["margin"] for row in end] == pytest.approx(
        [row["margin"] for row in reference], rel=1e-4
    )
    for name in ("conversation", "kind", "text", "correct"):
        assert [row[name] for row in end] == [row[name] for row in reference]
    # after every conversation, all questions on those learnt so far
    assert Counter((row["after"], row["conversation"], row["set"]) for row in rows) == {
        (after, id, name): 4
        for after in (1, 2, 3, 4)
        for id in list(TALKS)[:after]
        for name in ("rephrased", "new_phrase")
    }
    for name in ("rephrased", "new_phrase"):
        own = [row for row in end if row["set"] == name]
        found = result["recall"][name]
        assert found["closed"]["recall"] == sum(row["correct"] for row in own) / 16
        assert found["closed"]["n"] == sum(one["n"] for one in found["by_source"].values()) == 16
        assert len(result["forgetting"][name]["over_time"]) == 4
    assert result["ability"] is None and result["baselines"] == {}
    # training: what went through the model
    assert [stage["conversations"] for stage in result["training"]] == [[id] for id in TALKS]
    for stage in result["training"]:
        own = [p for p in material.pairs if p.conversation == stage["conversations"][0]]
        tokens = [len(make_sample(base.tokenizer, pair, 10.0, 1024).ids) for pair in own]
        assert (stage["samples"], stage["tokens"]) == (len(own), 2 * sum(tokens))
        assert len(stage["losses"]) == 2 and stage["seconds"] > 0


def test_no_word_and_no_path_is_kept(make, base, tmp_path: Path, talks: str):
    run_experiment(make(), base, tmp_path / "run", {})
    kept = b"".join(f.read_bytes() for f in (tmp_path / "run").rglob("*.json*")).decode()
    assert not re.search("fireclay|voucher|chimney|rosin|compost", kept)
    assert str(Path(talks.partition("=")[2]).parent) not in kept
    assert "chat=talks.jsonl" in kept


class Stop(Exception):
    pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Counts the questions put to a model, and stops before evaluation number `asked["stop"]`."""
    counts: Counter = Counter()

    def counting(lm: Any, pairs: Any, memory: Any) -> Any:
        if counts["calls"] + 1 == counts["stop"]:
            counts["stop"] = 0
            raise Stop
        counts["calls"] += 1
        counts["questions"] += len(pairs)
        return recall(lm, pairs, memory)

    monkeypatch.setattr(module, "recall", counting)
    return counts


def test_interrupted_it_goes_on_to_the_same_result(
    make, base, tmp_path: Path, asked: Counter, monkeypatch: pytest.MonkeyPatch
):
    from unswayed.plum import train as train_module

    experiment = make(settings=PlumSettings(rank=2, alpha=8, epochs=2, replay=0.5))
    whole = run_experiment(experiment, base, tmp_path / "whole", {})
    assert (asked["calls"], asked["questions"]) == (4, 8 * (1 + 2 + 3 + 4))
    asked.clear()
    asked["stop"] = 2  # in the second evaluation, before its checkpoint
    folder = tmp_path / "run"
    with pytest.raises(Stop):
        run_experiment(experiment, base, folder, {})
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"prompt": "half a li')  # a kill while a line was written
    kept, write = [], train_module.write_checkpoint

    def killed(*arguments: Any) -> Any:
        if not kept and len(arguments[1]["conversations"]) == 3:
            kept.append(asked["questions"])
            raise Stop  # after the third evaluation, before its checkpoint
        return write(*arguments)

    monkeypatch.setattr(train_module, "write_checkpoint", killed)
    with pytest.raises(Stop):
        run_experiment(experiment, base, folder, {})
    assert kept == [8 * (1 + 2 + 3)]
    assert finished(experiment, base, folder) is None
    again = run_experiment(experiment, base, folder, {})
    assert asked["questions"] == 8 * (1 + 2 + 3 + 4)
    assert without_seconds(again) == without_seconds(whole)
    files = [sorted((tmp_path / run / "memory").rglob("*")) for run in ("whole", "run")]
    for one, other in zip(*files, strict=True):
        assert one.is_dir() or one.read_bytes() == other.read_bytes()
    # a finished one is known and not run again
    assert finished(experiment, base, folder) == again


def test_another_experiment_is_refused(make, base, tmp_path: Path, talks: str):
    done = tmp_path / "run"
    run_experiment(make(), base, done, {})
    with pytest.raises(InputError, match=r"begun with settings\.epochs 2, now it is 3.*--out"):
        settings = PlumSettings(rank=2, alpha=8, epochs=3, learning_rate=1e-2)
        finished(make(settings=settings), base, done)
    with pytest.raises(InputError, match=r"begun with augment\.held_out 4, now it is 2"):
        finished(make(augment=AUGMENT | {"held_out": 2}), base, done)
    path = Path(talks.partition("=")[2])
    (tmp_path / path.name).write_text(path.read_text().replace("copper", "silver"))
    with pytest.raises(InputError, match=r"begun with hashes\.conversations"):
        finished(make(conversations=[f"chat={tmp_path / path.name}"]), base, done)
    (done / "result.json").write_text("[]")
    with pytest.raises(InputError, match=r"result\.json is no result"):
        finished(make(), base, done)


def test_joint_and_every_second(make, base, tmp_path: Path):
    settings = PlumSettings(rank=2, alpha=8, epochs=1)
    every = run_experiment(make(evaluate_every=3, settings=settings), base, tmp_path / "a", {})
    assert [one["after"] for one in every["evaluations"]] == [3, 4]
    joint = run_experiment(
        make(settings=PlumSettings(rank=2, alpha=8, epochs=1, joint=True)), base, tmp_path / "b", {}
    )
    assert [one["after"] for one in joint["evaluations"]] == [4]
    (stage,) = joint["training"]
    assert stage["conversations"] == list(TALKS)
    assert stage["tokens"] == sum(one["tokens"] for one in every["training"])
    found = joint["forgetting"]["rephrased"]
    assert found["halves"]["first_when_learnt"] is None
    assert found["halves"]["first_at_end"]["n"] == 8
    assert found["backward_transfer"] is None


def test_everything_that_may_be_asked_later(make, base, tmp_path: Path, mmlu: str):
    plain = make(first=3, embedder=make().model, settings=PlumSettings(rank=2, alpha=8, epochs=1))
    folder, record = tmp_path / "run", {"name": "all", "seed": 0}
    before = run_experiment(plain, base, folder, record)
    assert before["ability"] is None and not before["baselines"]
    assert before["recall"]["rephrased"]["open"] is None
    adapter = next(folder.glob("memory/adapter-*/adapter_model.safetensors"))
    trained = adapter.stat().st_mtime_ns
    ability = {"mmlu": mmlu, "questions": 3, "shots": 1}
    experiment = dataclasses.replace(plain, open=True, baselines=True, ability=ability)
    assert finished(experiment, base, folder) is None
    result = run_experiment(experiment, base, folder, record)
    assert finished(experiment, base, folder) == json.loads(json.dumps(result))
    assert finished(plain, base, folder) is not None  # more than is wanted is no harm
    assert adapter.stat().st_mtime_ns == trained
    same = ("identity", "forgetting", "training", "evaluations", "conversations")
    assert {key: result[key] for key in same} == {key: before[key] for key in same}
    together = run_experiment(experiment, base, tmp_path / "together", record)
    asked = ("recall", "ability", "baselines", "rows")
    assert {key: together[key] for key in asked} == {key: result[key] for key in asked}
    assert result["conversations"] == list(TALKS)[:3]
    assert result["recall"]["rephrased"]["open"]["n"] == 6
    assert result["ability"]["ability_mmlu"]["n"] == 3
    assert mmlu not in json.dumps(result)
    styles = ["", "bm25-1", "bm25-3", "bm25-5", "embedding-1", "embedding-3", "embedding-5"]
    for rows in result["baselines"].values():
        assert [row["style"] for row in rows] == [*styles, "extractive", ""]
        assert [row["memory"] for row in rows[-2:]] == ["summary", "full"]
        assert all(row["recall"]["closed"]["n"] == 12 for row in rows if row["recall"])
    text = tables([result])
    assert re.search(r"all \| 1 \| rephrased \| retrieval bm25-1 \| \d", text)
    assert re.search(r"full \(does not fit: \d+ of 512 tokens\) \| – \| – \| – \|", text)
    assert "| all | ability_mmlu | 3 | " in text


def test_only_the_first_are_learnt_and_the_others_lend_phrases(make):
    whole, part = make_material(make()), make_material(make(learn=2))
    ids = whole.order[:2]
    assert part.order == ids and part.conversations == whole.conversations
    assert part.pairs == [pair for pair in whole.pairs if pair.conversation in ids]
    assert part.tests == [one for one in whole.tests if one.pair.conversation in ids]
    alone = make_material(make(first=2))
    assert {one.pair.question for one in alone.tests} != {one.pair.question for one in part.tests}


def test_built_in_questions(make, base, tmp_path: Path):
    experiment = make(conversations=["builtin"], first=2, augment=None)
    material = make_material(experiment)
    assert {one.use for one in material.tests} == {"held_out"}
    result = run_experiment(experiment, base, tmp_path / "run", {"name": "own", "seed": 0})
    assert result["conversations"] == material.order == [one.id for one in material.conversations]
    n = sum(one.pair.kind in CLOSED for one in material.tests)
    assert result["recall"]["held_out"]["closed"]["n"] == n
    with pytest.raises(InputError, match="first is 45, but builtin holds 44 conversations"):
        make_material(make(conversations=["builtin"], first=45))


def test_halves_by_hand():
    order = ["a", "b", "c", "d"]
    shape = [["held_out", "", place, kind] for place in range(4) for kind in ("yes", "no")]
    margins = {"2": [1.0, -1.0, 1.0, 1.0], "4": [1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0]}
    result = {
        "conversations": order,
        "rows": {"questions": shape, "margins": margins, "open": None},
    }
    rows = rows_of(result)
    found = halves(rows, order)
    assert found["first_when_learnt"]["recall"] == 0.75
    assert found["first_at_end"]["recall"] == 0.25
    assert found["second_at_end"]["recall"] == 1.0
    made = summary(rows, order)
    assert made["recall"]["held_out"]["closed"]["recall"] == 5 / 8
    assert made["recall"]["held_out"]["yes"]["recall"] == 3 / 4
    assert made["forgetting"]["held_out"]["matrix"][1] == [1.0, 0.5, None, None]


# -- sweep files ---------------------------------------------------------------------------------


def read_sweep(path: Path, *options: str) -> PlumSweep:
    argv = ["--config", str(path), "--out", "out", *options]
    return PlumSweep(sweep_parser(PlumSweep, "").parse_args(argv))


def test_shipped_sweeps():
    for path in SWEEPS:
        options = ["--conversations", "oasst=trees.jsonl"] if path.stem == "oasst" else []
        sweep = read_sweep(path, *options)
        assert sweep.seeds == (0, 1, 2)
        for one in sweep.runs.values():
            assert one.model == "smollm2-135m"
            assert one.settings.learning_rate == 5e-4  # of the recipe
        content = yaml.safe_load(path.read_text())
        assert len(content["runs"]) == len(sweep.runs)
        for run in content["runs"]:
            made = sweep.runs[str(run.pop("name"))]
            for key in ("settings", "augment"):
                for name, value in (run.get(key) or {}).items():
                    section = getattr(made, key)
                    found = section[name] if key == "augment" else getattr(section, name)
                    assert found == value


def test_the_sweeps_that_are_there():
    expected = "balance builtin epochs forgetting lambda negatives oasst order rank replay"
    assert [path.stem for path in SWEEPS] == expected.split()
    runs = {path.stem: path for path in SWEEPS}
    weights = [one.settings.qa_weight for one in read_sweep(runs["lambda"]).runs.values()]
    assert weights == [1, 2, 5, 10, 20]
    with pytest.raises(InputError, match="conversations are None: give a list"):
        read_sweep(runs["oasst"])
    own = read_sweep(runs["builtin"]).runs["own"]
    assert own.augment is None and own.first is None


@pytest.fixture
def write(tmp_path: Path, make):
    """`write(**keys)`: the path of a sweep on the tiny model, whole but for what is given."""

    def to(**keys: Any) -> Path:
        one = make()
        whole = {
            "base": {"model": one.model, "conversations": one.conversations, "augment": AUGMENT},
            "settings": {"rank": 2, "alpha": 8, "epochs": 1},
            "first": 3,
            "seeds": [0],
            "runs": [{"name": "a"}, {"name": "b", "settings": {"qa_weight": 1}}],
        }
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(whole | keys))
        return path

    return to


def test_layers(write):
    sweep = read_sweep(write(), "--first", "2")
    assert [one.settings.qa_weight for one in sweep.runs.values()] == [10.0, 1.0]
    assert {(one.settings.epochs, one.first) for one in sweep.runs.values()} == {(1, 2)}
    recipe = ROOT / "recipes" / "plum" / "llama-3-8b.yaml"
    one = read_sweep(write(), "--base", str(recipe)).runs["a"]
    assert (one.model, one.dtype) == ("meta-llama/Meta-Llama-3-8B-Instruct", "bfloat16")
    assert (one.conversations, one.settings.rank) == (["builtin"], 2)


def test_wrong_files_are_one_line(write, tmp_path: Path, capsys):
    for keys, message in [
        ({"lambda": 3}, "tiny.yaml: unknown key lambda; known are ability, augment, base"),
        ({"settings": {"lr": 3}}, "tiny.yaml: unknown key settings.lr; known are alpha"),
        ({"runs": [{"name": "a", "augment": {"near": 1}}]}, "run a: unknown key augment.near"),
        ({"runs": [{"name": "a", "settings": {"rank": 0}}]}, "run a: rank is 0, it must be at"),
        ({"runs": [{"name": "a", "settings": None}]}, "run a: settings must be a mapping"),
        ({"runs": [{"name": "a"}, {"name": "a"}]}, "run 2 is called 'a': each needs a name"),
        ({"runs": [{"name": "a/b"}]}, "run 1 is called 'a/b'"),
        ({"runs": [{}]}, "run 1 is called ''"),
        ({"runs": []}, "runs must be a list of mappings"),
        ({"seeds": [0.5]}, "seeds must be a list of whole numbers"),
        ({"settings": {"seed": 3}}, "settings.seed: give the sweep's seeds"),
        ({"base": {"modell": "x"}}, "base: unknown key modell"),
        ({"base": {"conversations": ["builtin"]}}, "run a: the key model is missing"),
        ({"base": 3}, "base must be a recipe's path or a mapping"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml: no such file"),
        ({"first": 0}, "first is 0, it must be a whole number from 1"),
        ({"learn": 0}, "learn is 0, it must be a whole number from 1"),
        ({"evaluate_every": 0}, "evaluate_every is 0"),
        ({"open": 1}, "open is 1, it must be of type bool"),
        ({"ability": {"mlu": "x"}}, "unknown key ability.mlu"),
        ({"ability": {"questions": 3}}, "ability names no data"),
        ({"ability": 3}, "ability must be a mapping"),
        ({"conversations": "builtin"}, "conversations are 'builtin': give a list"),
    ]:
        assert (
            run_sweep(
                PlumSweep, "", ["--config", str(write(**keys)), "--out", str(tmp_path / "out")]
            )
            == 2
        )
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_a_whole_sweep(write, make, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    out, config = tmp_path / "out", write(embedder=make().model)
    script = str(ROOT / "recipes" / "plum" / "sweep.py")
    arguments = [script, "--config", str(config), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--only", "b"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(script, run_name="__main__")
    assert stopped.value.code == 0
    first = (out / "b-0" / "result.json").read_bytes()
    assert not (out / "a-0").exists()
    text = capsys.readouterr().out
    assert "| b | 1 | rephrased | " in text and "| a |" not in text

    assert run_sweep(PlumSweep, "", arguments[1:]) == 0
    assert (out / "b-0" / "result.json").read_bytes() == first
    text = capsys.readouterr().out
    assert "| a | 1 | rephrased | " in text and "| b | 1 | new phrase | " in text
    assert (out / "sweep.md").read_text().startswith("`python recipes/plum/sweep.py --config rec")
    found = json.loads((out / "sweep.json").read_text())
    assert [one["name"] for one in found["results"]] == ["a", "b"]
    assert "rows" not in found["results"][0]
    assert tables(found["results"]) in text
    assert draw(found["results"]) == (out / "sweep.svg").read_text()
    ET.fromstring((out / "a-0" / "rephrased.svg").read_text())

    assert run_sweep(PlumSweep, "", [*arguments[1:], "--only", "b", "--baselines"]) == 0
    asked = capsys.readouterr().out
    assert "| b | 1 | rephrased | retrieval bm25-1 | " in asked
    assert "| a | 1 | rephrased | plum | " not in asked
    assert "--baselines --out DIR`" in (out / "sweep.md").read_text()
    trained = json.loads((out / "b-0" / "result.json").read_text())["training"]
    assert trained == json.loads(first)["training"]

    monkeypatch.setattr(sweep_module, "run_experiment", None)  # nothing is left to run
    assert run_sweep(PlumSweep, "", arguments[1:]) == 0
    assert run_sweep(PlumSweep, "", [*arguments[1:], "--only", "c"]) == 2
    assert "--only c: the runs are a, b" in capsys.readouterr().err
    assert run_sweep(PlumSweep, "", [*arguments[1:], "--first", "2"]) == 2
    assert "was begun with first 3, now it is 2" in capsys.readouterr().err
    assert run_sweep(PlumSweep, "", [*arguments[1:], "--ability", "mmlu"]) == 2
    assert "--ability mmlu: give mmlu=FOLDER" in capsys.readouterr().err


# -- tables and plot of made-up results ----------------------------------------------------------


def made_up(name: str, seed: int, recall: float, open: bool = False) -> dict[str, Any]:
    """Three conversations of eight questions; after each the recall is a little higher."""
    order, found = ["x", "y", "z"], {"recall": {}, "forgetting": {}}
    for set_name in ("rephrased", "new_phrase"):
        rows = [
            {"set": set_name, "source": "said" if k % 2 else "near", "conversation": id,
             "kind": "yes" if k % 2 else "no", "after": after, "margin": None,
             "correct": (right := k / 8 < recall - 0.1 * (3 - after)),
             "text": "Yes" if (k % 2 == 1) == right else "No"}
            for after in (1, 2, 3) for id in order[:after] for k in range(8)
        ]  # fmt: skip
        for row in rows:
            row["margin"] = 1.0 if row["text"] == "Yes" else -1.0
        for key, value in summary(rows, order).items():
            found[key] |= value
    stages = [{"conversations": [id], "seconds": 2.0} for id in order]
    same = {"name": name, "seed": seed, "conversations": order, "training": stages}
    return same | found | {"baselines": {}, "ability": None}


def test_several_trainings_have_a_range():
    assert range_of([0.5]) == {"mean": 0.5, "low": None, "high": None}
    assert range_of([0.5, 0.75, 0.25]) == {"mean": 0.5, "low": 0.25, "high": 0.75}
    assert cell([0.5]) == "50.0"
    assert cell([0.5, 0.75]) == "62.5 (50.0 to 75.0)"
    assert cell([-0.01, 0.01], share=False) == "0.0 (-1.0 to +1.0)"
    assert cell([0.5, 0.5, 0.5]) == "50.0 (each)"  # never bounds without width
    assert cell([0.5, None]) == cell([]) == "–"


def test_table_of_made_up_results():
    results = [made_up("10", 0, 1.0), made_up("1", 0, 0.5), made_up("10", 1, 0.75)]
    lines = recall_table(results).splitlines()
    assert len(lines) == 2 + 2 * 2  # two runs, two sets of questions
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[:3] == ["10", "2", "rephrased"]
    assert cells[3] == "87.5 [0.0, 100.0]"  # two conversations and two trainings tell little
    assert cells[4:6] == ["87.5 (75.0 to 100.0)"] * 2
    assert cells[6] == "38, 50"
    assert cells[7] == "0.0 (each)" and cells[8].startswith("+6.2") and cells[9:] == ["–", "2.0"]
    three = recall_table([made_up("10", seed, r) for seed, r in enumerate((0.5, 0.75, 1.0))])
    assert "| 75.0 (50.0 to 100.0) |" in three
    halves = halves_table(results[:1]).splitlines()[2]
    assert re.findall(r"\d+\.\d", re.sub(r"\[.*?\]", "", halves)) == ["87.5", "100.0", "100.0"]


def test_plot_of_made_up_results():
    results = [made_up(name, seed, 0.5 + 0.1 * seed) for name in ("a", "b") for seed in range(3)]
    first = draw(results)
    assert first == draw(results)
    texts = "".join(ET.fromstring(first).itertext())
    for label in ("recall at the end", "recall so far, rephrased", "yes and no, new phrase"):
        assert label in texts
