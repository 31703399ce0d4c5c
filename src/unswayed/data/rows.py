"""Rows of users' files, with their places for complaints: JSON, CSV, and datasets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.files import read_text
from unswayed.data.hub import HUB, read_dataset
from unswayed.data.tables import csv_rows

log = logging.getLogger(__name__)

TABLES = (".csv", ".tsv")


def parse_json(text: str, where: object) -> Any:
    """The value of a JSON text.

    Raises:
        InputError: it is no JSON, has a field twice, or holds half a character; names the place.
    """
    try:
        value = json.loads(text, object_pairs_hook=_fields, parse_constant=_no_number)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from None
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            raise InputError(
                f"{where}: {half} is half of a surrogate pair and no text: write it whole"
            ) from None
    return value


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"field {twice!r} is there twice: remove or rename one")
    return fields


def _no_number(name: str) -> None:
    raise InputError(f"{name} is no JSON value: write a number, a text or null")


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each line of a JSONL file that is not empty, or of each entry of a JSON
    list.

    Raises:
        InputError: it is neither, or a row is no object.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        for number, row in enumerate(parse_json(text, path), start=1):
            yield _checked(f"{path}, entry {number}", row)
        return
    # Not splitlines(): it also splits at U+2028, U+0085 and six more, inside texts.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _checked(where := f"{path}:{number}", parse_json(line, where))


def _checked(where: str, row: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(row, dict):
        text = json.dumps(row, ensure_ascii=False)
        raise InputError(f"{where}: a JSON object is needed, got {text[:40]!r}")
    return where, row


def rows_of(source: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, fields) of each row of a JSONL or CSV file, or of a dataset: its split `test`, else
    its only one. Empty fields are left out.

    Raises:
        InputError: names file and line of the first fault.
    """
    path = Path(source)
    if str(source).startswith(HUB) or path.is_dir():
        splits = read_dataset(str(source))
        if "test" not in splits and len(splits) > 1:
            raise InputError(f"dataset {source} has no split test, only {', '.join(splits)}")
        split = splits["test" if "test" in splits else next(iter(splits))]
        rows = ((f"{source}:{number}", row) for number, row in enumerate(split, start=1))
    else:
        rows = csv_rows(path) if path.suffix.lower() in TABLES else json_rows(path)
    for where, row in rows:
        yield where, {name: value for name, value in row.items() if value is not None}


def say_left_out(source: object, what: str, left_out: Sequence[str], total: int) -> None:
    """Warn, in one line, which rows of a source were left out, and why.

    Args:
        what: the rows are, e.g. "items".
        left_out: id or place of each, with the reason.
        total: number of rows.
    """
    if left_out:
        named = ", ".join([*left_out[:5], "..."] if len(left_out) > 5 else left_out)
        log.warning("%s: left out %d of %d %s: %s", source, len(left_out), total, what, named)
