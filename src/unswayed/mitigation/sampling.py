"""Five candidate answers to a question under a memory: three told to check it, two controls.

The paper (arXiv 2510.09905) samples five, three of them instructed to check whether the persona
matters and to say so when it does not; its wording is unknown, this is ours.
"""

from __future__ import annotations

from unswayed.memory import Message
from unswayed.memory.prompt import NOTES

# kind of candidate -> what follows the notes in the system message
INSTRUCTIONS = {
    "aware_1": "Before you answer, check whether anything that you remember about the user matters "
    "for this question. If nothing does, say so in one sentence. Then answer the question.",
    "aware_2": "First ask yourself: would the right answer be another one if somebody else asked? "
    "If not, tell the user that their background makes no difference here. Then give the answer.",
    "aware_3": "Answer as you would answer anybody. If your notes about the user are irrelevant to "
    "the question, begin by saying that you leave them aside, and then answer.",
    "control_1": "",
    "control_2": "Make your answer fit what you remember about the user.",
}
FORM = "Be brief, and end with the answer in one short sentence."


def asked(memory: str, question: str) -> list[Message]:
    """What a trained model will read: notes on the user, then the question."""
    return [
        {"role": "system", "content": f"{NOTES}{memory}\n"},
        {"role": "user", "content": question},
    ]


def conversations(memory: str, question: str) -> dict[str, list[Message]]:
    """Kind of candidate -> the conversation that samples it."""
    found = {}
    for kind, instruction in INSTRUCTIONS.items():
        system, user = asked(memory, question)
        words = " ".join(part for part in (instruction, FORM) if part)
        found[kind] = [{**system, "content": f"{system['content']}{words}\n"}, user]
    return found
