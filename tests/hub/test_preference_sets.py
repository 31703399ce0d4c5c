"""The tree of preference pairs: rows, splits, card.

The policy is a tiny random model, whose rewards mean nothing but are always the same.
"""

from __future__ import annotations

import json
from collections import Counter

import datasets
import pytest

from unswayed.errors import InputError
from unswayed.hub.preference_sets import preference_tree
from unswayed.hub.trees import card_metadata, write_tree
from unswayed.mitigation.dpo.pairs import (
    GROUPS,
    group_numbers,
    in_groups,
    largest_group,
    read_splits,
)
from unswayed.mitigation.preferences.settings import PreferenceSettings


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_model_dir):
    tiny = str(tiny_model_dir("llama", chat=True))
    work = tmp_path_factory.mktemp("work")

    def make(**more) -> PreferenceSettings:
        fixed = {"sampled": 0, "constructed": 4, "n_questions": 40, "test_share": 0.3}
        fixed |= {"policy": tiny, "embedder": tiny, "margin": 0.0, "work_dir": str(work)}
        return PreferenceSettings(**(fixed | {"similarity": 1.0} | more))

    return make


def tree_of(settings, out, configs=None, license_statement=None):
    tree = preference_tree(
        settings, configs=configs, license_statement=license_statement, command="python build.py"
    )
    return write_tree(tree, out)


@pytest.fixture(scope="module")
def tree(settings, tmp_path_factory):
    return tree_of(settings(), tmp_path_factory.mktemp("out") / "tree")


def test_rows_are_conversations_with_role_and_content_only(tree):
    splits = datasets.load_dataset(str(tree), "constructed")
    assert set(splits) == {"train", "test"}
    for row in [*splits["train"], *splits["test"]]:
        assert [m["role"] for m in row["prompt"]] == ["system", "user"]
        for side in ("chosen", "rejected"):
            assert [m["role"] for m in row[side]] == ["assistant"]
            assert all(set(m) == {"role", "content"} for m in row["prompt"] + row[side])
        assert row["chosen"] != row["rejected"] and row["source"] == "constructed"
        assert row["chosen_reward"] > 0 > row["rejected_reward"]
        assert row["tokens"] <= 1024 and row["shared_words"] == 0


def test_train_and_test_share_no_question(tree):
    splits = datasets.load_dataset(str(tree), "constructed")
    train, test = (set(splits[name]["question_id"]) for name in ("train", "test"))
    assert train and test and not train & test


def test_a_source_without_pairs_is_no_config(tree):
    metadata = card_metadata(tree)
    assert [config["config_name"] for config in metadata["configs"]] == ["constructed"]


@pytest.fixture(scope="module")
def grouped(settings, tmp_path_factory):
    work = str(tmp_path_factory.mktemp("groups"))
    chosen = settings(constructed=2, consistent=1, n_questions=20, work_dir=work)
    return tree_of(chosen, tmp_path_factory.mktemp("out") / "grouped")


def test_a_group_has_a_row_for_each_memory_and_is_in_one_split(grouped):
    splits = datasets.load_dataset(str(grouped), "consistent")
    rows = [row | {"split": name} for name, table in splits.items() for row in table]
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["question_id"], row["pair_id"]), []).append(row)
    assert len(groups) == 20 and {row["split"] for row in rows} == {"train", "test"}
    for some in groups.values():
        conditions = [row["condition"] for row in some]
        assert conditions == ["none", "neutral", "advantaged", "disadvantaged"]
        assert len({(row["split"], row["chosen"][0]["content"]) for row in some}) == 1
        bare, *known = some
        assert [m["role"] for m in bare["prompt"]] == ["user"] and bare["persona_id"] is None
        for row in known:
            assert [m["role"] for m in row["prompt"]] == ["system", "user"]
            assert row["prompt"][-1] == bare["prompt"][-1]
        assert len({row["prompt"][0]["content"] for row in some}) == 4


@pytest.mark.parametrize("batch_size", [4, 8])
def test_the_dpo_trainer_finds_the_groups(grouped, batch_size):
    for pairs in read_splits(str(grouped), "consistent").values():
        assert largest_group(pairs) == 4
        numbers = group_numbers(in_groups(pairs, GROUPS["by_question"], batch_size, seed=0))
        for i in range(0, len(numbers), batch_size):
            assert set(Counter(numbers[i : i + batch_size]).values()) == {4}


def test_the_card_explains_groups_where_there_are_some(grouped, tree):
    text = (grouped / "README.md").read_text("utf-8")
    configs = [config["config_name"] for config in card_metadata(grouped)["configs"]]
    assert configs == ["constructed", "consistent"]
    assert "## Groups" in text and "| prompts | consistent | 80 | 80 |" in text
    assert "consistent" not in (tree / "README.md").read_text("utf-8")


def test_the_card_has_the_funnel_and_what_made_it(tree):
    metadata, text = card_metadata(tree), (tree / "README.md").read_text("utf-8")
    facts = metadata["unswayed"]
    assert facts["dataset"] == "persona_preferences" and facts["reward"] == "reference margin"
    assert metadata["license"] == "apache-2.0"
    first, *_, last = facts["funnel"]
    assert first["rows_in"] == 40
    rows = datasets.load_dataset(str(tree), "constructed")
    assert last["rows_out"] == len(rows["train"]) + len(rows["test"])
    for passage in facts["funnel"]:
        assert f"| {passage['stage']} | {passage['source']} | {passage['rows_in']:,} |" in text
    for words in ("Intended use", "Misuse", "Personal data", "highest cosine", "python build.py"):
        assert words in text


def test_building_again_gives_the_same_bytes(settings, tree, tmp_path):
    again = tree_of(settings(work_dir=str(tmp_path / "work")), tmp_path / "again")
    files = sorted(p.relative_to(tree) for p in tree.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert all((tree / f).read_bytes() == (again / f).read_bytes() for f in files)


def test_questions_of_the_users_own_have_no_licence_until_one_is_stated(settings, tmp_path):
    file = tmp_path / "mine.jsonl"
    rows = [{"question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(2, 60)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    own = settings(questions=[f"mine={file}"], work_dir=str(tmp_path / "work"))
    bare = tree_of(own, tmp_path / "bare")
    text = (bare / "README.md").read_text("utf-8")
    assert "license" not in card_metadata(bare) and "must not be published" in text
    assert "`mine`: mine.jsonl (SHA-256 of the file" in text and str(tmp_path) not in text
    stated = tree_of(own, tmp_path / "stated", license_statement="Mine; CC BY 4.0.")
    assert card_metadata(stated)["license_name"] == "stated-in-the-card"
    assert "> Mine; CC BY 4.0." in (stated / "README.md").read_text("utf-8")


def test_a_config_of_nothing_is_refused(settings, tmp_path):
    with pytest.raises(InputError, match="is not one of sampled, constructed, consistent"):
        tree_of(settings(), tmp_path / "tree", configs=["mixed"])
    with pytest.raises(InputError, match="pairs is for training in sampled"):
        tree_of(settings(), tmp_path / "tree", configs=["sampled"])
    assert not (tmp_path / "tree").exists()
