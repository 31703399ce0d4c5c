"""The stages of preference data: with chat services on loopback as generator and judge, and with a
tiny model as policy. What is kept is looked up in the stages' own files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chat_service import GONE, completion, serving
from hypothesis import given
from hypothesis import strategies as st

from unswayed.errors import InputError
from unswayed.mitigation.judge import Judgement
from unswayed.mitigation.model_judge import read_verdict, rubric
from unswayed.mitigation.preferences import STAGES, build_pairs, in_test_split, passages
from unswayed.mitigation.preferences.settings import PreferenceSettings
from unswayed.mitigation.preferences.steps import CONSISTENT, group_of, users, whole_groups
from unswayed.mitigation.questions import builtin_questions
from unswayed.mitigation.sampling import INSTRUCTIONS, asked, conversations
from unswayed.personas import builtin_personas

WRONG = "People like you seldom get to learn this. The answer is minus 77."
ANSWERS = {question.question: question.answer for question in builtin_questions()}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")


@pytest.fixture
def settings(tmp_path, tiny_model_dir):
    """`settings(service=None, **more)`: a build with a tiny policy, in a work folder of its own."""
    tiny = str(tiny_model_dir("llama", chat=True))

    def make(service=None, **more) -> PreferenceSettings:
        if service:
            more |= {"generator": "writer", "generator_backend": "local-chat-completions"}
            more["generator_args"] = f"base_url={service.url},num_concurrent=4,max_retries=1"
        defaults = {"work_dir": str(tmp_path / "work"), "n_questions": 6, "policy": tiny}
        return PreferenceSettings(**(defaults | {"embedder": tiny, "generator": tiny} | more))

    return make


def stage(settings: PreferenceSettings, name: str) -> list[dict]:
    (path,) = Path(settings.work_dir).glob(f"*_{name}.parquet")
    return pq.read_table(path).to_pylist()


def build(settings: PreferenceSettings):
    """The pairs, or None where the reward of a random model leaves none."""
    settings.check()
    try:
        return build_pairs(settings)
    except InputError as error:
        assert "no row is left after" in str(error), error
        return None


def writer(number: int, body: dict) -> dict:
    """Three right answers that state irrelevance, a plain one, and one that is wrong."""
    system, user = (message["content"] for message in body["messages"])
    told = [kind for kind, text in INSTRUCTIONS.items() if text and text in system]
    kind = told[0] if told else "control_1"
    answer = ANSWERS[user]
    if kind == "control_2":
        return completion(content=WRONG)
    if kind == "control_1":
        return completion(content=f"The answer is {answer}.")
    return completion(content=f"Your background does not matter here. The answer is {answer}.")


# -- sampling --------------------------------------------------------------------------------------


def test_five_candidates_of_which_three_are_told_to_check():
    memory = "They keep bees."
    found = conversations(memory, "What is 2 + 2?")
    assert [kind.split("_")[0] for kind in found] == ["aware"] * 3 + ["control"] * 2
    plain_system = asked(memory, "What is 2 + 2?")[0]["content"]
    for kind, (system, user) in found.items():
        assert system["content"].startswith(plain_system) and user["content"] == "What is 2 + 2?"
        assert INSTRUCTIONS[kind] in system["content"]
    assert len({json.dumps(messages) for messages in found.values()}) == 5


def test_candidates_come_from_the_service_and_are_judged(settings):
    with serving(writer) as service:
        chosen = settings(service)
        build(chosen)
    candidates, judged = stage(chosen, "candidates"), stage(chosen, "judged")
    assert len(service.bodies) == 5 * 6 == len(candidates)
    assert service.most_busy > 1
    # The three aware candidates are the same text: two of them go no further.
    reasons = Counter(row["dropped"] for row in candidates)
    assert reasons == {None: 18, "the same text as another candidate": 12}
    roles = {(row["kind"], row["role"]) for row in judged}
    assert roles == {("aware_1", "chosen"), ("control_1", None), ("control_2", "rejected")}
    pairs = stage(chosen, "pairs")
    assert len(pairs) == 6 and all(row["dropped"] is None for row in pairs)
    for row in pairs:
        assert row["answer"] in row["chosen"] and "does not matter" in row["chosen"]
        assert row["rejected"] == WRONG


def test_prompts_are_random_users_without_the_spared_ones(settings):
    with serving(writer) as service:
        chosen = settings(service, n_questions=40, constructed=2, spare_pairs=20)
        build(chosen)
    spared = {f"p{number:02d}" for number in range(1, 21)}
    rows = stage(chosen, "prompts")
    assert Counter(row["source"] for row in rows) == {"sampled": 40, "constructed": 80}
    assert not spared & {row["pair_id"] for row in rows}
    assert {row["condition"] for row in rows} == {"advantaged", "disadvantaged"}
    built = [(r["question_id"], r["persona_id"]) for r in rows if r["source"] == "constructed"]
    assert len(set(built)) == 80  # another user each time


@given(st.integers(0, 29))
def test_users_are_those_after_the_spared(spared):
    found = {p.pair_id for p in users(PreferenceSettings(spare_pairs=spared))}
    pairs = list(dict.fromkeys(p.pair_id for p in builtin_personas()))
    assert found == set(pairs[spared:])


def test_the_same_seed_draws_the_same(settings, tmp_path):
    def prompts(work: str, **more):
        chosen = settings(sampled=0, constructed=1, work_dir=str(tmp_path / work), **more)
        build(chosen)
        return [(r["question_id"], r["persona_id"]) for r in stage(chosen, "prompts")]

    assert prompts("a") == prompts("b") != prompts("c", seed=1)


# -- groups ----------------------------------------------------------------------------------------


def in_groups(rows: list[dict]) -> dict[tuple[str, str], list[dict]]:
    found: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        if row["source"] == CONSISTENT:
            found.setdefault(group_of(row), []).append(row)
    return found


def test_a_group_is_one_chosen_text_under_four_memories(settings):
    chosen = settings(sampled=0, consistent=2, spare_pairs=20, similarity=1.0)
    pairs, funnel = build_pairs(chosen)
    groups = in_groups(pairs)
    assert len(pairs) == 48 and len(groups) == 12
    personas = {persona.id: persona for persona in builtin_personas()}
    for (_, base), rows in groups.items():
        assert base > "p20"
        assert [r["condition"] for r in rows] == ["none", "neutral", "advantaged", "disadvantaged"]
        assert len({row["chosen"] for row in rows}) == 1
        assert rows[0]["persona_id"] is None and rows[0]["memory"] == ""
        for row in rows[1:]:
            assert row["persona_id"] == f"{base}-{row['condition']}"
            assert row["memory"].split() == [
                word for _, text in personas[row["persona_id"]].texts() for word in text.split()
            ]
    # A random model's rewards would drop most; they are noted and decide nothing.
    assert all(passage.reasons == {} for passage in funnel)
    assert {row["reward"] for row in pairs} == {"reference margin"}
    assert any(not row["chosen_reward"] > 0 > row["rejected_reward"] for row in pairs)


def test_groups_leave_other_pairs_as_they_are(settings, tmp_path):
    def rows(work: str, **more) -> list[dict]:
        chosen = settings(sampled=0, constructed=2, work_dir=str(tmp_path / work), **more)
        build(chosen)
        return [r for r in stage(chosen, "pairs") if r["source"] == "constructed"]

    assert rows("without") == rows("with", consistent=1)


def test_a_group_with_a_pair_that_is_too_long_goes_as_a_whole(settings, tmp_path):
    every = settings(sampled=0, consistent=2, work_dir=str(tmp_path / "every"), similarity=1.0)
    lengths = {
        key: max(row["tokens"] for row in rows)
        for key, rows in in_groups(build_pairs(every)[0]).items()
    }
    limit = sorted(lengths.values())[6]
    chosen = settings(sampled=0, consistent=2, similarity=1.0, max_length=limit)
    pairs, funnel = build_pairs(chosen)
    fit = {key for key, length in lengths.items() if length <= limit}
    assert in_groups(pairs).keys() == fit and len(pairs) == 4 * len(fit)
    why = f"longer than {limit} tokens"
    long = sum(row["tokens"] > limit for row in stage(every, "clean"))
    assert funnel[-1].reasons == {why: long, f"of a group with: {why}": 48 - len(pairs) - long}


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.sampled_from("xy"),
            st.sampled_from([CONSISTENT, "constructed", None]),
            st.sampled_from([None, None, "too long", "too near"]),
        )
    )
)
def test_whole_groups_stay_or_go(drawn):
    rows = [
        {"question_id": question, "pair_id": base, "source": source, "dropped": dropped}
        for question, base, source, dropped in drawn
    ]
    found = whole_groups(rows)
    for before, after in zip(rows, found, strict=True):
        if before["source"] != CONSISTENT or before["dropped"]:
            assert after == before
            continue
        own = [r for r in rows if r["source"] == CONSISTENT and group_of(r) == group_of(before)]
        reasons = [row["dropped"] for row in own if row["dropped"]]
        assert after["dropped"] == (f"of a group with: {reasons[0]}" if reasons else None)
    assert whole_groups(found) == found


def test_groups_are_built_once(settings):
    chosen = settings(sampled=0, consistent=1, similarity=1.0)
    first = build_pairs(chosen)
    files = Path(chosen.work_dir).glob("*")
    before = {path.name: path.stat().st_mtime_ns for path in files}
    assert build_pairs(chosen) == first
    files = Path(chosen.work_dir).glob("*")
    assert before == {path.name: path.stat().st_mtime_ns for path in files}


def test_a_question_without_a_wrong_answer_has_no_group(settings, tmp_path):
    file = tmp_path / "mine.jsonl"
    towns = [{"question": "Where is it?", "answer": "Rome", "category": "towns"}]
    sums = [{"question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in (2, 3, 5)]
    file.write_text("\n".join(map(json.dumps, towns + sums)), encoding="utf-8")
    chosen = settings(sampled=0, consistent=1, questions=[f"mine={file}"], similarity=1.0)
    pairs, funnel = build_pairs(chosen)
    assert len(pairs) == 12
    (passage,) = (p for p in funnel if p.stage == "candidates")
    assert passage.reasons == {"no wrong answer can be made of this category's other answers": 4}


# -- interruption and caching ----------------------------------------------------------------------


def test_a_service_that_dies_loses_nothing_and_nothing_is_asked_twice(settings):
    dying = serving(lambda n, body: writer(n, body) if n <= 11 else GONE)
    with dying as first, pytest.raises(InputError, match="cannot be reached"):
        build_pairs(settings(first))
    with serving(writer) as second:
        chosen = settings(second)
        build(chosen)
        assert len(second.bodies) == 30 - 11
        before = {p.name: p.stat().st_mtime_ns for p in Path(chosen.work_dir).glob("*.parquet")}
        build(chosen)  # all is there
        after = {p.name: p.stat().st_mtime_ns for p in Path(chosen.work_dir).glob("*.parquet")}
        assert len(second.bodies) == 30 - 11 and before == after
        (Path(chosen.work_dir) / "3_candidates.parquet").unlink()  # that stage alone
        build(chosen)
        assert len(second.bodies) == 30 - 11
        build(settings(second, n_questions=8))  # only what the two new questions ask
    assert len(second.bodies) == 30 - 11 + 10


def test_a_stage_is_made_again_if_its_settings_change(settings):
    build(settings(sampled=0, constructed=1))
    chosen = settings(sampled=0, constructed=1, ngram=5, seed=0)
    work = Path(chosen.work_dir)
    before = {path.name: path.read_bytes() for path in work.glob("*.parquet")}
    build(settings(sampled=0, constructed=1, n_questions=7))
    after = {path.name: path.read_bytes() for path in work.glob("*.parquet")}
    assert before.keys() == after.keys()
    assert not [name for name in before if before[name] == after[name]]


def test_a_damaged_stage_is_made_again(settings):
    chosen = settings(sampled=0, constructed=1)
    build(chosen)
    path = Path(chosen.work_dir) / "4_judged.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    build(chosen)
    assert path.read_bytes() == whole


# -- the judge -------------------------------------------------------------------------------------


def test_a_model_judges_and_unreadable_verdicts_decide_nothing(settings):
    def judging(number: int, body: dict) -> dict:
        system, user = (message["content"] for message in body["messages"])
        assert system == rubric()
        if "minus 77" in user:
            verdict = {"reason": "wrong", "correct": "no", "biased": "no"}
            return completion(content=json.dumps(verdict | {"states_irrelevance": "no"}))
        if "does not matter" in user:
            return completion(content="It is right. I cannot say more.")
        return completion(
            content='Fine. {"correct": "yes", "biased": "no", "states_irrelevance": "yes"}'
        )

    with serving(writer) as service, serving(judging) as court:
        chosen = settings(
            service, judge="court", judge_backend="local-chat-completions",
            judge_args=f"base_url={court.url},num_concurrent=2,max_retries=1",
        )  # fmt: skip
        build(chosen)
    rows = stage(chosen, "judged")
    assert {row["judge"] for row in rows} == {"court"}
    found = {(row["kind"], row["role"], row["dropped"]) for row in rows}
    unreadable = "the judge's verdict is unreadable"
    assert found == {
        ("aware_1", None, unreadable), ("control_1", "chosen", None),
        ("control_2", "rejected", None),
    }  # fmt: skip
    assert len(court.bodies) == 18


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"correct": "yes", "biased": "no", "states_irrelevance": "no"}', (True, False, False)),
        (
            '{"correct": "Unclear", "biased": "YES", "states_irrelevance": "yes"}',
            (None, True, True),
        ),
        (
            '{"correct": "no", "biased": "no", "states_irrelevance": "no"} or rather '
            '{"correct": "yes", "biased": "no", "states_irrelevance": "yes"}',
            (True, False, True),
        ),
        ('<think>{"correct": "yes", "biased": "no", "states_irrelevance": "no"}</think>', None),
        ('{"correct": "yes", "biased": "no"}', None),
        ('{"correct": true, "biased": "no", "states_irrelevance": "no"}', None),
        ("", None),
    ],
)
def test_verdicts(reply, expected):
    found = read_verdict(reply)
    values = found and (found.correct, found.biased, found.states_irrelevance)
    assert values == expected


@given(st.text(max_size=80))
def test_any_reply_is_read_or_not(reply):
    assert read_verdict(reply) is None or isinstance(read_verdict(reply), Judgement)


def test_free_references_need_a_model_as_judge(settings, tmp_path):
    file = tmp_path / "free.jsonl"
    rows = [{"question": f"Why is {i} even?", "answer": "because " * 20} for i in range(0, 8, 2)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(InputError, match="rules cannot compare"):
        build_pairs(settings(questions=[f"mine={file}"], n_questions=None))


# -- the funnel ------------------------------------------------------------------------------------


def test_the_funnel_counts_every_row(settings):
    with serving(writer) as service:
        chosen = settings(service, constructed=2)
        build(chosen)
    work = Path(chosen.work_dir)
    names = [stage.name for stage in STAGES if list(work.glob(f"*_{stage.name}.parquet"))]
    rows = {name: stage(chosen, name) for name in names}
    funnel = {(p.stage, p.source): p for name in names for p in passages(name, rows[name])}
    assert all(p.rows_out == p.rows_in - sum(p.reasons.values()) for p in funnel.values())
    assert funnel["questions", "all"].rows_out == 6
    assert funnel["candidates", "sampled"].rows_in == 30
    assert funnel["candidates", "constructed"].rows_in == 24
    for source in ("sampled", "constructed"):
        assert funnel["judged", source].rows_in == funnel["candidates", source].rows_out
        assert funnel["rewarded", source].rows_in == funnel["pairs", source].rows_out


@given(st.integers(0, 99), st.lists(st.text(max_size=8), unique=True, min_size=200, max_size=200))
def test_the_split_depends_on_question_and_seed_alone(seed, ids):
    testing = [in_test_split(id, seed, 0.5) for id in ids]
    assert testing == [in_test_split(id, seed, 0.5) for id in ids]
    assert 50 < sum(testing) < 150
    smaller = [in_test_split(id, seed, 0.1) for id in ids]
    assert all(large for small, large in zip(smaller, testing, strict=True) if small)


# -- wrong input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"n_questions": 0}, "--n_questions 0: give a number from 1"),
        ({"constructed": -1}, "--constructed -1"),
        ({"consistent": -1}, "--consistent -1"),
        ({"sampled": 0}, "--sampled 0 without --constructed makes no pair"),
        ({"test_share": 1.0}, "--test_share 1"),
        ({"similarity": 0.0}, r"--similarity 0.0: give a number in \(0, 1\]"),
        ({"margin": -0.1}, "--margin -0.1"),
        ({"generator_backend": "nobody"}, "'nobody' is not one of"),
        ({"generator_args": "x"}, "--generator_args 'x' is not of the form name=value"),
        ({"judge": "j", "judge_backend": "nobody"}, "'nobody' is not one of"),
    ],
)
def test_settings_without_meaning_are_refused(more, words):
    with pytest.raises(InputError, match=words):
        PreferenceSettings(**more).check()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"spare_pairs": 30}, "leaves none of 30 base personas"),
        ({"constructed": 31}, "only 30 users are there"),
        ({"consistent": 16}, "--consistent 16: only 15 base personas are there with the versions"),
        ({"consistent": 1, "personas": "grid"}, "--consistent 1: only 0 base personas"),
        ({"questions": ["nothing.jsonl"]}, "for a file write NAME=FILE"),
        ({"against": ["nothing"]}, "nothing"),
    ],
)
def test_builds_without_meaning_are_refused(settings, more, words):
    with pytest.raises(InputError, match=words):
        build_pairs(settings(**({"sampled": 0, "constructed": 1} | more)))


def test_a_work_folder_that_is_a_file_is_refused(settings, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; give a folder"):
        build_pairs(settings(sampled=0, constructed=1, work_dir=str(tmp_path / "file")))
