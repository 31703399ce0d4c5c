"""Preference pairs for DPO, in stages; the recipe of the paper (arXiv 2510.09905, section on
mitigation: random persona, five candidates, judge on three axes, reward model).

    1_questions   questions, with references or without
    2_prompts     question x persona: what a candidate answers
    3_candidates  five sampled texts, two constructed ones, or two of the model's own
    4_judged      correct, biased, states irrelevance; thereby chosen, rejected or neither
    5_pairs       one chosen and one rejected text per prompt
    6_rewarded    reward of both: chosen > 0 > rejected, and a margin
    7_clean       overlap with test items, and length

Of the model's own answers (`own`, ours) neither judge nor reward decides. Each stage is a Parquet
file in the work folder. It keeps every row that came in; `dropped` says why one goes no further,
and the funnel is counted from that. A file is made again if its settings or the file before it have
changed, or if it is gone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unswayed.core.errors import InputError
from unswayed.data.items import BUILTIN, items_hash, load_items
from unswayed.data.personas import load_personas, personas_hash
from unswayed.data.questions import load_questions
from unswayed.mitigation.preferences import steps
from unswayed.mitigation.preferences.columns import (
    CANDIDATE,
    CLEAN,
    JUDGED,
    PAIR,
    PROMPT,
    QUESTION,
    REWARDED,
    TEXT,
    Row,
)
from unswayed.mitigation.preferences.settings import RULES, PreferenceSettings
from unswayed.models.load import parse_settings, public_settings

log = logging.getLogger(__name__)

KEY = b"unswayed"  # of a file's metadata: what it was made from


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step: the rows that it is given, plus columns, plus those it drops.

    Attributes:
        columns: of its file, `dropped` comes on top.
        settings: names of the settings that it depends on.
        content: hash of what it reads besides, e.g. a file of questions.
        make: rows in -> rows out.
    """

    name: str
    columns: dict[str, pa.DataType]
    settings: tuple[str, ...]
    content: Callable[[PreferenceSettings], str]
    make: Callable[[list[Row], PreferenceSettings], list[Row]]


@dataclasses.dataclass(frozen=True)
class Passage:
    """What a stage did to one source.

    Attributes:
        rows_in, rows_out: what came, and what goes on.
        reasons: why rows stopped here, the most frequent first.
    """

    stage: str
    source: str
    rows_in: int
    rows_out: int
    reasons: dict[str, int]


def build_pairs(settings: PreferenceSettings) -> tuple[list[Row], list[Passage]]:
    """The pairs that passed every stage, and the funnel.

    Raises:
        InputError: wrong input, or no pair is left; finished stages are kept.
    """
    work = Path(settings.work_dir)
    if work.exists() and not work.is_dir():
        raise InputError(f"--work_dir {work} is a file; give a folder")
    contents = [stage.content(settings) for stage in STAGES]  # wrong input shows before any work
    rows: list[Row] = []
    funnel: list[Passage] = []
    before = ""
    for number, (stage, content) in enumerate(zip(STAGES, contents, strict=True), start=1):
        path = work / f"{number}_{stage.name}.parquet"
        chosen = {name: _identity(name, settings) for name in stage.settings}
        parts = [stage.name, chosen, content, before]
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        found = _read(path, key)
        if found is None:
            log.info("%s ...", path.stem)
            left = [row for row in rows if not row.get("dropped")]
            found = stage.make(left, settings)
            _write(found, stage, key, path)
            found = _read(path, key)
        rows, before = found, hashlib.sha256(path.read_bytes()).hexdigest()
        funnel += passages(stage.name, rows)
        if all(row["dropped"] for row in rows):
            why = "; ".join(f"{n} x {why}" for p in funnel[-2:] for why, n in p.reasons.items())
            raise InputError(
                f"no row is left after {path.stem} ({why}): use more questions or a stronger "
                "model, or add --own 2 or --constructed 3"
            )
    return [row for row in rows if not row["dropped"]], funnel


def passages(stage: str, rows: Sequence[Row]) -> list[Passage]:
    """The funnel's lines of one stage, counted from its rows."""
    found = []
    for source in dict.fromkeys(row.get("source") or "all" for row in rows):
        some = [row for row in rows if (row.get("source") or "all") == source]
        reasons = Counter(row["dropped"] for row in some if row["dropped"])
        left = len(some) - reasons.total()
        found.append(Passage(stage, source, len(some), left, dict(reasons.most_common())))
    return found


def _identity(name: str, settings: PreferenceSettings) -> Any:
    """A setting as it counts for the result: how a server is reached does not."""
    value = getattr(settings, name)
    if name in ("generator_args", "judge_args"):
        return public_settings(parse_settings(f"--{name}", value))
    return value


def _read(path: Path, key: str) -> list[Row] | None:
    """A stage's rows; None if the file is missing, damaged or made from something else."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        return None
    return table.to_pylist() if (table.schema.metadata or {}).get(KEY) == key.encode() else None


def _write(rows: list[Row], stage: Stage, key: str, path: Path) -> None:
    schema = pa.schema({**stage.columns, "dropped": TEXT}, metadata={KEY: key.encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".partial")
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), scratch, compression="zstd")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def in_test_split(question_id: str, seed: int, share: float) -> bool:
    """Whether a question's pairs are for testing; depends on nothing but question and seed."""
    digest = hashlib.sha256(f"{seed}/{question_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _questions_hash(settings: PreferenceSettings) -> str:
    found = [dataclasses.astuple(q) for q in load_questions(settings.questions or [BUILTIN])]
    return hashlib.sha256(json.dumps(found, ensure_ascii=False).encode()).hexdigest()


def _users_hash(settings: PreferenceSettings) -> str:
    return personas_hash(load_personas(settings.personas))


GENERATION = ("max_gen_toks", "device")
STAGES = (
    Stage("questions", QUESTION, ("n_questions", "seed"), _questions_hash, steps.questions),
    Stage(
        "prompts",
        PROMPT,
        ("spare_pairs", "sampled", "constructed", "own", "judge", "seed"),
        _users_hash,
        steps.prompts,
    ),
    Stage(
        "candidates",
        CANDIDATE,
        ("generator", "generator_backend", "generator_args", "gen_kwargs", "seed", *GENERATION),
        lambda s: steps.weights(s.generator) if s.generates else "",
        steps.candidates,
    ),
    Stage(
        "judged",
        JUDGED,
        ("judge", "judge_backend", "judge_args", *GENERATION),
        lambda s: steps.weights(s.judge) if s.judge != RULES else "",
        steps.judged,
    ),
    Stage("pairs", PAIR, ("seed",), lambda s: "", steps.pairs),
    Stage(
        "rewarded",
        REWARDED,
        ("reward", "policy", "margin"),
        lambda s: steps.weights(s.reward or s.policy),
        steps.rewarded,
    ),
    Stage(
        "clean",
        CLEAN,
        ("ngram", "similarity", "embedder", "max_length", "policy"),
        lambda s: items_hash(load_items(s.against or [BUILTIN])) + steps.weights(s.embedder),
        steps.clean,
    ),
)
