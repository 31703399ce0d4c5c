"""What an audit would cost, in lines."""

from __future__ import annotations

from collections.abc import Iterator

from unswayed.audit.cost import CHARACTERS, Cost
from unswayed.audit.speed import Footprint
from unswayed.display.numbers import about, listed, two_digits
from unswayed.display.tables import aligned
from unswayed.report.words import METRIC_LABELS

GB = 1e9


def cost_text(cost: Cost) -> str:
    """The lines of `unswayed audit --dry-run`."""
    return aligned(list(_rows(cost)))


def _rows(cost: Cost) -> Iterator[tuple[str, str]]:
    n = sum(cost.trials.values())
    yield "trials", f"{n:,}: " + ", ".join(f"{c} {k:,}" for c, k in cost.trials.items())
    if cost.scored:
        yield "scored", f"{cost.scored:,} of them; what follows is of the others"
    yield "judged by", _endpoints(cost)
    if not cost.questions:
        return
    n = cost.questions + cost.blind
    options = f"; {cost.options:,} likelihoods of options" if cost.options else ""
    yield "questions", f"{n:,}, {cost.blind:,} of them without the scenario{options}"
    if cost.trains:
        yield "training", "the memory is trained first, which is not in these figures"
    yield from _served(cost, n) if cost.speed is None else _local(cost, n)


def _endpoints(cost: Cost) -> str:
    gaps = [
        f"{METRIC_LABELS[e['outcome']].lower()} of {e['test']} within {100 * e['margin']:g} points"
        for e in cost.endpoints
    ]
    return f"policy {cost.policy}: " + (listed(gaps) if gaps else "no two conditions to compare")


def _served(cost: Cost, n: int) -> Iterator[tuple[str, str]]:
    how = (
        "counted"
        if cost.counted
        else f"{CHARACTERS} characters to one; --model-args tokenizer=NAME counts them"
    )
    requests = n if cost.new_tokens else cost.options
    yield "requests", f"{requests:,}"
    yield "input", f"about {two_digits(cost.amount.alone)} tokens ({how})"
    if cost.new_tokens:
        most = two_digits(n * cost.new_tokens)
        yield "output", f"at most {most} tokens, {cost.new_tokens:,} an answer"
    if cost.requests_per_minute:
        seconds = about(60 * requests / cost.requests_per_minute)
        yield "time", f"at least {seconds}, at {cost.requests_per_minute:g} requests a minute"


def _local(cost: Cost, n: int) -> Iterator[tuple[str, str]]:
    amount, speed = cost.amount, cost.speed
    alone = f"{two_digits(amount.alone)} tokens"
    if cost.new_tokens:
        yield "input", f"about {alone}"
        most = two_digits(n * cost.new_tokens)
        yield "output", f"at most {most} tokens, {cost.new_tokens:,} an answer"
    elif cost.shared:
        times = two_digits(amount.alone / amount.distinct)
        yield (
            "tokens",
            f"about {two_digits(amount.distinct)} through the model; {alone} in stock batches, "
            f"{times} times as many",
        )
    else:
        yield "tokens", f"about {alone} through the model; prefixes are not shared"
    what = f"about {about(speed.audit)}"
    if cost.new_tokens:
        what = (
            f"at most about {about(speed.audit)} at {two_digits(speed.new_tokens)} new tokens a "
            "second"
        )
    yield "time", f"{what}, from {speed.measured:.1f} s measured here"
    if cost.footprint is not None:
        yield "memory", _memory(cost.footprint)


def _memory(taken: Footprint) -> str:
    parts = [f"weights {two_digits(taken.weights / GB)} GB ({taken.dtype})"]
    if taken.cache is not None:
        parts.append(f"cache of the longest prompt {two_digits(taken.cache / GB)} GB")
    parts.append(f"a pass at most {two_digits(taken.widest_pass / GB)} GB")
    return f"{', '.join(parts)}; {two_digits(taken.peak / GB)} GB at the peak so far"
