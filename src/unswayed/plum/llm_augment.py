"""Question-answer pairs on conversations, written by a language model, normally the one to train.

Stage 1 of PLUM (arXiv 2411.13405); its prompts are not known, these are our own. The model writes
JSON lines. What is malformed, repeated, unsupported by the conversation or gives itself away is
dropped, and what is dropped is counted by reason.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from unswayed.core.errors import InputError
from unswayed.data.conversations import Conversation
from unswayed.plum.augment import normalised
from unswayed.plum.pairs import Pair
from unswayed.plum.phrases import content_stems, said
from unswayed.scoring.chat import Message

KINDS = ("yes", "no", "open", "open-no")
ANSWERS = {"yes": "Yes", "no": "No"}

TASK = """\
Here is a conversation between a user and an assistant.

{conversation}

That was the conversation. Write {n} questions that the user may ask much later, to test whether \
the assistant remembers it, with the answers.

{kinds}

Each question must be clear to someone who does not see the text, so name its topic. Never write \
"this conversation" or "the text above". Write each pair as one line of JSON with the keys "kind", \
"question" and "answer", and nothing else."""
SAID = """\
Half of them have the kind "yes": they ask whether something was talked about that was said, and \
the answer is "Yes". The other half have the kind "open": they ask what was said about something, \
and the answer is a short phrase from the conversation."""
UNSAID = """\
They are about things close to the topic that were never said. Half of them have the kind "no": \
they ask whether such a thing was talked about, and the answer is "No". The other half have the \
kind "open-no": they ask what was said about such a thing, and the answer is that we did not talk \
about it."""
# The model sees the task done once before: small ones imitate better than they obey.
EXAMPLE = """\
User: I want to give a party when the new bridge opens. What should we drink?
Assistant: Lemonade in large jugs is easy. Will there be music?
User: My cousin plays the accordion, and we hang up paper lanterns.
Assistant: Then put the jugs on a table near the accordion, under the lanterns."""
EXAMPLE_PAIRS = (
    Pair("", "yes", "Did we talk about lemonade for the bridge party?", "Yes"),
    Pair("", "open", "Who plays the accordion at the bridge party?", "my cousin"),
    Pair("", "yes", "Did I mention paper lanterns for the bridge party?", "Yes"),
    Pair("", "open", "Where do the jugs stand at the bridge party?", "on a table"),
    Pair("", "no", "Did we talk about balloons for the bridge party?", "No"),
    Pair("", "open-no", "What did we say about fireworks for the bridge party?",
         "We did not talk about fireworks."),
    Pair("", "no", "Did I mention a barbecue at the bridge party?", "No"),
    Pair("", "open-no", "Which cake did we choose for the bridge party?",
         "We did not talk about a cake."),
)  # fmt: skip
FRAME = (  # words in which a question speaks of the talk itself
    "talk talked discuss discussed discussion mention mentioned said say speak spoke tell told "
    "conversation chat topic subject ask asked suggest suggested recommend recommended user "
    "assistant remember recall bring brought come came"
)
POINTER = re.compile(
    r"\b(?:this|the (?:above|following|given|provided)) (?:conversation|chat|dialogue|text|passage|"
    r"discussion|exchange|transcript)\b|\b(?:text|conversation|passage|transcript|dialogue) "
    r"(?:above|below)\b|\b(?:the|this) (?:text|passage|transcript)\b|\bmentioned above\b|"
    r"\baccording to the (?:conversation|dialogue|chat)\b",
    re.IGNORECASE,
)
OPENING = re.compile(r"(?:what|which|who|whose|where|why|how)\b", re.IGNORECASE)  # of open ones
DENIAL = re.compile(r"\b(?:not|never|no|nothing|nobody)\b|n['’]t\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Generated:
    """Pairs that a model wrote, and the funnel they came through.

    Attributes:
        pairs: in the order of the conversations.
        lines: number of lines that the model wrote, blank ones and code fences apart.
        dropped: reason -> number of lines; `lines` is `len(pairs)` and these together.
        empty: ids of conversations that are left without a pair.
    """

    pairs: tuple[Pair, ...]
    lines: int
    dropped: Counter[str]
    empty: tuple[str, ...]


def generate_pairs(
    conversations: Sequence[Conversation],
    ask: Callable[[list[list[Message]]], list[str]],
    *,
    per_conversation: int = 16,
    held_out: Iterable[Pair] = (),
) -> Generated:
    """Training pairs that a model writes, two prompts a conversation: what was said, and what not.

    In each conversation as many "no" are kept as "yes", and as many "open-no" as "open": the excess
    is dropped, the last ones first.

    Args:
        conversations: what to ask about.
        ask: from prompts to the model's texts, in order; each prompt is a list of messages.
        per_conversation: pairs to ask for, a multiple of 4.
        held_out: evaluation pairs, whose questions must not be trained on.

    Raises:
        InputError: per_conversation is no multiple of 4.
    """
    if per_conversation < 4 or per_conversation % 4:
        raise InputError(
            f"per_conversation is {per_conversation}, it must be a multiple of 4: four kinds of "
            "pairs are in balance"
        )
    texts = ask([p for one in conversations for p in prompts(one, per_conversation)])
    if len(texts) != 2 * len(conversations):
        raise InputError(f"the model gave {len(texts)} texts to {2 * len(conversations)} prompts")
    taken = {normalised(pair.question): "is an evaluation question" for pair in held_out}
    taken |= {normalised(pair.question): "copies the example" for pair in EXAMPLE_PAIRS}
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    lines, empty = 0, []
    for place, one in enumerate(conversations):
        words, valid = said(one), []
        for line in _lines("\n".join(texts[2 * place : 2 * place + 2])):
            lines += 1
            pair = read_line(line, one.id, words)
            if isinstance(pair, Pair):
                key = normalised(pair.question)
                fault = taken.get(key)
                taken.setdefault(key, "repeats a question")
                pair = fault or pair
            if isinstance(pair, Pair):
                valid.append(pair)
            else:
                dropped[pair] += 1
        kept = _in_balance(valid)
        dropped["in excess of its counterpart"] += len(valid) - len(kept)
        pairs += kept
        if not kept:
            empty.append(one.id)
    return Generated(tuple(pairs), lines, +dropped, tuple(empty))


def prompts(conversation: Conversation, n: int) -> list[list[Message]]:
    """The two prompts on a conversation, for n pairs together; each shows the task done once."""
    text = "\n".join(f"{turn['role'].title()}: {turn['content']}" for turn in conversation.turns)
    asked = []
    for task, kinds in ((SAID, ("yes", "open")), (UNSAID, ("no", "open-no"))):
        shown = [pair for pair in EXAMPLE_PAIRS if pair.kind in kinds]
        rows = [
            json.dumps({"kind": pair.kind, "question": pair.question, "answer": pair.answer})
            for pair in shown
        ]
        asked.append(
            [
                _message("user", TASK.format(n=len(shown), kinds=task, conversation=EXAMPLE)),
                _message("assistant", "\n".join(rows)),
                _message("user", TASK.format(n=n // 2, kinds=task, conversation=text)),
            ]
        )
    return asked


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.split("\n"))
    return [line for line in lines if line and not line.startswith("```")]


def read_line(line: str, conversation: str, words: frozenset[str]) -> Pair | str:
    """The pair on a line that a model wrote, or the reason why it is none.

    Args:
        line: one JSON object with the texts kind, question and answer, and nothing else.
        conversation: its id.
        words: stems of what was said in it (`phrases.said`).
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
    if kind not in KINDS:
        return "unknown kind"
    if not question.endswith("?"):
        return "not a question"
    if POINTER.search(question):
        return "points at the text"
    if kind in ANSWERS and OPENING.match(question):
        return "open question of a closed kind"
    if kind in ANSWERS and answer.rstrip(".!").casefold() != kind:
        return "answer contradicts the kind"
    if kind == "open-no" and not DENIAL.search(answer):
        return "answer denies nothing"
    frame = frozenset(content_stems(FRAME))
    asked = frozenset(content_stems(question)) - frame
    told = frozenset(content_stems(answer)) - frame
    if not asked:
        return "asks about nothing"
    if kind == "open" and told <= asked:
        return "question holds its answer"
    if (kind == "open" and not told <= words) or (kind == "yes" and not asked <= words):
        return "not said in the conversation"
    if kind in ("no", "open-no") and asked <= words:
        return "may have been said"
    return Pair(conversation, kind, question, ANSWERS.get(kind, answer))


def _in_balance(pairs: Sequence[Pair]) -> list[Pair]:
    """As many no as yes, as many open-no as open, in their order; the last ones are dropped."""
    counts = Counter(pair.kind for pair in pairs)
    left = {}
    for one, other in (("yes", "no"), ("open", "open-no")):
        left[one] = left[other] = min(counts[one], counts[other])
    kept = []
    for pair in pairs:
        if left[pair.kind]:
            left[pair.kind] -= 1
            kept.append(pair)
    return kept
