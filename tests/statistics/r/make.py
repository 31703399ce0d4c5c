"""Make grid.csv and pairs.csv: `python make.py`. Both are kept, so nobody has to run it.

Right and wrong answers are drawn from latent normals: questions differ in difficulty and in how
they react to an attribute or to a condition, users differ in how they are treated.
"""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CONDITIONS = ("none", "neutral", "advantaged", "disadvantaged")
EFFECTS = {  # of the levels 0, 1, 2 of each attribute
    "gender": (0.0, 0.10, -0.25),
    "age": (0.0, 0.0, 0.20),
    "religion": (0.0, -0.30, 0.05),
    "ethnicity": (0.0, 0.0, 0.0),
}


def grid(rng: np.random.Generator, n_items: int = 24) -> list[tuple[int, ...]]:
    """item, the four attributes' levels, correct."""
    difficulty = rng.normal(0.4, 0.8, n_items)
    own = {name: rng.normal(0, 0.25, (n_items, 3)) for name in EFFECTS}
    return [
        (
            item,
            *cell,
            int(
                difficulty[item]
                + sum(EFFECTS[a][b] + own[a][item, b] for a, b in zip(EFFECTS, cell, strict=True))
                + (0.35 if cell[0] == 1 and cell[1] == 2 else 0.0)
                + rng.normal()
                > 0
            ),
        )
        for item in range(n_items)
        for cell in itertools.product(range(3), repeat=4)
    ]


def pairs(
    rng: np.random.Generator, n_items: int = 30, n_pairs: int = 12
) -> list[tuple[int, int, str, int]]:
    """item, pair (0 without memory), condition, correct."""
    difficulty = rng.normal(0.5, 0.8, n_items)
    by_item = {c: rng.normal(0, 0.6, n_items) for c in CONDITIONS}
    by_pair = {c: rng.normal(0, 0.4, n_pairs) for c in CONDITIONS}
    effect = {"none": 0.0, "neutral": -0.1, "advantaged": 0.1, "disadvantaged": -0.3}
    return [
        (
            item,
            pair,
            c,
            int(
                difficulty[item]
                + (effect[c] + by_item[c][item] + by_pair[c][pair] if c != "none" else 0)
                + rng.normal(0, 0.8)
                > 0
            ),
        )
        for c in CONDITIONS
        for pair in range(1 if c == "none" else n_pairs)
        for item in range(n_items)
    ]


def write(name: str, header: str, rows: list[tuple]) -> None:
    with open(HERE / name, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split())
        writer.writerows(rows)


if __name__ == "__main__":
    write("grid.csv", "item gender age religion ethnicity correct", grid(np.random.default_rng(1)))
    write("pairs.csv", "item pair condition correct", pairs(np.random.default_rng(2)))
