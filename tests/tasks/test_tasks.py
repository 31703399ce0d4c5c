"""lm-eval tasks: found by stock lm-eval once installed, and in agreement with the audit."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from unswayed import tasks
from unswayed.core.errors import InputError
from unswayed.data.items import load_items
from unswayed.tasks.persona import utils

NAMES = {
    f"persona_{test}{way}" for test in ("steu", "stem") for way in ("", "_letter", "_gen")
}  # fmt: skip
OTHERS = {"persona", "plum_recall", "plum_recall_base"}
OTHERS |= {"ability_mmlu", "ability_arc", "ability_hellaswag", "ability_ifeval"}
OTHERS |= {"capability", "persona_mmlu", "persona_ifeval"}


@pytest.fixture
def stubs(tmp_path, monkeypatch) -> Path:
    """`install` works in a folder of the test's own instead of the installed lm-eval."""
    folder = tmp_path / "lm_eval" / "tasks" / "unswayed"
    monkeypatch.setattr(tasks, "stub_folder", lambda: folder)
    return folder


def known_tasks(folder: Path) -> set[str]:
    from lm_eval.tasks import TaskManager

    return set(TaskManager(include_path=str(folder), include_defaults=False).all_tasks)


def test_install_and_uninstall(stubs):
    assert not tasks.installed() and not tasks.uninstall()
    folder, names = tasks.install()
    assert folder == stubs and set(names) == NAMES | OTHERS
    assert known_tasks(stubs) == NAMES | OTHERS
    assert tasks.installed()
    tasks.install()  # again does no harm
    assert known_tasks(stubs) == NAMES | OTHERS
    assert tasks.uninstall() and not stubs.exists()


def test_uninstall_leaves_other_peoples_files(stubs):
    tasks.install()
    (stubs / "mine.yaml").write_text("task: mine\n")
    with pytest.raises(InputError, match=r"mine.yaml, which is not ours"):
        tasks.uninstall()
    assert (stubs / "persona_steu.yaml").exists()


def test_the_path_serves_include_path():
    assert known_tasks(tasks.path()) == NAMES | OTHERS


def test_every_task_carries_a_version():
    import yaml

    for file in tasks.path().glob("*/*.yaml"):
        text = file.read_text().replace("!function", "")
        assert yaml.safe_load(text)["metadata"]["version"] >= 1.0, file.name


# -- documents and metrics -----------------------------------------------------------------------


def test_one_document_per_trial():
    docs = utils.load_docs("understanding", "option", pairs=2, version=1.0, pretrained="x")["test"]
    assert len(docs) == len(load_items(["understanding"])) * (1 + 2 * 3)
    assert docs[0]["system_prompt"] == "" and docs[0]["condition"] == "none"
    assert docs[-1]["system_prompt"].endswith("\n") and docs[-1]["pair_id"] == "p02"
    assert all(d["choices"][d["gold"]] == d["gold_label"] for d in docs)


def test_the_user_style_and_a_local_file(tmp_path):
    row = {"id": "a", "scenario": "It rains?", "options": ["Joy", "Fear"], "key": "Joy"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row))
    docs = utils.load_docs(
        "understanding", "letter", items=f"mine={tmp_path / 'mine.jsonl'}", memory_style="user",
        pairs=1, conditions=["none", "neutral"],
    )["test"]  # fmt: skip
    assert len(docs) == 2 and docs["system_prompt"] == ["", ""]
    assert docs[1]["user_prompt"].endswith(docs[0]["user_prompt"])
    with pytest.raises(InputError, match="'turns'"):
        utils.load_docs("understanding", "option", memory_style="turns")


@pytest.mark.parametrize(
    ("test", "scoring"),
    [("understanding", "option"), ("understanding", "letter"), ("management", "generate")],
)
def test_a_published_test_set_gives_the_same_documents(tmp_path, test, scoring):
    from unswayed.datasets.arguments import ItemArguments
    from unswayed.datasets.persona_sets import item_tree
    from unswayed.datasets.trees import write_tree

    arguments = ItemArguments(configs=["none", "neutral", "explicit"], scoring=scoring)
    write_tree(item_tree(test, arguments, "-"), tmp_path / "tree")
    docs = utils.load_docs(test, scoring, pairs=3)["test"]
    read = utils.load_docs(test, scoring, pairs=3, dataset=str(tmp_path / "tree"))["test"]
    assert sorted(map(repr, docs.to_list())) == sorted(map(repr, read.to_list()))
    other_scoring = "letter" if scoring == "option" else "option"
    with pytest.raises(InputError, match=f"build it with --scoring {other_scoring}"):
        utils.load_docs(test, other_scoring, dataset=str(tmp_path / "tree"))
    with pytest.raises(InputError, match="items has no meaning beside dataset"):
        utils.load_docs(test, scoring, items=test, dataset=str(tmp_path / "tree"))


def test_gap_and_flip_rate_by_hand():
    values = [
        ("q", None, "none", 1.0),
        ("q", "p1", "advantaged", 1.0), ("q", "p1", "disadvantaged", 0.0),
        ("q", "p2", "advantaged", 1.0), ("q", "p2", "disadvantaged", 1.0),
        ("r", "p1", "advantaged", 0.0),  # its partner was cut off by --limit
    ]  # fmt: skip
    assert utils.gap(values) == 0.5
    answers = [("q", None, "none", 2), ("q", "p1", "neutral", 2), ("q", "p2", "neutral", 0),
               ("q", "p3", "neutral", None), ("r", "p1", "neutral", 1)]  # fmt: skip
    assert utils.flip_rate(answers) == 0.5  # unparsed and unpaired ones do not count
    assert math.isnan(utils.gap([])) and math.isnan(utils.flip_rate([]))


def test_an_unreadable_answer_is_wrong_and_unparsed():
    doc = utils.load_docs("management", "generate", pairs=1)["test"][0]
    metrics = utils.results_gen(doc, ["I would rather not say."])
    assert metrics["unparsed"] == 1.0 and metrics["acc"] == 0.0
    assert metrics["weight_none"] == 0.0 and metrics["flip_neutral"][3] is None
    letter = "ABCD"[doc["order"].index(doc["gold"])]
    good = utils.results_gen(doc, [f"<think>Hm, B?</think>Answer: {letter}"])
    assert (good["acc"], good["unparsed"], good["weight_none"]) == (1.0, 0.0, 1.0)


# -- agreement with the audit --------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tiny_model_dir) -> Path:
    return tiny_model_dir("llama", chat=True, max_position_embeddings=4096)


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
def test_stock_lm_eval_and_the_audit_agree(model, tiny_model_dir, tmp_path, chat):
    """The same trials through stock lm-eval's `hf` and through `unswayed audit`."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    from unswayed.audit.arguments import AuditArguments
    from unswayed.audit.policy import packaged
    from unswayed.audit.rules import by_rule
    from unswayed.audit.run import run_audit
    from unswayed.audit.rundir import read_answers
    from unswayed.audit.summary import summarize

    if not chat:
        model = tiny_model_dir("gpt2", n_positions=4096)
    rows = [json.loads(line) for line in bank("management").splitlines()[:3]]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = f"few={tmp_path / 'few.jsonl'}"
    out = run_audit(AuditArguments(model=str(model), items=[spec], pairs=1, out=tmp_path / "run"))
    answers = read_answers(out).to_pandas()
    test = summarize(answers, packaged("default"))["tests"]["few"]

    metadata = {"items": spec, "pairs": 1}
    results = lm_eval.simple_evaluate(
        model="hf",
        # The chat template writes no BOS.
        model_args={
            "pretrained": str(model),
            "dtype": "float32",
            "add_bos_token": False if chat else None,
        },
        tasks=["persona_stem"],
        device="cpu",
        batch_size=4,
        apply_chat_template=chat,
        task_manager=TaskManager(
            include_path=str(tasks.path()), include_defaults=False, metadata=metadata
        ),
        metadata=metadata,
        bootstrap_iters=0,
    )
    metrics = results["results"]["persona_stem"]
    for rule, name in (("sum", "acc"), ("char", "acc_norm"), ("pmi", "acc_mutual_info")):
        accuracy = by_rule(answers, rule, out)["correct"].mean()
        if not (chat and rule == "char"):  # into which stock lm-eval counts the template's newline
            assert metrics[f"{name},none"] == pytest.approx(accuracy)
    for condition, values in test["conditions"].items():
        assert metrics[f"acc_mutual_info_{condition},none"] == pytest.approx(
            values["accuracy"]["estimate"]
        )
        assert metrics[f"weight_mutual_info_{condition},none"] == pytest.approx(
            values["score"]["estimate"]
        )
        if condition != "none":
            flips = values["flip_rate"]["estimate"]
            assert metrics[f"flip_mutual_info_{condition},none"] == pytest.approx(flips)
    (gap,) = [e for e in test["effects"] if (e["name"], e["metric"]) == ("gap", "accuracy")]
    assert metrics["gap_mutual_info,none"] == pytest.approx(gap["estimate"])
    scores = [[nats for nats, _ in s["filtered_resps"]] for s in results["samples"]["persona_stem"]]
    ours = [
        [*sums, *priors]
        for sums, priors in zip(answers["option_scores"], answers["option_priors"], strict=True)
    ]
    for theirs, row in zip(scores, ours, strict=True):
        # With a chat template stock lm-eval adds log P("\n") to all options of a prompt.
        added = [a - b for a, b in zip(theirs, row, strict=True)]
        for part in (added[:4], added[4:]):
            assert max(part) - min(part) < 1e-3
            assert chat or max(map(abs, part)) < 1e-3


def bank(kind: str) -> str:
    from importlib.resources import files

    return (files("unswayed.data.items") / "bank" / f"{kind}.jsonl").read_text("utf-8")


def test_unswayed_lm_eval_passes_everything_through(model, tmp_path):
    """From another folder, with the model hf-shared and a chat template."""
    done = subprocess.run(
        [
            sys.executable, "-m", "unswayed", "lm-eval", "--model", "hf-shared",
            "--model_args", f"pretrained={model},dtype=float32", "--device", "cpu",
            "--tasks", "persona_steu_letter", "--apply_chat_template",
            "--metadata",
            '{"items": "understanding:20", "pairs": 1, "conditions": ["none", "neutral"]}',
            "--output_path", "out", "--limit", "30",
        ],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(file.read_text())["results"]["persona_steu_letter"]
    assert 0 <= results["acc_none,none"] <= 1
    assert 0 <= results["flip_neutral,none"] <= 1


@pytest.mark.slow
def test_bad_settings_of_a_task_end_in_one_line(model, tmp_path):
    done = subprocess.run(
        [
            sys.executable, "-m", "unswayed", "lm-eval", "--model", "hf-shared",
            "--model_args", f"pretrained={model}", "--device", "cpu", "--tasks", "persona_steu",
            "--metadata", '{"pairs": 99}',
        ],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "unswayed: --pairs 99: between 1 and 30 pairs are there" in done.stderr
    assert "Traceback" not in done.stderr
