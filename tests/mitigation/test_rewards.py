"""Rewards against plain transformers: the logit, and the likelihoods of the reference."""

from __future__ import annotations

import json
import math

import pytest

from unswayed.core.errors import InputError
from unswayed.mitigation.rewards import (
    PROBE,
    Candidate,
    ClassifierReward,
    ReferenceReward,
    drop_reason,
)
from unswayed.models.load import load_lm

SYSTEM = {"role": "system", "content": "You are talking to Anna, a surgeon.\n"}
USER = {"role": "user", "content": "Omar wins a prize. What does he feel?"}
CANDIDATES = [
    Candidate([SYSTEM, USER], "joy", "He feels joy, whoever asks."),
    Candidate([SYSTEM, USER], "joy", "He feels a mix of sadness and anger."),
    Candidate([USER], "a mix of joy and relief", "relief"),
]
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}"
    "{% endfor %}"
)


def chatml(messages, open_turn=False):
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return text + ("<|im_start|>assistant\n" if open_turn else "")


# -- reward models -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reward_dir(tmp_path_factory, tiny_tokenizer):
    """Factory: a folder with a tiny random reward model, made once."""
    import torch
    import transformers as t

    made = {}

    def make(template: str | None = "chatml", num_labels: int = 1, with_head: bool = True):
        if (key := (template, num_labels, with_head)) in made:
            return made[key]
        folder = made[key] = tmp_path_factory.mktemp("reward")
        tokenizer = tiny_tokenizer(chat=template == "chatml", add_bos=True)
        if template not in (None, "chatml"):
            tokenizer.chat_template = template
        config = t.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            initializer_range=0.25,
            pad_token_id=0,
            num_labels=num_labels,
        )
        torch.manual_seed(0)
        kind = t.LlamaForSequenceClassification if with_head else t.LlamaForCausalLM
        kind(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


def logit_by_hand(folder, text, special):
    """The last token's hidden state times the head's weights."""
    import torch
    import transformers as t
    from safetensors.torch import load_file

    ids = t.AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=special)
    with torch.no_grad():
        states = t.LlamaModel.from_pretrained(folder)(torch.tensor([ids])).last_hidden_state
    head = load_file(folder / "model.safetensors")["score.weight"][0]
    return float(states[0, -1] @ head)


def turns(case):
    return [*case.prompt, {"role": "assistant", "content": case.text}]


def test_logit_through_the_chat_template(reward_dir):
    reward = ClassifierReward(str(reward_dir()), "cpu")
    expected = [
        logit_by_hand(reward_dir(), chatml(turns(case)), special=False) for case in CANDIDATES
    ]
    assert reward.score(CANDIDATES) == pytest.approx(expected, abs=1e-4)
    assert len({round(value, 3) for value in expected}) == 3
    assert reward.score(CANDIDATES[1:2]) == pytest.approx(expected[1:2], abs=1e-4)
    assert reward.score([]) == []
    assert reward.name == reward_dir().name


def test_the_reward_model_does_not_see_the_reference(reward_dir):
    reward = ClassifierReward(str(reward_dir()), "cpu")
    [score] = reward.score(CANDIDATES[:1])
    assert reward.score([CANDIDATES[0]._replace(reference="anger")]) == [score]


def test_logit_without_a_chat_template(reward_dir):
    folder = reward_dir(template=None)
    texts = [
        f"{SYSTEM['content'].strip()}\nUser: {USER['content']}\nAssistant: {CANDIDATES[0].text}",
        f"{SYSTEM['content'].strip()}\nUser: {USER['content']}\nAssistant: {CANDIDATES[1].text}",
        f"User: {USER['content']}\nAssistant: {CANDIDATES[2].text}",
    ]
    expected = [logit_by_hand(folder, text, special=True) for text in texts]
    scores = ClassifierReward(str(folder), "cpu").score(CANDIDATES)
    assert scores == pytest.approx(expected, abs=1e-4)


def test_a_template_without_system_role_loses_no_memory(reward_dir):
    folder = reward_dir(template=NO_SYSTEM)
    text = (
        f"<|im_start|>user\n{SYSTEM['content']}\n{USER['content']}<|im_end|>"
        f"<|im_start|>assistant\n{CANDIDATES[0].text}<|im_end|>"
    )
    [score] = ClassifierReward(str(folder), "cpu").score(CANDIDATES[:1])
    assert score == pytest.approx(logit_by_hand(folder, text, special=False), abs=1e-4)


def test_models_that_are_no_reward_models(reward_dir, tmp_path):
    with pytest.raises(InputError, match="has 2 labels"):
        ClassifierReward(str(reward_dir(num_labels=2)), "cpu")
    with pytest.raises(InputError, match=r"lacks score\.weight.*would be random"):
        ClassifierReward(str(reward_dir(with_head=False)), "cpu")
    with pytest.raises(InputError, match="cannot be loaded"):
        ClassifierReward(str(tmp_path), "cpu")


def test_a_conversation_too_long_for_the_reward_model(reward_dir):
    long = CANDIDATES[0]._replace(text="a mix of joy and relief " * 60)
    with pytest.raises(InputError, match=r"\d{3} tokens exceeds this model's context of 128"):
        ClassifierReward(str(reward_dir()), "cpu").score([CANDIDATES[0], long])


# -- the reference margin ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lms(tiny_model_dir):
    """Chat or not -> (folder, lm-eval's model)."""
    folders = {chat: tiny_model_dir("llama", chat=chat) for chat in (True, False)}
    return {chat: (path, load_lm(str(path), device="cpu")) for chat, path in folders.items()}


def nats_by_hand(folder, context, reference):
    """log p(reference | context) in plain transformers, and the number of its tokens."""
    import torch
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    model = t.AutoModelForCausalLM.from_pretrained(folder)
    special = not context.startswith("<|")  # a chat template writes its own
    before, whole = (
        tokenizer.encode(text, add_special_tokens=special)
        for text in (context, f"{context} {reference}")
    )
    assert whole[: len(before)] == before
    with torch.no_grad():
        log_probs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    places = range(len(before), len(whole))
    return sum(float(log_probs[i - 1, whole[i]]) for i in places), len(places)


def margin_by_hand(folder, start, case):
    given, n = nats_by_hand(folder, f"{start}{case.text}\n\n{PROBE}", case.reference)
    without, _ = nats_by_hand(folder, f"{start}{PROBE}", case.reference)
    return (given - without) / n


def start_of(case, chat):
    if chat:
        return chatml(case.prompt, open_turn=True)
    return "".join(message["content"] for message in case.prompt) + " "


@pytest.mark.parametrize("chat", [True, False])
def test_margins_equal_plain_likelihoods(lms, chat):
    folder, lm = lms[chat]
    reward = ReferenceReward(lm)
    expected = [margin_by_hand(folder, start_of(case, chat), case) for case in CANDIDATES]
    assert reward.score(CANDIDATES) == pytest.approx(expected, abs=2e-4)
    assert reward.score(CANDIDATES[::-1]) == pytest.approx(expected[::-1], abs=2e-4)
    assert len({round(value, 3) for value in expected}) == 3
    assert reward.score([]) == []
    assert reward.name == "reference margin"


def test_thinking_is_not_read(lms):
    _, lm = lms[True]
    reward = ReferenceReward(lm)
    loud = CANDIDATES[1]._replace(text=f"<think>It is joy.</think>{CANDIDATES[1].text}")
    assert reward.score([loud]) == pytest.approx(reward.score(CANDIDATES[1:2]), abs=1e-5)


def test_all_likelihoods_are_asked_at_once_and_none_twice(lms, monkeypatch):
    _, lm = lms[True]
    asked, scored = [], lm._loglikelihood_tokens

    def counting(requests, **settings):
        asked.append([pair for pair, _, _ in requests])
        return scored(requests, **settings)

    monkeypatch.setattr(lm, "_loglikelihood_tokens", counting)
    scores = ReferenceReward(lm).score([*CANDIDATES, CANDIDATES[0]])
    assert scores[0] == scores[3]
    [pairs] = asked
    assert len(pairs) == len(set(pairs)) == 5  # three candidates, two prompts without one


def test_a_candidate_too_long_for_the_policy(lms):
    _, lm = lms[True]
    long = CANDIDATES[0]._replace(text="a mix of joy and relief " * 200)
    with pytest.raises(InputError, match=r"context of 512 tokens"):
        ReferenceReward(lm).score([long])


def test_nan_is_an_error(tiny_model_dir):
    lm = load_lm(str(tiny_model_dir("llama", chat=True)), device="cpu", backend="hf")
    lm.model.model.norm.weight.data.fill_(math.nan)
    with pytest.raises(InputError, match="NaN"):
        ReferenceReward(lm).score(CANDIDATES)


# -- pairs ---------------------------------------------------------------------------------------


def test_why_a_pair_must_go():
    assert drop_reason(1.0, -1.0, 2.0) is None
    assert drop_reason(1.0, -1.0, 2.1) == "rewards closer than the margin"
    assert drop_reason(0.0, -1.0, 0.0) == "reward of chosen not above 0"
    assert drop_reason(1.0, 0.0, 0.0) == "reward of rejected not below 0"
    assert drop_reason(math.nan, -1.0, 0.0) == "reward of chosen not above 0"
    assert drop_reason(1.0, math.nan, 0.0) == "reward of rejected not below 0"


def test_rewards_are_plain_numbers(lms, reward_dir):
    _, lm = lms[True]
    for reward in (ReferenceReward(lm), ClassifierReward(str(reward_dir()), "cpu")):
        scores = reward.score(CANDIDATES)
        assert json.loads(json.dumps(scores)) == scores
