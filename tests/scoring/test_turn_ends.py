"""Where generated answers end, and what is asked of models that think: through lm-eval's models."""

from __future__ import annotations

import itertools
import shutil
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from unswayed.core.errors import InputError
from unswayed.scoring.ask import replies
from unswayed.scoring.chat import ChatFormat
from unswayed.scoring.hf import CheckpointLM
from unswayed.scoring.lm import SharedPrefixLM

SAID = {"role": "user", "content": "Who is kind?"}
SPOKEN = (
    "{% for m in messages %}{{ m.role + ':' + (' ' + m.content if m.content else '') + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def chained(lm: Any, *links: str) -> Any:
    """The model says these tokens one after another, whatever came before the first."""
    net, tokenizer = lm.model, lm.tokenizer
    ids = tokenizer.convert_tokens_to_ids(list(links))
    assert None not in ids and len(set(ids[:-1])) == len(ids) - 1, "a link is split, or twice there"
    with torch.no_grad():
        for layer in net.model.layers:  # a token's state is its embedding alone
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        net.model.embed_tokens.weight[:, : len(ids)] = 0
        net.lm_head.weight.zero_()
        for place, (here, after) in enumerate(itertools.pairwise(ids)):
            net.model.embed_tokens.weight[here] = torch.eye(32)[place]
            net.lm_head.weight[after] = torch.eye(32)[place]
    return lm


@pytest.fixture
def load_chat(tiny_model_dir):
    """`load_chat(kind, template)`: a tiny model whose end of text is not the end of its turn."""

    def make(kind: type = SharedPrefixLM, template: str | None = None, **settings: Any) -> Any:
        folder = tiny_model_dir("llama", chat=True, tie_word_embeddings=False)
        lm = kind(str(folder), device="cpu", dtype="float32", **settings)
        lm.tokenizer.chat_template = template or lm.tokenizer.chat_template
        return lm

    return make


def generated(lm: Any, instances: Any, prompts: list[str], **settings: Any) -> list[str]:
    pairs = [(prompt, {"max_gen_toks": 12, "until": []} | settings) for prompt in prompts]
    return lm.generate_until(instances(pairs, "generate_until"), disable_tqdm=True)


ENDS = ("Ċ", "Ġrelief", "<|im_end|>", "Ġanger", "Ġsadness", "</s>")


@pytest.mark.parametrize("kind", [SharedPrefixLM, CheckpointLM])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_answer_ends_with_its_turn_in_every_row(kind, batch_size, load_chat, instances):
    lm = chained(load_chat(kind, batch_size=batch_size), *ENDS)
    prompts = [lm.apply_chat_template([SAID])] * 2
    prompts.append(lm.apply_chat_template([SAID, SAID | {"role": "assistant"}, SAID]))
    assert generated(lm, instances, prompts) == [" relief"] * 3
    stock = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=batch_size)
    assert "anger" in "".join(generated(stock, instances, prompts)), "it would go on"


def test_an_answer_ends_where_the_generation_config_says(load_chat, instances):
    lm = chained(load_chat(), "Ċ", "Ġrelief", "Ġanger", "Ġsadness", "</s>")
    end = lm.tokenizer.convert_tokens_to_ids("Ġanger")
    lm.model.generation_config.eos_token_id = [2, end]
    assert generated(lm, instances, [lm.apply_chat_template([SAID])]) == [" relief"]


def test_an_added_token_that_is_not_special_ends_an_answer(load_chat, instances):
    from tokenizers import AddedToken

    lm = load_chat()
    lm.tokenizer.add_tokens(AddedToken("Question", special=False))
    lm.tokenizer.chat_template = lm.tokenizer.chat_template.replace("<|im_end|>", "Question")
    chained(lm, "Ċ", "Ġanger", "Question", "Ġsadness", "</s>")
    assert generated(lm, instances, [lm.apply_chat_template([SAID])]) == [" anger"]


def test_an_answer_ends_before_the_next_turn_that_is_written_out(load_chat, instances):
    lm = load_chat(template=SPOKEN)
    assert ChatFormat(lm).stops == ["\nuser:"]
    chained(lm, ":", "Ġrelief", "Ċ", "use", "r", ":")
    prompt = lm.apply_chat_template([SAID])
    stock = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer)
    assert generated(stock, instances, [prompt])[0].startswith(" relief\nuser: relief\n")
    assert generated(lm, instances, [prompt]) == [" relief"]
    assert generated(lm, instances, [prompt], until=["lie"]) == [" re"], "the task's own, too"
    assert replies(lm, [prompt], 12) == ["relief"]


# -- models that think -----------------------------------------------------------------------------

OPENS = "{{ '<|im_start|>assistant\n<think>\n' }}"
SWITCH = (
    "{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
FAR_SWITCH = (
    "{{ '<|im_start|>assistant\n' }}"
    "{{ '' if enable_thinking is defined and not enable_thinking else '<think>' }}"
)
UNKNOWN = "{{ '<|im_start|>assistant\n<<musing>>' }}"


@pytest.mark.parametrize("ends", [OPENS, SWITCH, FAR_SWITCH])
def test_likelihoods_in_lm_eval_are_taken_after_a_closed_thought(ends, load_chat, instances):
    lm = load_chat()
    plain = lm.tokenizer.chat_template
    lm.tokenizer.chat_template = plain.replace("{{ '<|im_start|>assistant\n' }}", ends)
    read = lm.apply_chat_template([SAID])
    closed = ChatFormat(lm).render([SAID])
    if ends in (OPENS, SWITCH):
        assert read == ChatFormat(lm, thinks=True).render([SAID]), "generation may think"
        assert closed.endswith("<think>\n\n</think>\n\n") and not read.endswith("</think>\n\n")
    else:  # which cannot be closed later
        assert read == closed
    scores = [
        lm.loglikelihood(instances([(prompt, "relief"), (prompt, "anger")]), disable_tqdm=True)
        for prompt in (read, closed)
    ]
    assert scores[0] == scores[1]
    ids = lm.tokenizer(closed + "relief", add_special_tokens=False, return_tensors="pt")
    start = len(lm.tokenizer(closed, add_special_tokens=False)["input_ids"])
    logs = lm.model(**ids).logits[0].log_softmax(-1)
    ids = ids["input_ids"][0]
    by_hand = sum(float(logs[i - 1, ids[i]]) for i in range(start, len(ids)))
    assert scores[0][0][0] == pytest.approx(by_hand, abs=1e-3)


def test_a_thought_that_cannot_be_closed_is_for_generation_only(load_chat, instances):
    lm = load_chat()
    template = lm.tokenizer.chat_template.replace("{{ '<|im_start|>assistant\n' }}", UNKNOWN)
    lm.tokenizer.chat_template = template
    prompt = lm.apply_chat_template([SAID])
    assert prompt.endswith("<<musing>>") and len(generated(lm, instances, [prompt])) == 1
    with pytest.raises(InputError, match="where the model gives none"):
        lm.loglikelihood(instances([(prompt, "relief")]), disable_tqdm=True)


def test_a_template_that_is_not_asked_for_changes_nothing(load_chat, instances):
    pairs = [("Anna is kind. Who is kind?", " Anna"), ("Who?", " Omar")]
    lm, broken = load_chat(), load_chat(template="{{ raise_exception('never') }}")
    scores = [m.loglikelihood(instances(pairs), disable_tqdm=True) for m in (lm, broken)]
    texts = [generated(m, instances, [prompt for prompt, _ in pairs]) for m in (lm, broken)]
    assert scores[0] == scores[1] and texts[0] == texts[1]
    with pytest.raises(InputError, match="never"):
        broken.apply_chat_template([SAID])


def test_one_of_several_templates_is_chosen_by_name(tiny_model_dir, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir("llama", chat=True), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = {"search": tokenizer.chat_template, "tools": SPOKEN}
    tokenizer.save_pretrained(folder)  # beside chat_template.jinja, the default
    for kind in (SharedPrefixLM, CheckpointLM):
        lm = kind(str(folder), device="cpu", chat_template="tools")
        assert lm.apply_chat_template([SAID]) == "user: Who is kind?\nassistant:"
        assert ChatFormat(lm).delimiter == " "
        with pytest.raises(
            InputError, match="no chat template 'nope'; it has default, search, tools"
        ):
            kind(str(folder), device="cpu", chat_template="nope")
