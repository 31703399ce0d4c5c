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

from unswayed.audit.summary import check_answers, read_summary, summarize
from unswayed.audit.trials import SCHEMA
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
class Shown:
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
    found = {}
    for path in sorted(folder.glob("*.json")):
        form = form_of(json.loads(read_text(path)))
        if form:
            found[f"{path.stem} ({form[0]})"] = str(path)
    return found


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


def show_file(path: Path) -> Shown:
    """A stored result.

    Raises:
        InputError: it is none.
    """
    try:
        content = json.loads(read_text(path))
    except ValueError:
        raise InputError(f"{path.name} is not JSON") from None
    form = form_of(content)
    if form is None:
        raise InputError(f"{path.name} is no result of an audit, a comparison or a DPO sweep")
    command = str(content.get("command", ""))
    return MAKERS[form[0]](form[1], command)


def show_source(source: str) -> Shown:
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


def summary_of(answers: pd.DataFrame, source: str) -> dict[str, Any]:
    """The summary of an audit's answers.

    Raises:
        InputError: they are no answers of one run.
    """
    if missing := [name for name in SCHEMA.names if name not in answers]:
        raise InputError(
            f"{source} holds no answers of an audit: the column {missing[0]} is missing"
        )
    check_answers(answers, source)
    return summarize(answers, int(answers["seed"].iloc[0]))


# -- one form each -------------------------------------------------------------------------------


def audit_shown(summary: Mapping[str, Any], command: str) -> Shown:
    """Accuracy and flips by condition, and all effects."""
    first, second, plots = [], [], []
    for test, about in summary["tests"].items():
        for condition, values in about["conditions"].items():
            first.append(
                {"Test": test, "Condition": CONDITION_LABELS.get(condition, condition),
                 "n": values["n"]}
                | _columns("Accuracy", values["accuracy"])
                | _columns("Expert score", values["score"])
                | _columns("Flips", values["flip_rate"])
            )  # fmt: skip
        second += [
            {"Test": test, "Metric": effect["metric"], "Effect": effect_label(effect["name"]),
             "Finding": finding(effect, 1 - summary["level"])}
            | _columns("Points", effect)
            | {"p (Holm)": _round(effect["p_holm"], 4)}
            for effect in about["effects"]
        ]  # fmt: skip
        for title, key in (("Accuracy", "accuracy"), ("Flips", "flip_rate")):
            rows = [
                (CONDITION_LABELS.get(c, c), c if c in TONES else "other", values[key])
                for c, values in about["conditions"].items()
                if values[key] is not None
            ]
            plots.append(intervals(f"{title} on {test} (%)", rows, 0, 1))
    note = f"{summary['model']}. {summary['verdict']['text']} {' '.join(summary['warnings'])}"
    return Shown(_note(command, note), "".join(plots), pd.DataFrame(first), pd.DataFrame(second))


def memories_shown(found: Mapping[str, Any], command: str) -> Shown:
    """Each memory's figures, and each memory against the reference."""
    first, second, plots = [], [], []
    for test, about in found["tests"].items():
        for row in about["levels"]:
            first.append(
                {"Test": test, "Memory": row["memory"], "Metric": row["metric"],
                 "Of": effect_label(row["name"])} | _columns("Value", row)
            )  # fmt: skip
        for row in about["differences"]:
            second.append(
                {"Test": test, "Memory": f"{row['memory']} − {found['reference']}",
                 "Metric": row["metric"], "Of": effect_label(row["name"]),
                 "Finding": row["finding"]}
                | _columns("Points", row) | {"p (Holm)": _round(row["p_holm"], 4)}
            )  # fmt: skip
        flips = [
            (f"{row['memory']}: {CONDITION_LABELS.get(row['name'], row['name'])}",
             row["name"] if row["name"] in TONES else "other", row)
            for row in about["levels"]
            if row["metric"] == "flip" and (row["estimate"] or 0) >= 0 and row["name"] in TONES
        ]  # fmt: skip
        plots.append(intervals(f"Flips on {test} by memory (%)", flips, 0, 1))
    names = ", ".join(memory["name"] for memory in found["memories"])
    note = (
        f"{found['model']} under the memories {names}; each is compared with {found['reference']}. "
        f"{' '.join(found['warnings'])}"
    )
    return Shown(_note(command, note), "".join(plots), pd.DataFrame(first), pd.DataFrame(second))


def trainings_shown(found: Mapping[str, Any], command: str) -> Shown:
    """Before and after each training, and what it needed."""
    first, second, plots = [], [], {}
    for one in found["results"]:
        name = f"{one['name']}, seed {one['seed']}"
        for test, about in one["tests"].items():
            for measure, sides in about.items():
                if not isinstance(sides, Mapping) or "before" not in sides:
                    continue
                for side in ("before", "after", "change"):
                    first.append(
                        {"Test": test, "Training": name, "Measure": measure, "Side": side}
                        | _columns("Value", sides[side])
                    )
                if measure == "flip" or measure.startswith("flips"):
                    title = f"{measure} on {test} (%)"
                    plots.setdefault(title, []).extend(
                        (f"{name}: {side}", tone, sides[side])
                        for side, tone in (("before", "disadvantaged"), ("after", "advantaged"))
                    )
        training = one["training"]
        second.append(
            {"Training": name, "Pairs": training["pairs"], "Steps": training["steps"],
             "Minutes": _round(training["seconds"] / 60, 1)}
            | {f"Preference accuracy, {k} (%)": _percent(v)
               for k, v in training["preference_accuracy"].items()}
        )  # fmt: skip
    drawn = "".join(intervals(title, rows, 0, 1) for title, rows in plots.items())
    note = f"{found['model']}, before and after DPO."
    return Shown(_note(command, note), drawn, pd.DataFrame(first), pd.DataFrame(second))


MAKERS = {AUDIT: audit_shown, MEMORIES: memories_shown, TRAININGS: trainings_shown}


def records(shown: Shown) -> dict[str, Any]:
    """A result for the endpoint: note and tables as lists of rows."""
    return {"note": shown.note} | {
        name: json.loads(table.to_json(orient="records", force_ascii=False))
        for name, table in (("first", shown.first), ("second", shown.second))
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


def _note(command: str, text: str) -> str:
    return f"{text.strip()} ({command})" if command else text.strip()
