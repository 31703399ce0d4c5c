"""The global memory: what it learns from whom and when, training, going on."""

from __future__ import annotations

import dataclasses
import json
import random
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unswayed.errors import InputError
from unswayed.histories import Event, known, load_histories, segments
from unswayed.memory.logo import globals as module
from unswayed.memory.logo.communities import Communities
from unswayed.memory.logo.globals import (
    RememberingEmbedder,
    fair_draw,
    likely,
    make_stages,
    module_prompt,
    train_global,
)
from unswayed.memory.logo.local import KNOWN
from unswayed.memory.logo.recipe import LogoSettings
from unswayed.memory.plum.adapter import read_manifest
from unswayed.memory.plum.settings import PlumSettings
from unswayed.memory.plum.train import train, train_samples
from unswayed.scoring.base import load_base

ROOT = Path(__file__).parents[3]
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
    return [(one.id, one.communities.as_json(), one.lessons) for one in stages]


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


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=30))
def test_communities_that_have_a_say(raw: list[float]):
    p = np.array(raw) / sum(raw)
    found = likely(p)
    assert sum(found.values()) == pytest.approx(1)
    assert int(np.argmax(p)) in found
    if p.max() >= 0.05:
        assert set(found) == {c for c, share in enumerate(p) if share >= 0.05}
    best = max(found, key=found.__getitem__)
    assert all(found[c] / found[best] == pytest.approx(p[c] / p[best]) for c in found)


# -- stages --------------------------------------------------------------------------------------


def test_stages_hold_lessons_of_their_segment_and_of_training_users_alone():
    users = HISTORIES.users[:9]
    stages = stages_of(users)
    assert [one.segment for one in stages] == [1, 2, 3]
    for stage in stages:
        assert len(stage.lessons) == 6
        assert {one.event.user for one in stage.lessons} <= set(users)
        assert {one.event for one in stage.lessons} <= set(PARTS[stage.segment - 1])
        texts = {stage.communities.everyone, *stage.communities.descriptions}
        for lesson in stage.lessons:
            system, asked = lesson.reads
            text, found, told = system["content"].partition(f"\n{KNOWN}")
            assert text in texts and bool(found) == bool(told) == bool(lesson.known)
            assert asked["content"] == f"{HISTORIES.task.ask}\n{lesson.event.query}"


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


def test_a_user_is_placed_without_the_answer(monkeypatch: pytest.MonkeyPatch):
    placed, place = [], Communities.place

    def recorded(self: Communities, events: Any) -> np.ndarray:
        placed.append(list(events))
        return place(self, events)

    monkeypatch.setattr(Communities, "place", recorded)
    stages = stages_of(logo=BARE)
    described = [
        (stage, lesson)
        for stage in stages
        for lesson in stage.lessons
        if lesson.reads[0]["content"] != stage.communities.everyone
    ]
    assert len(described) == len(placed) >= 3
    for stage, lesson in described:
        own = [e for part in PARTS[: stage.segment] for e in part if e.user == lesson.event.user]
        assert sorted(e.id for e in own if e is not lesson.event) in [
            sorted(e.id for e in events) for events in placed
        ]
    assert not any(lesson.event in events and len(events) == len(own) for events in placed)


def test_lessons_show_the_past_as_it_is_asked_with():
    """The prompt is that of the module with the same events known; placed by these alone."""
    logo = dataclasses.replace(LOGO, evidence_share=1.0, samples_per_segment=1000)
    seen: Counter[Any] = Counter()
    for stage in stages_of(logo=logo):
        texts = [stage.communities.everyone, *stage.communities.descriptions]
        for lesson in stage.lessons:
            own = known(HISTORIES.of(lesson.event.user), lesson.event)
            size = len(lesson.known)
            assert lesson.known == own[:size]
            assert size == len(own) or size in (1, 2, 5, 10)
            seen["all" if size == len(own) else size] += 1
            place = 1 + int(np.argmax(stage.communities.place(lesson.known)))
            for text in {texts[0], texts[place]} if size else texts:
                task, query = HISTORIES.task, lesson.event.query
                if lesson.reads == module_prompt(task, query, text, lesson.known, logo):
                    break
            else:
                pytest.fail(f"{lesson.event.id} reads {lesson.reads}")
    assert set(seen) == {"all", 1, 2, 5, 10}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_lessons_that_show_evidence(share: float):
    logo = dataclasses.replace(LOGO, evidence_share=share, samples_per_segment=1000)
    shown = [
        bool(lesson.known)
        for stage in stages_of(logo=logo)[1:]
        for lesson in stage.lessons
        if known(HISTORIES.of(lesson.event.user), lesson.event)
    ]
    spread = 3.5 * (share * (1 - share) / len(shown)) ** 0.5
    assert abs(np.mean(shown) - share) <= spread


def test_evidence_of_lessons_is_found_by_embeddings_too(monkeypatch: pytest.MonkeyPatch):
    class Lengths:
        def embed(self, texts: Any) -> np.ndarray:
            rows = np.array([[float(len(text)), 1.0] for text in texts])
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    monkeypatch.setattr(module, "remembering_embedder", lambda model: Lengths())
    by = dataclasses.replace(LOGO, evidence_share=1.0, evidence=1)
    words, vectors = (
        content(stages_of(logo=dataclasses.replace(by, evidence_by=way)))
        for way in ("words", "embedding")
    )
    assert words != vectors and [one[1] for one in words] == [one[1] for one in vectors]


def test_everyone_is_described_once_in_k_plus_1_cases():
    logo = dataclasses.replace(LOGO, samples_per_segment=1000)
    lessons = [
        lesson.reads[0]["content"].startswith(stage.communities.everyone)
        for stage in stages_of(logo=logo)
        for lesson in stage.lessons
    ]
    share, expected = np.mean(lessons), 1 / 3
    assert abs(share - expected) < 3.5 * (expected * (1 - expected) / len(lessons)) ** 0.5


def test_seed_and_no_communities():
    assert content(stages_of(seed=3)) == content(stages_of(seed=3))
    drawn = [{e.event.id for s in stages_of(seed=seed) for e in s.lessons} for seed in (3, 4)]
    assert drawn[0] != drawn[1]
    (text,) = {
        lesson.reads[0]["content"]
        for lesson in stages_of(logo=dataclasses.replace(BARE, communities=1))[0].lessons
    }
    assert text.startswith("A person of whom nothing is known.")


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
    embedder = RememberingEmbedder(counting)
    first = embedder.embed(["a", "bb", "a"])
    assert first.tolist() == [[1, 1], [2, 1], [1, 1]]
    assert embedder.embed(["bb", "ccc"]).tolist() == [[2, 1], [3, 1]]
    assert counting.asked == 3


# -- training ------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def test_it_learns_goes_on_and_refuses_another(base, tmp_path: Path):
    stages = stages_of()
    seen: list[int] = []
    manifest = train_global(
        base, stages, LOGO, SETTINGS, tmp_path / "whole", lambda model, done: seen.append(done)
    )
    assert seen == [1, 2, 3]
    assert [one["id"] for one in manifest["conversations"]] == [s.id for s in stages]
    assert [one["samples"] for one in manifest["conversations"]] == [6, 6, 6]
    for stop_at in (1, 3):

        def stop(model: Any, done: int, at: int = stop_at) -> None:
            if done == at:
                raise Stop

        with pytest.raises(Stop):
            train_global(base, stages, LOGO, SETTINGS, tmp_path / "broken", stop)
    train_global(base, stages, LOGO, SETTINGS, tmp_path / "broken")
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    # the communities with which a new user is placed
    read = json.loads((tmp_path / "whole" / "communities.json").read_text())["stages"][-1]
    assert read["communities"] == json.loads(json.dumps(stages[-1].communities.as_json()))
    # nothing is trained twice, and nothing else on top
    train_global(
        base, stages, LOGO, SETTINGS, tmp_path / "whole", lambda *_: pytest.fail("trained again")
    )
    with pytest.raises(InputError, match="was begun with other histories, settings or communities"):
        train_global(base, stages_of(seed=5), LOGO, SETTINGS, tmp_path / "whole")
    other = dataclasses.replace(SETTINGS, learning_rate=1e-3)
    with pytest.raises(InputError, match=r"was begun with learning_rate 0\.01, now it is 0\.001"):
        train_global(base, stages, LOGO, other, tmp_path / "whole")
    (tmp_path / "whole" / "communities.json").write_text("[]")
    with pytest.raises(InputError, match="is no file of communities"):
        train_global(base, stages, LOGO, SETTINGS, tmp_path / "whole")


def test_joint_training_is_one_stage(base, tmp_path: Path):
    seen: list[int] = []
    joint = dataclasses.replace(SETTINGS, joint=True)
    train_global(base, stages_of(), LOGO, joint, tmp_path, lambda model, done: seen.append(done))
    assert seen == [3]
    assert len(read_manifest(tmp_path)["conversations"]) == 3


def test_a_lesson_that_is_too_long_is_named(base, tmp_path: Path):
    short = dataclasses.replace(SETTINGS, max_length=20)
    with pytest.raises(
        InputError, match=r"event 'u\d+/\d+' makes a sample of \d+ tokens, .* of 20"
    ):
        train_global(base, stages_of(), LOGO, short, tmp_path)
    assert not list(tmp_path.iterdir())


def test_ready_samples_train_as_pairs_do(base, tmp_path: Path):
    from unswayed.memory.plum.pairs import Pair
    from unswayed.memory.plum.samples import make_sample

    pairs = [
        Pair(id, "yes", f"Did {name} come?", "Yes") for id in "ab" for name in ("Anna", "Omar")
    ]
    ready: dict[str, list[Any]] = {"a": [], "b": []}
    for pair in pairs:
        ready[pair.conversation].append(make_sample(base.tokenizer, pair, 1.0, 512))
    train(base, pairs, SETTINGS, tmp_path / "pairs")
    train_samples(base, ready, SETTINGS, tmp_path / "samples")
    assert files(tmp_path / "pairs") == files(tmp_path / "samples")


def test_only_what_weighs_is_projected(base):
    """Loss and gradients of lessons, whose prompts weigh nothing, are those of padded samples."""
    from unswayed.memory.plum.adapter import adapted
    from unswayed.memory.plum.loss import padded_pass, total_weight, tree_pass, weighted_loss
    from unswayed.memory.plum.samples import Sample

    samples = [Sample("s", "1", (1, *range(9, 20), i, 2), (0.0,) * 12 + (1.0,) * 2) for i in (5, 6)]
    whole = tree_pass(base.model, [dataclasses.replace(s, weights=(1.0,) * 14) for s in samples])
    assert "logits_to_keep" not in whole.inputs
    assert tree_pass(base.model, samples).inputs["logits_to_keep"].tolist() == [11, 12, 13]
    nothing = [dataclasses.replace(s, weights=(0.0,) * 14) for s in samples]
    assert "logits_to_keep" not in tree_pass(base.model, nothing).inputs  # of an idle process
    found = []
    with adapted(base, SETTINGS, None) as model:
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
    assert "segment 3, 4 samples" in capsys.readouterr().out  # all segments, all users
    kept = json.loads((tmp_path / "out" / "communities.json").read_text())
    assert [one["id"] for one in kept["stages"]] == ["segment 1", "segment 2", "segment 3"]
    assert len(read_manifest(tmp_path / "out")["conversations"]) == 3
    config.write_text(yaml.safe_dump(keys | {"logo": {"segment": 3}}))
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(script, run_name="__main__")
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "unknown key logo.segment; known" in error
    assert error.count("\n") == 1
