"""How near does an audit through a server come to what the server allows?

    python benchmarks/services.py --out results/services.json        (about 2 minutes on 2 cores)

A double of a chat service, a process of its own, answers each request after `--latency` seconds
with the 20 likeliest first tokens; it has room for everybody. Ideal are trials x latency / requests
at a time. Also measured: with spread latencies and refusals that say when to come back, and a run
that is killed half way and resumed. The client and the double share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import email.utils
import hashlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import random
import resource
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_answers
from unswayed.scoring.api import ChatService

TOKENS = [*"ABCDE", *(f" word{i}" for i in range(15))]
REFUSALS = (429, 503)


def completion(body: bytes) -> bytes:
    """One token with 20 likely ones, drawn from the whole request."""
    weights = [weight + 1 for weight in hashlib.sha256(body).digest()[: len(TOKENS)]]
    top = [
        {"token": token, "logprob": math.log(weight / 6000), "bytes": None}
        for token, weight in zip(TOKENS, weights, strict=True)
    ]
    top.sort(key=lambda entry: -entry["logprob"])
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": top[0]["token"]},
        "logprobs": {"content": [top[0] | {"top_logprobs": top}]},
        "finish_reason": "length",
    }
    return json.dumps({"choices": [choice]}).encode()


class Double(asyncio.Protocol):
    """HTTP/1.1 over a connection that is kept, as far as this client needs it."""

    def __init__(self, latency: float, spread: float, refused: float, seen: dict) -> None:
        self.latency, self.spread, self.refused, self.seen = latency, spread, refused, seen
        self.rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.seen["connections"] += 1

    def data_received(self, data: bytes) -> None:
        self.rest += data
        head, end, body = self.rest.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0"
        if not end or len(body) < int(length):
            return
        self.rest = b""
        if head.startswith(b"GET"):
            bodies = self.seen["bodies"]
            told = {"distinct": len(bodies), "answers": sum(bodies.values()), **self.seen["counts"]}
            self.reply(200, json.dumps(told | {"connections": self.seen["connections"]}).encode())
            return
        counts = self.seen["counts"]
        counts["now"] += 1
        counts["most"] = max(counts["most"], counts["now"])
        seconds = self.latency * random.uniform(1 - self.spread, 1 + self.spread)
        asyncio.get_running_loop().call_later(seconds, self.answer, body)

    def answer(self, body: bytes) -> None:
        self.seen["counts"]["now"] -= 1
        if random.random() >= self.refused:
            self.seen["bodies"][hashlib.sha256(body).digest()] += 1
            self.reply(200, completion(body))
            return
        self.seen["counts"]["refusals"] += 1
        date = email.utils.formatdate(time.time() + 2, usegmt=True)
        after = random.choice(["0.5", date])
        self.reply(random.choice(REFUSALS), b'{"error": "busy"}', f"Retry-After: {after}\r\n")

    def reply(self, status: int, body: bytes, more: str = "") -> None:
        if not self.transport.is_closing():
            head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\n{more}"
            self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def serve(port: Any, *settings: float) -> None:
    async def main() -> None:
        counts = {"now": 0, "most": 0, "refusals": 0}
        seen = {"bodies": Counter(), "connections": 0, "counts": counts}
        server = await asyncio.get_running_loop().create_server(
            lambda: Double(*settings, seen), "127.0.0.1", 0, backlog=1024
        )
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    random.seed(0)
    asyncio.run(main())


@contextmanager
def served(latency: float, spread: float = 0.0, refused: float = 0.0) -> Iterator[str]:
    """The address of a double in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    mine, its = spawn.Pipe()
    process = spawn.Process(target=serve, args=(its, latency, spread, refused), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{mine.recv()}"
    finally:
        process.kill()
        process.join()


def told(url: str) -> dict[str, int]:
    """What a double has seen."""
    import requests

    return requests.get(url, timeout=10).json()


def arguments(url: str, out: Path, concurrent: int, pairs: int, **more: Any) -> AuditArguments:
    return AuditArguments(
        model="double",
        backend="local-chat-completions",
        model_args={
            "base_url": f"{url}/v1/chat/completions",
            "num_concurrent": concurrent,
            "max_retries": 10,
        },
        scoring="letter",
        items=["builtin:89"],
        pairs=pairs,
        conditions=["neutral", "advantaged", "disadvantaged"],
        out=out,
        **more,
    )


class Clock:
    """Seconds spent in asking the service, apart from the rest of an audit."""

    def __init__(self) -> None:
        self.seconds, real = 0.0, ChatService.generate_until

        def timed(lm: Any, *args: Any, **kwargs: Any) -> list[str]:
            start = time.perf_counter()
            try:
                return real(lm, *args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        ChatService.generate_until = timed


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(
    folder: Path, clock: Clock, settings: argparse.Namespace, spread: float, refused: float
) -> dict[str, Any]:
    """One audit, from start to finish."""
    with served(settings.latency, spread, refused) as url:
        out = folder / f"spread {spread} refused {refused}"
        clock.seconds, start, used = 0.0, time.perf_counter(), cpu()
        run_audit(arguments(url, out, settings.concurrent, settings.pairs))
        seconds, seen = time.perf_counter() - start, told(url)
    trials = read_answers(out).num_rows
    assert seen["distinct"] == seen["answers"] == trials  # nothing requested twice
    ideal = (trials + seen["refusals"]) * settings.latency / settings.concurrent
    return {
        "spread": spread,
        "refused": refused,
        "trials": trials,
        "refusals": seen["refusals"],
        "at_a_time": seen["most"],
        "connections": seen["connections"],
        "ideal_s": round(ideal, 2),
        "asking_s": round(clock.seconds, 2),
        "audit_s": round(seconds, 2),
        "client_cpu_s": round(cpu() - used, 2),
        "asking_ratio": round(clock.seconds / ideal, 2),
        "audit_ratio": round(seconds / ideal, 2),
    }


def killed_and_resumed(folder: Path, settings: argparse.Namespace) -> dict[str, Any]:
    """A run whose process is killed (SIGKILL) half way; another one goes on."""
    spawn = multiprocessing.get_context("spawn")
    with served(settings.latency) as url:
        about = arguments(url, folder / "killed", settings.concurrent, settings.pairs)
        process = spawn.Process(target=run_audit, args=(about,))
        process.start()
        half = 89 * 3 * settings.pairs // 2
        while told(url)["answers"] < half:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        time.sleep(3 * settings.latency)  # what was under way is answered to nobody
        before = told(url)
        start = time.perf_counter()
        more = {"resume": True}
        run_audit(arguments(url, folder / "killed", settings.concurrent, settings.pairs, **more))
        seconds, after = time.perf_counter() - start, told(url)
    return {
        "answered_before": before["answers"],
        "requests_after": after["answers"] - before["answers"],
        "repeated": after["answers"] - after["distinct"],
        "resumed_s": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.05, help="seconds per answer")
    parser.add_argument("--concurrent", type=int, default=64, help="requests at a time")
    parser.add_argument("--pairs", type=int, default=30, help="267 trials each")
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    folder, clock = Path(tempfile.mkdtemp()), Clock()
    try:
        with served(0.0) as url:  # imports and the first use of everything
            run_audit(arguments(url, folder / "first", 4, 1))
        cases = [(0.0, 0.0), (0.5, 0.0), (0.5, 0.02)]
        rows = [measure(folder, clock, settings, *case) for case in cases]
        for row in rows:
            print(json.dumps(row))
        resumed = killed_and_resumed(folder, settings)
        print(json.dumps(resumed))
    finally:
        shutil.rmtree(folder)
    if settings.out:
        result = {
            "command": f"python benchmarks/services.py --out {settings.out}",
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, shared with the double",
            "versions": {name: importlib.metadata.version(name) for name in ("aiohttp", "lm-eval")},
            "latency_s": settings.latency,
            "concurrent": settings.concurrent,
            "runs": rows,
            "resumed": resumed,
        }
        settings.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
