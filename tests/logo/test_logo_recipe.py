"""The recipes of LoGo: keys, their values, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from unswayed.core.errors import InputError
from unswayed.logo.recipe import LogoRecipe, LogoSettings, read_recipe
from unswayed.plum.settings import PlumSettings

FOLDER = Path(__file__).parents[2] / "recipes" / "logo"
RECIPES, OVERLAYS = sorted(FOLDER.glob("*.yaml")), sorted(FOLDER.glob("overlays/*.yaml"))


@pytest.fixture
def write(tmp_path: Path):
    """`write(**keys)`: the path of a recipe that is whole but for what is given."""

    def to(name: str = "run.yaml", **keys: object) -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump({"model": "none", "output_dir": "out"} | keys))
        return path

    return to


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes(path: Path):
    found = read_recipe([path])
    assert found.model == "smollm2-135m" and found.output_dir.startswith("runs/logo/")
    assert (found.settings.rank, found.settings.alpha) == (16, 64)
    assert found.histories.split("=")[0].removesuffix(":users") == {"smollm2-135m": "builtin"}.get(
        path.stem, path.stem
    )


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_shipped_overlays_change_one_thing(path: Path):
    """But over_time: more segments are asked, so fewer cuts."""
    plain = read_recipe(RECIPES[-1:])
    changed = dataclasses.asdict(read_recipe([RECIPES[-1], path]))
    ((section, before),) = [
        (key, value) for key, value in dataclasses.asdict(plain).items() if value != changed[key]
    ]
    if isinstance(before, dict):
        odd = [key for key in before if before[key] != changed[section][key]]
        assert len(odd) == 1 or (path.stem, odd) == ("over_time", ["asked_segments", "cold"])


def test_defaults_are_those_of_the_dataclasses(write):
    assert read_recipe([write()]) == LogoRecipe("none", "out")
    assert LogoRecipe("none", "out").logo == LogoSettings()
    assert LogoRecipe("none", "out").settings == PlumSettings()


def test_later_files_replace_keys_section_by_section(write):
    first = write(logo={"segments": 6, "cold": [0, 3]}, settings={"rank": 4})
    second = write("more.yaml", logo={"segments": 7}, settings={"epochs": 3})
    found = read_recipe([first, second])
    assert (found.logo.segments, found.logo.cold) == (7, (0, 3))
    assert (found.settings.rank, found.settings.epochs) == (4, 3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"user": 1}, "unknown key user; known are dtype, histories, logo, model"),
        ({"logo": {"segment": 4}}, "unknown key logo.segment; known are asked_segments"),
        ({"settings": {"lr": 4}}, "unknown key settings.lr"),
        ({"logo": 3}, "logo must be a mapping"),
        ({"logo": {"segments": 2}}, "segments is 2, it must be at least 3"),
        ({"logo": {"communities": 0}}, "communities is 0, it must be at least 1"),
        (
            {"logo": {"segments": 4, "asked_segments": 3}},
            "asked_segments is 3, it must be from 1 to 2",
        ),
        ({"logo": {"evidence_share": 1.5}}, "evidence_share is 1.5, it must be from 0 to 1"),
        ({"logo": {"cold": 3}}, "logo.cold must be a list of numbers"),
        ({"logo": {"cold": [-1]}}, r"cold is (-1,), it must be numbers from 0"),
        ({"logo": {"cold": [True]}}, "cold is (True,), it must be numbers from 0"),
        ({"logo": {"profile": "sung"}}, "profile is sung, it must be counted or written"),
        ({"logo": {"evidence_by": "luck"}}, "evidence_by is luck, it must be words or embedding"),
        ({"logo": {"communities_by": "x"}}, "communities_by is x, it must be tastes or embedding"),
        ({"logo": {"shrinkage": 0}}, "shrinkage is 0.0, it must be above 0"),
        ({"logo": {"evidence": 1.5}}, "logo.evidence is 1.5, it must be of type int"),
        ({"settings": {"targets": 3}}, "settings.targets must be all-linear or a list"),
        ({"settings": {"targets": {"a": 1}}}, "settings.targets must be all-linear or a list"),
        ({"settings": {"targets": [3]}}, "settings.targets must be all-linear or a list"),
        ({"settings": {"rank": 0}}, "rank is 0, it must be at least 1"),
    ],
)
def test_wrong_recipes_name_file_and_key(write, keys: dict, message: str):
    path = write(**keys)
    with pytest.raises(InputError) as refused:
        read_recipe([path])
    assert message in str(refused.value) and str(path) in str(refused.value)


def test_a_key_that_is_missing(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("model: none\n")
    with pytest.raises(InputError, match="the key output_dir is missing"):
        read_recipe([path])
