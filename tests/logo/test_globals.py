"""The global memory: what it learns from whom and when, training, going on."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.histories import Event, load_histories, past_of, segments
from unswayed.logo import globals as module
from unswayed.logo.ask import Lesson
from unswayed.logo.globals import (
    SEGMENTS,
    CachingEmbedder,
    Stage,
    fair_draw,
    make_stages,
    module_folder,
    module_prompt,
    module_weights,
    train_global,
    trained_modules,
)
from unswayed.logo.local import KNOWN
from unswayed.logo.recipe import LogoSettings
from unswayed.models.adapters import read_manifest
from unswayed.models.base import load_base
from unswayed.plum.settings import PlumSettings
from unswayed.plum.train import train, train_samples

ROOT = Path(__file__).parents[2]
HISTORIES = load_histories("builtin:users=16,seed=1")
LOGO = LogoSettings(segments=4, communities=2, samples_per_segment=6)
BARE = dataclasses.replace(LOGO, evidence_share=0.0)
SETTINGS = PlumSettings(rank=2, alpha=8, epochs=1, batch_size=3, learning_rate=1e-2, qa_weight=1.0)
PARTS = segments(HISTORIES.events, 4)


@pytest.fixture(scope="module")
def base(tiny_model_dir) -> Any:
    return load_base(str(tiny_model_dir("llama", chat=True)), device="cpu")


def stages_of(users: Any = HISTORIES.users, logo: LogoSettings = LOGO, seed: int = 0, parts=PARTS):
    return make_stages(HISTORIES.task, parts[:-1], users, logo, seed)


def content(stages: Any) -> list[Any]:
    return [(one.id, one.communities.as_json(), one.modules, one.lessons) for one in stages]


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# -- draws ---------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(0, 40), st.integers())
def test_every_user_has_as_many_lessons_as_any_other(users: list[str], count: int, seed: int):
    events = [Event(user, float(i), "q", "1", id=str(i)) for i, user in enumerate(users)]
    drawn = fair_draw(events, count, random.Random(seed))
    assert len(drawn) == min(count, len(events))
    assert [int(one.id) for one in drawn] == sorted({int(one.id) for one in drawn})
    have, got = Counter(users), Counter(one.user for one in drawn)
    for user in have:  # whoever has fewer than another has none left
        assert got[user] == have[user] or got[user] >= max(got.values(), default=0) - 1
    assert drawn == fair_draw(events, count, random.Random(seed))


class Placing:
    """Communities that place everyone alike."""

    def __init__(self, p: list[float]) -> None:
        self.p = np.array(p)

    def place(self, events: Any) -> np.ndarray:
        return self.p


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=30), st.data())
def test_modules_that_have_a_say(raw: list[float], data: Any):
    p = np.array(raw) / sum(raw)
    modules = data.draw(st.permutations(range(len(p))))
    learnt = data.draw(st.sets(st.sampled_from(modules), min_size=1))
    lessons = tuple(Lesson(HISTORIES.events[0], [], "", module) for module in learnt)
    stages = [Stage(1, Placing(p), tuple(modules), lessons)]
    share = dict(zip(modules, p.tolist(), strict=True))
    found, best = module_weights(stages, ()), max(learnt, key=share.__getitem__)
    assert trained_modules(stages) == sorted(learnt)
    assert sum(found.values()) == pytest.approx(1)
    ((alone, whole),) = module_weights(stages, (), alone=True).items()
    assert share[alone] == share[best] and whole == 1
    assert set(found) == ({m for m in learnt if share[m] >= 0.05} or {alone})
    assert all(found[m] * share[alone] == pytest.approx(found[alone] * share[m]) for m in found)


# -- stages --------------------------------------------------------------------------------------


def test_stages_hold_lessons_of_their_segment_and_of_training_users_alone():
    users = HISTORIES.users[:9]
    stages = stages_of(users)
    assert [one.segment for one in stages] == [1, 2, 3]
    for stage in stages:
        assert len(stage.lessons) == 6
        assert {one.event.user for one in stage.lessons} <= set(users)
        assert {one.event for one in stage.lessons} <= set(PARTS[stage.segment - 1])
        for lesson in stage.lessons:
            system, *turns, asked = lesson.reads
            assert (KNOWN in system["content"]) == bool(turns) == bool(lesson.past)
            assert asked["content"] == lesson.event.query


def test_nothing_of_others_or_of_later_can_matter():
    """Other users' events may be any, and so may later ones: the stage is the same."""
    users = HISTORIES.users[:9]

    def changed(event: Event) -> Event:
        return dataclasses.replace(event, response="1", about=("planted",), query="planted")

    before = content(stages_of(users))
    others = [[e if e.user in users else changed(e) for e in part] for part in PARTS]
    assert content(stages_of(users, parts=others)) == before
    for stage in (1, 2):
        later = [*PARTS[:stage], *([changed(e) for e in part] for part in PARTS[stage:])]
        assert content(stages_of(users, parts=later))[:stage] == before[:stage]
        assert content(stages_of(users, parts=later))[stage] != before[stage]


def test_a_lesson_is_learnt_where_its_user_is_placed_without_the_answer():
    seen = set()
    for stage in stages_of(logo=dataclasses.replace(BARE, samples_per_segment=1000)):
        for lesson in stage.lessons:
            own = [
                e for part in PARTS[: stage.segment] for e in part if e.user == lesson.event.user
            ]
            others = [event for event in own if event is not lesson.event]
            assert lesson.module == stage.modules[stage.communities.nearest(others)]
            seen.add(stage.communities.nearest(others) == stage.communities.nearest(own))
    assert seen == {True, False}  # so that the answer would have mattered


def test_a_community_goes_on_with_the_module_that_most_of_its_users_had():
    """Whatever the order in which communities are found, most users keep their module."""
    histories = load_histories("builtin:users=480")
    parts = segments(histories.events, 5)
    logo = dataclasses.replace(LOGO, communities=4)
    stages = make_stages(histories.task, parts[:-1], histories.users, logo, 0)
    truth, planted = (
        histories.truth["community"],
        histories.truth["cold"] + histories.truth["skewed"],
    )
    for stage in stages[2:]:
        assert sorted(stage.modules) == [0, 1, 2, 3]
        past = [event for part in parts[: stage.segment] for event in part]
        by_truth = Counter(
            (truth[user], stage.modules[stage.communities.nearest(known)])
            for user in sorted(set(histories.users) - set(planted))
            if len(known := [event for event in past if event.user == user]) >= 10
        )
        own = {c: max(range(4), key=lambda m, c=c: by_truth[c, m]) for c in range(4)}
        assert sorted(own.values()) == [0, 1, 2, 3]
        if stage.segment == 3:
            first = own
        assert own == first
    assert any(stage.modules != (0, 1, 2, 3) for stage in stages)


@pytest.mark.parametrize(
    "before, after, expected",
    [
        ("aabbcc", "001122", (0, 1, 2)),
        ("aabbcc", "220011", (1, 2, 0)),  # the same people, found in another order
        ("aaabcc", "000111", (0, 2)),  # one fewer: b goes where most of it went
        ("aaabbb", "000112", (0, 1, 2)),  # one more: a number of its own
        ("aaaabb", "011100", (1, 0)),  # five keep theirs
    ],
)
def test_modules_of_communities_that_change(before: str, after: str, expected: tuple[int, ...]):
    class Known:
        def __init__(self, members: list[int]) -> None:
            self.members, self.shares = members, np.ones(1 + max(members))

        def nearest(self, events: list[int]) -> int:
            return self.members[events[0]]

    old = Stage(1, Known(["abc".index(c) for c in before]), tuple(range(len(set(before)))), ())
    histories = {str(i): [i] for i in range(6)}
    assert module._continued(old, Known([int(c) for c in after]), histories) == expected


def test_lessons_show_the_past_as_it_is_asked_with():
    """The prompt is that of the module with the same events known; placed by these alone."""
    logo = dataclasses.replace(LOGO, evidence_share=1.0, samples_per_segment=1000)
    seen: Counter[Any] = Counter()
    for stage in stages_of(logo=logo):
        for lesson in stage.lessons:
            own = past_of(HISTORIES.of(lesson.event.user), lesson.event)
            size = len(lesson.past)
            assert lesson.past == own[:size]
            assert size == len(own) or size in (1, 2, 5, 10)
            seen["all" if size == len(own) else size] += 1
            task, query = HISTORIES.task, lesson.event.query
            assert lesson.reads == module_prompt(task, query, lesson.past, logo)
            if size:
                placed = stage.communities.nearest(lesson.past)
                assert lesson.module == stage.modules[placed]
    assert set(seen) == {"all", 1, 2, 5, 10}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_lessons_that_show_evidence(share: float):
    logo = dataclasses.replace(LOGO, evidence_share=share, samples_per_segment=1000)
    shown = [
        bool(lesson.past)
        for stage in stages_of(logo=logo)[1:]
        for lesson in stage.lessons
        if past_of(HISTORIES.of(lesson.event.user), lesson.event)
    ]
    spread = 3.5 * (share * (1 - share) / len(shown)) ** 0.5
    assert abs(np.mean(shown) - share) <= spread


def test_evidence_of_lessons_is_found_by_embeddings_too(monkeypatch: pytest.MonkeyPatch):
    class Lengths:
        def embed(self, texts: Any) -> np.ndarray:
            rows = np.array([[float(len(text)), 1.0] for text in texts])
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    monkeypatch.setattr(module, "caching_embedder", lambda model: Lengths())
    by = dataclasses.replace(LOGO, evidence_share=1.0, evidence=1)
    words, vectors = (
        content(stages_of(logo=dataclasses.replace(by, evidence_by=way)))
        for way in ("words", "embedding")
    )
    assert words != vectors and [one[1] for one in words] == [one[1] for one in vectors]


def test_seed_and_no_communities():
    assert content(stages_of(seed=3)) == content(stages_of(seed=3))
    drawn = [{e.event.id for s in stages_of(seed=seed) for e in s.lessons} for seed in (3, 4)]
    assert drawn[0] != drawn[1]
    alone = stages_of(logo=dataclasses.replace(BARE, communities=1))
    assert trained_modules(alone) == [0] and {stage.modules for stage in alone} == {(0,)}


def test_a_segment_without_answers_is_refused():
    users = [user for user in HISTORIES.users if not any(e.user == user for e in PARTS[0])]
    if not users:
        users = ["nobody"]
    with pytest.raises(InputError, match="segment 1 has no answer of a user to learn from"):
        stages_of(users)


def test_an_embedder_that_remembers():
    class Counting:
        asked = 0

        def embed(self, texts: list[str]) -> np.ndarray:
            self.asked += len(texts)
            return np.array([[float(len(text)), 1.0] for text in texts])

    counting = Counting()
    embedder = CachingEmbedder(counting)
    first = embedder.embed(["a", "bb", "a"])
    assert first.tolist() == [[1, 1], [2, 1], [1, 1]]
    assert embedder.embed(["bb", "ccc"]).tolist() == [[2, 1], [3, 1]]
    assert counting.asked == 3


# -- training ------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def test_they_learn_go_on_and_refuse_another(base, tmp_path: Path):
    stages = stages_of()
    seen: list[tuple[int, int]] = []
    manifests = train_global(
        base, stages, SETTINGS, tmp_path / "whole",
        lambda model, module, stage: seen.append((module, stage.segment)),
    )  # fmt: skip
    own = {
        (module, stage.segment): n
        for stage in stages
        for module, n in Counter(lesson.module for lesson in stage.lessons).items()
    }
    assert seen == sorted(own) and {module for module, _ in own} == {0, 1} == set(manifests)
    for number, manifest in manifests.items():
        assert read_manifest(module_folder(tmp_path / "whole", number), SEGMENTS) == manifest
        assert {(number, one["id"]): one["samples"] for one in manifest["segments"]} == {
            (m, f"segment {segment}"): n for (m, segment), n in own.items() if m == number
        }
    for stop_at in (seen[0], seen[-1]):

        def stop(model: Any, module: int, stage: Stage, at: tuple[int, int] = stop_at) -> None:
            if (module, stage.segment) == at:
                raise Stop

        with pytest.raises(Stop):
            train_global(base, stages, SETTINGS, tmp_path / "broken", stop)
    train_global(base, stages, SETTINGS, tmp_path / "broken")
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    # the communities with which a new user is placed
    read = json.loads((tmp_path / "whole" / "communities.json").read_text())["stages"][-1]
    assert read["communities"] == json.loads(json.dumps(stages[-1].communities.as_json()))
    assert read["modules"] == list(stages[-1].modules)
    # nothing is trained twice, and nothing else on top
    train_global(
        base, stages, SETTINGS, tmp_path / "whole", lambda *_: pytest.fail("trained again")
    )
    with pytest.raises(InputError, match="was begun with other histories, settings or communities"):
        train_global(base, stages_of(seed=5), SETTINGS, tmp_path / "whole")
    other = dataclasses.replace(SETTINGS, learning_rate=1e-3)
    with pytest.raises(InputError, match=r"was begun with learning_rate 0\.01, now it is 0\.001"):
        train_global(base, stages, other, tmp_path / "whole")
    (tmp_path / "whole" / "communities.json").write_text("[]")
    with pytest.raises(InputError, match="is no file of communities"):
        train_global(base, stages, SETTINGS, tmp_path / "whole")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_trains_as_float32_does(base, tiny_model_dir, tmp_path: Path, dtype: str):
    half = load_base(str(tiny_model_dir("llama", chat=True)), dtype, "cpu")
    slow = dataclasses.replace(SETTINGS, learning_rate=1e-3)
    one, other = (
        [
            loss
            for manifest in train_global(model, stages_of(), slow, tmp_path / name).values()
            for stage in manifest[SEGMENTS]
            for loss in stage["losses"]
        ]
        for name, model in (("float32", base), (dtype, half))
    )
    assert other == pytest.approx(one, rel=torch.finfo(half.model.dtype).eps / 2)


def test_each_module_learns_from_its_community_alone(base, tmp_path: Path):
    """Other lessons of one community leave the modules of the others as they are."""
    stages = stages_of(logo=BARE)
    train_global(base, stages, SETTINGS, tmp_path / "one")
    changed = [
        dataclasses.replace(
            stage,
            lessons=tuple(
                dataclasses.replace(one, answer="1") if one.module == 1 else one
                for one in stage.lessons
            ),
        )
        for stage in stages
    ]
    train_global(base, changed, SETTINGS, tmp_path / "other")
    same, other = ([files(module_folder(tmp_path / name, m)) for name in ("one", "other")]
                   for m in (0, 1))  # fmt: skip
    assert same[0] == same[1] and other[0] != other[1]


def test_joint_training_is_one_stage(base, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    joint = dataclasses.replace(SETTINGS, joint=True)
    stages = stages_of()
    train_global(
        base, stages, joint, tmp_path,
        lambda model, module, stage: seen.append((module, stage.segment)),
    )  # fmt: skip
    last = {
        m: max(s.segment for s in stages if m in trained_modules([s]))
        for m in trained_modules(stages)
    }
    assert seen == sorted(last.items())


def test_a_lesson_that_is_too_long_is_named(base, tmp_path: Path):
    short = dataclasses.replace(SETTINGS, max_length=20)
    with pytest.raises(
        InputError, match=r"event 'u\d+/\d+' makes a sample of \d+ tokens, .* of 20"
    ):
        train_global(base, stages_of(), short, tmp_path)
    assert not list(tmp_path.iterdir())


def test_ready_samples_train_as_pairs_do(base, tmp_path: Path):
    from unswayed.plum.qa import QAPair
    from unswayed.plum.samples import make_sample

    pairs = [
        QAPair(id, "yes", f"Did {name} come?", "Yes") for id in "ab" for name in ("Anna", "Omar")
    ]
    ready: dict[str, list[Any]] = {"a": [], "b": []}
    for pair in pairs:
        ready[pair.conversation].append(make_sample(base.tokenizer, pair, 1.0, 512))
    train(base, pairs, SETTINGS, tmp_path / "pairs")
    train_samples(base, ready, SETTINGS, tmp_path / "samples")
    assert files(tmp_path / "pairs") == files(tmp_path / "samples")


def test_only_what_weighs_is_projected(base):
    """Loss and gradients of lessons, whose prompts weigh nothing, are those of padded samples."""
    from unswayed.models.adapters import adapted
    from unswayed.plum.loss import padded_pass, total_weight, tree_pass, weighted_loss
    from unswayed.plum.samples import Sample

    samples = [Sample("s", "1", (1, *range(9, 20), i, 2), (0.0,) * 12 + (1.0,) * 2) for i in (5, 6)]
    whole = tree_pass(base.model, [dataclasses.replace(s, weights=(1.0,) * 14) for s in samples])
    assert "logits_to_keep" not in whole.inputs
    assert tree_pass(base.model, samples).inputs["logits_to_keep"].tolist() == [11, 12, 13]
    nothing = [dataclasses.replace(s, weights=(0.0,) * 14) for s in samples]
    assert "logits_to_keep" not in tree_pass(base.model, nothing).inputs  # of an idle process
    found = []
    with adapted(base, SETTINGS.lora(), SETTINGS.seed) as model:
        for make_pass in (padded_pass, tree_pass):
            model.zero_grad()
            loss = weighted_loss(model, make_pass(base.model, samples), total_weight(samples))
            loss.backward()
            gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
            found.append((float(loss.detach()), gradients))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert any(gradient.abs().max() > 1e-4 for gradient in found[0][1])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_the_script(tiny_model_dir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    config = tmp_path / "run.yaml"
    keys = {
        "model": str(tiny_model_dir("llama", chat=True)),
        "output_dir": str(tmp_path / "out"),
        "histories": "builtin:users=12",
        "logo": {"segments": 3, "communities": 2, "samples_per_segment": 4},
        "settings": {"rank": 2, "alpha": 8, "epochs": 1},
    }
    config.write_text(yaml.safe_dump(keys))
    script = str(ROOT / "recipes" / "logo" / "train.py")
    monkeypatch.setattr(sys, "argv", [script, "--config", str(config)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(script, run_name="__main__")
    assert stopped.value.code == 0
    said = capsys.readouterr().out  # all segments, all users
    assert [sum(map(int, re.findall(rf"segment {n}, (\d+) samples", said))) for n in (1, 2, 3)] == [
        4, 4, 4,
    ]  # fmt: skip
    kept = json.loads((tmp_path / "out" / "communities.json").read_text())
    assert [one["id"] for one in kept["stages"]] == ["segment 1", "segment 2", "segment 3"]
    assert read_manifest(tmp_path / "out" / "community-1", SEGMENTS)[SEGMENTS]
    config.write_text(yaml.safe_dump(keys | {"logo": {"segment": 3}}))
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(script, run_name="__main__")
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "unknown key logo.segment; known" in error
    assert error.count("\n") == 1
