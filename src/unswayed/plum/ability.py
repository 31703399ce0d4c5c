"""General ability before and after training: the same questions, compared question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unswayed.scoring.harness import task_samples

MARGIN = 0.02  # a change below two points does not matter


def check_ability(
    lm: Any, tasks: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, list[float]]:
    """Accuracy on each question of some of lm-eval's tasks.

    Args:
        lm: an lm-eval model (`load_lm`, `loaded_lm`).
        tasks: ours, e.g. "ability_mmlu", or stock ones that have the metric acc.
        settings: of our tasks, e.g. {"mmlu": folder, "questions": 570} (see tasks/ability).

    Returns:
        Task -> 0 or 1 for each question, in the task's order.
    """
    answers = task_samples(lm, tasks, settings, chat=False)
    return {name: [sample["acc"] for sample in samples] for name, samples in answers.items()}


def ability_change(
    before: Mapping[str, Sequence[float]],
    after: Mapping[str, Sequence[float]],
    margin: float = MARGIN,
) -> dict[str, dict[str, Any]]:
    """Accuracy before and after, and their difference paired by question.

    Returns:
        Task -> before, after, change, low, high (95 %), n, and p_equivalent: that of the two
        one-sided tests that the change is within +-margin.
    """
    from unswayed.statistics.crossed import crossed_mean, equivalence_p

    changes = {}
    for name in before:
        pair = np.array([before[name], after[name]], dtype=float)
        differences = (pair[1] - pair[0])[:, None]
        difference = crossed_mean(differences)
        changes[name] = {
            "before": float(pair[0].mean()),
            "after": float(pair[1].mean()),
            "change": difference.estimate,
            "low": difference.low,
            "high": difference.high,
            "n": difference.n,
            "p_equivalent": equivalence_p(differences, margin),
        }
    return changes
