"""Tables in Markdown, padded, to be read as plain text too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from unswayed.display.numbers import markdown_text


def markdown_table(
    rows: Iterable[Mapping[str, str]], columns: Sequence[tuple[str, str]], left: int
) -> str:
    """A padded table of foreign text.

    Args:
        columns: (key in the rows, heading).
        left: the first so many columns are text, the others numbers.
    """
    cells = [[title for _, title in columns]]
    cells += [[markdown_text(row[key]) for key, _ in columns] for row in rows]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(columns))]
    rule = ["-" * (w - 1) + ("-" if i < left else ":") for i, w in enumerate(widths)]
    lines = [
        [cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(pairs)]
        for pairs in (zip(row, widths, strict=True) for row in [cells[0], rule, *cells[1:]])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Lines of a name and a text, the texts one below the other."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {text}" for name, text in rows)
