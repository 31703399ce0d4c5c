"""`unswayed lm-eval`: lm-eval with the tasks and the model hf-shared registered."""

from __future__ import annotations

import argparse
import sys

from unswayed.core.commands import OK
from unswayed.core.errors import InputError


def add(commands: argparse._SubParsersAction) -> None:
    commands.add_parser(  # for --help only; main() passes the rest on
        "lm-eval", help="run lm-eval with the tasks and the model hf-shared registered"
    )


def run(argv: list[str]) -> int:
    """lm-eval's own command line, with our tasks and `hf-shared` registered."""
    from unswayed import tasks

    if not tasks.installed():
        if any(a.split("=")[0] == "--include_path" for a in argv):
            raise InputError(
                "with an --include_path of your own, run `unswayed tasks install` first, so that "
                "the persona tasks are found too"
            )
        argv = [*argv, "--include_path", str(tasks.path())]
    from lm_eval.__main__ import cli_evaluate

    import unswayed.scoring.lm  # noqa: F401  (registers hf-shared)

    sys.argv = ["lm-eval", *argv]
    cli_evaluate()
    return OK
