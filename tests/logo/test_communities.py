"""Communities: planted ones must be found, and users placed by what is known of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from unswayed.core.errors import InputError
from unswayed.data.histories import Event, Task, load_histories
from unswayed.logo.communities import Communities, find_communities, measure, taste_vectors

STARS = Task("stars", "How many stars?", ("1", "2", "3", "4", "5"), ordinal=True, noun="film")
GENRES = Task("genres", "Which genre?", ("drama", "comedy", "war", "crime"), ordinal=False)
TITLES = Task("titles", "Which title?", None, ordinal=False, noun="article")
TAGS = ("art", "boats", "cars", "dogs", "eels", "fish")


def stars(user: str, lengths: int, rng: np.random.Generator) -> list[Event]:
    """Three communities; c likes tags 2c and 2c + 1 and dislikes the next two."""
    c = int(user.split("-")[1])
    liking = np.roll([1.2, 1.2, -1.2, -1.2, 0, 0], 2 * c)
    events = []
    for i in range(lengths):
        tags = rng.choice(6, 2, replace=False)
        value = np.clip(np.rint(3 + liking[tags].sum() + rng.normal(0, 0.7)), 1, 5)
        about = tuple(TAGS[tag] for tag in sorted(tags))
        events.append(Event(user, i, f"thing {i}", str(int(value)), about))
    return events


def genres(user: str, lengths: int, rng: np.random.Generator) -> list[Event]:
    """Three communities; c answers label c in half of the cases."""
    p = np.full(4, 1 / 6) + np.eye(4)[int(user.split("-")[1])] / 3
    labels = rng.choice(GENRES.labels, lengths, p=p)
    return [Event(user, i, f"thing {i}", label) for i, label in enumerate(labels)]


def titles(user: str, lengths: int, rng: np.random.Generator) -> list[Event]:
    """Three communities; c writes of tags 2c and 2c + 1 more than half of the time."""
    p = np.roll([0.3, 0.3, 0.1, 0.1, 0.1, 0.1], 2 * int(user.split("-")[1]))
    tags = rng.choice(TAGS, lengths, p=p)
    return [Event(user, i, f"on {tag}", f"{tag}!", (tag,)) for i, tag in enumerate(tags)]


def population(make, seed: int, users: int = 60, lengths=range(20, 41)) -> dict[str, list[Event]]:
    """User "NUMBER-COMMUNITY" -> events."""
    rng = np.random.default_rng(seed)
    return {
        f"{i}-{i % 3}": make(f"{i}-{i % 3}", int(rng.choice(lengths)), rng) for i in range(users)
    }


def rand(found: Communities, histories) -> float:
    """Adjusted Rand index of where users are placed and what was planted."""
    placed = [int(found.place(events).argmax()) for events in histories.values()]
    return adjusted_rand_score([user.split("-")[1] for user in histories], placed)


class Words:
    """An embedder whose rows are counts of the tags as words, of length 1."""

    def embed(self, texts) -> np.ndarray:
        rows = np.array([[text.count(tag) + 0.1 for tag in TAGS] for text in texts])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


MAKERS = {"stars": (stars, STARS), "genres": (genres, GENRES), "titles": (titles, TITLES)}


@pytest.fixture(scope="module")
def found() -> dict[str, Communities]:
    return {
        name: find_communities(population(make, 0), task, 3, 0)
        for name, (make, task) in MAKERS.items()
    }


# -- recovery ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_planted_communities_are_recovered(found, name):
    make, _ = MAKERS[name]
    assert rand(found[name], population(make, 0)) >= 0.8
    fresh = population(make, 1)
    assert rand(found[name], fresh) >= 0.8
    assert found[name].shares == pytest.approx([1 / 3] * 3, abs=0.1)
    assert np.all(np.diff(found[name].shares) <= 0)


def test_planted_communities_are_recovered_by_embeddings():
    histories = population(titles, 0)
    found = find_communities(histories, TITLES, 3, 0, Words())
    assert found.taste.kind == "embedding"
    assert rand(found, histories) >= 0.8


@pytest.mark.parametrize("seed", range(3))
def test_the_builtin_population_is_recovered(seed):
    histories = load_histories(f"builtin:users=120,seed={seed}")
    events = {user: histories.of(user) for user in histories.users}
    found = find_communities(events, histories.task, 4, seed)
    placed = [int(found.place(events[user]).argmax()) for user in histories.users]
    truth = [histories.truth["community"][user] for user in histories.users]
    assert adjusted_rand_score(truth, placed) >= 0.8


def test_users_of_whom_little_is_known_are_no_community_of_their_own():
    """Half of the users have one event; the others are told apart as if they were alone."""
    short = {f"s{user}": events[:1] for user, events in population(stars, 2).items()}
    long = population(stars, 0)
    found = find_communities({**long, **short}, STARS, 3, 0)
    assert rand(found, long) >= 0.8


# -- taste vectors -------------------------------------------------------------------------------


def test_taste_by_hand():
    """Population: values 5, 3, 4, 2, mean 3.5, spread sqrt(1.25).

    User a: 5 for art and boats, 3 for boats. Their mean, drawn towards 3.5 by 3 events, is
    (8 + 10.5) / 5 = 3.7. art: 1.3 over (1 + 3); boats: 1.3 - 0.7 over (2 + 3); level:
    8 - 2 * 3.5 over (2 + 3). All in spreads.
    """
    a = [Event("a", 1, "x", "5", ("art", "boats")), Event("a", 2, "x", "3", ("boats",))]
    b = [Event("b", 1, "x", "4", ("art",)), Event("b", 2, "x", "2")]
    taste, rows = measure([a, b, [Event("c", 1, "x", "")]], STARS)
    assert taste.kind == "tags" and taste.names == ("art", "boats")
    vectors = taste_vectors(taste, rows) * math.sqrt(1.25)
    assert vectors[0] == pytest.approx([1.3 / 4, 0.6 / 5, 1 / 5])
    assert vectors[2].tolist() == [0, 0, 0]


def test_label_shares_by_hand():
    """Drama is half of the answers; of user a's two both: (2 - 1) / (2 + 3)."""
    a = [Event("a", 1, "x", "drama"), Event("a", 2, "x", "drama")]
    b = [Event("b", 1, "x", "war"), Event("b", 2, "x", "comedy"), Event("b", 3, "x", "")]
    taste, rows = measure([a, b], GENRES)
    assert taste_vectors(taste, rows)[0] == pytest.approx([1 / 5, -0.5 / 5, -0.5 / 5, 0])


def test_a_scale_without_tags_goes_by_label_shares():
    histories = [[Event("a", 1, "x", "5")], [Event("b", 1, "x", "1")]]
    taste, rows = measure(histories, STARS)
    assert taste.kind == "labels" and taste.names == STARS.labels
    assert taste_vectors(taste, rows)[0] == pytest.approx([-0.125, 0, 0, 0, 0.125])


# -- placing -------------------------------------------------------------------------------------


def test_placing_by_hand(found):
    """The formula of the module, term by term."""
    one = found["stars"]
    events = population(stars, 3)["1-1"][:5]
    taste, mean, spread = one.taste, one.taste.origin[0], one.taste.spread
    values = [float(event.response) for event in events]
    own = (sum(values) + 3 * mean) / (5 + 3)
    terms = []
    for c in range(3):
        far = 5 / (5 + one.noise) * ((sum(values) / 5 - mean) / spread - one.centres[c, -1]) ** 2
        for j, tag in enumerate(taste.names):
            held = [v for v, event in zip(values, events, strict=True) if tag in event.about]
            if held:
                m = (sum(held) / len(held) - own) / spread
                far += len(held) / (len(held) + one.noise) * (m - one.centres[c, j]) ** 2
        terms.append(one.shares[c] * math.exp(-far / (2 * one.scale)))
    assert one.place(events) == pytest.approx([term / sum(terms) for term in terms])


@st.composite
def histories(draw, task):
    responses = st.text("abc ", max_size=5) if task.labels is None else st.sampled_from(task.labels)
    tags = st.sets(st.sampled_from((*TAGS, "never seen before")))
    drawn = draw(st.lists(st.tuples(responses | st.just(""), tags), max_size=12))
    return [Event("u", i, "x", *one[:1], tuple(sorted(one[1]))) for i, one in enumerate(drawn)]


@pytest.mark.parametrize("name", MAKERS)
@given(data=st.data())
def test_a_place_is_a_distribution(found, name, data):
    events = data.draw(histories(MAKERS[name][1]))
    p = found[name].place(events)
    assert p.shape == (3,) and np.all(p >= 0) and p.sum() == pytest.approx(1)
    if name != "titles" and not any(event.response for event in events):
        assert p == pytest.approx(found[name].shares)


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_known_is_placed_by_the_shares(found, name):
    assert found[name].place(()).tolist() == found[name].shares.tolist()


@pytest.mark.parametrize("name", MAKERS)
def test_the_more_is_known_the_surer_the_place(found, name):
    """On fresh users: the true community's probability grows, and is honest from the start."""
    make, _ = MAKERS[name]
    one = found[name]
    places = {user: one.place(events) for user, events in population(make, 0).items()}
    planted = {
        c: int(sum(p for user, p in places.items() if user.endswith(f"-{c}")).argmax())
        for c in range(3)
    }
    fresh = population(make, 4, users=150, lengths=[64])
    mean, surprise = [], []
    for n in (0, 1, 4, 16, 64):
        p = [one.place(events[:n])[planted[int(user[-1])]] for user, events in fresh.items()]
        mean.append(np.mean(p))
        surprise.append(-np.mean(np.log(p)))
    assert np.all(np.diff(mean) > 0) and mean[-1] > 0.9
    assert max(surprise) < surprise[0] + 0.02


# -- determinism and files -----------------------------------------------------------------------


def test_the_order_of_users_does_not_matter(found):
    backwards = dict(reversed(population(stars, 0).items()))
    again = find_communities({**backwards, "nobody": []}, STARS, 3, 0)
    assert again.as_json() == found["stars"].as_json()


@pytest.mark.parametrize("name", MAKERS)
def test_communities_survive_json(found, name):
    again = Communities.from_json(json.loads(json.dumps(found[name].as_json())))
    assert again.as_json() == found[name].as_json()
    events = population(MAKERS[name][0], 5)["2-2"]
    assert again.place(events).tolist() == found[name].place(events).tolist()


def test_communities_by_embeddings_need_the_embedder_again():
    histories = population(titles, 0, users=9)
    made = find_communities(histories, TITLES, 3, 0, Words())
    events = histories["1-1"]
    again = Communities.from_json(made.as_json(), Words())
    assert again.place(events) == pytest.approx(made.place(events))
    assert again.nearest(events) == made.place(events).argmax()
    with pytest.raises(InputError, match="give the embedder"):
        Communities.from_json(made.as_json()).place(events)


# -- few, alike ----------------------------------------------------------------------------------


def test_one_community_is_the_population():
    one = find_communities(population(stars, 0), STARS, 1, 0)
    (text,) = one.descriptions
    assert text.startswith("A person who gives ") and text.endswith(" on average.")
    assert one.place(population(stars, 1)["1-1"]).tolist() == [1.0]
    assert find_communities({"a": population(stars, 1)["1-1"]}, STARS, 1, 0).shares.tolist() == [1]


@pytest.mark.parametrize("k", [0, 4])
def test_too_many_or_too_few_communities_are_refused(k):
    histories = {user: [Event(user, 1, "x", "5", ("art",))] for user in "abc"}
    with pytest.raises(InputError, match=f"{k} communities of 3 users"):
        find_communities({**histories, "nobody": []}, STARS, k, 0)


@pytest.mark.parametrize(
    "task, response", [(STARS, "4"), (GENRES, "war"), (TITLES, "x"), (GENRES, "")]
)
def test_users_that_nothing_tells_apart_are_one_community(task, response, caplog):
    histories = {user: [Event(user, 1, "x", response)] for user in "abc"}
    one = find_communities(histories, task, 2, 0)
    assert one.shares.tolist() == [1.0] and len(one.descriptions) == 1
    assert "only 1 of 2 communities" in caplog.text


def test_two_tastes_are_two_communities_however_many_are_asked_for(caplog):
    histories = {user: [Event(user, 1, "x", "drama" if user < "c" else "war")] for user in "abcdef"}
    two = find_communities(histories, GENRES, 4, 0)
    assert two.shares == pytest.approx([4 / 6, 2 / 6])
    assert "only 2 of 4 communities" in caplog.text


# -- in words ------------------------------------------------------------------------------------


def test_descriptions_say_what_was_planted(found):
    texts = found["stars"].descriptions
    for c in range(3):
        liked, disliked = set(np.roll(TAGS, -2 * c)[:2]), set(np.roll(TAGS, -2 * c)[2:4])
        halves = [text.split("less than most") for text in texts]
        assert any(
            all(tag in likes for tag in liked) and all(tag in less for tag in disliked)
            for likes, less in halves
        )
    assert all(text.endswith(" on average.") and len(text) < 140 for text in texts)
    more, (genres, titles) = "A person who more than most", (found["genres"], found["titles"])
    for label in GENRES.labels[:3]:
        assert sum(text.startswith(f"{more} answers {label}") for text in genres.descriptions) == 1
    assert all(text.startswith(f"{more} deals with") for text in titles.descriptions)


def test_the_words_by_hand():
    """Means 4.5 and 1.5; who likes art does not like boats, and the other way round."""
    both = [("5", "art"), ("4", "boats")] * 8, [("1", "art"), ("2", "boats")] * 8
    histories = {
        user: [Event(user, i, "x", value, (tag,)) for i, (value, tag) in enumerate(both[place])]
        for place, users in enumerate(("ann bob cat", "dan eve"))
        for user in users.split()
    }
    found = find_communities(histories, STARS, 2, 0)
    assert found.descriptions == tuple(
        f"A person who more than most likes {more}, less than most likes {less} and gives "
        f"{level} on average."
        for more, less, level in (("art", "boats", 4.5), ("boats", "art", 1.5))
    )


def test_texts_name_no_user_and_no_two_are_the_same():
    """Free text without tags leaves nothing to say but the number."""
    histories = {
        f"Zoe{i}": [Event(f"Zoe{i}", j, f"on {tag}", "Zoe") for j in range(3)]
        for i, tag in enumerate(("art", "boats", "cars") * 3)
    }
    found = find_communities(histories, TITLES, 3, 0, Words())
    assert found.descriptions == tuple(f"A person who is like most. Group {c}." for c in (1, 2, 3))
    assert "Zoe" not in json.dumps(found.as_json())
