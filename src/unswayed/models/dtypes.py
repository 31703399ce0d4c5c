"""Which dtype a model is loaded in."""

from __future__ import annotations

from unswayed.core.errors import InputError, one_line


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
