"""`unswayed tasks`: the persona tasks, made known to stock lm-eval."""

from __future__ import annotations

import argparse

from unswayed.core.commands import OK


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("tasks", help="make stock lm-eval find the persona tasks")
    parser.set_defaults(run=run)
    parser.add_argument("action", choices=["install", "uninstall", "path"])


def run(arguments: argparse.Namespace) -> int:
    from unswayed import tasks

    if arguments.action == "path":
        print(tasks.path())
    elif arguments.action == "install":
        folder, names = tasks.install()
        print(f"Made {folder}: lm_eval now knows {', '.join(names)}.")
    else:
        folder = tasks.stub_folder()
        print(f"Removed {folder}." if tasks.uninstall() else f"Nothing to remove at {folder}.")
    return OK
