"""The built-in conversations: shape, order, distinct topics, facts that are true of one only."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from statistics import mean

import unswayed.data.conversations
from unswayed.data.conversations import builtin_conversations, builtin_facts, builtin_near

BANK = Path(unswayed.data.conversations.__file__).parent / "bank" / "conversations.jsonl"
ROWS = [json.loads(line) for line in BANK.read_text(encoding="utf-8").splitlines()]
TRAINING = ("question", "yes", "no")
HELD_OUT = ("held_out_question", "held_out_yes", "held_out_no")

# Attributes of the user that no conversation may speak of.
SENSITIVE = (
    r"god|religio\w*|church\w*|mosques?|synagogues?|pray\w*|priests?|bible|christ\w*|muslim\w*|"
    r"islam\w*|jew(s|ish)?|hindu\w*|buddh\w*|easter|ramadan|ethnic\w*|race|racial|immigrant\w*|"
    r"asian|african|hispanic|latin[oa]|black (wo)?m[ae]n|white (wo)?m[ae]n|"
    r"ill|illness\w*|disease\w*|doctors?|hospital\w*|clinic\w*|medic\w*|pills?|allerg\w*|diagnos\w*|"
    r"pregnan\w*|disab\w*|depress\w*|therap\w*|diabet\w*|cancer|blood|surger\w*|"
    r"salary|wages?|income|earn\w*|debts?|loan of|mortgage|rich|poor|unemploy\w*|pension\w*|"
    r"gay|lesbian|trans|democrat\w*|republican\w*|vote[ds]?"
)


def text_of(conversation) -> str:
    return "\n".join(turn["content"] for turn in conversation.turns)


CONVERSATIONS = builtin_conversations()
TEXTS = {conversation.id: text_of(conversation) for conversation in CONVERSATIONS}
FACTS = builtin_facts()
NEAR = builtin_near()


def says(text: str, phrase: str) -> bool:
    """Whether the phrase occurs as whole words, in any case."""
    return bool(re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE))


def words(text: str) -> set[str]:
    return set(re.findall(r"[\w']+", text.casefold()))


def overlap(one: str, other: str) -> float:
    """Shared words of five letters or more, as a share of the smaller set."""
    a, b = (set(re.findall(r"[a-z]{5,}", TEXTS[id].casefold())) for id in (one, other))
    return len(a & b) / min(len(a), len(b))


def test_conversations_are_many_and_short():
    assert len(CONVERSATIONS) >= 40
    for conversation in CONVERSATIONS:
        assert 80 <= len(text_of(conversation).split()) <= 220, conversation.id
        assert 2 <= sum(turn["role"] == "user" for turn in conversation.turns) <= 4, conversation


def test_times_are_strictly_increasing():
    times = [conversation.time for conversation in CONVERSATIONS]
    assert None not in times and times == sorted(set(times))


def test_ids_topics_and_texts_are_unique():
    for values in (
        [row["id"] for row in ROWS],
        [row["topic"] for row in ROWS],
        [turn["content"] for conversation in CONVERSATIONS for turn in conversation.turns],
    ):
        assert len(values) == len(set(values))


def test_topics_are_distinct_except_near_misses():
    for one, other in combinations(TEXTS, 2):
        if NEAR.get(one) != other:
            assert overlap(one, other) < 0.24, (one, other)


def test_near_misses_are_mutual_pairs_that_are_nearer_than_others():
    assert len(NEAR) >= 16
    assert all(NEAR[NEAR[id]] == id != NEAR[id] for id in NEAR)
    others = [overlap(*pair) for pair in combinations(TEXTS, 2) if NEAR.get(pair[0]) != pair[1]]
    assert mean(overlap(*pair) for pair in NEAR.items()) > 1.5 * mean(others)


def test_a_near_miss_is_denied_with_the_facts_of_the_other():
    answers = {id: [fact.answer for fact in FACTS if fact.conversation == id] for id in NEAR}
    denied = {id: [fact.no for fact in FACTS if fact.conversation == id] for id in NEAR}
    assert not [
        id
        for id, other in NEAR.items()
        if not any(says(question, answer) for question in denied[id] for answer in answers[other])
    ]


def test_nothing_sensitive_is_said():
    for id, text in TEXTS.items():
        assert not (found := re.search(rf"\b({SENSITIVE})\b", text, re.IGNORECASE)), (id, found)


def test_each_conversation_has_three_to_five_facts():
    counts = Counter(fact.conversation for fact in FACTS)
    assert list(counts) == list(TEXTS)
    assert set(counts.values()) <= {3, 4, 5}


def test_a_fact_is_told_in_its_own_conversation_only():
    assert not [
        fact
        for fact in FACTS
        if len(fact.answer.split()) > 6
        or fact.answer not in TEXTS[fact.conversation]
        or [id for id, text in TEXTS.items() if says(text, fact.answer)] != [fact.conversation]
    ]


def test_questions_give_the_answer_away_only_where_they_affirm_it():
    fields = [(fact, field) for fact in FACTS for field in (*TRAINING, *HELD_OUT)]
    assert not [
        getattr(fact, field)
        for fact, field in fields
        if not re.fullmatch(r"\S(.*\S)?\?", getattr(fact, field))
        or says(getattr(fact, field), fact.answer) != field.endswith("yes")
    ]


def test_what_is_denied_was_not_said():
    """The question on what was not said is built like the one on what was."""

    def new(fact, no: str, yes: str) -> set[str]:
        return words(no) - words(yes) - words(TEXTS[fact.conversation])

    for fact in FACTS:
        for yes, no in ((fact.yes, fact.no), (fact.held_out_yes, fact.held_out_no)):
            assert new(fact, no, yes), no
            assert words(no) & words(yes) and no.split()[0] == yes.split()[0], (yes, no)
        assert not new(fact, fact.no, fact.yes) & words(fact.held_out_no), fact


def test_closed_questions_are_balanced():
    """Each fact has one yes and one no in both sets; no first word gives the answer away."""
    for fields in (("yes", "no"), ("held_out_yes", "held_out_no")):
        yes, no = (Counter(getattr(fact, field).split()[0] for fact in FACTS) for field in fields)
        assert yes == no


def test_no_question_occurs_twice_and_none_is_in_both_sets():
    asked = Counter(
        " ".join(sorted(words(getattr(fact, field))))
        for fact in FACTS
        for field in (*TRAINING, *HELD_OUT)
    )
    assert not [question for question, count in asked.items() if count > 1]


def test_the_bank_has_no_unknown_fields():
    fields = {field.name for field in dataclasses.fields(unswayed.data.conversations.Fact)}
    for row in ROWS:
        assert {"id", "time", "topic", "messages", "facts"} == row.keys() - {"near"}
        assert all(fact.keys() == fields - {"conversation"} for fact in row["facts"])
