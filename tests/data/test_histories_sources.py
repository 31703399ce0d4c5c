"""Readers: small files in our own words of each form, their errors; MovieLens itself if present."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.histories import before, load_histories, segments
from unswayed.data.histories.lamp import FORMS, TAGS

REAL = Path(os.environ.get("UNSWAYED_REAL_DATA") or Path(__file__).parents[3] / "shared" / "data")


# -- MovieLens -----------------------------------------------------------------------------------

FILMS = """movieId,title,genres
1,"Quiet Kettle, The (1999)",Comedy|Drama
2,Two Left Boots (2004),Western
3,Fog Index (2011),(no genres listed)
"""


def movielens(folder: Path, **files: str) -> Path:
    for name, text in {"movies": FILMS, **files}.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return folder


def ratings(*rows: str) -> str:
    return "\n".join(["userId,movieId,rating,timestamp", *rows]) + "\n"


def test_ratings(tmp_path):
    movielens(tmp_path, ratings=ratings("7,1,0.5,30", "7,2,4.0,10", "8,3,3.5,20", "8,1,5,40"))
    histories = load_histories(f"movielens={tmp_path}")
    assert histories.task.ordinal and histories.task.labels == ("1", "2", "3", "4", "5")
    assert [(e.user, e.time, e.response, e.about, e.thing, e.id) for e in histories.events] == [
        ("7", 10.0, "4", ("Western",), "2", "7/2"),
        ("8", 20.0, "4", (), "3", "8/3"),
        ("7", 30.0, "1", ("Comedy", "Drama"), "1", "7/1"),
        ("8", 40.0, "5", ("Comedy", "Drama"), "1", "8/1"),
    ]
    assert [e.query for e in histories.events[:3]] == [
        "Two Left Boots (2004), a film of the genre Western",
        "Fog Index (2011), a film",
        "Quiet Kettle, The (1999), a film of the genres Comedy, Drama",
    ]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("7,1,5.5,30", r"ratings.csv:2: rating is 5.5, the scale is 0.5 to 5 stars"),
        ("7,1,4.25,30", r"ratings.csv:2: rating is 4.25, the scale is 0.5 to 5 stars in halves"),
        ("7.0,1,4,30", r"ratings.csv:2: userId is '7.0', it must be a whole number such as 17"),
        ("7,01,4,30", r"ratings.csv:2: movieId is '01', it must be a whole number"),
        ("7,1,0,30", r"ratings.csv:2: rating is 0, the scale"),
        ("7,1,nan,30", r"ratings.csv:2: rating is nan, the scale"),
        ("7,1,good,30", r"ratings.csv:2: rating is 'good', it must be a number"),
        ("7,1,4,", r"ratings.csv:2: timestamp is missing"),
        ("7,1,4,nan", r"ratings.csv:2: time is nan"),
        ("7,1,4", r"ratings.csv:2: 3 values for 4 columns"),
        ("7,1,4,30,5", r"ratings.csv:2: more values than columns"),
        ('7,1,"4\n5",30', r"ratings.csv:2: rating has several lines; look for a quote"),
        ("7,9,4,30", r"ratings.csv:2: movieId 9 is not in movies.csv"),
        ("7,1,4,30\n7,1,4,30", r"ratings.csv:3: the id '7/1' is already at .*ratings.csv:2"),
    ],
)
def test_faults_in_ratings(tmp_path, row, says):
    with pytest.raises(InputError, match=says):
        load_histories(f"movielens={movielens(tmp_path, ratings=ratings(row))}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("movies", FILMS + '4,"Half Moon (1990),Drama\n5,Whole Moon (1991),Drama\n'),
        ("ratings", ratings('7,"1,4,30', "8,1,4,30")),
        ("ratings", ratings('7,1,4,"' + "3" * 200_000)),
    ],
    ids=["a film's quote", "a rating's quote", "an endless field"],
)
def test_a_quote_that_is_left_open(tmp_path, name, text):
    movielens(tmp_path, **{"ratings": ratings("7,1,4,30"), name: text})
    with pytest.raises(InputError, match=rf"{name}\.csv:\d+: not CSV \("):
        load_histories(f"movielens={tmp_path}")


def test_films_of_one_title_rated_alike_in_the_same_second(tmp_path):
    films = "movieId,title,genres\n1,Kettle,Drama\n2,Kettle,Drama\n"
    movielens(tmp_path, movies=films, ratings=ratings("7,1,4,30", "7,2,4,30"))
    assert [e.thing for e in load_histories(f"movielens={tmp_path}").events] == ["1", "2"]


def test_a_film_twice_and_a_row_in_another_rows_title(tmp_path):
    text = FILMS + "1,Loud Kettle,Drama\n"
    with pytest.raises(InputError, match=r"movies.csv:5: movieId 1 is there twice"):
        load_histories(f"movielens={movielens(tmp_path, movies=text, ratings=ratings('7,1,4,30'))}")
    text = 'movieId,title,genres\n1,"Kettle,Drama\n2,Boots",Drama\n'
    with pytest.raises(InputError, match=r"movies.csv:2: title has several lines; look for a quot"):
        load_histories(f"movielens={movielens(tmp_path, movies=text, ratings=ratings('7,1,4,30'))}")


def test_releases_without_csv(tmp_path):
    (tmp_path / "movies.dat").write_text("1::Kettle::Drama\n")
    with pytest.raises(
        InputError, match=r"movies.csv: no such file; of MovieLens the releases with"
    ):
        load_histories(f"movielens={tmp_path}")


def test_folder_without_ratings(tmp_path):
    with pytest.raises(InputError, match=r"ratings.csv: no such file"):
        load_histories(f"movielens={movielens(tmp_path)}")


def test_tags_are_the_most_frequent_ones_others_are_counted(tmp_path, caplog):
    often = [f"{user},1,Tag{n},{n}" for n in range(15) for user in (1, 2)]
    text = "\n".join(["userId,movieId,tag,timestamp", *often, "3,2, TAG0 ,50", "3,2,rare,60", ""])
    histories = load_histories(f"movielens-tags={movielens(tmp_path, tags=text)}")
    assert histories.task.labels == ("tag0", *sorted(f"tag{n}" for n in range(1, 15)))
    assert not histories.task.ordinal and "tag0" in histories.task.ask
    assert (len(histories.events), histories.events[-1].response) == (31, "tag0")
    assert "left out 1 of 32 events" in caplog.text


def test_a_tag_in_two_spellings_counts_once(tmp_path, caplog):
    rows = ["7,1,Sci-Fi,5", "7,1,sci-fi,5", "7,1,sci-fi,6", "7,2,sci-fi,5", "8,1,SCI-FI ,5"]
    text = "\n".join(["userId,movieId,tag,timestamp", *rows, *rows[:1], "8,1,bold,5", ""])
    histories = load_histories(f"movielens-tags={movielens(tmp_path, tags=text)}")
    assert [(e.user, e.thing, e.time, e.response) for e in histories.events] == [
        ("7", "1", 5, "sci-fi"),
        ("7", "2", 5, "sci-fi"),
        ("8", "1", 5, "sci-fi"),
        ("8", "1", 5, "bold"),
        ("7", "1", 6, "sci-fi"),
    ]
    assert histories.task.labels == ("sci-fi", "bold")
    assert "tags.csv: left out 2 repeated tags" in caplog.text
    assert caplog.text.count("left out") == 1


@pytest.fixture(scope="module")
def movielens_itself():
    folder = REAL / "movielens_small"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set UNSWAYED_REAL_DATA to a folder that holds movielens_small/")
    return folder, load_histories(f"movielens={folder}")


def test_movielens_itself(movielens_itself):
    folder, histories = movielens_itself
    assert (len(histories.events), len(histories.users)) == (100_836, 610)
    # GroupLens's half stars 3.5 and 4.0 together: 13,136 + 26,818.
    assert Counter(e.response for e in histories.events)["4"] == 39_954
    tags = load_histories(f"movielens-tags={folder}")
    assert len(tags.task.labels) == 15
    assert Counter(e.response for e in tags.events).most_common(1) == [("in netflix queue", 131)]


def test_what_the_page_says_of_movielens(movielens_itself):
    _, histories = movielens_itself
    parts = segments(histories.events, 4)
    people = [{event.user for event in part} for part in parts]
    alone = np.mean([sum(user in some for some in people) == 1 for user in histories.users])
    assert 0.925 < alone < 0.935
    assert max(len(some) for some in people) < 0.4 * len(histories.users)

    rng = np.random.default_rng(0)
    stars = {
        user: np.array([float(e.response) for e in histories.of(user)]) for user in histories.users
    }
    scores = []
    for event in parts[-1]:
        past = stars[event.user][: len(before(histories.of(event.user), event.time))]
        if len(past) > 5:
            gold = float(event.response)
            scores.append([
                *(past[-1] == gold, rng.choice(past) == gold),
                *(abs(some.mean() - gold) for some in (past[-5:], past[:5], past)),
            ])  # fmt: skip
    previous, random, last_five, first_five, whole = np.mean(scores, axis=0)
    assert previous > random + 0.05
    assert last_five < whole < first_five


# -- LaMP ----------------------------------------------------------------------------------------

INPUTS = {
    "lamp1": 'The author of "On Kettles" cites which? [1]: "Steam" [2]: "Boots"',
    "lamp2": "Choose a tag. tags: [action] description: A kettle sings: alone.",
    "lamp3": "Score from 1 to 5. review: Boils well: twice.",
    "lamp4": "A headline for the following article: Kettle shortage.",
    "lamp5": "A title for the following abstract of a paper: We boil water.",
    "lamp6": "A subject for the following email: Bring the kettle.",
    "lamp7": "Paraphrase the following tweet: kettle broke again",
}
ASKED = {
    "lamp1": INPUTS["lamp1"],
    "lamp2": "A kettle sings: alone.",
    "lamp3": "Boils well: twice.",
    "lamp4": "Kettle shortage.",
    "lamp5": "We boil water.",
    "lamp6": "Bring the kettle.",
    "lamp7": "kettle broke again",
}
ITEM = {
    "lamp1": {"title": "On cups", "abstract": "Cups hold."},
    "lamp2": {"description": "A cup is lost.", "tag": "comedy"},
    "lamp3": {"text": "Leaks.", "score": 2},
    "lamp4": {"text": "Cups are back.", "title": "Cups!"},
    "lamp5": {"abstract": "Cups hold.", "title": "On cups"},
    "lamp6": {"text": "No cups left.", "title": "Cups"},
    "lamp7": {"text": "so many cups"},
}
TOLD = {
    "lamp1": ("On cups", ""),
    "lamp2": ("A cup is lost.", "comedy"),
    "lamp3": ("Leaks.", "2"),
    "lamp4": ("Cups are back.", "Cups!"),
    "lamp5": ("Cups hold.", "On cups"),
    "lamp6": ("No cups left.", "Cups"),
    "lamp7": ("", "so many cups"),
}
GOLD = {"lamp1": "[2]", "lamp2": "true story", "lamp3": "4"}


def lamp(folder: Path, name: str, *questions: dict, golds=None, task=None) -> str:
    """Writes both files; the spec that reads them."""
    path = folder / "dev_questions.json"
    path.write_text(json.dumps(questions), encoding="utf-8")
    if golds is None:
        golds = [{"id": q["id"], "output": GOLD.get(name, "An output")} for q in questions]
    task = task or f"LaMP_{name[-1]}"
    (folder / "dev_outputs.json").write_text(json.dumps({"task": task, "golds": golds}), "utf-8")
    return f"{name}={path}"


def question(name: str, *items: dict, **more) -> dict:
    items = [{"id": str(n), **ITEM[name], **item} for n, item in enumerate(items)]
    return {"id": "110", "input": INPUTS[name], "profile": items, **more}


@pytest.mark.parametrize("name", FORMS)
def test_lamp_user_based(tmp_path, name):
    histories = load_histories(lamp(tmp_path, name, question(name, {}, {})))
    *past, entry = histories.events
    assert [(e.user, e.time, e.query, e.response) for e in past] == [
        ("110", -2.0, *TOLD[name]),
        ("110", -1.0, *TOLD[name]),
    ]
    assert (entry.user, entry.time, entry.id) == ("110", 0.0, "110")
    assert (entry.query, entry.response) == (ASKED[name], GOLD.get(name, "An output"))
    assert histories.task.name == name and histories.task.ordinal == (name == "lamp3")
    assert (histories.task.labels is None) == (name in ("lamp4", "lamp5", "lamp6", "lamp7"))


@pytest.mark.parametrize("name", FORMS)
def test_lamp_time_based(tmp_path, name):
    items = {"date": "2019-05-02"}, {"date": "2018-12-31"}
    histories = load_histories(lamp(tmp_path, name, question(name, *items, user_id=41)))
    day = [datetime(2018, 12, 31, tzinfo=UTC), datetime(2019, 5, 2, tzinfo=UTC)]
    assert {e.user for e in histories.events} == {"41"}
    times = [e.time for e in histories.events]
    assert times == [day[0].timestamp(), day[1].timestamp(), day[1].timestamp() + 1]
    assert histories.events[-1].id == "110"


def test_lamp_dates_may_be_years_and_the_questions_own_date_counts(tmp_path):
    entry = question("lamp5", {"date": 2017}, {"date": "2018"}, user_id="a", date="2019")
    histories = load_histories(lamp(tmp_path, "lamp5", entry))
    assert [datetime.fromtimestamp(e.time, UTC).year for e in histories.events] == [
        2017,
        2018,
        2019,
    ]


def test_lamp_repeats_in_a_profile_count_once(tmp_path, caplog):
    items = [{"date": "2019-05-02"}] * 3
    histories = load_histories(lamp(tmp_path, "lamp7", question("lamp7", *items, user_id="a")))
    assert len(histories.events) == 2
    assert "left out 2 repeated profile items" in caplog.text


def test_lamp_without_dates_says_what_its_order_is(tmp_path, caplog):
    load_histories(lamp(tmp_path, "lamp7", question("lamp7", {"date": 2017}, user_id="a")))
    assert not caplog.messages
    load_histories(lamp(tmp_path, "lamp7", question("lamp7", {})))
    (message,) = caplog.messages
    assert "profiles have no dates, their order counts as time" in message


def test_lamp_output_that_is_there_twice(tmp_path):
    golds = [{"id": "110", "output": text} for text in ("one", "one", "two")]
    with pytest.raises(InputError, match="gold 3: the id '110' has another output already"):
        load_histories(lamp(tmp_path, "lamp7", question("lamp7", {}), golds=golds))


def test_lamp_2_has_fifteen_tags(tmp_path):
    assert len(set(TAGS)) == 15
    bad = lamp(tmp_path, "lamp2", question("lamp2", {"tag": "kettles"}))
    with pytest.raises(InputError, match="record 1, profile item 1: 'kettles' is none of the lab"):
        load_histories(bad)


@pytest.mark.parametrize(
    ("entry", "more", "says"),
    [
        (question("lamp3"), {}, "record 1: the profile is empty; a user needs a history"),
        (question("lamp3", {"score": 6}), {}, "profile item 1: '6' is none of the labels"),
        (question("lamp3", {"score": None}), {}, "profile item 1: score is None"),
        (question("lamp3", {}, id="111") | {"input": ""}, {}, "record 1: input is ''"),
        (question("lamp3", {}), {"golds": []}, "record 1: the outputs file has no output for"),
        (question("lamp3", {}), {"task": "LaMP_4"}, "holds the task 'LaMP_4', lamp3 was asked"),
        (question("lamp3", {"date": "May"}), {}, "profile item 1: date is 'May'"),
        (question("lamp3", {"date": 10**20}), {}, "profile item 1: date is 1000"),
        (question("lamp3", {"date": "2019"}, {}), {}, "record 1: some items .* have a date"),
    ],
)
def test_faults_in_lamp(tmp_path, entry, more, says):
    with pytest.raises(InputError, match=says):
        load_histories(lamp(tmp_path, "lamp3", entry, **more))


def test_lamp_asks_a_user_once(tmp_path):
    entry = [question("lamp3", {}, id=str(n), user_id="a") for n in (1, 2)]
    with pytest.raises(InputError, match=r"record 2: user 'a' is already asked at .*record 1"):
        load_histories(lamp(tmp_path, "lamp3", *entry))


def test_lamp_needs_the_outputs_and_a_telling_name(tmp_path):
    (tmp_path / "dev_questions.json").write_text("[]")
    with pytest.raises(InputError, match=r"dev_outputs.json: no such file"):
        load_histories(f"lamp4={tmp_path / 'dev_questions.json'}")
    (tmp_path / "dev.json").write_text("[]")
    with pytest.raises(InputError, match="the name must hold 'questions'"):
        load_histories(f"lamp4={tmp_path / 'dev.json'}")


# -- JSONL ---------------------------------------------------------------------------------------


def jsonl(folder: Path, *rows: object) -> str:
    path = folder / "soups.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return f"events={path}"


def row(time: object = 1, response: object = "good", **more) -> dict:
    return {"user": "ada", "time": time, "query": "Kettle soup", "response": response, **more}


def test_jsonl_labels(tmp_path):
    rows = [row(n, ("good", "bad")[n % 2]) for n in range(4)]
    rows[0] |= {"about": ["hot"], "thing": 7, "id": "first"}
    histories = load_histories(jsonl(tmp_path, *rows))
    assert (histories.task.name, histories.task.labels) == ("soups", ("bad", "good"))
    assert not histories.task.ordinal
    first = histories.events[0]
    assert (first.about, first.thing, first.id) == (("hot",), "7", "first")
    assert [e.id for e in histories.events[1:]] == ["ada/2", "ada/3", "ada/4"]


def test_jsonl_numbers_are_a_scale_in_order(tmp_path):
    rows = [row(n, (10, 2.5, "2")[n % 3]) for n in range(6)]
    task = load_histories(jsonl(tmp_path, *rows)).task
    assert (task.labels, task.ordinal) == (("2", "2.5", "10"), True)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("5", "5.0", "number"), ("1e1", 10, "number"), ("a b", "a\u00a0b", "to")],
)
def test_jsonl_labels_that_are_the_same(tmp_path, one, other, same):
    rows = [row(n, (one, other)[n % 2]) for n in range(4)]
    with pytest.raises(InputError, match=rf"soups.jsonl: the responses .* are the same {same}"):
        load_histories(jsonl(tmp_path, *rows))


def test_jsonl_times_in_two_units(tmp_path):
    with pytest.raises(
        InputError, match=r"soups.jsonl:2: time is 1730000000, seconds since 1970, wh"
    ):
        load_histories(jsonl(tmp_path, row(1_720_000_000_000), row(1_730_000_000)))


def test_jsonl_free_text_is_told_if_it_might_be_a_slip(tmp_path, caplog):
    task = load_histories(jsonl(tmp_path, row(1, 4), row(2, 4), row(3, 44))).task
    assert (task.labels, task.ordinal) == (None, False)
    assert f"{tmp_path}/soups.jsonl:3: responses count as free text: '44' occurs" in caplog.text
    many = [row(n, f"text {n // 2}") for n in range(42)]
    assert load_histories(jsonl(tmp_path, *many)).task.labels is None


def test_jsonl_out_of_time_is_sorted_and_counted(tmp_path, caplog):
    histories = load_histories(jsonl(tmp_path, row(3), row(1), row(2)))
    assert [e.time for e in histories.events] == [1, 2, 3]
    assert "1 of 3 events are earlier than the line before; sorted" in caplog.text


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([1], "soups.jsonl:2: a JSON object is needed"),
        (row("yesterday"), "soups.jsonl:2: time is 'yesterday', it must be a number"),
        (row(None), "soups.jsonl:2: time is None"),
        (row(True), "soups.jsonl:2: time is True"),
        (row(float("nan")), "soups.jsonl:2: NaN is no JSON value"),
        (row(int("9" * 400)), "soups.jsonl:2: time is inf, it must be a finite number"),
        (row(response=" "), "soups.jsonl:2: response is ' '"),
        (row(user=None), "soups.jsonl:2: user is None"),
        (row(user="\u200b"), r"soups.jsonl:2: user is '\\u200b'"),
        (row(about=0), "soups.jsonl:2: about is 0, it must be a list of texts"),
        (row(about="hot"), "soups.jsonl:2: about is 'hot', it must be a list of texts"),
        (row(0), "soups.jsonl:2: the same event is already at .*soups.jsonl:1"),
    ],
)
def test_faults_in_jsonl(tmp_path, bad, says):
    with pytest.raises(InputError, match=says):
        load_histories(jsonl(tmp_path, row(0), bad))


def test_jsonl_numbers_keep_all_their_digits(tmp_path):
    users = [123456789.0, 123456788.0, 123456788, 0.1234567891, 2.0**70, 10**30]
    rows = [row(n, n % 2) | {"user": user} for n, user in enumerate(users)]
    histories = load_histories(jsonl(tmp_path, *rows))
    assert [e.user for e in histories.events] == [
        "123456789", "123456788", "123456788", "0.1234567891", str(2**70), "1" + 30 * "0",
    ]  # fmt: skip
    assert histories.task.labels == ("0", "1")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_jsonl_numbers_are_told_apart_as_json_does(number):
    with tempfile.TemporaryDirectory() as folder:
        path = jsonl(Path(folder), row(1, 1) | {"user": number}, row(2, 1))
        assert float(load_histories(path).events[0].user) == number


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_jsonl_without_events(tmp_path, text):
    (tmp_path / "soups.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"soups.jsonl: holds no events"):
        load_histories(f"events={tmp_path / 'soups.jsonl'}")


def test_jsonl_that_is_no_json(tmp_path):
    (tmp_path / "soups.jsonl").write_text('{"user": \n')
    with pytest.raises(InputError, match=r"soups.jsonl:1: not JSON"):
        load_histories(f"events={tmp_path / 'soups.jsonl'}")
