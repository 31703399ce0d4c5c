"""MMLU and IFEval in small, in the form of their files, and an untrained punkt_tab; for tests."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nltk
import pytest

PROMPTS = [
    {
        "key": 1,
        "prompt": "Write about tea without commas, in at most 5 words.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{}, {"relation": "less than", "num_words": 6}],
    },
    {
        "key": 2,
        "prompt": "Say that you are glad, without commas.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    },
    {
        "key": 3,
        "prompt": "Write two sentences in English, all in small letters.",
        "instruction_id_list": [
            "change_case:english_lowercase",
            "length_constraints:number_sentences",
        ],
        "kwargs": [{}, {"relation": "at least", "num_sentences": 2}],
    },
]


def write_ifeval(file: Path, rows: list[dict] = PROMPTS) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_mmlu(folder: Path, sizes: dict[str, int]) -> Path:
    """`sizes` questions and five examples of each subject."""
    for split in ("test", "dev"):
        (folder / split).mkdir(parents=True)
        for subject, size in sizes.items():
            with (folder / split / f"{subject}_{split}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["question", *(f"choice{i}" for i in range(4)), "answer"])
                for i in range(size if split == "test" else 5):
                    asked = f"{split} {subject} {i}?"
                    writer.writerow([asked, f"joy {i}", "fear, grief", "pride", "hope", i % 4])
    return folder


@contextmanager
def small_punkt(folder: Path) -> Iterator[None]:
    """nltk finds nothing but `write_punkt`'s; lm-eval keeps its warnings to itself."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk.data, "path", [str(write_punkt(folder))])
        yield


def write_punkt(folder: Path) -> Path:
    """A folder for nltk.data.path; a sentence ends where . ? or ! stands."""
    english = folder / "tokenizers" / "punkt_tab" / "english"
    english.mkdir(parents=True, mode=0o755)
    for name in ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"):
        (english / name).touch(mode=0o644)
    return folder
