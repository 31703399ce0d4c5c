"""Communities: users of similar taste, found by clustering, and how a user is placed in them.

What an event tells of its user's taste is measured on coordinates of one of four kinds:

tags
    For labels on a scale, if events have tags. On each tag of the event: its value less the user's
    mean, where that mean is itself drawn towards the population's by SHRINK events; on "level": the
    value less the population's mean. Both in standard deviations of the population's values.
labels
    For other closed labels, and on a scale without tags. On each label: 1 if the event has it, else
    0, less the population's share.
topics
    For free text with tags. The same with the tags in place of labels: what the user deals with.
embedding
    If an embedder is given, whatever the task. The embedding of query and response, less the
    population's mean.

With n_j events that tell of coordinate j, m_j the mean of what they tell and
a_j = n_j / (n_j + SHRINK), the user's taste is the vector v_j = a_j m_j: little evidence stays near
0, the population. K-means clusters the vectors, each user with the weight of their evidence, the
mean of a_j; else users of whom little is known would be a community of their own. A centre is
mu_cj = sum of v_j / sum of a_j over its members. A user is placed by

    p(c) ~ share_c exp(-sum over j of (m_j - mu_cj)^2 / (2 s^2 (1 + r / n_j))),

a normal density per coordinate: s^2 is how members of a community differ, r s^2 the noise of one
event. A coordinate that nothing is known of has no say. As coordinates are not independent, neither
is computed from variances: s^2, and r out of NOISE, are those that make the communities of the
clustered users most likely, given the starts of their histories. With no events, p is the shares.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax, softmax

from unswayed.core.errors import InputError
from unswayed.data.histories import Event, Task
from unswayed.display.numbers import listed
from unswayed.logo.local import NAMED, SHRINK

log = logging.getLogger(__name__)

COMMUNITIES = "communities.json"  # the file in which a global memory keeps them
VERBS = {"tags": "likes", "labels": "answers", "topics": "deals with"}
NOISE = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # r: noise of an event against differences of members
MARKED = 0.05  # standard deviations or shares by which a community that is described must differ


class Measured(NamedTuple):
    """What events tell, per coordinate.

    Attributes:
        counts: (D,) n_j, how many tell of it.
        means: (D,) m_j, the mean of what they tell; 0 where none do.
    """

    counts: np.ndarray
    means: np.ndarray

    def weights(self, noise: float = SHRINK) -> np.ndarray:
        """(D,) n / (n + noise): from 0, no event, towards 1."""
        return self.counts / (self.counts + noise)


@dataclasses.dataclass(frozen=True, eq=False)
class Taste:
    """What is measured, and the population that it is measured against.

    Attributes:
        kind: "tags", "labels", "topics" or "embedding".
        names: the tags or labels; the level, last coordinate of "tags", has no name.
        origin: the population's shares (as many as names) or mean embedding; of "tags" (1,), the
            mean value.
        spread: standard deviation of the population's values; 1 unless "tags".
        embedder: has `embed(texts)`.
    """

    kind: str
    names: tuple[str, ...]
    origin: np.ndarray
    spread: float = 1.0
    embedder: Any = None

    def rows(self, events: Sequence[Event]) -> np.ndarray:
        """(n, .) what each event holds: its value, and 0 or 1 per tag; or 0 or 1 per name; or its
        embedding. Events without a response are left out where it is the response that counts."""
        if self.kind == "embedding":
            if self.embedder is None:
                raise InputError("these communities were found by embeddings: give the embedder")
            return self.embedder.embed(
                [" ".join(filter(None, (event.query, event.response))) for event in events]
            )
        if self.kind == "topics":
            return _indicators([event.about for event in events], self.names)
        answered = [event for event in events if event.response]
        if self.kind == "labels":
            return _indicators([(event.response,) for event in answered], self.names)
        values = np.array([float(event.response) for event in answered])
        return np.column_stack(
            [values, _indicators([event.about for event in answered], self.names)]
        )

    def measured(self, rows: np.ndarray) -> Measured:
        """What some rows tell together."""
        n = len(rows)
        if self.kind != "tags":
            counts = np.full(len(self.origin), n)
            return Measured(counts, (rows - self.origin).sum(axis=0) / max(n, 1))
        values, held = rows[:, 0], rows[:, 1:]
        mean = (values.sum() + SHRINK * self.origin[0]) / (n + SHRINK)
        counts = np.append(held.sum(axis=0), n)
        sums = np.append((values - mean) @ held, (values - self.origin[0]).sum())
        return Measured(counts, sums / np.maximum(counts, 1) / self.spread)


def measure(
    histories: Sequence[Sequence[Event]], task: Task, embedder: Any = None
) -> tuple[Taste, list[np.ndarray]]:
    """The measurement that a task and its events allow, and the rows of each history.

    In the population, each event weighs the same.
    """
    events = [event for history in histories for event in history]
    tags = tuple(sorted({tag for event in events for tag in event.about}))
    if embedder is not None:
        kind, names = "embedding", ()
    elif task.ordinal and tags and any(event.response for event in events):
        kind, names = "tags", tags
    elif task.labels is not None:
        kind, names = "labels", task.labels
    else:
        kind, names = "topics", tags
    bare = Taste(kind, names, np.zeros(0), 1.0, embedder)
    rows = [bare.rows(history) for history in histories]
    together = np.vstack(rows)
    origin, spread = together.sum(axis=0) / max(len(together), 1), 1.0
    if kind == "tags":
        origin, spread = origin[:1], float(together[:, 0].std()) or 1.0
    return dataclasses.replace(bare, origin=origin, spread=spread), rows


def taste_vectors(taste: Taste, rows: Sequence[np.ndarray]) -> np.ndarray:
    """(U, D) the vectors v of users, from what `measure` gave; see the formulas above."""
    return _vectors([taste.measured(row) for row in rows])


# -- communities ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Communities:
    """K communities, the largest first.

    Attributes:
        taste: how users are measured.
        centres: (K, D) mu.
        shares: (K,) of the users clustered.
        scale, noise: s^2 and r, see above.
        descriptions: a text about a member of each; names no user.
    """

    taste: Taste
    centres: np.ndarray
    shares: np.ndarray
    scale: float
    noise: float
    descriptions: tuple[str, ...]

    def place(self, events: Sequence[Event]) -> np.ndarray:
        """(K,) probabilities that a user belongs to each, from the events known of them.

        Raises:
            InputError: the communities were found by embeddings, and there is no embedder.
        """
        if len(self.shares) == 1 or not events:
            return self.shares.copy()
        measured = self.taste.measured(self.taste.rows(events))
        distances = _distances(measured, self.centres, self.noise)
        return softmax(np.log(self.shares) - distances / (2 * self.scale))

    def nearest(self, events: Sequence[Event]) -> int:
        """The likeliest community, from 0; see `place`."""
        return int(np.argmax(self.place(events)))

    def as_json(self) -> dict[str, Any]:
        """The communities as JSON values; the embedder is left out."""
        return {
            "kind": self.taste.kind,
            "names": list(self.taste.names),
            "origin": self.taste.origin.tolist(),
            "spread": self.taste.spread,
            "centres": self.centres.tolist(),
            "shares": self.shares.tolist(),
            "scale": self.scale,
            "noise": self.noise,
            "descriptions": list(self.descriptions),
        }

    @classmethod
    def from_json(cls, d: Mapping[str, Any], embedder: Any = None) -> Communities:
        """The communities that `as_json` gave; `embedder` if they were found by embeddings."""
        names, origin = tuple(d["names"]), np.array(d["origin"])
        return cls(
            taste=Taste(d["kind"], names, origin, d["spread"], embedder),
            centres=np.array(d["centres"]),
            shares=np.array(d["shares"]),
            scale=d["scale"],
            noise=d["noise"],
            descriptions=tuple(d["descriptions"]),
        )


def find_communities(
    histories_by_user: Mapping[str, Sequence[Event]],
    task: Task,
    k: int,
    seed: int,
    embedder: Any = None,
) -> Communities:
    """K-means on taste vectors (scikit-learn, 10 starts); the users' order does not matter.

    Where fewer than k users differ from each other in taste there are fewer communities, and a
    warning: one, if nothing tells users apart.

    Args:
        histories_by_user: user -> events in the order of time; users without events are left out.
        k: number of communities; 1 for none, only the population.
        embedder: has `embed(texts)`; see above.

    Raises:
        InputError: k is below 1, or there are fewer users than k.
    """
    histories = {user: events for user, events in sorted(histories_by_user.items()) if events}
    if not 1 <= k <= len(histories):
        raise InputError(
            f"{k} communities of {len(histories)} users with a history: ask for at least one "
            "community, and for no more than there are users"
        )
    past = list(histories.values())
    taste, rows = measure(past, task, embedder)
    users = [taste.measured(row) for row in rows]
    different = len(np.unique(_vectors(users).round(9), axis=0))
    if k > different:
        log.warning(
            "only %d of %d communities: nothing more tells the tastes of %d users apart",
            *(different, k, len(users)),
        )
        k = different
    members = _clusters(users, k, seed)
    centres = _centres(users, members)
    shares = np.bincount(members) / len(members)
    scale, noise = _spread(taste, rows, members, centres, shares) if k > 1 else (1.0, SHRINK)
    counted = (taste, rows) if embedder is None else measure(past, task)
    descriptions = _describe(past, task, members, *counted)
    return Communities(taste, centres, shares, scale, noise, descriptions)


def _clusters(measured: Sequence[Measured], k: int, seed: int) -> np.ndarray:
    """(U,) the community of each user, 0 the largest; of equals the one with the first user."""
    from sklearn.cluster import KMeans

    if k == 1:
        return np.zeros(len(measured), dtype=int)
    evidence = [user.weights().mean() for user in measured]
    members = KMeans(k, n_init=10, random_state=seed).fit_predict(
        _vectors(measured), None, evidence
    )
    # Once more, by the distance that users are placed by: what is not known of them has no say.
    centres = _centres(measured, members)
    nearest = np.array([_distances(user, centres).argmin() for user in measured])
    if len(np.unique(nearest)) == k:
        members = nearest
    _, first, place, sizes = np.unique(
        members, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.argsort(np.lexsort((first, -sizes)))
    return rank[place]


def _vectors(measured: Sequence[Measured]) -> np.ndarray:
    return np.array([user.weights() * user.means for user in measured])


def _centres(measured: Sequence[Measured], members: np.ndarray) -> np.ndarray:
    """(K, D) means of what is told of the members, by their evidence; 0 where there is none."""
    weights = np.array([user.weights() for user in measured])
    sums = [
        (_vectors(measured)[members == c].sum(axis=0), weights[members == c].sum(axis=0))
        for c in range(members.max() + 1)
    ]
    return np.array([total / np.where(weight > 0, weight, 1) for total, weight in sums])


def _distances(measured: Measured, centres: np.ndarray, noise: float = SHRINK) -> np.ndarray:
    """(K,) squared distances of what is told from the centres, by the weight of what is told."""
    return (measured.means - centres) ** 2 @ measured.weights(noise)


def _spread(
    taste: Taste,
    rows: Sequence[np.ndarray],
    members: np.ndarray,
    centres: np.ndarray,
    shares: np.ndarray,
) -> tuple[float, float]:
    """s^2 and r: those of the highest likelihood of each user's community, given the first 1, 2,
    4, ... events of the first half of their history."""
    from scipy.optimize import minimize_scalar

    starts, truth = [], []
    for user, member in zip(rows, members, strict=True):
        size = 1
        while size <= max(1, len(user) // 2):
            starts.append(taste.measured(user[:size]))
            truth.append(member)
            size *= 2

    def best(noise: float) -> tuple[float, float, float]:
        """The surprise (nats) with this r and the best s^2, and the two."""
        distances = np.array([_distances(start, centres, noise) for start in starts])

        def surprise(log_scale: float) -> float:
            logits = np.log(shares) - distances / (2 * np.exp(log_scale))
            return -float(log_softmax(logits, axis=1)[np.arange(len(truth)), truth].mean())

        optimum = minimize_scalar(surprise, bounds=(-15, 15), method="bounded")
        return float(optimum.fun), float(np.exp(optimum.x)), noise

    _, scale, noise = min(map(best, NOISE))
    return scale, noise


# -- in words ------------------------------------------------------------------------------------


def _describe(
    histories: Sequence[Sequence[Event]],
    task: Task,
    members: np.ndarray,
    taste: Taste,
    rows: Sequence[np.ndarray],
) -> tuple[str, ...]:
    """A text for each community, from what can be counted (no embeddings).

    Communities whose texts would be the same are numbered.
    """
    vectors = taste_vectors(taste, rows)
    verb, mean = VERBS[taste.kind], vectors.mean(axis=0)
    texts = []
    for c in range(members.max() + 1):
        differs = vectors[members == c].mean(axis=0) - mean
        more, less = _marked(taste.names, differs), _marked(taste.names, -differs)
        # A causal model reads a name once: whether it is liked has to stand before it.
        parts = [f"more than most {verb} {listed(more)}"] if more else []
        parts += [f"less than most {verb} {listed(less)}"] if less else []
        member_histories = [
            events for events, member in zip(histories, members, strict=True) if member == c
        ]
        parts += _level(member_histories, task)
        texts.append(f"A person who {listed(parts) if parts else 'is like most'}.")
    numbered = (
        f"{text} Group {c}." if texts.count(text) > 1 else text for c, text in enumerate(texts, 1)
    )
    return tuple(numbered)


def _marked(names: Sequence[str], values: np.ndarray) -> list[str]:
    """The NAMED names of the largest values, if at least MARKED; the largest first."""
    best = np.argsort(-values[: len(names)], kind="stable")[:NAMED]
    return [names[i] for i in best if values[i] >= MARKED]


def _level(histories: Sequence[Sequence[Event]], task: Task) -> list[str]:
    """The mean value that is given, in words; nothing if labels are no numbers."""
    if not task.ordinal:
        return []
    values = [float(event.response) for events in histories for event in events if event.response]
    return [f"gives {np.mean(values):.1f} on average"] if values else []


def _indicators(rows: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray:
    """(n, D) 1 where the row holds the name, else 0; other names, not seen before, are ignored."""
    place = {name: i for i, name in enumerate(names)}
    held = np.zeros((len(rows), len(names)))
    for i, row in enumerate(rows):
        held[i, [place[name] for name in row if name in place]] = 1
    return held
