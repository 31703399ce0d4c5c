"""Gated memory: which questions need the notes, and what the model reads then."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.data.conversations import builtin_conversations, builtin_facts
from unswayed.data.items import load_items
from unswayed.data.personas import Persona, builtin_personas
from unswayed.data.questions import builtin_questions
from unswayed.memory.gated import GatedMemory, NoteFilter
from unswayed.memory.prompt import PromptMemory
from unswayed.memory.retrieval import snippets
from unswayed.scoring.prompts import question_text

CORPUS = ["red sand", "green sand falls", "a red boat"]
TEXTS = ["My red tractor", "A prize for the tractor"]
STOPPED = {"a", "my", "for", "the"}
OTHERS = [f"Why is sand {word}?" for word in ("red", "green", "blue", "wet", "dry")]
USER = Persona("u", "advantaged", "u", (("assets", "{I} own a red tractor."),))


def vector(text: str, documents: list[str]) -> dict[str, float]:
    """TF-IDF by hand: tf (ln((1 + N) / (1 + n)) + 1), at length 1."""
    words = [[w for w in re.findall(r"\w\w+", d.lower()) if w not in STOPPED] for d in documents]
    known = {word for document in words for word in document}
    counts = Counter(word for word in re.findall(r"\w\w+", text.lower()) if word in known)
    held = {word: sum(word in document for document in words) for word in counts}
    row = {w: n * (math.log((1 + len(words)) / (1 + held[w])) + 1) for w, n in counts.items()}
    length = math.sqrt(sum(value**2 for value in row.values())) or 1.0
    return {word: value / length for word, value in row.items()}


def cosine(a: dict[str, float], b: dict[str, float]) -> float:
    return sum(value * b.get(word, 0.0) for word, value in a.items())


@pytest.mark.parametrize("question", ["Is sand red?", "red red tractor", "Falls a boat?", "?"])
def test_scores_are_those_worked_out_by_hand(question):
    documents = [*CORPUS, *TEXTS]
    wanted = max(cosine(vector(question, documents), vector(t, documents)) for t in TEXTS)
    gate = NoteFilter(TEXTS, OTHERS, CORPUS, 95)
    assert gate.scores([question]) == pytest.approx([wanted])
    assert gate.scores(TEXTS) == pytest.approx([1, 1])


def test_a_question_must_be_nearer_than_the_others_are():
    gate = NoteFilter(TEXTS, OTHERS, CORPUS, 95)
    (red,) = gate.scores(OTHERS[:1])
    assert gate.threshold == pytest.approx(0.8 * red)  # of 0, 0, 0, 0, red: place 3.8, linearly
    assert gate.needs("Where is the tractor?") and gate.needs("Did it win a prize?")
    assert not gate.needs("Is red sand a green boat?") and not gate.needs("Why does it rain?")
    assert gate.needs(OTHERS[0])  # one of five is above
    assert not NoteFilter(TEXTS, OTHERS[:1], CORPUS, 95).needs(OTHERS[0])  # as near is not nearer


def test_where_the_others_share_no_word_any_word_opens():
    gate = NoteFilter(TEXTS, ["Why is sand wet?"], CORPUS, 50)
    assert gate.threshold == 0
    assert gate.needs("Is a boat red?") and not gate.needs("Is a boat green?")


@given(st.lists(st.sampled_from(["red", "sand", "tractor", "boat", "prize"]), min_size=1))
def test_what_a_strict_gate_lets_in_a_lax_one_does(words):
    question = " ".join(words)
    lax, strict = (NoteFilter(TEXTS, [*OTHERS, *TEXTS], CORPUS, q) for q in (50, 90))
    assert lax.threshold <= strict.threshold
    assert lax.needs(question) or not strict.needs(question)


# -- the memory ----------------------------------------------------------------------------------


def test_prompts_are_those_of_the_notes_or_of_no_memory_byte_for_byte():
    notes, bare, memory = PromptMemory("system"), PromptMemory(), GatedMemory()
    notes.remember(USER)
    memory.remember(USER)
    assert (memory.name, memory.style) == ("gated", "tfidf-95")
    near, far = "Is my tractor red?", "How long is a minute?"
    assert memory.messages(near) == notes.messages(near)
    assert memory.messages(far) == bare.messages(far) == [{"role": "user", "content": far}]


def test_what_was_known_before_is_replaced_or_forgotten():
    memory, near = GatedMemory(), "Is my tractor red?"
    bare = [{"role": "user", "content": near}]
    assert (memory.messages(near), memory.name) == (bare, "none")
    memory.remember(USER)
    once = memory.messages(near)
    memory.remember(Persona("v", "neutral", "v", (("habits", "{I} play the lute."),)))
    assert memory.messages(near) == bare
    memory.remember(USER)
    assert memory.messages(near) == once != bare
    memory.forget()
    assert (memory.messages(near), memory.name) == (bare, "none")


def test_the_style_names_the_percentile_of_other_questions_that_is_kept_out():
    persona = builtin_personas()[0]
    questions = [fact.question for fact in builtin_facts()]
    let_in = []
    for percentile in (95, 99):
        memory = GatedMemory(percentile)
        assert memory.style == f"tfidf-{percentile}"
        memory.remember(persona)
        let_in.append(np.mean([len(memory.messages(question)) == 2 for question in questions]))
    assert let_in == pytest.approx([0.05, 0.01], abs=0.01)


def test_the_gate_opens_for_questions_on_the_user_and_hardly_for_others():
    """Rates that docs/memories.md states, with some room; none of these texts set the threshold."""
    memory, rates = GatedMemory(), Counter()
    general = [question.question for question in builtin_questions()]
    items = [question_text(item, "option") for item in load_items(["builtin:89"])]
    personas = builtin_personas()[::9]
    for persona in personas:
        memory.remember(persona)
        for name, questions in (("general", general), ("items", items)):
            rates[name] += np.mean([len(memory.messages(one)) == 2 for one in questions])
    assert rates["general"] / len(personas) < 0.12
    assert rates["items"] / len(personas) < 0.12

    facts, conversations, opened = builtin_facts(), builtin_conversations(), []
    for one in conversations:  # as a memory, the others as what everybody says
        own = [fact.held_out_question for fact in facts if fact.conversation == one.id]
        others = [fact.question for fact in facts if fact.conversation != one.id]
        rest = [other for other in conversations if other.id != one.id]
        gate = NoteFilter(snippets(one), others, [t["content"] for x in rest for t in x.turns], 95)
        opened += [gate.needs(question) for question in own]
    assert np.mean(opened) > 0.9
