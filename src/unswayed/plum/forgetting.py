"""Forgetting: recall on earlier conversations while later ones are learnt.

From the rows of `recall` with one more field, `after`: the number of conversations learnt so far.
The conversations are those of `order`, learnt in that order. R[t, i] is the recall on conversation
i + 1 after t + 1 conversations; NaN where nothing was asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from unswayed.display.plots import svg
from unswayed.plum.qa import CLOSED
from unswayed.plum.recall import said_yes, share_of


def accuracy_matrix(rows: Sequence[dict[str, Any]], order: Sequence[str]) -> np.ndarray:
    """R, (T, T) for the T conversations of `order`; from closed questions."""
    place = {id: i for i, id in enumerate(order)}
    cells: dict[tuple[int, int], list[bool]] = defaultdict(list)
    for row in rows:
        if row["kind"] in CLOSED:
            cells[row["after"] - 1, place[row["conversation"]]].append(row["correct"])
    matrix = np.full((len(order), len(order)), np.nan)
    for cell, correct in cells.items():
        matrix[cell] = np.mean(correct)
    return matrix


def backward_transfer(matrix: np.ndarray) -> float | None:
    """BWT = 1 / (T - 1) sum over i < T of R[T, i] - R[i, i]; below 0 is forgetting.

    Lopez-Paz & Ranzato 2017 (arXiv 1706.08840), eq. 3. Over the conversations whose two values are
    known; None if there are none.
    """
    return _mean(transfers(matrix))


def transfers(matrix: np.ndarray) -> np.ndarray:
    """(T - 1,) R[T, i] - R[i, i]; NaN where one of the two is not known."""
    return (matrix[-1] - np.diag(matrix))[:-1]


def by_age(matrix: np.ndarray) -> list[float | None]:
    """The forgetting curve: mean recall on a conversation when 0, 1, ... more have been learnt."""
    return [_mean(np.diag(matrix, -age)) for age in range(len(matrix))]


def first_against_peak(matrix: np.ndarray) -> dict[str, float] | None:
    """Recall on the first conversation: at the last checkpoint, its peak, and what was lost."""
    first = matrix[:, 0]
    first = first[~np.isnan(first)]
    if not len(first):
        return None
    end, peak = float(first[-1]), float(first.max())
    return {"end": end, "peak": peak, "lost": peak - end}


def over_time(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per checkpoint, over all conversations learnt by then: recall, yes, no and said_yes."""
    checkpoints: dict[int, list[dict]] = defaultdict(list)
    for row in rows:
        if row["kind"] in CLOSED:
            checkpoints[row["after"]].append(row)
    return [
        {
            "after": after,
            "closed": share_of(closed),
            "yes": share_of([row for row in closed if row["kind"] == "yes"]),
            "no": share_of([row for row in closed if row["kind"] == "no"]),
            "said_yes": said_yes(closed),
        }
        for after, closed in sorted(checkpoints.items())
    ]


def forgetting(rows: Sequence[dict[str, Any]], order: Sequence[str]) -> dict[str, Any]:
    """Everything above, ready for JSON; `matrix` has None where nothing was asked."""
    matrix = accuracy_matrix(rows, order)
    return {
        "conversations": list(order),
        "over_time": over_time(rows),
        "by_age": by_age(matrix),
        "backward_transfer": backward_transfer(matrix),
        "first": first_against_peak(matrix),
        "matrix": [[None if np.isnan(v) else float(v) for v in row] for row in matrix],
    }


def draw(curve: dict[str, Any]) -> str:
    """An SVG of what `forgetting` returns: recall and share of Yes over time, and R.

    The same input gives the same bytes.
    """
    return svg((10, 4), lambda figure: _draw(figure, curve))


def _draw(figure: Any, curve: dict[str, Any]) -> None:
    points = curve["over_time"]
    after = [point["after"] for point in points]
    lines, cells = figure.subplots(1, 2, width_ratios=[3, 2])
    for key, label, look in (
        ("closed", "all questions", {"color": "black", "linewidth": 2}),
        ("yes", "answer is yes", {"color": "tab:blue"}),
        ("no", "answer is no", {"color": "tab:orange"}),
    ):
        recall = [(p["after"], p[key]["recall"]) for p in points if p[key] is not None]
        lines.plot([x for x, _ in recall], [y for _, y in recall], label=label, **look)
    band = [(p["after"], p["closed"]) for p in points if p["closed"]["low"] is not None]
    lines.fill_between(
        [x for x, _ in band], [b["low"] for _, b in band], [b["high"] for _, b in band],
        color="black", alpha=0.12,
    )  # fmt: skip
    yes = [point["said_yes"] for point in points]
    lines.plot(after, yes, ":", color="grey", label="share of Yes said")
    lines.axhline(0.5, color="lightgrey", linewidth=0.8, zorder=0)
    lines.set(ylim=(-0.02, 1.02), xlabel="conversations learnt", ylabel="recall so far")
    lines.legend(loc="lower left", fontsize="small", frameon=False)
    size = len(curve["matrix"])
    image = cells.imshow(
        np.array(curve["matrix"], dtype=float),
        vmin=0, vmax=1, cmap="cividis", interpolation="nearest", aspect="auto",
        extent=(0.5, size + 0.5, size + 0.5, 0.5),
    )  # fmt: skip
    cells.set(xlabel="asked about conversation", ylabel="conversations learnt")
    for axis in (lines.xaxis, cells.xaxis, cells.yaxis):
        axis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, ax=cells, label="recall")


def _mean(values: np.ndarray) -> float | None:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None
