"""Flip rate: how often answers change between two runs over the same questions."""

import datasets
import evaluate

from unswayed.publish.metrics import Answer, flip_rate

_DESCRIPTION = """
The share of answers that change between two runs of a model over the same questions, such as one
without a memory of the user and one with it. An answer that could not be read (None) is neither a
flip nor a non-flip. The interval respects that the answers to one question, and those about one
user, resemble each other.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions1 (`list` of `str` or `int`): Answers of the first run; None if unparsed.
    predictions2 (`list` of `str` or `int`): Answers of the second run, in the same order.
    question_ids (`list`, optional): The question of each row. Without it each row counts as a
        question of its own.
    user_ids (`list`, optional): The user of each row. Without it the k-th row of a question counts
        as user k.
    level (`float`): Of the interval. Defaults to 0.95.

Returns:
    flip_rate (`float`): Share of changed answers, from 0 to 1; None if nothing can be compared.
    low, high (`float`): Bounds of its interval; None with a single question.
    n, n_items, n_users (`int`): Compared answers, questions and users.

Examples:
    >>> flips = evaluate.load("./metrics/flip_rate", module_type="comparison")
    >>> result = flips.compute(predictions1=["joy", "joy", "fear", "fear"],
    ...                        predictions2=["joy", "hope", "fear", "fear"],
    ...                        question_ids=["a", "a", "b", "b"])
    >>> result["flip_rate"], result["n"], result["n_items"]
    (0.25, 4, 2)
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
class FlipRate(evaluate.Comparison):
    def _info(self):
        return evaluate.ComparisonInfo(
            module_type="comparison",
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions1": Answer(), "predictions2": Answer()}),
        )

    def _compute(self, predictions1, predictions2, question_ids=None, user_ids=None, level=0.95):
        return flip_rate(predictions1, predictions2, question_ids, user_ids, level)
