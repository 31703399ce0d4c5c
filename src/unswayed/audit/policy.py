"""A policy: what is measured, how large a difference may be, and what a run must hold.

It is declared before the first question, in `run.json`, and used by every command: the verdict, the
report and the gate go by the same outcome and the same margins. Those that come with the package
are in `policies/`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unswayed.core.errors import InputError
from unswayed.core.files import read_text, read_yaml

PACKAGED = Path(__file__).with_name("policies")
PAIRS, GRID = "default", "grid"  # the policies of audits with pairs, and of the grid
EXPECTED, ACCURACY, SCORE = OUTCOMES = ("expected", "accuracy", "score")

# section: (its keys, what a value must be, whether it is that)
SECTIONS = {
    "margins": (
        ("gap", "flips", "grid", "cells"),
        "a number of percentage points above 0 and below 100",
        lambda value: 0 < value < 100,
    ),
    "limits": (("unparsed",), "a percentage from 0 to 100", lambda value: 0 <= value <= 100),
    "least": (
        ("items", "pairs"),
        "a whole number from 1",
        lambda value: isinstance(value, int) and value >= 1,
    ),
}


@dataclasses.dataclass(frozen=True)
class Policy:
    """What a model has to show; a key that is missing is not asked for.

    Attributes:
        outcome: what gaps are measured by, the first of these that the answers have.
        margins: rule -> margin in percentage points.
        limits: unparsed -> largest share of unread answers in any condition of a test, in percent.
        least: items and pairs of a test -> smallest number.
        tests: whose gaps are primary, and that the run must hold; without any, all of the run.
        name: file name.
        sha256: of the file.
    """

    outcome: tuple[str, ...]
    margins: dict[str, float]
    limits: dict[str, float]
    least: dict[str, int]
    tests: tuple[str, ...]
    name: str
    sha256: str

    def margin(self, rule: str) -> float:
        """A rule's margin as a share; of a policy without it, the packaged policy's."""
        points = self.margins.get(rule)
        if points is None:
            points = packaged(GRID if rule in ("grid", "cells") else PAIRS).margins[rule]
        return points / 100


def packaged(name: str) -> Policy:
    """A policy that comes with the package."""
    return read_policy(PACKAGED / f"{name}.yaml")


def find_policy(spec: str) -> Policy:
    """A policy by the name of a packaged one, or in a file.

    Raises:
        InputError: there is none of that name, or the file has a fault.
    """
    names = sorted(path.stem for path in PACKAGED.glob("*.yaml"))
    if spec in names:
        return packaged(spec)
    if not Path(spec).exists():
        raise InputError(
            f"--policy {spec}: no such file, and none of the packaged policies {', '.join(names)}"
        )
    return read_policy(Path(spec))


def read_policy(path: Path) -> Policy:
    """A policy file in the form of docs/gate.md.

    Raises:
        InputError: names file, line and key of the first fault.
    """
    root, reader = read_yaml(path), _Reader(path)
    if root is None:
        raise InputError(f"{path}:1: the policy is empty; docs/gate.md shows its form")
    sections = reader.mapping(root, "the policy", ["outcome", *SECTIONS, "tests"])
    margins, limits, least = (
        reader.numbers(name, sections[name]) if name in sections else {} for name in SECTIONS
    )
    if not margins:
        reader.fail(
            root, "the policy has no margins, so it judges nothing: add margins, e.g. gap: 5"
        )
    tests = reader.names(sections, "tests", "a list of names of tests, such as [understanding]")
    outcome = reader.names(sections, "outcome", f"one or more of {', '.join(OUTCOMES)}")
    if unknown := [name for name in outcome if name not in OUTCOMES]:
        message = f"outcome {unknown[0]!r} is not one of {', '.join(OUTCOMES)}"
        reader.fail(sections["outcome"], message)
    sha256 = hashlib.sha256(read_text(path).encode()).hexdigest()
    outcome = outcome or (EXPECTED, ACCURACY)
    return Policy(outcome, margins, limits, least, tests, path.name, sha256)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Values of YAML nodes, faults with file and line."""

    path: Path

    def fail(self, node: Any, message: str):
        raise InputError(f"{self.path}:{node.start_mark.line + 1}: {message}")

    def value(self, node: Any) -> Any:
        try:
            return yaml.constructor.SafeConstructor().construct_object(node, deep=True)
        except (ValueError, TypeError, yaml.YAMLError):
            return None

    def mapping(self, node: Any, field: str, keys: Sequence[str]) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, f"{field} must be a mapping, with any of {', '.join(keys)}")
        nodes: dict[str, Any] = {}
        for key, value in node.value:
            name = self.value(key)
            if name not in keys:
                message = f"{field} has the unknown key {name!r}; known are {', '.join(keys)}"
                self.fail(key, message)
            if name in nodes:
                self.fail(key, f"{field} has {name} twice")
            nodes[name] = value
        return nodes

    def numbers(self, section: str, of_section: Any) -> dict[str, Any]:
        keys, form, valid = SECTIONS[section]
        values = {}
        for key, node in self.mapping(of_section, section, keys).items():
            value = self.value(node)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and valid(value)):
                written = node.value if isinstance(node, yaml.ScalarNode) else value
                self.fail(node, f"{section}.{key} is {written!r}, it must be {form}")
            values[key] = value
        return values

    def names(self, sections: Mapping[str, Any], key: str, form: str) -> tuple[str, ...]:
        """A text or a list of texts; () if the key is missing."""
        if key not in sections:
            return ()
        values = self.value(sections[key])
        values = [values] if isinstance(values, str) else values
        if (
            not isinstance(values, list)
            or not values
            or not all(isinstance(n, str) for n in values)
        ):
            self.fail(sections[key], f"{key} must be {form}")
        if len(set(values)) < len(values):
            self.fail(sections[key], f"{key} names one twice")
        return tuple(values)


# -- a run's policy ------------------------------------------------------------------------------


def recorded(record: Mapping[str, Any]) -> Policy:
    """The policy of a run's record, as `dataclasses.asdict` gave it."""
    return Policy(
        **{**record, "outcome": tuple(record["outcome"]), "tests": tuple(record["tests"])}
    )


def policy_of(run: Mapping[str, Any], spec: str | None, source: Path | str) -> tuple[Policy, bool]:
    """The policy that a run is judged by, and whether it was declared before the first question.

    Args:
        run: record of the run.
        spec: a policy's name or file; None: the one declared, else the packaged one.
        source: what an error calls the run.

    Raises:
        InputError: the policy declares other endpoints than the run did.
    """
    declared = recorded(run["policy"]) if run.get("policy") else None
    if spec is None:
        return (
            (declared, True)
            if declared
            else (packaged(GRID if run.get("n_cells") else PAIRS), False)
        )
    policy = find_policy(spec)
    if declared is None:
        return policy, False
    for key in ("outcome", "tests"):
        before, after = (list(getattr(p, key)) for p in (declared, policy))
        if before != after:
            raise InputError(
                f"two policies: {source} declared the {key} {before or 'all of the run'} by "
                f"{declared.name} before the first question, --policy {spec} has "
                f"{after or 'all of the run'}: judge by {declared.name}, or audit again"
            )
    return policy, policy == declared


def outcome_of(policy: Policy, scoring: str) -> str:
    """What gaps are measured by.

    Raises:
        InputError: the answers have none of the policy's outcomes.
    """
    for name in policy.outcome:
        if name != EXPECTED or scoring != "generate":
            return name
    raise InputError(
        f"policy {policy.name} declares the outcome {EXPECTED}, and answers by --scoring {scoring} "
        f"have no probabilities: add {ACCURACY} to its outcome, or score by option or letter"
    )


def check_endpoints(policy: Policy, tests: Sequence[str], conditions: Sequence[str]) -> None:
    """Refuse a policy that declares what a run lacks.

    Raises:
        InputError: a test, or users whose difference is judged.
    """
    if lacking := [name for name in policy.tests if name not in tests]:
        raise InputError(
            f"policy {policy.name} declares the test {lacking[0]!r}, the run has "
            f"{', '.join(tests)}: add it to --items, or take it out of the policy"
        )
    needs = {"gap": ("advantaged", "disadvantaged"), "grid": (GRID,)}
    for rule, names in needs.items():
        if rule in policy.margins and not set(names) <= set(conditions):
            instead = "grid" if rule == "gap" else "default"
            raise InputError(
                f"policy {policy.name} declares a margin of the {rule}, and the run has no "
                f"{' and '.join(names)} users (its conditions: {', '.join(conditions)}): audit "
                f"them too, or take another policy, such as {instead}"
            )
