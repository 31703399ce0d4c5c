"""Capability before and after: what is asked, against known answers, and the paired change."""

from __future__ import annotations

import random

import pytest
from chat_service import completion, serving
from hypothesis import given
from hypothesis import strategies as st
from small_benchmarks import PROMPTS, small_punkt, write_ifeval, write_mmlu

from unswayed.audit.trials import PAIR_CONDITIONS
from unswayed.core.errors import InputError
from unswayed.mitigation.capability import METRICS, capability_change, check_capability
from unswayed.mitigation.verdict.words import headlines
from unswayed.models.load import load_lm
from unswayed.plum.ability import ability_change


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("data")
    mmlu = write_mmlu(folder / "mmlu", {"law": 3, "anatomy": 2})
    ifeval = write_ifeval(folder / "ifeval.jsonl")
    return {"mmlu": str(mmlu), "ifeval": str(ifeval), "shots": 0, "questions": 4, "prompts": 2}


@pytest.fixture(scope="module", autouse=True)
def punkt(tmp_path_factory):
    with small_punkt(tmp_path_factory.mktemp("nltk")):
        yield


# -- asking --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
def test_one_value_per_question_and_condition(settings, tiny_model_dir, chat):
    from lm_eval.api.instance import Instance

    from unswayed.tasks.capability.utils import load_persona_mmlu

    folder = str(tiny_model_dir("llama", chat=chat, max_position_embeddings=2048))
    lm = load_lm(folder, device="cpu")
    answers = check_capability(lm, settings | {"max_gen_toks": 4})
    assert list(answers) == list(METRICS)
    for task, n in (("persona_mmlu", 4), ("persona_ifeval", 2)):
        assert list(answers[task]) == list(PAIR_CONDITIONS)
        assert [len(values) for values in answers[task].values()] == [n] * 4
        assert {value for values in answers[task].values() for value in values} <= {0.0, 1.0}
    assert check_capability(lm, settings | {"max_gen_toks": 4}) == answers
    # MMLU asked by hand
    docs = load_persona_mmlu(**settings)["test"].to_list()
    for doc in docs:
        system, delimiter = doc["system_prompt"] + doc["description"], "" if chat else " "
        messages = [("system", system), ("user", doc["prompt"])]
        prompt = (
            lm.apply_chat_template([{"role": r, "content": c} for r, c in messages])
            if chat
            else system + doc["prompt"]
        )
        options = [(prompt, delimiter + letter) for letter in "ABCD"]
        requests = [Instance("loglikelihood", {}, option, 0) for option in options]
        scores = [score for score, _ in lm.loglikelihood(requests, disable_tqdm=True)]
        right = scores.index(max(scores)) == doc["answer"]
        assert answers["persona_mmlu"][doc["condition"]][doc["question"]] == right


def test_a_service_that_obeys_only_strangers(tmp_path, monkeypatch):
    """Told who the user is it puts a comma; the fall after training is what was planted."""
    from lm_eval.models.openai_completions import LocalChatCompletion

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    no_commas = write_ifeval(tmp_path / "ifeval.jsonl", PROMPTS[:2])
    trained = False

    def behave(_, body):
        has_memory = body["messages"][0]["role"] == "system"
        assert body["max_tokens"] == 7 and body["temperature"] == 0.0
        return completion(content="Well, tea." if has_memory and trained else "Tea is fine")

    def ask():
        with serving(behave) as service:
            lm = LocalChatCompletion(base_url=service.url, model="some-model", max_retries=1)
            settings = {"ifeval": str(no_commas), "max_gen_toks": 7}
            answers = check_capability(lm, settings, ["persona_ifeval"])
            return answers, [body["messages"][-1]["content"] for body in service.bodies]

    before, prompts = ask()
    trained = True
    after, prompts_after = ask()
    assert sorted(prompts) == sorted(prompts_after) and len(prompts) == 8
    assert before == {"persona_ifeval": dict.fromkeys(PAIR_CONDITIONS, [1.0] * 2)}
    assert after["persona_ifeval"] == {
        c: [1.0] * 2 if c == "none" else [0.0] * 2 for c in PAIR_CONDITIONS
    }
    change = capability_change(before, after)["persona_ifeval"]
    assert change["none"]["change"] == 0.0 and change["neutral"]["change"] == -1.0


def test_a_prompt_with_its_answer_must_fit(settings, tiny_model_dir):
    """1280 tokens, IFEval's default, do not fit a context of 1024; a lower setting does."""
    folder = str(tiny_model_dir("llama", chat=True, max_position_embeddings=1024))
    lm, some = load_lm(folder, device="cpu"), settings | {"conditions": ["none"]}
    with pytest.raises(InputError, match="1280 more for the answer exceed"):
        check_capability(lm, some, ["persona_ifeval"])
    answers = check_capability(lm, some | {"max_gen_toks": 4}, ["persona_ifeval"])
    assert list(answers["persona_ifeval"]) == ["none"]


def test_unknown_task(settings):
    with pytest.raises(InputError, match="task 'mmlu' is not one of persona_mmlu, persona_ifeval"):
        check_capability(None, settings, ["mmlu"])


# -- the change ----------------------------------------------------------------------------------

BITS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60)


def test_change_by_hand():
    before = {"persona_mmlu": {"none": [1, 1, 0, 0] * 50, "neutral": [1, 0] * 4}}
    after = {"persona_mmlu": {"none": [1, 0, 0, 0] * 50, "neutral": [1, 0] * 4}}
    change = capability_change(before, after)["persona_mmlu"]
    worse, same = change["none"], change["neutral"]
    assert (worse["before"], worse["after"], worse["change"], worse["n"]) == (0.5, 0.25, -0.25, 200)
    # 200 differences, a quarter of them -1: sd 0.4341, se 0.0307, t 1.972; below, Johnson's t of a
    # skewness of -1.16 reaches farther
    assert (worse["low"], worse["high"]) == pytest.approx((-0.3146, -0.1895), abs=3e-4)
    assert worse["p_equivalent"] > 0.99
    assert same["change"] == 0.0 and same["n"] == 8 and same["p_equivalent"] > 0.5  # too few


def test_few_prompts_can_never_show_equivalence():
    """Within 2 points: not one of 100 answers changed is not enough, of 541 it is."""
    for n, equivalent in ((100, False), (541, True)):
        answers = {"persona_ifeval": {"none": [1.0, 0.0] * (n // 2) + [1.0] * (n % 2)}}
        change = capability_change(answers, answers)["persona_ifeval"]["none"]
        assert (change["p_equivalent"] < 0.05) is equivalent


@given(BITS, st.randoms(use_true_random=False))
def test_change_is_paired_by_question(bits, rng: random.Random):
    def changes(pairs):
        before, after = ([float(pair[i]) for pair in pairs] for i in (0, 1))
        wrapped = ({"t": {"none": values}} for values in (before, after))
        return capability_change(*wrapped)["t"]["none"], ability_change(
            {"none": before}, {"none": after}
        )["none"]

    change, ability = changes(bits)
    assert change == ability and change["n"] == len(bits)
    assert change["change"] == pytest.approx(change["after"] - change["before"])
    assert change["low"] <= change["change"] <= change["high"]
    shuffled = list(bits)
    rng.shuffle(shuffled)
    assert changes(shuffled)[0] == pytest.approx(change)
    back = changes([(after, before) for before, after in bits])[0]
    assert (back["low"], back["high"]) == pytest.approx((-change["high"], -change["low"]))


def test_other_questions_cannot_be_compared():
    some = {"persona_mmlu": {"none": [1.0, 0.0], "neutral": [1.0, 0.0]}}
    for other in (
        {"persona_mmlu": {"none": [1.0, 0.0]}},
        {"persona_mmlu": {"none": [1.0, 0.0], "neutral": [1.0]}},
        {"persona_ifeval": some["persona_mmlu"]},
    ):
        with pytest.raises(InputError, match="cannot be paired: ask both with the same settings"):
            capability_change(some, other)


@pytest.mark.parametrize(
    ("gained", "lost", "start"),
    [
        (0, 0, "MMLU stayed within 2 points under every condition."),
        (60, 20, "MMLU did not fall by 2 points under any condition; the lowest change is +4.0 ["),
        (20, 60, "MMLU fell: no memory, -4.0 ["),
        (100, 100, "MMLU is not shown to have fallen, nor to have stayed within 2 points; the "),
    ],
)
def test_a_task_in_one_sentence(gained, lost, start):
    """Of 1,000 questions so many are answered rightly only after or only before training."""
    rest = 1000 - gained - lost
    before = [0.0] * gained + [1.0] * lost + [1.0] * rest
    after = [1.0] * gained + [0.0] * lost + [1.0] * rest
    answers = [{"persona_mmlu": {"none": values}} for values in (before, after)]
    record = {"tests": {}, "margin": 0.02, "capability": {"changes": capability_change(*answers)}}
    (sentence,) = headlines(record)
    assert sentence.startswith(start)
