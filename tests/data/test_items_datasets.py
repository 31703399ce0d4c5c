"""Items from a folder or a Hub dataset: the same fields as columns, errors name the row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unswayed.core.errors import InputError
from unswayed.data.items import keep_invariant, load_items, read_items

ROWS = [
    {"id": "a", "scenario": "One?", "options": ["x", "y"], "key": "y", "rationale": "So."},
    {"id": "b", "scenario": "Two?", "options": ["x", "y", "z"], "key": "x", "weights": [1, 0.5, 0]},
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    config = pytest.importorskip("datasets").config
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def write(folder: Path, split: str, rows=ROWS) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def test_folder_reads_like_its_file(folder):
    write(folder, "test")
    with pytest.raises(
        InputError, match=r"mine mixes kinds .* \(a is of understanding, b is of man"
    ):
        load_items([f"mine={folder}"])
    assert read_items(folder, "mine") == read_items(folder / "test.jsonl", "mine")
    assert [item.kind for item in read_items(folder, "mine")] == ["understanding", "management"]


def test_split_test_is_taken_where_there_are_several(folder):
    write(folder, "train", [{**row, "id": f"train-{row['id']}"} for row in ROWS])
    write(folder, "test")
    assert [item.id for item in read_items(folder, "mine")] == ["a", "b"]


def test_the_only_split_is_taken_whatever_its_name(folder):
    write(folder, "train")
    assert [item.id for item in read_items(folder, "mine")] == ["a", "b"]


def test_several_splits_without_test(folder):
    write(folder, "train")
    write(folder, "validation")
    with pytest.raises(InputError, match="has no split test, only train, validation"):
        read_items(folder, "mine")


def test_faulty_row_is_named_by_its_number(folder):
    write(folder, "test", [ROWS[0], {**ROWS[0], "id": "b", "key": "w"}])
    with pytest.raises(InputError) as caught:
        read_items(folder, "mine")
    assert str(caught.value) == f"{folder}:2: key 'w' of b is not among its options: x, y"


def test_empty_folder(folder):
    with pytest.raises(InputError, match=f"dataset {folder} cannot be loaded: "):
        read_items(folder, "mine")


def test_hub_dataset_that_cannot_be_reached(monkeypatch):
    """The tests run offline."""
    with pytest.raises(InputError, match="dataset hub:unswayed/none cannot be loaded: "):
        load_items(["mine=hub:unswayed/none"])


def test_decisions_from_a_folder(folder, tmp_path):
    write(folder, "test", [{"id": "a", "persona_invariant": False}])
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    items_left = keep_invariant(read_items(items, "mine"), folder)
    assert [item.id for item in items_left] == ["b"]


def test_a_folder_that_is_built_anew_is_read_anew(folder):
    """Where a card names configs, datasets' own cache knows a folder by its name alone."""
    card = (
        "---\nconfigs:\n- config_name: mine\n  data_files:\n  - split: test\n    path: test.jsonl\n"
    )
    (folder / "README.md").write_text(f"{card}---\n", encoding="utf-8")
    for id in ("first", "second"):
        write(folder, "test", [{**ROWS[0], "id": id}])
        assert [item.id for item in read_items(folder, "mine")] == [id]
