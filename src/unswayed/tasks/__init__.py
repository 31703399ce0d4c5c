"""lm-eval tasks, and a way to make stock lm-eval find them.

lm-eval 0.4.13 looks for tasks in its own folder and in --include_path. `install` therefore puts
one-line stubs, which include the files here, into lm-eval's folder; `uninstall` removes them. A
reinstall of lm-eval removes them too: run `install` again. Once lm-eval reads the entry point group
`lm_eval.tasks`, which this package declares, neither is needed.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.scoring.harness import TASKS

STUBS = "unswayed"  # name of the folder inside lm_eval/tasks
MARK = "# Made by `unswayed tasks install`; `unswayed tasks uninstall` removes this folder.\n"


def path() -> Path:
    """Folder with the tasks' YAML files, for --include_path."""
    return TASKS


def stub_folder() -> Path:
    """Where the stubs are or would be put.

    Raises:
        InputError: lm-eval is not installed.
    """
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise InputError("lm-eval is not installed here: pip install lm-eval")
    return Path(spec.origin).parent / "tasks" / STUBS


def installed() -> bool:
    """Whether stock lm-eval finds the tasks of this very copy of the package."""
    folder = stub_folder()
    return all(
        (stub := folder / file.name).is_file() and stub.read_text("utf-8") == _stub(file)
        for file in _task_files()
    )


def install() -> tuple[Path, list[str]]:
    """Make the tasks known to lm-eval; running it again does no harm.

    Returns:
        The folder made and the names of the tasks and groups.
    """
    folder = stub_folder()
    uninstall()
    folder.mkdir(parents=True)
    for file in _task_files():
        (folder / file.name).write_text(_stub(file), "utf-8")
    return folder, [file.stem for file in _task_files()]


def uninstall() -> bool:
    """Remove what `install` made; False if there was nothing.

    Raises:
        InputError: the folder holds files that are not ours.
    """
    folder = stub_folder()
    if not folder.exists():
        return False
    for file in folder.rglob("*"):
        ours = file.suffix == ".yaml" and file.read_text("utf-8").startswith(MARK)
        if file.is_file() and not ours:
            raise InputError(f"{folder} holds {file.name}, which is not ours: nothing was removed")
    shutil.rmtree(folder)
    return True


def _task_files() -> list[Path]:
    """One YAML per task or group, named like it; shared bases have no .yaml ending."""
    return sorted(path().glob("*/*.yaml"))


def _stub(file: Path) -> str:
    return f"{MARK}include: {file}\n"
