"""From answers to figures: how often traces use the memory, and whether the wrong ones do more.

Shares and differences carry intervals for items and users as crossed clusters
(`unswayed.statistics.crossed`). The odds ratio of using the memory and answering wrongly is pooled
over items (Mantel & Haenszel 1959, J. Natl. Cancer Inst. 22:719; interval after Robins, Breslow &
Greenland 1986, Biometrics 42:311): within one item it compares users, so that hard items which also
invite talk about the user do not pose as an effect.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unswayed.audit.flips import grouped, memory_text
from unswayed.audit.traces.detector import (
    DISMISSED,
    USED,
    WORD,
    Fact,
    Reading,
    facts_of,
    read,
    stems,
)
from unswayed.audit.trials import CONDITIONS, NEUTRAL, NONE
from unswayed.core.errors import InputError
from unswayed.memory.conversation_memory import REMEMBERED
from unswayed.memory.prompt import ACKNOWLEDGED, IGNORE, NOTES
from unswayed.memory.registry import known_mechanism
from unswayed.scoring.replies import LAST_THOUGHT, OPEN_THOUGHT
from unswayed.statistics.crossed import LEVEL, Estimate, crossed_mean, proportion

PERSONAS = "personas"  # all conditions with a memory that speaks of social standing
KEY = ["test", "question_id", "persona_id", "condition"]


@dataclasses.dataclass(frozen=True)
class Trace:
    """A trial with memory, its text read, and the text without memory read for the same facts.

    Attributes:
        user: base persona or grid cell.
        memory: the text about the user.
        text: the generated text, thinking included, its tags taken out.
        n_facts: how many facts the memory has that are not in the item.
        control: what the text without memory happens to say of them.
    """

    test: str
    question_id: str
    persona_id: str
    condition: str
    user: str
    correct: bool
    parsed: bool
    memory: str
    question: str
    text: str
    n_facts: int
    reading: Reading
    control: Reading


def read_traces(answers: pd.DataFrame, source: Path | str) -> list[Trace]:
    """All trials with memory, in an order of their own (that of the rows does not matter).

    Raises:
        InputError: the run has no generated text, no memory, no condition without memory, or a
            memory that is not in the prompt.
    """
    if (answers["scoring"] != "generate").all():
        raise InputError(
            f"{source} was scored by likelihood and has no generated text: audit with --scoring "
            "generate"
        )
    if not answers["raw_text"].fillna("").str.strip().any():
        raise InputError(f"all generated texts of {source} are empty: there is no trace to read")
    answers = grouped(answers).assign(text=answers["raw_text"].map(trace_text))
    answers = answers.sort_values(KEY, kind="stable")
    bare = {(r["test"], r["question_id"]): r for _, r in _of(answers, [NONE]).iterrows()}
    rows = answers[(answers["condition"] != NONE) & ~_gated_out(answers)]
    if rows.empty:
        raise InputError(f"{source} has no condition with memory: there is nothing to use")
    if not bare:
        raise InputError(
            f"{source} has no condition none, whose traces show which words coincide by chance: "
            "audit again with none among --conditions"
        )
    memories = [
        _about_user(row, bare[row["test"], row["question_id"]]) for _, row in rows.iterrows()
    ]
    frame = stems(NOTES + IGNORE + REMEMBERED + ACKNOWLEDGED)
    items = {
        key: stems(" ".join([_plain(row["prompt"]), *row["options"]])) | frame
        for key, row in bare.items()
    }
    without = {key: items[key] | stems(row["text"]) for key, row in bare.items()}  # memory
    anyway = Counter(stem for bare_stems in without.values() for stem in bare_stems)
    widespread = _widespread(zip(rows["user"], memories, strict=True))
    traces = []
    for (_, row), memory in zip(rows.iterrows(), memories, strict=True):
        key = (row["test"], row["question_id"])
        control = bare[key]["text"]
        # words of the other items and of their traces without memory are not specific
        elsewhere = {stem for stem in stems(memory) if anyway[stem] > (stem in without[key])}
        facts = facts_of(memory, items[key], elsewhere | widespread)
        traces.append(
            Trace(
                *key,
                persona_id=row["persona_id"],
                condition=row["condition"],
                user=row["user"],
                correct=bool(row["correct"]),
                parsed=bool(row["parsed"]),
                memory=memory,
                question=bare[key]["user_prompt"],
                text=row["text"],
                n_facts=len(facts),
                reading=read(row["text"], facts, items[key]),
                control=read(control, facts, items[key]),
            )
        )
    return traces


def trace_text(raw: Any) -> str:
    """The whole generated text, thinking included, without the tags around it."""
    text = raw if isinstance(raw, str) else ""  # null may be None or NaN
    return LAST_THOUGHT.sub("\n", OPEN_THOUGHT.sub("\n", text)).strip()


def _of(answers: pd.DataFrame, conditions: Iterable[str]) -> pd.DataFrame:
    return answers[answers["condition"].isin(list(conditions))]


def _gated_out(answers: pd.DataFrame) -> pd.Series:
    """Rows into whose prompt a gate did not let the memory."""
    mechanisms = {name: known_mechanism(name) for name in answers["memory"].unique()}
    gated = [name for name, mechanism in mechanisms.items() if mechanism and mechanism.gates]
    return answers["memory"].isin(gated) & answers["system_prompt"].isna()


def _about_user(row: pd.Series, bare: pd.Series) -> str:
    """What the prompt says of the user and does not say without memory."""
    text = memory_text(row, bare)
    if text is None:
        raise InputError(
            f"the memory {row['memory']} is not in the prompt, so what it says of the user is not "
            "known here"
        )
    # Where memory is in earlier turns, the whole prompt is given, and the question stands in it.
    for fixed in (bare["user_prompt"].strip(), NOTES.strip(), IGNORE.strip(), REMEMBERED.strip()):
        text = _plain(text).replace(fixed, " ")
    return text.strip()


def _plain(prompt: str) -> str:
    """A prompt as plain text, also where it is a conversation as JSON (chat services)."""
    try:
        return "\n".join(message["content"] for message in json.loads(prompt))
    except (ValueError, TypeError, KeyError):
        return prompt


def _widespread(memories: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Stems in the memories of more than half of the users, and of more than two."""
    of_user: dict[str, set[str]] = {}
    for user, memory in memories:
        of_user.setdefault(user, set()).update(stems(memory))
    counts = Counter(stem for user_stems in of_user.values() for stem in user_stems)
    return frozenset(stem for stem, n in counts.items() if n > max(2, len(of_user) / 2))


# -- figures -------------------------------------------------------------------------------------


def figures(traces: list[Trace]) -> dict[str, Any]:
    """{test: {"conditions": {condition: ...}, "errors": {scope: ...}}}, see `docs/traces.md`."""
    table = pd.DataFrame(
        {
            **{name: [getattr(t, name) for t in traces] for name in (*KEY, "user", "parsed")},
            "wrong": [not t.correct for t in traces],
            "words": [len(WORD.findall(t.text)) for t in traces],
            "used": [t.reading.label == USED for t in traces],
            "dismissed": [t.reading.label == DISMISSED for t in traces],
            "control": [t.control.label == USED for t in traces],
            "share": [_share(t.reading.facts, t.n_facts) for t in traces],
            "control_share": [_share(t.control.facts, t.n_facts) for t in traces],
        }
    )
    order = sorted(set(table["condition"]), key=lambda c: (*CONDITIONS, c).index(c))
    personas = [condition for condition in order if condition != NEUTRAL]
    scopes = {condition: [condition] for condition in order}
    if len(personas) > 1:
        scopes[PERSONAS] = personas
    return {
        test: {
            "conditions": {c: use(_of(rows, [c])) for c in order},
            "errors": {name: error(_of(rows, scope)) for name, scope in scopes.items()},
        }
        for test, rows in table.groupby("test", sort=True)
    }


def _share(mentioned: frozenset[Fact], n_facts: int) -> float:
    return len(mentioned) / n_facts if n_facts else np.nan


def crossed(values: pd.Series, rows: pd.DataFrame) -> np.ndarray:
    """Values as items x users, versions of one user averaged; NaN is missing."""
    table = rows[["question_id", "user"]].assign(value=values.astype(float))
    return table.pivot_table(
        index="question_id", columns="user", values="value", aggfunc="mean", dropna=False
    ).to_numpy(float)


def use(rows: pd.DataFrame) -> dict[str, Any]:
    """How often the traces of one test and condition use the memory; shares in [0, 1]."""
    shares = {name: rows[name] for name in ("used", "dismissed", "control", "share")}
    return {
        "n": len(rows),
        "n_empty": int((rows["words"] == 0).sum()),
        "words": float(rows["words"].median()),
        **{name: as_dict(proportion(crossed(value, rows))) for name, value in shares.items()},
        "difference": as_dict(
            crossed_mean(crossed(rows["used"].astype(float) - rows["control"].astype(float), rows))
        ),
        "share_difference": as_dict(
            crossed_mean(crossed(rows["share"] - rows["control_share"], rows))
        ),
    }


def as_dict(mean: Estimate) -> dict[str, Any]:
    """A share, or a difference of shares, as JSON has it; its bounds at most 1 from zero."""
    bounds = {k: None if v is None else min(max(v, -1.0), 1.0)
              for k, v in (("low", mean.low), ("high", mean.high))}  # fmt: skip
    return dataclasses.asdict(mean) | bounds


# -- use and error -------------------------------------------------------------------------------


def error(rows: pd.DataFrame) -> dict[str, Any]:
    """Whether traces that use the memory are wrong more often, in one test and scope.

    Unparsed answers are left out and counted: their traces broke off or chose nothing, which is
    another kind of error.

    Returns:
        The cells of the 2x2 table, the crude and the pooled odds ratio and the paired difference;
        each of these has a "note" where it is None or not plain.
    """
    read = rows[rows["parsed"]]
    cells = {
        f"{use}_{outcome}": int(((read["used"] == a) & (read["wrong"] == b)).sum())
        for use, a in (("used", True), ("unused", False))
        for outcome, b in (("wrong", True), ("right", False))
    }
    return {
        "n": len(read),
        "n_unparsed": len(rows) - len(read),
        **cells,
        "crude": crude_odds_ratio(*cells.values()),
        "pooled": pooled_odds_ratio(read),
        "paired": paired_difference(read),
    }


def one_class(used_wrong: int, used_right: int, unused_wrong: int, unused_right: int) -> str | None:
    """Why a 2x2 table can say nothing, or None if it can."""
    if used_wrong + used_right + unused_wrong + unused_right == 0:
        return "no answer could be read"
    if used_wrong + used_right == 0:
        return "no trace uses the memory"
    if unused_wrong + unused_right == 0:
        return "all traces use the memory"
    if used_wrong + unused_wrong == 0:
        return "no answer is wrong"
    return "all answers are wrong" if used_right + unused_right == 0 else None


def crude_odds_ratio(*cells: int) -> dict[str, Any]:
    """Odds ratio of one 2x2 table, as if all answers were independent.

    With an empty cell, one half is added to each (Haldane 1956, Anscombe 1956) and `corrected` is
    true.

    Args:
        cells: used and wrong, used and right, unused and wrong, unused and right.
    """
    from statsmodels.stats.contingency_tables import Table2x2

    if reason := one_class(*cells):
        return _ratio(note=reason) | {"corrected": False}
    table = np.array(cells, float).reshape(2, 2)
    corrected = not table.all()
    fitted = Table2x2(table + 0.5 * corrected, shift_zeros=False)
    return _ratio(fitted.oddsratio, *fitted.oddsratio_confint(1 - LEVEL)) | {"corrected": corrected}


def pooled_odds_ratio(rows: pd.DataFrame) -> dict[str, Any]:
    """Mantel-Haenszel odds ratio over items, and the test of Cochran, Mantel and Haenszel.

    Only items with both used and unused, and both wrong and right traces say anything; the others
    drop out of the formula, and `n_items` says how many are left.
    """
    from statsmodels.stats.contingency_tables import StratifiedTable

    cells = (rows["wrong"] * 1 + rows["used"] * 2).groupby(rows["question_id"])
    tables = [  # [[used & wrong, used & right], [unused & wrong, unused & right]]
        np.bincount(codes, minlength=4)[[3, 2, 1, 0]].reshape(2, 2).astype(float)
        for _, codes in cells
    ]
    telling = [t for t in tables if t.sum(0).all() and t.sum(1).all()]
    shape = {"n_items": len(telling), "n_items_out": len(tables) - len(telling)}
    if not telling:
        return _ratio(note="no item has users of both kinds and answers of both kinds") | shape
    concordant = sum(t[0, 0] * t[1, 1] for t in telling)
    discordant = sum(t[0, 1] * t[1, 0] for t in telling)
    if not concordant or not discordant:
        way = "more" if concordant else "less"
        note = (
            f"in all these items traces that use the memory are {way} often wrong: no finite ratio"
        )
        return _ratio(note=note) | shape
    fitted = StratifiedTable(telling)
    low, high = fitted.oddsratio_pooled_confint(1 - LEVEL)
    p = fitted.test_null_odds(correction=False).pvalue
    return _ratio(fitted.oddsratio_pooled, low, high, float(p)) | shape


def _ratio(
    estimate: float | None = None,
    low: float | None = None,
    high: float | None = None,
    p: float | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    numbers = {"estimate": estimate, "low": low, "high": high, "p": p}
    return {k: None if v is None else float(v) for k, v in numbers.items()} | {"note": note}


def paired_difference(rows: pd.DataFrame) -> dict[str, Any]:
    """Within items: share wrong of the traces that use the memory, minus that of the others.

    Each of the K items with both kinds of traces gives one difference d_i, and their mean is the
    estimate. For an interval that respects items and users alike it is written as the mean of N
    cells (item x user): v_ij = (N / K) w_ij (e_ij - e_i), with w_ij = 1 / n_used,i or
    -1 / n_unused,i, e_ij the error and e_i the item's mean error; sum_j w_ij (e_ij - e_i) = d_i.
    """
    by_item = rows.groupby("question_id")["used"]
    n, n_used = by_item.transform("size"), by_item.transform("sum")
    both = (n_used > 0) & (n_used < n)
    if not both.any():
        none = as_dict(crossed_mean(np.empty((0, 0))))
        return none | {"note": "no item has traces of both kinds"}
    rows, n, n_used = rows[both], n[both], n_used[both]
    weight = np.where(rows["used"], 1 / n_used, -1 / (n - n_used))
    wrong = rows["wrong"].astype(float)
    value = weight * (wrong - wrong.groupby(rows["question_id"]).transform("mean"))
    cells = value.groupby([rows["question_id"], rows["user"]]).sum().unstack().to_numpy()
    n_cells, n_items = (~np.isnan(cells)).sum(), len(cells)
    return as_dict(crossed_mean(cells * n_cells / n_items)) | {"note": None}
