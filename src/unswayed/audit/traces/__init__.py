"""`unswayed traces`: does generated reasoning use the memory, and more so when it is wrong?

detector    words of the memory in a text, negation aware
analysis    the traces of a run, shares, odds ratios
judge       a language model as a second reader, and its agreement with the detector
page        traces.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unswayed.audit.report.methods import model_name
from unswayed.audit.run import read_answers, read_run
from unswayed.audit.summary import check_answers
from unswayed.audit.traces import judge as judging
from unswayed.audit.traces.analysis import Trace, figures, read_traces
from unswayed.audit.traces.page import examples, markdown
from unswayed.errors import InputError
from unswayed.files import write_text
from unswayed.statistics.crossed import LEVEL


def analyse_traces(
    out: Path,
    judge_url: str | None = None,
    judge_model: str | None = None,
    judge_sample: int = 200,
) -> dict[str, Any]:
    """Write traces.json and traces.md of a complete run; returns the former's content.

    Args:
        judge_url: base of an OpenAI-compatible endpoint; with it `judge_model` reads
            `judge_sample` traces, drawn by the run's seed.

    Raises:
        InputError: no complete run of generated text with and without memory, damaged files, or a
            judge that cannot be reached (its finished verdicts are kept).
    """
    if (judge_url is None) != (judge_model is None):
        raise InputError("a judge needs both --judge-url and --judge-model")
    if judge_sample < 1:
        raise InputError(f"--judge-sample {judge_sample}: give a number from 1")
    run, answers = read_run(out), read_answers(out).to_pandas()
    check_answers(answers, out)
    traces = read_traces(answers, out)
    seed = run["identity"]["seed"]
    if judge_url is not None:
        judging.check_url(judge_url)
        judging.judge(out, judging.sample(traces, judge_sample, seed), judge_url, judge_model)
    content = {
        "schema_version": 1,
        "model": model_name(run, {"model": answers["model"].iloc[0]}),
        "level": LEVEL,
        "n_traces": len(traces),
        "tests": figures(traces),
        "judges": [
            {"judge": name, "rubric": judging.rubric_hash()}
            | judging.agreement(traces, verdicts, seed)
            for name, verdicts in sorted(judging.read_judgements(out).items())
        ],
        "examples": examples(traces),
        "traces": [_as_dict(trace) for trace in traces],
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_text(out / "traces.json", text)
    write_text(out / "traces.md", markdown(content))
    return content


def _as_dict(trace: Trace) -> dict[str, Any]:
    """A trace's reading, without its text."""
    names = ("test", "question_id", "persona_id", "condition", "correct", "parsed", "n_facts")
    return {name: getattr(trace, name) for name in names} | {
        "label": trace.reading.label,
        "label_without_memory": trace.control.label,
        "mentions": [
            {"text": trace.text[m.start : m.end], "dismissed": m.dismissed}
            for m in trace.reading.mentions
        ],
    }
