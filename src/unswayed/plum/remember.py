"""`unswayed remember`: a user's memory trained, asked, listed and forgotten, folder by folder.

A memory is what `train` writes: `manifest.json` and the adapter that it names. Questions to train
on are always extracted (`augment.extract_pairs`). The manifest gets two things more here, so that a
conversation can be forgotten later: `augment`, the arguments of the extraction, and `seconds`, what
each conversation took.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.ledger import check_same
from unswayed.data.conversations import Conversation, load_conversations
from unswayed.models.adapters import (
    MANIFEST,
    WEIGHTS,
    adapter_folder,
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
from unswayed.scoring.chat import end_token

log = logging.getLogger(__name__)

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
        As an entry of `stored`, with learnt (ids) and without_questions (ids of conversations with
        too little text to ask about; the memory does not hold them).

    Raises:
        InputError: as `train`, `load_conversations` and `extract_pairs`; unknown settings; no
            model.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file; a memory is a folder")
    manifest = read_manifest(folder)
    found = read_recipe([recipe]) if recipe else None
    settings, augment = _chosen(manifest, found, assignments)
    name = model or (found and found.model) or (manifest and manifest["base"]["model"])
    if name is None:
        raise InputError(f"{folder} holds no memory yet: say with --model on what to train one")
    _check_augment(manifest, augment, folder)
    known = _ids(manifest) if manifest else []
    place = {id: i for i, id in enumerate(known)}
    # Those known come first, in their order: what is given late is learnt late.
    conversations = sorted(load_conversations(specs), key=lambda one: place.get(one.id, len(known)))
    absent = [id for id in known if id not in {one.id for one in conversations}]
    if absent and any(one.id not in known for one in conversations):
        log.warning(
            "%s knows %s that are not given, first %s: a new question may be answered no where "
            "those say yes; give old and new ones where you can",
            folder, count(len(absent)), absent[0],
        )  # fmt: skip
    pairs = training_pairs(conversations, augment)
    asked = {pair.conversation for pair in pairs}
    base = _load(name, found.dtype if found else "auto", manifest if model is None else None)
    _train(base, pairs, settings, augment, folder)
    entry = _entry(folder)
    return entry | {
        "learnt": [one["id"] for one in entry["conversations"] if one["id"] not in known],
        "without_questions": [one.id for one in conversations if one.id not in {*asked, *known}],
    }


def _chosen(
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
    return PlumSettings(**settings), augment


def _assigned(text: str) -> tuple[str, str, Any]:
    """Section, name and value of "rank=8" or "augment.wordings=2"."""
    path, equals, value = text.partition("=")
    section, _, name = path.rpartition(".")
    section = section or "settings"
    hints = SECTIONS[section]() if section in SECTIONS else {}
    if not equals or name not in hints:
        known = [*SECTIONS["settings"](), *(f"augment.{name}" for name in SECTIONS["augment"]())]
        raise InputError(
            f"--set {text!r}: not NAME=VALUE of a known setting; known are {', '.join(known)}"
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
    wanted = "true or false" if hints[name] is bool else f"of type {hints[name].__name__}"
    raise InputError(f"--set {text!r}: {name} must be {wanted}")


def _check_augment(manifest: dict[str, Any] | None, augment: dict[str, Any], folder: Path) -> None:
    before = {"augment": (manifest or {}).get("augment", augment)}
    remedy = "go on with the same, or train anew in another folder"
    check_same(before, {"augment": augment}, folder, remedy)


def _load(name: str, dtype: str, manifest: dict[str, Any] | None) -> Base:
    """The base model; where the name is the manifest's alone, an error says what that means."""
    try:
        return load_base(name, dtype)
    except InputError as error:
        if manifest is None or name != manifest["base"]["model"]:
            raise
        raise InputError(
            f"{error} This is how the memory calls its base model: say with --model where that lies"
        ) from None


def _train(
    base: Base,
    pairs: Sequence[QAPair],
    settings: PlumSettings,
    augment: dict[str, Any],
    folder: Path,
) -> None:
    """Train, and note in the manifest how questions came about and what each conversation took."""
    seconds: dict[str, float] = {}
    known = _ids(read_manifest(folder) or {"conversations": []})
    start = time.monotonic()

    def learnt(model: Any, done: list[str]) -> None:
        nonlocal start
        new = [id for id in done if id not in known]
        now = time.monotonic()
        seconds.update(dict.fromkeys(new, (now - start) / len(new)))
        known.extend(new)
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
    manifest = _memory(folder)
    name = model or manifest["base"]["model"]
    base = _load(name, "auto", manifest if model is None else None)
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
    own = adapted.generation_config.eos_token_id
    ends = {end_token(tokenizer), tokenizer.eos_token_id}
    ends |= set(own if isinstance(own, list) else [own])
    with torch.inference_mode():
        written = adapted.generate(
            input_ids=encoded["input_ids"].to(adapted.device),
            attention_mask=encoded["attention_mask"].to(adapted.device),
            do_sample=False, temperature=None, top_p=None, top_k=None, repetition_penalty=1.0,
            max_new_tokens=new_tokens, eos_token_id=sorted(ends - {None}), pad_token_id=0,
        )  # fmt: skip
    return tokenizer.decode(written[0, length:], skip_special_tokens=True).strip()


def _text(question: str) -> str:
    try:
        question.encode()
    except UnicodeEncodeError:
        raise InputError(f"the question {question!a} is not UTF-8 text") from None
    if not question.strip():
        raise InputError("the question is empty")
    return question.strip()


# -- list ----------------------------------------------------------------------------------------


def stored(folder: Path) -> list[dict[str, Any]]:
    """What the memory in a folder holds, or those in the folders inside it.

    Returns:
        Per memory: memory (its folder), base (model, weights), conversations (each id, samples,
        losses, and seconds where known), bytes (of the adapter's weights), settings, augment and
        recall (right or not, of each kind of question; None if it is not known).

    Raises:
        InputError: there is no memory, or one is damaged.
    """
    inside = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    folders = [path for path in inside if not path.name.startswith(".")]
    if (folder / MANIFEST).exists() or not folders:
        folders = [folder]
    return [_entry(one) for one in folders]


def _entry(folder: Path) -> dict[str, Any]:
    manifest = _memory(folder)
    return {
        "memory": str(folder),
        "base": manifest["base"],
        "conversations": manifest["conversations"],
        "bytes": (folder / manifest["adapter"]["folder"] / WEIGHTS).stat().st_size,
        "settings": manifest["settings"],
        "augment": manifest.get("augment"),
        "recall": manifest.get("recall"),
    }


# -- forget --------------------------------------------------------------------------------------


def forget_all(folder: Path) -> list[Path]:
    """Remove a memory; what else lies in its folder stays.

    Returns:
        What was removed.

    Raises:
        InputError: there is none.
    """
    if read_manifest(folder) is None:
        raise _no_memory(folder)
    # The manifest goes last: as long as it is there, the same command finishes the work.
    removed = [*_scratches(folder), *_adapters(folder), folder / MANIFEST]
    for path in removed:
        path.unlink() if path.is_file() else shutil.rmtree(path)
    if not any(folder.iterdir()):
        folder.rmdir()
        removed.append(folder)
    return removed


def forget(
    folder: Path,
    ids: Sequence[str],
    specs: Sequence[str],
    model: str | None = None,
    recipe: Path | None = None,
) -> dict[str, Any]:
    """Forget conversations: train anew on all others, with the memory's settings.

    What was learnt cannot be taken out of an adapter, and the texts are not kept, so the sources of
    the others are needed. Training goes on in a hidden folder beside the memory, which stays as it
    is until the new one is whole; the same call goes on after an interruption.

    Args:
        ids: of the conversations to forget.
        specs: sources that hold all others; those to forget, and ones that the memory does not
            hold, are left out.
        model: as in `answers`.
        recipe: as in `learn`, for a memory whose manifest does not say how its questions came
            about; its settings must be those of the memory.

    Returns:
        As an entry of `stored`.

    Raises:
        InputError: the memory does not know an id, or others are not among the sources.
    """
    manifest = _memory(folder)
    known = _ids(manifest)
    unknown = [id for id in ids if id not in known]
    if unknown:
        if len(unknown) == len(ids) and _sweep(folder, manifest):
            return _entry(folder)  # all was done but the sweeping
        raise InputError(
            f"{folder} knows no conversation {unknown[0]!r}: `unswayed remember list` shows what "
            "it knows"
        )
    kept = [id for id in known if id not in ids]
    if not kept:
        raise InputError(f"{folder} knows nothing else: forget it with --all")
    remaining = _remaining(folder, kept, ids, specs)
    found = read_recipe([recipe]) if recipe else None
    settings, augment = _chosen(manifest, found, ())
    _check_augment(manifest, augment, folder)
    if PlumSettings(**manifest["settings"]) != settings:
        raise InputError(f"{folder} was trained with other settings than those of {recipe}")
    pairs = training_pairs(remaining, augment)
    log.info("%s", _cost(manifest, ids, kept))
    scratch = _scratch(folder, [*kept, settings, augment, manifest["base"]["weights"]])
    for other in _scratches(folder):
        if other != scratch:
            log.info("removed %s, left by the forgetting of something else", other)
            shutil.rmtree(other)
    name = model or manifest["base"]["model"]
    base = _load(name, found.dtype if found else "auto", manifest if model is None else None)
    adapter_folder(base, folder)  # is it this base model?
    _train(base, pairs, settings, augment, scratch)
    fresh = _memory(scratch) | {"augment": augment}  # a kill may have come before it was noted
    if _ids(fresh) != kept:
        lost = next(id for id in kept if id not in _ids(fresh))
        raise InputError(
            f"{folder} stays as it is: without what is forgotten there is too little text to ask "
            f"about {lost!r}; forget that too, or give sources with its whole text"
        )
    _put(fresh, scratch, folder)
    _sweep(folder, fresh)
    return _entry(folder)


def _remaining(
    folder: Path, kept: Sequence[str], ids: Sequence[str], specs: Sequence[str]
) -> list[Conversation]:
    """The conversations to keep, in the order in which they were learnt."""
    given = {one.id: one for one in load_conversations(specs)}
    missing = [id for id in kept if id not in given]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(kept)} conversations that {folder} is to keep are not "
            f"among the sources, first {missing[0]!r}: give the text of all of them with "
            "--conversations, a memory does not hold it"
        )
    more = [id for id in given if id not in kept and id not in ids]
    if more:
        log.info(
            "%s, first %s, not in the memory: left out; `unswayed remember train` learns them",
            count(len(more)), more[0],
        )  # fmt: skip
    return [given[id] for id in kept]


def _cost(manifest: dict[str, Any], ids: Sequence[str], kept: Sequence[str]) -> str:
    """What forgetting costs, in words; the time is that of the first training, by samples."""
    entries = manifest["conversations"]
    timed = [entry for entry in entries if "seconds" in entry]
    samples = sum(entry["samples"] for entry in entries if entry["id"] in kept)
    if timed:
        rate = sum(entry["seconds"] for entry in timed) / sum(entry["samples"] for entry in timed)
        took = f"about {duration(rate * samples)}, if it goes as fast as before"
    else:
        took = "how long that took before is not known"
    return (
        f"To forget {', '.join(ids)}, all else is learnt anew: {count(len(kept))}, {samples} "
        f"samples x {manifest['settings']['epochs']} epochs, {took}."
    )


def count(conversations: int) -> str:
    return f"{conversations} conversation{'' if conversations == 1 else 's'}"


def duration(seconds: float) -> str:
    """In words: "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _scratch(folder: Path, what: Sequence[Any]) -> Path:
    """Where one forgetting trains: another set of conversations gives another name."""
    folder = Path(os.path.abspath(folder))
    digest = hashlib.sha256(repr(what).encode()).hexdigest()[:12]
    return folder.with_name(f".{folder.name}.forget-{digest}")


def _scratches(folder: Path) -> list[Path]:
    folder = Path(os.path.abspath(folder))
    prefix = f".{folder.name}.forget-"
    return sorted(path for path in folder.parent.iterdir() if path.name.startswith(prefix))


def _put(manifest: dict[str, Any], scratch: Path, folder: Path) -> None:
    """The memory of the scratch folder in place of the old one, at the moment of the last line."""
    name = manifest["adapter"]["folder"]
    partial = folder / f"{name}.partial"
    for leftover in (partial, folder / name):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(scratch / name, partial)
    partial.rename(folder / name)
    write_manifest(folder, manifest)


def _sweep(folder: Path, manifest: dict[str, Any]) -> list[Path]:
    """Remove adapters that the manifest does not name, and the scratch it came from; says which."""
    named = folder / manifest["adapter"]["folder"]
    old = [path for path in _adapters(folder) if path != named]
    for path in _scratches(folder):
        trained = read_manifest(path)
        if trained is not None and trained["adapter"] == manifest["adapter"]:
            old.append(path)
    for path in old:
        shutil.rmtree(path)
    return old


# -- folders and manifests -----------------------------------------------------------------------


def _memory(folder: Path) -> dict[str, Any]:
    """The manifest of a memory whose adapter is there; what is in it, `adapter_folder` checks."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise _no_memory(folder)
    weights = folder / manifest["adapter"]["folder"] / WEIGHTS
    if not weights.is_file():
        raise InputError(f"{weights} is missing: restore it, or train anew in another folder")
    return manifest


def _no_memory(folder: Path) -> InputError:
    what = f"is no memory (no {MANIFEST})" if folder.is_dir() else "is no folder"
    return InputError(f"{folder} {what}: `unswayed remember train --memory DIR` makes one")


def _adapters(folder: Path) -> list[Path]:
    """Adapters of a memory, also half written ones."""
    return sorted(folder.glob("adapter-[0-9][0-9][0-9][0-9][0-9]*"))


def _ids(manifest: dict[str, Any]) -> list[str]:
    return [entry["id"] for entry in manifest["conversations"]]
