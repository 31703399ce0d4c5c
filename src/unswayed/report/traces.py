"""`traces.md`: the figures as tables and sentences, with examples quoted so that nothing acts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unswayed.audit.evidence import check_answers
from unswayed.audit.rundir import model_name, read_answers, read_run
from unswayed.audit.traces import judge as judging
from unswayed.audit.traces.analysis import PERSONAS, Trace, figures, read_traces
from unswayed.audit.traces.detector import LABELS, UNUSED, USED, sentence_span
from unswayed.core.errors import InputError
from unswayed.display.numbers import (
    MISSING,
    coefficient_interval,
    count,
    interval,
    p_value,
    percent,
)
from unswayed.display.page import write_reports
from unswayed.display.tables import markdown_table
from unswayed.statistics.crossed import LEVEL

EXAMPLES = 3  # per class
LONGEST = 300  # characters of a quoted sentence

USE_COLUMNS = [
    ("test", "Test"),
    ("condition", "Condition"),
    ("n", "Traces"),
    ("words", "Words"),
    ("used", "Uses memory (%)"),
    ("control", "By chance (%)"),
    ("difference", "Beyond chance (points)"),
    ("dismissed", "Dismisses it (%)"),
    ("share", "Facts mentioned (%)"),
]
ERROR_COLUMNS = [
    ("test", "Test"),
    ("scope", "Users"),
    ("wrong_used", "Wrong when used"),
    ("wrong_unused", "Wrong when not"),
    ("n_unparsed", "Unparsed"),
    ("pooled", "Odds ratio within items"),
    ("p", "p"),
    ("n_items", "Items that tell"),
    ("crude", "Crude odds ratio"),
    ("paired", "Difference (points)"),
]


def ratio(value: dict[str, Any]) -> str:
    """An odds ratio with its interval: "2.10 [1.20, 3.70]"."""
    if value["estimate"] is None:
        return MISSING
    return f"{value['estimate']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def use_rows(tests: dict[str, Any]) -> list[dict[str, str]]:
    """Formatted rows, test x condition; shares in percent."""
    return [
        {
            "test": test,
            "condition": condition,
            "n": f"{row['n']:,}",
            "words": f"{row['words']:g}",
            "used": interval(row["used"]),
            "control": percent(row["control"]["estimate"]),
            "difference": interval(row["difference"], sign=True),
            "dismissed": interval(row["dismissed"]),
            "share": interval(row["share"]),
        }
        for test, about in tests.items()
        for condition, row in about["conditions"].items()
    ]


def error_rows(tests: dict[str, Any]) -> list[dict[str, str]]:
    """Formatted rows, test x scope."""
    rows = []
    for test, about in tests.items():
        for scope, row in about["errors"].items():
            n_used = row["used_wrong"] + row["used_right"]
            n_unused = row["unused_wrong"] + row["unused_right"]
            rows.append(
                {
                    "test": test,
                    "scope": scope,
                    "wrong_used": f"{row['used_wrong']:,} of {n_used:,}",
                    "wrong_unused": f"{row['unused_wrong']:,} of {n_unused:,}",
                    "n_unparsed": f"{row['n_unparsed']:,}",
                    "pooled": ratio(row["pooled"]),
                    "p": p_value(row["pooled"]["p"]),
                    "n_items": f"{row['pooled'].get('n_items', 0):,}",
                    "crude": ratio(row["crude"]) + ("*" if row["crude"]["corrected"] else ""),
                    "paired": interval(row["paired"], sign=True),
                }
            )
    return rows


def notes(tests: dict[str, Any]) -> list[str]:
    """Why figures are missing, a sentence per figure and reason."""
    names = {
        "pooled": "Odds ratio within items",
        "crude": "Crude odds ratio",
        "paired": "Difference",
    }
    places: dict[tuple[str, str], list[str]] = {}
    for test, about in tests.items():
        for scope, row in about["errors"].items():
            for key, name in names.items():
                if note := row[key]["note"]:
                    places.setdefault((name, note), []).append(f"{test} / {scope}")
    return [f"{name}: {note} ({', '.join(where)})." for (name, note), where in places.items()]


def trace_table(content: dict[str, Any]) -> str:
    """The two tables, aligned to be read as plain text too."""
    tests = content["tests"]
    return "\n\n".join(
        [
            markdown_table(use_rows(tests), USE_COLUMNS, left=2),
            markdown_table(error_rows(tests), ERROR_COLUMNS, left=2),
        ]
    )


def judge_lines(content: dict[str, Any]) -> list[str]:
    """One sentence per judge."""
    return [
        f"Judge {judge['judge']}: {count(judge['n'], 'verdict')}, of them "
        f"{judge['n_unreadable']:,} unreadable; equal to the detector in "
        f"{interval(judge['equal'])} % of the others, Cohen's kappa "
        f"{coefficient_interval(judge['kappa'])}"
        + (f" ({judge['kappa']['note']})" if judge["kappa"]["note"] else "")
        + "."
        for judge in content["judges"]
    ]


# -- examples ------------------------------------------------------------------------------------


def examples(traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """Up to EXAMPLES traces per class, of different items and users where there are such."""
    rows = []
    for label in LABELS:
        chosen: list[Trace] = []
        pool = [trace for trace in traces if trace.reading.label == label and trace.text]
        while pool and len(chosen) < EXAMPLES:
            pool.sort(key=lambda trace: sum(_alike(trace, other) for other in chosen))
            chosen.append(pool.pop(0))
        for trace in chosen:
            text, facts = quote(trace)
            rows.append(
                {
                    "label": label,
                    "test": trace.test,
                    "question_id": trace.question_id,
                    "persona_id": trace.persona_id,
                    "answer": _answer(trace),
                    "facts": facts,
                    "quote": text,
                }
            )
    return rows


def _answer(trace: Trace) -> str:
    if not trace.parsed:
        return "unparsed"
    return "right" if trace.correct else "wrong"


def _alike(left: Trace, right: Trace) -> int:
    return 2 * (left.question_id == right.question_id) + (left.persona_id == right.persona_id)


def quote(trace: Trace) -> tuple[str, list[str]]:
    """A trace's deciding sentence with its mentions in [[ ]], and these mentions.

    Without a mention it is the text's beginning.
    """
    mentions = trace.reading.mentions
    if not mentions:
        return _shortened(trace.text), []
    if trace.reading.label == USED:
        mentions = tuple(mention for mention in mentions if not mention.dismissed)
    start, end = sentence_span(trace.text, mentions[0].start)
    marked, at, facts = "", start, []
    for mention in mentions:
        if mention.start >= at and mention.end <= end:
            fact = trace.text[mention.start : mention.end]
            marked += f"{trace.text[at : mention.start]}[[{fact}]]"
            at = mention.end
            facts.append(fact)
    return _shortened(marked + trace.text[at:end]), facts


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[:LONGEST] + " …"


def code(text: str) -> str:
    """Foreign text as a Markdown code span, in which nothing acts."""
    line = "".join(c for c in " ".join(text.split()) if c.isprintable())
    fence = "`"
    while fence in line:
        fence += "`"
    return f"{fence} {line} {fence}"


# -- the report ----------------------------------------------------------------------------------


def traces_view(content: dict[str, Any]) -> dict[str, Any]:
    """Everything that traces.md says, formatted."""
    tests = content["tests"]
    return {
        "model": content["model"],
        "level": f"{content['level']:.0%}",
        "use": use_rows(tests),
        "use_columns": USE_COLUMNS,
        "errors": error_rows(tests),
        "error_columns": ERROR_COLUMNS,
        "personas": PERSONAS,
        "corrected": any(
            row["crude"]["corrected"] for test in tests.values() for row in test["errors"].values()
        ),
        "notes": notes(tests),
        "judges": list(zip(judge_lines(content), map(_judged, content["judges"]), strict=True)),
        "judge_columns": [
            ("judge", "Judge says"),
            *((name, f"detector: {name}") for name in LABELS),
        ],
        "examples": [
            (
                "none of both" if label == UNUSED else label,
                [
                    example | {"code": code(example["quote"])}
                    for example in content["examples"]
                    if example["label"] == label
                ],
            )
            for label in LABELS
        ],
    }


def _judged(judge: dict[str, Any]) -> list[dict[str, str]]:
    """How often judge and detector say what."""
    return [
        {"judge": label} | {name: f"{n:,}" for name, n in zip(LABELS, counts, strict=True)}
        for label, counts in zip(LABELS, judge["table"], strict=True)
    ]


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
    templates = {"traces.md": "traces.md.jinja"}
    write_reports(out, "unswayed.report", traces_view(content), templates, {"traces.json": text})
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
