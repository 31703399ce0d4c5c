"""`unswayed audit --dry-run`: what an audit would cost is what it then costs; nothing happens."""

from __future__ import annotations

import dataclasses
import re

import pytest
from chat_service import completion, listing, serving
from hypothesis import given
from hypothesis import strategies as st

from unswayed.audit.cost import characters, cost_of, tokens
from unswayed.audit.outcomes import outcomes
from unswayed.audit.run import run_audit
from unswayed.audit.trials import choose_personas, trials_of
from unswayed.cli import main
from unswayed.core.errors import InputError
from unswayed.core.journal import Journal
from unswayed.data.items import load_items
from unswayed.data.personas import load_personas
from unswayed.memory.registry import find_mechanism
from unswayed.models.load import load_lm
from unswayed.scoring.chat import ChatFormat

# -- counting --------------------------------------------------------------------------------------

SEQUENCE = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@given(st.lists(st.tuples(SEQUENCE, SEQUENCE), min_size=1, max_size=8), st.floats(0, 1))
def test_tokens_are_those_of_distinct_beginnings(requests, attention):
    passed = {(*context, *answer[:-1]) for context, answer in requests}
    beginnings = {sequence[:n] for sequence in passed for n in range(1, len(sequence) + 1)}
    shared, alone = (tokens(requests, shared, attention) for shared in (True, False))
    for amount in (shared, alone):
        assert amount.distinct == len(beginnings)
        assert amount.alone == sum(map(len, passed))
        assert amount.longest == max(len(c) + len(a) for c, a in requests)
    by_token = sum(1 + attention * (len(beginning) - 1) for beginning in beginnings)
    assert shared.work == pytest.approx(by_token)
    by_token = sum(1 + attention * i for sequence in passed for i in range(len(sequence)))
    assert alone.work == pytest.approx(by_token)


TEXT = st.text("ab", min_size=1, max_size=8)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_characters_likewise(pairs):
    texts = {prompt + text for prompt, text in pairs}
    amount = characters(pairs, shared=True)
    assert amount.distinct == len({text[:n] for text in texts for n in range(1, len(text) + 1)})
    assert amount.alone == sum(map(len, texts)) == characters(pairs, shared=False).work


# -- in this process -------------------------------------------------------------------------------


def passed_tokens(given, backend: str = "hf-shared") -> int:
    """That go through the model in an audit of these arguments."""
    lm = load_lm(given.model, backend=backend)
    passed = []

    def see(module, args, kwargs, output):
        passed.append((args or [kwargs["input_ids"]])[0].numel())

    memory = find_mechanism(given.memory).make(given, lm, [])
    hook = lm.model.register_forward_hook(see, with_kwargs=True)
    if hasattr(lm, "fallback_reason"):
        assert lm.fallback_reason is None
        passed.clear()  # the probe's
    personas = choose_personas(load_personas(None), given.conditions, given.pairs)
    for user in [None, *personas]:
        trials = list(trials_of(load_items(given.items), user, memory, given.scoring, given.seed))
        outcomes(lm, ChatFormat(lm), trials, memory, given, Journal(None))
    hook.remove()
    return sum(passed)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scoring": "letter", "orders": 2},
        {"memory": "retrieval", "memory_style": "bm25-2"},
        {"backend": "hf"},
    ],
)
def test_tokens_are_those_that_pass_the_model(arguments, changes):
    """With one user of each condition all are counted; nothing is written."""
    given = arguments(pairs=1, **changes)
    cost = cost_of(given)
    assert not given.out.exists()
    backend = changes.get("backend", "hf-shared")
    assert cost.shared == (backend == "hf-shared")
    counted = cost.amount.distinct if cost.shared else cost.amount.alone
    assert counted == passed_tokens(given, backend)
    assert cost.amount.distinct < cost.amount.alone / 2
    assert cost.trials == {"none": 3, "neutral": 3, "advantaged": 3, "disadvantaged": 3}
    assert cost.speed.audit > 0 and cost.speed.measured > 0
    assert cost.footprint.weights < cost.footprint.peak


def test_other_users_are_estimated_by_their_characters(arguments):
    whole = cost_of(arguments(pairs=5)).amount
    assert whole.distinct == pytest.approx(passed_tokens(arguments(pairs=5)), rel=0.03)


def test_generated_answers(arguments):
    cost = cost_of(arguments(pairs=1, scoring="generate", max_gen_toks=16))
    assert (cost.questions, cost.blind, cost.options, cost.new_tokens) == (12, 3, 0, 16)
    assert cost.speed.new_tokens > 0
    assert cost.speed.audit >= 15 * 15 / cost.speed.new_tokens


def test_a_run_that_goes_on(arguments, dies_at_the_third_part):
    with pytest.raises(KeyboardInterrupt):
        run_audit(arguments())
    rest = arguments(resume=True)
    before = {path: path.read_bytes() for path in rest.out.rglob("*") if path.is_file()}
    cost = cost_of(rest)
    assert (sum(cost.trials.values()), cost.scored, cost.questions) == (21, 6, 15)
    assert before == {path: path.read_bytes() for path in rest.out.rglob("*") if path.is_file()}
    run_audit(rest)
    cost = cost_of(rest)
    assert (cost.scored, cost.questions, cost.speed) == (21, 0, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"memory": "plum"},
        {"memory": "logo"},
        {"memory": "logo", "memory_style": "weights"},
    ],
)
def test_memories_that_are_trained_are_not(arguments, changes):
    given = arguments(pairs=1, **changes)
    cost = cost_of(given)
    assert cost.trains and cost.amount.distinct > 0
    assert not given.out.exists()


# -- services --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scoring", "per_answer"), [("letter", 1), ("generate", 256)])
def test_a_service_is_asked_nothing(arguments, scoring, per_answer, chat_model):
    reply = listing([("A", -0.5)]) if scoring == "letter" else completion(content="Answer: A")
    with serving(lambda number, body: reply) as service:
        reach = {"base_url": service.url, "requests_per_minute": 6000}
        given = arguments(
            backend="local-chat-completions", scoring=scoring, pairs=1, model_args=reach
        )
        cost = cost_of(given)
        assert not service.bodies and not given.out.exists()
        assert cost.new_tokens == per_answer and cost.requests_per_minute == 6000
        assert cost.speed is None and not cost.counted
        counting = dataclasses.replace(given, model_args=reach | {"tokenizer": str(chat_model)})
        exact = cost_of(counting)
        run_audit(given)
        said = [turn["content"] for body in service.bodies for turn in body["messages"]]
        assert len(service.bodies) == cost.questions + cost.blind
        assert cost.amount.alone == sum(map(len, said)) / 4
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    assert exact.counted
    assert exact.amount.alone == sum(len(tokenizer.encode(text)) for text in said)


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def command(chat_model, items_file, tmp_path, capsys):
    """`command(*options)`: exit code, standard output and error."""

    def call(*options: str, model=chat_model):
        base = ["audit", "--dry-run", "--model", str(model), "--items", f"mine={items_file}"]
        code = main([*base, "--out", str(tmp_path / "run"), *options])
        return code, *capsys.readouterr()

    return call


def test_the_lines(command, tmp_path):
    code, out, _ = command("--pairs", "2", "--limit", "2")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "trials     14: none 2, neutral 4, advantaged 4, disadvantaged 4"
    assert "expected accuracy or score of mine within 5 points" in lines[1]
    assert lines[2] == "questions  28, 14 of them without the scenario; 70 likelihoods of options"
    assert re.fullmatch(
        r"tokens     about [\d,]+ through the model; [\d,]+ tokens in stock batches, "
        r"[\d.]+ times as many",
        lines[3],
    )
    assert re.fullmatch(r"time       about [\d.]+ s, from \d\.\d s measured here", lines[4])
    assert lines[5].startswith("memory     weights ") and lines[5].endswith(" at the peak so far")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--model", "/no/such/folder"],
        ["--conditions", "some"],
        ["--memory", "telepathy"],
        ["--limit", "0"],
        ["--policy", "none.yaml"],
        ["--gen-kwargs", "temperature=1"],
        ["--items", "mine=missing.jsonl"],
    ],
)
def test_wrong_input_ends_as_in_an_audit(command, options, tmp_path, capsys):
    code, out, line = command(*options)
    assert code == 2 and out == "" and len(line.splitlines()) == 1
    argv = ["audit", "--out", str(tmp_path / "run"), *options]
    for needed in ("--model", "--items"):
        if needed not in options:
            argv += [needed, "smollm2-135m" if needed == "--model" else "builtin"]
    assert main(argv) == 2
    assert capsys.readouterr().err == line


def test_a_prompt_that_does_not_fit_is_found(arguments, tiny_model_dir):
    """That of a user who is not counted too."""
    short = tiny_model_dir("llama", chat=True, max_position_embeddings=300)
    with pytest.raises(InputError, match="exceed this model's context of 300 tokens"):
        cost_of(arguments(model=str(short)))
