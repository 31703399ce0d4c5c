"""A run read again by another rule, without asking a model."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from unswayed.audit.trials import add_flips
from unswayed.core.errors import InputError
from unswayed.scoring.prompts import Likelihoods


def by_rule(answers: pd.DataFrame, rule: str | None, source: Path | str) -> pd.DataFrame:
    """A run's answers as they stand, or as another rule would have chosen.

    Args:
        answers: rows of `answers.parquet`.
        rule: None: the run's own.
        source: what an error calls the run.

    Raises:
        InputError: the run's answers do not depend on a rule, or it lacks what this rule compares.
    """
    first = answers.iloc[0]
    if rule is None or rule == first["rule"]:
        return answers
    if first["scoring"] != "option":
        raise InputError(
            f"--rule {rule} has no meaning for {source}, a run of --scoring {first['scoring']}"
        )
    if answers["option_priors"].isna().any():
        raise InputError(
            f"--rule {rule}: the memory of {source} makes one answer of several by rule "
            f"{first['rule']}; audit again with --rule {rule}"
        )
    rows = [_by_rule(row, rule) for row in answers.to_dict("records")]
    return pd.DataFrame(add_flips(rows), columns=answers.columns)


def _by_rule(row: dict, rule: str) -> dict:
    options = list(row["options"])
    scored = Likelihoods(options, row["option_scores"], row["option_tokens"], row["option_priors"])
    picked, blind = scored.pick(rule), scored.blind_pick(rule)
    changed = {
        "answer": options[picked],
        "correct": options[picked] == row["gold_label"],
        "score": float(row["weights"][picked]),
        "blind_answer": options[blind],
        "rule": rule,
    }
    return row | changed
