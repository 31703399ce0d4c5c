"""Sweeps of DPO: mitigations that differ in a few settings (`recipes/dpo/sweeps/*.yaml`).

Each run and seed is one `mitigate` in OUT/NAME-SEED, with its recipe in recipe.yaml and its adapter
in adapter/. What does not depend on training is asked once, in OUT/shared. Tables and the plot are
made from the figures of mitigation.json alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import logging
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unswayed.core.commands import batch_size
from unswayed.core.errors import InputError
from unswayed.core.files import read_text, without_folders, write_text
from unswayed.core.recipes import check_keys, check_section, merge
from unswayed.data.personas import load_personas
from unswayed.display.numbers import interval, listed, markdown_table, markdown_text, percent
from unswayed.mitigation.dpo.curves import points
from unswayed.mitigation.dpo.pairs import pairs_hash, read_splits
from unswayed.mitigation.dpo.recipe import SECTIONS, read_recipe
from unswayed.mitigation.dpo.settings import DpoRecipe
from unswayed.mitigation.mitigate import (
    AFTER,
    BASELINES,
    BEFORE,
    SOURCES,
    MitigateArguments,
    capability_settings,
    mitigate,
)
from unswayed.mitigation.verdict.page import COMPARED
from unswayed.mitigation.verdict.separation import unseen_pairs
from unswayed.mitigation.verdict.words import LABELS, RUNS, TASKS, as_change, row_of
from unswayed.sweep import (
    Key,
    cell,
    chosen,
    groups,
    over_seeds,
    plan,
    read_sweep_file,
    repeating,
    sweep_command,
    write_sweep,
)

log = logging.getLogger(__name__)

RECIPE, ADAPTER, SHARED = "recipe.yaml", "adapter", "shared"
EACH = ("output_dir", "seed")  # what every run and seed has of its own
ONE_MODEL = ("model", "dtype", "adapter")  # of all runs: what is asked before training
SIDES = ("before", "after", "change")
ACCURACY = "accuracy"  # the cost of training that is always known
NO_MEMORY = "none"  # the condition under which capability is drawn: stock MMLU and IFEval


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Recipes by name, each to be trained with every seed.

    Attributes:
        seeds: of training.
        runs: name -> recipe.
        own: name -> the keys in which it differs from the others.
    """

    seeds: tuple[int, ...]
    runs: dict[str, DpoRecipe]
    own: dict[str, dict[str, Any]]


# -- the file ------------------------------------------------------------------------------------


def read_sweep(
    path: Path, base: Sequence[Path] = (), overrides: Mapping[str, Any] | None = None
) -> Sweep:
    """A sweep file. What a run says goes before `overrides`, these before what the sweep says, and
    that before its base; `training` and `lora` key by key.

    Args:
        base: recipe files instead of the file's `base`.
        overrides: keys of a recipe.

    Raises:
        InputError: names file, run and the key that is unknown, missing or of a wrong type; or the
            runs train different models.
    """
    file = read_sweep_file(path, _layer)
    below = dataclasses.asdict(read_recipe(list(base) or _base(file.base, path)))
    runs: dict[str, DpoRecipe] = {}
    for name, own in file.runs.items():
        try:
            runs[name] = DpoRecipe(**merge(SECTIONS, below, file.shared, overrides or {}, own))
        except InputError as error:
            raise InputError(f"{path}: run {name}: {error}") from None
    first, *others = runs.items()
    for name, recipe in others:
        for key in ONE_MODEL:
            if getattr(recipe, key) != getattr(first[1], key):
                raise InputError(
                    f"{path}: run {name} has another {key} than run {first[0]}: runs of one sweep "
                    "share what is asked before training, so make it two sweeps"
                )
    return Sweep(file.seeds, runs, file.runs)


def _base(base: Any, path: Path) -> list[Path]:
    """The recipe's files, found from the sweep file."""
    files = base if isinstance(base, list) else [base]
    if not (files and all(isinstance(one, str) for one in files)):
        raise InputError(f"{path}: base must be a recipe's path, or a list of several")
    return [path.parent / one for one in files]


def _layer(values: dict[str, Any], where: str, more: Sequence[str] = ()) -> dict[str, Any]:
    """Some keys of a recipe, after a check."""
    if taken := set(EACH) & values.keys():
        why = {"output_dir": "--out says it", "seed": "give the sweep's seeds as seeds: [0, 1, 2]"}
        raise InputError(f"{where}: leave out {min(taken)}: {why[min(taken)]}")
    check_keys(typing.get_type_hints(DpoRecipe) | dict.fromkeys(more), values, where)
    for name, hints in SECTIONS.items():
        if name in values:
            check_section(values[name], where, name)
            check_keys(hints(), values[name], where, f"{name}.")
    return values


# -- running it ----------------------------------------------------------------------------------


def run_sweep(doc: str, argv: Sequence[str] | None = None) -> int:
    """The script's shell: run what is not finished, print the tables; returns the exit code."""
    return sweep_command(doc, argv, _add_options, _run)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--base", type=Path, nargs="+", metavar="RECIPE", default=[],
        help="recipe files instead of the file's; later ones replace keys")  # fmt: skip
    add("--dataset", metavar="DIR", help="preference pairs instead of the recipe's")
    add("--items", nargs="+", metavar="SPEC", default=["builtin"], help="as in `unswayed audit`")
    add("--pairs", type=int, metavar="N",
        help="ask about the first N persona pairs; default: all before the first that any of the "
        "data tells of")  # fmt: skip
    add("--batch-size", type=batch_size, metavar="N", default="auto", help="as in `unswayed audit`")
    add("--capability", nargs="+", metavar="NAME=VALUE", default=[],
        help="ask MMLU and IFEval before and after, as in `unswayed mitigate`")  # fmt: skip
    add("--baselines", action="store_true",
        help="also ask what needs no training, as in `unswayed mitigate`")  # fmt: skip


def _run(arguments: argparse.Namespace) -> None:
    overrides = {"dataset": arguments.dataset} if arguments.dataset else {}
    sweep = read_sweep(arguments.config, arguments.base, overrides)
    seeds, out = tuple(arguments.seeds or sweep.seeds), arguments.out
    wanted = chosen(sweep.runs, arguments.only)
    capability_settings(arguments.capability)  # checked before anything is done
    planned = plan(sweep.runs, seeds, out)
    recipes = {
        key: dataclasses.replace(sweep.runs[key[0]], seed=key[1], output_dir=str(folder / ADAPTER))
        for key, folder in planned.items()
    }
    n_pairs = users_to_ask([sweep.runs[name] for name in wanted], arguments.pairs)
    for key, recipe in recipes.items():
        if key[0] in wanted and key[1] == seeds[0]:
            drawn_pairs(recipe)  # there are enough, and trl takes the settings

    facts = {"sweep": arguments.config.stem, "command": _command(arguments)}
    found = {key: kept for key, folder in planned.items() if (kept := finished(recipes[key],
             folder))}  # fmt: skip
    log.info("%d of %d runs are finished", len(found), len(planned))
    todo = [key for key in planned if key[0] in wanted]
    for number, key in enumerate(todo, start=1):
        log.info("run %s, seed %d (%d of %d): %s", *key, number, len(todo), planned[key])
        found[key] = mitigate(
            MitigateArguments(
                recipe=[keep_recipe(recipes[key], planned[key])],
                out=planned[key],
                shared=out / SHARED,
                items=arguments.items,
                pairs=n_pairs,
                batch_size=arguments.batch_size,
                capability=arguments.capability,
                baselines=arguments.baselines,
            )
        )
        shown_now = alike({one: found[one] for one in planned if one in found}, key)
        content = summary(facts, shown_now, sweep.own)
        results = content.pop("results")
        text = tables(content["references"], results)
        write_sweep(out, content, results, text, draw(content["references"], results))
    print(text)
    print(f"\n{out / 'sweep.md'}, {out / 'sweep.svg'}")


def users_to_ask(recipes: Iterable[DpoRecipe], asked: int | None) -> int:
    """How many base personas the audits of all runs ask about.

    None of them is told of in any pair of the data, drawn or not: so all runs and seeds ask about
    the same users.

    Raises:
        InputError: as `unseen_pairs`, or data cannot be read.
    """
    from unswayed.mitigation.dpo.train import quiet

    sources = {(one.dataset, one.config) for one in recipes}
    sources |= {(one.mix, None) for one in recipes if one.mix}
    personas = load_personas(None)
    with quiet():
        return min(
            unseen_pairs(personas, read_splits(source, config)["train"], asked)
            for source, config in sorted(sources, key=str)
        )


def drawn_pairs(recipe: DpoRecipe) -> str:
    """SHA-256 of the pairs that the recipe draws, as in run.json of its training."""
    from unswayed.mitigation.dpo.train import quiet, recipe_pairs, training_arguments

    with quiet():
        train, test = recipe_pairs(recipe, training_arguments(recipe))
    return pairs_hash([*train, *test])


def finished(recipe: DpoRecipe, folder: Path) -> dict[str, Any] | None:
    """What mitigation.json holds, if this recipe on these pairs has been finished there."""
    path = folder / "mitigation.json"
    if not path.exists():
        return None
    found = json.loads(read_text(path))
    before = found["training"]
    same = _without_place(before["recipe"]) == _without_place(dataclasses.asdict(recipe))
    if same and before["data"]["sha256"] == drawn_pairs(recipe):
        return found
    log.warning("%s was made with another recipe or other pairs: it is left out", folder)
    return None


def alike(found: Mapping[Key, Mapping[str, Any]], last: Key) -> dict[Key, Mapping[str, Any]]:
    """Those that asked what the last one did: the same model before training, as many items and
    users of the same tests, and the same questions on capability. Others may be left where the
    shared folder was moved away.

    Without capability a run fits any that has it; if the last has none, the settings of the first
    that has count.
    """

    def asked(one: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
        tests = {test: (x["n_items"], x["n_pairs"]) for test, x in one["tests"].items()}
        return one["runs"][BEFORE]["model"], tests

    def settings(one: Mapping[str, Any]) -> dict[str, Any] | None:
        return one["capability"] and one["capability"]["settings"]

    audits = {key: one for key, one in found.items() if asked(one) == asked(found[last])}
    wanted = next(filter(None, map(settings, (found[last], *audits.values()))), None)
    return {key: one for key, one in audits.items() if settings(one) in (None, wanted)}


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
    before, now = (_without_place(dataclasses.asdict(one)) for one in (read_recipe([path]), recipe))
    if other := [key for key in now if before[key] != now[key]]:
        raise InputError(
            f"{path} is another recipe ({listed(other)} differ): go on with the same, or give "
            "another --out"
        )
    return path


def _without_place(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key != "output_dir"}


def _named(values):
    return [without_folders(value) for value in values]


def _command(arguments: argparse.Namespace) -> str:
    """What repeats the sweep, without paths of this machine."""
    return repeating(
        "dpo",
        arguments.config,
        base=_named(arguments.base),
        dataset=arguments.dataset and _named([arguments.dataset]),
        items=_named(arguments.items),
        pairs=arguments.pairs and [arguments.pairs],
        capability=_named(arguments.capability),
        seeds=arguments.seeds,
        baselines=arguments.baselines,
    )


# -- results -------------------------------------------------------------------------------------


def summary(
    facts: Mapping[str, Any],
    found: Mapping[Key, Mapping[str, Any]],
    own: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """What sweep.json holds: no path of this machine, no text of an item.

    Args:
        facts: put in as they are.
        found: run and seed -> what mitigation.json holds.
        own: run -> the keys in which its recipe differs.

    Returns:
        The facts, and model, level and margin as in mitigation.json, references (see there) and
        results, one per run and seed: name, seed, recipe (own keys), tests -> n_items, n_pairs,
        at_chance and the measures of COMPARED, each with before, after, change and relative as in
        `run_changes`; capability -> task -> condition, as in `capability_change`, or None; training
        (see `training_facts`).
    """
    whole = next(iter(found.values()))
    return {
        **facts,
        **{key: whole[key] for key in ("model", "level", "margin")},
        "references": references(found.values()),
        "results": [
            {
                "name": name,
                "seed": seed,
                "recipe": {
                    key: without_folders(value) if isinstance(value, str) else value
                    for key, value in own[name].items()
                },
                "tests": {
                    test: {
                        "n_items": about["n_items"],
                        "n_pairs": about["n_pairs"],
                        "at_chance": _at_chance(one, AFTER, test),
                        **_measures(about["changes"][AFTER]),
                    }
                    for test, about in one["tests"].items()
                },
                "capability": one["capability"] and one["capability"]["changes"],
                "training": training_facts(one),
            }
            for (name, seed), one in found.items()
        ],
    }


def references(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Test -> what needs no training: at_chance, "before" (measure -> estimate, low, high), and for
    the baselines that were asked measure -> after, change, relative."""
    made: dict[str, Any] = {}
    for one in found:
        for test, about in one["tests"].items():
            row = made.setdefault(test, {"at_chance": _at_chance(one, BEFORE, test)})
            measures = _measures(about["changes"][AFTER])
            row[BEFORE] = {key: value["before"] for key, value in measures.items()}
            row |= {
                name: _measures(about["changes"][name])
                for name in BASELINES
                if name in about["changes"]
            }
    return made


def _measures(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The measures of COMPARED that the runs have."""
    found = {key: row_of(rows, metric, name) for key, (metric, name, _) in COMPARED.items()}
    return {
        key: {part: row[part] for part in (*SIDES, "relative")} for key, row in found.items() if row
    }


def _at_chance(found: Mapping[str, Any], run: str, test: str) -> bool:
    return found["runs"][run]["tests"][test]["at_chance"]["accuracy"]


def training_facts(found: Mapping[str, Any]) -> dict[str, Any]:
    """pairs; steps; seconds of training since it was last begun or gone on with; and preference
    accuracy, the share of pairs whose chosen answer gained on the rejected one: train (the last
    that was logged) and test, None where unknown."""
    history, result = found["curves"], found["training"]["result"]
    return {
        "pairs": found["training"]["data"]["train"],
        "steps": max(row["step"] for row in history),
        "seconds": points(history, "train_runtime")[-1][1],
        "preference_accuracy": {
            "train": result.get("rewards/accuracies"),
            "test": result.get("eval_rewards/accuracies"),
        },
    }


# -- tables --------------------------------------------------------------------------------------


def tables(known: Mapping[str, Any], results: Sequence[dict[str, Any]]) -> str:
    """All tables, in Markdown.

    Args:
        known: as `references` gives it.
        results: of `summary`.
    """
    blocks = [
        "Percent, changes in points. Means over seeds, and in parentheses, with three seeds or "
        "more, their 95 % interval over seeds; in brackets the 95 % interval of one audit or one "
        "training, over items and users or over questions."
    ]
    for test in known:
        if guesses := _guesses(known[test], results, test):
            blocks.append(f"Warning: {guesses}")
    for test in known:
        about = results[0]["tests"][test]
        blocks += [
            f"## {markdown_text(test)} ({about['n_items']} items, {about['n_pairs']} pairs)",
            effect_table(known[test], results, test),
            "Each training:",
            seed_table(results, test),
        ]
    if any(one["capability"] for one in results):
        blocks += ["## Capability", capability_table(results)]
    blocks += [
        "## Training",
        "Seconds count from the last start. Preference accuracy: the last that was logged in "
        "training, and on the test pairs at the end.",
        training_table(results),
        "## Plot",
        "sweep.svg: a point is the mean of a run over its seeds, small points are seeds. Better is "
        "down and to the right. Rings are on the Pareto front of all points: no other is at "
        "least as good in both and better in one. Capability is that without memory, "
        "where the baselines ask the untrained model the same prompts and so change nothing; what "
        "they cost under a memory was not asked.",
    ]
    return "\n\n".join(blocks)


def _guesses(known: Mapping[str, Any], results: Sequence[dict[str, Any]], test: str) -> str:
    """Where the model is at chance on a test; "" if nowhere."""
    after = sum(one["tests"][test]["at_chance"] for one in results)
    where = ["before training"] * known["at_chance"]
    where += [f"after {after} of {len(results)} trainings"] * bool(after)
    if not where:
        return ""
    return (
        f"on {markdown_text(test)} the model is at chance {listed(where)}; fewer flips may then "
        "only mean that it guesses more evenly."
    )


def effect_table(known: Mapping[str, Any], results: Sequence[dict[str, Any]], test: str) -> str:
    """Flips, accuracy and gap with a persona: before, by run, and of the baselines."""
    columns = [("run", "Run"), ("seeds", "Seeds")]
    for key, (*_, title) in COMPARED.items():
        columns += [(key, title), (f"{key} change", "Change")]
        columns += [(f"{key} relative", "Relative (%)")] * (key == "flips")
    rows = [
        {"run": RUNS[BEFORE], "seeds": "", "flips relative": ""}
        | {key: interval(value, key == "gap") for key, value in known[BEFORE].items()}
        | {f"{key} change": "" for key in known[BEFORE]}
    ]
    for name, own in groups(results).items():
        row = {"run": name, "seeds": str(len(own))}
        for key in known[BEFORE]:
            of = [one["tests"][test][key] for one in own]
            row |= {
                key: cell([one["after"]["estimate"] for one in of], share=key != "gap"),
                f"{key} change": cell([one["change"]["estimate"] for one in of], share=False),
                f"{key} relative": cell(
                    [one["relative"] and one["relative"]["estimate"] for one in of], share=False
                ),
            }
        rows.append(row)
    rows += [
        {"run": RUNS[name], "seeds": ""} | _one_training(known[name])
        for name in BASELINES
        if name in known
    ]
    return markdown_table(rows, columns, left=1)


def seed_table(results: Sequence[dict[str, Any]], test: str) -> str:
    """The same of each training, with its own intervals."""
    columns = [("run", "Run"), ("seed", "Seed")]
    for key, (*_, title) in COMPARED.items():
        columns += [(key, title), (f"{key} change", "Change")]
        columns += [(f"{key} relative", "Relative (%)")] * (key == "flips")
    rows = [
        {"run": name, "seed": str(one["seed"])} | _one_training(one["tests"][test])
        for name, own in groups(results).items()
        for one in own
    ]
    return markdown_table(rows, columns, left=1)


def _one_training(measures: Mapping[str, Any]) -> dict[str, str]:
    """Cells of one run: values after, changes, relative change."""
    cells = {}
    for key in COMPARED:
        cells[key] = interval(measures[key]["after"], key == "gap")
        cells[f"{key} change"] = interval(measures[key]["change"], sign=True)
        cells[f"{key} relative"] = interval(measures[key]["relative"], sign=True)
    return cells


def capability_table(results: Sequence[dict[str, Any]]) -> str:
    """MMLU and IFEval before and after, under each condition, where they were asked."""
    columns = [("run", "Run"), ("task", "Task"), ("condition", "Condition"), ("n", "n")]
    columns += [(side, side.capitalize()) for side in SIDES]
    columns.append(("seeds", "Change of each seed"))
    rows = []
    for task in _tasks(results):
        asked = [one for one in results if task in (one["capability"] or {})]
        for name, own in groups(asked).items():
            for condition, first in own[0]["capability"][task].items():
                of = [one["capability"][task][condition] for one in own]
                rows.append(
                    {"run": name, "task": TASKS[task][0], "condition": LABELS[condition]}
                    | {"n": f"{first['n']:,}"}
                    | {
                        "before": percent(first["before"]),  # asked once for all
                        "after": cell([one["after"] for one in of]),
                        "change": cell([one["change"] for one in of], share=False),
                    }
                    | {"seeds": "; ".join(interval(as_change(one), sign=True) for one in of)}
                )
    return markdown_table(rows, columns, left=3)


def training_table(results: Sequence[dict[str, Any]]) -> str:
    """What each run took, as means over seeds."""
    columns = [("run", "Run"), ("seeds", "Seeds"), ("pairs", "Pairs"), ("steps", "Steps"),
               ("seconds", "Seconds"), ("train", "Preference accuracy (%)"),
               ("test", "On test pairs (%)")]  # fmt: skip
    rows = []
    for name, own in groups(results).items():
        of = [one["training"] for one in own]
        rows.append(
            {"run": name, "seeds": str(len(own))}
            | {key: f"{np.mean([one[key] for one in of]):,.0f}" for key in ("pairs", "steps",
                                                                           "seconds")}
            | {key: cell([one["preference_accuracy"][key] for one in of]) for key in ("train",
                                                                                     "test")}
        )  # fmt: skip
    return markdown_table(rows, columns, left=1)


def _tasks(results: Sequence[dict[str, Any]]) -> list[str]:
    """The tasks that were asked of any run."""
    asked = {task for one in results for task in one["capability"] or ()}
    return [task for task in SOURCES.values() if task in asked]


# -- plot ----------------------------------------------------------------------------------------

Point = tuple[float, float]  # what it costs: a change, higher is better; what is left: lower is


def pareto_front(found: Sequence[Point]) -> list[bool]:
    """Whether no other point is at least as good in both and better in one.

    Args:
        found: (higher is better, lower is better).
    """
    return [not any((a >= x and b <= y) and (a > x or b < y) for a, b in found) for x, y in found]


def place(result: Mapping[str, Any], test: str, cost: str, left: str) -> Point | None:
    """A training in the plot: (change of accuracy or capability, flips or size of the gap), as
    shares; None where the task was not asked.

    Args:
        cost: "accuracy", or a task, then without memory.
        left: "flips" or "gap".
    """
    y = abs(result["tests"][test][left]["after"]["estimate"])
    if cost == ACCURACY:
        return result["tests"][test][ACCURACY]["change"]["estimate"], y
    asked = (result["capability"] or {}).get(cost)
    return asked and (asked[NO_MEMORY]["change"], y)


def untrained(known: Mapping[str, Any], cost: str, left: str) -> dict[str, Point]:
    """Where the model before training lies in the plot, and where the baselines do.

    Without memory a baseline's prompts are those of the model before training, so capability does
    not change there.

    Args:
        known: `references` of a test.
        cost, left: as in `place`.
    """
    found = {BEFORE: (0.0, abs(known[BEFORE][left]["estimate"]))}
    for name in BASELINES:
        if name in known:
            x = known[name][ACCURACY]["change"]["estimate"] if cost == ACCURACY else 0.0
            found[name] = (x, abs(known[name][left]["after"]["estimate"]))
    return found


def draw(known: Mapping[str, Any], results: Sequence[dict[str, Any]]) -> str:
    """An SVG: what is left of flips and gap, over what training cost; a row per test and measure.

    The same input gives the same bytes. The arguments are those of `tables`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    costs = {ACCURACY: "change of accuracy with a persona (points)"}
    costs |= {task: f"change of {TASKS[task][0]}, no memory (points)" for task in _tasks(results)}
    rests = {"flips": "flips with a persona (%)", "gap": "gap, without its sign (points)"}
    rows = [(test, left) for test in known for left in rests]
    runs = groups(results)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(runs)))
    style = {"svg.hashsalt": "unswayed", "svg.fonttype": "none", "font.family": "sans-serif"}
    with matplotlib.rc_context(style):
        size = (1.2 + 3.8 * len(costs), 0.9 + 2.9 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(rows), len(costs), squeeze=False, sharey="row", sharex="col")
        for i, (test, left) in enumerate(rows):
            for k, (cost, words) in enumerate(costs.items()):
                places = {
                    name: [at for one in own if (at := place(one, test, cost, left))]
                    for name, own in runs.items()
                }
                _draw_panel(grid[i, k], places, untrained(known[test], cost, left), colours)
                if i == len(rows) - 1:
                    grid[i, k].set_xlabel(words)
            grid[i, 0].set_ylabel(f"{test}\n{rests[left]}")
            grid[i, 0].set_ylim(bottom=0)
        figure.suptitle("Better is down and to the right.", fontsize="small", x=0.01, ha="left")
        labels: dict[str, Any] = {}
        for axis in grid.flat:  # a run may be missing from some panels
            handles, names = axis.get_legend_handles_labels()
            labels |= dict(zip(names, handles, strict=True))
        order = [*runs, *(label for label in labels if label not in runs)]
        figure.legend(
            [labels[name] for name in order], order, loc="outside lower center",
            ncols=min(len(order), 2 * len(costs) + 1), fontsize="small", frameon=False,
        )  # fmt: skip
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _draw_panel(
    axis: Any,
    places: Mapping[str, Sequence[Point]],
    known: Mapping[str, Point],
    colours: Sequence[Any],
) -> None:
    """Runs (means, intervals over seeds, seeds), references, and the front."""
    points: dict[str, Point] = {}
    for (name, seeds), colour in zip(places.items(), colours, strict=True):
        if not seeds:
            continue
        across, down = (over_seeds([100 * at[k] for at in seeds]) for k in (0, 1))
        x, y = points[name] = across["mean"], down["mean"]
        axis.plot(x, y, "o", color=colour, markersize=7, label=name, zorder=4)
        if len(seeds) > 1:
            axis.plot(*(100 * np.array(seeds).T), ".", color=colour, markersize=3, zorder=3)
        if across["low"] is not None:
            look = {"color": colour, "linewidth": 1, "zorder": 2}
            axis.plot([across["low"], across["high"]], [y, y], **look)
            axis.plot([x, x], [max(down["low"], 0), down["high"]], **look)
    for name, marker in zip((BEFORE, *BASELINES), "Xv^", strict=True):
        if name in known:
            x, y = points[name] = tuple(100 * value for value in known[name])
            axis.plot(x, y, marker, color="dimgrey", markersize=7, label=RUNS[name], zorder=3,
                      linestyle="none")  # fmt: skip
    front = pareto_front(list(points.values()))
    best = [at for at, ringed in zip(points.values(), front, strict=True) if ringed]
    axis.plot(
        *zip(*sorted(best), strict=True), "o:", color="black", markerfacecolor="none",
        markersize=12, linewidth=0.8, label="Pareto front", zorder=1,
    )  # fmt: skip
    axis.axvline(0, color="lightgrey", linewidth=0.8, zorder=0)
