"""`unswayed analyze`: statistics of a run, and of several models side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from unswayed.cli.compare import compare_runs
from unswayed.cli.report import add_policy, print_report
from unswayed.core.errors import InputError


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "analyze",
        help="statistics of a run, and of several models side by side",
        description="One DIR: writes its summary.json and report again, with these settings. "
        "Several: does so for each, then compares the models in --out.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("dirs", type=Path, nargs="+", metavar="DIR", help="run directory")
    add_policy(parser, "; default: the one that each run declared")
    parser.add_argument("--interactions", action="store_true",
        help="add all two-way interactions to the models of the grid")  # fmt: skip
    parser.add_argument("--rule", metavar="NAME",
        help="choose answers from the options' likelihoods by sum, char, token or pmi; default: "
        "as the run was asked")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR",
        help="where the comparison of several models goes")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from unswayed.audit.evidence import require_evidence
    from unswayed.audit.summary import analyze
    from unswayed.report import write_report

    several = len(arguments.dirs) > 1
    if several and arguments.out is None:
        raise InputError("several run directories are compared in a folder of their own: add --out")
    if arguments.out and not several:
        raise InputError("--out is for the comparison of several run directories; give two or more")
    for run_dir in arguments.dirs:
        require_evidence(run_dir)
    if several and arguments.rule:
        raise InputError("--rule is for one run; models are compared by the rule of their runs")
    if several:
        from unswayed.compare.runs import read_alike

        read_alike(arguments.dirs)
    for run_dir in arguments.dirs:
        analyze(run_dir, arguments.policy, arguments.interactions, arguments.rule)
        write_report(run_dir)
    if several:
        return compare_runs("models", arguments)
    return print_report(arguments.dirs[0])
