"""Documents and metrics of the capability tasks.

Settings come from the tasks' metadata; on the command line `--metadata '{"questions": 1000}'`:

mmlu        where MMLU is: a Hub id or a folder, as for ability_mmlu
questions   how many of MMLU (default: all), drawn by seed, evenly over the subjects
shots       examples before each MMLU question, of its subject, 0 to 5 (default 5)
ifeval      where IFEval is: a Hub id (default google/IFEval), or a JSONL file with key, prompt,
            instruction_id_list and kwargs
prompts     how many of IFEval (default: all), drawn by seed
pairs       number of base personas that questions are given to, 1 to 30 (default: all)
personas    a YAML file of pairs
conditions  list; default none, neutral, advantaged, disadvantaged
seed        of all that is drawn (default 0)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import datasets
import numpy as np

from unswayed.audit.trials import PAIR_CONDITIONS, choose_personas
from unswayed.core.errors import InputError
from unswayed.data.personas import Persona, load_personas
from unswayed.memory.prompt import PromptMemory
from unswayed.tasks.ability.utils import drawn, load_mmlu, load_rows

COLUMNS = ("key", "prompt", "instruction_id_list", "kwargs")


# -- documents -----------------------------------------------------------------------------------


def load_ifeval(
    ifeval: str = "google/IFEval", prompts: int | None = None, seed: int = 0, **_: Any
) -> dict[str, datasets.Dataset]:
    """IFEval (Zhou et al. 2023, arXiv 2311.07911), as lm-eval's `ifeval` asks it.

    Raises:
        InputError: a column is missing, an instruction or its kwargs are unknown to lm-eval, fewer
            than `prompts` rows, or the checks cannot be run here.
    """
    rows = load_rows(ifeval, None, "train", COLUMNS).select_columns(list(COLUMNS)).to_list()
    rows = [rows[i] for i in drawn(len(rows), prompts, f"{seed}", "prompts")]
    for row in rows:
        if fault := _fault(row):
            raise InputError(f"ifeval {ifeval}, key {row['key']}: {fault}")
    return {"test": datasets.Dataset.from_list(rows)}


def under_conditions(load: Callable[..., dict[str, datasets.Dataset]]) -> Callable:
    """A task's documents with the same settings, each under every condition."""

    def load_docs(
        pairs: int | None = None,
        personas: str | None = None,
        conditions: list[str] | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> dict[str, datasets.Dataset]:
        docs = load(seed=seed, **settings)["test"].to_list()
        docs = with_memory(docs, load_personas(personas), conditions, pairs, seed)
        return {"test": datasets.Dataset.from_list(docs)}

    return load_docs


load_persona_mmlu, load_persona_ifeval = map(under_conditions, (load_mmlu, load_ifeval))


def with_memory(
    docs: Sequence[Mapping[str, Any]],
    personas: Sequence[Persona],
    conditions: Sequence[str] | None,
    pairs: int | None,
    seed: int,
) -> list[dict[str, Any]]:
    """Each document under every condition, one after the other.

    A document is given to one base persona, whose versions are the conditions; by seed, and as
    evenly over the base personas as possible. Who it is depends on nothing else in the document.

    Returns:
        The documents with question (their number), pair_id, condition and system_prompt.

    Raises:
        InputError: an unknown condition, too few pairs, or a pair without a wanted version.
    """
    conditions = list(conditions or PAIR_CONDITIONS)
    notes = {
        (persona.pair_id, persona.condition): _note(persona)
        for persona in choose_personas(personas, conditions, pairs)
    }
    users = list(dict.fromkeys(pair for pair, _ in notes)) or [None]
    whose = [users[i % len(users)] for i in range(len(docs))]
    random.Random(seed).shuffle(whose)
    return [
        {
            **doc,
            "question": i,
            "pair_id": pair,
            "condition": condition,
            "system_prompt": notes.get((pair, condition), ""),
        }
        for i, (doc, pair) in enumerate(zip(docs, whose, strict=True))
        for condition in conditions
    ]


def _note(persona: Persona) -> str:
    memory = PromptMemory()
    memory.remember(persona)
    return memory.messages("")[0]["content"]


def _fault(row: Mapping[str, Any]) -> str | None:
    """What keeps lm-eval from checking an answer to this row."""
    names, arguments = row["instruction_id_list"], row["kwargs"] or []
    if not row["prompt"] or not names:
        return "prompt or instruction_id_list is empty"
    if len(names) != len(arguments):
        return f"{len(names)} instructions have {len(arguments)} kwargs"
    instructions = _ifeval().instructions_registry.INSTRUCTION_DICT
    for name, kwargs in zip(names, arguments, strict=True):
        if name not in instructions:
            return f"lm-eval has no instruction {name!r}"
        try:
            instructions[name](name).build_description(**{k: v for k, v in kwargs.items() if v})
        except (TypeError, ValueError, AttributeError) as error:
            return f"kwargs {kwargs} do not fit {name}: {error}"
    return None


# -- metrics -------------------------------------------------------------------------------------


def results_persona_mmlu(doc: dict, results: list[tuple[float, bool]]) -> dict[str, float]:
    """Right or wrong, under the condition's name."""
    best = int(np.argmax([log_prob for log_prob, _ in results]))
    return {f"acc_{doc['condition']}": float(best == doc["answer"])}


def results_ifeval(doc: dict, results: list[str]) -> dict[str, Any]:
    """lm-eval's four metrics of one answer: prompt and instruction level, strict and loose."""
    return _ifeval().process_results(doc, results)


def results_persona_ifeval(doc: dict, results: list[str]) -> dict[str, Any]:
    """The four metrics under the condition's name."""
    metrics = results_ifeval(doc, results)
    return {f"{name}_{doc['condition']}": value for name, value in metrics.items()}


def inst_level_acc(values: list[list[bool]]) -> float:
    """Share of all instructions that were followed."""
    return _ifeval().agg_inst_level_acc(values)


def _ifeval() -> ModuleType:
    """lm-eval's module of IFEval's checks; imported late, as it downloads what it misses.

    Raises:
        InputError: what the checks need is not installed here.
    """
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        raise InputError(
            "IFEval's checks need nltk's punkt_tab: run `python -m nltk.downloader punkt_tab`, or "
            "set NLTK_DATA to a folder with tokenizers/punkt_tab in it that only you can write to"
        ) from None
    try:
        import langdetect
        from lm_eval.tasks.ifeval import utils
    except ImportError as error:
        raise InputError(
            f"IFEval's checks need packages that are not installed ({error}): run "
            "`pip install 'lm-eval[ifeval]'`"
        ) from None
    langdetect.DetectorFactory.seed = 0  # else the same answer may count today, not tomorrow
    return utils
