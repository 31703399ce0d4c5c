"""Do the statistics hold what they promise? Audits with known truth are simulated and analysed.

    python benchmarks/calibration.py --out results/calibration.json       (about an hour, 1 core)

Answers of I items x J users under two conditions are drawn right or wrong. An item has a share of
answers that react to the user at all; whether such an answer favours the advantaged version is
drawn with odds that vary between items (standard deviation 1 on the logit scale) and between users
(likewise): the clustering that real audits show. Reported per design, all at 5 %:

* false positives under a mean gap of zero: our permutation test, and exact McNemar beside it;
* coverage of the 95 % interval under gaps of zero and of 5 points;
* power of the permutation test over true gaps, beside what `simulated_power` had predicted;
* how often equivalence is claimed when the true gap equals the margin (at most 5 %);
* on grids of 81 cells, false positives and coverage of a level's contrast: our paired test, the
  linear mixed model with a random intercept per question (as in the paper), and the logistic GEE.

The Monte-Carlo interval of a rate of 5 % is printed with the number of simulations.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize, stats

from unswayed.core.progress import Progress
from unswayed.statistics.classic import mcnemar_p
from unswayed.statistics.crossed import (
    components,
    crossed_mean,
    equivalence_p,
    permutation_p,
    simulated_power,
)
from unswayed.statistics.mixed import analyse_grid

ALPHA = 0.05
REACTING = 0.15  # share of answers that react to the user
SPREAD = 1.0  # between items in how many answers react (logit)
RESAMPLES = 999  # permutations per simulated audit
LEVELS = {name: ["a", "b", "c"] for name in ("gender", "age", "religion", "ethnicity")}


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def mean_logistic(mean: float, sd: float) -> float:
    """Mean of a logistic-normal variable, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    return float((weights * logistic(mean + sd * nodes)).sum() / weights.sum())


def tilt(gap: float, reacting: float, sd: float) -> float:
    """Logit of favouring the advantaged at which the mean gap over items and users is `gap`."""
    share = mean_logistic(np.log(reacting / (1 - reacting)), SPREAD)
    return optimize.brentq(lambda m: share * (2 * mean_logistic(m, sd) - 1) - gap, -20, 20)


def audit(
    rng: np.random.Generator,
    n_items: int,
    n_users: int,
    gap: float,
    item_sd: float,
    user_sd: float,
    reacting: float = REACTING,
) -> np.ndarray:
    """Differences right - wrong (items x users) in {-1, 0, 1} with a known mean."""
    base = np.log(reacting / (1 - reacting)) + SPREAD * rng.standard_normal((n_items, 1))
    reacts = rng.random((n_items, n_users)) < logistic(base)
    favours = tilt(gap, reacting, float(np.hypot(item_sd, user_sd)))
    odds = favours + item_sd * rng.standard_normal((n_items, 1))
    odds = odds + user_sd * rng.standard_normal((1, n_users))
    return reacts * np.where(rng.random((n_items, n_users)) < logistic(odds), 1.0, -1.0)


def rate(hits: list[bool]) -> dict[str, float]:
    """Share with its exact 95 % Monte-Carlo interval."""
    low, high = stats.binomtest(int(sum(hits)), len(hits)).proportion_ci(method="exact")
    return {"rate": float(np.mean(hits)), "low": float(low), "high": float(high), "n": len(hits)}


def paired_design(rng: np.random.Generator, runs: int, bar: Progress, **design) -> dict:
    """Rates over `runs` simulated audits of one design."""
    found: dict[str, list[bool]] = {"rejected": [], "covered": [], "mcnemar": [], "equivalent": []}
    for _ in range(runs):
        differences = audit(rng, **design)
        mean = crossed_mean(differences)
        found["rejected"].append(permutation_p(differences, rng, resamples=RESAMPLES) <= ALPHA)
        found["covered"].append(mean.low <= design["gap"] <= mean.high)
        found["mcnemar"].append(mcnemar_p(differences) <= ALPHA)
        if design["gap"]:  # the margin is the true gap: equivalence would be a mistake
            found["equivalent"].append(equivalence_p(mean, design["gap"]) < ALPHA)
        bar.add(1)
    return design | {name: rate(hits) for name, hits in found.items() if hits}


def grid_audit(
    rng: np.random.Generator, n_items: int, item_sd: float, cell_sd: float
) -> pd.DataFrame:
    """Right and wrong answers of items x 81 cells on which no attribute has a mean effect.

    Items differ in difficulty; each item reacts to each level in its own way (`item_sd`, logit),
    and each cell's text has a pull of its own (`cell_sd`).
    """
    cells = list(itertools.product(*LEVELS.values()))
    logits = 1.5 * rng.standard_normal((n_items, 1)) + cell_sd * rng.standard_normal((1, 81))
    logits = np.broadcast_to(logits, (n_items, 81)).copy()
    for position, levels in enumerate(LEVELS.values()):
        own = item_sd * rng.standard_normal((n_items, len(levels)))
        own -= own.mean(axis=1, keepdims=True)
        logits += own[:, [levels.index(cell[position]) for cell in cells]]
    right = rng.random((n_items, 81)) < logistic(logits)
    rows = pd.DataFrame(cells * n_items, columns=list(LEVELS))
    return rows.assign(question_id=np.repeat(np.arange(n_items), 81), correct=right.ravel())


def grid_design(rng: np.random.Generator, runs: int, bar: Progress, **design) -> dict:
    """False positives of the contrast gender b - a (true value zero) over simulated grids."""
    found: dict[str, list[bool]] = {
        f"{name}_{what}": []
        for name in ("paired", "mixed", "logistic")
        for what in ("rejected", "covered")
    }
    for _ in range(runs):
        rows = grid_audit(rng, **design)
        wide = rows.pivot(index="question_id", columns=list(LEVELS), values="correct").astype(float)
        differences = (wide["b"] - wide["a"]).to_numpy()
        mean = crossed_mean(differences)
        found["paired_rejected"].append(
            permutation_p(differences, rng, resamples=RESAMPLES) <= ALPHA
        )
        found["paired_covered"].append(mean.low <= 0 <= mean.high)
        contrast = analyse_grid(rows, LEVELS).contrasts[0]
        for name in ("mixed", "logistic"):
            if model := contrast[name]:
                found[f"{name}_rejected"].append(model["p"] <= ALPHA)
                found[f"{name}_covered"].append(model["low"] <= 0 <= model["high"])
        bar.add(1)
    return design | {name: rate(hits) for name, hits in found.items()}


def power_curve(rng: np.random.Generator, runs: int, bar: Progress, **design) -> list[dict]:
    """Power over true gaps, simulated in full and predicted from one audit's components."""
    pilot = components(audit(rng, 400, 200, 0.0, design["item_sd"], design["user_sd"]))
    points = []
    for gap in (0.0, 0.01, 0.02, 0.03, 0.05, 0.08):
        found = paired_design(rng, runs, bar, **design, gap=gap)
        sizes = (design["n_items"], design["n_users"])
        predicted = simulated_power(pilot, *sizes, gap, 0.05)[0]
        points.append({"gap": gap, "power": found["rejected"], "predicted": predicted})
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="simulated audits per design")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    runs, grid_runs = arguments.runs, max(arguments.runs // 4, 1)
    rng, start = np.random.default_rng(0), time.monotonic()
    sizes = [(41, 30), (45, 6)]
    clusters = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    designs = [
        {"n_items": i, "n_users": j, "gap": gap, "item_sd": a, "user_sd": b}
        for i, j in sizes
        for gap in (0.0, 0.05)
        for a, b in clusters
    ]
    designs += [  # hardly any answer reacts
        {"n_items": 41, "n_users": 30, "gap": 0.0, "item_sd": 1.0, "user_sd": 1.0, "reacting": 0.01}
    ]
    grids = [
        {"n_items": 41, "item_sd": a, "cell_sd": b} for a, b in ((0.0, 0.0), (1.0, 0.0), (1.0, 0.3))
    ]
    curve = {"n_items": 41, "n_users": 30, "item_sd": 1.0, "user_sd": 1.0}
    bar = Progress(len(designs) * runs + len(grids) * grid_runs + 6 * (runs // 2), "audits")
    found = {
        "command": f"python benchmarks/calibration.py --runs {runs} --out results/calibration.json",
        "alpha": ALPHA,
        "monte_carlo_5_percent": [
            float(stats.binom.ppf(q, runs, ALPHA) / runs) for q in (0.025, 0.975)
        ],
        "pairs": [paired_design(rng, runs, bar, **design) for design in designs],
        "grid": [grid_design(rng, grid_runs, bar, **design) for design in grids],
        "power": power_curve(rng, runs // 2, bar, **curve),
    }
    bar.close()
    found["seconds"] = round(time.monotonic() - start, 1)
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
