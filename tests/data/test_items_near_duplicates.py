"""No built-in item retells another: by runs of words, and by vectors of words and of letters."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import combinations

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_union

from unswayed.data.items import Item, builtin_items, make_item

RUN = 8  # words
# Cosine. In the bank no pair reaches 0.31, each retelling below exceeds 0.41. What
# is told again without a content word in common stays below, and is for a reader to see.
BOUND = 0.35

RETOLD = {
    "eu_10": "Somebody's friend was hiking in the hills when a violent storm came up, and for "
    "hours nothing was heard of them. At last a message came: they had reached a hut before the "
    "storm and were safe. How does the one who was waiting feel?",
    "eu_19": "A person had agreed to water a friend's plants in a heatwave but was too lazy to go "
    "at all. Back home, the friend finds every plant dead and blames the heat. What do they feel?",
    "em_16": "Two friends of mine have become very close. Whenever I see photos of walks they took "
    "without me, I feel envious. What should I do?",
    "em_22": "At our choir's concert I came in with a loud note at the wrong time and the audience "
    "giggled. I am still blushing. What should I do?",
    "em_40": "Instead of one friend, the entire walking group got my message complaining how "
    "slowly they walk. I am terribly embarrassed. What should I do?",
}


def told(item: Item) -> str:
    """The scenario without its question, whose wording items share."""
    return " ".join(re.split(r"(?<=[.!?]) ", item.scenario)[:-1])


def sharing_a_run(items: list[Item]) -> set[tuple[str, str]]:
    """Ids of items of which RUN words in a row are the same, whatever their case."""
    holders: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for item in items:
        words = re.findall(r"[\w']+", told(item).lower())
        for i in range(len(words) - RUN + 1):
            holders[tuple(words[i : i + RUN])].add(item.id)
    return {pair for ids in holders.values() for pair in combinations(sorted(ids), 2)}


def near(items: list[Item]) -> dict[tuple[str, str], float]:
    """Ids of items whose vectors have a cosine of BOUND or more.

    Vectors are TF-IDF of words, without English stop words, beside that of runs of three to five
    letters, which see "walk" in "walks"; both of length 1, so that they count the same.
    """
    vectors = make_union(
        TfidfVectorizer(stop_words="english", sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True),
    ).fit_transform([told(item) for item in items])
    cosines = np.triu((vectors @ vectors.T).toarray() / 2, k=1)
    return {
        (items[i].id, items[j].id): float(cosines[i, j]) for i, j in np.argwhere(cosines >= BOUND)
    }


def planted(id: str, scenario: str) -> Item:
    return make_item("planted", f"again_{id}", "understanding", scenario, ["Joy", "Fear"], "Joy")


def test_no_two_scenarios_share_a_run_of_eight_words():
    bank = builtin_items()
    assert len(bank) >= 200 and not sharing_a_run(bank)
    words = told(bank[0]).upper().split()
    copied = planted("eu_01", f"Somehow {' '.join(words[2 : 2 + RUN])}. Why?")
    assert sharing_a_run([*bank, copied]) == {("again_eu_01", "eu_01")}
    shorter = planted("eu_01", f"Somehow {' '.join(words[2 : 1 + RUN])}. Why?")
    assert not sharing_a_run([*bank, shorter])


def test_no_scenario_retells_another():
    assert near(builtin_items()) == {}


def test_a_planted_retelling_is_caught():
    bank = builtin_items()
    for id, scenario in RETOLD.items():
        pairs = near([*bank, planted(id, scenario)])
        assert list(pairs) == [(id, f"again_{id}")], id
