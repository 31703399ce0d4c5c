"""Trials: every item under every condition, and the columns of `answers.parquet`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import pyarrow as pa

from unswayed.core.errors import InputError
from unswayed.data.items import Item
from unswayed.data.personas import ATTRIBUTES, VERSIONS, Persona
from unswayed.memory import Memory
from unswayed.scoring.chat import Message
from unswayed.scoring.prompts import option_order, question_text

NONE = "none"
GRID = "grid"  # all cells of the demographic grid together
PAIR_CONDITIONS = (NONE, "neutral", "advantaged", "disadvantaged")
GRID_CONDITIONS = (NONE, GRID)
CONDITIONS = (*PAIR_CONDITIONS, GRID)

# One row per trial; the paper's columns and ours.
SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("test", pa.string()),
        ("kind", pa.string()),  # understanding or management
        ("condition", pa.string()),
        ("persona_id", pa.string()),
        ("pair_id", pa.string()),
        *((name, pa.string()) for name in ATTRIBUTES),
        ("memory", pa.string()),  # mechanism; none without memory
        ("memory_style", pa.string()),
        ("system_prompt", pa.string()),  # this and the next two: of a fused memory the local view's
        ("user_prompt", pa.string()),
        ("prompt", pa.string()),  # exactly what the model read
        ("options", pa.list_(pa.string())),
        ("option_order", pa.list_(pa.int32())),  # indices of `options` as shown
        ("weights", pa.list_(pa.float64())),  # expert weight of each option
        ("gold_label", pa.string()),  # text of the best option
        ("answer", pa.string()),  # text of the chosen option; null if unparsed
        ("correct", pa.bool_()),  # unparsed is false
        ("score", pa.float64()),  # expert weight of the answer; unparsed is 0
        ("flip", pa.bool_()),  # null without memory, or if either answer is unparsed
        # Summed log-probability (nats) per option or letter, mean over orders; of a fused memory,
        # the log-probability of the option after fusion, the options being all there is.
        ("option_scores", pa.list_(pa.float64())),
        ("option_tokens", pa.list_(pa.int32())),  # how many each option or letter has
        ("option_priors", pa.list_(pa.float64())),  # as option_scores, without the scenario
        # One list per order, if several; null for one in which a service listed no letter.
        ("order_scores", pa.list_(pa.list_(pa.float64()))),
        ("letter_mass", pa.float64()),  # probability of all letters together, mean over orders
        # From a service: whether it listed the letter in every order, else the score is a bound.
        ("option_listed", pa.list_(pa.bool_())),
        ("blind_answer", pa.string()),  # the option without the scenario; null if not asked or read
        # Generated text, also what a service gave where it listed no letter; else null.
        ("raw_text", pa.string()),
        ("parsed", pa.bool_()),
        ("scoring", pa.string()),
        ("rule", pa.string()),  # by which the answer was chosen from the scores
        ("model", pa.string()),
        ("seed", pa.int64()),
    ]
)


@dataclasses.dataclass(frozen=True)
class Trial:
    """One question put to the model.

    Attributes:
        persona: the remembered user, None without memory.
        messages: the conversation, the question last.
        memory: the mechanism; "none" without memory.
        style: of the mechanism.
    """

    item: Item
    persona: Persona | None
    messages: list[Message]
    memory: str
    style: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a trial; the fields of a row of that name, options as indices."""

    answer: int | None = None
    option_scores: Sequence[float] | None = None
    option_tokens: Sequence[int] | None = None
    option_priors: Sequence[float] | None = None
    order_scores: Sequence[Sequence[float] | None] | None = None
    letter_mass: float | None = None
    option_listed: Sequence[bool] | None = None
    blind_answer: int | None = None
    raw_text: str | None = None


def choose_personas(
    personas: Sequence[Persona], conditions: Sequence[str], pairs: int | None
) -> list[Persona]:
    """Personas of the wanted conditions, of the first `pairs` base personas (all if None).

    Raises:
        InputError: too few pairs, a pair lacks a wanted version, or the conditions are not those
            of these personas (cells of the grid have no versions, pairs are no cells).
    """
    cells = [persona for persona in personas if persona.pair_id is None]
    allowed = GRID_CONDITIONS if cells else PAIR_CONDITIONS
    if unknown := [condition for condition in conditions if condition not in allowed]:
        raise InputError(
            f"condition {unknown[0]!r} is not one of {', '.join(allowed)}, which these personas "
            "have" + ("" if cells else "; the 81-cell grid comes with --personas grid")
        )
    if cells:
        if pairs is not None:
            raise InputError("--pairs counts persona pairs, and the grid has none: leave it out")
        return cells if GRID in conditions else []
    ids = _base_ids(personas)
    if pairs is not None and not 1 <= pairs <= len(ids):
        raise InputError(f"--pairs {pairs}: between 1 and {len(ids)} pairs are there")
    versions = [condition for condition in conditions if condition in VERSIONS]
    by_key = {(persona.pair_id, persona.condition): persona for persona in personas}
    chosen = []
    for pair in ids[:pairs]:
        for condition in versions:
            if (pair, condition) not in by_key:
                raise InputError(
                    f"persona {pair} has no {condition} version: add it to the personas file or "
                    f"leave {condition} out of --conditions"
                )
            chosen.append(by_key[pair, condition])
    return chosen


def other_personas(personas: Sequence[Persona], pairs: int | None) -> list[Persona]:
    """All versions of the base personas behind the first `pairs`, which a run does not ask about.

    Cells of the grid are no base personas.
    """
    first = set(_base_ids(personas)[:pairs])
    return [persona for persona in personas if persona.pair_id not in first]


def _base_ids(personas: Sequence[Persona]) -> list[str | None]:
    return list(dict.fromkeys(persona.pair_id for persona in personas))


def trials_of(
    items: Sequence[Item], persona: Persona | None, memory: Memory, scoring: str, seed: int
) -> Iterator[Trial]:
    """All items under one persona (None: no memory); leaves `memory` as that persona set it."""
    if persona is None:
        memory.forget()
    else:
        memory.remember(persona)
    for item in items:
        messages = memory.messages(question_text(item, scoring, seed))
        yield Trial(item, persona, messages, memory.name, memory.style)


def make_row(
    trial: Trial,
    outcome: Outcome,
    *,
    prompt: str,
    scoring: str,
    rule: str | None,
    model: str,
    seed: int,
) -> dict:
    """The row of a scored trial, without `flip`, which needs the answer without memory."""
    item, persona, answer = trial.item, trial.persona, outcome.answer
    first = trial.messages[0]
    return {
        "question_id": item.id,
        "test": item.test,
        "kind": item.kind,
        "condition": persona.condition if persona else NONE,
        "persona_id": persona.id if persona else None,
        "pair_id": persona.pair_id if persona else None,
        **{name: None for name in ATTRIBUTES},
        **(dict(persona.attributes) if persona else {}),
        "memory": trial.memory,
        "memory_style": trial.style if persona else None,
        "system_prompt": first["content"] if first["role"] == "system" else None,
        "user_prompt": trial.messages[-1]["content"],
        "prompt": prompt,
        "options": list(item.options),
        "option_order": option_order(item, scoring, seed),
        "weights": list(item.weights),
        "gold_label": item.options[item.key],
        "correct": answer == item.key,
        "score": 0.0 if answer is None else item.weights[answer],
        "flip": None,
        **(vars(outcome) | {"answer": _text(item, answer)}),
        "blind_answer": _text(item, outcome.blind_answer),
        "parsed": answer is not None,
        "scoring": scoring,
        "rule": rule,
        "model": model,
        "seed": seed,
    }


def _text(item: Item, option: int | None) -> str | None:
    return None if option is None else item.options[option]


def add_flips(rows: list[dict]) -> list[dict]:
    """Fill `flip`: the answer differs from that to the same item without memory.

    It stays null without memory, where no such run was made, and where either answer is unparsed.
    """
    bare = {(r["test"], r["question_id"]): r for r in rows if r["condition"] == NONE}
    for row in rows:
        base = bare.get((row["test"], row["question_id"]))
        comparable = base is not None and base["parsed"] and row["parsed"]
        row["flip"] = row["answer"] != base["answer"] if comparable and row is not base else None
    return rows


NEUTRAL = "neutral"


USER_CONDITIONS = tuple(c for c in CONDITIONS if c not in (NONE, NEUTRAL))
