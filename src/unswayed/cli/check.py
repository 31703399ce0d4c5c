"""`unswayed check`: a run judged by a policy."""

from __future__ import annotations

import argparse
from pathlib import Path

from unswayed.cli.report import add_policy


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "check",
        help="judge a run by a policy, for pipelines and before deployment",
        description="Writes DIR/checklist.md and DIR/checklist.xml (JUnit). Exit code 0: passed, "
        "1: failed, 2: cannot tell, 3: wrong input, which leaves an earlier checklist as it is.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("dir", type=Path, metavar="DIR", help="run directory")
    add_policy(parser, "; default: the one that the run declared")


def run(arguments: argparse.Namespace) -> int:
    from unswayed.audit.gate import EXIT_CODES, outcome
    from unswayed.report.checklist import check_run, table, tally

    checks, summary = check_run(arguments.dir, arguments.policy)
    print(f"{table(checks)}\n\n{tally(checks)}.")
    print(f"{summary['verdict']['text']} {summary['verdict']['advice']}")
    print(f"Checklist: {arguments.dir / 'checklist.md'}")
    return EXIT_CODES[outcome(checks)]
