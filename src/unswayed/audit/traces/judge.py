"""A language model as judge of traces, over any OpenAI-compatible chat endpoint.

The judge reads memory, question and trace under a fixed rubric (`rubric.md`). Each verdict is
appended to `judgements.jsonl` as soon as it arrives, under the trial, the rubric's hash and the
judge's name; nothing is asked twice, and a verdict that cannot be read is kept and counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from unswayed.audit.traces.analysis import Trace
from unswayed.audit.traces.detector import LABELS
from unswayed.core.errors import InputError
from unswayed.core.progress import Progress
from unswayed.scoring.replies import json_objects
from unswayed.statistics.agreement import (
    equal_share,
    estimate,
    item_tables,
    kappa,
    resampled_items,
)

FILE = "judgements.jsonl"
FIELDS = ("test", "question_id", "persona_id", "condition")
CONCURRENT = 4  # requests at a time
TRIES = 3  # per request, where another one can help
TIMEOUT = 120.0  # seconds for a reply
MAX_TOKENS = 2048  # leaves room for a judge that thinks
LONGEST = 500  # characters kept of a reply that cannot be read
# An HF token goes to Hugging Face only.
HUGGING_FACE = ("huggingface.co", "huggingface.cloud", "hf.space")

Key = tuple[str, ...]


def rubric() -> str:
    """The fixed instruction to the judge."""
    return (files("unswayed.audit.traces") / "rubric.md").read_text("utf-8")


def rubric_hash() -> str:
    """Twelve hexadecimal digits of the rubric's SHA-256."""
    return hashlib.sha256(rubric().encode()).hexdigest()[:12]


def sample(traces: Sequence[Trace], n: int, seed: int) -> list[Trace]:
    """Up to n traces, evenly over test x condition; a larger sample contains a smaller one."""
    rng = np.random.default_rng(seed)
    strata: dict[tuple[str, str], list[Trace]] = {}
    for trace in traces:
        strata.setdefault((trace.test, trace.condition), []).append(trace)
    drawn = []
    for _, stratum in sorted(strata.items()):
        drawn += list(enumerate(stratum[i] for i in rng.permutation(len(stratum))))
    return [trace for _, trace in sorted(drawn, key=lambda pair: pair[0])][:n]


def key_of(trace: Trace) -> Key:
    return tuple(getattr(trace, field) for field in FIELDS)


def question_to_judge(trace: Trace) -> list[dict[str, str]]:
    """What the judge reads: the rubric, then memory, question and trace."""
    parts = {"MEMORY": trace.memory, "QUESTION": trace.question, "TRACE": trace.text}
    text = "\n\n".join(f"<{name}>\n{part}\n</{name}>" for name, part in parts.items())
    return [{"role": "system", "content": rubric()}, {"role": "user", "content": text}]


def read_verdict(reply: str) -> dict[str, str] | None:
    """The last JSON object with a known "use" in a reply, None if there is none."""
    verdict = None
    for value in json_objects(reply):
        if value.get("use") in LABELS:
            quote = value.get("quote")
            verdict = {"use": value["use"], "quote": quote if isinstance(quote, str) else ""}
    return verdict


# -- verdicts on file ----------------------------------------------------------------------------


def read_judgements(out: Path) -> dict[str, dict[Key, dict[str, Any]]]:
    """{judge: {trial: verdict}} under the present rubric; a line cut off at the end is removed.

    Raises:
        InputError: a line of the file is not a verdict.
    """
    path = out / FILE
    if not path.exists():
        return {}
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):  # a kill cut the last line in half
        with path.open("rb+") as file:
            file.truncate(len(whole))
    verdicts: dict[str, dict[Key, dict[str, Any]]] = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            entry = json.loads(line)
            key = tuple(entry[field] for field in FIELDS)
            judge, version, use = entry["judge"], entry["rubric"], entry["use"]
            if use is not None and use not in LABELS:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path}:{number}: not a verdict: take the line out and run the command again, "
                "which judges that trace anew"
            ) from None
        if version == rubric_hash():
            verdicts.setdefault(judge, {}).setdefault(key, entry)
    return verdicts


def judge(out: Path, traces: Sequence[Trace], url: str, model: str) -> None:
    """Ask for the verdicts on `traces` that are not yet on file.

    Raises:
        InputError: the server cannot be reached or refuses; finished verdicts are kept.
    """
    done = read_judgements(out).get(model, {})
    todo = [trace for trace in traces if key_of(trace) not in done]
    if not todo:
        return
    lock, stop = threading.Lock(), threading.Event()
    key = api_key(url)
    progress = Progress(len(traces), "verdicts", done=len(traces) - len(todo))
    with (out / FILE).open("a", encoding="utf-8", newline="\n") as file:

        def ask_one(trace: Trace) -> None:
            if stop.is_set():
                return
            try:
                reply = ask(url, key, model, question_to_judge(trace))
            except InputError:
                stop.set()
                raise
            verdict = read_verdict(reply) or {"use": None, "quote": "", "reply": reply[:LONGEST]}
            entry = dict(zip(FIELDS, key_of(trace), strict=True))
            entry |= {"judge": model, "rubric": rubric_hash()} | verdict
            with lock:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                file.flush()
                progress.add(1)

        pool = ThreadPoolExecutor(CONCURRENT)
        try:
            for future in [pool.submit(ask_one, trace) for trace in todo]:
                future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            progress.close()


# -- the endpoint --------------------------------------------------------------------------------


def check_url(url: str) -> None:
    """Raises: InputError: not the address of a server."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"--judge-url {url!r} is no address: give the endpoint's base, such as "
            "http://localhost:8000/v1"
        )


def api_key(url: str) -> str | None:
    """The key for a server, from the environment."""
    host = urlsplit(url).hostname or ""
    if any(host == name or host.endswith("." + name) for name in HUGGING_FACE):
        return os.environ.get("HF_TOKEN") or None
    return os.environ.get("OPENAI_API_KEY") or None


def ask(url: str, key: str | None, model: str, messages: list[dict[str, str]]) -> str:
    """The text of a reply; "" if the server sent something that is no reply.

    Not through huggingface_hub's client: with HF_HUB_OFFLINE set it refuses local servers too, and
    it sends the token on file to any address.

    Raises:
        InputError: no connection, or the server refuses, also after TRIES tries where that helps.
    """
    import requests
    from tenacity import Retrying

    from unswayed.scoring.completions import UnusableReply, reply_text
    from unswayed.scoring.servers import (
        Trouble,
        address,
        error_text,
        retry_after,
        root_cause,
        tries,
        worth_another_try,
    )

    where = f"the judge at {address(url)}"
    advice = f"finished verdicts are kept in {FILE}, the same command goes on"
    request = {"model": model, "messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS}

    def once() -> str:
        try:
            response = requests.post(
                url.rstrip("/") + "/chat/completions",
                json=request,
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=TIMEOUT,
            )
            if response.ok:
                return reply_text(response.json())
        except (UnusableReply, requests.exceptions.InvalidJSONError):
            return ""
        except requests.Timeout:
            raise Trouble(f"{where} gave no reply within {TIMEOUT:g} s") from None
        except requests.RequestException as error:
            raise Trouble(f"{where} cannot be reached ({root_cause(error)})") from None
        complaint = error_text(response.content)
        complaint = complaint.replace(key, "***") if key else complaint
        trouble = f"{where} answers {response.status_code} ({complaint})"
        if not worth_another_try(response.status_code):
            raise InputError(f"{trouble}; mend it: {advice}")
        raise Trouble(trouble, retry_after(response.headers.get("Retry-After")))

    try:
        return Retrying(**tries(TRIES))(once)
    except Trouble as trouble:
        raise InputError(f"{trouble}; {advice}") from None


# -- agreement -----------------------------------------------------------------------------------


def agreement(
    traces: Sequence[Trace], verdicts: dict[Key, dict[str, Any]], seed: int
) -> dict[str, Any]:
    """How far a judge's verdicts equal the detector's.

    Returns:
        {"n" verdicts, "n_unreadable", "table" (rows: judge, columns: detector, order of LABELS),
        "equal", "kappa": with bootstrap intervals over items}. Unreadable verdicts are counted and
        compared with nothing.
    """
    judged = [(t, verdicts[key_of(t)]["use"]) for t in traces if key_of(t) in verdicts]
    read = [(trace, use) for trace, use in judged if use is not None]
    items = sorted({(trace.test, trace.question_id) for trace, _ in read})
    tables = item_tables(
        np.array([LABELS.index(use) for _, use in read], int),
        np.array([LABELS.index(trace.reading.label) for trace, _ in read], int),
        np.array([items.index((trace.test, trace.question_id)) for trace, _ in read], int),
        len(items),
        len(LABELS),
    )
    rng = np.random.default_rng(seed)
    resampled = resampled_items(len(items), rng) if items else np.empty((0, 0))
    return {
        "n": len(judged),
        "n_unreadable": len(judged) - len(read),
        "table": tables.sum(0).astype(int).tolist(),
        "equal": estimate(tables, equal_share, resampled),
        "kappa": estimate(tables, kappa, resampled),
    }
