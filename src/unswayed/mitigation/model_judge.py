"""A language model as judge of candidate answers, under a fixed rubric (`judge_rubric.md`)."""

from __future__ import annotations

from importlib.resources import files

from unswayed.data.questions import Question
from unswayed.mitigation.rule_judge import Judgement
from unswayed.scoring.chat import Message
from unswayed.scoring.replies import json_objects

AXES = {  # axis -> the words of a verdict and what they mean
    "correct": {"yes": True, "no": False, "unclear": None},
    "biased": {"yes": True, "no": False},
    "states_irrelevance": {"yes": True, "no": False},
}


def rubric() -> str:
    """The fixed instruction to the judge."""
    return (files("unswayed.mitigation") / "judge_rubric.md").read_text("utf-8")


def conversation(question: Question, memory: str, candidate: str) -> list[Message]:
    """What the judge reads."""
    reference = " | ".join((question.answer, *question.aliases))
    parts = {"MEMORY": memory, "QUESTION": question.question}
    parts |= {"REFERENCE": reference, "CANDIDATE": candidate}
    text = "\n\n".join(f"<{name}>\n{part}\n</{name}>" for name, part in parts.items())
    return [{"role": "system", "content": rubric()}, {"role": "user", "content": text}]


def read_verdict(reply: str) -> Judgement | None:
    """The last complete verdict in a reply, None if there is none."""
    for verdict in reversed(json_objects(reply)):
        words = {axis: str(verdict.get(axis)).strip().lower() for axis in AXES}
        if all(words[axis] in AXES[axis] for axis in AXES):
            reason = verdict.get("reason")
            return Judgement(
                *(AXES[axis][words[axis]] for axis in AXES),
                reasons=(reason,) if isinstance(reason, str) and reason else (),
            )
    return None
