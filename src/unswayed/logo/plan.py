"""What an evaluation trains and asks, before any model is loaded.

Users are apart: training users teach the global module, fit users the gate, test users are asked.
A question of segment s may know the events of its own user strictly before it, what the module
learnt from training users in the segments before s, and what fit users answered in the segments
before s.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from unswayed.core.errors import InputError
from unswayed.data.histories import (
    Event,
    Histories,
    Split,
    Task,
    label_entropy,
    past_of,
    segments,
    split_users,
)
from unswayed.logo.globals import Stage, fair_draw, make_stages
from unswayed.logo.recipe import LogoSettings

TEST, FIT = "test", "fit"
ENOUGH = 5  # answers without which a history is short, not skewed


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """An event of a test or fit user whose response is to be predicted.

    Attributes:
        part: TEST or FIT.
        segment: of the event, from 1.
        past: the user's own events strictly before it.
        skewed: the user is one of the quarter of test users whose labels vary least.
        balanced: more is known than at the median of the test questions, and it varies more.
    """

    event: Event
    part: str
    segment: int
    past: tuple[Event, ...]
    skewed: bool = False
    balanced: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class TargetView:
    """A target as it is asked: with all that is known, or cut to the first `cut` events.

    So a user is seen as a newcomer. The last events would be of the same sitting as the question,
    and tell more than a newcomer's do.
    """

    target: Target
    cut: int | None

    @cached_property
    def past(self) -> tuple[Event, ...]:
        return self.target.past[: self.cut]

    @property
    def age(self) -> float | None:
        """Time since the newest known event, in the unit of the source."""
        return self.target.event.time - self.past[-1].time if self.past else None


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """All of an evaluation with one seed.

    Attributes:
        parts: the segments.
        stages: of all segments but the last.
        views: of the targets, in the order of users, events and cuts.
    """

    task: Task
    split: Split
    parts: Sequence[Sequence[Event]]
    stages: list[Stage]
    views: list[TargetView]

    @cached_property
    def asked_segments(self) -> list[int]:
        """Segments with targets; that of number s is answered by the module of stage s - 1."""
        return sorted({view.target.segment for view in self.views})

    def lessons_before(self, segment: int) -> list[Event]:
        """All answers of training users in the segments before this one."""
        users = set(self.split.train)
        past = (event for part in self.parts[: segment - 1] for event in part)
        return [event for event in past if event.user in users and event.response]


def make_plan(
    histories: Histories, logo: LogoSettings, seed: int, with_gate: bool, embedder: Any = None
) -> Plan:
    """Split, stages, targets and their views.

    Args:
        with_gate: fit users are asked too; otherwise they are only left out.

    Raises:
        InputError: too few users, times or answers for the settings.
    """
    task = histories.task
    split = split_users(histories, seed, test=logo.test_share, fit=logo.fit_share)
    parts = segments(histories.events, logo.segments)
    stages = make_stages(task, parts[:-1], split.train, logo, seed, embedder)
    last = range(logo.segments - logo.asked_segments + 1, logo.segments + 1)
    tested = _targets(histories, parts, split.test, TEST, last, logo, seed)
    if not tested:
        raise InputError(
            f"no test user has an answer in the last {len(last)} of {logo.segments} segments: take "
            "fewer segments, a larger test_share, or more users"
        )
    targets = _marked(tested, task)
    if with_gate:
        targets = targets + _fitting(histories, parts, split.fit, last, logo, seed)
    views = [
        TargetView(target, cut)
        for target in targets
        for cut in (None, *logo.cold)
        if cut is None or cut <= len(target.past)
    ]
    return Plan(task, split, parts, stages, views)


def _targets(
    histories: Histories,
    parts: Sequence[Sequence[Event]],
    users: Sequence[str],
    part: str,
    numbers: Sequence[int],
    logo: LogoSettings,
    seed: int,
) -> list[Target]:
    """At most `questions_per_user` of each user in each of the segments."""
    targets = []
    for number in numbers:
        answered: dict[str, list[Event]] = {user: [] for user in users}
        for event in parts[number - 1]:
            if event.user in answered and event.response:
                answered[event.user].append(event)
        for user in sorted(users):
            rng = random.Random(f"{seed}/{number}/{user}")
            for event in fair_draw(answered[user], logo.questions_per_user, rng):
                past = past_of(histories.of(user), event)
                targets.append(Target(event, part, number, past))
    return targets


def _fitting(
    histories: Histories,
    parts: Sequence[Sequence[Event]],
    users: Sequence[str],
    tested: Sequence[int],
    logo: LogoSettings,
    seed: int,
) -> list[Target]:
    """What fit users are asked: for each segment that is tested, the newest one before it in which
    they have answers. The first segment has no module that could be asked."""
    by_segment = {
        number: _targets(histories, parts, users, FIT, [number], logo, seed)
        for number in range(2, tested[-1])
    }
    answered = [number for number, targets in by_segment.items() if targets]
    newest = {max((n for n in answered if n < number), default=None) for number in tested}
    if newest == {None}:
        raise InputError(
            f"no fit user has an answer in segments 2 to {tested[-1] - 1}, from which the gate and "
            "the calibration learn: take fewer segments or a larger fit_share, or leave "
            "logo-gate, local-calibrated and global-calibrated out of --methods"
        )
    return [target for number in answered if number in newest for target in by_segment[number]]


def _marked(targets: Sequence[Target], task: Task) -> list[Target]:
    """The questions of test users, with `skewed` and `balanced`."""
    if task.labels is None:
        return list(targets)
    variety = [label_entropy(target.past, task.labels) for target in targets]
    most: dict[str, float] = {}
    for target, entropy in zip(targets, variety, strict=True):  # the last question knows most
        if sum(bool(event.response) for event in target.past) >= ENOUGH:
            most[target.event.user] = entropy
    skewed = set(sorted(most, key=lambda user: (most[user], user))[: -(-len(most) // 4)])
    length, middle = np.median([len(target.past) for target in targets]), np.median(variety)
    return [
        dataclasses.replace(
            target,
            skewed=target.event.user in skewed,
            balanced=bool(len(target.past) > length and entropy > middle),
        )
        for target, entropy in zip(targets, variety, strict=True)
    ]
