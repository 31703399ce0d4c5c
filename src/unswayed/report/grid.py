"""The section on the demographic grid: contrasts of three methods, joint tests, means, cells."""

from __future__ import annotations

from typing import Any

from unswayed.display.numbers import interval, p_value, percent
from unswayed.display.plots import (
    ends,
    position,
    shade,
    shade_range,
    symmetric_axis,
    zoomed_axis,
)
from unswayed.report.words import effect_label

METHODS = {"mixed": "Mixed model", "logistic": "Logistic model", "paired": "Paired test"}
ALPHA = 0.05  # of the marks in the map of cells


def grid_panels(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """One panel per test that was asked about the grid."""
    return [
        {"test": name} | _panel(test, test["grid"])
        for name, test in summary["tests"].items()
        if test["grid"]
    ]


def _panel(test: dict[str, Any], grid: dict[str, Any]) -> dict[str, Any]:
    methods = [method for method in METHODS if any(c[method] for c in grid["contrasts"])]
    axis = symmetric_axis(
        end for contrast in grid["contrasts"] for m in methods for end in ends(contrast[m])
    )
    return {
        "n": f"{grid['n']:,}",
        "n_items": grid["n_items"],
        "n_cells": grid["n_cells"],
        "formula": grid["formula"],
        "reference": ", ".join(f"{name} {level}" for name, level in grid["reference"].items()),
        "methods": {method: METHODS[method] for method in methods},
        "axis": axis,
        "contrasts": [
            {
                "label": effect_label(contrast["name"]),
                "methods": [
                    {
                        "method": method,
                        "title": METHODS[method],
                        "value": interval(contrast[method], sign=True),
                        "p": p_value(contrast[method]["p"] if contrast[method] else None),
                        "p_holm": p_value(_holm(contrast, method, test["effects"])),
                    }
                    | position(contrast[method], axis)
                    for method in methods
                ],
            }
            for contrast in grid["contrasts"]
        ],
        "joint": joint_rows(grid),
        "means": _means(grid["means"]),
        "map": _map(grid["cells"]),
        "notes": model_notes(grid),
    }


def _holm(contrast: dict[str, Any], method: str, effects: list[dict[str, Any]]) -> float | None:
    """The corrected p; that of the paired test stands with the effects."""
    if method == "paired":
        key = ("accuracy", contrast["name"])
        return next(e["p_holm"] for e in effects if (e["metric"], e["name"]) == key)
    return contrast[method]["p_holm"] if contrast[method] else None


def joint_rows(grid: dict[str, Any]) -> list[dict[str, str]]:
    """Joint tests of attributes and interactions, Wald's and that over items, formatted."""
    return [
        {
            "name": name,
            "chi2": "–" if test["chi2"] is None else f"{test['chi2']:.2f}",
            "df": "–" if test["df"] is None else f"{test['df']:g}",
            "p": p_value(test["p"]),
            "p_holm": p_value(test["p_holm"]),
            "f": _f(test["robust"]),
            "f_p": p_value(test["robust"]["p"]),
            "f_p_holm": p_value(test["robust"]["p_holm"]),
        }
        for name, test in _joint_tests(grid)
    ]


def _joint_tests(grid: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    tests = [(test["attribute"], test) for test in grid["attributes"]]
    return tests + [(test["name"], test) for test in grid["interactions"]]


def _f(test: dict[str, Any]) -> str:
    """ "2.41 (2, 39)"."""
    return "–" if test["f"] is None else f"{test['f']:.2f} ({test['df1']}, {test['df2']})"


def model_notes(grid: dict[str, Any]) -> list[tuple[str, str]]:
    """(model, what it says of itself): how it was fitted, whether that worked, and any trouble."""
    notes = []
    for method in ("mixed", "logistic"):
        model = grid[method]
        words = [model["method"], "converged" if model["converged"] else "did not converge"]
        if method == "mixed" and model["item_sd"] is not None:
            words.append(
                f"standard deviation between questions {percent(model['item_sd'])} points, "
                f"within them {percent(model['residual_sd'])} points"
            )
        notes.append((METHODS[method], "; ".join([*words, *model["notes"]])))
    joint = [
        f"{name}: {test['robust']['note']}"
        for name, test in _joint_tests(grid)
        if test["robust"]["note"]
    ]
    return [*notes, ("Joint tests over items", "; ".join(joint))] if joint else notes


def _means(means: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not means:
        return None
    axis = zoomed_axis(end for mean in means for end in ends(mean))
    return {
        "axis": axis,
        "groups": {
            attribute: [
                {"level": mean["level"], "value": interval(mean)} | position(mean, axis)
                for mean in means
                if mean["attribute"] == attribute
            ]
            for attribute in dict.fromkeys(mean["attribute"] for mean in means)
        },
    }


def _map(cells: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Cells as rows gender x age and columns religion x ethnicity."""
    if not cells:
        return None

    def levels(attribute: str) -> list[str]:
        return list(dict.fromkeys(cell[attribute] for cell in cells))

    low, high = shade_range([cell["accuracy"] for cell in cells])
    by_levels = {
        (cell["gender"], cell["age"], cell["religion"], cell["ethnicity"]): cell for cell in cells
    }
    rows = [
        {
            "gender": gender if i == 0 else None,
            "n_ages": len(levels("age")),
            "age": age,
            "cells": [
                _cell(by_levels.get((gender, age, religion, ethnicity)), low, high)
                for religion in levels("religion")
                for ethnicity in levels("ethnicity")
            ],
        }
        for gender in levels("gender")
        for i, age in enumerate(levels("age"))
    ]
    return {
        "religions": levels("religion"),
        "ethnicities": levels("ethnicity"),
        "rows": rows,
        "low": percent(low),
        "high": percent(high),
        "n_marked": sum(cell["mark"] is not None for row in rows for cell in row["cells"]),
    }


def _cell(cell: dict[str, Any] | None, low: float, high: float) -> dict[str, Any]:
    if cell is None:
        return {"value": "–", "shade": None, "mark": None}
    significant = cell["p_max_t"] is not None and cell["p_max_t"] < ALPHA
    return {
        "value": percent(cell["accuracy"]),
        "shade": shade(cell["accuracy"], low, high),
        "mark": ("above" if cell["difference"] > 0 else "below") if significant else None,
    }
