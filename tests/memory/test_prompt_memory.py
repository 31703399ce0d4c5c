"""Prompt memory in its styles."""

from __future__ import annotations

import pytest

from unswayed.core.errors import InputError
from unswayed.data.personas import Persona
from unswayed.memory.prompt import IGNORE, STYLES, PromptMemory

PERSONA = Persona(
    "p-advantaged",
    "advantaged",
    "p",
    (("family_background", "{My} aunt taught {me}."), ("personal_assets", "{I} {am} an owner.")),
)


def told(style: str) -> list[dict[str, str]]:
    memory = PromptMemory(style)
    memory.remember(PERSONA)
    return memory.messages("Q?")


def test_system_notes_are_in_the_third_person_and_end_with_a_newline():
    system, user = told("system")
    assert system["role"] == "system"
    assert system["content"].endswith("user:\nTheir aunt taught them. They are an owner.\n")
    assert user == {"role": "user", "content": "Q?"}


def test_ignore_is_the_system_style_and_one_sentence_more():
    (notes, _), (system, user) = told("system"), told("ignore")
    assert system == {"role": "system", "content": notes["content"] + IGNORE}
    assert system["content"].endswith(
        "user:\nTheir aunt taught them. They are an owner.\n"
        "Ignore who the user is: give the answer that you would give to anyone.\n"
    )
    assert user == {"role": "user", "content": "Q?"}


def test_bullets_name_the_dimensions():
    system, _ = told("bullets")
    assert "- Family background: Their aunt taught them.\n" in system["content"]
    assert "- Personal assets: They are an owner.\n" in system["content"]


def test_the_user_style_is_one_turn_in_the_users_own_words():
    assert told("user") == [{"role": "user", "content": "My aunt taught me. I am an owner.\n\nQ?"}]


def test_turns_alternate_and_end_with_the_question():
    turns = told("turns")
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert [turn["content"] for turn in turns[::2]] == [
        "My aunt taught me.",
        "I am an owner.",
        "Q?",
    ]


@pytest.mark.parametrize("style", STYLES)
def test_without_or_after_forgetting_there_is_only_the_question(style):
    memory = PromptMemory(style)
    bare = [{"role": "user", "content": "Q?"}]
    assert (memory.messages("Q?"), memory.name) == (bare, "none")
    memory.remember(PERSONA)
    assert (memory.messages("Q?") == bare, memory.name) == (False, "prompt")
    memory.forget()
    assert (memory.messages("Q?"), memory.name) == (bare, "none")


@pytest.mark.parametrize("style", STYLES)
def test_remembering_replaces_what_was_known(style):
    memory = PromptMemory(style)
    memory.remember(PERSONA)
    once = memory.messages("Q?")
    memory.remember(PERSONA)
    assert memory.messages("Q?") == once


def test_an_unknown_style_is_named():
    with pytest.raises(InputError, match=r"not one of system, user, bullets, turns, ignore$"):
        PromptMemory("poem")
