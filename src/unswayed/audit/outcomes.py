"""What the model makes of trials: likelihoods of options or letters, or answers in words.

Beside each answer stands what it would have been without the scenario: of options under every
memory, since the priors of the rule pmi tell; of letters and of generated answers without memory.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.trials import Outcome, Trial
from unswayed.core.journal import Journal
from unswayed.core.progress import Progress
from unswayed.data.items import Item
from unswayed.memory import FusedMemory, Memory
from unswayed.scoring.ask import generate, generation_settings, likelihoods
from unswayed.scoring.backends import is_service
from unswayed.scoring.chat import ChatFormat, Message
from unswayed.scoring.completions import OPENS_THOUGHT, THINKING_OFF
from unswayed.scoring.letters import reply_said, served_letters
from unswayed.scoring.prompts import (
    Likelihoods,
    continuations,
    first_of_best,
    option_order,
    question_text,
    reworded,
)
from unswayed.scoring.replies import extract_answer


class Call(NamedTuple):
    """What a model is asked.

    Attributes:
        prompts: n conversations (`ChatFormat.render`).
        texts: n lists of what may come after each, without a delimiter; none of generated answers.
        names: n, what an error calls the prompts.
    """

    prompts: list[str]
    texts: list[list[str]]
    names: list[str]


def calls_of(
    chat: ChatFormat, trials: Sequence[Trial], memory: Memory, arguments: AuditArguments
) -> list[Call]:
    """What `outcomes` asks, in each of its calls; nothing is asked here."""
    if arguments.scoring == "generate":
        prompts, blind = _openings(chat, trials, arguments.seed)
        prompts += blind.values()
        return [Call(prompts, [[]] * len(prompts), [""] * len(prompts))]
    conversations = [[trial.messages for trial in trials]]
    if views := memory.views() if isinstance(memory, FusedMemory) else []:
        conversations = [_seen(view, trials, arguments) for view in views]
    return [_wordings(chat, trials, each, arguments) for each in conversations]


def outcomes(
    lm: Any,
    chat: ChatFormat,
    trials: Sequence[Trial],
    memory: Memory,
    arguments: AuditArguments,
    journal: Journal,
) -> list[Outcome]:
    """Of trials under which `memory` leaves the model in one state; replies of a service and
    generated texts go through `journal`.

    Raises:
        InputError: as `scoring.ask.likelihoods` and `generate`; the memory rewrites the question.
    """
    if arguments.scoring == "generate":
        return _generated(lm, chat, trials, memory, arguments, journal)
    views = memory.views() if isinstance(memory, FusedMemory) else []
    if not views:
        conversations = [trial.messages for trial in trials]
        by_trial = _likelihoods(lm, chat, trials, memory, conversations, arguments, journal)
        return [
            _with_reply(_outcome(by_order, arguments), chat, trial, journal)
            for trial, by_order in zip(trials, by_trial, strict=True)
        ]
    by_view = []
    with Progress(len(views), "views") as progress:
        for view in views:
            conversations = _seen(view, trials, arguments)
            with progress.step(1):
                by_view.append(
                    _likelihoods(lm, chat, trials, view, conversations, arguments, journal)
                )
    return [_fused(memory, of_trial, arguments.rule) for of_trial in zip(*by_view, strict=True)]


def _seen(view: Any, trials: Sequence[Trial], arguments: AuditArguments) -> list[Sequence[Message]]:
    """The trials' conversations as a view of a memory has them."""
    questions = [question_text(t.item, arguments.scoring, arguments.seed) for t in trials]
    return [view.messages(question) for question in questions]


def _with_reply(outcome: Outcome, chat: ChatFormat, trial: Trial, journal: Journal) -> Outcome:
    """With what a service gave to the first order of the options, where it listed no letter."""
    if outcome.answer is not None:
        return outcome
    return dataclasses.replace(
        outcome, raw_text=reply_said(journal.get(chat.render(trial.messages)))
    )


def answers_in_words(arguments: AuditArguments, served: bool) -> bool:
    """Whether texts are asked for and no likelihoods; `served`: by a service."""
    return served or arguments.scoring == "generate"


def n_questions(
    items: Sequence[Item], without_memory: bool, arguments: AuditArguments, served: bool
) -> int:
    """How many answers a user's trials take, or options that are scored."""
    if answers_in_words(arguments, served):
        return len(items) * arguments.orders * (1 + without_memory)
    return sum(len(item.options) for item in items) * arguments.orders


def reading_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know of answers that were not read, or not in full, in sentences."""
    notes, n = [], len(rows)
    if silent := sum(row["raw_text"] == "" for row in rows):
        notes.append(f"{silent} of {n} answers were empty: they count as unparsed.")
    served = [row for row in rows if row["option_listed"]]
    if partly := sum(row["parsed"] and not all(row["option_listed"]) for row in served):
        notes.append(
            f"In {partly} of {n} answers a letter was not among the likeliest tokens that the "
            "server lists: its score is the most that it can be (option_listed)."
        )
    if unread := [row["raw_text"] for row in served if not row["parsed"]]:
        thoughts = sum(bool(OPENS_THOUGHT.match(text)) for text in unread)
        notes.append(
            f"In {len(unread)} of {n} answers no letter was among the likeliest tokens that the "
            "server lists: they count as unparsed, raw_text has what came instead."
            + (f" In {thoughts} the model began to think: try {THINKING_OFF}." if thoughts else "")
        )
    return notes


def _likelihoods(
    lm: Any,
    chat: ChatFormat,
    trials: Sequence[Trial],
    view: Any,
    conversations: Sequence[Sequence[Message]],
    arguments: AuditArguments,
    journal: Journal,
) -> list[list[Likelihoods]]:
    """Of each trial, one for each order of its options; all are asked in one call."""
    prompts, texts, names = _wordings(chat, trials, conversations, arguments)
    with view.active(lm):
        if is_service(type(lm)):
            scored = served_letters(
                lm, prompts, texts, journal, arguments.gen_kwargs, arguments.backend
            )
        else:
            scored = _in_process(lm, chat.delimiter, prompts, texts, arguments.backend, names)
    answers = iter(scored)

    def next_order(trial: Trial) -> Likelihoods:
        answer = next(answers)
        priors = next(answers).sums if _takes_priors(trial, arguments.scoring) else None
        return dataclasses.replace(answer, priors=priors)

    return [[next_order(trial) for _ in range(arguments.orders)] for trial in trials]


def _wordings(
    chat: ChatFormat,
    trials: Sequence[Trial],
    conversations: Sequence[Sequence[Message]],
    arguments: AuditArguments,
) -> Call:
    """Every order of the options of each trial, with the scenario and where need be without."""
    scoring, seed = arguments.scoring, arguments.seed
    prompts, texts, names = [], [], []
    for trial, messages in zip(trials, conversations, strict=True):
        item, question = trial.item, question_text(trial.item, scoring, seed)
        for turn in range(arguments.orders):
            for blind in (False, True) if _takes_priors(trial, scoring) else (False,):
                wording = question_text(item, scoring, seed, turn, blind)
                prompts.append(chat.render(reworded(messages, question, wording)))
                texts.append(continuations(item, scoring, seed, turn))
                names.append(f"item {item.id}" + blind * " without its scenario")
    return Call(prompts, texts, names)


def _in_process(
    lm: Any,
    delimiter: str,
    prompts: Sequence[str],
    texts: Sequence[Sequence[str]],
    backend: str,
    names: Sequence[str],
) -> list[Likelihoods]:
    """Of each prompt, from a backend that gives likelihoods."""
    candidates = [[delimiter + text for text in row] for row in texts]
    rows = likelihoods(lm, prompts, candidates, backend, names, " (try --dtype float32)")
    tokens = [[result.tokens for result in row] for row in rows]
    return [
        Likelihoods(options, [result.nats for result in row], None if None in sizes else sizes)
        for options, row, sizes in zip(texts, rows, tokens, strict=True)
    ]


def _takes_priors(trial: Trial, scoring: str) -> bool:
    return scoring == "option" or trial.persona is None


def _outcome(by_order: Sequence[Likelihoods], arguments: AuditArguments) -> Outcome:
    """Of a trial whose options were scored in one or several orders."""
    mean, rule = _mean(by_order), arguments.rule
    return Outcome(
        answer=None if mean.sums is None else mean.pick(rule),
        option_scores=mean.sums,
        option_tokens=mean.tokens,
        option_priors=mean.priors,
        order_scores=[each.sums for each in by_order] if len(by_order) > 1 else None,
        letter_mass=_mass(by_order) if arguments.scoring == "letter" else None,
        option_listed=mean.listed,
        blind_answer=mean.blind_pick(rule),
    )


def _fused(memory: FusedMemory, by_view: Sequence[Sequence[Likelihoods]], rule: str) -> Outcome:
    """Of a trial that was put to several views, from what each would choose by."""
    means = [_mean(by_order) for by_order in by_view]
    if any(mean.sums is None for mean in means):
        return Outcome()
    fused = memory.fuse([mean.scores(rule) for mean in means])
    blind = None
    if all(mean.priors is not None for mean in means):
        blind = first_of_best(memory.fuse([mean.blind_scores(rule) for mean in means]))
    return Outcome(answer=first_of_best(fused), option_scores=fused, blind_answer=blind)


def _mean(by_order: Sequence[Likelihoods]) -> Likelihoods:
    """Mean log-probabilities over orders, so that what a place is worth by itself cancels.

    An order in which a service listed no letter is left out.
    """
    first = by_order[0]

    def mean(rows: Sequence[Sequence[float] | None]) -> list[float] | None:
        read = [row for row in rows if row is not None]
        return [sum(column) / len(read) for column in zip(*read, strict=True)] if read else None

    return Likelihoods(
        first.texts,
        mean([each.sums for each in by_order]),
        first.tokens,
        mean([each.priors for each in by_order]),
        first.listed
        and [all(column) for column in zip(*(each.listed for each in by_order), strict=True)],
    )


def _mass(by_order: Sequence[Likelihoods]) -> float:
    """Probability of all letters together, mean over orders; of a service, of those it listed."""
    total = 0.0
    for each in by_order:
        listed = each.listed or [True] * len(each.texts)
        total += sum(
            math.exp(nats) for nats, here in zip(each.sums or [], listed, strict=False) if here
        )
    return total / len(by_order)


def _generated(
    lm: Any,
    chat: ChatFormat,
    trials: Sequence[Trial],
    memory: Memory,
    arguments: AuditArguments,
    journal: Journal,
) -> list[Outcome]:
    """Of trials answered in words."""
    prompts, blind = _openings(chat, trials, arguments.seed)
    settings = generation_settings(arguments.max_gen_toks, arguments.gen_kwargs, chat.stops)
    with memory.active(lm):
        replies = generate(lm, [*prompts, *blind.values()], journal, settings, arguments.backend)
    texts = [chat.reply(text) for text in replies]
    blind_texts = dict(zip(blind, texts[len(prompts) :], strict=True))
    return [
        Outcome(
            answer=_picked(trial.item, texts[i], arguments.seed),
            raw_text=texts[i],
            blind_answer=(
                _picked(trial.item, blind_texts[i], arguments.seed) if i in blind else None
            ),
        )
        for i, trial in enumerate(trials)
    ]


def _openings(
    chat: ChatFormat, trials: Sequence[Trial], seed: int
) -> tuple[list[str], dict[int, str]]:
    """Prompts of trials that are answered in words, and by their places those of the same trials
    without the scenario."""
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
    return prompts, blind


def _picked(item: Item, text: str, seed: int) -> int | None:
    """The option that a text picks, in the item's own order."""
    order = option_order(item, "generate", seed)
    picked = extract_answer(text, [item.options[i] for i in order])
    return None if picked is None else order[picked]
