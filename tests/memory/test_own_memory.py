"""A mechanism from outside the package: the example of docs/memories.md, audited with."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from unswayed.audit.rundir import read_answers, read_run
from unswayed.cli import main
from unswayed.core.errors import InputError
from unswayed.data.personas import builtin_personas
from unswayed.memory.registry import MECHANISMS, describe, find_mechanism

NAME = "last_words:MECHANISM"


@pytest.fixture
def example(tmp_path, monkeypatch) -> str:
    """The code of the documentation, where Python finds it."""
    page = (Path(__file__).parents[2] / "docs" / "memories.md").read_text("utf-8")
    section = page.split("## Your own memory in 40 lines\n")[1]
    (code,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    (tmp_path / "last_words.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield code
    sys.modules.pop("last_words", None)
    find_mechanism.cache_clear()


def test_the_example_is_audited_with(example, chat_model, items_file, tmp_path, capfd):
    assert len([line for line in example.splitlines() if line]) <= 40
    out = tmp_path / "run"
    audit = ["audit", "--model", str(chat_model), "--items", f"mine={items_file}", "--pairs", "1"]
    audit += ["--memory", NAME, "--out", str(out)]
    assert main(audit) == 0
    personas = {persona.id: persona for persona in builtin_personas()}
    rows = read_answers(out).to_pylist()
    assert len(rows) == 3 * (1 + 3)
    for row in rows:
        if row["condition"] == "none":
            assert (row["memory"], row["system_prompt"]) == ("none", None)
            continue
        said = [text for _, text in personas[row["persona_id"]].texts(first_person=True)]
        assert (row["memory"], row["memory_style"]) == (NAME, "last-2")
        assert row["system_prompt"] == f"The user said: {said[-2]} {said[-1]}\n"
        assert row["system_prompt"] in row["prompt"]
    for page in ("report.md", "report.html"):
        text = (out / page).read_text("utf-8")
        assert re.search("the user(&#39;|')s last words, in the style last-2[.]", text)

    identity = read_run(out)["identity"]
    assert (identity["memory"], identity["memory_style"]) == (NAME, "last-2")
    assert main([*audit, "--resume"]) == 0
    capfd.readouterr()
    assert main([*audit, "--resume", "--memory-style", "last-1"]) == 2
    assert "a different run (its memory_style differ)" in capfd.readouterr().err
    assert main([*audit, "--resume", "--memory-style", "first-1"]) == 2
    assert "'first-1' is not of the form last-K" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("elephant", "is not one of prompt, retrieval, plum, gated, logo"),
        ("no_such_module:MECHANISM", "cannot be imported"),
        ("unswayed.memory.prompt:NOTHING", "cannot be imported"),
        ("unswayed.memory.prompt:STYLES", "is no unswayed.memory.registry.Mechanism"),
    ],
)
def test_what_is_no_mechanism_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        find_mechanism(name)


def test_each_mechanism_says_what_it_is():
    for name in MECHANISMS:
        mechanism = find_mechanism(name)
        sentence = describe(name, mechanism.default_style)
        assert sentence.startswith(f"The memory mechanism was {name}"), name
        assert sentence.endswith("."), name
    assert describe("no_such_module:M", "s").endswith("in the style s: see its documentation.")
