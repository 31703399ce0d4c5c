"""How does the cost of LoGo's global memory grow with users and segments of time?

For built-in populations of several sizes, cut into several numbers of segments, one table of
seconds: to find communities and make lessons, and to train the modules. Of each segment the same
number of answers is learnt, however many users gave them.

    python benchmarks/logo_training.py --out results/logo_training.json   (5 minutes on one core)
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import shlex
import sys
import tempfile
import time
from pathlib import Path

import torch

from unswayed.data.histories import load_histories, segments
from unswayed.logo.globals import make_stages, train_global
from unswayed.logo.recipe import read_recipe
from unswayed.models.base import load_base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=Path("recipes/logo/smollm2-135m.yaml"))
    parser.add_argument("--users", type=int, nargs="+", default=[60, 960])
    parser.add_argument("--segments", type=int, nargs="+", default=[3, 9])
    parser.add_argument("--samples", type=int, default=20, help="answers learnt of each segment")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    recipe = read_recipe([arguments.recipe])
    settings = recipe.settings
    logo = dataclasses.replace(recipe.logo, samples_per_segment=arguments.samples)
    base = load_base(recipe.model, recipe.dtype)
    rows = []
    for users in arguments.users:
        histories = load_histories(f"builtin:users={users}")
        for count in arguments.segments:
            start = time.perf_counter()
            parts = segments(histories.events, count)
            stages = make_stages(histories.task, parts, histories.users, logo, settings.seed)
            made = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                train_global(base, stages, settings, Path(folder))
            trained = time.perf_counter()
            rows.append(
                {
                    "users": users,
                    "answers": len(histories.events),
                    "segments": count,
                    "lessons": sum(len(stage.lessons) for stage in stages),
                    "lessons_s": round(made - start, 2),
                    "training_s": round(trained - made, 2),
                }
            )
            print(rows[-1], flush=True)
    found = {
        "command": shlex.join(["python", "benchmarks/logo_training.py", *sys.argv[1:]]),
        "model": recipe.model,
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, {base.model.device}",
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
