"""Chat templates of many kinds: nothing that was said is lost, options stand where answers do."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unswayed.core.errors import InputError
from unswayed.scoring.chat import ChatFormat, answered, end_token, template_parts, with_answers

TURNS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
START = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = TURNS + "{% endfor %}" + START
# A switch for thinking: an empty thought in front of the answer where it is off.
SWITCH = CHATML.replace(
    START,
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{% endif %}",
)
# The switch changes the system message, and the thought.
FAR_SWITCH = (
    "{% set quiet = enable_thinking is defined and not enable_thinking %}"
    "{{ '<|im_start|>system\nMode: ' + ('quiet' if quiet else 'thought') + '<|im_end|>\n' }}"
    + CHATML.replace(
        START, START + "{% if add_generation_prompt and quiet %}<think>\n</think>\n{% endif %}"
    )
)
OPENS = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")
OPENS_CLOSED = OPENS.replace(
    "m.role + '\n' +",
    "m.role + '\n' + ('<think>\n\n</think>\n\n' if m.role == 'assistant' else '') +",
)
OPENS_OTHER = CHATML.replace("assistant\n' }}", "assistant\n[THINK]' }}")
OPENS_UNKNOWN = CHATML.replace("assistant\n' }}", "assistant\n<<musing>>' }}")
CHANNELS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role }}"
    "{{ '<|channel|>final' if m.role == 'assistant' else '' }}"
    "{{ '<|message|>' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no such role') }}{% endif %}"
    "{{ '<|im_start|>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ m.content | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
DROPS_SYSTEM = NO_SYSTEM.replace(
    "{% if m.role == 'system' %}{{ raise_exception('no such role') }}{% endif %}", ""
).replace("in messages %}", "in messages if m.role != 'system' %}", 1)
# The system message in front of the first turn, a space before answers, no generation prompt.
INSTRUCT = (
    "{{ bos_token }}{% set notes = '' %}"
    "{% if messages[0].role == 'system' %}{% set notes = messages[0].content + '\n\n' %}{% endif %}"
    "{% set turns = messages | rejectattr('role', 'equalto', 'system') | list %}"
    "{% for m in turns %}{% if m.role == 'user' %}"
    "{{ '[INST] ' + (notes if loop.first else '') + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user and assistant') }}{% endif %}{% endfor %}"
)
TWO_BREAKS = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\n\n' + m.content | trim + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}{% endif %}"
)
SPOKEN = (
    "{% for m in messages %}{{ m.role.upper() + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}"
)
PARTS = CHATML.replace(
    "m.content +",
    "(m.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join) +",
)
USER_PARTS = CHATML.replace(
    "m.content +", "(m.content[0].text if m.role == 'user' else m.content) +"
)

KINDS = {
    "chatml": CHATML, "switch": SWITCH, "far switch": FAR_SWITCH, "opens": OPENS,
    "opens, shows it closed": OPENS_CLOSED, "opens another": OPENS_OTHER, "channels": CHANNELS,
    "no system role": NO_SYSTEM, "drops system": DROPS_SYSTEM, "instruct": INSTRUCT,
    "two breaks": TWO_BREAKS, "spoken": SPOKEN, "parts": PARTS, "user's parts": USER_PARTS,
    "no generation prompt": TURNS + "{% endfor %}",
}  # fmt: skip
NOTES, QUESTION = "The user is Omar.\n", "It rains. What is felt?\nAnswer:"
ASKED = [{"role": "system", "content": NOTES}, {"role": "user", "content": QUESTION}]
SAID = [{"role": "user", "content": "I live alone."}, {"role": "assistant", "content": "Noted."}]


@pytest.fixture(scope="module")
def tokenizer_with(tiny_tokenizer):
    """`tokenizer_with(template)`; where `template` is an entry of KINDS always the same one."""
    plain, made = tiny_tokenizer(add_bos=True), {}

    def make(template: Any) -> Any:
        if str(template) not in made:
            made[str(template)] = copy.deepcopy(plain)
            made[str(template)].chat_template = template
        return made[str(template)]

    return make


def chat_format(tokenizer: Any, thinks: bool = False, **settings: Any) -> ChatFormat:
    lm = SimpleNamespace(tokenizer=tokenizer, chat_template_args=settings)
    return ChatFormat(lm, thinks=thinks)


# How the prompt ends, and what stands between it and an answer.
CHATML_END = "system\n{notes}<|im_end|>\n<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n"
WHERE = {
    "chatml": (CHATML_END, ""),
    "parts": (CHATML_END, ""),
    "user's parts": (CHATML_END, ""),
    "no generation prompt": (CHATML_END, ""),
    "switch": (CHATML_END + "<think>\n\n</think>\n\n", ""),
    "far switch": (CHATML_END + "<think>\n</think>\n", ""),
    "opens": (CHATML_END + "<think>\n\n</think>\n\n", ""),
    "opens, shows it closed": (CHATML_END + "<think>\n\n</think>\n\n", ""),
    "opens another": (CHATML_END + "[THINK]\n\n[/THINK]\n\n", ""),
    "channels": ("{q}<|im_end|><|im_start|>assistant<|channel|>final<|message|>", ""),
    "no system role": ("<s><|im_start|>user\n{notes}\n{q}<|im_end|>\n<|im_start|>model\n", ""),
    "drops system": ("<s><|im_start|>user\n{notes}\n{q}<|im_end|>\n<|im_start|>model\n", ""),
    "instruct": ("<s>[INST] {notes}\n\n{q} [/INST]", " "),
    "two breaks": ("\n\n{q}<|im_end|><|im_start|>assistant\n\n", ""),
    "spoken": ("SYSTEM: {notes}\nUSER: {q}\nASSISTANT:", " "),
}


@pytest.mark.parametrize("kind", KINDS)
def test_options_are_scored_where_answers_stand(kind, tokenizer_with):
    prompt, delimiter = WHERE[kind]
    chat = chat_format(tokenizer_with(KINDS[kind]))
    assert chat.render(ASKED).endswith(prompt.format(notes=NOTES, q=QUESTION))
    assert chat.delimiter == delimiter


@pytest.mark.parametrize("kind", KINDS)
def test_generation_reads_what_plain_transformers_renders(kind, tokenizer_with):
    """But for contents as parts, a folded system message, and what names the speaker or channel."""
    tokenizer = tokenizer_with(KINDS[kind])
    text = chat_format(tokenizer, thinks=True).render(ASKED)
    if kind in ("parts", "user's parts", "no system role", "drops system"):
        assert NOTES.strip() in text and text.rstrip().endswith(("assistant", "model"))
        return
    ends = {
        "channels": "<|channel|>final<|message|>",
        "no generation prompt": "<|im_start|>assistant\n",
    }
    plain = tokenizer.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
    assert text == plain + ends.get(kind, "")


ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@pytest.mark.parametrize("kind", KINDS)
@given(notes=ANY, question=ANY, said=ANY, answer=ANY)
def test_any_text_is_in_the_prompt_and_its_answer_goes_on_from_there(
    kind, tokenizer_with, notes, question, said, answer
):
    tokenizer = tokenizer_with(KINDS[kind])
    messages = [
        {"role": "system", "content": notes},
        {"role": "user", "content": said},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": question},
    ]
    for thinks in (False, True):
        text = chat_format(tokenizer, thinks).render(messages)
        assert all(text.count(m["content"].strip()) >= 1 for m in messages)
    prompt = chat_format(tokenizer).render([{"role": "user", "content": question}])
    assert answered(tokenizer, question, answer).startswith(prompt)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_to_be_learnt_go_on_from_the_prompt_and_end_with_their_end(kind, tokenizer_with):
    tokenizer = tokenizer_with(KINDS[kind])
    chat = chat_format(tokenizer)
    prompt, answers = with_answers(tokenizer, ASKED, ["hope and joy\n", " fear"])
    end = "</s>" if kind in ("instruct", "spoken") else "<|im_end|>"
    assert tokenizer.decode([end_token(tokenizer)]) == end
    for ids, answer in zip(answers, ("hope and joy", "fear"), strict=True):
        whole = chat.render(ASKED) + chat.delimiter + answer + end
        assert prompt + ids == tokenizer(whole, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids).strip() == answer + end


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("switch", "closed at once"),
        ("opens", "closed at once"),
        ("channels", "writes '<|channel|>final<|message|>' before an answer"),
        ("no system role", "no system role"),
        ("drops system", "no system role"),
        ("parts", "lists of parts"),
        ("chatml", ""),
        ("instruct", ""),
    ],
)
def test_what_was_done_differently_is_said(kind, said, tokenizer_with):
    note = chat_format(tokenizer_with(KINDS[kind])).note
    assert said in note if said else note == ""


class TestRefused:
    @pytest.mark.parametrize(
        "template",
        [
            "{{ '<|im_start|>assistant\n' }}",
            "{{ raise_exception('not today') }}",
            "{% for m in messages %}",
            *(
                CHATML.replace("m.content", change)
                for change in ("m.content.upper()", "m.content | e", "m.content | tojson", "m.text")
            ),
        ],
    )
    def test_a_template_that_shows_no_question(self, template, tokenizer_with):
        with pytest.raises(InputError, match="does not show a question as it is") as refusal:
            chat_format(tokenizer_with(template))
        assert "\n" not in str(refusal.value)

    def test_a_message_that_is_dropped_or_changed_in_this_conversation_only(self, tokenizer_with):
        short = chat_format(tokenizer_with(CHATML.replace("m.content", "m.content[:40]")))
        assert "It rains." in short.render([{"role": "user", "content": "It rains."}])
        with pytest.raises(InputError, match="drops or changes what the user says: 'It rains"):
            short.render([{"role": "user", "content": "It rains. " * 5}])
        last = chat_format(tokenizer_with(CHATML.replace("in messages", "in messages[-2:]")))
        with pytest.raises(InputError, match="drops or changes what the system says"):
            last.render([ASKED[0], *SAID, ASKED[1]])

    def test_turns_that_the_template_does_not_take(self, tokenizer_with):
        chat = chat_format(tokenizer_with(ALTERNATES + CHATML))
        assert "Noted." in chat.render([*SAID, ASKED[1]])
        with pytest.raises(
            InputError, match=r"a conversation of assistant, user: roles must alter"
        ):
            chat.render([SAID[1], ASKED[1]])

    def test_likelihoods_behind_what_no_answer_stands_behind(self, tokenizer_with):
        tokenizer = tokenizer_with(OPENS_UNKNOWN)
        assert chat_format(tokenizer, thinks=True).render(ASKED).endswith("<<musing>>")
        with pytest.raises(InputError, match=r"where the model gives none.* --scoring generate"):
            chat_format(tokenizer).render(ASKED)

    def test_likelihoods_of_a_model_that_is_told_to_think(self, tokenizer_with):
        tokenizer = tokenizer_with(SWITCH)
        with pytest.raises(InputError, match=r"enable_thinking=True .* use --scoring generate"):
            chat_format(tokenizer, enable_thinking=True).render(ASKED)
        text = chat_format(tokenizer, enable_thinking=False).render(ASKED)
        assert text == chat_format(tokenizer).render(ASKED)

    def test_several_templates_and_none_for_all(self, tokenizer_with):
        tokenizer = tokenizer_with({"search": CHATML, "tools": SPOKEN})
        for ask in (chat_format, template_parts, end_token):
            with pytest.raises(InputError, match=r"several chat templates \(search, tools\)"):
                ask(tokenizer)
        assert "USER: " in chat_format(tokenizer, chat_template="tools").render(ASKED)
        tokenizer.chat_template |= {"default": TWO_BREAKS}
        chat = chat_format(tokenizer)
        assert chat.render(ASKED).endswith("assistant\n\n")
        assert "default was used" in chat.note
