"""The built-in population: its truth can be recovered, and is what the module says."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from unswayed.core.errors import InputError
from unswayed.data.histories import label_entropy, load_histories, past_of, segments
from unswayed.data.histories.population import LABELS, NOISE_SD, TAGS, make_population


@pytest.fixture(scope="module")
def population():
    return load_histories("builtin")


def digest(spec: str) -> str:
    """In a fresh process with other hashes of texts."""
    code = (
        "import hashlib; from unswayed.data.histories import load_histories; "
        f"found = load_histories({spec!r}); "
        "print(hashlib.sha256(repr((found.events, found.truth)).encode()).hexdigest())"
    )
    env = {**os.environ, "PYTHONHASHSEED": "99"}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_same_seed_same_bytes_in_another_process():
    found = load_histories("builtin:users=20,seed=3")
    here = hashlib.sha256(repr((found.events, found.truth)).encode()).hexdigest()
    assert digest("builtin:users=20,seed=3") == here
    assert load_histories("builtin:users=20,seed=4").events != found.events


def test_defaults_of_the_spec(population):
    assert population == load_histories("builtin:users=120,seed=0") == make_population()
    assert len(set(population.truth["community"])) == 120


@pytest.mark.parametrize("spec", ["builtin:users=x", "builtin:people=9", "builtin:seed=-1"])
def test_unknown_options(spec):
    with pytest.raises(InputError, match="is not users=NUMBER or seed=NUMBER"):
        load_histories(spec)


def test_too_few_people():
    with pytest.raises(InputError, match="7 users are too few"):
        load_histories("builtin:users=7")


def taste(events) -> np.ndarray:
    """Per tag, deviations from the user's mean, shrunken by three events."""
    values = np.array([float(event.response) for event in events])
    deviations = [
        [v for v, e in zip(values, events, strict=True) if tag in e.about] for tag in TAGS
    ]
    return [sum(v - values.mean() for v in found) / (len(found) + 3) for found in deviations]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_skewed", [False, True])
def test_communities_are_recovered(seed, with_skewed):
    found = load_histories(f"builtin:seed={seed}")
    out = {*found.truth["cold"], *(() if with_skewed else found.truth["skewed"])}
    users = [user for user in found.users if user not in out]
    vectors = [taste(found.of(user)) for user in users]
    labels = KMeans(4, n_init=10, random_state=0).fit(vectors).labels_
    truth = [found.truth["community"][user] for user in users]
    assert adjusted_rand_score(truth, labels) >= 0.8


def test_planted_people_are_alike_in_all_communities(population):
    for role in ("cold", "skewed"):
        of = [population.truth["community"][user] for user in population.truth[role]]
        assert np.bincount(of).tolist() == [4, 4, 4, 4]


def test_cold_people_come_late_and_little_is_known(population):
    last = segments(population.events, 4)[-1][0].time
    histories = [population.of(user) for user in population.truth["cold"]]
    sittings = [[e for e in history if e.time == history[-1].time] for history in histories]
    assert all(len(sitting) == 8 and sitting[0].time >= last for sitting in sittings)
    knowns = {
        len(past_of(h, event)) for h, s in zip(histories, sittings, strict=True) for event in s
    }
    assert knowns == {0, 1, 2, 3}


def test_skewed_people_have_a_habit_and_then_answer_as_their_community(population):
    truth, by_hand = population.truth, []
    others = [u for u in population.users if u not in {*truth["cold"], *truth["skewed"]}]
    least = min(label_entropy(population.of(user), LABELS) for user in others)
    for user in truth["skewed"]:
        history = population.of(user)
        past = past_of(history, history[-1])
        share = np.mean([event.response == truth["habit"][user] for event in past])
        assert 12 <= len(past) <= 20 and share >= 0.75
        assert label_entropy(past, LABELS) < least
        by_hand += [
            (float(event.response), float(truth["habit"][user]), truth["expected"][event.id])
            for event in history[len(past) :]
        ]
    answers, habits, expected = np.array(by_hand).T
    assert np.abs(answers - expected).mean() < 0.6 < 1.2 < np.abs(answers - habits).mean()


def test_answers_are_the_truth_and_noise(population):
    """Off the ends of the scale and the selected histories, errors are noise and rounding."""
    truth = population.truth
    errors = [
        float(event.response) - truth["expected"][event.id]
        for event in population.events
        if event.user not in truth["skewed"] and 2 < truth["expected"][event.id] < 4
    ]
    assert np.mean(errors) == pytest.approx(0, abs=0.03)
    assert np.std(errors) == pytest.approx((NOISE_SD**2 + 1 / 12) ** 0.5, abs=0.03)
    assert set(truth["expected"]) == {event.id for event in population.events}


def test_tastes_drift(population):
    """Of each community, the new favourite gains and the old one loses between first and last."""
    parts = segments(population.events, 4)
    community = population.truth["community"]

    def mean(part, c, tag):
        return np.mean([
            float(e.response) for e in part if community[e.user] == c and tag in e.about
        ])  # fmt: skip

    gained, lost, steady = [], [], []
    for c, tastes in enumerate(population.truth["tastes"]):
        for tag, (early, late) in tastes.items():
            group = gained if late > early else lost if late < early else steady
            group.append(mean(parts[-1], c, tag) - mean(parts[0], c, tag))
    assert (len(gained), len(lost)) == (4, 4)
    assert np.mean(gained) > np.mean(steady) + 0.4 > np.mean(lost) + 0.8
    assert np.mean(steady) > 0.2  # the population's level


def test_no_dish_comes_twice_to_one_person(population):
    for user in population.users:
        things = [event.thing for event in population.of(user)]
        assert len(set(things)) == len(things)
