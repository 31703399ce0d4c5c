"""From an item to what the model reads, and from its scores or its text to an option.

Three ways of scoring, one module, so that `unswayed audit` and the lm-eval tasks cannot drift
apart:

option    the options are not shown; the one whose text is most likely per character wins
          (lm-eval's `acc_norm`); "option-sum" takes the plain sum (lm-eval's `acc`)
letter    the options are listed under letters, in an order permuted by seed and item, the same in
          all conditions; the most likely letter wins
generate  the options are listed likewise and the answer is read out of the model's text
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from unswayed.data.items import LETTERS, Item

SCORINGS = ("option", "option-sum", "letter", "generate")


def option_order(item: Item, scoring: str, seed: int) -> list[int]:
    """Indices of the options in the order shown; for letters permuted by seed, test and id."""
    order = list(range(len(item.options)))
    if scoring in ("letter", "generate"):
        random.Random(f"{seed}/{item.test}/{item.id}").shuffle(order)
    return order


def question_text(item: Item, scoring: str, seed: int = 0) -> str:
    """The user's question for a way of scoring."""
    if scoring in ("option", "option-sum"):
        return f"{item.scenario}\nAnswer:"
    options = [item.options[i] for i in option_order(item, scoring, seed)]
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))
    if scoring == "letter":
        return f"{item.scenario}\n{lines}\nAnswer:"
    return (
        f"{item.scenario}\n{lines}\n"
        'Pick the best option. End with a line of the form "Answer: X", where X is its letter.'
    )


def continuations(item: Item, scoring: str, seed: int = 0) -> list[str]:
    """The strings whose likelihood is compared, in the item's own order of options."""
    if scoring != "letter":
        return list(item.options)
    order = option_order(item, scoring, seed)
    return [LETTERS[order.index(i)] for i in range(len(item.options))]


def choice_scores(log_probs: Sequence[float], texts: Sequence[str], scoring: str) -> list[float]:
    """What a way of scoring compares, from summed log-probabilities (nats): "option" takes them
    per character."""
    per = [len(text) if scoring == "option" else 1 for text in texts]
    return [log_prob / n for log_prob, n in zip(log_probs, per, strict=True)]


def pick_option(log_probs: Sequence[float], texts: Sequence[str], scoring: str) -> int:
    """Index of the winning option from summed log-probabilities (nats); the first of equals."""
    values = choice_scores(log_probs, texts, scoring)
    return values.index(max(values))
