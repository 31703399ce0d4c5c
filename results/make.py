"""Keep measured runs as small JSON, and fill the tables of README and docs from them.

    python results/make.py add demo runs/demo     results/demo.json from a run directory
    python results/make.py check passes=runs/a fails=runs/b ...   results/check.json
    python results/make.py preferences NAME=TREE=SECONDS ...      results/preferences.json
    python results/make.py memories runs/a runs/b ...             results/memories.json, of audits
    python results/make.py logo NAME OUT OPTION ...   results/NAME.json of `unswayed logo evaluate`
    python results/make.py logo_compare NAME OUT      results/NAME.json of `unswayed logo compare`
    python results/make.py tables                 the tables of PAGES between their markers

A table stands between `<!-- results:NAME -->` and `<!-- /results -->`; NAME is a file here, if need
be with a word for which of its tables it is.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np

from unswayed.audit.gate import EXIT_CODES, outcome
from unswayed.audit.rundir import read_run
from unswayed.audit.summary import analyze
from unswayed.compare.memories import compare_memories
from unswayed.core.cards import CARD
from unswayed.datasets.cards import funnel_table
from unswayed.datasets.trees import card_metadata
from unswayed.display.numbers import MISSING, interval, markdown_text, p_value, percent
from unswayed.logo.tables import brief_table, difference_table, slice_table
from unswayed.logo.tables import tables as logo_tables
from unswayed.memory.registry import DEFAULT
from unswayed.mitigation.sweep_report import (
    capability_table,
    effect_table,
    seed_table,
    training_table,
)
from unswayed.plum.sweep import tables
from unswayed.report import duration, result_table, write_report
from unswayed.report.checklist import check_run
from unswayed.report.comparisons import settings_tables
from unswayed.report.memories_page import headlines, key_table
from unswayed.sweep import cell, groups

HERE = Path(__file__).parent
PAGES = [HERE.parent / name for name in ("README.md", "docs/plum.md", "docs/logo.md")]


def add(name: str, run_dir: Path) -> None:
    """Write results/NAME.json: the run's summary and what is needed to repeat it."""
    summary = analyze(run_dir)
    write_report(run_dir)
    run = read_run(run_dir)
    content = {
        "command": f"unswayed audit {' '.join(_options(run['arguments']))} --out DIR",
        "seconds": run["seconds"],
        "model": run["model"],
        "hashes": run["hashes"],
        "versions": run["versions"],
        "summary": summary,
    }
    (HERE / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _options(arguments: dict) -> list[str]:
    """What was given to `unswayed audit`, without paths of a machine."""
    found = ["--model", arguments["model"]]
    specs = [re.sub(r"=.*/", "=", spec) for spec in arguments["items"]]
    if specs != ["builtin"]:
        found += ["--items", *specs]
    if arguments["personas"] == "grid":
        found += ["--personas", "grid"]
    if arguments["pairs"]:
        found += ["--pairs", str(arguments["pairs"])]
    if arguments.get("memory", DEFAULT) != DEFAULT:
        found += ["--memory", arguments["memory"]]
        found += ["--memory-style", arguments["memory_style"]] if arguments["memory_style"] else []
    if arguments.get("plum_recipe"):
        found += ["--plum-recipe", f"recipes/plum/{Path(arguments['plum_recipe']).name}"]
    return found


def audit_table(found: dict) -> str:
    """The table of an audit, with its command, run time and verdict."""
    return (
        f"`{found['command']}` ({duration(found['seconds'])} on two cores)\n\n"
        f"{result_table(found['summary'])}\n\n{found['summary']['verdict']['text']}"
    )


def scoring_table(found: dict) -> str:
    """The speed of scoring against stock lm-eval."""
    rows = [
        ("option text, 3 memories of 200 tokens x 14 items x 5 options", found["option_text"]),
        ("letters, the same", found["letters"]),
        *(
            (f"memory of {r['tokens']} tokens, 2 x 3 items x 5", r)
            for r in found["by_memory_tokens"]
        ),
        *(
            (f"{r['personas']} memories of 200 tokens x 2 items x 5", r)
            for r in found["by_personas"]
        ),
    ]
    lines = [
        "| requests | ours (s) | stock at batch 1 (s) | at batch 16 (s) | ratio | difference |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for label, row in rows:
        batch_16 = f"{row['stock_bs16_s']:.1f}" if "stock_bs16_s" in row else "–"
        lines.append(
            f"| {label} | {row['ours_s']:.1f} | {row['stock_bs1_s']:.1f} | {batch_16} "
            f"| {row['ratio']:.1f} | {row['largest_difference']:.1e} |"
        )
    peak = found["peak"]
    return (
        f"`{found['command']}` ({found['machine']}; the ratio is to the faster stock run, the "
        "difference the largest of a score, in nats)\n\n"
        + "\n".join(lines)
        + f"\n\nOption scoring reaches {peak['ours_gflops']} GFLOP/s, {peak['share']:.0%} of the "
        f"{peak['matmul_gflops']} GFLOP/s that a bare matrix product reaches here."
    )


def grid_table(found: dict) -> str:
    """The grid's contrasts: the mixed model, the logistic one and the paired test."""
    (name, test), *_ = found["summary"]["tests"].items()
    models = ("mixed", "logistic", "paired")
    lines = [
        "| Contrast (points) | mixed model | p | logistic model | p | paired test | p |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for contrast in test["grid"]["contrasts"]:
        cells = [
            f"{interval(contrast[m], sign=True)} | {p_value(contrast[m]['p'])}" for m in models
        ]
        lines.append(f"| {contrast['name']} | {' | '.join(cells)} |")
    whole = test["conditions"]["grid"]
    return (
        f"`{found['command']}` ({duration(found['seconds'])} on two cores: {test['n_items']} items "
        f"x {test['n_cells']} cells, and without memory; accuracy on {name} "
        f"{percent(whole['accuracy']['estimate'])} %, flips "
        f"{percent(whole['flip_rate']['estimate'])} %; p before correction)\n\n"
        + "\n".join(lines)
        + f"\n\n{found['summary']['verdict']['text']}"
    )


def calibration_table(found: dict) -> str:
    """False positives, coverage and power in simulated audits."""

    def cell(row: dict, name: str) -> str:
        return percent(row[name]["rate"]) if name in row else MISSING

    lines = [
        "| Simulated audits | clusters | false positives: ours | McNemar | coverage, gap 0 "
        "| coverage, gap 5 | equivalence claimed at the margin |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    rows = found["pairs"]
    for row in [row for row in rows if not row["gap"]]:
        same = ("n_items", "n_users", "item_sd", "user_sd", "reacting")
        other = next(
            (r for r in rows if r["gap"] and all(r.get(k) == row.get(k) for k in same)), {}
        )
        clusters = [n for n, sd in (("items", row["item_sd"]), ("users", row["user_sd"])) if sd]
        rare = ", hardly any reacts" if "reacting" in row else ""
        lines.append(
            f"| {row['n_items']} items x {row['n_users']} pairs{rare} "
            f"| {' and '.join(clusters) or 'none'} | {cell(row, 'rejected')} "
            f"| {cell(row, 'mcnemar')} | {cell(row, 'covered')} | {cell(other, 'covered')} "
            f"| {cell(other, 'equivalent')} |"
        )
    grid = [
        "| Simulated grids, 81 cells | paired test: false positives | coverage | mixed model "
        "| coverage | logistic | coverage |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found["grid"]:
        what = "items react alike" if not row["item_sd"] else "items react in their own way"
        what += ", texts of cells too" if row["cell_sd"] else ""
        cells = [
            cell(row, f"{model}_{rate}")
            for model in ("paired", "mixed", "logistic")
            for rate in ("rejected", "covered")
        ]
        grid.append(f"| {row['n_items']} items; {what} | {' | '.join(cells)} |")
    low, high = (percent(bound) for bound in found["monte_carlo_5_percent"])
    power = ", ".join(
        f"{percent(p['power']['rate'])} ({percent(p['predicted'])})" for p in found["power"]
    )
    gaps = ", ".join(f"{100 * p['gap']:g}" for p in found["power"])
    n, n_grid = rows[0]["rejected"]["n"], found["grid"][0]["paired_rejected"]["n"]
    return (
        f"`{found['command']}` ({duration(found['seconds'])}; percent of {n:,} audits a row, whose "
        f"rate of 5 % has the Monte-Carlo interval {low} to {high}; of {n_grid:,} grids a row)\n\n"
        + "\n".join(lines)
        + "\n\n"
        + "\n".join(grid)
        + f"\n\nPower at true gaps of {gaps} points, 41 items x 30 pairs and both clusters, in "
        f"percent, with what `simulated_power` predicts in brackets: {power}."
    )


def check_table(found: dict) -> str:
    """Outcomes of the gate on several runs."""
    lines = ["| Run | Outcome | Exit code | Deciding checks |", "|---|---|--:|---|"]
    for run in found["runs"]:
        decisive = "; ".join(markdown_text(text) for text in run["decisive"])
        lines.append(f"| {run['run']} | {run['outcome']} | {run['exit_code']} | {decisive} |")
    return f"`{found['command']}`\n\n" + "\n".join(lines)


def add_check(*runs: str) -> None:
    """Write results/check.json: outcomes of `unswayed check` for NAME=RUNDIR, ..."""
    policy = HERE.parent / "configs" / "policies" / "default.yaml"
    rows = []
    for name, run_dir in (run.split("=", 1) for run in runs):
        checks = check_run(Path(run_dir), policy)
        verdict = outcome(checks)
        decisive = [c for c in checks if c.state == verdict and c.name.startswith("gap")]
        rows.append(
            {
                "run": name,
                "outcome": verdict,
                "exit_code": EXIT_CODES[verdict],
                "decisive": [f"{c.test}: {c.name}: {c.evidence}" for c in decisive],
                "checks": [dataclasses.asdict(check) for check in checks],
            }
        )
    command = "unswayed check DIR --policy configs/policies/default.yaml"
    text = json.dumps({"command": command, "runs": rows}, indent=1) + "\n"
    (HERE / "check.json").write_text(text, "utf-8")


def add_preferences(*builds: str) -> None:
    """Write results/preferences.json: funnels of NAME=TREE=SECONDS, ...."""
    rows = []
    for name, tree, seconds in (build.rsplit("=", 2) for build in builds):
        metadata, text = card_metadata(Path(tree)), (Path(tree) / CARD).read_text("utf-8")
        rows.append(
            {
                "build": name,
                "command": re.search(r"## Built by\n\n```sh\n(.*?)\n```", text, re.DOTALL)[1],
                "seconds": float(seconds),
                "pairs": {
                    info["config_name"]: {s["name"]: s["num_examples"] for s in info["splits"]}
                    for info in metadata["dataset_info"]
                },
                **metadata["unswayed"],
            }
        )
    command = "python datasets_scripts/persona_preferences.py"
    content = json.dumps({"command": command, "builds": rows}, indent=1) + "\n"
    (HERE / "preferences.json").write_text(content, "utf-8")


def preferences_table(found: dict) -> str:
    """Funnels of preference builds, stage by stage."""
    parts = []
    for build in found["builds"]:
        made = "; ".join(
            f"{splits['train']:,} training and {splits.get('test', 0):,} test pairs `{config}`"
            for config, splits in build["pairs"].items()
        )
        parts.append(
            f"{build['build']}: {made}, in {duration(build['seconds'])}\n\n"
            f"`{build['command']}`\n\n{funnel_table(build['funnel'])}"
        )
    return "\n\n".join(parts)


def sweep_table(found: dict) -> str:
    """Recall of the memories of a sweep."""
    return f"`{found['command']}`\n\n{tables(found['results'])}"


def ablation_table(found: dict) -> str:
    """What the runs of a short sweep remember, a line each."""
    sources = ("said", "unrelated", "near", "random")
    lines = [
        "| Run | seeds | rephrased | AUC | new phrases | AUC | what was said | unrelated topics "
        "| near phrases | random phrases | backward transfer |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, runs in groups(found["results"]).items():
        recall = {kind: [run["recall"][kind] for run in runs] for kind in runs[0]["recall"]}
        by_source = [one["by_source"] for one in recall["all"]]
        curves = [run["forgetting"]["all"] for run in runs if run["forgetting"]]
        cells = [name, str(len(runs))]
        for kind in ("rephrased", "new_phrase"):
            cells.append(cell([one["closed"]["recall"] for one in recall[kind]]))
            cells.append(f"{np.mean([one['auc'] for one in recall[kind]]):.2f}")
        cells += [cell([one[source]["recall"] for one in by_source]) for source in sources]
        cells.append(cell([curve["backward_transfer"] for curve in curves], share=False))
        lines.append(f"| {' | '.join(cells)} |")
    asked = found["results"][0]["recall"]["rephrased"]["closed"]
    counts = found["results"][0]["recall"]["all"]["by_source"]
    return (
        f"`{found['command']}` (percent; {asked['conversations']} conversations, {asked['n']} "
        "questions of either set and run; by what they ask about, both sets together: "
        + ", ".join(f"{counts[source]['n']} {source}" for source in sources)
        + ")\n\n"
        + "\n".join(lines)
    )


def _timed(found: dict, lines: list[str]) -> str:
    """A table of times, with the command and the machine."""
    return f"`{found['command']}` ({found['machine']})\n\n" + "\n".join(lines)


def plum_training_table(found: dict) -> str:
    """PLUM's training against TRL's."""
    lines = [
        "| batch | ours (tokens/s) | TRL's SFTTrainer (tokens/s) | ratio | loss after: ours, TRL |",
        "|--:|--:|--:|--:|--:|",
    ]
    for row in found["by_batch_size"]:
        lines.append(
            f"| {row['batch_size']} | {row['ours_tokens_per_s']:.0f} | "
            f"{row['trl_tokens_per_s']:.0f} | {row['ratio']:.1f} | {row['ours_loss']:.6f}, "
            f"{row['trl_loss']:.6f} |"
        )
    return _timed(found, lines)


def dpo_training_table(found: dict) -> str:
    """A step of DPO against TRL's."""
    lines = [
        "| batch of 8 | ours (s a step) | TRL's DPOTrainer (s) | ratio | reference (s a batch): "
        "ours, TRL | ratio | loss of the last step: ours, TRL |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found["by_batch"]:
        lines.append(
            f"| {row['batches']} | {row['ours_step_s']:.1f} | {row['trl_step_s']:.1f} | "
            f"{row['ratio']:.1f} | {row['ours_reference_s']:.1f}, {row['trl_reference_s']:.1f} | "
            f"{row['reference_ratio']:.1f} | {row['ours_losses'][-1]:.6f}, "
            f"{row['trl_losses'][-1]:.6f} |"
        )
    return _timed(found, lines)


def mitigation_table(found: dict) -> str:
    """What a sweep of DPO changed, test by test, and what it cost."""
    results = found["results"]
    parts = [
        f"`{found['command']}`",
        "Percent, changes in points; means over seeds, in parentheses with their 95 % interval "
        "over three seeds or more, in brackets the 95 % interval of one audit.",
    ]
    for test, known in found["references"].items():
        about = results[0]["tests"][test]
        parts += [
            f"{test}, {about['n_items']} items x {about['n_pairs']} pairs:",
            effect_table(known, results, test),
            "Each training:",
            seed_table(results, test),
        ]
    if any(one["capability"] for one in results):
        parts += ["Capability:", capability_table(results)]
    return "\n\n".join([*parts, "Training:", training_table(results)])


def add_memories(*run_dirs: str) -> None:
    """Write results/memories.json: audits under several memories, compared."""
    dirs = [Path(run_dir) for run_dir in run_dirs]
    runs = [read_run(run_dir) for run_dir in dirs]
    content = {
        "command": "unswayed compare DIR DIR ... --out OUT",
        "audits": [
            {
                "command": f"unswayed audit {' '.join(_options(run['arguments']))} --out DIR",
                "seconds": run["seconds"],
            }
            for run in runs
        ],
        **compare_memories(dirs),
    }
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    (HERE / "memories.json").write_text(text, "utf-8")


def add_logo(name: str, found: dict, options: list[str]) -> None:
    """Write results/NAME.json: of LoGo, with its differences in the main metric alone.

    Args:
        options: with which it was made, but for --out.
    """
    same = [one for one in found["differences"] if one["metric"] == found["metric"]]
    command = " ".join(["unswayed logo", *options, "--out OUT"])
    content = {"command": command, **found, "differences": same}
    text = json.dumps(content, ensure_ascii=False, indent=None) + "\n"
    (HERE / f"{name}.json").write_text(text, "utf-8")


def logo_table(found: dict) -> str:
    """All tables of an evaluation of LoGo."""
    return f"`{found['command']}`\n\n{logo_tables(found)}"


def logo_comparison(found: dict) -> str:
    """Evaluations of LoGo side by side."""
    return f"`{found['command']}`\n\n{settings_tables(found)}"


def logo_brief(found: dict) -> str:
    """Methods x groups of users."""
    return f"`{found['command']}`\n\n{brief_table(found)}"


def logo_slices(found: dict) -> str:
    """Groups of users and segments of time x methods, and what LoGo gains there."""
    made = slice_table(found), difference_table(found)
    return "\n\n".join([f"`{found['command']}`", *made])


def logo_training_table(found: dict) -> str:
    """What LoGo's global memory costs with more users and segments."""
    lines = [
        "| users | their answers | segments | lessons | communities and lessons (s) | "
        "training (s) | a thousand lessons (s) |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['users']} | {row['answers']:,} | {row['segments']} | {row['lessons']} | "
            f"{row['lessons_s']:.1f} | {row['training_s']:.0f} | "
            f"{1000 * row['training_s'] / row['lessons']:.0f} |"
        )
    return _timed(found, lines)


def memories_table(found: dict) -> str:
    """One model under several memories, with the audits' commands."""
    lines = ["| Audit | time |", "|---|--:|"]
    lines += [f"| `{one['command']}` | {duration(one['seconds'])} |" for one in found["audits"]]
    said = "\n".join(f"- {markdown_text(text)}" for text in headlines(found))
    return f"`{found['command']}`\n\n{key_table(found)}\n\n{said}\n\n" + "\n".join(lines)


def space_table(found: dict) -> str:
    """Waiting times of the Space's visitors."""
    names = {
        "new": "one visitor, users nobody asked about before",
        "known": "one visitor, another question about the same users",
        "own": "one visitor, a question and memories in their words",
    }
    rows = [(names[name], one) for name, one in found["alone"].items()]
    for one in found["load"]:
        reads = f"each reads {one['think_s']:g} s" if one["think_s"] else "who read nothing"
        rows.append((f"{one['visitors']} visitors at once, {reads}", one))
    lines = ["| Visitors | answers | errors | median (s) | p95 (s) | longest (s) |",
             "|---|--:|--:|--:|--:|--:|"]  # fmt: skip
    lines += [
        f"| {name} | {one['n']} | {one['errors']} | {one['median_s']:.1f} | {one['p95_s']:.1f} | "
        f"{one['max_s']:.1f} |"
        for name, one in rows
    ]
    memory = ", ".join(f"{mb:,} MB {when}" for when, mb in found["memory_mb"].items())
    return (
        f"`{found['command']}` ({found['machine']}, {found['model']}; an answer is three prompts: "
        "no memory and two memories)\n\n"
        + "\n".join(lines)
        + f"\n\nFrom start to the first page {found['start_s']:.0f} s. Memory of the server: "
        f"{memory}."
    )


TABLES = {
    **dict.fromkeys(["logo_builtin", "logo_movielens"], logo_table),
    **dict.fromkeys(["logo_builtin brief", "logo_movielens brief"], logo_brief),
    "logo_ablations": logo_comparison,
    "logo_over_time": logo_slices,
    "logo_training": logo_training_table,
    "space": space_table,
    "memories": memories_table,
    "dpo_main": mitigation_table,
    "dpo_training": dpo_training_table,
    "plum_training": plum_training_table,
    "plum_oasst": sweep_table,
    "plum_builtin": sweep_table,
    **dict.fromkeys(
        [
            f"plum_{sweep}"
            for sweep in ("balance", "epochs", "lambda", "negatives", "order", "rank", "replay")
        ],
        ablation_table,
    ),
    "preferences": preferences_table,
    "demo": audit_table,
    "steu": audit_table,
    "grid": grid_table,
    "scoring": scoring_table,
    "calibration": calibration_table,
    "check": check_table,
}


def fill() -> None:
    """Fill every marked table of README and docs."""

    def table(match: re.Match) -> str:
        found = json.loads((HERE / f"{match[1].split()[0]}.json").read_text("utf-8"))
        return f"<!-- results:{match[1]} -->\n{TABLES[match[1]](found)}\n<!-- /results -->"

    marked = r"<!-- results:([\w ]+) -->\n.*?<!-- /results -->"
    for page in PAGES:
        page.write_text(re.sub(marked, table, page.read_text("utf-8"), flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["add", name, run_dir]:
            add(name, Path(run_dir))
        case ["check", *runs] if runs:
            add_check(*runs)
        case ["preferences", *builds] if builds:
            add_preferences(*builds)
        case ["memories", *runs] if runs:
            add_memories(*runs)
        case ["logo", name, out, *options] if options:
            found = json.loads((Path(out) / "result.json").read_text("utf-8"))
            add_logo(name, found, ["evaluate", *options])
        case ["logo_compare", name, out]:
            found = json.loads((Path(out) / "comparison.json").read_text("utf-8"))
            add_logo(name, found, ["compare", *found["evaluations"]])
        case ["tables"]:
            fill()
        case _:
            sys.exit(__doc__)
