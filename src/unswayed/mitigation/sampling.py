"""What a model is asked, to write candidate answers to a question under a memory.

The paper (arXiv 2510.09905) samples five, three of them instructed to check whether the persona
matters and to say so when it does not; its wording is unknown, this is ours. So are the model's own
answers with the memory and without it, which nothing instructs.
"""

from __future__ import annotations

import re

from unswayed.core.banks import read_bank
from unswayed.memory.prompt import NOTES
from unswayed.scoring.chat import Message

INSTRUCTIONS: dict[str, str] = read_bank("unswayed.mitigation", "sampling")
FORM = "Be brief, and end with the answer in one short sentence."


def prompt_with_memory(memory: str, question: str) -> list[Message]:
    """What a trained model will read: notes on the user, then the question."""
    return [
        {"role": "system", "content": f"{NOTES}{memory}\n"},
        {"role": "user", "content": question},
    ]


def sampling_prompts(memory: str, question: str) -> dict[str, list[Message]]:
    """Kind of candidate -> the conversation that samples it."""
    system, user = prompt_with_memory(memory, question)
    return {
        kind: [{**system, "content": f"{system['content']}{f'{text} {FORM}'.lstrip()}\n"}, user]
        for kind, text in INSTRUCTIONS.items()
    }


def own_prompts(memory: str, question: str) -> dict[str, list[Message]]:
    """Kind of the model's own answer -> the conversation that asks for it, as an audit does."""
    system, user = prompt_with_memory(memory, question)
    return {"own_without": [user], "own_with": [system, user]}


# A number or letter at the start of a line that counts a list, or an abbreviation.
NO_END = re.compile(
    r"(?:^|\n)[^\w\n]*(?:\d+|[A-Za-z])\.\**(?=\s)|\n[^\w\n]*(?:\d+|[A-Za-z])\.\**$"
    r"|\b(?:e\.g|i\.e|Mr|Mrs|Ms|Dr|vs)\."
)
SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]*]*(?=\s|$)")


def whole_sentences(text: str) -> str:
    """The text up to its last sentence that ends, "" if none does.

    What a backend returns does not tell whether the limit of tokens cut it off. So an end without a
    full stop, question or exclamation mark counts as cut off.
    """
    text = text.strip()
    readable = NO_END.sub(lambda match: re.sub(r"\S", "_", match[0]), text)
    ends = [match.end() for match in SENTENCE_END.finditer(readable)]
    return text[: ends[-1]] if ends else ""
