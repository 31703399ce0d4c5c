"""What the page's events do: a state in, plain values out; app.py names the components."""

from __future__ import annotations

import dataclasses
import random
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from unswayed.core.errors import InputError
from unswayed.models.embedded import model_label
from unswayed.space import pages, uploads
from unswayed.space.examples import StoredFlip, StoredFlips, read_examples
from unswayed.space.flips import SCORING, ask, choose_item, choose_user, in_words, users
from unswayed.space.links import State, default_state
from unswayed.space.models import Shelf, source

SWEEP_COLUMNS = ("Pair", "Version", "Answer", "Flips", "Probability of that answer (%)")
LOADING = "Loading the model …"


class Turns:
    """One long piece of work at a time for each session."""

    def __init__(self) -> None:
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def of(self, session: str) -> Iterator[None]:
        """Around the work.

        Raises:
            InputError: the session has some going on.
        """
        with self._lock:
            if session in self._busy:
                raise InputError("your last sweep or audit is still running: wait, or cancel it")
            self._busy.add(session)
        try:
            yield
        finally:
            with self._lock:
                self._busy.remove(session)


class Space:
    """The Space's models, stored flips, and turns.

    Args:
        examples: file of stored flips; without it there are no surprises.
    """

    def __init__(self, examples: Path | None = None) -> None:
        self.shelf, self.turns = Shelf(), Turns()
        self._stored: StoredFlips = {"model": "", "flips": []}
        if examples and examples.exists():
            self._stored = read_examples(examples)

    def first(self) -> State:
        """What a visitor sees first: a stored flip, if there is one."""
        first = default_state()
        return _state(first.model, self._stored["flips"][0]) if self._stored["flips"] else first

    def warm(self) -> None:
        """Load the default model and answer the first question once."""
        self._answers(self.first())

    def _answers(self, state: State):
        item = choose_item(state.item, state.scenario, state.options)
        both = [choose_user(state.a, state.a_text), choose_user(state.b, state.b_text)]
        return item, list(ask(self.shelf, state.model, item, both))

    def flip(self, state: State) -> str:
        """The page of an answer."""
        try:
            return pages.flip_page(*self._answers(state))
        except InputError as error:
            return pages.complaint(str(error))

    def surprise(self, model: str) -> tuple[State, str]:
        """A stored flip, as a state, and what is said of it."""
        if not self._stored["flips"]:
            return dataclasses.replace(default_state(), model=model), "No flips are stored here."
        flip = random.choice(self._stored["flips"])
        bare, first, second = flip["answers"]
        note = (
            f"Stored: {self._stored['model']} answered “{bare}” without memory, “{first}” "
            f"for the advantaged and “{second}” for the disadvantaged user."
        )
        if source(model) != self._stored["model"]:
            note += " Another model may answer otherwise."
        return _state(model, flip), note

    def sweep(self, session: str, state: State) -> Iterator[tuple[str, pd.DataFrame]]:
        """One item about all built-in pairs: a line on how far it is, and the table so far.

        Closing the iterator ends it.
        """
        table = pd.DataFrame(columns=SWEEP_COLUMNS)
        # First of all: gradio closes an iterator only after it has given something.
        yield pages.notice(LOADING), table
        both = [u for u in users().values() if u.condition in ("advantaged", "disadvantaged")]
        rows, flips = [], 0
        try:
            with self.turns.of(session):
                item = choose_item(state.item, state.scenario, state.options)
                for n, answer in enumerate(ask(self.shelf, state.model, item, both)):
                    if answer.user is not None:
                        flips += answer.flip
                        rows.append((
                            answer.user.pair_id,
                            answer.user.condition,
                            item.options[answer.picked],
                            "⇄ flips" if answer.flip else "stays",
                            round(100 * answer.shares[answer.picked], 1),
                        ))  # fmt: skip
                    table = pd.DataFrame(rows, columns=SWEEP_COLUMNS)
                    yield pages.notice(f"{n} of {len(both)} users asked, {flips} flips."), table
        except InputError as error:
            yield pages.complaint(str(error)), table

    def audit(
        self, session: str, model: str, items: str | None, personas: str | None, pairs: float
    ) -> Iterator[tuple[str, list[str], float]]:
        """A visitor's audit: a line on how far it is, the files once it is done, and the share.

        Closing the iterator ends it. The files are there until the next step: gradio copies them.
        """
        yield pages.notice(LOADING), [], 0.0
        paths = [Path(path) if path else None for path in (items, personas)]
        try:
            with (
                self.turns.of(session),
                tempfile.TemporaryDirectory(prefix="unswayed-space-") as folder,
                closing(uploads.audit(model, *paths, int(pairs), Path(folder))) as states,
            ):
                for state in states:
                    note = f"{state.done} of {state.total} users asked."
                    if state.files:
                        note = "Done. Download the files now: they are deleted after an hour."
                    files = [str(path) for path in state.files]
                    yield pages.notice(note), files, state.done / state.total
        except InputError as error:
            yield pages.complaint(str(error)), [], 0.0

    def api_flip(self, state: State) -> dict[str, Any]:
        """What `flip` shows, as data.

        Raises:
            InputError: something cannot be asked.
        """
        item, answers = self._answers(state)
        return {
            "model": model_label(state.model),
            "scoring": SCORING,
            "scenario": item.scenario,
            "options": list(item.options),
            "words": in_words(item, answers),
            "answers": [
                {
                    "user": answer.user.id if answer.user else None,
                    "answer": item.options[answer.picked],
                    "probabilities": [round(share, 6) for share in answer.shares],
                    "flip": answer.flip,
                }
                for answer in answers
            ],
        }


def _state(model: str, flip: StoredFlip) -> State:
    return State(model, flip["item"], a=flip["users"][0], b=flip["users"][1])
