"""The `evaluate` modules: they load by path, and their figures are the audit's."""

from __future__ import annotations

import doctest
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import chance, emotions, make_run, pairs

evaluate = pytest.importorskip("evaluate")

from unswayed.audit.policy import packaged  # noqa: E402
from unswayed.audit.rundir import read_answers  # noqa: E402
from unswayed.audit.summary import summarize  # noqa: E402

METRICS = Path(__file__).parents[2] / "metrics"
TYPES = {"flip_rate": "comparison", "persona_gap": "metric"}


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory):
    """evaluate copies a module and its inputs into caches: not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_MODULES_CACHE", "HF_METRICS_CACHE"):
            patch.setattr(evaluate.config, name, str(tmp_path_factory.mktemp(name)))
        yield


def load(name: str):
    return evaluate.load(str(METRICS / name), module_type=TYPES[name])


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """(answers, the test's summary) of a run with flips, a gap and unparsed answers."""

    def answer(item, persona):
        key = item.id, persona and persona.id
        if chance("unread", *key) < 0.05:
            return None
        unfair = persona is not None and persona.condition == "disadvantaged"
        return int(chance(*key) < (0.4 if unfair else 0.2))

    folder = tmp_path_factory.mktemp("metrics") / "run"
    out = make_run(folder, emotions(12), answer, pairs(5), scoring="generate")
    answers = read_answers(out).to_pandas()
    return answers, summarize(answers, packaged("default"))["tests"]["understanding"]


@pytest.mark.parametrize("condition", ["neutral", "advantaged", "disadvantaged"])
def test_the_flip_rate_is_the_audits(audited, condition):
    answers, test = audited
    bare = answers[answers["condition"] == "none"].set_index("question_id")["answer"]
    rows = answers[answers["condition"] == condition]
    result = load("flip_rate").compute(
        predictions1=list(rows["question_id"].map(bare)),
        predictions2=list(rows["answer"]),
        question_ids=list(rows["question_id"]),
        user_ids=list(rows["pair_id"]),
    )
    audit = test["conditions"][condition]["flip_rate"]
    assert {k: result[k] for k in ("n", "n_items", "n_users")} == {
        k: audit[k] for k in ("n", "n_items", "n_users")
    }
    for ours, theirs in (("flip_rate", "estimate"), ("low", "low"), ("high", "high")):
        assert result[ours] == pytest.approx(audit[theirs], rel=1e-12)


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_gap_is_the_audits(audited, shuffled):
    answers, test = audited
    if shuffled:
        answers = answers.sample(frac=1, random_state=1)
    result = load("persona_gap").compute(  # the whole run: other conditions are left out
        predictions=answers["answer"],
        references=answers["gold_label"],
        groups=answers["condition"],
        question_ids=answers["question_id"],
        pair_ids=answers["pair_id"],
    )
    (gap,) = [e for e in test["effects"] if (e["name"], e["metric"]) == ("gap", "accuracy")]
    for ours, theirs in (("persona_gap", "estimate"), ("low", "low"), ("high", "high")):
        assert result[ours] == pytest.approx(gap[theirs], rel=1e-12)
    assert result["p"] == pytest.approx(gap["p"], abs=0.02)  # both by lot
    assert (result["n"], result["n_items"], result["n_users"]) == (60, 12, 5)
    for group in ("advantaged", "disadvantaged"):
        accuracy = test["conditions"][group]["accuracy"]["estimate"]
        assert result[f"accuracy_{group}"] == pytest.approx(accuracy)


def test_flips_without_ids():
    flips = load("flip_rate")
    result = flips.compute(predictions1=["a", "b", None, "c"], predictions2=["a", "c", "d", "c"])
    assert result["flip_rate"] == pytest.approx(1 / 3) and (result["n"], result["n_items"]) == (
        3,
        3,
    )
    clustered = flips.compute(
        predictions1=[1, 2, 3, 4], predictions2=[1, 3, 3, 5], question_ids=[7, 7, 8, 8]
    )
    assert clustered["flip_rate"] == 0.5 and (clustered["n_items"], clustered["n_users"]) == (2, 2)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(
    ["true", "1", "NaN", "null", "1e3", "1000", "[1]", '"1"', "01", "None", '{"a": 1}']
)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8))
@settings(deadline=None, max_examples=40)
def test_texts_are_never_read_as_anything_else(rows):
    one, two = map(list, zip(*rows, strict=True))
    result = load("flip_rate").compute(predictions1=one, predictions2=two)
    assert result["n"] == len(rows)
    assert result["flip_rate"] == pytest.approx(np.mean([a != b for a, b in rows]))
    n = len(rows)
    gap = load("persona_gap").compute(
        predictions=one * 2, references=one + two,
        groups=["advantaged"] * n + ["disadvantaged"] * n, question_ids=[*range(n)] * 2,
        pair_ids=["p"] * 2 * n,
    )  # fmt: skip
    assert gap["accuracy_advantaged"] == 1
    assert gap["accuracy_disadvantaged"] == pytest.approx(1 - result["flip_rate"])


@pytest.mark.parametrize("answers", [(["1"], [1]), ([1, "a"], [1, None]), ([True], [1])])
def test_answers_of_several_types(answers):
    one, two = answers
    with pytest.raises(ValueError, match="answers are of several types, such as"):
        load("flip_rate").compute(predictions1=one, predictions2=two)


@pytest.mark.parametrize("first", [[None, None], [float("nan"), None], []])
def test_nothing_to_compare(first):
    result = load("flip_rate").compute(predictions1=first, predictions2=["a", "b"][: len(first)])
    assert result["flip_rate"] is None and result["n"] == 0


def test_batches_add_up():
    gap = load("persona_gap")
    for group, answer in (("advantaged", "joy"), ("disadvantaged", None)):
        gap.add_batch(
            predictions=[answer, "fear"], references=["joy", "fear"], groups=[group] * 2,
            question_ids=["a", "b"], pair_ids=["p", "p"],
        )  # fmt: skip
    result = gap.compute()
    assert (result["persona_gap"], result["n"]) == (0.5, 2)


@pytest.mark.parametrize(
    ("groups", "questions", "says"),
    [
        (["rich", "advantaged"], ["a", "a"], "no row 'disadvantaged'"),
        (["advantaged", "disadvantaged"], ["a", "b"], "no question has an advantaged and"),
        (["advantaged", "advantaged", "disadvantaged"], ["a", "a", "a"], "more than once"),
    ],
)
def test_wrong_groups(groups, questions, says):
    n = len(groups)
    with pytest.raises(ValueError, match=says):
        load("persona_gap").compute(
            predictions=["joy"] * n, references=["joy"] * n, groups=groups,
            question_ids=questions, pair_ids=["p"] * n,
        )  # fmt: skip


def test_wrong_ids():
    with pytest.raises(ValueError, match="of the same length"):
        load("flip_rate").compute(predictions1=["a"], predictions2=["b"], question_ids=["x", "y"])


@pytest.mark.parametrize("name", list(TYPES))
def test_the_layout_is_that_of_evaluate(name, monkeypatch):
    folder = METRICS / name
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        f"{name}.py", "README.md", "requirements.txt",
    }  # fmt: skip
    module = load(name)
    assert module.module_type == TYPES[name] and module.name == name
    assert module.citation and module.description.strip() and "Args:" in module.inputs_description
    front = yaml.safe_load((folder / "README.md").read_text("utf-8").split("---")[1])
    assert front["tags"] == ["evaluate", TYPES[name]] and front["description"]

    monkeypatch.chdir(METRICS.parent)
    spec = importlib.util.spec_from_file_location(f"{name}_source", folder / f"{name}.py")
    source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    for text in (source._KWARGS_DESCRIPTION, (folder / "README.md").read_text("utf-8")):
        test = doctest.DocTestParser().get_doctest(text, {"evaluate": evaluate}, name, None, 0)
        assert test.examples
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0
