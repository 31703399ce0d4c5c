"""Memories of conversations in the prompt: retrieval, full context, summaries."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.conversations import Conversation, builtin_conversations, builtin_facts
from unswayed.data.personas import builtin_personas
from unswayed.memory.baselines import SUMMARISE, FullMemory, SummaryMemory, first_sentences
from unswayed.memory.conversation_memory import REMEMBERED, persona_conversations, transcript
from unswayed.memory.retrieval import BM25, EmbeddingIndex, RetrievalMemory, snippets


def conversation(id: str, *texts: str) -> Conversation:
    roles = ("user", "assistant")
    turns = tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(texts))
    return Conversation(id, None, turns)


TEA = conversation("tea", "I like smoky tea. Really.", "Noted.", "And a blue cup!", "Blue it is.")
DOG = conversation("dog", "My dog Rex barks", "Does he?")


class Letters:
    """An embedder whose rows are counts of letters; it keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts) -> np.ndarray:
        self.asked += texts
        rows = np.array(
            [[text.lower().count(c) + 1.0 for c in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
        )
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# -- snippets ------------------------------------------------------------------------------------


def test_a_snippet_is_one_exchange():
    assert snippets(TEA) == [
        "User: I like smoky tea. Really.\nAssistant: Noted.",
        "User: And a blue cup!\nAssistant: Blue it is.",
    ]


text = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda t: t.strip())


@given(text, text, st.integers(1, 7))
def test_long_exchanges_are_cut_between_words_and_nothing_is_lost(first, second, words):
    one = conversation("x", first, second)
    found = snippets(one, words)
    assert all(0 < len(passage.split()) <= words for passage in found)
    assert " ".join(found).split() == transcript(one.turns).split()
    assert all(passage in transcript(one.turns) for passage in found)


# -- BM25 ----------------------------------------------------------------------------------------


def test_bm25_by_hand():
    """Three texts of 3, 2 and 1 words (mean 2), k1 = 1.2, b = 0.75."""
    found = BM25(["red red fox", "Fox, hen!", "cow"]).scores("red fox owl")
    idf_red = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    idf_fox = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    long = 1.2 * (0.25 + 0.75 * 3 / 2)
    first = idf_red * 2 / (2 + long) + idf_fox * 1 / (1 + long)
    assert found == pytest.approx([first, idf_fox * 1 / (1 + 1.2), 0.0])


def test_bm25_counts_a_repeated_word_of_the_question_twice():
    index = BM25(["red fox", "hen"])
    assert index.scores("red red") == pytest.approx(2 * index.scores("red"))
    assert not index.scores("").any() and not index.scores("owl").any()


def test_bm25_finds_the_conversation_of_a_fact():
    told = builtin_conversations()
    memory = RetrievalMemory(k=3)
    memory.remember_conversations(told)
    own = {one.id: set(snippets(one)) for one in told}
    facts = builtin_facts()
    hits = [not own[f.conversation].isdisjoint(memory.recall(f.held_out_yes)) for f in facts]
    assert np.mean(hits) > 0.9


# -- retrieval memory ----------------------------------------------------------------------------


def test_snippets_stand_in_the_system_prompt_in_the_order_of_time():
    memory = RetrievalMemory(k=2)
    memory.remember_conversations([TEA, DOG])
    system, asked = memory.messages("Does Rex like smoky things?")
    assert asked == {"role": "user", "content": "Does Rex like smoky things?"}
    assert system["role"] == "system"
    tea, dog = snippets(TEA)[0], snippets(DOG)[0]
    assert system["content"] == f"{REMEMBERED}{tea}\n\n{dog}\n\n"
    assert memory.name == "retrieval" and memory.style == "bm25-2"


def test_always_k_snippets_unless_fewer_are_known():
    memory = RetrievalMemory(k=5)
    memory.remember_conversations([TEA, DOG])
    assert memory.recall("owl") == [*snippets(TEA), *snippets(DOG)]
    memory = RetrievalMemory(k=1)
    memory.remember_conversations([TEA, DOG])
    assert memory.recall("owl") == snippets(TEA)[:1]  # of equals the earlier one
    with pytest.raises(InputError, match="top-k 0"):
        RetrievalMemory(k=0)


@pytest.mark.parametrize("make", [
    RetrievalMemory, lambda: RetrievalMemory(3, Letters()), FullMemory, SummaryMemory,
    lambda: SummaryMemory(lambda asked: ["short"] * len(asked)),
], ids=["bm25", "embedding", "full", "extractive", "written"])  # fmt: skip
def test_a_new_and_a_forgetful_memory_know_nothing(make):
    memory = make()
    nothing = [{"role": "user", "content": "Who?"}]
    assert memory.messages("Who?") == nothing and memory.name == "none"
    memory.remember_conversations([DOG])
    assert len(memory.messages("Who?")) == 2 and memory.name != "none"
    memory.remember_conversations([TEA])
    assert "Rex" not in memory.messages("Who?")[0]["content"]
    memory.forget()
    assert memory.messages("Who?") == nothing and memory.name == "none"
    with memory.active(None):
        pass


def test_embeddings_are_centred():
    """All raw rows nearly agree; without their mean the right text stands out."""
    raw = {"a": [10, 1, 0], "b": [10, 0, 1], "q": [10, 0.9, 0]}

    def embed(texts):
        rows = np.array([raw[text] for text in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    found = EmbeddingIndex(["a", "b"], embed, lambda q: embed([q])[0]).scores("q")
    assert found[0] > 0.99 and found[1] < -0.99
    alone = EmbeddingIndex(["a"], embed, lambda q: embed([q])[0]).scores("q")
    assert np.isfinite(alone).all()


def test_a_question_is_embedded_once_for_all_users():
    letters = Letters()
    memory = RetrievalMemory(1, letters)
    for one in (DOG, TEA):
        memory.remember_conversations([one])
        memory.recall("dog?")
    assert letters.asked.count("dog?") == 1
    assert memory.style == "embedding-1"


# -- personas ------------------------------------------------------------------------------------


def test_a_persona_is_told_slot_by_slot_in_its_own_words():
    persona = builtin_personas()[0]
    told = persona_conversations(persona)
    assert [one.turns[0]["content"] for one in told] == [t for _, t in persona.texts(True)]
    memory = RetrievalMemory(k=len(told))
    memory.remember(persona)
    content = memory.messages("Who am I?")[0]["content"]
    assert all(f"User: {text}\n" in content for _, text in persona.texts(True))
    assert all(len(snippets(one)) == 1 for p in builtin_personas() for one in
               persona_conversations(p))  # fmt: skip


# -- full context and summaries ------------------------------------------------------------------


def test_full_context_holds_every_word():
    memory = FullMemory()
    memory.remember_conversations([TEA, DOG])
    content = memory.messages("?")[0]["content"]
    assert content == f"{REMEMBERED}{transcript(TEA.turns)}\n\n{transcript(DOG.turns)}\n\n"


def test_extractive_summary():
    assert first_sentences(TEA) == "I like smoky tea. And a blue cup!"
    assert first_sentences(conversation("x", "No stop\nat all", "Yes.")) == "No stop"


def test_only_new_conversations_are_summarised():
    asked: list[str] = []

    def ask(requests):
        asked.extend(request[0]["content"] for request in requests)
        return [f"summary {len(asked)} " for _ in requests]

    memory = SummaryMemory(ask)
    memory.remember_conversations([TEA])
    assert asked == [SUMMARISE + transcript(TEA.turns)]
    memory.remember_conversations([TEA, DOG])
    assert len(asked) == 2
    assert memory.recall("?") == ["summary 1", "summary 2"]
    memory.forget()
    memory.remember_conversations([TEA])
    assert len(asked) == 3  # what was forgotten is asked again


def test_an_empty_summary_is_reported(caplog):
    memory = SummaryMemory(lambda asked: ["", "A dog."])
    with caplog.at_level(logging.WARNING):
        memory.remember_conversations([TEA, DOG])
    assert "1 of 2 conversations have an empty summary" in caplog.text
    assert memory.recall("?") == ["A dog."]
