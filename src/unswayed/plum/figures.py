"""Figures of an experiment, from the answers that its result keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from unswayed.plum.forgetting import forgetting
from unswayed.plum.qa import CLOSED, NO, YES
from unswayed.plum.recall import share_of, summarise

ALL = "all"  # sets of questions together


class Rows(TypedDict):
    """The answers of an experiment, without texts."""

    questions: list[list[Any]]  # set, source, place of the conversation in the order, kind
    margins: dict[str, list[float]]  # conversations learnt -> nats, see `rows_of`
    open: list[bool] | None  # right or not; None if they were not asked


class TrainingStage(TypedDict):
    """What was trained at a time."""

    conversations: list[str]
    samples: int
    tokens: int  # that went through the model in all epochs
    losses: list[float]  # of each epoch, nats per weighted token
    seconds: float


class ExperimentResult(TypedDict):
    """`result.json`; a line of a sweep's `sweep.json` is the same without rows.

    Seconds aside, the same whether the experiment was interrupted or not.
    """

    name: str  # the run's; this, seed and command are in the record that was given
    seed: int
    command: str
    identity: dict[str, Any]  # `make_identity`
    left_out: list[list[Any]]  # conversation, reason, number of questions
    conversations: list[str]  # ids, in the order in which they were learnt
    recall: dict[str, dict[str, Any]]  # set of questions -> `summarise` and by_source
    forgetting: dict[str, dict[str, Any]]  # set -> `forgetting` and `halves`
    baselines: dict[str, list[dict[str, Any]]]  # set -> rows of `compare`
    ability: dict[str, dict[str, Any]] | None  # `ability_change`
    ability_asked: dict[str, Any] | None  # with which settings
    training: list[TrainingStage]
    evaluations: list[dict[str, Any]]  # after (conversations), seconds
    machine: str
    versions: dict[str, str]
    rows: Rows


def rows_of(result: ExperimentResult) -> list[dict[str, Any]]:
    """Rows as of `recall`, without texts, with set, source and after; open ones at the end.

    The margins of a checkpoint are those of the closed questions on what was learnt by then.
    """
    rows, order = result["rows"], result["conversations"]

    def row(question: list, after: int, correct: bool, margin: float | None) -> dict[str, Any]:
        name, source, place, kind = question
        return {
            "set": name,
            "source": source,
            "conversation": order[place],
            "kind": kind,
            "text": None if margin is None else YES if margin > 0 else NO,
            "correct": correct,
            "margin": margin,
            "after": after,
        }

    answers = []
    for after, margins in ((int(n), margins) for n, margins in rows["margins"].items()):
        closed = [q for q in rows["questions"] if q[3] in CLOSED and q[2] < after]
        for q, margin in zip(closed, margins, strict=True):
            answers.append(row(q, after, (margin > 0) == (q[3] == "yes"), margin))
    if rows["open"] is not None:
        open_ = [q for q in rows["questions"] if q[3] not in CLOSED]
        for q, correct in zip(open_, rows["open"], strict=True):
            answers.append(row(q, len(order), correct, None))
    return answers


def summary(rows: Sequence[dict[str, Any]], order: Sequence[str]) -> dict[str, Any]:
    """recall and forgetting of an `ExperimentResult`: each set of questions, and all together."""
    figures: dict[str, Any] = {"recall": {}, "forgetting": {}}
    sets = list(dict.fromkeys(row["set"] for row in rows))
    for name in [*sets, ALL] if len(sets) > 1 else sets:
        in_set = [row for row in rows if name in (row["set"], ALL)]
        end = [row for row in in_set if row["after"] == len(order)]
        closed = [row for row in end if row["kind"] in CLOSED]
        sources = dict.fromkeys(row["source"] for row in closed)
        figures["recall"][name] = summarise(end) | {
            "by_source": {
                s: share_of([row for row in closed if row["source"] == s]) for s in sources
            }
        }
        if closed:
            curve = forgetting(in_set, order)
            figures["forgetting"][name] = curve | {"halves": halves(in_set, order)}
    return figures


def halves(rows: Sequence[dict[str, Any]], order: Sequence[str]) -> dict[str, Any]:
    """Recall on closed questions on the first half of the conversations, when only these had been
    learnt and at the end, and on the second half at the end; None where nothing was asked.
    """
    half = len(order) // 2
    closed = [row for row in rows if row["kind"] in CLOSED]

    def at(after: int, ids: Sequence[str]) -> dict[str, Any] | None:
        return share_of(
            [row for row in closed if row["after"] == after and row["conversation"] in ids]
        )

    return {
        "first_when_learnt": at(half, order[:half]),
        "first_at_end": at(len(order), order[:half]),
        "second_at_end": at(len(order), order[half:]),
    }
