"""Reading persona files: what is accepted, and errors that name file, line and field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.personas import (
    DIMENSIONS,
    VERSIONS,
    VOICES,
    Persona,
    load_personas,
    read_personas,
)
from unswayed.data.personas import render as fill
from unswayed.data.texts import visible

PAIR = """\
- id: p1
  domain: baking
  advantaged:
    demographic_attributes: "{I} run a bakery."
    family_background: "{My} aunt ran one."
    social_connections: "The mayor knows {me}."
    personal_assets: "The shop is {mine}."
  disadvantaged:
    demographic_attributes: "{I} sweep a bakery."
    family_background: "{My} aunt swept one."
    social_connections: "The oven knows {me}."
    personal_assets: "The broom is {mine}."
  neutral:
    tastes: "{I} {am} fond of rye."
"""


@pytest.fixture
def read(tmp_path):
    def read(text: str) -> list[Persona]:
        path = tmp_path / "personas.yaml"
        path.write_text(text, encoding="utf-8")
        return read_personas(path)

    return read


@pytest.fixture
def fails(read, tmp_path):
    """The message of the InputError, without the file's name in front of it."""

    def fails(text: str) -> str:
        with pytest.raises(InputError) as caught:
            read(text)
        path = str(tmp_path / "personas.yaml")
        assert str(caught.value).startswith(path)
        return str(caught.value).removeprefix(path)

    return fails


# -- accepted ------------------------------------------------------------------------------------


def test_a_pair_gives_one_persona_for_each_version(read):
    up, down, neutral = read(PAIR)
    assert [p.id for p in (up, down, neutral)] == [
        "p1-advantaged",
        "p1-disadvantaged",
        "p1-neutral",
    ]
    assert [p.condition for p in (up, down, neutral)] == list(VERSIONS)
    assert {p.pair_id for p in (up, down, neutral)} == {"p1"}
    assert up.slots == (
        ("demographic_attributes", "{I} run a bakery."),
        ("family_background", "{My} aunt ran one."),
        ("social_connections", "The mayor knows {me}."),
        ("personal_assets", "The shop is {mine}."),
    )
    assert neutral.slots == (("tastes", "{I} {am} fond of rye."),)


def test_versions_come_in_a_fixed_order_and_may_be_left_out(read):
    first, rest = PAIR.split("  disadvantaged:")
    swapped = "- id: p1\n  disadvantaged:" + rest + first.split("\n", 2)[2]
    assert [p.condition for p in read(swapped)] == list(VERSIONS)
    assert [p.condition for p in read("- id: a\n  neutral: {tastes: Rye.}\n")] == ["neutral"]


def test_slots_keep_the_order_of_the_file(read):
    (persona,) = read("- id: a\n  neutral: {zebra: One., apple: Two., mango: Three.}\n")
    assert [name for name, _ in persona.slots] == ["zebra", "apple", "mango"]


def test_texts_are_taken_as_written_but_for_outer_space(read):
    (persona,) = read("- id: 007\n  neutral:\n    size: 1_000\n    note: >\n      a\n      b\n")
    assert persona.id == "007-neutral"  # YAML would make 7 of it
    assert persona.slots == (("size", "1_000"), ("note", "a b"))


def test_a_byte_order_mark_and_aliases_are_fine(read):
    text = "\ufeff- id: a\n  neutral: &n {tastes: Rye.}\n- id: b\n  neutral: *n\n"
    assert [persona.id for persona in read(text)] == ["a-neutral", "b-neutral"]


def test_load_personas_reads_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(PAIR, encoding="utf-8")
    assert load_personas(str(path)) == read_personas(path)


def test_example_of_the_docs(read):
    page = (Path(__file__).parents[2] / "docs" / "personas.md").read_text(encoding="utf-8")
    personas = read(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    assert [persona.condition for persona in personas] == list(VERSIONS)
    for name, (own, note) in VOICES.items():
        assert f"`{{{name}}}`" in page, f"{name} is missing in the table of placeholders"
        assert own in page
        assert note in page


# -- rendering -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "own", "note"),
    [
        ("{I} {am} here.", "I am here.", "They are here."),
        ("Here {i} {was}.", "Here I was.", "Here they were."),
        ("{My} cat, {my} dog.", "My cat, my dog.", "Their cat, their dog."),
        ("It sees {me}; it is {mine}.", "It sees me; it is mine.", "It sees them; it is theirs."),
        ("{I} taught {myself}.", "I taught myself.", "They taught themself."),
        ("Nothing to fill.", "Nothing to fill.", "Nothing to fill."),
    ],
)
def test_render(text, own, note):
    assert fill(text, first_person=True) == own
    assert fill(text, first_person=False) == note
    persona = Persona("x", "neutral", "x", (("slot", text),))
    assert persona.texts(first_person=True) == [("slot", own)]
    assert persona.texts() == [("slot", note)]


plain = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="{}"), max_size=9)


@given(parts=st.lists(st.tuples(plain, st.sampled_from([*VOICES])), min_size=1, max_size=6))
@settings(deadline=None, max_examples=80)
def test_rendering_changes_the_placeholders_only(parts):
    text = "".join(f"{words}{{{name}}}" for words, name in parts)
    for voice, first_person in enumerate([True, False]):
        assert fill(text, first_person) == "".join(w + VOICES[n][voice] for w, n in parts)


texts = (
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}"), min_size=1),
        st.sampled_from(["", *(f"{{{name}}}" for name in VOICES)]),
    )
    .map("".join)
    .map(str.strip)
    .filter(visible)
)


@given(
    ids=st.lists(texts.filter(lambda t: "{" not in t), min_size=1, max_size=3, unique=True),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_round_trip_through_yaml(tmp_path_factory, ids, data):
    rows, expected = [], []
    for id in ids:
        row = {"id": id}
        for version in VERSIONS:
            if version == "neutral":
                slots = data.draw(st.dictionaries(texts, texts, min_size=1, max_size=3))
            else:
                slots = {name: data.draw(texts) for name in DIMENSIONS}
            row[version] = slots
            expected.append(Persona(f"{id}-{version}", version, id, tuple(slots.items())))
        rows.append(row)
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    path.write_text(yaml.safe_dump(rows, sort_keys=False), encoding="utf-8")
    assert read_personas(path) == expected


# -- errors --------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    path = tmp_path / "gone.yaml"
    for read_it in (lambda: read_personas(path), lambda: load_personas(str(path))):
        with pytest.raises(InputError) as caught:
            read_it()
        assert str(caught.value) == f"{path}: no such file"


def test_not_utf8(tmp_path):
    path = tmp_path / "personas.yaml"
    path.write_bytes(b"- id: caf\xe9\n")
    with pytest.raises(InputError, match=r"personas\.yaml: cannot be read as UTF-8 text .*0xe9"):
        read_personas(path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- id: a\n  neutral: {tastes: Rye.\n", 3),
        ("- id: a\n\tneutral: b\n", 2),
        ('- id: "a\n', 2),
        ("- id: a\n---\n- id: b\n", 2),
        ("- id: *nowhere\n", 1),
    ],
)
def test_not_yaml(fails, text, line):
    assert re.match(rf":{line}: not YAML \(", fails(text))


def test_control_character_is_not_yaml(fails):
    assert ": not YAML (" in fails("- id: a\x01\n")


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]\n", "id: a\n", "just words\n"])
def test_not_a_list(fails, text):
    assert fails(text) == ":1: a list of personas (- id: ...) is needed"


@pytest.mark.parametrize("entry", ["words", "[1, 2]", "5"])
def test_entry_that_is_no_mapping(fails, entry):
    message = fails(PAIR + f"- {entry}\n")
    assert message == ":15: a persona must be a mapping of names to texts"


@pytest.mark.parametrize("version", ["words", "[1, 2]", "", "~"])
def test_version_that_is_no_mapping(fails, version):
    message = fails(f"- id: a\n  neutral: {version}\n")
    assert message == ":2: a.neutral must be a mapping of names to texts"


@pytest.mark.parametrize("version", ["advantaged", "disadvantaged"])
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_missing_dimension(fails, version, dimension):
    head, tail = PAIR.split(f"  {version}:\n")
    lines = tail.splitlines(keepends=True)
    kept = [line for i, line in enumerate(lines) if i > 3 or f" {dimension}:" not in line]
    message = fails(head + f"  {version}:\n" + "".join(kept))
    assert re.fullmatch(rf":\d+: p1\.{version} lacks the dimension {dimension}", message)
    line = int(message.split(":")[1])
    assert line == head.count("\n") + 2  # where the version's dimensions begin


def test_unknown_dimension_names_its_own_line(fails):
    text = PAIR.replace('"The shop is {mine}."\n', '"The shop is {mine}."\n    wealth: Much.\n')
    assert fails(text) == ":8: p1.advantaged has the unknown dimension wealth"


def test_unknown_field_names_its_own_line(fails):
    text = PAIR.replace("  domain: baking\n", "  domain: baking\n  hobby: chess\n")
    assert fails(text) == ":3: p1 has the unknown field hobby"


def test_unknown_placeholder(fails):
    message = fails(PAIR.replace("The mayor knows {me}.", "{You} know the mayor."))
    assert message.startswith(
        ":6: p1.advantaged.social_connections has the unknown placeholder {You}; known are {I} {i} "
    )


@pytest.mark.parametrize("placeholder", ["{}", "{ I }", "{I am}", "{0}", "{{I}}"])
def test_near_misses_of_placeholders(fails, placeholder):
    message = fails(f"- id: a\n  neutral:\n    tastes: '{placeholder} like rye.'\n")
    assert message.startswith(":3: a.neutral.tastes has the unknown placeholder {")


@pytest.mark.parametrize("text", ["A { b", "A } b", "{I} and }{", "I} like rye", "{I like rye"])
def test_lone_brace(fails, text):
    """It would stand in the prompt."""
    assert fails(f"- id: a\n  neutral:\n    tastes: '{text}'\n").startswith(":3: a.neutral.tastes ")


def test_duplicate_id_names_both_lines(fails):
    assert fails(PAIR + PAIR) == ":15: id p1 is already used in line 1"


def test_missing_id(fails):
    assert fails(PAIR.replace("- id: p1\n  domain", "- domain")) == ":1: field id is missing"


@pytest.mark.parametrize("id", ['""', "", "[a]", "{a: b}", "null", "~"])
def test_id_that_is_no_text(fails, id):
    assert fails(f"- id: {id}\n  neutral: {{tastes: Rye.}}\n") == ":1: id must be a text"


@pytest.mark.parametrize("value", ['""', '" "', "", "[a]", "{a: b}", "null", "~"])
def test_slot_that_is_no_text(fails, value):
    message = fails(f"- id: a\n  neutral:\n    tastes: Rye.\n    weather: {value}\n")
    assert message == ":4: a.neutral.weather must be a text"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (r"\u200b\u00ad", "must be a text"),
        (r"so \ud800", "holds half of a surrogate pair: write it"),
    ],
)
def test_texts_that_show_nothing_or_are_none(fails, text, says):
    message = fails(f'- id: a\n  neutral: {{weather: "{text}"}}\n')
    assert message.startswith(f":2: a.neutral.weather {says}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- id: a\n  domain: x\n  domain: y\n", ":3: a persona has domain twice"),
        ("- id: a\n  neutral:\n    t: x\n    u: y\n    t: z\n", ":5: a.neutral has t twice"),
        (PAIR + "  neutral: {tastes: Rye.}\n", ":15: a persona has neutral twice"),
    ],
)
def test_duplicate_key(fails, text, message):
    assert fails(text) == message


@pytest.mark.parametrize("key", ["[a, b]", "{a: b}"])
def test_key_that_is_no_text(fails, key):
    assert fails(f"- id: a\n  neutral:\n    ? {key}\n    : words\n").startswith(":3: ")


def test_no_version(fails):
    message = fails("- id: a\n  domain: x\n")
    assert message == ":1: a has none of the versions advantaged, disadvantaged, neutral"


def test_empty_version(fails):
    assert fails("- id: a\n  neutral: {}\n") == ":2: a.neutral is empty"


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("aI{} :-\n", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "neutral", "advantaged", "domain", *DIMENSIONS]) | st.integers(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(content=st.lists(yaml_values, min_size=1, max_size=2).map(yaml.safe_dump) | st.text())
@settings(deadline=None, max_examples=100)
def test_any_text_gives_personas_or_an_input_error(tmp_path_factory, content):
    path: Path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(content, encoding="utf-8")
    try:
        personas = read_personas(path)
    except InputError as error:
        assert str(error).startswith(str(path))
        return
    for persona in personas:
        for _, text in [*persona.texts(True), *persona.texts(False)]:
            assert text
            assert not set("{}") & set(text)
