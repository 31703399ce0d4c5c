"""Decontamination: which training texts repeat, or retell, an item of the tests.

Two measures. Shared runs of words find copies: n = 8 as in Tulu 3 (Lambert et al. 2024, arXiv
2411.15124, section 3.2), which asks for half of the test text in such runs, while here one run is
enough, as in GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C, n from 8 to 13). Embeddings
find paraphrases. What the thresholds let through is measured in docs/preferences.md.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from unswayed.core.errors import InputError
from unswayed.data.items import Item
from unswayed.data.questions import builtin_questions
from unswayed.models.vectors import Embedder, centred

RUN = 8  # words
WHOLE = 4  # words that a shorter test text needs to count when it occurs whole
COSINE = 0.75


def nearest_items(
    texts: Sequence[str], items: Sequence[Item], embedder: Embedder
) -> list[tuple[float, str]]:
    """The item whose scenario is nearest to each training text; it does not depend on the others.

    Returns:
        Per text the cosine, both embeddings centred on the built-in questions, and the item's name,
        test/id.

    Raises:
        InputError: a text is empty or exceeds the embedder's context, or there are no items.
    """
    if not items:
        raise InputError("there are no test items to compare with: name at least one test")
    mean = embedder.embed([question.question for question in builtin_questions()]).mean(0)
    scenarios = centred(embedder.embed([item.scenario for item in items]), mean)
    cosines = centred(embedder.embed(texts), mean) @ scenarios.T
    nearest = cosines.argmax(1)
    return [(float(row[i]), _name(items[i])) for row, i in zip(cosines, nearest, strict=True)]


def shared_runs(
    texts: Sequence[str], items: Sequence[Item], n: int = RUN
) -> list[tuple[tuple[str, ...], str]]:
    """The longest run of words that each text shares with a scenario or an option of an item.

    Args:
        n: fewest words of a run. A scenario or option of fewer words counts if it occurs whole
            and has at least 4.

    Returns:
        Per text the run and the item's name; of equal runs the first, () and "" if there is none.

    Raises:
        InputError: n is below 1.
    """
    if n < 1:
        raise InputError(f"runs of {n} words: give a number from 1")
    tests = [
        (_name(item), words(part)) for item in items for part in (item.scenario, *item.options)
    ]
    # length -> n-gram -> (test text, place where it ends)
    ends: dict[int, dict] = defaultdict(lambda: defaultdict(list))
    for number, (_, test) in enumerate(tests):
        size = min(n, len(test))
        if size >= min(n, WHOLE):
            for end in range(size, len(test) + 1):
                ends[size][test[end - size : end]].append((number, end))

    def longest(text: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
        best, name = (), ""
        for size, grams in ends.items():
            running: dict[tuple[int, int], int] = {}  # runs that end here -> their lengths
            for end in range(size, len(text) + 1):
                running = {
                    (number, place): running.get((number, place - 1), size - 1) + 1
                    for number, place in grams.get(text[end - size : end], ())
                }
                for (number, _), length in running.items():
                    if length > len(best):
                        best, name = text[end - length : end], tests[number][0]
        return best, name

    return [longest(words(text)) for text in texts]


def words(text: str) -> tuple[str, ...]:
    """Casefolded words and numbers, without punctuation; "don't" is one word."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return tuple(re.findall(r"[^\W_]+", re.sub(r"['’]", "", text)))


def drop_reason(shared_words: int, cosine: float, limit: float = COSINE) -> str | None:
    """Why a training text must go, None if it may stay.

    Args:
        shared_words: length of its run of `shared_runs`.
        cosine: to its item of `nearest_items`.
        limit: cosine from which it must go.
    """
    if shared_words:
        return "n-gram overlap"
    return "embedding overlap" if cosine >= limit else None


def _name(item: Item) -> str:
    return f"{item.test}/{item.id}"
