"""lm-eval tasks of capability: their documents and metrics, and lm-eval's own tasks."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import nltk
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_benchmarks import PROMPTS, small_punkt, write_ifeval, write_mmlu

from unswayed import tasks
from unswayed.audit.trials import PAIR_CONDITIONS
from unswayed.core.errors import InputError
from unswayed.data.personas import DIMENSIONS, builtin_personas
from unswayed.memory.prompt import PromptMemory
from unswayed.scoring.harness import task_samples
from unswayed.tasks.ability.utils import load_mmlu
from unswayed.tasks.capability import utils

PERSONAS = builtin_personas()
LEVELS = [f"{level}_level_{way}_acc" for level in ("prompt", "inst") for way in ("strict", "loose")]


@pytest.fixture(scope="module", autouse=True)
def punkt(tmp_path_factory):
    with small_punkt(tmp_path_factory.mktemp("nltk")):
        yield


@pytest.fixture(scope="module")
def mmlu(tmp_path_factory) -> str:
    return str(write_mmlu(tmp_path_factory.mktemp("mmlu"), {"abstract_algebra": 3, "law": 2}))


@pytest.fixture(scope="module")
def ifeval(tmp_path_factory) -> str:
    return str(write_ifeval(tmp_path_factory.mktemp("ifeval") / "input_data.jsonl"))


def note_of(pair: str, condition: str) -> str:
    [persona] = [p for p in PERSONAS if (p.pair_id, p.condition) == (pair, condition)]
    memory = PromptMemory()
    memory.remember(persona)
    return memory.messages("?")[0]["content"]


# -- documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["mmlu", "ifeval"])
def test_each_question_is_asked_under_every_condition_of_one_persona(mmlu, ifeval, task):
    if task == "mmlu":
        bare = load_mmlu(mmlu)["test"].to_list()
        docs = utils.load_persona_mmlu(mmlu=mmlu, version=1.0, pretrained="x")["test"].to_list()
    else:
        bare = utils.load_ifeval(ifeval)["test"].to_list()
        docs = utils.load_persona_ifeval(ifeval=ifeval, version=1.0)["test"].to_list()
        assert [doc["prompt"] for doc in bare] == [row["prompt"] for row in PROMPTS]
    assert len(docs) == 4 * len(bare)
    for i, doc in enumerate(docs):
        assert doc.items() >= bare[i // 4].items()  # what is asked is that of the plain task
        assert doc["question"] == i // 4 and doc["condition"] == PAIR_CONDITIONS[i % 4]
        assert doc["pair_id"] == docs[i - i % 4]["pair_id"]
        note = "" if i % 4 == 0 else note_of(doc["pair_id"], doc["condition"])
        assert doc["system_prompt"] == note
    assert len({doc["pair_id"] for doc in docs}) == len(bare)  # 30 pairs, few questions


def test_questions_personas_and_prompts_are_drawn_by_seed(mmlu, ifeval):
    def drawn(seed, **more):
        docs = utils.load_persona_mmlu(mmlu=mmlu, questions=3, seed=seed, **more)["test"]
        prompts = utils.load_persona_ifeval(ifeval=ifeval, prompts=2, seed=seed)["test"]
        return docs["prompt"], docs["pair_id"], prompts["key"], prompts["pair_id"]

    assert len(drawn(0)[0]) == 12 and len(drawn(0)[2]) == 8 and len(set(drawn(0)[2])) == 2
    assert drawn(0) == drawn(0)
    draws = [drawn(seed) for seed in range(1, 4)]
    assert all(any(part != another[i] for another in draws) for i, part in enumerate(drawn(0)))
    # more examples change the prompts, not who is asked about
    assert drawn(0, shots=0)[1] == drawn(0)[1] and drawn(0, shots=0)[0] != drawn(0)[0]


@given(st.integers(1, 80), st.integers(1, 30), st.integers(0, 9))
def test_personas_come_up_equally_often(n, pairs, seed):
    docs = utils.with_memory([{}] * n, PERSONAS, None, pairs, seed)
    counts = Counter(doc["pair_id"] for doc in docs)
    assert len(docs) == 4 * n and sum(counts.values()) == 4 * n
    assert set(counts) <= {f"p{i:02}" for i in range(1, pairs + 1)}
    assert len(counts) == min(n, pairs) and max(counts.values()) - min(counts.values()) <= 4


def test_conditions_and_personas_of_ones_own(mmlu, tmp_path):
    some = utils.load_persona_mmlu(mmlu=mmlu, conditions=["none", "disadvantaged"], pairs=2)
    assert some["test"]["condition"] == ["none", "disadvantaged"] * 5
    assert set(some["test"]["pair_id"]) == {"p01", "p02"}
    bare = utils.load_persona_mmlu(mmlu=mmlu, conditions=["none"])["test"]
    assert set(bare["system_prompt"]) == {""} and len(bare) == 5
    (tmp_path / "mine.yaml").write_text("- id: me\n  neutral:\n    taste: '{I} like tea.'\n")
    documents = utils.load_persona_mmlu(
        mmlu=mmlu, personas=str(tmp_path / "mine.yaml"), conditions=["neutral"]
    )
    assert set(documents["test"]["pair_id"]) == {"me"}
    assert documents["test"][0]["system_prompt"].endswith("I like tea.\n".replace("I", "They"))


def test_the_group_holds_all_four():
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks.path()), include_defaults=False)
    four = {"ability_mmlu", "ability_ifeval", "persona_mmlu", "persona_ifeval"}
    assert "capability" in manager.all_groups and four <= set(manager.all_tasks)


def test_the_group_in_one_run(mmlu, ifeval, tiny_model_dir):
    """Through any model of lm-eval; without memory, both forms of a task say the same."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    metadata = {"mmlu": mmlu, "ifeval": ifeval, "questions": 2, "prompts": 2, "shots": 0}
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={
            "pretrained": str(tiny_model_dir("llama", chat=True, max_position_embeddings=4096)),
            "dtype": "float32",
        },
        tasks=["capability"],
        device="cpu",
        batch_size=4,
        apply_chat_template=True,
        task_manager=TaskManager(
            include_path=str(tasks.path()), include_defaults=False, metadata=metadata
        ),
        metadata=metadata,
        gen_kwargs={"max_gen_toks": 6},
        bootstrap_iters=0,
    )["results"]
    for level in LEVELS:
        persona = results["persona_ifeval"]
        assert persona[f"{level}_none,none"] == results["ability_ifeval"][f"{level},none"]
        assert all(0 <= persona[f"{level}_{c},none"] <= 1 for c in PAIR_CONDITIONS)
    assert results["persona_mmlu"]["acc_none,none"] == results["ability_mmlu"]["acc,none"]


# -- metrics -------------------------------------------------------------------------------------


def test_mmlu_by_hand():
    doc = {"condition": "neutral", "answer": 2}
    scores = [(-3.0, False), (-2.0, False), (-1.0, True), (-4.0, False)]
    assert utils.results_persona_mmlu(doc, scores) == {"acc_neutral": 1.0}
    assert utils.results_persona_mmlu(doc | {"answer": 0}, scores) == {"acc_neutral": 0.0}
    assert utils.results_persona_mmlu(doc, [(-1.0, False)] * 4) == {"acc_neutral": 0.0}  # first


@pytest.mark.parametrize(
    ("row", "answer", "strict", "loose"),
    [
        (0, "Tea warms and wakes us", [True, True], [True, True]),
        (0, "Tea warms us, and wakes", [False, True], [False, True]),
        (0, "Sure, here it is:\nTea warms and wakes us", [False, False], [True, True]),
        (0, "  \n", [False, False], [False, False]),
        (1, "I am *glad*", [True], [True]),
        (2, "tea is good. i like it very much.", [True, True], [True, True]),
        (2, "people often drink hot tea with their friends.", [True, False], [True, False]),
        (2, "Tea is good. I like it very much.", [False, True], [False, True]),
    ],
)
def test_ifeval_by_hand(ifeval, row, answer, strict, loose):
    doc = utils.load_persona_ifeval(ifeval=ifeval)["test"][4 * row + 2]
    expected = {
        "prompt_level_strict_acc_advantaged": all(strict),
        "inst_level_strict_acc_advantaged": strict,
        "prompt_level_loose_acc_advantaged": all(loose),
        "inst_level_loose_acc_advantaged": loose,
    }
    assert utils.results_persona_ifeval(doc, [answer]) == expected
    plain = utils.results_ifeval(doc, [answer])
    assert {f"{name}_advantaged": value for name, value in plain.items()} == expected


def test_instruction_level_counts_instructions():
    assert utils.inst_level_acc([[True, False], [True], [False, True]]) == pytest.approx(3 / 5)


def test_the_language_of_an_answer_is_always_read_alike(ifeval):
    """langdetect draws lots unless it is seeded, and calls this text English 3 times in 10."""
    doc = utils.load_ifeval(ifeval)["test"][2]
    results = {
        str(utils.results_ifeval(doc, ["tea is very good and i like it."])) for _ in range(30)
    }
    assert len(results) == 1


# -- lm-eval's own tasks -------------------------------------------------------------------------


def stock_samples(folder: Path, yaml: str, lm, shots: int | None, chat: bool, tokens: int) -> list:
    import lm_eval
    from lm_eval.tasks import TaskManager

    (folder / "stock.yaml").write_text(yaml)
    results = lm_eval.simple_evaluate(
        model=lm,
        tasks=["stock"],
        num_fewshot=shots,
        apply_chat_template=chat,
        fewshot_as_multiturn=False,
        gen_kwargs={"max_gen_toks": tokens},
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
    )
    return sorted(results["samples"]["stock"], key=lambda sample: sample["doc_id"])


def tiny_lm(tiny_model_dir, chat: bool):
    from unswayed.models.load import load_lm

    folder = tiny_model_dir("llama", chat=chat, max_position_embeddings=4096)
    return load_lm(str(folder), device="cpu")


def stock_folder() -> Path:
    import lm_eval

    return Path(lm_eval.__file__).parent / "tasks"


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
def test_without_memory_ifeval_is_the_stock_task(ifeval, tmp_path, tiny_model_dir, chat):
    lm = tiny_lm(tiny_model_dir, chat)
    theirs = stock_samples(
        tmp_path,
        f"include: {stock_folder() / 'ifeval' / 'ifeval.yaml'}\ntask: stock\n"
        f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    train: {ifeval}\n",
        lm, None, chat, 12,
    )  # fmt: skip
    names = ["ability_ifeval", "persona_ifeval"]
    ours = task_samples(lm, names, {"ifeval": ifeval, "pairs": 1}, chat, {"max_gen_toks": 12})
    plain, with_memory = ours["ability_ifeval"], ours["persona_ifeval"]
    assert len(theirs) == len(plain) == 3 and len(with_memory) == 12
    for i, expected in enumerate(theirs):
        for mine, suffix in ((plain[i], ""), (with_memory[4 * i], "_none")):
            assert mine["arguments"] == expected["arguments"]  # prompt and way of generating
            assert mine["resps"] == expected["resps"]
            assert all(mine[f"{level}{suffix}"] == expected[level] for level in LEVELS)
        for mine in with_memory[4 * i + 1 : 4 * i + 4]:
            note = note_of("p01", mine["doc"]["condition"])
            user = {"role": "user", "content": PROMPTS[i]["prompt"]}
            system = {"role": "system", "content": note}
            prompt = lm.apply_chat_template([system, user]) if chat else note + user["content"]
            assert mine["arguments"][0][0] == prompt


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
def test_without_memory_mmlu_is_the_stock_task(mmlu, tmp_path, tiny_model_dir, chat):
    import datasets

    from unswayed.tasks.ability.utils import mmlu_rows

    for split in ("test", "dev"):
        rows = mmlu_rows(mmlu, split)["abstract_algebra"]
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / f"{split}.parquet")
    lm = tiny_lm(tiny_model_dir, chat)
    theirs = stock_samples(
        tmp_path,
        f"include: {stock_folder() / 'mmlu' / 'default' / 'mmlu_abstract_algebra.yaml'}\n"
        f"task: stock\ndataset_path: parquet\ndataset_name: null\ndataset_kwargs:\n  data_files:\n"
        f"    test: {tmp_path / 'test.parquet'}\n    dev: {tmp_path / 'dev.parquet'}\n",
        lm, 5, chat, 1,
    )  # fmt: skip
    ours = task_samples(lm, ["persona_mmlu"], {"mmlu": mmlu, "pairs": 1}, chat)["persona_mmlu"]
    assert len(theirs) == 3 and len(ours) == 20
    for i, expected in enumerate(theirs):
        mine = ours[4 * i]
        prompt = expected["arguments"][0][0]
        assert [sample[0] for sample in mine["arguments"]] == [prompt] * 4
        scores, reference = (
            [ll for ll, _ in sample["filtered_resps"]] for sample in (mine, expected)
        )
        assert scores == pytest.approx(reference, abs=1e-4)
        assert mine["acc_none"] == expected["acc"]
        note = note_of("p01", "disadvantaged")
        header = "The following are multiple choice questions"
        assert prompt.count(header) == 1
        assert ours[4 * i + 3]["arguments"][0][0] == prompt.replace(header, note + header)


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction_id_list": ["punctuation:no_comma", "startend:rhyme"]},
         "key 1: lm-eval has no instruction 'startend:rhyme'"),
        ({"kwargs": [{}, {"relation": "less than", "num_verbs": 6}]},
         "key 1: kwargs .* do not fit length_constraints:number_words: .*num_verbs"),
        ({"kwargs": [{}, {"relation": "about", "num_words": 6}]}, "key 1: kwargs .* do not fit"),
        ({"kwargs": [{}]}, "key 1: 2 instructions have 1 kwargs"),
        ({"kwargs": None}, "key 1: 2 instructions have 0 kwargs"),
        ({"prompt": ""}, "key 1: prompt or instruction_id_list is empty"),
        ({"instruction_id_list": []}, "key 1: prompt or instruction_id_list is empty"),
    ],
)  # fmt: skip
def test_faults_of_ifeval_rows(tmp_path, change, message):
    file = write_ifeval(tmp_path / "bad.jsonl", [PROMPTS[1], PROMPTS[0] | change])
    with pytest.raises(InputError, match=message) as caught:
        utils.load_ifeval(str(file))
    assert "\n" not in str(caught.value)


def test_wrong_settings(mmlu, ifeval, tmp_path):
    rows = [{k: v for k, v in row.items() if k != "kwargs"} for row in PROMPTS]
    with pytest.raises(InputError, match="column kwargs is missing"):
        utils.load_ifeval(str(write_ifeval(tmp_path / "bad.jsonl", rows)))
    for n in (0, 4):
        with pytest.raises(InputError, match=f"prompts is {n}: between 1 and 3 are there"):
            utils.load_persona_ifeval(ifeval=ifeval, prompts=n)
    with pytest.raises(InputError, match="questions is 6: between 1 and 5"):
        utils.load_persona_mmlu(mmlu=mmlu, questions=6)
    with pytest.raises(InputError, match="condition 'rich' is not one of none, neutral"):
        utils.load_persona_mmlu(mmlu=mmlu, conditions=["rich"])
    with pytest.raises(InputError, match="31: between 1 and 30 pairs"):
        utils.load_persona_mmlu(mmlu=mmlu, pairs=31)
    with pytest.raises(InputError, match="me has no neutral version"):
        slots = "".join(f"    {name}: A word.\n" for name in DIMENSIONS)
        (tmp_path / "mine.yaml").write_text(f"- id: me\n  advantaged:\n{slots}")
        utils.load_persona_mmlu(mmlu=mmlu, personas=str(tmp_path / "mine.yaml"))


def test_without_punkt_tab_nothing_is_asked_and_nothing_downloaded(ifeval, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk, "download", lambda *_: pytest.fail("asked the network"))
    for load in (utils.load_ifeval, utils.load_persona_ifeval):
        with pytest.raises(InputError, match=r"python -m nltk\.downloader punkt_tab") as caught:
            load(ifeval=ifeval)
        assert "\n" not in str(caught.value) and "NLTK_DATA" in str(caught.value)


# -- the real files ------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_ifeval():
    file = Path(os.environ.get("UNSWAYED_REAL_DATA", "../shared/data")) / "ifeval/input_data.jsonl"
    if not file.is_file():
        pytest.skip(f"IFEval is not at {file}")
    docs = utils.load_persona_ifeval(ifeval=str(file))["test"]
    assert len(docs) == 4 * 541
    assert len({name for names in docs["instruction_id_list"] for name in names}) == 25
