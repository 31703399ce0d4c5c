"""Options from the fields of a dataclass, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from unswayed.core.arguments import REQUIRED, add_options, filled, option
from unswayed.core.commands import Parser
from unswayed.core.errors import InputError


@dataclasses.dataclass
class Settings:
    out: Path = option(REQUIRED, "where to", metavar="DIR")
    items: Sequence[str] = option(("builtin",), "what")
    first_seeds: list[int] | None = option(None, "which")
    rate: float | None = option(None, "how fast")
    dry_run: bool = option(False, "do nothing")
    more: Mapping[str, Any] = option(dict, "anything", type=str)
    own: str = "not an option"


def parse(*argv: str, as_scripts: bool = False, **others: Any) -> Settings:
    parser = Parser("x", allow_abbrev=False)
    add_options(parser, Settings, as_scripts)
    return filled(Settings, parser.parse_args(argv), **{"more": {}} | others)


def test_values_have_the_types_of_the_fields_and_a_default_stands_once():
    assert parse("--out", "a") == Settings(Path("a"), ["builtin"])
    argv = [
        "--out",
        "a",
        "--items",
        "x",
        "y",
        "--first-seeds",
        "1",
        "2",
        "--rate",
        "1",
        "--dry-run",
    ]
    changed = Settings(Path("a"), ["x", "y"], [1, 2], 1.0, True, {"k": "v"}, own="z")
    assert parse(*argv, "--dry-run", more={"k": "v"}, own="z") == changed


@pytest.mark.parametrize("flag", ["--first_seeds", "--first-seeds"])
def test_scripts_spell_options_with_underscores_too_and_flags_take_a_truth_value(flag):
    argv = ["--out", "a", flag, "3", "--dry_run"]
    assert parse(*argv, as_scripts=True).first_seeds == [3]
    assert parse(*argv, as_scripts=True).dry_run
    assert not parse(*argv, "No", as_scripts=True).dry_run
    with pytest.raises(InputError, match="'perhaps' is neither true nor false"):
        parse(*argv, "perhaps", as_scripts=True)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--rate", "1"], "the following arguments are required: --out"),
        (["--out", "a", "--rate", "x"], "argument --rate: invalid float value: 'x'"),
        (["--out", "a", "--own", "x"], "unrecognized arguments: --own x"),
    ],
)
def test_wrong_options_are_input_errors(argv, text):
    with pytest.raises(InputError, match=text):
        parse(*argv)
