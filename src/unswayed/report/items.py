"""The item-by-condition heat map: how often each item is answered rightly under each condition."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd

from unswayed.audit.flips import scenarios
from unswayed.audit.trials import CONDITIONS, GRID
from unswayed.data.personas import ATTRIBUTES
from unswayed.display.plots import shade

MANY_FLIPS = 0.5  # share of flips from which a cell is marked


def item_maps(answers: pd.DataFrame) -> list[dict[str, Any]]:
    """One heat map per test; items that are answered rightly most often come first."""
    texts = scenarios(answers)
    return [_item_map(name, rows, texts) for name, rows in answers.groupby("test", sort=False)]


def _item_map(
    test: str, answers: pd.DataFrame, texts: dict[tuple[str, str], str]
) -> dict[str, Any]:
    columns, groups = _columns(answers)
    correct, flips = (
        pd.DataFrame(
            {
                key: rows.assign(value=rows[name].astype(float))
                .groupby("question_id", sort=False)["value"]
                .mean()
                for key, (_, rows) in columns.items()
            }
        )
        for name in ("correct", "flip")
    )
    first = correct.iloc[:, 0]
    order = sorted(correct.index, key=lambda item: (-first[item], -correct.loc[item].mean()))
    return {
        "test": test,
        "groups": groups,
        "columns": [title for title, _ in columns.values()],
        "rows": [
            {
                "id": item,
                "text": textwrap.shorten(texts.get((test, item), ""), 70, placeholder=" …"),
                "cells": [
                    {
                        "value": "–" if pd.isna(share) else f"{100 * share:.0f}",
                        "shade": shade(share),
                        "mark": "flips" if flips.loc[item, key] >= MANY_FLIPS else None,
                    }
                    for key, share in correct.loc[item].items()
                ],
            }
            for item in order
        ],
    }


def _columns(
    answers: pd.DataFrame,
) -> tuple[dict[str, tuple[str, pd.DataFrame]], list[tuple[str, int]]]:
    """{key: (title, rows)} of the map's columns, and (heading, how many columns) above them."""
    present = [c for c in CONDITIONS if c in set(answers["condition"])]
    columns = {c: (c, answers[answers["condition"] == c]) for c in present}
    groups = [("condition", len(columns))]
    if GRID in present:
        cells = answers[answers["condition"] == GRID]
        for attribute in ATTRIBUTES:
            levels = {
                f"{attribute}={level}": (level, rows)
                for level, rows in cells.groupby(attribute, sort=False)
            }
            columns |= levels
            groups.append((attribute, len(levels)))
    return columns, groups
