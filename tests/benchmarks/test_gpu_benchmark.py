"""The benchmark for a GPU runs from end to end with tiny shapes, and outlives parts that do not."""

from __future__ import annotations

import importlib
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from unswayed.core.commands import run_command

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def gpu():
    """benchmarks/gpu.py, which imports its neighbours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("gpu")


@pytest.fixture(scope="module")
def models(gpu, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """The results of a tiny run, by model and part."""
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    assert gpu.main(["--tiny", "--out", str(out)]) == 0
    return json.loads(out.read_text())["models"]


def test_every_part_has_a_result(gpu, models):
    assert models.keys() == gpu.SHAPES.keys()
    for results in models.values():
        assert list(results) == ["build", *gpu.PARTS]
        assert not any(part.keys() & {"error", "stopped"} for part in results.values())


def test_sharing_is_exact(models):
    """To float rounding in float32; in bfloat16 beside what another memory would change."""
    for results in models.values():
        for part, most in (("float32", 1e-4), ("exactness", 0.1)):
            result = results[part]
            assert result["why_not_shared"] is None and result["shared"]["choices_changed"] == 0
            assert result["shared"]["largest"] < most < result["other_memory"]["largest"] / 5
        assert results["float32"]["lm_eval"]["largest"] < 1e-4


def test_speeds_and_losses_stand_beside_those_of_the_stock_code(models):
    for results in models.values():
        for part in ("option_text", "letters"):
            result = results[part]
            fastest = result["trials"] / min(result["stock_s"].values())
            assert result["stock_trials_per_s"] == pytest.approx(fastest, rel=1e-2)
            ratio = result["ours_trials_per_s"] / result["stock_trials_per_s"]
            assert result["ratio"] == pytest.approx(ratio, rel=1e-2)
        runs = results["pack_tokens"]["runs"]
        assert results["pack_tokens"]["fastest"] == min(runs, key=lambda run: run["second_s"])
        for order in ("random pairs", "pairs about the same user"):
            result = results["dpo"][order]
            assert result["ours_losses"] == pytest.approx(result["trl_losses"], abs=0.02)
        for result in (row for name, row in results["plum"].items() if name != "seconds"):
            assert result["ours_loss"] == pytest.approx(result["trl_loss"], abs=0.02)
            ratio = result["ours_steps_per_s"] / result["trl_steps_per_s"]
            assert result["ratio"] == pytest.approx(ratio, rel=1e-2)


def test_the_published_shapes(gpu):
    """The parameters that the models' reports name: 8.03 and 2.61 billion."""
    sizes = {}
    for name, shape in gpu.SHAPES.items():
        config = gpu.AutoConfig.for_model(**shape)
        with torch.device("meta"):
            model = gpu.AutoModelForCausalLM.from_config(config)
        sizes[name] = model.num_parameters() / 1e9
    assert sizes == pytest.approx({"llama-8b": 8.03, "gemma2-2b": 2.61}, abs=0.01)


def test_a_part_ends_at_its_limit(gpu):
    def stubborn() -> None:
        try:
            time.sleep(30)
        except Exception:
            time.sleep(30)

    result: dict[str, Any] = {}
    assert gpu.attempt(0.1, result, stubborn) is None
    assert "stopped" in result and result["seconds"] < 10


def test_a_part_that_fails_says_why_and_the_next_gets_a_new_model(gpu, monkeypatch):
    def broken(base, size, result):
        result["before"] = 1
        raise RuntimeError("no kernel image")

    def works(base, size, result):
        result["model"] = base

    monkeypatch.setattr(gpu, "PARTS", {"broken": (broken, 9), "works": (works, 9)})
    made = iter("ab")
    results: dict[str, Any] = {}
    later = time.monotonic() + 60
    parts = list(gpu.measure_model(lambda: next(made), gpu.TINY, 1.0, later, results))
    assert parts == ["build", "broken", "build", "works"]
    assert results["broken"]["before"] == 1 and "no kernel image" in results["broken"]["error"][-1]
    assert results["works"]["model"] == "b"


def test_without_time_left_the_results_say_so(gpu, tmp_path):
    out = tmp_path / "gpu.json"
    assert gpu.main(["--tiny", "--seconds", "0", "--out", str(out)]) == 0
    for results in json.loads(out.read_text())["models"].values():
        assert all("stopped" in results[part] for part in gpu.PARTS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line(gpu, tmp_path, capsys):
    work = partial(gpu.main, ["--out", str(tmp_path / "gpu.json")])
    assert run_command("gpu.py", work) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no GPU" in said and "--tiny" in said
