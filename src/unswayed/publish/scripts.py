"""The shell that the scripts of `datasets_scripts/` share: command line, errors, tree, push."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unswayed import __version__
from unswayed.core.arguments import add_options, filled
from unswayed.core.commands import run_command
from unswayed.core.errors import InputError
from unswayed.core.files import without_folders
from unswayed.datasets.arguments import BuildArguments, ItemArguments
from unswayed.models.load import parse_settings, public_settings

if TYPE_CHECKING:
    from unswayed.datasets.trees import Tree

# What says where the dataset goes and not what it is: not in the card, so that it does not matter.
WHERE = ("output_dir", "push_to_hub", "repo_id", "public", "work_dir")


def build_items(kind: str, arguments: ItemArguments, command: str) -> Tree:
    """The dataset of items of one kind, from the arguments."""
    from unswayed.datasets.persona_sets import item_tree

    return item_tree(kind, arguments, command)


def run_script(
    name: str,
    arguments_class: type[BuildArguments],
    build: Callable[[Any, str], Tree],
    doc: str,
) -> int:
    """Build, write and, if asked, push a dataset; returns the exit code.

    Args:
        name: of the script and its dataset.
        build: from arguments and command (for the card) to the tree.
        doc: docstring of the script, shown by `--help`.
    """

    def work() -> None:
        arguments = parse(name, arguments_class, doc)
        out = Path(arguments.output_dir or f"runs/datasets/{name}")
        import datasets

        from unswayed.datasets.trees import check_replaceable, write_tree

        datasets.disable_progress_bars()
        check_replaceable(out, name)
        tree = build(arguments, command_of(name, arguments))
        written = write_tree(tree, out)
        for config, splits in tree.tables.items():
            for split, table in splits.items():
                print(f"{config}/{split}: {len(table):,} rows")
        print(written)
        if arguments.push_to_hub:
            from unswayed.publish.push import publish

            where = {"repo_id": arguments.repo_id, "private": not arguments.public}
            print(publish(written, **where, message=f"{name}, built by unswayed {__version__}"))

    return run_command(f"{name}.py", work)


class ScriptParser(argparse.ArgumentParser):
    """One whose complaints are an `InputError`."""

    def error(self, message: str):
        raise InputError(f"{message} (see {self.prog} --help)")


def parse(name: str, arguments_class: type[BuildArguments], doc: str) -> Any:
    """The command line as a dataclass, checked.

    Raises:
        InputError: unknown or missing argument.
    """
    parser = ScriptParser(
        f"{name}.py",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(parser, arguments_class, as_scripts=True)
    options, unknown = parser.parse_known_args()
    if unknown:
        parser.error(f"unknown argument {unknown[0]}")
    arguments = filled(arguments_class, options)
    arguments.check()
    return arguments


def command_of(name: str, arguments: BuildArguments) -> str:
    """The command that builds this dataset again; files by their names."""
    words = ["python", f"datasets_scripts/{name}.py"]
    for entry in dataclasses.fields(arguments):
        value = getattr(arguments, entry.name)
        if entry.name not in WHERE and value != entry.default:
            words += [f"--{entry.name}", *_words(entry.name, value)]
    return shlex.join(words)


def _words(field_name: str, value: Any) -> list[str]:
    if field_name in ("items", "questions", "against"):
        return [without_folders(spec) for spec in ([value] if isinstance(value, str) else value)]
    if field_name in ("decisions", "personas"):
        return [Path(value).name]
    if field_name.endswith("_args"):  # no key, no address
        return [json.dumps(public_settings(parse_settings(field_name, value)))]
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]
