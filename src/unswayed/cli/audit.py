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
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what the audit would cost, and ask nothing but a second of the model",
    )
    parser.fills = "unswayed.audit.arguments:AuditArguments"


def run(arguments: argparse.Namespace) -> int:
    from unswayed.audit.arguments import AuditArguments
    from unswayed.audit.cost import cost_of
    from unswayed.models.load import parse_settings
    from unswayed.report import finished_audit
    from unswayed.report.cost import cost_text

    settings = {
        name: parse_settings(f"--{name.replace('_', '-')}", getattr(arguments, name))
        for name in ("model_args", "gen_kwargs")
    }
    filled_in, ranks = filled(AuditArguments, arguments, **settings), arguments.ranks
    if arguments.dry_run:
        if ranks.rank == 0:
            with ranks.hidden():  # the figures are those of one process
                print(cost_text(cost_of(filled_in)))
        return OK
    out = finished_audit(filled_in, ranks=ranks)
    return print_report(out) if ranks.rank == 0 else OK
