"""Extractive questions on conversations: truth, balance, and that nothing is tested as trained."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.conversations import (
    Conversation,
    builtin_conversations,
    builtin_facts,
    builtin_near,
    make_conversation,
)
from unswayed.data.texts import visible
from unswayed.plum.augment import Augmented, normalised
from unswayed.plum.augment import extract_pairs as extract
from unswayed.plum.phrases import (
    bank_phrases,
    content_stems,
    key_phrases,
    near_first,
    sentences,
    spoken_stems,
)
from unswayed.plum.qa import NEW_PHRASE, REPHRASED, TRAIN, bank_pairs
from unswayed.plum.settings import AugmentSettings
from unswayed.plum.words import bank, wording

BANK = builtin_conversations()


def extract_pairs(conversations, near=None, **augment) -> Augmented:
    return extract(conversations, AugmentSettings(**augment), near)


USES = (TRAIN, REPHRASED, NEW_PHRASE)


def talk(id: str, *texts: str) -> Conversation:
    roles = itertools.cycle(("user", "assistant"))
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return make_conversation(id, None, turns)


BREAD = talk(
    "bread",
    "My rye bread turns out like a brick. I bake it in the blue tin.",
    "Add water to the dough, with caraway on the crust. Your oven needs a stone.",
)
TRIP = talk(
    "trip",
    "I booked a cabin at Lake Ostrel with my friend Tamsin.",
    "Take the rowing boat on a calm morning. Keep the tower for the rain.",
)


@pytest.fixture(scope="module")
def augmented():
    return extract_pairs(BANK, near=builtin_near(), seed=1)


# -- the bank of wordings ------------------------------------------------------------------------


def test_wordings_are_many_and_disjoint():
    for kind in ["contexts", "closed", "open", "outline"]:
        train, held_out = (wording(kind, use) for use in (TRAIN, REPHRASED))
        assert len(set(map(normalised, train))) == len(train) >= 12
        assert len(set(map(normalised, held_out))) == len(held_out) >= 8
        assert not set(map(normalised, train)) & set(map(normalised, held_out))
        field = "{topic}" if kind in ("contexts", "outline") else "{phrase}"
        assert all(text.count(field) == 1 and text.count("{") == 1 for text in train + held_out)


def test_unrelated_phrases_differ_and_are_in_no_conversation_of_the_bank():
    phrases = bank_phrases(bank("questions")["unrelated"])
    assert not any(a.overlaps(b) for a, b in itertools.combinations(phrases, 2))
    talks = [spoken_stems(one) for one in BANK]
    assert not [p.text for p in phrases if any(p.said_in(words) for words in talks)]


# -- phrases -------------------------------------------------------------------------------------


def texts(conversation: Conversation) -> list[str]:
    return [phrase.text for phrase in key_phrases([conversation, TRIP])[0]]


def test_phrases_are_noun_phrases_with_their_article_seen_from_the_user():
    found = texts(BREAD)
    assert found[0] == "my rye bread"  # names the conversation
    assert {"the blue tin", "a brick", "the dough", "caraway", "my oven"} <= set(found)
    assert not any("bake" in text or "turns" in text for text in found)


def test_answers_turn_my_into_your():
    by_text = {phrase.text: phrase for phrase in key_phrases([BREAD, TRIP])[0]}
    assert by_text["my rye bread"].in_answer == "your rye bread"
    assert by_text["the dough"].in_answer == "the dough"


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("The owner leaves the key in the box.", "owner leaves"),  # a verb with its object
        ("The very quickly growing tree stands in the yard.", "quickly"),
        ("She spoke of the the tower and of a of the wall.", "the the"),
        ("This takes time in the garden.", "takes"),
        ("Print it:\n```python\nfoo = the_bar(1)\n```\nUse the printer.", "bar"),
        ("params = {'model': x};\nUse the printer.", "params"),
    ],
)
def test_what_is_no_phrase(text, absent):
    found = texts(talk("x", text, "Fine with the plan."))
    assert found
    assert not [phrase for phrase in found if absent in phrase]


def test_no_phrase_is_part_of_another():
    for first, *others in key_phrases(BANK):
        assert not any(a.overlaps(b) for a, b in itertools.combinations(others, 2))
        assert not any(other.key <= first.key for other in others)


def test_phrases_occur_in_their_conversation():
    for one, phrases in zip(BANK, key_phrases(BANK), strict=True):
        whole = " ".join(" ".join(turn["content"] for turn in one.turns).split()).casefold()
        for phrase in phrases:
            assert phrase.said_in(spoken_stems(one))
            words = phrase.text.split(" ", 1)[-1] if " " in phrase.text else phrase.text
            assert words.casefold() in whole


def test_inflected_phrases_count_as_said():
    (phrase,) = bank_phrases(["a rowing boat"])
    assert phrase.said_in(spoken_stems(talk("x", "We rowed in boats.", "Nice.")))
    assert not phrase.said_in(spoken_stems(talk("x", "A boat came.", "Nice.")))


def test_nearest_conversation_is_the_one_with_the_same_words():
    other = talk(
        "b", "Rye bread needs caraway and a hot stone.", "And a blue tin, dough and water."
    )
    assert near_first([BREAD, TRIP, other])[0] == [2, 1]


def test_sentences_keep_numbers_and_addresses_whole():
    text = "It costs 3.50 at shop.example today. Is it far? No!\n- Bring a bag"
    assert list(sentences(text)) == [
        "It costs 3.50 at shop.example today.", "Is it far?", "No!", "Bring a bag"
    ]  # fmt: skip


# -- truth ---------------------------------------------------------------------------------------


def test_yes_is_said_and_no_is_not(augmented):
    words = {one.id: spoken_stems(one) for one in BANK}
    kinds = {"yes": True, "open": True, "no": False, "open-no": False}
    checked = 0
    for question in augmented.questions:
        if question.phrase:
            stems = set(content_stems(question.phrase))
            assert (stems <= words[question.pair.conversation]) == kinds[question.pair.kind]
            checked += 1
    assert checked > 2000


def test_a_question_without_its_conversation_is_true_whatever_else_is_said(augmented):
    """What is "no" now must not become "yes" with a later conversation."""
    topics = {one.id: found[0].text for one, found in zip(BANK, key_phrases(BANK), strict=True)}
    talks = [spoken_stems(one) for one in BANK]
    bare = [
        question
        for question in augmented.questions
        if question.phrase
        and not any(
            context.format(topic=topics[question.pair.conversation]) in question.pair.question
            for use in (TRAIN, REPHRASED)
            for context in wording("contexts", use)
        )
    ]
    assert {question.pair.kind for question in bare} == {"yes", "no"}
    for question in bare:
        stems = set(content_stems(question.phrase))
        assert any(stems <= words for words in talks) == (question.pair.kind == "yes")


def test_a_topic_that_two_conversations_share_makes_no_false_no():
    one, other = (
        talk(
            id,
            f"My rye bread is dark. Rye bread of this kind needs {first}, not {second}.",
            f"Rye bread needs time. Put the rye bread into {third}, and taste the rye bread later.",
        )
        for id, first, second, third in (
            ("one", "caraway", "a stone", "the oven"), ("other", "foil", "the rack", "a basket")
        )
    )  # fmt: skip
    found = extract_pairs([one, TRIP, other])
    named = [q for q in found.questions if q.pair.kind == "no" and q.pair.conversation != "trip"]
    assert sum("rye bread" in q.pair.question for q in named) > len(named) / 2
    for question in named:
        stems = set(content_stems(question.phrase))
        assert not stems <= spoken_stems(one)
        assert not stems <= spoken_stems(other)


def test_open_answers_are_sentences_with_their_speaker(augmented):
    lines = {one.id: [(t["role"], t["content"]) for t in one.turns] for one in BANK}
    quotes = [q for q in augmented.questions if q.pair.kind == "open" and q.phrase]
    assert quotes
    for question in quotes:
        who, line = question.pair.answer.removesuffix('"').split(' said: "')
        role = {"You": "user", "I": "assistant"}[who]
        assert any(role == r and line in text for r, text in lines[question.pair.conversation])


def test_open_answers_on_the_whole_name_phrases_of_the_conversation(augmented):
    words = {one.id: spoken_stems(one) for one in BANK}
    whole = [q for q in augmented.questions if q.pair.kind == "open" and not q.phrase]
    assert {q.pair.conversation for q in whole} == set(words)
    for question in whole:
        stems = set(content_stems(question.pair.answer)) - set(content_stems("talked"))
        assert stems
        assert stems <= words[question.pair.conversation]


# -- balance -------------------------------------------------------------------------------------


def test_shares_are_exact():
    for share, negatives in [
        (0.0, "near"),
        (0.25, "random"),
        (0.5, "unrelated"),
        (0.625, "mixed"),
        (1.0, "near"),
    ]:
        found = extract_pairs(BANK[:8], positive_share=share, negatives=negatives, open_share=0.2)
        kinds = Counter(
            (q.pair.conversation, q.pair.kind) for q in found.questions if q.use == TRAIN
        )
        for one in BANK[:8]:
            got = [kinds[one.id, kind] for kind in ("yes", "no", "open", "open-no")]
            assert got == [32 * share, 32 - 32 * share, round(8 * share), 8 - round(8 * share)]
        if negatives != "mixed" and share < 1:
            sources = {q.source for q in found.questions if (q.use, q.pair.kind) == (TRAIN, "no")}
            assert sources == {negatives}


def test_negatives_are_mixed_in_thirds(augmented):
    counts = augmented.counts()
    assert len({counts[TRAIN, "no", source] for source in ("near", "random", "unrelated")}) == 1


def test_held_out_sets_are_balanced(augmented):
    for use in (REPHRASED, NEW_PHRASE):
        kinds = Counter(pair.kind for pair in augmented.pairs(use))
        assert kinds["yes"] == kinds["no"] == 4 * len(BANK)


def test_no_form_of_a_question_gives_the_answer_away(augmented):
    """Bare and named questions are both half yes and half no."""
    starts = tuple(
        context.split("{", 1)[0]
        for use in (TRAIN, REPHRASED)
        for context in wording("contexts", use)
    )
    forms = Counter(
        (pair.kind, pair.question.startswith(starts))
        for pair in augmented.pairs()
        if pair.kind in ("yes", "no")
    )
    assert forms["yes", True] == forms["no", True] > forms["yes", False] == forms["no", False] > 0


def test_near_takes_phrases_of_the_given_conversation():
    few = [one for one in BANK if one.id in ("trip_lake", "trip_coast", "bread_rye", "pet_cat")]
    found = extract_pairs(few, near={"trip_lake": "pet_cat"}, negatives="near")
    cat = spoken_stems(next(one for one in few if one.id == "pet_cat"))
    mine = [q for q in found.questions if q.pair.conversation == "trip_lake" and q.use == TRAIN]
    asked = [set(content_stems(q.phrase)) for q in mine if q.pair.kind == "no"]
    assert asked
    assert all(stems <= cat for stems in asked)


# -- nothing is tested as trained ----------------------------------------------------------------

TEXTS = (
    "the a my of with to bread Lake boat at all? did we talk about come up garden, river: BIKE "
    "tower. Tamsin und Straße 東京 мост 3.5 x=1; ``` - * it is in our chat plums"
)
WORDS = st.sampled_from(TEXTS.split())
TEXT = st.one_of(
    st.lists(WORDS, min_size=1, max_size=40).map(" ".join),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
    st.sampled_from([turn["content"] for one in BANK for turn in one.turns]),
).filter(visible)
SETS = st.lists(
    st.integers(1, 3).flatmap(lambda n: st.lists(TEXT, min_size=2 * n, max_size=2 * n)),
    min_size=1,
    max_size=5,
).map(lambda talks: [talk(f"c{i}", *turns) for i, turns in enumerate(talks)])


@settings(max_examples=60)
@given(
    SETS,
    st.integers(0, 3),
    st.sampled_from(["mixed", "unrelated"]),
    st.sampled_from([0.0, 0.4, 0.5, 1.0]),
    st.integers(1, 60),
)
@example([BREAD, talk("b2", *[t["content"] for t in BREAD.turns])], 0, "mixed", 0.5, 40)
@example(
    [
        talk("a", "the", "the"),
        talk("b", "with bread bread bread bread talk", "0", "bread", "0", "the", "0"),
    ],
    0,
    "mixed",
    0.4,
    6,
)
def test_no_evaluation_question_is_trained_on(conversations, seed, negatives, share, number):
    try:
        found = extract_pairs(
            conversations,
            seed=seed,
            negatives=negatives,
            positive_share=share,
            per_conversation=number,
        )
    except InputError as error:
        assert "key phrases" in str(error)
        return
    train = {normalised(pair.question) for pair in found.pairs()}
    tested = [normalised(pair.question) for use in USES[1:] for pair in found.pairs(use)]
    assert not train & set(tested)
    assert len(tested) == len(set(tested))
    for use in USES[1:]:
        kinds = Counter(pair.kind for pair in found.pairs(use))
        assert kinds["yes"] == kinds["no"]
    asked = {frozenset(content_stems(q.phrase)) for q in found.questions if q.use == TRAIN}
    new = {frozenset(content_stems(q.phrase)) for q in found.questions if q.use == NEW_PHRASE}
    assert not asked & new
    total = Counter(q.pair.conversation for q in found.questions if q.use == TRAIN)
    missing = Counter()
    for (id, reason), count in found.left_out.items():
        missing[id] += count if "as many pairs" in reason else 0
    wholly = {id for id, reason in found.left_out if "fewer than 3" in reason}
    for one in conversations:
        assert total[one.id] + missing[one.id] == (0 if one.id in wholly else number)


def test_no_evaluation_question_is_trained_on_in_the_bank(augmented):
    train = {normalised(pair.question) for pair in augmented.pairs()}
    for use in USES[1:]:
        assert not train & {normalised(pair.question) for pair in augmented.pairs(use)}


def test_rephrased_questions_ask_about_trained_phrases():
    for number in [12, 40, 64]:
        found = extract_pairs(BANK, per_conversation=number).questions
        asked = {(q.pair.conversation, q.phrase) for q in found if q.use == TRAIN}
        again = {(q.pair.conversation, q.phrase) for q in found if q.use == REPHRASED}
        closed = {(q.pair.conversation, q.phrase) for q in found
                  if q.use == REPHRASED and q.pair.kind in ("yes", "no")}  # fmt: skip
        assert closed <= asked
        assert number < 40 or again <= asked


def test_quoted_new_phrases_stand_in_a_training_answer(augmented):
    told: dict[str, list[set[str]]] = {}
    for pair in augmented.pairs():
        if pair.kind == "open":
            told.setdefault(pair.conversation, []).append(set(content_stems(pair.answer)))
    new = [q for q in augmented.questions if q.use == NEW_PHRASE and q.pair.kind == "yes"]
    assert {q.quoted for q in new} == {True, False}
    for q in new:
        stems = set(content_stems(q.phrase))
        assert q.quoted == any(stems <= answer for answer in told[q.pair.conversation])


def test_ablations_are_tested_on_the_same_closed_questions():
    for augment in [
        {"negatives": "near"},
        {"negatives": "random"},
        {"negatives": "unrelated"},
        {"positive_share": 0.375},
        {"positive_share": 0.625},
        {"per_conversation": 80},
    ]:

        def tested(**augment):
            questions = extract_pairs(BANK[:10], **augment)
            return [p for use in USES[1:] for p in questions.pairs(use) if p.kind in ("yes", "no")]

        assert tested(**augment) == tested()


def test_seed_decides():
    assert extract_pairs(BANK[:5], seed=3) == extract_pairs(BANK[:5], seed=3)
    assert extract_pairs(BANK[:5], seed=3) != extract_pairs(BANK[:5], seed=4)


# -- the built-in facts --------------------------------------------------------------------------


def test_bank_pairs():
    facts = builtin_facts()
    train, held_out = bank_pairs(facts)
    assert [len(train), len(held_out)] == [3 * len(facts)] * 2
    for pairs in (train, held_out):
        assert set(Counter(pair.kind for pair in pairs).values()) == {len(facts)}
    assert not {normalised(p.question) for p in train} & {normalised(p.question) for p in held_out}
    first, fact = train[:3], facts[0]
    assert [p.question for p in first] == [fact.question, fact.yes, fact.no]
    assert [p.answer for p in first] == [fact.answer, "Yes", "No"]
    assert {p.question for p in held_out[:3]} == {
        fact.held_out_question, fact.held_out_yes, fact.held_out_no
    }  # fmt: skip


# -- edges ---------------------------------------------------------------------------------------


def test_wrong_settings():
    for augment, message in [
        ({"per_conversation": 0}, "at least 1"),
        ({"positive_share": 1.5}, "from 0 to 1"),
        ({"open_share": -0.1}, "from 0 to 1"),
        ({"negatives": "far"}, "'far' is not one of"),
        ({"wordings": 0}, "from 1 to 12"),
        ({"held_out": 3}, "even"),
    ]:
        with pytest.raises(InputError, match=message):
            extract_pairs([BREAD, TRIP], **augment)


def test_nothing_to_ask_about():
    with pytest.raises(InputError, match="none of 1 conversations"):
        extract_pairs([talk("hi", "Hi!", "Hello!")])
    with pytest.raises(InputError, match="no conversations"):
        extract_pairs([])
    with pytest.raises(InputError, match="need other conversations"):
        extract_pairs([BREAD], negatives="near")


def test_what_is_left_out_is_named_and_logged(caplog):
    found = extract_pairs([BREAD, talk("hi", "Hi!", "Hello!"), TRIP])
    assert {id for id, reason in found.left_out if "fewer than 3" in reason} == {"hi"}
    assert "fewer than 3 key phrases" in caplog.text
    assert "first hi" in caplog.text


def test_one_conversation_has_unrelated_negatives_only():
    found = extract_pairs([BREAD])
    assert {q.source for q in found.questions if q.pair.kind == "no"} == {"unrelated"}
    assert any("near" in reason for _, reason in found.left_out)


@pytest.mark.parametrize(
    "texts",
    [
        ("Ich backe Brot mit Roggenmehl und Kümmel.", "Nimm mehr Wasser, und lass den Teig ruhen."),
        ("Мы поедем к озеру с палаткой.", "Возьмите лодку, хлеб и тёплую одежду для вечера."),
        ("今日は公園、図書館、博物館に行きました。", "素晴らしい、天気、写真、思い出ですね。"),
    ],
)
def test_other_languages_give_questions(texts):
    found = extract_pairs([talk("x", *texts), BREAD])
    mine = [q for q in found.questions if q.pair.conversation == "x" and q.pair.kind == "yes"]
    assert mine
    whole = " ".join(texts).casefold()
    assert all(q.phrase.casefold() in whole for q in mine)
