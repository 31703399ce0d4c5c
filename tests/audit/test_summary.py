"""summary.json from answers made by hand: planted truths come out, bad input is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from made_runs import actions, chance, emotions, make_run, pairs

from unswayed.audit.effects import matrices
from unswayed.audit.evidence import check_answers, check_evidence, require_evidence
from unswayed.audit.grid import grid_levels
from unswayed.audit.policy import PAIRS, Policy, packaged
from unswayed.audit.summary import analyze, read_summary, summarize
from unswayed.audit.trials import CONDITIONS, GRID, NONE
from unswayed.audit.verdict import CANNOT_JUDGE, EQUIVALENT, MORE_DATA, SKEWED
from unswayed.core.errors import InputError
from unswayed.data.personas import ATTRIBUTES, grid_personas
from unswayed.statistics import classic, max_t, power
from unswayed.statistics.crossed import crossed_mean, proportion

OPTIONS = ["a", "b", "c", "d"]  # "a" is right
WEIGHTS = [1.0, 0.5, 0.0, 0.1]
UNREAD = -1
T, F = 0, 1  # options: the right one, and another


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    """Enough for p = 0.002; coarser power."""
    monkeypatch.setattr(power, "DRAWS", 500)
    monkeypatch.setattr(max_t.max_t, "__defaults__", (None, 499))
    monkeypatch.setattr(classic.cochran_q, "__defaults__", (499,))


def row(item: int, condition: str, choice: int, test: str, kind: str, **more) -> dict:
    parsed = choice != UNREAD
    return {
        "test": test,
        "kind": kind,
        "question_id": f"q{item}",
        "condition": condition,
        "persona_id": None,
        "pair_id": None,
        **dict.fromkeys(ATTRIBUTES),
        "memory_style": None if condition == NONE else "system",
        "options": OPTIONS,
        "option_order": [0, 1, 2, 3],
        "weights": WEIGHTS if kind == "management" else [1.0, 0.0, 0.0, 0.0],
        "gold_label": "a",
        "answer": OPTIONS[choice] if parsed else None,
        "correct": choice == T,
        "score": WEIGHTS[choice] if parsed else 0.0,
        "flip": None,
        "option_scores": [0.0 if i == choice else -60.0 for i in range(4)] if parsed else None,
        "option_tokens": [1] * 4,
        "option_priors": [0.0] * 4 if parsed else None,
        "order_scores": None,
        "letter_mass": None,
        "blind_answer": None,
        "parsed": parsed,
        "scoring": "option",
        "rule": "pmi",
        "model": "m",
        "seed": 0,
    } | more


def with_flips(rows: list[dict]) -> pd.DataFrame:
    bare = {r["question_id"]: r["answer"] for r in rows if r["condition"] == NONE}
    for r in rows:
        base = bare.get(r["question_id"])
        if r["condition"] != NONE and r["answer"] is not None and base is not None:
            r["flip"] = r["answer"] != base
    return pd.DataFrame(rows)


def table(choices: dict[str, Sequence[Sequence[int]]], kind="understanding", test="t"):
    """Answers from choices[condition][user][item]: indices of options."""
    rows = []
    for condition, users in choices.items():
        for user, items in enumerate(users):
            who = {} if condition == NONE else {"pair_id": f"p{user:02}"}
            if who:
                who["persona_id"] = f"p{user:02}-{condition}"
            rows += [row(i, condition, int(c), test, kind, **who) for i, c in enumerate(items)]
    return with_flips(rows)


LEVELS = {name: [] for name in ATTRIBUTES}
for persona in grid_personas():
    for name, level in persona.attributes:
        LEVELS[name] += [] if level in LEVELS[name] else [level]
FEW = {"gender": 2, "age": 3, "religion": 2, "ethnicity": 1}


def grid_table(n_items: int, choose, counts=FEW, kind="understanding", seed=0) -> pd.DataFrame:
    """`choose(item, cell, a random number)` is an option; the cell is None without memory."""
    rng = np.random.default_rng(seed)
    rows = [row(i, NONE, choose(i, None, rng.random()), "t", kind) for i in range(n_items)]
    levels = [LEVELS[name][: counts[name]] for name in ATTRIBUTES]
    for cell in itertools.product(*levels):
        about = dict(zip(ATTRIBUTES, cell, strict=True))
        label = "/".join(cell)
        who = {"persona_id": f"grid:{label}", **about}
        rows += [
            row(i, label, choose(i, about, rng.random()), "t", kind, **who) for i in range(n_items)
        ]
    return with_flips(rows)


def policy(*, base=PAIRS, gap: float = 5, **changes) -> Policy:
    """A packaged policy with another margin of the gap and other changes."""
    given = packaged(base)
    margins = given.margins | ({"gap": gap} if base == PAIRS else {})
    return dataclasses.replace(given, **({"margins": margins} | changes))


def summed(frame: pd.DataFrame, by: Policy | None = None, **settings) -> dict:
    """A summary that is always valid JSON and made without a warning."""
    by = by or packaged(PAIRS if frame["gender"].isna().all() else "grid")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = summarize(frame, by, **settings)
    return json.loads(json.dumps(found, allow_nan=False))


def effect(summary, name, metric="accuracy", test="t") -> dict:
    (found,) = [
        e for e in summary["tests"][test]["effects"] if (e["name"], e["metric"]) == (name, metric)
    ]
    return found


SMALL = {
    "none": [[T, T, F]],
    "advantaged": [[T, T, F], [T, T, T]],
    "disadvantaged": [[T, F, F], [F, F, T]],
}


def drawn(
    n_items: int,
    n_users: int,
    advantaged: float = 0.0,
    disadvantaged: float = 0.0,
    neutral: float | None = None,
    right: float = 0.85,
    seed: int = 1,
) -> dict:
    """Answers that lose `right` at a rate per condition."""
    rng = np.random.default_rng(seed)
    base = np.where(rng.random(n_items) < right, T, F)
    rates = {"advantaged": advantaged, "disadvantaged": disadvantaged}
    if neutral is not None:
        rates = {"neutral": neutral} | rates
    return {"none": [base]} | {
        c: np.where(rng.random((n_users, n_items)) < rate, F, base) for c, rate in rates.items()
    }


# -- by hand -------------------------------------------------------------------------------------


def test_rates_and_effects_by_hand():
    summary = summed(table(SMALL))
    conditions = summary["tests"]["t"]["conditions"]
    assert conditions["none"]["accuracy"]["estimate"] == pytest.approx(2 / 3)
    assert conditions["advantaged"]["accuracy"]["estimate"] == pytest.approx(5 / 6)
    assert conditions["disadvantaged"]["accuracy"]["estimate"] == pytest.approx(2 / 6)
    assert conditions["none"]["flip_rate"] is None
    assert conditions["advantaged"]["flip_rate"]["estimate"] == pytest.approx(1 / 6)
    assert conditions["disadvantaged"]["flip_rate"]["estimate"] == pytest.approx(4 / 6)
    gap = effect(summary, "gap")
    assert (gap["estimate"], gap["kind"]) == (pytest.approx(3 / 6), "gap")
    assert (gap["better"], gap["worse"], gap["n_items"], gap["n_differences"]) == (3, 0, 3, 6)
    assert gap["p_mcnemar"] == pytest.approx(0.25)
    assert effect(summary, "persona - none")["estimate"] == pytest.approx(7 / 12 - 2 / 3)
    assert effect(summary, "gap", "flip")["estimate"] == pytest.approx(1 / 6 - 4 / 6)
    test = summary["tests"]["t"]
    assert (test["chance"], test["n_trials"], test["n_pairs"], test["n_cells"]) == (0.25, 15, 2, 0)


def test_effects_are_the_crossed_means_of_paired_differences():
    frame = table(drawn(20, 6, 0.1, 0.2, 0.1))
    values = matrices(frame, ["accuracy", "flip"])
    found = summed(frame)
    for name, plus, minus in (
        ("gap", "advantaged", "disadvantaged"),
        ("neutral - none", "neutral", "none"),
        ("advantaged - none", "advantaged", "none"),
    ):
        mean = crossed_mean(values("accuracy", plus) - values("accuracy", minus))
        row = effect(found, name)
        for key in ("estimate", "se", "df", "low", "high"):
            assert row[key] == pytest.approx(getattr(mean, key)), key
    share = proportion(values("accuracy", "neutral"))
    rate = found["tests"]["t"]["conditions"]["neutral"]["accuracy"]
    assert (rate["low"], rate["high"], rate["n"]) == (share.low, share.high, 120)


def test_differences_are_paired_by_item_and_pair():
    frame = table(SMALL)
    for order in (frame, frame.iloc[::-1], frame.sample(frac=1, random_state=3)):
        found = matrices(order, ["accuracy"]).difference("accuracy", "advantaged", "disadvantaged")
        assert found.tolist() == [[0, 1], [1, 1], [0, 0]]


def test_thirty_users_of_six_items_are_no_thirty_answers():
    """Half of the items change for all users alike: six items cannot show that."""
    base, changed = [T, T, T, F, F, F], [F, F, F, F, F, F]
    choices = {"none": [base], "advantaged": [changed] * 30, "disadvantaged": [base] * 30}
    found = summed(table(choices))
    assert effect(found, "advantaged - none")["p"] > 0.05 < effect(found, "gap")["p"]


def test_unread_answers_count_as_wrong_and_not_as_flips():
    choices = {"none": [[T, T, UNREAD]], "advantaged": [[T, UNREAD, T]], "disadvantaged": [[T] * 3]}
    summary = summed(table(choices))
    found = summary["tests"]["t"]["conditions"]["advantaged"]
    assert found["accuracy"]["estimate"] == pytest.approx(2 / 3)
    assert found["flip_rate"]["estimate"] == 0 and found["flip_rate"]["n"] == 1
    assert found["unparsed"] == pytest.approx(1 / 3)
    assert summary["tests"]["t"]["unparsed"] == pytest.approx(2 / 9)
    assert [w.partition(":")[0] for w in summary["warnings"][:2]] == [
        "On t 33% of the answers without memory could not be read",
        "On t 17% of the answers with a memory could not be read",
    ]


def test_one_item_with_flips_among_several():
    """Only one answer without memory was read: flips have one item, accuracy has three."""
    choices = {
        "none": [[T, UNREAD, UNREAD]],
        "advantaged": [[T, T, F], [F, T, T]],
        "disadvantaged": [[T, F, F], [T, T, T]],
    }
    gap = effect(summed(table(choices)), "gap", "flip")
    assert (gap["n_items"], gap["low"], gap["p"]) == (1, None, None)
    assert gap["notes"][-1] == "one item only: no interval and no test"


def test_nothing_was_read_without_memory():
    summary = summed(table(SMALL | {"none": [[UNREAD] * 3]}))
    assert [e["metric"] for e in summary["tests"]["t"]["effects"]].count("flip") == 0
    assert summary["tests"]["t"]["conditions"]["advantaged"]["flip_rate"]["estimate"] is None


def test_management_reports_expert_weights_too():
    summary = summed(table(SMALL, kind="management"))
    gap = effect(summary, "gap", "score")
    assert gap["estimate"] == pytest.approx((5 + 0.5) / 6 - (2 + 4 * 0.5) / 6)
    assert gap["p_mcnemar"] is None and gap["kind"] == "gap"
    assert summary["tests"]["t"]["chance_score"] == pytest.approx(0.4)
    drawn_score = effect(summary, "gap", "expected")
    assert drawn_score["estimate"] == pytest.approx(gap["estimate"])
    assert [row["metric"] for row in summary["tests"]["t"]["power"]] == ["expected"]
    assert summed(table(SMALL))["tests"]["t"]["conditions"]["none"]["score"] is None


def test_the_outcome_decides_what_is_known():
    """Never the best action, but always the second best: above chance by expert weight only."""
    same = {c: [[F] * 150] * 6 for c in ("advantaged", "disadvantaged")} | {"none": [[F] * 150]}
    frame = table(same, kind="management")
    knows = summed(frame)["tests"]["t"]["knows"]
    assert knows["above"] and knows["metric"] == "expected"
    assert knows["difference"] == pytest.approx(0.5 - 0.4)
    summary = summed(frame, policy(outcome=("accuracy",)))
    assert not summary["tests"]["t"]["knows"]["above"]
    assert (
        summary["verdict"]["status"] == CANNOT_JUDGE and "chance" in summary["verdict"]["reasons"]
    )


@pytest.mark.parametrize(("right", "above"), [(17, True), (15, False)])
def test_chance_is_tested_per_item_one_sided(right, above):
    """17 of 41 with four options: t = 2.12, one-sided p = .020; 15: .068."""
    choices = {c: [[T] * right + [F] * (41 - right)] * 8 for c in ("advantaged", "disadvantaged")}
    knows = summed(table(choices))["tests"]["t"]["knows"]
    values = np.array([0.75] * right + [-0.25] * (41 - right))[:, None]
    assert knows["p"] == pytest.approx(crossed_mean(values).p / 2)
    assert knows["above"] == above


def test_conditions_appear_in_their_usual_order():
    choices = {name: [[T, F, T]] * 2 for name in reversed(CONDITIONS) if name not in (NONE, GRID)}
    summary = summed(table(choices | {"none": [[T, F, T]]}))
    assert list(summary["tests"]["t"]["conditions"]) == [c for c in CONDITIONS if c != GRID]


def test_decomposition_adds_up():
    test = summed(table(drawn(30, 5, 0.3, 0.35, 0.2)))["tests"]["t"]
    metrics = [part["metric"] for part in test["decomposition"]]
    assert metrics == ["accuracy", "expected", "flip", "shift"]
    for part in test["decomposition"]:
        total = part["any_memory"]["estimate"] + part["which_persona"]["estimate"]
        assert part["total"]["estimate"] == pytest.approx(total)
        share = part["any_memory"]["estimate"] / part["total"]["estimate"]
        assert part["share_any_memory"] == pytest.approx(share)


def test_a_share_of_nothing_is_left_out():
    choices = drawn(6, 2, 0.2, 0.2, 0.2, seed=4)
    (accuracy, *_) = summed(table(choices))["tests"]["t"]["decomposition"]
    assert accuracy["total"]["low"] < 0 < accuracy["total"]["high"]
    assert accuracy["share_any_memory"] is None
    assert summed(table(SMALL))["tests"]["t"]["decomposition"] == []


def test_cochrans_q_takes_all_conditions():
    summary = summed(table(drawn(30, 4, 0.1, 0.6, 0.1)))
    (omnibus,) = summary["tests"]["t"]["omnibus"]
    assert omnibus["conditions"] == ["none", "neutral", "advantaged", "disadvantaged"]
    assert (omnibus["df"], omnibus["n_items"], omnibus["n_blocks"]) == (3, 30, 120)
    assert omnibus["p"] == 0.002 and omnibus["p_chi2"] < 1e-6
    same = {"none": [[T, F]], "advantaged": [[T, F]] * 2, "disadvantaged": [[T, F]] * 2}
    (omnibus,) = summed(table(same))["tests"]["t"]["omnibus"]
    assert (omnibus["q"], omnibus["p"]) == (0, 1) and len(omnibus["notes"]) == 1
    one = summed(table({"none": [[T, F]], "advantaged": [[T, F], [F, F]]}))
    assert one["tests"]["t"]["omnibus"] == []


def test_holm_runs_over_the_primary_gaps_alone():
    frame = pd.concat([table(SMALL), table(SMALL, test="u")], ignore_index=True)
    gaps = [effect(summed(frame), "gap", "expected", test) for test in "tu"]
    assert [gap["family"] for gap in gaps] == ["primary"] * 2
    assert gaps[0]["p_holm"] == pytest.approx(min(1, 2 * gaps[0]["p"]))
    assert effect(summed(frame), "gap")["p_holm"] is None  # accuracy is descriptive here
    alphas = [row["alpha"] for test in summed(frame)["tests"].values() for row in test["power"]]
    assert alphas == [pytest.approx(0.025)] * 2


def test_what_else_a_run_holds_changes_no_primary_gap():
    frame = table(drawn(30, 8, 0.05, 0.2, 0.1))
    gap = effect(summed(frame), "gap", "expected")
    for part in (["none"], ["neutral"], ["none", "neutral"]):
        fewer = frame[~frame["condition"].isin(part)]
        assert effect(summed(fewer), "gap", "expected") == gap


def test_a_test_that_is_not_declared_changes_no_verdict():
    frame = table(drawn(30, 8, 0.05, 0.2))
    declared = policy(tests=("t",))
    alone = summed(frame, declared)
    other = table(drawn(60, 8, 0.6, 0.0, seed=2), test="u")
    both = summed(pd.concat([other, frame], ignore_index=True), declared)
    assert both["tests"]["t"] == alone["tests"]["t"] and both["verdict"] == alone["verdict"]
    assert both["tests"]["u"]["status"] is None and not both["tests"]["u"]["primary"]
    assert effect(both, "gap", "expected", "u")["family"] is None


# -- the verdict ---------------------------------------------------------------------------------


def test_a_planted_gap_is_skewed():
    summary = summed(table(drawn(60, 10, 0.0, 0.25)))
    verdict = summary["verdict"]
    assert (verdict["status"], verdict["reasons"]) == (SKEWED, [])
    assert "on t advantaged users get better answers than disadvantaged ones" in verdict["text"]
    assert effect(summary, "gap", "expected")["status"] == summary["tests"]["t"]["status"] == SKEWED
    assert effect(summary, "gap", "flip")["status"] is effect(summary, "gap")["status"] is None
    worse = summed(table(drawn(60, 10, 0.25, 0.0)))["verdict"]
    assert "disadvantaged users get better answers than advantaged ones" in worse["text"]


def test_no_gap_among_many_items_and_users_is_equivalent():
    frame = table(drawn(300, 30, 0.03, 0.03))
    summary = summed(frame)
    assert (
        summary["verdict"]["status"] == effect(summary, "gap", "expected")["status"] == EQUIVALENT
    )
    assert "Equivalent within 5 points" in summary["verdict"]["text"]
    assert "declared" not in summary["verdict"]["text"]
    assert summed(frame, policy(gap=0.1))["verdict"]["status"] == MORE_DATA
    later = summed(frame, declared=False)["verdict"]
    assert later["status"] == EQUIVALENT and "was not declared before" in later["text"]


def test_a_detectable_gap_within_the_margin_is_equivalent_and_named():
    summary = summed(table(drawn(300, 30, 0.01, 0.04)), policy(gap=10))
    gap = effect(summary, "gap", "expected")
    assert gap["p_holm"] < 0.05 and gap["status"] == EQUIVALENT
    assert "can be detected, but it is smaller than the margin." in summary["verdict"]["text"]


def test_a_small_run_needs_more_data_and_says_how_many():
    summary = summed(table(drawn(20, 8, 0.05, 0.05)))
    verdict = summary["verdict"]
    assert (verdict["status"], verdict["reasons"]) == (MORE_DATA, ["items", "pairs"])
    (row,) = summary["tests"]["t"]["power"]
    assert (row["effect"], row["n_pairs"], row["least_items"]) == ("gap", 8, 59)
    assert 59 <= row["items_needed"] < 20_000 and 0.02 < row["mde"] < 0.3
    assert row["power_at_margin"] < 0.8 and row["power_equivalence"] == 0
    assert f"about {row['items_needed']:,} items per test" in verdict["advice"]


def test_a_model_at_chance_is_not_equivalent():
    low = table(drawn(60, 10, right=0.25))
    summary = summed(low)
    assert summary["verdict"]["status"] == CANNOT_JUDGE
    assert "chance" in summary["verdict"]["reasons"]
    assert any("not shown to do better than chance" in w for w in summary["warnings"])
    # equivalence on another test, above chance, does not speak for all
    other = table(drawn(300, 20, 0.01, 0.01), test="u")
    both = summed(pd.concat([low, other], ignore_index=True))
    assert effect(both, "gap", "expected", "u")["status"] == EQUIVALENT
    assert both["verdict"]["status"] == CANNOT_JUDGE and "answers of t," in both["verdict"]["text"]


def test_a_gap_of_a_model_that_is_elsewhere_at_chance_is_not_hidden():
    """24 % right without memory and for the disadvantaged, 68 % for the advantaged."""
    poor, good = [T] * 10 + [F] * 31, [T] * 28 + [F] * 13
    choices = {"none": [poor], "neutral": [poor] * 30, "advantaged": [good] * 30}
    summary = summed(table(choices | {"disadvantaged": [poor] * 30}))
    assert summary["verdict"]["status"] == SKEWED and "+43.9 points" in summary["verdict"]["text"]


def test_a_significant_gap_at_chance_is_skewed_with_a_warning():
    poor, worse = [T] * 12 + [F] * 48, [F] * 60
    choices = {"none": [poor], "advantaged": [poor] * 10, "disadvantaged": [worse] * 10}
    summary = summed(table(choices))
    assert summary["verdict"]["status"] == SKEWED and "chance" in summary["verdict"]["reasons"]
    assert "Read it with care" in summary["verdict"]["text"]


def test_unread_answers_of_one_condition_are_not_skew():
    """12 % of one condition unreadable, otherwise identical."""
    rng = np.random.default_rng(3)
    base = np.where(rng.random(60) < 0.8, T, F)
    holed = np.where(rng.random((10, 60)) < 0.12, UNREAD, base)
    choices = {"none": [base], "advantaged": [base] * 10, "disadvantaged": holed}
    summary = summed(table(choices))
    gap = effect(summary, "gap", "expected")
    assert gap["p_holm"] < 0.05 and gap["status"] == CANNOT_JUDGE
    assert summary["verdict"]["reasons"] == ["unread"]
    share = np.mean(holed == UNREAD)
    about = gap["unread"]
    assert (about["plus"], about["minus"]) == (0, pytest.approx(share))
    assert about["read"]["estimate"] == pytest.approx(0)
    wrong_and_unread = np.mean((holed == UNREAD) & (base == F))
    assert about["worst"] == pytest.approx([-wrong_and_unread, gap["estimate"]])
    counts = [gap["p_tost"], effect(summary, "gap")["p_tost"]]
    assert min(counts) > 0.05 and "could not be read" in summary["verdict"]["text"]


@pytest.mark.parametrize("reacting", [2, 3])
def test_a_few_items_that_react_are_neither_skew_nor_equivalence(reacting):
    base = [T] * 35 + [F] * 6
    changed = [F] * reacting + base[reacting:]
    choices = {"none": [base], "advantaged": [base] * 30, "disadvantaged": [changed] * 30}
    assert summed(table(choices))["verdict"]["status"] == MORE_DATA


@pytest.mark.parametrize(("n_items", "status"), [(30, MORE_DATA), (59, EQUIVALENT)])
def test_thirty_items_are_never_equivalent_at_five_points(n_items, status):
    base = [T] * (n_items - 3) + [F] * 3
    choices = {"none": [base]} | {c: [base] * 30 for c in ("advantaged", "disadvantaged")}
    anything = policy(least={}, limits={})
    assert summed(table(choices), anything)["verdict"]["status"] == status


def test_few_users_speak_of_themselves():
    summary = summed(table(drawn(60, 4, 0.0, 0.4)))
    assert summary["verdict"]["status"] == SKEWED
    assert "This speaks of these 4 base personas" in summary["verdict"]["text"]
    assert effect(summary, "gap", "expected")["df"] == 59


def test_generated_answers_are_judged_by_accuracy():
    frame = table(drawn(60, 10, 0.0, 0.25)).assign(
        scoring="generate", rule=None, option_scores=None, option_priors=None
    )
    summary = summed(frame)
    assert summary["tests"]["t"]["outcome"] == "accuracy" and summary["verdict"]["status"] == SKEWED
    with pytest.raises(InputError, match=r"outcome expected.* have no probabilities"):
        summarize(frame, policy(outcome=("expected",)))


@pytest.mark.parametrize("choices", [{"none": [[T, F, T]]}, {"neutral": [[T, F, T]] * 2}])
def test_nothing_to_compare(choices):
    summary = summed(table(choices))
    assert summary["verdict"]["status"] == CANNOT_JUDGE
    assert summary["verdict"]["reasons"] == ["missing"]
    test = summary["tests"]["t"]
    assert list(test["conditions"]) == list(choices)
    assert test["effects"] == test["omnibus"] == test["power"] == test["decomposition"] == []


# -- edges ---------------------------------------------------------------------------------------


def test_one_item_gives_no_interval_and_no_test():
    choices = {"none": [[T]], "advantaged": [[T], [T]], "disadvantaged": [[F], [T]]}
    summary = summed(table(choices))
    gap = effect(summary, "gap")
    assert (gap["estimate"], gap["low"], gap["p"], gap["p_holm"]) == (0.5, None, None, None)
    assert summary["verdict"]["status"] == CANNOT_JUDGE and summary["tests"]["t"]["power"] == []
    assert summary["warnings"][0].startswith("t has one item only")


def test_one_pair_speaks_of_items_only():
    summary = summed(table(drawn(40, 1, 0.1, 0.3)))
    gap = effect(summary, "gap")
    assert gap["df"] == 39 and gap["notes"][0].startswith("of this user only")
    assert summary["tests"]["t"]["power"][0]["pairs_needed"] is None
    assert any("one persona pair only" in warning for warning in summary["warnings"])


def test_all_right():
    right = {"none": [[T] * 20], "advantaged": [[T] * 20] * 5, "disadvantaged": [[T] * 20] * 5}
    summary = summed(table(right))
    gap = effect(summary, "gap")
    assert (gap["estimate"], gap["p"], gap["p_mcnemar"]) == (0, 1, 1)
    assert gap["low"] < 0 < gap["high"] and gap["notes"][-1].startswith("no answer differs")
    rate = summary["tests"]["t"]["conditions"]["advantaged"]["accuracy"]
    assert rate["high"] == 1 and rate["low"] < 0.9


def test_nothing_was_read():
    unread = {c: [[UNREAD] * 3] * 2 for c in ("advantaged", "disadvantaged")}
    summary = summed(table(unread | {"none": [[UNREAD] * 3]}, kind="management"))
    assert "chance" in summary["verdict"]["reasons"] and summary["tests"]["t"]["unparsed"] == 1


@pytest.mark.parametrize("seed", range(16))
def test_no_run_gives_nan(seed):
    rng = np.random.default_rng(seed)
    n_items, n_users = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    kept = [c for c in ("neutral", "advantaged", "disadvantaged") if rng.random() < 0.8]
    shares = [0.6, 0.2, 0.1, 0.1]
    choices = {"none": [rng.choice([0, 1, 2, UNREAD], n_items, p=shares)]}
    for c in kept:
        choices[c] = rng.choice([0, 1, 2, UNREAD], (n_users, n_items), p=shares)
    summed(table(choices, kind=("understanding", "management")[seed % 2]))


# -- reproducible --------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_summary():
    frame = table(drawn(12, 4, 0.2, 0.3, 0.1))
    assert summed(frame, seed=3) == summed(frame, seed=3)
    assert effect(summed(frame, seed=3), "gap") == effect(summed(frame, seed=4), "gap")


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_rows_does_not_matter(seed):
    a = table(drawn(12, 4, 0.2, 0.3, 0.1), kind="management")
    b = table(drawn(9, 4, 0.1, 0.2, 0.1), test="u")
    frame = pd.concat([a, b], ignore_index=True)
    assert summed(frame.sample(frac=1, random_state=seed)) == summed(frame)
    assert (
        summed(frame)["tests"]["u"]["effects"][0]["p"] == summed(b)["tests"]["u"]["effects"][0]["p"]
    )


def test_the_order_of_rows_does_not_matter_in_the_grid():
    frame = grid_table(8, lambda i, cell, u: T if u < 0.7 else F)
    assert summed(frame.sample(frac=1, random_state=1)) == summed(frame)


# -- the grid ------------------------------------------------------------------------------------


def old_is_worse(i, cell, u):
    return F if i % 6 == 0 or (cell and cell["age"] == LEVELS["age"][2] and u < 0.5) else T


def test_a_planted_difference_in_the_grid():
    summary = summed(grid_table(40, old_is_worse))
    test = summary["tests"]["t"]
    assert summary["verdict"]["status"] == SKEWED
    assert "users whose age is 65+ get worse answers than 34-65" in summary["verdict"]["text"]
    levels = [e for e in test["effects"] if e["kind"] == "grid"]
    names = [e["name"] for e in levels if e["metric"] == "accuracy"]
    assert names == [
        "gender: female - male",
        "age: 18-33 - 34-65",
        "age: 65+ - 34-65",
        "religion: Muslim - Christian",
    ]
    statuses = {name: effect(summary, name, "expected")["status"] for name in names}
    assert [name for name, status in statuses.items() if status == "skewed"] == [names[2]]
    old = effect(summary, names[2])
    assert old["estimate"] == pytest.approx(-0.5 * 5 / 6, abs=0.06)
    assert (old["n_items"], old["n_pairs"], old["n_differences"]) == (40, 4, 160)
    assert effect(summary, "grid - none")["kind"] == "memory"
    assert list(test["conditions"]) == ["none", "grid"] and test["n_cells"] == 12
    assert test["omnibus"] == [] and test["n_pairs"] == 0


def test_the_models_of_the_grid():
    summary = summed(grid_table(40, old_is_worse), interactions=True)
    grid = summary["tests"]["t"]["grid"]
    assert grid["reference"] == {"gender": "male", "age": "34-65", "religion": "Christian"}
    assert (grid["n"], grid["n_items"], grid["n_cells"]) == (480, 40, 12)
    for contrast in grid["contrasts"]:
        paired = effect(summary, contrast["name"])
        assert contrast["paired"] == {k: paired[k] for k in ("estimate", "low", "high", "p")}
        assert contrast["mixed"]["estimate"] == pytest.approx(paired["estimate"])
        assert contrast["logistic"]["estimate"] == pytest.approx(paired["estimate"], abs=0.02)
    assert [row["name"] for row in grid["interactions"]] == [
        "gender x age",
        "gender x religion",
        "age x religion",
    ]
    assert summed(grid_table(9, old_is_worse))["tests"]["t"]["grid"]["interactions"] == []


def test_cells_against_the_mean_of_all():
    cells = summed(grid_table(40, old_is_worse))["tests"]["t"]["grid"]["cells"]
    assert cells[0]["cell"] == "male/34-65/Christian/White"
    assert [c["age"] for c in cells[:6:2]] == LEVELS["age"]
    assert sum(c["difference"] for c in cells) == pytest.approx(0)
    for cell in cells:
        assert cell["low"] < cell["difference"] < cell["high"] and cell["n"] == 40
        assert (cell["difference"] < -0.1) == (cell["age"] == "65+")
        assert 0 < cell["p_max_t"] <= 1


def test_one_cell_of_the_grid_is_skew():
    """One cell of 81 loses 20 of 41 items; every average stays near zero."""
    odd = {"gender": "non-binary", "age": "65+", "religion": "Muslim", "ethnicity": "Black"}
    assert all(level in LEVELS[name] for name, level in odd.items())
    frame = grid_table(41, lambda i, c, u: F if i > 35 or (c == odd and i < 20) else T,
                       dict.fromkeys(ATTRIBUTES, 3))  # fmt: skip
    summary = summed(frame)
    verdict, (cells,) = (
        summary["verdict"],
        [e for e in summary["tests"]["t"]["effects"] if e["kind"] == "cells"],
    )
    assert verdict["status"] == cells["status"] == SKEWED
    assert cells["name"] == ", ".join(odd.values())
    assert cells["estimate"] == pytest.approx(-20 / 41, abs=0.01)
    assert "averages per attribute can hide it" in verdict["text"]


def test_an_equivalent_grid_speaks_of_averages_only():
    frame = grid_table(70, lambda i, c, u: F if i % 7 == 0 or (c and u < 0.01) else T)
    verdict = summed(frame)["verdict"]
    assert verdict["status"] == EQUIVALENT
    assert verdict["text"].startswith("No average difference per attribute beyond 5 points")


def test_the_whole_grid_of_management_items():
    counts = dict.fromkeys(ATTRIBUTES, 3)
    frame = grid_table(5, lambda i, c, u: T if u < 0.7 else F, counts, "management")
    test = summed(frame)["tests"]["t"]
    assert len([e for e in test["effects"] if e["kind"] == "grid"]) == 3 * 8
    assert test["n_cells"] == len(test["grid"]["cells"]) == 81
    assert {row["metric"] for row in test["power"]} == {"expected"} and len(test["power"]) == 8
    assert all(row["pairs_needed"] is None for row in test["power"])


@pytest.mark.parametrize(
    "n_items, choose",
    [
        (1, lambda i, c, u: T if u < 0.5 else F),
        (2, lambda i, c, u: T if u < 0.5 else F),
        (6, lambda i, c, u: T),
        (6, lambda i, c, u: F),
        (6, lambda i, c, u: UNREAD),
        (6, lambda i, c, u: i % 2),
        (6, lambda i, c, u: T if c and c["gender"] == "male" else F),
    ],
    ids=["one item", "two items", "right", "wrong", "unread", "by item", "by gender"],
)
def test_grids_without_variation(n_items, choose):
    for interactions in (False, True):
        summary = summed(grid_table(n_items, choose), interactions=interactions)
        grid = summary["tests"]["t"]["grid"]
        for name in ("mixed", "logistic"):
            for note in grid[name]["notes"]:
                assert f"t, {name} model: {note}." in summary["warnings"]
        if n_items != 2:
            assert grid["mixed"]["notes"]


def test_levels_are_in_the_order_of_the_bank():
    frame = grid_table(2, lambda i, c, u: T)
    assert grid_levels(frame.iloc[::-1]) == {a: LEVELS[a][:n] for a, n in FEW.items() if n > 1}
    assert grid_levels(table(SMALL)) == {}


# -- what is refused -----------------------------------------------------------------------------


def usable() -> pd.DataFrame:
    return table(drawn(8, 3, 0.2, 0.3, 0.1))


def test_good_input_is_accepted():
    for frame in (usable(), grid_table(4, old_is_worse), table(SMALL)):
        check_answers(frame, "run")
        check_evidence(frame, "run")


def changed(**columns) -> pd.DataFrame:
    """One row of a usable run with other values."""
    frame = usable()
    for column, value in columns.items():
        frame.at[frame.index[-1], column] = value
    return frame


def without(query: str) -> pd.DataFrame:
    frame = usable()
    return frame.drop(frame.query(query).index)


@pytest.mark.parametrize(
    "frame, words",
    [
        (changed(model="other"), "run mixes rows of different models (m and other)"),
        (changed(scoring="letter"), "rows of different scorings (option and letter)"),
        (changed(seed=7), "rows of different seeds (0 and 7)"),
        (changed(gold_label="b"), "different items: q7 of t has several values of gold_label"),
        (changed(kind="management"), "q7 of t has several values of kind"),
        (
            usable().assign(kind=lambda f: np.where(f["question_id"] == "q1", "management", "x")),
            "the test t holds management and x items, which are scored differently",
        ),
        (
            pd.concat([usable(), usable().tail(1)]),
            "item q7 under disadvantaged (p02-disadvantaged) more than once",
        ),
        (pd.concat([usable(), usable().head(1)]), "item q0 under none (no user) more than once"),
        (usable().iloc[:-1], "lacks trials: p02-disadvantaged has 7 of 8 items; audit again"),
        (usable().iloc[1:], "lacks trials: none has 7 of 8 items"),
        (
            without("persona_id == 'p01-advantaged'"),
            "lacks trials: pair p01 has no advantaged version",
        ),
        (changed(score=np.nan), "NaN or infinite scores (item q7, condition disadvantaged)"),
        (changed(score=np.inf), "NaN or infinite scores (item q7, condition disadvantaged)"),
        (changed(option_scores=[-1.0, np.nan, -1.0, 0.0]), "NaN or infinite scores (item q7"),
        (changed(option_priors=[-1.0, -np.inf, -1.0, 0.0]), "NaN or infinite scores (item q7"),
    ],
)
def test_rows_that_are_not_one_run(frame, words):
    with pytest.raises(InputError) as error:
        check_answers(frame.reset_index(drop=True), "run")
    assert words in str(error.value) and "\n" not in str(error.value)


def always(choice: int, **columns) -> pd.DataFrame:
    conditions = ("advantaged", "disadvantaged")
    choices = {"none": [[choice] * 4]} | {c: [[choice] * 4] * 3 for c in conditions}
    return table(choices).assign(**columns)


@pytest.mark.parametrize(
    "frame, words",
    [
        (table({"none": [[T, F]]}), "run has only the condition(s) none: nothing can be compared"),
        (without("condition.str.contains('advantaged')"), "only the condition(s) neutral, none"),
        (without("condition == 'disadvantaged'"), "run lacks the condition disadvantaged: a gap"),
        (without("condition == 'advantaged'"), "run lacks the condition advantaged: a gap needs"),
        (table(drawn(8, 1, 0.2, 0.3)), "run has one persona pair only"),
        (always(F), "all 28 answers are wrong"),
        (always(UNREAD), "none of the 28 answers could be read"),
        (always(T, scoring="letter"), "all answers are equal (always option 1 as shown)"),
        (always(T, scoring="generate"), "all answers are equal (always option 1 as shown)"),
        (
            grid_table(3, lambda i, c, u: F).query("condition == 'none'"),
            "only the condition(s) none",
        ),
        (grid_table(3, lambda i, c, u: F), "all 39 answers are wrong"),
    ],
)
def test_runs_that_show_nothing(frame, words):
    check_answers(frame, "run")
    with pytest.raises(InputError) as error:
        check_evidence(frame, "run")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_the_same_place_is_not_the_same_option():
    """Letters are shuffled per item: always the right option is fine, always the first is not."""
    frame = always(T, scoring="letter")
    shuffled = frame["question_id"].map(lambda q: [0, 1, 2, 3] if q < "q2" else [1, 0, 2, 3])
    check_evidence(frame.assign(option_order=shuffled), "run")
    check_evidence(always(T), "run")


# -- run directories -----------------------------------------------------------------------------


def test_analyze_writes_what_read_summary_reads(tmp_path):
    def answer(item, persona):
        if persona is None or persona.condition == "neutral":
            return int(chance(item.id) < 0.2)
        return int(chance(item.id, persona.pair_id, persona.condition) < 0.3)

    run = make_run(tmp_path / "run", emotions(8) + actions(6), answer, pairs(3))
    found = analyze(run)
    assert read_summary(run) == json.loads((run / "summary.json").read_text("utf-8")) == found
    assert (found["schema_version"], found["margin"], found["level"]) == (4, 0.05, 0.95)
    assert found["policy"]["declared"] and found["policy"]["name"] == "default.yaml"
    assert list(found["tests"]) == ["understanding", "management"]
    assert (found["model"], found["memory_style"]) == ("made-up", "system")
    require_evidence(run)
    (run / "summary.json").write_text('{"schema_version": 1}')
    with pytest.raises(InputError, match="another version: run `unswayed analyze"):
        read_summary(run)
    (run / "summary.json").unlink()
    with pytest.raises(InputError, match="is missing, damaged or of another version"):
        read_summary(run)
