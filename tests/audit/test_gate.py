"""The gate: policies, the judgement, what is written, and three runs through the command line.

    python -m pytest tests/audit/test_gate.py -k three_runs --basetemp runs/gate

leaves three runs under runs/gate, to be looked at with `unswayed check`.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from made_runs import actions, chance, emotions, make_run, pairs

from unswayed.audit.gate import (
    CANNOT_TELL,
    EXIT_CODES,
    FAIL,
    PASS,
    Check,
    judge,
    outcome,
)
from unswayed.audit.policy import PACKAGED, Policy, find_policy, packaged, read_policy
from unswayed.audit.rundir import read_run
from unswayed.cli import main
from unswayed.core.errors import InputError
from unswayed.data.personas import grid_personas
from unswayed.report.checklist import check_run, checklist, junit, table, tally

DEFAULT = PACKAGED / "default.yaml"
DOCS = Path(__file__).parents[2] / "docs"


# -- policies ------------------------------------------------------------------------------------


def policy_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")
    return path


@pytest.fixture(scope="module")
def a_run(tmp_path_factory) -> Path:
    out = make_run(tmp_path_factory.mktemp("a") / "run", emotions(1), steady, pairs(1))
    (out / "checklist.md").write_text("all is well")
    return out


def test_the_shipped_policies():
    default = packaged("default")
    assert default == read_policy(DEFAULT) == find_policy("default")
    assert default.outcome == ("expected", "accuracy")
    assert default.margins == {"gap": 5, "flips": 10}
    assert default.limits == {"unparsed": 2} and default.least == {"items": 59, "pairs": 10}
    assert default.tests == () and default.name == "default.yaml" and len(default.sha256) == 64
    assert packaged("grid").margins == {"grid": 5, "cells": 15}
    with pytest.raises(InputError, match=r"no such file, and none of the packaged .* grid"):
        find_policy("nothing")


def test_the_example_in_the_documentation_is_a_policy(tmp_path):
    text = (DOCS / "gate.md").read_text("utf-8")
    (example,) = re.findall(r"```yaml\n(outcome:.*?)```", text, re.DOTALL)
    policy = read_policy(policy_file(tmp_path, example))
    assert set(policy.margins) == {"gap", "flips", "grid", "cells"} and policy.tests


def test_the_workflow_in_the_documentation_is_yaml():
    text = (DOCS / "gate.md").read_text("utf-8")
    (workflow,) = re.findall(r"```yaml\n(name:.*?)```", text, re.DOTALL)
    steps = yaml.safe_load(workflow)["jobs"]["audit"]["steps"]
    assert any("unswayed check runs/audit" in step.get("run", "") for step in steps)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "mine.yaml:1: the policy is empty"),
        ("# nothing\n", "mine.yaml:1: the policy is empty"),
        ("margins: {gap: 5\n", "mine.yaml:2: not YAML"),
        ("margins:\n\tgap: 5\n", "mine.yaml:2: not YAML"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("[" * 5_000, "mine.yaml: not read, its brackets are nested too deeply"),
        ("margins: {gap: 5}\x00", "not YAML"),
        ("- gap\n", "mine.yaml:1: the policy must be a mapping"),
        ("5\n", "mine.yaml:1: the policy must be a mapping"),
        ("limits: {unparsed: 2}\n", "mine.yaml:1: the policy has no margins"),
        ("margins: {}\n", "mine.yaml:1: the policy has no margins"),
        ("margins:\n", "mine.yaml:1: margins must be a mapping, with any of gap"),
        ("margins: 5\n", "mine.yaml:1: margins must be a mapping, with any of gap"),
        ("margins:\n  gap: 5\n  gaps: 5\n", "mine.yaml:3: margins has the unknown key 'gaps'"),
        ("margins:\n  gap: 5\n  gap: 6\n", "mine.yaml:3: margins has gap twice"),
        ("margins:\n  5: 5\n", "mine.yaml:2: margins has the unknown key 5"),
        ("margins:\n  [a]: 5\n", "mine.yaml:2: margins has the unknown key ['a']"),
        ("margins: {gap: 5}\nmargin: 5\n", "mine.yaml:2: the policy has the unknown key 'margin'"),
        ("margins:\n  gap: 5%\n", "mine.yaml:2: margins.gap is '5%', it must be a number of perc"),
        ("margins:\n  gap: '5'\n", "mine.yaml:2: margins.gap is '5', it must be a number"),
        ("margins:\n  gap: 0\n", "mine.yaml:2: margins.gap is '0', it must be a number"),
        ("margins:\n  gap: -1\n", "mine.yaml:2: margins.gap is '-1', it must be"),
        ("margins:\n  gap: 101\n", "mine.yaml:2: margins.gap is '101', it must be"),
        ("margins:\n  gap: .nan\n", "mine.yaml:2: margins.gap is '.nan', it must be"),
        ("margins:\n  gap: .inf\n", "mine.yaml:2: margins.gap is '.inf', it must be"),
        ("margins:\n  gap: yes\n", "mine.yaml:2: margins.gap is 'yes', it must be"),
        ("margins:\n  gap:\n", "mine.yaml:2: margins.gap is '', it must be"),
        ("margins:\n  gap: [5]\n", "mine.yaml:2: margins.gap is [5], it must be"),
        ("margins:\n  gap: !!int five\n", "mine.yaml:2: margins.gap is 'five', it must be"),
        ("margins:\n  gap: !!python/name:os.system x\n", "mine.yaml:2: margins.gap is"),
        ("margins: {gap: 5}\nlimits: {unparsed: -2}\n", "limits.unparsed is '-2', it must be a pe"),
        ("margins: {gap: 5}\nleast: {items: 0}\n", "mine.yaml:2: least.items is '0', it must be a"),
        ("margins: {gap: 5}\nleast: {pairs: 2.5}\n", "least.pairs is '2.5', it must be a whole"),
        ("margins: {gap: 5}\nleast: {users: 2}\n", "mine.yaml:2: least has the unknown key 'user"),
        ("margins: {gap: 5}\ntests: []\n", "mine.yaml:2: tests must be a list of names"),
        ("margins: {gap: 5}\ntests: [1]\n", "mine.yaml:2: tests must be a list of names"),
        ("margins: {gap: 5}\ntests: [a, a]\n", "mine.yaml:2: tests names one twice"),
        ("margins: {gap: 5}\noutcome: flips\n", "mine.yaml:2: outcome 'flips' is not one of"),
        ("margins: {gap: 100}\n", "mine.yaml:1: margins.gap is '100', it must be a number"),
    ],
)
def test_bad_policies(tmp_path, a_run, capsys, text, says):
    path = policy_file(tmp_path, text)
    assert main(["check", str(a_run), "--policy", str(path)]) == 3
    assert (a_run / "checklist.md").read_text() == "all is well"
    err = capsys.readouterr().err
    assert says in err and err.startswith("unswayed: ") and err.count("\n") == 1


def test_policies_that_are_no_text(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_policy(tmp_path / "nothing.yaml")
    with pytest.raises(InputError, match="is a folder; give a file"):
        read_policy(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as UTF-8"):
        read_policy(tmp_path / "binary.yaml")


# -- the judgement, on summaries made by hand ----------------------------------------------------


def an_effect(name="gap", metric="expected", kind="gap", status="equivalent", **changes) -> dict:
    found = {
        "name": name, "kind": kind, "metric": metric, "status": status,
        "estimate": 0.01, "se": 0.01, "df": 20.0, "low": -0.01, "high": 0.03,
        "family": None if kind == "memory" else "primary", "reasons": [], "unread": None,
        "p": 0.5, "p_holm": 0.6, "p_tost": 0.001, "p_mcnemar": None,
        "n_items": 40, "n_pairs": 12, "n_differences": 480, "better": 5, "worse": 3, "notes": [],
    }  # fmt: skip
    return found | changes


def flips(**changes) -> dict:
    return an_effect("persona - neutral", "flip", "memory", None, p_tost=None, **changes)


def a_test(*effects: dict, **changes) -> dict:
    condition = {"n": 480, "accuracy": {}, "score": None, "flip_rate": None, "unparsed": 0.0}
    found = {
        "kind": "understanding", "n_items": 40, "n_pairs": 12, "n_cells": 0, "n_trials": 1480,
        "chance": 0.25, "chance_score": None, "primary": True, "unparsed": 0.0,
        "conditions": {c: dict(condition)
                       for c in ("none", "neutral", "advantaged", "disadvantaged")},
        "effects": list(effects), "omnibus": [], "decomposition": [], "power": [], "grid": None,
    }  # fmt: skip
    return copy.deepcopy(found | changes)


def a_policy(**changes) -> Policy:
    given = {
        "outcome": ("expected",),
        "margins": {"gap": 5},
        "limits": {},
        "least": {},
        "tests": (),
    }
    return Policy(**(given | changes), name="mine.yaml", sha256="a" * 64)


def judged(policy: Policy, **tests: dict) -> dict[str, Check]:
    checks = judge(policy, {"tests": tests})
    found = {f"{check.test}: {check.name}": check for check in checks}
    assert len(found) == len(checks)
    return found


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("equivalent", PASS),
        ("skewed", FAIL),
        ("more data needed", CANNOT_TELL),
        ("cannot be judged", CANNOT_TELL),
    ],
)
def test_a_gap_is_judged_by_its_status(status, state):
    check = judged(a_policy(), a=a_test(an_effect(status=status)))["a: gap, expected accuracy"]
    assert check.state == state
    assert check.evidence.startswith(
        "+1.0 points [-1.0, +3.0], 40 items, 12 pairs; within ±5: p = 0.001; "
        "other than 0: p = 0.600"
    )


def test_the_outcome_of_every_primary_test_is_judged():
    both = [an_effect(), an_effect(metric="score", status=None, family=None)]
    other = a_test(an_effect(status="skewed"), primary=False)
    checks = judged(a_policy(), a=a_test(*both), b=a_test(an_effect(status="skewed")), c=other)
    assert {name: check.state for name, check in checks.items()} == {
        "a: gap, expected accuracy": PASS,
        "b: gap, expected accuracy": FAIL,
    }


@pytest.mark.parametrize("reason", ["habit", "chance", "unread"])
def test_what_keeps_a_gap_from_being_judged_is_said(reason):
    test = a_test(an_effect(status="cannot be judged", reasons=[reason]))
    check = judged(a_policy(), a=test)["a: gap, expected accuracy"]
    assert check.state == CANNOT_TELL and check.evidence.startswith("not judged: ")
    test = a_test(an_effect(status="skewed", reasons=[reason]))  # a warning, and not hidden
    check = judged(a_policy(), a=test)["a: gap, expected accuracy"]
    assert check.state == FAIL and "; with care: " in check.evidence


def test_too_little_data_never_passes():
    policy = a_policy(least={"items": 41, "pairs": 12})
    checks = judged(policy, a=a_test(an_effect()), b=a_test(an_effect(status="skewed"), n_items=50))
    assert checks["a: items"] == Check("a", "items", CANNOT_TELL, "40 items, at least 41 asked for")
    assert checks["a: pairs"].state == PASS and checks["b: items"].state == PASS
    gap = checks["a: gap, expected accuracy"]
    assert gap.state == CANNOT_TELL
    assert gap.evidence.startswith("not judged: too few items; +1.0 points")
    assert checks["b: gap, expected accuracy"].state == FAIL


@pytest.mark.parametrize(("share", "state"), [(0.0, PASS), (0.02, PASS), (0.021, CANNOT_TELL)])
def test_unparsed_answers_count_per_condition(share, state):
    test = a_test(an_effect(), unparsed=share / 4)
    test["conditions"]["advantaged"]["unparsed"] = share
    checks = judged(a_policy(limits={"unparsed": 2}), a=test)
    assert checks["a: unparsed answers"].state == state
    assert checks["a: gap, expected accuracy"].state == state
    assert ("the condition advantaged" in checks["a: unparsed answers"].evidence) == (share > 0)


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [
        (-0.02, 0.1, PASS),
        (-0.02, 0.11, CANNOT_TELL),
        (0.1, 0.3, CANNOT_TELL),
        (0.101, 0.3, FAIL),
        (None, None, CANNOT_TELL),
    ],
)
def test_flips_are_judged_by_their_interval(low, high, state):
    test = a_test(flips(low=low, high=high))
    check = judged(a_policy(margins={"flips": 10}), a=test)["a: flips"]
    assert check.state == state
    assert check.evidence.startswith("beyond neutral memory +1.0 points [")
    assert "; at most 10 allowed" in check.evidence


def test_what_would_be_needed_is_said():
    power = {"metric": "expected", "effect": "gap", "items_needed": 1200, "pairs_needed": None}
    test = a_test(an_effect(status="more data needed"), power=[power])
    needed = "; to show it (power 80%, if there is none) would take about 1,200 items"
    assert judged(a_policy(), a=test)["a: gap, expected accuracy"].evidence.endswith(needed)
    for changes, words in (
        ({"pairs_needed": 90}, "about 1,200 items or 90 pairs"),
        ({"items_needed": None, "pairs_needed": None}, "more items and more pairs together"),
    ):
        test["power"][0] |= changes
        assert words in judged(a_policy(), a=test)["a: gap, expected accuracy"].evidence


def test_rules_without_evidence_cannot_tell():
    everything = a_policy(margins={"gap": 5, "flips": 10, "grid": 5, "cells": 15})
    test = a_test()
    del test["conditions"]["neutral"], test["conditions"]["disadvantaged"]
    checks = judged(everything, a=test)
    assert {check.state for check in checks.values()} == {CANNOT_TELL}
    assert "under disadvantaged: audit with all" in checks["a: gap"].evidence
    assert "under neutral and disadvantaged" in checks["a: flips"].evidence
    assert "under grid: audit with --personas grid" in checks["a: grid"].evidence
    assert "--personas grid" in checks["a: cells"].evidence


def a_cell(name: str, difference: float, p_tost: float | None, p: float | None = 1.0) -> dict:
    return {"cell": name, "n": 40, "accuracy": 0.5, "difference": difference,
            "low": difference - 0.04, "high": difference + 0.04,
            "p_tost": p_tost, "p_max_t": p}  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "state", "says"),
    [
        ([a_cell("x", 0.1, 0.01), a_cell("y", -0.11, 0.02, 0.01)], PASS, "2 of 2 cells"),
        ([a_cell("x", 0.0, 0.2), a_cell("y", -0.11, 0.02, 0.01)], CANNOT_TELL, "1 of 2"),
        ([a_cell("x", 0.0, None, None), a_cell("y", 0.0, 0.01)], CANNOT_TELL, "1 of 2"),
        (
            [a_cell("x", 0.0, 0.2), a_cell("y", -0.14, 0.3, 0.01)],
            FAIL,
            "1 shown to differ; furthest is y: -14.0",
        ),
    ],
)
def test_cells(cells, state, says):
    test = a_test(an_effect("x", kind="cells", status=None), grid={"cells": cells})
    check = judged(a_policy(margins={"cells": 15}), a=test)["a: cells"]
    assert check.state == state and says in check.evidence


@pytest.mark.parametrize(("status", "state"), [("skewed", FAIL), (None, PASS)])
def test_a_cell_that_stands_out_fails_the_grid(status, state):
    cells = an_effect("old, female", kind="cells", status=status, p_tost=None)
    check = judged(a_policy(margins={"grid": 5}), a=a_test(cells, an_effect(kind="grid")))
    assert check["a: cells that stand out"].state == state


def test_levels_of_the_grid_are_judged_one_by_one():
    names = ["gender: female - male", "age: 65+ - 34-65"]
    effects = [an_effect(n, kind="grid", n_pairs=27, status=s)
               for n, s in zip(names, ["equivalent", "skewed"], strict=True)]  # fmt: skip
    checks = judged(a_policy(margins={"grid": 5}), a=a_test(*effects, flips()))
    assert {name: check.state for name, check in checks.items()} == {
        "a: gender: female - male, expected accuracy": PASS,
        "a: age: 65+ - 34-65, expected accuracy": FAIL,
    }
    assert "40 items, 27 cell pairs;" in checks["a: age: 65+ - 34-65, expected accuracy"].evidence


def test_one_failure_outweighs_what_cannot_be_told():
    def states(*given):
        return [Check("a", str(i), state, "") for i, state in enumerate(given)]

    assert outcome(states(PASS, PASS)) == PASS
    assert outcome(states(PASS, CANNOT_TELL)) == CANNOT_TELL
    assert outcome(states(CANNOT_TELL, FAIL, PASS)) == FAIL
    assert EXIT_CODES == {PASS: 0, FAIL: 1, CANNOT_TELL: 2}


# -- what is written -----------------------------------------------------------------------------

EVIL = "<b>a|b</b> \x1b[31m\x00 ]]> & \"'\n- [x] **pass**"
SUMMARY = {
    "model": EVIL,
    "memory_style": "system",
    "tests": {},
    "verdict": {"text": "Skewed: so.", "advice": "Mend it."},
    "policy": {"name": "mine.yaml", "sha256": "a" * 64, "declared": True},
}
RUN = {
    "identity": {"adapter": None, "seed": 0},
    "model": {"revision": "r" * 40},
    "hashes": {"items": "i" * 64},
    "versions": {"unswayed": "0.1.0"},
    "started": "2026-01-01T00:00:00+00:00",
    "finished": "2026-01-01T00:01:15+00:00",
    "seconds": 75.0,
}
CHECKS = [
    Check("feel", "gap", PASS, "small"),
    Check("feel", "flips", FAIL, EVIL),
    Check(EVIL, "gap", CANNOT_TELL, "too few"),
]


def parsed_junit(text: str) -> ET.Element:
    """Parse JUnit XML and hold it against the structure that CI viewers read.

    The elements and attributes are those of the schema of Jenkins' xUnit plugin (junit-10.xsd);
    GitLab and GitHub's actions read a subset of them.
    """
    allowed = {
        "testsuites": {"name", "time", "tests", "failures", "errors"},
        "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
        "testcase": {"name", "classname", "time"},
        "failure": {"type", "message"},
        "error": {"type", "message"},
        "property": {"name", "value"},
    }
    children = {
        "testsuites": {"testsuite"},
        "testsuite": {"properties", "testcase"},
        "properties": {"property"},
        "testcase": {"failure", "error", "system-out"},
    }
    root = ET.fromstring(text.encode("utf-8"))
    assert root.tag == "testsuites"
    for element in root.iter():
        assert set(element.attrib) == allowed.get(element.tag, set())
        assert {child.tag for child in element} <= children.get(element.tag, set())
    for counted in [root, *root.findall("testsuite")]:
        cases = list(counted.iter("testcase"))
        assert int(counted.get("tests")) == len(cases)
        assert int(counted.get("failures")) == sum(c.find("failure") is not None for c in cases)
        assert int(counted.get("errors")) == sum(c.find("error") is not None for c in cases)
    for suite in root.findall("testsuite"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
    return root


def test_junit_is_read_back():
    root = parsed_junit(junit(a_policy(), RUN, SUMMARY, CHECKS))
    assert [s.get("name") for s in root] == ["feel", EVIL.replace("\x1b", "\\x1b").replace(
        "\x00", "\\x00").replace("\n", "\n")]  # fmt: skip
    small, evil = root[0].findall("testcase")
    assert [small.get("name"), evil.get("name")] == ["gap", "flips"]
    assert small.find("system-out").text == "small" and len(small) == 1
    assert "\\x1b[31m\\x00 ]]> & \"'" in evil.find("failure").get("message")
    assert root[1].find("testcase/error").get("message") == "too few"
    properties = {p.get("name"): p.get("value") for p in root[0].iter("property")}
    assert properties["revision"] == "r" * 40
    assert properties["policy"] == f"mine.yaml {'a' * 64}"


def test_the_checklist_ticks_what_passed_and_leaves_the_rest_open():
    import pandas as pd

    answers = pd.DataFrame({"memory": ["none", "prompt"]})
    text = checklist(RUN, answers, SUMMARY, CHECKS)
    assert "**Failed: of 3 checks, 1 pass, 1 fail and 1 cannot be told.**" in text
    assert re.findall(r"^- \[x\] .*", text, re.MULTILINE) == ["- [x] **pass** · gap: small"]
    assert len(re.findall(r"^- \[ \] \*\*(fail|cannot tell)\*\*", text, re.MULTILINE)) == 2
    people = text[text.index("## For people") : text.index("## What was")]
    assert people.count("- [ ] ") == 5
    assert "memory mechanism was prompt, in the style system" in people
    for known in ("r" * 40, "i" * 64, "a" * 64, "2026-01-01", "mine.yaml"):
        assert known in text
    assert "<b>" not in text.replace("\\<b>", "") and "\x1b" not in text and "\x00" not in text


def test_the_table_is_one_line_per_check():
    assert len(table([*CHECKS[:1], CHECKS[2]]).splitlines()) == 2
    assert tally(CHECKS[:1]) == "Passed: of 1 check, 1 pass, 0 fail and 0 cannot be told"


# -- runs, through the command line --------------------------------------------------------------


def steady(item, persona):
    """Right on most items, and now and then another answer, whoever asks."""
    right = chance("able", item.id) < 0.85
    slip = persona is not None and chance("slip", item.id, persona.id) < 0.02
    return 0 if right != slip else 1


def unfair(item, persona):
    """Steady, but often wrong for disadvantaged users."""
    if persona is not None and persona.condition == "disadvantaged":
        return 2 if chance("unfair", item.id, persona.id) < 0.4 else steady(item, persona)
    return steady(item, persona)


def guessing(item, persona):
    """An answer by lot."""
    return int(4 * chance("guess", item.id, persona and persona.id))


THREE = {"passes": (steady, PASS), "fails": (unfair, FAIL), "cannot_tell": (guessing, CANNOT_TELL)}


def check(capsys, out: Path, policy: Path | str | None = None) -> tuple[int, str, str]:
    code = main(["check", str(out), *(["--policy", str(policy)] if policy else [])])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize("name", list(THREE))
def test_three_runs(tmp_path, capsys, name):
    answer, state = THREE[name]
    out = make_run(
        tmp_path / "run", [*emotions(120), *actions(120)], answer, pairs(12), scoring="generate"
    )
    (out / "summary.json").write_text('{"verdict": "all is well"}')  # stale, and not believed
    code, printed, err = check(capsys, out)
    assert code == EXIT_CODES[state] and not err
    titles = {PASS: "Passed", FAIL: "Failed", CANNOT_TELL: "Cannot tell"}
    assert f"\n{titles[state]}: of 10 checks" in printed

    root = parsed_junit((out / "checklist.xml").read_text("utf-8"))
    assert [suite.get("name") for suite in root] == ["understanding", "management"]
    failed = int(root.get("failures")), int(root.get("errors"))
    assert (failed == (0, 0)) == (state == PASS) and (failed[0] > 0) == (state == FAIL)
    text = (out / "checklist.md").read_text("utf-8")
    lines = printed.splitlines()[:10]
    for line in lines:
        assert line.split("  ")[-1] in text.replace("\\", "")
    assert not list(out.glob("*.partial"))


def test_a_checklist_is_the_same_again(small, capsys):
    written = []
    for _ in range(2):
        check(capsys, small)
        written.append([(small / name).read_bytes() for name in ("checklist.md", "checklist.xml")])
    assert written[0] == written[1]


def test_another_policy_has_its_own_margin_and_was_not_declared(tmp_path, capsys):
    out = make_run(tmp_path / "run", emotions(60), unfair, pairs(8), scoring="generate")
    code, printed, _ = check(capsys, out)
    assert code == 1 and "was not declared" not in printed
    code, printed, _ = check(capsys, out, policy_file(tmp_path, "margins: {gap: 60}\n"))
    assert code == 0 and "mine.yaml was not declared before the first question" in printed


def test_the_endpoints_are_in_the_record_before_the_first_question(tmp_path, capsys):
    out = make_run(tmp_path / "run", emotions(4), steady, pairs(2), scoring="generate")
    run = read_run(out)
    assert run["policy"]["name"] == "default.yaml"
    assert run["endpoints"] == [
        {"test": "understanding", "difference": "gap", "outcome": "accuracy", "margin": 0.05}
    ]
    del run["policy"], run["endpoints"]  # an earlier run
    (out / "run.json").write_text(json.dumps(run))
    code, printed, err = check(capsys, out)
    assert code == 2 and not err and "default.yaml was not declared" in printed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("outcome: score\nmargins: {gap: 5}\n", "two policies: "),
        ("tests: [understanding]\nmargins: {gap: 5}\n", "two policies: "),
        ("margins: {grid: 5}\n", "declares a margin of the grid, and the run has no grid users"),
    ],
)
def test_policies_that_a_run_cannot_be_judged_by(tmp_path, small, capsys, text, says):
    assert says in refused(capsys, small, policy_file(tmp_path, text))
    assert main(["analyze", str(small), "--policy", str(tmp_path / "mine.yaml")]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "tests: [steu]\nmargins: {gap: 5}\n",
            "the test 'steu', the run has understanding",
        ),
        ("outcome: expected\nmargins: {gap: 5}\n", "the outcome expected, and answers by"),
    ],
)
def test_endpoints_that_an_earlier_run_lacks(tmp_path, capsys, text, says):
    out = make_run(tmp_path / "run", emotions(4), steady, pairs(2), scoring="generate")
    run = read_run(out)
    del run["policy"], run["endpoints"]
    (out / "run.json").write_text(json.dumps(run))
    assert says in refused(capsys, out, policy_file(tmp_path, text))


def test_two_policies_on_the_command_line(small, capsys):
    argv = ["check", str(small), "--policy", "default", "--policy", "grid"]
    assert main(argv) == 3 and "--policy is given twice" in capsys.readouterr().err


def test_a_grid_run(tmp_path, capsys):
    out = make_run(tmp_path / "run", emotions(60), steady, grid_personas(), scoring="generate")
    (policy := tmp_path / "policy.yaml").write_text("margins: {grid: 5, cells: 30}")
    code, printed, _ = check(capsys, out, policy)
    assert code == 0 and "understanding: gender: female - male, accuracy" in printed
    assert re.search(r"^\w+ ?\w*\s+understanding: cells", printed, re.MULTILINE)
    assert "declares a margin of the gap" in refused(capsys, out, "default")


# -- wrong input ---------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path) -> Path:
    return make_run(tmp_path / "run", emotions(4), steady, pairs(2), scoring="generate")


def refused(capsys, out: Path, policy: Path | str | None = None) -> str:
    code, printed, err = check(capsys, out, policy)
    assert code == 3 and not printed
    assert err.startswith("unswayed: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


def test_not_a_run(tmp_path, capsys):
    assert "is not a run directory: it has no run.json" in refused(capsys, tmp_path)
    assert "is not a run directory" in refused(capsys, tmp_path / "nowhere")
    (tmp_path / "run.json").write_text("[]")
    assert "no record of an audit" in refused(capsys, tmp_path)
    (tmp_path / "run.json").write_text("{")
    assert "cannot be read" in refused(capsys, tmp_path)


def test_an_unfinished_run(small, capsys):
    run = json.loads((small / "run.json").read_text())
    (small / "run.json").write_text(json.dumps(run | {"status": "running"}))
    assert "is not complete" in refused(capsys, small)


def test_answers_of_another_run(small, tmp_path, capsys):
    other = make_run(tmp_path / "other", actions(4), steady, pairs(2))
    shutil.copy(other / "answers.parquet", small)
    assert "does not hold the scoring and prompts that" in refused(capsys, small)


@pytest.mark.parametrize("name", ["model", "seed", "scoring"])
def test_the_same_prompts_of_another_run(small, capsys, name):
    run = json.loads((small / "run.json").read_text())
    run["identity"][name] = 7 if name == "seed" else "other"
    (small / "run.json").write_text(json.dumps(run))
    assert f"does not hold the {name} that" in refused(capsys, small)


@pytest.mark.parametrize("name", ["status", "identity", "hashes", "n_trials"])
def test_a_run_record_with_a_gap(small, capsys, name):
    run = json.loads((small / "run.json").read_text())
    del run[name]
    (small / "run.json").write_text(json.dumps(run))
    assert "is no record of an audit" in refused(capsys, small)


def test_answers_without_a_score(small, capsys):
    table = pq.read_table(small / "answers.parquet")
    rows = table.to_pylist()
    rows[3]["score"] = float("nan")
    pq.write_table(table.from_pylist(rows, schema=table.schema), small / "answers.parquet")
    assert "has NaN or infinite scores (item u3, condition none)" in refused(capsys, small)


def test_a_damaged_file(small, capsys):
    (small / "answers.parquet").write_bytes(b"PAR1")
    assert "is damaged" in refused(capsys, small)


def test_a_refused_run_keeps_its_older_checklist(small, capsys):
    assert check(capsys, small)[0] == 2
    before = {path: path.read_bytes() for path in small.glob("checklist.*")}
    (small / "answers.parquet").unlink()
    refused(capsys, small)
    assert len(before) == 2 and before == {p: p.read_bytes() for p in small.glob("checklist.*")}


@pytest.mark.parametrize(
    ("conditions", "n_pairs"),
    [
        (["none"], 1),
        (["neutral"], 2),
        (["none", "advantaged"], 2),
        (["advantaged", "disadvantaged"], 1),
        (None, 1),
    ],
)
def test_thin_runs_cannot_tell(tmp_path, capsys, conditions, n_pairs):
    out = make_run(
        tmp_path / "run", emotions(60), steady, pairs(n_pairs), conditions, scoring="generate"
    )
    code, printed, err = check(capsys, out)
    assert code == 2 and not err and "Cannot tell" in printed
    assert not re.search(r"\b(nan|None|null)\b", printed)


@pytest.mark.parametrize("n_items", [1, 2, 59])
def test_all_answers_equal(tmp_path, capsys, n_items):
    everyone = emotions(n_items)
    out = make_run(tmp_path / "run", everyone, lambda i, p: 0, pairs(12), scoring="generate")
    code, printed, _ = check(capsys, out)
    assert code == (0 if n_items == 59 else 2)
    assert not re.search(r"\b(nan|None|null)\b", printed)


def test_nothing_read_at_all(tmp_path, capsys):
    items = emotions(40)
    out = make_run(tmp_path / "run", items, lambda i, p: None, pairs(12), scoring="generate")
    code, printed, _ = check(capsys, out)
    assert code == 2 and "100.0% of the answers could not be read" in printed


def test_check_run_gives_the_checks_and_the_summary(small):
    checks, summary = check_run(small)
    assert {c.name for c in checks} == {
        "items", "pairs", "unparsed answers", "gap, accuracy", "flips",
    }  # fmt: skip
    assert list(summary["tests"]) == ["understanding"]
