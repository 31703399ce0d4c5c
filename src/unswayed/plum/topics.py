"""What there is to ask about: the phrases of each conversation, trained and held out, said or not.

Bare questions are only on what a conversation says or no conversation says (see `augment`).
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from unswayed.data.conversations import Conversation
from unswayed.plum import phrases
from unswayed.plum.phrases import Phrase
from unswayed.plum.settings import NEAR, RANDOM, SAID, UNRELATED
from unswayed.plum.words import bank

N_NEAR = 20  # phrases of the nearest conversations that count as near
QUOTES = '"“” '
QUOTE_WORDS = range(4, 41)  # of a sentence that answers an open question

Pools = dict[str, list[Phrase]]  # source -> phrases


@dataclasses.dataclass(frozen=True)
class Topic:
    """What questions on one conversation are made of.

    Attributes:
        id: the conversation's.
        phrase: the one that names the conversation in questions; None if there is none.
        trained, held_out: its key phrases for training and to hold out.
        negatives: phrases not said here, for training.
        held_out_negatives: the same, to hold out.
        quotes: phrase -> the sentence that holds it, with its speaker.
    """

    id: str
    phrase: Phrase | None
    trained: list[Phrase]
    held_out: list[Phrase]
    negatives: Pools
    held_out_negatives: Pools
    quotes: dict[Phrase, str]

    @property
    def pools(self) -> Pools:
        """Phrases for training."""
        return {SAID: self.trained, **self.negatives}

    @property
    def held_out_pools(self) -> Pools:
        return {SAID: self.held_out, **self.held_out_negatives}


def make_topics(
    conversations: Sequence[Conversation], seed: int, near: Mapping[str, str], held_out: int
) -> list[Topic]:
    """The material of each conversation; the arguments are those of `augment.extract_pairs`."""
    key_phrases = phrases.key_phrases(conversations)
    spoken = [phrases.spoken_stems(conversation) for conversation in conversations]
    candidates = [ranked[1:] for ranked in key_phrases]
    names = [ranked[0] for ranked in key_phrases if ranked]
    reserved = _held_out_keys(candidates, names, held_out // 2)
    unrelated = [
        phrase
        for phrase in phrases.bank_phrases(bank("questions")[UNRELATED])
        if not any(phrase.said_in(stems) for stems in spoken)
    ]
    topics = []
    for i, order in enumerate(_neighbours(conversations, near)):
        id, name = conversations[i].id, next(iter(key_phrases[i]), None)
        # Where other conversations speak of the topic too, the question may mean any of them.
        meant = [spoken[i]] + [stems for stems in spoken if name and name.said_in(stems)]
        negatives = []
        for is_reserved in (False, True):
            theirs = [
                phrase
                for j in order
                for phrase in candidates[j]
                if (phrase.key in reserved) == is_reserved
            ]
            draw = random.Random(f"{seed} negatives {id} {is_reserved}")
            negatives.append(
                _negatives(theirs, unrelated[is_reserved::2], _unsaid_filter(meant, name), draw)
            )
        trained = [phrase for phrase in candidates[i] if phrase.key not in reserved]
        held = [phrase for phrase in candidates[i] if phrase.key in reserved]
        quotes = _quotes(conversations[i], trained)
        topics.append(Topic(id, name, trained, held, *negatives, quotes))
    return topics


def _neighbours(
    conversations: Sequence[Conversation], near: Mapping[str, str]
) -> Iterator[list[int]]:
    """For each conversation the places of the others, the nearest first."""
    place = {conversation.id: i for i, conversation in enumerate(conversations)}
    for conversation, order in zip(conversations, phrases.near_first(conversations), strict=True):
        if (nearest := place.get(near.get(conversation.id, ""))) is not None:
            order = [nearest, *(j for j in order if j != nearest)]
        yield order


Filter = Callable[[Iterable[Phrase]], Iterator[Phrase]]


def _unsaid_filter(meant: Sequence[frozenset[str]], name: Phrase | None) -> Filter:
    """Lets through what none of the texts says and what does not overlap the topic's name."""

    def unsaid(pool: Iterable[Phrase]) -> Iterator[Phrase]:
        for phrase in pool:
            said_there = any(phrase.said_in(stems) for stems in meant)
            if not said_there and not (name and phrase.overlaps(name)):
                yield phrase

    return unsaid


def _negatives(
    theirs: Sequence[Phrase], unrelated: Sequence[Phrase], unsaid: Filter, draw: random.Random
) -> Pools:
    """Phrases that were not said, by source.

    Args:
        theirs: phrases of the other conversations, the nearest first.
        unrelated: phrases of the bank.
    """
    nearest = list(itertools.islice(unsaid(theirs), N_NEAR))
    shuffled = unsaid(draw.sample(theirs, len(theirs)))
    pool = _one_each(itertools.chain(nearest, shuffled), 2 * N_NEAR)
    foreign = list(unsaid(unrelated))
    return {
        NEAR: [phrase for phrase in pool if phrase in nearest],
        RANDOM: [phrase for phrase in pool if phrase not in nearest],
        UNRELATED: draw.sample(foreign, len(foreign)),
    }


def _one_each(pool: Iterable[Phrase], most: int) -> list[Phrase]:
    """The first phrases in order, without those that overlap one before them."""
    chosen: list[Phrase] = []
    for phrase in pool:
        if len(chosen) == most:
            break
        if not any(phrase.overlaps(earlier) for earlier in chosen):
            chosen.append(phrase)
    return chosen


def _held_out_keys(
    candidates: Sequence[Sequence[Phrase]], names: Sequence[Phrase], number: int
) -> set[frozenset[str]]:
    """Keys of the phrases that no training question asks about: up to `number` a conversation.

    Every third phrase of a conversation, so that both parts are alike; those with the fewest choose
    first. A phrase of several conversations is held out, or trained on, in all of them.
    """
    trained, reserved = {name.key for name in names}, set()
    for ranked in sorted(candidates, key=len):  # stable
        free = [phrase.key for phrase in ranked if phrase.key not in trained | reserved]
        most = min(number, len(ranked) // 2) - sum(phrase.key in reserved for phrase in ranked)
        third = free[2::3] or free[1:] or (free if len(ranked) > 1 else [])
        reserved.update(third[: max(0, most)])
        trained.update(key for key in free if key not in reserved)
    return reserved


def _quotes(conversation: Conversation, trained: Sequence[Phrase]) -> dict[Phrase, str]:
    """Phrase -> the first sentence that holds it, statements before questions, and who said it."""
    lines = [
        ("You" if turn["role"] == "user" else "I", sentence)
        for turn in conversation.turns
        for sentence in phrases.sentences(turn["content"])
        if len(sentence.split()) in QUOTE_WORDS
    ]
    lines.sort(key=lambda line: line[1].endswith("?"))  # stable
    spoken = [(who, line, frozenset(phrases.content_stems(line))) for who, line in lines]
    quotes = {}
    for phrase in trained:
        for who, line, stems in spoken:
            if phrase.said_in(stems):
                quotes[phrase] = f'{who} said: "{line.strip(QUOTES)}"'
                break
    return quotes
