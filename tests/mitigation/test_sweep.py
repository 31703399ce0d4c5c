"""Sweeps of DPO: the files, a whole sweep on a tiny model, its figures by hand, the front."""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_benchmarks import small_punkt
from small_mitigation import training_rows, write_items, write_parts, write_tree

from unswayed.audit.rundir import read_answers, read_run
from unswayed.core.errors import InputError
from unswayed.data.personas import builtin_personas
from unswayed.mitigation.capability import SOURCES
from unswayed.mitigation.dpo.recipe import read_recipe
from unswayed.mitigation.dpo.train import training_arguments
from unswayed.mitigation.mitigate import BASELINES
from unswayed.mitigation.sweep import DpoSweep, alike, finished, keep_recipe, users_to_ask
from unswayed.mitigation.sweep_report import (
    draw,
    effect_table,
    pareto_front,
    place,
    tables,
    untrained_places,
)
from unswayed.sweep import run_sweep, sweep_parser

ROOT = Path(__file__).parents[2]
SWEEPS = {path.stem: path for path in sorted((ROOT / "recipes/dpo/sweeps").glob("*.yaml"))}
SCRIPT = str(ROOT / "recipes" / "dpo" / "sweep.py")
PLAIN = ROOT / "recipes" / "dpo" / "smollm2-135m.yaml"


# -- sweep files ---------------------------------------------------------------------------------


def read_sweep(path: Path, base: Sequence[Path] = (), *options: str) -> DpoSweep:
    more = ["--base", *map(str, base)] if base else []
    argv = ["--config", str(path), "--out", "out", *more, *options]
    return DpoSweep(sweep_parser(DpoSweep, "").parse_args(argv))


@pytest.fixture
def mine(tmp_path: Path) -> list[Path]:
    """A base of two files, the second with pairs to be mixed in."""
    (tmp_path / "mine.yaml").write_text("mix: some/pairs\nmix_share: 0.25\n")
    return [PLAIN, tmp_path / "mine.yaml"]


def test_shipped_sweeps(mine: list[Path], tmp_path: Path):
    for name in SWEEPS:
        sweep = read_sweep(SWEEPS[name], mine if name == "mix" else ())
        assert sweep.seeds == ((0,) if name == "factors" else (0, 1, 2))
        content = yaml.safe_load(SWEEPS[name].read_text())
        assert len(content["runs"]) == len(sweep.runs)
        for run in content["runs"]:
            recipe = sweep.runs[label := str(run.pop("name"))]
            assert training_arguments(recipe).max_length == 1024  # trl takes it; of the base
            for key, value in run.items():
                found = getattr(recipe, key)
                assert found == value or all(found[k] == v for k, v in value.items())
            assert read_recipe([keep_recipe(recipe, tmp_path / name / label)]) == recipe
        assert len({repr(recipe) for recipe in sweep.runs.values()}) == len(sweep.runs)


def test_the_sweeps_that_are_there(mine: list[Path]):
    assert list(SWEEPS) == ["beta", "consistency", "factors", "loss", "main", "mix", "pairs"]
    beta = [one.training["beta"] for one in read_sweep(SWEEPS["beta"]).runs.values()]
    assert beta == [0.01, 0.05, 0.1, 0.3, 1.0]
    assert [one.n_pairs for one in read_sweep(SWEEPS["pairs"]).runs.values()] == [
        50, 100, 200, 500, 2000,
    ]  # fmt: skip
    plain = read_sweep(SWEEPS["main"]).runs["plain"]
    assert plain == read_recipe([PLAIN])
    own = read_sweep(SWEEPS["main"]).runs["own"]
    recipe = read_recipe([PLAIN.with_name("smollm2-135m-own.yaml")])
    assert own == dataclasses.replace(recipe, output_dir=own.output_dir)
    with pytest.raises(InputError, match=r"run 0\.1: mix and a mix_share above 0 belong together"):
        read_sweep(SWEEPS["mix"])
    mixed = read_sweep(SWEEPS["mix"], mine).runs
    assert {name: (one.mix, one.mix_share) for name, one in mixed.items()} == {
        "0": (None, 0.0), "0.1": ("some/pairs", 0.1), "0.25": ("some/pairs", 0.25),
        "0.5": ("some/pairs", 0.5),
    }  # fmt: skip
    weights = [one.consistency for one in read_sweep(SWEEPS["consistency"]).runs.values()]
    assert weights == [0, 1, 10, 100]


@pytest.fixture
def write(tmp_path: Path):
    """`write(**keys)`: the path of a sweep, whole but for what is given."""

    def to(**keys: Any) -> Path:
        path = tmp_path / "tiny.yaml"
        whole = {
            "base": str(PLAIN),
            "n_pairs": 50,
            "seeds": [0],
            "runs": [{"name": "a"}, {"name": "b", "training": {"beta": 1}, "dataset": "own"}],
        }
        path.write_text(yaml.safe_dump(whole | keys))
        return path

    return to


def test_layers(write, mine: list[Path]):
    sweep = read_sweep(write(), (), "--dataset", "given")
    assert {name: one.dataset for name, one in sweep.runs.items()} == {"a": "given", "b": "own"}
    assert {one.n_pairs for one in sweep.runs.values()} == {50}
    b = sweep.runs["b"].training
    assert b == read_recipe([PLAIN]).training | {"beta": 1.0}
    assert sweep.keys == {"a": {}, "b": {"training": {"beta": 1.0}, "dataset": "own"}}
    listed = read_sweep(write(base=[str(path) for path in mine])).runs["a"]
    assert (listed.mix, listed.mix_share) == ("some/pairs", 0.25)


def test_wrong_files_are_one_line(write, tmp_path: Path, capsys):
    for keys, message in [
        ({"beta": 3}, "tiny.yaml: unknown key beta; known are adapter, base, config"),
        ({"training": {"betta": 3}}, "tiny.yaml: unknown key training.betta"),
        ({"seed": 3}, "leave out seed: give the sweep's seeds as seeds: [0, 1, 2]"),
        ({"output_dir": "x"}, "leave out output_dir: --out says it"),
        ({"runs": [{"name": "a", "seed": 3}]}, "run a: leave out seed"),
        ({"runs": [{"name": "a", "lora": {"rank": 3}}]}, "run a: unknown key lora.rank"),
        ({"runs": [{"name": "a", "lora": 3}]}, "run a: lora must be a mapping"),
        ({"runs": [{"name": "a", "mix_share": 0.5}]}, "run a: mix and a mix_share above 0"),
        ({"runs": [{"name": "a"}, {"name": "a"}]}, "run 2 is called 'a': each needs a name"),
        (
            {"runs": [{"name": "a"}, {"name": "b", "dtype": "bfloat16"}]},
            "run b has another dtype than run a: runs of one sweep share",
        ),
        ({"runs": []}, "runs must be a list of mappings"),
        ({"seeds": [0.5]}, "seeds must be a list of whole numbers"),
        ({"base": 3}, "base must be a recipe's path, or a list of several"),
        ({"base": []}, "base must be a recipe's path, or a list of several"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml: no such file"),
    ]:
        assert (
            run_sweep(
                DpoSweep, "", ["--config", str(write(**keys)), "--out", str(tmp_path / "out")]
            )
            == 2
        )
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_all_runs_ask_about_the_same_users(tmp_path: Path):
    """Users that stand in any pair of any data are spared by all, drawn or not."""
    told = [p for p in builtin_personas() if p.condition != "neutral"]
    write_tree(tmp_path / "one", training_rows([p for p in told if p.pair_id == "p09"]))
    write_tree(tmp_path / "two", training_rows([p for p in told if p.pair_id == "p04"]))
    one = dataclasses.replace(read_recipe([PLAIN]), dataset=str(tmp_path / "one"), n_pairs=1)
    two = dataclasses.replace(one, dataset=str(tmp_path / "two"))
    assert users_to_ask([one], None) == 8 and users_to_ask([one, two], None) == 3
    assert users_to_ask([one, two], 2) == 2
    with pytest.raises(InputError, match="--pairs 4: training saw the user p04"):
        users_to_ask([one, two], 4)


# -- a whole sweep -------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def punkt(tmp_path_factory):
    with small_punkt(tmp_path_factory.mktemp("nltk")):
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_model_dir) -> Path:
    """A sweep on the tiny model: two runs, both seconds long."""
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder, tiny_model_dir)
    write_items(folder / "items.jsonl", 4)
    runs = [{"name": "a"}, {"name": "b", "training": {"beta": 1, "num_train_epochs": 1}}]
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({"base": "recipe.yaml", "seeds": [0], "runs": runs}))
    return path


@pytest.fixture(scope="module")
def given_options(config: Path) -> list[str]:
    items, mmlu = config.parent / "items.jsonl", config.parent / "mmlu"
    return ["--config", str(config), "--items", f"mine={items}", "--pairs", "1", "--baselines",
            "--capability", f"mmlu={mmlu}", "questions=2", "shots=0"]  # fmt: skip


@pytest.fixture(scope="module")
def out(given_options, tmp_path_factory) -> Path:
    """The sweep after a run by name, a Ctrl-C in the second run's training, and the rest."""
    from unswayed.mitigation.dpo import train as training

    out = tmp_path_factory.mktemp("sweep") / "out"
    arguments = [*given_options, "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [SCRIPT, *arguments, "--only", "a"])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(SCRIPT, run_name="__main__")
    assert stopped.value.code == 0
    asked = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert {path.parent.relative_to(out).as_posix() for path in asked} == {
        "shared/before", "shared/baselines/ignore", "shared/baselines/gated", "a-0/after",
    }  # fmt: skip
    first = (out / "sweep.json").read_text()
    assert [one["name"] for one in json.loads(first)["results"]] == ["a"]

    def killed(recipe: Any) -> Any:
        if "b-0" in recipe.output_dir:
            raise KeyboardInterrupt
        return trained(recipe)

    trained = training.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", killed)
        assert run_sweep(DpoSweep, "", arguments) == 130
    assert (out / "sweep.json").read_text() == first and not (out / "b-0" / "after").exists()
    assert run_sweep(DpoSweep, "", arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in asked} == asked  # nothing was asked again
    return out


def test_what_a_sweep_leaves(out: Path, config: Path, given_options):
    assert {path.name for path in out.iterdir()} == {
        "a-0", "b-0", "shared", "sweep.json", "sweep.md", "sweep.svg",
    }  # fmt: skip
    for run in ("a-0", "b-0"):
        assert {path.name for path in (out / run).iterdir()} == {
            "adapter", "after", "capability", "mitigation.json", "recipe.yaml", "report.html",
            "report.md",
        }  # fmt: skip
        assert read_run(out / run / "after")["identity"]["adapter"] == str(out / run / "adapter")
    assert read_recipe([out / "b-0" / "recipe.yaml"]).training["beta"] == 1.0
    kept = "".join((out / f"sweep.{kind}").read_text() for kind in ("json", "md", "svg"))
    assert str(config.parent) not in kept and str(out.parent) not in kept
    assert "Anna loses" not in kept and "surgeon" not in kept
    text = (out / "sweep.md").read_text()
    assert text.startswith(
        "`python recipes/dpo/sweep.py --config recipes/dpo/sweeps/tiny.yaml --items "
        "mine=items.jsonl --pairs 1 --capability mmlu=mmlu questions=2 shots=0 --baselines "
        "--out DIR`"
    )
    assert "on mine the model is at chance before training and after 2 of 2 trainings" in text
    ET.fromstring((out / "sweep.svg").read_text())


def test_the_figures_are_those_of_the_mitigations(out: Path):
    found = json.loads((out / "sweep.json").read_text())
    assert list(found)[:2] == ["sweep", "command"] and found["sweep"] == "tiny"
    own = [(one["name"], one["seed"], one["recipe"]) for one in found["results"]]
    assert own == [("a", 0, {}), ("b", 0, {"training": {"beta": 1.0, "num_train_epochs": 1.0}})]
    for one in found["results"]:
        made = json.loads((out / f"{one['name']}-0" / "mitigation.json").read_text())
        about = one["tests"]["mine"]
        assert (about["n_items"], about["n_pairs"]) == (4, 1) and about["at_chance"]
        rows = {(r["metric"], r["name"]): r for r in made["tests"]["mine"]["changes"]["after"]}
        where = {"flips": ("flip", "persona"), "accuracy": ("accuracy", "persona"),
                 "gap": ("accuracy", "gap")}  # fmt: skip
        for key, name in where.items():
            assert about[key] == {part: rows[name][part] for part in about[key]}
            assert set(about[key]) == {"before", "after", "change", "relative"}
        assert one["capability"] == made["capability"]["changes"]
        known = one["training"]
        assert (known["pairs"], known["steps"]) == (8, 6 if one["name"] == "a" else 2)
        assert known["seconds"] > 0
        assert known["preference_accuracy"] == {
            "train": made["training"]["result"]["rewards/accuracies"],
            "test": made["training"]["result"]["eval_rewards/accuracies"],
        }
    # and those of the answers themselves
    answers = read_answers(out / "b-0" / "after").to_pandas()
    users = answers[answers["condition"].isin(["advantaged", "disadvantaged"])]
    after = found["results"][1]["tests"]["mine"]
    assert after["flips"]["after"]["estimate"] == users["flip"].astype(float).mean()
    assert after["accuracy"]["after"]["estimate"] == users["correct"].mean()
    known = found["references"]["mine"]
    assert set(known) == {"at_chance", "before", *BASELINES}
    for name in BASELINES:
        asked = read_answers(out / "shared" / "baselines" / name).to_pandas()
        asked = asked[asked["condition"].isin(["advantaged", "disadvantaged"])]
        assert known[name]["flips"]["after"]["estimate"] == asked["flip"].astype(float).mean()
    assert known["before"]["flips"] == after["flips"]["before"]
    text = tables(found["references"], found["results"], found["trainings"])
    assert f"\n\n{text}\n" in (out / "sweep.md").read_text()
    assert draw(found["references"], found["results"]) == (out / "sweep.svg").read_text()


def test_again_nothing_is_asked(out: Path, given_options, monkeypatch, capsys):
    def never(*args: Any, **kwargs: Any):
        raise AssertionError("a model was asked")

    monkeypatch.setattr("unswayed.mitigation.capability.load_lm", never)
    monkeypatch.setattr("unswayed.audit.run.load_lm", never)
    before = {path: path.read_bytes() for path in out.glob("sweep.*")}
    arguments = [*given_options, "--out", str(out)]
    assert run_sweep(DpoSweep, "", [*arguments, "--only", "b"]) == 0
    assert {path: path.read_bytes() for path in before} == before  # the other run stays in
    assert "| a " in capsys.readouterr().out


def test_what_does_not_fit_is_refused(out: Path, config: Path, given_options, capsys, tmp_path):
    arguments = [*given_options, "--out", str(out)]
    before = {path: path.read_bytes() for path in out.glob("*.*")}

    def refused(words: str, more: list[str]) -> None:
        assert run_sweep(DpoSweep, "", [*arguments, *more]) == 2
        lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("sweep.py: ")]
        assert len(lines) == 1 and re.search(words, lines[0]), lines

    refused("--only c: the runs are a, b", ["--only", "c"])
    refused("'mlu=x' is not one of", ["--capability", "mlu=x"])
    refused("training saw|between 1 and 30", ["--pairs", "31"])
    refused(r"shared/before holds a different run \(its items differ", ["--items", "builtin"])
    other = yaml.safe_load(config.read_text()) | {"lora": {"r": 2}}
    changed = config.with_name("changed.yaml")  # the base is found from there
    changed.write_text(yaml.safe_dump(other))
    refused(r"a-0/recipe\.yaml is another recipe \(lora differ\)", ["--config", str(changed)])
    other = yaml.safe_load(config.read_text()) | {"n_pairs": 9}
    changed.write_text(yaml.safe_dump(other))
    refused("9 pairs are to be drawn from the dataset", ["--config", str(changed)])
    assert {path: path.read_bytes() for path in before} == before


def test_results_of_another_recipe_are_left_out(out: Path, config: Path, given_options, caplog):
    recipe = read_sweep(config).runs["a"]
    caplog.set_level("WARNING", "unswayed")
    assert finished(recipe, out / "a-0")["model"]
    assert not caplog.messages
    other = dataclasses.replace(recipe, training=recipe.training | {"beta": 0.2})
    assert finished(other, out / "a-0") is None
    assert "was made with another recipe or other pairs: it is left out" in caplog.messages[0]
    fewer = dataclasses.replace(recipe, n_pairs=4)
    assert finished(fewer, out / "a-0") is None
    assert finished(recipe, out / "none") is None


def test_results_of_another_audit_are_left_out():
    found = {("a", 0): asked(4, "x"), ("b", 0): asked(5, "x"), ("c", 0): asked(4, "x", "y"),
             ("d", 0): asked(4, "x", adapter="other"), ("a", 1): asked(4, "x")}  # fmt: skip
    assert list(alike(found, ("a", 1))) == [("a", 0), ("a", 1)]


def test_results_of_other_capability_questions_are_left_out():
    counts = {"few": 100, "none": None, "many": 1000, "last": 1000}
    found = {(name, 0): asked(4, "x", questions=count) for name, count in counts.items()}
    kept = {last: [name for name, _ in alike(found, (last, 0))] for last in counts}
    assert kept["few"] == kept["none"] == ["few", "none"]  # the first that has settings
    assert kept["many"] == kept["last"] == ["none", "many", "last"]
    audits = found | {("few", 0): asked(5, "x", questions=100)}
    assert [name for name, _ in alike(audits, ("none", 0))] == ["none", "many", "last"]
    [alone] = alike({("none", 0): found["none", 0]}, ("none", 0))
    assert alone == ("none", 0)


def asked(
    n_items: int, *tests: str, adapter: str | None = None, questions: int | None = None
) -> dict[str, Any]:
    """What mitigation.json says of what was asked."""
    return {
        "runs": {"before": {"model": {"revision": "0", "adapter_hash": adapter}}},
        "tests": {test: {"n_items": n_items, "n_pairs": 2} for test in tests},
        "capability": questions and {"settings": {"mmlu": "data", "questions": questions}},
    }


# -- tables and plot of made-up results ----------------------------------------------------------


def value(estimate: float, half: float = 0.1) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - half, "high": estimate + half}


def measure(before: float, after: float, share: bool = False) -> dict[str, Any]:
    return {
        "before": value(before), "after": value(after), "change": value(after - before),
        "relative": value(after / before - 1) if share else None,
    }  # fmt: skip


def made_up(name: str, seed: int, flips: float, gap: float = 0.02, **costs: float) -> dict:
    tasks = {
        SOURCES[source]: {
            condition: {"before": 0.3, "after": 0.3 + k * change, "change": k * change,
                        "low": k * change - 0.02, "high": k * change + 0.02, "n": 100,
                        "p_equivalent": 0.5}
            for k, condition in ((1, "none"), (2, "advantaged"))
        }
        for source, change in costs.items()
    }  # fmt: skip
    return {
        "name": name, "seed": seed, "recipe": {}, "capability": tasks or None,
        "tests": {
            "steu": {"n_items": 10, "n_pairs": 5, "at_chance": False,
                     "flips": measure(0.2, flips, True), "accuracy": measure(0.5, 0.5 + gap),
                     "gap": measure(0.05, gap)}
        },
        "training": {"pairs": 100, "steps": 13, "seconds": 60.4,
                     "preference_accuracy": {"train": 0.9, "test": None}},
    }  # fmt: skip


KNOWN = {
    "steu": {
        "at_chance": False,
        "before": {"flips": value(0.2), "accuracy": value(0.5), "gap": value(0.05)},
        "ignore": {"flips": measure(0.2, 0.15, True), "accuracy": measure(0.5, 0.48),
                   "gap": measure(0.05, -0.03)},
    }
}  # fmt: skip


def cells(table: str, row: int) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[row].strip("|").split("|")]


def test_effects_by_hand():
    results = [made_up("x", seed, flips) for seed, flips in enumerate((0.08, 0.1, 0.12))]
    results.append(made_up("y", 0, 0.15, gap=-0.01))
    table = effect_table(KNOWN["steu"], results, "steu", {})
    assert cells(table, 2)[:3] == ["Before training", "", "20.0 [10.0, 30.0]"]
    # of several trainings whose answers are not at hand, the lowest and the highest
    assert cells(table, 3)[:4] == ["x", "3", "10.0 (8.0 to 12.0)", "-10.0 (-12.0 to -8.0)"]
    assert cells(table, 3)[4] == "-50.0 (-60.0 to -40.0)"
    # of one, its own interval
    assert cells(table, 4)[:4] == ["y", "1", "15.0 [5.0, 25.0]", "-5.0 [-15.0, +5.0]"]
    together = {"x": {"steu": results[0]["tests"]["steu"]}}
    with_answers = effect_table(KNOWN["steu"], results, "steu", together)
    assert cells(with_answers, 3)[2] == "8.0 [-2.0, 18.0]"
    assert cells(table, 5)[0] == "Before, told to ignore the user"
    assert cells(table, 5)[2:5] == [
        "15.0 [5.0, 25.0]", "-5.0 [-15.0, +5.0]", "-25.0 [-35.0, -15.0]",
    ]  # fmt: skip
    assert len(table.splitlines()) == 6  # gated was not asked


def test_all_tables():
    results = [made_up("x", s, 0.1, mmlu=0.01 * s, ifeval=-0.02) for s in range(3)]
    text = tables(KNOWN, [*results, made_up("y", 0, 0.15)], {})
    assert "Warning" not in text
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()
             if line.startswith("| x")]  # fmt: skip
    seeds = [line for line in lines if line[1:3] == ["1", "10.0 [0.0, 20.0]"]]
    assert len(seeds) == 1 and seeds[0][4] == "-50.0 [-60.0, -40.0]"
    [mmlu] = [line for line in lines if line[1:3] == ["MMLU", "No memory"]]
    assert mmlu[3:5] == ["100", "30.0"] and mmlu[6].startswith("+1.0 (0.0 to +2.0)")
    assert mmlu[7] == "0.0 [-2.0, +2.0]; +1.0 [-1.0, +3.0]; +2.0 [0.0, +4.0]"
    assert lines[-1] == ["x", "3", "100", "13", "60", "90.0 (each)", "–"]
    assert not [line for line in text.splitlines() if line.startswith("| y") and "MMLU" in line]
    plain = tables(KNOWN, [made_up("y", 0, 0.15)], {})
    assert "Capability" not in plain.split("## Plot")[0]
    guess = {"steu": KNOWN["steu"] | {"at_chance": True}}
    assert "on steu the model is at chance before training;" in tables(guess, results, {})


POINTS = st.lists(
    st.tuples(st.integers(-3, 3).map(float), st.integers(0, 4).map(float)), max_size=12
)


@given(POINTS)
def test_pareto_front(found: list[tuple[float, float]]):
    front = pareto_front(found)
    best = [at for at, one in zip(found, front, strict=True) if one]
    for at, one in zip(found, front, strict=True):
        # nothing on the front is beaten by anything; what is not on it is beaten by the front
        beaten = [b for b in best if b[0] >= at[0] and b[1] <= at[1] and b != at]
        assert bool(beaten) != one
    assert bool(best) == bool(found)
    assert (max(found, key=lambda at: (at[0], -at[1])) in best) if found else True
    steps = sorted(set(best))
    assert [y for _, y in steps] == sorted(y for _, y in steps)  # what costs less leaves more
    doubled = pareto_front(found + found)
    assert doubled == front + front  # equal points do not beat each other


def test_places():
    one = made_up("x", 0, 0.1, gap=-0.04, mmlu=0.01)
    assert place(one, "steu", "persona_mmlu", "gap") == pytest.approx((0.01, 0.04))
    assert place(one, "steu", "accuracy", "flips") == pytest.approx((-0.04, 0.1))
    assert place(one, "steu", "persona_ifeval", "flips") is None
    known = KNOWN["steu"]
    assert untrained_places(known, "persona_mmlu", "gap") == {
        "before": (0, 0.05),
        "ignore": (0, 0.03),
    }
    found = untrained_places(known, "accuracy", "flips")
    assert found["before"] == (0, 0.2) and found["ignore"] == pytest.approx((-0.02, 0.15))


def test_plot_of_made_up_results():
    results = [
        made_up(name, seed, flips + 0.01 * seed, mmlu=cost, ifeval=-cost)
        for name, flips, cost in (("a", 0.1, -0.01), ("b", 0.15, 0.01), ("c", 0.3, -0.05))
        for seed in range(3)
    ]
    first = draw(KNOWN, results)
    assert first == draw(KNOWN, results)
    texts = "".join(ET.fromstring(first).itertext())
    for label in ("change of MMLU, no memory (points)", "change of IFEval, no memory (points)",
                  "change of accuracy with a persona (points)", "flips with a persona (%)",
                  "gap, without its sign (points)", "Pareto front", "told to ignore"):  # fmt: skip
        assert label in texts
    assert "memory gated" not in texts
    alone = "".join(ET.fromstring(draw(KNOWN, [made_up("a", 0, 0.1, ifeval=0.0)])).itertext())
    assert "IFEval" in alone and "MMLU" not in alone
