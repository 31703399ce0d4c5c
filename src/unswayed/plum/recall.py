"""Recall: what of the conversations a model knows, whatever the memory.

Closed questions are scored: after the prompt that `ChatFormat` renders, which of "Yes" and "No" is
more likely (sum of log-probabilities; a tie is a No). A base model reads "User: QUESTION", a new
line and "Assistant:", as in training, and the strings are " Yes" and " No". Open questions are
answered by greedy generation: the answer is right if it contains the fact (`contains`), and for a
question on what was never said if it says so (`denies`).

Every memory gets the same questions; `rows` say what it made of each, `summarise` counts.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from typing import Any, TypedDict

from unswayed.core.errors import InputError
from unswayed.data.conversations import Conversation
from unswayed.memory import Memory
from unswayed.memory.conversation_memory import ConversationMemory
from unswayed.memory.prompt import PromptMemory
from unswayed.models.load import evaluating
from unswayed.plum.qa import CLOSED, KINDS, NO, YES, QAPair
from unswayed.scoring.ask import log_probs, open_prompts, replies
from unswayed.scoring.chat import ChatFormat

NEW_TOKENS = 48  # of an answer to an open question

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}’‘“”–—…]")
DENIAL = re.compile(
    r"\b(?:did|do|does|have|has|had|was|were|is|are|can|could)(?: not|n['’]t)\b|\bcannot\b"
    r"|\bnever\b|\bno (?:record|memory|mention|information|recollection)\b"
    r"|\bnot (?:discussed|mentioned|talked|said|told|recall|remember|aware|sure)\b",
    re.IGNORECASE,
)


class RecallRow(TypedDict):
    """What a model made of a question."""

    conversation: str
    kind: str
    question: str
    answer: str  # the true one
    text: str  # the model's
    correct: bool
    margin: float | None  # of a closed question: log P(Yes) - log P(No), nats


class MemoryRow(TypedDict):
    """What a model knew with a memory."""

    memory: str
    style: str
    longest: int  # tokens of the longest prompt with room for the answer
    context: int  # tokens that the model takes
    recall: dict[str, Any] | None  # `summarise`; None if the memory does not fit the context


def recall(
    lm: Any,
    pairs: Sequence[QAPair],
    memory: Memory,
    new_tokens: int = NEW_TOKENS,
) -> list[RecallRow]:
    """What a model makes of each question, with a memory that was told what it is to know.

    Dropout is off meanwhile, also in a model that is being trained.

    Args:
        lm: an lm-eval model of the backend hf-shared (`load_lm`, `loaded_lm`).
        new_tokens: the most tokens of an answer to an open question.

    Raises:
        InputError: unknown kind, a prompt exceeds the model's context (names both lengths), or
            the model gives NaN.
    """
    if unknown := [pair for pair in pairs if pair.kind not in KINDS]:
        raise InputError(f"kind {unknown[0].kind!r} of a question is not one of {', '.join(KINDS)}")
    prompts = open_prompts(lm, [memory.messages(pair.question) for pair in pairs])
    yes_no = [ChatFormat(lm).delimiter + text for text in (YES, NO)]
    closed = [i for i, pair in enumerate(pairs) if pair.kind in CLOSED]
    opened = [i for i, pair in enumerate(pairs) if pair.kind not in CLOSED]
    with memory.active(lm), evaluating(getattr(lm, "model", None)):
        scores = log_probs(
            lm,
            [prompts[i] for i in closed],
            [yes_no] * len(closed),
            names=["a question"] * len(closed),
        )
        texts = replies(lm, [prompts[i] for i in opened], new_tokens)
    log_odds = [yes - no for yes, no in scores]
    answers: dict[int, tuple[str, float | None]] = {
        **{i: (YES if nats > 0 else NO, nats) for i, nats in zip(closed, log_odds, strict=True)},
        **{i: (text, None) for i, text in zip(opened, texts, strict=True)},
    }
    return [_row(pair, *answers[i]) for i, pair in enumerate(pairs)]


def compare(
    lm: Any,
    memories: Sequence[ConversationMemory | None],
    conversations: Sequence[Conversation],
    pairs: Sequence[QAPair],
) -> list[MemoryRow]:
    """The same questions under several memories that are told the same conversations.

    Args:
        memories: None is no memory, that is the model alone.
    """
    delimiter, rows = ChatFormat(lm).delimiter, []
    for memory in memories:
        style = "" if memory is None else memory.style
        if memory is None:
            memory = PromptMemory()
        else:
            memory.remember_conversations(conversations)
        prompts = open_prompts(lm, [memory.messages(pair.question) for pair in pairs])
        longest = max(
            len(lm.tok_encode(prompt + delimiter + YES)) - 1
            if pair.kind in CLOSED
            else len(lm.tok_encode(prompt)) + NEW_TOKENS
            for pair, prompt in zip(pairs, prompts, strict=True)
        )
        fits = longest <= lm.max_length
        rows.append(
            {
                "memory": memory.name,
                "style": style,
                "longest": longest,
                "context": lm.max_length,
                "recall": summarise(recall(lm, pairs, memory)) if fits else None,
            }
        )
    return rows


def _row(pair: QAPair, text: str, log_odds: float | None) -> RecallRow:
    if pair.kind in CLOSED:
        correct = text == CLOSED[pair.kind]
    else:
        correct = contains(text, pair.answer) if pair.kind == "open" else denies(text)
    return {
        "conversation": pair.conversation,
        "kind": pair.kind,
        "question": pair.question,
        "answer": pair.answer,
        "text": text,
        "correct": correct,
        "margin": log_odds,
    }


# -- reading free answers ------------------------------------------------------------------------


def normalised(text: str) -> str:
    """Lower case, no punctuation, no English articles, single spaces.

    The normalisation of SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250), after Unicode's NFKC and
    case folding.
    """
    text = PUNCTUATION.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(ARTICLES.sub(" ", text).split())


def contains(text: str, fact: str) -> bool:
    """Whether the fact occurs in the text, both normalised, as whole words in a row.

    Strict: a number in figures is not the same in words, and a synonym does not count. An answer
    that lists several things and the fact among them does count. A fact of articles and punctuation
    alone is never contained.
    """
    words = normalised(fact)
    return bool(words) and f" {words} " in f" {normalised(text)} "


def denies(text: str) -> bool:
    """Whether an English answer says that something was not said or is not known.

    By its words ("did not", "never", "no record"): an answer that denies something else counts too.
    """
    return DENIAL.search(text) is not None


# -- figures -------------------------------------------------------------------------------------


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Recall with 95 % intervals that take the questions on one conversation together.

    Returns:
        closed, yes, no, open, open_no: {recall, low, high, n, conversations}, None without such
        questions; said_yes: share of closed questions answered with Yes; auc: probability that a
        yes question has a larger margin than a no question, 0.5 by chance: what the model knows
        apart from its leaning to one answer.
    """
    closed = [row for row in rows if row["kind"] in CLOSED]
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS}
    return {
        "closed": share_of(closed),
        "yes": share_of(kinds["yes"]),
        "no": share_of(kinds["no"]),
        "open": share_of(kinds["open"]),
        "open_no": share_of(kinds["open-no"]),
        "said_yes": said_yes(closed),
        "auc": _auc(closed) if kinds["yes"] and kinds["no"] else None,
    }


def share_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Share of correct rows with its interval, clustered by conversation; None without rows."""
    from unswayed.statistics.clustered import clustered_proportion

    if not rows:
        return None
    share = clustered_proportion(
        [row["correct"] for row in rows], [row["conversation"] for row in rows]
    )
    return {
        "recall": share.estimate,
        "low": share.low,
        "high": share.high,
        "n": share.n,
        "conversations": share.n_items,
    }


def said_yes(rows: Sequence[dict[str, Any]]) -> float | None:
    """Share of closed questions answered with Yes."""
    yes = [row["text"] == YES for row in rows if row["kind"] in CLOSED]
    return sum(yes) / len(yes) if yes else None


def _auc(closed: Sequence[dict[str, Any]]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(
        roc_auc_score([row["kind"] == "yes" for row in closed], [row["margin"] for row in closed])
    )
