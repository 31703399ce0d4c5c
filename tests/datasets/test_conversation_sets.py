"""The dataset of conversations: rows, wordings, reading back."""

from __future__ import annotations

from collections import Counter

import datasets
import pytest

from unswayed.core.errors import InputError
from unswayed.data.conversations import builtin_conversations, builtin_facts
from unswayed.datasets.conversation_sets import CONVERSATION_FEATURES, conversation_tree
from unswayed.datasets.trees import write_tree


def test_rows_are_the_bank_and_read_back(tmp_path):
    tree = conversation_tree(configs=None, command="-")
    read = datasets.load_dataset(str(write_tree(tree, tmp_path / "tree")), split="train")
    assert read.features == CONVERSATION_FEATURES
    bank = builtin_conversations()
    assert read["conversation_id"][:] == [conversation.id for conversation in bank]
    assert [tuple(messages) for messages in read["messages"]] == [
        conversation.turns for conversation in bank
    ]
    assert sum(len(questions) for questions in read["questions"]) == 6 * len(builtin_facts())


def test_uses_are_balanced_and_share_no_question():
    rows = conversation_tree(configs=None, command="-").tables["default"]["train"]
    questions = [question for entry in rows["questions"] for question in entry]
    counts = Counter((question["use"], question["kind"]) for question in questions)
    assert len(counts) == 6 and len(set(counts.values())) == 1
    wordings = {
        use: {q["question"] for q in questions if q["use"] == use} for use in ("train", "test")
    }
    assert not wordings["train"] & wordings["test"]
    assert all(q["answer"] == {"yes": "Yes", "no": "No"}[q["kind"]] for q in questions
               if q["kind"] != "open")  # fmt: skip


def test_unknown_config():
    with pytest.raises(InputError, match="'nope' is not one of default"):
        conversation_tree(configs=["nope"], command="-")
