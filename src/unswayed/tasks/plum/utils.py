"""Documents and metrics of plum_recall: thin shells over unswayed's pure functions.

Settings come from the task's metadata; on the command line `--metadata '{"memory": "bm25"}'`:

dataset   a tree of datasets_scripts/memory_conversations.py (folder or Hub id) in place of the
          built-in bank
memory    none (default; the model itself is asked, with its adapter if it has one), bm25,
          embedding, summary (extractive) or full
k         snippets that bm25 and embedding put into the prompt (default 3)
embedder  model of the embeddings (default: the embedded model)
"""

from __future__ import annotations

from typing import Any

import datasets

from unswayed.core.errors import InputError
from unswayed.data.conversations import (
    Conversation,
    builtin_conversations,
    builtin_facts,
    make_conversation,
)
from unswayed.data.hub import read_dataset
from unswayed.memory import Memory
from unswayed.memory.baselines import FullMemory, SummaryMemory
from unswayed.memory.conversation_memory import ConversationMemory
from unswayed.memory.prompt import PromptMemory
from unswayed.memory.retrieval import RetrievalMemory
from unswayed.models.embedded import EMBEDDED
from unswayed.plum.qa import CLOSED, QAPair, bank_pairs

MEMORIES = ("none", "bm25", "embedding", "summary", "full")


def load_docs(
    dataset: str | None = None,
    memory: str = "none",
    k: int = 3,
    embedder: str = EMBEDDED,
    **_: Any,
) -> dict[str, datasets.Dataset]:
    """One document per closed held-out question, in the split `test`; lm-eval's keys are ignored.

    Raises:
        InputError: unknown memory, or a dataset without such questions.
    """
    conversations, pairs = _published(dataset) if dataset else _builtin()
    closed = [pair for pair in pairs if pair.kind in CLOSED]
    if not closed:
        raise InputError(f"dataset {dataset} has no closed questions of the use test")
    prompts = _memory(memory, k, embedder)
    if isinstance(prompts, ConversationMemory):
        prompts.remember_conversations(conversations)
    docs = []
    for pair in closed:
        *system, _ = prompts.messages(pair.question)
        docs.append(
            {
                "conversation": pair.conversation,
                "kind": pair.kind,
                "system_prompt": system[0]["content"] if system else "",
                "question": pair.question,
                "gold": list(CLOSED).index(pair.kind),
            }
        )
    return {"test": datasets.Dataset.from_list(docs)}


def _memory(name: str, k: int, embedder: str) -> Memory:
    if name == "embedding":
        from unswayed.models.vectors import Embedder

        return RetrievalMemory(k, Embedder(embedder))
    makers = {"none": PromptMemory, "bm25": lambda: RetrievalMemory(k)}
    makers |= {"summary": SummaryMemory, "full": FullMemory}
    if name not in makers:
        raise InputError(f"memory {name!r} is not one of {', '.join(MEMORIES)}")
    return makers[name]()


def _builtin() -> tuple[list[Conversation], list[QAPair]]:
    return builtin_conversations(), bank_pairs(builtin_facts())[1]


def _published(source: str) -> tuple[list[Conversation], list[QAPair]]:
    rows = read_dataset(source)["train"]
    conversations = [
        make_conversation(row["conversation_id"], row["time"], row["messages"]) for row in rows
    ]
    pairs = [
        QAPair(row["conversation_id"], qa["kind"], qa["question"], qa["answer"])
        for row in rows
        for qa in row["questions"]
        if qa["use"] == "test"
    ]
    return conversations, pairs


def results(doc: dict, results: list[tuple[float, bool]]) -> dict[str, float]:
    """Right or wrong, also under the true answer's name, and whether the answer is Yes."""
    (yes, _), (no, _) = results
    said_yes = yes > no
    correct = float(said_yes == (doc["kind"] == "yes"))
    return {"acc": correct, f"acc_{doc['kind']}": correct, "said_yes": float(said_yes)}
