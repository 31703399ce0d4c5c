"""What the backends of lm-eval can do, and their errors in one line."""

from __future__ import annotations

from typing import Any

from unswayed.core.errors import InputError, one_line

HF_SHARED = "hf-shared"
ENGINES = {"vllm", "sglang"}  # which arrange batches themselves


def is_service(backend: type) -> bool:
    """Whether a server is asked, which takes conversations and gives texts only."""
    return getattr(backend, "takes_messages", False)


def in_process(lm: Any) -> bool:
    """Whether the model runs here, so that asking it costs nothing but time."""
    from lm_eval.models.api_models import TemplateAPI

    return hasattr(lm, "tok_encode") and not isinstance(lm, TemplateAPI)


def first_line(error: BaseException) -> str:
    """What an error says, as one sentence of at most 240 characters."""
    text = one_line(error) or type(error).__name__
    return text if text.endswith((".", "!", "?")) else text + "."


def answers_singly(lm: Any) -> bool:
    """Whether an answer cannot depend on which other requests are still to be asked."""
    size = getattr(lm, "batch_size", getattr(lm, "_batch_size", None))  # the latter over HTTP
    return is_service(type(lm)) or size == 1


def takes_many(lm: Any, backend: str) -> bool:
    """Whether prompts of many users belong in one call: what is asked together decides neither
    batches nor what is shared, the backend does."""
    return is_service(type(lm)) or backend in ENGINES


def check_length(tokens: int, new_tokens: int, most: int, text: str) -> None:
    """Nothing is cut.

    Raises:
        InputError: a prompt of `tokens` and what follows it exceed the model's `most`.
    """
    if tokens + new_tokens > most:
        raise InputError(
            f"a prompt of {tokens} tokens and {new_tokens} more for the answer exceed this model's "
            f"context of {most} tokens: shorten the memory or take a model with a longer context "
            f"(the prompt begins {text[:60]!r})"
        )
