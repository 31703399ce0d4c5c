"""What each rule of scoring measures: accuracy, picks of the longest option, blind answers, flips.

Reads complete audits again, by every rule; no model is asked.

    unswayed audit --model MODEL --pairs 3 --out runs/options
    unswayed audit --model MODEL --pairs 3 --scoring letter --orders 2 --out runs/letters
    python benchmarks/rules.py runs/options runs/letters ... --out results/rules.json

A reader of the question who is at chance shows: accuracy, longest and blind agreement of one in n
options, that is 20 % (understanding, STEU) or 25 % (management, STEM).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from unswayed.audit.rules import by_rule
from unswayed.audit.rundir import read_answers, read_run
from unswayed.audit.trials import NONE
from unswayed.models.embedded import model_label
from unswayed.scoring.prompts import RULES


def measures(answers: pd.DataFrame) -> dict[str, float | None]:
    """Shares of answers to one test in one condition; flips are None without memory."""
    lengths = answers["options"].map(lambda options: max(map(len, options)))
    blind = answers[answers["blind_answer"].notna()]
    flips = answers["flip"].dropna().astype(float)
    mass = answers["letter_mass"].dropna()
    return {
        "n": len(answers),
        "accuracy": float(answers["correct"].mean()),
        "longest": float((answers["answer"].str.len() == lengths).mean()),
        "blind": float((blind["answer"] == blind["blind_answer"]).mean()) if len(blind) else None,
        "flips": float(flips.mean()) if len(flips) else None,
        "letter_mass": float(mass.mean()) if len(mass) else None,
    }


def rows_of(run_dir: Path) -> list[dict]:
    """Of every rule, test and condition of a run."""
    run, answers = read_run(run_dir), read_answers(run_dir).to_pandas()
    scoring, orders = run["identity"]["scoring"], run["identity"]["orders"]
    rules = RULES if scoring == "option" else [run["identity"]["rule"]]
    return [
        {
            "model": model_label(run["identity"]["model"]),
            "dtype": run["model"]["dtype"],
            "scoring": scoring,
            "rule": rule,
            "orders": orders,
            "test": test,
            "n_pairs": run["n_pairs"],
            "seconds": run["seconds"],
            "conditions": {
                condition: measures(group)
                for condition, group in rows.groupby("condition", sort=False)
            },
        }
        for rule in rules
        for test, rows in by_rule(answers, rule, run_dir).groupby("test", sort=False)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    content = {
        "command": "python benchmarks/rules.py RUN ... --out results/rules.json",
        "rows": [row for run in arguments.runs for row in rows_of(run)],
    }
    arguments.out.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    for row in content["rows"]:
        bare = row["conditions"].get(NONE)
        print(row["model"], row["scoring"], row["rule"], row["test"], bare)


if __name__ == "__main__":
    main()
