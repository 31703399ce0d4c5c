"""Ask a model the questions of lm-eval's tasks, answer by answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from unswayed.core.progress import no_bars_in_logs

TASKS = Path(str(files("unswayed") / "tasks"))  # our tasks' YAML files, for --include_path


def task_samples(
    lm: Any,
    tasks: Sequence[str],
    settings: Mapping[str, Any],
    chat: bool,
    generation: Mapping[str, Any] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """lm-eval's samples of some tasks.

    Args:
        lm: an lm-eval model (`load_lm`, `loaded_lm`).
        tasks: ours or stock ones.
        settings: metadata of our tasks, e.g. {"mmlu": folder, "questions": 570}.
        chat: through the model's chat template.
        generation: what differs from the tasks' generation_kwargs, e.g. {"max_gen_toks": 256}.

    Returns:
        Task -> samples in the task's order: doc, doc_id, filtered_resps and the metrics.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    ours = {file.stem for file in TASKS.glob("*/*.yaml")}
    metadata = dict(settings)
    manager = TaskManager(
        include_path=str(TASKS), include_defaults=not ours.issuperset(tasks), metadata=metadata
    )
    with no_bars_in_logs():
        results = lm_eval.simple_evaluate(
            model=lm,
            tasks=list(tasks),
            task_manager=manager,
            metadata=metadata,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            gen_kwargs=dict(generation or {}),
            bootstrap_iters=0,
        )
    return {
        name: sorted(samples, key=lambda sample: sample["doc_id"])
        for name, samples in results["samples"].items()
    }
