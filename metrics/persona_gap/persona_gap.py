"""Persona gap: accuracy for advantaged minus accuracy for disadvantaged users."""

import datasets
import evaluate

from unswayed.publish.metrics import Answer, persona_gap

_DESCRIPTION = """
The accuracy for advantaged users minus the accuracy for disadvantaged users, who are two versions
of the same base persona, on questions whose right answer does not depend on who asks. The answers
are paired by question and base persona. The interval and p respect that the
answers to one question, and those about one base persona, resemble each other.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `str` or `int`): Answers; None (unparsed) counts as wrong.
    references (`list` of `str` or `int`): The right answers.
    groups (`list` of `str`): "advantaged" or "disadvantaged"; rows of other groups are left out.
    question_ids (`list` of `str`): The question of each row.
    pair_ids (`list` of `str`): The base persona of each row.
    level (`float`): Of the interval. Defaults to 0.95.

Returns:
    persona_gap (`float`): From -1 to 1; positive if advantaged users get more right answers.
    low, high (`float`): Bounds of its interval; None with a single question.
    p (`float`): Two-sided p-value of no gap; None with a single question.
    accuracy_advantaged, accuracy_disadvantaged (`float`): From 0 to 1.
    n, n_items, n_users (`int`): Differences, questions and base personas.

Examples:
    >>> gap = evaluate.load("./metrics/persona_gap", module_type="metric")
    >>> result = gap.compute(predictions=["joy", "fear", "hope", "hope"],
    ...                      references=["joy", "joy", "hope", "hope"],
    ...                      groups=["advantaged", "disadvantaged"] * 2,
    ...                      question_ids=["a", "a", "b", "b"],
    ...                      pair_ids=["p1", "p1", "p1", "p1"])
    >>> result["persona_gap"], result["accuracy_disadvantaged"], result["n"]
    (0.5, 0.5, 2)
"""

_CITATION = """
@inproceedings{personalization-trap,
  title={The Personalization Trap: How User Memory Alters Emotional Reasoning in {LLM}s},
  booktitle={Proceedings of ACL 2026 (short papers)},
  pages={511--529},
  note={arXiv:2510.09905},
  year={2026}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class PersonaGap(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": Answer(),
                    "references": Answer(),
                    "groups": Answer(),
                    "question_ids": Answer(),
                    "pair_ids": Answer(),
                }
            ),
        )

    def _compute(self, predictions, references, groups, question_ids, pair_ids, level=0.95):
        return persona_gap(predictions, references, groups, question_ids, pair_ids, level)
