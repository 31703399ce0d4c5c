"""What may be known when: order, ids, segments, splits."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.histories import (
    Event,
    Task,
    before,
    label_entropy,
    load_histories,
    make_histories,
    past_of,
    segments,
    split_users,
)

SCALE = Task("points", "How many?", ("1", "2", "3"), ordinal=True)


def histories(*events: Event, task: Task = SCALE):
    return make_histories(task, [(f"row {n}", event) for n, event in enumerate(events, 1)])


def at(*times: float, user: str = "ada") -> list[Event]:
    return [Event(user, time, f"thing {n}", "2") for n, time in enumerate(times)]


times = st.lists(st.integers(0, 12), min_size=1, max_size=40)
crowds = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 8)), min_size=1, max_size=30)


def crowd(drawn) -> tuple[Event, ...]:
    return histories(*(Event(u, t, f"thing {n}", "1") for n, (u, t) in enumerate(drawn))).events


# -- order and ids -------------------------------------------------------------------------------


def test_sorted_by_time_ties_keep_the_order_of_the_source():
    found = histories(*at(5, 3, 5, 3), *at(4, user="bo"))
    assert [(e.time, e.query) for e in found.events] == [
        *((3, "thing 1"), (3, "thing 3"), (4, "thing 0"), (5, "thing 0"), (5, "thing 2"))
    ]
    assert found.users == ("ada", "bo")
    assert [e.id for e in found.of("ada")] == ["ada/1", "ada/2", "ada/3", "ada/4"]
    assert found.of("nobody") == ()


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([], "points: holds no events"),
        (at(math.nan), "row 1: time is nan"),
        (at(1, math.inf), "row 2: time is inf"),
        ([Event("ada", 1, "soup", "9")], "row 1: '9' is none of the labels: 1, 2, 3"),
        ([*at(1), *at(1)], "row 2: the same event is already at row 1"),
        (
            [Event("ada", 1, "soup", "1", id="x"), Event("bo", 2, "pie", "2", id="x")],
            "row 2: the id 'x' is already at row 1",
        ),
    ],
)
def test_faults_name_their_place(events, says):
    with pytest.raises(InputError, match=says):
        histories(*events)


def test_two_things_of_one_name_are_no_repeat():
    twins = [Event("ada", 1, "Kettle (1999), a film", "2", thing=thing) for thing in "ab"]
    assert [e.id for e in histories(*twins).events] == ["ada/1", "ada/2"]
    with pytest.raises(InputError, match="row 3: the same event is already at row 1"):
        histories(*twins, twins[0])


def test_an_event_without_a_response_is_no_label_outside_the_scale():
    assert histories(Event("ada", 1, "soup", "")).events[0].response == ""


def test_unknown_spec_names_the_known_ones():
    with pytest.raises(InputError, match=r"'netflix=x': not one of builtin, movielens=FOLDER"):
        load_histories("netflix=x")


# -- what is known -------------------------------------------------------------------------------


@given(crowds, st.data())
def test_known_is_the_users_strict_past(drawn, data):
    events = crowd(drawn)
    event = data.draw(st.sampled_from(events))
    past = [e for e in events if e.user == event.user and e.time < event.time]
    assert list(past_of(events, event)) == past


@given(crowds, st.integers(-1, 10))
def test_before_holds_all_that_was_earlier_and_nothing_else(drawn, time):
    events = crowd(drawn)
    assert list(before(events, time)) == [e for e in events if e.time < time]


# -- segments ------------------------------------------------------------------------------------


@given(times, st.integers(1, 6))
def test_segments_partition_the_events_and_respect_time(drawn, t):
    events = sorted(at(*drawn), key=lambda e: e.time)
    assume(t <= len(set(drawn)))
    found = segments(events, t)
    assert len(found) == t and all(found)
    assert [e for part in found for e in part] == events
    assert all(a[-1].time < b[0].time for a, b in pairwise(found))


@given(st.integers(1, 60), st.integers(1, 6))
def test_segments_are_about_equal_where_times_differ(n, t):
    assume(t <= n)
    sizes = [len(part) for part in segments(at(*range(n)), t)]
    assert max(sizes) - min(sizes) <= 1


def test_events_of_one_time_are_never_cut():
    assert [len(part) for part in segments(at(1, 2, 2, 2, 2, 2, 3, 3), 2)] == [6, 2]


@pytest.mark.parametrize("t", [0, 3])
def test_more_segments_than_times_is_an_error(t):
    with pytest.raises(InputError, match=f"{t} segments: 2 different times"):
        segments(at(1, 1, 2), t)


# -- splits --------------------------------------------------------------------------------------


@given(st.integers(5, 40), st.integers(0, 5), st.randoms())
def test_splits_are_disjoint_cover_and_ignore_the_order(n, seed, random):
    people = [Event(f"u{i}", i, "soup", "1") for i in range(n)]
    split = split_users(histories(*people), seed)
    together = [*split.train, *split.fit, *split.test]
    assert sorted(together) == sorted(e.user for e in people)
    assert split.train and split.fit and split.test
    random.shuffle(people)
    moved = [Event(e.user, i, e.query, "1") for i, e in enumerate(people)]
    assert split_users(histories(*moved), seed) == split


def test_shares_are_kept_and_seeds_differ():
    crowd = histories(*(Event(f"u{i}", i, "soup", "1") for i in range(100)))
    split = split_users(crowd, 0, test=0.3, fit=0)
    assert (len(split.train), len(split.fit), len(split.test)) == (70, 0, 30)
    assert split_users(crowd, 1, test=0.3, fit=0) != split


def test_one_user_is_no_population():
    with pytest.raises(InputError, match="has only one user, 'ada': a population"):
        split_users(histories(*at(1, 2, 3)), 0)


@pytest.mark.parametrize("shares", [{"test": 0}, {"test": 0.6, "fit": 0.4}, {"fit": -0.1}])
def test_shares_that_leave_nobody(shares):
    with pytest.raises(InputError, match="together below 1"):
        split_users(histories(*at(1)), 0, **shares)


# -- entropy -------------------------------------------------------------------------------------


def test_entropy_by_hand():
    def of(*responses):
        return label_entropy([Event("u", 0, "", r) for r in responses], SCALE.labels)

    assert of() == of("2", "2") == of("2", "") == 0
    assert of("1", "2", "3") == pytest.approx(math.log(3))
    assert of("1", "1", "1", "2") == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
