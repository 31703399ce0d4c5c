"""CSV as spreadsheet programs write it."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.core.files import read_text

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
DECLARED = re.compile(r"sep=(.)\r?\n")  # the first line that Excel understands


def csv_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, cells by column) of each row of a CSV file; empty rows and cells are left out, and so
    is space around cells.

    What separates the cells (comma, semicolon or tab) is read off the header. A first column
    without a name, such as pandas writes, is left out.

    Raises:
        InputError: names file and line of the first fault: a column twice, a row of another length
            than the header, a quote that is never closed.
    """
    text = read_text(path, newline="")
    declared = DECLARED.match(text)
    separator = declared[1] if declared else _separator(path, text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names: list[str] = []
    line = 1
    try:
        for cells in reader:
            where, line = f"{path}:{line}", reader.line_num + 1
            if not any(cell.strip() for cell in cells) or (declared and line == 2):
                continue
            if names:
                yield where, _cells(where, names, cells)
            else:
                names = _names(where, cells)
    except csv.Error as error:
        raise InputError(
            f"{path}:{line}: not CSV ({error}); look for a quote in this row that is not closed"
        ) from None


def _separator(path: Path, text: str) -> str:
    """What makes most columns of the header."""
    columns = {}
    for separator in SEPARATORS:
        with contextlib.suppress(csv.Error):
            rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
            columns[separator] = len(next(filter(None, rows), ()))
    most = max(columns.values(), default=1)
    widest = [separator for separator in SEPARATORS if columns.get(separator) == most]
    if most > 1 and len(widest) > 1:
        raise InputError(
            f"{path}:1: {' or '.join(SEPARATORS[s] for s in widest)} could separate the columns: "
            "keep one of them out of the header"
        )
    return widest[0] if widest else ","


def _names(where: str, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    for name in names:
        if name and names.count(name) > 1:
            raise InputError(f"{where}: column {name!r} is there twice: remove or rename one")
    return names


def _cells(where: str, names: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) < len(names):
        raise InputError(
            f"{where}: {len(cells)} values for {len(names)} columns: leave a cell empty, not out"
        )
    row = {}
    for place, cell in enumerate(map(str.strip, cells)):
        if not cell:
            continue
        if place >= len(names):
            raise InputError(
                f"{where}: more values than columns ({len(cells)}, {len(names)}): quote a value "
                "that holds the separator"
            )
        if names[place]:
            row[names[place]] = cell
        elif place:
            raise InputError(
                f"{where}: {cell[:40]!r} stands in column {place + 1}, which has no name"
            )
    return row
