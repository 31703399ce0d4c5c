"""The demographic grid of one test: paired contrasts of its levels, its models, its cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from unswayed.audit.effects import COLUMNS, family, paired_effect, unread
from unswayed.audit.evidence import Cell, Contrast, Effect
from unswayed.core.errors import InputError
from unswayed.data.personas import ATTRIBUTES, grid_personas
from unswayed.statistics.crossed import crossed_mean, equivalence_p
from unswayed.statistics.max_t import cell_contrasts, interaction_contrasts, max_t
from unswayed.statistics.mixed import analyse_grid, contrast_name


def grid_levels(rows: pd.DataFrame) -> dict[str, list[str]]:
    """{attribute: levels as in the bank, the reference first}; empty without a grid."""
    cells = rows[rows["gender"].notna()]
    bank = [dict(persona.attributes) for persona in grid_personas()]
    levels = {}
    for name in ATTRIBUTES if len(cells) else ():
        present = set(cells[name])
        ordered = dict.fromkeys([*(cell[name] for cell in bank), *cells[name]])
        levels[name] = [level for level in ordered if level in present]
    return {name: values for name, values in levels.items() if len(values) > 1}


def level_differences(
    rows: pd.DataFrame, levels: dict[str, list[str]], metric: str
) -> dict[str, np.ndarray]:
    """Each level minus the reference level, paired by item and the other three attributes.

    Returns:
        {contrast: (I, J)}, J the combinations of the other attributes.
    """
    return {name: plus - minus for name, (plus, minus) in _sides(rows, levels, metric).items()}


def _sides(
    rows: pd.DataFrame, levels: dict[str, list[str]], metric: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    cells = rows[rows["gender"].notna()]
    values = cells.assign(value=cells[COLUMNS[metric]].astype(float))
    sides = {}
    for attribute, (reference, *other_levels) in levels.items():
        rest = [name for name in ATTRIBUTES if name != attribute]
        wide = values.pivot(index="question_id", columns=[attribute, *rest], values="value")
        for level in other_levels:
            name = contrast_name(attribute, level, levels)
            pairs = wide[level].columns  # both sides in the order of the other attributes
            sides[name] = wide[level].to_numpy(), wide[reference][pairs].to_numpy()
    return sides


def grid_contrasts(
    rows: pd.DataFrame,
    levels: dict[str, list[str]],
    metrics: Sequence[str],
    outcome: str,
    margin: float,
) -> list[Effect]:
    """Each level against the reference level, by each metric; of the outcome they are primary."""
    effects, read = [], _sides(rows, levels, "read")
    for metric in metrics:
        for name, sides in _sides(rows, levels, metric).items():
            effect = paired_effect(name, "grid", metric, sides[0] - sides[1], margin, outcome)
            effects.append(effect | unread(*sides, *read[name], margin))
    return effects


def grid_summary(
    rows: pd.DataFrame,
    levels: dict[str, list[str]],
    effects: Sequence[Effect],
    outcome: str,
    margin: float,
    interactions: bool,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The models of the grid, beside each contrast the paired one, all cells, and what max-T shows.

    Args:
        margin: of a cell's difference from all cells' mean, a share.
    """
    cells = rows[rows["gender"].notna()]
    models = dataclasses.asdict(analyse_grid(cells, levels, interactions))
    paired = {e["name"]: e for e in effects if e["kind"] == "grid" and e["metric"] == "accuracy"}
    for contrast in models["contrasts"]:
        effect = paired[contrast["name"]]
        contrast["paired"] = {key: effect[key] for key in ("estimate", "low", "high", "p")}
    attributes = cells.drop_duplicates("condition").set_index("condition")[list(ATTRIBUTES)]
    attributes = attributes.sort_values(list(levels), key=lambda a: a.map(levels[a.name].index))
    wide = cells.assign(value=cells[COLUMNS[outcome]].astype(float)).pivot(
        index="question_id", columns="condition", values="value"
    )[attributes.index]
    contrasts, notes = _max_t(wide.to_numpy(), attributes[list(levels)], rng)
    return models | {
        "n_cells": len(attributes),
        "cells": _cells(cells, wide, attributes, contrasts, margin),
        "max_t": contrasts,
        "max_t_notes": notes,
    }


def _max_t(
    values: np.ndarray, attributes: pd.DataFrame, rng: np.random.Generator
) -> tuple[list[Contrast], list[str]]:
    """All cells, and all two-way contrasts of a balanced grid, tested together."""
    if len(values) < 2:
        return [], ["one item only: cells cannot be tested"]
    weights, notes = cell_contrasts(attributes), []
    try:
        weights = pd.concat([weights, interaction_contrasts(attributes)], axis=1)
    except InputError as error:
        notes.append(f"two-way contrasts were left out: {error}")
    kinds, names = (weights.columns.get_level_values(i) for i in (0, 1))
    tested = max_t(values @ weights.to_numpy(), rng, kinds=list(kinds))
    bounds = [
        [None if np.isnan(value) else float(value) for value in side]
        for side in (tested.low, tested.high)
    ]
    columns = (kinds, names, tested.estimate.tolist(), *bounds, tested.p.tolist())
    keys = ("kind", "name", "estimate", "low", "high", "p")
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)], notes


def cells_effect(grid: dict[str, Any], rows: pd.DataFrame, outcome: str) -> Effect:
    """The cell or two-way contrast that stands out most, as one primary test of them all."""
    about = {"n_items": int(rows["question_id"].nunique()), "n_pairs": grid["n_cells"]}
    if not grid["max_t"]:
        worst = {"name": "cells", "estimate": 0.0, "low": None, "high": None, "p": None}
    else:
        worst = min(grid["max_t"], key=lambda c: (c["p"], -abs(c["estimate"])))
        kind, levels = worst["kind"], worst["name"]
        worst = worst | {"name": levels if kind == "cell" else f"{kind}: {levels}"}
    return {
        "name": worst["name"],
        "kind": "cells",
        "metric": outcome,
        "family": family(worst["name"], "cells", outcome, outcome),
        **{key: worst[key] for key in ("estimate", "low", "high", "p")},
        **dict.fromkeys(("se", "df", "p_holm", "p_tost", "p_mcnemar", "unread", "status")),
        **about,
        "n_differences": about["n_items"] * about["n_pairs"],
        "better": sum(c["estimate"] > 0 for c in grid["max_t"]),
        "worse": sum(c["estimate"] < 0 for c in grid["max_t"]),
        "notes": [
            f"of {len(grid['max_t'])} cells and two-way contrasts the one that stands out most, p "
            "adjusted for all (max-T)",
            *grid["max_t_notes"],
        ],
        "reasons": [],
    }


def _cells(
    cells: pd.DataFrame,
    wide: pd.DataFrame,
    attributes: pd.DataFrame,
    contrasts: Sequence[Contrast],
    margin: float,
) -> list[Cell]:
    """Each cell's accuracy and its difference from the mean of all cells, paired by item."""
    accuracy = cells.groupby("condition")["correct"].mean()
    adjusted = [contrast["p"] for contrast in contrasts if contrast["kind"] == "cell"]
    rows = []
    for i, cell in enumerate(attributes.index):
        differences = (wide[cell] - wide.mean(axis=1)).to_numpy()[:, None]
        mean = crossed_mean(differences)
        rows.append(
            {
                "cell": cell,
                **attributes.loc[cell].to_dict(),
                "n": len(wide),
                "accuracy": float(accuracy[cell]),
                "difference": mean.estimate,
                "low": mean.low,
                "high": mean.high,
                "p_max_t": adjusted[i] if adjusted else None,
                "p_tost": equivalence_p(differences, margin),
            }
        )
    return rows
