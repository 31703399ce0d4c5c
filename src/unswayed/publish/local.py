"""What is published, read from a local folder and checked before anything is sent.

A tree is a folder with one folder of Parquet files per config and a README.md whose metadata name
them (`configs`) and describe them (`dataset_info`), as the scripts in datasets_scripts/ build it.
A model is a PEFT adapter or a whole model as safetensors, with a card, as the recipe in recipes/dpo
writes both. A Space is the tree that `unswayed.publish.spaces` builds.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
from pathlib import Path, PurePosixPath
from typing import Any

from unswayed.core.cards import CARD, with_metadata
from unswayed.core.errors import InputError
from unswayed.core.files import read_text
from unswayed.models.adapters import is_memory
from unswayed.publish.metadata import infos, matching, metadata, others_of, patterns

DATA = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".zip")  # read without `configs`
DATASET, MODEL, SPACE = "dataset", "model", "space"
ADAPTER, CONFIG = "adapter_config.json", "config.json"  # which a model has
APP, BUILT = "app.py", "unswayed-*.dist-info/METADATA"  # which a Space of ours has
# All that is published of a model; checkpoints and run.json, which has paths, are not.
MODEL_FILES = (
    ADAPTER, "adapter_model.safetensors", CONFIG, "generation_config.json", "model*.safetensors",
    "model.safetensors.index.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "curves.json", "curves.svg",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Local:
    """What is published.

    Attributes:
        kind: of the repository.
        card: the text of README.md.
        files: all others, by their path in the repository; a file or its content.
    """

    kind: str
    card: str
    files: dict[str, Path | bytes]

    def stale(self, remote: dict[str, Any], there: list[str], repo_id: str) -> list[str]:
        """Files in the repository that this would have and no longer has.

        Args:
            remote: metadata of the repository's card.
            there: the repository's files.

        Raises:
            InputError: this and the rest of the repository would get into each other's way.
        """
        old = {DATASET: stale_data, MODEL: stale_weights, SPACE: stale_space}[self.kind]
        return sorted(set(old(self, remote, there, repo_id)) - self.files.keys() - {CARD})


def read_folder(folder: Path, license: str | None = None, base_model: str | None = None) -> Local:
    """A dataset tree, a model or a Space, checked.

    Args:
        license: of a model, in the Hub's words, instead of what its card says.
        base_model: of a model, OWNER/NAME on the Hub, instead of what its card says.

    Raises:
        InputError: it is none of them, it is a user's memory, or it is not whole.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; give a dataset tree or a model, see docs/publish.md"
        )
    if is_memory(folder):
        raise InputError(
            f"{folder} is a user's memory, which is private: it is not published; copy it yourself "
            "to where its user wants it"
        )
    if (folder / ADAPTER).exists() or (
        (folder / CONFIG).exists() and any(folder.glob("*.safetensors"))
    ):
        return read_model(folder, license, base_model)
    if (folder / APP).exists() and not (license or base_model):
        return read_space(folder)
    if license or base_model:
        raise InputError(
            f"{folder} is no model, and --license and --base_model are for models only: the "
            "licence of a dataset tree stands in its card, leave them out"
        )
    return read_tree(folder)


def visible_files(folder: Path) -> dict[str, Path | bytes]:
    """Path in the folder -> file, in order, without the card and hidden files and folders."""
    files = ((p.relative_to(folder), p) for p in sorted(folder.rglob("*")) if p.is_file())
    return {
        path.as_posix(): file
        for path, file in files
        if path != Path(CARD) and not any(part.startswith(".") for part in path.parts)
    }


def check_id(repo_id: Any, complaint: str) -> None:
    """An id of the Hub is OWNER/NAME.

    Raises:
        InputError: it is not; `complaint`, and why.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError("the owner is missing")
    except HFValidationError as error:
        raise InputError(f"{complaint} ({error})") from None


# -- a local model -------------------------------------------------------------------------------


def read_model(folder: Path, license: str | None = None, base_model: str | None = None) -> Local:
    """A PEFT adapter or a whole model, checked; arguments as in `read_folder`.

    The adapter's configuration names the base model as the card does, so that its readers find it.

    Raises:
        InputError: weights are missing or damaged, the card names no licence or no base model of
            the Hub, it was trained on from a user's memory, or a path would be published.
    """
    card = folder / CARD
    text = read_text(card)
    about = metadata(text, card)
    if (about.get("unswayed") or {}).get("private_memory"):
        raise InputError(
            f"{folder} was trained on from a user's memory, which is private and still in it: to "
            "publish a model, train one without that adapter"
        )
    about |= {"license": license} if license else {}
    about |= {"base_model": base_model} if base_model else {}
    if not about.get("license"):
        raise InputError(
            f"{card} names no licence, and what is published needs one: look up that of the base "
            "model and give it as --license, e.g. --license apache-2.0"
        )
    base = about.get("base_model")
    check_id(
        base,
        f"{card}: base_model {base!r} is no model on the Hub: say with --base_model OWNER/NAME "
        "what it was trained from",
    )
    names = sorted(matching(MODEL_FILES, (p.name for p in folder.iterdir() if p.is_file())))
    files: dict[str, Path | bytes] = {name: folder / name for name in names}
    _check_weights(files, folder)
    for name in names:
        if name.endswith("config.json"):
            config = _read_json(folder / name)
            if name == ADAPTER and config.get("base_model_name_or_path") != base:
                config["base_model_name_or_path"] = base
                files[name] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
            for key, value in config.items():
                if isinstance(value, str) and Path(value).is_absolute():
                    raise InputError(
                        f"{folder / name}: {key} is a path of this machine, {value}: take it out "
                        "before it is published"
                    )
    return Local(MODEL, with_metadata(text, about), files)


def _check_weights(files: dict[str, Any], folder: Path) -> None:
    """All weights are there, and whole."""
    from safetensors import SafetensorError, safe_open

    needed = {"adapter_model.safetensors" if ADAPTER in files else "model.safetensors"}
    if (index := "model.safetensors.index.json") in files:
        needed = set(_read_json(folder / index)["weight_map"].values())
    if missing := sorted(needed - files.keys()):
        raise InputError(f"{folder / missing[0]}: no such file; train or save the model again")
    for name in files:
        if name.endswith(".safetensors"):
            try:
                with safe_open(folder / name, framework="numpy"):
                    pass
            except SafetensorError as error:
                raise InputError(
                    f"{folder / name}: not a whole safetensors file ({error}); train or save the "
                    "model again"
                ) from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); train or save the model again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object; train or save the model again")
    return content


def stale_weights(local: Local, remote: Any, there: list[str], repo_id: str) -> list[str]:
    """A model's; an adapter does not take the place of a whole model, nor the other way round."""
    is_adapter = ADAPTER in local.files
    other = CONFIG if is_adapter else ADAPTER
    if other in there and other not in local.files:
        kinds = ("an adapter", "a whole model")
        raise InputError(
            f"{repo_id} holds {kinds[is_adapter]} ({other}), and this is {kinds[not is_adapter]}: "
            "give another --repo_id"
        )
    return matching(MODEL_FILES, there)


# -- a local Space -------------------------------------------------------------------------------


def read_space(folder: Path) -> Local:
    """The tree of a Space, checked.

    Raises:
        InputError: `python -m unswayed.publish.spaces` has not built it, it lacks its app, or its
            card does not pin SDK and Python.
    """
    if not any(folder.glob(BUILT)):
        raise InputError(
            f"{folder} has {APP} and not the package unswayed: build the Space with `python -m "
            "unswayed.publish.spaces --out DIR` and give DIR"
        )
    card = folder / CARD
    text = read_text(card)
    about = metadata(text, card)
    for key in ("sdk", "sdk_version", "python_version", "app_file", "license"):
        if not about.get(key):
            raise InputError(f"{card}: {key} is missing, and a Space needs it")
    if not (folder / str(about["app_file"])).is_file():
        raise InputError(f"{folder} has no {about['app_file']}, which its card names")
    files = {p: f for p, f in visible_files(folder).items() if "__pycache__" not in p.split("/")}
    return Local(SPACE, text, files)


def stale_space(local: Local, remote: Any, there: list[str], repo_id: str) -> list[str]:
    """A Space's: all that it no longer has; another Space is not replaced."""
    others = sorted(set(there) - {CARD, ".gitattributes"})
    if others and not matching([BUILT], there):
        raise InputError(
            f"{repo_id} holds another Space ({others[0]}), which would be deleted: give another "
            "--repo_id"
        )
    return others


# -- the local tree ------------------------------------------------------------------------------


def read_tree(folder: Path) -> Local:
    """A dataset tree, checked; hidden files and folders are no part of it.

    Raises:
        InputError: it is no dataset tree, or card and files do not agree.
    """
    card = folder / CARD
    text = read_text(card)
    about = metadata(text, card)
    if not about.get("configs") or not about.get("dataset_info"):
        raise InputError(
            f"{folder} is no dataset tree: the metadata of its {CARD} must have `configs` and "
            "`dataset_info`, as datasets_scripts/ writes them; nor is it a model, which has "
            f"{ADAPTER}, or {CONFIG} and *.safetensors"
        )
    if not about.get("license"):
        raise InputError(
            f"{card} names no licence, and what is published needs one: build the tree with "
            "--license_statement, or add `license:` to its metadata if you may give it away"
        )
    files = visible_files(folder)
    for config in about["configs"]:
        _check_config(config, infos(about), files, folder)
    return Local(DATASET, text, files)


def _check_config(config: dict, described: dict[str, dict], files: dict[str, Any], folder: Path):
    import pyarrow
    from pyarrow import parquet

    name = config["config_name"]
    if name not in described:
        raise InputError(f"{folder / CARD}: `dataset_info` has no entry for config {name}")
    rows = {s["name"]: s.get("num_examples") for s in described[name].get("splits") or []}
    entries = config.get("data_files")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(
            f"{folder / CARD}: config {name} must name its `data_files` as a list of split and path"
        )
    for entry in entries:
        split, n_rows = entry["split"], 0
        paths = matching(patterns({"data_files": [entry]}), files)
        if not paths:
            raise InputError(
                f"{folder}: no file for split {split} of config {name} ({entry['path']})"
            )
        for path in paths:
            if PurePosixPath(path).suffix != ".parquet" or "/" not in path:
                raise InputError(
                    f"{folder / path}: the files of config {name} must be Parquet, in a folder of "
                    "their own"
                )
            try:
                n_rows += parquet.read_metadata(files[path]).num_rows
            except pyarrow.ArrowException as error:
                raise InputError(
                    f"{folder / path}: not a whole Parquet file ({str(error).splitlines()[0]}); "
                    "build the tree again"
                ) from None
        if rows.get(split) not in (None, n_rows):
            raise InputError(
                f"{folder}: split {split} of config {name} has {n_rows} rows, its card says "
                f"{rows[split]}; build the tree again"
            )


def stale_data(tree: Local, remote: dict[str, Any], there: list[str], repo_id: str) -> list[str]:
    """Those of the tree's own configs: what the remote card names, and Parquet in their folders;
    other configs stay apart."""
    configs = metadata(tree.card, CARD)["configs"]
    names = {config["config_name"] for config in configs}
    ours = matching([p for config in configs for p in patterns(config)], tree.files)
    folders = {posixpath.dirname(path) for path in ours}
    beside = [p for p in there if posixpath.dirname(p) in folders and p.endswith(".parquet")]
    unnamed = [p for p in there if p.endswith(DATA) and p not in beside and p not in tree.files]
    if unnamed and not remote.get("configs"):
        raise InputError(
            f"{repo_id} holds data, such as {unnamed[0]}, that its card does not name in `configs` "
            "and that would no longer load: name it there, or give another --repo_id"
        )
    others = set()
    for config in others_of(remote, names):
        shared = matching(patterns(config), tree.files)
        if shared:
            raise InputError(
                f"{shared[0]} of the tree would become a part of config {config['config_name']}, "
                f"which {repo_id} has and the tree has not: give another --repo_id"
            )
        others.update(matching(patterns(config), there))
    before = [c for c in remote.get("configs") or [] if c["config_name"] in names]
    named = matching([p for config in before for p in patterns(config)], there)
    return [path for path in (*beside, *named) if path not in others]
