"""One way to hide the folders of this machine."""

from pathlib import Path

import pytest

from unswayed.core.files import without_folders


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("builtin", "builtin"),
        ("chat=/folder/x.jsonl", "chat=x.jsonl"),
        ("chat=/folder/run=3/x.jsonl", "chat=x.jsonl"),
        ("chat=run=3/x.jsonl", "chat=x.jsonl"),
        ("/folder/run=3/x.jsonl", "x.jsonl"),
        ("chat=/folder/run=3.jsonl", "chat=run=3.jsonl"),
        ("mmlu=/data/mmlu/", "mmlu=mmlu"),
        ("mmlu=mmlu/part/..", "mmlu=mmlu"),
        ("questions=200", "questions=200"),
        ("steu=hub:owner/name", "steu=hub:owner/name"),
        ("chat=", "chat="),
        (Path("/folder/recipe.yaml"), "recipe.yaml"),
    ],
)
def test_only_names_stay(text: object, expected: str):
    assert without_folders(text) == expected
