"""Fixtures: a small audit on a tiny chat model, three items of our own, two pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from unswayed.audit.arguments import AuditArguments

ITEMS = [
    {
        "id": "a", "scenario": "It rains on the picnic. What is felt?",
        "options": ["Joy", "Sadness", "Fear"], "key": "Sadness",
    },
    {
        "id": "b", "scenario": "A prize is won. What is felt?",
        "options": ["Pride", "Guilt"], "key": "Pride",
    },
    {
        "id": "c", "scenario": "A borrowed book is lost. What is felt?",
        "options": ["Relief", "Embarrassment", "Pride"], "key": "Embarrassment",
    },
]  # fmt: skip


@pytest.fixture(scope="session")
def items_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("items") / "mine.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in ITEMS), "utf-8")
    return path


@pytest.fixture(scope="session")
def chat_model(tiny_model_dir) -> Path:
    return tiny_model_dir("llama", chat=True, max_position_embeddings=4096)


@pytest.fixture
def arguments(chat_model, items_file, tmp_path) -> Callable[..., AuditArguments]:
    """`arguments(out="name", **changes)`: the small audit's arguments."""

    from unswayed.audit.arguments import AuditArguments

    def make(out: str = "run", **changes) -> AuditArguments:
        defaults = {"model": str(chat_model), "items": [f"mine={items_file}"], "pairs": 2}
        return AuditArguments(**(defaults | {"out": tmp_path / out} | changes))

    return make


@pytest.fixture
def dies_at_the_third_part(monkeypatch) -> None:
    """Ctrl-C when the third persona (no memory counts as one) is to be scored; once."""
    from unswayed.audit import run as audit_run

    real, calls = audit_run.score, []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(audit_run, "score", dying)
