"""A tiny model as the Space's only addition, and a Space around it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def tiny(tiny_model_dir, monkeypatch) -> str:
    """Name of a tiny model that may be chosen, the default."""
    name = str(tiny_model_dir("llama", chat=True, max_position_embeddings=4096))
    monkeypatch.setenv("UNSWAYED_SPACE_MODELS", name)
    return name


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).parents[2]
