"""LaMP (Salemi et al. 2023, arXiv 2304.11406): all seven tasks, user-based and time-based splits.

A questions file is a list of {"id", "input", "profile": [...]}, in the time-based split also
"user_id" and a "date" in each profile item; the outputs file beside it, whose name has "outputs"
instead of "questions", is {"task": "LaMP_3", "golds": [{"id", "output"}]}. Each question becomes an
event, and the items of its profile earlier events of the same user. docs/histories.md has the
fields.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.files import read_text
from unswayed.data.histories.events import Event, Histories, Task, make_histories
from unswayed.data.rows import parse_json
from unswayed.data.texts import visible

log = logging.getLogger(__name__)

TAGS = (
    "sci-fi", "based on a book", "comedy", "action", "twist ending", "dystopia", "dark comedy",
    "classic", "psychology", "fantasy", "romance", "thought-provoking", "social commentary",
    "violence", "true story",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Form:
    """One of LaMP's tasks as files hold it.

    Attributes:
        query, response: the fields of a profile item; "" if it has none.
        after: in a question's input, what is asked about begins after this; "" for all of it.
    """

    noun: str
    ask: str
    query: str = ""
    response: str = ""
    after: str = ""
    labels: tuple[str, ...] | None = None
    ordinal: bool = False


FORMS = {
    "lamp1": Form(
        noun="paper",
        ask="Which of the two references does this author cite in the paper, [1] or [2]?",
        query="title",
        labels=("[1]", "[2]"),
    ),
    "lamp2": Form(
        noun="film",
        ask=f"Which of these tags does this person give the film: {', '.join(TAGS)}?",
        query="description",
        response="tag",
        after="description:",
        labels=TAGS,
    ),
    "lamp3": Form(
        noun="review",
        ask="Which score, from 1 to 5, does this person give with the review?",
        query="text",
        response="score",
        after="review:",
        labels=("1", "2", "3", "4", "5"),
        ordinal=True,
    ),
    "lamp4": Form(
        noun="article",
        ask="Which headline does this author give the article?",
        query="text",
        response="title",
        after="article:",
    ),
    "lamp5": Form(
        noun="abstract",
        ask="Which title does this author give the paper with the abstract?",
        query="abstract",
        response="title",
        after=":",
    ),
    "lamp6": Form(
        noun="email",
        ask="Which subject does this person give the email?",
        query="text",
        response="title",
        after=":",
    ),
    "lamp7": Form(
        noun="tweet", ask="How would this person put the tweet?", response="text", after=":"
    ),
}


def read(path: str | Path, name: str) -> Histories:
    """Histories of a questions file of LaMP and the outputs file beside it.

    Without dates each question is a user, the profile's items are at the times -n to -1 in their
    order, and the question at 0, so that in every user's history the question comes last. With
    dates times are seconds; a question without one comes a second after its profile's newest item.
    Exact repeats in a profile are left out with a count in a warning.

    Args:
        name: "lamp1" to "lamp7".

    Raises:
        InputError: names file, record and field of the first fault.
    """
    path, form = Path(path), FORMS[name]
    questions = parse_json(read_text(path), path)
    if not isinstance(questions, list):
        raise InputError(f"{path}: must be a list of questions")
    golds = _golds(path, name)
    rows: list[tuple[str, Event]] = []
    places: dict[str, str] = {}
    repeats = 0
    for number, question in enumerate(questions, start=1):
        where = f"{path}, record {number}"
        id = _field(where, question, "id")
        if id not in golds:
            raise InputError(f"{where}: the outputs file has no output for the id {id!r}")
        profile = question.get("profile")
        if not isinstance(profile, list) or not profile:
            raise InputError(f"{where}: the profile is empty; a user needs a history: remove it")
        user = _field(where, question, "user_id") if "user_id" in question else id
        if user in places:
            raise InputError(f"{where}: user {user!r} is already asked at {places[user]}")
        places[user] = where
        items = _items(where, form, user, profile)
        repeats += len(profile) - len(items)
        if "date" in question:
            time = _seconds(where, question["date"])
        else:
            time = max(event.time for _, event in items) + 1
        asks, _, query = _field(where, question, "input").partition(form.after or "\0")
        event = Event(user, time, (query or asks).strip(), golds[id], id=id)
        rows += [*items, (where, event)]
    if repeats:
        log.warning("%s: left out %d repeated profile items", path, repeats)
    if not any("date" in item for question in questions for item in question["profile"]):
        log.warning(
            "%s: profiles have no dates, their order counts as time; the authors say that it is "
            "random in the user-based files",
            path,
        )
    task = Task(name, form.ask, form.labels, form.ordinal, form.noun)
    return make_histories(task, rows)


def _items(where: str, form: Form, user: str, profile: list) -> list[tuple[str, Event]]:
    """(place, event) of each item of a profile, exact repeats once."""
    rows: dict[Event, str] = {}
    for place, item in enumerate(profile):
        at = f"{where}, profile item {place + 1}"
        query = _field(at, item, form.query) if form.query else ""
        response = _field(at, item, form.response) if form.response else ""
        time = _seconds(at, item["date"]) if "date" in item else float(place - len(profile))
        rows.setdefault(Event(user, time, query, response), at)
    if len({"date" in item for item in profile}) > 1:
        raise InputError(f"{where}: some items of the profile have a date and some have none")
    return [(at, event) for event, at in rows.items()]


def _golds(path: Path, name: str) -> dict[str, str]:
    """Question's id -> output, from the file beside the questions."""
    beside = path.with_name(path.name.replace("questions", "outputs"))
    if beside == path:
        raise InputError(f"{path}: the name must hold 'questions', as in dev_questions.json")
    content = parse_json(read_text(beside), beside)
    task, golds = (
        (content.get("task"), content.get("golds")) if isinstance(content, dict) else (None, None)
    )
    if not isinstance(golds, list):
        raise InputError(f"{beside}: must be an object with the fields task and golds")
    if not re.match(f"LaMP.?{name[-1]}", str(task)):
        raise InputError(f"{beside}: holds the task {task!r}, {name} was asked for")
    outputs: dict[str, str] = {}
    for number, gold in enumerate(golds, start=1):
        where = f"{beside}, gold {number}"
        id, output = _field(where, gold, "id"), _field(where, gold, "output")
        if outputs.setdefault(id, output) != output:
            raise InputError(f"{where}: the id {id!r} has another output already: remove one")
    return outputs


def _field(where: str, row: Any, field: str) -> str:
    """A text, or a whole number as text, without space around it."""
    value = row.get(field) if isinstance(row, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not visible(value):
        raise InputError(f"{where}: {field} is {value!r}, it must be a text")
    return value.strip()


def _seconds(where: str, date: object) -> float:
    """Seconds since 1970 of a year, a month or a day: 2018, "2018-05" or "2018-05-14"."""
    try:
        year, month, day = map(int, f"{date}-1-1".split("-")[:3])
        return datetime(year, month, day, tzinfo=UTC).timestamp()
    except (OverflowError, TypeError, ValueError):
        raise InputError(f"{where}: date is {date!r}, it must be like 2018-05-14") from None
