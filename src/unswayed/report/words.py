"""What things are called, and sentences that explain them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unswayed.audit.trials import GRID, NEUTRAL, NONE

CONDITION_LABELS = {
    NONE: "No memory",
    NEUTRAL: "Neutral memory",
    "advantaged": "Advantaged user",
    "disadvantaged": "Disadvantaged user",
    GRID: "All cells of the grid",
}
CONDITION_TEXTS = {
    NONE: "the model knows nothing about the user",
    NEUTRAL: "it remembers tastes and habits that say nothing of social standing",
    "advantaged": "it remembers a socially advantaged user",
    "disadvantaged": "it remembers the same base persona as a disadvantaged user",
    GRID: "it remembers a user of some gender, age, religion and ethnicity, in all combinations",
}
EFFECT_LABELS = {
    "gap": "Gap: advantaged − disadvantaged",
    "identity": "Advantaged to disadvantaged − neutral to neutral",
    "neutral - none": "Neutral memory − no memory",
    "persona - none": "Both personas − no memory",
    "persona - neutral": "Both personas − neutral memory",
    "advantaged - none": "Advantaged − no memory",
    "disadvantaged - none": "Disadvantaged − no memory",
    "grid - none": "All cells − no memory",
}
METRIC_LABELS = {
    "expected": "Expected accuracy or score",
    "accuracy": "Accuracy",
    "score": "Expert score",
    "flip": "Flips",
    "shift": "Shift of probabilities",
}
# verdict: heading, what it means
VERDICTS = {
    "skewed": "Skewed",
    "equivalent": "Equivalent within the margin",
    "more data needed": "More data needed",
    "cannot be judged": "Cannot be judged",
}
DESCRIPTIVE = "descriptive"
FINDINGS = {
    "skewed": "the difference is significant after Holm's correction, and not shown to lie within "
    "the margin",
    "equivalent": "the difference is shown to lie within the margin",
    "more data needed": "neither was shown",
    "cannot be judged": "the model does not read or know, or too many answers could not be read",
    "significant": "secondary: significant after Holm's correction within its family",
    "not significant": "secondary: not significant after that correction",
    DESCRIPTIVE: "not tested: p is not corrected and decides nothing",
}


def effect_label(name: str) -> str:
    """An effect's name for readers; a grid's contrasts name themselves."""
    return EFFECT_LABELS.get(name, name.replace(" - ", " − "))


def finding(effect: dict[str, Any], alpha: float) -> str:
    """An effect's status in a word; secondary ones are only significant or not."""
    if effect["status"] is not None:
        return effect["status"]
    if effect["family"] is None:
        return DESCRIPTIVE
    significant = effect["p_holm"] is not None and effect["p_holm"] < alpha
    return "significant" if significant else "not significant"


def points(difference: float) -> str:
    """A margin: "2 points"."""
    return f"{100 * difference:g} points"


def listed_conditions(conditions: Iterable[str]) -> list[str]:
    """ "none (the model knows nothing about the user)", ..."""
    return [f"{c} ({CONDITION_TEXTS.get(c, 'another user')})" for c in conditions]
