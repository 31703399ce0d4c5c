"""Personas: who the user is, as data, and its rendering to text.

A persona's texts carry placeholders ({I}, {my}, ...) so that one text serves as the assistant's
note about the user ("They ...") and as the user's own words ("I ..."). The built-in personas
(`bank/*.yaml`) are the project's own writing; the explicit set follows the design of the paper
(arXiv 2510.09905: 30 base personas in two versions over four dimensions), the neutral memories are
ours: they separate "any memory distracts" from "this memory biases".
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

import yaml

from unswayed.core.errors import InputError
from unswayed.core.files import read_yaml
from unswayed.core.ledger import digest
from unswayed.data.texts import visible

BANK = Path(__file__).with_name("bank")
DIMENSIONS = (
    "demographic_attributes",
    "family_background",
    "social_connections",
    "personal_assets",
)
ATTRIBUTES = ("gender", "age", "religion", "ethnicity")
VERSIONS = ("advantaged", "disadvantaged", "neutral")

# placeholder: (first person, third person; singular they)
VOICES = {
    "I": ("I", "They"),
    "i": ("I", "they"),
    "My": ("My", "Their"),
    "my": ("my", "their"),
    "me": ("me", "them"),
    "mine": ("mine", "theirs"),
    "myself": ("myself", "themself"),
    "am": ("am", "are"),
    "was": ("was", "were"),
}


@dataclasses.dataclass(frozen=True)
class Persona:
    """One version of a user.

    Attributes:
        id: unique, e.g. "p01-advantaged".
        condition: "advantaged", "disadvantaged", "neutral", or the name of a grid cell.
        pair_id: the base persona that versions share; None in the grid.
        slots: (name, text with placeholders) in order; the four dimensions, or a neutral memory's
            own names, or the grid's four attributes.
        attributes: gender, age, religion and ethnicity of a grid cell, else empty.
    """

    id: str
    condition: str
    pair_id: str | None
    slots: tuple[tuple[str, str], ...]
    attributes: tuple[tuple[str, str], ...] = ()

    def texts(self, first_person: bool = False) -> list[tuple[str, str]]:
        """(slot name, rendered text) in order."""
        return [(name, render(text, first_person)) for name, text in self.slots]


def render(text: str, first_person: bool) -> str:
    """Fill the placeholders in the first or in the third person."""
    voice = 0 if first_person else 1
    return re.sub(r"\{(\w+)\}", lambda match: VOICES[match[1]][voice], text)


def builtin_personas() -> list[Persona]:
    """30 base personas x (advantaged, disadvantaged, neutral) = 90, pair by pair."""
    return read_personas(BANK / "pairs.yaml")


def grid_personas() -> list[Persona]:
    """The 81 cells of gender x age x religion x ethnicity, the reference cell first."""
    levels = yaml.safe_load((BANK / "grid.yaml").read_text(encoding="utf-8"))["attributes"]
    cells = []
    for cell in itertools.product(*(levels[name] for name in ATTRIBUTES)):
        attributes = tuple(zip(ATTRIBUTES, cell, strict=True))
        slots = tuple((name, levels[name][level]) for name, level in attributes)
        label = "/".join(cell)
        cells.append(Persona(f"grid:{label}", label, None, slots, attributes))
    return cells


def load_personas(source: str | None = None) -> list[Persona]:
    """The built-in pairs (None), the 81 cells ("grid"), or the personas of a YAML file."""
    if source is None:
        return builtin_personas()
    return grid_personas() if source == "grid" else read_personas(Path(source))


def personas_hash(personas: list[Persona]) -> str:
    """SHA-256 of the personas' contents, in order."""
    return digest([dataclasses.astuple(persona) for persona in personas], ensure_ascii=False)


def read_personas(path: Path) -> list[Persona]:
    """Personas of a YAML file in the form of docs/personas.md.

    Raises:
        InputError: names file, line and field of the first fault.
    """
    root = read_yaml(path)
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        raise InputError(f"{path}:1: a list of personas (- id: ...) is needed")
    personas: list[Persona] = []
    lines: dict[str, int] = {}
    for entry in root.value:
        fields = _mapping(path, entry, "a persona")
        if "id" not in fields:
            raise _fault(path, entry, "field id is missing")
        pair = _text(path, fields["id"], "id")
        if pair in lines:
            raise _fault(path, entry, f"id {pair} is already used in line {lines[pair]}")
        lines[pair] = entry.start_mark.line + 1
        for name, node in fields.items():
            if name not in ("id", "domain", *VERSIONS):
                raise _fault(path, node, f"{pair} has the unknown field {name}")
        versions = [version for version in VERSIONS if version in fields]
        if not versions:
            raise _fault(path, entry, f"{pair} has none of the versions {', '.join(VERSIONS)}")
        personas += [_version(path, pair, version, fields[version]) for version in versions]
    return personas


def _version(path: Path, pair: str, version: str, node: Any) -> Persona:
    """One version of a base persona."""
    name = f"{pair}.{version}"
    slots = _mapping(path, node, name)
    if version != "neutral":
        for dimension in DIMENSIONS:
            if dimension not in slots:
                raise _fault(path, node, f"{name} lacks the dimension {dimension}")
        for dimension in slots:
            if dimension not in DIMENSIONS:
                message = f"{name} has the unknown dimension {dimension}"
                raise _fault(path, slots[dimension], message)
    texts = tuple((slot, _text(path, value, f"{name}.{slot}")) for slot, value in slots.items())
    if not texts:
        raise _fault(path, node, f"{name} is empty")
    return Persona(f"{pair}-{version}", version, pair, texts)


def _fault(path: Path, node: Any, message: str) -> InputError:
    return InputError(f"{path}:{node.start_mark.line + 1}: {message}")


def _mapping(path: Path, node: Any, field: str) -> dict[str, Any]:
    """Name -> node, each name once."""
    if not isinstance(node, yaml.MappingNode):
        raise _fault(path, node, f"{field} must be a mapping of names to texts")
    values: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _fault(path, key, f"{field} has a name that is not a text")
        if key.value in values:
            raise _fault(path, key, f"{field} has {key.value} twice")
        values[key.value] = value
    return values


def _text(path: Path, node: Any, field: str) -> str:
    """A text whose placeholders are those of VOICES."""
    null = node.tag == "tag:yaml.org,2002:null"
    if not isinstance(node, yaml.ScalarNode) or null or not visible(node.value):
        raise _fault(path, node, f"{field} must be a text")
    if any("\ud800" <= character <= "\udfff" for character in node.value):
        raise _fault(path, node, f"{field} holds half of a surrogate pair: write it whole")
    for name in re.findall(r"\{([^}]*)\}", node.value):
        if name not in VOICES:
            allowed = " ".join(f"{{{v}}}" for v in VOICES)
            message = f"{field} has the unknown placeholder {{{name}}}; known are {allowed}"
            raise _fault(path, node, message)
    if set("{}") & set(re.sub(r"\{\w+\}", "", node.value)):
        raise _fault(path, node, f"{field} has a brace that belongs to no placeholder")
    return node.value.strip()
