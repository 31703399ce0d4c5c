"""Audits through other backends: chat services (against a double of one on loopback) and hf.

The double speaks the HTTP of a chat service and answers from the request alone, so that the same
question always gets the same answer; a test tells it when to be slow, broken or gone.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chat_service import GONE, Handler, Service, completion, serving

from unswayed.audit import run as audit_run
from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_answers, read_run
from unswayed.cli import main
from unswayed.core.errors import InputError
from unswayed.core.journal import Journal
from unswayed.models import load
from unswayed.scoring import backends, servers
from unswayed.scoring.backends import answers_singly
from unswayed.scoring.hf import CheckpointLM

KEY = "sk-very-secret"
N_TRIALS = 3 * 4  # items x (none, neutral, advantaged, disadvantaged) of one pair
N_ASKED = N_TRIALS + 3  # those without memory a second time, without the scenario
TWO_PAIRS = (
    "--pairs",
    "2",
    "--conditions",
    "advantaged",
    "disadvantaged",
)  # 12 trials, all asked once


def letter(body: dict) -> str:
    """A letter that is listed in the question, chosen by the whole conversation."""
    listed = re.findall(r"^([A-E])\. ", str(body["messages"][-1]["content"]), re.MULTILINE)
    if not listed:  # Anthropic's blocks
        listed = re.findall(r"^([A-E])\. ", body["messages"][-1]["content"][0]["text"], re.M)
    digest = hashlib.sha256(json.dumps([body.get("system"), body["messages"]]).encode()).digest()
    return listed[digest[0] % len(listed)]


def answer(number: int, body: dict) -> dict:
    return completion(content=f"I thought.\nAnswer: {letter(body)}")


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    """`serve(behave)`: a chat service on loopback."""
    with contextlib.ExitStack() as stack:
        yield lambda behave=answer: stack.enter_context(serving(behave))


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


@pytest.fixture
def command(items_file, tmp_path) -> Callable[..., list[str]]:
    """`command(service, *more, out=..., **model_args)`: the arguments of `unswayed`."""

    def make(service: Service, *more: str, out: str = "run", **model_args) -> list[str]:
        model_args = {"base_url": service.url, "max_retries": 1} | model_args
        return [
            "audit", "--backend", "local-chat-completions", "--model", "some-model",
            "--model-args", ",".join(f"{k}={v}" for k, v in model_args.items()),
            "--scoring", "generate", "--items", f"mine={items_file}", "--pairs", "1",
            "--out", str(tmp_path / out), *more,
        ]  # fmt: skip

    return make


@pytest.fixture
def audit(command, tmp_path, capsys):
    """Run it; gives the exit code, standard error and the run directory."""

    def call(*args, out: str = "run", **kwargs) -> tuple[int, str, Path]:
        code = main(command(*args, out=out, **kwargs))
        return code, capsys.readouterr().err, tmp_path / out

    return call


def rows_of(out: Path) -> list[dict]:
    return read_answers(out).to_pylist()


# -- what is asked, what is recorded -------------------------------------------------------------


def test_an_audit_of_a_chat_service(serve, audit):
    service = serve()
    code, err, out = audit(service, "--max-gen-toks", "77")
    assert (code, err) == (0, "")
    rows = rows_of(out)
    assert len(rows) == N_TRIALS and len(service.bodies) == N_ASKED
    assert set(service.asked.values()) == {1}
    assert {row["model"] for row in rows} == {"some-model"}
    for row in rows:
        messages = json.loads(row["prompt"])
        assert messages[-1] == {"role": "user", "content": row["user_prompt"]}
        assert (messages[0]["role"] == "system") == (row["condition"] != "none")
        body = next(body for body in service.bodies if body["messages"] == messages)
        shown = [row["options"][i] for i in row["option_order"]]
        assert row["answer"] == shown["ABCDE".index(letter(body))]
        assert row["raw_text"] == f"I thought.\nAnswer: {letter(body)}" and row["parsed"]
        assert body | {"seed": 0} == {
            "model": "some-model", "messages": messages, "max_tokens": 77, "temperature": 0,
            "seed": 0,
        }  # fmt: skip
    assert {headers["authorization"] for headers in service.headers} == {f"Bearer {KEY}"}
    assert not (out / "parts").exists()


def test_nothing_secret_and_no_address_is_recorded(serve, audit):
    service = serve()
    _, _, out = audit(service, auth_token="tok-secret", max_length=4096, timeout=9)
    texts = [path.read_bytes() for path in out.iterdir() if path.suffix != ".parquet"]
    for secret in (KEY, "tok-secret", str(service.server_port), "base_url"):
        assert not any(secret.encode() in text for text in texts)
    run = read_run(out)
    assert run["identity"]["backend"] == "local-chat-completions"
    assert "- Backend: local-chat-completions\n" in (out / "report.md").read_text("utf-8")
    assert run["identity"]["model_args"] == run["arguments"]["model_args"] == {"max_length": 4096}


@pytest.mark.parametrize("concurrent", [1, 11])  # more than the items of one user
def test_requests_run_side_by_side_and_rows_stay_in_order(serve, audit, concurrent):
    together = threading.Barrier(concurrent)

    def slow(number, body):
        if number <= concurrent:
            together.wait(60)
        time.sleep(0.2 / number)  # the later, the faster
        return answer(number, body)

    service = serve(slow)
    _, _, out = audit(service, out=f"run{concurrent}", num_concurrent=concurrent)
    _, _, plain = audit(serve(), out="plain")
    assert rows_of(out) == rows_of(plain)
    assert service.most_busy == concurrent


def test_further_settings_of_generation_reach_the_service(serve, audit):
    service = serve()
    settings = {"temperature": 0.6, "reasoning_effort": "low", "chat_template_kwargs": {"a": False}}
    code, _, out = audit(service, "--gen-kwargs", json.dumps(settings))
    assert code == 0 and all(body | settings == body for body in service.bodies)
    assert all("do_sample" not in body for body in service.bodies)
    assert read_run(out)["identity"]["gen_kwargs"] == settings
    service.bodies.clear()
    audit(service, "--gen-kwargs", '{"temperature": null}', out="without")
    assert all("temperature" not in body for body in service.bodies)


def test_openai(serve, audit):
    service = serve()
    code, _, _ = audit(service, "--backend", "openai-chat-completions")
    assert code == 0 and all(body["max_completion_tokens"] == 256 for body in service.bodies)
    assert all("stop" not in body for body in service.bodies)  # OpenAI refuses an empty list


def test_lm_evals_own_temperature_is_told(serve, audit, caplog):
    service = serve()
    audit(service, "--backend", "openai-chat-completions", "--model", "o3-mini")
    assert {body["temperature"] for body in service.bodies} == {1}
    assert "lm-eval asks this model with temperature 1" in caplog.text


def test_anthropic(serve, audit):
    def reply(number, body):
        blocks = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Answer: "}]
        return {"content": [*blocks, {"type": "text", "text": letter(body)}], "role": "assistant"}

    service = serve(reply)
    code, _, out = audit(service, "--backend", "anthropic-chat-completions", *TWO_PAIRS)
    rows = rows_of(out)
    assert code == 0 and all(row["parsed"] for row in rows)
    assert all(row["raw_text"].startswith("<think>Hm.</think>\nAnswer: ") for row in rows)
    assert {headers["x-api-key"] for headers in service.headers} == {KEY}
    for row, body in zip(rows, service.bodies, strict=True):
        assert body.get("system") == row["system_prompt"] and body["max_tokens"] == 256
        assert "stop_sequences" not in body  # lm-eval 0.4.13 would send [null]


# -- replies of all kinds ------------------------------------------------------------------------


def test_thinking_is_kept_and_read_past(serve, audit):
    thoughts = {
        1: lambda x: completion(content=f"Answer: {x}", reasoning_content="Answer: A, or not"),
        2: lambda x: completion(content=f"Answer: {x}", reasoning="Answer: A, or not"),
        3: lambda x: completion(content=f"<think>Answer: A?</think>Answer: {x}"),
        4: lambda x: completion(content="<think>Answer: A, but"),  # cut off by the token limit
        5: lambda x: completion(content=None, reasoning_content="Answer: A, but"),
        6: lambda x: completion(content="", reasoning="Answer: A, but"),
        7: lambda x: completion(content=[{"type": "text", "text": f"Answer: {x}"}]),
    }

    def think(number, body):
        kind = thoughts.get(number)
        return kind(letter(body)) if kind else answer(number, body)

    service = serve(think)
    code, _, out = audit(service, *TWO_PAIRS)
    assert code == 0
    rows = sorted(rows_of(out), key=lambda r: service.bodies.index(asked(service, r)))
    letters = [letter(body) for body in service.bodies]
    assert [row["raw_text"] for row in rows[:7]] == [
        f"<think>Answer: A, or not</think>\nAnswer: {letters[0]}",
        f"<think>Answer: A, or not</think>\nAnswer: {letters[1]}",
        f"<think>Answer: A?</think>Answer: {letters[2]}",
        "<think>Answer: A, but",
        "<think>Answer: A, but",
        "<think>Answer: A, but",
        f"Answer: {letters[6]}",
    ]
    assert [row["parsed"] for row in rows] == [i not in (3, 4, 5) for i in range(N_TRIALS)]
    for row, x in zip(rows, letters, strict=True):
        shown = [row["options"][i] for i in row["option_order"]]
        assert not row["parsed"] or row["answer"] == shown["ABCDE".index(x)]


def asked(service: Service, row: dict) -> dict:
    """The request that a row comes from."""
    messages = json.loads(row["prompt"])
    return next(body for body in service.bodies if body["messages"] == messages)


UNUSABLE = {
    "not JSON": "<html>Bad gateway</html>",
    "cut off": '{"choices": [{"message": {"content": "Answ',
    "nothing": "",
    "a list": "[1, 2]",
    "null": "null",
    "an error as a success": {"error": {"message": "upstream failed"}},
    "no choices": {"choices": []},
    "no message": {"choices": [{"index": 0}]},
    "a number": completion(content=5),
    "null content": completion(),
    "empty content": completion(content=""),
    "half a character": '{"choices": [{"message": {"content": "\\ud83d"}}]}',
}


@pytest.mark.parametrize("concurrent", [1, 4])
def test_unusable_replies_become_unparsed_rows(serve, audit, concurrent, caplog):
    kinds = list(UNUSABLE.values())
    service = serve(lambda number, body: kinds[number - 1])
    code, err, out = audit(service, *TWO_PAIRS, num_concurrent=concurrent)
    assert code == 0 and "Traceback" not in err
    assert len(service.bodies) == N_TRIALS == len(kinds)
    rows = rows_of(out)
    assert sorted(row["raw_text"] for row in rows) == [""] * 11 + ["?"]
    assert not any(row["parsed"] or row["correct"] for row in rows)
    assert "11 of 12 answers were empty" in read_run(out)["notes"][-1]
    assert "a reply is unusable and counts as unparsed: it is not JSON" in caplog.text
    assert caplog.text.count("it is not JSON") == 1  # said once


def test_an_unusable_reply_is_asked_again_and_an_empty_one_is_not(serve, audit, monkeypatch):
    monkeypatch.setattr(servers, "BACKOFF", lambda state: 0.0)
    first = {}

    def reply(number, body):
        question = json.dumps(body["messages"])
        if question not in first:
            first[question] = number
            return "oops" if number == 1 else completion(content="") if number == 3 else {}
        return answer(number, body)

    service = serve(reply)
    code, _, out = audit(service, max_retries=2)
    assert code == 0
    assert [row["parsed"] for row in rows_of(out)].count(False) == 1
    assert sorted(service.asked.values()) == [1] + [2] * (N_ASKED - 1)


# -- failures and resuming -----------------------------------------------------------------------


@pytest.mark.parametrize("concurrent", [1, 3])
@pytest.mark.parametrize("die_after", [0, 1, 4, 8, 11])
def test_a_server_that_dies_loses_nothing_and_is_asked_nothing_twice(
    serve, audit, concurrent, die_after
):
    first = serve(lambda n, body: answer(n, body) if n <= die_after else GONE)
    code, err, out = audit(first, num_concurrent=concurrent)
    assert code == 2 and err.count("\n") == 1
    assert f"{first.url.split('/v1')[0]} cannot be reached" in err and "add" not in err
    assert "run the same command again (an audit with --resume)" in err
    assert not (out / "answers.parquet").exists() and read_run(out)["status"] == "running"

    second = serve()  # on another port
    code, err, out = audit(second, "--resume", num_concurrent=concurrent)
    assert code == 0 and read_run(out)["status"] == "complete"
    assert len(second.bodies) == N_ASKED - die_after
    answered = Counter(json.dumps(body["messages"]) for body in first.bodies[:die_after])
    assert answered.keys().isdisjoint(second.asked) and set(second.asked.values()) == {1}
    _, _, whole = audit(serve(), out="whole")
    assert (out / "answers.parquet").read_bytes() == (whole / "answers.parquet").read_bytes()
    assert not (out / "parts").exists()


@pytest.mark.parametrize("die_after", [5, 9, 14])
def test_users_beyond_one_call_follow_in_the_next(serve, audit, monkeypatch, die_after):
    _, _, whole = audit(serve(), out="whole")
    monkeypatch.setattr(audit_run, "MOST_TOGETHER", 7)  # two users' items
    first = serve(lambda n, body: answer(n, body) if n <= die_after else GONE)
    code, _, out = audit(first, num_concurrent=4)
    assert code == 2 and len(list((out / "parts").glob("*.parquet"))) == 2 * (die_after >= 9)
    second = serve()
    code, _, _ = audit(second, "--resume", num_concurrent=4)
    assert code == 0 and len(second.bodies) == N_ASKED - die_after
    assert (out / "answers.parquet").read_bytes() == (whole / "answers.parquet").read_bytes()


def test_a_half_written_answer_is_asked_again(serve, audit):
    first = serve(lambda n, body: answer(n, body) if n <= 8 else GONE)
    _, _, out = audit(first)
    (journal,) = (out / "parts").glob("*.jsonl")
    whole = journal.read_bytes()
    assert whole.count(b"\n") == 8
    journal.write_bytes(whole[:-7])
    second = serve()
    code, _, _ = audit(second, "--resume")
    assert code == 0 and len(second.bodies) == N_ASKED - 7
    assert all(row["parsed"] for row in rows_of(out))


def test_resuming_says_what_is_there(serve, audit, caplog):
    _, _, _ = audit(serve(lambda n, body: answer(n, body) if n <= 8 else GONE))
    audit(serve(), "--resume")
    assert "resuming: 0 of 4 parts are already scored, and 8 answers of others" in caplog.text


def test_another_model_or_setting_is_another_run(serve, audit):
    _, _, out = audit(serve())
    for change in (["--model", "other"], ["--gen-kwargs", "temperature=1"]):
        code, err, _ = audit(serve(), "--resume", *change)
        assert code == 2 and "holds a different run" in err
    code, err, _ = audit(serve(), "--resume", num_concurrent=4, timeout=7)  # how, not what
    assert code == 0 and err == ""
    run = read_run(out)
    del run["identity"]["backend"]
    (out / "run.json").write_text(json.dumps(run))
    code, err, _ = audit(serve(), "--resume")
    assert code == 2 and "is no record of an audit: it lacks backend" in err


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_troubles_are_waited_out(serve, audit, status, caplog):
    def busy(number, body):
        if number in (2, 3):
            return status, {"error": {"message": "busy"}}, {"Retry-After": "0"}
        return answer(number, body)

    service = serve(busy)
    code, err, out = audit(service, max_retries=3)
    assert (code, err) == (0, "") and len(service.bodies) == N_ASKED + 2
    assert all(row["parsed"] for row in rows_of(out))
    assert f"answers {status} (busy); trying again, 3 times in all" in caplog.text


def test_a_date_of_retry_after_is_waited_for(serve, audit):
    """A date has whole seconds, so the wait may be one second shorter."""
    starts = []

    def busy(number, body):
        starts.append(time.monotonic())
        if number == 2:
            return 503, "", {"Retry-After": email.utils.formatdate(time.time() + 3, usegmt=True)}
        return answer(number, body)

    code, _, _ = audit(serve(busy), max_retries=2)
    assert code == 0 and 1.9 < starts[2] - starts[1] < 6


def test_connections_are_kept(serve, audit):
    service = serve()
    service.RequestHandlerClass = type("Keeps", (Handler,), {"protocol_version": "HTTP/1.1"})
    code, _, _ = audit(service, num_concurrent=3)
    assert code == 0 and 1 <= len(set(service.clients)) <= 3 < N_ASKED == len(service.clients)


@pytest.mark.parametrize(
    ("reply", "tries", "text"),
    [
        ((429, {"error": {"message": "slow down"}}, {"Retry-After": "0"}), 2, "429 (slow down)"),
        ((503, "<b>down</b>", {"Retry-After": "0"}), 2, "503 (<b>down</b>)"),
        ((400, {"error": {"message": "context of 8 tokens"}}), 1, "400 (context of 8 tokens)"),
        ((400, {"error": {"message": "Temperature is deprecated"}}), 1, "temperature=none (Temp"),
        ((401, {"message": f"bad key {KEY}"}), 1, "401: is the API key in the environment right"),
        ((404, {"detail": "Not Found"}), 1, "404: base_url is the full address of the chat"),
        ((422, {"detail": [{"msg": "x"}]}), 1, "422 ([{'msg': 'x'}])"),
    ],
)
def test_lasting_troubles_end_in_one_line(serve, audit, reply, tries, text):
    service = serve(lambda number, body: reply if number > 7 else answer(number, body))
    code, err, out = audit(service, max_retries=2)
    assert code == 2 and text in err and err.count("\n") == 1 and KEY not in err
    assert len(service.bodies) == 7 + tries
    assert sum(1 for _ in next((out / "parts").glob("*.jsonl")).open()) == 7


def test_a_server_that_never_answers(serve, audit):
    release = threading.Event()
    service = serve(lambda number, body: release.wait(30) and GONE)
    start = time.monotonic()
    code, err, _ = audit(service, timeout=1)
    release.set()
    assert code == 2 and "gave no reply within 1 s" in err and err.count("\n") == 1
    assert time.monotonic() - start < 10


def test_what_is_under_way_when_one_request_fails_is_kept(serve, audit):
    def reply(number, body):
        if number == 1:
            time.sleep(0.3)
            return 400, {"detail": "no"}
        time.sleep(1.0)
        return answer(number, body)

    code, _, out = audit(serve(reply), num_concurrent=2)
    assert code == 2
    assert len(Journal(out / "parts/answers.jsonl")) == 1


def test_no_noise_on_standard_error(serve, command, tmp_path):
    """In a process of its own: what a person sees when the server goes away."""
    service = serve(lambda n, body: answer(n, body) if n <= 4 else GONE)
    for more, lines in ((), 3), (("--resume",), 3):
        done = subprocess.run(
            [
                sys.executable, "-m", "unswayed",
                *command(service, *more, num_concurrent=3, max_retries=2),
            ],
            capture_output=True, text=True,
        )  # fmt: skip
        said = done.stderr.splitlines()
        assert done.returncode == 2 and done.stdout == ""
        assert len(said) <= lines and said[-1].startswith("unswayed: the model's server at")
        for noise in ("Traceback", "exception", "Requesting API", "Retrying", "WARNING"):
            assert noise not in done.stderr


def test_ctrl_c_keeps_what_is_under_way(serve, command, tmp_path):
    interrupted = threading.Event()

    def slow(number, body):
        if number >= 4:  # the third part has begun, or the second goes on
            interrupted.wait(60)
        return answer(number, body)

    service = serve(slow)
    audit = subprocess.Popen(
        [sys.executable, "-m", "unswayed", *command(service, num_concurrent=2)],
        stderr=subprocess.PIPE, text=True,
        # a job in the background of a shell ignores the signal, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while len(service.bodies) < 5:
        time.sleep(0.01)
    audit.send_signal(signal.SIGINT)
    time.sleep(1)  # the signal is handled while the replies are awaited
    interrupted.set()
    _, said = audit.communicate()
    assert audit.returncode == 130
    assert said == "unswayed: interrupted; an audit goes on with --resume\n"
    before = len(service.bodies)
    assert subprocess.run([sys.executable, "-m", "unswayed", *command(service, "--resume")],
        capture_output=True).returncode == 0  # fmt: skip
    assert len(service.bodies) == N_ASKED and before < N_ASKED
    assert set(service.asked.values()) == {1}


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--backend", "hal9000"], "--backend 'hal9000' is not one of anthropic-chat,"),
        (["--backend", "vllm"], "--backend vllm cannot be used: "),
        (["--scoring", "option"], "use --scoring letter or generate instead of option"),
        (["--adapter", "me/lora"], "--adapter me/lora has no meaning for --backend local-chat"),
        (["--device", "cpu"], "--device cpu has no meaning"),
        (["--dtype", "float16"], "--dtype float16 has no meaning"),
        (["--batch-size", "8"], "use --model-args num_concurrent=N"),
        (["--model-args", "num_concurent=8"], "num_concurent=... has no meaning for --backend"),
        (["--model-args", "model=x"], "--model-args model=...: give it as --model"),
        (["--model-args", "timeout"], "--model-args 'timeout' is not of the form name=value"),
        (["--model-args", "{'a': 1}"], "--model-args is not JSON: "),
        (["--model-args", "timeout=9"], "needs the full address of the chat: --model-args base_u"),
        (["--model-args", "base_url=localhost:80/v1"], "needs the full address of the chat"),
        (["--model-args", "base_url=http://x,timeout=long"], "invalid literal for int()"),
        (["--gen-kwargs", "max_tokens=5"], "after --max-gen-toks"),
    ],
)
def test_options_that_do_not_fit_are_refused(serve, audit, more, text):
    service = serve()
    code, err, out = audit(service, *more)
    assert code == 2 and text in err and err.count("\n") == 1
    assert service.bodies == [] and not (out / "answers.parquet").exists()


@pytest.mark.parametrize("backend", ["openai-chat-completions", "anthropic-chat-completions"])
def test_a_missing_key_is_named(serve, audit, backend, monkeypatch):
    name = backend.split("-")[0].upper() + "_API_KEY"
    monkeypatch.delenv(name)
    code, err, _ = audit(serve(), "--backend", backend)
    assert code == 2 and name in err and err.count("\n") == 1


def test_missing_packages_are_named(serve, audit, monkeypatch):
    import lm_eval.models.api_models as stock

    monkeypatch.setattr(stock, "find_spec", lambda name: None)
    code, err, _ = audit(serve())
    assert code == 2 and "pip install 'unswayed[api]'" in err and err.count("\n") == 1


def test_addresses_are_shown_without_passwords():
    assert servers.address("https://me:pw@host:81/v1?key=x") == "https://host:81"
    assert servers.address("http://[::1]:8000/v1") == "http://[::1]:8000"
    settings = {"api_key": 1, "hf_token": 1, "proxy": "http://me:pw@host", "add_bos_token": True}
    assert load.public_settings(settings) == {"add_bos_token": True}


def test_another_backend_that_breaks_does_so_in_one_line(serve, audit, chat_model):
    """local-completions is lm-eval's own from end to end; this service gives no log-probabilities.

    Its generation works, and resumes.
    """
    replies = {"choices": [{"index": 0, "text": "Answer: A"}]}
    service = serve(lambda number, body: replies if number <= 5 else (400, {"detail": "no"}))
    given = ["--backend", "local-completions", "--model", str(chat_model)]
    settings = {"tokenizer_backend": "huggingface", "max_length": 4096}
    code, err, _ = audit(service, *given, "--scoring", "option", out="scored", **settings)
    assert code == 2 and "--backend local-completions failed with KeyError" in err
    service.bodies.clear()
    code, err, _ = audit(service, *given, **settings)
    assert code == 2 and "400 Client Error" in err and "Traceback" not in err
    service = serve(lambda number, body: replies)
    code, _, out = audit(service, *given, "--resume", **settings)
    assert code == 0 and len(service.bodies) == N_ASKED - 5
    assert {row["raw_text"] for row in rows_of(out)} == {"Answer: A"}


# -- local backends ------------------------------------------------------------------------------


def test_stock_hf_generates_the_same_answers(arguments):
    ours = rows_of(run_audit(arguments("ours", scoring="generate", max_gen_toks=8, pairs=1)))
    stock = run_audit(arguments("hf", scoring="generate", max_gen_toks=8, pairs=1, backend="hf"))
    assert rows_of(stock) == ours
    run = read_run(stock)
    assert run["identity"]["backend"] == "hf" and run["model"]["shared_prefixes"] is False
    assert run["model"]["parameters"] > 0 and run["notes"] == []


def test_stock_hf_scores_options_alike(arguments):
    ours = rows_of(run_audit(arguments("ours", pairs=1)))
    stock = rows_of(run_audit(arguments("hf", pairs=1, backend="hf")))
    assert [row["answer"] for row in stock] == [row["answer"] for row in ours]
    for a, b in zip(stock, ours, strict=True):
        assert a["option_scores"] == pytest.approx(b["option_scores"], abs=1e-3)


@pytest.mark.parametrize("scoring", ["generate", "option"])
def test_stock_hf_truncates_nothing(arguments, tiny_model_dir, scoring):
    short = tiny_model_dir("llama", chat=True, max_position_embeddings=256)
    with pytest.raises(InputError, match=r"a prompt of \d+ tokens .* context of 256 tokens"):
        run_audit(arguments(model=str(short), backend="hf", scoring=scoring, max_gen_toks=8))


def test_stock_hf_without_a_system_role_keeps_the_memory(arguments, tiny_model_dir, tmp_path):
    import shutil

    source = tiny_model_dir("llama", chat=True, max_position_embeddings=4096)
    model = tmp_path / "model"
    shutil.copytree(source, model)
    template = model / "chat_template.jinja"
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    template.write_text(refuses + template.read_text("utf-8"), "utf-8")
    out = run_audit(
        arguments(model=str(model), backend="hf", scoring="generate", max_gen_toks=2, pairs=1)
    )
    assert "no system role" in read_run(out)["notes"][0]
    assert all(r["system_prompt"] in r["prompt"] for r in rows_of(out) if r["system_prompt"])


def test_model_arguments_reach_a_local_backend(arguments):
    with pytest.raises(InputError, match=r"a prompt of \d+ tokens .* context of 64 tokens"):
        run_audit(arguments(model_args={"max_length": 64}))
    with pytest.raises(InputError, match=r"--model-args device=...: give it as --device"):
        run_audit(arguments("other", model_args={"device": "cpu"}))


def test_generation_that_is_interrupted_goes_on_in_the_middle_of_a_part(arguments, monkeypatch):
    given = {"scoring": "generate", "max_gen_toks": 4, "pairs": 1}
    whole = run_audit(arguments("whole", **given))
    real, kept = Journal.add, []

    def interrupted(self, prompt, text):
        if len(set(kept)) == 4 and prompt not in kept:
            raise KeyboardInterrupt
        kept.append(prompt)
        real(self, prompt, text)

    monkeypatch.setattr(Journal, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_audit(arguments("broken", **given))
    fresh = []
    monkeypatch.setattr(
        Journal, "add", lambda self, prompt, text: (fresh.append(prompt), real(self, prompt, text))
    )
    resumed = run_audit(arguments("broken", resume=True, **given))
    assert len(set(fresh)) == N_ASKED - 4 and not set(fresh) & set(kept)
    assert (resumed / "answers.parquet").read_bytes() == (whole / "answers.parquet").read_bytes()


@pytest.mark.parametrize("memory", ["prompt", "gated", "retrieval"])
def test_an_engine_gets_the_prompts_of_all_users_in_one_call(arguments, monkeypatch, memory):
    """lm-eval's stock backend stands for vLLM, which needs a GPU."""
    given = {"scoring": "generate", "max_gen_toks": 2, "backend": "hf", "pairs": 1}
    apart = run_audit(arguments("apart", memory=memory, **given))
    monkeypatch.setattr(backends, "ENGINES", {"hf"})
    real, sizes = CheckpointLM.generate_until, []

    def counted(self, requests, *args, **kwargs):
        sizes.append(len(requests))
        return real(self, requests, *args, **kwargs)

    monkeypatch.setattr(CheckpointLM, "generate_until", counted)
    together = run_audit(arguments("together", memory=memory, **given))
    assert len(sizes) == 1
    assert (together / "answers.parquet").read_bytes() == (apart / "answers.parquet").read_bytes()


def test_answers_of_a_batch_are_not_kept_one_by_one(arguments, tmp_path):
    """A batch's answers may differ in the last bit from those of another batch."""
    out = run_audit(
        arguments(scoring="generate", max_gen_toks=2, pairs=1, batch_size=2, conditions=["none"])
    )
    assert len(rows_of(out)) == 3
    assert not answers_singly(type("Batched", (), {"batch_size": 2})())


# -- the journal ---------------------------------------------------------------------------------


def test_the_journal_survives_any_cut(tmp_path):
    path = tmp_path / "parts" / "0000.jsonl"
    journal = Journal(path)
    texts = {"p": "", "q": "line\nline \u2028 ü", "r": "Answer: A"}
    for prompt, text in texts.items():
        journal.add(prompt, text)
        journal.add(prompt, "not this one")
    journal.close()
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        again = Journal(path)
        assert len(again) == whole[:cut].count(b"\n")
        for prompt, text in texts.items():
            assert again.get(prompt) in (text, None)
            again.add(prompt, text)
        again.close()
        assert path.read_bytes() == whole
    again.remove()
    assert not path.exists()


# -- the rate ------------------------------------------------------------------------------------


def test_requests_start_no_faster_than_asked(serve, audit):
    starts = []

    def behave(number, body):
        starts.append(time.monotonic())
        return answer(number, body)

    code, _, out = audit(serve(behave), num_concurrent=8, requests_per_minute=600)
    assert code == 0 and len(read_answers(out)) == N_TRIALS
    # 0.1 s apart when sent; they may arrive a little closer
    assert starts[-1] - starts[0] > 0.1 * (N_TRIALS - 1) - 0.1
    assert "requests_per_minute" not in read_run(out)["identity"]["model_args"]


def test_a_rate_of_nothing_is_refused(serve, audit):
    code, err, _ = audit(serve(), requests_per_minute=0)
    assert code == 2 and err.count("\n") == 1 and "requests_per_minute=0 must be above 0" in err
