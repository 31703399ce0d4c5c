"""Load a model for scoring, with errors that say what to do; or take one that is loaded."""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from unswayed.core.errors import InputError
from unswayed.models.dtypes import on_cpu, scoring_dtype
from unswayed.models.embedded import model_path
from unswayed.models.hashes import checkpoint_hash, source_of
from unswayed.scoring.backends import HF_SHARED, first_line, is_service
from unswayed.scoring.checkpoint import GIVE_MODEL

# Constructor arguments that have an option of their own.
OPTIONS = {
    "pretrained": "--model", "model": "--model", "peft": "--adapter", "device": "--device",
    "dtype": "--dtype", "batch_size": "--batch-size",
}  # fmt: skip
# Model arguments that say how to reach a server, not what it answers; no part of a run's identity.
REACHING = {
    "base_url", "num_concurrent", "max_retries", "timeout", "verify_certificate", "ca_cert_path",
    "requests_per_minute",
}  # fmt: skip
SECRET = re.compile(r"key|auth|secret|passw|credential|header|^(hf_|access_)?token$", re.IGNORECASE)
PASSWORD_IN_URL = re.compile(r"://[^/]*@")


def find_backend(name: str) -> type:
    """The class of an lm-eval backend, ours included.

    Raises:
        InputError: no such backend, or it needs a package that is not installed.
    """
    import lm_eval.models  # noqa: F401  (fills the registry)
    from lm_eval.api.registry import get_model, model_registry

    for noisy in ("lm_eval", "transformers", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        if name == HF_SHARED:
            from unswayed.scoring.lm import SharedPrefixLM

            return SharedPrefixLM
        backend = get_model(name)
    except ValueError:
        names = ", ".join(sorted({HF_SHARED, *model_registry.keys()}))
        raise InputError(f"--backend {name!r} is not one of {names}") from None
    except ImportError as error:
        raise InputError(f"--backend {name} cannot be used: {first_line(error)}") from None
    from lm_eval.models.anthropic_llms import AnthropicChat
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalChatCompletion

    if backend is HFLM:
        from unswayed.scoring.hf import CheckpointLM

        return CheckpointLM
    if not issubclass(backend, (LocalChatCompletion, AnthropicChat)):
        return backend
    try:
        from unswayed.scoring.api import ChatService
    except ImportError:
        raise _api_is_missing(name) from None

    logging.getLogger("lm_eval").setLevel(logging.CRITICAL)  # it logs what is raised as well
    lists_tokens = issubclass(backend, LocalChatCompletion)
    return type(backend.__name__, (ChatService, backend), {"lists_tokens": lists_tokens})


def check_backend(
    name: str,
    scoring: str,
    model_args: Mapping[str, Any],
    adapter: str | None,
    device: str | None,
    dtype: str,
    batch_size: int | str,
    gen_kwargs: Mapping[str, Any],
) -> None:
    """Does the backend take what is given? Nothing is loaded.

    Raises:
        InputError: an option or model argument has no meaning for this backend.
    """
    backend = find_backend(name)
    if taken := OPTIONS.keys() & model_args.keys():
        argument = min(taken)
        raise InputError(f"--model-args {argument}=...: give it as {OPTIONS[argument]}")
    allowed = _parameters(backend)
    options = {"peft": adapter, "device": device, "dtype": None if dtype == "auto" else dtype}
    for parameter, value in options.items():
        if value is not None and parameter not in allowed:
            raise InputError(
                f"{OPTIONS[parameter]} {value} has no meaning for --backend {name}: leave it out"
            )
    served = is_service(backend)
    if gen_kwargs and scoring != "generate" and not (served and scoring == "letter"):
        raise InputError(
            "--gen-kwargs has no meaning without --scoring generate, or letter from a chat service"
        )
    if not served:
        return
    scorings = ("letter", "generate") if backend.lists_tokens else ("generate",)
    if scoring not in scorings:
        raise InputError(
            f"--backend {name} gives texts, no likelihoods of them"
            + (", but those of letters" if backend.lists_tokens else "")
            + f": use --scoring {' or '.join(scorings)} instead of {scoring}"
        )
    if batch_size != "auto":
        raise InputError(
            f"--batch-size has no meaning for --backend {name}: use --model-args num_concurrent=N"
        )
    allowed -= OPTIONS.keys() | {"self", "think_end_token"}  # thinking is kept, and read past
    if unknown := model_args.keys() - allowed:  # lm-eval would ignore it in silence
        raise InputError(
            f"--model-args {min(unknown)}=... has no meaning for --backend {name}; it takes "
            f"{', '.join(sorted(allowed))}"
        )


def load_lm(
    model: str,
    adapter: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    batch_size: int | str = "auto",
    backend: str | type = HF_SHARED,
    model_args: Mapping[str, Any] | None = None,
) -> Any:
    """An lm-eval model, by default a SharedPrefixLM.

    Args:
        model: Hub id, folder or the embedded model's name; for a server the name it knows.
        adapter: PEFT adapter, folder or Hub id.
        device: as in torch; None takes the GPU if there is one.
        dtype: a torch dtype's name; "auto" is the faster of float32 and bfloat16 on CPU
            (`scoring_dtype`), else the dtype of the checkpoint.
        backend: name in lm-eval's registry, hf-shared, or a class.
        model_args: further arguments of the backend's constructor.

    Raises:
        InputError: the model or adapter cannot be loaded.
    """
    kind = find_backend(backend) if isinstance(backend, str) else backend
    settings = dict(model_args or {})
    if is_service(kind):
        return _connect(kind, backend, model, settings)
    allowed = _parameters(kind)
    if "device" in allowed:
        settings["device"] = device = device or default_device()
        dtype = scoring_dtype(dtype, device)
        if batch_size == "auto" and on_cpu(device):
            batch_size = 1  # lm-eval's search for a size would fill the memory of a CPU machine
    settings |= {"dtype": dtype} if "dtype" in allowed else {}
    settings |= {"peft": adapter} if adapter else {}
    settings["batch_size"] = batch_size
    for option, place in (("--model", model), ("--adapter", adapter or "")):
        if place.endswith(".gguf") and Path(place).is_file():
            file = Path(place)
            raise InputError(
                f"{option} {place} is a file: give --model {file.parent} --model-args "
                f"gguf_file={file.name}"
            )
        if place.startswith((".", "/", "~")) and not Path(place).is_dir():
            raise InputError(f"{option} {place}: there is no such folder")
    settings["pretrained" if "pretrained" in allowed else "model"] = model_path(model)
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        return kind(**settings)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"--backend {backend} cannot be used: {first_line(error)}") from None
    except Exception as error:  # whatever a backend raises on what it cannot load
        what = f"--model {model}" + (f" with --adapter {adapter}" if adapter else "")
        what += f" and --model-args {', '.join(model_args)}" if model_args else ""
        raise InputError(f"{what} cannot be loaded: {first_line(error)} {GIVE_MODEL}") from error


def _connect(kind: type, backend: str, model: str, settings: dict[str, Any]) -> Any:
    """A model behind a server; nothing is sent yet."""
    try:
        lm = kind(model=model, **settings)
        _ = lm.header  # raises if the API key is missing
    except ImportError:
        raise _api_is_missing(backend) from None
    except (ValueError, TypeError) as error:
        raise InputError(f"--backend {backend}: {first_line(error)}") from None
    if kind.posts() and not str(lm.base_url or "").startswith(("http://", "https://")):
        raise InputError(
            f"--backend {backend} needs the full address of the chat: --model-args "
            "base_url=http://127.0.0.1:8000/v1/chat/completions"
        )
    return lm


def _api_is_missing(backend: str) -> InputError:
    return InputError(
        f"--backend {backend} needs packages that are not installed: run "
        "`pip install 'unswayed[api]'`"
    )


def loaded_lm(model: Any, tokenizer: Any) -> Any:
    """A SharedPrefixLM around a model already in memory, also one that is being trained.

    Args:
        model: a causal model of transformers, or a PEFT model around one; its weights are shared.
    """
    kind = find_backend(HF_SHARED)
    with evaluating(model):  # lm-eval would leave the model in that mode
        return kind(pretrained=model, tokenizer=tokenizer, batch_size=1, backend="causal")


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """No dropout inside; afterwards each module is again in the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()] if model is not None else []
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def default_device() -> str:
    """The GPU if there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _parameters(backend: type) -> set[str]:
    """Names of the constructor's arguments, those of its base classes included."""
    return {
        name
        for base in backend.__mro__
        if "__init__" in vars(base) and base is not object
        for name, p in inspect.signature(base.__init__).parameters.items()
        if p.kind is not p.VAR_KEYWORD
    }


def parse_settings(option: str, text: str | None) -> dict[str, Any]:
    """Settings in lm-eval's form `name=value,name=value`, or as a JSON object; none of None.

    Raises:
        InputError: it has neither form.
    """
    if not text:
        return {}
    from lm_eval.utils import simple_parse_args_string

    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{option} is not JSON: {error}") from None
    if wrong := [part for part in text.split(",") if part and not part.partition("=")[2]]:
        raise InputError(f"{option} {wrong[0]!r} is not of the form name=value")
    return simple_parse_args_string(text)


def public_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Model arguments for the record: nothing secret, nothing about how a server is reached."""
    return {
        name: value
        for name, value in settings.items()
        if name not in REACHING
        and not SECRET.search(name)
        and not PASSWORD_IN_URL.search(str(value))
    }


class ModelInfo(TypedDict):
    """What was audited, `model` in run.json; what a server does not tell is None."""

    model: str
    adapter: str | None
    revision: str | None  # commit on the Hub, else SHA-256 of what is loaded of the folder
    adapter_hash: str | None  # likewise
    other_hashes: dict[str, str | None]  # of further sources among the model arguments
    architecture: str | None
    parameters: int | None
    dtype: str | None
    device: str | None
    context_tokens: int | None
    shared_prefixes: bool
    fallback_reason: str | None  # why they are not shared
    difference: float | None  # of scores to the plain model, mean, nats per token


def model_info(lm: Any, model: str, adapter: str | None) -> ModelInfo:
    """Of an lm-eval model that was loaded as `model` with `adapter`."""
    local = not is_service(type(lm))
    network = getattr(lm, "model", None)
    in_torch = local and hasattr(network, "parameters")  # and in this process
    reason = getattr(lm, "fallback_reason", None)
    return {
        "model": model,
        "adapter": adapter,
        "revision": checkpoint_hash(model, **source_of(lm)) if local else None,
        "adapter_hash": checkpoint_hash(adapter) if adapter else None,
        "other_hashes": {
            name: checkpoint_hash(source)
            for name in ("tokenizer_source", "delta")
            if isinstance(source := getattr(lm, name, None), str)
        },
        "architecture": type(network).__name__ if in_torch else None,
        "parameters": sum(p.numel() for p in network.parameters()) if in_torch else None,
        "dtype": str(network.dtype).removeprefix("torch.") if in_torch else None,
        "device": lm.device.type if in_torch else None,
        "context_tokens": getattr(lm, "max_length", None) if local else None,
        "shared_prefixes": hasattr(type(lm), "fallback_reason") and reason is None,
        "fallback_reason": reason,
        "difference": getattr(lm, "difference", None),
    }
