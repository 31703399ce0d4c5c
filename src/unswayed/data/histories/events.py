"""Events of users in the order of time, checked, and how they and their users are split."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import Any

import numpy as np

from unswayed.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Event:
    """One interaction of a user.

    Attributes:
        user: who.
        time: any increasing number; seconds for MovieLens and dated LaMP files.
        query: what was asked about, as the model reads it: "Heat (1995), a film of the genres
            Action, Crime". "" for a tweet of LaMP-7's profiles.
        response: what the user gave: a label of the task, or free text. "" where the source has
            none (the papers of LaMP-1's profiles): such an event is evidence only, and is never
            trained on, asked or counted.
        about: tags of the query, such as genres; for taste vectors and profiles.
        thing: id of what is asked about, for item means; "" if none.
        id: unique within the source; USER/PLACE if the source has none.
    """

    user: str
    time: float
    query: str
    response: str
    about: tuple[str, ...] = ()
    thing: str = ""
    id: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """What is predicted.

    Attributes:
        name: "movielens", "movielens-tags", "lamp1" .. "lamp7", "builtin", or a JSONL file's stem.
        ask: instruction that the model reads.
        labels: the closed set of responses, in order; None if responses are free text.
        ordinal: the labels are numbers on a scale.
        noun: what queries are about, for prompts: "film".
    """

    name: str
    ask: str
    labels: tuple[str, ...] | None
    ordinal: bool
    noun: str = "item"


@dataclasses.dataclass(frozen=True)
class Histories:
    """The events of all users of one source.

    Attributes:
        task: what is predicted.
        events: sorted by time; events of one time keep the source's order.
        truth: of the built-in population, see `population.py`; else None.
    """

    task: Task
    events: tuple[Event, ...]
    truth: Mapping[str, Any] | None = None

    @cached_property
    def _by_user(self) -> dict[str, tuple[Event, ...]]:
        by_user: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            by_user[event.user].append(event)
        return {user: tuple(events) for user, events in by_user.items()}

    @property
    def users(self) -> tuple[str, ...]:
        """In the order of their first events."""
        return tuple(self._by_user)

    def of(self, user: str) -> tuple[Event, ...]:
        """The user's events; () if there are none."""
        return self._by_user.get(user, ())


@dataclasses.dataclass(frozen=True)
class Split:
    """Users apart: `train` teach the global memory, `fit` the mediator, `test` are asked."""

    train: tuple[str, ...]
    fit: tuple[str, ...]
    test: tuple[str, ...]


def make_histories(
    task: Task, rows: Iterable[tuple[str, Event]], truth: Mapping[str, Any] | None = None
) -> Histories:
    """Checked histories: sorted by time (stable), every event with an id.

    Args:
        rows: (place in the source, for messages; event).

    Raises:
        InputError: names the place of the first fault: a time that is no number, a label outside
            the task's, an event or an id that occurs twice; or there are no events.
    """
    rows = list(rows)
    for where, event in rows:
        if not math.isfinite(event.time):
            raise InputError(f"{where}: time is {event.time}, it must be a finite number")
        if task.labels is not None and event.response and event.response not in task.labels:
            raise InputError(
                f"{where}: {event.response!r} is none of the labels: {', '.join(task.labels)}"
            )
    rows.sort(key=lambda row: row[1].time)
    events: list[Event] = []
    places: dict[object, str] = {}
    counts: Counter[str] = Counter()
    for where, event in rows:
        counts[event.user] += 1
        if not event.id:
            event = dataclasses.replace(event, id=f"{event.user}/{counts[event.user]}")
        content = (event.user, event.time, event.query, event.response, event.thing)
        for key, what in ((event.id, f"the id {event.id!r}"), (content, "the same event")):
            if key in places:
                raise InputError(f"{where}: {what} is already at {places[key]}; remove one")
            places[key] = where
        events.append(event)
    if not events:
        raise InputError(f"{task.name}: holds no events")
    return Histories(task, tuple(events), truth)


def before(events: Sequence[Event], time: float) -> Sequence[Event]:
    """The events strictly before the time: whatever else happened at that time is not known yet.

    Args:
        events: sorted by time.
    """
    return events[: bisect_left(events, time, key=attrgetter("time"))]


def past_of(events: Sequence[Event], event: Event) -> tuple[Event, ...]:
    """The user's own events strictly before `event`.

    Args:
        events: sorted by time; the user's own are enough, others' are left out.
    """
    return tuple(e for e in before(events, event.time) if e.user == event.user)


def segments(events: Sequence[Event], t: int) -> list[tuple[Event, ...]]:
    """T stretches of time without overlap, with about equal numbers of events.

    Each cut is the change of time nearest to an equal share, so events of one time stay together.

    Args:
        events: sorted by time.

    Raises:
        InputError: t is below 1 or above the number of different times.
    """
    changes = [0, *accumulate(Counter(event.time for event in events).values())]
    if not 1 <= t < len(changes):
        raise InputError(f"{t} segments: {len(changes) - 1} different times allow 1 to that many")
    cuts = [0]  # places in `changes`
    for number in range(1, t):
        free = range(cuts[-1] + 1, len(changes) - (t - number))
        cuts.append(min(free, key=lambda i: abs(changes[i] - number * len(events) / t)))
    places = [*(changes[i] for i in cuts), len(events)]
    return [tuple(events[start:end]) for start, end in pairwise(places)]


def split_users(histories: Histories, seed: int, test: float = 0.2, fit: float = 0.2) -> Split:
    """Users drawn apart by seed; the draw does not depend on their order.

    Args:
        test: share of users that are asked, at least one user.
        fit: share that teaches the mediator; at least one user unless it is 0.

    Raises:
        InputError: shares that leave nobody to train on, or too few users.
    """
    if not (0 < test < 1 and 0 <= fit < 1 and test + fit < 1):
        raise InputError(f"test={test}, fit={fit}: shares of users, together below 1, test above 0")
    users = sorted(histories.users)
    n_test = max(1, round(test * len(users)))
    n_fit = max(1, round(fit * len(users))) if fit else 0
    if len(users) <= n_test + n_fit:
        have = f"only one user, {users[0]!r}" if len(users) == 1 else f"only {len(users)} users"
        raise InputError(
            f"{histories.task.name} has {have}: a population to learn from, "
            f"{n_fit} users for the mediator and {n_test} for the test need more"
        )
    drawn = [users[i] for i in np.random.default_rng(seed).permutation(len(users))]
    return Split(
        train=tuple(drawn[n_test + n_fit :]),
        fit=tuple(drawn[n_test : n_test + n_fit]),
        test=tuple(drawn[:n_test]),
    )


def label_entropy(events: Iterable[Event], labels: Sequence[str]) -> float:
    """Entropy of a user's labels in nats, from 0 (always the same, or none) to log(len(labels))."""
    counts = Counter(event.response for event in events)
    sizes = [counts[label] for label in labels if counts[label]]
    # Not -sum(p log p): with a single label that is -0.0.
    return sum(size / sum(sizes) * math.log(sum(sizes) / size) for size in sizes)
