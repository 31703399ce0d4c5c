"""The tree of preference pairs: rows, splits, card.

The policy is a tiny random model, whose rewards mean nothing but are always the same.
"""

from __future__ import annotations

import json

import datasets
import pytest
from chat_service import completion, serving

from unswayed.core.errors import InputError
from unswayed.datasets.preference_sets import preference_tree
from unswayed.datasets.trees import card_metadata, write_tree
from unswayed.mitigation.preferences.settings import PreferenceSettings


@pytest.fixture(scope="module", autouse=True)
def key():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-very-secret")
        yield


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


def answering(number: int, body: dict) -> dict:
    """Two sentences, the second cut off; every tenth question gets the same under a memory."""
    *system, user = (message["content"] for message in body["messages"])
    moved = len(system[0]) if system and len(user) % 10 else 0
    return completion(content=f"Of {len(user)} letters, {moved} are about somebody. And the")


@pytest.fixture(scope="module")
def own(settings, tmp_path_factory):
    with serving(answering) as service:
        chosen = settings(
            constructed=0, own=2, questions=["builtin", "feelings"], spare_pairs=20,
            generator="writer", generator_backend="local-chat-completions",
            generator_args=f"base_url={service.url},num_concurrent=4,max_retries=1",
            work_dir=str(tmp_path_factory.mktemp("own")),
        )  # fmt: skip
        return tree_of(chosen, tmp_path_factory.mktemp("out") / "own")


def test_own_answers_have_a_config_and_nobody_judges_them(own):
    splits = datasets.load_dataset(str(own), "own")
    chosen: dict[str, set[str]] = {}
    rows = [*splits["train"], *splits["test"]]
    for row in rows:
        (better,), (worse,) = row["chosen"], row["rejected"]
        assert better["content"].endswith(" 0 are about somebody.") and better != worse
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        assert (row["source"], row["chosen_kind"]) == ("own", "own_without")
        assert row["reward"] is row["chosen_reward"] is row["rejected_reward"] is None
        assert row["pair_id"] > "p20" and row["tokens"] <= 1024 and row["shared_words"] == 0
        chosen.setdefault(row["question_id"], set()).add(better["content"])
    assert all(len(texts) == 1 for texts in chosen.values())
    assert {row["category"] == "feelings" for row in rows} == {True, False}
    assert all((row["reference"] is None) == (row["category"] == "feelings") for row in rows)
    assert {row["condition"] for row in rows} == {"neutral", "advantaged", "disadvantaged"}


def test_the_card_says_what_an_own_pair_claims(own, tree):
    text = (own / "README.md").read_text("utf-8")
    assert [config["config_name"] for config in card_metadata(own)["configs"]] == ["own"]
    facts = card_metadata(own)["unswayed"]
    assert facts["generator"] == "writer" and facts["reward"] is None
    assert "where the memory should not matter" in text and "stays wrong" in text
    assert "| prompts | own | 80 | 80 |" in text and "the memory does not change the" in text
    assert "prompts on feelings" in text and "highest cosine" in text
    assert "Judge:" not in text and "Judged pairs" not in text
    assert "## Own answers" not in (tree / "README.md").read_text("utf-8")


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
    with pytest.raises(InputError, match="is not one of sampled, constructed, own"):
        tree_of(settings(), tmp_path / "tree", configs=["mixed"])
    with pytest.raises(InputError, match="pairs is for training in sampled"):
        tree_of(settings(), tmp_path / "tree", configs=["sampled"])
    assert not (tmp_path / "tree").exists()
