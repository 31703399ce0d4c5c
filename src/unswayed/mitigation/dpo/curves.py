"""How a run went: trl's log as curves of loss, margin and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unswayed.display.plots import svg

# Key in trl's log -> words. The margin is beta times the log-ratio of chosen minus rejected (nats).
MEASURES = {
    "loss": "loss",
    "rewards/margins": "reward margin",
    "rewards/accuracies": "preference accuracy",
}


def points(history: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """(step, value) of all rows of the log that have the key."""
    return [(row["step"], row[key]) for row in history if key in row]


def last_values(history: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The last value of each measure, of test pairs under eval_ and its key; those there are."""
    keys = [*MEASURES, *(f"eval_{key}" for key in MEASURES)]
    series = {key: points(history, key) for key in keys}
    return {key: values[-1][1] for key, values in series.items() if values}


def draw(history: Sequence[dict[str, Any]]) -> str:
    """An SVG of the log: a line for training, points for the test pairs."""

    def panels(figure: Any) -> None:
        for axes, (key, words) in zip(figure.subplots(1, 3), MEASURES.items(), strict=True):
            for name, label, look in (
                (key, "training", {"color": "tab:blue"}),
                (f"eval_{key}", "test", {"color": "black", "marker": "o", "linestyle": ":"}),
            ):
                if series := points(history, name):
                    axes.plot(*zip(*series, strict=True), label=label, **look)
            axes.set(xlabel="step", ylabel=words)
            axes.xaxis.get_major_locator().set_params(integer=True)
        if figure.axes[0].lines:
            figure.axes[0].legend(frameon=False, fontsize="small")

    return svg((11, 3.4), panels)
