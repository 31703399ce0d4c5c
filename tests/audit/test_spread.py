"""Models that are spread over devices or hold their weights in few bits, by `--model-args`."""

from __future__ import annotations

import importlib.util

import pytest

from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_answers
from unswayed.core.errors import InputError


def test_a_model_with_little_memory_gives_the_same_scores(arguments, tmp_path):
    spread = {
        "parallelize": True,
        "max_cpu_memory": "100KiB",
        "offload_folder": str(tmp_path / "offload"),
    }
    rows, whole = (
        read_answers(run_audit(arguments(out, pairs=1, model_args=given))).to_pylist()
        for out, given in (("spread", spread), ("whole", {}))
    )
    for row, other in zip(rows, whole, strict=True):
        assert row["option_scores"] == pytest.approx(other["option_scores"], abs=1e-4)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="it is installed")
def test_few_bits_need_bitsandbytes(arguments):
    bits = {"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"}
    with pytest.raises(InputError, match="load_in_4bit needs the package bitsandbytes"):
        run_audit(arguments(model_args=bits))
