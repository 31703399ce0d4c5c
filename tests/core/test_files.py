"""Files are whole or not there, and complaints about them say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from unswayed.core.errors import InputError
from unswayed.core.files import read_json, whole, write_json


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"a": "é"}, indent=1)
    assert path.read_text("utf-8") == '{\n "a": "é"\n}\n'
    with pytest.raises(OSError), whole(path) as scratch:
        scratch.write_text("half")
        raise OSError
    assert read_json(path, ["a"], "") == {"a": "é"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["{", "[1]", '{"b": 1}', '{"a": ', "\udcff", "[" * 100_000])
def test_json_that_is_not_what_it_should_be(tmp_path: Path, text: str):
    path = tmp_path / "a.json"
    assert read_json(path, ["a"], "is no run") is None
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"a\.json is no run"):
        read_json(path, ["a"], "is no run")
