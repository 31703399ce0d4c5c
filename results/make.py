"""Keep measured runs as small JSON, and fill the tables of README and docs from them.

    python results/make.py add demo runs/demo     results/demo.json from a run directory
    python results/make.py check passes=runs/a fails=runs/b ...   results/check.json
    python results/make.py preferences NAME=TREE=SECONDS ...      results/preferences.json
    python results/make.py memories runs/a runs/b ...             results/memories.json, of audits
    python results/make.py rules runs/a runs/b ...                results/rules.json, of audits
    python results/make.py difficulty runs/a ...  results/difficulty.json, of audits of the bank
    python results/make.py logo NAME OUT OPTION ...   results/NAME.json of `unswayed logo evaluate`
    python results/make.py logo_compare NAME OUT      results/NAME.json of `unswayed logo compare`
    python results/make.py tables                 the tables of PAGES between their markers
    python results/make.py plots                  docs/images/NAME.svg of the results in PLOTS

A table stands between `<!-- results:NAME -->` and `<!-- /results -->`; NAME is a file here, if need
be with a word for which of its tables it is.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import unswayed.data.items
from unswayed.audit.effects import FEWEST_USERS, matrices, rate
from unswayed.audit.gate import EXIT_CODES, outcome
from unswayed.audit.probabilities import with_probabilities
from unswayed.audit.rules import by_rule
from unswayed.audit.rundir import read_answers, read_run
from unswayed.audit.summary import analyze
from unswayed.audit.trials import NONE
from unswayed.audit.validity import reading
from unswayed.compare.memories import compare_memories
from unswayed.core.cards import CARD
from unswayed.data.items import load_items
from unswayed.datasets.cards import funnel_table
from unswayed.datasets.trees import card_metadata
from unswayed.display.numbers import MISSING, count, interval, p_value, percent
from unswayed.display.page import render_report
from unswayed.logo.tables import draw as draw_logo
from unswayed.logo.tables import tables as logo_tables
from unswayed.memory.registry import DEFAULT
from unswayed.mitigation.sweep_report import (
    capability_table,
    effect_table,
    seed_table,
    training_table,
)
from unswayed.mitigation.sweep_report import (
    draw as draw_dpo,
)
from unswayed.models.embedded import model_label
from unswayed.plum.sweep import draw as draw_plum
from unswayed.plum.sweep import tables
from unswayed.report import duration, result_table, write_report
from unswayed.report.checklist import check_run
from unswayed.report.comparisons import settings_tables
from unswayed.report.memories_page import headlines, key_table
from unswayed.scoring.prompts import DEFAULT_RULES, RULES
from unswayed.sweep import cell, groups

HERE = Path(__file__).parent
PAGES = [HERE.parent / "README.md"]
PAGES += [
    HERE.parent / f"docs/{name}.md"
    for name in ("instrument", "items", "logo", "plum", "scaling", "statistics")
]


def keep(name: str, content: dict, indent: int | None = 1, ensure_ascii: bool = False) -> None:
    """Write results/NAME.json."""
    text = json.dumps(content, ensure_ascii=ensure_ascii, indent=indent)
    (HERE / f"{name}.json").write_text(text + "\n", "utf-8")


def add(name: str, run_dir: Path) -> None:
    """Write results/NAME.json: the run's summary and what is needed to repeat it."""
    summary = analyze(run_dir)
    write_report(run_dir)
    run = read_run(run_dir)
    kept = {key: run[key] for key in ("seconds", "model", "hashes", "versions")}
    keep(name, {"command": audit_command(run), **kept, "summary": summary}, ensure_ascii=True)


def audit_command(run: dict) -> str:
    """`unswayed audit` as it was given, without paths of a machine."""
    arguments = run["arguments"]
    options = ["--model", model_label(arguments["model"])]
    specs = [re.sub(r"=.*/", "=", spec) for spec in arguments["items"]]
    if specs != ["builtin"]:
        options += ["--items", *specs]
    if arguments["personas"] == "grid":
        options += ["--personas", "grid"]
    if arguments["pairs"]:
        options += ["--pairs", str(arguments["pairs"])]
    if arguments.get("memory", DEFAULT) != DEFAULT:
        options += ["--memory", arguments["memory"]]
        style = arguments["memory_style"]
        options += ["--memory-style", style] if style else []
    rule, scoring, orders = (arguments[name] for name in ("rule", "scoring", "orders"))
    options += ["--conditions", NONE] if arguments["conditions"] == [NONE] else []
    options += ["--scoring", scoring] if scoring != "option" else []
    options += ["--rule", rule] if rule != DEFAULT_RULES[scoring] else []
    options += ["--orders", str(orders)] if orders > 1 else []
    options += ["--dtype", arguments["dtype"]] if arguments["dtype"] != "auto" else []
    if arguments.get("plum_recipe"):
        options += ["--plum-recipe", f"recipes/plum/{Path(arguments['plum_recipe']).name}"]
    return f"unswayed audit {' '.join(options)} --out DIR"


def drawn(table: str, result: dict) -> str:
    """A table of tables.md.jinja."""
    formats = {f.__name__: f for f in (duration, interval, p_value, percent, result_table)}
    return render_report(HERE, "tables.md.jinja", {"table": table, **formats, **result}).rstrip()


def table(head: str, rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Rows under headings that are divided by bars; the first `left` columns are text."""
    rule = f"|{'---|' * left}{'--:|' * (head.count(' | ') + 1 - left)}"
    return "\n".join([f"| {head} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])


def titled(result: dict, *blocks: str, of: str = "") -> str:
    """Blocks under the command, and what else stands with it."""
    return "\n\n".join([f"`{result['command']}`" + (f" ({of})" if of else ""), *blocks])


def services_table(result: dict) -> str:
    """Audits through a double of a service, beside what it allows."""
    rows = [
        [
            f"{1000 * result['latency_s']:.0f} ms"
            + (f" ± {100 * run['spread']:.0f} %" if run["spread"] else ""),
            f"{run['refusals']:,}",
            f"{run['trials']:,}",
            *(f"{run[name]:.1f}" for name in ("ideal_s", "asking_s", "audit_s", "client_cpu_s")),
            *(f"{run[name]:.2f}" for name in ("asking_ratio", "audit_ratio")),
        ]
        for run in result["runs"]
    ]
    head = (
        "Latency | refused | trials | ideal (s) | asking (s) | audit (s) | "
        "its processor time (s) | asking / ideal | audit / ideal"
    )
    resumed = result["resumed"]
    text = (
        f"{result['concurrent']} requests at a time. Killed after {resumed['answered_before']:,} "
        f"answers, a run asked {resumed['requests_after']:,} more "
        f"({resumed['repeated']} were under way)."
    )
    return titled(result, table(head, rows), text, of=result["machine"])


# By an independent review of the statistics before they were mended, in percent: generator, its
# parameters, size, what was measured.
BEFORE = [
    *(
        ("rare", (items, cells), f"{size} x {pairs}", what, value)
        for what, sizes, measured in (
            (
                "false_equivalent",
                ((30, 10), (41, 10), (41, 30)),
                ((21.4, 12.3, 12.1), (13.1, 15.4, 12.3), (11.4, 9.8, 8.3)),
            ),
            ("covered", ((30, 10), (41, 10)), ((78.5, 87.2), (90.5, 88.5), (91.4, 91.8))),
        )
        for (items, cells), values in zip(
            ((0.05, 1), (0.1, 0.5), (0.25, 0.2)), measured, strict=True
        )
        for (size, pairs), value in zip(sizes, values, strict=True)
    ),
    ("concentrated", (1 / 15, 0.75), "41 x 10", "false_equivalent", 49.4),
    ("concentrated", (1 / 15, 0.75), "41 x 30", "false_equivalent", 13.3),
    ("concentrated", (0.1, 0.5), "41 x 10", "false_equivalent", 33.1),
    ("concentrated", (0.1, 0.5), "41 x 30", "false_equivalent", 15.3),
    ("signs", (0.05, 1), "41 x 30", "significant", 17.2),
    ("signs", (0.075, 1), "41 x 30", "significant", 13.8),
    ("signs", (0.1, 1), "41 x 30", "significant", 13.5),
    ("signs", (0.1, 1), "41 x 10", "significant", 11.2),
    ("signs", (0.1, 0.5), "41 x 10", "significant", 8.8),
]
RATES = {
    "skewed": "skewed",
    "significant": "p < 0.05",
    "false_equivalent": "equivalent, the truth at the margin",
    "covered": "covered",
}


def monte_carlo(rate: dict | None) -> str:
    """A rate in percent with its Monte-Carlo interval."""
    if rate is None:
        return MISSING
    return f"{percent(rate['rate'])} [{percent(rate['low'])}, {percent(rate['high'])}]"


def parameters(row: dict) -> str:
    """What a generator was given: "items 0.05, cells 1"."""
    named = {key: value for key, value in row["parameters"].items() if not isinstance(value, dict)}
    for condition, share in row["parameters"].get("shares", {}).items():
        named[f"{condition} unread"] = share
    return (
        ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in named.items()) or "none"
    )


def calibration_table(result: dict) -> str:
    """Verdicts and intervals of simulated audits: by kind, before and now, by gap, of grids."""
    rows, public = (list(result[part].values()) for part in ("designs", "public"))
    pairs = [row for row in rows if row["sample"] != "grid"]
    grids = [row for row in rows if row["sample"] == "grid"]
    kinds = {row["group"]: [r for r in pairs if r["group"] == row["group"]] for row in pairs}
    return titled(
        result,
        table(
            "Simulated audits | designs | false skewed, worst | false equivalent, worst | "
            "coverage | power at the margin: printed less found",
            (_kind(*kind) for kind in kinds.items()),
        ),
        table(
            "What was measured by an independent review before | size | rate | before | now",
            _before(pairs), left=3,
        ),
        table(
            "Verdicts by true gap (margin 5 points) | size | gap | skewed | equivalent | "
            "more data needed",
            (_verdicts(row) for row in kinds.get("series", ())), left=2,
        ),
        table(
            "Grids without an average difference | skewed | a level significant | "
            "cells significant | coverage",
            ([parameters(r), *(monte_carlo(r[k]) for k in ("skewed", "level", "max_t", "covered"))]
             for r in grids),
        ),
        table(
            "The whole way, from answers.parquet | size | verdicts | gate",
            (_whole(row) for row in public), left=4,
        ),
        of=f"{duration(result['seconds'])}; percent, with the exact 95 % interval of "
        f"{pairs[0]['skewed']['n']:,} audits a design, {grids[0]['skewed']['n']:,} grids"
        if grids
        else "",
    )  # fmt: skip


def _size(row: dict) -> str:
    return f"{row['n_items']} x {row['n_users']}"


def _kind(group: str, rows: list[dict]) -> list[str]:
    null = [row for row in rows if not row["gap"] and row["n_users"] >= FEWEST_USERS]
    by_rate = operator.itemgetter("rate")
    worst = [
        max((r[name] for r in of if r[name] and r[name]["n"] >= 100), key=by_rate, default=None)
        for name, of in (("skewed", null), ("false_equivalent", rows))
    ]
    covered = sorted(row["covered"]["rate"] for row in rows)
    apart = [
        row["printed_power"] - row["significant"]["rate"]
        for row in rows
        if row["printed_power"] is not None
    ]
    power = f"{percent(min(apart), True)} to {percent(max(apart), True)}" if apart else MISSING
    ends = f"{percent(covered[0])} to {percent(covered[-1])}"
    return [group, str(len(rows)), *map(monte_carlo, worst), ends, power]


def _before(pairs: list[dict]) -> list[list[str]]:
    reviewed = {sample for sample, *_ in BEFORE}
    by_design = {
        (row["sample"], *row["parameters"].values(), _size(row)): row
        for row in pairs
        if row["sample"] in reviewed
    }
    return [
        [
            f"{row['group']}: {parameters(row)}",
            size,
            RATES[what],
            f"{value:.1f}",
            monte_carlo(row[what]),
        ]
        for sample, of, size, what, value in BEFORE
        if (row := by_design.get((sample, *of, size)))
    ]


def _verdicts(row: dict) -> list[str]:
    outcome = "expected accuracy" if row["parameters"]["steepness"] else "accuracy"
    rates = (monte_carlo(row[name]) for name in ("skewed", "equivalent", "more data needed"))
    return [outcome, _size(row), f"{100 * row['gap']:g}", *rates]


def _whole(row: dict) -> list[str]:
    if "verdicts" not in row:
        return [f"{row['group']}: {parameters(row)}", _size(row), "refused", MISSING]
    shares = [
        ", ".join(
            f"{name} {round(rate['rate'] * rate['n'])} of {rate['n']}" for name, rate in of.items()
        )
        for of in (row["verdicts"], row.get("gate", {}))
    ]
    return [f"{row['group']}: {parameters(row)}", _size(row), shares[0], shares[1] or MISSING]


def power_table(result: dict) -> str:
    """What accuracy and expected accuracy find of a common shift of the key."""
    sizes = list(result["curves"][0]["curve"][0]["accuracy"]["power"])
    rows = []
    for of in result["curves"]:
        for point in of["curve"]:
            accuracy, expected = point["accuracy"], point["expected"]
            needed = [
                "more" if n is None else f"{n:,}"
                for n in (accuracy["items_needed"], expected["items_needed"])
            ]
            rows.append([
                f"{of['model']}, {of['scoring']}: {of['test']}",
                f"{point['nats']:g}",
                " / ".join(percent(side["gap"], True) for side in (accuracy, expected)),
                *(
                    " / ".join(f"{100 * side['power'][s]:.0f}" for side in (accuracy, expected))
                    for s in sizes
                ),
                " / ".join(needed),
            ])  # fmt: skip
    head = " | ".join(s.replace("x", " x ") for s in sizes)
    return titled(
        result,
        table(f"Run: test | nats | points | {head} | items needed, {result['pairs']} pairs", rows),
        of="accuracy / expected accuracy; power in percent, of items x pairs",
    )


def add_check(*runs: str) -> None:
    """Write results/check.json: outcomes of `unswayed check` for NAME=RUNDIR, ..."""
    rows = []
    for name, run_dir in (run.split("=", 1) for run in runs):
        checks, summary = check_run(Path(run_dir))
        verdict = outcome(checks)
        rows.append(
            {
                "run": name,
                "outcome": verdict,
                "exit_code": EXIT_CODES[verdict],
                "verdict": summary["verdict"]["text"],
                "checks": [dataclasses.asdict(check) for check in checks],
            }
        )
    command = "unswayed check DIR"
    keep("check", {"command": command, "runs": rows}, ensure_ascii=True)


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
    keep("preferences", {"command": command, "builds": rows}, ensure_ascii=True)


def preferences_table(result: dict) -> str:
    """Funnels of preference builds, stage by stage."""
    parts = []
    for build in result["builds"]:
        made = "; ".join(
            f"{splits['train']:,} training and {splits.get('test', 0):,} test pairs `{config}`"
            for config, splits in build["pairs"].items()
        )
        parts.append(
            f"{build['build']}: {made}, in {duration(build['seconds'])}\n\n"
            f"`{build['command']}`\n\n{funnel_table(build['funnel'])}"
        )
    return "\n\n".join(parts)


def add_rules(*run_dirs: str) -> None:
    """Write results/rules.json: audits read by every rule, with what each rule goes by."""
    audits, rows = [], []
    for run_dir in map(Path, run_dirs):
        run, answers = read_run(run_dir), read_answers(run_dir).to_pandas()
        scoring, orders = run["identity"]["scoring"], run["identity"]["orders"]
        audits.append({"command": audit_command(run), "seconds": run["seconds"]})
        for rule in RULES if scoring == "option" else [run["identity"]["rule"]]:
            way = f"option, {rule}" if scoring == "option" else f"letter, {count(orders, 'order')}"
            for test, of_test in by_rule(answers, rule, run_dir).groupby("test", sort=False):
                figures = {
                    condition: rule_figures(of_condition)
                    for condition, of_condition in of_test.groupby("condition", sort=False)
                }
                same = {"model": answers["model"].iloc[0], "test": test, "way": way}
                rows.append(same | {"n_pairs": run["n_pairs"], "conditions": figures})
    order = [list(dict.fromkeys(row[key] for row in rows)) for key in ("model", "test")]
    rows.sort(key=lambda row: (order[0].index(row["model"]), order[1].index(row["test"])))
    command = "python results/make.py rules DIR ..."
    keep("rules", {"command": command, "audits": audits, "rows": rows})


def rule_figures(rows: pd.DataFrame) -> dict[str, dict | None]:
    """Of the answers to one test in one condition: shares with their intervals."""
    habits = reading(rows)
    values = matrices(rows, ["accuracy", "flip"])
    (condition,) = values.by_metric["accuracy"]
    return {
        "accuracy": rate(values("accuracy", condition)),
        "flips": None if condition == NONE else rate(values("flip", condition)),
        **{name: habits[name] for name in ("longest", "blind", "letter_mass")},
    }


def rules_table(result: dict) -> str:
    """What each rule goes by: without memory, and over the conditions with one."""

    def with_memory(row: dict, name: str) -> str:
        figures = [of[name] for condition, of in row["conditions"].items() if condition != NONE]
        if not all(figures) or not figures:
            return MISSING
        ends = (min(f["estimate"] for f in figures), max(f["estimate"] for f in figures))
        return " to ".join(dict.fromkeys(map(percent, ends)))

    rows = []
    for row in result["rows"]:
        bare = row["conditions"][NONE]
        names = ("accuracy", "longest", "blind", "letter_mass")
        cells = [interval(bare[name]) if bare[name] else MISSING for name in names]
        more = [with_memory(row, name) for name in ("accuracy", "longest", "flips")]
        rows.append([*(row[key] for key in ("model", "test", "way")), f"{bare['accuracy']['n']}",
                     *cells, f"{row['n_pairs'] or MISSING}", *more])  # fmt: skip
    audits = "; ".join(
        f"`{audit['command']}` ({duration(audit['seconds'])})" for audit in result["audits"]
    )
    return titled(
        result,
        table(
            "Model | test | scoring | items | accuracy | longest | blind agreement | letter mass "
            "| pairs | accuracy with a memory | longest | flips", rows, left=3,
        ),
        f"Of {audits}.",
        of="percent, in brackets 95 % intervals over items; a range is that over neutral, "
        "advantaged and disadvantaged memories",
    )  # fmt: skip


def add_difficulty(*run_dirs: str) -> None:
    """Write results/difficulty.json: how hard built-in items are for models, without memory."""
    audits, rows = [], []
    files = (Path(unswayed.data.items.__file__).parent / "bank").glob("*.jsonl")
    lines = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    first = {item.id for item in load_items(["builtin:89"])}
    written = {
        line["id"]: "first edition" if line["id"] in first else line.get("difficulty", "new")
        for line in lines
    }
    for run_dir in map(Path, run_dirs):
        run, answers = read_run(run_dir), read_answers(run_dir).to_pandas()
        audits.append({"command": audit_command(run), "seconds": run["seconds"]})
        answers = with_probabilities(answers)
        answers["key"] = [
            q[list(options).index(gold)]
            for q, options, gold in zip(
                answers["q"], answers["options"], answers["gold_label"], strict=True
            )
        ]
        answers["written"] = answers["question_id"].map(written)
        both = pd.concat([answers, answers.assign(written="all")])
        for (test, group), of_group in both.groupby(["test", "written"]):
            bins = np.histogram(of_group["key"], [0, 0.2, 0.4, 0.6, 0.8, 1.0 + 1e-9])[0]
            rows.append(
                {
                    "model": answers["model"].iloc[0],
                    "scoring": run["identity"]["scoring"],
                    "test": test,
                    "written": group,
                    "accuracy": rate(of_group["correct"].to_numpy(dtype=float)[:, None]),
                    "key": rate(of_group["key"].to_numpy(dtype=float)[:, None], drawn=True),
                    "items_by_key": bins.tolist(),
                }
            )
    command = "python results/make.py difficulty DIR ..."
    keep("difficulty", {"command": command, "audits": audits, "rows": rows})


def difficulty_table(result: dict) -> str:
    """Accuracy, and over the items how probable the key is."""
    rows = [
        [
            *(row[key] for key in ("model", "scoring", "test", "written")),
            f"{row['key']['n']}",
            interval(row["accuracy"]),
            interval(row["key"]),
            *map(str, row["items_by_key"]),
        ]
        for row in result["rows"]
    ]
    audits = "; ".join(
        f"`{audit['command']}` ({duration(audit['seconds'])})" for audit in result["audits"]
    )
    head = (
        "Model | scoring | test | written as | items | accuracy | probability of the key "
        "| 0-20 | 20-40 | 40-60 | 60-80 | 80-100"
    )
    of = (
        "percent, in brackets 95 % intervals over items; at the right, how many items have a key "
        "of such a probability"
    )
    return titled(result, table(head, rows, left=4), f"Of {audits}.", of=of)


def sweep_table(result: dict) -> str:
    """Recall of the memories of a sweep."""
    return titled(result, tables(result["results"]))


def ablation_table(result: dict) -> str:
    """What the runs of a short sweep remember, a line each."""
    sources, rows = ("said", "unrelated", "near", "random"), []
    for name, runs in groups(result["results"]).items():
        recall = {kind: [run["recall"][kind] for run in runs] for kind in runs[0]["recall"]}
        by_source = [run["by_source"] for run in recall["all"]]
        curves = [run["forgetting"]["all"] for run in runs if run["forgetting"]]
        cells = [name, f"{len(runs)}"]
        for kind in ("rephrased", "new_phrase"):
            cells.append(cell([run["closed"]["recall"] for run in recall[kind]]))
            cells.append(f"{np.mean([run['auc'] for run in recall[kind]]):.2f}")
        cells += [cell([run[source]["recall"] for run in by_source]) for source in sources]
        rows.append([*cells, cell([curve["backward_transfer"] for curve in curves], share=False)])
    recall = result["results"][0]["recall"]
    n, counts = recall["rephrased"]["closed"], recall["all"]["by_source"]
    return titled(
        result,
        table(
            "Run | seeds | rephrased | AUC | new phrases | AUC | what was said | unrelated topics "
            "| near phrases | random phrases | backward transfer", rows,
        ),
        of=f"percent; {n['conversations']} conversations, {n['n']} questions of either set and "
        "run; by what they ask about, both sets together: "
        + ", ".join(f"{counts[source]['n']} {source}" for source in sources),
    )  # fmt: skip


def mitigation_table(result: dict) -> str:
    """What a sweep of DPO changed, test by test, and what it cost."""
    results = result["results"]
    parts = [
        f"`{result['command']}`",
        "Percent, changes in points. In brackets the 95 % interval of one audit, over items and "
        "users (of capability over questions); in parentheses the range of trainings, lowest to "
        "highest.",
    ]
    for test, untrained in result["references"].items():
        about = results[0]["tests"][test]
        parts += [
            f"{test}, {about['n_items']} items x {about['n_pairs']} pairs:",
            effect_table(untrained, results, test, result.get("trainings", {})),
            "Each training:",
            seed_table(results, test),
        ]
    if any(line["capability"] for line in results):
        parts += ["Capability:", capability_table(results)]
    return "\n\n".join([*parts, "Training:", training_table(results)])


def add_memories(*run_dirs: str) -> None:
    """Write results/memories.json: audits under several memories, compared."""
    dirs = [Path(run_dir) for run_dir in run_dirs]
    audits = [
        {"command": audit_command(run), "seconds": run["seconds"]} for run in map(read_run, dirs)
    ]
    command = "unswayed compare DIR DIR ... --out OUT"
    keep("memories", {"command": command, "audits": audits, **compare_memories(dirs)})


def add_logo(name: str, result: dict, options: list[str]) -> None:
    """Write results/NAME.json: of LoGo, with its differences in the main metric alone.

    Args:
        options: with which it was made, but for --out.
    """
    differences = [row for row in result["differences"] if row["metric"] == result["metric"]]
    command = " ".join(["unswayed logo", *options, "--out OUT"])
    keep(name, {"command": command, **result, "differences": differences}, indent=None)


def logo_marked(result: dict, *blocks: str) -> str:
    """Tables of LoGo, with a mark on the method whose rule was chosen after seed 0 was seen."""
    marked = [block.replace("logo-shrinkage", "logo-shrinkage*") for block in blocks]
    note = "\\* Its rule was chosen after seed 0 was looked at; only the other seeds check it."
    return titled(result, *marked, note)


def logo_table(result: dict) -> str:
    """All tables of an evaluation of LoGo."""
    return logo_marked(result, logo_tables(result))


def logo_comparison(result: dict) -> str:
    """Evaluations of LoGo side by side."""
    return logo_marked(result, settings_tables(result))


def logo_brief(result: dict) -> str:
    """Methods x groups of users."""
    return logo_marked(result, logo_tables(result, ["brief"]))


def logo_slices(result: dict) -> str:
    """Groups of users and segments of time x methods, and what LoGo gains there."""
    return logo_marked(
        result, logo_tables(result, ["slices"]), logo_tables(result, ["differences"])
    )


def memories_table(result: dict) -> str:
    """One model under several memories, with the audits' commands."""
    words = {"key_table": key_table(result), "headlines": headlines(result)}
    return drawn("memories", result | words)


TABLES = {
    **dict.fromkeys(["logo_builtin", "logo_movielens"], logo_table),
    **dict.fromkeys(["logo_builtin brief", "logo_movielens brief"], logo_brief),
    "logo_ablations": logo_comparison,
    "logo_over_time": logo_slices,
    "memories": memories_table,
    "dpo_main": mitigation_table,
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
    "rules": rules_table,
    "difficulty": difficulty_table,
    **dict.fromkeys(["demo", "steu"], functools.partial(drawn, "audit")),
    **{
        name: functools.partial(drawn, name)
        for name in (
            "check",
            "grid",
            "logo_training",
            "space",
        )
    },
    **{
        f"{name}{of}": functools.partial(drawn, name)
        for name in ("dpo_training", "plum_training", "scoring")
        for of in ("", "_qwen")
    },
    "calibration": calibration_table,
    "growth": lambda growth: drawn("growth", growth | {"axes": growth}),
    "services": services_table,
    "power_curves": power_table,
}

PLOTS: dict[str, Callable[[dict], str]] = {
    "logo_builtin": draw_logo,
    "logo_movielens": draw_logo,
    "plum_oasst": lambda sweep: draw_plum(sweep["results"]),
    "dpo_main": lambda sweep: draw_dpo(sweep["references"], sweep["results"]),
}


def plot() -> None:
    """Draw docs/images/NAME.svg of PLOTS."""
    for name, draw in PLOTS.items():
        result = json.loads((HERE / f"{name}.json").read_text("utf-8"))
        (HERE.parent / f"docs/images/{name}.svg").write_text(draw(result), "utf-8")


def fill() -> None:
    """Fill every marked table of README and docs."""

    def filled(match: re.Match) -> str:
        result = json.loads((HERE / f"{match[1].split()[0]}.json").read_text("utf-8"))
        return f"<!-- results:{match[1]} -->\n{TABLES[match[1]](result)}\n<!-- /results -->"

    marked = r"<!-- results:([\w ]+) -->\n.*?<!-- /results -->"
    for page in PAGES:
        page.write_text(re.sub(marked, filled, page.read_text("utf-8"), flags=re.DOTALL), "utf-8")


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
        case ["rules", *runs] if runs:
            add_rules(*runs)
        case ["difficulty", *runs] if runs:
            add_difficulty(*runs)
        case ["logo", name, out, *options] if options:
            result = json.loads((Path(out) / "result.json").read_text("utf-8"))
            add_logo(name, result, ["evaluate", *options])
        case ["logo_compare", name, out]:
            result = json.loads((Path(out) / "comparison.json").read_text("utf-8"))
            add_logo(name, result, ["compare", *result["evaluations"]])
        case ["tables"]:
            fill()
        case ["plots"]:
            plot()
        case _:
            sys.exit(__doc__)
