"""`unswayed card`: a run's figures in the folder of a model repository."""

from __future__ import annotations

import argparse
from pathlib import Path

from unswayed.core.commands import OK


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "card", help="write a run's figures into a model repository's folder, for the Hub"
    )
    parser.set_defaults(run=run)
    parser.add_argument("dir", type=Path, metavar="DIR", help="run directory")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER",
        help="folder of the model repository; its README.md is added to, or made")  # fmt: skip
    parser.add_argument("--dataset-id", metavar="ID",
        help="benchmark dataset of the items on the Hub, OWNER/NAME; needed for .eval_results, "
        "see docs/hub_results.md")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from unswayed.publish.results import write_card

    changed = write_card(arguments.dir, arguments.out, arguments.dataset_id)
    for path in changed:
        print(f"Wrote {path}")
    print("Nothing was uploaded." if changed else "Nothing to change; nothing was uploaded.")
    if arguments.dataset_id is None:
        print("No .eval_results were written: they need --dataset-id.")
    return OK
