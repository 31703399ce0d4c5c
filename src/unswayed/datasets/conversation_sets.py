"""`memory_conversations`: what a user told, with questions on it, to train and test a memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from datasets import Dataset, Features, List, Value

from unswayed.core.ledger import digest
from unswayed.data.conversations import Fact, builtin_conversations, builtin_facts, builtin_near
from unswayed.datasets.cards import make_tree
from unswayed.datasets.persona_sets import choose_configs
from unswayed.datasets.trees import Tree

NAME = "memory_conversations"
CONFIG, SPLIT = "default", "train"

CONVERSATION_FEATURES = Features(
    {
        "conversation_id": Value("string"),
        "time": Value("string"),  # ISO 8601, UTC
        "near": Value("string"),  # the conversation on a near topic with other facts, if any
        "messages": List({"role": Value("string"), "content": Value("string")}),
        "questions": List(
            {
                "use": Value("string"),  # train or test: two wordings of the same fact
                "kind": Value("string"),  # open, yes or no (the true answer of a closed question)
                "question": Value("string"),
                "answer": Value("string"),
            }
        ),
    }
)


def conversation_tree(*, configs: Sequence[str] | None, command: str) -> Tree:
    """The built-in conversations in the order of time, each with the questions on its facts.

    Raises:
        InputError: unknown config.
    """
    choose_configs(configs, [CONFIG])
    near, facts = builtin_near(), builtin_facts()
    rows = [
        {
            "conversation_id": conversation.id,
            "time": conversation.time,
            "near": near.get(conversation.id),
            "messages": list(conversation.turns),
            "questions": [
                question
                for fact in facts
                if fact.conversation == conversation.id
                for question in questions_on(fact)
            ],
        }
        for conversation in builtin_conversations()
    ]
    return make_tree(
        NAME,
        {CONFIG: {SPLIT: Dataset.from_list(rows, CONVERSATION_FEATURES)}},
        {"conversations_sha256": digest(rows, ensure_ascii=False)},
        "conversations",
        n_conversations=len(rows),
        n_questions=sum(len(row["questions"]) for row in rows),
        command=command,
    )


def questions_on(fact: Fact) -> Iterator[dict[str, Any]]:
    """The open, the yes and the no question on a fact, for training, and reworded for testing."""
    wordings = {
        "train": (fact.question, fact.yes, fact.no),
        "test": (fact.held_out_question, fact.held_out_yes, fact.held_out_no),
    }
    for use, texts in wordings.items():
        answers = (fact.answer, "Yes", "No")
        for kind, question, answer in zip(("open", "yes", "no"), texts, answers, strict=True):
            yield {"use": use, "kind": kind, "question": question, "answer": answer}
