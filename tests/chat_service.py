"""A chat service on loopback, for tests: speaks OpenAI's form, keeps what it is sent."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

GONE = "gone"  # what a behaviour returns for: close the connection without a reply


def completion(**message) -> dict:
    message = {"role": "assistant", "content": None} | message
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def listing(tokens: list[tuple[str, float]], **message) -> dict:
    """A completion of one token, the first of those that it lists with their log-probabilities."""
    entries = [{"token": token, "logprob": nats, "bytes": None} for token, nats in tokens]
    reply = completion(**({"content": tokens[0][0]} | message))
    first = entries[0] | {"top_logprobs": entries}
    reply["choices"][0] |= {"finish_reason": "length", "logprobs": {"content": [first]}}
    return reply


class LanguageModel:
    """A behaviour: lists the likeliest first tokens of a model's answer.

    Args:
        folder: the model, with a chat template.
        respell: what becomes of the (token, log-probability) pairs before they are sent.
    """

    def __init__(self, folder: Path, respell: Callable[[list], list] = list) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.respell = respell

    def __call__(self, number: int, body: dict) -> dict:
        import torch

        text = self.tokenizer.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=True
        )
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            top = self.model(ids).logits[0, -1].log_softmax(-1).topk(body["top_logprobs"])
        tokens = [self.tokenizer.decode([i]) for i in top.indices.tolist()]
        return listing(self.respell(list(zip(tokens, top.values.tolist(), strict=True))))


class Service(ThreadingHTTPServer):
    """Keeps every request; `behave(number, body)` gives the reply: a dict to be sent as JSON, a
    string to be sent as it is, (status, content[, headers]), or GONE.
    """

    daemon_threads = True

    def __init__(self, behave: Callable) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.lock = behave, threading.Lock()
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.clients: list[tuple[str, int]] = []
        self.busy = self.most_busy = 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1/chat/completions"

    def handle_error(self, request, client_address) -> None:
        """A client that has given up is no news."""

    @property
    def asked(self) -> Counter:
        """How often each conversation was asked."""
        return Counter(json.dumps(body["messages"]) for body in self.bodies)


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        service = self.server
        with service.lock:
            service.bodies.append(body)
            service.clients.append(self.client_address)
            service.headers.append({k.lower(): v for k, v in self.headers.items()})
            number = len(service.bodies)
            service.busy += 1
            service.most_busy = max(service.most_busy, service.busy)
        try:
            reply = service.behave(number, body)
        finally:
            with service.lock:  # before the client can send the next one
                service.busy -= 1
        self._reply(reply)

    def _reply(self, reply) -> None:
        if reply is GONE:
            self.close_connection = True
            return
        status, content, *headers = reply if isinstance(reply, tuple) else (200, reply)
        data = content if isinstance(content, str) else json.dumps(content)
        self.send_response(status)
        for name, value in (headers[0] if headers else {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data.encode())))
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *args) -> None:
        pass


@contextlib.contextmanager
def serving(behave: Callable) -> Iterator[Service]:
    """A service that is up while the block runs."""
    with Service(behave) as service:
        threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield service
        finally:
            service.shutdown()
