"""The Space as a tree for the Hub, and its way there.

    python -m unswayed.publish.spaces --out DIR                    the tree, to look at
    python -m unswayed.publish.spaces --out DIR --repo_id OWNER/NAME    and push it

The Hub installs requirements.txt before any other file of the Space is there, so a wheel in the
tree could not be named in it. The wheel of this package is therefore unpacked beside app.py, and
requirements.txt holds what the wheel needs.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from email.parser import HeaderParser
from importlib.metadata import version
from pathlib import Path

from unswayed.core.cards import CARD, with_metadata
from unswayed.core.commands import Parser, run_command
from unswayed.core.errors import InputError
from unswayed.core.files import read_text, replacing, write_text
from unswayed.publish.local import APP, BUILT, read_space
from unswayed.publish.metadata import metadata
from unswayed.publish.push import publish

REQUIREMENTS, RESULTS = "requirements.txt", "results"


def build_space(root: Path, out: Path) -> Path:
    """Make the tree of the Space anew; it appears whole or not at all.

    Args:
        root: the repository.
        out: the tree; one that was built before is replaced, and nothing else is.

    Returns:
        out: README.md with the installed gradio's version, app.py, requirements.txt, results/ and
        this package.

    Raises:
        InputError: `out` holds something else, or the wheel cannot be built; nothing is changed
            then.
    """
    check_replaceable(out)
    with replacing(out) as new:
        _write_files(root, new)
    return out


def check_replaceable(out: Path) -> None:
    """Nothing is at `out`, or a tree that was built before and nothing of the user's.

    Raises:
        InputError: says what is there.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise InputError(f"--out {out} is not a folder: give a new or an empty one")
    if not any(out.iterdir()):
        return
    if not (out / APP).is_file() or not any(out.glob(BUILT)):
        raise InputError(f"--out {out} is not empty and no Space built before: give another one")
    for path in sorted(out.iterdir()):
        if path.name.startswith("."):  # .git or .env: the build makes none
            raise InputError(
                f"--out {out} holds {path.name}, which would be lost: move it, or give another one"
            )


def _write_files(root: Path, out: Path) -> None:
    source = root / "spaces" / "memory_flips"
    out.mkdir()
    card = read_text(source / CARD)
    pinned = metadata(card, str(source / CARD)) | {"sdk_version": version("gradio")}
    write_text(out / CARD, with_metadata(card, pinned))
    shutil.copy(source / APP, out / APP)
    (out / RESULTS).mkdir()
    for path in sorted((root / RESULTS).glob("*.json")):
        shutil.copy(path, out / RESULTS / path.name)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _wheel(root, Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(out)
    head = read_text(source / REQUIREMENTS)
    write_text(out / REQUIREMENTS, head + "".join(f"{line}\n" for line in needed(out)))


def _wheel(root: Path, scratch: Path) -> Path:
    copy = scratch / "copy"  # setuptools leaves a folder build/ where it works, and reuses it
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(root / "src", copy / "src", ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(scratch)]
    done = subprocess.run([*command, str(copy)], capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["pip gave no reason"]
        raise InputError(f"the wheel of {root} cannot be built: {last[0]}")
    return next(scratch.glob("*.whl"))


def needed(folder: Path) -> list[str]:
    """What the package that is unpacked in a folder needs, its extras left out."""
    text = read_text(next(folder.glob("*.dist-info")) / "METADATA")
    lines = HeaderParser().parsestr(text).get_all("Requires-Dist") or []
    return [line for line in lines if not re.search(r";.*\bextra\b", line)]


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Parser(
        prog="python -m unswayed.publish.spaces",
        description="Build the Space of this repository, and push it if asked.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--root", type=Path, default=Path(), help="the repository")
    add("--out", type=Path, required=True, help="folder of the tree")
    add("--repo_id", help="OWNER/NAME: push it there; a new repository is private")
    add("--public", action="store_true", help="make a new repository public")

    def work() -> None:
        options = parser.parse_args(argv)
        read_space(build_space(options.root, options.out))
        print(options.out)
        if options.repo_id:
            print(publish(options.out, options.repo_id, private=not options.public))

    return run_command("spaces", work)


if __name__ == "__main__":
    sys.exit(main())
