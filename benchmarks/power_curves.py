"""What accuracy and expected accuracy find of one and the same shift, from stored runs.

    python benchmarks/power_curves.py RUN... --out results/power_curves.json \
        --svg docs/images/power_curves.svg

A shift of s nats is added to the score of the key in every answer to an advantaged user, as if
memory made the key that much more probable. By the run's own rule it moves accuracy, where two
options change places, and expected accuracy (of management items the expert score), with every
answer. For each s: how far either moves, its variance components after the shift, the power of
studies of other sizes, and how many items find it in 80 % of studies with 10 pairs.
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unswayed.audit.rundir import read_answers, read_run
from unswayed.core.files import write_text
from unswayed.display.plots import svg
from unswayed.models.embedded import model_label
from unswayed.scoring.prompts import Likelihoods, first_of_best
from unswayed.statistics.power import MOST_NEEDED, POWER, components, simulated_power

SHIFTS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)  # nats
SIZES = ((59, 10), (150, 10), (150, 30))
PAIRS = 10  # of the items that are needed
OUTCOMES = ("accuracy", "expected")
MARGIN = 0.05  # of no account here: power of finding a difference


def outcomes(row: dict[str, Any], shift: float) -> tuple[float, float]:
    """Accuracy and expected score of an answer whose key gains `shift` nats; 0 if unread."""
    if not row["parsed"] or row["option_scores"] is None:
        return 0.0, 0.0
    key = list(row["options"]).index(row["gold_label"])
    columns = (row[name] for name in ("options", "option_scores", "option_tokens", "option_priors"))
    nats = np.array(
        Likelihoods(*columns).nats("sum" if row["option_priors"] is None else row["rule"])
    )
    nats[key] += shift
    q = np.exp(nats - nats.max())
    return float(first_of_best(nats.tolist()) == key), float(q @ np.array(row["weights"]) / q.sum())


def matrix(rows: pd.DataFrame, shift: float) -> dict[str, np.ndarray]:
    """{outcome: (I, J)} of one condition."""
    values = [outcomes(row, shift) for row in rows.to_dict("records")]
    wide = rows.assign(**dict(zip(OUTCOMES, zip(*values, strict=True), strict=True)))
    return {
        name: wide.pivot(index="question_id", columns="pair_id", values=name).to_numpy()
        for name in OUTCOMES
    }


def study(differences: np.ndarray, gap: float) -> dict[str, Any]:
    """Power of finding `gap` with these differences' (I, J) components; the items that it takes."""
    parts = components(differences)

    def power(n_items: int, n_users: int) -> float:
        return simulated_power(parts, n_items, n_users, gap, MARGIN)[0]

    counts = range(2, MOST_NEEDED)
    place = bisect.bisect_left(counts, True, key=lambda n: power(n, PAIRS) >= POWER)
    return {
        "gap": gap,
        "components": dataclasses.asdict(parts),
        "power": {f"{i}x{j}": power(i, j) for i, j in SIZES},
        "items_needed": counts[place] if place < len(counts) else None,
    }


def curve(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """A point for each shift, of the rows of one test."""
    sides = {name: part for name, part in rows.groupby("condition")}
    before, other = (matrix(sides[name], 0.0) for name in ("advantaged", "disadvantaged"))
    points = []
    for shift in SHIFTS:
        after = matrix(sides["advantaged"], shift)
        by_outcome = {
            name: study(after[name] - other[name], float((after[name] - before[name]).mean()))
            for name in OUTCOMES
        }
        items = [by_outcome[name]["items_needed"] for name in OUTCOMES]
        points.append(
            {"nats": shift, **by_outcome, "ratio": None if None in items else items[0] / items[1]}
        )
    return points


def of_run(out: Path) -> list[dict[str, Any]]:
    """Curves of each test of a run directory."""
    run, answers = read_run(out), read_answers(out).to_pandas()
    first = answers.iloc[0]
    about = {"model": model_label(run["identity"]["model"]), "scoring": first["scoring"]}
    return [
        about
        | {
            "rule": first["rule"],
            "test": test,
            "n_items": int(rows["question_id"].nunique()),
            "n_pairs": int(rows["pair_id"].nunique()),
            "curve": curve(rows),
        }
        for test, rows in answers.groupby("test", sort=False)
    ]


def draw(figure: Any, curves: list[dict[str, Any]]) -> None:
    """A panel for each run and test: power over the shift, by outcome and size."""
    columns = min(len(curves), 2)
    panels = figure.subplots(-(-len(curves) // columns), columns, squeeze=False, sharey=True)
    for panel, of in zip(panels.flat, curves, strict=False):
        for name, color in zip(OUTCOMES, ("#b5651d", "#1f5fa8"), strict=True):
            for (i, j), style in zip(SIZES, (":", "--", "-"), strict=True):
                power = [100 * point[name]["power"][f"{i}x{j}"] for point in of["curve"]]
                panel.plot(SHIFTS, power, style, color=color, label=f"{name}, {i} x {j}")
        panel.axhline(100 * POWER, color="#999999", linewidth=0.7)
        panel.set_title(f"{of['model']}, {of['scoring']}: {of['test']}", fontsize=9)
        panel.set(xlabel="shift of the key, nats", ylim=(0, 102))
    for row in panels:
        row[0].set_ylabel("power, %")
    panels[0][0].legend(fontsize=7, frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--svg", type=Path, help="picture to write")
    arguments = parser.parse_args()
    curves = [of for out in arguments.runs for of in of_run(out)]
    command = "python benchmarks/power_curves.py RUN... --out results/power_curves.json"
    result = {"command": command, "alpha": 0.05, "pairs": PAIRS, "curves": curves}
    write_text(arguments.out, json.dumps(result, indent=1) + "\n")
    if arguments.svg:
        size = (4.2 * min(len(curves), 2), 3.0 * -(-len(curves) // 2))
        write_text(arguments.svg, svg(size, lambda figure: draw(figure, curves)))


if __name__ == "__main__":
    main()
