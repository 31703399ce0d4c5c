"""One model under several memories, from runs made by hand."""

from __future__ import annotations

import html as entities
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import actions, chance, emotions, make_run, pairs
from statsmodels.stats.multitest import multipletests

from unswayed.audit.effects import PERSONA
from unswayed.audit.summary import analyze
from unswayed.audit.trials import GRID_CONDITIONS, SCHEMA, add_flips
from unswayed.cli import main
from unswayed.compare.memories import compare_memories
from unswayed.compare.paired import BEYOND, GAP, HIGHER, LOWER, UNCLEAR, WITHIN, measured
from unswayed.core.files import write_json, write_table
from unswayed.data.items import Item
from unswayed.data.personas import Persona, grid_personas
from unswayed.report.comparisons import write_comparison
from unswayed.report.memories_page import headlines, key_table
from unswayed.statistics.crossed import crossed_mean, proportion

ITEMS = [*emotions(8), *actions(6)]
STYLES = {"prompt": "system", "retrieval": "bm25-3", "gated": "tfidf-95", "plum": ""}
Answer = Callable[[Item, Persona | None], int]


def model(name: str, flips: float = 0.3, gap: float = 0.0) -> Answer:
    """Right on three items in four without memory; a share flips, more for the disadvantaged."""

    def answer(item: Item, persona: Persona | None) -> int:
        bare = int(int(item.id[1:]) % 4 == 3)
        if persona is None:
            return bare
        more = gap if persona.condition == "disadvantaged" else 0.0
        return 3 if chance(name, item.id, persona.id) < flips + more else bare

    return answer


def made(out: Path, memory: str, answer: Answer | None = None, **changes: Any) -> Path:
    """An analyzed run under `memory`; `changes` are items, users, conditions, or of its record."""
    given_ = {name: changes.pop(name, None) for name in ("items", "users", "conditions")}
    answer = answer or model(memory)
    make_run(out, given_["items"] or ITEMS, answer, given_["users"] or pairs(4),
             given_["conditions"])  # fmt: skip
    style, analyzed = changes.pop("memory_style", STYLES[memory]), changes.pop("analyzed", True)
    run = json.loads((out / "run.json").read_text())
    run["model"] |= changes.pop("model", {})
    run["notes"] = changes.pop("notes", [])
    run["identity"] |= {"memory": memory, "memory_style": style} | changes
    write_json(out / "run.json", run)
    rows = pq.read_table(out / "answers.parquet").to_pylist()
    for row in rows:
        if row["persona_id"]:
            row |= {"memory": memory, "memory_style": style}
    write_table(rows, SCHEMA, out / "answers.parquet")
    if analyzed:
        analyze(out)
    return out


def rewritten(out: Path, change: Callable[[dict], dict]) -> Path:
    """The run with changed rows, analyzed again."""
    rows = pq.read_table(out / "answers.parquet").to_pylist()
    write_table(add_flips([row | change(row) for row in rows]), SCHEMA, out / "answers.parquet")
    analyze(out)
    return out


def figures(found: dict[str, Any]) -> dict[tuple, dict]:
    """(kind, test, memory, metric, name) -> row, whatever the order of runs."""
    return {
        (kind, test, row["memory"], row["metric"], row["name"]): row
        for test, about in found["tests"].items()
        for kind in ("levels", "differences")
        for row in about[kind]
    }


def shown(page: str) -> str:
    page = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(entities.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("four")
    return [
        made(folder / "prompt", "prompt", model("a", 0.3, 0.2), notes=["Said of all."]),
        made(folder / "bm25", "retrieval", model("b", 0.2), notes=["Said of all."]),
        made(folder / "gate", "gated", model("c", 0.05), notes=["Said of all.", "It opened."]),
        made(folder / "weights", "plum", model("d", 0.1), notes=["Said of all.", "It recalled."]),
    ]


@pytest.fixture(scope="module")
def compared(four) -> dict[str, Any]:
    return compare_memories(four)


# -- figures -------------------------------------------------------------------------------------


def test_figures_by_hand(four, compared):
    frames = {
        name: pq.read_table(path / "answers.parquet").to_pandas()
        for name, path in zip(STYLES, four, strict=True)
    }

    def table(memory: str, column: str, condition: str) -> np.ndarray:
        rows = frames[memory]
        rows = rows[(rows["test"] == "management") & (rows["condition"] == condition)]
        wide = rows.assign(value=rows[column].astype(float)).pivot_table(
            index="question_id", columns="pair_id", values="value"
        )
        return wide.to_numpy()

    def gap(memory: str, column: str) -> np.ndarray:
        return table(memory, column, "advantaged") - table(memory, column, "disadvantaged")

    def beyond(memory: str) -> np.ndarray:
        with_persona = table(memory, "flip", "advantaged") + table(memory, "flip", "disadvantaged")
        return with_persona / 2 - table(memory, "flip", "neutral")

    def over_items(values):  # four pairs speak of these users only
        return crossed_mean(values.mean(axis=1, keepdims=True))

    rows = figures(compared)
    for metric, name, of, share in [
        ("flip", "neutral", lambda m: table(m, "flip", "neutral"), True),
        ("accuracy", "advantaged", lambda m: table(m, "correct", "advantaged"), True),
        ("score", GAP, lambda m: gap(m, "score"), False),
        ("accuracy", GAP, lambda m: gap(m, "correct"), False),
        ("flip", BEYOND, beyond, False),
    ]:
        for memory in STYLES:
            row = rows["levels", "management", memory, metric, name]
            expected = proportion(of(memory)) if share else over_items(of(memory))
            assert row["estimate"] == pytest.approx(of(memory).mean())
            assert row["low"] == pytest.approx(max(expected.low, -1))
            assert (row["n"], row["n_items"], row["n_pairs"]) == (24, 6, 4)
            if memory == "prompt":
                continue
            row = rows["differences", "management", memory, metric, name]
            expected, limit = over_items(of(memory) - of("prompt")), 1 if share else 2
            assert row["estimate"] == pytest.approx(of(memory).mean() - of("prompt").mean())
            bounds = max(expected.low, -limit), min(expected.high, limit)
            assert (row["low"], row["high"]) == pytest.approx(bounds)
            assert row["n"] == 24
    assert (compared["reference"], compared["n_items"], compared["n_pairs"]) == ("prompt", 14, 4)
    # 5 accuracies, 5 scores (management) and 5 flips, of 3 memories
    assert compared["families"] == {"accuracy": 3 * 10, "score": 3 * 5, "flip": 3 * 10}


@pytest.mark.parametrize("metric", ["accuracy", "score", "flip"])
def test_differences_and_equivalences_are_corrected_within_each_metric(compared, metric):
    rows = [
        row
        for key, row in figures(compared).items()
        if key[0] == "differences" and key[3] == metric
    ]
    assert len(rows) == compared["families"][metric]
    for key, of, method in (
        ("p_holm", "p", "holm"),
        ("p_bh", "p", "fdr_bh"),
        ("p_equivalent_holm", "p_equivalent", "holm"),
    ):
        expected = multipletests([row[of] for row in rows], method=method)[1]
        assert [row[key] for row in rows] == pytest.approx(list(expected))


def test_equivalence_is_claimed_only_after_correction(tmp_path):
    """Twenty items and alike answers: some p below 0.05 alone, none of the ten after Holm."""
    given_ = {"items": emotions(60), "users": pairs(4)}
    dirs = [made(tmp_path / m, m, model("same"), margin=0.05, **given_) for m in ("prompt", "plum")]
    rows = [row for key, row in figures(compare_memories(dirs)).items() if key[0] == "differences"]
    assert all(row["p_equivalent"] < 0.05 < row["p_equivalent_holm"] for row in rows)
    assert {row["finding"] for row in rows} == {UNCLEAR}


def test_levels_are_those_of_each_run_s_own_summary(four, compared):
    rows = figures(compared)
    for memory, path in zip(STYLES, four, strict=True):
        tests = json.loads((path / "summary.json").read_text())["tests"]
        for test, about in tests.items():
            for condition, values in about["conditions"].items():
                row = rows["levels", test, memory, "accuracy", condition]
                own = values["accuracy"]
                assert (row["estimate"], row["low"]) == (own["estimate"], own["low"])
            gap = next(e for e in about["effects"] if (e["name"], e["metric"]) == (GAP, "accuracy"))
            row = rows["levels", test, memory, "accuracy", GAP]
            assert (row["estimate"], row["low"], row["high"]) == (
                gap["estimate"], gap["low"], gap["high"],
            )  # fmt: skip


def test_an_identical_copy_has_no_differences(tmp_path):
    dirs = [made(tmp_path / memory, memory, model("same")) for memory in ("prompt", "plum")]
    found = compare_memories(dirs)
    for test in found["tests"].values():
        for row in test["differences"]:
            assert (row["estimate"], row["p"], row["p_holm"]) == (0, 1, 1)
            assert row["low"] < 0 < row["high"] and row["finding"] in (UNCLEAR, WITHIN)
    assert [memory["n_bare_differing"] for memory in found["memories"]] == [0, 0]
    assert "10 comparisons" not in headlines(found)[-1]
    assert "Of 25 comparisons with prompt, 0 show a difference" in headlines(found)[-1]


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (1, 3, 0, 2)])
def test_the_order_of_runs_changes_no_figure(four, compared, order):
    found = compare_memories([four[i] for i in order])
    assert figures(found) == figures(compared)
    assert [m["name"] for m in found["memories"]] == [list(STYLES)[i] for i in order]


def test_swapped_reference_swaps_signs(four):
    one = figures(compare_memories(four[:2]))
    other = figures(compare_memories(four[:2], "retrieval"))
    for (kind, test, memory, *what), row in one.items():
        if kind == "differences":
            assert memory == "retrieval"
            mirrored = other[kind, test, "prompt", *what]
            assert row["estimate"] == pytest.approx(-mirrored["estimate"])
            assert row["low"] == pytest.approx(-mirrored["high"])
            assert (row["p"], row["p_holm"]) == (mirrored["p"], mirrored["p_holm"])


def test_only_common_users_are_compared(tmp_path):
    few = [made(tmp_path / f"few-{m}", m, users=pairs(3)) for m in ("prompt", "gated")]
    many = made(tmp_path / "many", "prompt", users=pairs(6))
    found = compare_memories([many, few[1]])
    assert figures(found) == figures(compare_memories(few))
    assert found["n_pairs"] == 3
    assert found["warnings"][0].startswith(
        "The runs asked about different numbers of persona pairs (6 under prompt and 3 under "
        "gated): only the 3 that all of them have are compared."
    )


def test_a_planted_difference_is_found_and_nothing_else(tmp_path):
    items, users = emotions(20), pairs(10)
    given_ = {"items": items, "users": users}
    dirs = [
        made(tmp_path / "1", "prompt", model("a", 0.1, 0.6), **given_),
        made(tmp_path / "2", "retrieval", model("b", 0.1, 0.6), **given_),
        made(tmp_path / "3", "plum", model("c", 0.1), **given_),
    ]
    rows = figures(compare_memories(dirs))
    for (kind, _, memory, metric, name), row in rows.items():
        if kind == "levels":
            continue
        if memory == "plum" and name in ("disadvantaged", PERSONA, GAP, BEYOND):
            lower = metric == "flip" or name == GAP
            assert row["finding"] == (LOWER if lower else HIGHER), (metric, name)
        else:
            assert row["finding"] in (UNCLEAR, WITHIN), (memory, metric, name)
    assert rows["differences", "understanding", "plum", "flip", "disadvantaged"]["high"] < -0.4


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_measured_values_lie_where_they_must(seed, unread):
    rng = np.random.default_rng(seed)
    users = [(None, None, "none")]
    users += [(f"p{j}-{c}", f"p{j}", c) for j in range(3)
              for c in ("neutral", "advantaged", "disadvantaged")]  # fmt: skip
    rows = pd.DataFrame(
        {
            "question_id": f"q{i}", "kind": "understanding", "persona_id": user, "pair_id": pair,
            "condition": condition, "correct": bool(rng.integers(2)), "score": 0.0,
            "flip": None if condition == "none" or (unread and rng.random() < 0.3)
            else bool(rng.integers(2)),
        }
        for i in range(4) for user, pair, condition in users
    )  # fmt: skip
    values = measured(rows)
    shuffled = measured(rows.sample(frac=1, random_state=seed % 1000))
    assert values.keys() == shuffled.keys()
    for (metric, name), matrix in values.items():
        np.testing.assert_array_equal(matrix, shuffled[metric, name])
        low = -1 if name in (GAP, BEYOND) else 0
        assert matrix.shape == (4, 1 if name == "none" else 3)
        assert ((matrix >= low) & (matrix <= 1) | np.isnan(matrix)).all()
    assert ("flip", "none") not in values and ("accuracy", "none") in values


# -- what the reader is told ---------------------------------------------------------------------


def test_answers_without_memory_that_differ_are_counted(tmp_path):
    dirs = [made(tmp_path / memory, memory) for memory in ("prompt", "plum")]

    def other(row: dict) -> dict:
        if row["persona_id"] is None and row["question_id"] in ("u0", "m1"):
            return {"answer": row["options"][2], "correct": False}
        return {}

    rewritten(dirs[1], other)
    found = compare_memories(dirs)
    assert [memory["n_bare_differing"] for memory in found["memories"]] == [0, 2]
    assert any(
        w.startswith("Without memory, the runs of plum and prompt differ in 2 of 14 answers")
        for w in found["warnings"]
    )


def test_unread_answers_are_counted_and_no_flips(tmp_path):
    dirs = [made(tmp_path / memory, memory) for memory in ("prompt", "plum")]
    nothing = {"answer": None, "parsed": False, "correct": False, "score": 0.0}
    rewritten(dirs[1], lambda row: nothing if row["persona_id"] == "p1-neutral" else {})
    found = compare_memories(dirs)
    assert "14 answers under plum could not be read" in found["warnings"][-1]
    row = figures(found)["differences", "understanding", "plum", "flip", "neutral"]
    assert (row["n"], row["n_pairs"]) == (8 * 3, 3)


def test_what_a_run_says_of_its_memory_is_carried_along(four, tmp_path):
    found = write_comparison("memories", four, tmp_path / "out")
    assert [memory["notes"][1:] for memory in found["memories"]] == [
        [], [], ["It opened."], ["It recalled."],
    ]  # fmt: skip
    text = shown((tmp_path / "out" / "compare.html").read_text("utf-8"))
    assert text.count("It opened.") == text.count("Said of all.") == 1


def test_styles_of_one_mechanism_have_names_of_their_own(four, tmp_path):
    ignore = made(tmp_path / "i", "prompt", memory_style="ignore")
    found = compare_memories([four[1], four[0], ignore])
    assert [m["name"] for m in found["memories"]] == ["retrieval", "prompt-system", "prompt-ignore"]
    assert found["reference"] == "retrieval"  # none is called prompt, so the first
    assert compare_memories([four[0], ignore], "prompt-ignore")["reference"] == "prompt-ignore"


def test_a_model_at_chance_is_said_to_be(tmp_path):
    def guess(item: Item, persona: Persona | None) -> int:
        return int(item.id[1:]) % 4

    dirs = [made(tmp_path / m, m, guess, items=emotions(8)) for m in ("prompt", "plum")]
    found = compare_memories(dirs)
    assert "not shown to do better than chance on understanding" in found["warnings"][0]


# -- the reports ---------------------------------------------------------------------------------


def test_reports_show_the_numbers_and_the_page_is_self_contained(four, tmp_path):
    out = tmp_path / "new" / "folder"
    found = write_comparison("memories", four, out)
    assert json.loads((out / "compare.json").read_text("utf-8")) == found
    page, markdown = ((out / f"compare.{kind}").read_text("utf-8") for kind in ("html", "md"))
    text = shown(page)
    for row in figures(found).values():
        assert f"{100 * row['estimate']:.1f}".lstrip("-") in text
    for memory in found["memories"]:
        assert memory["name"] in text and memory["name"] in markdown
    for content in (text, markdown, json.dumps(found, allow_nan=False)):
        assert not re.search(r"\b(nan|NaN|Infinity)\b", content)
    for content in (text, markdown):
        assert not re.search(r"\b(None|null)\b", content)
    assert key_table(found) in markdown
    assert page.count("<table") == page.count("<caption")
    for tag in re.findall(r"<th\b[^>]*>", page):
        assert "scope=" in tag
    assert page.count("<svg") > 50 and 'aria-label="Flips under gated: neutral memory' in page
    assert not re.search(r"\b(src|href|action|data)\s*=|url\(|@import|https?://", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert str(four[0].parent) not in page + markdown + json.dumps(found)


def test_the_same_runs_give_the_same_bytes(four, tmp_path):
    for name in "ab":
        write_comparison("memories", four, tmp_path / name)
    for file in ("compare.json", "compare.md", "compare.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    "conditions, words",
    [
        (["advantaged", "disadvantaged"], "Flips cannot be told, since nothing was asked without"),
        (["none", "neutral"], "The runs lack advantaged or disadvantaged users"),
    ],
)
def test_runs_with_fewer_conditions(tmp_path, conditions, words):
    dirs = [made(tmp_path / m, m, conditions=conditions) for m in ("prompt", "plum")]
    write_comparison("memories", dirs, tmp_path / "out")
    text = shown((tmp_path / "out" / "compare.html").read_text("utf-8"))
    assert words in text and not re.search(r"\b(nan|NaN|None|null)\b", text)
    assert (tmp_path / "out" / "compare.md").exists()


# -- the command ---------------------------------------------------------------------------------


def refusal(capsys, *argv: object) -> str:
    """The one line that the command ends with."""
    assert main(["compare", *map(str, argv)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("unswayed: ") and err.count("\n") == 1, err
    return err.removeprefix("unswayed: ").rstrip("\n")


def test_the_command_prints_the_key_figures(four, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", *map(str, four), "--out", str(out), "--reference", "gated"]) == 0
    said = capsys.readouterr().out
    found = json.loads((out / "compare.json").read_text("utf-8"))
    assert key_table(found) in said and f"Report: {out / 'compare.html'}" in said
    assert "comparisons with gated" in said


def test_what_is_refused(four, tmp_path, capsys):
    prompt, out = four[0], ("--out", tmp_path / "out")
    ways = "Compare runs of one model with the same settings"
    assert refusal(capsys, prompt, *out) == (
        "1 run directory given: a comparison needs two or more"
    )
    assert refusal(capsys, *four, *out, "--reference", "logo") == (
        "--reference logo is none of these runs' memories, which are prompt, retrieval, gated and "
        "plum"
    )
    twin = made(tmp_path / "twin", "prompt", analyzed=False)
    assert refusal(capsys, prompt, twin, *out) == (
        f"{prompt} and {twin} have the same memory, prompt in the style system: leave one out"
    )
    seed = made(tmp_path / "seed", "plum", seed=1, scoring="letter", analyzed=False)
    assert refusal(capsys, prompt, seed, *out) == (
        f"{prompt} and {seed} differ in more than the memory: scoring option against letter; seed "
        f"0 against 1. {ways}"
    )
    half = made(
        tmp_path / "half", "plum", model={"dtype": "bfloat16", "revision": "0" * 40}, analyzed=False
    )
    assert refusal(capsys, prompt, half, *out) == (
        f"{prompt} and {half} differ in more than the memory: dtype float32 against bfloat16; "
        f"weights rrrrrrrr against 00000000. {ways}"
    )
    items = made(tmp_path / "items", "plum", items=ITEMS[1:], analyzed=False)
    assert refusal(capsys, prompt, items, *out) == (
        f"{prompt} and {items} did not ask the same: items differ (14 against 13; u0 is only in "
        "the first). Compare runs of the same items, conditions and personas"
    )
    grid = [
        made(tmp_path / f"grid-{m}", m, items=emotions(3), users=grid_personas(),
             conditions=GRID_CONDITIONS, analyzed=False)
        for m in ("prompt", "gated")
    ]  # fmt: skip
    assert refusal(capsys, *grid, *out) == (
        f"{grid[0]} and {grid[1]} have 0 persona pairs in common (cells of the grid are none): a "
        "comparison needs two or more"
    )
    assert not (tmp_path / "out").exists()
    file = tmp_path / "file"
    file.write_text("mine")
    assert refusal(capsys, *four, "--out", file) == f"--out {file} is a file; give a folder"
    assert file.read_text() == "mine"


def test_users_of_other_files_are_refused(four, tmp_path, capsys):
    other = made(tmp_path / "other", "plum", users=pairs(3))
    run = json.loads((other / "run.json").read_text())
    run["arguments"]["personas"] = "mine.yaml"
    write_json(other / "run.json", run)
    assert refusal(capsys, four[0], other, "--out", tmp_path / "out") == (
        f"{four[0]} and {other} asked about other users of different sources (built-in and "
        "mine.yaml): equal names need not be equal users. Audit with the same --personas"
    )


def test_same_users_with_other_texts_are_refused(four, tmp_path, capsys):
    users = [Persona(p.id, p.condition, p.pair_id, (("about", "else"),)) for p in pairs(4)]
    other = made(tmp_path / "other", "plum", users=users)
    assert "their personas have the same names but other texts" in refusal(
        capsys, four[0], other, "--out", tmp_path / "out"
    )
