"""Constructed preference candidates: what they say, what the judge finds, and how they vary."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from importlib.resources import files
from statistics import mean

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.items import builtin_items
from unswayed.data.personas import VOICES, Persona, load_personas
from unswayed.data.questions import Question, builtin_questions
from unswayed.mitigation.constructed import (
    construct,
    facts,
    wrong_answers,
)
from unswayed.mitigation.rule_judge import judge

QUESTIONS = builtin_questions()
PERSONAS = [*load_personas(), *load_personas("grid")]
BANK = yaml.safe_load(
    (files("unswayed.mitigation") / "bank" / "constructed.yaml").read_text(encoding="utf-8")
)
CATEGORIES = defaultdict(list)
for _question in QUESTIONS:
    CATEGORIES[_question.category].append(_question)


def alike_with(question: Question) -> list[Question]:
    return [other for other in CATEGORIES[question.category] if other.id != question.id]


def memory_of(persona: Persona) -> str:
    return " ".join(text for _, text in persona.texts())


@pytest.fixture(scope="module")
def sample() -> list[tuple[Question, Persona, str, str]]:
    """One pair for each question, each with a persona at random."""
    rows = []
    for question in QUESTIONS:
        rng = random.Random(question.id)
        persona = rng.choice(PERSONAS)
        rows.append((question, persona, *construct(question, persona, alike_with(question), rng)))
    return rows


@pytest.fixture(scope="module")
def judged(sample):
    """(judgement of the chosen, judgement of the rejected) per pair of the sample."""
    return [
        tuple(judge(question, memory_of(persona), text) for text in (chosen, rejected))
        for question, persona, chosen, rejected in sample
    ]


# -- pairs ---------------------------------------------------------------------------------------


@given(st.sampled_from(QUESTIONS), st.sampled_from(PERSONAS), st.integers())
def test_the_same_rng_gives_the_same_pair(question, persona, seed):
    first, second = (
        construct(question, persona, alike_with(question), random.Random(seed)) for _ in range(2)
    )
    assert first == second and first[0] != first[1]
    for text in first:
        assert text == text.strip() and text[0].isupper() and text[-1] in ".!?"
        assert not set("{}") & set(text) and "  " not in text and ".." not in text


def test_at_least_97_percent_are_judged_as_they_are_meant(judged):
    chosen = [
        judgement.correct and not judgement.biased and judgement.states_irrelevance
        for judgement, _ in judged
    ]
    rejected = [judgement.correct is False or judgement.biased for _, judgement in judged]
    assert mean(map(bool, chosen)) >= 0.97
    assert mean(map(bool, rejected)) >= 0.97


def test_the_statement_alone_does_not_tell_them_apart(judged):
    states = [judgement for _, judgement in judged if judgement.states_irrelevance]
    assert 0.3 <= len(states) / len(judged) <= 0.55
    assert any(judgement.biased for judgement in states)
    assert any(judgement.correct is False and not judgement.biased for judgement in states)
    assert any(judgement.correct for judgement in states)


def test_shares_of_the_kinds():
    kinds = BANK["rejected"]
    assert sum(kind["share"] for kind in kinds.values()) == pytest.approx(1)
    states = [
        kind["share"]
        for kind in kinds.values()
        if all("{statement}" in frame for frame in kind["frames"])
    ]
    assert 0.35 <= sum(states) <= 0.5
    assert {kind["answer"] for kind in kinds.values()} == {"wrong", "reference"}


def test_lengths_are_comparable(sample):
    chosen, rejected = (mean(len(row[i].split()) for row in sample) for i in (2, 3))
    assert 0.85 <= rejected / chosen <= 1.15


def test_texts_vary(sample):
    for i in (2, 3):
        assert len({row[i] for row in sample}) >= 0.99 * len(sample)
        openings = Counter(" ".join(row[i].split()[:4]) for row in sample)
        assert max(openings.values()) <= 0.1 * len(sample)


def near_items(texts: list[str]) -> list[str]:
    """Those that share five words in a row with an item."""

    def grams(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.casefold())
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    of_items = set().union(
        *(grams(text) for item in builtin_items() for text in (item.scenario, *item.options))
    )
    return [text for text in texts if grams(text) & of_items]


def test_no_five_words_in_a_row_stand_in_an_item(sample):
    texts = [text for row in sample for text in row[2:]]
    texts += [fact for persona in PERSONAS for fact in facts(persona)]
    assert not near_items(texts)


# -- wordings ------------------------------------------------------------------------------------


def test_there_are_many_wordings():
    answers = BANK["answers"]
    assert len(set(BANK["statement"])) >= 24
    assert 8 <= sum("{about}" in text for text in BANK["statement"]) <= len(BANK["statement"]) - 8
    for kinds in (["any", "text"], ["any", "number"], ["polar"]):
        assert len({wording for kind in kinds for wording in answers[kind]}) >= 12
    assert all(text.endswith("{answer}") for kind in answers.values() for text in kind)


def test_every_statement_states_irrelevance_and_nothing_else():
    question = Question("q", "x", "What is 30 + 12?", "42", (), True)
    memory = memory_of(PERSONAS[1])
    abouts = [about for kind in BANK["about"].values() for about in kind]
    for statement in BANK["statement"]:
        for about in abouts if "{about}" in statement else [""]:
            text = statement.format(about=about)
            for candidate in (f"{text}. The answer is 42.", f"The answer is 42. {text}."):
                judgement = judge(question, memory, candidate)
                assert (
                    judgement.correct and not judgement.biased and judgement.states_irrelevance
                ), candidate


def test_every_name_of_a_text_has_something_that_it_is_about():
    assert {name for persona in PERSONAS for name, _ in persona.slots} <= set(BANK["about"])


# -- facts ---------------------------------------------------------------------------------------


def test_facts_are_in_the_second_person():
    assert set(BANK["second_person"]) == set(VOICES)
    for persona in PERSONAS:
        clauses = facts(persona)
        assert clauses, persona.id
        for fact in clauses:
            assert fact.startswith(("you ", "your ")) and 3 <= len(fact.split()) < 15
            assert not re.search(r"\b(?:I|they|their|them|my|me)\b|[.!?{}]$", fact), fact


def persona_of(*texts: str) -> Persona:
    return Persona("p", "neutral", None, tuple((f"s{i}", text) for i, text in enumerate(texts)))


def test_facts_by_hand():
    cut = persona_of(
        "{I} {am} a baker, and {my} shop is small. Two cats live there.",
        "At home, {i} bake, too; {i} {was} taught by an aunt. {My} house was hers.",
    )
    assert facts(cut) == ["you are a baker", "you were taught by an aunt", "your house was hers"]
    whole = persona_of("Both parents left {me} alone. The debts are {mine}.")
    assert facts(whole) == ["both parents left you alone", "the debts are yours"]


# -- wrong answers -------------------------------------------------------------------------------


def test_wrong_answers_of_the_bank_are_no_form_of_the_reference():
    for question in QUESTIONS:
        wrong = wrong_answers(question, alike_with(question))
        forms = {form.casefold() for form in (question.answer, *question.aliases)}
        assert wrong and len(set(wrong)) == len(wrong)
        assert not forms & {answer.casefold() for answer in wrong}, question.id


def value(text: str) -> float:
    return float(re.sub(r"[^\d.-]", "", text))


@given(
    st.one_of(
        st.integers(-(10**8), 10**8).map(str),
        st.integers(0, 10**8).map(lambda n: f"{n:,}"),
        st.decimals("0.01", "9999", places=2).map(str),
    ),
    st.sampled_from(["", " km", " %", " eggs"]),
)
def test_wrong_numbers_have_another_value_in_the_same_form(number, unit):
    question = Question("q", "x", "How much is it?", number + unit, (), True)
    for wrong in wrong_answers(question, []):
        assert value(wrong) != value(number)
        assert wrong.endswith(unit) and wrong.startswith("-") == number.startswith("-")
        assert ("." in wrong) == ("." in number)
        assert len(wrong.partition(".")[2]) == len((number + unit).partition(".")[2])
        assert judge(question, "", f"The answer is {wrong}.").correct is False


@pytest.mark.parametrize(
    ("text", "answer", "aliases", "answers", "expected"),
    [
        ("Is it so?", "yes", (), [], ["no"]),
        ("True or False?", "False", (), [], ["True"]),
        ("Which is it: a cork, a coin or a key?", "cork", ("a cork",), [], ["coin", "key"]),
        ('Is it nearer to "pleased" or to "worried"?', "pleased", (), [], ["worried"]),
        ("Sort b, c, a.", "a, b, c", ("a b c",), [], ["b, a, c", "a, c, b"]),
        ("When?", "16:15", (), [], ["15:15", "16:14"]),
        ("What is it?", "Indian Ocean", ("Indian",), ["indian", "Baltic", "Andes"], None),
    ],
)
def test_wrong_answers_by_hand(text, answer, aliases, answers, expected):
    pool = [Question(f"o{i}", "x", f"Which {i}?", other) for i, other in enumerate(answers)]
    question = Question("q", "x", text, answer, aliases)
    assert wrong_answers(question, pool) == (expected or ["Baltic", "Andes"])


def test_no_wrong_answer_is_an_error():
    question = Question("q", "towns", "Where?", "Rome", ("Roma",))
    alias = Question("o", "towns", "Where else?", "Roma")
    with pytest.raises(InputError, match="q: no wrong answer can be made for 'Rome'; add"):
        construct(question, PERSONAS[0], [alias], random.Random(0))
