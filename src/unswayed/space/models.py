"""Which models a visitor may ask, and those that are in memory."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections import OrderedDict
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from unswayed.core.errors import InputError
from unswayed.models.embedded import EMBEDDED, EMBEDDED_ID, GGUF_PACKAGE, model_label, model_path
from unswayed.models.load import load_lm

MORE = "UNSWAYED_SPACE_MODELS"  # models that the owner of a Space adds, separated by spaces
IN_MEMORY = 2


def choices() -> dict[str, str]:
    """Models that may be chosen, name -> label; the first is the default.

    Those that the environment variable UNSWAYED_SPACE_MODELS names come first: Hub ids or folders.
    """
    text = (files("unswayed.space") / "models.yaml").read_text(encoding="utf-8")
    added = os.environ.get(MORE, "").split()
    return {name: model_label(name) for name in added} | {
        entry["name"]: entry["label"] for entry in yaml.safe_load(text)
    }


def source(name: str) -> str:
    """What is loaded for a name: the embedded model comes from the Hub where it is not installed.

    Raises:
        InputError: the model may not be chosen here.
    """
    if name not in choices():
        raise InputError(f"model {name!r} cannot be asked here; choose one of the list")
    if name == EMBEDDED and importlib.util.find_spec(GGUF_PACKAGE) is None:
        return EMBEDDED_ID
    return name


class Shelf:
    """Loaded models, the last few; one call at a time goes to any of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._models: OrderedDict[str, tuple[Any, Any]] = OrderedDict()

    def get(self, name: str) -> tuple[Any, Any]:
        """Model and its chat format; to be called with `lock` held.

        Raises:
            InputError: the model may not be chosen here, or cannot be loaded.
        """
        if name not in self._models:
            path = model_path(source(name))
            while len(self._models) >= IN_MEMORY:
                self._models.popitem(last=False)
            self._models[name] = _load(path)
        self._models.move_to_end(name)
        return self._models[name]


def _load(path: str) -> tuple[Any, Any]:
    from unswayed.scoring.chat import ChatFormat
    from unswayed.space.prefixes import PrefixKeepingLM

    try:
        lm = load_lm(path, device="cpu", batch_size=1, backend=PrefixKeepingLM)
    except InputError as error:
        raise InputError(
            f"model {Path(path).name} cannot be loaded now "
            f"({type(error.__cause__ or error).__name__}); choose another, or try again later"
        ) from error
    return lm, ChatFormat(lm)
