"""The dtype that a model is scored in where none is chosen."""

from __future__ import annotations

import json
import logging

import pytest
import torch

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_run
from unswayed.models import dtypes


def able(monkeypatch: pytest.MonkeyPatch, speedup: float) -> None:
    """A processor that computes in bfloat16, so many times as fast."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(dtypes, "bfloat16_speedup", lambda: speedup)


def test_bfloat16_only_where_it_is_much_faster(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    able(monkeypatch, 1.2)
    assert dtypes.scoring_dtype("auto", "cpu") == "float32"
    assert not caplog.messages
    able(monkeypatch, 3.0)
    assert dtypes.scoring_dtype("auto", "cpu") == "bfloat16"
    assert caplog.messages == ["--dtype auto takes bfloat16: 3.0 times as fast as float32 here"]
    assert dtypes.scoring_dtype("float16", "cpu") == "float16"
    assert dtypes.scoring_dtype("auto", "cuda") == "auto"


def test_a_resumed_run_keeps_its_dtype(monkeypatch, tmp_path, tiny_model_dir):
    able(monkeypatch, 3.0)
    model = tiny_model_dir("llama", max_position_embeddings=2048)
    settings = dict(model=str(model), out=tmp_path / "run", items=["builtin:4"], pairs=1)
    begun = run_audit(AuditArguments(**settings))
    record = read_run(begun)
    assert record["model"]["dtype"] == "bfloat16"
    record["status"] = "running"
    (begun / "answers.parquet").unlink()
    (begun / "run.json").write_text(json.dumps(record), "utf-8")
    able(monkeypatch, 1.0)
    assert read_run(run_audit(AuditArguments(**settings, resume=True)))["model"]["dtype"] == (
        "bfloat16"
    )


def test_the_ratio_is_measured():
    assert 0 < dtypes.bfloat16_speedup(0.02) < 100
