"""What the backends of lm-eval can do, and their errors in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from unswayed.core.errors import InputError

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


@contextlib.contextmanager
def plain_errors(backend: str) -> Iterator[None]:
    """Around a call to a backend: whatever one that is not ours raises becomes one line."""
    try:
        yield
    except NotImplementedError as error:
        raise InputError(
            f"--backend {backend} cannot do this: {first_line(error)} If it gives no likelihoods, "
            "use --scoring generate"
        ) from error
    except (InputError, OSError):
        raise
    except Exception as error:
        if backend in (HF_SHARED, "hf"):
            raise
        raise InputError(
            f"--backend {backend} failed with {type(error).__name__}: {first_line(error)} "
            "Finished answers are kept: mend it and run the same command again (an audit with "
            "--resume)"
        ) from error


def check_lengths(lm: Any, requests: list[tuple[str, str]], new_tokens: int) -> None:
    """Refuse what lm-eval's local backends would cut from the left, the memory first.

    Args:
        requests: (prompt, continuation to score) each; the continuation is "" for generation.
        new_tokens: tokens to generate.

    Raises:
        InputError: a request does not fit the model's context.
    """
    if is_service(type(lm)) or not hasattr(lm, "tok_encode"):
        return
    for prompt, continuation in requests:
        length = len(lm.tok_encode(prompt + continuation))
        if length + new_tokens > lm.max_length:
            raise InputError(
                f"a prompt of {length} tokens and {new_tokens} more for the answer exceed this "
                f"model's context of {lm.max_length} tokens: shorten the memory or take a model "
                f"with a longer context (the prompt begins {prompt[:60]!r})"
            )
