"""Whether an experiment goes on as it was begun, and what is finished is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from unswayed.core.errors import InputError
from unswayed.core.ledger import Ledger, as_json, check_same, differences, digest

IDENTITY = {"model": "m", "settings": {"rank": 8, "seed": 0}}


def test_a_finished_value_is_not_computed_again_after_an_interruption(tmp_path: Path):
    path, calls = tmp_path / "run" / "journal.jsonl", []

    def compute() -> dict[str, int]:
        calls.append(1)
        return {"right": 3}

    with pytest.raises(KeyboardInterrupt), Ledger(path, IDENTITY) as ledger:
        ledger.once("a", compute)
        raise KeyboardInterrupt
    with Ledger(path, IDENTITY) as ledger:
        assert "a" in ledger and "b" not in ledger
        assert ledger.once("a", compute) == ledger.value("a") == {"right": 3}
        assert ledger.seconds("a") >= 0
    assert calls == [1]
    ledger.remove()
    assert not path.exists()


def test_another_experiment_does_not_go_on_and_the_difference_is_named(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    Ledger(path, IDENTITY)
    kept = path.read_bytes()
    other = {"model": "m", "settings": {"rank": 4, "seed": 1}}
    with pytest.raises(InputError) as error:
        Ledger(path, other, "take another folder")
    assert str(error.value) == (
        f"{tmp_path} was begun with settings.rank 8, now it is 4: take another folder"
    )
    assert path.read_bytes() == kept


def test_differences_name_keys_within_keys_and_those_on_one_side_only():
    now = {"model": "m", "settings": {"rank": 8, "alpha": 2}, "extra": [1]}
    assert list(differences(IDENTITY, now)) == [
        ("settings.seed", 0, None),
        ("settings.alpha", None, 2),
        ("extra", None, [1]),
    ]
    check_same(now, now, Path("x"))


@dataclasses.dataclass
class Settings:
    layers: tuple[str, ...]
    folder: Path


def test_a_value_is_compared_as_its_file_gives_it_back():
    settings = Settings(("a", "b"), Path("x/y"))
    assert as_json({"settings": settings}) == {
        "settings": {"layers": ["a", "b"], "folder": str(Path("x/y"))}
    }
    assert digest((1, "é")) == digest([1, "é"]) != digest([1, "é"], ensure_ascii=False)
