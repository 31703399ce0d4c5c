"""Which answers flip: by item, by user, with the texts.

The frames are those of `grouped`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from unswayed.audit.evidence import Summary
from unswayed.audit.summary import conditions_of
from unswayed.audit.trials import CONDITIONS, GRID, NONE, USER_CONDITIONS
from unswayed.data.items import Item
from unswayed.scoring.prompts import question_text


def grouped(answers: pd.DataFrame) -> pd.DataFrame:
    """Answers with the cells of the grid as one condition, and the column `user` (pair or cell)."""
    named = answers["condition"].isin(CONDITIONS)
    return answers.assign(
        condition=answers["condition"].where(named, GRID),
        user=answers["pair_id"].fillna(answers["condition"].mask(named)),
    )


def flips_by_item(answers: pd.DataFrame) -> pd.DataFrame:
    """Flips per item over all remembered personas, the most often flipped first.

    Returns:
        A frame indexed by (test, question_id) with n (answers that can be compared), flips, share,
        and the share in each condition; shares in [0, 1], NaN where nothing can be compared.
    """
    return _flip_shares(answers, ["test", "question_id"])


def flips_by_user(answers: pd.DataFrame) -> pd.DataFrame:
    """Flips per base persona or grid cell over all items, with the columns of `flips_by_item`."""
    return _flip_shares(answers, ["user"])


def _flip_shares(answers: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    compared = answers[answers["flip"].notna()].astype({"flip": float})
    groups = compared.groupby(by, sort=False)["flip"]
    shares = groups.agg(n="count", flips="sum").astype(int)
    shares["share"] = shares["flips"] / shares["n"]
    for condition in [c for c in CONDITIONS if c in set(compared["condition"])]:
        part = compared[compared["condition"] == condition]
        shares[condition] = part.groupby(by, sort=False)["flip"].mean()
    return shares.sort_values("share", ascending=False, kind="stable")


def keyed(shares: pd.DataFrame) -> list[tuple[tuple[str, ...], pd.Series]]:
    """Rows of a frame of flips with their keys, always as tuples."""
    return [(key if isinstance(key, tuple) else (key,), row) for key, row in shares.iterrows()]


def no_flips_text(summary: Summary) -> str | None:
    """Why the run has no flips to count, or None if it has some."""
    conditions = conditions_of(summary)
    if NONE not in conditions:
        return "This run has no condition without memory, so there is nothing to flip from."
    if conditions == [NONE]:
        return "This run has no condition with memory, so no answer could flip."
    rates = [
        values["flip_rate"]
        for test in summary["tests"].values()
        for values in test["conditions"].values()
        if values["flip_rate"] is not None
    ]
    if all(rate["n"] == 0 for rate in rates):
        return "No answer could be read both with and without memory, so no flips were counted."
    return None


def flip_texts(answers: pd.DataFrame, test: str, question_id: str) -> dict[str, Any]:
    """One item's texts: question, options with how often each was chosen, and examples of flips.

    There is at most one example per condition, its first flip; neutral memories are shown only if
    no persona flipped the answer.
    """
    rows = answers[(answers["test"] == test) & (answers["question_id"] == question_id)]
    bare = rows[rows["condition"] == NONE].iloc[0]
    conditions = [c for c in CONDITIONS if c in set(rows["condition"])]
    groups = {c: rows[rows["condition"] == c] for c in conditions}
    options = [
        {
            "text": text,
            "key": text == bare["gold_label"],
            "weight": f"{weight:g}" if bare["kind"] == "management" else None,
            "chosen": {c: int((group["answer"] == text).sum()) for c, group in groups.items()},
        }
        for text, weight in zip(bare["options"], bare["weights"], strict=True)
    ]
    flipped = rows[rows["flip"].eq(True)]
    examples = flipped[flipped["condition"].isin(USER_CONDITIONS)]
    examples = (flipped if examples.empty else examples).drop_duplicates("condition")
    examples = examples.sort_values("condition", key=lambda names: names.map(CONDITIONS.index))
    return {
        "test": test,
        "id": question_id,
        "question": scenario(bare),
        "options": options,
        "unparsed": {c: int((~group["parsed"]).sum()) for c, group in groups.items()},
        "totals": {c: len(group) for c, group in groups.items()},
        "before": _answer(bare),
        "examples": [
            {
                "user": row["user"],
                "persona": row["persona_id"],
                "condition": row["condition"],
                "after": _answer(row),
                "memory": memory_text(row, bare),
            }
            for _, row in examples.iterrows()
        ],
    }


def _answer(row: pd.Series) -> dict[str, Any]:
    return {"text": row["answer"], "key": bool(row["correct"]), "raw": _text(row["raw_text"])}


def scenario(bare: pd.Series) -> str:
    """The question of a row without memory, less the list of options and the call for an answer."""
    empty = Item(
        id=bare["question_id"],
        test=bare["test"],
        kind=bare["kind"],
        scenario="",
        options=tuple(bare["options"]),
        key=0,
        weights=tuple(bare["weights"]),
    )
    frame = question_text(empty, bare["scoring"], int(bare["seed"]))
    return bare["user_prompt"].removesuffix(frame)


def scenarios(answers: pd.DataFrame) -> dict[tuple[str, str], str]:
    """{(test, question_id): scenario}; empty in a run that asked nothing without memory."""
    bare = answers[answers["condition"] == NONE]
    return {(row["test"], row["question_id"]): scenario(row) for _, row in bare.iterrows()}


def memory_text(row: pd.Series, bare: pd.Series) -> str | None:
    """What stood in the prompt about the user, or the whole prompt where it cannot be told apart.

    None if the memory is not in the prompt at all.
    """
    if system := _text(row["system_prompt"]):
        return system.strip()
    if row["user_prompt"] != bare["user_prompt"]:
        return row["user_prompt"].removesuffix(bare["user_prompt"]).strip()
    return None if row["prompt"] == bare["prompt"] else row["prompt"].strip()


def user_memories(answers: pd.DataFrame, users: Iterable[str]) -> dict[str, dict[str, str]]:
    """{user: {condition: memory text}}, of the first item whose prompt holds one."""
    key = ["test", "question_id"]
    bare = {tuple(row[key]): row for _, row in answers[answers["condition"] == NONE].iterrows()}
    memories: dict[str, dict[str, str]] = {}
    for user in users:
        for _, row in answers[answers["user"] == user].iterrows():
            without = bare.get(tuple(row[key]))
            if row["condition"] in memories.get(user, {}) or without is None:
                continue
            if text := memory_text(row, without):
                memories.setdefault(user, {})[row["condition"]] = text
    return memories


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
