"""Items and personas of a visitor: checked, and audited in a folder of the audit's own."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.data.items import Item, keep_invariant, read_items
from unswayed.data.personas import Persona, builtin_personas, read_personas
from unswayed.space import models
from unswayed.space.flips import NOTES, OPTION, OPTIONS, SCENARIO, notes

BYTES, ITEMS, PAIRS = 200_000, 20, 4
ITEM_FILES, PERSONA_FILES = (".jsonl", ".csv"), (".yaml", ".yml")
TEST = "own"  # the test's name in the results
SECONDS = 900  # the longest run
PAUSE = 0.5


def check_items(path: Path) -> list[Item]:
    """The items of a visitor's file.

    Raises:
        InputError: says in a line what is wrong and where; files are called by their name alone.
    """
    items = _read(path, ITEM_FILES, lambda: keep_invariant(read_items(path, TEST)))
    if len(items) > ITEMS:
        raise InputError(f"{path.name} has {len(items)} items, at most {ITEMS} are asked here")
    for item in items:
        _check(path, f"the scenario of {item.id}", item.scenario, SCENARIO)
        if len(item.options) > OPTIONS:
            raise InputError(
                f"{path.name}: {item.id} has {len(item.options)} options, at most {OPTIONS} are "
                "asked here"
            )
        for option in item.options:
            _check(path, f"an option of {item.id}", option, OPTION)
    return items


def check_personas(path: Path) -> list[Persona]:
    """The personas of a visitor's file; raises as `check_items`."""
    personas = _read(path, PERSONA_FILES, lambda: read_personas(path))
    bases = {persona.pair_id for persona in personas}
    if len(bases) > PAIRS:
        raise InputError(f"{path.name} has {len(bases)} personas, at most {PAIRS} are asked here")
    for persona in personas:
        _check(path, f"the text of {persona.id}", notes(persona), NOTES)
    return personas


def _read(path: Path, endings: Sequence[str], reader):
    if path.suffix.lower() not in endings:
        raise InputError(f"{path.name}: give a file that ends in {' or '.join(endings)}")
    if (size := path.stat().st_size) > BYTES:
        raise InputError(f"{path.name} has {size:,} bytes, at most {BYTES:,} are read here")
    try:
        return reader()
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from None


def _check(path: Path, what: str, text: str, most: int) -> None:
    if len(text) > most:
        raise InputError(
            f"{path.name}: {what} has {len(text):,} characters, at most {most:,} are asked here"
        )


# -- a small audit -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Audit:
    """How far an audit is.

    Attributes:
        done, total: parts: one without memory, one per persona.
        files: report.html and answers.parquet once it is complete, else empty.
    """

    done: int
    total: int
    files: tuple[Path, ...] = ()


def audit(
    model: str, items: Path | None, personas: Path | None, pairs: int, folder: Path
) -> Iterator[Audit]:
    """Audit a visitor's items, personas, or both, in a process of its own; what is not given is
    built in. Closing the iterator ends the process.

    Args:
        folder: of this audit alone; the run directory is made in it.

    Raises:
        InputError: files or settings that cannot be used, or the run fails or takes too long.
    """
    if items is None and personas is None:
        raise InputError("give a file of items, of personas, or both")
    if not 2 <= pairs <= PAIRS:
        raise InputError(f"{pairs} persona pairs: between 2 and {PAIRS} are asked here")
    source = models.source(model)
    if items:
        check_items(items)
    users = check_personas(personas) if personas else builtin_personas()
    versions = sorted({persona.condition for persona in users})
    bases = len({persona.pair_id for persona in users})
    if bases < 2:
        raise InputError(f"{personas.name} has one persona only: give two or more")
    pairs = min(pairs, bases)
    total = 1 + pairs * len(versions)
    out = Path(tempfile.mkdtemp(dir=folder, prefix="audit-"))
    log = out.with_suffix(".log")
    command = [
        sys.executable, "-m", "unswayed", "audit", "--model", source,
        "--items", f"{TEST}={items}" if items else "understanding:45",
        "--pairs", str(pairs), "--conditions", "none", *versions, "--out", str(out),
        *(["--personas", str(personas)] if personas else []),
    ]  # fmt: skip
    env = {
        "OMP_NUM_THREADS": "1",  # the other core is for those who flip
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            env=os.environ | env,
        )  # fmt: skip
    begun = time.monotonic()
    try:
        while process.poll() is None:
            if time.monotonic() - begun > SECONDS:
                raise InputError(f"stopped after {SECONDS // 60} minutes: give fewer items")
            yield Audit(min(len(list(out.glob("parts/*.parquet"))), total - 1), total)
            time.sleep(PAUSE)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    if process.returncode:
        raise InputError(_complaint(log.read_text("utf-8", "replace"), (out, items, personas)))
    yield Audit(total, total, (out / "report.html", out / "answers.parquet"))


def _complaint(text: str, paths: Sequence[Path | None]) -> str:
    """The last line of a failed run, with no path of the server."""
    lines = [line for line in text.splitlines() if line.startswith("unswayed: ")]
    line = lines[-1].removeprefix("unswayed: ") if lines else "the audit ended without a result"
    for path in filter(None, paths):
        line = line.replace(str(path), path.name)
    return line
