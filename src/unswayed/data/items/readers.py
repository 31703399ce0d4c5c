"""Readers of items: files of the generic form, and of other people's instruments.

The instruments STEU and STEM (MacCann & Roberts 2008) and EmoBench (Sabour et al. 2024) are read
from the user's own copy and are never part of this package.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.data.items.item import Item, make_item
from unswayed.data.rows import rows_of, say_left_out
from unswayed.data.texts import identifier

log = logging.getLogger(__name__)


def read_items(path: str | Path, test: str) -> list[Item]:
    """Items of a JSONL or CSV file, or of a dataset; `test` names the instrument and its reader.

    Raises:
        InputError: names file and line of the first fault.
    """
    reader = READERS.get(test, _generic)
    items: list[Item] = []
    places: dict[str, str] = {}
    left_out: list[str] = []
    keys: list[object] = []
    for where, row in rows_of(path):
        try:
            item = reader(row, test)
        except KeyError as error:
            raise InputError(f"{where}: field {error} is missing") from None
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        except (TypeError, AttributeError, ArithmeticError) as error:
            raise InputError(f"{where}: not in the form of {test} ({error})") from None
        if isinstance(item, str):
            left_out.append(item)
            continue
        if item.id in places:
            raise InputError(f"{where}: id {item.id!r} is already used at {places[item.id]}")
        places[item.id] = where
        items.append(item)
        keys.append(row.get("key"))
    say_left_out(path, "items", left_out, len(left_out) + len(items))
    if not items:
        raise InputError(f"{path}: holds no items")
    places_of_keys = [key for key in keys if isinstance(key, int)]
    if places_of_keys and 0 not in places_of_keys:
        log.warning(
            "%s: keys that are numbers are places from 0, and none is 0; if they count from 1, "
            "write the texts of the options",
            path,
        )
    return items


def read_flag(value: object, where: str) -> bool:
    """Whether an item is persona-invariant, as a file says it."""
    if isinstance(value, bool):
        return value
    if (text := str(value).strip().lower()) in ("true", "1", "yes"):
        return True
    if text in ("false", "0", "no"):
        return False
    raise InputError(f"{where}: persona_invariant is {value!r}, it must be true or false")


# -- readers: one row -> an item, or the id and reason of one that is left out -------------------


def _generic(row: dict, test: str) -> Item:
    """The generic form, JSONL or CSV (there, options and weights are separated by |)."""

    def several(value: object) -> list:
        if isinstance(value, str):
            return value.split("|")
        if isinstance(value, list):
            return value
        raise InputError(f"options and weights must be lists, got {value!r}")

    weights = row.get("weights")
    return make_item(
        test=test,
        id=row["id"],
        kind=row.get("kind") or ("understanding" if weights is None else "management"),
        scenario=row["scenario"],
        options=several(row["options"]),
        key=row["key"],
        weights=None if weights is None else several(weights),
        persona_invariant=read_flag(row.get("persona_invariant", True), str(row["id"])),
        rationale=str(row.get("rationale", "")),
    )


def _steu(row: dict, test: str) -> Item | str:
    if row.get("key_ambiguous") or len(row["key"]) != 1:
        return f"{row['id']} (key {row['key']} is ambiguous)"
    return make_item(test, row["id"], "understanding", row["text"], row["options"], row["key"])


def _stem(row: dict, test: str) -> Item | str:
    """Weights: STEM-B's expert twelfths over their maximum where the file has them, else the
    reciprocal rank in the experts' order (1, 1/2, 1/3; 0 if unranked). The second is our choice."""
    if len(row["best"]) != 1:
        return f"{row['id']} (key {row['best']} is ambiguous)"
    if twelfths := row.get("stem_b_expert_twelfths"):
        weights = [value / max(twelfths) for value in twelfths]
    else:
        rank = {letter: i for i, letter in enumerate(row["ranked_key"])}
        if not rank.keys() <= set(row["letters"]):
            raise InputError(
                f"ranked_key {row['ranked_key']!r} of {row['id']} has letters that are not among "
                f"{row['letters']!r}"
            )
        weights = [1 / (rank[x] + 1) if x in rank else 0.0 for x in row["letters"]]
    return make_item(
        test, row["id"], "management", row["text"], row["options"], row["best"], weights
    )


def _emobench(row: dict, test: str) -> Item | str:
    """EmoBench EU (emotion question) and EA; labels are texts, as in the authors' files."""
    id = f"{row.get('language', 'en')}_{identifier(row['qid'], 'qid')}"
    if row.get("language", "en") != "en":
        return f"{id} (not English)"
    label = row["emotion_label" if test == "emobench_eu" else "label"]
    if not isinstance(label, str):
        raise InputError(f"the label of {id} is {label!r}, it must be the text of a choice")
    subject = "I" if row["subject"] in ("I", "me") else row["subject"]
    if test == "emobench_eu":
        ask = f"What emotion(s) would {subject} ultimately feel in this situation?"
        return make_item(test, id, "understanding", f"{row['scenario']}\n{ask}",
                         row["emotion_choices"], label)  # fmt: skip
    what = row["question type"].lower()
    ask = f"In this scenario, what is the most effective {what} for {subject}?"
    return make_item(test, id, "management", f"{row['scenario']}\n{ask}", row["choices"], label)


READERS: dict[str, Callable[[dict, str], Item | str]] = {
    "steu": _steu,
    "stem": _stem,
    "emobench_eu": _emobench,
    "emobench_ea": _emobench,
}
