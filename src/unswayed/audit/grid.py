"""The demographic grid of one test: paired contrasts of its levels, its models, its cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from unswayed.audit.effects import COLUMNS, Spreads, paired_effect
from unswayed.audit.evidence import Cell, Effect
from unswayed.data.personas import ATTRIBUTES, grid_personas
from unswayed.statistics.classic import correct
from unswayed.statistics.crossed import components, crossed_mean, permutation_p
from unswayed.statistics.mixed import analyse_grid, contrast_name


def grid_levels(rows: pd.DataFrame) -> dict[str, list[str]]:
    """{attribute: levels as in the bank, the reference first}; empty without a grid."""
    cells = rows[rows["gender"].notna()]
    bank = [dict(persona.attributes) for persona in grid_personas()]
    levels = {}
    for name in ATTRIBUTES if len(cells) else ():
        asked = set(cells[name])
        ordered = dict.fromkeys([*(cell[name] for cell in bank), *cells[name]])
        levels[name] = [level for level in ordered if level in asked]
    return {name: values for name, values in levels.items() if len(values) > 1}


def grid_contrasts(
    rows: pd.DataFrame,
    levels: dict[str, list[str]],
    metrics: Sequence[str],
    margin: float,
    rng: np.random.Generator,
) -> tuple[list[Effect], Spreads]:
    """Each level against the reference level, paired by item and the other three attributes."""
    cells = rows[rows["gender"].notna()]
    effects, spreads = [], {}
    for metric in metrics:
        values = cells.assign(value=cells[COLUMNS[metric]].astype(float))
        for attribute, (reference, *other_levels) in levels.items():
            rest = [name for name in ATTRIBUTES if name != attribute]
            wide = values.pivot(index="question_id", columns=[attribute, *rest], values="value")
            for level in other_levels:
                differences = (wide[level] - wide[reference]).to_numpy()
                name = contrast_name(attribute, level, levels)
                effects.append(
                    paired_effect(name, "grid", metric, differences, "cells", margin, rng)
                )
                if len(differences) > 1:
                    spreads[metric, name] = components(differences)
    return effects, spreads


def grid_summary(
    rows: pd.DataFrame,
    levels: dict[str, list[str]],
    effects: Sequence[Effect],
    interactions: bool,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The models of the grid, beside each contrast the paired one, and all cells."""
    asked = rows[rows["gender"].notna()]
    models = dataclasses.asdict(analyse_grid(asked, levels, interactions))
    paired = {e["name"]: e for e in effects if e["kind"] == "grid" and e["metric"] == "accuracy"}
    for contrast in models["contrasts"]:
        effect = paired[contrast["name"]]
        contrast["paired"] = {key: effect[key] for key in ("estimate", "low", "high", "p")}
    cells = _cells(asked, levels, rng)
    return models | {"n_cells": len(cells), "cells": cells}


def _cells(
    asked: pd.DataFrame, levels: dict[str, list[str]], rng: np.random.Generator
) -> list[Cell]:
    """Each cell's accuracy and its difference from the mean of all cells, paired by item."""
    wide = asked.assign(value=asked["correct"].astype(float)).pivot(
        index="question_id", columns="condition", values="value"
    )
    attributes = asked.drop_duplicates("condition").set_index("condition")[list(ATTRIBUTES)]
    attributes = attributes.sort_values(list(levels), key=lambda a: a.map(levels[a.name].index))
    cells = []
    for cell in attributes.index:
        differences = (wide[cell] - wide.mean(axis=1)).to_numpy()[:, None]
        mean = crossed_mean(differences)
        cells.append(
            {
                "cell": cell,
                **attributes.loc[cell].to_dict(),
                "n": len(wide),
                "accuracy": float(wide[cell].mean()),
                "difference": mean.estimate,
                "se": mean.se,
                "df": mean.df,
                "low": mean.low,
                "high": mean.high,
                "p": permutation_p(differences, rng, "items"),
            }
        )
    correct(cells)
    return cells
