"""Which dtype a model is loaded in."""

from __future__ import annotations

import functools
import logging
import math
import time

from unswayed.core.errors import InputError, one_line
from unswayed.scoring.backends import first_line

log = logging.getLogger(__name__)

WORTH_ROUNDING = 1.5  # times that bfloat16 must be faster, since its scores are rounded


def check_dtype(dtype: str, device: str) -> None:
    """Can weights be of this dtype, and does the device compute in it? Tried on four numbers.

    Args:
        dtype: a torch dtype's name, or "auto".

    Raises:
        InputError: names which of the two it is.
    """
    import torch

    if dtype == "auto":
        return
    kind = getattr(torch, dtype, None)
    if not (isinstance(kind, torch.dtype) and kind.is_floating_point and kind.itemsize > 1):
        raise InputError(
            f"dtype {dtype!r} is none that models compute in: take auto, float32, bfloat16 or "
            "float16"
        )
    try:
        ones = torch.ones(2, 2, dtype=kind, device=device)
        torch.nn.functional.linear(ones, ones).softmax(-1)
    except Exception as error:  # torch has a kind of its own for each device
        raise InputError(
            f"device {device} cannot compute in dtype {dtype} ({one_line(error, 120)}): take auto "
            "or float32, or another device"
        ) from None


def default_dtype(dtype: str, device: str) -> str:
    """The dtype, with "auto" replaced by float32 on CPU, where half precision is far slower.

    Raises:
        InputError: there is no such dtype or device, or the one cannot compute in the other.
    """
    cpu = on_cpu(device)
    check_dtype(dtype, device)
    return "float32" if cpu and dtype == "auto" else dtype


def scoring_dtype(dtype: str, device: str) -> str:
    """The dtype, with "auto" replaced on CPU by bfloat16 where it is much faster than float32.

    Only some processors can compute in it (AVX512-BF16, AMX, ARM's); on these a second is spent on
    trying.
    """
    if dtype != "auto" or not on_cpu(device):
        return default_dtype(dtype, device)
    import torch

    able = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if not able or (speedup := bfloat16_speedup()) < WORTH_ROUNDING:
        return "float32"
    log.info("--dtype auto takes bfloat16: %.1f times as fast as float32 here", speedup)
    return "bfloat16"


@functools.cache
def bfloat16_speedup(seconds: float = 0.5) -> float:
    """How many times as many matrix products this CPU makes in bfloat16 as in float32.

    Args:
        seconds: spent on each, about.
    """
    import torch

    def shortest(dtype: torch.dtype) -> float:
        """Seconds of one product."""
        a, b = torch.ones(256, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
        best, end = math.inf, time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            torch.nn.functional.linear(a, b)
            best = min(best, time.perf_counter() - start)
        return best

    return shortest(torch.float32) / shortest(torch.bfloat16)


def on_cpu(device: str) -> bool:
    """Raises: InputError: torch knows no such device."""
    import torch

    try:
        return torch.device(device).type == "cpu"
    except RuntimeError as error:
        raise InputError(f"--device {device}: {first_line(error)}") from None
