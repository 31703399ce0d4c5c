"""What the model makes of trials: likelihoods of options or letters, or answers in words.

Beside each answer stands what it would have been without the scenario: of options under every
memory, since the priors of the rule pmi tell; of letters and of generated answers without memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.trials import Outcome, Trial
from unswayed.core.journal import Journal
from unswayed.data.items import Item
from unswayed.memory import FusedMemory, Memory
from unswayed.scoring.ask import generate, generation_settings, likelihoods
from unswayed.scoring.chat import ChatFormat, Message
from unswayed.scoring.prompts import (
    Likelihoods,
    continuations,
    first_of_best,
    option_order,
    question_text,
    reworded,
)
from unswayed.scoring.replies import extract_answer


def outcomes(
    lm: Any,
    chat: ChatFormat,
    trials: Sequence[Trial],
    memory: Memory,
    arguments: AuditArguments,
    journal: Journal,
) -> list[Outcome]:
    """Of trials that share one state of `memory`; generated texts go through `journal`.

    Raises:
        InputError: as `scoring.ask.likelihoods` and `generate`; the memory rewrites the question.
    """
    if arguments.scoring == "generate":
        return _generated(lm, chat, trials, memory, arguments, journal)
    views = memory.views() if isinstance(memory, FusedMemory) else []
    if not views:
        conversations = [trial.messages for trial in trials]
        asked = _likelihoods(lm, chat, trials, memory, conversations, arguments)
        return [_outcome(by_order, arguments.rule) for by_order in asked]
    questions = [question_text(t.item, arguments.scoring, arguments.seed) for t in trials]
    by_view = [
        _likelihoods(lm, chat, trials, view, [view.messages(q) for q in questions], arguments)
        for view in views
    ]
    return [_fused(memory, of_trial, arguments.rule) for of_trial in zip(*by_view, strict=True)]


def n_questions(trial_count: int, without_memory: bool, scoring: str) -> int:
    """How many answers trials take that are generated one by one."""
    return trial_count * (2 if without_memory and scoring == "generate" else 1)


def _likelihoods(
    lm: Any,
    chat: ChatFormat,
    trials: Sequence[Trial],
    view: Any,
    conversations: Sequence[Sequence[Message]],
    arguments: AuditArguments,
) -> list[list[Likelihoods]]:
    """Of each trial, one for each order of its options; all are asked in one call."""
    scoring, seed = arguments.scoring, arguments.seed
    prompts, candidates, names = [], [], []
    for trial, messages in zip(trials, conversations, strict=True):
        item, question = trial.item, question_text(trial.item, scoring, seed)
        for turn in range(arguments.orders):
            texts = continuations(item, scoring, seed, turn)
            for blind in (False, True)[: 1 + _takes_priors(trial, scoring)]:
                other = question_text(item, scoring, seed, turn, blind)
                prompts.append(chat.render(reworded(messages, question, other)))
                candidates.append([chat.delimiter + text for text in texts])
                names.append(f"item {item.id}" + blind * " without its scenario")
    with view.active(lm):
        rows = likelihoods(
            lm, prompts, candidates, arguments.backend, names, " (try --dtype float32)"
        )
    answers = iter(rows)
    asked = []
    for trial in trials:
        asked.append([])
        for turn in range(arguments.orders):
            row = next(answers)
            priors = next(answers) if _takes_priors(trial, scoring) else None
            tokens = [result.tokens for result in row]
            asked[-1].append(
                Likelihoods(
                    texts=continuations(trial.item, scoring, seed, turn),
                    sums=[result.nats for result in row],
                    tokens=None if None in tokens else tokens,
                    priors=priors and [result.nats for result in priors],
                )
            )
    return asked


def _takes_priors(trial: Trial, scoring: str) -> bool:
    return scoring == "option" or trial.persona is None


def _outcome(by_order: Sequence[Likelihoods], rule: str) -> Outcome:
    """Of a trial whose options were scored in one or several orders."""
    mean = _mean(by_order)
    letters = rule == "sum" and all(len(text) == 1 for text in mean.texts)
    return Outcome(
        answer=mean.pick(rule),
        option_scores=mean.sums,
        option_tokens=mean.tokens,
        option_priors=mean.priors,
        order_scores=[each.sums for each in by_order] if len(by_order) > 1 else None,
        letter_mass=_mass(by_order) if letters else None,
        blind_answer=mean.blind_pick(rule),
    )


def _fused(memory: FusedMemory, by_view: Sequence[Sequence[Likelihoods]], rule: str) -> Outcome:
    """Of a trial that was put to several views, from what each would choose by."""
    means = [_mean(by_order) for by_order in by_view]
    fused = memory.fuse([mean.scores(rule) for mean in means])
    blind = None
    if all(mean.priors is not None for mean in means):
        blind = first_of_best(memory.fuse([mean.blind_scores(rule) for mean in means]))
    return Outcome(answer=first_of_best(fused), option_scores=fused, blind_answer=blind)


def _mean(by_order: Sequence[Likelihoods]) -> Likelihoods:
    """Mean log-probabilities over orders, so that what a place is worth by itself cancels."""
    first, n = by_order[0], len(by_order)
    if n == 1:
        return first

    def mean(name: str) -> list[float] | None:
        values = [getattr(each, name) for each in by_order]
        return None if None in values else [sum(column) / n for column in zip(*values, strict=True)]

    return Likelihoods(first.texts, mean("sums"), first.tokens, mean("priors"))


def _mass(by_order: Sequence[Likelihoods]) -> float:
    """Probability of all letters together, mean over orders."""
    return sum(sum(map(math.exp, each.sums)) for each in by_order) / len(by_order)


def _generated(
    lm: Any,
    chat: ChatFormat,
    trials: Sequence[Trial],
    memory: Memory,
    arguments: AuditArguments,
    journal: Journal,
) -> list[Outcome]:
    """Of trials answered in words."""
    seed = arguments.seed
    prompts = [chat.render(trial.messages) for trial in trials]
    blind = {
        i: chat.render(
            reworded(
                trial.messages,
                question_text(trial.item, "generate", seed),
                question_text(trial.item, "generate", seed, blind=True),
            )
        )
        for i, trial in enumerate(trials)
        if trial.persona is None
    }
    settings = generation_settings(arguments.max_gen_toks, arguments.gen_kwargs, chat.stops)
    asked = [*prompts, *blind.values()]
    with memory.active(lm):
        replies = generate(lm, asked, journal, settings, arguments.backend)
    texts = [chat.reply(text) for text in replies]
    blind_texts = dict(zip(blind, texts[len(prompts) :], strict=True))
    return [
        Outcome(
            answer=_picked(trial.item, texts[i], seed),
            raw_text=texts[i],
            blind_answer=_picked(trial.item, blind_texts[i], seed) if i in blind else None,
        )
        for i, trial in enumerate(trials)
    ]


def _picked(item: Item, text: str, seed: int) -> int | None:
    """The option that a text picks, in the item's own order."""
    order = option_order(item, "generate", seed)
    picked = extract_answer(text, [item.options[i] for i in order])
    return None if picked is None else order[picked]
