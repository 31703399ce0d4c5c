"""Do verdicts and intervals hold what they promise? Audits with known truth are judged.

    python benchmarks/calibration.py --out results/calibration.json       (about an hour, 1 core)

DESIGNS says what is simulated, by the generators of `generators.py`. Each audit's gap goes through
the functions that the product judges by (effects, Holm, status under the default policy); a few
audits of some designs go the whole way, from the rows of `answers.parquet` through `summarize` and
the gate, and both must agree. Per design:

* how often the verdict is "skewed", "equivalent" or "more data needed";
* of audits whose truth is at the margin or beyond, how often it is "equivalent" (a mistake). The
  truth is that of the users in the run, as the verdict says, below `fewest_items(margin)` pairs;
* coverage of the 95 % interval: of the gap between users at large, below 6 pairs between these;
* power at the margin as printed, a mean over audits, beside the share that was found.

Every rate comes with its exact 95 % Monte-Carlo interval and its number of audits. The file is
written after each design; what it holds already is not simulated again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import generators
import numpy as np
import pandas as pd
from scipy import stats

from unswayed.audit.effects import FEWEST_USERS, GAP, paired_effect, unread
from unswayed.audit.evidence import Effect, check_answers
from unswayed.audit.gate import judge, outcome
from unswayed.audit.policy import EXPECTED, GRID, PAIRS, Policy, packaged
from unswayed.audit.summary import summarize
from unswayed.audit.verdict import ALPHA, EQUIVALENT, MORE_DATA, SKEWED, judge_test
from unswayed.core.errors import InputError
from unswayed.core.files import write_text
from unswayed.core.progress import Progress
from unswayed.data.personas import ATTRIBUTES, grid_personas
from unswayed.statistics.classic import correct
from unswayed.statistics.crossed import fewest_items
from unswayed.statistics.max_t import cell_contrasts, interaction_contrasts, max_t
from unswayed.statistics.power import components, simulated_power

PRINTED = 100  # audits whose power is computed
FLIPS = 1999  # of whole items, in the max-T test of a simulated grid; the product makes more
SIZES = [(59, 10), (150, 10), (150, 30)]
SMALL = [(30, 10), (41, 10), (41, 30)]
REACTIONS = [(0.05, 1.0), (0.1, 0.5), (0.25, 0.2), (0.5, 0.1)]  # shares of items, of their cells


def designs() -> list[dict]:
    """What is simulated: a group, a generator with its parameters, sizes, the margin, and whether
    some audits go the whole way."""
    rows: list[dict] = []

    def add(
        group: str, sample: str, sizes: Sequence, public: Sequence = (), margin: float = 0.05, **of
    ):
        for i, j in sizes:
            about = {"group": group, "sample": sample, "n_items": i, "n_users": j}
            about |= {"margin": margin, "public": (i, j) in public}
            rows.append(about | {"parameters": of})

    for items, cells in REACTIONS:
        public = [(30, 10), (59, 10)] if cells == 1 else []
        add("few items react", "rare", [*SIZES, *SMALL], public, items=items, cells=cells)
    for items, cells in ((0.02, 1.0), (0.04, 0.5), (0.1, 0.2)):
        sizes = [(150, 10), (165, 10), (165, 30)]
        add("few items react", "rare", sizes, margin=0.02, items=items, cells=cells)
    for items, cells in ((0.05, 1.0), (0.075, 1.0), (0.1, 1.0), (0.1, 0.5)):
        sizes = [(41, 10), (41, 30), (59, 10), (150, 10), (150, 30)]
        add("items with signs of their own", "signs", sizes, items=items, cells=cells)
    for users, loss in ((1 / 15, 0.75), (0.1, 0.5)):
        sizes = [(41, 10), (41, 30), *SIZES, (150, 60)]
        add("few users lose", "concentrated", sizes, users=users, loss=loss)
    for gap in (0.0, 0.05):
        for user_sd in (1.5, 3.0):
            sizes = [(59, j) for j in (2, 3, 4, 6, 10, 30)]
            add("users differ", "clustered", sizes, gap=gap, item_sd=1.0, user_sd=user_sd)
        for sds in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
            of = {"gap": gap, "item_sd": sds[0], "user_sd": sds[1]}
            add("items and users differ", "clustered", [(59, 10), (150, 30)], **of)
        for accuracy in (0.97, 0.03):
            if gap < 2 * min(accuracy, 1 - accuracy):
                of = {"gap": gap, "accuracy": accuracy}
                add(
                    "ceiling and floor",
                    "latent",
                    [(59, 10), (150, 10)],
                    [(59, 10)][: gap == 0],
                    **of,
                )
        add("few items", "latent", [(20, 10), (30, 10)], gap=gap)
        add("few pairs", "latent", [(59, 2), (59, 6)], gap=gap)
        add("missing trials", "missing", [(59, 10)], [(59, 10)][: gap == 0], gap=gap, trials=0.2)
    for shares in ({"disadvantaged": 0.12}, dict.fromkeys(generators.VERSIONS, 0.02)):
        for items in (0.0, 0.05):
            add(
                "unread answers",
                "unread",
                [(59, 10), (150, 10)],
                [(59, 10)],
                shares=shares,
                items=items,
            )
    for steepness in (0.0, 2.0):
        for gap in (0.0, 0.025, 0.05, 0.1):
            add("series", "latent", SIZES, SIZES[:1], gap=gap, steepness=steepness)
    grids = ({}, {"own": 1.0}, {"pairs": 1.0}, {"own": 1.0, "pairs": 1.0}, {"lost": 0.45})
    for of in grids:
        add("grid", "grid", [(59, 81)], [(59, 81)], **of)
    return rows


def rng_of(design: dict, what: str) -> np.random.Generator:
    """Random numbers that belong to a design, whatever else is simulated."""
    return np.random.default_rng(zlib.crc32(json.dumps([design, what], sort_keys=True).encode()))


def rate(hits: Sequence[bool] | pd.Series) -> dict[str, float] | None:
    """Share with its exact 95 % Monte-Carlo interval; None of nothing."""
    if not len(hits):
        return None
    low, high = stats.binomtest(int(sum(hits)), len(hits)).proportion_ci(method="exact")
    return {"rate": float(np.mean(hits)), "low": float(low), "high": float(high), "n": len(hits)}


def policy_of(margin: float) -> Policy:
    """The default policy at a margin, with the items that it takes."""
    policy = packaged(PAIRS)
    least = policy.least | {"items": fewest_items(margin)}
    return dataclasses.replace(policy, margins=policy.margins | {"gap": 100 * margin}, least=least)


# -- pairs ---------------------------------------------------------------------------------------


def judged(audit: generators.Audit, policy: Policy) -> Effect:
    """The gap of an audit with its status, of a model that reads and knows."""
    sides, margin = [audit.values[name] for name in generators.VERSIONS[1:]], policy.margin("gap")
    effect = paired_effect(GAP, "gap", EXPECTED, sides[0] - sides[1], margin, EXPECTED)
    unparsed = {"all": {"unparsed": 0.0}}
    if audit.read is not None:
        read = [audit.read[name].astype(float) for name in generators.VERSIONS[1:]]
        effect |= unread(*sides, *read, margin)
        unparsed = {name: {"unparsed": 1 - r.mean()} for name, r in audit.read.items()}
    correct([effect])
    about = {"primary": True, "validity": {"reads": True}, "knows": {"above": True}}
    judge_test(
        {"effects": [effect], "conditions": unparsed, "n_items": len(sides[0]), **about}, policy
    )
    return effect


def of_pairs(design: dict, runs: int, bar: Progress) -> dict:
    """Rates over simulated audits of pairs."""
    rng, policy = rng_of(design, "functions"), policy_of(design["margin"])
    at_large, margin = design["n_users"] >= FEWEST_USERS, design["margin"]
    sample, sizes = getattr(generators, design["sample"]), (design["n_items"], design["n_users"])
    rows, printed = [], []
    for run in range(runs):
        audit = sample(rng, *sizes, **design["parameters"])
        effect = judged(audit, policy)
        truth = audit.gap if at_large else audit.these
        claimed = audit.these if design["n_users"] < fewest_items(margin) else audit.gap
        rows.append(
            {
                "status": effect["status"],
                "covered": effect["low"] <= truth <= effect["high"],
                "p": effect["p"] < ALPHA,
                "beyond": abs(claimed) >= margin - 1e-9,
            }
        )
        if run < PRINTED and at_large and abs(audit.gap - margin) < 1e-9:
            sides = [audit.values[name] for name in generators.VERSIONS[1:]]
            parts = components(sides[0] - sides[1])
            printed.append(simulated_power(parts, *sizes, margin, margin)[0])
        bar.add(1)
    table = pd.DataFrame(rows)
    status, beyond = table["status"], table["beyond"]
    return {
        "gap": audit.gap,
        **{name: rate(status == name) for name in (SKEWED, EQUIVALENT, MORE_DATA)},
        "significant": rate(table["p"]),
        "covered": rate(table["covered"]),
        "false_equivalent": rate(status[beyond] == EQUIVALENT),
        "printed_power": float(np.mean(printed)) if printed else None,
    }


def public_pairs(design: dict, runs: int, bar: Progress) -> dict:
    """The same from rows of `answers.parquet`: verdict, gate, and how far both ways are apart."""
    rng, policy = rng_of(design, "public"), policy_of(design["margin"])
    sample, sizes = getattr(generators, design["sample"]), (design["n_items"], design["n_users"])
    verdicts, gates, refused, apart = [], [], [], []
    for _ in range(runs):
        audit = sample(rng, *sizes, **design["parameters"])
        rows = generators.answers(audit)
        bar.add(1)
        try:
            check_answers(rows, "simulated")
        except InputError:
            refused.append(True)
            continue
        refused.append(False)
        summary = summarize(rows, policy)
        verdicts.append(summary["verdict"]["status"])
        gates.append(outcome(judge(policy, summary)))
        direct = judged(audit, policy)
        (effect,) = [
            e for e in summary["tests"]["simulated"]["effects"] if e["family"] == "primary"
        ]
        keys = ("estimate", "low", "high", "p", "p_holm", "p_tost")
        apart.append(max(abs(effect[key] - direct[key]) for key in keys))
    rates = {"refused": rate(refused)}
    if verdicts:
        rates |= {
            "verdicts": {name: rate([v == name for v in verdicts]) for name in set(verdicts)},
            "gate": {name: rate([g == name for g in gates]) for name in set(gates)},
            "largest_difference": max(apart),
        }
    return rates


# -- grids ---------------------------------------------------------------------------------------


def of_grids(design: dict, runs: int, bar: Progress) -> dict:
    """Rates over simulated grids: whether any level, cell or two-way contrast is significant."""
    rng, margin = rng_of(design, "functions"), design["margin"]
    people = pd.DataFrame([dict(p.attributes) for p in grid_personas()])[list(ATTRIBUTES)]
    contrasts = pd.concat([cell_contrasts(people), interaction_contrasts(people)], axis=1)
    kinds = list(contrasts.columns.get_level_values(0))
    levels = {name: list(dict.fromkeys(people[name])) for name in people}
    columns = {
        (name, other): [
            people[people[name] == level].sort_values([a for a in people if a != name]).index
            for level in (other, reference)
        ]
        for name, (reference, *others) in levels.items()
        for other in others
    }
    rows = []
    for _ in range(runs):
        _, right = generators.grid(rng, design["n_items"], **design["parameters"])
        effects = [
            paired_effect(str(name), "grid", EXPECTED, right[:, a] - right[:, b], margin, EXPECTED)
            for name, (a, b) in columns.items()
        ]
        stands_out = float(max_t(right @ contrasts.to_numpy(), rng, kinds, FLIPS).p.min())
        family = [*effects, {"p": stands_out}]
        correct(family)
        levels_off = [e["p_holm"] < ALPHA and e["p_tost"] >= ALPHA for e in effects]
        rows.append(
            {
                "skewed": any(levels_off) or family[-1]["p_holm"] < ALPHA,
                "level": any(e["p_holm"] < ALPHA for e in effects),
                "max_t": stands_out < ALPHA,
                "covered": effects[0]["low"] <= 0 <= effects[0]["high"],
                "equivalent": all(e["p_tost"] < ALPHA for e in effects),
            }
        )
        bar.add(1)
    table = pd.DataFrame(rows)
    return {"gap": 0.0, **{name: rate(table[name]) for name in table}}


def public_grids(design: dict, runs: int, bar: Progress) -> dict:
    """Verdicts under --interactions; how often the joint tests reject."""
    rng, policy, verdicts = rng_of(design, "public"), packaged(GRID), []
    joint: dict[str, list[bool]] = {
        f"{what}, {test}": []
        for what in ("attributes", "interactions")
        for test in ("wald", "over items")
    }
    for _ in range(runs):
        rows = generators.grid_answers(
            *generators.grid(rng, design["n_items"], **design["parameters"])
        )
        summary = summarize(rows, policy, interactions=True)
        verdicts.append(summary["verdict"]["status"])
        models = summary["tests"]["simulated"]["grid"]
        for what in ("attributes", "interactions"):
            for test in models[what]:
                joint[f"{what}, wald"].append(test["p"] is not None and test["p"] < ALPHA)
                p = test["robust"]["p"]
                joint[f"{what}, over items"].append(p is not None and p < ALPHA)
        bar.add(1)
    verdicts_of = {name: rate([v == name for v in verdicts]) for name in set(verdicts)}
    return {"verdicts": verdicts_of, "joint": {name: rate(hits) for name, hits in joint.items()}}


# -- all -----------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="audits per design, functions alone")
    parser.add_argument("--grids", type=int, default=200, help="grids per design")
    parser.add_argument("--public", type=int, default=20, help="audits the whole way (half: grids)")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    done = json.loads(arguments.out.read_text("utf-8")) if arguments.out.exists() else {}
    options = f"--runs {arguments.runs} --grids {arguments.grids} --public {arguments.public}"
    command = f"python benchmarks/calibration.py {options} --out results/calibration.json"
    result = {"command": command, "alpha": ALPHA, "seconds": 0.0, "designs": {}, "public": {}}
    if done.get("command") == command:
        result = done
    jobs = []
    for design in designs():
        grids = design["sample"] == "grid"
        runs = arguments.grids if grids else arguments.runs
        jobs.append(("designs", design, of_grids if grids else of_pairs, runs))
        if design["public"]:
            whole = max(arguments.public // 2, 1) if grids else arguments.public
            jobs.append(("public", design, public_grids if grids else public_pairs, whole))
    jobs.sort(key=lambda job: job[0] == "public")  # the cheap ones first
    key_of = {id(job): json.dumps(job[1], sort_keys=True) for job in jobs}
    left = [job for job in jobs if key_of[id(job)] not in result[job[0]]]
    total = sum(job[3] for job in jobs)
    bar = Progress(total, "audits", done=total - sum(job[3] for job in left))
    for job in left:
        part, design, simulate, runs = job
        start = time.monotonic()
        result[part][key_of[id(job)]] = design | simulate(design, runs, bar)
        result["seconds"] = round(result["seconds"] + time.monotonic() - start, 1)
        write_text(arguments.out, json.dumps(result, indent=1) + "\n")
    bar.close()


if __name__ == "__main__":
    main()
