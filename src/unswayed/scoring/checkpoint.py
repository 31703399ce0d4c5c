"""Models as plain transformers and PEFT load them: complete, or refused.

`from_pretrained` draws weights that a checkpoint lacks at random, skips those that have no place,
and leaves adapter layers empty, each with a warning at most. Here all of that is an error.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from unswayed.core.errors import InputError, one_line
from unswayed.scoring.backends import first_line

# Buffers of earlier versions of transformers; newer ones compute them.
OLD_BUFFERS = re.compile(r"(masked_bias|attn\.bias|attention\.bias|inv_freq|position_ids)$")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
GIVE_MODEL = "Give a Hub id, a folder with config.json and safetensors, or smollm2-135m"
GIVE_ADAPTER = f"Give a Hub id, or a folder with {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS[0]}"
SIZE_MISMATCH = re.compile(  # as torch words it
    r"size mismatch for (\S+): copying a param with shape torch.Size\((.*?)\) from checkpoint, the "
    r"shape in current model is torch.Size\((.*?)\)"
)
POINTER = b"version https://git-lfs"
SAMPLE = "Anna's 3 friends wait; what does she feel?\n\nJoy, and a little fear."


# -- files ---------------------------------------------------------------------------------------


def local_file(name: str, *files: str, revision: str | None = None) -> Path | None:
    """The first of some files that a folder, or the local copy of a Hub repository, holds."""
    folder = Path(name)
    for file in files:
        if folder.is_dir():
            if (folder / file).is_file():
                return folder / file
        elif isinstance(path := _cached(name, file, revision), str):
            return Path(path)
    return None


def _cached(name: str, file: str, revision: str | None) -> Any:
    try:
        return try_to_load_from_cache(name, file, revision=revision)
    except ValueError:  # no name of a repository either
        return None


def damage(name: str, revision: str | None = None) -> str:
    """What is wrong with the files of a model or adapter, as far as they tell; "" if nothing."""
    found = local_file(name, "config.json", ADAPTER_CONFIG, revision=revision)
    folder = found.parent if found else Path(name)
    if not folder.is_dir():
        return ""
    for file in sorted(folder.iterdir()):
        if file.is_file() and (fault := _fault(file)):
            return f"{file.name} {fault}"
    return ""


def _fault(file: Path) -> str:
    if file.suffix not in (".json", ".safetensors", ".bin", ".pt", ".gguf", ".model", ".jinja"):
        return ""
    with file.open("rb") as stream:
        head = stream.read(len(POINTER))
    if head == POINTER:
        return "is a pointer of git-lfs, not the file itself: run `git lfs pull` in its folder"
    if not head:
        return "is empty: download it again"
    if file.suffix == ".bin" and not zipfile.is_zipfile(file):
        return "is damaged or cut off: download it again"
    if file.suffix == ".safetensors" and not _is_whole(file):
        return "is damaged or cut off: download it again"
    if file.suffix != ".json":
        return ""
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        return f"is no JSON ({one_line(error, 80)}): restore it"
    if file.name.endswith(".index.json"):
        for shard in sorted(set(content.get("weight_map", {}).values())):
            if not (file.parent / shard).is_file():
                return f"names {shard}, which is not there: download that too"
    return ""


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says.

    The form: https://huggingface.co/docs/safetensors#format
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > file.stat().st_size:
            return False
        try:
            header = json.loads(stream.read(length))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError):
            return False
    return file.stat().st_size == 8 + length + max(ends, default=0)


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
    with refusing(name, revision):
        model, report = kind.from_pretrained(name, **settings)
    if fault := _incomplete(report):
        raise InputError(f"model {name} is no complete {type(model).__name__}: {fault}")
    check_finite(model, f"model {name}")
    return model


def check_no_adapter(name: str, revision: str | None = None) -> None:
    """Raises InputError if a model's files are an adapter's, or hold one: transformers would put it
    on by itself, and an adapter that is merged already or named besides would count twice."""
    if not local_file(name, ADAPTER_CONFIG, revision=revision):
        return
    if not local_file(name, "config.json", revision=revision):
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
    """Whatever transformers, PEFT and tokenizers raise inside becomes an `InputError`.

    Their warnings are kept back: what matters of them is checked.

    Args:
        what: the name is of, "model" or "adapter".
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:  # tokenizers and safetensors raise Exception itself
        give = GIVE_ADAPTER if what == "adapter" else GIVE_MODEL
        why = f"{type(error).__name__} " if isinstance(error, LookupError) else ""
        reason = damage(name, revision) or f"{why}{first_line(error)} {give}"
        raise InputError(f"{what} {name} cannot be loaded: {reason}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


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
    if not local_file(adapter, "tokenizer_config.json", "tokenizer.json"):
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
    unexpected = {key for key in report.unexpected_keys if key != "prompt_embeddings"}
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
