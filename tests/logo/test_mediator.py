"""Mediators: mixtures by hand, properties, and a gate that must find what was planted."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from unswayed.core.errors import InputError
from unswayed.data.histories import Event, Task
from unswayed.logo.calibration import (
    FLOOR,
    Calibration,
    calibration_loss,
    contextual,
    fit_calibration,
)
from unswayed.logo.mediator import (
    EQUAL,
    HistoryFacts,
    LearnedMediator,
    MediatorRow,
    equal,
    features,
    fit_mediator,
    hint,
    mediator_data,
    mixture,
    observations,
    penalised_loss,
    shrinkage,
)

STARS = Task("stars", "How many stars?", ("1", "2", "3", "4", "5"), ordinal=True, noun="film")
GENRES = Task("genres", "Which genre?", ("drama", "comedy"), ordinal=False)


@st.composite
def pairs(draw, smallest=0.0):
    """Two distributions over the same labels, zeros and certainties among them."""
    size = draw(st.integers(1, 6))
    masses = st.lists(st.floats(smallest, 1), min_size=size, max_size=size)
    both = [np.array(draw(masses.filter(lambda m: sum(m) > 1e-3))) for _ in range(2)]
    return [p / p.sum() for p in both]


def floored(p):
    p = np.maximum(p, FLOOR)
    return p / p.sum()


# -- mixtures ------------------------------------------------------------------------------------


def test_what_a_history_is_worth():
    task = Task("t", "?", ("1", "2", "3", "4"), ordinal=True)
    events = [Event("a", i, "q", label) for i, label in enumerate("112233441111")]
    assert observations(events[:8], task, 6) == pytest.approx(6)  # all labels alike
    assert observations(events[:2], task, 6) == 0  # one label
    assert observations(events[:4], task, 6) == pytest.approx(4 * np.log(2) / np.log(4))
    assert observations((), task, 6) == 0
    assert observations(events, dataclasses.replace(task, labels=None), 5) == 5


def test_shrinkage_by_hand():
    """n = 5 against k = 5: the normalised geometric mean of 0.9, 0.1 and 0.5, 0.5."""
    found = shrinkage(np.array([0.9, 0.1]), np.array([0.5, 0.5]), n=5)
    up, down = math.sqrt(0.9 * 0.5), math.sqrt(0.1 * 0.5)
    assert found.probabilities == pytest.approx([up / (up + down), down / (up + down)])
    assert found.weight_global == 0.5
    # n = 3, k = 1: g = 1/4; 0.8^0.75 0.2^0.25 : 0.2^0.75 0.8^0.25 = 2 : 1.
    found = shrinkage(np.array([0.8, 0.2]), np.array([0.2, 0.8]), n=3, k=1.0)
    assert found.probabilities == pytest.approx([2 / 3, 1 / 3])
    assert found.weight_global == 0.25


@given(pairs(), st.floats(0, 1), st.floats(0.1, 5))
def test_a_mixture_is_a_distribution_and_does_not_depend_on_the_order_of_labels(both, g, tau):
    one, other = both
    found = mixture(one, other, g, tau)
    assert found.shape == one.shape
    assert np.all(found >= 0) and found.sum() == pytest.approx(1)
    order = np.arange(len(one))[::-1]
    assert mixture(one[order], other[order], g, tau)[order] == pytest.approx(found)
    assert mixture(other, one, 1 - g, tau) == pytest.approx(found)


@given(pairs())
def test_all_weight_on_a_side_gives_that_side(both):
    one, other = both
    assert mixture(one, other, 0.0) == pytest.approx(floored(one), abs=1e-12)
    assert mixture(one, other, 1.0) == pytest.approx(floored(other), abs=1e-12)
    assert mixture(one, one, 0.3) == pytest.approx(floored(one), abs=1e-12)


@given(pairs(), st.integers(0, 10_000), st.floats(0.01, 100))
def test_shrinkage_moves_from_everyone_to_the_user(both, n, k):
    found = shrinkage(*both, n, k)
    assert 0 <= found.weight_global <= 1
    assert shrinkage(*both, n + 1, k).weight_global < found.weight_global
    nobody = shrinkage(*both, 0, k)
    assert nobody.weight_global == 1.0
    assert nobody.probabilities == pytest.approx(floored(both[1]), abs=1e-12)


@given(pairs())
def test_equal_weights(both):
    found = equal(*both)
    assert found.weight_global == 0.5
    assert found.probabilities == pytest.approx(mixture(*both, 0.5))


def test_sides_that_rule_out_each_other_leave_a_distribution():
    found = equal(np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])).probabilities
    assert found[:2] == pytest.approx([0.5, 0.5], abs=2e-3)
    assert 0 < found[2] < 2e-3


@pytest.mark.parametrize(
    "one, other",
    [
        ([0.5, 0.5], [1.0]),
        ([], []),
        ([0.5, 0.6], [0.5, 0.5]),
        ([float("nan"), 1.0], [0.5, 0.5]),
        ([1.5, -0.5], [0.5, 0.5]),
        ([[0.5, 0.5]], [[0.5, 0.5]]),
    ],
)
def test_what_is_no_distribution_is_refused(one, other):
    with pytest.raises(InputError, match="distribution"):
        equal(np.array(one), np.array(other))


@pytest.mark.parametrize("n, k", [(-1, 5.0), (3, 0.0), (3, float("nan"))])
def test_impossible_counts_are_refused(n, k):
    with pytest.raises(InputError, match=f"n = {n} and k = {k}"):
        shrinkage(np.array([0.5, 0.5]), np.array([0.5, 0.5]), n, k)


# -- hint ----------------------------------------------------------------------------------------


def test_hint_names_the_two_most_probable_labels():
    p = np.array([0.02, 0.03, 0.25, 0.62, 0.08])
    assert hint(p, STARS.labels, STARS) == (
        "People with a similar taste would give 4 (62 %) or 3 (25 %)."
    )
    assert hint(np.array([0.5, 0.5]), GENRES.labels, GENRES) == (
        "People with a similar taste would answer drama (50 %) or comedy (50 %)."
    )
    assert hint(np.array([0.001, 0.999]), GENRES.labels, GENRES) == (
        "People with a similar taste would answer comedy (100 %)."
    )


def test_a_hint_in_free_text_claims_no_probability():
    task = Task("titles", "Which title?", None, ordinal=False, noun="article")
    texts = ("On boats", "Kettles")
    assert hint(np.array([0.2, 0.8]), texts, task) == (
        "People with a similar taste would write: Kettles"
    )
    assert "%" not in hint(np.ones(1), ["On boats"], task)


# -- calibration ---------------------------------------------------------------------------------


def test_contextual_calibration_by_hand():
    """0.6 : 0.4 over 0.75 : 0.25 is 0.8 : 1.6."""
    found = contextual(np.array([0.6, 0.4]), np.array([0.75, 0.25]))
    assert found == pytest.approx([1 / 3, 2 / 3])


@given(pairs())
def test_what_has_no_content_says_nothing(both):
    p, free = both
    assert contextual(free, free) == pytest.approx(np.full(len(p), 1 / len(p)))
    assert contextual(p, np.full(len(p), 1 / len(p))) == pytest.approx(floored(p))


def test_a_calibration_by_hand():
    """0.25 : 0.75 squared is 1 : 9; with log 9 on the first label both are as likely."""
    found = Calibration(2.0, (math.log(9), 0.0), True).of(np.array([0.25, 0.75]))
    assert found == pytest.approx([0.5, 0.5])
    with pytest.raises(InputError, match="same labels"):
        Calibration(1.0, (0.0, 0.0), True).of(np.ones(3) / 3)


def biased(seed: int, n: int = 3000) -> tuple[list[np.ndarray], list[int], list[str]]:
    """A side that knows the truth, but squares it and likes label 0 by 2 nats."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet(np.full(4, 1.0), n)
    raw = floored_rows(truth**2 * np.exp([2.0, 0, 0, 0]))
    answers = [int(rng.choice(4, p=p)) for p in truth]
    return list(raw), answers, [str(i % 300) for i in range(n)]


def floored_rows(raw: np.ndarray) -> np.ndarray:
    return np.array([floored(row / row.sum()) for row in raw])


def test_a_side_with_a_favourite_label_is_corrected():
    """The right slope is 1/2, the right bias of label 0 lower than the others by 1 nat."""
    found = fit_calibration(*biased(0), l2=1e-4)
    assert found.converged and found.slope == pytest.approx(0.5, abs=0.05)
    assert np.array(found.biases) - found.biases[0] == pytest.approx([0, 1, 1, 1], abs=0.25)
    sides, answers, _ = biased(1)  # others, drawn alike
    before, after = (
        -np.mean([math.log(p[a]) for p, a in zip(rows, answers, strict=True)])
        for rows in (sides, map(found.of, sides))
    )
    assert after < before - 0.3


def test_a_side_that_says_nothing_becomes_the_shares_of_the_answers():
    rng = np.random.default_rng(0)
    answers = rng.choice(3, 2000, p=[0.6, 0.3, 0.1])
    side = np.array([0.02, 0.96, 0.02])
    found = fit_calibration([side] * 2000, answers, ["a"] * 2000, l2=1e-6)
    shares = np.bincount(answers) / 2000
    assert found.of(side) == pytest.approx(shares, abs=0.01)


def test_the_gradient_of_a_calibration_is_that_of_its_loss():
    sides, answers, _ = biased(2, 60)
    weights = np.array([1 / 60] * 60)
    data, rng = (np.log(sides), np.array(answers), weights), np.random.default_rng(0)
    for _ in range(5):
        theta = rng.normal(0, 0.7, 5)
        numeric = approx_fprime(theta, lambda t: calibration_loss(t, data, 0.3)[0], 1e-7)
        assert calibration_loss(theta, data, 0.3)[1] == pytest.approx(numeric, abs=1e-5)


def test_a_strong_penalty_leaves_a_side_as_it_is():
    sides, answers, users = biased(3, 60)
    found = fit_calibration(sides, answers, users, l2=1e6)
    assert found.slope == pytest.approx(1, abs=1e-3)
    assert found.biases == pytest.approx([0] * 4, abs=1e-3)


# -- features ------------------------------------------------------------------------------------


@given(pairs(smallest=0.01), st.integers(0, 500), st.floats(0, 1e9))
def test_features_against_scipy(both, n, age):
    one, other = both
    divergence = jensenshannon(one, other) ** 2
    expected = [
        math.log(1 + n),
        entropy(one),
        entropy(other),
        0.0 if math.isnan(divergence) else divergence,
        math.log(1 + age),
        one.max(),
        other.max(),
    ]
    assert features(one, other, n, age) == pytest.approx(expected, abs=1e-6)


def test_nothing_known_has_no_age():
    found = features(np.array([0.5, 0.5]), np.array([0.9, 0.1]), 0, None)
    assert np.isnan(found).tolist() == [i == 4 for i in range(7)]


# -- the gate ------------------------------------------------------------------------------------


def simulated(seed: int, users: int = 40, questions: int = 12) -> list[MediatorRow]:
    """Users whose local side is good where much is known, and the global side where little is.

    The truth is drawn from a peaked distribution; the good side shows it, blurred, the other side
    is drawn at random. Some users answer much more than others.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        for _ in range(questions if user % 4 else 3 * questions):
            n = int(rng.choice([0, 1, 2, 20, 50, 100]))
            truth = rng.dirichlet(np.full(5, 0.4))
            good, bad = 0.85 * truth + 0.03, rng.dirichlet(np.full(5, 0.6))
            local, other = (good, bad) if n >= 20 else (bad, good)
            age = None if n == 0 else float(rng.exponential(1e5))
            answer = int(rng.choice(5, p=truth))
            rows.append(MediatorRow(f"user{seed}-{user}", local, other, n, age, answer))
    return rows


def surprise(rows: list[MediatorRow], predict) -> float:
    """Mean -log p of the answers, in nats."""
    return float(np.mean([-math.log(predict(row)[row.answer]) for row in rows]))


@pytest.fixture(scope="module")
def fitted() -> LearnedMediator:
    return fit_mediator(simulated(0), l2=0.4)  # of 40 users: 0.01 per user


def test_the_gate_learns_when_to_trust_whom(fitted):
    assert fitted.converged
    p = np.array([0.6, 0.1, 0.1, 0.1, 0.1]), np.array([0.1, 0.1, 0.1, 0.1, 0.6])
    short = fitted.mediate(*p, HistoryFacts(1, 1e5))
    long = fitted.mediate(*p, HistoryFacts(100, 1e5))
    assert short.weight_global > 0.9 > 0.1 > long.weight_global
    assert short.probabilities.argmax() == 4 and long.probabilities.argmax() == 0


def test_the_gate_beats_both_sides_and_the_closed_forms_on_fresh_users(fitted):
    rows = simulated(1)
    learned = surprise(
        rows,
        lambda r: fitted.mediate(r.p_local, r.p_global, HistoryFacts(r.n, r.age)).probabilities,
    )
    others = [
        surprise(rows, lambda r: floored(r.p_local)),
        surprise(rows, lambda r: floored(r.p_global)),
        surprise(rows, lambda r: equal(r.p_local, r.p_global).probabilities),
        surprise(rows, lambda r: shrinkage(r.p_local, r.p_global, r.n).probabilities),
    ]
    assert learned < min(others) - 0.02


def test_overconfident_sides_are_tempered():
    """Both sides say what the truth is, to the third power: the right tau is about a third."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(1500):
        truth = rng.dirichlet(np.full(4, 1.0))
        sharp = floored(truth**3 / (truth**3).sum())
        rows.append(MediatorRow(str(i % 300), sharp, sharp, 3, 1.0, int(rng.choice(4, p=truth))))
    assert fit_mediator(rows, l2=1e-4).tau == pytest.approx(1 / 3, abs=0.05)


def test_the_gradient_is_that_of_the_loss():
    data = mediator_data(simulated(2, users=5, questions=4))
    rng = np.random.default_rng(0)
    for _ in range(5):
        theta = rng.normal(0, 0.7, 9)
        numeric = approx_fprime(theta, lambda t: penalised_loss(t, data, 0.3)[0], 1e-7)
        assert penalised_loss(theta, data, 0.3)[1] == pytest.approx(numeric, abs=1e-5)


def test_the_fit_is_an_optimum(fitted):
    """No point around has a lower loss."""
    data = mediator_data(simulated(0))
    best = np.array([*fitted.weights, math.log(fitted.tau)])
    lowest, gradient = penalised_loss(best, data, 0.01)
    assert np.abs(gradient).max() < 1e-3
    rng = np.random.default_rng(0)
    around = [penalised_loss(best + rng.normal(0, 0.3, 9), data, 0.01)[0] for _ in range(50)]
    assert min(around) > lowest


def test_the_same_rows_give_the_same_gate(fitted):
    assert fit_mediator(simulated(0), l2=0.4) == fitted


def test_a_user_weighs_the_same_however_much_they_answer():
    """Who gave every answer twice has the same say."""
    rows = simulated(3, users=8)
    data = mediator_data(rows)
    names = np.array([row.user for row in rows])
    assert [data.weights[names == name].sum() for name in set(names)] == pytest.approx([1 / 8] * 8)
    twice = fit_mediator([*rows, *(row for row in rows if row.user == "user3-0")])
    once = fit_mediator(rows)
    assert twice.weights == pytest.approx(once.weights, abs=1e-3)


def test_a_calibrated_gate_undoes_a_favourite_label():
    """A local side under a constant preference is as good, once calibrated, as without it."""

    def liking(rows: list[MediatorRow]) -> list[MediatorRow]:
        push = np.exp([0.0, 0.0, 4.0, 0.0, 0.0])
        return [row._replace(p_local=floored_rows([row.p_local * push])[0]) for row in rows]

    def lost(gate: LearnedMediator, rows: list[MediatorRow]) -> float:
        return surprise(
            rows,
            lambda r: gate.mediate(r.p_local, r.p_global, HistoryFacts(r.n, r.age)).probabilities,
        )

    plain = fit_mediator(simulated(0), l2=1e-3, calibrate=True)
    pushed = fit_mediator(liking(simulated(0)), l2=1e-3, calibrate=True)
    uncorrected = fit_mediator(liking(simulated(0)), l2=1e-3)
    assert lost(pushed, liking(simulated(1))) < lost(plain, simulated(1)) + 0.02
    assert lost(pushed, liking(simulated(1))) < lost(uncorrected, liking(simulated(1))) - 0.02


def test_the_calibration_of_a_side_is_that_of_the_side_alone():
    rows = simulated(0)
    gate = fit_mediator(rows, calibrate=True)
    users, answers = [row.user for row in rows], [row.answer for row in rows]
    assert gate.local == fit_calibration([row.p_local for row in rows], answers, users)
    assert gate.everyone == fit_calibration([row.p_global for row in rows], answers, users)
    one = rows[0]
    sides = gate.calibrated(one.p_local, one.p_global)
    bare = dataclasses.replace(gate, local=None, everyone=None)
    facts = HistoryFacts(one.n, one.age)
    assert gate.mediate(one.p_local, one.p_global, facts).probabilities == pytest.approx(
        bare.mediate(*sides, facts).probabilities
    )
    assert bare.calibrated(one.p_local, one.p_global)[0] is one.p_local


@given(pairs(), st.integers(0, 50))
def test_nothing_learned_is_equal_weights(both, n):
    found = EQUAL.mediate(*both, HistoryFacts(n, 3.0 if n else None))
    assert found.weight_global == 0.5
    assert found.probabilities == pytest.approx(equal(*both).probabilities)


@given(pairs(), st.integers(0, 1000), st.one_of(st.none(), st.floats(0, 1e10)))
def test_the_gate_takes_whatever_comes(both, n, age):
    gate = fit_mediator(simulated(4, users=2, questions=2))
    found = gate.mediate(*both, HistoryFacts(n, age))
    assert found.probabilities.sum() == pytest.approx(1)
    assert 0 <= found.weight_global <= 1
    order = np.arange(len(both[0]))[::-1]
    turned = gate.mediate(both[0][order], both[1][order], HistoryFacts(n, age))
    assert turned.probabilities[order] == pytest.approx(found.probabilities)
    assert turned.weight_global == pytest.approx(found.weight_global)


def test_a_strong_penalty_gives_equal_weights():
    gate = fit_mediator(simulated(0, users=6), l2=1e6)
    found = gate.mediate(np.array([0.9, 0.1]), np.array([0.4, 0.6]), HistoryFacts(7, 3.0))
    assert found.weight_global == pytest.approx(0.5, abs=1e-3)
    assert gate.tau == pytest.approx(1.0, abs=1e-3)


def test_one_row_and_nobody_known():
    """Features that never vary, and an age that is never known, do no harm."""
    p = np.array([0.9, 0.1]), np.array([0.4, 0.6])
    gate = fit_mediator([MediatorRow("a", *p, 0, None, 1)])
    assert gate.converged and np.isfinite([*gate.weights, *gate.means, *gate.scales]).all()
    assert gate.mediate(*p, HistoryFacts(0, None)).weight_global > 0.5


def test_questions_may_differ_in_their_number_of_candidates():
    """A candidate that both sides rule out changes as little as one that is not there."""
    rows = simulated(2, users=5, questions=4)
    longer = [
        row._replace(p_local=np.append(row.p_local, 0), p_global=np.append(row.p_global, 0))
        if i % 2
        else row
        for i, row in enumerate(rows)
    ]
    assert fit_mediator(longer).weights == pytest.approx(fit_mediator(rows).weights, abs=1e-2)
    data = mediator_data(longer)
    theta = np.linspace(-0.5, 0.5, 9)
    numeric = approx_fprime(theta, lambda t: penalised_loss(t, data, 0.3)[0], 1e-7)
    assert penalised_loss(theta, data, 0.3)[1] == pytest.approx(numeric, abs=1e-5)


def test_a_fit_that_stops_early_says_so(monkeypatch, caplog):
    import scipy.optimize

    minimise = scipy.optimize.minimize
    monkeypatch.setattr(
        scipy.optimize, "minimize", lambda *a, **k: minimise(*a, **{**k, "options": {"maxiter": 1}})
    )
    assert not fit_mediator(simulated(0)).converged
    assert "did not converge" in caplog.text


def test_rows_that_are_none_are_refused():
    half = np.array([0.5, 0.5])
    with pytest.raises(InputError, match="nothing to learn"):
        fit_mediator([])
    with pytest.raises(InputError, match=r"row of user 'a' has 2 labels and the answer 2"):
        fit_mediator([MediatorRow("a", half, half, 1, 1.0, 2)])
    with pytest.raises(InputError, match="same labels"):
        fit_mediator([MediatorRow("a", np.ones(3) / 3, half, 1, 1.0, 1)])
