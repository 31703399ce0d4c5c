"""`unswayed publish`: a dataset tree or a model, put on the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from unswayed.core.commands import OK


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "publish",
        help="put a local dataset tree or model on the Hub, in one commit",
        description="The token is that of `hf auth login`, or HF_TOKEN; see docs/publish.md.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("folder", type=Path, metavar="FOLDER",
        help="README.md and a folder of Parquet files per config; or a model: an adapter or a "
        "whole one as safetensors, with README.md")  # fmt: skip
    parser.add_argument("--repo_id", required=True, metavar="OWNER/NAME",
        help="repository, made if there is none; other configs of a dataset stay")  # fmt: skip
    parser.add_argument("--license", metavar="ID",
        help="of a model, e.g. apache-2.0, instead of what its card says; the base model's "
        "decides")  # fmt: skip
    parser.add_argument("--base_model", metavar="OWNER/NAME",
        help="of a model, on the Hub, instead of what its card says")  # fmt: skip
    parser.add_argument("--public", action="store_true",
        help="a new repository is public, not private; one that exists stays as it is")  # fmt: skip
    parser.add_argument("--message", default="Publish with unswayed", metavar="TEXT",
        help="of the commit (default: Publish with unswayed)")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from unswayed.publish.push import publish

    url = publish(
        arguments.folder,
        arguments.repo_id,
        private=not arguments.public,
        message=arguments.message,
        license=arguments.license,
        base_model=arguments.base_model,
    )
    print(f"Published: {url}")
    return OK
