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
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unswayed.core.errors import InputError
from unswayed.core.files import file_hash, write_table
from unswayed.core.ledger import digest
from unswayed.data.items import BUILTIN, items_hash, load_items
from unswayed.data.personas import load_personas, personas_hash
from unswayed.data.questions import load_questions
from unswayed.mitigation.preferences import columns, steps
from unswayed.mitigation.preferences.columns import Row
from unswayed.mitigation.preferences.settings import RULES, PreferenceSettings
from unswayed.models.load import parse_settings, public_settings

log = logging.getLogger(__name__)

IDENTITY = b"unswayed"  # key of a file's metadata: the hash of what it was made from


@dataclasses.dataclass(frozen=True)
class PairStage:
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
        chosen = {name: _counted(name, settings) for name in stage.settings}
        identity = digest([stage.name, chosen, content, before], sort_keys=True)
        stored = _read(path, identity)
        if stored is None:
            log.info("%s ...", path.stem)
            made = stage.make([row for row in rows if not row.get("dropped")], settings)
            schema = {**stage.columns, "dropped": columns.TEXT}
            write_table(made, pa.schema(schema, metadata={IDENTITY: identity.encode()}), path)
            stored = _read(path, identity)
        rows, before = stored, file_hash(path)
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
    by_source: dict[str, list[Row]] = {}
    for row in rows:
        by_source.setdefault(row.get("source") or "all", []).append(row)
    lines = []
    for source, some in by_source.items():
        reasons = Counter(row["dropped"] for row in some if row["dropped"])
        left = len(some) - reasons.total()
        lines.append(Passage(stage, source, len(some), left, dict(reasons.most_common())))
    return lines


def _counted(name: str, settings: PreferenceSettings) -> Any:
    """A setting as it counts for the result: how a server is reached does not."""
    value = getattr(settings, name)
    if name in ("generator_args", "judge_args"):
        return public_settings(parse_settings(f"--{name}", value))
    return value


def _read(path: Path, identity: str) -> list[Row] | None:
    """A stage's rows; None if the file is missing, damaged or made from something else."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        return None
    same = (table.schema.metadata or {}).get(IDENTITY) == identity.encode()
    return table.to_pylist() if same else None


def _questions_hash(settings: PreferenceSettings) -> str:
    questions = load_questions(settings.questions or [BUILTIN])
    return digest([dataclasses.astuple(q) for q in questions], ensure_ascii=False)


GENERATION = ("max_gen_toks", "device")
STAGES = (
    PairStage("questions", columns.QUESTION, ("n_questions", "seed"), _questions_hash,
              steps.questions),
    PairStage("prompts", columns.PROMPT,
              ("spare_pairs", "sampled", "constructed", "own", "judge", "seed"),
              lambda s: personas_hash(load_personas(s.personas)), steps.prompts),
    PairStage("candidates", columns.CANDIDATE,
              ("generator", "generator_backend", "generator_args", "gen_kwargs", "seed",
               *GENERATION),
              lambda s: steps.weights(s.generator) if s.generates else "", steps.candidates),
    PairStage("judged", columns.JUDGED, ("judge", "judge_backend", "judge_args", *GENERATION),
              lambda s: steps.weights(s.judge) if s.judge != RULES else "", steps.judged),
    PairStage("pairs", columns.PAIR, ("seed",), lambda s: "", steps.pairs),
    PairStage("rewarded", columns.REWARDED, ("reward", "policy", "margin"),
              lambda s: steps.weights(s.reward or s.policy), steps.rewarded),
    PairStage("clean", columns.CLEAN,
              ("ngram", "similarity", "embedder", "max_length", "policy"),
              lambda s: items_hash(load_items(s.against or [BUILTIN])) + steps.weights(s.embedder),
              steps.clean),
)  # fmt: skip
