"""Options of commands from the dataclasses that they fill: a name and a default stand once.

@dataclass
class Settings:
    epochs: int = option(5, "over all conversations", metavar="N")

add_options(parser, Settings)  # --epochs N
settings = filled(Settings, parser.parse_args())
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any

REQUIRED = dataclasses.MISSING
TRUTHS = {"yes": True, "true": True, "t": True, "y": True, "1": True}
TRUTHS |= {"no": False, "false": False, "f": False, "n": False, "0": False}


class Once(argparse.Action):
    """An option that is given at most once; of others the last one counts."""

    def __call__(self, parser, namespace, values, option_string=None):
        if getattr(namespace, self.dest, None) is not None:
            parser.error(f"{option_string} is given twice: leave one out")
        setattr(namespace, self.dest, values)


def option(default: Any, help: str, **details: Any) -> Any:
    """A field of a dataclass that is an option of a command.

    Args:
        default: REQUIRED for none; a class, such as dict, for an empty one of it, which the command
            line leaves to the command.
        details: what else `add_argument` takes, such as metavar.
    """
    kind = "default_factory" if isinstance(default, type) else "default"
    return dataclasses.field(**{kind: default}, metadata={"help": help, **details})


def add_options(
    parser: argparse.ArgumentParser, arguments_class: type, as_scripts: bool = False
) -> None:
    """Add an option for each field that has a help: `--two-words` for two_words.

    Args:
        as_scripts: as scripts of the Hugging Face libraries spell them: `--two_words` too, and a
            truth value may follow a flag.
    """
    hints = typing.get_type_hints(arguments_class)
    for field in dataclasses.fields(arguments_class):
        if "help" not in field.metadata:
            continue
        flags = [f"--{field.name}"] * as_scripts + [f"--{field.name.replace('_', '-')}"]
        details = _details(field, hints[field.name], as_scripts) | dict(field.metadata)
        parser.add_argument(*dict.fromkeys(flags), **details)


def _details(field: dataclasses.Field, hint: Any, as_scripts: bool) -> dict[str, Any]:
    """What `add_argument` takes, from a field's type and default."""
    if field.default is field.default_factory is REQUIRED:
        details = {"required": True}
    else:
        default = None if field.default is REQUIRED else field.default
        details = {"default": list(default) if isinstance(default, tuple) else default}
    if isinstance(hint, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    if hint is bool:
        flag = {"nargs": "?", "const": True, "type": _truth}
        return details | (flag if as_scripts else {"action": "store_true"})
    if typing.get_origin(hint) in (list, Sequence):
        return details | {"nargs": "+", "type": typing.get_args(hint)[0]}
    return details | {"type": hint}


def _truth(text: str) -> bool:
    if text.lower() not in TRUTHS:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return TRUTHS[text.lower()]


def filled(arguments_class: type, arguments: argparse.Namespace, **others: Any) -> Any:
    """The dataclass with the values of its options, and of other fields."""
    names = [
        field.name for field in dataclasses.fields(arguments_class) if "help" in field.metadata
    ]
    return arguments_class(**{name: getattr(arguments, name) for name in names} | others)
