"""Prompts per way of scoring, rendering for chat and base models, reading answers out of text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.items import LETTERS, builtin_items, make_item
from unswayed.scoring.chat import ChatFormat, plain_text
from unswayed.scoring.prompts import (
    RULES,
    SCORINGS,
    Likelihoods,
    continuations,
    option_order,
    question_text,
    reworded,
)
from unswayed.scoring.replies import extract_answer, strip_thinking
from unswayed.scoring.template import fold_system

ITEM = make_item(
    "t", "q1", "understanding", "It rains. What is felt?", ["Joy", "Sadness", "Fear"], "Joy"
)
SHOWN = ["Relief", "Sadness", "Deep sadness", "Anger", "Hope"]


def system_then(question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Notes.\n"}, {"role": "user", "content": question}]


def test_option_scoring_shows_no_options():
    assert question_text(ITEM, "option") == "It rains. What is felt?\nAnswer:"
    assert continuations(ITEM, "option") == ["Joy", "Sadness", "Fear"]
    assert option_order(ITEM, "option", seed=5) == [0, 1, 2]


@pytest.mark.parametrize("scoring", ["letter", "generate"])
@given(seed=st.integers(0, 1000))
def test_letters_point_at_their_options_whatever_the_order(scoring, seed):
    lines = question_text(ITEM, scoring, seed).splitlines()
    listed = {line[0]: line[3:] for line in lines if line[1:3] == ". " and line[0] in LETTERS}
    order = option_order(ITEM, scoring, seed)
    assert sorted(order) == [0, 1, 2]
    assert [listed[letter] for letter in "ABC"] == [ITEM.options[i] for i in order]
    if scoring == "letter":
        by_item = [listed[letter] for letter in continuations(ITEM, "letter", seed)]
        assert by_item == list(ITEM.options)


def test_the_order_depends_on_seed_and_item_and_leaves_no_position_bias():
    items = builtin_items()
    orders = {seed: [option_order(i, "letter", seed) for i in items] for seed in (0, 1)}
    assert orders[0] != orders[1]
    assert orders[0] == [option_order(i, "letter", 0) for i in items]
    places = [order.index(i.key) for i, order in zip(items, orders[0], strict=True)]
    assert all(places.count(place) >= 10 for place in range(4))


def test_each_rule_picks_by_its_formula():
    options = Likelihoods(["Joy", "Happiness", "Fear"], [-4.0, -6.0, -5.0], [1, 2, 2], [-3, -4, -9])
    assert options.scores("sum") == [-4.0, -6.0, -5.0]
    assert options.scores("char") == [-4 / 3, -6 / 9, -5 / 4]
    assert options.scores("token") == [-4.0, -3.0, -2.5]
    assert options.scores("pmi") == [-1.0, -2.0, 4.0]
    assert [options.pick(rule) for rule in RULES] == [0, 1, 2, 2]
    assert [options.blind_pick(rule) for rule in RULES] == [0, 1, 1, 0]  # priors; pmi: by the sum
    assert Likelihoods(["ab", "cd"], [-1.0, -1.0]).pick("char") == 0  # the first of equals


@pytest.mark.parametrize(
    "rule, what", [("token", "tokens"), ("pmi", "scenario"), ("best", "not one of")]
)
def test_a_rule_that_lacks_its_numbers_is_refused(rule, what):
    with pytest.raises(InputError, match=what):
        Likelihoods(["a", "b"], [-1.0, -2.0]).scores(rule)


@given(seed=st.integers(0, 99), extra=st.integers(0, 9))
def test_orders_put_each_option_under_each_letter_before_one_comes_again(seed, extra):
    item = make_item(
        "t", f"q{extra}", "understanding", "S", [str(i) for i in range(2 + extra)], "0"
    )
    n = len(item.options)
    places = [[option_order(item, "letter", seed, turn).index(i) for turn in range(n)]
              for i in range(n)]  # fmt: skip
    assert all(sorted(row) == list(range(n)) for row in places)
    for turn in range(2 * n):
        assert sorted(option_order(item, "letter", seed, turn)) == list(range(n))


def test_the_blind_question_is_the_frame_without_the_scenario():
    for scoring in SCORINGS:
        blind = question_text(ITEM, scoring, 3, blind=True)
        assert question_text(ITEM, scoring, 3) == f"{ITEM.scenario}\n{blind}"
        messages = system_then(f"I am a baker.\n\n{question_text(ITEM, scoring, 3)}")
        other = reworded(messages, question_text(ITEM, scoring, 3), blind)
        assert other == system_then(f"I am a baker.\n\n{blind}")
    with pytest.raises(InputError, match="rewrites the question"):
        reworded(system_then("Say it in French: what is felt?"), "What is felt?", "Answer:")


def test_more_options_than_letters_that_models_give_are_refused():
    item = make_item("t", "q", "understanding", "S", [str(i) for i in range(11)], "0")
    with pytest.raises(InputError, match="11 options"):
        continuations(item, "letter")


# -- rendering -----------------------------------------------------------------------------------


class Backend:
    """What ChatFormat needs of a language model: a tokenizer and its chat template."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer


def test_a_chat_template_with_a_system_role_is_used_as_it_is(tiny_tokenizer):
    chat = ChatFormat(Backend(tiny_tokenizer(chat=True)))
    assert chat.render(system_then("Q?")) == (
        "<|im_start|>system\nNotes.\n<|im_end|>\n<|im_start|>user\nQ?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert (chat.note, chat.delimiter) == ("", "")


@pytest.mark.parametrize(
    "refusal",
    [
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}",
        "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}",
    ],
    ids=["raises", "drops"],
)
def test_without_a_system_role_the_memory_moves_into_the_user_turn(refusal, tiny_tokenizer):
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = refusal + tokenizer.chat_template
    chat = ChatFormat(Backend(tokenizer))
    text = chat.render(system_then("Q?"))
    assert "<|im_start|>user\nNotes.\n\nQ?<|im_end|>" in text
    assert "no system role" in chat.note


def test_a_base_model_reads_plain_text(tiny_tokenizer):
    chat = ChatFormat(Backend(tiny_tokenizer()))
    assert chat.render(system_then("Q?\nAnswer:")) == "Notes.\nQ?\nAnswer:"
    assert chat.delimiter == " "
    assert "no chat template" in chat.note


def test_earlier_turns_keep_their_speakers_in_plain_text():
    turns = [
        {"role": "user", "content": "I live alone."},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": "Q?\nAnswer:"},
    ]
    assert plain_text(turns) == "User: I live alone.\nAssistant: Noted.\nUser: Q?\nAnswer:"


def test_folding_keeps_later_turns():
    rest = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    folded = fold_system(system_then("Q?") + rest)
    assert folded == [{"role": "user", "content": "Notes.\n\nQ?"}, *rest]
    assert fold_system(rest) == rest


# -- answers -------------------------------------------------------------------------------------


def test_an_answer_is_found():
    expected = [
        ("B", 1),
        ("b", 1),
        ("(D)", 3),
        ("**E**", 4),
        ("D.", 3),
        ("Answer: D", 3),
        ("Answer: **D**", 3),
        ("The answer is (d).", 3),
        ("The best option is E.", 4),
        ("Answer: A\nNo, wait. Answer: E", 4),  # the last statement counts
        ("B. Sadness", 1),
        ("(B) Sadness, because something is lost.", 1),
        ('{"answer": "D"}', 3),
        ('Sure:\n```json\n{"reason": "loss", "answer": "Sadness"}\n```', 1),
        ("Answer: Hope", 4),
        ("They would feel anger, I think.", 3),
        ("deep sadness", 2),  # not also the shorter label inside it
        ("The answer is D because they were wronged.", 3),
        ("<think>Maybe A, or B?</think>Answer: D", 3),
        ("<THINK>A</THINK>\n\nE", 4),
        ("...so it must be A.</think>\nAnswer: D", 3),  # opened in the prompt
        ("<think>Answer: A</think><think>Answer: B</think>Answer: E", 4),
    ]
    assert [(text, extract_answer(text, SHOWN)) for text, _ in expected] == expected


def test_what_states_no_answer_stays_unparsed():
    texts = [
        "",
        "   ",
        "I cannot say.",
        "F",  # no such letter
        "Answer: Z",
        "Anger or hope",  # two labels
        "A person like this would not care.",
        "The answer is a feeling that is hard to name.",
        "Answer: A person would be torn.",
        "<think>Answer: B",  # never stopped thinking
        '{"answer": null}',
        '{"answer": "B"',
        "A. Relief\nB. Sadness",  # lists them all
        "hopeless",  # not the word
    ]
    assert not [text for text in texts if extract_answer(text, SHOWN) is not None]


@given(st.text(max_size=200))
def test_any_text_gives_an_option_or_nothing(text):
    assert extract_answer(text, SHOWN) in (None, 0, 1, 2, 3, 4)


@given(
    st.integers(0, 4),
    st.sampled_from(
        ["{x}", "Answer: {x}", "{x}.", "({x})", "**{x}**", "The answer is {x}.", "{json}"]
    ),
    st.booleans(),
    st.text(st.characters(blacklist_characters="<>"), max_size=40),
)
def test_every_usual_form_of_a_letter_or_label_is_read(index, form, label, thought):
    value = SHOWN[index] if label else LETTERS[index]
    text = form.format(x=value, json=json.dumps({"answer": value}))
    assert extract_answer(f"<think>{thought}</think>{text}", SHOWN) == index


def test_thinking_is_removed_and_the_rest_kept():
    assert strip_thinking("<think>x</think> Yes <reasoning>y</reasoning>!") == "Yes !"
    assert strip_thinking("x</think>Yes") == "Yes"
    assert strip_thinking("Yes <think>but") == ""
    assert strip_thinking("[THINK]A[/THINK]B <seed:think>C</seed:think>") == "B"
    assert strip_thinking("<thought>A, or") == ""
