"""Models as plain transformers and PEFT load them: complete, or refused.

`from_pretrained` draws weights that a checkpoint lacks at random, skips those that have no place,
and leaves adapter layers empty, each with a warning at most. Here all of that is an error.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError, one_line
from unswayed.scoring.backends import first_line
from unswayed.scoring.repository import (
    ADAPTER_CONFIG,
    UNNOTICED,
    damage,
    find_file,
    local_file,
)

# Buffers of earlier versions of transformers; newer ones compute them.
OLD_BUFFERS = re.compile(r"(masked_bias|attn\.bias|attention\.bias|inv_freq|position_ids)$")
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
GIVE_MODEL = "Give a Hub id, a folder with config.json and safetensors, or smollm2-135m"
GIVE_ADAPTER = f"Give a Hub id, or a folder with {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS[0]}"
SIZE_MISMATCH = re.compile(  # as torch words it
    r"size mismatch for (\S+): copying a param with shape torch.Size\((.*?)\) from checkpoint, the "
    r"shape in current model is torch.Size\((.*?)\)"
)
SAMPLE = "Anna's 3 friends wait; what does she feel?\n\nJoy, and a little fear."


# -- models --------------------------------------------------------------------------------------


def load_complete(kind: Any, name: str, **settings: Any) -> Any:
    """`kind.from_pretrained(name, **settings)`, if that leaves nothing out and adds nothing.

    Args:
        kind: an auto class of transformers.

    Raises:
        InputError: the model cannot be loaded, its checkpoint lacks weights or holds others, a
            weight is no number, or an adapter lies in its folder.
    """
    revision = settings.get("revision")
    check_no_adapter(name, revision)
    settings |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    settings.setdefault("trust_remote_code", False)  # None would ask on the terminal
    with refusing(name, revision):
        model, report = kind.from_pretrained(name, **settings)
    if getattr(model, "hf_quantizer", None):  # its checkpoint has states beside the weights
        report["unexpected_keys"] = ()
    if fault := _incomplete(report):
        raise InputError(f"model {name} is no complete {type(model).__name__}: {fault}")
    check_finite(model, f"model {name}")
    return model


def check_no_adapter(name: str, revision: str | None = None) -> None:
    """Raises InputError if a model's files are an adapter's, or hold one: transformers would put it
    on by itself, and an adapter that is merged already or named besides would count twice."""
    with refusing(name, revision):
        if not find_file(name, ADAPTER_CONFIG, revision):
            return
        is_model = find_file(name, "config.json", revision)
    if not is_model:
        raise InputError(
            f"model {name} is an adapter: give the model that it was trained on as the model, and "
            "this as the adapter"
        )
    raise InputError(
        f"model {name} holds an adapter ({ADAPTER_CONFIG}), which transformers would put on by "
        "itself: give the model alone as the model, and the adapter, in a folder of its own, as "
        "the adapter; or, if it is merged already, take that file away"
    )


def load_tokenizer(name: str, **settings: Any) -> Any:
    """`AutoTokenizer.from_pretrained`.

    Raises:
        InputError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    settings = {"trust_remote_code": False} | settings
    with refusing(name, settings.get("revision"), "the tokenizer of"):
        return AutoTokenizer.from_pretrained(name, **settings)


def _incomplete(report: dict[str, Any]) -> str:
    """What a loading report of transformers says that nobody may overlook."""
    if mismatched := sorted(report["mismatched_keys"]):
        weight, stored, expected = mismatched[0]
        return (
            f"{weight} is {tuple(stored)}, its config.json says {tuple(expected)}. Take weights "
            "and config from one source"
        )
    if missing := report["missing_keys"]:
        return (
            f"its checkpoint lacks {listed(missing)}, which transformers would draw at random. "
            "Download it again, or take a model that was trained as one"
        )
    if unexpected := [key for key in report["unexpected_keys"] if not OLD_BUFFERS.search(key)]:
        return (
            f"its checkpoint holds {listed(unexpected)}, for which the model of its config.json "
            "has no place. Take weights and config from one source"
        )
    return ""


def listed(weights: Collection[str]) -> str:
    """Some weights in words."""
    first = min(weights)
    return first if len(weights) == 1 else f"{len(weights)} weights, {first} among them"


@contextmanager
def refusing(name: str, revision: str | None = None, what: str = "model") -> Iterator[None]:
    """Whatever transformers, PEFT and tokenizers raise inside becomes an `InputError`, and so do
    damaged files that they pass over.

    Their warnings are kept back: what matters of them is checked.

    Args:
        what: the name is of, "model" or "adapter".
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        if fault := damage(name, revision, UNNOTICED):
            raise InputError(f"{what} {name} cannot be loaded: {fault}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:  # tokenizers and safetensors raise Exception itself
        reason = _reason(error, damage(name, revision), what)
        raise InputError(f"{what} {name} cannot be loaded: {reason}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _reason(error: Exception, fault: str, what: str) -> str:
    """Why something cannot be loaded, from what was raised and what is wrong with its files."""
    if fault:
        return f"{fault} ({one_line(error, 120)})"
    if "trust_remote_code" in str(error):
        return (
            "it brings code of its own, which is run only where you allow it "
            "(--model-args trust_remote_code=True)"
        )
    kind = f"{type(error).__name__} " if isinstance(error, LookupError) else ""
    return f"{kind}{first_line(error)} {GIVE_ADAPTER if what == 'adapter' else GIVE_MODEL}"


def check_finite(model: Any, name: str) -> None:
    """Raises InputError if a weight is NaN or infinite."""
    import torch

    for weight, values in model.named_parameters():
        readable = values.is_floating_point() and values.dtype.itemsize > 1
        if not readable or values.device.type == "meta":  # quantised, or not in memory
            continue
        if not torch.isfinite(values.detach().sum(dtype=torch.float32)):
            if torch.isfinite(values.detach()).all():
                continue
            raise InputError(
                f"{name}: {weight} holds values that are no finite numbers: its training failed, "
                "or the file is damaged"
            )


# -- tokens --------------------------------------------------------------------------------------


def check_rows(model: Any, tokenizer: Any, name: str) -> None:
    """Every token that a text can hold has a row in the model's embedding.

    Tokens that a tokenizer names for other things than text (`image_token`, ...) need none, unless
    the chat template writes them.

    Raises:
        InputError: names one that has none.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    without = {token: i for token, i in tokenizer.get_vocab().items() if i >= rows}
    if not without:
        return
    named = tokenizer.special_tokens_map.items()
    usual = {f"{part}_token" for part in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")}
    template = str(tokenizer.chat_template or "")
    for kind, token in named:
        if kind not in usual and isinstance(token, str) and token not in template:
            without.pop(token, None)
    if without:
        token, number = min(without.items(), key=lambda pair: pair[1])
        raise InputError(
            f"model {name}: the tokenizer's token {token!r} is number {number}, but the model has "
            f"rows for {rows} tokens only: take the model that was trained with this tokenizer "
            "(enlarged by resize_token_embeddings), or the tokenizer of this model"
        )


def text_differences(first: Any, second: Any) -> list[str]:
    """In what two tokenizers treat a text or a conversation otherwise."""
    same = {
        "tokens": first.get_vocab() == second.get_vocab()
        and first(SAMPLE)["input_ids"] == second(SAMPLE)["input_ids"],
        "beginning or end of text": (first.bos_token, first.eos_token)
        == (second.bos_token, second.eos_token),
        "chat template": first.chat_template == second.chat_template,
    }
    return [what for what, equal in same.items() if not equal]


# -- adapters ------------------------------------------------------------------------------------


def adapter_tokenizer(
    adapter: str, base: Callable[[], Any], **settings: Any
) -> tuple[Any | None, str]:
    """The tokenizer that was saved with an adapter, None if there is none, and what to note of it.

    Args:
        base: gives the tokenizer of the base model.

    Raises:
        InputError: it cannot be loaded, or lacks the chat template that the base model has.
    """
    with refusing(adapter, what="adapter"):
        if not find_file(adapter, "tokenizer_config.json"):
            return None, ""
    own = load_tokenizer(adapter, **settings)
    try:
        other = base()
    except InputError:  # the base model has none that can be read
        return own, ""
    differing = text_differences(own, other)
    if own.chat_template is None and other.chat_template is not None:
        raise InputError(
            f"adapter {adapter}: the tokenizer beside it has no chat template, that of the base "
            "model has one: put chat_template.jinja there, or name the tokenizer to use "
            "(--model-args tokenizer=FOLDER)"
        )
    if not differing:
        return own, ""
    return own, (
        "The tokenizer saved with the adapter is used; it differs from the base model's in "
        f"{' and '.join(differing)}."
    )


def put_adapter(model: Any, adapter: str, tokenizer: Any) -> Any:
    """`PeftModel.from_pretrained(model, adapter)`, if all of the adapter finds its place.

    A model with fewer rows than the adapter was trained with is enlarged first, as PEFT's
    `AutoPeftModelForCausalLM` does, if the adapter brings all of them.

    Raises:
        InputError: the adapter cannot be loaded, is incomplete, or does not fit the model.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict

    weights, name = adapter_weights(adapter), "default"
    with refusing(adapter, what="adapter"):
        config = PeftConfig.from_pretrained(adapter)
    _enlarge(model, weights, tokenizer)
    renamed = getattr(model, "_checkpoint_conversion_mapping", {})  # as in from_pretrained
    with refusing(adapter, what="adapter"), _fits(adapter, model, config):
        adapted = PeftModel.from_pretrained(model, adapter)
        report = adapted.load_adapter(adapter, name, key_mapping=renamed)
        expected = get_peft_model_state_dict(
            adapted, adapter_name=name, save_embedding_layers=False
        )
    shared = ("vblora_vector_bank", "prompt_encoder")  # PEFT lists them layer by layer
    missing = {key for key in report.missing_keys if not any(part in key for part in shared)}
    missing |= {key for key in expected if "bias" in key and key not in weights}
    unexpected = {
        key
        for key in report.unexpected_keys
        if key != "prompt_embeddings" and not _is_copy(key, weights)
    }
    if unexpected:
        raise InputError(
            f"adapter {adapter} does not fit the model: there is no place for {listed(unexpected)}"
            f"{_trained_on(config)}"
        )
    if missing:
        raise InputError(
            f"adapter {adapter} is incomplete: it lacks {listed(missing)}, which "
            f"{ADAPTER_CONFIG} promises. Save it again, or take the model that it was trained on"
        )
    check_finite(adapted, f"adapter {adapter}")
    return adapted.eval()


def _is_copy(key: str, weights: dict[str, Any]) -> bool:
    """Whether a tensor repeats another: PEFT saves a trained embedding twice if it was enlarged."""
    other = key.replace(".modules_to_save.", ".")
    return other != key and other in weights and bool((weights[key] == weights[other]).all())


def adapter_weights(adapter: str) -> dict[str, Any]:
    """An adapter's weights by their names in the file.

    Raises:
        InputError: there are none, or they cannot be read.
    """
    from peft import load_peft_weights

    if Path(adapter).is_dir():
        for kind in ((ADAPTER_CONFIG,), ADAPTER_WEIGHTS):
            if not local_file(adapter, *kind):
                raise InputError(f"{adapter} is no adapter: it has no {kind[0]}")
    with refusing(adapter, what="adapter"):
        return load_peft_weights(adapter, device="cpu")


@contextmanager
def _fits(adapter: str, model: Any, config: Any) -> Iterator[None]:
    """PEFT's own complaints, in words that say what to do."""
    try:
        yield
    except (RuntimeError, ValueError, LookupError, AttributeError) as error:
        if isinstance(error, KeyError):
            raise InputError(f"adapter {adapter} is incomplete: it lacks {error}") from error
        size = SIZE_MISMATCH.search(one_line(error, 1000))
        why = "{} is {}, the model has room for {}".format(*size.groups()) if size else ""
        raise InputError(
            f"adapter {adapter} does not fit {model.config.name_or_path or 'the model'}: "
            f"{why or one_line(error).rstrip('.')}{_trained_on(config)}"
        ) from error


def _trained_on(config: Any) -> str:
    base = config.base_model_name_or_path
    return f". It names {base} as its model" if base else ". Give the model it was trained on"


def _enlarge(model: Any, weights: dict[str, Any], tokenizer: Any) -> None:
    """Rows for tokens that the adapter was trained with, if it holds every one of them."""
    embeddings = [model.get_input_embeddings(), model.get_output_embeddings()]
    rows = embeddings[0].weight.shape[0]
    if len(tokenizer) <= rows:
        return
    stored = []
    names = {id(module): name for name, module in model.named_modules()}
    for module in embeddings:
        if module is None:
            continue
        place = re.compile(rf"(^|\.){re.escape(names[id(module)])}\.(base_layer\.)?weight$")
        stored.append({len(w) for key, w in weights.items() if place.search(key)})
    if len(stored) == 2 and embeddings[0].weight is embeddings[1].weight:
        stored = [stored[0] | stored[1]]
    for sizes in stored:
        if len(sizes) != 1 or sizes != stored[0] or min(sizes) < len(tokenizer):
            return  # check_rows will refuse
    model.resize_token_embeddings(min(stored[0]), mean_resizing=False)
