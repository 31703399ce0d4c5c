"""Keep measured runs as small JSON, and fill the README's tables from them.

    python results/make.py add demo runs/demo     results/demo.json from a run directory
    python results/make.py readme                 the tables in README.md between their markers

A table stands between `<!-- results:NAME -->` and `<!-- /results -->`; NAME is a file here.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from unswayed.audit.report import duration, result_table, write_report
from unswayed.audit.run import read_run
from unswayed.audit.summary import analyze

HERE = Path(__file__).parent
README = HERE.parent / "README.md"


def add(name: str, run_dir: Path) -> None:
    """Write results/NAME.json: the run's summary and what is needed to repeat it."""
    summary = analyze(run_dir)
    write_report(run_dir)
    run = read_run(run_dir)
    arguments = run["arguments"]
    specs = [re.sub(r"=.*/", "=", spec) for spec in arguments["items"]]  # no paths of a machine
    pairs = f" --pairs {arguments['pairs']}" if arguments["pairs"] else ""
    grid = " --personas grid" if arguments["personas"] == "grid" else ""
    items = "" if specs == ["builtin"] else f" --items {' '.join(specs)}"
    content = {
        "command": f"unswayed audit --model {arguments['model']}{items}{grid}{pairs} --out DIR",
        "seconds": run["seconds"],
        "model": run["model"],
        "hashes": run["hashes"],
        "versions": run["versions"],
        "summary": summary,
    }
    (HERE / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")


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


def readme() -> None:
    """Fill every marked table of the README."""

    def table(match: re.Match) -> str:
        found = json.loads((HERE / f"{match[1]}.json").read_text("utf-8"))
        body = audit_table(found) if "summary" in found else scoring_table(found)
        return f"<!-- results:{match[1]} -->\n{body}\n<!-- /results -->"

    marked = r"<!-- results:(\w+) -->\n.*?<!-- /results -->"
    README.write_text(re.sub(marked, table, README.read_text("utf-8"), flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["add", name, run_dir]:
            add(name, Path(run_dir))
        case ["readme"]:
            readme()
        case _:
            sys.exit(__doc__)
