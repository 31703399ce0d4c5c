"""Generated answers of work that is under way, kept one by one.

The file holds a JSON line per answer and lives until what they are for is written. A line that a
kill cut in half is taken off again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Journal:
    """Texts by prompt; lm-eval's backends hand them in through `add_partial`, their cache hook.

    Args:
        path: the file, read if it is there; None keeps the answers in memory only.
        on_answer: called after every new answer.
    """

    def __init__(self, path: Path | None, on_answer: Callable[[], None] = lambda: None) -> None:
        self._path, self._on_answer, self._file = path, on_answer, None
        self._texts: dict[str, str] = {}
        if path is not None and path.exists():
            self._texts = _read(path)

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, prompt: str) -> str | None:
        """The answer to a prompt, None if it is still to be asked."""
        return self._texts.get(_digest(prompt))

    def add(self, prompt: str, text: str) -> None:
        """Keep an answer at once."""
        key = _digest(prompt)
        if key in self._texts:
            return
        if self._path is not None:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("a", encoding="utf-8", newline="\n")
            line = json.dumps({"prompt": key, "text": text}, ensure_ascii=False)
            self._file.write(line + "\n")
            self._file.flush()
        self._texts[key] = text
        self._on_answer()

    def add_partial(self, kind: str, request: tuple, text: Any) -> None:
        """lm-eval's call for each finished request: (prompt, settings) and the text."""
        if kind == "generate_until":
            self.add(request[0], text)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """What the answers were kept for is written: they go, and the file."""
        self.close()
        self._texts.clear()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _digest(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()


def _read(path: Path) -> dict[str, str]:
    """The whole lines of a journal; from the first broken one on it is cut off."""
    texts, good = {}, 0
    with path.open("rb") as file:
        for line in file:
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
                texts[entry["prompt"]] = entry["text"]
            except (ValueError, TypeError, KeyError):
                break
            good += len(line)
    if good < path.stat().st_size:
        with path.open("rb+") as file:
            file.truncate(good)
    return texts
