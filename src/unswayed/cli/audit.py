"""`unswayed audit`: a model asked emotional items under a memory, and a report."""

from __future__ import annotations

import argparse

from unswayed.cli.report import print_report
from unswayed.core.arguments import filled
from unswayed.core.commands import OK


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "audit",
        help="ask a model emotional items under several memories and report what changes",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.fills = "unswayed.audit.arguments:AuditArguments"


def run(arguments: argparse.Namespace) -> int:
    from unswayed.audit.arguments import AuditArguments
    from unswayed.models.load import parse_settings
    from unswayed.report import finished_audit

    settings = {
        name: parse_settings(f"--{name.replace('_', '-')}", getattr(arguments, name))
        for name in ("model_args", "gen_kwargs")
    }
    ranks = arguments.ranks
    out = finished_audit(filled(AuditArguments, arguments, **settings), ranks=ranks)
    return print_report(out) if ranks.rank == 0 else OK
