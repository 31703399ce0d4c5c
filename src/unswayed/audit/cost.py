"""What an audit costs, before it is spent: `unswayed audit --dry-run`.

Nothing is written, and a service is asked nothing. One user of each condition is counted token by
token, the others of that condition in proportion to their characters, what prompts share taken
once in both. A model in this process is loaded and timed for about a second.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.outcomes import answers_in_words, calls_of
from unswayed.audit.run import checked, loaded, parts_of
from unswayed.audit.rundir import open_run, read_part
from unswayed.audit.speed import (
    Footprint,
    Speed,
    attention_share,
    footprint,
    generation_times,
    rate,
)
from unswayed.audit.trials import NONE, trials_of
from unswayed.data.items import Item
from unswayed.data.personas import Persona
from unswayed.memory import Memory
from unswayed.memory.registry import find_mechanism
from unswayed.scoring.ask import encode_pairs
from unswayed.scoring.backends import HF_SHARED, check_length, in_process, is_service
from unswayed.scoring.chat import ChatFormat
from unswayed.scoring.checkpoint import load_tokenizer
from unswayed.scoring.tree import Node, build_tree

CHARACTERS = 4  # in a token of English, where no tokenizer is at hand

Pair = tuple[str, str]  # a prompt, and what may come after it
Request = tuple[Pair, list[int], list[int]]  # with the tokens of both


@dataclasses.dataclass(frozen=True)
class Amount:
    """How much there is to read, in tokens or in characters.

    Attributes:
        distinct: each beginning that sequences share once.
        alone: each distinct sequence by itself, as in a stock batch without its padding.
        longest: sequence.
        work: of what passes the model, a token counting 1 and a share of what it looks back on.
    """

    distinct: float
    alone: float
    longest: float
    work: float

    def __add__(self, other: Amount) -> Amount:
        longest = max(self.longest, other.longest)
        return Amount(
            self.distinct + other.distinct,
            self.alone + other.alone,
            longest,
            self.work + other.work,
        )

    def scaled(self, mine: Amount, other: Amount) -> Amount:
        """What `other` is, if `mine` is this: the same in another unit."""
        return Amount(
            self.distinct * other.distinct / mine.distinct,
            self.alone * other.alone / mine.alone,
            self.longest * other.longest / mine.longest,
            self.work * other.work / mine.work,
        )


NOTHING = Amount(0, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of an audit that has not been made, or of the rest of one.

    Attributes:
        trials: by condition.
        scored: of them, by the run that this one goes on with.
        endpoints: primary, as in run.json.
        policy: name of the run's policy.
        questions, blind: still to be asked, with and without the scenario.
        options: whose likelihoods are taken; 0 of answers in words.
        amount: of all prompts, in tokens.
        counted: by a tokenizer, else `CHARACTERS` to a token.
        new_tokens: of an answer at most; 0 of likelihoods.
        shared: beginnings pass the model once.
        trains: the memory is trained first, which is not in these figures.
        requests_per_minute: that a service is asked at most.
        speed, footprint: measured here; None of services.
    """

    trials: dict[str, int]
    scored: int
    endpoints: Sequence[dict[str, Any]]
    policy: str
    questions: int = 0
    blind: int = 0
    options: int = 0
    amount: Amount = NOTHING
    counted: bool = True
    new_tokens: int = 0
    shared: bool = False
    trains: bool = False
    requests_per_minute: float | None = None
    speed: Speed | None = None
    footprint: Footprint | None = None


def cost_of(arguments: AuditArguments) -> Cost:
    """Count what the audit would ask, and time a second of it.

    Raises:
        InputError: as the audit itself, as far as that can be seen before the answers.
    """
    items, personas = checked(arguments)
    run = open_run(Path(arguments.out), arguments, items, personas)
    parts = parts_of(arguments, personas)
    complete = run["status"] == "complete"
    users = [
        user for part, user in parts.items() if not complete and read_part(part, len(items)) is None
    ]
    trials = Counter(_condition(user) for user in parts.values())
    cost = Cost(
        trials={condition: n * len(items) for condition, n in trials.items()},
        scored=len(items) * (len(parts) - len(users)),
        endpoints=run["endpoints"],
        policy=run["policy"]["name"],
    )
    if not users:
        return cost
    lm = loaded(arguments)
    mechanism, served = find_mechanism(arguments.memory), is_service(type(lm))
    chat = ChatFormat(lm, thinks=arguments.scoring == "generate")
    make = mechanism.untrained or mechanism.make
    memory = make(arguments, lm, [user for user in users if user is not None])
    words = answers_in_words(arguments, served)
    cost = dataclasses.replace(
        cost,
        **_questions(arguments, items, users, words),
        new_tokens=words * (1 if arguments.scoring == "letter" else arguments.max_gen_toks),
        shared=not words and arguments.backend == HF_SHARED and lm.fallback_reason is None,
        trains=mechanism.untrained is not None,
        requests_per_minute=arguments.model_args.get("requests_per_minute") if served else None,
    )
    asks = (_pairs(user, memory, chat, items, arguments) for user in users)
    if not in_process(lm):
        return _sent(cost, lm, arguments, asks)
    return _passed(cost, lm, arguments, zip(users, asks, strict=True))


def _questions(
    arguments: AuditArguments, items: Sequence[Item], users: Sequence[Persona | None], words: bool
) -> dict[str, int]:
    """How many questions, with and without the scenario, and options."""
    with_priors = len(users) if arguments.scoring == "option" else users.count(None)
    options = sum(len(item.options) for item in items) * arguments.orders
    return {
        "questions": len(users) * len(items) * arguments.orders,
        "blind": with_priors * len(items) * arguments.orders,
        "options": 0 if words else options * (len(users) + with_priors),
    }


# -- counting --------------------------------------------------------------------------------------


def characters(pairs: Iterable[Pair], shared: bool) -> Amount:
    """Of sequences, in characters; `work` as if nothing looked back.

    In sorted order a sequence shares its longest beginning with the one before it.
    """
    texts = sorted({prompt + text for prompt, text in pairs})
    alone = sum(map(len, texts))
    distinct = alone - sum(_common(a, b) for a, b in itertools.pairwise(texts))
    return Amount(distinct, alone, max(map(len, texts)), distinct if shared else alone)


def _common(a: str, b: str) -> int:
    """Length of the longest common beginning, by halving."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def tokens(
    requests: Sequence[tuple[Sequence[int], Sequence[int]]], shared: bool, attention: float = 0.0
) -> Amount:
    """Of pairs of context and continuation, as they pass the model: the last token does not.

    Args:
        shared: beginnings that requests share pass once.
        attention: what a token costs for each token that it looks back on, the token being 1.
    """

    def weighed(start: int, n: int) -> float:
        return n + attention * (n * start + n * (n - 1) / 2)

    def walk(node: Node) -> float:
        return weighed(node.start, len(node.tokens)) + sum(map(walk, node.children))

    tree = build_tree(requests)
    lengths = [len(s) for s in {(*context, *answer[:-1]) for context, answer in requests}]
    work = sum(map(walk, tree)) if shared else sum(weighed(0, n) for n in lengths)
    distinct = sum(node.n_tokens for node in tree)
    return Amount(distinct, sum(lengths), max(lengths) + 1, work)


def _condition(user: Persona | None) -> str:
    return NONE if user is None else user.condition


def _pairs(
    user: Persona | None,
    memory: Memory,
    chat: ChatFormat,
    items: Sequence[Item],
    arguments: AuditArguments,
) -> list[list[Pair]]:
    """What is asked about a user in each call, once each; texts are empty where words answer."""
    trials = list(trials_of(items, user, memory, arguments.scoring, arguments.seed))
    calls = []
    for prompts, texts, _ in calls_of(chat, trials, memory, arguments):
        rows = zip(prompts, texts, strict=True)
        pairs = [
            (prompt, text and chat.delimiter + text) for prompt, row in rows for text in row or [""]
        ]
        calls.append(list(dict.fromkeys(pairs)))
    return calls


def _sent(
    cost: Cost, lm: Any, arguments: AuditArguments, asks: Iterable[Sequence[Sequence[Pair]]]
) -> Cost:
    """With what a server is sent."""
    name = arguments.model_args.get("tokenizer")
    tokenizer = load_tokenizer(name) if name else getattr(lm, "tokenizer", None)

    def requests(pairs: Sequence[Pair]) -> Iterable[Sequence[str]]:
        """The texts of each: one for a prompt that is answered in words, else one for a pair."""
        if not cost.new_tokens:
            return pairs
        prompts = dict.fromkeys(prompt for prompt, _ in pairs)
        return ([turn["content"] for turn in json.loads(prompt)] for prompt in prompts)

    def size(texts: Sequence[str]) -> float:
        if tokenizer is None:
            return sum(map(len, texts)) / CHARACTERS
        return sum(len(tokenizer.encode(text)) for text in texts)

    amount = NOTHING
    for calls in asks:
        sizes = [size(texts) for pairs in calls for texts in requests(pairs)]
        amount += Amount(sum(sizes), sum(sizes), max(sizes), sum(sizes))
    return dataclasses.replace(cost, amount=amount, counted=tokenizer is not None)


def _passed(
    cost: Cost,
    lm: Any,
    arguments: AuditArguments,
    asks: Iterable[tuple[Persona | None, Sequence[Sequence[Pair]]]],
) -> Cost:
    """With what passes the model here, how long that takes, and in how much memory."""
    attention = attention_share(lm.model) if _in_torch(lm) else 0.0
    counted: dict[tuple[str, int], tuple[Amount, Amount]] = {}  # in tokens, in characters
    amount, encoding, samples = NOTHING, 0.0, {}
    for user, calls in asks:
        for number, pairs in enumerate(calls):
            here, key = characters(pairs, cost.shared), (_condition(user), number)
            if key not in counted:
                start = time.perf_counter()
                samples[key] = requests = _fitting(lm, pairs, cost)
                seconds = time.perf_counter() - start
                exact = tokens([ids for _, *ids in requests], cost.shared, attention)
                counted[key], encoding = (exact, here), seconds / exact.alone
            else:
                _fitting(lm, [max(pairs, key=lambda pair: len(pair[0] + pair[1]))], cost)
            exact, there = counted[key]
            amount += exact.scaled(there, here)
    cost = dataclasses.replace(cost, amount=amount)
    sample = next((s for (of, _), s in samples.items() if of != NONE), samples.get((NONE, 0)))
    time_it = _generating if cost.new_tokens else _scoring
    speed = time_it(cost, lm, arguments, sample, attention)
    speed = dataclasses.replace(speed, audit=speed.audit + encoding * amount.alone)
    return dataclasses.replace(cost, speed=speed, footprint=_footprint(cost, lm))


def _footprint(cost: Cost, lm: Any) -> Footprint | None:
    if not _in_torch(lm):
        return None
    longest = int(cost.amount.longest)
    if cost.shared:
        return footprint(lm.model, lm.device, longest + lm.pass_tokens, lm.pass_tokens)
    sequences = _batch(lm)
    if cost.new_tokens:  # of a prompt only the end is wanted
        return footprint(lm.model, lm.device, sequences * (longest + cost.new_tokens), sequences)
    return footprint(lm.model, lm.device, sequences * longest, sequences * longest)


def _fitting(lm: Any, pairs: Sequence[Pair], cost: Cost) -> list[Request]:
    """Requests with their tokens.

    Raises:
        InputError: one exceeds the model's context, or a text has no tokens.
    """
    if cost.new_tokens:
        requests = [(pair, lm.tok_encode(pair[0]), [0]) for pair in pairs]
    else:
        requests = encode_pairs(lm, pairs)
    for (prompt, _), context, answer in requests:
        new = cost.new_tokens or len(answer) - 1
        check_length(len(context), new, lm.max_length, prompt)
    return requests


def _scoring(
    cost: Cost, lm: Any, arguments: AuditArguments, sample: Sequence[Request], attention: float
) -> Speed:
    """Of likelihoods, from ever more questions of one user."""
    by_prompt: dict[str, list[Request]] = {}
    for request in sample:
        by_prompt.setdefault(request[0][0], []).append(request)

    def flat(questions: Sequence[list[Request]]) -> list[Request]:
        return [request for question in questions for request in question]

    per_second, measured = rate(
        lambda questions: lm._loglikelihood_tokens(flat(questions), disable_tqdm=True),
        lambda questions: tokens([ids for _, *ids in flat(questions)], cost.shared, attention).work,
        list(by_prompt.values()),
    )
    return Speed(cost.amount.work / per_second, measured)


def _generating(
    cost: Cost, lm: Any, arguments: AuditArguments, sample: Sequence[Request], attention: float
) -> Speed:
    """Of answers in words, none of which ends early, from a batch of them."""
    batch, n = _batch(lm), cost.questions + cost.blind
    prompts = [prompt for (prompt, _), *_ in sample[:batch]]
    first, step, measured = generation_times(
        lm, prompts, cost.new_tokens, arguments.gen_kwargs, arguments.backend
    )
    whole = math.ceil(n / batch) * (first + (cost.new_tokens - 1) * step)
    return Speed(whole, measured, len(prompts) / step)


def _batch(lm: Any) -> int:
    """Answers at a time; 1 where the backend finds out by itself."""
    return lm.batch_size if isinstance(lm.batch_size, int) else 1


def _in_torch(lm: Any) -> bool:
    return hasattr(getattr(lm, "model", None), "parameters")
