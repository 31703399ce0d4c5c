"""A state survives its link; whatever else an address says is left out."""

from __future__ import annotations

from urllib.parse import parse_qsl

from hypothesis import given
from hypothesis import strategies as st

from unswayed.space.flips import NOTES, OWN, items, users
from unswayed.space.links import State, default_state, from_query, to_query
from unswayed.space.models import choices

TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=100)
STATES = st.builds(
    State,
    model=st.sampled_from(list(choices())),
    item=st.sampled_from([*items(), OWN]),
    scenario=TEXT,
    options=TEXT,
    a=st.sampled_from([*users(), OWN]),
    a_text=TEXT,
    b=st.sampled_from([*users(), OWN]),
    b_text=TEXT,
)


def read(query: str) -> State:
    return from_query(dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)))


@given(STATES)
def test_a_state_survives_its_link(state):
    linked = read(to_query(state))
    assert (linked.model, linked.item, linked.a, linked.b) == (
        state.model, state.item, state.a, state.b
    )  # fmt: skip
    for name, choice in (("scenario", state.item), ("options", state.item),
                         ("a_text", state.a), ("b_text", state.b)):  # fmt: skip
        assert getattr(linked, name) == (getattr(state, name) if choice == OWN else "")


@given(st.dictionaries(st.sampled_from([*vars(default_state()), "x"]), st.text(max_size=3000)))
def test_any_address_gives_a_state_that_can_be_asked(query):
    state = from_query(query)
    assert state.model in choices() and state.item in (*items(), OWN)
    assert state.a in (*users(), OWN) and len(state.a_text) <= NOTES


def test_a_model_that_is_not_offered_is_not_taken_from_a_link():
    assert from_query({"model": "evil/model", "item": OWN}).model == default_state().model
