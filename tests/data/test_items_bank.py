"""The built-in bank: its shape, its balance, and that no item says anything about who asks."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from statistics import mean

import pytest

import unswayed.data.items
from unswayed.data.items import builtin_items, load_items

REAL = Path(os.environ.get("UNSWAYED_REAL_DATA") or Path(__file__).parents[3] / "shared" / "data")

EMOTIONS = (
    "Anger",
    "Contempt",
    "Disgust",
    "Embarrassment",
    "Fear",
    "Frustration",
    "Gratitude",
    "Guilt",
    "Hope",
    "Joy",
    "Pride",
    "Regret",
    "Relief",
    "Sadness",
    "Surprise",
)

# What an item must not mention, because it could tie the answer to a kind of person.
LEXICON = {
    "money": r"money|cash|coins?|price[sd]?|cost(s|ly)?|cheap\w*|expensive|pay(s|ing|ment)?|paid|"
    r"buy|buys|bought|sell|sells|sold|salary|wages?|earn\w*|incomes?|rent(s|ed|al)?|"
    r"loans?|debts?|afford\w*|rich\w*|poor(er|est)?|poverty|wealth\w*|fortune|budgets?|bank\w*|"
    r"euros?|dollars?|pounds?|fees?|bills?|prizes?|lottery|luxur\w*|jewel\w*|savings?|inherit\w*",
    "jobs and rank": r"work(s|ing|er|ers|place|mates?|shop)?|jobs?|boss(es)?|manag(er|ers|ement)|"
    r"colleagues?|co-?workers?|employ\w*|careers?|profession\w*|offices?|promot(ed|ion)\w*|"
    r"interview\w*|business\w*|compan(y|ies)|customers?|clients?|staff|shifts?|unemployed|"
    r"retire\w*|doctors?|nurses?|lawyers?|teachers?|engineers?|students?|pupils?|school\w*|"
    r"universit\w*|college\w*|exams?|degrees?|diplomas?|professors?|director\w*|chief\w*|ranks?|"
    r"superiors?|subordinates?|class(es|room|mates?)?|leaders?|servants?|status",
    "family": r"famil(y|ies)|parents?|mothers?|fathers?|mum|mums|mom|moms|dad|dads|siblings?|"
    r"brothers?|sisters?|sons?|daughters?|child(ren|hood)?|kids?|bab(y|ies)|toddlers?|uncles?|"
    r"aunts?|cousins?|nephews?|nieces?|grand\w+|wife|wives|husbands?|spouses?|partners?|"
    r"boyfriends?|girlfriends?|married|marry|marriages?|weddings?|engaged|divorc\w*|dating|"
    r"pregnan\w*|relatives?|in-laws?|orphan\w*|twins?|household",
    "gender": r"he|him|his|himself|she|her|hers|herself|\w*m[ae]n|males?|females?|"
    r"boys?|girls?|lad(y|ies)|gentlem[ae]n|guys?|sirs?|madams?|masculin\w*|feminin\w*|gender\w*|trans|"
    r"gay|lesbian|non-binary|bearded|beards?|lipstick|dress(es)?|skirts?",
    "age": r"old|older|oldest|elder\w*|eldest|young\w*|youth\w*|age|aged|ages|teen\w*|adult\w*|"
    r"adolescen\w*|seniors?|juniors?|pension\w*|years?|decades?|birthdays?|generations?|middle-aged",
    "religion": r"god|gods|religio\w*|church\w*|mosques?|temples?|synagogues?|pray\w*|faith\w*|"
    r"priests?|imams?|rabbis?|bible|koran|quran|christ\w*|muslim\w*|islam\w*|jew(s|ish)?|hindu\w*|"
    r"buddh\w*|atheis\w*|holy|saints?|easter|ramadan|eid|sabbath|sins?|sinful|bless\w*|worship\w*|"
    r"baptis\w*|hijab|headscar\w*|halal|kosher|pork",
    "ethnicity": r"black|white|brown|asians?|africans?|arabs?|latin[oax]s?|hispanics?|caucasians?|"
    r"ethnic\w*|race|racial\w*|racis\w*|tribes?|tribal|indigenous|minorit\w*|skin",
    "nationality": r"nation\w*|countr(y|ies)|foreign\w*|abroad|immigra\w*|emigra\w*|migra\w*|"
    r"refugees?|visas?|passports?|citizen\w*|homeland|native\w*|accents?|border\w*|english|british|"
    r"americans?|germans?|french|italians?|spanish|chinese|japanese|indians?|turks?|turkish|"
    r"russians?|polish|mexicans?|europe\w*|africa|asia|america",
}
# Innocent uses of listed words, taken out before matching.
HOMOGRAPHS = ("come for the company and the talk", "known each other for ages")
MAY_BE_CAPITAL = {"I", "Saturday"}
# First words of scenarios that occur nowhere in lower case.
MAY_OPEN = {"I", "Someone's", "Setting", "Shortly"}


@pytest.fixture(scope="module")
def bank():
    return builtin_items()


@pytest.fixture(scope="module")
def understanding(bank):
    return [item for item in bank if item.kind == "understanding"]


@pytest.fixture(scope="module")
def management(bank):
    return [item for item in bank if item.kind == "management"]


def raw_rows(kind: str) -> list[dict]:
    path = Path(unswayed.data.items.__file__).parent / "bank" / f"{kind}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def about(topic: str) -> re.Pattern[str]:
    return re.compile(rf"\b({LEXICON[topic]})\b", re.IGNORECASE)


def spread(counts: Counter) -> int:
    return max(counts.values()) - min(counts.values())


def texts(items) -> list[tuple[str, str]]:
    return [(item.id, text) for item in items for text in (item.scenario, *item.options)]


# -- shape ---------------------------------------------------------------------------------------


def test_bank_ids_and_scenarios_are_unique(bank, management):
    assert len({item.id for item in bank}) == len(bank)
    assert len({item.scenario for item in bank}) == len(bank)
    assert len({tuple(sorted(item.options)) for item in management}) == len(management)


@pytest.mark.parametrize(("kind", "prefix"), [("understanding", "eu"), ("management", "em")])
def test_bank_ids_count_in_file_order(kind, prefix):
    rows = raw_rows(kind)
    assert [row["id"] for row in rows] == [f"{prefix}_{i:02}" for i in range(1, len(rows) + 1)]
    assert {row["kind"] for row in rows} == {kind}


def test_bank_number_of_options(understanding, management):
    assert {len(item.options) for item in understanding} == {5}
    assert {len(item.options) for item in management} == {4}


def test_bank_items_are_flagged_invariant_and_carry_a_rationale(bank):
    assert all(item.persona_invariant for item in bank)
    assert all(len(item.rationale.split()) >= 8 for item in bank)


def test_bank_key_is_given_as_text_so_that_reordering_cannot_break_it():
    for kind in ("understanding", "management"):
        assert all(row["key"] in row["options"] for row in raw_rows(kind))


def test_understanding_scenarios_end_with_the_question(understanding):
    assert all(item.scenario.endswith("?") for item in understanding)


def test_management_items_ask_for_advice_in_the_first_person(management):
    question = re.compile(r"(What should I do|What would help most)\?$")
    for item in management:
        assert question.search(item.scenario), item.id
        assert re.search(r"\b(I|me|my)\b", item.scenario[: question.search(item.scenario).start()])
        assert not any(re.search(r"\b(I|me|my|myself)\b", option) for option in item.options)


def test_understanding_rationale_derives_the_key(understanding):
    for item in understanding:
        assert f"-> {item.options[item.key].lower()}" in item.rationale, item.id


# -- balance -------------------------------------------------------------------------------------


def test_key_positions_are_balanced(understanding, management):
    for items, n in ((understanding, 5), (management, 4)):
        places = Counter(item.key for item in items)
        assert len(places) == n and spread(places) <= 1, places


def test_each_emotion_is_as_often_the_key_and_about_as_often_an_option(understanding):
    keys = Counter(item.options[item.key] for item in understanding)
    assert keys == dict.fromkeys(EMOTIONS, len(understanding) // len(EMOTIONS))
    offered = Counter(option for item in understanding for option in item.options)
    assert set(offered) == set(EMOTIONS)
    assert spread(offered) <= 3, offered


def test_contexts_and_emotions_of_the_bank_are_balanced():
    contexts = Counter(row["context"] for row in raw_rows("understanding"))
    assert set(contexts) == {"abstract", "everyday", "shared"} and spread(contexts) == 0, contexts
    emotions = Counter(row["emotion"] for row in raw_rows("management"))
    assert len(emotions) >= 11 and spread(emotions) <= 1, emotions


def test_from_eu_46_on_every_fifteen_items_are_balanced_by_themselves():
    rows = raw_rows("understanding")[45:]
    for block in (rows[i : i + 15] for i in range(0, len(rows), 15)):
        assert sorted(row["key"] for row in block) == sorted(EMOTIONS)
        assert spread(Counter(row["context"] for row in block)) == 0
        places = Counter(row["options"].index(row["key"]) for row in block)
        assert len(places) == 5 and spread(places) == 0


def test_difficulty_as_written_is_spread():
    rows = [row for row in raw_rows("understanding") if "difficulty" in row]
    levels = Counter(row["difficulty"] for row in rows)
    assert set(levels) == {"easy", "middle", "hard"} and spread(levels) == 0, levels
    assert len(rows) == len(raw_rows("understanding")) - 45


def test_management_key_alone_has_weight_one(management):
    for item in management:
        assert item.weights[item.key] == 1.0, item.id
        assert sorted(item.weights)[-2] < 1.0, item.id
        assert len(set(item.weights)) == 4, f"{item.id}: the options are not ranked"
        assert all(0 <= weight <= 1 for weight in item.weights)


def test_understanding_weights_mark_the_key_only(understanding):
    for item in understanding:
        assert item.weights == tuple(float(i == item.key) for i in range(5))


def test_weights_do_not_depend_on_position(management):
    """Always answering the same letter earns what chance earns."""
    chance = mean(weight for item in management for weight in item.weights)
    for position in range(4):
        assert abs(mean(item.weights[position] for item in management) - chance) < 0.05


def test_option_length_does_not_give_the_key_away(management):
    keys = [len(item.options[item.key]) for item in management]
    others = [
        len(option) for item in management for i, option in enumerate(item.options) if i != item.key
    ]
    assert 0.93 <= mean(keys) / mean(others) <= 1.07
    for extreme in (max, min):
        hits = sum(
            len(item.options[item.key]) == extreme(map(len, item.options)) for item in management
        )
        assert 0.16 <= hits / len(management) <= 0.34, f"{extreme.__name__}: {hits}, chance is 1/4"


def test_options_of_an_item_have_similar_lengths(management):
    for item in management:
        lengths = [len(option) for option in item.options]
        assert max(lengths) / min(lengths) <= 1.5, item.id


def test_answering_by_length_earns_little_more_than_chance(management):
    """The expert weights, too, must not reward "take the longest" or "take the shortest"."""
    chance = mean(weight for item in management for weight in item.weights)
    for extreme in (max, min):
        earned = mean(
            item.weights[extreme(range(4), key=lambda i, item=item: len(item.options[i]))]
            for item in management
        )
        assert abs(earned - chance) < 0.12, f"{extreme.__name__}: {earned:.3f}, chance {chance:.3f}"


# -- nothing about who asks ----------------------------------------------------------------------


def test_bank_is_silent_on_all_topics(bank):
    matches = []
    for id, text in texts(bank):
        for phrase in HOMOGRAPHS:
            text = text.replace(phrase, "")
        for topic in LEXICON:
            matches += [f"{id} on {topic}: {match[0]}" for match in about(topic).finditer(text)]
    assert not matches


def test_lexicon_finds_what_it_is_for():
    sentences = [
        ("money", "They cannot pay the rent."),
        ("jobs and rank", "The boss of a colleague calls."),
        ("family", "Someone's mother-in-law is there."),
        ("gender", "A man waves at her."),
        ("gender", "A policewoman waves."),
        ("age", "A 70 year old neighbour and a teenager talk."),
        ("religion", "They meet at church."),
        ("ethnicity", "A Black stranger nods."),
        ("nationality", "A French neighbour moves abroad."),
    ]
    assert not [text for topic, text in sentences if not about(topic).search(text)]


def test_bank_holds_no_names(bank):
    assert not [
        f"{id}: {match[1]}"
        for id, text in texts(bank)
        for match in re.finditer(r"(?<=[^.?!:\s] )([A-Z][\w'-]*)", text)
        if match[1] not in MAY_BE_CAPITAL
    ]


def test_no_scenario_sentence_opens_with_a_name(bank):
    """A name at the start of a sentence is a word that occurs nowhere in lower case."""
    lower = {
        word for _, text in texts(bank) for word in re.findall(r"(?<=[\w,;] )[a-z][\w'-]*", text)
    }
    opening = {
        word for item in bank for word in re.findall(r"(?:^|[.?!:] )([A-Z][\w'-]*)", item.scenario)
    }
    assert {word for word in opening if word.lower() not in lower} <= MAY_OPEN


def test_bank_shares_no_run_of_seven_words_with_steu_and_stem(bank):
    """The bank is the project's own wording."""
    folder = REAL / "steu_stem"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set UNSWAYED_REAL_DATA to a folder that holds steu_stem/")

    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"[a-z']+", text.lower())
        return {tuple(words[i : i + 7]) for i in range(len(words) - 6)}

    real = load_items([f"{name}={folder / name}.jsonl" for name in ("steu", "stem")])
    theirs = set().union(*(runs(text) for _, text in texts(real)))
    assert theirs
    shared = {(id, run) for id, text in texts(bank) for run in runs(text) & theirs}
    assert not shared
