"""`unswayed publish`: a local dataset tree or model goes to the Hub in one commit.

A tree is a folder with one folder of Parquet files per config and a README.md whose metadata name
them (`configs`) and describe them (`dataset_info`), as the scripts in datasets_scripts/ build it.
A model is a PEFT adapter or a whole model as safetensors, with a card, as the recipe in recipes/dpo
writes both. It is checked before anything is sent. What the repository has of other configs stays,
in files and in the card; files of the tree's own configs, or of the model, that are no longer in
the folder are deleted. A commit is whole or not there, and it is tied to the state it was made from
(`parent_commit`), so any attempt can be repeated: what is uploaded already is not sent again, and
nothing is committed twice.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import posixpath
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from unswayed import __version__
from unswayed.errors import InputError
from unswayed.files import read_text
from unswayed.hub import CARD
from unswayed.memory.plum.adapter import is_memory

MESSAGE = "Publish with unswayed"
DATA = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".zip")  # read without `configs`
PAUSES = (1, 3)  # seconds before the second and the third attempt
PASSING = (409, 412, 500, 502, 503, 504)  # statuses that another attempt may not meet
AGAIN = "run the same command again; nothing is uploaded or committed twice"

DATASET, MODEL, SPACE = "dataset", "model", "space"
ADAPTER, CONFIG = "adapter_config.json", "config.json"  # which a model has
APP, BUILT = "app.py", "unswayed-*.dist-info/METADATA"  # which a Space of ours has
# All that is published of a model; checkpoints and run.json, which has paths, are not.
MODEL_FILES = (
    ADAPTER, "adapter_model.safetensors", CONFIG, "generation_config.json", "model*.safetensors",
    "model.safetensors.index.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "curves.json", "curves.svg",
)  # fmt: skip

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Local:
    """A local dataset tree or model.

    Attributes:
        kind: of the repository.
        card: the text of README.md.
        files: all others, by their path in the repository; a file or its content.
    """

    kind: str
    card: str
    files: dict[str, Path | bytes]


def publish(
    folder: Path,
    repo_id: str,
    *,
    private: bool = True,
    message: str = MESSAGE,
    license: str | None = None,
    base_model: str | None = None,
) -> str:
    """Put a dataset tree or a model into a repository of its kind, made if there is none.

    Args:
        repo_id: OWNER/NAME.
        private: of a new repository; the visibility of one that exists is never changed.
        message: of the commit.
        license, base_model: as in `read_folder`.

    Returns:
        The commit's URL; the latest commit's if there was nothing to change.

    Raises:
        InputError: no dataset tree and no model, no token, or the Hub refuses or cannot be
            reached; the repository's content is then as it was.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    local = read_folder(folder, license, base_model)
    _check_id(repo_id, f"--repo_id {repo_id} is no id of a repository on the Hub, OWNER/NAME")
    if not message.strip():
        raise InputError("--message is empty; a commit needs one, or leave the option out")
    token = _token()
    api = HfApi(token=token, library_name="unswayed", library_version=__version__)
    for pause in (*PAUSES, None):
        try:
            with _discreet():
                return _attempt(api, local, repo_id, private, message)
        except InputError:
            raise
        except OfflineModeIsEnabled:
            raise InputError(
                "HF_HUB_OFFLINE is set, so nothing can be published: unset it"
            ) from None
        except (HTTPError, OSError, RuntimeError, ValueError) as error:
            if getattr(error, "filename", None):  # a local file that cannot be read
                raise
            error = _cause(error)
            what = _what(error, repo_id, api.endpoint).replace(token, "<token>")
            if pause is None or not _passes(error):
                raise InputError(f"{what}: {_advice(error)}") from None
            log.info("%s: trying again in %d s", what, pause)
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _attempt(api: Any, local: Local, repo_id: str, private: bool, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    where = {"repo_id": repo_id, "repo_type": local.kind}
    sdk = {"space_sdk": "gradio"} if local.kind == SPACE else {}
    api.create_repo(**where, **sdk, private=private, exist_ok=True)
    info = api.repo_info(**where)
    if private and not info.private:
        log.warning("%s is public, and stays so", repo_id)
    there = api.list_repo_files(**where, revision=info.sha)
    card = _remote_card(api, where, info.sha) if CARD in there else ""
    remote = metadata(card, f"the card of {repo_id}")
    if local.kind == MODEL:
        old = stale_model_files(local, there, repo_id)
    elif local.kind == SPACE:
        old = stale_space_files(local, there, repo_id)
    else:
        old = stale(local, remote, there, repo_id)
    operations = [
        CommitOperationAdd(CARD, merged_card(local.card, remote).encode()),
        *(CommitOperationAdd(path, file) for path, file in local.files.items()),
        *(CommitOperationDelete(path, is_folder=False) for path in old),
    ]
    return api.create_commit(
        **where, operations=operations, commit_message=message, parent_commit=info.sha
    ).commit_url


def _remote_card(api: Any, where: dict[str, str], revision: str) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        return read_text(
            Path(api.hf_hub_download(**where, filename=CARD, revision=revision, local_dir=scratch))
        )


def read_folder(folder: Path, license: str | None = None, base_model: str | None = None) -> Local:
    """A dataset tree or a model, checked.

    Args:
        license: of a model, in the Hub's words, instead of what its card says.
        base_model: of a model, OWNER/NAME on the Hub, instead of what its card says.

    Raises:
        InputError: it is neither, it is a user's memory, or it is not whole.
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
    found = metadata(text, str(card))
    if (found.get("unswayed") or {}).get("private_memory"):
        raise InputError(
            f"{folder} was trained on from a user's memory, which is private and still in it: to "
            "publish a model, train one without that adapter"
        )
    found |= {"license": license} if license else {}
    found |= {"base_model": base_model} if base_model else {}
    if not found.get("license"):
        raise InputError(
            f"{card} names no licence, and what is published needs one: look up that of the base "
            "model and give it as --license, e.g. --license apache-2.0"
        )
    base = found.get("base_model")
    _check_id(
        base,
        f"{card}: base_model {base!r} is no model on the Hub: say with --base_model OWNER/NAME "
        "what it was trained from",
    )
    files: dict[str, Path | bytes] = {
        name: folder / name
        for name in sorted(matching(MODEL_FILES, (p.name for p in folder.iterdir() if p.is_file())))
    }
    _check_weights(files, folder)
    for name in files:
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
    return Local(MODEL, with_metadata(text, found), files)


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
        found = json.loads(read_text(path))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); train or save the model again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a JSON object; train or save the model again")
    return found


def stale_model_files(local: Local, there: list[str], repo_id: str) -> list[str]:
    """Files of a model that are in the repository and no longer in the folder.

    Raises:
        InputError: the repository holds a whole model and this is an adapter, or the other way
            round.
    """
    is_adapter = ADAPTER in local.files
    other = CONFIG if is_adapter else ADAPTER
    if other in there and other not in local.files:
        kinds = ("an adapter", "a whole model")
        raise InputError(
            f"{repo_id} holds {kinds[is_adapter]} ({other}), and this is {kinds[not is_adapter]}: "
            "give another --repo_id"
        )
    return sorted(set(matching(MODEL_FILES, there)) - local.files.keys())


def visible_files(folder: Path) -> dict[str, Path | bytes]:
    """Path in the folder -> file, in order, without hidden files and folders."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    }


# -- a local Space -------------------------------------------------------------------------------


def read_space(folder: Path) -> Local:
    """The tree of a Space, checked.

    Raises:
        InputError: `python -m unswayed.hub.spaces` has not built it, it lacks its app, or its card
            does not pin SDK and Python.
    """
    if not any(folder.glob(BUILT)):
        raise InputError(
            f"{folder} has {APP} and not the package unswayed: build the Space with `python -m "
            "unswayed.hub.spaces --out DIR` and give DIR"
        )
    text = read_text(folder / CARD)
    found = metadata(text, str(folder / CARD))
    for key in ("sdk", "sdk_version", "python_version", "app_file", "license"):
        if not found.get(key):
            raise InputError(f"{folder / CARD}: {key} is missing, and a Space needs it")
    if not (folder / str(found["app_file"])).is_file():
        raise InputError(f"{folder} has no {found['app_file']}, which its card names")
    files = {
        path: local
        for path, local in visible_files(folder).items()
        if "__pycache__" not in PurePosixPath(path).parts
    }
    del files[CARD]
    return Local(SPACE, text, files)


def stale_space_files(local: Local, there: list[str], repo_id: str) -> list[str]:
    """Files of a Space that are in the repository and no longer in the folder.

    Raises:
        InputError: the repository holds another Space, all of which would be deleted.
    """
    others = sorted(set(there) - {CARD, ".gitattributes"})
    if others and not matching([BUILT], there):
        raise InputError(
            f"{repo_id} holds another Space ({others[0]}), which would be deleted: give another "
            "--repo_id"
        )
    return sorted(set(others) - local.files.keys())


# -- the local tree ------------------------------------------------------------------------------


def read_tree(folder: Path) -> Local:
    """A dataset tree, checked; hidden files and folders are no part of it.

    Raises:
        InputError: it is no dataset tree, or card and files do not agree.
    """
    card = folder / CARD
    text = read_text(card)
    found = metadata(text, str(card))
    if not found.get("configs") or not found.get("dataset_info"):
        raise InputError(
            f"{folder} is no dataset tree: the metadata of its {CARD} must have `configs` and "
            "`dataset_info`, as datasets_scripts/ writes them; nor is it a model, which has "
            f"{ADAPTER}, or {CONFIG} and *.safetensors"
        )
    if not found.get("license"):
        raise InputError(
            f"{card} names no licence, and what is published needs one: build the tree with "
            "--license_statement, or add `license:` to its metadata if you may give it away"
        )
    files = visible_files(folder)
    del files[CARD]
    for config in found["configs"]:
        _check_config(config, infos(found), files, folder)
    return Local(DATASET, text, files)


def _check_config(config: dict, described: dict[str, dict], files: dict[str, Any], folder: Path):
    import pyarrow
    from pyarrow import parquet

    name = config["config_name"]
    if name not in described:
        raise InputError(f"{folder / CARD}: `dataset_info` has no entry for config {name}")
    rows = {s["name"]: s.get("num_examples") for s in described[name].get("splits") or []}
    given = config.get("data_files")
    if not isinstance(given, list) or not all(isinstance(d, dict) for d in given):
        raise InputError(
            f"{folder / CARD}: config {name} must name its `data_files` as a list of split and path"
        )
    for entry in given:
        split, n_rows = entry["split"], 0
        matched = matching(patterns({"data_files": [entry]}), files)
        if not matched:
            raise InputError(
                f"{folder}: no file for split {split} of config {name} ({entry['path']})"
            )
        for path in matched:
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


# -- cards ---------------------------------------------------------------------------------------


def metadata(card: str, where: str) -> dict[str, Any]:
    """The metadata of a card: the YAML between its first two lines `---`; may be empty.

    Raises:
        InputError: it is not in the Hub's form; names `where`.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    block = REGEX_YAML_BLOCK.search(card)
    try:
        found = yaml.safe_load(block[2]) if block else None
        found = {} if found is None else found
        for config in found.get("configs") or []:
            if not isinstance(config["config_name"], str):
                raise TypeError(f"config_name {config['config_name']!r} is no text")
            matching(patterns(config), [])
        for name, entry in infos(found).items():
            _ = name.strip(), [split["name"] for split in entry.get("splits") or []]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 2})" if mark else ""  # after the line ---
        raise InputError(f"{where}: its metadata is not YAML{line}; mend it") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: its metadata is not in the Hub's form ({type(error).__name__}: {error}); "
            "mend it"
        ) from None
    return found


def infos(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The entries of `dataset_info` by config; a single one may stand without a list."""
    entries = found.get("dataset_info") or []
    entries = entries if isinstance(entries, list) else [entries]
    return {entry.get("config_name", "default"): entry for entry in entries}


def merged_card(card: str, remote: dict[str, Any]) -> str:
    """The local card with what the remote card says of other configs; the text is the local one.

    Metadata that the local card does not have, such as the conditions of access, stay too.
    """
    ours = metadata(card, CARD)
    configs = ours.get("configs", [])
    named = {config["config_name"] for config in configs}
    others = _others(remote, named)
    described = [
        {"config_name": name} | entry for name, entry in infos(remote).items() if name not in named
    ]
    merged = ours | {key: value for key, value in remote.items() if key not in ours}
    if any(config.get("default") for config in configs):  # there can be one only
        others = [{k: v for k, v in config.items() if k != "default"} for config in others]
    if others:
        merged["configs"] = configs + others
    if described:
        own = [{"config_name": name} | entry for name, entry in infos(ours).items()]
        merged["dataset_info"] = own + described
    return with_metadata(card, merged)


def with_metadata(card: str, found: dict[str, Any]) -> str:
    """The card with other metadata; as it is if they are the same."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK
    from huggingface_hub.utils import yaml_dump

    if found == metadata(card, CARD):
        return card
    front = yaml_dump(found, sort_keys=False).rstrip("\n")
    if block := REGEX_YAML_BLOCK.search(card):
        return card[: block.start(2)] + front + card[block.end(2) :]
    return f"---\n{front}\n---\n\n{card}"


def _others(remote: dict[str, Any], named: Iterable[str]) -> list[dict[str, Any]]:
    return [c for c in remote.get("configs") or [] if c["config_name"] not in named]


# -- which files ---------------------------------------------------------------------------------


def patterns(config: dict[str, Any]) -> list[str]:
    """Globs of a config's files, from any form of `data_files` and `data_dir`."""
    folder, given = config.get("data_dir", ""), config.get("data_files")
    if given is None:
        return [posixpath.join(folder, "**")] if folder else []
    entries = given if isinstance(given, list) else [given]
    paths = [entry["path"] if isinstance(entry, dict) else entry for entry in entries]
    flat = [p for path in paths for p in (path if isinstance(path, list) else [path])]
    return [posixpath.normpath(posixpath.join(folder, p)) for p in flat]


def matching(globs: Iterable[str], files: Iterable[str]) -> list[str]:
    """Files that any of the globs matches; `*` stays within a folder, `**` does not."""
    from fsspec.utils import glob_translate

    wanted = [re.compile(glob_translate(glob)) for glob in globs]
    return [file for file in files if any(regex.match(file) for regex in wanted)]


def stale(tree: Local, remote: dict[str, Any], there: list[str], repo_id: str) -> list[str]:
    """Files of the tree's own configs that are in the repository and no longer in the tree.

    A config's files are those that the remote card names, and the Parquet files of its folder.

    Raises:
        InputError: the tree and the repository's other data would get into each other's way.
    """
    configs = metadata(tree.card, CARD)["configs"]
    named = {config["config_name"] for config in configs}
    ours = matching([p for config in configs for p in patterns(config)], tree.files)
    folders = {posixpath.dirname(path) for path in ours}
    in_folders = [
        p for p in there if posixpath.dirname(p) in folders and p.endswith(".parquet")
    ]  # fmt: skip
    unnamed = [p for p in there if p.endswith(DATA) and p not in in_folders and p not in tree.files]
    if unnamed and not remote.get("configs"):
        raise InputError(
            f"{repo_id} holds data, such as {unnamed[0]}, that its card does not name in `configs` "
            "and that would no longer load: name it there, or give another --repo_id"
        )
    kept = set()
    for config in _others(remote, named):
        shared = matching(patterns(config), tree.files)
        if shared:
            raise InputError(
                f"{shared[0]} of the tree would become a part of config {config['config_name']}, "
                f"which {repo_id} has and the tree has not: give another --repo_id"
            )
        kept.update(matching(patterns(config), there))
    before = [c for c in remote.get("configs") or [] if c["config_name"] in named]
    gone = {*in_folders, *matching([p for config in before for p in patterns(config)], there)}
    return sorted(gone - kept - set(tree.files) - {CARD})


# -- the Hub -------------------------------------------------------------------------------------


def _check_id(repo_id: Any, complaint: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError("the owner is missing")
    except HFValidationError as error:
        raise InputError(f"{complaint} ({error})") from None


def _token() -> str:
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        raise InputError(
            "no token for the Hub: log in with `hf auth login`, or set HF_TOKEN to a token that "
            "may write"
        )
    if not re.fullmatch(r"[!-~]+", token):  # else the HTTP client's error would show it
        raise InputError(
            "the token for the Hub holds characters that no token has: log in again with `hf auth "
            "login`, or mend HF_TOKEN"
        )
    return token


class _Relay(logging.Handler):
    """Takes over huggingface_hub's messages, without the queries of addresses: these are signed."""

    def emit(self, record: logging.LogRecord) -> None:
        log.info("%s", re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", record.getMessage()))


@contextmanager
def _discreet() -> Iterator[None]:
    """huggingface_hub's messages and warnings as ours, a line each; bars in a terminal only."""
    from huggingface_hub import utils

    library = logging.getLogger("huggingface_hub")
    handlers, propagate = library.handlers, library.propagate
    library.handlers, library.propagate = [_Relay()], False
    no_bars = not sys.stderr.isatty() and not utils.are_progress_bars_disabled()
    if no_bars:
        utils.disable_progress_bars()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield
        for warning in caught:
            log.warning("%s", " ".join(str(warning.message).split()))
    finally:
        library.handlers, library.propagate = handlers, propagate
        if no_bars:
            utils.enable_progress_bars()


def _cause(error: BaseException) -> BaseException:
    """What went wrong: huggingface_hub wraps it where it uploads, and where it reads the card."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, RuntimeError | LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _passes(error: BaseException) -> bool:
    from httpx2 import TransportError

    return isinstance(error, TransportError | ConnectionError) or _status(error) in PASSING


def _what(error: BaseException, repo_id: str, endpoint: str) -> str:
    """What happened, in one line and without addresses, which may be signed."""
    from httpx2 import TransportError

    if isinstance(error, TransportError | ConnectionError):  # the latter from hf_xet
        return f"no lasting connection to {endpoint} ({_line(str(error))})"
    status = _status(error)
    if status is None:
        return f"publishing to {repo_id} failed ({_line(str(error))})"
    words = getattr(error, "server_message", None) or error.response.reason_phrase
    return f"{endpoint} answers {status} ({_line(words)}) for {repo_id}"


def _advice(error: BaseException) -> str:
    if isinstance(error, ConnectionError):
        return f"{AGAIN}; with HF_HUB_DISABLE_XET=1 if this server does not know Xet storage"
    return {
        400: "mend what it names",
        401: "the token is wrong or has expired; log in with `hf auth login`, or set HF_TOKEN",
        403: "the token may not write there; ask for write access, use a token that may write, or "
        "give another --repo_id",
        404: "there is no such repository or owner for this token; see --repo_id",
        409: f"others are changing it; {AGAIN}",
        412: f"others are changing it; {AGAIN}",
        413: "a file is larger than the Hub takes",
        429: f"these were too many requests; wait, then {AGAIN}",
    }.get(_status(error) or 0, AGAIN)


def _line(text: str, length: int = 200) -> str:
    text = " ".join(re.sub(r"https?://\S+", "", text).split())
    return text if len(text) <= length else text[: length - 1] + "…"
