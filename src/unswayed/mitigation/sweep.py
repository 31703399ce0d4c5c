"""Sweeps of DPO: mitigations that differ in a few settings (`recipes/dpo/sweeps/*.yaml`).

Each run and seed is one `mitigate` in OUT/NAME-SEED, with its recipe in recipe.yaml and its adapter
in adapter/. What does not depend on training is asked once, in OUT/shared.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unswayed.compare.runs import read_alike
from unswayed.core.commands import batch_size
from unswayed.core.errors import InputError
from unswayed.core.files import read_text, write_text
from unswayed.core.ledger import differences
from unswayed.core.recipes import check_layer, merge
from unswayed.data.personas import load_personas
from unswayed.display.numbers import listed
from unswayed.mitigation.arguments import MitigateArguments
from unswayed.mitigation.capability import capability_settings
from unswayed.mitigation.dpo.pairs import pairs_hash, read_splits
from unswayed.mitigation.dpo.recipe import SECTIONS, read_recipe
from unswayed.mitigation.dpo.settings import DpoRecipe
from unswayed.mitigation.mitigate import AFTER, BEFORE, mitigate
from unswayed.mitigation.sweep_report import (
    Trainings,
    draw,
    measures,
    references,
    sweep_line,
    tables,
)
from unswayed.mitigation.verdict.changes import run_changes
from unswayed.mitigation.verdict.separation import unseen_pairs
from unswayed.sweep import Key, Sweep, SweepReport, make_runs, read_sweep_file, run_folder

log = logging.getLogger(__name__)

RECIPE, ADAPTER, SHARED = "recipe.yaml", "adapter", "shared"
OF_A_SEED = {"output_dir": "--out says it", "seed": "give the sweep's seeds as seeds: [0, 1, 2]"}
ONE_MODEL = ("model", "dtype", "adapter")  # of all runs: what is asked before training

Mitigation = dict[str, Any]  # what mitigation.json holds


class DpoSweep(Sweep):
    """A sweep of DPO. What a run says goes before the options, these before what the sweep says,
    and that before its base; `training` and `lora` key by key.

    Raises:
        InputError: names file, run and the key that is unknown, missing or of a wrong type; or the
            runs train different models.
    """

    room = "dpo"
    repeated = dict.fromkeys(
        ("base", "dataset", "items", "pairs", "capability", "seeds", "baselines"), ""
    )
    always = True

    def __init__(self, arguments: argparse.Namespace) -> None:
        path, self.arguments = arguments.config, arguments
        options = {"dataset": arguments.dataset} if arguments.dataset else {}
        file = read_sweep_file(path, _layer)
        below = dataclasses.asdict(read_recipe(list(arguments.base) or _base(file.base, path)))
        self.runs: dict[str, DpoRecipe] = make_runs(
            path, file, lambda keys: DpoRecipe(**merge(SECTIONS, below, file.shared, options, keys))
        )
        self.seeds, self.keys = file.seeds, file.runs
        first = next(iter(self.runs))
        for name, recipe in self.runs.items():
            for key in ONE_MODEL:
                if getattr(recipe, key) != getattr(self.runs[first], key):
                    raise InputError(
                        f"{path}: run {name} has another {key} than run {first}: runs of one sweep "
                        "share what is asked before training, so make it two sweeps"
                    )

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        add, like = parser.add_argument, "as in `unswayed audit`"
        add("--base", type=Path, nargs="+", metavar="RECIPE", default=[],
            help="recipe files instead of the file's; later ones replace keys")  # fmt: skip
        add("--dataset", metavar="DIR", help="preference pairs instead of the recipe's")
        add("--items", nargs="+", metavar="SPEC", default=["builtin"], help=like)
        add("--pairs", type=int, metavar="N",
            help="ask about the first N persona pairs; default: all before the first that any of "
            "the data tells of")  # fmt: skip
        add("--batch-size", type=batch_size, metavar="N", default="auto", help=like)
        add("--capability", nargs="+", metavar="NAME=VALUE", default=[],
            help="ask MMLU and IFEval before and after, as in `unswayed mitigate`")  # fmt: skip
        add("--baselines", action="store_true",
            help="also ask what needs no training, as in `unswayed mitigate`")  # fmt: skip

    def prepare(self, names: set[str], seeds: Sequence[int]) -> None:
        capability_settings(self.arguments.capability)  # checked before anything is done
        recipes = [self.runs[name] for name in self.runs if name in names]
        self.n_pairs = users_to_ask(recipes, self.arguments.pairs)
        for recipe in recipes:  # there are enough pairs, and trl takes the settings
            drawn_pairs(dataclasses.replace(recipe, seed=seeds[0]))

    def recipe(self, key: Key, folder: Path) -> DpoRecipe:
        """The recipe of a run and seed."""
        place = str(folder / ADAPTER)
        return dataclasses.replace(self.runs[key[0]], seed=key[1], output_dir=place)

    def finished(self, key: Key, folder: Path) -> Mitigation | None:
        return finished(self.recipe(key, folder), folder)

    def run(self, key: Key, folder: Path, place: str, command: str) -> Mitigation:
        log.info("run %s, seed %d (%s): %s", *key, place, folder)
        return mitigate(
            MitigateArguments(
                recipe=[keep_recipe(self.recipe(key, folder), folder)],
                out=folder,
                shared=folder.parent / SHARED,
                items=self.arguments.items,
                pairs=self.n_pairs,
                batch_size=self.arguments.batch_size,
                capability=self.arguments.capability,
                baselines=self.arguments.baselines,
            )
        )

    def report(self, results: dict[Key, Mitigation], last: Key | None) -> SweepReport:
        same = alike(results, last)
        whole = next(iter(same.values()))
        facts = {key: whole[key] for key in ("model", "level", "margin")}
        facts["references"] = untrained = references(same.values())
        facts["trainings"] = together = training_changes(self.arguments.out, same)
        lines = [sweep_line(key, self.keys[key[0]], run) for key, run in same.items()]
        return SweepReport(facts, lines, tables(untrained, lines, together), draw(untrained, lines))


def _base(base: Any, path: Path) -> list[Path]:
    """The recipe's files, found from the sweep file."""
    files = base if isinstance(base, list) else [base]
    if not (files and all(isinstance(file, str) for file in files)):
        raise InputError(f"{path}: base must be a recipe's path, or a list of several")
    return [path.parent / file for file in files]


def _layer(values: dict[str, Any], where: str, frame: Sequence[str] = ()) -> dict[str, Any]:
    """Some keys of a recipe, after a check."""
    if taken := OF_A_SEED.keys() & values.keys():
        raise InputError(f"{where}: leave out {min(taken)}: {OF_A_SEED[min(taken)]}")
    hints = typing.get_type_hints(DpoRecipe) | dict.fromkeys(frame)
    check_layer(values, where, hints, SECTIONS)
    return values


def users_to_ask(recipes: Iterable[DpoRecipe], pairs: int | None) -> int:
    """How many base personas the audits of all runs ask about.

    None of them is told of in any pair of the data, drawn or not: so all runs and seeds ask about
    the same users.

    Args:
        pairs: the number that is wanted, None for as many as there are.

    Raises:
        InputError: as `unseen_pairs`, or data cannot be read.
    """
    from unswayed.mitigation.dpo.train import quiet

    sources = {(recipe.dataset, recipe.config) for recipe in recipes}
    sources |= {(recipe.mix, None) for recipe in recipes if recipe.mix}
    personas = load_personas(None)
    with quiet():
        return min(
            unseen_pairs(personas, read_splits(source, config)["train"], pairs)
            for source, config in sorted(sources, key=str)
        )


def drawn_pairs(recipe: DpoRecipe) -> str:
    """SHA-256 of the pairs that the recipe draws, as in run.json of its training."""
    from unswayed.mitigation.dpo.train import quiet, recipe_pairs, training_arguments

    with quiet():
        train, test = recipe_pairs(recipe, training_arguments(recipe))
    return pairs_hash([*train, *test])


def finished(recipe: DpoRecipe, folder: Path) -> Mitigation | None:
    """What mitigation.json holds, if this recipe on these pairs has been finished there."""
    path = folder / "mitigation.json"
    if not path.exists():
        return None
    mitigation = json.loads(read_text(path))
    training = mitigation["training"]
    same = not _changed(training["recipe"], recipe)
    if same and training["data"]["sha256"] == drawn_pairs(recipe):
        return mitigation
    log.warning("%s was made with another recipe or other pairs: it is left out", folder)
    return None


def training_changes(out: Path, keys: Iterable[Key]) -> Trainings:
    """Runs of several seeds, each with the changes of all its trainings, from their answers."""
    afters: dict[str, list[Path]] = {}
    for key in keys:
        afters.setdefault(key[0], []).append(run_folder(out, key) / AFTER)
    together = {}
    for name, folders in afters.items():
        if len(folders) > 1:
            _, (before, *after) = read_alike([out / SHARED / BEFORE, *folders])
            changes = run_changes(before, *after)
            together[name] = {test: measures(rows) for test, rows in changes.items()}
    return together


def alike(mitigations: Mapping[Key, Mitigation], last: Key) -> dict[Key, Mitigation]:
    """Those that asked what the last one did: the same model before training, as many items and
    users of the same tests, and the same questions on capability. Others may be left where the
    shared folder was moved away.

    Without capability a run fits any that has it; if the last has none, the settings of the first
    that has count.
    """

    def audited(run: Mitigation) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
        tests = {test: (x["n_items"], x["n_pairs"]) for test, x in run["tests"].items()}
        return run["runs"][BEFORE]["model"], tests

    def settings(run: Mitigation) -> dict[str, Any] | None:
        return run["capability"] and run["capability"]["settings"]

    expected = audited(mitigations[last])
    audits = {key: run for key, run in mitigations.items() if audited(run) == expected}
    first = next(filter(None, map(settings, (mitigations[last], *audits.values()))), None)
    return {key: run for key, run in audits.items() if settings(run) in (None, first)}


def keep_recipe(recipe: DpoRecipe, folder: Path) -> Path:
    """Write recipe.yaml, if it is not there; returns its path.

    Raises:
        InputError: another recipe is there.
    """
    import yaml

    path = folder / RECIPE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False))
    if changed := _changed(dataclasses.asdict(read_recipe([path])), recipe):
        raise InputError(
            f"{path} is another recipe ({listed(changed)} differ): go on with the same, or give "
            "another --out"
        )
    return path


def _changed(before: Mapping[str, Any], recipe: DpoRecipe) -> list[str]:
    """Keys in which the recipe differs from an earlier one; its place does not count."""
    now = dataclasses.asdict(recipe)
    keys = (name.partition(".")[0] for name, *_ in differences(before, now))
    return [key for key in dict.fromkeys(keys) if key != "output_dir"]
