"""Rows of users' files, with their places for complaints: JSONL, CSV, and datasets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.files import read_text
from unswayed.data.hub import HUB, read_dataset


def parse_json(text: str, where: object) -> Any:
    """The value of a JSON text.

    Raises:
        InputError: it is no JSON; names where it stands.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from None


def json_lines(path: Path, text: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line of a JSONL file that is not empty.

    Args:
        text: of the file, if it was read already.
    """
    # Not splitlines(): it also splits at U+2028, U+0085 and six more, inside texts.
    lines = (read_text(path) if text is None else text).split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row = parse_json(line, f"{path}:{number}")
            yield number, check_object(row, f"{path}:{number}")


def check_object(row: Any, where: object) -> dict[str, Any]:
    """The row, if it is a JSON object.

    Raises:
        InputError: it is another JSON value.
    """
    if not isinstance(row, dict):
        text = json.dumps(row, ensure_ascii=False)
        raise InputError(f"{where}: a JSON object is needed, got {text[:40]!r}")
    return row


def csv_lines(path: Path) -> Iterator[tuple[int, dict[str | None, str | None]]]:
    """(line number, fields) of each row of a CSV file; None is the name of what has no column."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV ({error})") from None


def rows_of(source: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, fields) of a JSONL or CSV file, or (row number, fields) of a dataset: its split
    `test`, else its only one. Empty fields are left out."""
    path, empty = Path(source), (None,)
    if str(source).startswith(HUB) or path.is_dir():
        splits = read_dataset(str(source))
        if "test" not in splits and len(splits) > 1:
            raise InputError(f"dataset {source} has no split test, only {', '.join(splits)}")
        rows = enumerate(splits["test" if "test" in splits else next(iter(splits))], start=1)
    elif path.suffix.lower() == ".csv":
        rows, empty = csv_lines(path), (None, "")
    else:
        rows = json_lines(path)
    for number, row in rows:
        if None in row:
            raise InputError(f"{path}:{number}: more values than columns")
        yield number, {name: value for name, value in row.items() if value not in empty}
