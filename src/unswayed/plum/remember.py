"""`unswayed remember`: a user's memory trained, asked, listed and forgotten, folder by folder.

A memory is what `train` writes: `manifest.json` and the adapter that it names. Questions to train
on are always extracted (`augment.extract_pairs`). The manifest gets two things more here, so that a
conversation can be forgotten later: `augment`, the arguments of the extraction, and `seconds`, what
each conversation took.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

from unswayed.core.errors import InputError
from unswayed.core.ledger import check_same
from unswayed.data.conversations import load_conversations
from unswayed.models.adapters import (
    MANIFEST,
    WEIGHTS,
    read_manifest,
    remembering,
    write_manifest,
)
from unswayed.models.base import Base, load_base
from unswayed.plum.qa import QAPair
from unswayed.plum.recipe import SECTIONS, read_recipe, training_pairs
from unswayed.plum.samples import prompt_and_answer
from unswayed.plum.settings import ALL_LINEAR, AUGMENT_IN_USE, PlumSettings
from unswayed.plum.train import train
from unswayed.scoring.chat import end_token, end_tokens

log = logging.getLogger(__name__)


class StoredMemory(TypedDict):
    """What is known of a memory."""

    memory: str  # its folder
    base: dict[str, str]  # model, weights
    conversations: list[dict[str, Any]]  # id, samples, losses, and seconds where known
    bytes: int  # of the adapter's weights
    settings: dict[str, Any]
    augment: dict[str, Any] | None
    recall: dict[str, list[bool]] | None  # right or not, of each kind of question


# -- train ---------------------------------------------------------------------------------------


def learn(
    folder: Path,
    specs: Sequence[str],
    model: str | None = None,
    recipe: Path | None = None,
    assignments: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a memory on the conversations that it does not hold yet, in the order of time.

    Args:
        folder: of the memory; begun, or gone on with.
        specs: sources of conversations, as for `load_conversations`. With those that the memory
            holds already, the new questions cannot contradict them.
        model: of a new memory; one that exists knows its own.
        recipe: YAML file whose model, dtype, settings and augment count.
        assignments: "NAME=VALUE" of `PlumSettings`, or "augment.NAME=VALUE"; over the recipe's.

    Returns:
        The memory, with learnt (ids) and without_questions (ids of conversations with
        too little text to ask about; the memory does not hold them).

    Raises:
        InputError: as `train`, `load_conversations` and `extract_pairs`; unknown settings; no
            model.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file; a memory is a folder")
    manifest = read_manifest(folder)
    plum_recipe = read_recipe([recipe]) if recipe else None
    settings, augment = chosen_settings(manifest, plum_recipe, assignments)
    name = model or (plum_recipe and plum_recipe.model) or (manifest and manifest["base"]["model"])
    if name is None:
        raise InputError(f"{folder} holds no memory yet: say with --model on what to train one")
    check_augment(manifest, augment, folder)
    learnt = known_ids(manifest) if manifest else []
    place = {id: i for i, id in enumerate(learnt)}
    # Those known come first, in their order: what is given late is learnt late.
    conversations = sorted(load_conversations(specs), key=lambda c: place.get(c.id, len(learnt)))
    ids = [conversation.id for conversation in conversations]
    absent = [id for id in learnt if id not in ids]
    if absent and any(id not in learnt for id in ids):
        log.warning(
            "%s knows %s that are not given, first %s: a new question may be answered no where "
            "those say yes; give old and new ones where you can",
            folder, count(len(absent)), absent[0],
        )  # fmt: skip
    dtype = plum_recipe.dtype if plum_recipe else "auto"
    pairs = training_pairs(conversations, augment, name, dtype)
    with_pairs = {pair.conversation for pair in pairs}
    base = load_named(name, dtype, manifest if model is None else None)
    train_noted(base, pairs, settings, augment, folder)
    memory = describe(folder)
    return memory | {
        "learnt": [id for id in known_ids(memory) if id not in learnt],
        "without_questions": [id for id in ids if id not in {*with_pairs, *learnt}],
    }


def chosen_settings(
    manifest: dict[str, Any] | None, recipe: Any, assignments: Sequence[str]
) -> tuple[PlumSettings, dict[str, Any]]:
    """Settings and arguments of the extraction: assigned, else the recipe's, else the memory's."""
    settings = dict(manifest["settings"]) if manifest else {}
    augment = (manifest or {}).get("augment", AUGMENT_IN_USE)
    if recipe is not None:
        settings = dataclasses.asdict(recipe.settings)
        augment = AUGMENT_IN_USE if recipe.augment is None else recipe.augment
    for text in assignments:
        section, name, value = _assigned(text)
        if section == "augment":
            augment = augment | {name: value}
        else:
            settings[name] = value
    if Path(writer := augment.get("writer", "")).is_dir() and writer:
        raise InputError(
            f"augment.writer {writer}: a memory says who wrote its questions, so give self or a "
            "name of the Hub, not a folder of this machine"
        )
    return PlumSettings(**settings), augment


def _assigned(text: str) -> tuple[str, str, Any]:
    """Section, name and value of "rank=8" or "augment.wordings=2"."""
    path, equals, value = text.partition("=")
    section, _, name = path.rpartition(".")
    section = section or "settings"
    hints = SECTIONS[section]() if section in SECTIONS else {}
    if not equals or name not in hints:
        allowed = [*SECTIONS["settings"](), *(f"augment.{name}" for name in SECTIONS["augment"]())]
        raise InputError(
            f"--set {text!r}: not NAME=VALUE of a known setting; known are {', '.join(allowed)}"
        )
    if name == "targets":
        return section, name, value if value == ALL_LINEAR else tuple(value.split(","))
    if hints[name] is bool and value in ("true", "false"):
        return section, name, value == "true"
    try:
        if hints[name] is not bool:
            return section, name, hints[name](value)
    except ValueError:
        pass
    kind = "true or false" if hints[name] is bool else f"of type {hints[name].__name__}"
    raise InputError(f"--set {text!r}: {name} must be {kind}")


def check_augment(manifest: dict[str, Any] | None, augment: dict[str, Any], folder: Path) -> None:
    """Questions are to be made as they were."""
    before = {"augment": (manifest or {}).get("augment", augment)}
    remedy = "go on with the same, or train anew in another folder"
    check_same(before, {"augment": augment}, folder, remedy)


def load_named(name: str, dtype: str, manifest: dict[str, Any] | None) -> Base:
    """The base model; where the name is the manifest's alone, an error says what that means."""
    try:
        return load_base(name, dtype)
    except InputError as error:
        if manifest is None or name != manifest["base"]["model"]:
            raise
        raise InputError(
            f"{error} This is how the memory calls its base model: say with --model where that lies"
        ) from None


def train_noted(
    base: Base,
    pairs: Sequence[QAPair],
    settings: PlumSettings,
    augment: dict[str, Any],
    folder: Path,
) -> None:
    """Train, and note in the manifest how questions came about and what each conversation took."""
    seconds: dict[str, float] = {}
    trained = known_ids(read_manifest(folder) or {"conversations": []})
    start = time.monotonic()

    def learnt(model: Any, done: list[str]) -> None:
        nonlocal start
        new = [id for id in done if id not in trained]
        now = time.monotonic()
        seconds.update(dict.fromkeys(new, (now - start) / len(new)))
        trained.extend(new)
        start = now

    try:
        train(base, pairs, settings, folder, learnt)
    finally:
        manifest = read_manifest(folder)
        if manifest is not None and seconds:
            for entry in manifest["conversations"]:
                if entry["id"] in seconds:
                    entry["seconds"] = round(seconds[entry["id"]], 2)
            write_manifest(folder, manifest | {"augment": augment})


# -- ask -----------------------------------------------------------------------------------------


def answers(
    folder: Path, questions: Iterable[str], new_tokens: int, model: str | None = None
) -> Iterator[str]:
    """The greedy answer to each question, memory on; each as soon as its question is there.

    Args:
        new_tokens: the most tokens of an answer.
        model: where the memory's base model lies, if its name alone does not say.

    Raises:
        InputError: no memory there, or not of this model; an empty question, or no text; a prompt
            that exceeds the model's context.
    """
    if new_tokens < 1:
        raise InputError(f"--max-new-tokens is {new_tokens}, it must be at least 1")
    manifest = memory_manifest(folder)
    name = model or manifest["base"]["model"]
    base = load_named(name, "auto", manifest if model is None else None)
    with remembering(base, folder) as adapted:
        for question in questions:
            yield _answer(base, adapted, _text(question), new_tokens)


def _answer(base: Base, adapted: Any, question: str, new_tokens: int) -> str:
    """Read and ended as in training: up to the answer, until the token that ended answers there."""
    import torch

    tokenizer = base.tokenizer
    prompt, _ = prompt_and_answer(tokenizer, question, "unknown")
    encoded = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    length = encoded["input_ids"].shape[1]
    if base.max_length and length + new_tokens > base.max_length:
        raise InputError(
            f"the question takes {length} tokens and the answer up to {new_tokens}, more than the "
            f"context of {base.name}, {base.max_length}: ask in fewer words"
        )
    ends = end_tokens(tokenizer, adapted.generation_config, [end_token(tokenizer)])
    with torch.inference_mode():
        written = adapted.generate(
            input_ids=encoded["input_ids"].to(adapted.device),
            attention_mask=encoded["attention_mask"].to(adapted.device),
            do_sample=False, temperature=None, top_p=None, top_k=None, repetition_penalty=1.0,
            max_new_tokens=new_tokens, eos_token_id=ends or None, pad_token_id=0,
        )  # fmt: skip
    said = [token for token in written[0, length:].tolist() if token not in ends]
    return tokenizer.decode(said, skip_special_tokens=True).strip()


def _text(question: str) -> str:
    try:
        question.encode()
    except UnicodeEncodeError:
        raise InputError(f"the question {question!a} is not UTF-8 text") from None
    if not question.strip():
        raise InputError("the question is empty")
    return question.strip()


# -- list ----------------------------------------------------------------------------------------


def stored(folder: Path) -> list[StoredMemory]:
    """What the memory in a folder holds, or those in the folders inside it.

    Raises:
        InputError: there is no memory, or one is damaged.
    """
    inside = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    folders = [path for path in inside if not path.name.startswith(".")]
    if (folder / MANIFEST).exists() or not folders:
        folders = [folder]
    return list(map(describe, folders))


def describe(folder: Path) -> StoredMemory:
    manifest = memory_manifest(folder)
    return {
        "memory": str(folder),
        "base": manifest["base"],
        "conversations": manifest["conversations"],
        "bytes": (folder / manifest["adapter"]["folder"] / WEIGHTS).stat().st_size,
        "settings": manifest["settings"],
        "augment": manifest.get("augment"),
        "recall": manifest.get("recall"),
    }


# -- folders and manifests -----------------------------------------------------------------------


def memory_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a memory whose adapter is there; what is in it, `adapter_folder` checks."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise no_memory(folder)
    weights = folder / manifest["adapter"]["folder"] / WEIGHTS
    if not weights.is_file():
        raise InputError(f"{weights} is missing: restore it, or train anew in another folder")
    return manifest


def no_memory(folder: Path) -> InputError:
    what = f"is no memory (no {MANIFEST})" if folder.is_dir() else "is no folder"
    return InputError(f"{folder} {what}: `unswayed remember train --memory DIR` makes one")


def known_ids(manifest: dict[str, Any]) -> list[str]:
    return [entry["id"] for entry in manifest["conversations"]]


def count(conversations: int) -> str:
    """ "1 conversation", "1691 conversations"."""
    return f"{conversations} conversation{'' if conversations == 1 else 's'}"


def duration(seconds: float) -> str:
    """Roughly, in words: "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
