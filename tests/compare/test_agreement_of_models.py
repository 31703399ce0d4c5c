"""Several models on the same questions, from runs made by hand."""

from __future__ import annotations

import html as entities
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_runs import actions, chance, emotions, make_run, pairs
from sklearn.metrics import cohen_kappa_score

from unswayed.audit.summary import analyze
from unswayed.audit.trials import GRID_CONDITIONS, SCHEMA, add_flips
from unswayed.cli import main
from unswayed.compare.models import compare_models
from unswayed.core.errors import InputError
from unswayed.core.files import write_json, write_table
from unswayed.data.items import Item
from unswayed.data.personas import Persona, grid_personas
from unswayed.report.comparisons import kind_of, write_comparison

ITEMS = [*emotions(8), *actions(6)]


def model(name: str, skill: float = 0.7, swayed: float = 0.2) -> Callable[..., int]:
    """An answer that is right for a share of items, and changes under a share of users."""

    def answer(item: Item, persona: Persona | None) -> int:
        changes = persona is not None and chance(name, item.id, persona.id) < swayed
        if changes:
            return int(4 * chance(name, item.id, persona.id, "which"))
        return 0 if chance(item.id, "hard") < skill else 1

    return answer


def made(out: Path, answer=None, name: str = "a/one", items=ITEMS, users=None, **identity) -> Path:
    """An analyzed run of the model `name`."""
    conditions = identity.pop("conditions", None)
    make_run(out, items, answer or model(name), users or pairs(3), conditions)
    relabel(out, name, **identity)
    analyze(out)
    return out


def relabel(out: Path, name: str, unread: Callable[[dict], bool] | None = None, **identity) -> None:
    """Give a run another model, identity and unread answers."""
    run = json.loads((out / "run.json").read_text())
    run["identity"] |= {"model": name} | identity
    write_json(out / "run.json", run)
    rows = [row | {"model": name} for row in pq.read_table(out / "answers.parquet").to_pylist()]
    for row in rows:
        if unread and unread(row):
            row |= {"answer": None, "parsed": False, "correct": False, "score": 0.0}
    write_table(add_flips(rows), SCHEMA, out / "answers.parquet")


def shown(page: str) -> str:
    page = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(entities.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def page_of(dirs: list[Path], out: Path) -> str:
    write_comparison("models", dirs, out)
    return (out / "agreement.html").read_text("utf-8")


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("three")
    return [
        made(folder / "one", name="a/one", answer=model("x", 0.7)),
        made(folder / "two", name="b/two", answer=model("x", 0.5)),
        made(folder / "far", name="c/far", answer=model("y", 0.1, 0.6)),
    ]


@pytest.fixture(scope="module")
def found(three, tmp_path_factory) -> tuple[dict, Path]:
    out = tmp_path_factory.mktemp("out") / "new" / "folder"
    write_comparison("models", three, out)
    return json.loads((out / "agreement.json").read_text("utf-8")), out


def test_measures_are_those_of_the_answers(three, found):
    frames = [pq.read_table(path / "answers.parquet").to_pandas() for path in three]
    for frame in frames:
        frame["choice"] = [
            list(o).index(a) for o, a in zip(frame["options"], frame["answer"], strict=True)
        ]
    pair = next(p for p in found[0]["pairs"] if p["models"] == ["a/one", "c/far"] and not p["test"])
    one, far = frames[0], frames[2]
    equal = (one["answer"] == far["answer"]).mean()
    assert pair["equal"]["estimate"] == pytest.approx(equal)
    assert pair["kappa"]["estimate"] == pytest.approx(
        cohen_kappa_score(one["choice"], far["choice"])
    )
    correct = one["correct"].astype(float).corr(far["correct"].astype(float))
    assert pair["correct"]["estimate"] == pytest.approx(correct)
    flips = [frame["flip"].astype(float) for frame in (one, far)]
    assert pair["flip"]["estimate"] == pytest.approx(flips[0].corr(flips[1]))
    assert pair["equal"]["n"] == 14 * 10 and pair["flip"]["n"] == 14 * 9
    for measure in ("equal", "kappa", "correct", "flip"):
        assert pair[measure]["low"] <= pair[measure]["estimate"] <= pair[measure]["high"]
    part = [p for p in found[0]["pairs"] if p["test"] == "management"]
    rows = (one["test"] == "management").to_numpy()
    expected = [
        (frames[i]["answer"] == frames[j]["answer"])[rows].mean()
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert [p["equal"]["estimate"] for p in part] == pytest.approx(expected)


def test_rows_need_not_stand_in_the_same_order(three, found, tmp_path):
    copy = shutil.copytree(three[1], tmp_path / "two")
    rows = pq.read_table(copy / "answers.parquet").to_pylist()
    write_table(rows[::-1], SCHEMA, copy / "answers.parquet")
    assert compare_models([three[0], copy, three[2]])["pairs"] == found[0]["pairs"]


def test_alike_models_stand_side_by_side(found):
    order = found[0]["order"]
    assert abs(order.index("a/one") - order.index("b/two")) == 1
    heights = [height for *_, height in found[0]["tree"]]
    assert heights == sorted(heights) and len(heights) == 2


def test_items_that_flip_by_hand(tmp_path):
    def answer(flips: dict[str, tuple[str, ...]]):
        def given(item: Item, persona: Persona | None) -> int:
            neutral = persona is not None and persona.condition == "neutral"
            hit = persona is not None and persona.id in flips.get(item.id, ())
            return int(hit or (neutral and item.id == "u0"))

        return given

    all_users = tuple(p.id for p in pairs(2) if p.condition != "neutral")
    dirs = [
        made(tmp_path / "1", answer({"u1": all_users[:1], "u2": all_users}), "m/1", emotions(4),
             pairs(2)),
        made(tmp_path / "2", answer({"u1": all_users[:3]}), "m/2", emotions(4), pairs(2)),
    ]  # fmt: skip
    rows = compare_models(dirs)["flips"]
    assert [row["question_id"] for row in rows] == ["u1", "u2", "u0", "u3"]
    assert [(row["n_any"], row["n_most"]) for row in rows] == [(2, 1), (1, 1), (0, 0), (0, 0)]
    assert rows[0]["shares"] == {"m/1": 0.25, "m/2": 0.75} and rows[0]["mean"] == 0.5
    assert rows[0]["text"] == "Something happens (1). What do they feel?"
    text = shown(page_of(dirs, tmp_path / "out"))
    assert "Items that flip in no model: 2 (u0, u3)." in text
    assert "2 of 2 1 of 2 50.0 25 75" in text


def test_unread_answers_are_answers_of_their_own_and_counted(tmp_path):
    dirs = [made(tmp_path / name, name=name, answer=model("x")) for name in "ab"]
    relabel(dirs[0], "a", lambda row: row["question_id"] in ("u0", "u1"))
    relabel(dirs[1], "b", lambda row: row["question_id"] in ("u1", "u2"))
    for path in dirs:
        analyze(path)
    found = compare_models(dirs)
    assert [m["n_unread"] for m in found["models"]] == [20, 20]
    pair = found["pairs"][0]
    assert pair["n_unread_both"] == 10 and pair["equal"]["n"] == 140
    assert pair["equal"]["estimate"] == pytest.approx(120 / 140)  # u0 and u2 differ, u1 is equal
    assert pair["flip"]["n"] == 9 * 11


def test_equal_models_that_never_vary_are_undefined_in_words(tmp_path):
    dirs = [made(tmp_path / n, lambda item, persona: 0, n, emotions(3), pairs(2)) for n in "ab"]
    page_of(dirs, out := tmp_path / "out")
    pair = json.loads((out / "agreement.json").read_text())["pairs"][0]
    assert pair["equal"]["estimate"] == 1
    for measure in ("kappa", "correct", "flip"):
        assert pair[measure]["estimate"] is None and "do not vary" in pair[measure]["note"]
    for name in ("agreement.html", "agreement.md"):
        text = shown((out / name).read_text("utf-8"))
        assert "do not vary" in text and not re.search(r"\b(nan|NaN|None|null)\b", text)
    assert "No item flips in any model" in shown((out / "agreement.html").read_text("utf-8"))


def test_runs_without_bare_answers_or_users_have_no_flips(tmp_path):
    given = {"conditions": ["advantaged", "disadvantaged"]}
    dirs = [made(tmp_path / n, model(n), n, emotions(4), pairs(2), **given) for n in "ab"]
    page_of(dirs, out := tmp_path / "out")
    found = json.loads((out / "agreement.json").read_text())
    assert found["flips"] == [] and found["pairs"][0]["flip"]["note"] == "no trials can be compared"
    assert "nothing was asked without memory" in shown((out / "agreement.html").read_text("utf-8"))


def test_grid_runs_compare_contrasts(tmp_path):
    given = {"conditions": GRID_CONDITIONS}
    dirs = [made(tmp_path / n, model(n), n, emotions(4), grid_personas(), **given) for n in "ab"]
    page_of(dirs, out := tmp_path / "out")
    text = shown((out / "agreement.html").read_text("utf-8"))
    assert "understanding, accuracy: gender: female − male" in text
    assert "4 items, 81 remembered users" in text


# -- labels --------------------------------------------------------------------------------------


def test_labels_name_what_tells_runs_apart(tmp_path):
    adapter = tmp_path / "adapters" / "dpo"
    adapter.mkdir(parents=True)
    dirs = [
        made(tmp_path / "1", name="a/one"),
        made(tmp_path / "2", name="a/one", memory_style="bullets"),
        made(tmp_path / "3", name="b/two", adapter=str(adapter)),
        made(tmp_path / "4", name="b/two"),
    ]
    found = compare_models(dirs)
    assert [m["label"] for m in found["models"]] == [
        "a/one (memory style system)",
        "a/one (memory style bullets)",
        "b/two + dpo",
        "b/two",
    ]
    assert str(tmp_path) not in json.dumps(found)


def test_the_same_run_twice_is_refused(three, tmp_path):
    copy = shutil.copytree(three[0], tmp_path / "copy")
    for twice in ([three[0], three[0]], [three[0], three[1], copy]):
        with pytest.raises(InputError, match="same run of a/one: nothing tells them apart"):
            compare_models(twice)


# -- what cannot be compared ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"items": ITEMS[1:]}, r"items differ \(14 against 13; u0 is only in the first\)"),
        ({"users": pairs(2)}, r"personas differ \(9 against 6; p2-advantaged is only"),
        (
            {"conditions": ["none", "advantaged", "disadvantaged"]},
            r"conditions differ \(4 against 3; neutral is only in the first\)",
        ),
    ],
)
def test_other_items_users_or_conditions_are_refused(three, tmp_path, changes, words):
    other = made(tmp_path / "other", name="z", **changes)
    with pytest.raises(InputError, match=words) as error:
        compare_models([three[0], other])
    assert str(three[0]) in str(error.value) and str(other) in str(error.value)
    assert "\n" not in str(error.value)


def test_same_names_with_other_texts_are_refused(three, tmp_path):
    changed = [Item(**{**vars(item), "scenario": item.scenario + "!"}) for item in ITEMS]
    other = made(tmp_path / "other", name="z", items=changed)
    with pytest.raises(InputError, match="their items have the same names but other texts"):
        compare_models([three[0], other])


def test_one_run_or_a_damaged_one_is_refused(three, tmp_path):
    with pytest.raises(InputError, match="two or more"):
        compare_models(three[:1])
    with pytest.raises(InputError, match="not a run directory"):
        compare_models([three[0], tmp_path])
    copy = shutil.copytree(three[1], tmp_path / "copy")
    run = json.loads((copy / "run.json").read_text())
    write_json(copy / "run.json", run | {"status": "running"})
    with pytest.raises(InputError, match="not complete"):
        compare_models([three[0], copy])
    write_json(copy / "run.json", run)
    (copy / "summary.json").unlink()
    with pytest.raises(InputError, match="unswayed analyze"):
        compare_models([three[0], copy])
    (copy / "answers.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="damaged"):
        compare_models([three[0], copy])


def test_mixed_models_and_margins_are_refused(three, tmp_path):
    copy = shutil.copytree(three[1], tmp_path / "copy")
    policy = tmp_path / "strict.yaml"
    policy.write_text("margins: {gap: 2}\n")
    analyze(copy, policy=str(policy))
    with pytest.raises(InputError, match=r"different margins \(2 and 5 points\).* --policy"):
        compare_models([three[0], copy])
    rows = pq.read_table(copy / "answers.parquet").to_pylist()
    rows[0]["model"] = "another"
    write_table(rows, SCHEMA, copy / "answers.parquet")
    with pytest.raises(InputError, match="mixes rows of different models"):
        compare_models([three[0], copy])


def test_out_that_is_a_file_is_refused(three, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        write_comparison("models", three, file)
    assert file.read_text() == "mine"


# -- the page ------------------------------------------------------------------------------------


def test_page_shows_the_numbers_and_is_self_contained(found):
    data, out = found
    page = (out / "agreement.html").read_text("utf-8")
    text = shown(page)
    for pair in data["pairs"]:
        assert f"{100 * pair['equal']['estimate']:.1f} [{100 * pair['equal']['low']:.1f}, " in text
        assert f"{pair['kappa']['estimate']:.2f} [".replace("-", "−") in text
    for entry in data["models"]:
        assert entry["label"] in text
    assert page.count('<table class="map">') == 5  # four measures, and the items
    assert page.count("<table") == page.count("<caption")
    for tag in re.findall(r"<th\b[^>]*>", page):
        assert "scope=" in tag
    assert not re.search(r"\b(src|href|action|data)\s*=|url\(|@import|https?://", page)
    assert "default-src 'none'" in page
    assert not re.search(r"\b(nan|NaN|None|null)\b", text)
    assert not list(out.glob("*.partial"))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_foreign_names_are_escaped(tmp_path):
    evil = "<img src=x>|e"
    dirs = [made(tmp_path / str(i), model(str(i)), evil + str(i), emotions(3)) for i in range(2)]
    page_of(dirs, out := tmp_path / "out")
    assert "<img" not in (out / "agreement.html").read_text("utf-8")
    markdown = (out / "agreement.md").read_text("utf-8")
    assert not re.search(r"(?<!\\)<[a-z]", markdown)


def test_the_same_runs_give_the_same_bytes(three, found, tmp_path):
    write_comparison("models", three, tmp_path / "again")
    for name in ("agreement.json", "agreement.md", "agreement.html"):
        assert (tmp_path / "again" / name).read_bytes() == (found[1] / name).read_bytes()


def test_what_differs_decides(three, found, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", *map(str, three), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"Report: {out / 'agreement.html'}\n"
    for path in found[1].iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    other = shutil.copytree(three[0], tmp_path / "other")
    assert kind_of([three[0], other]) == "memories"  # nothing differs, which that refuses
    run = json.loads((other / "run.json").read_text())
    run["identity"] |= {"memory": "plum", "memory_style": ""}
    write_json(other / "run.json", run)
    assert kind_of([three[0], other]) == "memories"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "result.json").touch()
    assert kind_of([tmp_path / "a", tmp_path / "b"]) == "settings"
