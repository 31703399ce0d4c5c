"""The recipe: its keys, its errors, and a whole run on a tiny model."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from unswayed.core.errors import InputError
from unswayed.data.conversations import builtin_conversations
from unswayed.models.adapters import read_manifest
from unswayed.plum.recipe import PlumRecipe, read_recipe, run_recipe, training_pairs
from unswayed.plum.settings import PlumSettings

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "plum" / "train.py"
RECIPES = sorted((ROOT / "recipes" / "plum").glob("*.yaml"))
CHAT = '{"id": "%s", "messages": [{"role": "user", "content": "%s"}, ' + (
    '{"role": "assistant", "content": "Noted."}]}\n'
)


@pytest.fixture
def recipe(tmp_path: Path):
    """`recipe(**keys)`: the path of a recipe that is whole but for what is given."""

    def write(name: str = "run.yaml", **keys: object) -> Path:
        whole = {"model": "none", "users": {"me": ["builtin"]}, "output_dir": str(tmp_path / "out")}
        path = tmp_path / name
        path.write_text(yaml.safe_dump(whole | keys))
        return path

    return write


class TestKeys:
    def test_shipped_recipes(self):
        for path in RECIPES:
            found = read_recipe([path])
            assert (found.settings.rank, found.settings.alpha) == (16, 64)
            assert found.settings.qa_weight == 10.0
            assert found.output_dir == f"runs/plum/{path.stem}"

    def test_defaults_are_those_of_the_dataclasses(self, recipe, tmp_path: Path):
        assert read_recipe([recipe()]) == PlumRecipe(
            "none", {"me": ["builtin"]}, str(tmp_path / "out")
        )

    def test_later_files_replace_keys(self, recipe, tmp_path: Path):
        first = recipe(settings={"rank": 4, "epochs": 3})
        second = tmp_path / "more.yaml"
        second.write_text("dtype: float32\nsettings: {epochs: 5}\n")
        found = read_recipe([first, second])
        assert found.dtype == "float32"
        assert found.settings == PlumSettings(rank=4, epochs=5)

    def test_whole_numbers_where_fractions_may_be(self, recipe):
        weight = read_recipe([recipe(settings={"qa_weight": 5})]).settings.qa_weight
        assert (weight, type(weight)) == (5.0, float)

    def test_refused_in_one_line(self, recipe, capsys):
        for keys, message in [
            ({"modell": "x"}, "run.yaml: unknown key modell; known are augment, dtype, model"),
            ({"settings": {"lora_r": 8}}, "unknown key settings.lora_r; known are alpha"),
            ({"augment": {"near": 1}}, "unknown key augment.near; known are held_out"),
            ({"settings": {"rank": "16"}}, "settings.rank is '16', it must be of type int"),
            ({"settings": {"rank": True}}, "settings.rank is True, it must be of type int"),
            ({"settings": {"joint": 1}}, "settings.joint is 1, it must be of type bool"),
            ({"settings": {"targets": [1]}}, "targets must be all-linear or a list"),
            ({"settings": {"rank": 0}}, "rank is 0, it must be at least 1"),
            ({"settings": None}, "settings must be a mapping"),
            ({"model": 3}, "model is 3, it must be of type str"),
            ({"users": ["builtin"]}, "users must map names to lists of sources"),
            ({"users": {"me": "builtin"}}, "users must map names to lists of sources"),
            ({"users": {}}, "users must map names to lists of sources"),
            ({"users": {"me": ["nowhere"]}}, "conversations 'nowhere': not one of builtin"),
        ]:
            assert run_recipe("", ["--config", str(recipe(**keys))]) == 2
            said = capsys.readouterr()
            assert message in said.err and said.err.startswith("train.py: ")
            assert said.err.count("\n") == 1 and not said.out

    def test_text(self, tmp_path: Path):
        for text, message in [
            ("settings: {learning_rate: 1e-4}", "is '1e-4', .* float .YAML wants a dot: 1.0e-4"),
            ("model: a\nmodel: b", "run.yaml:2: the key model is there twice"),
            ("settings:\n  rank: 1\n  rank: 2", "run.yaml:3: the key rank is there twice"),
            ("- a", "a recipe is a mapping"),
            ("", "a recipe is a mapping"),
            ("a: [", "not YAML"),
            ("model: a", "the key users is missing"),
        ]:
            (tmp_path / "run.yaml").write_text(text)
            with pytest.raises(InputError, match=message):
                read_recipe([tmp_path / "run.yaml"])

    def test_missing_file(self, tmp_path: Path):
        with pytest.raises(InputError, match="no such file"):
            read_recipe([tmp_path / "none.yaml"])


class TestPairs:
    def test_built_in_questions_in_order(self):
        conversations = builtin_conversations()[:3]
        pairs = training_pairs(conversations, None)
        assert list(dict.fromkeys(p.conversation for p in pairs)) == [c.id for c in conversations]
        kinds = [pair.kind for pair in pairs]
        assert kinds.count("yes") == kinds.count("no") == kinds.count("open")

    def test_made_questions(self):
        conversations = builtin_conversations()[:3]
        pairs = training_pairs(conversations, {"per_conversation": 8})
        counts = [sum(p.conversation == c.id for p in pairs) for c in conversations]
        assert counts == [8, 8, 8]

    def test_own_conversations_need_made_questions(self, recipe, tmp_path: Path, capsys):
        (tmp_path / "mine.jsonl").write_text(CHAT % ("walk", "I walked to the mill."))
        path = recipe(users={"me": [f"chat={tmp_path / 'mine.jsonl'}"]})
        assert run_recipe("", ["--config", str(path)]) == 2
        assert "'walk' is not a built-in one" in capsys.readouterr().err


SMALL = {"rank": 2, "epochs": 1}


@pytest.fixture
def run_keys(tmp_path: Path, tiny_model_dir) -> dict:
    """Of a short run on two conversations from a file."""
    rows = [{"id": c.id, "messages": list(c.turns)} for c in builtin_conversations()[:2]]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": str(tiny_model_dir("llama", chat=True)),
        "users": {"me": [f"chat={path}"]},
        "augment": {"per_conversation": 4, "held_out": 2},
        "settings": SMALL,
    }


class TestRun:
    def test_whole_run_and_again(self, recipe, run_keys, tmp_path: Path, monkeypatch, capsys):
        argv = [str(SCRIPT), "--config", str(recipe(**run_keys))]
        for _ in range(2):
            monkeypatch.setattr(sys, "argv", argv)
            with pytest.raises(SystemExit) as exit:
                runpy.run_path(str(SCRIPT), run_name="__main__")
            assert exit.value.code == 0
            assert capsys.readouterr().out == f"{tmp_path / 'out' / 'me'}: 2 conversations\n"
        assert [c["samples"] for c in read_manifest(tmp_path / "out" / "me")["conversations"]] == [
            4, 4
        ]  # fmt: skip

    def test_other_settings_in_the_same_folder(self, recipe, run_keys, capsys):
        assert run_recipe("", ["--config", str(recipe(**run_keys))]) == 0
        other = run_keys | {"settings": SMALL | {"rank": 3}}
        assert run_recipe("", ["--config", str(recipe(**other))]) == 2
        assert "was begun with rank 2, now it is 3" in capsys.readouterr().err

    @pytest.mark.slow
    def test_accelerate_launch(self, recipe, run_keys, tmp_path: Path):
        config = ROOT / "configs" / "accelerate" / "cpu.yaml"
        command = ["accelerate.commands.launch", "--config_file", config, SCRIPT]
        done = subprocess.run(
            [sys.executable, "-m", *command, "--config", recipe(**run_keys)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{tmp_path / 'out' / 'me'}: 2 conversations\n"
