"""The shell that the scripts of `datasets_scripts/` share: arguments, errors, tree, push."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unswayed import __version__
from unswayed.core.arguments import add_options, filled, option
from unswayed.core.commands import Parser, run_command
from unswayed.core.errors import InputError
from unswayed.core.files import without_folders
from unswayed.models.load import parse_settings, public_settings

if TYPE_CHECKING:
    from unswayed.datasets.trees import Tree

# What says where the dataset goes and not what it is: not in the card, so that it does not matter.
WHERE = ("output_dir", "push_to_hub", "repo_id", "public", "work_dir")


@dataclass
class BuildArguments:
    """Arguments of every script."""

    output_dir: str | None = option(
        None, "folder of the dataset (default: runs/datasets/NAME of the script)"
    )
    configs: list[str] | None = option(None, "build only these configs (default: all)")
    push_to_hub: bool = option(False, "upload the folder to --repo_id when it is built")
    repo_id: str | None = option(None, "dataset on the Hub, OWNER/NAME")
    public: bool = option(False, "make a new dataset on the Hub public (default: private)")

    def check(self) -> None:
        """The arguments fit together.

        Raises:
            InputError: says which do not.
        """
        if self.push_to_hub and not self.repo_id:
            raise InputError("--push_to_hub needs --repo_id OWNER/NAME")
        if not self.push_to_hub and (self.repo_id or self.public):
            raise InputError("--repo_id and --public do nothing without --push_to_hub: add it")


@dataclass
class LicensedArguments(BuildArguments):
    """Arguments of the scripts that can build from texts of the user's own."""

    license_statement: str | None = option(
        None, "terms under which texts of your own files may be passed on"
    )

    def __post_init__(self) -> None:
        if self.license_statement is not None:
            self.license_statement = " ".join(self.license_statement.split())

    def own_sources(self) -> list[str]:
        """The arguments that name texts which are not this project's, as they were given."""
        raise NotImplementedError

    def check(self) -> None:
        """Also: texts of the user's own are pushed only with a word on their licence."""
        super().check()
        stated, own = self.license_statement, self.own_sources()
        if stated is not None and not (own and stated):
            raise InputError(
                "--license_statement is for texts of your own, NAME=FILE, and says something: "
                "give it with them, and not empty"
            )
        if own and self.push_to_hub and not stated:
            raise InputError(
                f"--push_to_hub with {own[0]}: these texts are not this project's to give away; "
                'say with --license_statement "..." under what terms you may publish them, or '
                "leave --push_to_hub out"
            )


@dataclass
class ItemArguments(LicensedArguments):
    """Arguments of the scripts whose dataset has items."""

    items: str | None = option(None, "NAME=FILE, e.g. steu=steu.jsonl (default: the built-in bank)")
    decisions: str | None = option(None, "annotators' decisions on persona invariance, a file")
    scoring: str = option("option", "wording of the question: option, letter, generate")
    seed: int = option(0, "of the order of options under letters")

    def own_sources(self) -> list[str]:
        return [f"--items {self.items}"] if "=" in (self.items or "") else []


def build_items(kind: str, arguments: ItemArguments, command: str) -> Tree:
    """The dataset of items of one kind, from the arguments."""
    from unswayed.datasets.persona_sets import item_tree

    return item_tree(
        kind,
        items=arguments.items or kind,
        decisions=arguments.decisions,
        configs=arguments.configs,
        scoring=arguments.scoring,
        seed=arguments.seed,
        license_statement=arguments.license_statement,
        command=command,
    )


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


def parse(name: str, arguments_class: type[BuildArguments], doc: str) -> Any:
    """The command line as a dataclass, checked.

    Raises:
        InputError: unknown or missing argument.
    """
    parser = Parser(
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
