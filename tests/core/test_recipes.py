"""Recipes: several files, sections, and what is refused; a dataclass of its own as the recipe."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.core.recipes import check_keys, merge, read_keys, read_mapping, recipe_command


@dataclasses.dataclass(frozen=True)
class Own:
    model: str
    rate: float = 1.0
    name: str | None = None
    more: dict[str, Any] = dataclasses.field(default_factory=dict)


SECTIONS = {
    "more": lambda: {
        "a": int,
        "b": str,
        "names": list[str],
        "most": Optional[int],  # noqa: UP045, as some libraries spell it
        "share": float | None,
        "either": int | float,
        "some": str | list[str],
        "whatever": None,
    }
}


@pytest.fixture
def files(tmp_path: Path):
    """`files(text, ...)`: their paths."""

    def write(*texts: str) -> list[Path]:
        paths = [tmp_path / f"{number}.yaml" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        return paths

    return write


def test_later_files_replace_keys_and_sections_key_by_key(files):
    paths = files("model: x\nrate: 2\nmore: {a: 1, b: c}", "model: y\nmore: {a: 3}")
    values = read_keys(paths, Own, SECTIONS)
    assert values == {"model": "y", "rate": 2.0, "more": {"a": 3, "b": "c"}}
    assert type(values["rate"]) is float


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["rate: 1.0"], "0.yaml: the key model is missing"),
        (["model: x", "mode: y"], "1.yaml: unknown key mode; known are model, more, name, rate"),
        (["model: x\nmore: {c: 1}"], "0.yaml: unknown key more.c; known are a, b, either"),
        (["model: x\nmore: [a]"], "0.yaml: more must be a mapping of keys to values"),
        (["model: x\nmore: {a: x}"], "more.a is 'x', it must be of type int"),
        (["model: x\nrate: 1e-4"], "rate is '1e-4', it must be of type float (YAML wants a dot"),
        (["model: x\nmore: {a: 1, a: 2}"], "0.yaml:2: the key a is there twice"),
        (["model: x", "- y"], "1.yaml: a recipe is a mapping of keys to values"),
        ([""], "0.yaml: a recipe is a mapping of keys to values"),
        (["model: x\nname: 5"], "name is 5, it must be of type str or null"),
        (["model: x\nname: true"], "name is True, it must be of type str or null"),
        (["model: x\nmore: {most: abc}"], "more.most is 'abc', it must be of type int or null"),
        (["model: x\nmore: {most: 1.0}"], "more.most is 1.0, it must be of type int or null"),
        (["model: x\nmore: {share: 1e-4}"], "of type float or null (YAML wants a dot: 1.0e-4)"),
        (
            ["model: {{ x }}"],
            "0.yaml:1: a key is a list or a mapping, it must be a word: put quotes",
        ),
        (["model: x\nmore: {a: 1, names: [{b: 1, b: 2}]}"], "0.yaml:2: the key b is there twice"),
        (["model: 2020-13-45"], "0.yaml: a value cannot be read (month must be in 1..12)"),
        (["a: b\nmodel: !!python/name:os.system"], "0.yaml:2: a value cannot be read (could not d"),
        (["model: !!bool maybe"], "0.yaml: a value cannot be read ('maybe'): put quotes"),
        (["model: &x {model: *x}"], "model is {'model': {...}}, it must be of type str"),
    ],
)
def test_refused(files, texts, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_keys(files(*texts), Own, SECTIONS)


def test_values_of_optional_types(files):
    (path,) = files(
        "model: x\nname: null\n"
        "more: {most: null, share: 2, either: 3, some: [a], whatever: 2020-12-05, names: &x [*x]}"
    )
    more = read_keys([path], Own, SECTIONS)["more"]
    assert (more["most"], more["share"], more["either"]) == (None, 2.0, 3)
    assert type(more["share"]) is float and type(more["either"]) is int
    assert read_keys(files("model: x\nname: y\nmore: {most: 3}"), Own, SECTIONS)["name"] == "y"


def test_a_check_of_ones_own_sees_every_file_and_section(files):
    seen = []

    def check(hints: dict, values: dict, where: Path, prefix: str = "") -> None:
        seen.append((where.name, prefix, dict(values)))
        check_keys(hints, values, where, prefix)

    read_keys(files("model: x", "more: {a: 1}"), Own, SECTIONS, check)
    assert seen == [("0.yaml", "", {"model": "x"}), ("1.yaml", "", {"more": {"a": 1}}),
                    ("1.yaml", "more.", {"a": 1})]  # fmt: skip


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers()), max_size=4))
def test_merging_a_section_is_merging_its_mappings(layers):
    whole: dict = {}
    for layer in layers:
        whole |= layer
    values = merge(SECTIONS, *({"more": layer, "model": layer} for layer in layers))
    assert values == ({"more": whole, "model": layers[-1]} if layers else {})
    assert merge(SECTIONS, {"more": {"a": 1}}, {"more": None}) == {"more": None}
    assert merge(SECTIONS, {"more": None}, {"more": {"a": 1}}) == {"more": {"a": 1}}


def test_the_script_gives_its_files_and_complains_in_one_line(files, capsys):
    paths = files("model: x", "model: y")
    values: list = []
    assert (
        recipe_command("", ["--config", *map(str, paths)], values.extend) == 0 and values == paths
    )
    assert recipe_command("", ["--config", str(paths[0])], lambda config: read_mapping(
        config[0].parent / "none.yaml", "recipe")) == 2  # fmt: skip
    assert recipe_command("", [], values.extend) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("train.py: ") for line in lines)
