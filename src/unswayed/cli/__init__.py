"""The command line: `unswayed audit | analyze | report | check | mitigate | remember | ...`.

A module for each command, with `add`, its parser, and `run`, which gives the exit code. Wrong input
of any kind ends in one line on standard error and exit code 2 (of `check` 3). What is heavy is
imported by `run`, so that `unswayed --help` is instant.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from unswayed import __version__
from unswayed.core.commands import WRONG_INPUT, Parser, run_command
from unswayed.core.errors import InputError
from unswayed.core.ranks import joined

COMMANDS = (
    "audit", "validate", "analyze", "compare", "report", "check", "card", "publish", "traces",
    "mitigate", "remember", "logo", "tasks", "model", "lm_eval",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        if argv[:1] == ["lm-eval"]:  # everything after it is lm-eval's own
            return import_module("unswayed.cli.lm_eval").run(argv[1:])
        with joined() as ranks:
            arguments = _parser().parse_args(argv, argparse.Namespace(ranks=ranks))
            if ranks.size > 1 and arguments.command != "audit":
                raise InputError(
                    f"`unswayed {arguments.command}` runs in one process, {ranks.size} were "
                    "started: leave accelerate launch out. It shares the work of `unswayed audit` "
                    "and of training recipes"
                )
            return arguments.run(arguments)

    by_itself = argv[:1] in (["remember"], ["mitigate"], ["logo"])
    return run_command(
        "unswayed",
        work,
        on_error="what was finished is kept; mend it and run the same command again, an audit "
        "with --resume",
        interrupted="the same command goes on" if by_itself else "an audit goes on with --resume",
        wrong_input=3 if argv[:1] == ["check"] else WRONG_INPUT,  # whose 2 means: cannot tell
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="unswayed",
        description="Audit how a model's memory of its user changes how it reads feelings.",
    )
    parser.add_argument("--version", action="version", version=f"unswayed {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"unswayed.cli.{name}").add(commands)
    return parser
