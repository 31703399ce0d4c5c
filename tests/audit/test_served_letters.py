"""Letters from a chat service that lists its likeliest tokens, beside the same model in process."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from chat_service import GONE, LanguageModel, Service, completion, listing, serving
from hypothesis import given
from hypothesis import strategies as st

from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_answers, read_run
from unswayed.core.errors import InputError
from unswayed.scoring import servers
from unswayed.scoring.completions import first_tokens
from unswayed.scoring.letters import listed_letters, reply_said

N_TRIALS = 3 * 4  # items x (none, neutral, advantaged, disadvantaged) of one pair
N_ASKED = N_TRIALS + 3  # those without memory a second time, without the scenario
FILLERS = ("The", "This", " a", "\n", "To")


def drawn(body: dict) -> list[tuple[str, float]]:
    """Log-probabilities of letters and other tokens, drawn from the whole conversation."""
    digest = hashlib.sha256(json.dumps(body["messages"]).encode()).digest()
    tokens = [*"ABC", *FILLERS]
    total = sum(weight + 1 for weight in digest[: len(tokens)]) * 1.1
    pairs = [(t, math.log((w + 1) / total)) for t, w in zip(tokens, digest, strict=False)]
    return sorted(pairs, key=lambda pair: -pair[1])[: body["top_logprobs"]]


def answer(number: int, body: dict) -> dict:
    return listing(drawn(body))


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    with ExitStack() as stack:
        yield lambda behave=answer: stack.enter_context(serving(behave))


@pytest.fixture
def audit(arguments):
    """`audit(service, out, reach={...}, **changes)`: the run directory."""

    def call(service: Service, out: str = "run", reach: dict | None = None, **changes):
        given = {"backend": "local-chat-completions", "scoring": "letter", "pairs": 1}
        reach = {"base_url": service.url, "max_retries": 1} | (reach or {})
        return run_audit(arguments(out, **(given | {"model_args": reach} | changes)))

    return call


def rows_of(out) -> list[dict]:
    return read_answers(out).to_pylist()


# -- against the same model in this process --------------------------------------------------------


@pytest.fixture(scope="module")
def lettered_model(chat_model, tmp_path_factory):
    """The tiny chat model, made to answer with letters and never with a space before them.

    One channel is the same at all tokens, so that it is a bias of the logits.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("lettered") / "model"
    shutil.copytree(chat_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 10.0
        model.lm_head.weight[:, 0] = 0.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
        for token, id_ in tokenizer.get_vocab().items():
            if token.strip("Ġ") in ("A", "B", "C"):
                model.lm_head.weight[id_, 0] = 3.0 if len(token) == 1 else -9.0
    model.save_pretrained(folder)
    return folder


def split(pairs: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The same letters, each as tokens with white space or a tokenizer's mark around it."""
    parts = [("{}", 0.5), (" {}", 0.2), ("Ġ{}", 0.1), ("▁{}", 0.1), ("{}\n", 0.1)]
    letters = [
        (p.format(t), nats + math.log(x)) for t, nats in pairs if t in "ABC" for p, x in parts
    ]
    return sorted(
        [*letters, *(pair for pair in pairs if pair[0] not in "ABC")], key=lambda p: -p[1]
    )


@pytest.mark.parametrize("respell", [list, split])
def test_the_service_gives_the_likelihoods_of_the_same_model(
    serve, audit, arguments, lettered_model, respell
):
    service = serve(LanguageModel(lettered_model, respell))
    ours = {"model": str(lettered_model), "scoring": "letter", "pairs": 1, "orders": 3}
    local = rows_of(run_audit(arguments("local", **ours)))
    served = rows_of(audit(service, "served", orders=3))
    assert len(served) == N_TRIALS
    scores = ("option_scores", "option_priors", "letter_mass")
    for a, b in zip(served, local, strict=True):
        assert a["option_listed"] == [True] * len(a["options"]) and b["option_listed"] is None
        for name in scores:
            assert (
                a[name] is None if b[name] is None else a[name] == pytest.approx(b[name], abs=1e-3)
            )
        for x, y in zip(a["order_scores"], b["order_scores"], strict=True):
            assert x == pytest.approx(y, abs=1e-3)
        other = {*scores, "order_scores", "option_listed", "model", "prompt"}
        assert {k: v for k, v in a.items() if k not in other} == {
            k: v for k, v in b.items() if k not in other
        }
    assert {row["letter_mass"] > 0.1 for row in served} == {True}
    for body in service.bodies:
        assert body | {"messages": 0, "seed": 0, "model": 0} == {
            "messages": 0, "seed": 0, "model": 0,
            "max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 20,
        }  # fmt: skip
    assert set(service.asked.values()) == {1}
    assert read_run(audit(service, "again", orders=3))["notes"] == []


# -- what is and is not listed ---------------------------------------------------------------------


@given(
    st.lists(st.floats(0.01, 50.0), min_size=12, max_size=12),
    st.integers(1, 12),
    st.permutations([*"ABC", " A", "B\n", *FILLERS, "D", "AB"]),
)
def test_a_letter_is_listed_as_it_is_or_is_no_likelier_than_its_score(weights, n_listed, tokens):
    pairs = list(zip(tokens, [math.log(w / sum(weights)) for w in weights], strict=True))
    top = sorted(pairs, key=lambda pair: -pair[1])[:n_listed]
    scored = listed_letters(first_tokens(listing(top)), "ABC")
    of_letters = [token.strip() for token, _ in top]
    assert scored.listed == [letter in of_letters for letter in "ABC"]
    if not any(scored.listed):
        assert scored.sums is None
        return
    for letter, nats, listed in zip("ABC", scored.sums, scored.listed, strict=True):
        if listed:
            mass = sum(math.exp(n) for token, n in top if token.strip() == letter)
            assert math.exp(nats) == pytest.approx(mass)
        else:
            assert all(nats >= n - 1e-9 for token, n in pairs if token.strip() == letter)
            assert nats < min(s for s, here in zip(scored.sums, scored.listed, strict=True) if here)


def test_few_listed_tokens_leave_little_to_the_others():
    top = [("A", math.log(0.6)), ("B", math.log(0.35))]
    assert math.exp(listed_letters(first_tokens(listing(top)), "ABC").sums[2]) < 0.050001


def test_the_token_that_was_drawn_may_stand_in_front():
    """vLLM, which then lists one of the likeliest less."""
    top = [("C", -9.0), ("A", -0.2), ("B", -2.0)]
    scored = listed_letters(first_tokens(listing(top)), "ABC")
    assert scored.listed == [True, True, False] and scored.sums[2] == pytest.approx(
        math.log(1 - math.exp(-0.2) - math.exp(-2.0))
    )


def test_letters_that_are_not_listed_are_marked_and_counted(serve, audit):
    def some(number, body):
        system = body["messages"][0]["role"] == "system"
        gone = "A" if system else "ABC"
        return listing([(t, x) for t, x in drawn(body) if t not in gone])

    out = audit(serve(some), orders=2)
    rows = rows_of(out)
    with_memory = [row for row in rows if row["condition"] != "none"]
    for row in rows:
        if row in with_memory:
            assert row["parsed"] and row["raw_text"] is None and not all(row["option_listed"])
            lists = [s for order in row["order_scores"] for s in order]
            assert all(math.isfinite(score) for score in lists)
            assert row["letter_mass"] < sum(map(math.exp, row["option_scores"])) + 0.2
        else:
            assert not row["parsed"] and row["answer"] is None and row["option_scores"] is None
            assert row["option_listed"] == [False] * len(row["options"])
            assert row["letter_mass"] == 0.0 and row["raw_text"] in FILLERS
            assert row["order_scores"] == [None, None] and row["blind_answer"] is None
    partly, unread = read_run(out)["notes"]
    assert partly.startswith("In 9 of 12 answers a letter was not among the likeliest tokens")
    assert unread.startswith("In 3 of 12 answers no letter was among") and "think" not in unread


@pytest.mark.parametrize(
    ("refusal", "most"),
    [
        ((400, {"error": {"message": "Invalid value for 'top_logprobs': must be at most 5."}}), 5),
        ((400, {"message": "sample logprobs of 20, which is greater than max allowed: 6"}), 6),
        ((422, {"detail": [{"loc": ["body", "top_logprobs"], "input": 20, "ctx": {"le": 5}}]}), 5),
        ((400, {"error": {"code": 17, "message": "logprobs: the valid range is [0, 7]"}}), 7),
    ],
)
def test_as_many_tokens_are_asked_for_as_the_server_lists(serve, audit, caplog, refusal, most):
    limited = serve(lambda n, body: refusal if body["top_logprobs"] > most else answer(n, body))
    out = audit(limited, reach={"num_concurrent": 3})
    assert limited.bodies[-1]["top_logprobs"] == most and "fewer are asked for" in caplog.text
    whole = audit(serve(), "whole", gen_kwargs={"top_logprobs": most})
    assert rows_of(out) == rows_of(whole)
    assert sum(body["top_logprobs"] == most for body in limited.bodies) == N_ASKED


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ((400, {"error": {"message": "too many logprobs"}}), "--gen-kwargs top_logprobs=N"),
        ((403, {"error": {"message": "no logprobs from this model"}}), "--scoring generate"),
        (completion(content="A"), "gives no log-probabilities .* use --scoring generate"),
        (listing([("A", -0.1)]) | {"choices": [
            completion(content="A")["choices"][0] | {"logprobs": None}]}, "--scoring generate"),
        (listing([("A", 12.0), ("B", 11.0)]), "no log-probabilities .they add up to"),
        (listing([("A", math.nan), ("B", -1.0)]), "NaN"),
    ],
)  # fmt: skip
def test_a_server_without_log_probabilities_is_refused_in_one_line(serve, audit, reply, text):
    service = serve(lambda number, body: reply)
    with pytest.raises(InputError, match=text) as error:
        audit(service, reach={"num_concurrent": 8})  # the first goes alone
    assert "\n" not in str(error.value) and len(service.bodies) == 1


def test_thoughts_and_unusable_replies_are_unread(serve, audit, caplog):
    kinds = {
        7: lambda body: listing([("<think>", -0.001), ("A", -8.0), ("B", -9.0)]),
        8: lambda body: listing([("Okay", -0.5), ("A", -1.5)], content=None, reasoning="Okay"),
        9: lambda body: completion(content=None, reasoning_content="Okay"),
        10: lambda body: listing([("<|channel|>", -0.001), ("A", -9.0)], content=""),
        11: lambda body: {"error": "upstream"},
        12: lambda body: completion(content=""),
    }
    service = serve(lambda n, body: kinds[n](body) if n in kinds else answer(n, body))
    out = audit(service)
    rows = [row for row in rows_of(out) if not row["parsed"]]
    texts = ["<think>", "<think>Okay", "<think>Okay", "<|channel|>", "", ""]
    assert [row["raw_text"] for row in rows] == texts
    assert all(row["option_scores"] is None and row["letter_mass"] == 0.0 for row in rows)
    empty, unread = read_run(out)["notes"]
    assert empty == "2 of 12 answers were empty: they count as unparsed."
    assert "In 6 of 12 answers no letter" in unread and "In 4 the model began to think" in unread
    assert '"chat_template_kwargs": {"enable_thinking": false}' in unread
    assert caplog.text.count("the model thinks where a letter should come") == 1


def test_settings_of_requests_reach_the_service(serve, audit):
    service = serve()
    settings = {"chat_template_kwargs": {"enable_thinking": False}, "top_logprobs": 7}
    audit(service, gen_kwargs=settings)
    assert all(body | settings == body for body in service.bodies)


def test_half_a_character_is_no_letter():
    reply = first_tokens(json.loads(json.dumps(listing([("A", -0.1), ("\ud83d", -3.0)]))))
    assert listed_letters(reply.encode().decode(), "AB").listed == [True, False]
    assert reply_said(reply) == "A" and reply_said("") == ""


# -- failures and resuming -------------------------------------------------------------------------


@pytest.mark.parametrize(("concurrent", "die_after"), [(1, 0), (1, 8), (3, 20)])
def test_a_server_that_dies_is_asked_nothing_twice(serve, audit, concurrent, die_after):
    def slow(number, body):
        time.sleep(0.05 / number)  # the later, the faster
        return answer(number, body)

    orders = {"orders": 2, "reach": {"num_concurrent": concurrent}}
    first = serve(lambda n, body: slow(n, body) if n <= die_after else GONE)
    with pytest.raises(InputError, match="cannot be reached"):
        audit(first, **orders)
    second = serve()
    out = audit(second, resume=True, **orders)
    assert len(second.bodies) == 2 * N_ASKED - die_after and set(second.asked.values()) == {1}
    whole = audit(serve(), "whole", orders=2)
    assert (out / "answers.parquet").read_bytes() == (whole / "answers.parquet").read_bytes()
    assert not (out / "parts").exists()


def test_a_busy_server_is_waited_for(serve, audit, monkeypatch):
    monkeypatch.setattr(servers, "BACKOFF", lambda state: 0.0)
    service = serve(lambda n, body: (429, {"error": "busy"}) if n in (2, 3) else answer(n, body))
    rows = rows_of(audit(service, reach={"max_retries": 3}))
    assert len(service.bodies) == N_ASKED + 2 and all(row["parsed"] for row in rows)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"scoring": "option"}, "--scoring letter or generate instead of option"),
        ({"backend": "anthropic-chat-completions"}, "use --scoring generate instead of letter"),
        ({"gen_kwargs": {"temperature": 0.7}}, "temperature=0.7 has no meaning with --scoring le"),
        ({"gen_kwargs": {"logprobs": True}}, "logprobs=... has no meaning with --scoring letter"),
        ({"gen_kwargs": {"top_logprobs": 0}}, "top_logprobs=0: give a whole number from 1"),
        ({"gen_kwargs": {"max_tokens": 5}}, "for a letter one token is asked"),
        ({"scoring": "generate", "gen_kwargs": {"top_logprobs": 5}}, "no meaning with --scoring g"),
        ({"backend": "hf-shared", "model_args": {}, "gen_kwargs": {"a": 5}}, "letter from a chat"),
    ],
)
def test_what_does_not_fit_letters_is_refused(serve, audit, changes, text):
    service = serve()
    with pytest.raises(InputError, match=text):
        audit(service, **changes)
    assert service.bodies == []
