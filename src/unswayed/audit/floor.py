"""The numerical floor of a run: what changes where nothing but the arithmetic does.

Equal prompts in batches of another shape have other rounding errors, and answers that were close to
a tie may change: flips below this floor mean nothing. So that it costs little, a few trials of the
first part are asked again, one at a time, through the backend's own path without shared prefixes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.outcomes import outcomes
from unswayed.audit.rundir import Floor
from unswayed.audit.trials import Outcome, Trial
from unswayed.core.journal import Journal
from unswayed.memory import Memory
from unswayed.scoring.backends import in_process
from unswayed.scoring.chat import ChatFormat

MOST = 16  # trials
SHARE = 0.03  # of the whole audit's work


def measure_floor(
    lm: Any,
    chat: ChatFormat,
    trials: Sequence[Trial],
    rows: Sequence[dict],
    memory: Memory,
    arguments: AuditArguments,
    n_trials: int,
) -> Floor | None:
    """Some trials asked again, beside their rows; None of generated answers and of servers.

    Args:
        trials, rows: n trials that share the present state of `memory`, and what came of them.
        n_trials: of the whole audit, to which this may add a few percent.
    """
    if arguments.scoring == "generate" or not in_process(lm):
        return None
    chosen = spread(len(trials), _affordable(chat, trials, n_trials))
    with alone(lm):
        again = [
            outcomes(lm, chat, [trials[i]], memory, arguments, Journal(None))[0] for i in chosen
        ]
    pairs = [(trials[i], rows[i], outcome) for i, outcome in zip(chosen, again, strict=True)]
    return {
        "n": len(pairs),
        "changed": sum(trial.item.options[o.answer] != row["answer"] for trial, row, o in pairs),
        "largest": max(largest_difference(row, outcome) for _, row, outcome in pairs),
        "rule": arguments.rule,
        "condition": rows[0]["condition"],
    }


def largest_difference(row: dict, outcome: Outcome) -> float:
    """Between the options' log-probabilities of a row and of an outcome, priors too; nats."""
    pairs = [
        (row["option_scores"], outcome.option_scores),
        (row["option_priors"], outcome.option_priors),
    ]
    return max(
        abs(a - b) for old, new in pairs if old is not None for a, b in zip(old, new, strict=True)
    )


def spread(n: int, k: int) -> list[int]:
    """At most k of n places, evenly from the first on."""
    k = min(n, k)
    return [i * n // k for i in range(k)]


@contextmanager
def alone(lm: Any) -> Iterator[None]:
    """Inside, prefixes are not shared and requests go one by one, where the backend can."""
    if hasattr(lm, "unshared"):
        with lm.unshared():
            yield
    else:
        yield


def _affordable(chat: ChatFormat, trials: Sequence[Trial], n_trials: int) -> int:
    """Trials that cost no more than their share, by the characters that pass the model: alone each
    option comes with the whole prompt, in the audit with little more than the question."""
    texts = sum(len(chat.render(t.messages)) * len(t.item.options) for t in trials)
    shared = sum(len(t.messages[-1]["content"]) + sum(map(len, t.item.options)) for t in trials)
    return max(1, min(MOST, int(SHARE * n_trials * shared / texts)))
