"""A gate as a checklist: Markdown for readers, JUnit XML for pipelines."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from unswayed.audit.evidence import Summary
from unswayed.audit.gate import (
    CANNOT_TELL,
    FAIL,
    OUTCOMES,
    PASS,
    Check,
    judge,
    outcome,
    reject_foreign,
)
from unswayed.audit.policy import Policy, check_endpoints, policy_of
from unswayed.audit.rundir import model_name, read_answers, read_run
from unswayed.audit.summary import condition_groups, summarize
from unswayed.core.files import write_text
from unswayed.display.numbers import count
from unswayed.display.page import render_report
from unswayed.memory.registry import describe
from unswayed.report.methods import facts

CHECKLIST, JUNIT = "checklist.md", "checklist.xml"


def check_run(out: Path, policy_spec: str | None = None) -> tuple[list[Check], Summary]:
    """Judge a complete run and write its checklist.md and checklist.xml.

    Args:
        policy_spec: name or file; None: the policy that the run declared.

    Returns:
        the checks, and the summary that they are read off.

    Raises:
        InputError: `out` is no complete run, its files do not belong together, or the policy has a
            fault or declares what the run lacks. What an earlier check wrote stays.
    """
    run, answers = read_run(out), read_answers(out).to_pandas()
    policy, declared = policy_of(run, policy_spec, out)
    reject_foreign(out, run, answers)
    if policy_spec is not None:
        check_endpoints(policy, list(answers["test"].unique()), condition_groups(answers))
    summary = summarize(answers, policy, declared, run["identity"]["seed"])
    checks = judge(policy, summary)
    texts = {
        CHECKLIST: checklist(run, answers, summary, checks),
        JUNIT: junit(policy, run, summary, checks),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return checks, summary


def tally(checks: Sequence[Check]) -> str:
    """The outcome in a line: "Cannot tell: 8 checks pass, 0 fail, 4 cannot be told"."""
    n = {state: sum(check.state == state for check in checks) for state in OUTCOMES}
    return (
        f"{OUTCOMES[outcome(checks)]}: of {count(len(checks), 'check')}, {n[PASS]} pass, "
        f"{n[FAIL]} fail and {n[CANNOT_TELL]} cannot be told"
    )


def table(checks: Sequence[Check]) -> str:
    """The checks as aligned lines of plain text."""
    rows = [(c.state, " ".join(f"{c.test}: {c.name}".split()), c.evidence) for c in checks]
    width = max(len(row[1]) for row in rows)
    return "\n".join(f"{state:<11}  {name:<{width}}  {text}" for state, name, text in rows)


def checklist(
    run: dict[str, Any],
    answers: pd.DataFrame,
    summary: dict[str, Any],
    checks: Sequence[Check],
) -> str:
    """The pre-deployment checklist: measured lines ticked, lines for people left open."""
    memory = next((m for m in answers["memory"] if m != "none"), None)
    view = {
        "model": model_name(run, summary),
        "tally": tally(checks),
        "verdict": summary["verdict"],
        "passed": PASS,
        "tests": {
            test: [check for check in checks if check.test == test]
            for test in dict.fromkeys(check.test for check in checks)
        },
        "memory": describe(memory, summary["memory_style"]) if memory else "There was no memory.",
        "facts": facts(run, summary),
    }
    return render_report("unswayed.report", "checklist.md.jinja", view)


def junit(
    policy: Policy, run: dict[str, Any], summary: dict[str, Any], checks: Sequence[Check]
) -> str:
    """The checks as JUnit XML: a test suite per test.

    What cannot be told is an <error>: viewers show errors in red, and <skipped> as harmless.
    """
    root = ET.Element("testsuites", {"name": "unswayed check", **_counts(checks), "time": "0"})
    facts_of_run = {
        "model": model_name(run, summary),
        "revision": (run["model"] or {}).get("revision") or "",
        "policy": f"{policy.name} {policy.sha256}",
    }
    for test in dict.fromkeys(check.test for check in checks):
        part = [check for check in checks if check.test == test]
        counts = {"name": _xml(test), **_counts(part), "skipped": "0", "time": "0"}
        suite = ET.SubElement(root, "testsuite", counts | {"timestamp": run["finished"][:19]})
        properties = ET.SubElement(suite, "properties")
        for name, value in facts_of_run.items():
            ET.SubElement(properties, "property", {"name": name, "value": _xml(value)})
        for check in part:
            names = {"classname": f"unswayed.{_xml(test)}", "name": _xml(check.name), "time": "0"}
            case, text = ET.SubElement(suite, "testcase", names), _xml(check.evidence)
            if check.state == PASS:
                ET.SubElement(case, "system-out").text = text
            else:
                kind = "failure" if check.state == FAIL else "error"
                ET.SubElement(case, kind, {"message": text, "type": check.state}).text = text
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _counts(checks: Sequence[Check]) -> dict[str, str]:
    return {
        "tests": str(len(checks)),
        "failures": str(sum(check.state == FAIL for check in checks)),
        "errors": str(sum(check.state == CANNOT_TELL for check in checks)),
    }


def _xml(text: str) -> str:
    """Characters that XML 1.0 forbids, written as \\x1b and the like."""
    forbidden = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
    return re.sub(forbidden, lambda match: ascii(match[0])[1:-1], text)
