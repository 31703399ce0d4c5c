"""Whether answers depend on the question at all, from the rows of one test.

A model that does not read the question shows habits: its answers stay as they are without the
scenario, or they are the longest option, the one shown first, or one word or letter throughout.
Each habit stands beside what an *unbiased reader* would show: one who is right as often as this
model is on these items, and whose errors fall evenly on the other options. Shares are over items x
users with their intervals (`unswayed.statistics.crossed`), conditions with a memory pooled by user.

The rule: a model does not read a test where the lower bound of a habit's share is at least a half
and above the unbiased reader's, without memory or with one. More than half of the answers are then
given whatever the question. docs/validity.md says what each figure can show.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from unswayed.audit.effects import rate
from unswayed.audit.evidence import Habit, Reading, Validity
from unswayed.audit.trials import NONE
from unswayed.data.items import LETTERS
from unswayed.scoring.prompts import rotated

MEMORY = "memory"  # all conditions with one
HABITS = ("blind", "longest", "first", "frequent")
HALF = 0.5  # of the answers
LETTER_MASS = 0.5  # below it a model would mostly say something else than a letter
UNREAD = 0.1
READERS = 2000  # simulated, for the most frequent option
MOST_SHOWN = 40  # characters of an option
INSTEAD = {
    "option": "try --scoring letter or another --rule",
    "letter": "try --scoring option, or generate of a service",
    "generate": "try --scoring letter",
}


def validity(rows: pd.DataFrame) -> Validity:
    """Of all rows of a test."""
    bare = rows["condition"] == NONE
    parts = {NONE: rows[bare], MEMORY: rows[~bare]}
    readings = {name: reading(part) for name, part in parts.items() if len(part)}
    habits = {
        (name, habit): figures[habit]
        for name, figures in readings.items()
        for habit in HABITS
        if figures[habit] is not None
    }
    overt = {place: habit for place, habit in habits.items() if gives_away(habit)}
    worst = max(overt, key=lambda place: _excess(overt[place]), default=None)
    measurable = any(habit["low"] is not None for habit in habits.values())
    warnings = list(_warnings(rows["test"].iloc[0], readings))
    if worst is not None:
        warnings.insert(0, _not_read(rows.iloc[0], worst, overt[worst]))
    return {
        "readings": readings,
        "reads": worst is None if measurable else None,
        "reason": worst and list(worst),
        "warnings": warnings,
    }


def reading(rows: pd.DataFrame) -> Reading:
    """Of the rows of a test without memory, or of all with one.

    By option text the options stand in no place, so there is no first one, and the most frequent
    one is a text. Where they are listed it is a letter. In several orders an option has several
    letters, and in as many as there are options all of them, which leaves nothing to see.
    """
    longest = [[len(o) == max(map(len, options)) for o in options] for options in rows["options"]]
    blind = [
        None if pd.isna(answer) else [option == answer for option in options]
        for answer, options in zip(rows["blind_answer"], rows["options"], strict=True)
    ]
    listed = rows["scoring"].iloc[0] != "option"
    shown = zip(rows["option_order"], rows["order_scores"], strict=True)
    letters = [_letters(*row) for row in shown] if listed else []
    leads = [[LETTERS[0] in at for at in options] for options in letters]
    texts = [[{text} for text in options] for options in rows["options"]]
    mass = rows["letter_mass"].astype(float)
    return {
        "blind": habit(rows, blind) if any(blind) else None,
        "longest": habit(rows, longest),
        "first": None if all(map(all, leads)) else habit(rows, leads),
        "frequent": frequent(rows, letters or texts),
        "letter_mass": rate(_wide(rows, mass), drawn=True) if mass.notna().any() else None,
        "unread": rate(_wide(rows, 1.0 - rows["parsed"])),
    }


def habit(
    rows: pd.DataFrame, marks: Sequence[Sequence[bool] | None], option: str | None = None
) -> Habit:
    """How often answers are marked options, and how often an unbiased reader's would be.

    Args:
        rows: n answers; unread ones are left out.
        marks: n lists, whether each option is marked; None leaves the answer out.
        option: what the marked option is called, where it is one.
    """
    observed, right, picked = [], [], _picked(rows)
    for row_marks, pick, correct in zip(marks, picked, rows["correct"], strict=True):
        there = row_marks is not None and pick is not None
        observed.append(float(row_marks[pick]) if there else np.nan)
        right.append(float(correct) if there else np.nan)
    p = _mean(rows, right)
    reader = [
        np.nan if np.isnan(value) else of_reader(row_marks, list(options).index(key), p)
        for value, row_marks, options, key in zip(
            observed, marks, rows["options"], rows["gold_label"], strict=True
        )
    ]
    share = rate(_wide(rows, observed))
    return {**share, "unbiased": _mean(rows, reader), "option": option}


def of_reader(marks: Sequence[bool], key: int, right: float) -> float:
    """How often an unbiased reader picks a marked option of one item.

    Args:
        marks: of the n options; key: index of the right one.
        right: how often the reader is right.
    """
    others = sum(marks) - marks[key]
    return right * marks[key] + (1 - right) * others / (len(marks) - 1)


def frequent(rows: pd.DataFrame, names: Sequence[Sequence[set[str]]]) -> Habit | None:
    """How often answers have the name that most of them have; None if no two items share a name.

    Args:
        rows: n answers.
        names: n lists, the names of each option: letters under which it stood, or its text.
    """
    answers = rows.assign(names=list(names), pick=_picked(rows))
    items = answers.drop_duplicates("question_id")["names"]
    by_item = Counter(name for options in items for name in set.union(*options))
    if max(by_item.values()) < 2 or all(len(options[0]) == len(options) for options in items):
        return None
    read = answers.dropna(subset="pick")
    counts = Counter(x for o, i in zip(read["names"], read["pick"], strict=True) for x in o[int(i)])
    most = min(counts, key=lambda name: (-counts[name], name), default="")
    share = habit(rows, [[most in at for at in options] for options in names], most)
    if read.empty:
        return share
    weights = read.groupby("question_id").size() / len(read)
    items = read.drop_duplicates("question_id").set_index("question_id").loc[weights.index]
    keys = [list(o).index(k) for o, k in zip(items["options"], items["gold_label"], strict=True)]
    right = _mean(read, read["correct"])
    return share | {"unbiased": most_frequent_of_reader(items["names"], keys, weights, right)}


def most_frequent_of_reader(
    names: Sequence[Sequence[set[str]]],
    keys: Sequence[int],
    weights: Sequence[float],
    right: float,
) -> float:
    """Expected share of the most frequent name in an unbiased reader's answers, one per item.

    A mean over simulated readers. Since one always is the most frequent, it is above the share
    that each name has on average.

    Args:
        names: n items, the names of each of their options.
        keys: n indices of the right options.
        weights: n shares of the items in the answers, 1 together.
        right: how often the reader is right.
    """
    rng = np.random.default_rng(0)
    ids = {name: i for i, name in enumerate(sorted({x for o in names for at in o for x in at}))}
    totals, readers = np.zeros((READERS, len(ids))), np.arange(READERS)
    for options, key, weight in zip(names, keys, weights, strict=True):
        other = rng.integers(0, len(options) - 1, READERS)
        hit = rng.random(READERS) < right
        picks = np.where(hit, key, other + (other >= key))
        places = np.array([sorted(ids[name] for name in at) for at in options])
        for place in places[picks].T:
            totals[readers, place] += weight
    return float(totals.max(axis=1).mean())


def gives_away(habit: Habit) -> bool:
    """Whether a habit alone shows that the question is not read."""
    low = habit["low"]
    return low is not None and low >= HALF and low > habit["unbiased"]


def _excess(habit: Habit) -> float:
    return habit["estimate"] - habit["unbiased"]


def _letters(shown: Sequence[int], by_order: Sequence | None) -> list[set[str]]:
    """The letters under which each option stood, over the orders in which they were listed."""
    order = list(shown)
    n_orders = 1 if by_order is None else len(by_order)
    turns = [rotated(order, turn) for turn in range(min(n_orders, len(order)))]
    return [{LETTERS[turn.index(i)] for turn in turns} for i in range(len(order))]


def _picked(rows: pd.DataFrame) -> list[int | None]:
    """Index of each answer among its options; None if unread."""
    return [
        list(options).index(answer) if parsed else None
        for options, answer, parsed in zip(
            rows["options"], rows["answer"], rows["parsed"], strict=True
        )
    ]


def _wide(rows: pd.DataFrame, values: Sequence[float]) -> np.ndarray:
    """Values (n answers) as items x users, the mean where a user has several conditions."""
    users = rows["pair_id"].fillna(rows["persona_id"]).fillna(NONE)
    series = pd.Series(np.asarray(values, dtype=float), index=rows.index)
    return series.groupby([rows["question_id"], users]).mean().unstack().to_numpy()


def _mean(rows: pd.DataFrame, values: Sequence[float]) -> float | None:
    return rate(_wide(rows, values))["estimate"]


# -- in words ------------------------------------------------------------------------------------

READINGS = {NONE: "without memory", MEMORY: "with a memory"}


def habit_text(name: str, habit: Habit, scoring: str) -> str:
    """What picks are: "are the longest option"."""
    option = option_name(habit)
    return {
        "blind": "are what it picks without the scenario",
        "longest": "are the longest option",
        "first": "are the option shown first",
        "frequent": f'are "{option}"'
        if scoring == "option"
        else f"stand under the letter {option}",
    }[name]


def option_name(habit: Habit) -> str:
    """The most frequent option, shortened; "" of other habits."""
    return textwrap.shorten(habit["option"] or "", MOST_SHOWN, placeholder=" …")


def _not_read(row: pd.Series, place: tuple[str, str], habit: Habit) -> str:
    where, name = place
    scoring = row["scoring"]
    way = f"--scoring {scoring}" + (f" --rule {row['rule']}" if scoring == "option" else "")
    return (
        f"On {row['test']} this model does not read the question under this scoring, {way} "
        f"({habit['estimate']:.0%} of its picks {READINGS[where]} "
        f"{habit_text(name, habit, scoring)}; an unbiased reader: {habit['unbiased']:.0%}): "
        f"{INSTEAD[scoring]}, or see `unswayed validate --model NAME`."
    )


def _warnings(test: str, readings: Mapping[str, Reading]) -> Iterator[str]:
    for where, figures in readings.items():
        mass, unread = figures["letter_mass"], figures["unread"]
        if mass and mass["estimate"] < LETTER_MASS:
            yield (
                f"On {test} the letters have {mass['estimate']:.0%} of the probability "
                f"{READINGS[where]}: mostly the model would say something else, and the "
                "answers are the lesser part of what it says; try --scoring option."
            )
        if unread["estimate"] > UNREAD:
            yield (
                f"On {test} {unread['estimate']:.0%} of the answers {READINGS[where]} could "
                "not be read: accuracy also measures whether the model keeps to the form; try "
                f"--scoring {'generate' if mass else 'letter or option'}."
            )
