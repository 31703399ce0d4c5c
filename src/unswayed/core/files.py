"""Reading users' files with plain errors, and writing files that are either whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError


def read_text(path: Path, newline: str | None = None) -> str:
    """A UTF-8 text, without a byte order mark.

    Args:
        newline: as for `open`; "" keeps the ends of lines as they are.

    Raises:
        InputError: there is no such file, or it is no UTF-8 text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            return file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; give a file") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: cannot be read as UTF-8 text ({error}): save it as UTF-8, which spreadsheet "
            "programs call CSV UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def require_folder(folder: Path, option: str = "--out") -> None:
    """Refuse a folder to write to that is a file.

    Raises:
        InputError: it is; names the option.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{option} {folder} is a file; give a folder")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what becomes the file at the end: it is either whole or not there."""
    scratch = path.with_name(path.name + ".partial")
    try:
        yield scratch
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text at once."""
    with whole(path) as scratch:
        scratch.write_text(content, "utf-8", newline="\n")


def write_json(path: Path, content: Any, **options: Any) -> None:
    """Write JSON at once, with these options of `json.dumps`."""
    write_text(path, json.dumps(content, ensure_ascii=False, **options) + "\n")


def read_json(path: Path, keys: Iterable[str], complaint: str) -> dict[str, Any] | None:
    """A JSON object, None if there is no such file.

    Args:
        keys: that it must have.

    Raises:
        InputError: it is none, or lacks a key; says `complaint`, after the path.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(read_text(path))
        if content.keys() >= set(keys):
            return content
    except (ValueError, AttributeError, RecursionError):
        pass
    raise InputError(f"{path} {complaint}")


def write_table(rows: list[dict[str, Any]], schema: Any, path: Path) -> None:
    """Write rows as Parquet at once; makes the folder.

    Args:
        schema: pyarrow's.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as scratch:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), scratch, compression="zstd")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def without_folders(value: object) -> str:
    """PATH or NAME=PATH without the folders of this machine; what lies on the Hub stays as it is.

    A name holds no slash: `chat=/folder/run=3/x.jsonl` is `chat=x.jsonl`.
    """
    text = str(value)
    name, equals, path = text.partition("=")
    if not equals or "/" in name:
        name, equals, path = "", "", text
    if path.startswith("hub:"):
        return text
    return f"{name}{equals}{path and Path(os.path.abspath(path)).name}"


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Where to make what takes the folder's place at the end, as a whole; after an error within,
    the old folder stays as it is. A link to a folder stays one."""
    where = folder.resolve()
    where.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{where.name}-", dir=where.parent))
    new, old = scratch / "new", scratch / "old"
    try:
        yield new
        if where.exists():
            where.rename(old)
        try:
            new.rename(where)
        except BaseException:
            if old.exists():
                old.rename(where)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_yaml(path: Path) -> Any:
    """The root node of a YAML file; nodes know their lines (`node.start_mark.line`, from 0).

    Raises:
        InputError: no such file, or not YAML, or nested too deeply; names the file, and the line.
    """
    import yaml

    text = read_text(path)
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not YAML ({getattr(error, 'problem', error)})") from None
    except RecursionError:
        raise InputError(f"{path}: not read, its brackets are nested too deeply") from None
