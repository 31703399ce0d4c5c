"""Readers: the generic form, STEU, STEM and EmoBench, on small files of our own wording."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.items import Item, builtin_items, load_items, make_item, notes_on, read_items
from unswayed.data.texts import visible

REAL = Path(os.environ.get("UNSWAYED_REAL_DATA") or Path(__file__).parents[3] / "shared" / "data")

TEA = {
    "id": "tea",
    "scenario": "The kettle boils over for the third time. What is felt?",
    "options": ["Joy", "Frustration", "Pride"],
    "key": "Frustration",
}


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# -- generic -------------------------------------------------------------------------------------


def test_generic_jsonl_minimal_row_is_an_understanding_item(tmp_path):
    assert read_items(write(tmp_path / "mine.jsonl", TEA), "mine") == [
        Item(
            id="tea",
            test="mine",
            kind="understanding",
            scenario=TEA["scenario"],
            options=("Joy", "Frustration", "Pride"),
            key=1,
            weights=(0.0, 1.0, 0.0),
            persona_invariant=True,
            rationale="",
        )
    ]


def test_generic_jsonl_full_row(tmp_path):
    row = {
        "id": 7,
        "kind": "management",
        "scenario": "  My soup burns. What should I do? ",
        "options": ["Turn the heat down", " Wait ", "Shout"],
        "key": "a",
        "weights": [1, 0.25, 0],
        "persona_invariant": False,
        "rationale": "Removes the cause.",
        "context": "ignored",
    }
    (item,) = read_items(write(tmp_path / "mine.jsonl", row), "mine")
    assert item == Item(
        id="7",
        test="mine",
        kind="management",
        scenario="My soup burns. What should I do?",
        options=("Turn the heat down", "Wait", "Shout"),
        key=0,
        weights=(1.0, 0.25, 0.0),
        persona_invariant=False,
        rationale="Removes the cause.",
    )


def test_generic_weights_make_a_management_item_unless_kind_says_otherwise(tmp_path):
    row = {**TEA, "weights": [0.5, 1, 0]}
    path = write(tmp_path / "mine.jsonl", row, {**row, "id": "b", "kind": "understanding"})
    assert [item.kind for item in read_items(path, "mine")] == ["management", "understanding"]


def test_generic_csv_separates_options_and_weights_with_a_bar(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "id,scenario,options,key,weights,persona_invariant,rationale\n"
        't1,"One, two, gone. What now?",Look | Ask|Wait,B,0.5|1|0,no,because\n'
        't2,"She said ""hm"". And then?",Yes|No,Yes,,,\n',
        encoding="utf-8",
    )
    first, second = read_items(path, "mine")
    assert first.scenario == "One, two, gone. What now?"
    assert (first.options, first.key) == (("Look", "Ask", "Wait"), 1)
    assert (first.kind, first.weights) == ("management", (0.5, 1.0, 0.0))
    assert (first.persona_invariant, first.rationale) == (False, "because")
    assert second.scenario == 'She said "hm". And then?'
    assert (second.kind, second.weights) == ("understanding", (1.0, 0.0))
    assert (second.persona_invariant, second.rationale) == (True, "")


def test_generic_blank_lines_and_byte_order_mark_are_fine(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(f"\ufeff{json.dumps(TEA)}\r\n\r\n\n", encoding="utf-8", newline="")
    assert [item.id for item in read_items(path, "mine")] == ["tea"]


@pytest.mark.parametrize(
    ("options", "key", "index"),
    [
        (["Joy", "Fear", "Hope"], "Fear", 1),
        (["Joy", "Fear", "Hope"], " Fear ", 1),
        (["Joy", "Fear", "Hope"], "B", 1),
        (["Joy", "Fear", "Hope"], "c", 2),
        (["Joy", "Fear", "Hope"], 0, 0),
        (["C", "B", "A"], "A", 2),  # a text wins over a letter
        (["1", "2", "3"], "2", 1),
        (["0", "1", "2"], 2, 2),  # the same by place and by text
        (["Joy\u200b", "Fear"], "Joy", 0),
    ],
)
def test_key_is_a_text_a_letter_or_an_index(options, key, index):
    assert make_item("t", "x", "understanding", "Q?", options, key).key == index


@pytest.mark.parametrize(
    "separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]
)
def test_csv_cells_may_hold_any_unicode_line_separator(tmp_path, separator):
    """Only \\n and \\r end a row of a CSV file; str.splitlines knows eight more."""
    path = tmp_path / "mine.csv"
    path.write_text(
        f"id,scenario,options,key\na,one{separator}two,x|y,x\nb,three,x|y,y\n", encoding="utf-8"
    )
    items = read_items(path, "mine")
    assert [item.scenario for item in items] == [f"one{separator}two", "three"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("first", ["", "sep=", "\r\n"])
def test_csv_of_spreadsheet_programs(tmp_path, separator, first):
    """Separators by country, Excel's line `sep=`, empty rows and columns, an index by pandas."""
    rows = [
        [" id", "scenario ", "options", "key", ""],
        ["a", '"One, two; gone.\r\nWhat now?"', "x|y", "y", ""],
        ["", "", " ", "", ""],
        ["b", "What\u2028now?", "x|y", "x", "", ""],
        [""] * 7,
    ]
    path = tmp_path / "mine.csv"
    text = "\r\n".join(separator.join(row) for row in rows)
    first = f"sep={separator}\r\n" if first == "sep=" else first
    path.write_text(first + text, encoding="utf-8-sig", newline="")
    first_item, second_item = read_items(path, "mine")
    assert first_item.scenario == "One, two; gone.\r\nWhat now?" and first_item.key == 1
    assert (second_item.id, second_item.key) == ("b", 0)
    for broken, line in (("b2,x", 8), ("c", 8)):
        path.write_text(first + text + "\r\n" + broken.replace(",", separator), newline="")
        with pytest.raises(
            InputError, match=rf"mine.csv:{line - (first == '')}: \d values for 5 col"
        ):
            read_items(path, "mine")


def test_csv_with_the_index_that_pandas_writes(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"id": ["007", "8"], "scenario": "Q?", "options": "1.50|x", "key": "1.50"})
    frame.to_csv(tmp_path / "mine.csv")
    frame.to_csv(tmp_path / "mine.tsv", sep="\t")
    items = read_items(tmp_path / "mine.csv", "mine")
    assert [(item.id, item.options[item.key]) for item in items] == [("007", "1.50"), ("8", "1.50")]
    assert read_items(tmp_path / "mine.tsv", "mine") == items


def test_keys_that_seem_to_count_from_one_are_told(tmp_path, caplog):
    rows = [{**TEA, "id": str(n), "key": n} for n in range(3)]
    read_items(write(tmp_path / "zero.jsonl", *rows), "mine")
    assert not caplog.messages
    path = write(tmp_path / "one.jsonl", *rows[1:])
    read_items(path, "mine")
    assert caplog.messages == [
        f"{path}: keys that are numbers are places from 0, and none is 0; if they count from 1, "
        "write the texts of the options"
    ]


def test_notes_on_options():
    def item(*options):
        return make_item("t", "x", "understanding", "Q?", options, options[0])

    assert notes_on([item("Joy", "Fear"), item("no joy", "joy")]) == []
    (prefix,) = notes_on([item("joy and relief", "fear", "joy"), item("1", "10"), item("a", "b")])
    assert prefix.startswith(
        "An option begins another (2 times, such as 'joy' and 'joy and relief' (x)): the sum"
    )
    (unseen,) = notes_on([item("Joy\u200b", "Fear")])
    assert "characters that cannot be seen" in unseen and r"'Joy\u200b' (x)" in unseen
    assert notes_on(builtin_items()) == []


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(visible)


@st.composite
def valid_items(draw, text=words) -> list[Item]:
    items = []
    for id in draw(st.lists(text, min_size=1, max_size=4, unique=True)):
        options = tuple(draw(st.lists(text, min_size=2, max_size=6, unique_by=visible)))
        key = draw(st.integers(0, len(options) - 1))
        kind = draw(st.sampled_from(["understanding", "management"]))
        if kind == "understanding":
            weights = [float(i == key) for i in range(len(options))]
        else:
            share = st.floats(0, 1, allow_nan=False)
            weights = draw(
                st.lists(share, min_size=len(options), max_size=len(options)).filter(any)
            )
            weights[key] = max(weights)
        items.append(
            Item(
                id,
                "mine",
                kind,
                draw(text),
                options,
                key,
                tuple(weights),
                draw(st.booleans()),
                draw(text | st.just("")),
            )
        )
    return items


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("round-trip")


@given(items=valid_items())
@settings(deadline=None, max_examples=80)
def test_jsonl_round_trip(folder, items):
    path = folder / "items.jsonl"
    rows = [
        {
            "id": item.id,
            "kind": item.kind,
            "scenario": item.scenario,
            "options": list(item.options),
            "key": item.options[item.key],
            "weights": list(item.weights),
            "persona_invariant": item.persona_invariant,
            "rationale": item.rationale,
        }
        for item in items
    ]
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        encoding="utf-8",
        newline="",
    )
    assert read_items(path, "mine") == items


@given(items=valid_items(words.map(lambda t: t.replace("|", "/"))))
@settings(deadline=None, max_examples=80)
def test_csv_round_trip(folder, items):
    path = folder / "items.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            "id kind scenario options key weights persona_invariant rationale".split()  # noqa: SIM905
        )
        for item in items:
            writer.writerow(
                [
                    item.id,
                    item.kind,
                    item.scenario,
                    "|".join(item.options),
                    item.options[item.key],
                    "|".join(map(repr, item.weights)),
                    item.persona_invariant,
                    item.rationale,
                ]
            )
    assert read_items(path, "mine") == items


def test_bank_files_read_as_a_user_file(tmp_path):
    """The bank has no form of its own: what it does, any file can do."""
    import unswayed.data.items

    source = Path(unswayed.data.items.__file__).parent / "bank" / "management.jsonl"
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(source.read_bytes())
    read = load_items([f"management={copy}"])
    assert read == [item for item in builtin_items() if item.test == "management"]


def test_examples_of_the_docs(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "items.md").read_text(encoding="utf-8")
    for form in ("json", "csv"):
        example = re.search(rf"```{form}\n(.*?)```", page, re.DOTALL)[1]
        (tmp_path / f"mine.{form.replace('json', 'jsonl')}").write_text(example, encoding="utf-8")
    items = read_items(tmp_path / "mine.jsonl", "walk")
    assert items == read_items(tmp_path / "mine.csv", "walk")
    assert [item.kind for item in items] == ["management", "management"]


# -- STEU ----------------------------------------------------------------------------------------


def steu_row(id: str, key: str, **more) -> dict:
    return {
        "id": id,
        "text": f"A lamp goes out ({id}). What is felt?",
        "options": ["Surprise", "Joy", "Guilt", "Pride", "Hope"],
        "letters": list("abcde"),
        "key": key,
        "key_ambiguous": len(key) > 1,
        **more,
    }


def test_steu_form(tmp_path):
    path = write(tmp_path / "steu.jsonl", steu_row("s1", "a"), steu_row("s2", "e"))
    first, second = read_items(path, "steu")
    assert first == Item(
        "s1", "steu", "understanding", "A lamp goes out (s1). What is felt?",
        ("Surprise", "Joy", "Guilt", "Pride", "Hope"), 0, (1.0, 0.0, 0.0, 0.0, 0.0),
    )  # fmt: skip
    assert second.options[second.key] == "Hope"


@pytest.mark.parametrize("flagged", [True, False])
def test_steu_ambiguous_key_is_left_out_with_one_line(tmp_path, caplog, flagged):
    rows = [steu_row("s1", "a"), steu_row("s2", "b-d", key_ambiguous=flagged), steu_row("s3", "c")]
    with caplog.at_level(logging.INFO):
        items = read_items(write(tmp_path / "steu.jsonl", *rows), "steu")
    assert [item.id for item in items] == ["s1", "s3"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{tmp_path / 'steu.jsonl'}: left out 1 of 3 items: s2 (key b-d is ambiguous)"
    )


def test_no_log_line_when_nothing_is_left_out(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        read_items(write(tmp_path / "steu.jsonl", steu_row("s1", "a")), "steu")
    assert not caplog.records


def test_steu_where_every_key_is_ambiguous_holds_no_items(tmp_path):
    with pytest.raises(InputError, match="holds no items"):
        read_items(write(tmp_path / "steu.jsonl", steu_row("s1", "a-b")), "steu")


# -- STEM ----------------------------------------------------------------------------------------


def stem_row(id: str, ranked: str, best: str | None = None, twelfths=None) -> dict:
    return {
        "id": id,
        "text": f"A shelf comes down ({id}). What helps most?",
        "options": ["Mend it", "Wait", "Shout", "Ask for help"],
        "letters": list("abcd"),
        "ranked_key": list(ranked),
        "best": best or ranked[0],
        "stem_b_expert_twelfths": twelfths,
    }


@pytest.mark.parametrize(
    ("ranked", "weights"),
    [
        ("c", (0.0, 0.0, 1.0, 0.0)),
        ("cbd", (0.0, 1 / 2, 1.0, 1 / 3)),
        ("dabc", (1 / 2, 1 / 3, 1 / 4, 1.0)),
    ],
)
def test_stem_ranked_key_becomes_reciprocal_rank_weights(tmp_path, ranked, weights):
    (item,) = read_items(write(tmp_path / "stem.jsonl", stem_row("m1", ranked)), "stem")
    assert item.weights == weights
    assert item.options[item.key] == item.options["abcd".index(ranked[0])]
    assert (item.kind, item.test) == ("management", "stem")


def test_stem_twelfths_are_scaled_by_their_maximum_and_go_before_the_ranking(tmp_path):
    row = stem_row("m1", "bdac", twelfths=[2, 8, 0, 2])
    (item,) = read_items(write(tmp_path / "stem.jsonl", row), "stem")
    assert item.weights == (0.25, 1.0, 0.0, 0.25)
    assert item.key == 1


def test_stem_without_the_twelfths_field(tmp_path):
    row = stem_row("m1", "ab")
    del row["stem_b_expert_twelfths"]
    (item,) = read_items(write(tmp_path / "stem.jsonl", row), "stem")
    assert item.weights == (1.0, 0.5, 0.0, 0.0)


def test_stem_ambiguous_best_is_left_out(tmp_path, caplog):
    path = write(tmp_path / "stem.jsonl", stem_row("m1", "ab"), stem_row("m2", "ab", best="a-b"))
    assert [item.id for item in read_items(path, "stem")] == ["m1"]
    assert "m2 (key a-b is ambiguous)" in caplog.text


def test_stem_twelfths_that_contradict_the_best_answer_are_an_error(tmp_path):
    path = write(tmp_path / "stem.jsonl", stem_row("m1", "ab", twelfths=[3, 9, 0, 0]))
    with pytest.raises(InputError, match=r"stem\.jsonl:1: the key of m1 is not the option with"):
        read_items(path, "stem")


# -- EmoBench ------------------------------------------------------------------------------------

EU = {
    "qid": "3",
    "language": "en",
    "coarse_category": "emotional_cues",
    "scenario": "Robin finds the last puzzle piece under the sofa.",
    "subject": "Robin",
    "emotion_choices": ["Relief", "Anger", "Guilt", "Fear", "Envy", "Shame"],
    "emotion_label": "Relief",
    "cause_choices": ["The puzzle is complete", "The sofa is old"],
    "cause_label": "The puzzle is complete",
}
EA = {
    "qid": "3",
    "language": "en",
    "question type": "Response",
    "scenario": "Robin's friend has lost a puzzle piece.",
    "subject": "Robin",
    "choices": ["Laugh", "Leave", "Offer to look for it", "Say nothing"],
    "label": "Offer to look for it",
}


def test_emobench_eu_form(tmp_path):
    assert read_items(write(tmp_path / "EU.jsonl", EU), "emobench_eu") == [
        Item(
            "en_3", "emobench_eu", "understanding",
            "Robin finds the last puzzle piece under the sofa.\n"
            "What emotion(s) would Robin ultimately feel in this situation?",
            ("Relief", "Anger", "Guilt", "Fear", "Envy", "Shame"), 0,
            (1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        )
    ]  # fmt: skip


@pytest.mark.parametrize("question", ["Response", "Action"])
def test_emobench_ea_form(tmp_path, question):
    row = {**EA, "question type": question}
    (item,) = read_items(write(tmp_path / "EA.jsonl", row), "emobench_ea")
    assert (item.id, item.test, item.kind) == ("en_3", "emobench_ea", "management")
    assert item.scenario == (
        "Robin's friend has lost a puzzle piece.\n"
        f"In this scenario, what is the most effective {question.lower()} for Robin?"
    )
    assert (item.key, item.weights) == (2, (0.0, 0.0, 1.0, 0.0))


@pytest.mark.parametrize(("name", "row"), [("emobench_eu", EU), ("emobench_ea", EA)])
def test_emobench_other_languages_are_left_out(tmp_path, caplog, name, row):
    """The files number the languages separately: qid 3 occurs in each."""
    path = write(tmp_path / "file.jsonl", row, {**row, "language": "zh"})
    assert [item.id for item in read_items(path, name)] == ["en_3"]
    assert "left out 1 of 2 items: zh_3 (not English)" in caplog.text


@pytest.mark.parametrize(
    ("name", "row", "field"), [("emobench_eu", EU, "emotion_label"), ("emobench_ea", EA, "label")]
)
def test_emobench_label_must_be_a_choice(tmp_path, name, row, field):
    path = write(tmp_path / "file.jsonl", {**row, field: "Boredom"})
    with pytest.raises(InputError, match=r"file\.jsonl:1: key 'Boredom' of en_3 is not among"):
        read_items(path, name)


# -- the real instruments ------------------------------------------------------------------------


def real_file(name: str) -> Path:
    path = REAL / "steu_stem" / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path}; set UNSWAYED_REAL_DATA to a folder that holds steu_stem/")
    return path


def test_real_steu_has_41_items_with_one_key(caplog):
    path = real_file("steu")
    items = load_items([f"steu={path}"])
    assert len(items) == 41
    assert "steu_40" not in {item.id for item in items}
    assert caplog.messages == [f"{path}: left out 1 of 42 items: steu_40 (key c-e is ambiguous)"]
    rows = {row["id"]: row for row in map(json.loads, path.read_text().splitlines())}
    assert all(item.options[item.key] == rows[item.id]["key_text"] for item in items)
    assert {len(item.options) for item in items} == {5}


def test_real_stem_has_44_items_with_expert_weights(caplog):
    path = real_file("stem")
    items = load_items([f"stem={path}"])
    assert len(items) == 44
    assert not caplog.messages
    rows = {row["id"]: row for row in map(json.loads, path.read_text().splitlines())}
    scaled = 0
    for item in items:
        row = rows[item.id]
        assert item.options[item.key] == row["best_text"]
        assert item.weights[item.key] == 1.0
        if row["stem_b_expert_twelfths"]:
            scaled += 1
            top = max(row["stem_b_expert_twelfths"])
            assert [weight * top for weight in item.weights] == pytest.approx(
                row["stem_b_expert_twelfths"]
            )
        else:
            ranked = [item.weights["abcd".index(letter)] for letter in row["ranked_key"]]
            assert ranked == [1 / rank for rank in range(1, len(ranked) + 1)]
            assert sum(weight > 0 for weight in item.weights) == len(ranked)
    assert scaled == 18


def test_real_steu_and_stem_load_together():
    specs = [f"{name}={real_file(name)}" for name in ("steu", "stem")]
    assert [item.test for item in load_items(specs)] == ["steu"] * 41 + ["stem"] * 44
