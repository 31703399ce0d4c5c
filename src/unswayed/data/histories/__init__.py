"""Histories: what users gave to what, and when; the sources they are read from, and their splits.

Data only, no model. The built-in population (`population.py`) is the project's own; MovieLens,
LaMP and JSONL are read from the user's own copy and are never part of this package. See
docs/histories.md.
"""

from __future__ import annotations

from unswayed.core.errors import InputError
from unswayed.data.histories import jsonl, lamp, movielens, population
from unswayed.data.histories.events import (
    Event,
    Histories,
    Split,
    Task,
    before,
    label_entropy,
    make_histories,
    past_of,
    segments,
    split_users,
)

__all__ = [
    "Event", "Histories", "Split", "Task", "before", "label_entropy", "load_histories",
    "make_histories", "past_of", "segments", "split_users",
]  # fmt: skip


def load_histories(spec: str) -> Histories:
    """Histories of one source.

    Args:
        spec: "builtin" (or "builtin:users=120,seed=0"), "movielens=FOLDER",
            "movielens-tags=FOLDER", "lampN=FILE" with N from 1 to 7, or "events=FILE.jsonl".

    Raises:
        InputError: unknown spec, missing or malformed file; names file, line or record, and field.
    """
    name, _, path = spec.partition("=")
    if spec.split(":")[0] == "builtin":
        return population.parse(spec)
    if name in ("movielens", "movielens-tags") and path:
        return movielens.read_ratings(path) if name == "movielens" else movielens.read_tags(path)
    if name in lamp.FORMS and path:
        return lamp.read(path, name)
    if name == "events" and path:
        return jsonl.read(path)
    raise InputError(
        f"histories {spec!r}: not one of builtin, movielens=FOLDER, movielens-tags=FOLDER, "
        "lamp1=FILE to lamp7=FILE, events=FILE"
    )
