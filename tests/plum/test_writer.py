"""Pairs that a model writes: what is kept, what is dropped and why."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.conversations import builtin_conversations, make_conversation
from unswayed.models.adapters import read_manifest
from unswayed.models.base import load_base
from unswayed.plum.augment import Augmented
from unswayed.plum.experiment import finished, run_experiment
from unswayed.plum.material import PlumExperiment
from unswayed.plum.memory import read_training
from unswayed.plum.phrases import spoken_stems
from unswayed.plum.qa import QAPair
from unswayed.plum.recipe import run_recipe
from unswayed.plum.remember import chosen_settings
from unswayed.plum.settings import AugmentSettings, PlumSettings
from unswayed.plum.words import bank
from unswayed.plum.writer import example_pairs, prompts, read_line, write_pairs

BREAD = make_conversation(
    "bread",
    None,
    [
        {
            "role": "user",
            "content": "My rye bread turns out like a brick. I bake it in a blue tin.",
        },
        {"role": "assistant", "content": "Add water to the dough, and caraway on the crust."},
    ],
)
TRIP = make_conversation(
    "trip",
    None,
    [
        {"role": "user", "content": "I booked a cabin at Lake Ostrel with Tamsin."},
        {"role": "assistant", "content": "Take the rowing boat on a calm morning."},
    ],
)
PARTY = make_conversation(
    "party",
    None,
    [
        {"role": row.split(": ", 1)[0].lower(), "content": row.split(": ", 1)[1]}
        for row in bank("writer")["example"].split("\n")
    ],
)
YES = ("yes", "Did we talk about caraway on my bread?", "Yes")
NO = ("no", "Did we talk about sesame on my bread?", "No")
OPEN = ("open", "In which tin do I bake my bread?", "a blue tin")
OPEN_NO = ("open-no", "What did we say about sesame bread?", "We did not talk about sesame.")
GOOD = [YES, NO, OPEN, OPEN_NO]


def line(kind: str, question: str, answer: str) -> str:
    return json.dumps({"kind": kind, "question": question, "answer": answer})


def asking(*texts: str):
    """A model that writes these texts whatever it is asked."""
    return lambda prompts: list(texts)


def pairs_of(*rows: tuple[str, str, str], held_out=()) -> Augmented:
    text = "\n".join(line(*row) for row in rows)
    return write_pairs([BREAD], asking(text, ""), 4, held_out)


def dropped(written: Augmented) -> dict[str, int]:
    return {reason: n for (_, reason), n in written.left_out.items()}


def test_good_lines_of_every_kind_are_kept_in_order():
    written = pairs_of(*GOOD)
    assert written.pairs() == [QAPair("bread", *row) for row in GOOD]
    assert not written.left_out


def test_bad_lines_are_counted_by_reason():
    for text, reason in [
        ("1. Did we talk about bread?", "not JSON"),
        ('{"kind": "yes", "question": "Bread?", "answer": "Yes"', "not JSON"),
        ('["yes", "Bread?", "Yes"]', "not an object with kind, question and answer"),
        ('{"kind": "yes", "question": "Bread?"}', "not an object with kind, question and answer"),
        ('{"kind": "yes", "question": "Bread?", "answer": true}', "a value that is no text"),
        ('{"kind": "yes", "question": " ", "answer": "Yes"}', "a value that is no text"),
        (line("maybe", "Did we talk about bread?", "Yes"), "unknown kind"),
        (line("yes", "We talked about bread.", "Yes"), "not a question"),
        (line("yes", "Did this conversation mention bread?", "Yes"), "points at the text"),
        (line("open", "What does the text above say of bread?", "water"), "points at the text"),
        (line("no", "What did we say of sesame?", "No"), "open question of a closed kind"),
        (line("yes", "Did we talk about bread?", "No"), "answer contradicts the kind"),
        (line("no", "Did we talk about sesame?", "No sesame"), "answer contradicts the kind"),
        (line("open-no", "What of sesame did we say?", "Sesame."), "answer denies nothing"),
        (line("yes", "Did we talk about it?", "Yes"), "asks about nothing"),
        (line("open", "Do I bake it in a blue tin?", "a blue tin"), "question holds its answer"),
        (line("open", "In which tin do I bake?", "a red tin"), "not said in the conversation"),
        (line("yes", "Did we talk about sesame?", "Yes"), "not said in the conversation"),
        (line("no", "Did we talk about baking bread?", "No"), "may have been said"),
        (line("open-no", "What about the dough?", "Not said."), "may have been said"),
    ]:
        assert read_line(text, "bread", spoken_stems(BREAD)) == reason
        written = write_pairs([BREAD], asking(text, ""), 4)
        assert (written.pairs(), written.left_out) == ([], {("bread", reason): 1})


def test_repeated_questions_are_dropped_also_in_other_spelling():
    again = ("yes", "did we talk about caraway, on my BREAD ?", "Yes")
    written = pairs_of(*GOOD, again)
    assert written.pairs() == [QAPair("bread", *row) for row in GOOD]
    assert dropped(written) == {"repeats a question": 1}


def test_evaluation_questions_are_never_trained_on():
    held_out = [QAPair("bread", "yes", "Did we talk about CARAWAY on my bread", "Yes")]
    written = pairs_of(YES, NO, held_out=held_out)
    assert not written.pairs()
    assert dropped(written) == {"is an evaluation question": 1, "in excess of its counterpart": 1}


def test_copies_of_the_examples_are_dropped():
    rows = "\n".join(line(p.kind, p.question, p.answer) for p in example_pairs())
    written = write_pairs([PARTY], asking(rows, ""), 4)
    assert not written.pairs()
    assert dropped(written) == {"copies the example": len(example_pairs())}


def test_the_example_is_itself_valid_and_balanced():
    for pair in example_pairs():
        row = line(pair.kind, pair.question, pair.answer)
        assert read_line(row, "", spoken_stems(PARTY)) == pair
    assert set(Counter(pair.kind for pair in example_pairs()).values()) == {2}


def test_balance_is_restored_in_each_conversation_by_dropping_the_last():
    more = ("yes", "Did we talk about a brick?", "Yes")
    written = pairs_of(YES, more, NO, OPEN)
    assert written.pairs() == [QAPair("bread", *YES), QAPair("bread", *NO)]
    assert dropped(written) == {"in excess of its counterpart": 2}


def test_pairs_belong_to_the_conversation_they_were_written_for():
    boat = ("yes", "Did we talk about the rowing boat?", "Yes")
    tent = ("no", "Did we talk about a tent?", "No")
    written = write_pairs(
        [BREAD, TRIP],
        asking(line(*YES), line(*NO), "```json\n" + line(*boat) + "\n```", line(*tent)),
        4,
    )
    assert [(p.conversation, p.kind) for p in written.pairs()] == [
        ("bread", "yes"), ("bread", "no"), ("trip", "yes"), ("trip", "no")
    ]  # fmt: skip
    assert not written.left_out


ROWS = st.one_of(
    st.text(max_size=30),
    st.sampled_from([line(*row) for row in GOOD]),
    st.builds(line, st.sampled_from(["yes", "no", "open", "?"]), st.text(), st.text()),
    st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s), max_leaves=5).map(
        json.dumps
    ),
)


@given(st.lists(st.lists(ROWS).map("\n".join), min_size=4, max_size=4))
def test_every_line_is_either_a_pair_or_counted(texts):
    written = write_pairs([BREAD, TRIP], asking(*texts), 4)
    lines = [text for text in "\n".join(texts).split("\n") if text.strip()]
    fences = sum(text.strip().startswith("```") for text in lines)
    assert len(lines) - fences == len(written.pairs()) + sum(written.left_out.values())
    for one in (BREAD, TRIP):
        kinds = Counter(pair.kind for pair in written.pairs() if pair.conversation == one.id)
        assert kinds["yes"] == kinds["no"]
        assert kinds["open"] == kinds["open-no"]


def test_prompts_hold_the_whole_conversation_and_the_number():
    one = builtin_conversations()[0]
    both = prompts(one, 16)
    assert len(both) == 2
    for messages in both:
        assert [message["role"] for message in messages] == ["user", "assistant", "user"]
        assert "Write 8 questions" in messages[2]["content"]
        assert all(turn["content"] in messages[2]["content"] for turn in one.turns)


def test_the_number_of_pairs_is_in_balance():
    with pytest.raises(InputError, match="multiple of 4"):
        AugmentSettings(per_conversation=6, writer="self")


# -- the door in recipes -------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path, tiny_model_dir) -> dict:
    """Of a recipe whose model writes questions on two conversations."""
    rows = [{"id": one.id, "messages": list(one.turns)} for one in (BREAD, TRIP)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": str(tiny_model_dir("llama", chat=True, max_position_embeddings=8192)),
        "users": {"me": [f"chat={tmp_path / 'mine.jsonl'}"]},
        "output_dir": str(tmp_path / "out"),
        "augment": {"writer": "self", "per_conversation": 4, "held_out": 2},
        "settings": {"rank": 2, "epochs": 1},
    }


def train(tmp_path, keys: dict) -> int:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(keys))
    return run_recipe("", ["--config", str(tmp_path / "run.yaml")])


def test_a_model_that_writes_nothing_of_use_is_refused(tmp_path, keys, capsys):
    assert train(tmp_path, keys) == 2
    error = capsys.readouterr().err
    assert "wrote nothing on 2 conversations that can be used: take a larger writer" in error


def test_what_the_model_writes_is_trained(tmp_path, keys, monkeypatch):
    told = []

    def replies(lm, texts, new_tokens):
        told.extend(texts)
        return [line(*YES), line(*NO), "I would rather not.", ""]

    monkeypatch.setattr("unswayed.scoring.ask.replies", replies)
    assert train(tmp_path, keys) == 0
    assert len(told) == 4 and "blue tin" in told[0] and "rowing boat" in told[2]
    (learnt,) = read_manifest(tmp_path / "out" / "me")["conversations"]
    assert (learnt["id"], learnt["samples"]) == ("bread", 2)


def test_an_experiment_is_written_for_once(tmp_path, keys, monkeypatch):
    calls = []

    def replies(lm, texts, new_tokens):
        calls.append(len(texts))
        return [line(*YES), line(*NO), "", ""]

    monkeypatch.setattr("unswayed.scoring.ask.replies", replies)
    settings = PlumSettings(**keys["settings"])
    experiment = PlumExperiment(
        keys["model"], keys["users"]["me"], augment=keys["augment"], settings=settings
    )
    base = load_base(keys["model"], device="cpu")
    result = run_experiment(experiment, base, tmp_path / "run", {})
    assert result["conversations"] == ["bread"] and calls == [4]
    assert {q[2] for q in result["rows"]["questions"]} == {0}  # held out as without a writer
    assert result["identity"]["augment"]["writer"] == "self"
    assert finished(experiment, base, tmp_path / "run")["recall"] == result["recall"]
    more = dataclasses.replace(experiment, open=True)
    assert run_experiment(more, base, tmp_path / "run", {})["rows"]["open"] is not None
    assert calls == [4]


def test_personas_and_folders(tmp_path, keys, capsys):
    recipe = tmp_path / "run.yaml"
    recipe.write_text(yaml.safe_dump(keys))
    with pytest.raises(InputError, match=r"augment\.writer: questions on personas are made of"):
        read_training(recipe)
    with pytest.raises(InputError, match="give self or a name of the Hub"):
        chosen_settings(None, None, [f"augment.writer={tmp_path}"])
