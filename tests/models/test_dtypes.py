"""Dtypes of weights: which are taken, and what is said of others."""

from __future__ import annotations

import pytest

from unswayed.core.errors import InputError
from unswayed.models.base import load_base
from unswayed.models.dtypes import check_dtype
from unswayed.models.load import load_lm


def test_what_models_compute_in():
    for dtype in ("auto", "float32", "bfloat16", "float16", "float64"):
        check_dtype(dtype, "cpu")


@pytest.mark.parametrize("dtype", ["bf16", "int8", "float8_e4m3fn", "Tensor", "complex64"])
def test_others_end_in_one_line_wherever_a_model_is_loaded(tiny_model_dir, dtype: str):
    folder = str(tiny_model_dir("llama"))
    for load in (load_base, load_lm):
        with pytest.raises(InputError, match=f"^dtype '{dtype}' is none that models .*bfloat16"):
            load(folder, dtype=dtype, device="cpu")


def test_a_device_that_lacks_it():
    """Apple's GPUs have no float64; here there is no such device at all."""
    with pytest.raises(
        InputError, match=r"^device mps cannot compute in dtype float64 \(.* auto or "
    ):
        check_dtype("float64", "mps")
