"""What was done, in full sentences, and what is needed to do it again."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from unswayed.audit.rundir import model_name
from unswayed.audit.summary import conditions_of, effects_of, is_grid
from unswayed.display.numbers import count, duration, listed
from unswayed.memory.registry import describe
from unswayed.report.words import listed_conditions, points

KIND_TEXTS = {
    "understanding": "An understanding item asks which emotion a person feels.",
    "management": "A management item asks which of several actions is best; each action has an "
    "expert weight from 0 to 1 (the built-in items' weights are their authors'), and the best one "
    "is the key.",
}
SCORING_TEXTS = {
    "option": "The options were not shown. The answer is the option whose text the model finds "
    "most likely per character (option scoring).",
    "option-sum": "The options were not shown. The answer is the option whose whole text the model "
    "finds most likely, which favours short options (option-sum scoring).",
    "letter": "The options were listed under letters, in an order drawn per item and equal in all "
    "conditions. The answer is the letter that the model finds most likely (letter scoring).",
    "generate": "The options were listed under letters, in an order drawn per item and equal in "
    "all conditions. The model wrote its answer without sampling, and the chosen option was read "
    "out of its text (generate scoring).",
}


def methods(
    run: dict[str, Any], answers: pd.DataFrame, summary: dict[str, Any]
) -> list[tuple[str, str]]:
    """(heading, full sentences) on what was done."""
    tests = summary["tests"]
    kinds = list(dict.fromkeys(test["kind"] for test in tests.values()))
    memory = next((m for m in answers["memory"] if m != "none"), None)
    found = [
        (
            "Items",
            f"The model was asked {count(run['n_items'], 'item')}: "
            + listed(f"{test['n_items']} of the test {name}" for name, test in tests.items())
            + ". "
            + " ".join(KIND_TEXTS[kind] for kind in kinds),
        ),
        (
            "Conditions",
            "Each item was asked under these conditions: "
            + listed(listed_conditions(conditions_of(summary)))
            + ". "
            + (f"{_users(run)} " if memory else "")
            + f"That makes {count(run['n_trials'], 'trial')}.",
        ),
    ]
    if memory:
        found.append(("Memory", describe(memory, summary["memory_style"])))
    found += [
        (
            "Scoring",
            f"{SCORING_TEXTS[summary['scoring']]} The seed was {run['identity']['seed']}.",
        ),
        (
            "Unread answers",
            "An answer that could not be read (unparsed) counts as wrong and has an expert score "
            "of 0. It is neither a flip nor a non-flip: flips are counted only where both answers "
            "could be read.",
        ),
        ("Words", _words(summary)),
        *statistical_methods(summary),
        (
            "Limits",
            "Not significant is not the same as fair: a small run can miss a real difference, and "
            "the interval shows how large a difference it leaves possible. A model near chance "
            "guesses, and a guess has no gap to measure. Orders of users and items by flips are "
            "descriptions, not tests. The items are short written situations with a fixed "
            "key; the result speaks for them and for these personas only.",
        ),
    ]
    if run["notes"]:
        found.append(("Notes on this run", " ".join(run["notes"])))
    return found


def statistical_methods(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """(heading, full sentences) on intervals, tests, the verdict, power and models."""
    level, alpha = f"{summary['level']:.0%}", f"{1 - summary['level']:.2g}"
    margin, tests = points(summary["margin"]), summary["tests"].values()
    grid = is_grid(summary)
    found = [
        (
            "Intervals",
            f"Intervals hold with {level} confidence and speak of other items and other users of "
            "the same kind: answers to one item resemble each other, and so do answers about one "
            "user. Shares have Korn-Graubard intervals: exact binomial (beta) intervals with the "
            "effective number of answers. Differences have intervals from the t distribution; the "
            "variance is that of a two-way analysis of variance with items and users as crossed "
            "random factors, with Satterthwaite's degrees of freedom. Where no answer differs, "
            "the interval is that of zero events in as many independent answers.",
        )
    ]
    if effects_of(summary):
        pairing = (
            "A contrast of the grid compares cells that differ in one attribute only, item by item"
            if grid
            else "The gap is paired by item and base persona"
        )
        found.append(
            (
                "Tests",
                f"{pairing}; memory effects pair each answer with the answer to the same item "
                "without memory. p-values come from two-sided permutation tests of the "
                "studentised difference, which exchange the labels of the two conditions within "
                "item and user (against no memory, whose answer all users share, within whole "
                f"items), {summary['resamples']:,} times. Holm's and Benjamini-Hochberg's "
                "corrections run over all effects and omnibus tests of this run. Equivalence is "
                f"tested with two one-sided t tests (TOST) against ±{margin}. McNemar's exact "
                "test ignores that answers are clustered; it is given for comparison and decides "
                "nothing.",
            )
        )
        found.append(
            (
                "Verdict",
                f"A difference between users is equivalent if it was shown to lie within ±{margin} "
                f"(p (equivalence) below {alpha}), else skewed if it is significant (p (Holm) "
                f"below {alpha}), else unclear. The run is skewed if one of them is, equivalent "
                "within the margin if all are, and else has not enough data. Tests and metrics on "
                "which the model is at chance cannot show skew, nor equivalence. Flips and effects "
                "of memory decide nothing here.",
            )
        )
    if any(test["omnibus"] for test in tests):
        found.append(
            (
                "All conditions together",
                "Cochran's Q asks whether the conditions differ at all. Its p-value comes from "
                "exchanging the conditions within whole items; the one from the chi-squared "
                "distribution ignores that answers are clustered.",
            )
        )
    if any(test["decomposition"] for test in tests):
        found.append(
            (
                "Decomposition",
                "What a persona's memory changes against no memory is the sum of what a neutral "
                "memory of the same length changes (any memory) and of the difference between "
                "the persona's and the neutral memory (which persona).",
            )
        )
    if any(test["power"] for test in tests):
        found.append(
            (
                "Power",
                "Power is simulated: studies are drawn from the variance between items, between "
                "users and within them that this run shows, and tested with the t tests above. "
                "It is an estimate from one run, good for planning the next one.",
            )
        )
    if grids := [test["grid"] for test in tests if test["grid"]]:
        found.append(("Grid models", _grid_methods(grids)))
    return found


def _users(run: dict[str, Any]) -> str:
    if cells := run.get("n_cells"):
        return f"The users are {count(cells, 'cell')} of the grid."
    return f"The users are the versions of {count(run['n_pairs'], 'base persona')}."


def _words(summary: dict[str, Any]) -> str:
    text = (
        "A flip is an answer that differs from the same model's answer to the same item without "
        "memory. "
    )
    text += (
        "A contrast is the accuracy for users of one level of an attribute minus the accuracy for "
        "users of its reference level. "
        if is_grid(summary)
        else "The gap is accuracy for advantaged minus accuracy for disadvantaged users. "
    )
    return text + (
        "The expert score is the expert weight of the chosen action, in percent of the best "
        "possible."
    )


def _grid_methods(grids: list[dict[str, Any]]) -> str:
    mixed, logistic = (grids[0][name]["method"] for name in ("mixed", "logistic"))
    return (
        "The answers to all cells were also modelled by the attributes together. The linear mixed "
        f"model ({mixed}) of correctness has a random intercept per question; its coefficients "
        "are differences of shares, and its joint Wald tests ask of each attribute whether its "
        "levels differ at all. It takes an attribute to act alike on all items, and is too sure "
        f"of itself where it does not. The logistic model ({logistic}) is shown as average "
        "marginal effects, on the same scale. The paired test is the one of the table of effects. "
        "Where the three agree, the result does not depend on the model. The two models' p-values "
        "are corrected among themselves, and so are those of the cells, each compared with the "
        "mean of all cells."
    )


def facts(run: dict[str, Any], summary: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of what is needed to repeat the run."""
    model, settings = run["model"] or {}, run["identity"].get("memory_settings")
    known = {
        "Model": model_name(run, summary),
        "Backend": run["identity"].get("backend"),
        "Model revision": model.get("revision"),
        "Adapter hash": model.get("adapter_hash"),
        "Architecture": model.get("architecture"),
        "Parameters": f"{model['parameters']:,}" if model.get("parameters") else None,
        "Data type": model.get("dtype"),
        "Device": model.get("device"),
        "Memory settings": json.dumps(settings) if settings else None,
        "Seed": run["identity"]["seed"],
        "Items (SHA-256)": run["hashes"].get("items"),
        "Personas (SHA-256)": run["hashes"].get("personas"),
        "Prompts (SHA-256)": run["hashes"].get("prompts"),
        "Started": run["started"],
        "Finished": run["finished"],
        "Run time": duration(run["seconds"]),
        "Versions": ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
    }
    return [(name, str(value)) for name, value in known.items() if value is not None]
