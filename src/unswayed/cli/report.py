"""`unswayed report`: a run's report, from its summary."""

from __future__ import annotations

import argparse
from pathlib import Path

from unswayed.core.arguments import Once
from unswayed.core.commands import OK


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("report", help="draw a run's report again from its summary")
    parser.set_defaults(run=run)
    parser.add_argument("dir", type=Path, metavar="DIR", help="run directory")


def run(arguments: argparse.Namespace) -> int:
    from unswayed.report import write_report

    write_report(arguments.dir)
    return print_report(arguments.dir)


def add_policy(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """The option that names a policy."""
    parser.add_argument(
        "--policy",
        metavar="NAME",
        action=Once,
        help="outcome, margins and least numbers: default, grid, or a YAML file, see docs/gate.md"
        + otherwise,
    )


def print_report(out: Path) -> int:
    """Print a drawn report's validity, table, verdict and warnings."""
    from unswayed.audit.summary import read_summary
    from unswayed.report import result_table
    from unswayed.report.validity import other_warnings, validity_lines

    summary = read_summary(out)
    print("\n".join(validity_lines(summary)), end="\n\n")
    print(result_table(summary), end="\n\n")
    print(f"{summary['verdict']['text']} {summary['verdict']['advice']}")
    for warning in other_warnings(summary):
        print(f"Warning: {warning}")
    print(f"\nReport: {out / 'report.html'}")
    return OK
