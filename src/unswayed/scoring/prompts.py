"""From an item to what the model reads, and from likelihoods to an option.

Three ways of scoring, one module, so that `unswayed audit` and the lm-eval tasks cannot drift
apart:

option    the options are not shown; the one whose text the model gives wins, by a rule
letter    the options are listed under letters, in an order permuted by seed and item, the same in
          all conditions; the most likely letter wins
generate  the options are listed likewise and the answer is read out of the model's text

Rules, of the summed log-probability of an option's tokens after the prompt, log P(o|q) in nats:

sum       log P(o|q) (lm-eval's `acc`)
char      log P(o|q) / number of characters (lm-eval's `acc_norm`)
token     log P(o|q) / number of tokens (Brown et al. 2020, arXiv 2005.14165, section 2.4)
pmi       log P(o|q) - log P(o|blind): domain-conditional pointwise mutual information (Holtzman et
          al. 2021, arXiv 2104.08315, equation 4; lm-eval's `acc_mutual_info`), the blind prompt
          being the same memory and the same frame without the scenario
"""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections.abc import Sequence

from unswayed.core.errors import InputError
from unswayed.data.items import LETTERS, Item
from unswayed.scoring.chat import Message

SCORINGS = ("option", "letter", "generate")
RULES = ("sum", "char", "token", "pmi")
DEFAULT_RULES = {"option": "pmi", "letter": "sum", "generate": None}
MOST_LETTERS = 10
FRAME = "Answer:"  # what stands between a scenario and an option


@dataclasses.dataclass(frozen=True)
class Likelihoods:
    """What a model says of the n options of a question.

    Attributes:
        texts: as they are scored, without delimiter.
        sums: log P(o|q), nats; None where a service listed no letter.
        tokens: how many each option has; None from a backend that does not tell.
        priors: log P(o|blind), nats; None where they were not taken.
        listed: of letters from a service: whether it listed each; of others the sum is the most
            that it can be (`scoring.letters`). None where all is known.
    """

    texts: Sequence[str]
    sums: Sequence[float] | None
    tokens: Sequence[int] | None = None
    priors: Sequence[float] | None = None
    listed: Sequence[bool] | None = None

    def scores(self, rule: str) -> list[float]:
        """What a rule compares, see the module's head.

        Raises:
            InputError: no such rule, or it needs what was not taken.
        """
        if rule == "sum":
            return list(self.sums)
        if rule == "char":
            return [nats / len(text) for nats, text in zip(self.sums, self.texts, strict=True)]
        if rule == "token":
            if self.tokens is None:
                raise InputError("rule token: this backend does not tell an option's tokens")
            return [nats / n for nats, n in zip(self.sums, self.tokens, strict=True)]
        if rule == "pmi":
            if self.priors is None:
                raise InputError("rule pmi: the options were not scored without the scenario")
            return [nats - prior for nats, prior in zip(self.sums, self.priors, strict=True)]
        raise InputError(f"rule {rule!r} is not one of {', '.join(RULES)}")

    def nats(self, rule: str) -> list[float]:
        """Scores in nats: those per character or token times the options' mean length."""
        lengths = {"char": [len(text) for text in self.texts], "token": self.tokens}.get(rule, [1])
        scale = sum(lengths) / len(lengths)
        return [scale * score for score in self.scores(rule)]

    def probabilities(self, rule: str) -> list[float]:
        """Softmax of the scores in nats: how likely each option is if one of them is drawn."""
        nats = self.nats(rule)
        weights = [math.exp(score - max(nats)) for score in nats]
        return [weight / sum(weights) for weight in weights]

    def pick(self, rule: str) -> int:
        """Index of the winning option; the first of equals."""
        return first_of_best(self.scores(rule))

    def blind_scores(self, rule: str) -> list[float]:
        """What the rule compares without the scenario; for pmi, which leaves nothing there, the
        priors themselves."""
        blind = dataclasses.replace(self, sums=self.priors)
        return blind.scores("sum" if rule == "pmi" else rule)

    def blind_pick(self, rule: str) -> int | None:
        """The option that wins without the scenario; None where no priors were taken."""
        return None if self.priors is None else first_of_best(self.blind_scores(rule))


def first_of_best(values: Sequence[float]) -> int:
    """Index of the largest value; the first of equals."""
    return list(values).index(max(values))


def check_rule(scoring: str, rule: str | None) -> str | None:
    """The rule by which a way of scoring compares options: its default unless there is a choice.

    Raises:
        InputError: no such scoring or rule, or the rule has no meaning with it.
    """
    if scoring not in SCORINGS:
        raise InputError(f"scoring {scoring!r} is not one of {', '.join(SCORINGS)}")
    if rule is None or rule == DEFAULT_RULES[scoring]:
        return DEFAULT_RULES[scoring]
    if rule not in RULES:
        raise InputError(f"rule {rule!r} is not one of {', '.join(RULES)}")
    if scoring != "option":
        raise InputError(f"--rule {rule} has no meaning with --scoring {scoring}, only with option")
    return rule


def option_order(item: Item, scoring: str, seed: int, turn: int = 0) -> list[int]:
    """Indices of the options in the order shown; for letters permuted by seed, test and id.

    Args:
        turn: number of the order, from 0. The first n orders of n options are rotations of one
            permutation, so that each option stands once under each letter; then comes another.
    """
    n = len(item.options)
    if scoring == "option":
        return list(range(n))
    n_rounds, rotation = divmod(turn, n)
    again = f"/{n_rounds}" if n_rounds else ""
    return rotated(_permuted(n, f"{seed}/{item.test}/{item.id}{again}"), rotation)


@functools.lru_cache(maxsize=10_000)  # asked for several times per trial
def _permuted(n: int, seed: str) -> tuple[int, ...]:
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return tuple(order)


def rotated(order: Sequence[int], n: int) -> list[int]:
    """The order that begins with what is at place n."""
    return [*order[n:], *order[:n]]


def question_text(
    item: Item, scoring: str, seed: int = 0, turn: int = 0, blind: bool = False
) -> str:
    """The user's question for a way of scoring; `blind`: without the scenario."""
    before = [] if blind else [item.scenario]
    if scoring == "option":
        return "\n".join([*before, FRAME])
    options = [item.options[i] for i in option_order(item, scoring, seed, turn)]
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False)]
    if scoring == "letter":
        return "\n".join([*before, *lines, "Answer with the letter only.", FRAME])
    call = 'Pick the best option. End with a line of the form "Answer: X", where X is its letter.'
    return "\n".join([*before, *lines, call])


def continuations(item: Item, scoring: str, seed: int = 0, turn: int = 0) -> list[str]:
    """The strings whose likelihood is compared, in the item's own order of options.

    Raises:
        InputError: more options than letters that a model gives.
    """
    if scoring != "letter":
        return list(item.options)
    if len(item.options) > MOST_LETTERS:
        raise InputError(
            f"item {item.id} has {len(item.options)} options, letters are asked for at most "
            f"{MOST_LETTERS}: use --scoring option or generate"
        )
    order = option_order(item, scoring, seed, turn)
    return [LETTERS[order.index(i)] for i in range(len(item.options))]


def reworded(messages: Sequence[Message], question: str, other: str) -> list[Message]:
    """The same conversation with another question at its end, whatever memory stands before it.

    Raises:
        InputError: the conversation does not end with the question.
    """
    *before, last = messages
    if not last["content"].endswith(question):
        raise InputError(
            "the memory rewrites the question, so the same prompt without the scenario cannot be "
            f"made (the last turn begins {last['content'][:60]!r}): leave the question as it is at "
            "the end of the last turn"
        )
    content = last["content"].removesuffix(question) + other
    return [*before, {**last, "content": content}]
