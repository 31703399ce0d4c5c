"""What training costs: MMLU and IFEval before and after, without memory and with each.

Without memory the questions are those of lm-eval's `mmlu` and `ifeval`; see tasks/capability. The
paper (arXiv 2510.09905) reports that MMLU rises and that instruction following falls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unswayed.core.errors import InputError
from unswayed.plum.ability import MARGIN, ability_change
from unswayed.scoring.harness import ask

# What counts as right; IFEval's headline figure: all instructions of a prompt, strictly.
METRICS = {"persona_mmlu": "acc", "persona_ifeval": "prompt_level_strict_acc"}

Answers = dict[str, dict[str, list[float]]]  # task -> condition -> 0 or 1 per question


def check_capability(
    lm: Any, settings: Mapping[str, Any], tasks: Sequence[str] = tuple(METRICS)
) -> Answers:
    """Whether each question is answered right, under each condition.

    Args:
        lm: an lm-eval model (`load_lm`, `loaded_lm`); IFEval takes any, MMLU one that gives
            likelihoods. Answers are generated greedily, `batch_size` of them at a time.
        settings: those of tasks/capability, e.g. {"mmlu": folder, "questions": 1000, "ifeval":
            file, "prompts": 100}; also max_gen_toks (default 1280, as in lm-eval's `ifeval`).
        tasks: of METRICS.

    Returns:
        Task -> condition -> 0 or 1 per question; the same questions in the same order for the same
        settings, whatever the model.

    Raises:
        InputError: wrong settings, or a prompt that does not fit the model's context.
    """
    if unknown := [name for name in tasks if name not in METRICS]:
        raise InputError(f"task {unknown[0]!r} is not one of {', '.join(METRICS)}")
    chosen = dict(settings)
    length = chosen.pop("max_gen_toks", None)
    tokenizer = getattr(lm, "tokenizer", None)
    chat = getattr(tokenizer, "chat_template", "") is not None  # a service has its own
    generation = {} if length is None else {"max_gen_toks": length}
    found: Answers = {}
    for name, samples in ask(lm, tasks, chosen, chat, generation).items():
        found[name] = {}
        for sample in samples:
            condition = sample["doc"]["condition"]
            value = float(sample[f"{METRICS[name]}_{condition}"])
            found[name].setdefault(condition, []).append(value)
    return found


def capability_change(
    before: Mapping[str, Mapping[str, Sequence[float]]],
    after: Mapping[str, Mapping[str, Sequence[float]]],
    margin: float = MARGIN,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Accuracy before and after, and the difference paired by question.

    Args:
        before, after: as `check_capability` gives them with the same settings.
        margin: a change below it does not matter.

    Returns:
        Task -> condition -> before, after, change, low, high (95 %), n and p_equivalent, as in
        `ability_change`.

    Raises:
        InputError: other questions or conditions were asked after than before.
    """
    if (asked := _asked(before)) != _asked(after):
        raise InputError(
            f"capability before ({asked}) and after ({_asked(after)}) cannot be paired: ask both "
            "with the same settings"
        )
    return {task: ability_change(before[task], after[task], margin) for task in before}


def _asked(answers: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, int]:
    """Task and condition -> number of questions."""
    return {
        f"{task} {condition}": len(values)
        for task, by_condition in answers.items()
        for condition, values in by_condition.items()
    }
