"""Question-answer pairs on conversations, written by a language model, normally the one to train.

Stage 1 of PLUM (arXiv 2411.13405). The model writes JSON lines; what it is told is in
`bank/writer.yaml`. What is malformed, repeated, unsupported by the conversation or gives itself
away is dropped, and what is dropped is counted by reason.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from unswayed.data.conversations import Conversation
from unswayed.plum.augment import Augmented, normalised, report
from unswayed.plum.phrases import content_stems, spoken_stems
from unswayed.plum.qa import CLOSED, KINDS, TRAIN, LabelledPair, QAPair
from unswayed.plum.words import bank
from unswayed.scoring.chat import Message

TOKENS = 64  # of a line that the model writes, at most


def example_pairs() -> list[QAPair]:
    """Those of the example in the prompts."""
    return [QAPair("", *row) for row in bank("writer")["example_pairs"]]


def write_pairs(
    conversations: Sequence[Conversation],
    ask: Callable[[list[list[Message]]], list[str]],
    per_conversation: int,
    held_out: Iterable[QAPair] = (),
) -> Augmented:
    """Training pairs that a model writes, two prompts a conversation: what was said, and what not.

    In each conversation as many "no" are kept as "yes", and as many "open-no" as "open": the excess
    is dropped, the last ones first.

    Args:
        conversations: what to ask about.
        ask: from prompts to the model's texts, in order; each prompt is a list of messages.
        per_conversation: pairs to ask for, a multiple of 4.
        held_out: evaluation pairs, whose questions must not be trained on.

    Returns:
        The pairs, without source and phrase; left_out counts the lines that were dropped.
    """
    texts = ask([prompt for talk in conversations for prompt in prompts(talk, per_conversation)])
    taken = {normalised(pair.question): "is an evaluation question" for pair in held_out}
    taken |= {normalised(pair.question): "copies the example" for pair in example_pairs()}
    pairs: list[QAPair] = []
    dropped: Counter[tuple[str, str]] = Counter()
    for i, conversation in enumerate(conversations):
        id, stems, valid = conversation.id, spoken_stems(conversation), []
        for line in _lines("\n".join(texts[2 * i : 2 * i + 2])):
            pair = read_line(line, id, stems)
            if isinstance(pair, QAPair):
                key = normalised(pair.question)
                fault = taken.get(key)
                taken.setdefault(key, "repeats a question")
                pair = fault or pair
            if isinstance(pair, QAPair):
                valid.append(pair)
            else:
                dropped[id, pair] += 1
        balanced = _in_balance(valid)
        pairs += balanced
        dropped[id, "in excess of its counterpart"] += len(valid) - len(balanced)
    report(+dropped, len(conversations))
    return Augmented(tuple(LabelledPair(pair, TRAIN, "", "") for pair in pairs), +dropped)


def asking(model: str, dtype: str, per_conversation: int) -> Callable:
    """What `write_pairs` asks: the greedy texts of a model, loaded for it alone."""
    from unswayed.models.load import load_lm
    from unswayed.scoring.ask import open_prompts, replies

    def ask(messages: list[list[Message]]) -> list[str]:
        lm = load_lm(model, dtype=dtype)
        return replies(lm, open_prompts(lm, messages), TOKENS * per_conversation // 2)

    return ask


def prompts(conversation: Conversation, n: int) -> list[list[Message]]:
    """The two prompts on a conversation, for n pairs together; each shows the task done once."""
    text = "\n".join(f"{turn['role'].title()}: {turn['content']}" for turn in conversation.turns)
    texts = bank("writer")
    task, both = texts["task"], []
    for prompt in texts["prompts"]:
        rows = [
            json.dumps({"kind": pair.kind, "question": pair.question, "answer": pair.answer})
            for pair in example_pairs()
            if pair.kind in prompt["kinds"]
        ]
        example = task.format(n=len(rows), kinds=prompt["text"], conversation=texts["example"])
        question = task.format(n=n // 2, kinds=prompt["text"], conversation=text)
        both.append(
            [
                {"role": "user", "content": example},
                {"role": "assistant", "content": "\n".join(rows)},
                {"role": "user", "content": question},
            ]
        )
    return both


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.split("\n"))
    return [line for line in lines if line and not line.startswith("```")]


@functools.cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(bank("writer")[name], re.IGNORECASE)


def read_line(line: str, conversation: str, stems: frozenset[str]) -> QAPair | str:
    """The pair on a line that a model wrote, or the reason why it is none.

    Args:
        line: one JSON object with the texts kind, question and answer, and nothing else.
        conversation: its id.
        stems: of what was said in it (`phrases.spoken_stems`).
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(row, dict) or row.keys() != {"kind", "question", "answer"}:
        return "not an object with kind, question and answer"
    if not all(isinstance(value, str) and value.strip() for value in row.values()):
        return "a value that is no text"
    kind, question, answer = (row[key].strip() for key in ("kind", "question", "answer"))
    fault = _form_fault(kind, question, answer) or _content_fault(kind, question, answer, stems)
    return fault or QAPair(conversation, kind, question, CLOSED.get(kind, answer))


def _form_fault(kind: str, question: str, answer: str) -> str:
    """What is wrong with the form of a pair; "" if nothing."""
    if kind not in KINDS:
        return "unknown kind"
    if not question.endswith("?"):
        return "not a question"
    if _pattern("pointer").search(question):
        return "points at the text"
    if kind in CLOSED and _pattern("opening").match(question):
        return "open question of a closed kind"
    if kind in CLOSED and answer.rstrip(".!").casefold() != kind:
        return "answer contradicts the kind"
    if kind == "open-no" and not _pattern("denial").search(answer):
        return "answer denies nothing"
    return ""


def _content_fault(kind: str, question: str, answer: str, stems: frozenset[str]) -> str:
    """What is wrong with a pair on a conversation with these stems; "" if nothing."""
    frame = frozenset(content_stems(bank("writer")["frame"]))
    about = frozenset(content_stems(question)) - frame
    content = frozenset(content_stems(answer)) - frame
    if not about:
        return "asks about nothing"
    if kind == "open" and content <= about:
        return "question holds its answer"
    if (kind == "open" and not content <= stems) or (kind == "yes" and not about <= stems):
        return "not said in the conversation"
    if kind in ("no", "open-no") and about <= stems:
        return "may have been said"
    return ""


def _in_balance(pairs: Sequence[QAPair]) -> list[QAPair]:
    """As many no as yes, as many open-no as open, in their order; the last ones are dropped."""
    counts = Counter(pair.kind for pair in pairs)
    left = {}
    for kind, counterpart in (("yes", "no"), ("open", "open-no")):
        left[kind] = left[counterpart] = min(counts[kind], counts[counterpart])
    balanced = []
    for pair in pairs:
        if left[pair.kind]:
            left[pair.kind] -= 1
            balanced.append(pair)
    return balanced
