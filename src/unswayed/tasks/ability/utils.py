"""Documents of the ability tasks.

Settings come from the tasks' metadata; on the command line `--metadata '{"questions": 570}'`:

mmlu, arc, hellaswag  where the data are: a Hub id, or local files in the same columns (mmlu: a
                      folder with test/SUBJECT_test.csv and dev/SUBJECT_dev.csv, columns question,
                      choice0 to choice3 and answer; arc and hellaswag: one JSONL or Parquet
                      file)
questions             how many of each task (default: all), drawn by seed; of MMLU evenly over the
                      subjects
seed                  default 0
shots                 examples before each MMLU question, of its subject, 0 to 5 (default 5)
"""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets

from unswayed.core.errors import InputError

LETTERS = "ABCD"
FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def load_mmlu(
    mmlu: str = "cais/mmlu", questions: int | None = None, seed: int = 0, shots: int = 5, **_: Any
) -> dict[str, datasets.Dataset]:
    """MMLU (Hendrycks et al. 2021, arXiv 2009.03300), all 57 subjects in one task.

    What the model reads is that of lm-eval's tasks `mmlu_*` with as many examples, in one user turn
    where there is a chat template (`--fewshot_as_multiturn false`).

    Raises:
        InputError: no such files, a wrong column, or fewer examples than `shots`.
    """
    if not 0 <= shots <= 5:
        raise InputError(f"shots is {shots}: MMLU has 0 to 5 examples of a subject")
    test, dev = mmlu_rows(mmlu, "test"), mmlu_rows(mmlu, "dev")
    docs = []
    for subject, rows in _evenly(test, questions, seed).items():
        examples = dev.get(subject, [])[:shots]
        if len(examples) < shots:
            raise InputError(
                f"mmlu {mmlu}: subject {subject} has {len(examples)} examples in dev, not {shots}"
            )
        before = "".join(f"{_question(e)} {LETTERS[e['answer']]}\n\n" for e in examples)
        about = subject.replace("_", " ")
        docs += [
            {
                "subject": subject,
                "description": "The following are multiple choice questions (with answers) about "
                f"{about}.\n\n",
                "prompt": before + _question(row),
                "answer": row["answer"],
            }
            for row in rows
        ]
    return {"test": datasets.Dataset.from_list(docs)}


def _question(row: dict) -> str:
    options = "".join(
        f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, row["choices"], strict=True)
    )
    return f"{row['question'].strip()}\n{options}Answer:"


def mmlu_rows(source: str, split: str) -> dict[str, list[dict]]:
    """Subject -> rows with question, choices (4) and answer (0 to 3)."""
    folder = Path(source)
    if not (folder / split).is_dir():
        if folder.exists():
            raise InputError(f"mmlu {source}: there is no folder {split} with CSV files in it")
        by_subject: dict[str, list[dict]] = {}
        for row in datasets.load_dataset(source, "all", split=split):
            by_subject.setdefault(row["subject"], []).append(row)
        return by_subject
    files = sorted((folder / split).glob("*.csv"))
    if not files:
        raise InputError(f"mmlu {source}: there are no CSV files in {split}")
    return {file.stem.removesuffix(f"_{split}"): list(_csv_rows(file)) for file in files}


def _csv_rows(file: Path) -> Iterable[dict]:
    with file.open(newline="", encoding="utf-8") as lines:
        for number, row in enumerate(csv.DictReader(lines), start=1):
            try:
                answer = int(row["answer"])
                choices = [row[f"choice{i}"] for i in range(4)]
                yield {"question": row["question"], "choices": choices, "answer": answer}
            except (KeyError, ValueError, TypeError) as error:
                raise InputError(
                    f"{file}, row {number}: needs question, choice0 to choice3 and answer (0 to 3)"
                    f": {error}"
                ) from None


def _evenly(groups: dict[str, list[dict]], total: int | None, seed: int) -> dict[str, list[dict]]:
    """`total` rows, as evenly over the groups as these are large enough, drawn by seed.

    Which groups give one row more than others is drawn, too. Order within a group is kept.
    """
    if total is None:
        return groups
    left = _checked(total, sum(map(len, groups.values())), "questions")
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    sizes = dict.fromkeys(sorted(groups), 0)
    while left:
        larger = [name for name in order if sizes[name] < len(groups[name])][:left]
        for name in larger:
            sizes[name] += 1
        left -= len(larger)
    return {
        name: [groups[name][i] for i in drawn(len(groups[name]), n, f"{seed}/{name}")]
        for name, n in sizes.items()
        if n
    }


def _checked(n: int, most: int, setting: str) -> int:
    if not 1 <= n <= most:
        raise InputError(f"{setting} is {n}: between 1 and {most} are there")
    return n


def drawn(most: int, n: int | None, seed: str, setting: str = "questions") -> list[int]:
    """Numbers of `n` of `most` rows, drawn by seed, in their order; of all without `n`.

    Raises:
        InputError: there are not as many; names the setting.
    """
    if n is None:
        return list(range(most))
    return sorted(random.Random(seed).sample(range(most), _checked(n, most, setting)))


def load_arc(
    arc: str = "allenai/ai2_arc", questions: int | None = None, seed: int = 0, **_: Any
) -> dict[str, datasets.Dataset]:
    """ARC-Challenge (Clark et al. 2018, arXiv 1803.05457), or a file with its columns."""
    rows = load_rows(arc, "ARC-Challenge", "test", ("question", "choices", "answerKey"))
    return {"test": rows.select(drawn(len(rows), questions, f"{seed}"))}


def load_hellaswag(
    hellaswag: str = "Rowan/hellaswag", questions: int | None = None, seed: int = 0, **_: Any
) -> dict[str, datasets.Dataset]:
    """HellaSwag (Zellers et al. 2019, arXiv 1905.07830), validation, or a file with its columns.

    The texts are prepared as by lm-eval's `hellaswag`.
    """
    columns = ("ctx_a", "ctx_b", "activity_label", "endings", "label")
    rows = load_rows(hellaswag, None, "validation", columns)
    prepared = [
        {
            "query": _clean(f"{r['activity_label']}: {r['ctx_a']} {r['ctx_b'].capitalize()}"),
            "choices": [_clean(ending) for ending in r["endings"]],
            "gold": int(r["label"]),
        }
        for r in rows.select(drawn(len(rows), questions, f"{seed}"))
    ]
    return {"test": datasets.Dataset.from_list(prepared)}


def _clean(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def load_rows(
    source: str, name: str | None, split: str, columns: Sequence[str]
) -> datasets.Dataset:
    """A file's rows, or those of a dataset on the Hub.

    Raises:
        InputError: the file is of another kind or broken, or a column is missing.
    """
    file = Path(source)
    if file.is_file():
        if file.suffix not in FORMATS:
            raise InputError(f"{source}: not one of {', '.join(FORMATS)}")
        kind = FORMATS[file.suffix]
        try:
            rows = datasets.load_dataset(kind, data_files=str(file), split="train")
        except datasets.exceptions.DatasetGenerationError as error:
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise InputError(f"{source} cannot be read as {kind}: {reason}") from None
    else:
        rows = datasets.load_dataset(source, name, split=split)
    if missing := [column for column in columns if column not in rows.column_names]:
        raise InputError(f"{source}: the column {missing[0]} is missing")
    return rows
