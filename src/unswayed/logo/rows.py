"""From what the sides say to rows of answers: one per view of a target and method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from unswayed.data.histories import Task
from unswayed.data.histories.baseline import Means, fit_means
from unswayed.data.histories.metrics import rouge_1, rouge_l
from unswayed.logo.calibration import contextual
from unswayed.logo.mediator import (
    HistoryFacts,
    LearnedMediator,
    equal,
    observations,
    shrinkage,
)
from unswayed.logo.plan import TEST, Plan, TargetView
from unswayed.logo.recipe import LogoSettings
from unswayed.logo.sides import (
    CALIBRATED,
    FUSED,
    GLOBAL,
    LOCAL,
    MODULE,
    OWN_PAST,
    PROMPTED,
    Sides,
)

MEANS = "means"
LEARNED = ("logo-gate", *CALIBRATED)  # from the answers of fit users
OF_LABELS = (*CALIBRATED, MEANS)  # not in free text


def make_rows(
    plan: Plan,
    sides: Sides,
    methods: Sequence[str],
    mediators: dict[int, LearnedMediator],
    logo: LogoSettings,
) -> list[dict[str, Any]]:
    """A row per case and method, fit users' included; no text of the source.

    Columns: user, event (ids), part, segment, cut (None: all that is known), n (events known),
    skewed, balanced, method; answer, prediction (labels), expected (of an ordinal task, on its
    scale), probabilities (over the labels, or the local and the global text), weight_global (of
    FUSED), rouge_1, rouge_l (free text). Columns without meaning for a row are None.
    """
    task, rows = plan.task, []
    means = {}
    if MEANS in methods:
        means = {s: fit_means(plan.lessons_before(s), task) for s in plan.asked_segments}
    for i, view in enumerate(plan.views):
        target = view.target
        tested = target.part == TEST
        by_method = {
            method: _scored(task, view, sides.outputs[i, method])
            for method in (*OWN_PAST, *MODULE, PROMPTED)
            if (i, method) in sides.outputs
        }
        for method in (*CALIBRATED, *FUSED, MEANS) if tested else ():
            mediator = mediators.get(target.segment)
            if method not in methods:
                continue
            if method == MEANS:
                by_method[method] = _by_means(means[target.segment], view)
            elif method in CALIBRATED:
                side = mediator.calibrated(*sides.sides[i][1:])[CALIBRATED.index(method)]
                by_method[method] = _scored(task, view, side)
            else:
                by_method[method] = _fused(method, task, view, i, sides, mediator, logo)
        same = {
            "user": target.event.user,
            "event": target.event.id,
            "part": target.part,
            "segment": target.segment,
            "cut": view.cut,
            "n": len(view.past),
            "skewed": target.skewed,
            "balanced": target.balanced,
            "answer": target.event.response if task.labels else None,
        }
        rows += [same | {"method": method} | scores for method, scores in by_method.items()]
    return rows


def _fused(
    method: str,
    task: Task,
    view: TargetView,
    place: int,
    sides: Sides,
    mediator: LearnedMediator | None,
    logo: LogoSettings,
) -> dict[str, Any]:
    if place not in sides.sides:  # both sides wrote the same, or one of them nothing
        texts = (sides.outputs[place, name] for name in (GLOBAL, LOCAL))
        return _scored(task, view, next(filter(None, texts), ""))
    candidates, p_local, p_global = sides.sides[place]
    if method == "logo-gate":
        mediated = mediator.mediate(p_local, p_global, HistoryFacts(len(view.past), view.age))
    else:
        if sides.content_free is not None:
            p_local = contextual(p_local, sides.content_free)
        mediated = (
            equal(p_local, p_global)
            if method == "logo-equal"
            else shrinkage(
                p_local,
                p_global,
                observations(view.past, task, logo.evidence),
                logo.shrinkage,
            )
        )
    output = mediated.probabilities
    if task.labels is None:
        output = candidates[int(np.argmax(output))]
    return _scored(task, view, output) | {
        "probabilities": mediated.probabilities.tolist(),
        "weight_global": mediated.weight_global,
    }


def _by_means(means: Means, view: TargetView) -> dict[str, Any]:
    """What the baseline without a model says."""
    event, ordinal = view.target.event, means.task.ordinal
    return {
        "prediction": means.label(view.past, event),
        "expected": means.value(view.past, event) if ordinal else None,
    }


def _scored(task: Task, view: TargetView, output: Any) -> dict[str, Any]:
    """A distribution over the labels, or a text, as a row has it.

    On a scale the prediction is the median, which minimises the expected absolute error, and the
    expected value the mean, which minimises the squared one; else it is the likeliest label.
    """
    if task.labels is None:
        answers = [view.target.event.response]
        return {
            "rouge_1": float(rouge_1([output], answers)[0]),
            "rouge_l": float(rouge_l([output], answers)[0]),
        }
    if not task.ordinal:
        return {"prediction": task.labels[int(np.argmax(output))], "probabilities": output.tolist()}
    order = np.argsort([float(label) for label in task.labels], kind="stable")
    median = order[int(np.searchsorted(np.cumsum(output[order]), 0.5 * output.sum()))]
    return {
        "prediction": task.labels[median],
        "expected": float(output @ np.array(task.labels, dtype=float) / output.sum()),
        "probabilities": output.tolist(),
    }


def as_frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows with the same columns and types whatever was asked."""
    kinds = {
        "user": "str", "event": "str", "part": "str", "segment": "int64", "cut": "Int64",
        "n": "int64", "skewed": "bool", "balanced": "bool", "method": "str", "answer": "str",
        "prediction": "str", "expected": "float64", "probabilities": "object",
        "weight_global": "float64", "rouge_1": "float64", "rouge_l": "float64",
    }  # fmt: skip
    return pd.DataFrame(rows, columns=list(kinds)).astype(kinds)
