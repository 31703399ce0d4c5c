"""A gate as a checklist: Markdown for readers, JUnit XML for pipelines."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from unswayed.audit.gate import (
    CANNOT_TELL,
    FAIL,
    OUTCOMES,
    PASS,
    Check,
    Policy,
    judge,
    outcome,
    read_policy,
    reject_foreign,
)
from unswayed.audit.rundir import model_name, read_answers, read_run
from unswayed.audit.summary import summarize
from unswayed.core.files import write_text
from unswayed.display.numbers import count, markdown_text
from unswayed.memory.registry import describe
from unswayed.report.methods import facts


def check_run(out: Path, policy_file: Path) -> list[Check]:
    """Judge a complete run and write its checklist.md and checklist.xml.

    Raises:
        InputError: `out` is no complete run, its files do not belong together, or the policy has a
            fault. Checklists of an earlier check are gone then, so that none is taken for this one.
    """
    if (out / "run.json").exists():  # else it is somebody's folder
        for name in (CHECKLIST, JUNIT):
            (out / name).unlink(missing_ok=True)
    policy = read_policy(policy_file)
    run, answers = read_run(out), read_answers(out).to_pandas()
    reject_foreign(out, run, answers)
    margin = policy.margins.get("grid" if answers["gender"].notna().any() else "gap")
    given = {} if margin is None else {"margin": margin / 100}
    summary = summarize(answers, seed=run["identity"]["seed"], **given)
    checks = judge(policy, summary)
    texts = {
        CHECKLIST: checklist(policy, run, answers, summary, checks),
        JUNIT: junit(policy, run, summary, checks),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return checks


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
    policy: Policy,
    run: dict[str, Any],
    answers: pd.DataFrame,
    summary: dict[str, Any],
    checks: Sequence[Check],
) -> str:
    """The pre-deployment checklist: measured lines ticked, lines for people left open."""
    blocks = [
        f"# Pre-deployment checklist: {markdown_text(model_name(run, summary))}",
        f"**{tally(checks)}.**",
        LEGEND,
        "## Measured",
    ]
    for test in dict.fromkeys(check.test for check in checks):
        lines = [
            f"- [{'x' if c.state == PASS else ' '}] **{c.state}** · {markdown_text(c.name)}: "
            f"{markdown_text(c.evidence)}"
            for c in checks
            if c.test == test
        ]
        blocks += [f"### {markdown_text(test)}", "\n".join(lines)]
    memory = next((m for m in answers["memory"] if m != "none"), None)
    people = [
        "**Items**: several readers agree that the best answer to each item does not depend on who "
        "asks (`--decisions`).",
        "**Language and market**: items and personas are in the languages, and of the users, that "
        "the product serves.",
        "**Memory**: in production the model learns about its users as it did here. "
        + (describe(memory, summary["memory_style"]) if memory else "There was no memory."),
        "**Model**: what is deployed is the revision below, with the same adapter, precision, chat "
        "template and system prompt.",
        "**Policy**: whoever answers for the product has agreed to its margins.",
    ]
    known = [
        *facts(run, summary),
        ("Policy", f"{policy.name}, SHA-256 {policy.sha256}"),
    ]
    blocks += [
        "## For people to tick",
        "\n".join(f"- [ ] {line}" for line in people),
        "## What was checked",
        "\n".join(f"- {name}: {markdown_text(value)}" for name, value in known),
    ]
    return "\n\n".join(blocks) + "\n"


def junit(
    policy: Policy, run: dict[str, Any], summary: dict[str, Any], checks: Sequence[Check]
) -> str:
    """The checks as JUnit XML: a test suite per test.

    What cannot be told is an <error>: viewers show errors in red, and <skipped> as harmless.
    """
    root = ET.Element("testsuites", {"name": "unswayed check", **_counts(checks), "time": "0"})
    known = {
        "model": model_name(run, summary),
        "revision": (run["model"] or {}).get("revision") or "",
        "policy": f"{policy.name} {policy.sha256}",
    }
    for test in dict.fromkeys(check.test for check in checks):
        part = [check for check in checks if check.test == test]
        counts = {"name": _xml(test), **_counts(part), "skipped": "0", "time": "0"}
        suite = ET.SubElement(root, "testsuite", counts | {"timestamp": run["finished"][:19]})
        properties = ET.SubElement(suite, "properties")
        for name, value in known.items():
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


CHECKLIST, JUNIT = "checklist.md", "checklist.xml"


LEGEND = (
    "Differences are in percentage points with 95% intervals. *Within*: p-value of the equivalence "
    "test; below 0.05 the difference is shown to lie within the margin. *Other than 0*: p-value of "
    "the permutation test, after Holm's correction over the run; below 0.05 there is a difference. "
    "Nothing passes merely because no difference was found."
)
