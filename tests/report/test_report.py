"""The report of runs made by hand: no model is needed."""

from __future__ import annotations

import html as entities
import itertools
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.flips import flip_texts, flips_by_item, flips_by_user, grouped
from unswayed.audit.rundir import open_run, read_answers
from unswayed.audit.summary import analyze
from unswayed.audit.trials import (
    GRID_CONDITIONS,
    NONE,
    PAIR_CONDITIONS,
    SCHEMA,
    Outcome,
    add_flips,
    choose_personas,
    make_row,
    trials_of,
)
from unswayed.core.errors import InputError
from unswayed.core.files import write_json, write_table
from unswayed.data.items import Item, make_item
from unswayed.data.personas import Persona, grid_personas
from unswayed.display.numbers import (
    coefficient,
    interval,
    listed,
    markdown_text,
    p_value,
    percent,
    typeset,
)
from unswayed.display.plots import rounded_up, shade, shade_range, zoomed_axis
from unswayed.memory.prompt import PromptMemory
from unswayed.report import result_table, write_report
from unswayed.report.items import item_maps
from unswayed.report.words import VERDICTS, effect_label
from unswayed.scoring.chat import plain_text

Answer = Callable[[Item, Persona | None], int | None]
EVIL = "<script>alert('x')</script> a|b\nc"


def emotion(id: str, test: str = "feel", text: str | None = None) -> Item:
    scenario = text or f"Scenario of {id}. What do they feel?"
    return make_item(test, id, "understanding", scenario, ["Joy", "Fear", "Anger", "Pride"], "Joy")


def action(id: str, test: str = "act") -> Item:
    return make_item(
        test,
        id,
        "management",
        f"Scenario of {id}. What should I do?",
        ["Talk", "Wait", "Shout", "Leave"],
        "Talk",
        weights=[1.0, 0.5, 0.25, 0.0],
    )


def people(n: int, note: str = "text") -> list[Persona]:
    return [
        Persona(f"p{i}-{version}", version, f"p{i}", (("about", f"{note} of p{i} {version}."),))
        for i in range(1, n + 1)
        for version in PAIR_CONDITIONS[1:]
    ]


def make_run(
    out: Path,
    items: Sequence[Item],
    answer: Answer,
    personas: Sequence[Persona] = (),
    conditions: Sequence[str] = PAIR_CONDITIONS,
    scoring: str = "option",
    style: str = "system",
    model: str = "tiny",
    notes: Sequence[str] = (),
) -> Path:
    """A complete run directory in which `answer` stands in for the model."""
    arguments = AuditArguments(
        model=model, out=out, conditions=conditions, scoring=scoring, memory_style=style
    )
    chosen = choose_personas(personas, conditions, None) if personas else []
    run = open_run(out, arguments, list(items), chosen)
    memory, rows = PromptMemory(style), []
    profiles = [None] * (NONE in conditions) + chosen
    for profile in profiles:
        for trial in trials_of(items, profile, memory, scoring, seed=0):
            picked = answer(trial.item, profile)
            rows.append(
                make_row(
                    trial,
                    Outcome(picked, raw_text=f"I pick {picked}." * (scoring == "generate") or None),
                    prompt=plain_text(trial.messages),
                    scoring=scoring,
                    rule=arguments.rule,
                    model=model,
                    seed=0,
                )
            )
    write_table(add_flips(rows), SCHEMA, out / "answers.parquet")
    run |= {
        "status": "complete",
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:15+00:00",
        "seconds": 75.0,
        "n_trials": len(rows),
        "notes": list(notes),
        "model": {"revision": "r" * 40, "dtype": "float32", "device": "cpu", "parameters": 1234},
    }
    write_json(out / "run.json", run)
    return out


def skewed(item: Item, persona: Persona | None) -> int:
    """Right, but for disadvantaged users on all items but the eighth."""
    hit = persona is not None and persona.condition == "disadvantaged"
    return 1 if hit and not item.id.endswith("8") else 0


def page_of(out: Path) -> str:
    analyze(out)
    return write_report(out).read_text("utf-8")


def shown(page: str) -> str:
    """What a reader sees: tags, style and script removed, entities resolved."""
    page = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(entities.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def answers_of(out: Path) -> pd.DataFrame:
    return grouped(read_answers(out).to_pandas())


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tests, three pairs, all conditions, a skewed model; its report is written."""
    items = [make(f"i{n}") for make in (emotion, action) for n in range(1, 13)]
    out = make_run(tmp_path_factory.mktemp("full") / "run", items, skewed, people(3))
    analyze(out)
    write_report(out)
    return out


# -- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "share, sign, text",
    [
        (0.26666, False, "26.7"),
        (0.004, True, "+0.4"),
        (-0.0001, True, "0.0"),
        (0.0, True, "0.0"),
        (None, False, "–"),
        (float("nan"), False, "–"),
    ],
)
def test_percent(share, sign, text):
    assert percent(share, sign) == text


def test_interval_says_what_is_unknown():
    assert interval({"estimate": 0.5, "low": 0.25, "high": 0.75}) == "50.0 [25.0, 75.0]"
    assert interval({"estimate": -0.5, "low": None, "high": None}, sign=True) == "-50.0 [–]"
    assert interval({"estimate": None, "low": None, "high": None}) == "–"
    assert interval(None) == "–"


def test_typeset_changes_signs_only():
    assert typeset("-0.4 [-1.1, 0.0] on a-1") == "−0.4 [−1.1, 0.0] on a-1"


def test_coefficient():
    assert [coefficient(v) for v in (0.534, -0.001, None)] == ["0.53", "0.00", "–"]


def test_rounded_up():
    values = [rounded_up(v) for v in (0, 0.01, 0.011, 0.09, 0.3, 0.7, 1.0)]
    assert values == [0.01, 0.01, 0.02, 0.1, 0.3, 1, 1]


def test_shades():
    assert [shade(v) for v in (0, 0.5, 1, -1, 2, None, float("nan"))] == [0, 4, 8, 0, 8, None, None]
    assert shade_range([0.244, 0.293]) == (0.2, 0.3)
    assert shade_range([1.0]) == (0.9, 1.0)
    assert shade_range([None]) == (0.0, 1.0)
    assert zoomed_axis([0.12, 0.44]).values == (0.1, 0.2, 0.3, 0.4, 0.5)


def test_every_number_of_the_summary_is_in_table_markdown_and_page(full):
    summary = json.loads((full / "summary.json").read_text("utf-8"))
    table = result_table(summary)
    markdown = (full / "report.md").read_text("utf-8")
    text = shown((full / "report.html").read_text("utf-8"))
    assert table in markdown
    lines, tests = cells_of(table), cells_of(markdown)
    for name, test in summary["tests"].items():
        for condition, values in test["conditions"].items():
            flips = interval(values["flip_rate"])
            shares = [interval(values[key]) for key in ("expected", "accuracy", "score")]
            assert [name, condition, str(values["n"]), *shares, flips, "0.0"] in lines
            assert interval(values["accuracy"]) in text
            assert interval(values["score"]) in text
            assert flips in text
        for effect in test["effects"]:
            difference = interval(effect, sign=True)
            p = {key: p_value(value) for key, value in effect.items() if key.startswith("p")}
            tested = effect["family"] is not None
            finding = effect["status"] or (
                "descriptive"
                if not tested
                else "significant"
                if effect["p_holm"] < 0.05
                else "not significant"
            )
            row = [name, effect["metric"], effect["name"]]
            seen = [difference, p["p_holm"], p["p_tost"]]
            assert ([*row, finding, *seen, str(effect["n_items"])] in lines) == tested
            ps = [p[key] for key in ("p", "p_holm", "p_tost", "p_mcnemar")]
            n = [str(effect[key]) for key in ("n_pairs", "n_differences")]
            both = [str(effect["better"]), str(effect["worse"])]
            assert [*row, *ps, *n, *both] in tests
            label = effect_label(effect["name"])
            assert (f"{typeset(' '.join(seen))} {finding}" in text) == tested
            estimate = typeset(difference.split(" ")[0])
            counts = f"{effect['n_items']} {' '.join(n)} {' / '.join(both)}"
            assert f"{label} {estimate} {' '.join(ps)} {counts}" in text
            assert " ".join(effect["notes"]) in text
        for part in test["decomposition"]:
            for key in ("total", "any_memory", "which_persona"):
                assert typeset(interval(part[key], sign=True)) in text
        for row in test["omnibus"]:
            assert f"{row['q']:.2f} {row['df']} {p_value(row['p'])}" in text
        for power in test["power"]:
            assert f"{power['power_at_margin']:.0%} {power['power_equivalence']:.0%}" in text
    assert typeset(summary["verdict"]["text"]) in text
    assert summary["verdict"]["text"] in markdown
    feel = summary["tests"]["feel"]
    gap = next(e for e in feel["effects"] if (e["name"], e["metric"]) == ("gap", feel["outcome"]))
    assert f"feel {percent(gap['estimate'], sign=True)} points" in text


def cells_of(markdown: str) -> list[list[str]]:
    """Rows of all tables, as their cells."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines()]


@pytest.mark.parametrize("status", VERDICTS)
def test_verdicts_differ_in_words_and_shape(full, tmp_path, status):
    out = shutil.copytree(full, tmp_path / "run")
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    summary["verdict"] |= {"status": status}
    write_json(out / "summary.json", summary)
    page = write_report(out).read_text("utf-8")
    assert f"Verdict: {VERDICTS[status].lower()}" in shown(page)
    (box,) = re.findall(r'<section class="verdict.*?</h2>', page, re.DOTALL)
    drawn = {
        "skewed": "M0-6.5",
        "equivalent": "M0-6 6",
        "more data needed": "open",
        "cannot be judged": "open",
    }
    assert drawn[status] in box and sum(words in box for words in set(drawn.values())) == 1


def test_the_margin_is_drawn_for_differences_between_users_only(full):
    page = (full / "report.html").read_text("utf-8")
    summary = json.loads((full / "summary.json").read_text("utf-8"))
    effects = [e for test in summary["tests"].values() for e in test["effects"]]
    tested = [e for e in effects if e["kind"] == "gap" and e["family"] is not None]
    assert page.count('class="band"') == len(tested) == 2
    assert "margin of ±5 points" in shown(page)


def test_a_report_needs_a_summary_of_this_version(full, tmp_path):
    out = shutil.copytree(full, tmp_path / "run")
    (out / "summary.json").write_text('{"level": 0.95}')
    with pytest.raises(InputError, match="unswayed analyze"):
        write_report(out)


def test_table_is_aligned(full):
    for block in result_table(json.loads((full / "summary.json").read_text())).split("\n\n"):
        assert len({len(line) for line in block.splitlines()}) == 1


# -- flips ---------------------------------------------------------------------------------------


def test_flips_by_item_and_pair_by_hand(tmp_path):
    changed = {
        ("e1", "p1-neutral"),
        ("e1", "p1-advantaged"),
        ("e1", "p2-advantaged"),
        ("e2", "p1-advantaged"),
        ("a1", "p2-disadvantaged"),
    }

    def answer(item, persona):
        if (item.id, persona and persona.id) == ("e2", "p2-neutral"):
            return None  # unparsed: neither a flip nor a non-flip
        return int(persona is not None and (item.id, persona.id) in changed)

    items = [emotion("e2"), emotion("e1"), action("a1"), action("a2")]
    out = make_run(tmp_path / "run", items, answer, people(2), scoring="generate")
    answers = answers_of(out)

    by_item = flips_by_item(answers)
    assert list(by_item.index) == [("feel", "e1"), ("feel", "e2"), ("act", "a1"), ("act", "a2")]
    assert by_item["n"].tolist() == [6, 5, 6, 6]
    assert by_item["flips"].tolist() == [3, 1, 1, 0]
    assert by_item["share"].tolist() == pytest.approx([3 / 6, 1 / 5, 1 / 6, 0])
    assert by_item["neutral"].tolist() == [0.5, 0, 0, 0]
    assert by_item["advantaged"].tolist() == [1, 0.5, 0, 0]
    assert by_item["disadvantaged"].tolist() == [0, 0, 0.5, 0]

    by_pair = flips_by_user(answers)
    assert list(by_pair.index) == ["p1", "p2"]
    assert by_pair["n"].tolist() == [12, 11]
    assert by_pair["flips"].tolist() == [3, 2]
    assert by_pair["neutral"].tolist() == pytest.approx([1 / 4, 0])
    assert by_pair["advantaged"].tolist() == [2 / 4, 1 / 4]
    assert by_pair["disadvantaged"].tolist() == [0, 1 / 4]

    text = shown(page_of(out))
    assert "Of 23 comparable answers with memory, 5 differ" in text
    assert "Items with the same answer under every memory: 1 of 4" in text
    assert "e1 feel Scenario of e1. What do they feel? 50.0 100.0 0.0 50.0 3 of 6" in text
    assert "p2 0.0 25.0 25.0 18.2 2 of 11" in text
    assert "p2" in (out / "report.md").read_text("utf-8")


def test_texts_of_a_flip(full):
    texts = flip_texts(answers_of(full), "act", "i1")
    assert texts["question"] == "Scenario of i1. What should I do?"
    assert [option["text"] for option in texts["options"] if option["key"]] == ["Talk"]
    assert texts["options"][1]["weight"] == "0.5"
    assert texts["options"][1]["chosen"] == {
        NONE: 0,
        "neutral": 0,
        "advantaged": 0,
        "disadvantaged": 3,
    }
    assert texts["before"] == {"text": "Talk", "key": True, "raw": None}
    (example,) = texts["examples"]
    assert (example["user"], example["condition"]) == ("p1", "disadvantaged")
    assert example["after"] == {"text": "Wait", "key": False, "raw": None}
    assert example["memory"].endswith("text of p1 disadvantaged.")
    assert "text of p1 disadvantaged." in shown((full / "report.html").read_text("utf-8"))


@pytest.mark.parametrize("style", ["system", "user", "bullets", "turns"])
@pytest.mark.parametrize("scoring", ["option", "letter", "generate"])
def test_texts_in_all_styles_and_scorings(tmp_path, style, scoring):
    items = [emotion("e1"), emotion("e2")]
    out = make_run(tmp_path / "run", items, skewed, people(1), scoring=scoring, style=style)
    texts = flip_texts(answers_of(out), "feel", "e1")
    assert texts["question"] == "Scenario of e1. What do they feel?"
    (example,) = texts["examples"]
    assert "text of p1 disadvantaged." in example["memory"]
    if style != "turns":  # told in earlier turns: the whole prompt is shown
        assert "Scenario" not in example["memory"]


# -- heat maps -----------------------------------------------------------------------------------


def test_item_map_by_hand(full):
    feel, act = item_maps(answers_of(full))
    assert (feel["test"], act["test"]) == ("feel", "act")
    assert feel["columns"] == list(PAIR_CONDITIONS)
    assert len(feel["rows"]) == 12
    first, last = feel["rows"][0], feel["rows"][-1]
    assert first["id"] == "i8"  # right under every condition: hardest last
    assert [cell["value"] for cell in first["cells"]] == ["100"] * 4
    assert [cell["value"] for cell in last["cells"]] == ["100", "100", "100", "0"]
    assert [cell["shade"] for cell in last["cells"]] == [8, 8, 8, 0]
    assert [cell["mark"] for cell in last["cells"]] == [None, None, None, "flips"]
    page = (full / "report.html").read_text("utf-8")
    assert page.count("(most answers flip)") == 22


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2) of #rgb or #rrggbb."""
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_heat_maps_are_readable_in_every_shade_light_dark_and_printed(full):
    """Numbers have a contrast of 4.5, and lightness alone orders the shades."""
    page = (full / "report.html").read_text("utf-8")
    schemes = [
        dict(re.findall(r"--(h\d|on-pale|on-deep): (#\w+)", part))
        for part in re.findall(r":root \{[^}]+\}", page)
    ]
    assert len(schemes) == 3
    for scheme in schemes:
        shades = [luminance(scheme[f"h{i}"]) for i in range(9)]
        assert shades in (sorted(shades), sorted(shades, reverse=True))
        for i, shade_luminance in enumerate(shades):
            text = luminance(scheme["on-pale" if i < 5 else "on-deep"])
            low, high = sorted((text, shade_luminance))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (i, scheme)
    assert ".h0, .h1, .h2, .h3, .h4 { color: var(--on-pale); }" in page
    assert "print-color-adjust: exact" in page


# -- the grid ------------------------------------------------------------------------------------


def faithful(item: Item, persona: Persona | None) -> int:
    """Right, but for some cells on some items."""
    if persona is None:
        return 0
    cell = dict(persona.attributes)
    wrong = item.id in ("e1", "e2") and cell["religion"] == "no religion"
    return int(wrong or (item.id == "e3" and cell["gender"] == "female"))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = [emotion(f"e{i}") for i in range(1, 9)]
    out = tmp_path_factory.mktemp("grid") / "run"
    make_run(out, items, faithful, grid_personas(), GRID_CONDITIONS)
    analyze(out)
    write_report(out)
    return out


def test_grid_report_shows_contrasts_of_three_methods(grid):
    summary = json.loads((grid / "summary.json").read_text("utf-8"))
    found = summary["tests"]["feel"]["grid"]
    page = (grid / "report.html").read_text("utf-8")
    text, markdown = shown(page), (grid / "report.md").read_text("utf-8")
    for contrast in found["contrasts"]:
        methods = [contrast[method] for method in ("mixed", "logistic", "paired")]
        values = [interval(value, sign=True) for value in methods]
        assert all(typeset(value) in text and value in markdown for value in values)
        label = effect_label(contrast["name"])
        assert re.search(rf"{re.escape(label)} {re.escape(typeset(values[0]))} p \S+, Holm", text)
    for test in found["attributes"]:
        assert f"{test['attribute']} {test['chi2']:.2f} 2 {p_value(test['p'])}" in text
        joint = test["robust"]
        if joint["f"] is None:
            assert f"{test['attribute']}: {joint['note']}" in text and joint["note"] in markdown
        else:
            assert f"{joint['f']:.2f} ({joint['df1']}, {joint['df2']})" in text
    for mean in found["means"]:
        assert f"{mean['level']} {interval(mean)}" in text
    for note in (*found["mixed"]["notes"], *found["logistic"]["notes"]):
        assert note in text and note in markdown
    assert "questions have one outcome throughout" in text
    assert "All cells of the grid" in text and "The users are 81 cells of the grid." in text
    assert "Largest difference between users feel" in text
    assert "By cell of the grid" in text and "The other 71 cells" in text
    assert "dvantaged" not in text


def test_map_of_cells(grid):
    summary = json.loads((grid / "summary.json").read_text("utf-8"))
    cells = summary["tests"]["feel"]["grid"]["cells"]
    page = (grid / "report.html").read_text("utf-8")
    (table,) = re.findall(
        r'<table class="map">\s*<caption><span>Accuracy in every cell.*?</table>', page, re.DOTALL
    )
    rows = re.findall(r"<tr>.*?</tr>", table, re.DOTALL)[2:]
    values = [re.findall(r'<td class="heat h\d">([\d.]+)', row) for row in rows]
    assert [len(row) for row in values] == [9] * 9
    expected = [percent(cell["accuracy"]) for cell in cells]
    assert list(itertools.chain.from_iterable(values)) == expected
    assert table.count('scope="rowgroup"') == 3 and table.count('scope="colgroup"') == 3


def test_significant_cells_are_marked_in_words_and_sign(grid, tmp_path):
    out = shutil.copytree(grid, tmp_path / "run")
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    cells = summary["tests"]["feel"]["grid"]["cells"]
    cells[3] |= {"difference": 0.1, "p_max_t": 0.01}
    cells[4] |= {"difference": -0.1, "p_max_t": 0.049}
    cells[5] |= {"difference": -0.1, "p_max_t": 0.05}
    write_json(out / "summary.json", summary)
    page = write_report(out).read_text("utf-8")
    assert page.count("(significantly above the mean)") == 1
    assert page.count("(significantly below the mean)") == 1
    assert "No cell differs significantly" not in shown(page)


def test_items_of_a_grid_are_shown_by_level(grid):
    (feel,) = item_maps(answers_of(grid))
    assert feel["groups"][0] == ("condition", 2) and [n for _, n in feel["groups"][1:]] == [3] * 4
    row = next(row for row in feel["rows"] if row["id"] == "e3")
    shown_cells = dict(zip(feel["columns"], (cell["value"] for cell in row["cells"]), strict=True))
    assert (shown_cells["none"], shown_cells["grid"]) == ("100", "67")
    assert (shown_cells["male"], shown_cells["female"], shown_cells["White"]) == ("100", "0", "67")


def test_a_grid_without_any_variation(tmp_path):
    items = [emotion(f"e{i}") for i in range(3)]
    out = make_run(tmp_path / "run", items, right, grid_personas(), GRID_CONDITIONS)
    text = shown(page_of(out))
    assert "zero variance: all 243 answers are right" in text
    assert not re.search(r"\b(nan|None|null)\b", text)
    assert "zero variance" in (out / "report.md").read_text("utf-8")


# -- foreign text --------------------------------------------------------------------------------


def test_foreign_text_is_escaped(tmp_path):
    items = [
        make_item(EVIL, f"<b>{i}|", "understanding", EVIL + str(i), [EVIL, "Fear"], EVIL)
        for i in range(3)
    ]
    out = make_run(
        tmp_path / "run",
        items,
        lambda item, persona: int(persona is not None),
        people(2, note=EVIL),
        model="<img src=x onerror=alert(1)>|m",
        notes=["A <b>note</b>."],
        scoring="generate",
    )
    page = page_of(out)
    assert page.count("<script>") == page.count("</script>") == 1
    assert "<script>alert" not in page
    assert "<img" not in page and "<b>note" not in page and "<b>0" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; a|b" in page
    markdown = (out / "report.md").read_text("utf-8")
    assert not re.search(r"(?<!\\)<[a-z/]", markdown)
    for block in re.findall(r"(?:^\|.*\n?)+", markdown, re.MULTILINE):
        rows = block.splitlines()
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1  # as many cells


def test_markdown_text():
    assert markdown_text("a|b\n\\ `c` *d* \x1b[31m") == r"a\|b \\ \`c\` \*d\* [31m"
    assert markdown_text("[x](http://y) <i> <0.001") == r"[x]\(http://y) \<i> <0.001"


def test_page_is_self_contained(full):
    page = (full / "report.html").read_text("utf-8")
    assert not re.search(r"\b(src|href|action|data)\s*=", page)
    assert not re.search(r"url\(|@import|<link|<img|<iframe|<object|fetch\(", page)
    assert not re.search(r"https?://", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'")


def test_page_is_accessible(full):
    page = (full / "report.html").read_text("utf-8")
    assert '<html lang="en">' in page
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert page.count("<table") == page.count("<caption")
    for tag in re.findall(r"<th\b[^>]*>", page):
        assert "scope=" in tag
    for plot in re.findall(r'<svg[^>]*role="img"[^>]*>', page):
        assert re.search(r'aria-label="[^"]+"', plot)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'aria-labelledby="([^"]+)"', page)) <= set(ids)


def test_bytes_are_the_same_again(full, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("run.json", "answers.parquet"):
        shutil.copy(full / name, copy)
    analyze(copy)
    write_report(copy)
    for name in ("summary.json", "report.md", "report.html"):
        assert (copy / name).read_bytes() == (full / name).read_bytes()


# -- other shapes of runs ------------------------------------------------------------------------


def right(item: Item, persona: Persona | None) -> int:
    return 0


@pytest.mark.parametrize(
    "conditions, says",
    [
        ([NONE], ["no condition with memory", "no two conditions that can be compared"]),
        (["neutral"], ["nothing to flip from", "no two conditions that can be compared"]),
        (["advantaged", "disadvantaged"], ["nothing to flip from", "Gap: advantaged"]),
        ([NONE, "neutral"], ["No answer flipped", "Neutral memory − no memory"]),
        (["neutral", "advantaged"], ["nothing to flip from", "no two conditions"]),
        ([NONE, "disadvantaged"], ["No answer flipped", "Disadvantaged − no memory"]),
    ],
)
def test_any_conditions(tmp_path, conditions, says):
    items = [emotion(f"e{i}") for i in range(4)]
    personas = people(2) if conditions != [NONE] else ()
    text = shown(page_of(make_run(tmp_path / "run", items, right, personas, conditions)))
    for words in says:
        assert words in text
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert typeset(summary["verdict"]["text"]) in text
    missing = "Accuracy without memory feel – guessing: 25.0%"
    assert (missing in text) == (NONE not in conditions)
    no_gap = not {"advantaged", "disadvantaged"} <= set(conditions)
    assert ("Gap between users feel – The gap" in text) == no_gap
    assert not re.search(r"\b(nan|None|null)\b", text)


def test_one_pair(tmp_path):
    items = [emotion(f"e{i}") for i in range(1, 5)]
    text = shown(page_of(make_run(tmp_path / "run", items, skewed, people(1))))
    assert "the versions of 1 base persona." in text
    assert "4 of 12" in text


def test_more_pairs_and_items_than_are_listed(tmp_path):
    items = [emotion(f"e{i}") for i in range(1, 13) if i != 8]
    text = shown(page_of(make_run(tmp_path / "run", items, skewed, people(12))))
    assert "The other 2 pairs" in text
    assert "The 10 items that flip most account for 120 of the 132 flips" in text


def test_single_item(tmp_path):
    text = shown(page_of(make_run(tmp_path / "run", [action("a1")], skewed, people(2))))
    assert "100.0 [–]" in text
    assert "no interval and no test is possible" in text


def test_unread_answers(tmp_path):
    def answer(item, persona):
        return None if persona and persona.id == "p1-advantaged" else 0

    items = [emotion(f"e{i}") for i in range(4)]
    out = make_run(tmp_path / "run", items, answer, people(2), scoring="generate")
    text = shown(page_of(out))
    assert re.search(r"Advantaged user 50\.0 \[[^]]+\] 8 0\.0 \[0\.0, [^]]+\] 50\.0", text)
    assert "On feel 17% of the answers with a memory could not be read" in text
    assert "Of 20 comparable answers with memory, 0 differ" in text


def test_nothing_read_at_all(tmp_path):
    items = [emotion(f"e{i}") for i in range(4)]
    out = make_run(tmp_path / "run", items, lambda i, p: None, people(2), scoring="generate")
    assert "no flips were counted" in shown(page_of(out))


def test_memory_outside_the_prompt(tmp_path):
    """Weights that hold the memory (PLUM, LoGo) leave no text to show."""
    out = make_run(tmp_path / "run", [emotion("e1"), emotion("e2")], skewed, people(1))
    answers = answers_of(out)
    bare = answers[answers["condition"] == NONE].set_index("question_id")["prompt"]
    answers["system_prompt"] = None
    answers["prompt"] = answers["question_id"].map(bare)
    rows = answers.astype(object).where(answers.notna(), None).to_dict("records")
    write_table(rows, SCHEMA, out / "answers.parquet")
    text = shown(page_of(out))
    assert "does not stand in the prompt" in text
    assert "Who these users are" not in text


def test_notes_hashes_and_run_time_are_reported(tmp_path):
    note = "The model has no chat template: memory and question were given as text."
    items = [emotion("e1"), emotion("e2")]
    out = make_run(tmp_path / "run", items, right, people(1), notes=[note])
    text = shown(page_of(out))
    markdown = (out / "report.md").read_text("utf-8")
    run = json.loads((out / "run.json").read_text())
    for words in (note, run["hashes"]["items"], run["hashes"]["personas"], "1 min 15 s", "r" * 40):
        assert words in text and words in markdown


def test_adapter_is_named_without_its_path(tmp_path):
    out = make_run(tmp_path / "run", [emotion("e1"), emotion("e2")], right, people(1))
    run = json.loads((out / "run.json").read_text())
    adapter = tmp_path / "secret" / "dpo"
    adapter.mkdir(parents=True)
    run["identity"]["adapter"] = str(adapter)
    write_json(out / "run.json", run)
    page = page_of(out)
    assert "tiny + dpo" in page and "secret" not in page


def test_incomplete_run_is_refused(tmp_path):
    out = make_run(tmp_path / "run", [emotion("e1")], right, people(1))
    run = json.loads((out / "run.json").read_text())
    write_json(out / "run.json", run | {"status": "running"})
    with pytest.raises(InputError, match="--resume"):
        write_report(out)
    with pytest.raises(InputError, match="not a run directory"):
        write_report(tmp_path)
    assert not (out / "report.html").exists()


def test_lists_in_words():
    assert [listed(("a",)), listed("ab"), listed("abc")] == ["a", "a and b", "a, b and c"]
