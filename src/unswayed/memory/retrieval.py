"""Retrieval memory: of what was said before, the passages nearest to the question are read.

A snippet is one exchange, the user's turn and the assistant's answer; a long one is cut into
passages of PASSAGE words. The `k` best snippets for a question stand in the system prompt, in the
order in which they were said; there are always `k`, unless fewer are known. They are found by words
(BM25) or by the cosine of centred embeddings.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unswayed.core.errors import InputError
from unswayed.data.conversations import Conversation
from unswayed.data.personas import Persona
from unswayed.memory.conversation_memory import ConversationMemory, transcript
from unswayed.memory.registry import Mechanism, Options

PASSAGE = 128  # words
K1, B = 1.2, 0.75  # BM25: saturation of a term's count, and weight of a text's length
WORD = r"(?u)\b\w+\b"


def snippets(conversation: Conversation, words: int = PASSAGE) -> list[str]:
    """The exchanges of a conversation as text, cut between words into passages if long.

    No passage has more than `words` words, the speakers' names included; white space inside a
    passage stays as it is.
    """
    turns = conversation.turns
    texts = [transcript(turns[i : i + 2]) for i in range(0, len(turns), 2)]
    return [passage for text in texts for passage in _passages(text, words)]


def _passages(text: str, words: int) -> list[str]:
    places = [match.span() for match in re.finditer(r"\S+", text)]
    runs = [places[i : i + words] for i in range(0, len(places), words)]
    return [text[run[0][0] : run[-1][1]] for run in runs]


class BM25:
    """Okapi BM25 over some texts (Robertson & Zaragoza 2009, doi 10.1561/1500000019, section 3).

        score(q, d) = sum over the words t of q of  idf(t) tf / (tf + k1 (1 - b + b |d| / avg))
        idf(t) = ln(1 + (N - n + 0.5) / (n + 0.5))

    tf is the count of t in d, |d| the length of d in words, avg its mean over the N texts, n the
    number of texts that hold t. The 1 in idf (as in Lucene) keeps words that most texts hold from
    counting against a text. Words are runs of letters and digits, in lower case.

    Args:
        texts: what is searched; at least one.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        from scipy.sparse import csr_array
        from sklearn.feature_extraction.text import CountVectorizer

        self._words = CountVectorizer(token_pattern=WORD)
        counts = csr_array(self._words.fit_transform(texts)).astype(float).tocoo()
        length = counts.sum(axis=1)
        held_by = np.bincount(counts.col, minlength=counts.shape[1])
        idf = np.log1p((len(texts) - held_by + 0.5) / (held_by + 0.5))
        long = K1 * (1 - B + B * length / length.mean())
        weights = idf[counts.col] * counts.data / (counts.data + long[counts.row])
        self._weights = csr_array((weights, (counts.row, counts.col)), shape=counts.shape)

    def scores(self, question: str) -> np.ndarray:
        """(n,) scores of the texts; 0 where no word is shared."""
        return self._weights @ self._words.transform([question]).toarray()[0]


class EmbeddingIndex:
    """Cosine of embeddings, less the mean of the texts searched (see `unswayed.models.vectors`).

    Args:
        texts: what is searched; at least one.
        embed: texts to rows of length 1, such as `unswayed.models.vectors.Embedder.embed`.
        embed_question: the same for one question.
    """

    def __init__(
        self,
        texts: Sequence[str],
        embed: Callable[[Sequence[str]], np.ndarray],
        embed_question: Callable[[str], np.ndarray],
    ) -> None:
        from unswayed.models.vectors import centred

        rows = embed(texts)
        self._mean, self._embed = rows.mean(axis=0), embed_question
        self._rows = centred(rows, self._mean)

    def scores(self, question: str) -> np.ndarray:
        """(n,) cosines."""
        from unswayed.models.vectors import centred

        return self._rows @ centred(self._embed(question)[None], self._mean)[0]


class RetrievalMemory(ConversationMemory):
    """The `k` snippets of earlier conversations that are nearest to the question.

    Args:
        k: number of snippets.
        embedder: has `embed(texts)`; without one, snippets are found by words.
    """

    def __init__(self, k: int = 3, embedder: Any = None) -> None:
        if k < 1:
            raise InputError(f"top-k {k}: give a number of snippets from 1")
        self.k, self._embedder = k, embedder
        # An audit puts the same questions to every user.
        self._embed_question = functools.cache(lambda question: embedder.embed([question])[0])
        self.style = f"{'bm25' if embedder is None else 'embedding'}-{k}"
        self.forget()

    @property
    def name(self) -> str:
        return "retrieval" if self._snippets else "none"

    def remember_conversations(self, conversations: Sequence[Conversation]) -> None:
        self._snippets = [text for conversation in conversations for text in snippets(conversation)]
        if not self._snippets:
            self._index = None
        elif self._embedder is None:
            self._index = BM25(self._snippets)
        else:
            self._index = EmbeddingIndex(self._snippets, self._embedder.embed, self._embed_question)

    def recall(self, question: str) -> list[str]:
        """The best snippets, in the order in which they were said; of equals the earlier one."""
        if not self._snippets:
            return []
        best = np.argsort(-self._index.scores(question), kind="stable")[: self.k]
        return [self._snippets[i] for i in sorted(best)]


def parse_style(style: str) -> tuple[str, int]:
    """Kind of retrieval, bm25 or embedding, and number of snippets of a style such as "bm25-3".

    Raises:
        InputError: it has another form.
    """
    if match := re.fullmatch("(bm25|embedding)-([1-9][0-9]*)", style):
        return match[1], int(match[2])
    raise InputError(
        f"memory style {style!r} is not of the form bm25-K or embedding-K, which --memory "
        "retrieval has, K the number of snippets"
    )


def _make(options: Options, lm: Any, waiting: Sequence[Persona]) -> RetrievalMemory:
    from unswayed.models.vectors import Embedder

    kind, k = parse_style(options.memory_style)
    embeds = kind == "embedding" and waiting
    return RetrievalMemory(k, Embedder(device=options.device) if embeds else None)


def describe(style: str) -> str:
    kind, k = parse_style(style)
    by = "the words they share (BM25)" if kind == "bm25" else "the cosine of embeddings"
    best = "snippet that is" if k == 1 else f"{k} snippets that are"
    return (
        f"The memory mechanism was retrieval, in the style {style}: of what the user said of "
        f"themself, the system prompt holds the {best} nearest to the question by {by}."
    )


MECHANISM = Mechanism(
    default_style="bm25-3",
    check=lambda options, personas: parse_style(options.memory_style),
    make=_make,
    describe=describe,
    retrieves=True,
    in_prompt=True,
)
