"""`unswayed compare`: one model under several memories, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from unswayed.core.commands import OK


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "compare",
        help="one model under several memories, side by side",
        description="Each DIR is an audit of the same model and items with another --memory. "
        "Writes compare.json, compare.md and compare.html; see docs/compare.md.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("dirs", type=Path, nargs="+", metavar="DIR", help="run directory")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR",
        help="where the comparison goes")  # fmt: skip
    parser.add_argument("--reference", metavar="NAME",
        help="memory that the others are compared with (default: prompt, or the first DIR's if "
        "there is none)")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from unswayed.report.comparisons import kind_of

    if arguments.reference is not None:
        return compare_runs("memories", arguments, reference=arguments.reference)
    return compare_runs(kind_of(arguments.dirs), arguments)


def compare_runs(kind: str, arguments: argparse.Namespace, **options: str) -> int:
    """Write the comparison of `dirs` into `out`, and print it in short."""
    from unswayed.report.comparisons import comparison_text, write_comparison

    comparison = write_comparison(kind, arguments.dirs, arguments.out, **options)
    print(comparison_text(kind, comparison, arguments.out))
    return OK
