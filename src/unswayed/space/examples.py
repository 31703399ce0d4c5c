"""True flips of a stored run, for "surprise me".

    python -m unswayed.space.examples RUN_DIR FILE.json

writes them: ids and answers of built-in items only, since other instruments may not be given away.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from unswayed.audit.rundir import read_answers, read_run
from unswayed.audit.trials import NONE
from unswayed.core.commands import Parser, run_command
from unswayed.core.errors import InputError
from unswayed.core.files import read_text, write_json
from unswayed.data.items import items_hash
from unswayed.scoring.prompts import DEFAULT_RULES, question_text
from unswayed.space.flips import SCORING, items, users

VERSIONS = ("advantaged", "disadvantaged")


class StoredFlip(TypedDict):
    """An item about which two users get different answers."""

    item: str  # "test/id"
    users: list[str]  # ids: advantaged, disadvantaged
    answers: list[str]  # texts: without memory, advantaged, disadvantaged


class StoredFlips(TypedDict):
    """What the Space reads of the file of flips."""

    model: str
    flips: list[StoredFlip]


def flips_of(run_dir: Path) -> list[StoredFlip]:
    """Item and pair of a run where knowing the user changes the answer, sorted by both.

    Raises:
        InputError: no complete run, scored otherwise than the Space does, or no flip of a built-in
            item in it.
    """
    answers = read_answers(run_dir).to_pandas()
    by_rule, styles = set(answers["rule"]), set(answers["memory_style"].dropna())
    if by_rule != {DEFAULT_RULES[SCORING]} or styles != {"system"}:
        raise InputError(
            f"{run_dir}: give a run of --scoring {SCORING} by its own rule, --memory-style system"
        )
    by_user = {
        (f"{row.test}/{row.question_id}", row.persona_id if row.condition != NONE else None): row
        for row in answers.itertuples()
        if _builtin(row)
    }
    flips = []
    pairs = sorted({user.pair_id for user in users().values() if user.pair_id})
    for key, pair in itertools.product(items(), pairs):
        ids = [f"{pair}-{version}" for version in VERSIONS]
        rows = [by_user.get((key, id)) for id in (None, *ids)]
        if None not in rows and rows[1].answer != rows[2].answer:
            flips.append({"item": key, "users": ids, "answers": [row.answer for row in rows]})
    if not flips:
        raise InputError(f"{run_dir}: no user changes an answer to a built-in item there")
    return flips


def _builtin(row: Any) -> bool:
    """Whether a row's question is a built-in item, word for word."""
    item = items().get(f"{row.test}/{row.question_id}")
    return (
        item is not None
        and row.user_prompt == question_text(item, SCORING)
        and list(row.options) == list(item.options)
    )


def write_examples(run_dir: Path, path: Path) -> int:
    """Write the flips of a run as small JSON; returns their number."""
    flips, run = flips_of(run_dir), read_run(run_dir)
    content = {
        "command": f"python -m unswayed.space.examples RUN {path.name}",
        "model": run["identity"]["model"],
        "items": items_hash(items().values()),
        "flips": flips,
    }
    write_json(path, content, indent=1)
    return len(flips)


def read_examples(path: Path) -> StoredFlips:
    """What `write_examples` wrote; flips of items and users that are still the same.

    Raises:
        InputError: there is no such file, or it is not in this form.
    """
    try:
        content = json.loads(read_text(path))
        flips = [
            flip
            for flip in content["flips"]
            if flip["item"] in items()
            and all(id in users() for id in flip["users"])
            and set(flip["answers"]) <= set(items()[flip["item"]].options)
        ]
        return {"model": str(content["model"]), "flips": flips}
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} holds no stored flips; make it again: see docs/space.md"
        ) from None


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Parser(prog="python -m unswayed.space.examples", description="Keep a run's flips.")
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)

    def work() -> None:
        arguments = parser.parse_args(argv)
        print(f"{write_examples(arguments.run, arguments.file)} flips: {arguments.file}")

    return run_command("examples", work)


if __name__ == "__main__":
    sys.exit(main())
