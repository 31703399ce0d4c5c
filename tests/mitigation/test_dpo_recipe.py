"""The recipe: its keys, its errors, its pairs, and what a folder holds after a run."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.mitigation.dpo.pairs import (
    by_persona,
    memory_of,
    read_splits,
    training_pairs,
)
from unswayed.mitigation.dpo.recipe import OURS, read_recipe, run_recipe
from unswayed.mitigation.dpo.rows import NotLearnable, PreferencePair, preference_pair
from unswayed.mitigation.dpo.settings import DpoRecipe

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "dpo" / "train.py"
RECIPES = sorted((ROOT / "recipes" / "dpo").glob("*.yaml"))
MEMORIES = ("You are talking to Anna, a surgeon.", "You are talking to Omar, a cleaner.", "")


def pair(memory: str, question: str, chosen: str, rejected: str) -> PreferencePair:
    system = [{"role": "system", "content": memory}] if memory else []
    return {
        "prompt": [*system, {"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def some_pairs(count: int) -> list[PreferencePair]:
    return [
        pair(MEMORIES[i % 2], f"What is {i // 2}?", "relief " * (1 + i % 3) + str(i), "anger shame")
        for i in range(count)
    ]


def write_dataset(folder: Path, **splits: list) -> Path:
    """A dataset tree with one config."""
    (folder / "constructed").mkdir(parents=True)
    files = []
    for split, rows in splits.items():
        path = folder / "constructed" / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files.append({"split": split, "path": f"constructed/{split}.jsonl"})
    card = yaml.safe_dump({"configs": [{"config_name": "constructed", "data_files": files}]})
    (folder / "README.md").write_text(f"---\n{card}---\n")
    return folder


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir):
    """`recipe(**keys)`: the path of a recipe of a short run but for what is given."""

    def write(name: str = "run.yaml", **keys: object) -> Path:
        data = tmp_path / "data"
        if not data.exists():
            write_dataset(data, train=some_pairs(8), test=some_pairs(10)[8:])
        whole = {
            "model": str(tiny_model_dir("llama", chat=True)),
            "dataset": str(data),
            "output_dir": str(tmp_path / "out"),
            "training": {
                "per_device_train_batch_size": 4, "logging_steps": 1, "num_train_epochs": 1
            },
            "lora": {"r": 2},
        }  # fmt: skip
        path = tmp_path / name
        path.write_text(yaml.safe_dump(whole | keys))
        return path

    return write


class TestKeys:
    @pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
    def test_shipped_recipes(self, path: Path):
        from unswayed.mitigation.dpo.train import training_arguments

        loaded = read_recipe([path])
        arguments = training_arguments(loaded)
        assert loaded.output_dir == f"runs/dpo/{path.stem}"
        assert (loaded.lora["r"], loaded.lora["lora_alpha"]) == (16, 32)
        assert loaded.n_pairs == (None if loaded.model == "smollm2-135m" else 500)
        assert arguments.max_length == 1024  # that of the dataset, so nothing is cut
        assert arguments.precompute_ref_log_probs and not arguments.push_to_hub
        assert (arguments.beta, arguments.loss_type) == (0.1, ["sigmoid"])

    def test_later_files_replace_keys(self, recipe, tmp_path: Path):
        more = tmp_path / "more.yaml"
        more.write_text("seed: 3\ntraining: {beta: 1}\n")
        loaded = read_recipe([recipe(), more])
        assert loaded.seed == 3
        assert loaded.training["beta"] == 1.0 and loaded.training["logging_steps"] == 1

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ({"modell": "x"}, "unknown key modell; known are adapter, config"),
            ({"training": {"betta": 1}}, "unknown key training.betta; known are"),
            ({"training": {"beta": "high"}}, "training.beta is 'high', it must be of type float"),
            ({"training": {"max_prompt_length": 5}}, "unknown key training.max_prompt_length"),
            ({"training": {"num_train_epochs": "x"}}, "must be of type float"),
            ({"training": {"loss_type": ["dpo"]}}, "trl refuses: Unknown loss type: dpo"),
            ({"training": {"eval_strategy": "often"}}, "training: often is not a valid Interval"),
            ({"training": {"ld_alpha": 0.5}}, "add precompute_ref_log_probs: false"),
            ({"training": {"report_to": ["trackio"]}}, "trackio is not installed: `pip install"),
            ({"training": []}, "training must be a mapping"),
            ({"lora": {"rank": 2}}, "unknown key lora.rank"),
            ({"lora": {"target_modules": ["nowhere"]}}, "nowhere"),
            ({"lora": {"target_modules": ["lm_head"]}}, "adapter to `lm_head` is not supported"),
            ({"n_pairs": 0}, "n_pairs is 0, it must be at least 1"),
            ({"n_pairs": 9}, "9 pairs are to be drawn from the dataset, which has only 8"),
            ({"mix_share": 1.0}, "mix_share is 1.0, it must be from 0 to below 1"),
            ({"mix_share": 0.5}, "mix and a mix_share above 0 belong together"),
            ({"reference": "sft"}, "reference is 'sft', it must be one of base, adapter"),
            ({"reference": "adapter"}, "the recipe names no adapter"),
            ({"adapter": "x"}, "leave lora out"),
            ({"order": "random"}, "order is 'random', it must be one of shuffled, by_persona"),
            ({"consistency": -0.1}, "consistency is -0.1, it must be at least 0"),
            ({"dataset": "nowhere/at-all"}, "dataset nowhere/at-all cannot be loaded"),
            ({"config": "sampled"}, "cannot be loaded"),
            ({"model": "nowhere/at-all"}, "model nowhere/at-all cannot be loaded"),
            ({"adapter": "nowhere/at-all", "lora": {}}, "adapter nowhere/at-all cannot be loaded"),
        ],
    )
    def test_refused_in_one_line(self, recipe, tmp_path: Path, capsys, keys: dict, message: str):
        assert run_recipe("", ["--config", str(recipe(**keys))]) == 2
        printed = capsys.readouterr()
        last = printed.err.splitlines()[-1]
        assert message in last and last.startswith("train.py: ")
        assert "Traceback" not in printed.err and not printed.out
        assert not list(tmp_path.rglob("adapter*"))

    @pytest.mark.parametrize("key", sorted(OURS))
    def test_what_a_recipe_may_not_say(self, recipe, key: str):
        with pytest.raises(InputError, match=f"leave out training.{key}: "):
            read_recipe([recipe(training={key: None})])

    def test_missing_key(self, tmp_path: Path):
        (tmp_path / "run.yaml").write_text("model: a\ndataset: b\n")
        with pytest.raises(InputError, match="the key output_dir is missing"):
            read_recipe([tmp_path / "run.yaml"])


GOOD = pair("", "What is 1?", "one", "two")


def whole_chat(asked: PreferencePair) -> dict:
    """The row with its prompt at the beginning of both sides."""
    return {part: asked["prompt"] + asked[part] for part in ("chosen", "rejected")}


class TestPairs:
    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (GOOD | {"prompt": []}, "prompt must be a text or a list of messages"),
            (GOOD | {"chosen": GOOD["prompt"]}, "chosen must end in an assistant message"),
            (GOOD | {"chosen": GOOD["prompt"] + GOOD["chosen"]}, "one of chosen and rejected is a"),
            (GOOD | {"prompt": GOOD["chosen"]}, "prompt must end in a user message"),
            (
                GOOD | {"chosen": "\n\nHuman: Hi\n\nAssistant: Ho"},
                "split it into messages, each wi",
            ),
            (whole_chat(GOOD) | {"prompt": "What is 2?"}, "prompt is not what the chats in chosen"),
            (
                whole_chat(GOOD) | {"prompt": GOOD["chosen"]},
                "prompt is not what the chats in chose",
            ),
            (GOOD | {"prompt": None}, "prompt must be a text or a list of messages"),
        ],
    )
    def test_rows_that_are_no_pairs(self, tmp_path: Path, row: dict, message: str):
        write_dataset(tmp_path / "data", train=[GOOD, row])
        with pytest.raises(InputError, match=message):
            read_splits(str(tmp_path / "data"), "constructed")

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (GOOD | {"rejected": GOOD["chosen"]}, "chosen and rejected are the same text"),
            (GOOD | {"rejected": " one\u200b\n"}, "chosen and rejected are the same text"),
            (GOOD | {"chosen": [{"role": "assistant", "content": " "}]}, "chosen is empty"),
            (GOOD | {"rejected": ""}, "rejected is empty"),
            (GOOD | {"prompt": "\n"}, "prompt is empty"),
            (
                GOOD | {"chosen": [{"role": "tool", "content": "x"}]},
                "chosen has a message of the r",
            ),
            (
                whole_chat(GOOD) | {"chosen": some_pairs(1)[0]["prompt"] + GOOD["chosen"]},
                "part befo",
            ),
        ],
    )
    def test_rows_that_teach_nothing(self, row: dict, reason: str):
        with pytest.raises(NotLearnable, match=reason):
            preference_pair(row)

    def test_rows_left_out_are_counted(self, tmp_path: Path, caplog):
        same = GOOD | {"rejected": [{"role": "assistant", "content": "one "}]}
        data = write_dataset(tmp_path / "data", train=[GOOD, same, GOOD], test=[same])
        with pytest.raises(
            InputError, match=r"test: no row can be trained on, such as row 1 \(cho"
        ):
            read_splits(str(data), "constructed")
        (data / "constructed" / "test.jsonl").write_text(json.dumps(GOOD))
        caplog.clear()
        assert read_splits(str(data), "constructed") == {"train": [GOOD] * 2, "test": [GOOD]}
        assert caplog.messages == [
            f"{data}, train: left out 1 of 3 rows: 2 (chosen and rejected are the same text)"
        ]

    @given(st.lists(st.sampled_from(MEMORIES), min_size=1, max_size=3), st.booleans())
    def test_whole_chats_are_their_beginning_and_two_answers(self, turns: list[str], system: bool):
        asked = pair("Notes." * system, "What is 1?", "one", "two")
        for n, text in enumerate(turns):
            asked["prompt"].append({"role": "assistant", "content": f"{n} {text}"})
            asked["prompt"].append({"role": "user", "content": f"{n}?"})
        whole, first = whole_chat(asked), asked["prompt"][system]
        forms = [whole, asked, whole | {"prompt": first["content"]}, whole | {"prompt": None}]
        forms += [whole | {"prompt": asked["prompt"]}, whole | {"prompt": asked["prompt"][system:]}]
        names = {"user": "human", "assistant": "gpt", "system": "developer"}
        shared = {
            part: [{"from": names[m["role"]], "value": m["content"]} for m in messages]
            for part, messages in asked.items()
        }
        assert all(preference_pair(row) == asked for row in [*forms, shared])

    @pytest.mark.parametrize(
        "prompt",
        [
            ["What is 1?"],
            {"role": "user", "content": "What is 1?"},
            [{"content": "What is 1?"}],
            [{"role": None, "content": "Notes."}, *GOOD["prompt"]],
            3,
        ],
    )
    def test_prompts_that_are_no_messages(self, tmp_path: Path, prompt: object):
        write_dataset(tmp_path / "data", train=[GOOD | {"prompt": prompt}])
        words = "train row 1: prompt must be a text or a list of messages, each with role and cont"
        with pytest.raises(InputError, match=words):
            read_splits(str(tmp_path / "data"), "constructed")

    def test_texts_become_messages(self, tmp_path: Path):
        row = {"prompt": "What is 1?", "chosen": "one", "rejected": "two"}
        write_dataset(tmp_path / "data", train=[row])
        assert read_splits(str(tmp_path / "data"), "constructed") == {"train": [GOOD]}

    def test_a_dataset_built_anew(self, tmp_path: Path):
        for name, rows in (("a", [GOOD]), ("b", [GOOD] * 2)):  # of the same name, elsewhere
            write_dataset(tmp_path / name / "data", train=rows)
            splits = read_splits(str(tmp_path / name / "data"), "constructed")
            assert splits == {"train": rows}

    def test_no_training_split(self, tmp_path: Path):
        write_dataset(tmp_path / "data", test=[GOOD])
        with pytest.raises(InputError, match="has no split train, only test"):
            read_splits(str(tmp_path / "data"), "constructed")

    @pytest.mark.parametrize(("limit", "refused"), [(20, True), (256, False), (None, False)])
    def test_too_long(self, recipe, tmp_path: Path, capsys, limit: int | None, refused: bool):
        long = pair(MEMORIES[0], "What is it?", "joy " * 30, "anger")
        write_dataset(tmp_path / "data", train=[long, GOOD])
        training = {"max_length": limit, "max_steps": 1}
        assert run_recipe("", ["--config", str(recipe(training=training))]) == 2 * refused
        if refused:
            error = capsys.readouterr().err
            assert "training pair 1 has " in error
            assert "more than the limit of 20 (max_length)" in error

    def test_longer_than_the_model(self, recipe, tmp_path: Path, capsys):
        write_dataset(tmp_path / "data", train=[pair("", "What?", "joy " * 600, "anger")])
        assert run_recipe("", ["--config", str(recipe(training={"max_length": None}))]) == 2
        assert "more than the limit of 512 (positions of llama" in capsys.readouterr().err

    @given(
        st.integers(1, 8),
        st.floats(0.0, 0.9),
        st.integers(0, 5),
    )
    def test_drawn_and_mixed(self, count: int, share: float, seed: int):
        pairs, other = some_pairs(8), [pair("", f"Say {i}.", "yes", "no") for i in range(80)]
        drawn = training_pairs(pairs, count, other, share, seed)
        first = [row for row in drawn if row in pairs]
        assert len(first) == count and first == sorted(first, key=pairs.index)
        assert abs((len(drawn) - count) - share * len(drawn)) <= 1
        assert len({json.dumps(row) for row in drawn}) == len(drawn)
        assert drawn == training_pairs(pairs, count, other, share, seed)

    def test_too_few_to_mix(self):
        with pytest.raises(InputError, match="8 pairs are to be drawn from mix, which has only 1"):
            training_pairs(some_pairs(8), None, [GOOD], 0.5)

    def test_none_left(self):
        with pytest.raises(InputError, match="no pair is left"):
            training_pairs([], None)

    @given(
        st.lists(st.integers(0, 4), max_size=40),
        st.integers(1, 9),
        st.integers(0, 5),
    )
    def test_order(self, memories: list[int], size: int, seed: int):
        pairs = [pair(f"User {m}.", f"Q{m}?", "a", f"b{i}") for i, m in enumerate(memories)]
        drawn = by_persona(pairs, size, seed)
        assert Counter(map(json.dumps, drawn)) == Counter(map(json.dumps, pairs))
        # A group is one run of the order that is cut: it meets one border of a batch more at most
        # than it fills batches, and the order of the batches does not change what is in them.
        batches = [drawn[i : i + size] for i in range(0, len(drawn), size)]
        for group, count in Counter(memories).items():
            held = sum(any(memory_of(p) == memory_of(pairs[memories.index(group)]) for p in batch)
                       for batch in batches)  # fmt: skip
            assert held <= (count + size - 2) // size + 1


class TestRun:
    def test_whole_run_and_again(self, recipe, tmp_path: Path, monkeypatch, capsys):
        out = tmp_path / "out"
        argv = [str(SCRIPT), "--config", str(recipe(merge=True))]
        times = []
        for _ in range(2):
            monkeypatch.setattr(sys, "argv", argv)
            with pytest.raises(SystemExit) as exit:
                runpy.run_path(str(SCRIPT), run_name="__main__")
            assert exit.value.code == 0
            assert capsys.readouterr().out == f"{out}\n"
            times.append((out / "adapter_model.safetensors").stat().st_mtime_ns)
        assert times[0] == times[1]
        assert {path.name for path in out.iterdir()} >= {
            "README.md", "adapter_config.json", "adapter_model.safetensors", "checkpoints",
            "curves.json", "curves.svg", "merged", "run.json", "tokenizer.json",
        }  # fmt: skip
        assert not list(out.glob("*.bin"))  # nothing pickled beside the adapter
        history = json.loads((out / "curves.json").read_text())
        assert [row["step"] for row in history if "rewards/margins" in row] == [1, 2]
        assert [row["step"] for row in history if "eval_rewards/margins" in row] == [2]
        result = json.loads((out / "run.json").read_text())["result"]
        assert result["eval_loss"] == history[-1]["eval_loss"]
        config = json.loads((out / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == Path(read_recipe([Path(argv[2])]).model).name
        for file in ("README.md", "adapter_config.json"):
            assert str(tmp_path) not in (out / file).read_text()

    def test_other_settings_in_the_same_folder(self, recipe, tmp_path: Path, capsys):
        assert run_recipe("", ["--config", str(recipe())]) == 0
        assert run_recipe("", ["--config", str(recipe(seed=1))]) == 2
        assert "was begun with recipe.seed 0, now it is 1" in capsys.readouterr().err
        with (tmp_path / "data" / "constructed" / "train.jsonl").open("a") as file:
            file.write(json.dumps(GOOD) + "\n")
        assert run_recipe("", ["--config", str(recipe())]) == 2
        assert "was begun with data.train 8, now it is 9" in capsys.readouterr().err

    def test_damaged_folder(self, recipe, tmp_path: Path, capsys):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "run.json").write_text("{")
        assert run_recipe("", ["--config", str(recipe())]) == 2
        assert "run.json is damaged" in capsys.readouterr().err

    @pytest.mark.slow
    def test_accelerate_launch(self, recipe, tmp_path: Path):
        config = ROOT / "configs" / "accelerate" / "cpu.yaml"
        command = ["accelerate.commands.launch", "--config_file", config, SCRIPT]
        done = subprocess.run(
            [sys.executable, "-m", *command, "--config", recipe()], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{tmp_path / 'out'}\n"
        assert f"reference: {Path(read_recipe([recipe()]).model).name} without" in done.stderr


def test_the_dataclass_has_no_default_that_it_refuses():
    assert DpoRecipe("a", "b", "c").n_pairs is None
