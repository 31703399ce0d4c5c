"""Local memory: what is found, what is counted, and what the model reads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.histories import Event, Task
from unswayed.logo.local import (
    KNOWN,
    LAST,
    counted_profile,
    local_prompt,
    profile_prompt,
    retrieve,
)
from unswayed.memory.retrieval import BM25

ASK = "How many stars, from 1 to 5, does this person give the film?"
STARS = Task("stars", ASK, ("1", "2", "3", "4", "5"), ordinal=True, noun="film")
GENRES = Task("genres", "Which genre is it: drama, comedy?", ("drama", "comedy"), ordinal=False)
TITLES = Task("titles", "Which title?", None, ordinal=False, noun="article")


def event(time: float, query: str, response: str, *about: str) -> Event:
    return Event("u", time, query, response, about, id=f"u/{time}")


FILMS = (
    event(1, "Red Lake, a film of the genre Horror", "2", "Horror"),
    event(2, "Blue Lake, a film of the genre Drama", "5", "Drama"),
    event(3, "The Mill, a film of the genre Drama", "4", "Drama"),
    event(4, "Red Mill, a film of the genre Comedy", "3", "Comedy"),
)


class Words:
    """An embedder whose rows are counts of a few words, of length 1."""

    def embed(self, texts) -> np.ndarray:
        words = ("red", "blue", "lake", "mill", "horror", "drama")
        rows = np.array([[text.lower().count(word) + 0.1 for word in words] for text in texts])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# -- retrieval -----------------------------------------------------------------------------------


def test_the_nearest_events_come_in_the_order_of_time():
    found = retrieve(FILMS, "Red Mill", 2)
    assert [one.time for one in found] == [3, 4]
    scores = BM25([one.query for one in FILMS]).scores("Red Mill")
    assert scores[3] > scores[2] > 0


def test_of_equals_the_most_recent():
    assert [one.time for one in retrieve(FILMS, "nothing of the kind here?", 2)] == [3, 4]
    same = [event(i, "Red Lake", str(i)) for i in range(1, 6)]
    assert [one.time for one in retrieve(same, "Red Lake", 3)] == [3, 4, 5]


def test_found_by_embeddings():
    found = retrieve(FILMS, "a lake, blue", 1, Words())
    assert [one.time for one in found] == [2]


def test_events_without_a_query_are_found_by_their_response():
    tweets = (event(1, "", "rain again"), event(2, "", "my red boat"), event(3, "", "so tired"))
    assert [one.time for one in retrieve(tweets, "a boat trip", 1)] == [2]


texts = st.text(st.characters(codec="utf-8"), max_size=12)


@given(st.lists(texts, max_size=8), texts, st.integers(0, 10))
def test_whatever_the_texts_there_are_k_events_in_order(queries, query, k):
    known = [event(i, text, "1") for i, text in enumerate(queries)]
    found = retrieve(known, query, k)
    assert len(found) == min(k, len(known))
    assert [one.time for one in found] == sorted({one.time for one in found})
    rest = [one for one in known if one not in found]
    if rest and found and any(any(c.isalnum() for c in text) for text in queries):
        scores = BM25(queries).scores(query)
        lowest = min(scores[int(one.time)] for one in found)
        assert lowest >= max(scores[int(one.time)] for one in rest)


def test_a_negative_k_is_refused():
    with pytest.raises(InputError, match="top-k -1"):
        retrieve(FILMS, "Red", -1)


# -- profiles ------------------------------------------------------------------------------------


def test_a_profile_by_hand():
    """Values 2, 5, 4, 3: mean 3.5, spread sqrt(1.25) = 1.12, a fifth of it 0.22. Drama (1.5 + 0.5)
    / (2 + 3) = 0.4, Horror -1.5 / 4 = -0.375, Comedy -0.5 / 4 = -0.125: too little to say."""
    assert counted_profile(FILMS, STARS) == (
        "4 items so far: 3.5 on average, spread 1.1. Likes Drama. Less fond of Horror."
    )


def test_a_profile_names_the_clearest_tags_first_and_three_at_most():
    films = [event(i, "x", "1", "A") for i in range(9)]
    likes = [(2, "B"), (5, "C"), (9, "D"), (3, "E")]
    films += [event(9, "x", "5", tag) for many, tag in likes for _ in range(many)]
    assert "Likes D, C and E. Less fond of A." in counted_profile(films, STARS)


def test_profiles_of_other_labels_and_of_free_text():
    genres = [event(1, "x", "comedy"), event(2, "y", "drama"), event(3, "z", "comedy")]
    assert counted_profile(genres, GENRES) == (
        "3 items so far, most often comedy (67 %) and drama (33 %)."
    )
    titles = [event(1, "x", "one two three", "boats"), event(2, "", "one", "boats", "art")]
    assert counted_profile(titles, TITLES) == (
        "2 items so far, about 2 words each, mostly boats and art."
    )


def test_a_profile_of_one_event_names_no_taste():
    assert counted_profile(FILMS[:1], STARS) == "1 item so far: 2.0 on average, spread 0.0."


def test_events_without_a_response_are_counted_but_not_averaged():
    known = (*FILMS[:1], event(2, "a paper", ""))
    assert counted_profile(known, STARS) == "2 items so far: 2.0 on average, spread 0.0."
    assert counted_profile(known[1:], GENRES) == "1 item so far."


@pytest.mark.parametrize("task", [STARS, GENRES, TITLES])
def test_nobody_known_has_no_profile(task):
    assert counted_profile((), task) == profile_prompt((), task) == ""


@given(
    st.lists(st.tuples(st.sampled_from("12345"), st.sets(st.sampled_from("ABCDEFGH"))), min_size=1),
    st.randoms(),
)
def test_a_profile_does_not_depend_on_the_order_of_events(drawn, random):
    known = [event(i, "x", response, *sorted(tags)) for i, (response, tags) in enumerate(drawn)]
    text = counted_profile(known, STARS)
    random.shuffle(known)
    assert counted_profile(known, STARS) == text
    assert len(text) < 120


def test_an_llm_reads_the_last_items():
    many = [event(i, f"Film {i}", "4") for i in range(30)]
    prompt = profile_prompt(many, STARS)
    assert prompt.startswith("Film 10: 4\nFilm 11: 4\n")
    assert prompt.count(": 4\n") == LAST and "Film 29: 4\n" in prompt
    assert "like" in prompt and "film" in prompt
    assert "write" in profile_prompt([event(1, "", "my red boat")], TITLES)


# -- prompts -------------------------------------------------------------------------------------

QUERY = "White Lake, a film of the genre Horror"
QUESTION = {"role": "user", "content": QUERY}


def said(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def test_nothing_known_leaves_the_question():
    assert local_prompt(STARS, QUERY) == [said(ASK), QUESTION]


def test_the_prompt_word_by_word():
    found = FILMS[1:3]
    assert local_prompt(STARS, QUERY, found, "2 films so far.", "Others give 4.") == [
        {
            "role": "system",
            "content": f"{ASK}\nWhat is known about this person:\n2 films so far.\nOthers give 4.",
        },
        {"role": "user", "content": "Blue Lake, a film of the genre Drama"},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "The Mill, a film of the genre Drama"},
        {"role": "assistant", "content": "4"},
        QUESTION,
    ]


def test_what_is_known_in_words_stands_in_the_system_message():
    for given_ in ({"profile": "P"}, {"hint": "P"}):
        assert local_prompt(STARS, QUERY, **given_) == [said(f"{ASK}\n{KNOWN}\nP"), QUESTION]


def test_prompts_with_more_begin_with_those_with_less():
    """What a token tree shares: instruction, profile, then evidence in the order of time."""
    shorter = local_prompt(STARS, QUERY, FILMS[:1], "P")
    longer = local_prompt(STARS, QUERY, FILMS[:2], "P")
    assert shorter[:-1] == longer[: len(shorter) - 1] and len(longer) == len(shorter) + 2
    assert longer[0]["content"].startswith(local_prompt(STARS, QUERY)[0]["content"])


def test_evidence_without_a_query_or_a_response_is_told_in_words():
    found = (event(1, "", "my red boat"), event(2, "a paper", ""), event(3, "a bill", "Late"))
    system, asked, answered, _ = local_prompt(TITLES, "x", found)
    assert system["content"] == f"{TITLES.ask}\n{KNOWN}\nmy red boat\na paper"
    assert (asked["content"], answered["content"]) == ("a bill", "Late")


def test_a_question_without_a_query_is_the_instruction():
    assert local_prompt(TITLES, "")[-1] == {"role": "user", "content": TITLES.ask}
