"""Time per trial and memory of an audit, as memories, their length, items and options grow.

Every point is an audit in a process of its own; the output is relative to the smallest point of its
axis, in which time is that of scoring without loading, and memory the process's peak.

    python benchmarks/growth.py --out results/growth.json --axes memories tokens options
    python benchmarks/growth.py --out results/growth.json --axes items

An axis takes some three minutes on 2 cores; axes that are in the file already stay there.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_run
from unswayed.data.items import load_items
from unswayed.data.personas import builtin_personas
from unswayed.models.load import load_lm

AXES = {  # what grows; the other sizes of an axis stay as they are
    "memories": {"memories": (1, 4, 15, 60), "tokens": 200, "items": 3, "options": 5},
    "tokens": {"memories": 1, "tokens": (50, 200, 800, 3200, 8000), "items": 6, "options": 5},
    "items": {"memories": 1, "tokens": 200, "items": (45, 150, 450, 1000), "options": 5},
    "options": {"memories": 1, "tokens": 200, "items": 12, "options": (2, 4, 6, 8, 10)},
}
SLOTS = (
    "demographic_attributes", "family_background", "social_connections", "personal_assets",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Size:
    """Of an audit: users, tokens of what is known of each, items, and options of an item."""

    memories: int
    tokens: int
    items: int
    options: int


def write_items(path: Path, size: Size) -> None:
    """The bank's understanding items again and again, numbered, with as many options."""
    bank = load_items(["understanding"])
    emotions = list(dict.fromkeys(option for item in bank for option in item.options))
    with path.open("w", encoding="utf-8") as file:
        for i in range(size.items):
            item = bank[i % len(bank)]
            key = item.options[item.key]
            others = [emotion for emotion in emotions if emotion != key]
            row = {
                "id": f"i{i}",
                "scenario": f"Case {i + 1}. {item.scenario}",
                "options": [key, *others[: size.options - 1]],
                "key": key,
            }
            file.write(json.dumps(row) + "\n")


def write_personas(path: Path, size: Size, model: str) -> None:
    """Different users, each known by so many tokens of the built-in personas' texts."""
    lm = load_lm(model)
    texts = [" ".join(text for _, text in persona.texts()) for persona in builtin_personas()]
    rows = []
    for i in range(size.memories):
        words = " ".join(texts[(i + j) % len(texts)] for j in range(1 + size.tokens // 50))
        ids = lm.tok_encode(words)[: size.tokens]
        cut = [round(n * len(ids) / len(SLOTS)) for n in range(len(SLOTS) + 1)]
        parts = [lm.tok_decode(ids[a:b]).strip() for a, b in itertools.pairwise(cut)]
        slots = dict(zip(SLOTS, parts, strict=True))
        rows.append({"id": f"u{i}", "domain": "growth", "advantaged": slots})
    path.write_text(json.dumps(rows), "utf-8")


def point(size: Size, model: str) -> dict[str, float]:
    """One audit in this process: seconds of scoring, and the peak of memory in MB."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_items(folder / "items.jsonl", size)
        write_personas(folder / "personas.yaml", size, model)
        run = read_run(
            run_audit(
                AuditArguments(
                    model=model,
                    items=[f"growth={folder / 'items.jsonl'}"],
                    personas=str(folder / "personas.yaml"),
                    conditions=["advantaged"],
                    out=folder / "run",
                )
            )
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"trials": run["n_trials"], "seconds": run["seconds"], "peak_mb": round(peak)}


def in_child(size: Size, model: str) -> dict[str, float]:
    """`point` in a new process, so that one's peak is not another's."""
    command = [sys.executable, __file__, "--model", model]
    done = subprocess.run(
        [*command, "--point", json.dumps(dataclasses.asdict(size))],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def axis(name: str, model: str, sizes: dict) -> list[dict[str, float]]:
    """The points of an axis, beside the smallest: ratios of time per trial and of memory."""
    rows = []
    for value in sizes[name]:
        row = {name: value} | in_child(Size(**(sizes | {name: value})), model)
        row["seconds_per_trial"] = row["seconds"] / row["trials"]
        first = rows[0] if rows else row
        row["time_ratio"] = round(row["seconds_per_trial"] / first["seconds_per_trial"], 2)
        row["memory_ratio"] = round(row["peak_mb"] / first["peak_mb"], 2)
        rows.append(row)
        print(row, flush=True)
    return [row | {"seconds_per_trial": round(row["seconds_per_trial"], 3)} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--most", type=int, help="leave out larger values, to try it")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(point(Size(**json.loads(arguments.point)), arguments.model)))
        return
    kept = json.loads(arguments.out.read_text("utf-8")) if arguments.out.exists() else {}
    kept["command"] = f"python benchmarks/growth.py --model {arguments.model} --out {arguments.out}"
    for name in arguments.axes:
        values = [v for v in AXES[name][name] if arguments.most is None or v <= arguments.most]
        kept[name] = axis(name, arguments.model, AXES[name] | {name: values})
        arguments.out.write_text(json.dumps(kept, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
