"""`unswayed mitigate`: audit, train, audit again, and what changed."""

from __future__ import annotations

import argparse

from unswayed.core.arguments import filled
from unswayed.core.commands import OK


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "mitigate",
        help="audit a model, train the effect of memory away, audit again, report what changed",
        description="Interrupted, the same command goes on. The exit code says whether it went "
        "through; for a pipeline, run `unswayed check DIR/after` then. See docs/mitigation.md.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.fills = "unswayed.mitigation.arguments:MitigateArguments"


def run(arguments: argparse.Namespace) -> int:
    from unswayed.mitigation.arguments import MitigateArguments
    from unswayed.mitigation.mitigate import mitigate
    from unswayed.mitigation.verdict.words import headlines, warnings

    result = mitigate(filled(MitigateArguments, arguments))
    for text in headlines(result):
        print(text)
    for text in warnings(result):
        print(f"Warning: {text}")
    print(f"\nReport: {arguments.out / 'report.html'}")
    return OK
