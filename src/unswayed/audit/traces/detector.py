"""Does a text use what a memory says? A lexical detector, negation aware.

A fact of a memory is a content word, or a pair of neighbouring ones, that stands neither in the
item nor in the memory's fixed frame. A mention of a fact, or of the user's background in general,
is dismissed if the text calls it irrelevant or negates it, in the manner of NegEx (Chapman et al.
2001, J. Biomedical Informatics 34:301): cues with a direction, a scope that ends with the clause,
five words after a plain negation, and pseudo-negations ("not only", "cannot ignore") that do not
count. English only; what it gets right and wrong is measured in docs/traces.md.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Collection, Mapping

from unswayed.core.banks import patterns, read_bank

USED, DISMISSED, UNUSED = "used", "dismissed", "none"
LABELS = (USED, DISMISSED, UNUSED)
WINDOW = 5  # words after a plain negation, as in NegEx

Fact = tuple[str, ...]  # one stem, or two neighbouring ones


@dataclasses.dataclass(frozen=True)
class Mention:
    """Where a text speaks of the user.

    Attributes:
        start, end: characters of the text.
        fact: the fact's stems; () for a general allusion ("given your background").
        dismissed: it is called irrelevant, or negated.
    """

    start: int
    end: int
    fact: Fact
    dismissed: bool


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a text does with a memory: one of LABELS, and all mentions in order."""

    label: str
    mentions: tuple[Mention, ...]

    @property
    def facts(self) -> frozenset[Fact]:
        """Distinct facts mentioned, dismissed or not."""
        return frozenset(mention.fact for mention in self.mentions if mention.fact)


# -- words ---------------------------------------------------------------------------------------

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
ENDING = re.compile(r"['’](?:s|re|ve|ll|d|m)$")


@functools.cache
def _stemmer():
    from nltk.stem import SnowballStemmer

    return SnowballStemmer("english")


@functools.cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return ENGLISH_STOP_WORDS | {"user", "non", "just", "does", "did", "doing", "having"}


@functools.lru_cache(maxsize=100_000)
def _stem(word: str) -> str | None:
    """Stem of a content word, None for a function word; Porter2 (Snowball, English)."""
    word = ENDING.sub("", word.casefold())
    plain = word.replace("’", "'")
    if len(word) < 2 or plain.endswith("n't") or plain in _stop_words():
        return None
    return _stemmer().stem(word)


def words(text: str) -> list[tuple[str | None, int, int]]:
    """(stem or None, start, end) of every word."""
    return [(_stem(match[0]), *match.span()) for match in WORD.finditer(text)]


def stems(text: str) -> frozenset[str]:
    """Stems of the content words."""
    return frozenset(stem for stem, _, _ in words(text) if stem)


@functools.cache
def _generic() -> frozenset[str]:
    return stems(" ".join(read_bank("unswayed.audit.traces", "detector")["generic_words"]))


# -- facts ---------------------------------------------------------------------------------------


def facts_of(
    memory: str, item: Collection[str], common: Collection[str] = frozenset()
) -> dict[Fact, bool]:
    """The facts of a memory, each with whether the memory itself negates it ("no savings").

    Args:
        memory: the text about the user.
        item: stems that never count: those of the question, its options and the fixed frame.
        common: stems that are not specific enough to count alone; two neighbouring ones are a fact.
    """
    memory = re.sub(r"(?m)^- [^:\n]*:", "", memory)  # labels of a bullet list
    negated = {position for clause in _clauses(memory) for position in _negated(memory, *clause)}
    facts: dict[Fact, bool] = {}
    for fact, start, _ in _grams(memory):
        n_common = sum(stem in common for stem in fact)
        specific = n_common == (0 if len(fact) == 1 else 2)
        if specific and not any(stem in item for stem in fact):
            facts[fact] = facts.get(fact, False) or start in negated
    return facts


def _grams(text: str) -> list[tuple[Fact, int, int]]:
    """Content words, and pairs of them with nothing but space or a hyphen between."""
    grams, before = [], None
    for stem, start, end in words(text):
        if stem is None:
            before = None
            continue
        grams.append(((stem,), start, end))
        if before and re.fullmatch(r"[\s-]+", text[before[2] : start]):
            grams.append(((before[0], stem), before[1], end))
        before = (stem, start, end)
    return grams


# -- sentences, clauses, cues --------------------------------------------------------------------

SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)|\n+")
PATTERNS = patterns("unswayed.audit.traces", "detector")
FORWARD, BACKWARD, DOUBLE = PATTERNS["forward"], PATTERNS["backward"], PATTERNS["double"]
ALLUSION = PATTERNS["allusion"]


def _spans(text: str, end: re.Pattern[str], start: int, stop: int) -> list[tuple[int, int]]:
    """Stretches of text[start:stop] between matches of `end`, without empty ones."""
    spans, at = [], start
    for match in end.finditer(text, start, stop):
        spans.append((at, match.start()))
        at = match.end()
    return [(a, b) for a, b in [*spans, (at, stop)] if text[a:b].strip()]


def sentence_span(text: str, at: int) -> tuple[int, int]:
    """The sentence that holds a position; the whole text if none does."""
    sentences = _spans(text, SENTENCE_END, 0, len(text))
    return next(((a, b) for a, b in sentences if b > at), (0, len(text)))


def _clauses(text: str) -> list[tuple[int, int]]:
    """Spans of all clauses, in order."""
    return [
        clause
        for sentence in _spans(text, SENTENCE_END, 0, len(text))
        for clause in _spans(text, PATTERNS["clause_end"], *sentence)
    ]


def _negated(text: str, start: int, end: int) -> set[int]:
    """Starts of the words of a clause that stand within WINDOW words after a plain negation."""
    clause = DOUBLE.sub(lambda match: " " * len(match[0]), text[start:end])
    negated: set[int] = set()
    for cue in PATTERNS["negator"].finditer(clause):
        after = itertools.islice(WORD.finditer(clause, cue.end()), WINDOW)
        negated |= {start + match.start() for match in after}
    return negated


def _dismissed(text: str) -> tuple[list[tuple[int, int]], set[int]]:
    """Spans called irrelevant, and starts of the words that are plainly negated."""
    spans: list[tuple[int, int]] = []
    negated: set[int] = set()
    before = 0  # start of the sentence before
    for start, end in _spans(text, SENTENCE_END, 0, len(text)):
        clauses = _spans(text, PATTERNS["clause_end"], start, end)
        for i, (left, right) in enumerate(clauses):
            negated |= _negated(text, left, right)
            clause = DOUBLE.sub(lambda match: " " * len(match[0]), text[left:right])
            for cue in FORWARD.finditer(clause):
                goes_on = [
                    k
                    for k in range(i + 1, min(i + 5, len(clauses)))
                    if PATTERNS["list_goes_on"].match(text[slice(*clauses[k])])
                ]
                spans.append((left + cue.start(), clauses[max(goes_on, default=i)][1]))
            for cue in BACKWARD.finditer(clause):
                subject = stems(clause[: cue.start()] + _after_none(cue[0], clause[cue.end() :]))
                if not subject:  # "that is irrelevant"
                    spans.append((start if i else before, left + cue.end()))
                elif subject <= _generic():  # "these details do not matter"
                    spans.append((0, left + cue.end()))
                else:
                    spans.append((left, left + cue.start()))
        before = start
    return spans, negated


def _after_none(cue: str, rest: str) -> str:
    """The noun in "none of these details matter", which stands behind the cue."""
    match = WORD.search(rest) if cue.lower().startswith("none of") else None
    return f" {match[0]}" if match and _stem(match[0]) in _generic() else ""


# -- reading -------------------------------------------------------------------------------------


def read(trace: str, facts: Mapping[Fact, bool], item: Collection[str]) -> Reading:
    """Whether a trace uses a memory.

    Args:
        trace: generated text, thinking included.
        facts: see `facts_of`.
        item: stems of the item, which never count.
    """
    places = [(start, end, fact) for fact, start, end in _grams(trace) if fact in facts]
    for match in ALLUSION.finditer(trace):
        allusion = stems(match[0])
        if allusion and not allusion & set(item):
            places.append((*match.span(), ()))
    if not places:
        return Reading(UNUSED, ())
    spans, negated = _dismissed(trace)
    mentions = []
    for start, end, fact in sorted(places):
        irrelevant = any(left <= start < right for left, right in spans)
        denied = not facts.get(fact, False) and start in negated
        mentions.append(Mention(start, end, fact, irrelevant or denied))
    used = any(not mention.dismissed for mention in mentions)
    return Reading(USED if used else DISMISSED, tuple(mentions))
