"""What the backends of lm-eval can do, and their errors in one line."""

from __future__ import annotations

from typing import Any

HF_SHARED = "hf-shared"


def is_service(backend: type) -> bool:
    return getattr(backend, "takes_messages", False)


def first_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = text[:240]
    return text if text.endswith((".", "!", "?")) else text + "."


def answers_singly(lm: Any) -> bool:
    """Whether an answer cannot depend on which other requests are still to be asked."""
    size = getattr(lm, "batch_size", getattr(lm, "_batch_size", None))  # the latter over HTTP
    return is_service(type(lm)) or size == 1
