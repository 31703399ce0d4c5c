"""The progress of an audit moves on while the model is at work, within a user's trials."""

from __future__ import annotations

import logging
import re
import time

import pytest
from chat_service import completion, serving

from unswayed.audit.outcomes import outcomes
from unswayed.audit.run import run_audit
from unswayed.audit.trials import trials_of
from unswayed.core.journal import Journal
from unswayed.core.progress import Progress
from unswayed.data.items import load_items
from unswayed.data.personas import builtin_personas
from unswayed.memory.registry import find_mechanism
from unswayed.models.load import load_lm
from unswayed.scoring.chat import ChatFormat


class TwoViews:
    """The memory twice, as one that is fused has it."""

    def __init__(self, memory):
        self._memory = memory

    def __getattr__(self, name):
        return getattr(self._memory, name)

    def views(self):
        return [self._memory, self._memory]

    def fuse(self, scores):
        return scores[0]


@pytest.mark.parametrize(
    ("backend", "settings", "fused"),
    [
        ("hf-shared", {"pack_tokens": 64}, False),
        ("hf-shared", {"pack_tokens": 64}, True),
        ("hf-shared", {"attn_implementation": "sdpa"}, False),
        ("hf", {}, False),
    ],
)
def test_options_count_as_their_passes_end(arguments, backend, settings, fused, monkeypatch):
    given = arguments(backend=backend, model_args=settings)
    lm = load_lm(given.model, backend=backend, model_args=settings)
    if "attn_implementation" in settings:  # as where prefixes are not shared
        monkeypatch.setitem(vars(lm), "fallback_reason", "a reason")
    memory = find_mechanism("prompt").make(given, lm, [])
    persona = builtin_personas()[0]
    trials = list(trials_of(load_items(given.items), persona, memory, "option", 0))
    seen = []
    with Progress(100, "options", quiet=True) as progress:
        hook = lm.model.register_forward_hook(lambda *_: seen.append(progress.done))
        with progress.step(80):
            view = TwoViews(memory) if fused else memory
            outcomes(lm, ChatFormat(lm), trials, view, given, Journal(None))
        hook.remove()
        assert progress.done == 80
    assert seen == sorted(seen)
    inside = {done for done in seen if 0 < done < 80}
    assert len(inside) >= 3
    if fused:  # the second view begins where the first has ended
        assert any(done < 40 for done in inside) and 40 in inside


def test_generated_answers_count_one_by_one(arguments, monkeypatch):
    """In process, at a batch size of one."""
    lines = logged_by(monkeypatch, arguments(scoring="generate", max_gen_toks=8, pairs=1))
    assert len({line for line in lines if re.match(r"\d+ of 15 answers", line)}) >= 3


def test_a_slow_service_is_waited_for_audibly(arguments, monkeypatch):
    """The first line comes before the first answer."""

    def slow(number, body):
        time.sleep(0.2)
        return completion(content="Answer: A")

    with serving(slow) as service:
        reach = {"base_url": service.url, "num_concurrent": 3}
        given = arguments(
            backend="local-chat-completions", scoring="generate", pairs=1, model_args=reach
        )
        lines = logged_by(monkeypatch, given)
    assert any(re.fullmatch(r"0 of 15 answers after 0 s", line) for line in lines)
    assert any(re.fullmatch(r"[3-9] of 15 answers, [\d.]+/s, \d+ s left", line) for line in lines)


def test_loading_is_waited_for_audibly(arguments, monkeypatch):
    lines = logged_by(monkeypatch, arguments(pairs=1, conditions=["none"]))
    assert any(re.fullmatch(r"loading \S+, \d+ s", line) for line in lines)


def logged_by(monkeypatch, given) -> list[str]:
    """Lines of an audit that says how far it is fifty times a second."""
    said, handler = [], logging.Handler()
    monkeypatch.setattr("unswayed.core.progress.EVERY", 0.02)
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("unswayed.core.progress")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "level", logging.INFO)
    run_audit(given)
    return said
