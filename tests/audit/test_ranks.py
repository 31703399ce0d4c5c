"""Audits over several ranks: real processes, each with the environment that a launcher gives it.

The fast tests fork them from this process, where everything is imported; the slow ones go through
`accelerate launch`.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from unswayed.audit import ranks as audit_ranks
from unswayed.audit import run as audit_run
from unswayed.audit.rundir import read_answers, read_run
from unswayed.cli import main
from unswayed.core import progress
from unswayed.core import ranks as core_ranks
from unswayed.core.errors import InputError

ROOT = Path(__file__).parents[2]
TIMES = ("started", "finished", "seconds")


def free_port() -> str:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return str(place.getsockname()[1])


class Job:
    """Ranks that run `unswayed` on a command, each in a process.

    Args:
        before: called in each process with its rank, before the command.
    """

    def __init__(
        self, folder: Path, size: int, command: list[str], before: Callable[[int], None]
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        launch = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        launch |= {"LOCAL_WORLD_SIZE": str(size), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        self.pids, self.agent = [], os.fork()
        if self.agent == 0:
            _serve(launch)
        for rank in range(size):
            if (pid := os.fork()) == 0:
                os.environ |= launch | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                os._exit(_process(folder / str(rank), command, lambda r=rank: before(r)))
            self.pids.append(pid)

    def codes(self, within: float = 60.0) -> list[int]:
        """Exit codes; minus a signal's number. Processes that do not end are killed."""
        codes: dict[int, int] = {}
        for _ in range(round(within / 0.02)):  # by the clock all may have been stopped meanwhile
            if len(codes) == len(self.pids):
                break
            for pid in set(self.pids) - codes.keys():
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        hanging = [pid for pid in self.pids if pid not in codes]
        for pid in [*hanging, self.agent]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert not hanging, f"ranks hang: {self.said}"
        return [codes[pid] for pid in self.pids]

    @property
    def said(self) -> list[str]:
        """Lines of all ranks on standard output and error."""
        return [
            line for file in sorted(self.folder.iterdir()) for line in file.read_text().splitlines()
        ]


def _serve(launch: dict[str, str]) -> None:
    """The store of torchrun's agent, until the process is killed."""
    from torch.distributed import TCPStore

    place = launch["MASTER_ADDR"], int(launch["MASTER_PORT"])
    store = TCPStore(*place, is_master=True, wait_for_workers=False)
    while store:
        signal.pause()


def _process(file: Path, command: list[str], before: Callable[[], None]) -> int:
    """A command in a forked process, as if it had been started: the exit code."""
    atexit._clear()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger().handlers.clear()
    code = 1
    with file.open("w", buffering=1) as said:
        os.dup2(said.fileno(), 1), os.dup2(said.fileno(), 2)
        sys.stdout, sys.stderr = said, said
        try:
            before()
            code = main(command)
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            print(repr(error), file=said)
        atexit._run_exitfuncs()
    return code


def command(model: Path, items: Path) -> list[str]:
    return ["audit", "--model", str(model), "--items", f"mine={items}", "--pairs", "2"]


@pytest.fixture
def launch(tmp_path, chat_model, items_file, whole):
    """`launch(size, *options, before=)`: an audit into tmp_path/run by so many ranks. What they
    import, `whole` has imported already."""
    count = iter(range(100))

    def start(size: int, *options: str, before: Callable[[int], None] = lambda rank: None) -> Job:
        given = [*command(chat_model, items_file), "--out", str(tmp_path / "run"), *options]
        return Job(tmp_path / f"said-{next(count)}", size, given, before)

    return start


def record(out: Path) -> dict:
    return {key: value for key, value in read_run(out).items() if key not in TIMES}


def same_run(one: Path, other: Path) -> bool:
    files = ("answers.parquet", "summary.json")
    same = all((one / file).read_bytes() == (other / file).read_bytes() for file in files)
    return same and record(one) == record(other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, chat_model, items_file) -> Path:
    """The same audit by this process."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main([*command(chat_model, items_file), "--out", str(out)]) == 0
    return out


def dies(at: int, how: Callable[[], None], which: int) -> Callable[[int], None]:
    """Rank `which` comes to an end at its part number `at`; the others miss it after a second."""

    def before(rank: int) -> None:
        core_ranks.BEAT, core_ranks.SILENCE = 0.05, 1.0
        real, calls = audit_run.score, []

        def score(*args, **kwargs):
            calls.append(1)
            if rank == which and len(calls) == at:
                how()
            time.sleep(0 if rank == which else 0.4)
            return real(*args, **kwargs)

        audit_run.score = score

    return before


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_same_bytes_as_one_process(launch, whole, tmp_path, size):
    job = launch(size)
    assert job.codes() == [0] * size, job.said
    assert same_run(tmp_path / "run", whole)
    assert not (tmp_path / "run" / "parts").exists()
    assert sum(line.startswith("Report: ") for line in job.said) == 1


@pytest.mark.slow
def test_the_first_rank_tells_the_progress_of_all(launch):
    def before(rank: int) -> None:
        """Rank 0 is at its first part while rank 1 does all others."""
        progress.EVERY, core_ranks.BEAT, real = 0.1, 0.05, audit_run.score

        def score(*args, **kwargs):
            time.sleep(0 if rank else 3)
            return real(*args, **kwargs)

        audit_run.score = score

    job = launch(2, before=before)
    assert job.codes() == [0, 0], job.said
    assert any(line.startswith("48 of 56 options") for line in job.said), job.said


def test_a_complete_run_is_not_scored_again(launch, whole):
    before = (whole / "run.json").read_bytes()
    job = launch(2, "--out", str(whole), "--resume")
    assert job.codes() == [0, 0], job.said
    assert (whole / "run.json").read_bytes() == before


@pytest.mark.slow
def test_generated_answers_go_on_one_by_one(launch, tmp_path):
    options = ["--scoring", "generate", "--max-gen-toks", "4"]
    assert launch(1, *options, "--out", str(tmp_path / "whole")).codes() == [0]
    assert launch(2, *options, before=dies(2, kill, which=1)).codes() == [2, -signal.SIGKILL]
    with (tmp_path / "run" / "parts" / "0006.jsonl").open("a") as journal:
        journal.write('{"prompt": "half a li')
    job = launch(2, *options, "--resume")
    assert job.codes() == [0, 0], job.said
    assert same_run(tmp_path / "run", tmp_path / "whole")


def test_killed_again_and_again_with_other_numbers_of_ranks(launch, whole, tmp_path):
    for size, which, at in ((2, 1, 2), (1, 0, 2), (3, 0, 1)):
        resume = ["--resume"] if size != 2 else []
        job = launch(size, *resume, before=dies(at, kill, which))
        codes = job.codes()
        assert codes.pop(which) == -signal.SIGKILL and set(codes) <= {2}, job.said
        gone = [line for line in job.said if f"rank {which} is gone: " in line]
        assert len(gone) == (size > 1)
    job = launch(2, "--resume")
    assert job.codes() == [0, 0], job.said
    assert same_run(tmp_path / "run", whole)


# -- ranks that cannot work together -------------------------------------------------------------


def fails(job: Job) -> str:
    """The one line of ranks that all end with code 2."""
    assert set(job.codes()) == {2}, job.said
    (line,) = job.said
    return line


@pytest.fixture
def machines(tmp_path, chat_model, items_file) -> Callable[[int], None]:
    """To be called in each rank: its folder holds files of its own, as the disk of a machine."""
    for rank in range(2):
        shutil.copytree(chat_model, tmp_path / f"machine-{rank}" / "model")
        shutil.copy(items_file, tmp_path / f"machine-{rank}" / "items.jsonl")
    return lambda rank: os.chdir(tmp_path / f"machine-{rank}")


def test_different_items(launch, machines, tmp_path):
    file = tmp_path / "machine-1" / "items.jsonl"
    file.write_text(file.read_text().replace("lost", "found"))
    line = fails(launch(2, "--items", "mine=items.jsonl", before=machines))
    assert "ranks 0 and 1 see different files or settings: items " in line
    assert not (tmp_path / "run").exists()


def test_different_weights(launch, machines, tmp_path):
    from safetensors.torch import load_file, save_file

    file = tmp_path / "machine-1" / "model" / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"] *= 1.01
    save_file(weights, file, {"format": "pt"})
    line = fails(launch(2, "--model", "./model", before=machines))
    assert "ranks 0 and 1 see different files or settings: model revision " in line


def test_different_folders(launch, machines, monkeypatch):
    monkeypatch.setattr(audit_ranks, "PATIENCE", 0.5)
    line = fails(launch(2, "--out", "run", before=machines))
    assert "what rank 0 writes to --out run does not appear there" in line


def test_a_file_that_one_rank_lacks(launch, machines, tmp_path):
    (tmp_path / "machine-1" / "items.jsonl").unlink()
    line = fails(launch(2, "--items", "mine=items.jsonl", before=machines))
    assert line == "unswayed: items.jsonl: no such file"


def raises(error: BaseException) -> Callable[[], None]:
    def how() -> None:
        raise error

    return how


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "words"),
    [
        (raises(InputError("the model is tired")), "the model is tired"),
        (raises(OSError(28, "No space left on device")), "No space left on device"),
        (raises(RuntimeError("CUDA out of memory. Tried")), "ran out of memory (CUDA out of mem"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "stopped by the launcher: another rank"),
    ],
    ids=["input", "disk", "memory", "stopped"],
)
@pytest.mark.parametrize("which", [0, 1])
def test_one_that_fails_ends_all_with_one_line(launch, how, words, which):
    assert words in fails(launch(2, before=dies(2, how, which)))


def test_one_that_fails_beside_one_that_waits(launch):
    """Rank 0 waits for the part of rank 1."""
    how = raises(InputError("the model is tired"))
    assert fails(
        launch(2, "--conditions", "none", "neutral", "--pairs", "1", before=dies(1, how, 1))
    )


def test_a_rank_that_never_comes(launch, monkeypatch):
    monkeypatch.setattr(core_ranks, "BEAT", 0.1)
    monkeypatch.setattr(core_ranks, "JOIN", 1.0)
    job = launch(2, before=lambda rank: os._exit(2) if rank else None)
    assert "rank 1 is gone: no sign of life" in fails(job)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--backend", "local-chat-completions", "--scoring", "letter"], "num_concurrent=N"),
        (["--model-args", "parallelize=True"], "leave accelerate launch out, or the argument"),
        (["--model-args", "device_map=auto"], "leave accelerate launch out, or the argument"),
        (["--model-args", "tp_plan=auto", "--memory", "logo"], "leave tp_plan out"),
        (["--device", "cuda:0"], "is one device for 2 ranks"),
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
    ],
    ids=lambda value: "_".join(value).strip("-") if isinstance(value, list) else "",
)
def test_what_several_ranks_cannot_do(launch, options, words):
    assert words in fails(launch(2, *options))


def test_a_launcher_that_shards_the_model(launch):
    job = launch(2, before=lambda rank: os.environ.update(ACCELERATE_USE_FSDP="true"))
    assert "told to shard the model (ACCELERATE_USE_FSDP)" in fails(job)


def test_half_of_what_a_launcher_sets(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    assert main(["audit", "--model", "any", "--out", "run"]) == 2
    assert "WORLD_SIZE=2 is set" in capsys.readouterr().err


def test_other_commands_run_in_one_process(tmp_path, whole):
    job = Job(tmp_path / "said", 2, ["report", str(whole)], lambda rank: None)
    assert "`unswayed report` runs in one process" in fails(job)


# -- memories in weights, and one model on several ranks -----------------------------------------


PLUM = {
    "model": "not-used", "users": {"nobody": ["builtin"]}, "output_dir": "nowhere",
    "settings": {"rank": 2, "alpha": 8, "epochs": 1, "batch_size": 8, "learning_rate": 0.02},
    "augment": {"per_conversation": 4},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["plum", "logo"])
def test_memories_that_are_trained(launch, tmp_path, memory):
    """plum: each rank trains those of its users; logo: the first rank trains what all share."""
    recipe, five = tmp_path / "recipe.yaml", tmp_path / "five.yaml"
    recipe.write_text(yaml.safe_dump(PLUM))
    bank = files("unswayed.data.personas") / "bank" / "pairs.yaml"
    five.write_text(yaml.safe_dump(yaml.safe_load(bank.read_text("utf-8"))[:5]))
    options = ["--memory", memory, "--plum-recipe", str(recipe), "--personas", str(five)]
    options += ["--conditions", "none", "advantaged", "disadvantaged"]
    for size, out in ((1, "whole"), (2, "run")):
        job = launch(size, *options, "--out", str(tmp_path / out))
        assert job.codes() == [0] * size, job.said
    assert same_run(tmp_path / "run", tmp_path / "whole")
    whole, shared = (
        {path.relative_to(tmp_path / out): path.read_bytes() for path in adapters}
        for out in ("whole", "run")
        for adapters in [(tmp_path / out / "memories").rglob("*.safetensors")]
    )
    assert shared.values() and sorted(shared.values()) == sorted(whole.values())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["hf-shared", "hf"])
def test_one_model_split_over_two_ranks(launch, whole, tmp_path, backend):
    job = launch(2, "--model-args", "tp_plan=auto", "--backend", backend)
    assert job.codes() == [0, 0], job.said
    rows, alone = (read_answers(out).to_pylist() for out in (tmp_path / "run", whole))
    for row, other in zip(rows, alone, strict=True):
        assert row["answer"] == other["answer"]
        assert row["option_scores"] == pytest.approx(other["option_scores"], abs=1e-3)


@pytest.mark.slow
def test_accelerate_launch(tmp_path, chat_model, items_file, whole):
    config = ROOT / "configs" / "accelerate" / "multi_cpu.yaml"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    given = [*command(chat_model, items_file), "--out", tmp_path / "run"]
    done = subprocess.run([*launcher, "-m", "unswayed", *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Report: ") == 1
    assert same_run(tmp_path / "run", whole)
    again = subprocess.run([*launcher, "-m", "unswayed", *given], capture_output=True, text=True)
    lines = [line for line in again.stderr.splitlines() if line.startswith("unswayed: ")]
    assert again.returncode != 0 and len(lines) == 1 and "add --resume" in lines[0]
