"""The built-in population: invented people who taste invented dishes, with the truth about them.

A person of community c gives dish i at time s, from 0 at the beginning to 1 at the end, the points

    expected = LEVEL + DRIFT (s - 1/2) + level_u + quality_i + sum over the dish's two tags of
               ((1 - s) early_c[tag] + s late_c[tag] + quirk_u[tag])

plus noise, rounded and kept within 1 to 5. early_c and late_c are +1 for the tags that a community
likes and -1 for those it dislikes; in late_c one liked tag has become indifferent and one
indifferent tag liked.

Most people come again and again over the whole time. Two planted groups come again only late, in
one sitting whose dishes all have one time, so that no answer of it is known to another:

* cold people have 0 to 3 events before their sitting;
* skewed people have 12 to 20, nearly all with the same label, their habit. Nothing is falsified:
  of all dishes that they tried, they tell mostly of those that came to that label. In the sitting
  they answer about whatever dishes, by the formula above, as everybody does.

So a cold or skewed person's late answers follow the community, and not their own short or one-sided
history.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from unswayed.core.errors import InputError
from unswayed.data.histories.events import Event, Histories, Task, make_histories

N_COMMUNITIES = 4
TAGS = (
    "smoky", "sour", "crunchy", "sweet", "creamy", "fruity", "spicy", "salty", "garlicky",
    "bitter", "herbal", "earthy",
)  # fmt: skip
FIRST_WORDS = (
    "Lantern", "Harbour", "Thimble", "Meadow", "Copper", "Winter", "Pebble", "Orchard",
    "Marble", "Comet", "Velvet", "Canyon", "Feather", "Island", "Juniper", "Market",
)  # fmt: skip
LAST_WORDS = (
    "stew", "dumplings", "pie", "noodles", "salad", "soup", "skewers", "pancakes", "rice",
    "rolls", "curry", "fritters", "bake", "wraps", "porridge",
)  # fmt: skip
LABELS = ("1", "2", "3", "4", "5")
TASK = Task(
    "builtin",
    "How many points, from 1 to 5, does this person give the dish?",
    LABELS,
    ordinal=True,
    noun="dish",
)

LEVEL, DRIFT = 3.1, 0.6  # points
LEVEL_SD, QUALITY_SD, QUIRK_SD, NOISE_SD = 0.3, 0.3, 0.3, 0.5  # points
DAYS, EARLY, LATE = 1000.0, 750.0, 850.0  # planted people: first visits before EARLY, sitting after
SITTING = 8  # dishes
COLD_SHARE, SKEWED_SHARE = 0.15, 0.15
HABITS = ("5", "2")
HABIT_SHARE = 0.92  # of a skewed person's early events have the habitual label


def parse(spec: str) -> Histories:
    """The population of "builtin" or "builtin:users=120,seed=0".

    Raises:
        InputError: unknown option, or a value that is no whole number.
    """
    options = {"users": 120, "seed": 0}
    for option in filter(None, spec.removeprefix("builtin").removeprefix(":").split(",")):
        name, _, value = option.partition("=")
        if name not in options or not value.isdecimal():
            raise InputError(
                f"histories {spec!r}: {option!r} is not users=NUMBER or seed=NUMBER, as in "
                "builtin:users=120,seed=0"
            )
        options[name] = int(value)
    return make_population(**options)


def make_population(users: int = 120, seed: int = 0) -> Histories:
    """Histories of so many people in four communities of equal size; same seed, same bytes.

    Returns:
        With `truth`: `community` (user -> 0 to 3), `cold` and `skewed` (users), `habit` (skewed
        user -> label), `tastes` (per community, tag -> (early, late) liking in points) and
        `expected` (event's id -> points without noise, kept within 1 to 5).

    Raises:
        InputError: fewer than 8 people.
    """
    if users < 8:
        raise InputError(f"builtin: {users} users are too few for four communities; give 8 or more")
    rng = np.random.default_rng(seed)
    dishes = _dishes(rng)
    tastes = _tastes()
    names = [f"u{number:0{len(str(users))}d}" for number in range(1, users + 1)]
    community = rng.permutation(np.arange(users) % N_COMMUNITIES).tolist()
    cold, skewed = _planted(community, rng)
    habit = {names[i]: HABITS[n % len(HABITS)] for n, i in enumerate(skewed)}
    visits: dict[int, tuple[int, bool]] = {i: (n % 4, True) for n, i in enumerate(cold)}
    visits |= {i: (int(rng.integers(12, 21)), True) for i in skewed}

    events: list[Event] = []
    expected: dict[str, float] = {}
    for i, name in enumerate(names):
        early, sitting = visits.get(i) or (int(rng.integers(10, 61)), False)
        times = np.sort(rng.uniform(0, EARLY if sitting else DAYS, early))
        if sitting:
            times = np.append(times, np.full(SITTING, rng.uniform(LATE, DAYS)))
        labels = [
            habit.get(name) if number < early and rng.random() < HABIT_SHARE else None
            for number in range(len(times))
        ]
        for event, points in _history(name, times, labels, tastes[community[i]], dishes, rng):
            events.append(event)
            expected[event.id] = points
    truth = {
        "community": dict(zip(names, community, strict=True)),
        "cold": tuple(names[i] for i in cold),
        "skewed": tuple(names[i] for i in skewed),
        "habit": habit,
        "tastes": [
            {tag: tuple(column) for tag, column in zip(TAGS, taste.T.tolist(), strict=True)}
            for taste in tastes
        ],
        "expected": expected,
    }
    return make_histories(TASK, (("builtin", event) for event in events), truth)


class Dish(NamedTuple):
    """What is tasted."""

    name: str
    tags: tuple[int, int]  # places in TAGS
    quality: float  # points


def _dishes(rng: np.random.Generator) -> list[Dish]:
    """Every first word with every last word."""
    pairs = list(combinations(range(len(TAGS)), 2))
    names = [f"{first} {last}" for first, last in product(FIRST_WORDS, LAST_WORDS)]
    drawn = rng.integers(len(pairs), size=len(names))
    quality = rng.normal(0, QUALITY_SD, len(names))
    return [
        Dish(name, pairs[i], float(q)) for name, i, q in zip(names, drawn, quality, strict=True)
    ]


def _tastes() -> np.ndarray:
    """(communities, 2, tags) liking early and late, in points.

    The tags are four groups of three. Community c likes group c and dislikes the next; of the one
    after that, it comes to like the first tag, while it grows tired of the last one of its own.
    """
    tastes = np.zeros((N_COMMUNITIES, 2, len(TAGS)))
    groups = np.arange(len(TAGS)).reshape(N_COMMUNITIES, -1)
    for c in range(N_COMMUNITIES):
        tastes[c, :, groups[c]] = 1.0
        tastes[c, :, groups[(c + 1) % N_COMMUNITIES]] = -1.0
        tastes[c, 1, groups[c][-1]] = 0.0
        tastes[c, 1, groups[(c + 2) % N_COMMUNITIES][0]] = 1.0
    return tastes


def _planted(community: list[int], rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Which people are cold and which are skewed: the same shares of every community."""
    cold: list[int] = []
    skewed: list[int] = []
    for c in range(N_COMMUNITIES):
        members = rng.permutation([i for i, other in enumerate(community) if other == c]).tolist()
        n_cold, n_skewed = round(COLD_SHARE * len(members)), round(SKEWED_SHARE * len(members))
        cold += members[:n_cold]
        skewed += members[n_cold : n_cold + n_skewed]
    return sorted(cold), sorted(skewed)


def _history(
    name: str,
    times: np.ndarray,
    labels: list[str | None],
    taste: np.ndarray,
    dishes: list[Dish],
    rng: np.random.Generator,
) -> Iterator[tuple[Event, float]]:
    """Each event of one person with its points without noise; no dish comes twice.

    Args:
        times: (n,) sorted.
        labels: per event, the label that a dish must come to so that the person tells of it.
        taste: (2, tags) of the community, early and late.
    """
    level = LEVEL + rng.normal(0, LEVEL_SD)
    quirk = rng.normal(0, QUIRK_SD, len(TAGS))
    untried = rng.permutation(len(dishes)).tolist()
    for number, (time, habit) in enumerate(zip(times.tolist(), labels, strict=True), start=1):
        s = time / DAYS
        liking = (1 - s) * taste[0] + s * taste[1] + quirk
        for place in untried:
            dish = dishes[place]
            points = level + DRIFT * (s - 0.5) + dish.quality + liking[list(dish.tags)].sum()
            label = str(int(np.clip(np.rint(points + rng.normal(0, NOISE_SD)), 1, 5)))
            if habit in (None, label):
                break
        untried.remove(place)
        about = tuple(TAGS[tag] for tag in dish.tags)
        query = f"{dish.name}, a dish that is {' and '.join(about)}"
        event = Event(name, time, query, label, about, f"dish-{place + 1}", f"{name}/{number}")
        yield event, float(np.clip(points, 1, 5))
