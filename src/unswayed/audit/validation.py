"""`unswayed validate`: under which way of scoring a model reads the questions, before any audit.

It is asked without memory only, and what it says is read by every rule of option text, and by
letters: accuracy, habits and letter mass of each, as in the validity of a run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.effects import rate
from unswayed.audit.evidence import Bounds, Rate, Reading
from unswayed.audit.floor import spread
from unswayed.audit.rules import by_rule
from unswayed.audit.run import score
from unswayed.audit.trials import NONE, trials_of
from unswayed.audit.validity import validity
from unswayed.core.arguments import REQUIRED, option
from unswayed.core.errors import InputError
from unswayed.core.journal import Journal
from unswayed.data.items import BUILTIN, Item, items_hash, load_items
from unswayed.memory.prompt import PromptMemory
from unswayed.models.embedded import model_label
from unswayed.models.load import check_backend, find_backend, load_lm, public_settings
from unswayed.scoring.backends import HF_SHARED, is_service
from unswayed.scoring.chat import ChatFormat
from unswayed.scoring.prompts import MOST_LETTERS, RULES
from unswayed.statistics.crossed import crossed_mean

LETTER = "letter"
WAYS = (*RULES, LETTER)
IN_OTHER_DTYPE = 16  # items
MOST_PARAMETERS = 2e9  # of a half-precision model that is taken to float32


@dataclasses.dataclass
class ValidationArguments:
    """What to validate; the command line's options with the same names and meanings."""

    model: str = option(REQUIRED, "Hub id, folder, or smollm2-135m (embedded)")
    adapter: str | None = option(None, "PEFT adapter on top of it, folder or Hub id")
    items: Sequence[str] = option(
        (BUILTIN,), "as for audit: builtin, a test's name, or NAME=FILE", metavar="SPEC"
    )
    orders: int = option(2, "in how many orders options are listed under letters", metavar="N")
    seed: int = option(0, "of the order of options")
    device: str | None = option(None, "as in torch; default: a GPU if there is one")
    dtype: str = option(
        "auto",
        "torch dtype; auto: on a CPU the faster of float32 and bfloat16, else the model's own",
    )
    backend: str = option(
        HF_SHARED, "hf-shared, or a backend of lm-eval that gives likelihoods", metavar="NAME"
    )
    model_args: Mapping[str, Any] = option(
        dict, "further arguments of the backend, or JSON", type=str, metavar="K=V,..."
    )
    out: Path | None = option(None, "write the figures as JSON", metavar="FILE")

    def __post_init__(self) -> None:
        if is_service(find_backend(self.backend)):
            raise InputError(
                f"--backend {self.backend} gives no likelihoods of options, so there are no rules "
                "to choose from: audit by --scoring letter or generate; its report begins with its "
                "validity"
            )
        check_backend(
            self.backend,
            "option",
            self.model_args,
            self.adapter,
            self.device,
            self.dtype,
            "auto",
            {},
        )
        if self.out is not None and (self.out.is_dir() or not self.out.parent.is_dir()):
            raise InputError(f"--out {self.out}: give a file in a folder that is there")
        self.audit(LETTER)  # says what is wrong with the rest

    def audit(self, scoring: str) -> AuditArguments:
        """The audit without memory that would ask so; nothing is written there."""
        return AuditArguments(
            model=self.model,
            out=Path(),
            conditions=(NONE,),
            scoring=scoring,
            orders=self.orders if scoring == LETTER else 1,
            seed=self.seed,
            backend=self.backend,
        )


class WayOnTest(TypedDict):
    """A way of scoring on a test."""

    accuracy: Rate
    chance: float
    skill: Bounds  # (accuracy - chance) / (1 - chance)
    reading: Reading
    reads: bool | None
    warnings: list[str]


class Precision(TypedDict):
    """How many answers change where the model computes in another dtype."""

    loaded: str
    other: str
    n: int  # items asked again
    changed: dict[str, int]  # answers by way


class Validation(TypedDict):
    """What `unswayed validate` writes."""

    model: str
    adapter: str | None
    backend: str
    model_args: dict[str, Any]
    orders: int  # of letters
    seed: int
    items: str  # SHA-256
    ways: dict[str, dict[str, WayOnTest]]  # by rule, or letter; by test
    skill: dict[str, Bounds]  # by way: mean over tests
    precision: Precision | None  # None where the backend cannot change it
    recommended: str | None
    text: str


def validate(arguments: ValidationArguments) -> Validation:
    """Ask, and say which way of scoring to take.

    Raises:
        InputError: the model cannot be loaded, or gives no likelihoods.
    """
    items = load_items(arguments.items)
    lm = load_lm(
        arguments.model,
        arguments.adapter,
        arguments.device,
        arguments.dtype,
        "auto",
        arguments.backend,
        arguments.model_args,
    )
    answers = answers_by_way(lm, items, arguments)
    ways = {
        way: {test: on_test(rows) for test, rows in frame.groupby("test", sort=False)}
        for way, frame in answers.items()
    }
    skill = {way: skill_of(tests) for way, tests in ways.items()}
    recommended, text = recommend(ways, skill, arguments.orders)
    return {
        "model": model_label(arguments.model),
        "adapter": arguments.adapter and model_label(arguments.adapter),
        "backend": arguments.backend,
        "model_args": public_settings(arguments.model_args),
        "orders": arguments.orders,
        "seed": arguments.seed,
        "items": items_hash(items),
        "ways": ways,
        "skill": skill,
        "precision": _precision(lm, items, arguments, answers),
        "recommended": recommended,
        "text": text,
    }


def answers_by_way(
    lm: Any, items: Sequence[Item], arguments: ValidationArguments
) -> dict[str, pd.DataFrame]:
    """Rows as in `answers.parquet` for every way that this backend and these items have."""
    chat = ChatFormat(lm)
    options = _answers(lm, chat, items, arguments.audit("option"))
    counted = options["option_tokens"].notna().all()
    ways = {rule: by_rule(options, rule, "this") for rule in RULES if rule != "token" or counted}
    if all(len(item.options) <= MOST_LETTERS for item in items):
        ways[LETTER] = _answers(lm, chat, items, arguments.audit(LETTER))
    return ways


def _answers(
    lm: Any, chat: ChatFormat, items: Sequence[Item], arguments: AuditArguments
) -> pd.DataFrame:
    memory = PromptMemory()
    trials = list(trials_of(items, None, memory, arguments.scoring, arguments.seed))
    return pd.DataFrame(score(lm, chat, trials, memory, arguments, Journal(None)))


def on_test(rows: pd.DataFrame) -> WayOnTest:
    """Of the rows of one test, all without memory."""
    result = validity(rows)
    by_item = rows.sort_values("question_id")["correct"].to_numpy(float)[:, None]
    chance = float((1 / rows["options"].map(len)).mean())
    skill = crossed_mean((by_item - chance) / (1 - chance))
    return {
        "accuracy": rate(by_item),
        "chance": chance,
        "skill": {name: getattr(skill, name) for name in ("estimate", "low", "high")},
        "reading": result["readings"][NONE],
        "reads": result["reads"],
        "warnings": result["warnings"],
    }


def skill_of(tests: Mapping[str, WayOnTest]) -> Bounds:
    """How far above chance, mean over tests: 0 at chance, 1 if all is right.

    Tests are independent, so the squares of their distances to either bound add up.
    """
    skills = [test["skill"] for test in tests.values()]
    estimate = float(np.mean([skill["estimate"] for skill in skills]))
    if any(skill["low"] is None for skill in skills):
        return {"estimate": estimate, "low": None, "high": None}
    below, above = (
        math.hypot(*(skill["estimate"] - skill[bound] for skill in skills)) / len(skills)
        for bound in ("low", "high")
    )
    return {"estimate": estimate, "low": estimate - below, "high": estimate + above}


def recommend(
    ways: Mapping[str, Mapping[str, WayOnTest]], skill: Mapping[str, Bounds], orders: int
) -> tuple[str | None, str]:
    """The way to take, and why; None if none is of use.

    Of those that read every test and are above chance by the interval of their skill, that with
    the highest skill.
    """
    reading = [way for way, tests in ways.items() if all(t["reads"] for t in tests.values())]
    if not reading:
        return None, (
            "None of these ways reads the questions: more than half of the answers go by a habit "
            "whatever is asked, so differences between users would be differences of that habit. "
            "Take a larger or an instruction-tuned model."
        )
    above_chance = [way for way in reading if (skill[way]["low"] or 0.0) > 0]
    if not above_chance:
        return None, (
            f"What reads the questions ({', '.join(reading)}) cannot be told from guessing on "
            "these items, and a guess has no gap to measure: take a larger model, or more items."
        )
    best = max(above_chance, key=lambda way: skill[way]["estimate"])
    options = f"letter --orders {orders}" if best == LETTER else f"option --rule {best}"
    return best, (
        f"Recommended: --scoring {options}. Of the ways that read the questions it is the farthest "
        f"above chance ({skill[best]['estimate']:.0%} of the way from chance to all right, mean "
        "over tests). It was chosen on these items, which flatters its accuracy on them."
    )


# -- another dtype -------------------------------------------------------------------------------


def _precision(
    lm: Any,
    items: Sequence[Item],
    arguments: ValidationArguments,
    answers: Mapping[str, pd.DataFrame],
) -> Precision | None:
    """Some items asked again in bfloat16 if the model is in float32, else in float32."""
    if not hasattr(lm, "mixed_precision_dtype") or lm.mixed_precision_dtype is not None:
        return None
    loaded = str(lm.model.dtype).removeprefix("torch.")
    n_parameters = sum(p.numel() for p in lm.model.parameters())
    if loaded != "float32" and n_parameters > MOST_PARAMETERS:
        return None
    chosen = spread(len(items), IN_OTHER_DTYPE)
    with _other_dtype(lm, loaded):
        again = answers_by_way(lm, [items[i] for i in chosen], arguments)
    return {
        "loaded": loaded,
        "other": "bfloat16 autocast" if loaded == "float32" else "float32",
        "n": len(chosen),
        "changed": {
            way: int(
                (frame["answer"].to_numpy() != answers[way]["answer"].to_numpy()[chosen]).sum()
            )
            for way, frame in again.items()
        },
    }


@contextmanager
def _other_dtype(lm: Any, loaded: str):
    """bfloat16 autocast of a float32 model; else the model in float32, where it then stays."""
    import torch

    if loaded != "float32":
        lm.model.float()
        yield
        return
    lm.mixed_precision_dtype = torch.bfloat16
    try:
        yield
    finally:
        lm.mixed_precision_dtype = None
