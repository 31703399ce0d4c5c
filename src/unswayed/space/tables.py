"""Stored results as tables with intervals: audits, memories side by side, trainings.

Percent and points. A result is known by its form, so any JSON that holds a `summary.json`, a
`compare.json` or the `sweep.json` of a DPO sweep, alone or under a key, is shown.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from unswayed.audit.evidence import Summary, check_answers
from unswayed.audit.policy import GRID, PAIRS, packaged
from unswayed.audit.summary import read_summary, summarize
from unswayed.audit.trials import SCHEMA
from unswayed.compare.memories import MemoriesComparison
from unswayed.core.errors import InputError
from unswayed.core.files import read_text
from unswayed.data.hub import HUB, hub_source
from unswayed.report.words import CONDITION_LABELS, effect_label, finding
from unswayed.space.pages import TONES, intervals

ON_A_SPACE = "SPACE_ID"  # set by Hugging Face; a visitor then gives no path of this machine
DATASET_BYTES = 50_000_000
AUDIT, MEMORIES, TRAININGS = "an audit", "memories side by side", "before and after training"
# what each form has, and nothing else does
FORMS = {
    AUDIT: {"verdict", "warnings", "tests"},
    MEMORIES: {"memories", "reference", "tests"},
    TRAININGS: {"references", "results", "margin"},
}


@dataclasses.dataclass(frozen=True)
class ResultView:
    """A result as it is shown.

    Attributes:
        note: what it is and says, plain text.
        plots: HTML.
        first, second: tables; numbers are numbers, so that they can be sorted.
    """

    note: str
    plots: str
    first: pd.DataFrame
    second: pd.DataFrame


def stored(folder: Path) -> dict[str, str]:
    """Results in a folder, label -> path; files of other forms are left out."""
    forms = {path: form_of(json.loads(read_text(path))) for path in sorted(folder.glob("*.json"))}
    return {f"{path.stem} ({form[0]})": str(path) for path, form in forms.items() if form}


def form_of(content: Any) -> tuple[str, Mapping[str, Any]] | None:
    """The form of a JSON content and where in it the result lies; None if it is none."""
    if not isinstance(content, Mapping):
        return None
    for part in (content, *content.values()):
        if isinstance(part, Mapping):
            for form, keys in FORMS.items():
                if keys <= part.keys():
                    return form, part
    return None


def show_file(path: Path) -> ResultView:
    """A stored result.

    Raises:
        InputError: it is none.
    """
    try:
        content = json.loads(read_text(path))
    except ValueError:
        raise InputError(f"{path.name} is not JSON") from None
    if (form := form_of(content)) is None:
        raise InputError(f"{path.name} is no result of an audit, a comparison or a DPO sweep")
    return MAKERS[form[0]](form[1], str(content.get("command", "")))


def show_source(source: str) -> ResultView:
    """A result that a visitor names: answers as a Hub dataset, or on one's own machine a run
    directory or a JSON file.

    Raises:
        InputError: it may not be read here, or holds no result.
    """
    source = source.strip()
    if source.startswith(HUB):
        return MAKERS[AUDIT](summary_of(read_answers(source), source), source)
    if ON_A_SPACE in os.environ or not source:
        raise InputError("give a dataset of the Hub that holds an audit's answers: hub:OWNER/NAME")
    path = Path(source).expanduser()
    if path.is_dir():
        return MAKERS[AUDIT](read_summary(path), f"run directory {path.name}")
    return show_file(path)


def read_answers(source: str) -> pd.DataFrame:
    """All Parquet rows of a public Hub dataset.

    Read without a token, and at one commit: the owner of the Space may see what a visitor may not.
    The files themselves are read, since a card's `data_files` may name any path or address.

    Args:
        source: hub:OWNER/NAME[:FOLDER][@REVISION].

    Raises:
        InputError: it cannot be reached without a token, is too large, or holds no table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from httpx2 import HTTPError
    from huggingface_hub import HfApi

    name, folder, revision = hub_source(source)
    api = HfApi(token=False)
    try:
        info = api.dataset_info(name, revision=revision, files_metadata=True)
        files = {
            file.rfilename: file.size or 0
            for file in info.siblings or []
            if file.rfilename.endswith(".parquet")
            and (folder is None or file.rfilename.startswith(f"{folder}/"))
        }
        if not files:
            raise InputError(f"{source} holds no Parquet file")
        if (size := sum(files.values())) > DATASET_BYTES:
            raise InputError(
                f"{source} has {size:,} bytes, at most {DATASET_BYTES:,} are read here"
            )
        where = {"repo_type": "dataset", "revision": info.sha}
        with tempfile.TemporaryDirectory() as scratch:
            return pa.concat_tables(
                pq.ParquetFile(api.hf_hub_download(name, file, **where, local_dir=scratch)).read()
                for file in files
            ).to_pandas()
    except InputError:
        raise
    except pa.ArrowException as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{source} holds no table that can be read ({first})") from None
    except (HTTPError, OSError, RuntimeError, ValueError):
        raise InputError(f"{source}: no public dataset of that name can be reached") from None


def summary_of(answers: pd.DataFrame, source: str) -> Summary:
    """The summary of an audit's answers.

    Raises:
        InputError: they are no answers of one run.
    """
    if missing := [name for name in SCHEMA.names if name not in answers]:
        raise InputError(
            f"{source} holds no answers of an audit: the column {missing[0]} is missing"
        )
    check_answers(answers, source)
    policy = packaged(GRID if answers["gender"].notna().any() else PAIRS)
    return summarize(answers, policy, declared=False, seed=int(answers["seed"].iloc[0]))


# -- one form each -------------------------------------------------------------------------------


def audit_view(summary: Summary, command: str) -> ResultView:
    """Accuracy and flips by condition, and all effects."""
    first, second, plots = [], [], []
    for test, about in summary["tests"].items():
        conditions = [
            (CONDITION_LABELS.get(name, name), name, values)
            for name, values in about["conditions"].items()
        ]
        first += [
            {"Test": test, "Condition": label, "n": values["n"]}
            | _columns("Accuracy", values["accuracy"])
            | _columns("Expected", values["expected"])
            | _columns("Expert score", values["score"])
            | _columns("Flips", values["flip_rate"])
            for label, _, values in conditions
        ]
        second += [
            {"Test": test, "Metric": effect["metric"], "Effect": effect_label(effect["name"]),
             "Finding": finding(effect, 1 - summary["level"])}
            | _columns("Points", effect)
            | {"p (Holm)": _round(effect["p_holm"], 4)}
            for effect in about["effects"]
        ]  # fmt: skip
        for title, key in (("Accuracy", "accuracy"), ("Flips", "flip_rate")):
            rows = [(label, name, v[key]) for label, name, v in conditions if v[key] is not None]
            plots.append(intervals(f"{title} on {test} (%)", rows))
    verdict = summary["verdict"]
    note = " ".join(
        [f"{summary['model']}.", verdict["text"], verdict["advice"], *summary["warnings"]]
    )
    return _view(note, command, plots, first, second)


def memories_view(comparison: MemoriesComparison, command: str) -> ResultView:
    """Each memory's figures, and each memory against the reference."""
    first, second, plots = [], [], []
    reference = comparison["reference"]
    for test, about in comparison["tests"].items():
        first += [
            {"Test": test, "Memory": row["memory"], "Metric": row["metric"],
             "Of": effect_label(row["name"])} | _columns("Value", row)
            for row in about["levels"]
        ]  # fmt: skip
        second += [
            {"Test": test, "Memory": f"{row['memory']} − {reference}", "Metric": row["metric"],
             "Of": effect_label(row["name"]), "Finding": row["finding"]}
            | _columns("Points", row) | {"p (Holm)": _round(row["p_holm"], 4)}
            for row in about["differences"]
        ]  # fmt: skip
        flips = [
            (f"{row['memory']}: {CONDITION_LABELS.get(row['name'], row['name'])}", row["name"], row)
            for row in about["levels"]
            if row["metric"] == "flip" and (row["estimate"] or 0) >= 0 and row["name"] in TONES
        ]
        plots.append(intervals(f"Flips on {test} by memory (%)", flips))
    names = ", ".join(memory["name"] for memory in comparison["memories"])
    note = (
        f"{comparison['model']} under the memories {names}; each is compared with {reference}. "
        f"{' '.join(comparison['warnings'])}"
    )
    return _view(note, command, plots, first, second)


def trainings_view(sweep: Mapping[str, Any], command: str) -> ResultView:
    """Before and after each training, and what it needed."""
    first, second, plots = [], [], {}
    for result in sweep["results"]:
        name = f"{result['name']}, seed {result['seed']}"
        measures = [
            (test, measure, sides)
            for test, about in result["tests"].items()
            for measure, sides in about.items()
            if isinstance(sides, Mapping) and "before" in sides
        ]
        for test, measure, sides in measures:
            first += [
                {"Test": test, "Training": name, "Measure": measure, "Side": side}
                | _columns("Value", sides[side])
                for side in ("before", "after", "change")
            ]
            if measure == "flip" or measure.startswith("flips"):
                plots.setdefault(f"{measure} on {test} (%)", []).extend(
                    (f"{name}: {side}", tone, sides[side])
                    for side, tone in (("before", "disadvantaged"), ("after", "advantaged"))
                )
        training = result["training"]
        second.append(
            {"Training": name, "Pairs": training["pairs"], "Steps": training["steps"],
             "Minutes": _round(training["seconds"] / 60, 1)}
            | {f"Preference accuracy, {k} (%)": _percent(v)
               for k, v in training["preference_accuracy"].items()}
        )  # fmt: skip
    drawn = [intervals(title, rows) for title, rows in plots.items()]
    return _view(f"{sweep['model']}, before and after DPO.", command, drawn, first, second)


MAKERS = {AUDIT: audit_view, MEMORIES: memories_view, TRAININGS: trainings_view}


def records(view: ResultView) -> dict[str, Any]:
    """A result for the endpoint: note and tables as lists of rows."""
    return {"note": view.note} | {
        name: json.loads(table.to_json(orient="records", force_ascii=False))
        for name, table in (("first", view.first), ("second", view.second))
    }


def _columns(name: str, value: Mapping[str, Any] | None) -> dict[str, float | None]:
    value = value or dict.fromkeys(("estimate", "low", "high"))
    return {
        name: _percent(value["estimate"]),
        f"{name}, low": _percent(value["low"]),
        f"{name}, high": _percent(value["high"]),
    }


def _percent(share: float | None) -> float | None:
    return _round(None if share is None else 100 * share, 1)


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _view(note: str, command: str, plots: list[str], *tables: list[dict[str, Any]]) -> ResultView:
    note = f"{note.strip()} ({command})" if command else note.strip()
    return ResultView(note, "".join(plots), *map(pd.DataFrame, tables))
