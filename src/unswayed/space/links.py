"""The chosen state as a query string, and back; what comes from an address is checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from urllib.parse import urlencode

from unswayed.space.flips import NOTES, OPTION, OPTIONS, OWN, SCENARIO, items, users
from unswayed.space.models import choices

LONGEST = {
    "scenario": SCENARIO,
    "options": OPTIONS * (OPTION + 1),
    "a_text": NOTES,
    "b_text": NOTES,
}


@dataclasses.dataclass(frozen=True)
class State:
    """What is chosen in the tab Flip; texts are those of the choice "own"."""

    model: str
    item: str
    scenario: str = ""
    options: str = ""
    a: str = "p01-advantaged"
    a_text: str = ""
    b: str = "p01-disadvantaged"
    b_text: str = ""


def default_state() -> State:
    """What a visitor sees first."""
    return State(model=next(iter(choices())), item=next(iter(items())))


def to_query(state: State) -> str:
    """ "?model=...&item=..."; texts only where they are used."""
    used = {"scenario": state.item, "options": state.item, "a_text": state.a, "b_text": state.b}
    return "?" + urlencode(
        {name: value for name, value in vars(state).items() if used.get(name, OWN) == OWN}
    )


def from_query(query: Mapping[str, str]) -> State:
    """The state of an address; whatever is unknown, missing or too long is the default."""
    first = default_state()
    allowed = {
        "model": choices(), "item": (*items(), OWN), "a": (*users(), OWN), "b": (*users(), OWN)
    }  # fmt: skip
    valid = {
        name: query[name]
        for name in vars(first).keys() & query.keys()
        if (query[name] in allowed[name] if name in allowed else len(query[name]) <= LONGEST[name])
    }
    return dataclasses.replace(first, **valid)
