"""The evaluation: who knows what, what is asked and kept, going on, tables and plot."""

from __future__ import annotations

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from unswayed.cli import main
from unswayed.core.errors import InputError
from unswayed.data.histories import (
    Event,
    Histories,
    Task,
    label_entropy,
    load_histories,
    make_histories,
    segments,
)
from unswayed.data.histories.baseline import fit_means
from unswayed.logo import ask
from unswayed.logo import sides as sides_module
from unswayed.logo.calibration import Calibration
from unswayed.logo.evaluate import METHODS, evaluate, recovered, run_seed
from unswayed.logo.globals import trained_modules
from unswayed.logo.mediator import HistoryFacts, LearnedMediator, MediatorRow, fit_mediator
from unswayed.logo.plan import make_plan
from unswayed.logo.recipe import LogoRecipe, LogoSettings
from unswayed.logo.rows import OF_LABELS, as_frame
from unswayed.logo.tables import draw, measures, recovered_texts, slices, summarise, tables
from unswayed.models.base import load_base
from unswayed.plum.settings import PlumSettings
from unswayed.scoring.lm import SharedPrefixLM

SPEC = "builtin:users=20,seed=1"
LOGO = LogoSettings(
    segments=4, communities=2, samples_per_segment=6, questions_per_user=2, cold=(0, 2),
    fit_share=0.3, test_share=0.3,
)  # fmt: skip
SETTINGS = PlumSettings(rank=2, alpha=8, epochs=1, batch_size=3, learning_rate=1e-2, qa_weight=1.0)
TEXT = Task("notes", "What does this person write?", None, False, "thing")


@pytest.fixture(scope="module")
def model(tiny_model_dir) -> str:
    return str(tiny_model_dir("llama", chat=True, max_position_embeddings=2048))


@pytest.fixture(scope="module")
def base(model: str) -> Any:
    return load_base(model, device="cpu")


@pytest.fixture(scope="module")
def recipe(model: str) -> LogoRecipe:
    return LogoRecipe(model, "unused", SPEC, logo=LOGO, settings=SETTINGS)


@pytest.fixture(scope="module")
def whole(recipe: LogoRecipe, base: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of all methods: its record, answers and folder."""
    folder = tmp_path_factory.mktemp("whole") / "seed-0"
    run, frame = run_seed(recipe, load_histories(SPEC), base, METHODS, folder)
    return run, frame, folder


def rows_of(frame: pd.DataFrame, method: str, part: str = "test") -> pd.DataFrame:
    own = frame[(frame.method == method) & (frame.part == part)]
    return own.set_index(["event", own.cut.fillna(-1).astype(int).rename("at")]).sort_index()


# -- who knows what ------------------------------------------------------------------------------


def notes(n_users: int = 12, per_user: int = 8) -> Histories:
    """Every event has words of its own: "askU-I" in the query, "sayU-I" in the response, "tagUxS"
    with its segment as a tag. So whatever shows up somewhere says where it is from."""
    bare = [
        Event(f"u{user}", float(place * 100 + user), "", "", id=f"{user}-{place}")
        for place in range(per_user)
        for user in range(n_users)
    ]
    parts = segments(sorted(bare, key=lambda event: event.time), 4)
    number = {event.id: s for s, part in enumerate(parts, start=1) for event in part}
    events = [
        dataclasses.replace(
            event,
            query=f"ask{event.id}",
            response=f"say{event.id}",
            about=(f"tag{event.user[1:]}x{number[event.id]}",),
        )
        for event in bare
    ]
    return make_histories(TEXT, [("", event) for event in events])


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> dict[str, list]:
    """Every prompt that a model gets, and every lesson (stage, prompt, answer)."""
    found: dict[str, list] = {"prompts": [], "lessons": []}
    for name in ("loglikelihood", "generate_until"):
        stock = getattr(SharedPrefixLM, name)

        def asked(self: Any, requests: list, *args: Any, stock=stock, **kwargs: Any) -> Any:
            found["prompts"] += [request.args[0] for request in requests]
            return stock(self, requests, *args, **kwargs)

        monkeypatch.setattr(SharedPrefixLM, name, asked)
    make = ask.make_sample

    def trained_modules(lm: Any, stage: str, prompt: str, answer: str, *weights: float) -> Any:
        found["lessons"].append((stage, prompt, answer))
        return make(lm, stage, prompt, answer, *weights)

    monkeypatch.setattr(ask, "make_sample", trained_modules)
    return found


@pytest.mark.parametrize("profile", ["counted", "written"])
def test_nothing_leaks(recipe, base, tmp_path: Path, answered, profile: str):
    """A whole run on free text: no word of later, or of users apart, where it must not be."""
    histories = notes()
    logo = dataclasses.replace(LOGO, profile=profile, new_tokens=4, asked_segments=2)
    methods = [method for method in METHODS if method not in OF_LABELS]
    _, frame = run_seed(
        dataclasses.replace(recipe, logo=logo), histories, base, methods, tmp_path / "run"
    )
    split = make_plan(histories, logo, 0, True).split
    events = {event.id: event for event in histories.events}
    parts = segments(histories.events, 4)
    number = {event.id: s for s, part in enumerate(parts, start=1) for event in part}

    def told(prompt: str) -> tuple[set[str], str]:
        """Ids of the events that are told, and of the one that is asked about."""
        *before, asked = re.findall(r"(?:ask|say)(\d+-\d+)", prompt)
        return set(before), asked

    def tags(text: str) -> list[tuple[str, int]]:
        return [(user, int(s)) for user, s in re.findall(r"tag(\d+)x(\d+)", text)]

    assert len(answered["lessons"]) == 3 * 6
    shown = 0
    for stage, prompt, answer in answered["lessons"]:
        id = answer.removeprefix("say")
        assert events[id].user in split.train
        assert stage == f"segment {number[id]}" and number[id] <= 3
        evidence, asked = told(prompt)
        assert f"say{id}" not in prompt and asked == id
        for other in evidence:
            assert events[other].user == events[id].user
            assert events[other].time < events[id].time
            shown += 1
        own = events[id].user[1:]
        assert all(user == own and s <= number[id] for user, s in tags(prompt))

    assert shown > 0

    mine, tagged = Counter(), 0
    for prompt in answered["prompts"]:
        if TEXT.ask not in prompt:  # asks for a profile
            assert profile == "written"
            users = {id.split("-")[0] for id in re.findall(r"(?:ask|say)(\d+-\d+)", prompt)}
            assert len(users) == 1 and f"u{users.pop()}" in (*split.fit, *split.test)
            continue
        evidence, id = told(prompt)
        event = events[id]
        assert event.user in (*split.fit, *split.test)
        assert number[id] in ((3, 4) if event.user in split.test else (2, 3))
        assert f"say{id}" not in prompt
        for other in evidence:
            assert events[other].user == event.user and events[other].time < event.time
            mine[event.user] += 1
        for user, s in tags(prompt):
            assert user == event.user[1:] and s <= number[id]
            tagged += 1
    assert set(mine) == {*split.fit, *split.test} and tagged > 0

    # answers in free text: numbers alone are kept
    assert set(frame.method) == set(methods)
    assert frame.rouge_l.between(0, 1).all() and frame.prediction.isna().all()
    fused = frame[frame.method == "logo-gate"]
    assert fused.weight_global.dropna().between(0, 1).all()
    assert {len(p) for p in fused.probabilities.dropna()} <= {2}
    kept = (
        "".join(
            path.read_text()
            for path in (tmp_path / "run").rglob("*.json")
            if path.name == "run.json"
        )
        + frame.to_csv()
    )
    assert not re.search(r"(say|ask)\d", kept)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "answers.parquet", "module", "run.json",
    ]  # fmt: skip


def test_what_comes_later_cannot_matter(recipe):
    """What a question reads is the same whatever happened at its time or later, and to others."""
    histories = load_histories(SPEC)
    plan = make_plan(histories, LOGO, 0, True)
    chosen = [view for view in plan.views if view.cut is None][::7]
    assert {view.target.part for view in chosen} == {"test", "fit"}
    for view in chosen:
        event = view.target.event
        changed = tuple(
            e
            if e.id == event.id or (e.user == event.user and e.time < event.time)
            else dataclasses.replace(e, response="1" if e.response != "1" else "5")
            for e in histories.events
        )
        again = make_plan(dataclasses.replace(histories, events=changed), LOGO, 0, True)
        (same,) = [c for c in again.views if c.target.event.id == event.id and c.cut is None]
        assert same.past == view.past
        assert same.age == view.age
        assert all(e.time < event.time and e.user == event.user for e in view.past)


def test_who_is_asked_what():
    histories = load_histories("builtin:users=60,seed=2")
    logo = dataclasses.replace(LOGO, segments=5, asked_segments=2)
    plan = make_plan(histories, logo, 3, True)
    groups = [set(users) for users in (plan.split.train, plan.split.fit, plan.split.test)]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 60
    seen = Counter()
    for view in plan.views:
        one = view.target
        assert one.event in plan.parts[one.segment - 1]
        assert one.segment in {"test": (4, 5), "fit": (3, 4)}[one.part]
        assert one.event.user in getattr(plan.split, one.part)
        assert len(view.past) == (len(one.past) if view.cut is None else view.cut)
        assert view.past == one.past[: len(view.past)]  # of a newcomer the first events
        seen[one.event.user, one.segment, view.cut] += 1
    assert max(seen.values()) == 2
    assert plan.asked_segments == [3, 4, 5]
    for number in (3, 5):
        lessons = plan.lessons_before(number)
        assert {e.user for e in lessons} <= groups[0]
        assert max(e.time for e in lessons) < plan.parts[number - 1][0].time
    # skewed: the quarter of test users with the least varied answers; balanced: more of both
    tested = [c.target for c in plan.views if c.target.part == "test" and c.cut is None]
    variety = {q.event.id: label_entropy(q.past, histories.task.labels) for q in tested}
    users = {q.event.user for q in tested if len(q.past) >= 5}
    skewed = {q.event.user for q in tested if q.skewed}
    assert len(skewed) == -(-len(users) // 4)
    last = {q.event.user: variety[q.event.id] for q in tested if len(q.past) >= 5}
    assert max(last[user] for user in skewed) <= min(last[user] for user in users - skewed)
    length = np.median([len(q.past) for q in tested])
    for q in tested:
        both = len(q.past) > length and variety[q.event.id] > np.median(list(variety.values()))
        assert q.balanced == both
    assert make_plan(histories, logo, 3, False).asked_segments == [4, 5]


def test_plans_that_cannot_be():
    few = load_histories("builtin:users=8")
    with pytest.raises(InputError, match=r"shares of users, together below 1"):
        make_plan(few, dataclasses.replace(LOGO, test_share=0.8), 0, True)
    early = [(user, float(t)) for user in "bcdefgh" for t in range(3)]
    late = [("a", 100.0 + t) for t in range(60)]
    rows = [("", Event(user, time, "dish", "3", ("sour",))) for user, time in early + late]
    histories, refused = make_histories(few.task, rows), set()
    for seed in range(12):  # whichever part the only late user is in
        with pytest.raises(InputError) as error:
            make_plan(histories, LOGO, seed, True)
        refused.add(str(error.value).split(":")[0])
    assert refused == {
        "no test user has an answer in the last 1 of 4 segments",
        "segment 2 has no answer of a user to learn from",
    }


def test_fit_users_are_asked_in_the_newest_segment_that_has_them(recipe):
    """Before segments 4 and 5 the newest with a fit user's answers is 2, before 6 it is 5."""
    task = load_histories("builtin:users=8").task
    logo = dataclasses.replace(LOGO, segments=6, asked_segments=3, fit_share=0.2, test_share=0.2)

    def population(fit_times: list[int]) -> Histories:
        rows = [(user, t) for user in "abcdefghij" for t in range(6) if user not in fit]
        rows += [(user, t) for user in fit for t in fit_times]
        return make_histories(
            task,
            [("", Event(user, float(t), f"dish {t}", "3", ("sour",))) for user, t in sorted(rows)],
        )

    fit: tuple[str, ...] = ()
    fit = make_plan(population([]), logo, 0, False).split.fit
    plan = make_plan(population([0, 1, 4, 5]), logo, 0, True)
    assert plan.split.fit == fit and len(plan.parts) == 6
    asked = {c.target.segment for c in plan.views if c.target.part == "fit"}
    assert asked == {2, 5} and plan.asked_segments == [2, 4, 5, 6]
    # nothing before segment 4 and 5, but something before 6: it is not refused
    plan = make_plan(population([0, 4, 5]), logo, 0, True)
    assert {c.target.segment for c in plan.views if c.target.part == "fit"} == {5}
    with pytest.raises(InputError, match="no fit user has an answer in segments 2 to 5"):
        make_plan(population([0, 5]), logo, 0, True)


def test_communities_are_recovered_among_those_of_whom_enough_is_known():
    """Cold people cannot be placed before they come, and skewed ones hide their taste."""
    histories = load_histories("builtin:users=300,seed=0")
    plan = make_plan(histories, dataclasses.replace(LOGO, segments=5, communities=4), 0, False)
    for one in recovered(plan, histories).values():
        assert one["regular"] >= 0.8
        assert one["all"] < one["regular"]
    nothing = dataclasses.replace(plan, parts=plan.parts[:1])  # before the first segment
    for one in recovered(nothing, histories).values():
        assert one == {"all": None, "long": None, "regular": None}
    assert recovered(plan, dataclasses.replace(histories, truth=None)) is None


# -- answers -------------------------------------------------------------------------------------


def test_every_case_has_an_answer_of_every_method(whole, recipe):
    run, frame, folder = whole
    plan = make_plan(load_histories(SPEC), LOGO, 0, True)
    expected = Counter(
        (view.target.event.id, -1 if view.cut is None else view.cut, method)
        for view in plan.views
        for method in (METHODS if view.target.part == "test" else ("profile", "global"))
    )
    found = Counter(zip(frame.event, frame.cut.fillna(-1).astype(int), frame.method, strict=True))
    assert found == expected and set(expected.values()) == {1}
    events = {event.id: event for event in load_histories(SPEC).events}
    assert all(
        events[id].response == outputs
        for id, outputs in zip(frame.event, frame.answer, strict=True)
    )
    cut = frame[frame.cut.notna()]
    assert len(cut) and (cut.n == cut.cut).all()
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "answers.parquet"), frame)
    assert run["users"] == {"train": 8, "fit": 6, "test": 6}
    assert sum(one["samples"] for one in run["training"]) == 18
    assert all(one["seconds"] > 0 for one in run["training"])
    assert set(run["recovered"]) == {"train", "fit", "test"}
    assert sum(run["content_free"]) == pytest.approx(1, abs=1e-4)
    assert {what: one["prompts"] > 0 for what, one in run["asked"].items()} == {
        "own past": True, "no content": True, "module": True, "logo-prompt": True,
    }  # fmt: skip


def test_predictions_follow_from_distributions(whole):
    _, frame, _ = whole
    asked = frame[frame.probabilities.notna()]
    scale = np.arange(1, 6)
    for p, prediction, expected in zip(
        asked.probabilities, asked.prediction, asked.expected, strict=True
    ):
        assert np.sum(p) == pytest.approx(1, abs=1e-4)
        assert expected == pytest.approx(p @ scale / np.sum(p))
        losses = [p @ np.abs(scale - value) for value in scale]  # the median minimises it
        assert losses[int(prediction) - 1] == pytest.approx(min(losses), abs=1e-6)


def gate_of(values: dict[str, Any]) -> LearnedMediator:
    """The gate of a run's record."""
    sides = {side: Calibration(**values[side]) for side in ("local", "everyone")}
    return LearnedMediator(**values | sides)


def test_mediators_by_hand(whole):
    """From the rows of both sides alone."""
    run, frame, _ = whole
    local, everyone = (rows_of(frame, name) for name in ("profile", "global"))
    gate = gate_of(run["gates"]["4"])
    events = {event.id: event for event in load_histories(SPEC).events}
    plan = make_plan(load_histories(SPEC), LOGO, 0, True)
    views = {(c.target.event.id, -1 if c.cut is None else c.cut): c for c in plan.views}
    ages = {key: view.age for key, view in views.items()}
    past = {key: view.past for key, view in views.items()}
    fused = {name: rows_of(frame, f"logo-{name}") for name in ("shrinkage", "equal", "gate")}
    bare = rows_of(frame, "none")
    alone = {name: rows_of(frame, f"{name}-calibrated") for name in ("local", "global")}
    for key, row in local.iterrows():
        sides = row.probabilities, everyone.loc[key].probabilities
        closed, equal, learned = (own.loc[key] for own in fused.values())
        n = min(row.n, 4) * label_entropy(past[key], plan.task.labels) / np.log(5)
        g = 5 / (n + 5)
        corrected = sides[0] / np.array(run["content_free"])
        mixed = np.exp((1 - g) * np.log(corrected) + g * np.log(sides[1]))
        np.testing.assert_allclose(closed.probabilities, mixed / mixed.sum(), atol=1e-5)
        for side, own, scaling in zip(
            sides, alone.values(), (gate.local, gate.everyone), strict=True
        ):
            raised = side**scaling.slope * np.exp(scaling.biases)
            found = own.loc[key]
            np.testing.assert_allclose(found.probabilities, raised / raised.sum(), atol=1e-5)
            assert np.isnan(found.weight_global)
        assert closed.weight_global == pytest.approx(g) and equal.weight_global == 0.5
        mediated = gate.mediate(*sides, HistoryFacts(row.n, ages[key]))
        np.testing.assert_allclose(learned.probabilities, mediated.probabilities, atol=1e-5)
        assert learned.weight_global == pytest.approx(mediated.weight_global)
        if row.n == 0:
            assert row.probabilities == pytest.approx(bare.loc[key].probabilities)
    # the gate is that of the fit users' rows, also of short histories, all before the test
    local, everyone = (rows_of(frame, name, "fit") for name in ("profile", "global"))
    assert set(local.segment) == {3} and {0, 2} <= set(local.n)
    rows = [
        MediatorRow(row.user, row.probabilities, everyone.loc[key].probabilities, row.n, ages[key],
            int(events[key[0]].response) - 1)
        for key, row in local.iterrows()
    ]  # fmt: skip
    again = fit_mediator(rows, LOGO.l2, calibrate=True)
    np.testing.assert_allclose(again.weights, gate.weights, atol=1e-2)
    np.testing.assert_allclose(again.local.biases, gate.local.biases, atol=1e-3)


def test_the_module_reads_both(whole, recipe):
    """Where nothing is known it is what the communities say; else another answer."""
    _, frame, _ = whole
    both, everyone = (rows_of(frame, name) for name in ("logo-weights", "global"))
    assert list(both.index) == list(everyone.index)
    differ = [
        not np.allclose(row.probabilities, everyone.loc[key].probabilities)
        for key, row in both.iterrows()
    ]
    assert differ == list(both.n > 0)
    assert set(both.n > 0) == {True, False}


def test_the_baseline_knows_what_the_module_knows(whole):
    _, frame, _ = whole
    histories = load_histories(SPEC)
    plan = make_plan(histories, LOGO, 0, True)
    means = fit_means(plan.lessons_before(4), histories.task)
    found = rows_of(frame, "means")
    for view in plan.views:
        if view.target.part == "test":
            key = view.target.event.id, -1 if view.cut is None else view.cut
            assert found.loc[key].prediction == means.label(view.past, view.target.event)
            assert found.loc[key].expected == means.value(view.past, view.target.event)


# -- going on ------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def test_interrupted_it_goes_on_to_the_same_answers(
    recipe, base, whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    histories, asked, label_probabilities = load_histories(SPEC), [], ask.label_probabilities
    stops: list[int] = []

    def counting(lm: Any, prompts: list[str], labels: Any) -> Any:
        if stops and len(asked) == stops[0]:
            stops.pop(0)
            raise Stop
        asked.append(len(prompts))
        return label_probabilities(lm, prompts, labels)

    monkeypatch.setattr(ask, "label_probabilities", counting)
    before, frame, folder = whole
    prompts = [one["prompts"] for one in before["asked"].values()]
    batches = [-(-n // sides_module.BATCH) for n in prompts[:1]]
    stops += [1, batches[0], batches[0] + 2]  # in and after own past, between the module's
    run = tmp_path / "seed-0"
    while stops:
        with pytest.raises(Stop):
            run_seed(recipe, histories, base, METHODS, run)
    with (run / "journal.jsonl").open("a") as file:
        file.write('{"prompt": "half a li')  # a kill while a line was written
    _, again = run_seed(recipe, histories, base, METHODS, run)
    assert sum(asked) == sum(prompts)  # nothing was asked twice
    pd.testing.assert_frame_equal(again, frame)
    for path in (folder / "module").rglob("*.*"):
        assert (run / "module" / path.relative_to(folder / "module")).read_bytes() == (
            path.read_bytes()
        )
    _, past = run_seed(recipe, histories, base, METHODS, run)  # finished, not run again
    pd.testing.assert_frame_equal(past, frame)
    assert sum(asked) == sum(prompts)


def test_batches_do_not_matter(
    recipe, base, whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sides_module, "BATCH", 5)
    methods = ("profile", "global", "logo-weights", "logo-shrinkage")
    _, frame = run_seed(recipe, load_histories(SPEC), base, methods, tmp_path / "seed-0")
    assert set(frame.method) == set(methods) and set(frame.part) == {"test"}
    for method in methods:
        ours, theirs = rows_of(frame, method), rows_of(whole[1], method)
        assert list(ours.index) == list(theirs.index)
        np.testing.assert_allclose(
            np.stack(ours.probabilities), np.stack(theirs.probabilities), atol=1e-4
        )


def test_another_run_is_refused(recipe, base, whole):
    _, _, folder = whole
    histories = load_histories(SPEC)
    for other, message in (
        (
            {"logo": dataclasses.replace(LOGO, evidence=2)},
            r"begun with logo\.evidence 4, now it is",
        ),
        ({"settings": dataclasses.replace(SETTINGS, epochs=2)}, r"with settings\.epochs 1, now it"),
    ):
        with pytest.raises(InputError, match=message):
            run_seed(dataclasses.replace(recipe, **other), histories, base, METHODS, folder)
    with pytest.raises(InputError, match="begun with methods"):
        run_seed(recipe, histories, base, METHODS[:3], folder)
    with pytest.raises(InputError, match="begun with events"):
        run_seed(recipe, load_histories("builtin:users=20,seed=2"), base, METHODS, folder)


def test_a_module_without_its_answers_is_refused(recipe, base, tmp_path: Path):
    methods = ("global",)
    run_seed(recipe, load_histories(SPEC), base, methods, tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(InputError, match="lacks what they answered: remove the folder"):
        run_seed(recipe, load_histories(SPEC), base, methods, tmp_path)


def test_a_module_is_asked_although_its_community_fell_silent(recipe, base, tmp_path: Path):
    """One lesson a segment: a module that learns nothing of one is asked as it was before."""
    logo = dataclasses.replace(LOGO, samples_per_segment=1, asked_segments=2)
    for seed in range(20):
        plan = make_plan(load_histories(SPEC), logo, seed, False)
        learnt = [trained_modules(plan.stages[:count]) for count in (2, 3)]
        if learnt == [[0, 1], [0, 1]]:
            break
    assert plan.asked_segments == [3, 4] and len(plan.stages[2].lessons) == 1
    own = dataclasses.replace(recipe, logo=logo, settings=dataclasses.replace(SETTINGS, seed=seed))
    methods = ("global", "logo-weights")
    run, frame = run_seed(own, load_histories(SPEC), base, methods, tmp_path)
    assert sorted(one["samples"] for one in run["training"]) == [1, 2]
    assert len(frame) == 2 * len(plan.views) and set(frame.segment) == {3, 4}
    assert np.allclose(np.stack(frame.probabilities).sum(axis=1), 1, atol=1e-4)


def test_joint_training_has_a_module_for_each_segment_asked(recipe, base, tmp_path: Path):
    joint = dataclasses.replace(
        recipe,
        logo=dataclasses.replace(LOGO, cold=()),
        settings=dataclasses.replace(SETTINGS, joint=True),
    )
    methods = ("profile", "global", "logo-weights", "logo-gate")
    run, frame = run_seed(joint, load_histories(SPEC), base, methods, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("module-*")) == ["module-3", "module-4"]
    assert [one["community"] for one in run["training"]] == [1, 2, 1, 2]
    before = [sum(one["samples"] for one in run["training"][i : i + 2]) for i in (0, 2)]
    assert before == [12, 18]
    assert set(frame[frame.part == "fit"].segment) == {3}


# -- several seeds, tables, plot, command --------------------------------------------------------


def test_the_command(model: str, tmp_path: Path, capsys):
    config = tmp_path / "run.yaml"
    logo = {"segments": 3, "communities": 2, "samples_per_segment": 3, "cold": [0],
            "questions_per_user": 1, "test_share": 0.3}  # fmt: skip
    keys = {"model": model, "output_dir": "unused", "histories": "nowhere",
            "logo": logo, "settings": {"rank": 2, "alpha": 8, "epochs": 1}}  # fmt: skip
    config.write_text(yaml.safe_dump(keys))
    out = tmp_path / "out"
    command = ["logo", "evaluate", "--recipe", str(config), "--out", str(out)]
    methods = ["--methods", "profile", "global", "logo-shrinkage", "means"]
    spec = ["--histories", "builtin:users=12"]
    assert main([*command, *spec, *methods, "--seeds", "0", "1"]) == 0
    text = capsys.readouterr().out
    assert "| Adjusted Rand index | all | long | regular |" in text
    assert "seeds 0, 1;" in text and "| logo-shrinkage | " in text and "| means | " in text
    result = json.loads((out / "result.json").read_text())
    assert [run["identity"]["settings"]["seed"] for run in result["runs"]] == [0, 1]
    assert str(tmp_path) not in (out / "result.json").read_text()
    assert tables(result) in (out / "tables.md").read_text()
    assert draw(result) == (out / "logo.svg").read_text()
    labels = "".join(ET.fromstring(draw(result)).itertext())
    assert "MAE" in labels and "weight of the global side" in labels
    assert "segment of time" not in labels  # there is one
    for wrong, message in (
        (["--methods", "magic"], "method 'magic' is not one of none, retrieval"),
        (["--histories", "somewhere"], "histories 'somewhere': not one of builtin"),
        ([], "histories 'nowhere': not one of builtin"),
        (["--seeds"], "expected at least one argument"),
    ):
        assert main([*command, *wrong]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def made_up(seed: int, gain: float = 1.0) -> list[dict[str, Any]]:
    """Four users with two questions each, whose answers are 1, 1, 5, 5; profile says 3, LoGo the
    truth with `gain`, else 3."""
    rows = []
    for user, answer in zip("abcd", (1, 1, 5, 5), strict=True):
        for number in (1, 2):
            same = {"user": user, "event": f"{user}{number}", "part": "test", "segment": 3 + number,
                    "n": 4, "skewed": user == "a", "balanced": False,
                    "answer": str(answer)}  # fmt: skip
            for cut in (None, 0):
                right = answer if number / 2 <= gain else 3
                for method, outputs, weight in (("profile", 3, None), ("logo-gate", right, 0.25)):
                    rows.append(
                        same | {"cut": cut, "method": method, "prediction": str(outputs),
                                "expected": outputs + 0.5, "weight_global": weight}
                    )  # fmt: skip
    return rows


def test_figures_by_hand():
    task = load_histories("builtin:users=8").task
    frame = pd.concat([as_frame(made_up(s, g)).assign(seed=s) for s, g in ((0, 1.0), (1, 0.5))])
    assert [name for name, _ in slices(frame)] == [
        "all", "cold 0", "skewed", "segment 4", "segment 5",
    ]  # fmt: skip
    found = summarise(frame, task)
    whole = found["measures"]["all"]
    assert whole["profile"]["mae"]["mean"] == 2 and whole["profile"]["accuracy"]["mean"] == 0
    assert whole["profile"]["rmse"]["mean"] == pytest.approx(((2.5**2 + 1.5**2) / 2) ** 0.5)
    assert whole["profile"]["weight_global"] is None
    gate = whole["logo-gate"]
    assert (gate["users"], gate["answers"], gate["weight_global"]) == (4, 16, 0.25)
    assert gate["mae"] == {"mean": 0.5, "low": None, "high": None}  # users are alike
    assert gate["macro_f1"]["mean"] == pytest.approx((2 / 5 + 2 * (2 / 3) / 5) / 2)
    assert found["measures"]["segment 5"]["logo-gate"]["mae"]["mean"] == 1.0
    alone = summarise(frame[frame.seed == 0], task)["measures"]["all"]["profile"]["accuracy"]
    assert alone["low"] is None  # nobody is ever right: nothing varies, so no interval
    (one,) = [d for d in found["differences"] if d["slice"] == "all" and d["metric"] == "mae"]
    assert (one["mediator"], one["other"], one["estimate"]) == ("logo-gate", "profile", -1.5)
    assert one["relative"] == -0.75 and (one["n_users"], one["n_answers"]) == (4, 16)
    assert found == summarise(frame.sample(frac=1, random_state=0), task)  # whatever the order
    labels = "".join(ET.fromstring(draw(found | {"metric": "mae"})).itertext())
    assert "segment of time" in labels and "logo-gate" in labels


def test_recovery_over_seeds_by_hand():
    runs = [{"recovered": {"test": {"all": a, "long": None}}} for a in (0.5, 0.9)]
    assert recovered_texts({"runs": runs}) == {"test": {"all": "0.70 (0.50 to 0.90)", "long": "–"}}
    assert recovered_texts({"runs": [{"recovered": None}]}) == {}


def test_metrics_of_a_task():
    ordinal = load_histories("builtin:users=8").task
    assert list(measures(ordinal)) == ["mae", "rmse", "accuracy", "macro_f1"]
    closed = dataclasses.replace(ordinal, ordinal=False)
    assert list(measures(closed)) == ["accuracy", "macro_f1"]
    assert list(measures(TEXT)) == ["rouge_l", "rouge_1"]


@pytest.fixture
def noted(tmp_path: Path) -> str:
    """The spec of a file with `notes`."""
    path = tmp_path / "notes.jsonl"
    path.write_text(
        "".join(
            json.dumps({"user": e.user, "time": e.time, "query": e.query, "response": e.response})
            + "\n"
            for e in notes().events
        )
    )
    return f"events={path}"


@pytest.mark.parametrize("methods", [["means"], OF_LABELS])
def test_free_text_and_only_methods_that_need_labels(recipe, noted, tmp_path: Path, methods):
    """Refused before a model is looked for: there is none here."""
    own = dataclasses.replace(recipe, model=str(tmp_path / "none"), histories=noted)
    with pytest.raises(InputError, match="responses are free text, which local-calibrated"):
        evaluate(own, tmp_path / "out", [0], methods)
    assert not (tmp_path / "out").exists()


def test_free_text_has_no_means(recipe, noted, tmp_path: Path):
    own = dataclasses.replace(
        recipe,
        histories=noted,
        logo=dataclasses.replace(LOGO, new_tokens=3, cold=(), questions_per_user=1),
    )
    chosen = ["none", "global", "logo-weights", "logo-equal", *OF_LABELS]
    result = evaluate(own, tmp_path / "out", [0], chosen)
    assert set(result["measures"]["all"]) == {"profile"} | set(chosen) - set(OF_LABELS)
    assert result["runs"][0]["content_free"] is None and not result["runs"][0]["gates"]
    assert result["metric"] == "rouge_l"
    assert "ROUGE-L" in (tmp_path / "out" / "tables.md").read_text()
