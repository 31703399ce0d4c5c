"""Trees: read back by `datasets` as declared, written at once, and the same to the byte."""

from __future__ import annotations

import os
from pathlib import Path

import datasets
import pytest
import yaml
from datasets import Dataset, Features, Value

from unswayed.audit.trials import SCHEMA
from unswayed.core.errors import InputError
from unswayed.data.items import load_items
from unswayed.datasets import trees
from unswayed.datasets.arguments import ItemArguments
from unswayed.datasets.persona_sets import (
    CONFIGS,
    PERSONA_FEATURES,
    TRIAL_FEATURES,
    choose_configs,
    item_tree,
    persona_tree,
    prompts_hash,
    trial_rows,
)
from unswayed.datasets.trees import Tree, card_metadata, check_tables, size_category, write_tree
from unswayed.tasks.persona import utils

FIRST = {"understanding": 45, "management": 44}  # items that are read; there are more
N_USERS = {"none": 1, "neutral": 30, "explicit": 60, "grid": 81}


def items(kind: str = "understanding", **changes) -> Tree:
    settings = {"items": f"{kind}:{FIRST[kind]}"} | changes
    return item_tree(kind, ItemArguments(**settings), "python x.py")


def table(*values: str, **more: str) -> Dataset:
    columns = {"text": list(values)} | {name: [value] * len(values) for name, value in more.items()}
    return Dataset.from_dict(columns, Features({name: Value("string") for name in columns}))


def small(name: str = "toy", **tables: Dataset) -> Tree:
    tables = tables or {"one": table("a", "b")}
    return Tree(name, {c: {"test": t} for c, t in tables.items()}, {"license": "mit"}, {}, "# Toy")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# -- what is in them -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["understanding", "management"])
def test_every_config_reads_back_with_the_declared_features(tmp_path: Path, kind: str):
    tree = write_tree(items(kind), tmp_path / "tree")

    assert sorted(datasets.get_dataset_config_names(str(tree))) == sorted(CONFIGS)
    for config, n_users in N_USERS.items():
        read = datasets.load_dataset(str(tree), config, cache_dir=str(tmp_path / "cache"))
        assert list(read) == ["test"]
        assert read["test"].features == TRIAL_FEATURES
        assert len(read["test"]) == n_users * FIRST[kind]
        assert set(read["test"]["kind"]) == {kind}
    info = {entry["config_name"]: entry for entry in card_metadata(tree)["dataset_info"]}
    assert info["grid"]["splits"][0]["num_examples"] == 81 * FIRST[kind]
    assert info["grid"]["download_size"] == sum(f.stat().st_size for f in tree.glob("grid/*"))


def test_columns_are_those_of_the_answers():
    for field in TRIAL_FEATURES.arrow_schema:
        assert field.type == SCHEMA.field(field.name).type
    answers = {
        "prompt",
        "answer",
        "correct",
        "score",
        "flip",
        "rule",
        "raw_text",
        "parsed",
        "model",
    }
    scores = {"scores", "tokens", "priors", "listed"}
    answers |= {f"option_{name}" for name in scores} | {"order_scores", "letter_mass"}
    assert {*SCHEMA.names} - {*TRIAL_FEATURES} == answers | {"blind_answer"}


def test_rows_pair_and_carry_the_cells_attributes():
    tables = items().tables
    explicit, grid = tables["explicit"]["test"].to_pandas(), tables["grid"]["test"].to_pandas()

    assert (explicit.groupby(["question_id", "pair_id"])["condition"].nunique() == 2).all()
    assert explicit["gender"].isna().all() and explicit["system_prompt"].notna().all()
    cells = grid[["gender", "age", "religion", "ethnicity"]].drop_duplicates()
    assert len(cells) == 81 and grid["pair_id"].isna().all()
    (none,) = tables["none"].values()
    assert set(none["system_prompt"]) == {None} and set(none["memory"]) == {"none"}
    for row in none:
        assert row["weights"][row["options"].index(row["gold_label"])] == max(row["weights"])


@pytest.mark.parametrize("kind", ["understanding", "management"])
@pytest.mark.parametrize("scoring", ["option", "letter", "generate"])
def test_the_tasks_of_lm_eval_ask_the_same(kind: str, scoring: str):
    tables = items(kind, scoring=scoring, seed=3, configs=["none", "neutral", "explicit"]).tables
    rows = {
        (row["question_id"], row["condition"], row["pair_id"]): row
        for splits in tables.values()
        for row in splits["test"]
    }
    docs = utils.load_docs(kind, scoring, f"{kind}:{FIRST[kind]}", pairs=30, seed=3)["test"]

    assert len(docs) == len(rows)
    for doc in docs:
        id = doc["question_id"].removeprefix(f"{kind}/")
        row = rows[id, doc["condition"], doc["pair_id"]]
        assert (row["system_prompt"] or "", row["user_prompt"]) == (
            doc["system_prompt"],
            doc["user_prompt"],
        )
        assert [row["options"][i] for i in row["option_order"]] == doc["shown"]
        assert (row["gold_label"], row["weights"]) == (doc["gold_label"], doc["weights"])


def test_profiles_read_back_and_are_those_of_the_test_sets(tmp_path: Path):
    tree = write_tree(persona_tree(configs=None, command="x"), tmp_path / "tree")
    for config, n in (("neutral", 30), ("explicit", 60), ("grid", 81)):
        read = datasets.load_dataset(
            str(tree), config, split="test", cache_dir=str(tmp_path / "cache")
        )
        assert read.features == PERSONA_FEATURES and len(read) == n
        memories = {row["persona_id"]: row["system_prompt"] for row in read}
        trials = trial_rows(load_items(["understanding:1"]), config, "option", 0)
        assert memories == {row["persona_id"]: row["system_prompt"] for row in trials}
        slot = read[0]["slots"][0]
        assert "{" in slot["template"] and "{" not in slot["third_person"] + slot["first_person"]


def test_the_card_says_how_it_was_made(tmp_path: Path):
    tree = write_tree(items(seed=7, scoring="letter"), tmp_path / "tree")
    card, metadata = (tree / "README.md").read_text("utf-8"), card_metadata(tree)

    assert metadata["license"] == "apache-2.0"
    mark = metadata["unswayed"]
    assert (mark["dataset"], mark["seed"], mark["scoring"]) == ("persona_steu", 7, "letter")
    rows = trial_rows(load_items(["understanding:45"]), "grid", "letter", 7)
    assert mark["prompts_sha256"]["grid"] == prompts_hash(rows)
    for word in (prompts_hash(rows), mark["items_sha256"], "| 3645 | 81 | 45 |", "seed 7",
                 "## Misuse", "sensitive attributes", "All users are invented", "## Licence",
                 "arXiv:2510.09905", "python x.py"):  # fmt: skip
        assert word in card


def test_citation_is_that_of_the_repository():
    cff = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text("utf-8"))
    paper = cff["references"][0]
    cited = items(configs=["none"]).body.partition("## Citation")[2]
    for text in (cff["title"], paper["title"], str(paper["year"]), "arXiv:2510.09905"):
        assert text in cited


# -- whole or not there --------------------------------------------------------------------------


def test_same_input_same_bytes(tmp_path: Path):
    first = write_tree(items(configs=["grid", "none"]), tmp_path / "a")
    second = write_tree(items(configs=["none", "grid"]), tmp_path / "b" / "c")
    assert contents(first) == contents(second)


def test_an_older_tree_of_the_same_dataset_is_replaced(tmp_path: Path):
    write_tree(small(one=table("a"), two=table("b")), tmp_path / "tree")
    write_tree(small(one=table("c")), tmp_path / "tree")
    assert [*contents(tmp_path / "tree")].count("README.md") == 1
    assert {*contents(tmp_path / "tree")} == {"README.md", "one/test-00000-of-00001.parquet"}
    assert os.listdir(tmp_path) == ["tree"]


def test_what_is_not_ours_is_never_replaced(tmp_path: Path):
    out = tmp_path / "tree"
    write_tree(small("other"), out)
    before = contents(out)
    with pytest.raises(InputError, match="holds no tree of toy: name another folder"):
        write_tree(small(), out)
    assert contents(out) == before

    out = write_tree(small(), tmp_path / "noted")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt, which is no part of the tree of toy"):
        write_tree(small(), out)
    assert (out / "notes.txt").read_text() == "mine"

    for content in (
        "",
        "no card",
        "---\nunswayed: 3\n---\n",
        "---\n[: -\n---\n",
        "---\n- a\n---\n",
    ):
        folder = tmp_path / "foreign"
        folder.mkdir(exist_ok=True)
        (folder / "README.md").write_text(content)
        with pytest.raises(InputError, match="is not empty"):
            write_tree(small(), folder)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is not a folder"):
        write_tree(small(), tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert write_tree(small(), tmp_path / "empty").is_dir()


@pytest.mark.parametrize("moment", ["card", "rename"])
def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch, moment: str):
    out = write_tree(small(), tmp_path / "tree")
    before = contents(out)

    def fail(*_):
        raise OSError("No space left on device")

    if moment == "card":
        monkeypatch.setattr(trees, "write_text", fail)
    else:
        rename = Path.rename
        monkeypatch.setattr(
            Path, "rename", lambda p, to: fail() if p.name == "new" else rename(p, to)
        )
    for target in (out, tmp_path / "fresh"):
        with pytest.raises(OSError, match="No space"):
            write_tree(small(one=table("z")), target)
    assert contents(out) == before
    assert os.listdir(tmp_path) == ["tree"]


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (table("a", more="b"), "config two has the column more, which one lacks"),
        (Dataset.from_dict({"text": [1]}), r"column text is Value\('string'\) in config one but"),
        (table("a").rename_column("text", "t"), "config two lacks the column text, which one has"),
        (table(), "config two, split test: no row is left"),
    ],
)
def test_tables_unfit_to_publish(tmp_path: Path, other: Dataset, message: str):
    with pytest.raises(InputError, match=message):
        write_tree(small(one=table("a"), two=other), tmp_path / "tree")
    assert not any(tmp_path.iterdir())


def test_order_of_columns_counts_and_so_do_empty_datasets():
    one, two = table("a", more="b"), table("a", more="b").select_columns(["more", "text"])
    with pytest.raises(InputError):
        check_tables({"one": {"test": one}, "two": {"test": two}})
    with pytest.raises(InputError, match="no config"):
        check_tables({})
    with pytest.raises(InputError, match="config one has no split"):
        check_tables({"one": {}})


def test_configs_are_chosen_in_our_order():
    assert choose_configs(["grid", "none", "grid"], CONFIGS) == ["none", "grid"]
    assert choose_configs(None, CONFIGS) == [*CONFIGS]
    with pytest.raises(InputError, match="--configs 'all' is not one of none, neutral, explicit"):
        choose_configs(["none", "all"], CONFIGS)


def test_items_of_the_other_kind_are_refused():
    with pytest.raises(InputError, match="44 of 89 items ask for management, the first is em_01"):
        items(items="builtin:89")
    with pytest.raises(InputError, match="--scoring 'sum'"):
        items(scoring="sum")


def test_size_categories():
    categories = [size_category(n) for n in (999, 1_000, 10_000, 999_999, 1_000_000)]
    assert categories == ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "n>1M"]


def test_the_task_of_the_docs_reads_a_tree(tmp_path: Path, monkeypatch):
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    docs = Path(__file__).parents[2] / "docs" / "datasets.md"
    text = docs.read_text("utf-8").split("```yaml\n")[1].split("```")[0]
    tree = write_tree(items(configs=["none", "explicit"]), tmp_path / "tree")
    (tmp_path / "task.yaml").write_text(text.replace("me/persona_steu", str(tree)))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    task = manager.load_task_or_group("persona_steu_explicit")["persona_steu_explicit"]
    (doc, *rest) = task.test_docs()
    assert len(rest) == 2699
    assert task.doc_to_text(doc) == doc["user_prompt"]
    assert doc["options"][int(task.doc_to_target(doc))] == doc["gold_label"]
