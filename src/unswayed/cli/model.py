"""`unswayed model`: where an embedded model lies."""

from __future__ import annotations

import argparse

from unswayed.core.commands import OK
from unswayed.core.errors import InputError


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("model", help="where an embedded model lies")
    parser.set_defaults(run=run)
    parser.add_argument("action", choices=["path"])
    parser.add_argument("name", help="smollm2-135m")


def run(arguments: argparse.Namespace) -> int:
    from unswayed.models.embedded import EMBEDDED, embedded_model

    if arguments.name != EMBEDDED:
        raise InputError(f"model {arguments.name!r} is not embedded; known is {EMBEDDED}")
    print(embedded_model())
    return OK
