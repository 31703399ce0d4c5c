"""The simple strong baseline: means of users and of things, shrunken. No model.

For a scale, b_i = sum (y - m) / (n_i + K_THING) over a thing's answers and b_u = sum (y - m - b_i)
/ (n_u + K_USER) over a user's; the prediction is m + b_i + b_u (Koren 2010, ACM TKDD 4, section
2.1), m being the mean of all. For other labels, a user's counts and a thing's are each filled up
with K answers of the next wider group, user <- thing <- population: p = (counts + K p_wider) /
(n + K).
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from unswayed.core.errors import InputError
from unswayed.data.histories.events import Event, Task

K_THING, K_USER = 5.0, 5.0


@dataclasses.dataclass(frozen=True)
class Means:
    """What is known of the population.

    Attributes:
        task: with labels.
        population: (1,) mean value, or (L,) shares of the labels.
        things: thing -> its deviation from it (1,), shrunken; or its shares (L,).
    """

    task: Task
    population: np.ndarray
    things: Mapping[str, np.ndarray]

    def value(self, past: Iterable[Event], event: Event) -> float:
        """Expected number on an ordinal task's scale, within its ends."""
        total, n = 0.0, 0
        for earlier in past:
            if earlier.response:
                total += float(earlier.response) - self._of(earlier)
                n += 1
        scale = [float(label) for label in self.task.labels]
        return float(np.clip(self._of(event) + total / (n + K_USER), min(scale), max(scale)))

    def shares(self, past: Iterable[Event], event: Event) -> np.ndarray:
        """(L,) probabilities of the labels, for tasks that are not ordinal."""
        counts = _counts(past, self.task.labels)
        wider = self.things.get(event.thing, self.population)
        return (counts + K_USER * wider) / (counts.sum() + K_USER)

    def label(self, past: Iterable[Event], event: Event) -> str:
        """The nearest label of the scale, or the likeliest label; the first of equal ones."""
        if self.task.ordinal:
            value = self.value(past, event)
            return min(self.task.labels, key=lambda label: abs(float(label) - value))
        return self.task.labels[int(self.shares(past, event).argmax())]

    def _of(self, event: Event) -> float:
        return float(self.population[0] + self.things.get(event.thing, np.zeros(1))[0])


def fit_means(train: Iterable[Event], task: Task) -> Means:
    """Means of the training users' events, all before the questions that will be asked.

    Raises:
        InputError: the task has no labels, or there are no events.
    """
    if task.labels is None:
        raise InputError(f"{task.name}: responses are free text, which has no means")
    train = [event for event in train if event.response]
    if not train:
        raise InputError(f"{task.name}: no answers to take means of")
    of_thing = defaultdict(list)
    for event in train:
        if event.thing:
            of_thing[event.thing].append(event)
    if task.ordinal:
        values = [float(event.response) for event in train]
        population = np.array([sum(values) / len(values)])
        things = {
            thing: sum(float(event.response) - population for event in events)
            / (len(events) + K_THING)
            for thing, events in of_thing.items()
        }
    else:
        counts = _counts(train, task.labels)
        population = counts / counts.sum()
        things = {
            thing: (_counts(events, task.labels) + K_THING * population) / (len(events) + K_THING)
            for thing, events in of_thing.items()
        }
    return Means(task, population, things)


def _counts(events: Iterable[Event], labels: tuple[str, ...]) -> np.ndarray:
    place = {label: i for i, label in enumerate(labels)}
    places = [place[event.response] for event in events if event.response]
    return np.bincount(places, minlength=len(labels)).astype(float)
