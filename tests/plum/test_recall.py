"""Recall and forgetting: scores against stock lm-eval, figures against calculations by hand."""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.data.conversations import builtin_conversations, builtin_facts
from unswayed.memory.baselines import FullMemory
from unswayed.memory.prompt import PromptMemory
from unswayed.memory.retrieval import RetrievalMemory
from unswayed.models.load import load_lm, loaded_lm
from unswayed.plum.ability import ability_change
from unswayed.plum.forgetting import (
    accuracy_matrix,
    backward_transfer,
    by_age,
    draw,
    first_against_peak,
    forgetting,
    over_time,
)
from unswayed.plum.qa import QAPair, bank_pairs
from unswayed.plum.recall import (
    compare,
    contains,
    denies,
    normalised,
    recall,
    summarise,
)
from unswayed.statistics.clustered import clustered_proportion
from unswayed.statistics.crossed import proportion


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


PAIRS = [
    QAPair("tea", "yes", "Did Anna have a job?", "Yes"),
    QAPair("tea", "no", "Did Anna win a prize?", "No"),
    QAPair("dog", "open", "What did Omar win?", "a prize"),
    QAPair("dog", "no", "Did Omar lose his house?", "No"),
    QAPair("dog", "open-no", "What did Omar eat?", "You did not tell me."),
]


# -- scoring -------------------------------------------------------------------------------------


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
def test_margins_are_those_of_stock_lm_eval(tiny_model_dir, chat):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    folder = str(tiny_model_dir("llama", chat=chat))
    stock = HFLM(pretrained=folder, device="cpu", dtype="float32", add_bos_token=not chat)
    rows = recall(load_lm(folder, device="cpu"), PAIRS, PromptMemory(), new_tokens=4)
    assert [(row["conversation"], row["kind"], row["question"]) for row in rows] == [
        (pair.conversation, pair.kind, pair.question) for pair in PAIRS
    ]
    for row in rows:
        if row["margin"] is None:
            continue
        asked = row["question"]
        prompt = (
            f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
            if chat
            else f"User: {asked}\nAssistant:"
        )
        texts = ["Yes", "No"] if chat else [" Yes", " No"]
        requests = [Instance("loglikelihood", {}, (prompt, text), 0) for text in texts]
        (yes, _), (no, _) = stock.loglikelihood(requests, disable_tqdm=True)
        assert row["margin"] == pytest.approx(yes - no, abs=1e-3)
        assert row["text"] == ("Yes" if yes > no else "No")
        assert row["correct"] == (row["text"] == row["answer"])


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
def test_the_prompt_is_the_one_trained_on(tiny_model_dir, chat):
    """Without a memory in the prompt: as `samples` renders it, cut before the answer."""
    from unswayed.plum.samples import prompt_and_answer
    from unswayed.scoring.ask import open_prompts
    from unswayed.scoring.chat import ChatFormat

    lm = load_lm(str(tiny_model_dir("gpt2", chat=chat)), device="cpu")
    [prompt] = open_prompts(lm, [PromptMemory().messages("Is it Anna?")])
    assert (prompt, ChatFormat(lm).delimiter + "Yes") == prompt_and_answer(
        lm.tokenizer, "Is it Anna?", "Yes"
    )


def test_other_backends_give_the_same(tiny_model_dir):
    folder = str(tiny_model_dir("llama", chat=True))
    ours = recall(load_lm(folder, device="cpu"), PAIRS, PromptMemory(), new_tokens=4)
    stock = load_lm(folder, device="cpu", backend="hf")
    theirs = recall(stock, PAIRS, PromptMemory(), new_tokens=4)
    assert [row["text"] for row in ours] == [row["text"] for row in theirs]
    assert [r["margin"] for r in ours if r["margin"]] == pytest.approx(
        [r["margin"] for r in theirs if r["margin"]], abs=1e-3
    )


def test_prompts_share_the_memory(tiny_model_dir):
    """Full context: the conversations go through the model once for all questions."""
    lm = load_lm(str(tiny_model_dir("llama", chat=True, max_position_embeddings=4096)))
    memory = FullMemory()
    memory.remember_conversations(builtin_conversations()[:3])
    pairs = [pair for pair in PAIRS if pair.kind in ("yes", "no")] * 5
    whole = len(lm.tok_encode(lm.apply_chat_template(memory.messages("?"))))
    assert lm.fallback_reason is None  # probes now
    seen = []
    handle = lm.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    recall(lm, pairs, memory)
    handle.remove()
    assert whole < sum(seen) < 2 * whole


def test_a_memory_that_does_not_fit_names_both_lengths(tiny_model_dir):
    lm = load_lm(str(tiny_model_dir("llama", chat=True)))
    memory = FullMemory()
    memory.remember_conversations(builtin_conversations())
    with pytest.raises(InputError, match=r"a prompt of \d{5} tokens .* context of 512 tokens"):
        recall(lm, PAIRS, memory)


def test_memories_are_compared_on_the_same_questions(tiny_model_dir):
    lm = load_lm(str(tiny_model_dir("llama", chat=True)))
    told = builtin_conversations()[:2]
    memories = [None, RetrievalMemory(k=1), FullMemory()]
    none, bm25, full = compare(lm, memories, told, PAIRS[:2])
    assert [one["memory"] for one in (none, bm25, full)] == ["none", "retrieval", "full"]
    assert bm25["style"] == "bm25-1" and none["style"] == ""
    assert none["recall"] == summarise(recall(lm, PAIRS[:2], PromptMemory()))
    assert bm25["recall"] == summarise(recall(lm, PAIRS[:2], memories[1]))
    assert none["longest"] < bm25["longest"] < 512 < full["longest"]
    assert full["recall"] is None and full["context"] == 512


def test_a_prompt_of_just_the_context_fits(tiny_model_dir):
    """`compare` and the model agree on what fits, with an answer of several tokens."""
    pairs = PAIRS[:1]
    asked = compare(load_lm(str(tiny_model_dir("llama", chat=True))), [None], [], pairs)
    (longest,) = [one["longest"] for one in asked]
    for context in (longest - 1, longest):
        lm = load_lm(str(tiny_model_dir("llama", chat=True)), model_args={"max_length": context})
        (found,) = compare(lm, [None], [], pairs)
        assert (found["recall"] is not None) == (context == longest)
        if context < longest:
            with pytest.raises(InputError, match=f"context of {context} tokens"):
                recall(lm, pairs, PromptMemory())


def test_the_memory_is_active_while_the_model_is_asked(tiny_model_dir):
    lm = load_lm(str(tiny_model_dir("llama", chat=True)))
    on = []

    class Switched(PromptMemory):
        @contextmanager
        def active(self, model):
            handle = model.model.register_forward_pre_hook(lambda *_: on.append(True))
            yield
            handle.remove()

    recall(lm, PAIRS[:2], Switched())
    n = len(on)
    assert n > 0
    recall(lm, PAIRS[:2], PromptMemory())
    assert len(on) == n


def test_a_model_in_training_is_scored_without_dropout_and_goes_on_training(
    tiny_model_dir, save_lora
):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(tiny_model_dir("llama", chat=True))
    config = LoraConfig(r=4, lora_dropout=0.5, init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).eval()
    for name, module in model.named_modules():  # as the trainer leaves it
        if name.endswith("lora_dropout"):
            module.train()
    modes = [module.training for module in model.modules()]
    assert True in modes and not model.training
    lm = loaded_lm(model, AutoTokenizer.from_pretrained(folder))
    assert [module.training for module in model.modules()] == modes
    found = recall(lm, PAIRS[:2], PromptMemory())
    assert [module.training for module in model.modules()] == modes
    assert recall(lm, PAIRS[:2], PromptMemory()) == found  # no dropout
    from_disk = load_lm(folder, adapter=save_lora(model), device="cpu")
    again = recall(from_disk, PAIRS[:2], PromptMemory())
    assert [r["margin"] for r in again] == pytest.approx([r["margin"] for r in found], abs=1e-4)
    # training goes on, and the same lm sees it
    for p in model.parameters():
        if p.requires_grad:
            p.data.add_(0.1)
    changed = recall(lm, PAIRS[:2], PromptMemory())
    assert abs(changed[0]["margin"] - found[0]["margin"]) > 1e-3


def test_recall_after_each_conversation_leaves_the_training_as_it_is(tiny_model_dir, tmp_path):
    """The trainer's callback may ask; the same adapter comes out, byte for byte."""
    from unswayed.models.base import load_base
    from unswayed.plum.settings import PlumSettings
    from unswayed.plum.train import train

    settings = PlumSettings(rank=4, dropout=0.2, epochs=2, learning_rate=1e-2)
    base = load_base(str(tiny_model_dir("llama", chat=True)), device="cpu")
    rows, shared = [], []

    def ask(model, done):
        lm = loaded_lm(model, base.tokenizer)
        asked = [pair for pair in PAIRS if pair.conversation in done]
        found = recall(lm, asked, PromptMemory(), new_tokens=2)
        shared.append(lm.fallback_reason is None)
        rows.extend(one | {"after": len(done)} for one in found)

    train(base, PAIRS, settings, tmp_path / "asked", ask)
    train(base, PAIRS, settings, tmp_path / "silent")
    asked, silent = (
        {p.name: p.read_bytes() for p in (tmp_path / n).rglob("*.safetensors")}
        for n in ("asked", "silent")
    )
    assert asked and asked == silent and all(shared)
    matrix = accuracy_matrix(rows, ["tea", "dog"])
    assert np.isnan(matrix).tolist() == [[False, True], [False, False]]


@pytest.fixture
def save_lora(tmp_path):
    def save(model) -> str:
        model.save_pretrained(tmp_path / "adapter")
        return str(tmp_path / "adapter")

    return save


def test_wrong_input(tiny_model_dir):
    import torch

    lm = load_lm(str(tiny_model_dir("llama", chat=True, initializer_range=0.2)))
    with pytest.raises(InputError, match="kind 'maybe'"):
        recall(lm, [QAPair("a", "maybe", "?", "!")], PromptMemory())
    assert recall(lm, [], PromptMemory()) == []
    lm.model.lm_head.weight.data.fill_(torch.nan)
    with pytest.raises(InputError, match="NaN"):
        recall(lm, PAIRS[:1], PromptMemory())


def test_held_out_questions_of_the_bank():
    pairs = bank_pairs(builtin_facts())[1]
    assert {kind: sum(p.kind == kind for p in pairs) for kind in ("open", "yes", "no")} == {
        "open": 136, "yes": 136, "no": 136,
    }  # fmt: skip
    trained = {q for f in builtin_facts() for q in (f.question, f.yes, f.no)}
    assert trained.isdisjoint(pair.question for pair in pairs)


# -- free answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fact", "found"),
    [
        ("You booked it at LAKE  Ostrel.", "Lake Ostrel", True),
        ("The rowing-boat, on Wednesday!", "a rowing boat", True),
        ("Lake Ostrelia", "Lake Ostrel", False),  # whole words
        ("Ostrel Lake", "Lake Ostrel", False),  # in a row
        ("four kilometres", "4 kilometres", False),  # strict
        ("“Ｂｉｓｃｕｉｔ”", "biscuit", True),  # NFKC
        ("I do not know", "Tamsin", False),
        ("", "Tamsin", False),
    ],
)
def test_contains(text, fact, found):
    assert contains(text, fact) is found


@given(st.text(), st.text(), st.text())
def test_a_text_with_the_fact_in_it_contains_it(before, fact, after):
    assert contains(f"{before} {fact} {after}", fact) == bool(normalised(fact))


def test_denies():
    assert denies("We didn’t talk about that.") and denies("You have not told me.")
    assert denies("I have no record of it.") and denies("That never came up.")
    assert not denies("You told me that it was Tamsin.") and not denies("")


# -- figures -------------------------------------------------------------------------------------


def row(conversation, kind, correct, after=1, margin=None):
    said = {"yes": {True: "Yes", False: "No"}, "no": {True: "No", False: "Yes"}}.get(kind)
    text = said[correct] if said else "..."
    margin = (1.0 if text == "Yes" else -1.0) if margin is None and said else margin
    return {"conversation": conversation, "kind": kind, "correct": correct, "after": after,
            "text": text, "margin": margin}  # fmt: skip


def test_summarise_by_hand():
    rows = [
        row("a", "yes", True, margin=2.0), row("a", "no", True, margin=-1.0),
        row("b", "yes", False, margin=-0.5), row("b", "no", True, margin=-2.0),
        row("b", "open", True), row("a", "open", False), row("a", "open-no", True),
    ]  # fmt: skip
    found = summarise(rows)
    assert found["closed"]["recall"] == 0.75 and found["closed"]["n"] == 4
    assert found["closed"]["conversations"] == 2
    assert 0 <= found["closed"]["low"] < 0.75 < found["closed"]["high"] <= 1
    assert (found["yes"]["recall"], found["no"]["recall"]) == (0.5, 1.0)
    assert found["open"]["recall"] == 0.5 and found["open_no"]["recall"] == 1.0
    assert found["open_no"]["low"] is None  # one conversation
    assert found["said_yes"] == 0.25
    assert found["auc"] == 1.0  # both yes margins above both no margins
    assert summarise([]) == dict.fromkeys(found)
    assert summarise(rows[-1:])["auc"] is None


def test_no_to_everything_has_an_honest_interval():
    """All no: 0.5 overall whatever the conversations, so the clusters' sums do not vary."""
    rows = [row(str(i), kind, kind == "no") for i in range(40) for kind in ("yes", "no")]
    found = summarise(rows)
    assert found["closed"]["recall"] == 0.5 and found["said_yes"] == 0.0
    assert 0.38 < found["closed"]["low"] < 0.42 and 0.58 < found["closed"]["high"] < 0.62
    assert (found["yes"]["recall"], found["no"]["recall"]) == (0.0, 1.0)


@given(st.lists(st.booleans(), min_size=2, max_size=40))
def test_clusters_of_one_value_are_crossed_proportion(values):
    ours = clustered_proportion(values, range(len(values)))
    theirs = proportion(np.array(values, dtype=float)[:, None])
    for name in ("estimate", "low", "high", "n", "n_items"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name))
    assert clustered_proportion(values[:1], "a").low is None
    assert clustered_proportion([], []).n == 0


def test_intervals_hold_their_level_in_clusters():
    """44 clusters of 6 with correlation 0.3: about 95 % coverage, where the plain one fails."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(44), 6)
    clustered = plain = 0
    for _ in range(400):
        p = rng.beta(0.7 / 0.3 * 0.8, 0.7 / 0.3 * 0.2, 44)
        y = rng.random(264) < p[clusters]
        found = clustered_proportion(y, clusters)
        clustered += found.low <= 0.8 <= found.high
        found = clustered_proportion(y, range(264))
        plain += found.low <= 0.8 <= found.high
    assert clustered / 400 > 0.92 and plain / 400 < 0.85


# -- forgetting ----------------------------------------------------------------------------------

ORDER = ["a", "b", "c"]
ROWS = [
    row("a", "yes", True, 1), row("a", "no", True, 1),
    row("a", "yes", True, 2), row("a", "no", False, 2),
    row("b", "yes", True, 2), row("b", "no", True, 2),
    row("a", "yes", False, 3), row("a", "no", True, 3),
    row("b", "yes", False, 3), row("b", "no", False, 3),
    row("c", "yes", True, 3), row("c", "no", True, 3),
    row("c", "open", False, 3),  # not counted
]  # fmt: skip


def test_forgetting_by_hand():
    nan = math.nan
    matrix = accuracy_matrix(ROWS, ORDER)
    assert matrix == pytest.approx(
        np.array([[1, nan, nan], [0.5, 1, nan], [0.5, 0, 1]]), nan_ok=True
    )
    assert backward_transfer(matrix) == pytest.approx(((0.5 - 1) + (0 - 1)) / 2)
    assert by_age(matrix) == pytest.approx([1.0, 0.25, 0.5])
    assert first_against_peak(matrix) == {"end": 0.5, "peak": 1.0, "lost": 0.5}
    curve = over_time(ROWS)
    assert [point["after"] for point in curve] == [1, 2, 3]
    assert [point["closed"]["recall"] for point in curve] == [1.0, 0.75, 0.5]
    assert curve[2]["yes"]["recall"] == pytest.approx(1 / 3)
    assert curve[1]["said_yes"] == 0.75 and curve[2]["no"]["recall"] == pytest.approx(2 / 3)


def test_checkpoints_that_were_skipped():
    matrix = accuracy_matrix([one for one in ROWS if one["after"] != 2], ORDER)
    assert np.isnan(matrix[1]).all()
    assert backward_transfer(matrix) == -0.5  # that of "a" alone
    assert by_age(matrix) == [1.0, 0.0, 0.5]
    assert backward_transfer(accuracy_matrix(ROWS[:2], ["a"])) is None
    assert first_against_peak(accuracy_matrix([], ORDER)) is None


def test_the_plot_is_an_svg_and_always_the_same():
    import json
    import xml.etree.ElementTree as ET

    found = json.loads(json.dumps(forgetting(ROWS, ORDER)))
    assert found["matrix"][0] == [1.0, None, None]
    svg = draw(found)
    assert ET.fromstring(svg).tag.endswith("svg") and svg == draw(found)
    assert "conversations learnt" in svg and "share of Yes said" in svg
    assert ET.fromstring(draw(forgetting(ROWS[:2], ["a"]))).tag.endswith("svg")


# -- ability -------------------------------------------------------------------------------------


def test_change_of_ability_is_paired():
    before = {"mmlu": [1, 1, 0, 0] * 50}
    same = ability_change(before, before)["mmlu"]
    assert (same["before"], same["change"], same["n"]) == (0.5, 0.0, 200)
    after = {"mmlu": [1, 0, 0, 0] * 50}
    worse = ability_change(before, after)["mmlu"]
    assert worse["after"] == 0.25 and worse["change"] == -0.25
    assert worse["low"] < -0.25 < worse["high"] < 0 and worse["p_equivalent"] > 0.5


@pytest.mark.slow
def test_embedded_model_reads_a_snippet():
    """The right snippet in the prompt makes the embedded model find some facts."""
    lm = load_lm("smollm2-135m")
    pairs = [pair for pair in bank_pairs(builtin_facts())[1] if pair.kind == "open"][::8]
    memory = RetrievalMemory(k=1)
    memory.remember_conversations(builtin_conversations())
    without = summarise(recall(lm, pairs, PromptMemory()))["open"]["recall"]
    assert summarise(recall(lm, pairs, memory))["open"]["recall"] > without
