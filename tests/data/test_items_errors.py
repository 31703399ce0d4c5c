"""Faulty item files: always an InputError that names file, line and what was given."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.items import load_items, make_item, read_items

GOOD = {"id": "a", "scenario": "What is felt?", "options": ["Joy", "Fear"], "key": "Joy"}
STEU = {"id": "a", "text": "Felt?", "options": ["Joy", "Fear"], "letters": ["a", "b"], "key": "a"}
STEM = {
    "id": "a",
    "text": "Do?",
    "options": ["Ask", "Wait"],
    "letters": ["a", "b"],
    "ranked_key": ["a", "b"],
    "best": "a",
}
EU = {
    "qid": 1,
    "language": "en",
    "scenario": "It rains.",
    "subject": "Robin",
    "emotion_choices": ["Joy", "Fear"],
    "emotion_label": "Joy",
}
EA = {
    "qid": 1,
    "language": "en",
    "scenario": "It rains.",
    "subject": "Robin",
    "question type": "Action",
    "choices": ["Ask", "Wait"],
    "label": "Ask",
}
FORMS = {"mine": GOOD, "steu": STEU, "stem": STEM, "emobench_eu": EU, "emobench_ea": EA}


def fails(path: Path, test: str = "mine") -> str:
    with pytest.raises(InputError) as caught:
        read_items(path, test)
    text = str(caught.value)
    assert text.startswith(str(path)), text
    return text.removeprefix(str(path))


def jsonl(folder: Path, *rows: dict) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# -- the file ------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    assert fails(tmp_path / "gone.jsonl") == ": no such file"


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_not_utf8(tmp_path, suffix):
    path = tmp_path / f"items.{suffix}"
    path.write_bytes(b"id,scenario\n1,caf\xe9\n")
    text = fails(path)
    assert "cannot be read as UTF-8 text" in text
    assert "0xe9" in text


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_empty_jsonl(tmp_path, content):
    path = tmp_path / "items.jsonl"
    path.write_text(content, encoding="utf-8")
    assert fails(path) == ": holds no items"


@pytest.mark.parametrize("content", ["", "id,scenario,options,key\n"])
def test_empty_csv(tmp_path, content):
    path = tmp_path / "items.csv"
    path.write_text(content, encoding="utf-8")
    assert fails(path) == ": holds no items"


def test_not_json_names_the_line(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{{'id': 'b'}}\n", encoding="utf-8")
    assert re.match(r":3: not JSON \(.*column 2", fails(path))


@pytest.mark.parametrize("line", ['"text"', "17", "null"])
def test_json_that_is_no_object(tmp_path, line):
    path = tmp_path / "items.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    assert fails(path) == f":1: a JSON object is needed, got {line!r}"


def test_a_json_list_is_read_by_its_entries(tmp_path):
    path = tmp_path / "items.json"
    path.write_text(json.dumps([GOOD, 17], indent=1), encoding="utf-8")
    assert fails(path) == ", entry 2: a JSON object is needed, got '17'"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "a", "id": "b"}', "field 'id' is there twice: remove or rename one"),
        ('{"id": NaN}', "NaN is no JSON value: write a number, a text or null"),
        ('{"id": "\\ud83d"}', "'\\ud83d' is half of a surrogate pair and no text"),
        ('{"id": "a", "scenario": "Wh', "not JSON (Unterminated string"),
    ],
)
def test_json_that_says_too_much_or_too_little(tmp_path, line, words):
    path = tmp_path / "items.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    assert fails(path).startswith(f":1: {words}")


def test_a_folder_link_or_loop_in_place_of_a_file(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty cannot be loaded: "):
        read_items(tmp_path / "empty", "t")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    assert fails(tmp_path / "loop.jsonl").startswith(": cannot be read (")
    link = tmp_path / "link.jsonl"
    link.symlink_to(jsonl(tmp_path, GOOD))
    assert [item.id for item in read_items(link, "t")] == ["a"]


def test_csv_with_more_values_than_columns(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("id,scenario,options,key\na,One, two,x|y,x\n", encoding="utf-8")
    assert fails(path).startswith(":2: more values than columns (5, 4): quote a value")


@pytest.mark.parametrize(
    ("row", "field"),
    [("a,What?,x|y,", "key"), (",What?,x|y,x", "id"), ("a, ,x|y,x", "scenario")],
)
def test_csv_cell_left_empty(tmp_path, row, field):
    path = tmp_path / "items.csv"
    path.write_text(f"id,scenario,options,key\n{row}\n", encoding="utf-8")
    assert fails(path) == f":2: field '{field}' is missing"


def test_csv_quote_that_is_never_closed(tmp_path):
    """It would swallow all later rows, so that items go missing without a word."""
    path = tmp_path / "items.csv"
    path.write_text(
        'id,scenario,options,key,rationale\na,One?,x|y,x,"as said\nb,Two?,x|y,y,fine\n',
        encoding="utf-8",
    )
    assert re.match(r":\d+: not CSV \(", fails(path))


def test_csv_cell_beyond_the_size_limit(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text(f"id,scenario,options,key\na,{'long ' * 30_000},x|y,x\n", encoding="utf-8")
    assert re.match(r":\d+: not CSV \(.*field limit", fails(path))


@pytest.mark.parametrize("row", ["a,What?,x|y", "a"])
def test_csv_with_fewer_values_than_columns(tmp_path, row):
    path = tmp_path / "items.csv"
    path.write_text(f"id,scenario,options,key\n{row}\n", encoding="utf-8")
    count = row.count(",") + 1
    assert fails(path) == f":2: {count} values for 4 columns: leave a cell empty, not out"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,scenario,options,key, key\na,Q,x|y,x,y\n", ":1: column 'key' is there twice"),
        ("id,scenario,options,key,\na,Q,x|y,x,z\n", ":2: 'z' stands in column 5, which has no na"),
        ("id;scenario,options;key\na;Q;x|y;x\n", ":2: more values than columns (4, 3)"),
        ("id,a;b\n1,2\n", ":1: commas or semicolons could separate the columns"),
        ('id,scenario,options,key\n\na,"Q?,x|y,x\nb,Q?,x|y,x\n', ":3: not CSV ("),
    ],
)
def test_csv_that_cannot_be_told_apart(tmp_path, content, words):
    path = tmp_path / "items.csv"
    path.write_text(content, encoding="utf-8")
    assert fails(path).startswith(words)


# -- options to the eye --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "twin",
    [
        "cafe\u0301 joy", "caf\u00e9\u00a0joy", "caf\u00e9 \u200bjoy", "ca\u00adf\u00e9 joy",
        "caf\u00e9 joy\ufe0f", "caf\u00e9  joy", "\ufeffcaf\u00e9 joy", "caf\u00e9 \u2060joy",
        "caf\u00e9 joy\u202c", "caf\u00e9 joy\x00",
    ],
)  # fmt: skip
def test_options_that_look_the_same(tmp_path, twin):
    text = fails(
        jsonl(tmp_path, {**GOOD, "options": ["caf\u00e9 joy", "Fear", twin], "key": "Fear"})
    )
    assert text.startswith(":1: two options of a differ only in what cannot be seen: ")
    assert text.isascii() and ascii(twin) in text


@pytest.mark.parametrize(
    "twins", [("Joy", "joy"), ("10\u00b2", "102"), ("7", "07"), ("a", "\u0430")]
)
def test_options_that_look_different(twins):
    assert make_item("t", "x", "understanding", "Q?", twins, twins[0]).options == twins


@pytest.mark.parametrize(
    ("options", "key"), [(["1", "2", "3"], 1), (["1", "2", "3"], 0), ([1, 2], 1), (["5", "x"], 1)]
)
def test_a_number_as_key_among_numbers_must_say_what_it_means(options, key):
    with pytest.raises(InputError, match=f"key {key} of x may be a place or a text"):
        make_item("t", "x", "understanding", "Q?", options, key)


# -- the row -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("test", "field"),
    [
        (test, field)
        for test, row in FORMS.items()
        for field in row
        if field not in ("language", "letters") or (test, field) == ("stem", "letters")
    ],
)
def test_missing_field(tmp_path, test, field):
    broken = {name: value for name, value in FORMS[test].items() if name != field}
    whole = {**FORMS[test], **({"id": "z"} if "id" in FORMS[test] else {"qid": 9})}
    path = jsonl(tmp_path, whole, broken)
    assert fails(path, test) == f":2: field '{field}' is missing"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "Hope"}, "key 'Hope' of a is not among its options: Joy, Fear"),
        ({"key": "C"}, "key 'C' of a is not among its options: Joy, Fear"),
        ({"key": 2}, "key 2 of a is not among its options: Joy, Fear"),
        ({"key": -1}, "key -1 of a is not among its options: Joy, Fear"),
        ({"key": True}, "key True of a must be a text, a letter or a whole number"),
        ({"key": ""}, "key '' of a is not among its options: Joy, Fear"),
        ({"options": ["Joy"]}, "a has 1 option(s), it needs at least two"),
        ({"options": []}, "a has 0 option(s), it needs at least two"),
        ({"options": ["Joy", "Joy "]}, "a has the same option twice: Joy, Joy"),
        ({"options": ["Joy", " "]}, "an option of a is empty"),
        ({"options": {"a": "Joy"}}, "options and weights must be lists, got {'a': 'Joy'}"),
        (
            {"options": [f"o{i}" for i in range(27)], "key": 0},
            "a has 27 options, at most 26 can be lettered",
        ),
        ({"weights": [1.0]}, "a needs 2 weights between 0 and 1, got [1.0]"),
        ({"weights": [1.5, 0]}, "a needs 2 weights between 0 and 1, got [1.5, 0.0]"),
        ({"weights": [1, -0.1]}, "a needs 2 weights between 0 and 1, got [1.0, -0.1]"),
        ({"weights": [1, "nan"]}, "a needs 2 weights between 0 and 1, got [1.0, nan]"),
        ({"weights": [0, 0]}, "weights of a are all 0: the key must have more"),
        ({"weights": [True, False]}, "weights of a are not numbers: [True, False]"),
        ({"key": 0.0}, "key 0.0 of a must be a text, a letter or a whole number"),
        ({"options": ["Joy", 0.5]}, 'an option of a is 0.5, write it as a text: "0.5"'),
        ({"options": ["Joy", True]}, "an option of a is True, it must be a text"),
        (
            {"options": ["Joy", "\u200b"]},
            r"is empty, but for characters that cannot be seen: '\u200b'",
        ),
        ({"scenario": "\u2060"}, "scenario of a is empty or not text"),
        ({"id": 1.0}, "id is 1.0, it must be a text or a whole number"),
        ({"id": ["a"]}, "id is ['a'], it must be a text or a whole number"),
        ({"weights": [1, "much"]}, "weights of a are not numbers: [1, 'much']"),
        ({"weights": [1, None]}, "weights of a are not numbers: [1, None]"),
        ({"weights": 1}, "options and weights must be lists, got 1"),
        ({"weights": [0.5, 1]}, "the key of a is not the option with the largest weight"),
        ({"kind": "quiz"}, "kind is 'quiz', it must be one of understanding, management"),
        ({"scenario": " "}, "scenario of a is empty or not text"),
        ({"scenario": ["What?"]}, "scenario of a is empty or not text"),
        ({"id": " "}, "id is empty"),
        ({"persona_invariant": "maybe"}, "persona_invariant is 'maybe', it must be true or false"),
    ],
)
def test_faulty_value(tmp_path, change, message):
    text = fails(jsonl(tmp_path, {**GOOD, "id": "z"}, {**GOOD, **change}))
    assert text.startswith(":2: ")
    assert text.endswith(message)


@pytest.mark.parametrize("field", ["id", "scenario", "options", "key"])
def test_null_in_place_of_a_required_value(tmp_path, field):
    """JSON null must not become the text "None"."""
    assert fails(jsonl(tmp_path, {**GOOD, field: None})).startswith(":1: ")


@pytest.mark.parametrize("field", ["kind", "weights", "rationale", "persona_invariant"])
def test_null_in_place_of_an_optional_value_is_as_good_as_none(tmp_path, field):
    row = {**GOOD, field: None}
    assert read_items(jsonl(tmp_path, row), "t") == read_items(jsonl(tmp_path, GOOD), "t")


@pytest.mark.parametrize("option", [None, ["Joy"], {"text": "Joy"}])
def test_option_must_be_a_text_or_a_number(tmp_path, option):
    text = fails(jsonl(tmp_path, {**GOOD, "options": ["Joy", option]}))
    assert text.startswith(":1: ")
    assert repr(option) in text


@pytest.mark.parametrize(
    ("test", "change"),
    [
        ("steu", {"options": None}),
        ("steu", {"options": "Joy|Fear"}),
        ("steu", {"key": 1}),
        ("stem", {"options": 3}),
        ("stem", {"ranked_key": None}),
        ("stem", {"ranked_key": [["a"]]}),
        ("stem", {"ranked_key": ["A", "b"]}),
        ("stem", {"ranked_key": ""}),
        ("emobench_eu", {"emotion_label": 0}),
        ("emobench_ea", {"qid": 1.5}),
        ("stem", {"best": None}),
        ("stem", {"stem_b_expert_twelfths": [0, 0]}),
        ("stem", {"stem_b_expert_twelfths": ["nine", "three"]}),
        ("emobench_eu", {"emotion_choices": None}),
        ("emobench_ea", {"choices": "Ask"}),
        ("emobench_ea", {"question type": None}),
    ],
)
def test_field_of_the_wrong_type_in_a_published_form(tmp_path, test, change):
    assert fails(jsonl(tmp_path, {**FORMS[test], **change}), test).startswith(":1: ")


def test_duplicate_id_names_both_lines(tmp_path):
    path = jsonl(tmp_path, GOOD, {**GOOD, "id": "b"}, {**GOOD, "id": "a "})
    assert fails(path) == f":3: id 'a' is already used at {path}:1"


def test_duplicate_id_in_csv_names_both_lines(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("id,scenario,options,key\na,Q?,x|y,x\n\na,R?,x|y,x\n", encoding="utf-8")
    assert fails(path) == f":4: id 'a' is already used at {path}:2"


def test_make_item_without_options():
    with pytest.raises(InputError, match="x has 0 option"):
        make_item("t", "x", "understanding", "Q?", [], 0)


# -- specs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["unknown", "Understanding", "", "steu.jsonl", "steu:5"])
def test_unknown_spec(spec):
    with pytest.raises(InputError) as caught:
        load_items([spec])
    assert str(caught.value) == (
        f"--items {spec}: not one of builtin, understanding, management; "
        "for a file write NAME=FILE, e.g. steu=steu.jsonl"
    )


@pytest.mark.parametrize("n", ["", "0", "-1", "x", "4.5", "²", "089", "9999", "45:1", " 45"])
def test_number_of_built_in_items_that_are_not_there(n):
    halves = [len(load_items([name])) for name in ("understanding", "management")]
    both = min(2 * halves[0], 2 * halves[1] + 1)
    names = {"builtin": both, "understanding": halves[0], "management": halves[1]}
    for name, most in names.items():
        assert len(load_items([f"{name}:{most}"])) == most
        with pytest.raises(InputError) as caught:
            load_items([f"{name}:{n}"])
        assert str(caught.value) == f"--items {name}:{n}: {name}:N takes N from 1 to {most}"


def test_built_in_items_twice_by_number():
    with pytest.raises(InputError, match="--items: test understanding has the id 'eu_01' twice"):
        load_items(["builtin:4", "understanding:1"])


def test_spec_without_a_name(tmp_path):
    with pytest.raises(InputError, match="--items ="):
        load_items([f"={jsonl(tmp_path, GOOD)}"])


def test_spec_of_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"gone\.jsonl: no such file"):
        load_items(["builtin", f"steu={tmp_path / 'gone.jsonl'}"])


@pytest.mark.parametrize("specs", [["builtin", "management"], ["management", "management"]])
def test_same_items_twice(specs):
    with pytest.raises(InputError, match="--items: test management has the id 'em_01' twice"):
        load_items(specs)


# -- any input -----------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("test", FORMS)
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_any_json_object_gives_items_or_an_input_error(tmp_path_factory, test, data):
    path = tmp_path_factory.getbasetemp() / f"fuzz-{test}.jsonl"
    row = dict(FORMS[test])
    fields = [*row, "weights", "rationale", "persona_invariant", "stem_b_expert_twelfths"]
    for field in data.draw(st.lists(st.sampled_from(fields), min_size=1, max_size=2)):
        row[field] = data.draw(json_values)
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    try:
        (item,) = read_items(path, test)
    except InputError as error:
        assert str(error).startswith(str(path))
        return
    assert len(set(item.options)) == len(item.options) == len(item.weights) >= 2
    assert item.weights[item.key] == max(item.weights) <= 1
    assert all(isinstance(part, str) for part in (item.id, item.rationale, *item.options))


@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(deadline=None, max_examples=80)
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_any_bytes_give_items_or_an_input_error(tmp_path_factory, suffix, content):
    path = tmp_path_factory.getbasetemp() / f"fuzz.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="^" + re.escape(str(path))):
        read_items(path, "mine")
