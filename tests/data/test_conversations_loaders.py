"""Loaders: small hand-written files of each form, their errors, and round trips."""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.conversations import (
    Conversation,
    builtin_conversations,
    in_time_order,
    load_conversations,
    make_conversation,
    read_conversations,
)
from unswayed.data.texts import visible

REAL = Path(os.environ.get("UNSWAYED_REAL_DATA") or Path(__file__).parents[3] / "shared" / "data")

TEA = [
    {"role": "user", "content": "Which tea did I like?"},
    {"role": "assistant", "content": "The smoky one."},
]
SHARED_TEA = [
    {"from": "human", "value": "Which tea did I like?"},
    {"from": "gpt", "value": "The smoky one."},
]


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def said(text: str, role: str = "prompter", replies=(), **more) -> dict:
    """A message of an OpenAssistant tree."""
    return {"role": role, "text": text, "replies": list(replies), **more}


# -- chat ----------------------------------------------------------------------------------------


def test_chat_minimal_row_gets_an_id_and_no_time(tmp_path):
    path = write(tmp_path / "mine.jsonl", {"messages": TEA})
    assert read_conversations(path, "chat") == [Conversation("mine_1", None, tuple(TEA))]


def test_chat_full_row_is_cleaned_and_its_time_is_in_utc(tmp_path):
    row = {
        "id": 7,
        "time": "2025-03-01T12:00:00+02:00",
        "messages": [{"role": "user", "content": " Hello \n", "name": "x"}, TEA[1]],
        "topic": "ignored",
    }
    (conversation,) = read_conversations(write(tmp_path / "mine.jsonl", row), "chat")
    assert (conversation.id, conversation.time) == ("7", "2025-03-01T10:00:00Z")
    assert conversation.turns[0] == {"role": "user", "content": "Hello"}


def test_separators_inside_texts_do_not_split_lines_and_bom_is_fine(tmp_path):
    path = tmp_path / "mine.jsonl"
    row = {"messages": [{"role": "user", "content": "one\u2028two\u0085three"}, TEA[1]]}
    path.write_text("\ufeff\n" + json.dumps(row, ensure_ascii=False) + "\n\n", encoding="utf-8")
    (conversation,) = read_conversations(path, "chat")
    assert conversation.turns[0]["content"] == "one\u2028two\u0085three"


def test_system_messages_are_left_out_and_counted(tmp_path, caplog):
    system = {"role": "system", "content": "Be kind."}
    path = write(tmp_path / "mine.jsonl", {"messages": [system, *TEA]}, {"messages": TEA})
    assert [conversation.turns for conversation in read_conversations(path, "chat")] == [
        tuple(TEA)
    ] * 2
    assert caplog.messages == [f"{path}: left out the system message of 1 conversations"]


# -- sharegpt ------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_list", [True, False])
def test_sharegpt_list_and_lines(tmp_path, as_list):
    rows = [{"id": "a", "conversations": SHARED_TEA}, {"conversations": SHARED_TEA}]
    path = write(tmp_path / "shared.json", *([rows] if as_list else rows))
    assert read_conversations(path, "sharegpt") == [
        Conversation("a", None, tuple(TEA)),
        Conversation("shared_2", None, tuple(TEA)),
    ]


def test_sharegpt_fault_in_a_list_names_the_entry(tmp_path):
    path = write(
        tmp_path / "s.json", [{"conversations": SHARED_TEA}, {"id": 1.5, "conversations": []}]
    )
    with pytest.raises(InputError, match=r"s\.json, entry 2: id is 1.5, it must be a text"):
        read_conversations(path, "sharegpt")


# -- oasst ---------------------------------------------------------------------------------------


def test_oasst_takes_the_best_ranked_path_and_drops_the_unanswered_end(tmp_path):
    end = said("And now?", replies=[])
    best = said("Best.", "assistant", [end], rank=0)
    tree = said(
        "Hello?",
        replies=[
            said("Unranked.", "assistant", rank=None),
            said("Second.", "assistant", rank=1),
            said("Deleted.", "assistant", rank=-1, deleted=True),
            best,
        ],
        created_date="2023-02-05T14:23:50.983374+00:00",
    )
    path = write(tmp_path / "t.jsonl", {"message_tree_id": "t1", "prompt": tree})
    (conversation,) = read_conversations(path, "oasst")
    assert (conversation.id, conversation.time) == ("t1", "2023-02-05T14:23:50.983374Z")
    assert [turn["content"] for turn in conversation.turns] == ["Hello?", "Best."]


def test_oasst_unranked_replies_go_by_the_file(tmp_path):
    replies = [said("First.", "assistant"), said("Other.", "assistant")]
    path = write(tmp_path / "t.jsonl", {"prompt": said("Hello?", replies=replies)})
    (conversation,) = read_conversations(path, "oasst")
    assert (conversation.id, conversation.turns[1]["content"]) == ("t_1", "First.")


def test_oasst_unusable_trees_are_counted(tmp_path, caplog):
    answer = said("Yes.", "assistant", [said("Indeed.", "assistant")])
    path = write(
        tmp_path / "t.jsonl",
        {"prompt": said("Alone?")},
        {"prompt": said("Gone?", deleted=True)},
        {"prompt": said("Twice?", replies=[answer])},
        {"prompt": said("Fine?", replies=[said("Yes.", "assistant")])},
    )
    assert [conversation.id for conversation in read_conversations(path, "oasst")] == ["t_4"]
    assert caplog.messages == [
        f"{path}: left out 3 of 4 conversations: t_1 (without an answer), t_2 (without an answer), "
        "t_3 (turn 3 is the assistant's again; user and assistant alternate)"
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"tree": 1}, "message 1 of the tree needs role and text"),
        ({"prompt": said("Hi", replies=["no"])}, "message 2 of the tree needs role and text"),
        ({"prompt": said("Hi", rank="top")}, "rank is 'top', it must be a number"),
        ({"prompt": {"role": "prompter", "text": "Hi", "replies": {"a": 1}}}, "must be a list"),
        ({"prompt": said("Hi", "tool", [said("Ho", "bot")])}, "role of turn 1 is 'tool'"),
    ],
)
def test_oasst_faults(tmp_path, row, words):
    path = write(tmp_path / "t.jsonl", row)
    with pytest.raises(InputError) as error:
        read_conversations(path, "oasst")
    assert str(error.value).startswith(f"{path}:1: ") and words in str(error.value)


def test_real_oasst_file(caplog):
    path = REAL / "oasst" / "en_100_tree.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path}; set UNSWAYED_REAL_DATA to a folder that holds oasst/")
    conversations = load_conversations([f"oasst={path}"])
    assert len(conversations) == 100 and not caplog.messages
    assert len({conversation.id for conversation in conversations}) == 100
    first = json.loads(path.read_text(encoding="utf-8").split("\n")[0])
    assert conversations[0].id == first["message_tree_id"]
    best = next(reply for reply in first["prompt"]["replies"] if reply["rank"] == 0)
    assert conversations[0].turns[1]["content"] == best["text"].strip()


# -- specs and order -----------------------------------------------------------------------------


def test_specs_are_merged_in_the_order_of_time(tmp_path):
    early = write(tmp_path / "a.jsonl", {"time": "2020-01-01", "messages": TEA})
    late = write(tmp_path / "z.jsonl", {"time": "2030-01-01T00:00:00.5", "messages": TEA})
    ids = [
        conversation.id
        for conversation in load_conversations([f"chat={late}", "builtin", f"chat={early}"])
    ]
    assert ids == ["a_1", *(conversation.id for conversation in builtin_conversations()), "z_1"]


def test_conversations_without_a_time_stay_behind_the_one_before():
    given_times = [("a", None), ("b", "2025-05-01"), ("c", None), ("d", "2025-01-01"), ("e", None)]
    ordered = in_time_order(make_conversation(id, time, TEA) for id, time in given_times)
    assert [conversation.id for conversation in ordered] == ["a", "d", "e", "b", "c"]


@pytest.mark.parametrize("spec", ["", "chat", "chat=", "builtin=x", "wechat=a.jsonl"])
def test_unknown_specs(spec):
    with pytest.raises(InputError, match="not one of builtin, oasst=FILE, sharegpt=FILE, chat=FI"):
        load_conversations([spec])


def test_the_same_id_twice_in_a_file_and_across_files(tmp_path):
    row = {"id": "x", "messages": TEA}
    twice = write(tmp_path / "two.jsonl", row, row)
    with pytest.raises(InputError, match=r"two\.jsonl:2: id 'x' is already used at .*jsonl:1"):
        read_conversations(twice, "chat")
    conversation = write(tmp_path / "one.jsonl", row)
    with pytest.raises(InputError, match="the id 'x' occurs in several sources"):
        load_conversations([f"chat={conversation}", f"chat={conversation}"])


# -- errors --------------------------------------------------------------------------------------


def turns(*pairs: tuple[str, object]) -> list[dict]:
    return [{"role": role, "content": content} for role, content in pairs]


ODD = [
    ({}, "field messages must be a list of messages, got 'None'"),
    ({"messages": "hi"}, "field messages must be a list of messages, got 'hi'"),
    ({"messages": []}, "holds no turns"),
    ({"messages": ["hi"]}, "turn 1 of messages needs the fields role and content"),
    ({"messages": [{"role": "user"}]}, "turn 1 of messages needs the fields role and content"),
    ({"messages": [TEA[0], *turns(("tool", "x"))]}, "role of turn 2 is 'tool', it must be user or"),
    ({"messages": turns((["user"], "x"))}, "role of turn 1 is ['user']"),
    ({"messages": [*TEA, {"role": "system", "content": "x"}]}, "role of turn 3 is 'system'"),
    ({"messages": turns(("user", " \n"), ("assistant", "x"))}, "turn 1 is empty"),
    ({"messages": turns(("user", "\u200b"), ("assistant", "x"))}, "turn 1 is empty"),
    ({"messages": turns(("user", 5), ("assistant", "x"))}, "turn 1 is '5', it must be a text"),
    ({"messages": TEA[:1]}, "only the user speaks"),
    ({"messages": TEA[1:]}, "only the assistant speaks"),
    ({"messages": [*TEA, TEA[1]]}, "turn 3 is the assistant's again"),
]


@pytest.mark.parametrize(("row", "words"), ODD)
def test_what_cannot_be_learnt_is_left_out_and_named(tmp_path, caplog, row, words):
    path = write(tmp_path / "mine.jsonl", {"id": "ok", "messages": TEA}, {"id": "odd", **row})
    assert [one.id for one in read_conversations(path, "chat")] == ["ok"]
    (message,) = caplog.messages
    assert message.startswith(f"{path}: left out 1 of 2 conversations: odd (") and words in message


@pytest.mark.parametrize(("row", "words"), ODD)
def test_a_file_of_nothing_that_can_be_learnt_is_refused(tmp_path, row, words):
    path = write(tmp_path / "mine.jsonl", {"id": "odd", **row})
    with pytest.raises(InputError) as error:
        read_conversations(path, "chat")
    assert str(error.value).startswith(f"{path}:1: ") and words in str(error.value)


def test_around_the_first_question_and_the_last_answer_is_cut_and_counted(tmp_path, caplog):
    system, hello = turns(("system", "Be kind."), ("assistant", "Hello!"))
    row = {"messages": [system, hello, *TEA, TEA[0]]}
    path = write(tmp_path / "mine.jsonl", row, row, {"messages": TEA})
    assert [one.turns for one in read_conversations(path, "chat")] == [tuple(TEA)] * 3
    assert [message.removeprefix(f"{path}: left out ") for message in caplog.messages] == [
        "the system message of 2 conversations",
        "what the assistant says before the user of 2 conversations",
        "the user's last turn, which has no answer, of 2 conversations",
    ]


@pytest.mark.parametrize("roles", [("human", "bing"), ("prompter", "model"), ("user", "gpt")])
def test_roles_have_several_names(tmp_path, roles):
    messages = [{"from": role, "value": TEA[n]["content"]} for n, role in enumerate(roles)]
    path = write(tmp_path / "mine.jsonl", {"conversations": messages})
    assert read_conversations(path, "sharegpt")[0].turns == tuple(TEA)


@pytest.mark.parametrize(
    ("fields", "time"),
    [
        ({"time": 1736150400}, "2025-01-06T08:00:00Z"),
        ({"create_time": 1736150400.25}, "2025-01-06T08:00:00.250000Z"),
        ({"timestamp": 1736150400250}, "2025-01-06T08:00:00.250000Z"),
        ({"tstamp": "1736150400"}, "2025-01-06T08:00:00Z"),
        ({"created_at": "2025-01-06 10:00+02:00"}, "2025-01-06T08:00:00Z"),
        ({"date": "20250106"}, "2025-01-06T00:00:00Z"),
        ({"createdAt": "2025-01-06T08:00:00Z", "timestamp": 1736150400}, "2025-01-06T08:00:00Z"),
        ({"time": "2025-01-06", "created": "2025-02-06"}, "2025-01-06T00:00:00Z"),
        ({"messages": [{**TEA[0], "timestamp": 1736150400}, TEA[1]]}, "2025-01-06T08:00:00Z"),
        ({"time": None}, None),
    ],
)
def test_times_by_any_name_and_in_any_unit(tmp_path, fields, time):
    path = write(tmp_path / "mine.jsonl", {"messages": TEA} | fields)
    assert read_conversations(path, "chat")[0].time == time


@given(st.datetimes(datetime(1990, 1, 2), datetime(2099, 12, 30)), st.integers(-14, 14))
def test_one_moment_however_it_is_written(moment, hours):
    moment = moment.replace(microsecond=0, tzinfo=timezone(timedelta(hours=hours)))
    seconds = int(moment.timestamp())
    forms = (moment.isoformat(), seconds, float(seconds), str(seconds), seconds * 1000)
    made = {make_conversation("a", form, TEA).time for form in forms if len(str(form)) != 9}
    assert len(made) == 1 and datetime.fromisoformat(made.pop()) == moment


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": " ", "messages": TEA}, "id is empty"),
        ({"id": ["a"], "messages": TEA}, "id is ['a'], it must be a text"),
        ({"id": 1.5, "messages": TEA}, "id is 1.5, it must be a text or a whole number"),
        ({"time": "May", "messages": TEA}, "time is 'May', it must be ISO 8601"),
        ({"time": 20250106, "messages": TEA}, "time is 20250106, it must be ISO 8601"),
        ({"time": True, "messages": TEA}, "time is True, it must be ISO 8601"),
        ({"time": "20250106112", "messages": TEA}, "time is '20250106112', it must be ISO 8601"),
        ({"time": "0001-01-01T00:00:00+05:00", "messages": TEA}, "it must be ISO 8601"),
        ({"created_at": "Monday", "messages": TEA}, "field created_at: time is 'Monday'"),
        (
            {"created_at": "2025-01-06", "timestamp": "2025-01-07", "messages": TEA},
            "which is the time, timestamp 2025-01-07T00:00:00Z, created_at 2025-01-06T00:00:00Z?",
        ),
        ({"messages": turns(("user", "\ud800"), ("assistant", "x"))}, "half of a surrogate pair"),
        (["messages"], "a JSON object is needed"),
        (None, "a JSON object is needed"),
    ],
)
def test_faults_are_named_with_file_and_line(tmp_path, row, words):
    # The list form begins with "[", so that a lone list is read as a list of conversations.
    path = write(tmp_path / "mine.jsonl", {"id": "ok", "messages": TEA}, row)
    with pytest.raises(InputError) as error:
        read_conversations(path, "chat")
    assert str(error.value).startswith(f"{path}:2: ") and words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no conversations"),
        (b"[]", "holds no conversations"),
        (b"{oops}\n", "mine.jsonl:1: not JSON"),
        (b"[1, ", "mine.jsonl: not JSON"),
        (b"[" * 100_000, "mine.jsonl: not JSON"),
        (b'{"id": "\xff"}', "cannot be read as UTF-8 text"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, words):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_conversations(path, "chat")
    assert words in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_conversations([f"chat={tmp_path / 'none.jsonl'}"])


# -- round trips ---------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(visible)
moments = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=timezone(timedelta(hours=3))).isoformat()
)
exchanges = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)
contents = st.lists(st.tuples(st.none() | moments, exchanges), min_size=1, max_size=5)


def conversation(id: str, time: str | None, exchange: list[tuple[str, str]]) -> Conversation:
    pairs = [pair for user, answer in exchange for pair in (("user", user), ("assistant", answer))]
    return make_conversation(id, time, turns(*pairs))


@given(contents)
def test_chat_and_sharegpt_round_trip(tmp_path_factory, contents):
    made = [conversation(f"c{n}", *content) for n, content in enumerate(contents)]
    folder = tmp_path_factory.mktemp("round")
    chat = [
        {"id": conversation.id, "time": conversation.time, "messages": list(conversation.turns)}
        for conversation in made
    ]
    assert read_conversations(write(folder / "chat.jsonl", *chat), "chat") == made
    names = {"user": "human", "assistant": "gpt"}
    shared = [
        {
            "id": conversation.id,
            "time": conversation.time,
            "conversations": [
                {"from": names[turn["role"]], "value": turn["content"]}
                for turn in conversation.turns
            ],
        }
        for conversation in made
    ]
    assert read_conversations(write(folder / "shared.json", shared), "sharegpt") == made


@given(exchanges, st.integers(0, 3))
def test_oasst_round_trip_whatever_the_place_of_the_best_reply(tmp_path_factory, exchange, place):
    made = conversation("t", None, exchange)
    replies: list[dict] = []
    for turn in reversed(made.turns):
        role = "prompter" if turn["role"] == "user" else "assistant"
        worse = [said("worse", role, rank=n + 1) for n in range(3)]
        best = said(turn["content"], role, replies, rank=0)
        replies = [*worse[:place], best, *worse[place:]]
    row = {"message_tree_id": "t", "prompt": replies[place if place < 3 else 3]}
    path = write(tmp_path_factory.mktemp("tree") / "t.jsonl", row)
    assert read_conversations(path, "oasst") == [made]


@given(st.lists(st.none() | moments, max_size=8))
def test_order_keeps_everything_and_sorts_what_has_a_time(times):
    made = [make_conversation(str(n), time, TEA) for n, time in enumerate(times)]
    ordered = in_time_order(made)
    assert sorted(ordered, key=lambda conversation: int(conversation.id)) == made
    timed = [
        datetime.fromisoformat(conversation.time) for conversation in ordered if conversation.time
    ]
    assert timed == sorted(timed)


def test_loading_says_nothing_when_nothing_is_left_out(caplog):
    with caplog.at_level(logging.INFO):
        load_conversations(["builtin"])
    assert not caplog.messages
