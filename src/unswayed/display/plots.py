"""Where things stand on axes, and how dark cells of heat maps are: the arithmetic of drawing."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Iterable
from typing import Any

STEPS = 9  # shades of a heat map, see the style sheet


@dataclasses.dataclass(frozen=True)
class Axis:
    """A horizontal axis of shares or differences of shares; positions in percent of its width."""

    low: float
    high: float
    values: tuple[float, ...]
    sign: bool = False

    def at(self, value: float | None) -> float | None:
        if value is None or math.isnan(value):
            return None
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def inside(self, value: float | None) -> float | None:
        """As `at`, but never outside of the axis."""
        return self.at(value if value is None else min(max(value, self.low), self.high))

    @property
    def ticks(self) -> list[dict[str, Any]]:
        """Position and label (percent or points) of each tick."""
        spec = "+g" if self.sign else "g"
        return [
            {"x": self.at(v), "label": f"{round(100 * v, 4):{spec}}" if v else "0"}
            for v in self.values
        ]


SHARES = Axis(0, 1, (0, 0.25, 0.5, 0.75, 1))


def svg(size: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """An SVG; the same input gives the same bytes.

    Args:
        size: width and height in inches.
        draw: called with a figure of matplotlib.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style = {"svg.hashsalt": "unswayed", "svg.fonttype": "none", "font.family": "sans-serif"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def rounded_up(value: float) -> float:
    """The next of 1 %, 2 %, 4 %, ..., 100 %; half of each is a round number too."""
    steps = (0.01, 0.02, 0.04, 0.06, 0.1, 0.14, 0.2, 0.3, 0.4, 0.6, 1)
    return next((step for step in steps if value <= step + 1e-12), 1)


def symmetric_axis(values: Iterable[float | None]) -> Axis:
    """One axis around zero that holds all differences, so that their sizes can be compared."""
    bound = rounded_up(max((abs(value) for value in values if value is not None), default=0))
    return Axis(-bound, bound, (-bound, -bound / 2, 0, bound / 2, bound), sign=True)


def margin_axis(
    margin: float, values: Iterable[dict[str, Any] | None]
) -> tuple[Axis, tuple[float | None, float | None]]:
    """One axis that holds differences with their intervals and the margin, and the latter's band.

    Args:
        values: estimates with bounds, see `ends`.
    """
    axis = symmetric_axis([margin, *(end for value in values for end in ends(value))])
    return axis, (axis.at(-margin), axis.at(margin))


def share_axis(largest: float) -> Axis:
    """From 0 to just above the largest share."""
    bound = rounded_up(largest)
    return Axis(0, bound, (0, bound / 2, bound))


def zoomed_axis(values: Iterable[float | None]) -> Axis:
    """The part of 0 to 1 that holds all shares, with ticks every 5 or 10 points."""
    low, high = shade_range(values)
    step = 5 if high - low <= 0.3 else 10
    low, high = math.floor(round(100 * low) / step), math.ceil(round(100 * high) / step)
    ticks = tuple(step * i / 100 for i in range(low, high + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def ends(value: dict[str, Any] | None) -> list[float | None]:
    """Estimate and bounds, for an axis that has to hold them."""
    return [value[key] for key in ("estimate", "low", "high")] if value else []


def position(value: dict[str, Any] | None, axis: Axis) -> dict[str, float | None]:
    """Where an estimate and its interval stand; the interval is cut at the axis' ends."""
    estimate, low, high = map(axis.inside, ends(value) or [None] * 3)
    return {"x": estimate, "x_low": low, "x_high": high}


def shade(value: float | None, low: float = 0.0, high: float = 1.0) -> int | None:
    """The shade of a heat map's cell, 0 (low) to STEPS - 1 (high); None for a missing value."""
    if value is None or math.isnan(value):
        return None
    share = (value - low) / (high - low)
    return min(max(math.floor(share * STEPS), 0), STEPS - 1)


def shade_range(values: Iterable[float | None]) -> tuple[float, float]:
    """Multiples of 5 points around all values, at least 10 points apart, within 0 and 1."""
    percents = [100 * value for value in values if value is not None]
    if not percents:
        return 0.0, 1.0
    low, high = 5 * math.floor(min(percents) / 5), 5 * math.ceil(max(percents) / 5)
    low = max(0, min(low, high - 10))
    return low / 100, min(100, max(high, low + 10)) / 100
