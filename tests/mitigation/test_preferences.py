"""The stages of preference data: with chat services on loopback as generator and judge, and with a
tiny model as policy. What is kept is looked up in the stages' own files."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chat_service import GONE, completion, serving
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.personas import builtin_personas
from unswayed.data.questions import builtin_questions
from unswayed.mitigation.dpo.pairs import read_splits
from unswayed.mitigation.model_judge import read_verdict, rubric
from unswayed.mitigation.preferences import STAGES, build_pairs, passages
from unswayed.mitigation.preferences.settings import PreferenceSettings
from unswayed.mitigation.preferences.steps import memory_of, pair_tokens, users
from unswayed.mitigation.preferences.training import in_test_split, run_recipe
from unswayed.mitigation.rule_judge import Judgement
from unswayed.mitigation.sampling import (
    INSTRUCTIONS,
    prompt_with_memory,
    sampling_prompts,
    whole_sentences,
)

WRONG = "People like you seldom get to learn this. The answer is minus 77."
PERSONAS = {persona.id: persona for persona in builtin_personas()}
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
    aware = [kind for kind, text in INSTRUCTIONS.items() if text and text in system]
    kind = aware[0] if aware else "control_1"
    answer = ANSWERS[user]
    if kind == "control_2":
        return completion(content=WRONG)
    if kind == "control_1":
        return completion(content=f"The answer is {answer}.")
    return completion(content=f"Your background does not matter here. The answer is {answer}.")


# -- sampling --------------------------------------------------------------------------------------


def test_five_candidates_of_which_three_are_told_to_check():
    memory = "They keep bees."
    prompts = sampling_prompts(memory, "What is 2 + 2?")
    assert [kind.split("_")[0] for kind in prompts] == ["aware"] * 3 + ["control"] * 2
    plain_system = prompt_with_memory(memory, "What is 2 + 2?")[0]["content"]
    for kind, (system, user) in prompts.items():
        assert system["content"].startswith(plain_system) and user["content"] == "What is 2 + 2?"
        assert INSTRUCTIONS[kind] in system["content"]
    assert len({json.dumps(messages) for messages in prompts.values()}) == 5


def test_candidates_come_from_the_service_and_are_judged(settings):
    def slow_writer(number: int, body: dict) -> dict:
        time.sleep(0.05)  # so that requests overlap on any machine
        return writer(number, body)

    with serving(slow_writer) as service:
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
    drawn = {p.pair_id for p in users(PreferenceSettings(spare_pairs=spared))}
    pairs = list(dict.fromkeys(p.pair_id for p in builtin_personas()))
    assert drawn == set(pairs[spared:])


def test_the_same_seed_draws_the_same(settings, tmp_path):
    def prompts(work: str, **more):
        chosen = settings(sampled=0, constructed=1, work_dir=str(tmp_path / work), **more)
        build(chosen)
        return [(r["question_id"], r["persona_id"]) for r in stage(chosen, "prompts")]

    assert prompts("a") == prompts("b") != prompts("c", seed=1)


# -- the model's own answers -----------------------------------------------------------------------


def swayed(number: int, body: dict) -> dict:
    """A plain answer without memory; under one it names its length. Some stay the same."""
    *system, user = (message["content"] for message in body["messages"])
    text = f"The answer to {user!r} is plain. And then it was cut"
    if system and len(user) % 3:
        text = f"With {len(system[0])} letters in mind it is another one.\n\n1. So be it! 2"
    return completion(content=text)


@pytest.fixture
def own(settings):
    """`own(service, **more)`: a build of own answers only."""

    def make(service, **more) -> PreferenceSettings:
        return settings(service, **({"sampled": 0, "own": 3, "similarity": 1.0} | more))

    return make


def test_own_pairs_prefer_the_answer_without_the_memory(own):
    with serving(swayed) as service:
        chosen = own(service, n_questions=30, spare_pairs=20)
        chosen.check()
        pairs, funnel = build_pairs(chosen)
    asked_for = [[m["role"] for m in body["messages"]] for body in service.bodies]
    assert asked_for.count(["user"]) == 30  # once for all users of a question
    assert asked_for.count(["system", "user"]) == 90 == len(asked_for) - 30
    memories = {id: memory_of(persona) for id, persona in PERSONAS.items()}
    for row in stage(chosen, "prompts"):
        assert row["memory"] == memories[row["persona_id"]] and row["pair_id"] > "p20"
    prompts = {json.dumps(body["messages"]) for body in service.bodies}
    for row in pairs:
        messages = prompt_with_memory(row["memory"], row["question"])
        assert json.dumps(messages) in prompts and json.dumps(messages[1:]) in prompts
        assert row["chosen"] == f"The answer to {row['question']!r} is plain."
        start = f"With {len(messages[0]['content'])} letters in mind"
        assert row["rejected"] == f"{start} it is another one.\n\n1. So be it!"
        assert (row["chosen_kind"], row["rejected_kind"]) == ("own_without", "own_with")
        assert row["reward"] is row["chosen_reward"] is row["rejected_reward"] is None
    assert {row["condition"] for row in pairs} == {"neutral", "advantaged", "disadvantaged"}
    users = {(row["question_id"], row["persona_id"]) for row in stage(chosen, "prompts")}
    assert len(users) == 90  # another user each time
    same = 3 * sum(len(row["question"]) % 3 == 0 for row in stage(chosen, "questions"))
    reasons = {passage.stage: passage.reasons for passage in funnel if passage.reasons}
    assert reasons == {
        "candidates": {"the memory does not change the answer": same},
        "pairs": {"no rejected candidate": same},
    }
    assert same and len(pairs) == 90 - same
    judged = stage(chosen, "judged")
    assert all(row["judge"] is row["correct"] is row["biased"] is None for row in judged)


def test_own_answers_are_stopped_by_length_and_overlap_like_others(own, tmp_path):
    file = tmp_path / "against.jsonl"
    item = {"id": "a", "kind": "understanding", "options": ["Joy", "Grief"], "key": 0}
    scenario = "letters in mind it is another one 1 so be it"
    file.write_text(json.dumps(item | {"scenario": scenario}), encoding="utf-8")
    with serving(swayed) as service:
        every = own(service)
        tokens = [row["tokens"] for row in build_pairs(every)[0]]
        limit = sorted(tokens)[len(tokens) // 2]
        _, funnel = build_pairs(own(service, max_length=limit))
        long = sum(length > limit for length in tokens)
        assert long and funnel[-1].reasons == {f"longer than {limit} tokens": long}
        with pytest.raises(InputError, match=f"{len(tokens)} x n-gram overlap"):
            build_pairs(own(service, against=[f"mine={file}"]))


def test_answers_without_an_end_are_dropped(own):
    def writing(number: int, body: dict) -> dict:
        texts = {"user": "It is this. ", "system": ["", "no end", "<think>Who? "][number % 3]}
        return completion(content=texts[body["messages"][0]["role"]])

    with serving(writing) as service, pytest.raises(InputError, match="no row is left after 5_"):
        build_pairs(own(service, n_questions=12))
    reasons = Counter(row["dropped"] for row in stage(own(service), "candidates"))
    assert reasons.keys() == {None, "empty", "no whole sentence"} and reasons[None] == 36


def test_own_answers_leave_other_pairs_as_they_are(settings, tmp_path):
    def rows(work: str, service, **more) -> list[dict]:
        fixed = {"sampled": 2, "constructed": 2, "work_dir": str(tmp_path / work)}
        chosen = settings(service, **(fixed | more))
        build(chosen)
        return [row for row in stage(chosen, "pairs") if row["source"] != "own"]

    def writing(number: int, body: dict) -> dict:
        return (writer if len(body["messages"]) == 2 else swayed)(number, body)

    with serving(writing) as service:
        assert rows("without", service) == rows("with", service, own=2)


def test_questions_without_a_reference_are_for_own_answers(settings, tmp_path):
    file = tmp_path / "mine.jsonl"
    lines = [{"question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in (2, 3, 5)]
    lines += [{"question": f"How does {i} feel?"} for i in ("Io", "Bo")]
    lines += [{"question": "Why is six even?", "answer": "because " * 20}]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")

    def speaking(number: int, body: dict) -> dict:
        name = body["messages"][-1]["content"]
        return completion(content=f"{name} {len(body['messages'])}.")

    fixed = {"questions": [f"mine={file}"], "n_questions": None, "constructed": 1}
    with serving(speaking) as service:
        chosen = settings(service, sampled=2, own=1, similarity=1.0, **fixed)
        pairs, funnel = build_pairs(chosen)
    passed = {(p.stage, p.source): p for p in funnel}
    none = "there is no reference: such a question is for --own"
    text = "the reference is a text, which rules cannot compare: a model must judge"
    assert passed["prompts", "constructed"].reasons == {none: 2, text: 1}
    assert passed["prompts", "sampled"].rows_in == 2  # drawn among those that can be judged
    assert passed["prompts", "own"].reasons == {}
    own = [row for row in pairs if row["source"] == "own"]
    assert {row["question_id"] for row in own} == {f"mine_{i}" for i in range(1, 7)}
    assert sum(row["answer"] is None for row in own) == 2
    with pytest.raises(InputError, match=r"2 x there is no reference.*or add --own 2"):
        build_pairs(settings(sampled=0, **fixed | {"questions": [f"mine={cut(file, 3, 5)}"]}))


def cut(file: Path, first: int, last: int) -> Path:
    """Some lines of a file, as a file beside it."""
    path = file.with_name("some.jsonl")
    path.write_text("\n".join(file.read_text("utf-8").split("\n")[first:last]), encoding="utf-8")
    return path


def test_own_answers_survive_an_interruption(own, tmp_path):
    dying = serving(lambda n, body: swayed(n, body) if n <= 9 else GONE)
    with dying as first, pytest.raises(InputError, match="cannot be reached"):
        build_pairs(own(first))
    with serving(swayed) as second:
        built = build_pairs(own(second))
        assert len(second.bodies) == 6 + 18 - 9
        assert build_pairs(own(second)) == built and len(second.bodies) == 15
    with serving(swayed) as third:
        assert build_pairs(own(third, work_dir=str(tmp_path / "other"))) == built


SENTENCES = [
    ("It is grief.", "It is grief."),
    ("  It is grief. It may pass, but", "It is grief."),
    ("Half a sentence", ""),
    ("", ""),
    ("Is it joy? Yes! Or no...", "Is it joy? Yes! Or no..."),
    ('She said "go away!" and then "sorry." Then', 'She said "go away!" and then "sorry."'),
    ("**Relief.** That is (very likely.) the", "**Relief.** That is (very likely.)"),
    ("About 3.5 kg, e.g. a cat or Mr. Fox and Dr. Owl", ""),
    ("To do:\n\n1. Breathe in.\n2. Go out.\n3.", "To do:\n\n1. Breathe in.\n2. Go out."),
    ("First this.\n* **2.** then", "First this."),
    ("1. Walk", ""),
    ("127.", "127."),
    ("The sum is 42.\nSo", "The sum is 42."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "whole"), SENTENCES)
def test_whole_sentences_by_hand(text, whole):
    assert whole_sentences(text) == whole


@given(st.text(alphabet="aB1 .!?\n\"')*e.g", max_size=30) | st.text(max_size=30))
def test_whole_sentences_are_a_beginning_that_ends(text):
    whole = whole_sentences(text)
    assert text.strip().startswith(whole) and whole_sentences(whole) == whole
    assert not whole or whole.rstrip("\"'”’)]*")[-1] in ".!?"
    assert whole_sentences(f"{text.strip()} Then it ends.").endswith("Then it ends.")


# -- length ------------------------------------------------------------------------------------

NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
TURNS = "{% for m in messages %}{{ '<s>' + m.role + m.content + '</s>' }}{% endfor %}"
DROPS = "{% for m in messages if m.role != 'system' %}{{ m.role + m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (TURNS, "<s>system{notes}</s><s>user{question}</s><s>assistant{answer}</s>"),
        (NO_SYSTEM + TURNS, "<s>user{notes}\n{question}</s><s>assistant{answer}</s>"),
        (DROPS, "user{notes}\n{question}assistant{answer}</s>"),
        (None, "<s>{notes}{question} {answer}</s>"),
    ],
    ids=["system", "refuses", "drops", "none"],
)
def test_tokens_are_those_of_training(tmp_path, tiny_tokenizer, template, text):
    tokenizer = tiny_tokenizer(add_bos=True)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    row = {"memory": "Omar is a cleaner.", "question": "Who won?", "rejected": "Anna."}
    row |= {"chosen": "It is a mix of joy and relief."}
    notes = prompt_with_memory(row["memory"], "")[0]["content"]
    whole = text.format(notes=notes, question=row["question"], answer=row["chosen"])
    expected = len(tokenizer(whole, add_special_tokens=False)["input_ids"])
    other = row | {"chosen": row["rejected"], "rejected": row["chosen"]}
    assert pair_tokens([row, other], str(tmp_path)) == [expected, expected]


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
    outcomes = {(row["kind"], row["role"], row["dropped"]) for row in rows}
    unreadable = "the judge's verdict is unreadable"
    assert outcomes == {
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
    judgement = read_verdict(reply)
    values = judgement and (judgement.correct, judgement.biased, judgement.states_irrelevance)
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


# -- for training ----------------------------------------------------------------------------------


def test_a_recipe_writes_pairs_that_training_reads(settings, tmp_path, capsys):
    chosen = settings(sampled=0, constructed=3, n_questions=40, margin=0.0, similarity=1.0)
    chosen = dataclasses.replace(chosen, test_share=0.3, max_length=4096)
    recipe = tmp_path / "pairs.yaml"
    recipe.write_text(json.dumps(dataclasses.asdict(chosen)))
    assert run_recipe("doc", ["--config", str(recipe)]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == Path(chosen.work_dir) / "pairs"
    assert [path.name for path in folder.iterdir()] == ["constructed"]
    splits = read_splits(str(folder), "constructed")
    pairs, _ = build_pairs(chosen)
    for split, testing in (("train", False), ("test", True)):
        rows = [row for row in pairs if in_test_split(row["question_id"], 0, 0.3) is testing]
        expected = [prompt_with_memory(row["memory"], row["question"]) for row in rows]
        assert [pair["prompt"] for pair in splits[split]] == expected != []
        assert [pair["chosen"][0]["content"] for pair in splits[split]] == [
            row["chosen"] for row in rows
        ]


# -- wrong input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"n_questions": 0}, "--n_questions 0: give a number from 1"),
        ({"constructed": -1}, "--constructed -1"),
        ({"own": -1}, "--own -1"),
        ({"sampled": 0}, "--sampled 0 alone makes no pair: give --own 2"),
        ({"sampled": 0, "own": 1, "generator_backend": "nobody"}, "'nobody' is not one of"),
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
        ({"own": 46}, "--own 46: only 45 users are there"),
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
