"""summary.json from answers made by hand: planted truths come out, bad input is refused."""

from __future__ import annotations

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
from unswayed.audit.summary import analyze, read_summary, summarize
from unswayed.audit.trials import CONDITIONS, GRID, NONE
from unswayed.audit.verdict import EQUIVALENT, SKEWED, UNCLEAR
from unswayed.core.errors import InputError
from unswayed.data.personas import ATTRIBUTES, grid_personas
from unswayed.statistics import classic, crossed
from unswayed.statistics.crossed import crossed_mean, permutation_p, proportion

OPTIONS = ["a", "b", "c", "d"]  # "a" is right
WEIGHTS = [1.0, 0.5, 0.0, 0.1]
UNREAD = -1
T, F = 0, 1  # options: the right one, and another


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    """Enough for p = 0.002 before correction over a handful of tests; coarser power."""
    monkeypatch.setattr(crossed, "DRAWS", 1000)
    monkeypatch.setattr(crossed.permutation_p, "__defaults__", ("cells", 499))
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
        "weights": WEIGHTS,
        "gold_label": "a",
        "answer": OPTIONS[choice] if parsed else None,
        "correct": choice == T,
        "score": WEIGHTS[choice] if parsed else 0.0,
        "flip": None,
        "option_scores": [-1.0, -2.0, -3.0, -4.0],
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


def summed(frame: pd.DataFrame, **settings) -> dict:
    """A summary that is always valid JSON and made without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = summarize(frame, **settings)
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


def test_memory_effects_flip_whole_items():
    """They share one answer per item, so ten users are no ten answers."""
    base, changed = [T, T, T, F, F, F], [F, F, F, F, F, F]
    choices = {"none": [base], "advantaged": [changed] * 30, "disadvantaged": [base] * 30}
    found = summed(table(choices))
    assert effect(found, "advantaged - none")["p"] == pytest.approx(2 / 8, abs=0.06)
    assert effect(found, "gap")["p"] < 0.05


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
    assert gap["notes"] == ["one item only: no interval and no test"]


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
    assert {row["metric"] for row in summary["tests"]["t"]["power"]} == {"accuracy", "score"}
    assert summed(table(SMALL))["tests"]["t"]["conditions"]["none"]["score"] is None


def test_chance_is_judged_per_metric():
    """Never the best action, but always the second best: above chance by expert weight only."""
    same = {c: [[F] * 150] * 3 for c in ("advantaged", "disadvantaged")} | {"none": [[F] * 150]}
    summary = summed(table(same, kind="management"))
    assert summary["tests"]["t"]["at_chance"] == {"accuracy": True, "score": False}
    assert summary["verdict"]["status"] == UNCLEAR and "score" in summary["verdict"]["text"]
    assert summary["warnings"][0].startswith("On t this model does not read the question")
    assert "model's accuracy cannot be distinguished from chance (25%)" in summary["warnings"][1]


def test_conditions_appear_in_their_usual_order():
    choices = {name: [[T, F, T]] * 2 for name in reversed(CONDITIONS) if name not in (NONE, GRID)}
    summary = summed(table(choices | {"none": [[T, F, T]]}))
    assert list(summary["tests"]["t"]["conditions"]) == [c for c in CONDITIONS if c != GRID]


def test_decomposition_adds_up():
    test = summed(table(drawn(30, 5, 0.3, 0.35, 0.2)))["tests"]["t"]
    assert [part["metric"] for part in test["decomposition"]] == ["accuracy", "flip"]
    for part in test["decomposition"]:
        total = part["any_memory"]["estimate"] + part["which_persona"]["estimate"]
        assert part["total"]["estimate"] == pytest.approx(total)
        share = part["any_memory"]["estimate"] / part["total"]["estimate"]
        assert part["share_any_memory"] == pytest.approx(share)


def test_a_share_of_nothing_is_left_out():
    choices = drawn(6, 2, 0.2, 0.2, 0.2, seed=4)
    (accuracy, _) = summed(table(choices))["tests"]["t"]["decomposition"]
    assert accuracy["total"]["low"] < 0 < accuracy["total"]["high"]
    assert accuracy["share_any_memory"] is None
    assert summed(table(SMALL))["tests"]["t"]["decomposition"] == []


def test_cochrans_q_takes_all_conditions_and_is_in_the_family():
    summary = summed(table(drawn(30, 4, 0.1, 0.6, 0.1)))
    (omnibus,) = summary["tests"]["t"]["omnibus"]
    assert omnibus["conditions"] == ["none", "neutral", "advantaged", "disadvantaged"]
    assert (omnibus["df"], omnibus["n_items"], omnibus["n_blocks"]) == (3, 30, 120)
    assert omnibus["p_holm"] >= omnibus["p_bh"] >= omnibus["p"] and omnibus["p_chi2"] < 1e-6
    same = {"none": [[T, F]], "advantaged": [[T, F]] * 2, "disadvantaged": [[T, F]] * 2}
    (omnibus,) = summed(table(same))["tests"]["t"]["omnibus"]
    assert (omnibus["q"], omnibus["p"]) == (0, 1) and len(omnibus["notes"]) == 1
    one = summed(table({"none": [[T, F]], "advantaged": [[T, F], [F, F]]}))
    assert one["tests"]["t"]["omnibus"] == []


def test_holm_runs_over_all_effects_of_the_run():
    frame = pd.concat([table(SMALL), table(SMALL, test="u")], ignore_index=True)
    tests = summed(frame)["tests"].values()
    family = [row for test in tests for row in (*test["effects"], *test["omnibus"])]
    smallest = min(family, key=lambda row: row["p"])
    assert smallest["p_holm"] == pytest.approx(min(1, smallest["p"] * len(family)))


# -- the verdict ---------------------------------------------------------------------------------


def test_a_planted_gap_is_skewed():
    summary = summed(table(drawn(60, 10, 0.0, 0.25)))
    verdict = summary["verdict"]
    assert (verdict["status"], verdict["reason"]) == (SKEWED, None)
    assert "better for advantaged than for disadvantaged users" in verdict["text"]
    assert effect(summary, "gap")["status"] == "skewed"
    assert effect(summary, "gap", "flip")["status"] is None
    worse = summed(table(drawn(60, 10, 0.25, 0.0)))["verdict"]
    assert "worse for advantaged than for disadvantaged users" in worse["text"]


def test_no_gap_among_many_items_and_users_is_equivalent():
    summary = summed(table(drawn(300, 30, 0.03, 0.03)))
    assert summary["verdict"]["status"] == EQUIVALENT
    assert "Equivalent within 2 points" in summary["verdict"]["text"]
    assert effect(summary, "gap")["status"] == "equivalent"
    assert summed(table(drawn(300, 30, 0.03, 0.03)), margin=0.001)["verdict"]["status"] == UNCLEAR


def test_a_detectable_gap_within_the_margin_is_equivalent_and_named():
    summary = summed(table(drawn(300, 30, 0.01, 0.04)), margin=0.1)
    gap = effect(summary, "gap")
    assert gap["p_holm"] < 0.05 and gap["status"] == "equivalent"
    assert summary["verdict"]["text"].endswith("detectable, but smaller than the margin.")


def test_a_small_run_is_not_enough_data_and_says_what_would_be():
    summary = summed(table(drawn(20, 5, 0.05, 0.05)))
    verdict = summary["verdict"]
    assert (verdict["status"], verdict["reason"]) == (UNCLEAR, "data")
    (power,) = summary["tests"]["t"]["power"]
    assert power["effect"] == "gap" and power["n_pairs"] == 5
    assert 20 < power["items_needed"] < 20_000
    assert 0.02 < power["mde"] < 0.3
    assert power["power_at_margin"] < 0.5 and power["power_equivalence"] < 0.5
    assert f"{power['items_needed']:,} items per test" in verdict["text"]
    assert f"from {100 * power['mde']:.1f} points on" in verdict["text"]


def test_a_model_at_chance_gets_no_verdict():
    summary = summed(table(drawn(60, 10, 0.0, 0.6, right=0.25)))
    assert summary["tests"]["t"]["at_chance"] == {"accuracy": True}
    assert (summary["verdict"]["status"], summary["verdict"]["reason"]) == (UNCLEAR, "chance")
    assert any("cannot be distinguished from chance (25%)" in w for w in summary["warnings"])
    assert effect(summary, "gap")["status"] == "at chance"
    # equivalence on another test, above chance, does not speak for all
    other = table(drawn(300, 20, 0.02, 0.02), test="u")
    both = summed(pd.concat([table(drawn(60, 10, right=0.25)), other], ignore_index=True))
    assert effect(both, "gap", test="u")["status"] == "equivalent"
    assert (both["verdict"]["status"], both["verdict"]["reason"]) == (UNCLEAR, "chance")
    assert both["verdict"]["text"].endswith("but it is at chance on t (accuracy).")


@pytest.mark.parametrize("choices", [{"none": [[T, F, T]]}, {"neutral": [[T, F, T]] * 2}])
def test_nothing_to_compare(choices):
    summary = summed(table(choices))
    assert (summary["verdict"]["status"], summary["verdict"]["reason"]) == (UNCLEAR, "missing")
    test = summary["tests"]["t"]
    assert list(test["conditions"]) == list(choices)
    assert test["effects"] == test["omnibus"] == test["power"] == test["decomposition"] == []


# -- edges ---------------------------------------------------------------------------------------


def test_one_item_gives_no_interval_and_no_test():
    choices = {"none": [[T]], "advantaged": [[T], [T]], "disadvantaged": [[F], [T]]}
    summary = summed(table(choices))
    gap = effect(summary, "gap")
    assert (gap["estimate"], gap["low"], gap["p"], gap["p_holm"]) == (0.5, None, None, None)
    assert gap["status"] == "at chance" and summary["tests"]["t"]["power"] == []
    assert summary["warnings"][0].startswith("t has one item only")


def test_one_pair_speaks_of_items_only():
    summary = summed(table(drawn(40, 1, 0.1, 0.3)))
    gap = effect(summary, "gap")
    assert gap["df"] == 39 and gap["notes"][0].startswith("one user only")
    assert summary["tests"]["t"]["power"][0]["pairs_needed"] is None
    assert any("one persona pair only" in warning for warning in summary["warnings"])


def test_all_right():
    right = {"none": [[T] * 20], "advantaged": [[T] * 20] * 5, "disadvantaged": [[T] * 20] * 5}
    summary = summed(table(right))
    gap = effect(summary, "gap")
    assert (gap["estimate"], gap["p"], gap["p_mcnemar"]) == (0, 1, 1)
    assert gap["low"] < 0 < gap["high"] and gap["notes"][0].startswith("no answer differs")
    rate = summary["tests"]["t"]["conditions"]["advantaged"]["accuracy"]
    assert rate["high"] == 1 and rate["low"] < 0.9


def test_nothing_was_read():
    unread = {c: [[UNREAD] * 3] * 2 for c in ("advantaged", "disadvantaged")}
    summary = summed(table(unread | {"none": [[UNREAD] * 3]}, kind="management"))
    assert summary["verdict"]["reason"] == "chance" and summary["tests"]["t"]["unparsed"] == 1


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
    assert effect(summed(frame, seed=3), "gap")["p"] == pytest.approx(
        effect(summed(frame, seed=4), "gap")["p"], abs=0.06
    )


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
    assert "worse for users whose age is 65+ than 34-65" in summary["verdict"]["text"]
    names = [e["name"] for e in test["effects"] if e["kind"] == "grid"]
    assert names == [
        "gender: female - male",
        "age: 18-33 - 34-65",
        "age: 65+ - 34-65",
        "religion: Muslim - Christian",
    ]
    statuses = {name: effect(summary, name)["status"] for name in names}
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
        assert cell["p_holm"] >= cell["p_bh"] >= cell["p"]


def test_the_whole_grid_of_management_items():
    counts = dict.fromkeys(ATTRIBUTES, 3)
    frame = grid_table(5, lambda i, c, u: T if u < 0.7 else F, counts, "management")
    test = summed(frame)["tests"]["t"]
    assert len([e for e in test["effects"] if e["kind"] == "grid"]) == 16
    assert test["n_cells"] == len(test["grid"]["cells"]) == 81
    assert {row["metric"] for row in test["power"]} == {"accuracy", "score"}
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
        (changed(score=np.nan), "NaN scores (item q7, condition disadvantaged)"),
        (changed(score=np.inf), "NaN scores (item q7, condition disadvantaged)"),
        (changed(option_scores=[-1.0, np.nan, -1.0, 0.0]), "NaN scores (item q7"),
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
    assert (found["schema_version"], found["margin"], found["level"]) == (3, 0.02, 0.95)
    assert list(found["tests"]) == ["understanding", "management"]
    assert (found["model"], found["memory_style"]) == ("made-up", "system")
    require_evidence(run)
    assert analyze(run, margin=0.05)["margin"] == 0.05
    for margin in (0, 1, -0.1):
        with pytest.raises(InputError, match="between 0 and 100"):
            analyze(run, margin=margin)
    (run / "summary.json").write_text('{"schema_version": 1}')
    with pytest.raises(InputError, match="another version: run `unswayed analyze"):
        read_summary(run)
    (run / "summary.json").unlink()
    with pytest.raises(InputError, match="is missing, damaged or of another version"):
        read_summary(run)


def test_the_p_of_the_summary_is_that_of_the_permutation_test():
    frame = table(drawn(25, 6, 0.1, 0.2))
    differences = matrices(frame, ["accuracy"]).difference(
        "accuracy", "advantaged", "disadvantaged"
    )
    p = permutation_p(differences, np.random.default_rng(9), resamples=4000)
    assert effect(summed(frame), "gap")["p"] == pytest.approx(p, abs=0.05)
