"""What a trial's scores are: those of plain transformers after the very prompt, in every order."""

from __future__ import annotations

import json
import math

import pytest
import torch

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_answers
from unswayed.core.errors import InputError
from unswayed.data.items import LETTERS
from unswayed.scoring.prompts import question_text

ROWS = [
    {"id": "ferry", "scenario": "The last ferry leaves. What is felt?", "key": "Pride",
     "options": ["Annoyance", "Pride", "Guilt and relief"]},
    {"id": "jam", "scenario": "The jam wins a ribbon. What is felt?", "key": "Joy",
     "options": ["Shame", "Joy", "Fear"]},
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_model_dir) -> str:
    return str(tiny_model_dir("llama", chat=True, max_position_embeddings=2048))


@pytest.fixture(scope="module")
def plain(model):
    """log P(text | prompt) in plain transformers: a forward pass for each text, prompt as it is."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def score(prompt: str, text: str) -> float:
        context, answer = (
            tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt, text)
        )
        with torch.inference_mode():
            logits = network(torch.tensor([context + answer])).logits[0].double().log_softmax(-1)
        return float(sum(logits[len(context) + i - 1, t] for i, t in enumerate(answer)))

    return score


@pytest.fixture
def audit(model, tmp_path):
    """Rows of an audit of two items, one pair."""

    def run(**settings) -> list[dict]:
        (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        arguments = AuditArguments(
            model=model,
            items=[f"t={tmp_path / 't.jsonl'}"],
            pairs=1,
            out=tmp_path / "run",
            **settings,
        )
        return read_answers(run_audit(arguments)).to_pylist()

    return run


def test_options_count_from_behind_the_prompt_and_their_priors_too(audit, plain):
    for row in audit():
        assert row["prompt"].endswith("assistant\n")  # white space that is not the option's
        blind = row["prompt"].replace(row["user_prompt"], "Answer:")
        for text, nats, prior in zip(
            row["options"], row["option_scores"], row["option_priors"], strict=True
        ):
            assert nats == pytest.approx(plain(row["prompt"], text), abs=1e-4)
            assert prior == pytest.approx(plain(blind, text), abs=1e-4)
        pmi = [a - b for a, b in zip(row["option_scores"], row["option_priors"], strict=True)]
        assert row["answer"] == row["options"][pmi.index(max(pmi))]
        first = row["option_priors"].index(max(row["option_priors"]))
        assert row["blind_answer"] == row["options"][first]
        assert (row["rule"], row["letter_mass"], row["order_scores"]) == ("pmi", None, None)


def test_letters_are_the_mean_over_orders_in_which_each_stands_everywhere(audit, plain):
    for row in audit(scoring="letter", orders=3):
        order, n = row["option_order"], len(row["options"])
        expected, masses = [], []
        for turn in range(n):
            shown = order[turn:] + order[:turn]
            lines = "\n".join(
                f"{letter}. {row['options'][i]}" for letter, i in zip(LETTERS, shown, strict=False)
            )
            old = "\n".join(
                f"{letter}. {row['options'][i]}" for letter, i in zip(LETTERS, order, strict=False)
            )
            prompt = row["prompt"].replace(old, lines)
            nats = [plain(prompt, LETTERS[shown.index(i)]) for i in range(n)]
            expected.append(nats)
            masses.append(sum(map(math.exp, nats)))
        for ours, theirs in zip(row["order_scores"], expected, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)
        means = [sum(column) / n for column in zip(*expected, strict=True)]
        assert row["option_scores"] == pytest.approx(means, abs=1e-4)
        assert row["answer"] == row["options"][means.index(max(means))]
        assert row["letter_mass"] == pytest.approx(sum(masses) / n, abs=1e-4)
        assert (row["blind_answer"] is None) == (row["condition"] != "none")
        assert (row["option_priors"] is None) == (row["condition"] != "none")


def test_generated_answers_are_asked_without_the_scenario_once(audit):
    rows = audit(scoring="generate", max_gen_toks=4)
    asked = {row["condition"] for row in rows if row["blind_answer"] is not None}
    assert asked <= {"none"}
    assert all(row["option_scores"] is None and row["rule"] is None for row in rows)


def test_a_memory_that_rewrites_the_question_has_no_prior(model, tmp_path, monkeypatch):
    from unswayed.memory.prompt import PromptMemory

    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.setattr(
        PromptMemory, "messages", lambda self, q: [{"role": "user", "content": q.upper()}]
    )
    arguments = AuditArguments(
        model=model, items=[f"t={tmp_path / 't.jsonl'}"], pairs=1, out=tmp_path / "run"
    )
    with pytest.raises(InputError, match="rewrites the question"):
        run_audit(arguments)


def test_every_scoring_ends_in_its_frame():
    from unswayed.data.items import builtin_items

    item = builtin_items()[0]
    for scoring in ("option", "letter", "generate"):
        question = question_text(item, scoring, 1)
        assert question == f"{item.scenario}\n{question_text(item, scoring, 1, blind=True)}"


def test_options_of_one_character_are_no_letters(model, tmp_path):
    row = {"id": "x", "scenario": "2 + 2?", "options": ["a", "b", "c"], "key": "b"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    out = run_audit(
        AuditArguments(
            model=model,
            items=[f"t={tmp_path / 't.jsonl'}"],
            conditions=["none"],
            rule="sum",
            out=tmp_path / "run",
        )
    )
    assert [row["letter_mass"] for row in read_answers(out).to_pylist()] == [None]
