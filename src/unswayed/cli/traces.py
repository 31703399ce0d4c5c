"""`unswayed traces`: whether generated reasoning uses the persona."""

from __future__ import annotations

import argparse
from pathlib import Path

from unswayed.core.commands import OK


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "traces",
        help="does generated reasoning use the persona, and more so when it is wrong?",
        description="Writes DIR/traces.json and DIR/traces.md; see docs/traces.md. A judge's key "
        "is read from the environment: OPENAI_API_KEY, or HF_TOKEN for Hugging Face.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("dir", type=Path, metavar="DIR",
        help="run directory, audited with --scoring generate")  # fmt: skip
    parser.add_argument("--judge-url", metavar="URL",
        help="OpenAI-compatible endpoint of a model that reads traces too, such as "
        "http://localhost:8000/v1")  # fmt: skip
    parser.add_argument("--judge-model", metavar="NAME", help="that model's name there")
    parser.add_argument("--judge-sample", type=int, default=200, metavar="N",
        help="traces that the judge reads")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from unswayed.report.traces import analyse_traces, judge_lines, notes, trace_table

    content = analyse_traces(
        arguments.dir, arguments.judge_url, arguments.judge_model, arguments.judge_sample
    )
    print(trace_table(content))
    for line in [*notes(content["tests"]), *judge_lines(content)]:
        print(f"\n{line}")
    print(f"\nPage: {arguments.dir / 'traces.md'}")
    return OK
