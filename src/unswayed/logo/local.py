"""Local memory: the user's own past, found by words and summed up by counting, and the prompts.

A prompt's system message holds the instruction and what is known in words; then come the events of
the past as turns, asked and answered before, and last the question. A small model goes by answers
that it seems to have seen given, but hardly by a list of them. Prompts share long prefixes, which a
token tree (`unswayed.scoring.tree`) encodes once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from unswayed.core.errors import InputError
from unswayed.data.histories import Event, Task
from unswayed.display.numbers import listed
from unswayed.memory.retrieval import BM25, EmbeddingIndex
from unswayed.scoring.chat import Message

SHRINK = 3  # events of "no taste" that a tag's mean is drawn towards
NAMED = 3  # tags that a profile names on each side
SMALL = 0.2  # a difference in standard deviations that counts as small (Cohen 1988)
LAST = 20  # items that an LLM reads to write a profile

KNOWN = "What is known about this person:"


def retrieve(past: Sequence[Event], query: str, k: int, embedder: Any = None) -> tuple[Event, ...]:
    """The k events nearest to a query, or all if there are fewer; of equals the most recent.

    They come in the order of time. Events are compared by their query, or by their response if they
    have none.

    Args:
        past: events before the question, in the order of time.
        embedder: has `embed(texts)`, such as `unswayed.models.vectors.Embedder`: cosine of centred
            embeddings; without one BM25.

    Raises:
        InputError: k is below 0.
    """
    if k < 0:
        raise InputError(f"top-k {k}: give a number of events from 0")
    if not past or k == 0:
        return ()
    texts = [event.query or event.response for event in past]
    if embedder is not None:
        index = EmbeddingIndex(texts, embedder.embed, lambda text: embedder.embed([text])[0])
        scores = index.scores(query)
    elif any(re.search(r"\w", text) for text in texts):
        scores = BM25(texts).scores(query)
    else:
        scores = np.zeros(len(texts))
    latest = np.arange(len(past))[::-1]
    best = latest[np.argsort(-scores[latest], kind="stable")[:k]]
    return tuple(past[i] for i in sorted(best.tolist()))


# -- profiles ------------------------------------------------------------------------------------


def counted_profile(past: Sequence[Event], task: Task) -> str:
    """What a user's past says of them, by counting alone; "" if nothing is known.

    On a scale: number, mean and spread of the values, and the tags whose mean, drawn towards the
    user's own by SHRINK events, differs from it by at least SMALL spreads. For other labels: the
    most frequent ones. For free text: its mean length, and the most frequent tags.
    """
    if not past:
        return ""
    count = f"{len(past)} item{'s' if len(past) > 1 else ''} so far"
    answered = [event for event in past if event.response]
    if task.labels is None:
        words = [len(event.response.split()) for event in answered]
        tags = Counter(tag for event in past for tag in event.about)
        parts = [f"about {np.mean(words):.0f} words each"] if words else []
        parts += [f"mostly {listed(_frequent(tags))}"] if tags else []
        return f"{', '.join([count, *parts])}."
    if not answered:
        return f"{count}."
    if not task.ordinal:
        labels = Counter(event.response for event in answered)
        shares = [
            f"{label} ({100 * labels[label] / len(answered):.0f} %)" for label in _frequent(labels)
        ]
        return f"{count}, most often {listed(shares)}."
    values = np.array([float(event.response) for event in answered])
    text = f"{count}: {values.mean():.1f} on average, spread {values.std():.1f}."
    liked, disliked = _liked_tags(answered, values)
    if liked:
        text += f" Likes {listed(liked)}."
    if disliked:
        text += f" Less fond of {listed(disliked)}."
    return text


def profile_prompt(past: Sequence[Event], task: Task) -> str:
    """What an LLM is asked for a profile of the user, from the last LAST items; "" for none."""
    if not past:
        return ""
    taste = "how they write" if task.labels is None else "what they like and what they do not"
    return (
        f"{_lines(past[-LAST:])}\n\nThese are one person's answers. Describe in two short "
        f"sentences {taste}, without naming any {task.noun}."
    )


def _liked_tags(events: Sequence[Event], values: np.ndarray) -> tuple[list[str], list[str]]:
    """Tags liked best and least, the clearest first; of equals in the order of the alphabet."""
    deviations = values - values.mean()
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for event, deviation in zip(events, deviations, strict=True):
        for tag in event.about:
            sums[tag] += deviation
            counts[tag] += 1
    # Rounded, so that ties do not depend on the order in which was summed up.
    taste = {tag: round(sums[tag] / (counts[tag] + SHRINK), 9) for tag in sorted(sums)}
    line = round(max(SMALL * values.std(), 1e-9), 9)
    liked = sorted((tag for tag in taste if taste[tag] >= line), key=lambda tag: -taste[tag])
    disliked = sorted((tag for tag in taste if taste[tag] <= -line), key=taste.__getitem__)
    return liked[:NAMED], disliked[:NAMED]


def _frequent(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda name: (-counts[name], name))[:NAMED]


# -- prompts -------------------------------------------------------------------------------------


def local_prompt(
    task: Task, query: str, evidence: Sequence[Event] = (), profile: str = "", hint: str = ""
) -> list[Message]:
    """The question to a model that reads what is known of the user, if anything is.

    Args:
        evidence: see `retrieve`; events that lack query or response are told in the system message.
        profile: see `counted_profile`; or what an LLM wrote.
        hint: what others would answer, see `unswayed.logo.mediator.hint`.
    """
    turns = [event for event in evidence if event.query and event.response]
    listed_events = _lines([event for event in evidence if not (event.query and event.response)])
    notes = [part for part in (profile, listed_events, hint) if part]
    system = "\n".join([task.ask, KNOWN, *notes] if notes else [task.ask])
    messages: list[Message] = [{"role": "system", "content": system}]
    for event in turns:
        messages.append({"role": "user", "content": event.query})
        messages.append({"role": "assistant", "content": event.response})
    return [*messages, {"role": "user", "content": query or task.ask}]


def _lines(events: Sequence[Event]) -> str:
    """A line for each event, "query: response", or what there is of the two."""
    return "\n".join(": ".join(filter(None, (event.query, event.response))) for event in events)
