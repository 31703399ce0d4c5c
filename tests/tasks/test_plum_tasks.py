"""lm-eval tasks plum_recall and ability_*: the documents, and agreement with our own scoring."""

from __future__ import annotations

import csv
import importlib.util
import json
import logging
from pathlib import Path

import datasets
import pytest

from unswayed import tasks
from unswayed.core.errors import InputError
from unswayed.data.conversations import builtin_facts
from unswayed.memory.baselines import SummaryMemory
from unswayed.memory.retrieval import RetrievalMemory
from unswayed.plum.ability import check_ability
from unswayed.plum.qa import CLOSED, bank_pairs
from unswayed.plum.recall import recall, summarise


def load_utils(family: str):
    """As lm-eval loads it: by its path."""
    spec = importlib.util.spec_from_file_location(
        f"{family}_utils", tasks.path() / family / "utils.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plum, ability = load_utils("plum"), load_utils("ability")


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


# -- plum_recall ---------------------------------------------------------------------------------


def test_one_document_per_closed_held_out_question():
    docs = plum.load_docs(version=1.0, pretrained="x")["test"]
    facts = builtin_facts()
    assert len(docs) == 2 * len(facts) == 272 and set(docs["system_prompt"]) == {""}
    gold = {doc["question"]: ["Yes", "No"][doc["gold"]] for doc in docs}
    assert gold == {f.held_out_yes: "Yes" for f in facts} | {f.held_out_no: "No" for f in facts}


def test_a_memory_stands_in_the_system_prompt():
    from unswayed.data.conversations import builtin_conversations

    memory = RetrievalMemory(2)
    memory.remember_conversations(builtin_conversations())
    for doc in plum.load_docs(memory="bm25", k=2)["test"].select(range(5)):
        assert doc["system_prompt"] == memory.messages(doc["question"])[0]["content"]
    memory = SummaryMemory()
    memory.remember_conversations(builtin_conversations())
    docs = plum.load_docs(memory="summary")["test"]
    assert set(docs["system_prompt"]) == {memory.messages("?")[0]["content"]}
    assert len(plum.load_docs(memory="full")["test"][0]["system_prompt"].split()) > 5400
    with pytest.raises(InputError, match="memory 'plum' is not one of none, bm25"):
        plum.load_docs(memory="plum")


def test_a_published_tree_gives_the_same_documents(tmp_path):
    from unswayed.datasets.conversation_sets import conversation_tree
    from unswayed.datasets.trees import write_tree

    write_tree(conversation_tree(configs=None, command="-"), tmp_path / "tree")
    for settings in ({}, {"memory": "bm25"}):
        read = plum.load_docs(dataset=str(tmp_path / "tree"), **settings)["test"]
        assert read.to_list() == plum.load_docs(**settings)["test"].to_list()
    row = {
        "conversation_id": "a",
        "time": None,
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        "questions": [{"use": "train", "kind": "yes", "question": "?", "answer": "Yes"}],
    }
    datasets.Dataset.from_list([row]).to_parquet(tmp_path / "other" / "train.parquet")
    with pytest.raises(InputError, match="no closed questions"):
        plum.load_docs(dataset=str(tmp_path / "other"))


def test_metrics_of_one_document():
    doc = {"kind": "no"}
    assert plum.results(doc, [(-2.0, False), (-1.0, True)]) == {
        "acc": 1.0, "acc_no": 1.0, "said_yes": 0.0,
    }  # fmt: skip
    assert plum.results(doc, [(-1.0, False), (-1.0, True)])["said_yes"] == 0.0  # a tie
    assert plum.results({"kind": "yes"}, [(-1.0, True), (-2.0, False)])["acc_yes"] == 1.0


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
def test_stock_lm_eval_and_recall_agree(tiny_model_dir, tmp_path, chat):
    """The same questions, with BM25, through lm-eval's `hf` with an adapter and by `recall`."""
    import lm_eval
    from lm_eval.tasks import TaskManager
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from unswayed.data.conversations import builtin_conversations
    from unswayed.models.load import load_lm

    if chat:
        folder = str(tiny_model_dir("llama", chat=True, max_position_embeddings=4096))
    else:
        folder = str(tiny_model_dir("gpt2", n_positions=4096))
    config = LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    adapted.save_pretrained(tmp_path)
    n = 24
    metadata = {"memory": "bm25", "k": 1}
    task = "plum_recall" if chat else "plum_recall_base"
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": folder, "dtype": "float32", "peft": str(tmp_path)}
        | ({"add_bos_token": False} if chat else {}),  # the chat template writes none
        tasks=[task],
        device="cpu",
        batch_size=4,
        limit=n,
        apply_chat_template=chat,
        task_manager=TaskManager(
            include_path=str(tasks.path()), include_defaults=False, metadata=metadata
        ),
        metadata=metadata,
        bootstrap_iters=0,
    )
    memory = RetrievalMemory(1)
    memory.remember_conversations(builtin_conversations())
    pairs = [pair for pair in bank_pairs(builtin_facts())[1] if pair.kind in CLOSED][:n]
    rows = recall(load_lm(folder, adapter=str(tmp_path), device="cpu"), pairs, memory)
    ours = summarise(rows)
    stock = results["results"][task]
    assert stock["acc,none"] == pytest.approx(ours["closed"]["recall"])
    assert stock["acc_yes,none"] == pytest.approx(ours["yes"]["recall"])
    assert stock["acc_no,none"] == pytest.approx(ours["no"]["recall"])
    assert stock["said_yes,none"] == pytest.approx(ours["said_yes"])
    margins = [
        yes - no
        for (yes, _), (no, _) in (sample["filtered_resps"] for sample in results["samples"][task])
    ]
    assert [row["margin"] for row in rows] == pytest.approx(margins, abs=1e-3)
    assert len({row["text"] for row in rows}) == 2  # a model that says both


# -- ability -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mmlu(tmp_path_factory) -> Path:
    """Three subjects in the files' form; quotes, commas and line breaks in the texts."""
    folder = tmp_path_factory.mktemp("mmlu")
    for split, sizes in (("test", (7, 3, 5)), ("dev", (5, 5, 5))):
        (folder / split).mkdir()
        for subject, size in zip(("abstract_algebra", "law", "anatomy"), sizes, strict=True):
            with (folder / split / f"{subject}_{split}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["question", *(f"choice{i}" for i in range(4)), "answer"])
                for i in range(size):
                    question = f' {split} "{subject}", question\n{i}? '
                    writer.writerow([question, f"joy {i}", "fear, grief", "pride", "hope", i % 4])
    return folder


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
def test_mmlu_is_the_stock_task(mmlu, tmp_path, tiny_model_dir, chat):
    """Prompts and scores of lm-eval's mmlu_* with five examples, read from the same rows."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    from unswayed.models.load import load_lm

    parquet = tmp_path / "hub"
    for split in ("test", "dev"):
        rows = ability.mmlu_rows(str(mmlu), split)["abstract_algebra"]
        datasets.Dataset.from_list(rows).to_parquet(parquet / f"{split}.parquet")
    stock = Path(lm_eval.__file__).parent / "tasks" / "mmlu" / "default"
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "stock.yaml").write_text(
        f"include: {stock / 'mmlu_abstract_algebra.yaml'}\ntask: stock\ndataset_path: parquet\n"
        f"dataset_name: null\ndataset_kwargs:\n  data_files:\n"
        f"    test: {parquet / 'test.parquet'}\n    dev: {parquet / 'dev.parquet'}\n"
    )
    lm = load_lm(
        str(tiny_model_dir("llama", chat=True, max_position_embeddings=4096)), device="cpu"
    )
    metadata = {"mmlu": str(mmlu)}

    def samples(name, folder, shots):
        results = lm_eval.simple_evaluate(
            model=lm, tasks=[name], num_fewshot=shots, apply_chat_template=chat,
            fewshot_as_multiturn=False, metadata=metadata, bootstrap_iters=0,
            task_manager=TaskManager(
                include_path=str(folder), include_defaults=False, metadata=metadata
            ),
        )  # fmt: skip
        return sorted(results["samples"][name], key=lambda sample: sample["doc_id"])

    ours = samples("ability_mmlu", tasks.path(), None)[:7]
    theirs = samples("stock", tmp_path / "tasks", 5)
    assert len(theirs) == 7 and ours[0]["doc"]["subject"] == "abstract_algebra"
    for mine, expected in zip(ours, theirs, strict=True):
        assert mine["arguments"][0][0] == expected["arguments"][0][0]  # the prompt
        scores, reference = (
            [ll for ll, _ in sample["filtered_resps"]] for sample in (mine, expected)
        )
        assert scores == pytest.approx(reference, abs=1e-4) and mine["acc"] == expected["acc"]


def test_questions_are_drawn_evenly_and_by_seed(mmlu):
    def subjects(**settings):
        docs = ability.load_mmlu(str(mmlu), **settings)["test"]
        return docs["prompt"], [docs["subject"].count(s) for s in ("abstract_algebra", "law")]

    everything, counts = subjects()
    assert counts == [7, 3] and len(everything) == 15
    some, counts = subjects(questions=9)
    assert counts == [3, 3] and set(some) < set(everything)
    assert some == subjects(questions=9)[0] != subjects(questions=9, seed=1)[0]
    assert subjects(questions=13)[1] == [5, 3]  # law has no more
    assert len(subjects(questions=10)[0]) == 10
    with pytest.raises(InputError, match="questions is 16: between 1 and 15"):
        ability.load_mmlu(str(mmlu), questions=16)
    no_examples = ability.load_mmlu(str(mmlu), shots=0)["test"][0]["prompt"]
    assert no_examples.startswith("test") and no_examples.count("Answer:") == 1


def test_faults_of_mmlu_files(mmlu, tmp_path):
    with pytest.raises(InputError, match="no folder test"):
        ability.load_mmlu(str(tmp_path))
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match="no CSV files in test"):
        ability.load_mmlu(str(tmp_path))
    (tmp_path / "test" / "law_test.csv").write_text("question,answer\nWhy?,A\n")
    with pytest.raises(InputError, match=r"law_test.csv, row 1: needs question"):
        ability.load_mmlu(str(tmp_path))
    with pytest.raises(InputError, match="shots is 6"):
        ability.load_mmlu(str(mmlu), shots=6)


def test_arc_and_hellaswag_from_local_files(tmp_path, tiny_model_dir):
    """As the stock tasks ask them, here rendered by hand."""
    from unswayed.models.load import load_lm

    arc = [{"question": f"Why {i}?", "choices": {"text": ["joy", "fear"], "label": ["A", "B"]},
            "answerKey": "AB"[i % 2]} for i in range(6)]  # fmt: skip
    hella = [{"activity_label": "Tea", "ctx_a": "[header] She [x] pours.", "ctx_b": "then she",
              "endings": ["drinks  it [title] Well.", "sleeps"], "label": "0"}] * 4  # fmt: skip
    for name, rows in (("arc", arc), ("hellaswag", hella)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    settings = {name: str(tmp_path / f"{name}.jsonl") for name in ("arc", "hellaswag")}
    doc = ability.load_hellaswag(settings["hellaswag"])["test"][0]
    assert doc == {"query": "Tea:  She pours. Then she".replace("  ", " "), "gold": 0,
                   "choices": ["drinks it. Well.", "sleeps"]}  # fmt: skip
    lm = load_lm(str(tiny_model_dir("llama", chat=True)), device="cpu")
    names = ["ability_arc", "ability_hellaswag"]
    results = check_ability(lm, names, settings | {"questions": 4})
    assert [len(results[name]) for name in names] == [4, 4]
    assert results == check_ability(lm, names, settings | {"questions": 4})
    pairs = [("Question: Why 0?\nAnswer:", f" {option}") for option in ("joy", "fear")]
    from lm_eval.api.instance import Instance

    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    (joy, _), (fear, _) = lm.loglikelihood(requests, disable_tqdm=True)
    assert check_ability(lm, ["ability_arc"], settings)["ability_arc"][0] == float(joy > fear)
    with pytest.raises(InputError, match="column answerKey is missing"):
        (tmp_path / "bad.jsonl").write_text(json.dumps({"question": "?", "choices": {}}) + "\n")
        ability.load_arc(str(tmp_path / "bad.jsonl"))


@pytest.mark.slow
def test_real_mmlu():
    import os

    folder = Path(os.environ.get("UNSWAYED_REAL_DATA", "../shared/data")) / "mmlu"
    if not folder.is_dir():
        pytest.skip(f"MMLU is not at {folder}")
    docs = ability.load_mmlu(str(folder), questions=570)["test"]
    assert len(docs) == 570 and set(map(docs["subject"].count, docs["subject"])) == {10}
    assert all(doc["prompt"].count("\nAnswer:") >= 6 for doc in docs)
