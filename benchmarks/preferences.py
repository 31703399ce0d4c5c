"""How much concurrent requests speed up sampling: 8 at a time against 1, one service on loopback.

    python benchmarks/preferences.py [--seconds 0.25] [--requests 80]

The service waits as long as a served model would take for a short answer, and answers any number of
requests at a time; so the ratio says what the builder adds, not what a server can do. Both ways run
in turns in one process; the best of three counts for each.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from unswayed.mitigation.preferences.settings import PreferenceSettings
from unswayed.mitigation.preferences.steps import ask_model

CONCURRENT = (1, 8)
REPETITIONS = 3


class Slow(BaseHTTPRequestHandler):
    """A chat service that takes `seconds` per answer."""

    seconds = 0.25

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.seconds)
        message = {"role": "assistant", "content": "The answer is 42."}
        data = json.dumps({"choices": [{"index": 0, "message": message}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args) -> None:
        pass


def per_second(url: str, concurrent: int, requests: int) -> float:
    """Texts per second that the builder samples."""
    with tempfile.TemporaryDirectory() as work:
        settings = PreferenceSettings(
            generator="slow",
            generator_backend="local-chat-completions",
            generator_args=f"base_url={url},num_concurrent={concurrent}",
            work_dir=work,
        )
        asked = [[{"role": "user", "content": f"Question {i}"}] for i in range(requests)]
        start = time.perf_counter()
        ask_model("generator", asked, settings)
        return requests / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.25, help="per answer")
    parser.add_argument("--requests", type=int, default=80)
    arguments = parser.parse_args()
    os.environ.setdefault("OPENAI_API_KEY", "none")
    Slow.seconds = arguments.seconds
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
    best = dict.fromkeys(CONCURRENT, 0.0)
    for _ in range(REPETITIONS):
        for concurrent in CONCURRENT:
            found = per_second(url, concurrent, arguments.requests)
            best[concurrent] = max(best[concurrent], found)
    server.shutdown()
    for concurrent, rate in best.items():
        print(f"{concurrent} at a time: {rate:.1f} texts/s")
    print(f"ratio: {best[CONCURRENT[1]] / best[CONCURRENT[0]]:.1f}")


if __name__ == "__main__":
    main()
