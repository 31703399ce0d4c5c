"""`unswayed card`: a run's figures in the forms in which the Hub reads evaluation results.

Two forms, both of huggingface_hub: entries of `.eval_results/*.yaml`, which name a benchmark
dataset on the Hub, and the `model-index` in the metadata of a model card. Figures are merged into
what is there: everything that is not ours stays, to the byte outside of the model-index.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, eval_result_entries_to_yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from huggingface_hub.utils import yaml_dump

from unswayed.audit.evidence import Summary
from unswayed.audit.rundir import Run, model_name, read_run
from unswayed.audit.summary import read_summary
from unswayed.core.cards import CARD, read_metadata
from unswayed.core.errors import InputError
from unswayed.core.files import read_text, write_text
from unswayed.publish.local import check_id

TASK_TYPE = "text-generation"
TASK_NAME = "Emotional reasoning with user memory (unswayed)"  # marks our results in a model-index
DIGITS = 4
METRIC_NAMES = {
    "accuracy": "Accuracy",
    "flip_rate": "Flip rate",
    "persona_gap": "Persona gap",
    "expected_gap": "Gap in expected accuracy or score",
}
CONDITION_NAMES = {
    "none": "no memory",
    "neutral": "neutral memory",
    "advantaged": "advantaged users",
    "disadvantaged": "disadvantaged users",
    "grid": "all cells of the grid",
}
METRIC_ARGS = ("level", "low", "high", "n", "n_items")
GAP = "advantaged - disadvantaged"


@dataclasses.dataclass(frozen=True)
class Figure:
    """One number for the Hub.

    Attributes:
        metric: accuracy, flip_rate or persona_gap (the names under metrics/), or expected_gap.
        label: of which condition, or of which two.
        value, low, high: shares in [0, 1], the gap a difference of shares; low and high None if
            there is no interval.
        n: answers, or differences.
    """

    test: str
    metric: str
    label: str
    value: float
    low: float | None
    high: float | None
    n: int
    n_items: int

    @property
    def task_id(self) -> str:
        """Name of this figure among the tasks of a benchmark: `steu_accuracy_advantaged`."""
        words = [self.test, self.metric, *([] if self.label == GAP else [self.label])]
        return re.sub(r"[^a-z0-9]+", "_", " ".join(words).lower()).strip("_")

    @property
    def name(self) -> str:
        """In words: `Accuracy, advantaged users`."""
        return f"{METRIC_NAMES[self.metric]}, {CONDITION_NAMES.get(self.label, self.label)}"


def figures(summary: Summary) -> list[Figure]:
    """Accuracy and flip rate of each condition, and the gap of each test: that of accuracy, and of
    the outcome that the verdict goes by."""
    estimates = []
    for name, test in summary["tests"].items():
        estimates += [
            (name, metric, condition, values[metric], "n")
            for metric in ("accuracy", "flip_rate")
            for condition, values in test["conditions"].items()
            if values[metric] is not None
        ] + [
            (name, metric, GAP, effect, "n_differences")
            for effect in test["effects"]
            for metric, of in (("persona_gap", "accuracy"), ("expected_gap", "expected"))
            if (effect["name"], effect["metric"]) == ("gap", of)
        ]

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, DIGITS)

    return [
        Figure(
            *key, *(rounded(estimate[k]) for k in ("estimate", "low", "high")), estimate[n],
            estimate["n_items"],
        )
        for *key, estimate, n in estimates
        if estimate["estimate"] is not None
    ]  # fmt: skip


# -- .eval_results/*.yaml ------------------------------------------------------------------------


def eval_entries(run: Run, summary: Summary, dataset_id: str) -> list[EvalResultEntry]:
    """The figures as results on a benchmark dataset, a task each; notes in words."""
    return [
        EvalResultEntry(
            dataset_id=dataset_id,
            task_id=figure.task_id,
            value=figure.value,
            date=run["finished"],
            notes=_notes(run, summary, figure),
        )
        for figure in figures(summary)
    ]


def _notes(run: Run, summary: Summary, figure: Figure) -> str:
    bounds = ""
    if figure.low is not None:
        bounds = f"{summary['level']:.0%} interval {figure.low:g} to {figure.high:g}, "
    gap, verdict = figure.label == GAP, summary["verdict"]
    n_kind = "differences" if gap else "answers"
    memory = " ".join(filter(None, (run["identity"]["memory"], summary["memory_style"])))
    return (
        f"{figure.name}: {bounds}{figure.n:,} {n_kind} on {figure.n_items:,} items. "
        f"unswayed {run['versions']['unswayed']}, scoring {summary['scoring']}, memory {memory}. "
        f"Verdict of the run: {verdict['text'] if gap else verdict['status']}"
    )


def merge_entries(old: list[dict[str, Any]], new: list[EvalResultEntry]) -> list[dict[str, Any]]:
    """Entries of the same dataset and task replaced in place, new ones at the end."""
    return _merge(
        old,
        eval_result_entries_to_yaml(new),
        lambda entry: (entry["dataset"]["id"], entry["dataset"]["task_id"]),
    )


# -- the model card ------------------------------------------------------------------------------


def card_results(summary: Summary, dataset_id: str | None = None) -> list[EvalResult]:
    """The figures as results of a model card, grouped by test.

    Args:
        dataset_id: of the items on the Hub; the test's name stands in for it.
    """
    return [
        EvalResult(
            task_type=TASK_TYPE,
            task_name=TASK_NAME,
            dataset_type=dataset_id or figure.test,
            dataset_name=f"unswayed {figure.test}",
            dataset_config=figure.test,
            metric_type=figure.metric,
            metric_name=figure.name,
            metric_value=figure.value,
            metric_args={
                key: value
                for key, value in ({"level": summary["level"]} | vars(figure)).items()
                if key in METRIC_ARGS and value is not None
            },
        )
        for figure in figures(summary)
    ]


def merge_index(
    index: list[dict[str, Any]], model: str, results: list[EvalResult]
) -> list[dict[str, Any]]:
    """A model-index with our results of these tests replaced; all others stay as they are.

    They join the entry of this name, or the first, since a card is about one model.
    """
    (new,) = eval_results_to_model_index(model, results)
    if not index:
        return [new]
    index = copy.deepcopy(index)
    entry = next((e for e in index if e["name"] == model), index[0])
    entry["results"] = _merge(
        entry["results"],
        new["results"],
        lambda r: (r["task"].get("name"), r["dataset"].get("config")),
    )
    return index


def merge_card(card: str, model: str, results: list[EvalResult], where: str) -> str:
    """A model card with our results in its metadata; the rest stays to the byte.

    Args:
        card: the text of README.md, with its own line ends; may be empty.
        where: the card's path, for messages.

    Raises:
        InputError: the metadata is not what the Hub reads.
    """
    block = REGEX_YAML_BLOCK.search(card)
    front = block[2] if block else ""
    line_end = "\r\n" if "\r\n" in card else "\n"
    old = _metadata(card, where)
    index = old.get("model-index") or []
    try:
        if index:
            model_index_to_eval_results(index)
        merged = merge_index(index, model, results)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{where}: its model-index is not in the Hub's form ({type(error).__name__} {error}); "
            "mend or remove it"
        ) from None
    if merged == index:
        return card
    dumped = yaml_dump({"model-index": merged}, sort_keys=False, line_break=line_end).rstrip("\r\n")
    start, end = _extent(front, "model-index")
    before, after = front[:start].rstrip("\r\n"), front[end:]
    new_front = line_end.join(part for part in (before, dumped, after) if part)
    try:
        whole = yaml.safe_load(new_front) == old | {"model-index": merged}
    except yaml.YAMLError:
        whole = False
    if not whole:
        raise InputError(
            f"{where}: its metadata is written in a form that cannot be added to; write it as "
            "one `key: value` a line"
        )
    if block:
        merged_card = card[: block.start(2)] + new_front + card[block.end(2) :]
    else:
        merged_card = line_end.join(["---", new_front, "---", card])
    try:
        ModelCard(merged_card)
    except ValueError as error:
        raise InputError(f"{where}: huggingface_hub refuses its metadata ({error})") from None
    return merged_card


def _metadata(card: str, where: str) -> dict[str, Any]:
    try:
        metadata = read_metadata(card)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 2}" if mark else ""  # after the line ---
        raise InputError(f"{where}{line}: its metadata is not YAML") from None
    if not isinstance(metadata, dict):
        raise InputError(f"{where}: its metadata must be a mapping of keys to values")
    return metadata


def _extent(front: str, key: str) -> tuple[int, int]:
    """Where a key and its value stand in a mapping; its end, twice, if it is not there."""
    root = yaml.compose(front, Loader=yaml.SafeLoader)
    entries = root.value if root else []
    starts = [name.start_mark.index for name, _ in entries] + [len(front)]
    for i, (name, _) in enumerate(entries):
        if name.value == key:
            return starts[i], starts[i + 1]
    return len(front), len(front)


def _merge(old: list[dict], new: list[dict], key: Any) -> list[dict]:
    fresh = {key(entry): entry for entry in new}
    return [fresh.pop(key(entry), entry) for entry in old] + list(fresh.values())


# -- the repository folder -----------------------------------------------------------------------


def write_card(run_dir: Path, repo: Path, dataset_id: str | None = None) -> list[Path]:
    """Merge a run's figures into a folder of a model repository; nothing is uploaded.

    Args:
        dataset_id: benchmark dataset of the items on the Hub; without it there is nothing that
            `.eval_results` could refer to, and only the card is written.

    Returns:
        The files that changed.

    Raises:
        InputError: no complete run, or what is there cannot be merged with; nothing is written
            then.
    """
    run, summary = read_run(run_dir), read_summary(run_dir)
    if repo.exists() and not repo.is_dir():
        raise InputError(f"--out {repo} is a file; give the folder of a model repository")
    texts = {}
    card, model = repo / CARD, model_name(run, summary)
    old = _read(card)
    texts[card] = merge_card(
        old or f"\n# {model}\n", model, card_results(summary, dataset_id), str(card)
    )
    if dataset_id is not None:
        complaint = f"--dataset-id {dataset_id} is no id of a dataset on the Hub, OWNER/NAME"
        check_id(dataset_id, complaint)
        path = repo / ".eval_results" / "unswayed.yaml"
        new = eval_entries(run, summary, dataset_id)
        texts[path] = yaml_dump(merge_entries(_entries(path), new), sort_keys=False)
    changed = [path for path, text in texts.items() if _read(path) != text]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, texts[path])
    return changed


def _read(path: Path) -> str | None:
    """A UTF-8 text with its own line ends; None if there is no such file."""
    if not path.exists():
        return None
    read_text(path)  # for its errors
    return path.read_bytes().decode("utf-8-sig")


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        entries = yaml.safe_load(_read(path) or "") or []
        for entry in entries:
            _ = entry["dataset"]["id"], entry["dataset"]["task_id"], entry["value"]
        return list(entries)
    except (yaml.YAMLError, KeyError, TypeError, IndexError):
        raise InputError(
            f"{path} is not in the form of .eval_results (a list of dataset and value): mend or "
            "remove it"
        ) from None
