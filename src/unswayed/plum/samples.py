"""From a question and its answer to tokens, and how much each token counts in training.

A sample is the conversation [user: question, assistant: answer] as the model's chat template
renders it; a tokenizer without one gets plain text. Every token is predicted; those of question and
answer count `qa_weight` (lambda of the paper, section on weighted loss), the rest, that is default
system prompt and template, counts 1. So that the model also learns to stop, the special token that
ends the answer (EOS, or what the template has in its place) counts as part of the answer; what the
template puts behind it, often a line break, counts 1.

Spans are found in the rendered text by characters and carried over to tokens by the tokenizer's
offsets. A token that straddles the border of a span counts as inside: the first word of an answer
often comes as one token with the space before it, and it must not lose its weight for that.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from unswayed.core.errors import InputError
from unswayed.plum.qa import QAPair
from unswayed.scoring.chat import answered, end_token, template_parts


@dataclasses.dataclass(frozen=True)
class Sample:
    """A pair, ready for training.

    Attributes:
        conversation, kind: those of the pair.
        ids: token ids; each but the first is to be predicted from those before it.
        weights: as many; how much the prediction of that token counts. The first has none: 0.
    """

    conversation: str
    kind: str
    ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Rendered:
    """A pair as text; `question` and `answer` are (start, end) in characters."""

    text: str
    question: tuple[int, int]
    answer: tuple[int, int]


def render(tokenizer: Any, question: str, answer: str) -> Rendered:
    """The conversation as one text, with the places of question and answer.

    The places are found by what the template puts before, between and after the two, so neither a
    question that repeats words of the template nor a template that trims white space leads astray.

    Raises:
        InputError: a text is empty, or the template fails or changes more than outer white space.
    """
    if not question.strip() or not answer.strip():
        raise InputError(f"a question and an answer are needed, got {question!r} and {answer!r}")
    before, between, after = template_parts(tokenizer)
    text = answered(tokenizer, question, answer)
    if text.startswith(before) and text.endswith(after):
        inner = text[len(before) : len(text) - len(after)]
        for match in re.finditer(f"(?={re.escape(between)})", inner):
            texts = inner[: match.start()], inner[match.start() + len(between) :]
            if (texts[0].strip(), texts[1].strip()) == (question.strip(), answer.strip()):
                start = len(before) + match.start() + len(between)
                return Rendered(
                    text,
                    (len(before), len(before) + match.start()),
                    (start, start + len(texts[1])),
                )
    raise InputError(
        "the chat template changes the text of a question or answer, so its place is unknown: "
        f"{question[:60]!r} became {text[:200]!r}; take another model or mend its template"
    )


def prompt_and_answer(tokenizer: Any, question: str, answer: str) -> tuple[str, str]:
    """What the model reads for a question, and how an answer goes on from there.

    The same text as in training, cut before the answer; a space before the answer goes with it, as
    most tokenizers join the two. Both are to be tokenized without adding special tokens.
    """
    rendered = render(tokenizer, question, answer)
    prompt = rendered.text[: rendered.answer[0]].rstrip(" ")
    return prompt, rendered.text[len(prompt) : rendered.answer[1]]


def make_sample(tokenizer: Any, pair: QAPair, qa_weight: float, max_length: int) -> Sample:
    """Tokens and weights of a pair.

    Args:
        tokenizer: one that gives character offsets.
        qa_weight: weight of question and answer, lambda of the paper.
        max_length: tokens that the model may be given.

    Raises:
        InputError: the sample is too long, or the tokenizer gives no offsets.
    """
    if not tokenizer.is_fast:
        raise InputError(
            f"the tokenizer {type(tokenizer).__name__} gives no character offsets, by which "
            "question and answer are weighted: take a model with a fast tokenizer (tokenizer.json)"
        )
    rendered = render(tokenizer, pair.question, pair.answer)
    encoded = tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    inside = [_overlaps(place, rendered.question, rendered.answer) for place in offsets]
    inner = [i for i, place in enumerate(offsets) if _overlaps(place, rendered.answer)]
    if not inner:
        raise InputError(f"the tokenizer makes no token of the answer {pair.answer!r}: reword it")
    end, behind = end_token(tokenizer), inner[-1] + 1
    if end in ids[behind:]:
        inside[ids.index(end, behind)] = True
    elif end is not None:
        ids.append(end)
        inside.append(True)
    if len(ids) > max_length:
        raise InputError(
            f"a sample of conversation {pair.conversation!r} has {len(ids)} tokens, more than the "
            f"limit of {max_length}: shorten question or answer, or raise max_length if the model "
            f"can take it (the question begins {pair.question[:60]!r})"
        )
    weights = [float(qa_weight) if within else 1.0 for within in inside]
    return Sample(pair.conversation, pair.kind, tuple(ids), (0.0, *weights[1:]))


def _overlaps(place: tuple[int, int], *spans: tuple[int, int]) -> bool:
    return any(place[0] < end and place[1] > start for start, end in spans)
