"""Recipes: YAML files whose keys are a dataclass's fields, and the shell of scripts that run one.

A section is a key whose value is a mapping with keys of its own, such as the settings of a trainer.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unswayed.core.commands import Parser, run_command
from unswayed.core.errors import InputError
from unswayed.core.files import read_yaml

Hints = dict[str, Any]  # key -> type
SIMPLE = (str, int, float, bool, types.NoneType)
Sections = Mapping[str, Callable[[], Hints]]  # made when needed: some are heavy to import


def check_keys(hints: Hints, values: dict[str, Any], where: Any, prefix: str = "") -> None:
    """Keys are known, and values of their types where these are simple, or simple or null.

    Args:
        values: whole numbers become fractions where these are wanted.
        where: file, or more, that a complaint begins with.
        prefix: of the keys in complaints, e.g. "settings.".

    Raises:
        InputError: names the key.
    """
    for key, value in values.items():
        if key not in hints:
            raise InputError(
                f"{where}: unknown key {prefix}{key}; known are {', '.join(sorted(hints))}"
            )
        kinds = _simple_types(hints[key])
        if float in kinds and int not in kinds and type(value) is int:
            values[key] = value = float(value)
        if kinds and type(value) not in kinds:
            names = ("null" if kind is types.NoneType else kind.__name__ for kind in kinds)
            hint = " (YAML wants a dot: 1.0e-4)" if float in kinds else ""
            raise InputError(
                f"{where}: {prefix}{key} is {value!r}, it must be of type "
                f"{' or '.join(names)}{hint}"
            )


def _simple_types(hint: Any) -> tuple[type, ...]:
    """Those that a hint such as `str` or `str | None` allows; none if it is not so simple."""
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    kinds = typing.get_args(hint) if union else (hint,)
    return kinds if all(kind in SIMPLE for kind in kinds) else ()


def check_section(values: Any, where: Any, name: str) -> None:
    """The value of a section is a mapping.

    Raises:
        InputError: it is not.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: {name} must be a mapping of keys to values")


def check_layer(
    values: dict[str, Any],
    where: Any,
    hints: Hints,
    sections: Sections,
    check: Callable = check_keys,
) -> None:
    """Some keys of a recipe, those in its sections too.

    Args:
        check: called like `check_keys`, for all keys and for those of each section.

    Raises:
        InputError: as `check` and `check_section`.
    """
    check(hints, values, where)
    for name, section_hints in sections.items():
        if name in values:
            check_section(values[name], where, name)
            check(section_hints(), values[name], where, f"{name}.")


def read_keys(
    paths: Sequence[Path], recipe: type, sections: Sections, check: Callable = check_keys
) -> dict[str, Any]:
    """The keys of a recipe; with several files, those of later ones replace those of earlier ones.

    Args:
        recipe: the dataclass that has the keys.
        check: as in `check_layer`.

    Raises:
        InputError: names the file and the key that is unknown, missing, twice there or of a wrong
            type.
    """
    layers = []
    for path in paths:
        values = read_mapping(path, "recipe")
        check_layer(values, path, typing.get_type_hints(recipe), sections, check)
        layers.append(values)
    merged = merge(sections, *layers)
    for field in dataclasses.fields(recipe):
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in merged:
            raise InputError(f"{paths[-1]}: the key {field.name} is missing")
    return merged


def merge(sections: Sections, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers win; sections key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            section = key in sections and isinstance(value, dict)
            merged[key] = (merged.get(key) or {}) | value if section else value
    return merged


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """A YAML file that is a mapping; PyYAML itself lets the last of two equal keys win in silence.

    Args:
        what: the file is, in complaints.

    Raises:
        InputError: no such file, not YAML, no mapping, a key that is there twice or is no word, or
            a value that is none, such as the date 2020-13-45.
    """
    import yaml

    checked = set()  # an alias may lead back to where it stands

    def check(node: Any) -> None:
        if node in checked:
            return
        checked.add(node)
        if isinstance(node, yaml.SequenceNode):
            for entry in node.value:
                check(entry)
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                where = f"{path}:{key.start_mark.line + 1}"
                if not isinstance(key, yaml.ScalarNode):
                    raise InputError(
                        f"{where}: a key is a list or a mapping, it must be a word: put quotes "
                        "around a text that begins with a bracket"
                    )
                if key.value in seen:
                    raise InputError(f"{where}: the key {key.value} is there twice")
                seen.add(key.value)
                check(value)

    node = read_yaml(path)
    check(node)
    try:
        values = None if node is None else yaml.SafeLoader("").construct_document(node)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # PyYAML's own
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        why = getattr(error, "problem", error)
        raise InputError(
            f"{path}{line}: a value cannot be read ({why}): put quotes around a text"
        ) from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: a {what} is a mapping of keys to values")
    return values


def recipe_command(
    doc: str, argv: Sequence[str] | None, work: Callable, name: str = "train.py"
) -> int:
    """The shell of a script that runs a recipe; returns the exit code.

    Args:
        argv: its arguments; None takes those of the process.
        work: called with the recipe's files.
        name: of the script.
    """
    parser = Parser(name, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", type=Path, nargs="+", required=True, help="YAML; later files replace keys"
    )
    return run_command(
        name,
        lambda: work(parser.parse_args(argv).config),
        interrupted="run it again to go on",
    )
