"""`unswayed check`: a run judged by a policy."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "check",
        help="judge a run by a policy, for pipelines and before deployment",
        description="Writes DIR/checklist.md and DIR/checklist.xml (JUnit). Exit code 0: passed, "
        "1: failed, 2: cannot tell, or wrong input.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("dir", type=Path, metavar="DIR", help="run directory")
    parser.add_argument("--policy", type=Path, required=True, metavar="FILE",
        help="margins and limits, YAML; see docs/gate.md and configs/policies")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from unswayed.audit.gate import EXIT_CODES, outcome
    from unswayed.report.checklist import check_run, table, tally

    checks = check_run(arguments.dir, arguments.policy)
    print(f"{table(checks)}\n\n{tally(checks)}.")
    print(f"Checklist: {arguments.dir / 'checklist.md'}")
    return EXIT_CODES[outcome(checks)]
