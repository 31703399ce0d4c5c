"""`traces.md`: the figures as tables and sentences, with examples quoted so that nothing acts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unswayed.audit.rundir import model_name, read_answers, read_run
from unswayed.audit.summary import check_answers
from unswayed.audit.traces import judge as judging
from unswayed.audit.traces.analysis import PERSONAS, Trace, figures, read_traces
from unswayed.audit.traces.detector import LABELS, UNUSED, USED, sentence_span
from unswayed.core.errors import InputError
from unswayed.core.files import write_text
from unswayed.display.numbers import (
    MISSING,
    coefficient_interval,
    count,
    interval,
    markdown_table,
    markdown_text,
    p_value,
    percent,
)
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
        for test, found in tests.items()
        for condition, row in found["conditions"].items()
    ]


def error_rows(tests: dict[str, Any]) -> list[dict[str, str]]:
    """Formatted rows, test x scope."""
    rows = []
    for test, found in tests.items():
        for scope, row in found["errors"].items():
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
    for test, found in tests.items():
        for scope, row in found["errors"].items():
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
        f"Judge {found['judge']}: {count(found['n'], 'verdict')}, of them "
        f"{found['n_unreadable']:,} unreadable; equal to the detector in "
        f"{interval(found['equal'])} % of the others, Cohen's kappa "
        f"{coefficient_interval(found['kappa'])}"
        + (f" ({found['kappa']['note']})" if found["kappa"]["note"] else "")
        + "."
        for found in content["judges"]
    ]


# -- examples ------------------------------------------------------------------------------------


def examples(traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """Up to EXAMPLES traces per class, of different items and users where there are such."""
    found = []
    for label in LABELS:
        shown: list[Trace] = []
        pool = [trace for trace in traces if trace.reading.label == label and trace.text]
        while pool and len(shown) < EXAMPLES:
            pool.sort(key=lambda trace: sum(_alike(trace, other) for other in shown))
            shown.append(pool.pop(0))
        for trace in shown:
            text, facts = quote(trace)
            found.append(
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
    return found


def _answer(trace: Trace) -> str:
    if not trace.parsed:
        return "unparsed"
    return "right" if trace.correct else "wrong"


def _alike(one: Trace, other: Trace) -> int:
    return 2 * (one.question_id == other.question_id) + (one.persona_id == other.persona_id)


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


# -- the page ------------------------------------------------------------------------------------

INTRO = (
    "Each text that the model wrote with a memory in its prompt (a *trace*, its thinking included) "
    "was searched for *facts*: words of the memory that stand neither in the question nor in the "
    "options. A trace **uses** the memory if it brings up a fact, or the user's background in "
    "general, and lets it stand. It **dismisses** the memory if it brings it up only to call it "
    "irrelevant or to deny it. All other traces do **none** of both."
)
USE_TEXT = (
    "Words also coincide by chance. So the same facts were looked for in the trace to the same "
    "item without memory, which cannot have known them: what is found there is *by chance*, and "
    "what the memory adds is *beyond chance*. *Facts mentioned* is the average share of a "
    "memory's facts that a trace mentions. *Words* is the median length of a trace; an answer of "
    "two words is no reasoning, and can use nothing."
)
ERROR_TEXT = (
    "An odds ratio above 1 means: traces that use the memory are more often wrong. The one *within "
    "items* compares users on the same item (Mantel-Haenszel; test of Cochran, Mantel and "
    "Haenszel); only items that have traces of both kinds and answers of both kinds tell anything. "
    "The crude one throws all items together, and with it items that are hard and invite talk "
    "about the user. *Difference* is the share of wrong answers among traces that use the memory "
    "minus that among the others, averaged over items. Unparsed answers are left out here."
)
LIMITS = (
    "The detector reads words, not meaning, and English only. It misses paraphrases and "
    'conclusions ("well off"), takes a word that happens to coincide for a mention, and a trace '
    "that repeats the memory and then ignores it counts as using it. That a trace speaks of the "
    "user does not show that the answer depends on it, nor does silence show the contrary: written "
    "reasoning need not be what decided. And use with error is an association: a difficult "
    "question may bring about both. How often the detector is right on labelled examples stands in "
    "its documentation (docs/traces.md)."
)


def markdown(content: dict[str, Any]) -> str:
    """The whole page."""
    tests, level = content["tests"], f"{content['level']:.0%}"
    blocks = [
        f"# Traces of {markdown_text(content['model'])}",
        INTRO,
        "## Do the traces use the memory?",
        f"{USE_TEXT} Shares in percent with {level} intervals, for items and users as crossed "
        "clusters.",
        markdown_table(use_rows(tests), USE_COLUMNS, left=2),
        "## Are traces that use it wrong more often?",
        ERROR_TEXT + f" *{PERSONAS}* is all users but those of the neutral memory.",
        markdown_table(error_rows(tests), ERROR_COLUMNS, left=2),
    ]
    if any(row["crude"]["corrected"] for t in tests.values() for row in t["errors"].values()):
        blocks.append("\\* A cell is empty: 1/2 was added to each (Haldane-Anscombe).")
    if lines := notes(tests):
        blocks.append("\n".join(f"- {markdown_text(line)}" for line in lines))
    blocks += ["## A second reader", *_judges(content)]
    blocks += ["## Examples", "What was found is marked [[so]].", *_examples(content["examples"])]
    blocks += ["## Limits", LIMITS]
    return "\n\n".join(blocks) + "\n"


def _judges(content: dict[str, Any]) -> Iterable[str]:
    if not content["judges"]:
        yield "No language model was asked to judge the traces (--judge-url, --judge-model)."
    lines = judge_lines(content)
    for line, found in zip(lines, content["judges"], strict=True):
        yield markdown_text(line)
        rows = [
            {"judge": label} | {name: f"{n:,}" for name, n in zip(LABELS, counts, strict=True)}
            for label, counts in zip(LABELS, found["table"], strict=True)
        ]
        columns = [("judge", "Judge says"), *((label, f"detector: {label}") for label in LABELS)]
        yield markdown_table(rows, columns, left=1)


def _examples(shown: list[dict[str, Any]]) -> Iterable[str]:
    for label in LABELS:
        lines = [
            f"- {markdown_text(found['persona_id'])}, item {markdown_text(found['question_id'])}, "
            f"{found['answer']}: {code(found['quote'])}"
            for found in shown
            if found["label"] == label
        ]
        name = "none of both" if label == UNUSED else label
        yield f"**{name}**"
        yield "\n".join(lines) if lines else "No trace."


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
