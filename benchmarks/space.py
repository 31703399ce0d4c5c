"""How fast is the Space, alone and with many visitors?

    python benchmarks/space.py --out results/space.json      (8 minutes; the machine has to be idle)

Starts `spaces/memory_flips/app.py` in a process of its own and asks its endpoint /flip, which does
what the button "Ask" does: one question without memory and under two memories.

* start: from the start of the process to the first page, the default model being warm then.
* alone: one visitor. `new` are users whose notes the Space has not encoded yet, `known` other
  questions about the same users, `own` a scenario and two memories in the visitor's words.
* load: visitors at once, each of whom asks, reads for a while (exponential, mean --think seconds)
  and asks again; 0 seconds are visitors who read nothing, the worst case.

Seconds are those from asking to the whole answer, as a visitor waits; memory is the resident set of
the server's process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from gradio_client import Client

from unswayed.core.commands import Parser, run_command
from unswayed.core.errors import InputError
from unswayed.space import flips
from unswayed.space.models import choices

APP = Path(__file__).parents[1] / "spaces" / "memory_flips" / "app.py"
ALONE = 20  # questions of each kind


@contextmanager
def running(log: Path) -> Iterator[tuple[str, psutil.Process, float]]:
    """A Space: its address, its process, and the seconds until its first page.

    Raises:
        InputError: it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.perf_counter()
    with log.open("w") as file:
        app = subprocess.Popen(
            [sys.executable, str(APP)], stdout=file, stderr=file,
            env=os.environ | {"GRADIO_SERVER_PORT": str(port)},
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}/"
    try:
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).read()
                break
            except OSError:
                if app.poll() is not None:
                    raise InputError(f"the Space does not start: see {log}") from None
                time.sleep(0.1)
        yield url, psutil.Process(app.pid), time.perf_counter() - begun
    finally:
        app.terminate()
        app.wait(30)


def seconds_until(client: Client, **question: str) -> float | None:
    """Seconds until the answer; None if there was an error."""
    begun = time.perf_counter()
    try:
        reply = client.predict(**question, api_name="/flip")
    except Exception as error:  # of the connection, the queue or the Space: all are counted
        print(f"error: {error}", file=sys.stderr)
        return None
    if len(reply["answers"]) != 3:
        return None
    return time.perf_counter() - begun


def pairs() -> list[dict[str, str]]:
    """Both versions of each built-in persona, as first and second memory."""
    ids = sorted({user.pair_id for user in flips.users().values() if user.pair_id})
    return [{"a": f"{id}-advantaged", "b": f"{id}-disadvantaged"} for id in ids]


def questions(rng: random.Random) -> Iterator[dict[str, str]]:
    """Any item about any pair of users, again and again."""
    while True:
        yield {"item": rng.choice(list(flips.items()))} | rng.choice(pairs())


def alone(url: str) -> dict[str, dict[str, float]]:
    """Waiting times of one visitor, by how much of the prompt the Space has encoded before."""
    client, rng = Client(url, verbose=False), random.Random(1)
    chosen = rng.sample(pairs()[1:], ALONE)  # not p01, of the example in docs/space.md
    items = rng.sample(list(flips.items()), 2 * ALONE)
    seconds: dict[str, list[float | None]] = {"new": [], "known": [], "own": []}
    for i, users in enumerate(chosen):
        seconds["new"].append(seconds_until(client, item=items[2 * i], **users))
        seconds["known"].append(seconds_until(client, item=items[2 * i + 1], **users))
        item = flips.items()[items[2 * i]]
        # Words of their own from the start: what is kept of other users does not help.
        texts = [f"Visitor {i}. {flips.notes(flips.users()[user])}" for user in users.values()]
        own = {"a": flips.OWN, "b": flips.OWN, "a_text": texts[0], "b_text": texts[1]}
        own |= {"scenario": item.scenario, "options": "\n".join(item.options)}
        seconds["own"].append(seconds_until(client, item=flips.OWN, **own))
    return {name: summary(values) for name, values in seconds.items()}


def load(url: str, visitors: int, each: int, think: float) -> dict[str, float]:
    """Waiting times of many visitors at once."""
    clients = [Client(url, verbose=False) for _ in range(visitors)]

    def visit(number: int) -> list[float | None]:
        rng, waits = random.Random(number), []
        for question, _ in zip(questions(rng), range(each), strict=False):
            if think:
                time.sleep(rng.expovariate(1 / think))
            waits.append(seconds_until(clients[number], **question))
        return waits

    begun = time.perf_counter()
    with ThreadPoolExecutor(visitors) as pool:
        seconds = [wait for waits in pool.map(visit, range(visitors)) for wait in waits]
    spent = time.perf_counter() - begun
    return {"visitors": visitors, "think_s": think} | summary(seconds) | {
        "answers_per_s": round(sum(wait is not None for wait in seconds) / spent, 2)
    }  # fmt: skip


def summary(seconds: Sequence[float | None]) -> dict[str, float]:
    """Number, errors, median, 95th percentile and maximum."""
    waits = [wait for wait in seconds if wait is not None]
    if not waits:
        raise InputError("the Space answered nothing")
    middle, p95 = np.percentile(waits, [50, 95])
    return {
        "n": len(seconds),
        "errors": len(seconds) - len(waits),
        "median_s": round(float(middle), 2),
        "p95_s": round(float(p95), 2),
        "max_s": round(max(waits), 2),
    }


def megabytes(process: psutil.Process) -> int:
    return round(process.memory_info().rss / 1e6)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with running(options.log) as (url, process, start):
        figures: dict[str, Any] = {
            "model": next(iter(choices())),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}",
            "start_s": round(start, 1),
            "memory_mb": {"started": megabytes(process)},
            "alone": alone(url),
        }
        figures["memory_mb"]["after one visitor"] = megabytes(process)
        figures["load"] = [
            load(url, options.visitors, options.each, think) for think in options.think
        ]
        figures["memory_mb"]["after the load"] = megabytes(process)
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("space.py", description="Measure the Space's waiting times.")
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--each", type=int, default=5, help="questions of each visitor")
    parser.add_argument("--think", type=float, nargs="+", default=[0, 30], help="seconds, mean")
    log = Path(tempfile.gettempdir()) / "unswayed-space.log"
    parser.add_argument("--log", type=Path, default=log, help="of the server")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    options = parser.parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "benchmarks/space.py", *words])
    text = json.dumps({"command": command} | measure(options), indent=1)
    options.out.write_text(f"{text}\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    sys.exit(run_command("space.py", main))
