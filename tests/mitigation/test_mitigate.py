"""From a tiny model to the verdict: steps that are kept, figures by hand, and what is refused."""

from __future__ import annotations

import html as entities
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from made_runs import chance, emotions, make_run, pairs
from scipy import stats
from small_benchmarks import small_punkt
from small_mitigation import SPARED, write_items, write_parts

from unswayed.audit.rundir import read_answers, read_run
from unswayed.audit.summary import analyze, read_summary
from unswayed.cli import main
from unswayed.core.errors import InputError
from unswayed.data.items import Item, builtin_items
from unswayed.data.personas import Persona, builtin_personas
from unswayed.mitigation import capability
from unswayed.mitigation import mitigate as steps
from unswayed.mitigation.arguments import MitigateArguments
from unswayed.mitigation.capability import capability_settings
from unswayed.mitigation.dpo.settings import DpoRecipe, start_adapter
from unswayed.mitigation.mitigate import compare, mitigate, run_facts
from unswayed.mitigation.sampling import prompt_with_memory
from unswayed.mitigation.verdict.changes import relative_change, run_changes
from unswayed.mitigation.verdict.separation import (
    card_distance,
    check_items,
    seen_pairs,
    unseen_pairs,
)
from unswayed.mitigation.verdict.words import HIGHER, LOWER, UNCLEAR, WITHIN, finding
from unswayed.statistics.crossed import johnson_interval

POLICY = "margins: {gap: 50, flips: 60}\n"


@pytest.fixture(scope="module", autouse=True)
def punkt(tmp_path_factory):
    with small_punkt(tmp_path_factory.mktemp("nltk")):
        yield


@pytest.fixture(scope="module")
def parts(tmp_path_factory, tiny_model_dir) -> dict[str, Any]:
    """Personas, items, pairs, benchmarks and a recipe; options of a whole mitigation."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "policy.yaml").write_text(POLICY)
    return write_parts(folder, tiny_model_dir)


@pytest.fixture(scope="module")
def done(parts, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("done") / "out"
    policy = parts["recipe"][0].parent / "policy.yaml"
    return out, mitigate(MitigateArguments(out=out, policy=policy, **parts))


@pytest.fixture
def copy(done, tmp_path) -> Path:
    return Path(shutil.copytree(done[0], tmp_path / "copy"))


def visible(page: str) -> str:
    page = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(entities.unescape(re.sub(r"<[^>]+>", " ", page)).split())


# -- end to end ----------------------------------------------------------------------------------


def test_every_step_is_there(parts, done):
    out, record = done
    assert json.loads((out / "mitigation.json").read_text()) == json.loads(json.dumps(record))
    assert list(record["runs"]) == ["before", "after", "ignore", "gated"]
    for name in ("before", "after", "baselines/ignore", "baselines/gated"):
        run = read_run(out / name)
        assert run["status"] == "complete" and run["n_pairs"] == SPARED
        assert {"summary.json", "report.html", "checklist.md"} <= {
            path.name for path in (out / name).iterdir()
        }
    identity = {name: read_run(out / name)["identity"] for name in ("before", "after")}
    assert identity["before"].pop("adapter") is None
    assert identity["after"].pop("adapter") == str(parts["recipe"][0].parent / "adapter")
    assert identity["before"] == identity["after"]
    assert record["separation"]["users"] == SPARED and record["separation"]["shared"] == 0
    assert record["separation"]["card"]["figures"]["highest cosine to an item"] == 0.7
    assert record["training"]["data"]["train"] == 8


def test_training_had_an_effect_and_the_report_shows_the_answers(done):
    out, record = done
    frames = {
        name: read_answers(out / name).to_pandas().assign(
            users=lambda f: f["condition"].isin(["advantaged", "disadvantaged"])
        )
        for name in ("before", "after")
    }  # fmt: skip
    assert not frames["before"]["option_scores"].equals(frames["after"]["option_scores"])
    rows = {
        (row["metric"], row["name"]): row for row in record["tests"]["mine"]["changes"]["after"]
    }
    flips = {n: f.loc[f["users"], "flip"].astype(float).mean() for n, f in frames.items()}
    row = rows["flip", "persona"]
    assert row["before"]["estimate"] == pytest.approx(flips["before"])
    assert row["change"]["estimate"] == pytest.approx(flips["after"] - flips["before"])
    for name, frame in frames.items():
        right = frame.groupby("condition")["correct"].mean()
        assert rows["accuracy", "none"][name]["estimate"] == pytest.approx(right["none"])
        assert rows["accuracy", "gap"][name]["estimate"] == pytest.approx(
            right["advantaged"] - right["disadvantaged"]
        )


def test_report(done):
    out, record = done
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    seen = visible(page)
    assert page.count("<svg") > 10 and "reward margin" in page  # curves
    for words in (
        "mine: flips with a persona in memory", "MMLU", "IFEval", "told to ignore the user",
        "memory gated", "The gate let the memory into these prompts", "Base personas asked about",
        "not shown to do better than chance", "Highest cosine to an item (card of the pairs)",
        "cannot tell",
        "8 pairs to train on, 2 to test on",
    ):  # fmt: skip
        assert words.lower() in seen.lower(), words
        assert words.lower() in text.lower(), words
    for row in record["tests"]["mine"]["changes"]["after"]:
        assert f"{100 * row['change']['estimate']:+.1f}".replace("+0.0", "0.0") in text
    assert "http" not in re.sub(r"http://www\.w3\.org\S*", "", page.split("<h2")[1])


def test_the_card_has_the_figures(parts, done):
    card = (parts["recipe"][0].parent / "adapter" / "README.md").read_text()
    assert "| measure | before | after | change (points) |" in card
    assert "mine: Flips with a persona (%)" in card and "IFEval, no memory (%)" in card
    assert "Not measured yet" not in card


def test_again_nothing_is_loaded_or_asked(parts, done, monkeypatch):
    out, record = done

    def never(*args: Any, **kwargs: Any):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(capability, "load_lm", never)
    monkeypatch.setattr("unswayed.audit.run.load_lm", never)
    before = {path: path.read_bytes() for path in out.glob("*.*")}
    policy = parts["recipe"][0].parent / "policy.yaml"
    again = mitigate(MitigateArguments(out=out, policy=policy, **parts))
    assert json.dumps(again) == json.dumps(record)
    assert {path: path.read_bytes() for path in out.glob("*.*")} == before


class Killed(Exception):
    pass


@pytest.fixture
def log(monkeypatch):
    """Names of the steps that were begun; `log.fatal` names one that kills."""
    from unswayed.mitigation.dpo import train as training

    class Log(list):
        fatal: str | None = None

    begun = Log()

    def watch(module: Any, name: str, label: Any):
        real = getattr(module, name)

        def call(*args: Any, **kwargs: Any):
            begun.append(label(*args))
            if begun[-1] == begun.fatal:
                raise Killed
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    watch(training, "train", lambda recipe: "train")
    watch(capability, "check_capability", lambda lm, settings, tasks: tasks[0])
    watch(steps, "audit", lambda arguments, recipe, pairs, folder, *rest: folder.name)
    return begun


def written(out: Path) -> dict[Path, int]:
    files = [*out.rglob("answers.parquet"), *(out / "capability").glob("*.json")]
    return {path: path.stat().st_mtime_ns for path in files}


ALL = ["before", "train", "after", *["persona_mmlu", "persona_ifeval"] * 2, "ignore", "gated"]


@pytest.mark.parametrize("fatal", ["train", "persona_ifeval"])
def test_a_kill_between_steps(parts, done, tmp_path, log, fatal):
    """What was finished before the kill is not done again, and the result is the same."""
    log.fatal, out = fatal, tmp_path / "out"
    arguments = MitigateArguments(out=out, **parts | {"baselines": False})
    with pytest.raises(Killed):
        mitigate(arguments)
    assert log == ALL[: ALL.index(fatal) + 1] and not (out / "mitigation.json").exists()
    finished = written(out)
    assert len(finished) == {"train": 1, "persona_ifeval": 3}[fatal]
    log.fatal = None
    log.clear()
    record = mitigate(arguments)
    skipped = ["persona_mmlu"] if fatal == "persona_ifeval" else []
    assert log == [name for i, name in enumerate(ALL[:7]) if not (name in skipped and i == 3)]
    assert {path: when for path, when in written(out).items() if path in finished} == finished
    assert record["capability"] == done[1]["capability"]
    for test, about in done[1]["tests"].items():
        assert record["tests"][test]["changes"]["after"] == about["changes"]["after"]


def test_steps_that_are_lost_are_done_again(parts, done, copy, log):
    [lost] = (copy / "capability").glob("before-persona_mmlu-*.json")
    lost.unlink()
    shutil.rmtree(copy / "baselines" / "gated")
    before = written(copy)
    record = mitigate(MitigateArguments(out=copy, **parts))
    assert [name for name in log if name.startswith("persona")] == ["persona_mmlu"]
    assert {path: when for path, when in written(copy).items() if path in before} == before
    assert (record["tests"], record["capability"]) == (done[1]["tests"], done[1]["capability"])


def test_a_kill_within_generation_keeps_the_texts(parts, done, copy, monkeypatch):
    """Six of eight texts are there: two are generated."""
    from unswayed.scoring.lm import SharedPrefixLM

    [file] = (copy / "capability").glob("after-persona_ifeval-*.json")
    expected = json.loads(file.read_text())
    file.unlink()
    asked_for, real = [], SharedPrefixLM.generate_until

    def generate_until(self: Any, requests: list, disable_tqdm: bool = False):
        asked_for.append(len(requests))
        if len(asked_for) == 1:
            real(self, requests[:6], disable_tqdm=disable_tqdm)
            raise Killed
        return real(self, requests, disable_tqdm=disable_tqdm)

    monkeypatch.setattr(SharedPrefixLM, "generate_until", generate_until)
    with pytest.raises(Killed):
        mitigate(MitigateArguments(out=copy, **parts))
    mitigate(MitigateArguments(out=copy, **parts))
    assert asked_for == [8, 2]
    assert json.loads(file.read_text()) == expected
    assert not list((copy / "capability").glob("*.jsonl"))


# -- what does not belong together -----------------------------------------------------------------


def test_another_adapter_than_the_one_that_was_asked(parts, done, copy):
    folder = parts["recipe"][0].parent / "adapter"
    config = folder / "adapter_config.json"
    text = config.read_text()
    config.write_text(text + "\n")
    try:
        with pytest.raises(InputError, match="asked another adapter than the one that is in"):
            mitigate(MitigateArguments(out=copy, **parts))
    finally:
        config.write_text(text)


def test_other_weights_before_than_after(parts, copy):
    run = json.loads((copy / "after" / "run.json").read_text())
    run["model"]["revision"] = "0" * 64
    (copy / "after" / "run.json").write_text(json.dumps(run))
    with pytest.raises(InputError, match=r"asked different models \(revision differ"):
        mitigate(MitigateArguments(out=copy, **parts))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"seed": 3}, "holds a different run (its seed differ)"),
        ({"pairs": 1}, "holds a different run (its personas differ)"),
        ({"pairs": 3}, "--pairs 3: training saw the user p3; only the first 2 base personas"),
        ({"pairs": 9}, "--pairs 9: between 1 and 4 pairs are there"),
        ({"personas": "grid"}, "--personas grid has no persona pairs"),
        ({"policy": Path("no.yaml")}, "no.yaml: no such file"),
        ({"capability": ["mmlu=nowhere"]}, "--capability mmlu=nowhere cannot be loaded: "),
        ({"capability": ["ifeval=no.jsonl"]}, "no.jsonl"),
        ({"capability": ["questions=3"]}, "names no data"),
        ({"capability": ["tasks=3"]}, "'tasks=3' is not one of mmlu=..., ifeval=..."),
        ({"capability": ["mmlu="]}, "'mmlu=' is not one of"),
        ({"capability": ["mmlu=a", "questions=many"]}, "questions=many: give a whole number"),
        ({"capability": ["mmlu=a", "mmlu=b"]}, "--capability has mmlu twice"),
        ({"capability": ["ifeval=a", "max_gen_toks=0"]}, "give a number from 1"),
    ],
)
def test_refused(parts, copy, more, words):
    with pytest.raises(InputError, match=re.escape(words)):
        mitigate(MitigateArguments(out=copy, **parts | more))


def test_wrong_input_is_one_line(parts, tmp_path, capsys):
    def call(**keys: Any) -> str:
        recipe = yaml.safe_load(parts["recipe"][0].read_text()) | keys
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        argv = ["--recipe", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]
        assert main(["mitigate", *argv]) == 2
        errors = capsys.readouterr().err.splitlines()
        lines = [line for line in errors if line.startswith("unswayed: ")]
        assert len(lines) == 1 and "Traceback" not in "".join(errors)
        return lines[0]

    assert "`make preferences` builds one" in call(dataset="runs/datasets/not_there")
    assert "sampled" in call(config="sampled")
    assert "unknown key modle" in call(modle="x")
    assert "order is 'wild'" in call(order="wild")
    assert not (tmp_path / "out").exists()
    assert "--model ./no-such-folder: there is no such folder" in call(model="./no-such-folder")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").write_text("a file")
    assert main(["mitigate", "--recipe", "x.yaml", "--out", str(tmp_path / "out")]) == 2
    assert main(["mitigate", "--out", str(tmp_path / "out")]) == 2


def test_command_line(parts, done, copy, capsys):
    argv = ["mitigate", "--recipe", str(parts["recipe"][0]), "--out", str(copy), "--items",
            *parts["items"], "--personas", parts["personas"], "--baselines"]  # fmt: skip
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "mine: flips with a persona" in printed and "a model guesses (here on mine)" in printed
    assert printed.rstrip().endswith(str(copy / "report.html"))
    page = visible((copy / "report.html").read_text())
    assert "MMLU" not in page and "Policy" not in page  # not asked for this time


# -- a folder that recipes share -------------------------------------------------------------------


def write_recipe(parts: dict[str, Any], folder: Path, **keys: Any) -> list[Path]:
    """The recipe with other keys, and an adapter of its own in the folder."""
    recipe = yaml.safe_load(parts["recipe"][0].read_text()) | {
        "output_dir": str(folder / "adapter")
    }
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | keys))
    return [folder / "recipe.yaml"]


def test_another_recipe_asks_only_what_training_changes(parts, done, copy, tmp_path, log, capsys):
    """The first recipe's folder is the shared one: what it asked before training is taken."""
    shutil.rmtree(copy / "after")
    for file in (copy / "capability").glob("after-*"):
        file.unlink()
    written_at = {path: path.stat().st_mtime_ns for path in copy.rglob("*.*")}
    other = write_recipe(parts, tmp_path / "other", seed=1)
    arguments = MitigateArguments(
        out=tmp_path / "out", shared=copy, **parts | {"recipe": other, "baselines": True}
    )
    record = mitigate(arguments)
    assert [name for name in log if name.startswith("persona")] == [
        "persona_mmlu",
        "persona_ifeval",
    ]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "after", "capability", "mitigation.json", "report.md", "report.html",
    }  # fmt: skip
    answers = {path.name: path for path in (tmp_path / "out" / "capability").iterdir()}
    assert all(name.startswith("after-persona_") for name in answers) and len(answers) == 2
    for run in ("before", "baselines/ignore", "baselines/gated"):
        file = copy / run / "answers.parquet"
        assert file.stat().st_mtime_ns == written_at[file]
    first = done[1]["tests"]["mine"]["changes"]
    second = record["tests"]["mine"]["changes"]
    assert second["ignore"] == first["ignore"] and second["gated"] == first["gated"]
    assert [row["before"] for row in second["after"]] == [row["before"] for row in first["after"]]
    assert record["runs"]["after"]["model"] != done[1]["runs"]["after"]["model"]
    before = [
        {
            task: {name: row["before"] for name, row in rows.items()}
            for task, rows in changes.items()
        }
        for changes in (record["capability"]["changes"], done[1]["capability"]["changes"])
    ]
    assert before[0] == before[1]
    argv = ["--recipe", str(other[0]), "--out", str(tmp_path / "out"), "--shared", str(copy)]
    argv += ["--items", *parts["items"], "--personas", parts["personas"]]
    assert main(["mitigate", *argv]) == 0
    assert "mine: flips with a persona" in capsys.readouterr().out


def test_a_shared_folder_that_does_not_fit(parts, copy, tmp_path, tiny_model_dir):
    def refused(words: str, **more: Any) -> None:
        with pytest.raises(InputError, match=words) as error:
            mitigate(MitigateArguments(out=tmp_path / "out", shared=copy, **parts | more))
        assert "\n" not in str(error.value) and not (tmp_path / "out").exists()

    model = str(tiny_model_dir("qwen3", chat=True, max_position_embeddings=2048))
    other = write_recipe(parts, tmp_path / "other", model=model)
    refused(r"before holds a different run \(its model differ\)", recipe=other)
    items = write_items(tmp_path / "items.jsonl", 6)
    refused(r"before holds a different run \(its items differ\)", items=[f"mine={items}"])
    refused(r"before holds a different run \(its seed differ\)", seed=3)
    refused(r"before holds a different run \(its personas differ\)", pairs=1)
    memory = write_recipe(parts, tmp_path / "other", adapter=str(tmp_path / "memory"), lora={})
    refused(r"before holds a different run \(its adapter differ\)", recipe=memory)
    run = json.loads((copy / "before" / "run.json").read_text())  # the same name, other weights
    run["model"]["revision"] = "0" * 64
    (copy / "before" / "run.json").write_text(json.dumps(run))
    with pytest.raises(InputError, match=r"asked different models \(revision differ"):
        mitigate(MitigateArguments(out=tmp_path / "out", shared=copy, **parts))
    with pytest.raises(InputError, match=r"--shared .* is a file; give a folder"):
        mitigate(MitigateArguments(out=tmp_path / "out", shared=parts["recipe"][0], **parts))


def test_other_questions_behind_the_same_name(parts, copy):
    """Answers are paired by their place, so the questions must be those that were answered."""
    settings = dict(text.split("=", 1) for text in parts["capability"])
    file = Path(settings["ifeval"])
    text = file.read_text()
    file.write_text(text.replace("tea", "a lamp").replace("glad", "calm").replace("small", "low"))
    try:
        with pytest.raises(InputError, match=r"before-persona_ifeval.* answers other questions"):
            mitigate(MitigateArguments(out=copy, **parts))
    finally:
        file.write_text(text)
    [file] = (copy / "capability").glob("before-persona_ifeval-*.json")
    earlier = json.loads(file.read_text())
    assert earlier.pop("questions")
    file.write_text(json.dumps(earlier))  # of a version that did not keep their hash
    mitigate(MitigateArguments(out=copy, **parts))


# -- training and test are apart -------------------------------------------------------------------


def some_pair(prompt: str, chosen: str = "Yes.", memory: str = "Notes.") -> dict[str, Any]:
    return {
        "prompt": prompt_with_memory(memory, prompt),
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }


@pytest.mark.parametrize("part", ["question", "answer", "memory"])
def test_an_item_in_training_is_refused(part):
    item = builtin_items()[3]
    clean = some_pair("What is 2 + 2?")
    assert check_items([clean] * 2, builtin_items())["shared"] == 0
    parts = {"question": ("So: " + item.scenario,), "answer": ("x?", item.scenario),
             "memory": ("x?", "Yes.", item.scenario)}  # fmt: skip
    with pytest.raises(InputError, match=f"training pair 2 .* the item {item.test}/{item.id}"):
        check_items([clean, some_pair(*parts[part])], builtin_items())


def test_who_was_seen():
    personas = builtin_personas()
    texts = {p.id: [text for _, text in p.texts()] for p in personas}
    texts = {p.id: [text for _, text in p.texts(first_person=True)] for p in personas}
    whole = " ".join(texts["p02-advantaged"])
    turns = some_pair("x")
    turns["prompt"] = [{"role": "user", "content": text} for text in texts["p05-neutral"]]
    part = some_pair("x", memory=texts["p04-advantaged"][0])
    assert seen_pairs(personas, [some_pair("x", memory=whole), turns, part]) == {"p02", "p05"}
    assert unseen_pairs(personas, [turns, part], None) == 4
    assert unseen_pairs(personas, [turns], 2) == 2
    assert unseen_pairs(personas, [part], None) == 30
    first = some_pair("x", memory="\n".join(texts["p01-disadvantaged"]))
    with pytest.raises(InputError, match="training saw the first base persona, p01"):
        unseen_pairs(personas, [first], None)


def test_a_card_without_distances(tmp_path):
    assert card_distance(str(tmp_path)) is None
    (tmp_path / "README.md").write_text("# Something else\n")
    assert card_distance(str(tmp_path)) is None
    assert card_distance("hub:owner/name") is None


# -- figures ---------------------------------------------------------------------------------------


def two_runs(tmp_path: Path, items: list[Item], answers: dict[str, Any]) -> dict[str, Path]:
    runs = {}
    for name, answer in answers.items():
        runs[name] = make_run(tmp_path / name, items, answer, pairs(4))
        analyze(runs[name])
    return runs


def test_changes_by_hand(tmp_path):
    """Ten items, four users: training mends the answers of disadvantaged users to u0 to u3."""
    disadvantaged = {f"u{i}" for i in range(4)}

    def before(item: Item, persona: Persona | None) -> int:
        return int(
            bool(persona and persona.condition == "disadvantaged" and item.id in disadvantaged)
        )

    def after(item: Item, persona: Persona | None) -> int:
        return int(bool(persona and persona.condition == "disadvantaged" and item.id == "u0"))

    runs = two_runs(tmp_path, emotions(10), {"before": before, "after": after})
    about = compare(runs)["understanding"]
    assert (about["n_items"], about["n_pairs"]) == (10, 4)
    rows = {(r["metric"], r["name"]): r for r in about["changes"]["after"]}
    assert ("flip", "none") not in rows and ("score", "none") not in rows
    flips = rows["flip", "disadvantaged"]
    assert (flips["before"]["estimate"], flips["after"]["estimate"]) == pytest.approx((0.4, 0.1))
    # Users are alike, items differ: three of ten items change by -1. The sum of squares of the
    # items' means is 3 * 0.49 + 7 * 0.09 = 2.1, V_items = 2.1 / 9 / 10, the others are 0.
    half = math.sqrt(2.1 / 90) * stats.t.ppf(0.975, 9)
    skewed = johnson_interval(np.array([-1.0] * 3 + [0.0] * 7)[:, None])
    change = flips["change"]
    assert change["estimate"] == pytest.approx(-0.3)
    low, high = min(-0.3 - half, skewed[0]), max(-0.3 + half, skewed[1])
    assert (change["low"], change["high"]) == pytest.approx((max(low, -1.0), high))
    assert rows["accuracy", "disadvantaged"]["change"]["estimate"] == pytest.approx(0.3)
    gap = rows["accuracy", "gap"]
    assert [gap[k]["estimate"] for k in ("before", "after", "change")] == pytest.approx(
        [0.4, 0.1, -0.3]
    )
    assert rows["flip", "persona"]["change"]["estimate"] == pytest.approx(-0.15)
    assert rows["flip", "persona"]["relative"]["estimate"] == pytest.approx(-0.75)
    none = rows["accuracy", "none"]
    assert none["change"]["estimate"] == 0 and none["change"]["low"] < 0 < none["change"]["high"]
    summary = read_summary(runs["before"])["tests"]["understanding"]
    assert flips["before"] == {
        key: summary["conditions"]["disadvantaged"]["flip_rate"][key] for key in flips["before"]
    }


def test_relative_change_by_hand():
    """Users alike: the delta method over ten items."""
    before = np.repeat([[1.0]] * 6 + [[0.0]] * 4, 3, axis=1)
    after = np.repeat([[1.0]] * 2 + [[0.0]] * 7 + [[1.0]], 3, axis=1)
    change = relative_change(before, after[None])
    assert change["estimate"] == pytest.approx(-0.5)
    influence = after[:, 0] / 0.3 - before[:, 0] / 0.6
    half = influence.std(ddof=1) / math.sqrt(10) * stats.t.ppf(0.975, 9)
    low, high = johnson_interval(influence[:, None])  # they are skewed
    assert low > -half and high > half
    assert change["low"] == pytest.approx(0.5 * math.exp(-half) - 1)
    assert change["high"] == pytest.approx(0.5 * math.exp(high) - 1)


def test_relative_change_holds_its_level():
    """400 studies of 30 items and 12 users with a true change of -40 %."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        item, user = rng.normal(0, 0.8, (30, 1)), rng.normal(0, 0.4, (1, 12))
        rate = 0.25 * np.exp(item + user - (0.8**2 + 0.4**2) / 2)
        draws = rng.random((2, 30, 12))
        change = relative_change(
            (draws[0] < np.minimum(rate, 1)).astype(float),
            (draws[1:] < 0.6 * np.minimum(rate, 1)).astype(float),
        )
        hits += change["low"] <= -0.4 <= change["high"]
    assert 0.92 <= hits / 400 <= 0.99


def test_relative_change_at_its_ends():
    some, zero = np.eye(4), np.zeros((4, 4))
    assert relative_change(zero, some[None]) is None
    assert relative_change(np.full((2, 2), np.nan), np.eye(2)[None]) is None
    assert relative_change(some, zero[None]) == {"estimate": -1.0, "low": None, "high": None}
    same = relative_change(some, some[None])
    assert same["estimate"] == 0 and same["low"] < 0 < same["high"]
    assert relative_change(some[:1], some[None, :1]) == {"estimate": 0.0, "low": None, "high": None}


FLAGS = st.lists(
    st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4), min_size=3, max_size=6
)


@given(FLAGS, st.randoms(use_true_random=False))
def test_relative_change_is_paired(rows, rng):
    before = np.array(rows)
    after = np.array([[float(rng.random() < 0.5) for _ in row] for row in rows])
    change = relative_change(before, after[None])
    if change is None:
        assert not before.any()
        return
    assert change["estimate"] == pytest.approx(after.mean() / before.mean() - 1)
    if change["low"] is not None:
        assert change["low"] <= change["estimate"] <= change["high"]
        back = relative_change(after, before[None])
        if not np.array_equal(before, after):
            assert 1 / (1 + back["high"]) - 1 == pytest.approx(change["low"], abs=1e-9)


def test_a_relative_change_takes_in_how_much_trainings_differ():
    rng = np.random.default_rng(0)
    before = (rng.random((30, 8)) < 0.4).astype(float)
    alike = np.stack([before * (rng.random((30, 8)) < 0.5) for _ in range(3)])
    apart = alike.copy()
    apart[0], apart[1] = before, 0.1 * before
    one, other = relative_change(before, alike), relative_change(before, apart)
    assert one["estimate"] == pytest.approx(alike.mean() / before.mean() - 1)
    assert other["high"] - other["low"] > 2 * (one["high"] - one["low"])


def test_unread_answers_count_on_neither_side(tmp_path):
    def before(item: Item, persona: Persona | None) -> int | None:
        return None if persona and item.id == "u1" else int(bool(persona and item.id == "u0"))

    def after(item: Item, persona: Persona | None) -> int | None:
        return None if persona and item.id == "u0" else 0

    runs = two_runs(tmp_path, emotions(5), {"before": before, "after": after})
    frames = [pq.read_table(runs[name] / "answers.parquet").to_pandas() for name in runs]
    [row] = [
        row
        for row in run_changes(*frames)["understanding"]
        if (row["metric"], row["name"]) == ("flip", "persona")
    ]
    assert row["before"]["estimate"] == pytest.approx(0.25) and row["n_items"] == 3
    assert row["change"]["estimate"] == 0 and row["relative"] is None


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (-0.3, -0.1, 0.9, LOWER),
        (0.01, 0.3, 0.9, HIGHER),
        (-0.1, 0.1, 0.5, UNCLEAR),
        (-0.015, -0.001, 0.01, WITHIN),
        (None, None, None, UNCLEAR),
    ],
)
def test_findings(low, high, p, expected):
    assert finding({"estimate": 0.0, "low": low, "high": high}, p) == expected


def test_a_model_that_knows_gets_no_warning(tmp_path):
    def skilled(item: Item, persona: Persona | None) -> int:
        return int(chance(item.id, persona and persona.id) < 0.1)

    runs = two_runs(tmp_path, emotions(30), {"before": skilled, "after": skilled})
    facts = {name: run_facts(run, None) for name, run in runs.items()}
    from unswayed.mitigation.verdict.words import warnings

    assert warnings({"runs": facts, "tests": {"understanding": {}}}) == []
    guessing = two_runs(tmp_path / "g", emotions(30), {"after": lambda i, p: int(i.id[-1]) % 4})
    facts["after"] = run_facts(guessing["after"], None)
    lines = warnings({"runs": facts, "tests": {"understanding": {}}})
    assert lines[0].startswith("After: On understanding the model is not shown to do better")
    assert "guesses (here on understanding)" in lines[1] and len(lines) == 2


def test_capability_settings():
    settings = capability_settings(["mmlu=a=b", "questions=1000", "ifeval=x.jsonl", "prompts=100"])
    assert settings == {"mmlu": "a=b", "questions": 1000, "ifeval": "x.jsonl", "prompts": 100}
    assert capability_settings([]) == {}


def test_a_memory_that_training_starts_from(parts, tmp_path):

    common = ("model", "data", "out")
    assert start_adapter(DpoRecipe(*common)) is None
    assert start_adapter(DpoRecipe(*common, adapter="owner/name")) == "owner/name"
    manifest = {"base": {}, "settings": {}, "conversations": [], "adapter": {"folder": "adapter-3"}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    folder = start_adapter(DpoRecipe(*common, adapter=str(tmp_path)))
    assert folder == str(tmp_path / "adapter-3")
