"""The memory mechanisms: one entry for each, with all that an audit has to know of it.

A mechanism lives in a module of its own, in whichever room, and is imported only when it is named.
One from outside this package is named by its entry, `package.module:ATTRIBUTE`; docs/memories.md
shows a whole one.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from unswayed.core.errors import InputError
from unswayed.data.personas import Persona
from unswayed.memory import Memory

MECHANISMS = {
    "prompt": "unswayed.memory.prompt:MECHANISM",
    "retrieval": "unswayed.memory.retrieval:MECHANISM",
    "plum": "unswayed.plum.mechanism:MECHANISM",
    "gated": "unswayed.memory.gated:MECHANISM",
    "logo": "unswayed.logo.mechanism:MECHANISM",
}
DEFAULT = "prompt"


class Options(Protocol):
    """The options of an audit that a mechanism may go by, as the command line names them."""

    model: str
    adapter: str | None
    memory: str
    memory_style: str
    plum_recipe: Path | None
    scoring: str
    backend: str
    device: str | None
    out: Path

    def population(self) -> list[Persona]:
        """The personas that are not asked about."""


@dataclasses.dataclass(frozen=True)
class Mechanism:
    """One way in which a model knows its user.

    Attributes:
        default_style: its `--memory-style` where none is given; "" if it has no styles.
        make: options, the lm-eval model and the personas still to be asked about -> the memory,
            which knows no user.
        describe: a style -> a sentence on the mechanism, for reports.
        check: raises InputError if options and personas do not fit; nothing is loaded yet.
        prepare: the memory -> nothing; makes what all users share, before the first is asked about.
        untrained: of a mechanism that trains: as `make`, but the memory only makes the prompts; it
            trains and writes nothing.
        settings: what else decides what the model knows, for a run's identity.
        notes: the memory, the personas and all rows of a run -> what a reader must know of how well
            it worked, in sentences.
        takes_recipe: `--plum-recipe` has a meaning.
        retrieves: which part of the user the prompt holds depends on the question.
        gates: some questions are asked as if there were no memory.
        in_prompt: the prompt holds all that is known of the user, so that several can be asked
            about in one call.
    """

    default_style: str
    make: Callable[[Options, Any, Sequence[Persona]], Memory]
    describe: Callable[[str], str]
    check: Callable[[Options, Sequence[Persona]], object] = lambda options, personas: None
    prepare: Callable[[Any], None] = lambda memory: None
    untrained: Callable[[Options, Any, Sequence[Persona]], Memory] | None = None
    settings: Callable[[Options], dict[str, Any]] = lambda options: {}
    notes: Callable[[Any, Sequence[Persona], Sequence[Mapping[str, Any]]], list[str]] = (
        lambda memory, personas, rows: []
    )
    takes_recipe: bool = False
    retrieves: bool = False
    gates: bool = False
    in_prompt: bool = False


@functools.cache
def find_mechanism(name: str) -> Mechanism:
    """The entry of a mechanism, by its name or as `package.module:ATTRIBUTE`.

    Raises:
        InputError: there is none.
    """
    if name not in MECHANISMS and ":" not in name:
        raise InputError(f"memory {name!r} is not one of {', '.join(MECHANISMS)}")
    module, _, attribute = MECHANISMS.get(name, name).partition(":")
    try:
        mechanism = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InputError(f"memory {name!r} cannot be imported ({error})") from error
    if not isinstance(mechanism, Mechanism):
        raise InputError(f"memory {name!r} is no unswayed.memory.registry.Mechanism")
    return mechanism


def known_mechanism(name: str) -> Mechanism | None:
    """The entry of a mechanism that a run names; None if there is none (any more).

    A run may be anybody's file: it makes nothing be imported from outside this package.
    """
    if name not in MECHANISMS and name.partition(":")[0] not in sys.modules:
        return None
    try:
        return find_mechanism(name)
    except InputError:
        return None


def check_memory(options: Options, personas: Sequence[Persona]) -> None:
    """Check that the memory's options fit each other and the personas; nothing is loaded.

    Raises:
        InputError: they do not.
    """
    mechanism = find_mechanism(options.memory)
    mechanism.check(options, personas)
    if options.plum_recipe is not None and not mechanism.takes_recipe:
        names = [name for name in MECHANISMS if find_mechanism(name).takes_recipe]
        raise InputError(f"--plum-recipe has no meaning without --memory {' or '.join(names)}")


def describe(memory: str, style: str | None) -> str:
    """A mechanism and its style in a sentence, for reports."""
    if mechanism := known_mechanism(memory):
        return mechanism.describe(style)
    return f"The memory mechanism was {memory}, in the style {style}: see its documentation."
