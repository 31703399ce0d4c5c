"""`unswayed remember` through the command line, on tiny models."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unswayed.cli import main
from unswayed.data.conversations import builtin_conversations
from unswayed.models.adapters import MANIFEST, WEIGHTS
from unswayed.plum import forget, remember
from unswayed.plum import train as trainer

FEW = ("epochs=1", "rank=2", "alpha=4", "augment.per_conversation=4")


class Workshop:
    """A folder with the built-in conversations as files, and the command."""

    def __init__(self, path: Path, model: Path, capsys: Any) -> None:
        self.path, self.model, self._capsys = path, str(model), capsys
        self.memory = path / "me"

    def chat(self, name: str, numbers: list[int]) -> str:
        rows = [builtin_conversations()[i] for i in numbers]
        lines = [
            json.dumps({"id": one.id, "time": one.time, "messages": list(one.turns)})
            for one in rows
        ]
        (self.path / name).write_text("\n".join(lines) + "\n", "utf-8")
        return f"chat={self.path / name}"

    def run(self, *argv: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = main(["remember", *argv])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def train(self, spec: str, *argv: str) -> tuple[int, str, str]:
        where = ("--memory", str(self.memory), "--conversations", spec)
        return self.run("train", *where, *argv)

    def begin(self, numbers: list[int]) -> str:
        spec = self.chat("all.jsonl", numbers)
        assert self.train(spec, "--model", self.model, "--set", *FEW)[0] == 0
        return spec

    def forget(self, spec: str, *ids: str) -> tuple[int, str, str]:
        argv = ("--model", self.model, "--conversations", spec, "--conversation", *ids)
        return self.run("forget", str(self.memory), *argv)


@pytest.fixture
def work(tmp_path: Path, tiny_model_dir, capsys) -> Workshop:
    return Workshop(tmp_path, tiny_model_dir("llama", chat=True, num_hidden_layers=1), capsys)


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST).read_text("utf-8"))


def ids(folder: Path) -> list[str]:
    return [entry["id"] for entry in manifest(folder)["conversations"]]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


BANK = [one.id for one in builtin_conversations()]


class TestTrain:
    def test_begin_and_go_on(self, work: Workshop):
        code, out, _ = work.train(
            work.chat("a.jsonl", [0, 1]), "--model", work.model, "--set", *FEW
        )
        assert code == 0
        assert re.fullmatch(
            rf"{work.memory} knows 2 conversations, 2 of them new, learnt in \d+ s; adapter of "
            r"0\.0 MB\n",
            out,
        )
        found = manifest(work.memory)
        assert (found["settings"]["rank"], found["settings"]["epochs"]) == (2, 1)
        assert found["augment"] == {"held_out": 2, "per_conversation": 4}
        assert all(entry["seconds"] >= 0 for entry in found["conversations"])
        # The same settings and model need not be said again; what is known is not learnt again.
        spec = work.chat("b.jsonl", [0, 1, 2])
        code, out, _ = work.train(spec, "--model", work.model)
        assert code == 0 and "knows 3 conversations, 1 of them new" in out
        after = contents(work.memory)
        code, out, _ = work.train(spec, "--model", work.model)
        assert code == 0 and "knows 3 conversations, 0 of them new" in out
        assert contents(work.memory) == after
        assert manifest(work.memory)["augment"] == found["augment"]

    def test_only_the_new_ones_are_given(self, work: Workshop, caplog):
        work.begin([0, 1])
        spec = work.chat("b.jsonl", [2])
        code, out, _ = work.train(spec, "--model", work.model)
        assert code == 0 and "knows 3 conversations, 1 of them new" in out
        assert f"knows 2 conversations that are not given, first {BANK[0]}" in caplog.text

    def test_given_late_is_learnt_late(self, work: Workshop):
        work.begin([1, 3])
        code, _, _ = work.train(work.chat("b.jsonl", [2, 1, 3, 0]), "--model", work.model)
        assert code == 0
        assert ids(work.memory) == [BANK[i] for i in (1, 3, 0, 2)]

    def test_interrupted(self, work: Workshop, monkeypatch):
        spec = work.begin([0, 1, 2])
        whole = contents(work.memory)["adapter-00003/" + WEIGHTS]
        shutil.rmtree(work.memory)
        stop_at(monkeypatch, trainer, "write_checkpoint", 3)
        argv = (spec, "--model", work.model, "--set", *FEW)
        code, _, err = work.train(*argv)
        assert (code, err) == (130, "unswayed: interrupted; the same command goes on\n")
        assert ids(work.memory) == BANK[:2]
        monkeypatch.undo()
        assert work.train(*argv)[0] == 0
        assert contents(work.memory)["adapter-00003/" + WEIGHTS] == whole

    def test_no_text_in_the_output(self, work: Workshop):
        spec = work.begin([0, 1, 2])
        assert work.forget(spec, BANK[1])[0] == 0
        found = b"\n".join(contents(work.memory).values()).decode("latin-1").lower()
        for one in builtin_conversations()[:3]:
            for turn in one.turns:
                words = turn["content"].lower().split()
                for i in range(len(words) - 2):
                    assert " ".join(words[i : i + 3]) not in found
        assert "?" not in (work.memory / MANIFEST).read_text()

    def test_too_little_to_ask_about(self, work: Workshop):
        spec = work.chat("a.jsonl", [0, 1])
        with (work.path / "a.jsonl").open("a") as file:
            hello = [
                {"role": "user", "content": "Hi!"},
                {"role": "assistant", "content": "Hello."},
            ]
            file.write(json.dumps({"id": "hello", "messages": hello}) + "\n")
        code, out, _ = work.train(spec, "--model", work.model, "--set", *FEW)
        assert code == 0
        assert out.startswith("Not learnt, too little text to ask about: hello\n")
        assert "hello" not in ids(work.memory)

    def test_recipe(self, work: Workshop):
        recipe = work.path / "my.yaml"
        recipe.write_text(
            f"model: {work.model}\nusers: {{me: [builtin]}}\noutput_dir: unused\n"
            "augment: {per_conversation: 4}\nsettings: {rank: 2, epochs: 3}\n"
        )
        spec = work.chat("a.jsonl", [0, 1])
        code, _, _ = work.train(spec, "--recipe", str(recipe), "--set", "epochs=1", "dropout=0.5")
        found = manifest(work.memory)
        assert code == 0
        assert found["augment"] == {"per_conversation": 4}
        used = {name: found["settings"][name] for name in ("rank", "epochs", "dropout")}
        assert used == {"rank": 2, "epochs": 1, "dropout": 0.5}
        assert not Path("unused").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("rang=2", "--set 'rang=2': not NAME=VALUE of a known setting; known are rank, alpha"),
            ("rank", "--set 'rank': not NAME=VALUE of a known setting"),
            ("augment.near=x", "--set 'augment.near=x': not NAME=VALUE of a known setting"),
            ("rank=many", "--set 'rank=many': rank must be of type int"),
            ("joint=1", "--set 'joint=1': joint must be true or false"),
            ("rank=0", "rank is 0, it must be at least 1"),
            ("learning_rate=nan", "learning_rate is nan, it must be above 0"),
            ("augment.wordings=99", "wordings is 99, it must be from 1 to"),
        ],
    )
    def test_settings_that_are_wrong(self, work: Workshop, text: str, message: str):
        spec = work.chat("a.jsonl", [0, 1])
        refused(work.train(spec, "--model", work.model, "--set", text), message)
        assert not work.memory.exists()

    def test_settings_of_every_type(self):
        texts = ("joint=true", "alpha=8", "dropout=1e-1", "targets=q_proj,v_proj")
        settings, augment = remember.chosen_settings(None, None, texts)
        assert (settings.joint, settings.alpha, settings.dropout) == (True, 8, 0.1)
        assert settings.targets == ("q_proj", "v_proj")
        assert augment == {"held_out": 2}

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ("", "a.jsonl: holds no conversations"),
            ('{"id": "x", "messages": []}', "a.jsonl:1: holds no turns"),
            (
                '{"id": "x", "messages": [{"role": "user", "content": "Hi"}]}',
                "a.jsonl:1: only the user speaks",
            ),
            (
                '{"id": "x", "messages": [{"role": "user", "content": 5}]}',
                "a.jsonl:1: turn 1 is '5', it must be a text",
            ),
            (
                '{"id": "x", "messages": [{"role": "user", "content": "Hi"}, '
                '{"role": "assistant", "content": "Hi"}]}\n' * 2,
                "a.jsonl:2: id 'x' is already used at",
            ),
        ],
    )
    def test_bad_conversations(self, work: Workshop, rows: str, message: str):
        (work.path / "a.jsonl").write_text(rows)
        spec = f"chat={work.path / 'a.jsonl'}"
        refused(work.train(spec, "--model", work.model), message)

    def test_no_text_at_all(self, work: Workshop):
        (work.path / "a.jsonl").write_bytes(b"\xff\xfe\x00")
        spec = f"chat={work.path / 'a.jsonl'}"
        refused(work.train(spec, "--model", work.model), "cannot be read as UTF-8 text")

    def test_long_conversation(self, work: Workshop):
        """100,000 words: questions on it are as short as any."""
        bank = [turn for one in builtin_conversations() for turn in one.turns]
        turns = bank * 20
        assert sum(len(turn["content"].split()) for turn in turns) > 100_000
        row = json.dumps({"id": "long", "messages": turns})
        spec = work.chat("a.jsonl", [0])
        with (work.path / "a.jsonl").open("a") as file:
            file.write(row + "\n")
        assert work.train(spec, "--model", work.model, "--set", *FEW)[0] == 0
        assert ids(work.memory) == [BANK[0], "long"]

    def test_wrong_use(self, work: Workshop, tiny_model_dir):
        spec = work.begin([0])
        work.chat("more.jsonl", [0, 1])
        more = spec.replace("all.jsonl", "more.jsonl")
        refused(work.train(more, "--model", work.model, "--set", "rank=3"), "was begun with rank 2")
        refused(
            work.train(more, "--model", work.model, "--set", "augment.wordings=1"),
            "was begun with augment.wordings None, now it is 1",
        )
        other = tiny_model_dir("gpt2", chat=True)
        refused(work.train(more, "--model", str(other)), "this memory was trained on llama-")
        refused(work.train(more), "say with --model where that lies")
        assert ids(work.memory) == BANK[:1]
        work.memory = work.path / "new"
        refused(work.train(spec), "say with --model on what to train one")
        work.memory = work.path / "all.jsonl"
        refused(work.train(spec, "--model", work.model), "is a file; a memory is a folder")


class TestAsk:
    def test_one_shot(self, work: Workshop):
        work.begin([0])
        ask = ("ask", str(work.memory), "Did we talk about rain?", "--model", work.model)
        code, out, _ = work.run(*ask, "--max-new-tokens", "5")
        assert code == 0
        assert work.run(*ask, "--max-new-tokens", "5")[1] == out
        (first,) = remember.answers(work.memory, ["Did we talk about rain?"], 5, work.model)
        assert out == first + "\n"

    def test_answers_from_the_weights(self, work: Workshop):
        """A tiny model learns one conversation's answers by heart; without it, it babbles."""
        spec = work.chat("all.jsonl", [0])
        settings = ("epochs=60", "rank=8", "learning_rate=0.02", "augment.per_conversation=4")
        assert work.train(spec, "--model", work.model, "--set", *settings)[0] == 0
        pairs = remember.training_pairs(
            builtin_conversations()[:1], {"held_out": 2, "per_conversation": 4}
        )
        closed = [pair for pair in pairs if pair.kind in ("yes", "no")]
        said = remember.answers(work.memory, [p.question for p in closed], 8, work.model)
        assert list(said) == [pair.answer for pair in closed]

    def test_piped(self, work: Workshop, monkeypatch):
        work.begin([0])
        monkeypatch.setattr(sys, "stdin", io.StringIO("Who?\n\nWhat?\n"))
        argv = ("ask", str(work.memory), "--model", work.model, "--max-new-tokens", "3")
        code, out, _ = work.run(*argv)
        assert code == 0 and out.count("\n") == 2

    @pytest.mark.parametrize("end", ["", EOFError])
    def test_keyboard(self, work: Workshop, monkeypatch, end: Any):
        work.begin([0])
        typed = iter(["Who?", "What?", end])

        def answer(prompt: str) -> str:
            line = next(typed)
            if line is EOFError:
                raise EOFError
            return line

        monkeypatch.setattr("builtins.input", answer)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        argv = ("ask", str(work.memory), "--model", work.model, "--max-new-tokens", "3")
        assert work.run(*argv)[0] == 0
        assert next(typed, None) is None

    def test_wrong_use(self, work: Workshop, tiny_model_dir):
        work.begin([0])
        memory, own = str(work.memory), ("--model", work.model)
        refused(work.run("ask", memory, " ", *own), "the question is empty")
        refused(work.run("ask", memory, "a\udc80", *own), "is not UTF-8 text")
        refused(work.run("ask", memory, "Who?", "--max-new-tokens", "0"), "must be at least 1")
        refused(work.run("ask", memory, "word " * 600, *own), "context")
        refused(work.run("ask", memory, "Who?"), "say with --model where that lies")
        refused(work.run("ask", memory, "Who?", "--model", "none"), "model none cannot be loaded")
        other = str(tiny_model_dir("gpt2", chat=True))
        refused(work.run("ask", memory, "Who?", "--model", other), "was trained on llama-")


class TestList:
    def test_one_and_several(self, work: Workshop):
        work.begin([0, 1])
        shutil.copytree(work.memory, work.path / "anna")
        shutil.copytree(work.memory, work.path / ".hidden")
        code, out, _ = work.run("list", str(work.memory))
        size = (work.memory / "adapter-00002" / WEIGHTS).stat().st_size
        assert code == 0
        assert out.startswith(f"{work.memory}: 2 conversations on {Path(work.model).name}, ")
        assert f"{size / 1e6:.1f} MB" in out and "rank 2, alpha 4" in out
        assert out.endswith(f"knows: {BANK[0]}, {BANK[1]}\n")
        code, out, _ = work.run("list", str(work.path), "--json")
        found = json.loads(out)
        assert [one["memory"] for one in found] == [str(work.path / "anna"), str(work.memory)]
        assert [entry["id"] for entry in found[0]["conversations"]] == BANK[:2]
        assert found[0]["bytes"] == size and found[0]["settings"]["rank"] == 2

    def test_not_a_memory(self, work: Workshop):
        for action in (("list",), ("ask",), ("forget", "--all")):
            for folder, message in ((work.path, "is no memory"), (work.path / "x", "is no folder")):
                refused(work.run(action[0], str(folder), *action[1:]), f"{folder} {message}")

    def test_damaged(self, work: Workshop):
        work.begin([0])
        (work.memory / "adapter-00001" / WEIGHTS).unlink()
        for argv in (("list",), ("ask", "Who?")):
            message = f"{WEIGHTS} is missing"
            refused(work.run(argv[0], str(work.memory), *argv[1:]), message)
        (work.memory / MANIFEST).write_text("{}")
        refused(work.run("list", str(work.memory)), "is no manifest of a memory")


class TestForgetAll:
    def test_all(self, work: Workshop):
        work.begin([0])
        code, out, _ = work.run("forget", str(work.memory), "--all")
        assert code == 0 and not work.memory.exists()
        paths = (work.memory / "adapter-00001", work.memory / MANIFEST, work.memory)
        assert out == "".join(f"Removed {path}\n" for path in paths)

    def test_other_files_stay(self, work: Workshop):
        work.begin([0])
        (work.memory / "adapter-notes").mkdir()
        assert work.run("forget", str(work.memory), "--all")[0] == 0
        assert [path.name for path in work.memory.iterdir()] == ["adapter-notes"]

    def test_flag_is_needed(self, work: Workshop):
        work.begin([0])
        memory = str(work.memory)
        refused(work.run("forget", memory), "say what to forget: --all, or --conversation ID")
        both = ("--all", "--conversation", BANK[0])
        refused(work.run("forget", memory, *both), "say what to forget")
        refused(work.run("forget", memory, "--conversation", BANK[0]), "a memory holds no texts")
        assert ids(work.memory) == BANK[:1]


class TestForgetOne:
    def test_as_if_never_told(self, work: Workshop, caplog):
        """The adapter is, byte for byte, that of a memory trained on the others alone."""
        spec = work.begin([0, 1, 2])
        code, out, _ = work.forget(spec, BANK[1])
        assert code == 0
        assert out == f"{work.memory} no longer knows {BANK[1]}; it knows 2 conversations\n"
        cost = rf"To forget {BANK[1]}, all else is learnt anew: 2 conversations, 8 samples x 1 "
        assert re.search(cost + r"epochs, about \d+ s, if it goes as fast", caplog.text)
        assert ids(work.memory) == [BANK[0], BANK[2]]
        assert sorted(path.name for path in work.path.iterdir()) == ["all.jsonl", "me"]
        forgotten = contents(work.memory)
        assert BANK[1].encode() not in b"".join(forgotten.values())
        work.memory = work.path / "never"
        work.begin([0, 2])
        never = contents(work.memory)
        assert forgotten.keys() == never.keys() == {*forgotten}
        name = "adapter-00002/" + WEIGHTS
        assert forgotten[name] == never[name]

    @pytest.mark.parametrize(
        ("where", "name", "call"),
        [
            ("trainer", "write_checkpoint", 1),
            ("trainer", "write_checkpoint", 2),
            ("shutil", "copytree", 1),
            ("forget", "write_manifest", 1),
            ("shutil", "rmtree", 3),  # the first two clear the way for the new adapter
            ("shutil", "rmtree", 4),
        ],
    )
    def test_interrupted(self, work: Workshop, monkeypatch, where: str, name: str, call: int):
        spec = work.begin([0, 1, 2])
        before, whole = contents(work.memory), work.path / "whole"
        work.memory = shutil.copytree(work.memory, whole)
        assert work.forget(spec, BANK[0])[0] == 0
        work.memory = work.path / "me"
        own_shutil = SimpleNamespace(**vars(shutil))  # the trainer keeps the real one
        monkeypatch.setattr(forget, "shutil", own_shutil)
        places = {"trainer": trainer, "forget": forget, "shutil": own_shutil}
        stop_at(monkeypatch, places[where], name, call)
        assert work.forget(spec, BANK[0])[0] == 130
        monkeypatch.undo()
        # The old memory or the new one, whole in either case; list shows no third.
        code, out, _ = work.run("list", str(work.path), "--json")
        assert code == 0 and len(json.loads(out)) == 2
        if name != "rmtree":
            assert before.items() <= contents(work.memory).items()
        trained = count_calls(monkeypatch, trainer, "write_checkpoint")
        code, out, _ = work.forget(spec, BANK[0])
        assert code == 0 and f"no longer knows {BANK[0]}; it knows 2 conversations" in out
        assert len(trained) == (3 - call if where == "trainer" else 0)
        assert ids(work.memory) == BANK[1:3]
        found, wanted = contents(work.memory), contents(whole)
        found.pop(MANIFEST), wanted.pop(MANIFEST)  # they differ in seconds
        assert found == wanted
        assert not [path for path in work.path.iterdir() if path.name.startswith(".")]

    def test_another_one_after_an_interruption(self, work: Workshop, monkeypatch):
        """What was trained with questions on a conversation is of no use to forget that."""
        spec = work.begin([0, 1, 2])
        stop_at(monkeypatch, trainer, "write_checkpoint", 2)
        assert work.forget(spec, BANK[0])[0] == 130
        monkeypatch.undo()
        trained = count_calls(monkeypatch, trainer, "write_checkpoint")
        assert work.forget(spec, BANK[2])[0] == 0
        assert len(trained) == 2 and ids(work.memory) == BANK[:2]
        assert sorted(path.name for path in work.path.iterdir()) == ["all.jsonl", "me"]

    def test_all_after_an_interruption(self, work: Workshop, monkeypatch):
        spec = work.begin([0, 1, 2])
        stop_at(monkeypatch, trainer, "write_checkpoint", 2)
        assert work.forget(spec, BANK[0])[0] == 130
        monkeypatch.undo()
        assert work.run("forget", str(work.memory), "--all")[0] == 0
        assert [path.name for path in work.path.iterdir()] == ["all.jsonl"]

    def test_more_than_is_known(self, work: Workshop, caplog):
        work.begin([0, 1])
        code, _, _ = work.forget(work.chat("more.jsonl", [0, 1, 2, 3]), BANK[0])
        assert code == 0 and ids(work.memory) == BANK[1:2]
        assert f"2 conversations, first {BANK[2]}, not in the memory: left out" in caplog.text

    def test_wrong_use(self, work: Workshop, tiny_model_dir):
        spec = work.begin([0, 1, 2])
        before = contents(work.memory)
        refused(work.forget(spec, "x"), "knows no conversation 'x'")
        refused(work.forget(spec, BANK[0], "x"), "knows no conversation 'x'")
        refused(work.forget(spec, *BANK[:3]), "knows nothing else: forget it with --all")
        part = work.chat("part.jsonl", [0, 1])
        message = f"1 of the 2 conversations that {work.memory} is to keep are not among the"
        refused(work.forget(part, BANK[0]), message)
        work.model = str(tiny_model_dir("gpt2", chat=True))
        refused(work.forget(spec, BANK[0]), "this memory was trained on llama-")
        assert contents(work.memory) == before

    def test_text_that_has_gone(self, work: Workshop):
        """A source that keeps the id but lost the words: the old memory stays."""
        work.begin([0, 1, 2])
        before = contents(work.memory)
        spec = work.chat("part.jsonl", [0, 1])
        with (work.path / "part.jsonl").open("a") as file:
            hello = [
                {"role": "user", "content": "Hi!"},
                {"role": "assistant", "content": "Hello."},
            ]
            file.write(json.dumps({"id": BANK[2], "messages": hello}) + "\n")
        refused(work.forget(spec, BANK[0]), f"too little text to ask about {BANK[2]!r}")
        assert contents(work.memory) == before


def test_duration():
    for seconds, text in [(3.4, "3 s"), (99, "99 s"), (600, "10 min"), (9000, "2.5 h")]:
        assert remember.duration(seconds) == text


def refused(result: tuple[int, str, str], message: str) -> None:
    code, out, err = result
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def stop_at(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, call: int) -> None:
    """Ctrl-C as the function is called for the `call`-th time."""
    real, calls = getattr(module, name), []

    def stopping(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, stopping)


def count_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[str]:
    real, calls = getattr(module, name), []

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, counting)
    return calls
