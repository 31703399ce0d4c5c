"""Means by hand."""

from __future__ import annotations

import numpy as np
import pytest

from unswayed.core.errors import InputError
from unswayed.data.histories import Event, Task, load_histories, past_of, segments, split_users
from unswayed.data.histories.baseline import K_THING, K_USER, fit_means
from unswayed.data.histories.metrics import mae

SCALE = Task("points", "How many?", ("1", "2", "3", "4", "5"), ordinal=True)
NAMES = Task("names", "Which?", ("a", "b"), ordinal=False)


def gave(thing: str, response: str) -> Event:
    return Event("u", 0, thing, response, thing=thing)


TRAIN = [gave("pie", "5"), gave("pie", "4"), gave("tea", "1"), gave("tea", "2")]


def test_scale_by_hand():
    means = fit_means(TRAIN, SCALE)
    pie = 3 + (2 + 1) / (2 + K_THING)
    assert means.value([], gave("pie", "")) == pytest.approx(pie)
    assert means.value([], gave("new", "")) == 3
    user = ((4 - 3) + (5 - pie)) / (2 + K_USER)
    knows = [gave("new", "4"), gave("pie", "5"), gave("new", "")]
    assert means.value(knows, gave("pie", "")) == pytest.approx(pie + user)
    assert means.label(knows, gave("pie", "")) == "4"


def test_the_scale_has_ends():
    means = fit_means([gave("pie", "5")] * 9, SCALE)
    assert means.value([gave("pie", "5")], gave("pie", "")) == 5
    assert means.value([gave("", "1")] * 999, gave("pie", "")) >= 1


def test_labels_by_hand():
    means = fit_means([gave("pie", "a")] * 3 + [gave("tea", "b")], NAMES)
    pie = (np.array([3, 0]) + K_THING * np.array([0.75, 0.25])) / (3 + K_THING)
    assert means.shares([], gave("pie", "")) == pytest.approx(pie)
    knows = [gave("tea", "b")] * 4
    shares = (np.array([0, 4]) + K_USER * pie) / (4 + K_USER)
    assert means.shares(knows, gave("pie", "")) == pytest.approx(shares)
    assert means.label([], gave("new", "")) == "a"
    assert means.label(knows * 3, gave("new", "")) == "b"


def test_no_labels_no_means():
    with pytest.raises(InputError, match="free text"):
        fit_means(TRAIN, Task("t", "What?", None, ordinal=False))
    with pytest.raises(InputError, match="no answers"):
        fit_means([gave("pie", "")], SCALE)


def test_beats_the_users_own_mean_on_the_built_in_population():
    histories = load_histories("builtin")
    split = split_users(histories, 0)
    *early, last = segments(histories.events, 4)
    train = [event for part in early for event in part if event.user in split.train]
    means = fit_means(train, histories.task)
    tested = [event for event in last if event.user in split.test]
    past = [past_of(histories.of(event.user), event) for event in tested]
    gold = [event.response for event in tested]
    own_means = [
        np.mean([float(e.response) for e in p]) if p else means.population[0] for p in past
    ]
    ours = [means.value(p, event) for p, event in zip(past, tested, strict=True)]
    assert mae(ours, gold).mean() < mae(own_means, gold).mean() - 0.03
