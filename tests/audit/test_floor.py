"""The numerical floor: a few trials asked again, alone; nothing else of a run depends on it."""

from __future__ import annotations

import json
import math

import pytest

from unswayed.audit import floor
from unswayed.audit import run as audit_run
from unswayed.audit.floor import largest_difference, spread
from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_answers, read_run
from unswayed.audit.summary import analyze
from unswayed.audit.trials import Outcome
from unswayed.report import write_report
from unswayed.scoring.lm import SharedPrefixLM


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scoring": "letter", "orders": 2},
        {"backend": "hf", "rule": "char"},
        {"conditions": ["neutral"]},
    ],
    ids=["pmi", "letters", "hf", "a memory"],
)
def test_a_run_has_its_floor(arguments, monkeypatch, settings):
    monkeypatch.setattr(floor, "SHARE", 1000.0)
    out = run_audit(arguments(**settings))
    stored = read_run(out)["floor"]
    assert stored["n"] == 3 and stored["changed"] == 0 and 0 <= stored["largest"] < 1e-3
    assert stored["rule"] == read_run(out)["identity"]["rule"]
    assert stored["condition"] == settings.get("conditions", ["none"])[0]
    assert analyze(out)["floor"] == stored
    write_report(out)
    words = "of 3 answers asked again one prompt at a time, none changed"
    assert words in (out / "report.md").read_text("utf-8")
    assert words in (out / "report.html").read_text("utf-8")


def test_a_difference_between_the_paths_shows(arguments, monkeypatch):
    real, extra = SharedPrefixLM._score_shared, 100.0

    def uneven(self, requests, *rest):
        """The shared path, wrong by a constant for every second request of an audit."""
        results = real(self, requests, *rest)
        if requests[0][0] is None:  # the check of a model that was just loaded
            return results
        return [(v + extra * (i % 2), best) for i, (v, best) in enumerate(results)]

    monkeypatch.setattr(floor, "SHARE", 1000.0)
    monkeypatch.setattr(SharedPrefixLM, "fallback_reason", None)
    monkeypatch.setattr(SharedPrefixLM, "_score_shared", uneven)
    out = run_audit(arguments(rule="sum"))
    stored = read_run(out)["floor"]
    assert stored["largest"] == pytest.approx(extra, abs=1e-3) and stored["changed"] > 0
    analyze(out)
    write_report(out)
    assert f"{stored['changed']} changed; the largest difference is 100.0 nats" in (
        (out / "report.md").read_text("utf-8")
    )


def test_answers_do_not_depend_on_the_floor(arguments, monkeypatch):
    with_floor = run_audit(arguments("with"))
    monkeypatch.setattr(audit_run, "measure_floor", lambda *args: None)
    without = run_audit(arguments("without"))
    assert read_run(without)["floor"] is None and read_run(with_floor)["floor"]["n"] == 1
    files = [(out / "answers.parquet").read_bytes() for out in (with_floor, without)]
    assert files[0] == files[1]
    (without / "run.json").write_text(
        json.dumps({k: v for k, v in read_run(without).items() if k != "floor"})
    )
    assert analyze(without)["floor"] is None  # of an earlier run


def test_a_resumed_run_keeps_its_floor(arguments, dies_at_the_third_part):
    with pytest.raises(KeyboardInterrupt):
        run_audit(arguments())
    before = read_run(arguments().out)["floor"]
    assert before["condition"] == "none"
    assert read_run(run_audit(arguments(resume=True)))["floor"] == before


def test_generated_answers_have_none(arguments):
    out = run_audit(arguments(scoring="generate", max_gen_toks=2, conditions=["none"]))
    assert read_run(out)["floor"] is None and len(read_answers(out)) == 3


def test_differences_are_those_of_scores_and_priors():
    row = {"option_scores": [-1.0, -2.0], "option_priors": [-3.0, -4.0]}
    again = Outcome(option_scores=[-1.1, -2.0], option_priors=[-3.0, -4.5])
    assert math.isclose(largest_difference(row, again), 0.5)
    letters = Outcome(option_scores=[-1.1, -2.0])
    assert math.isclose(largest_difference(row | {"option_priors": None}, letters), 0.1)


def test_trials_are_spread_over_the_part():
    assert [spread(10, 3), spread(2, 5), spread(89, 4)] == [[0, 3, 6], [0, 1], [0, 22, 44, 66]]
