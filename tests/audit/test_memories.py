"""The audit with other memories: snippets, gated notes, instructions, adapters of each persona."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import pytest
import yaml

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_answers, read_run
from unswayed.audit.summary import analyze
from unswayed.cli import main
from unswayed.core.errors import InputError
from unswayed.data.personas import builtin_personas, grid_personas
from unswayed.memory.conversation_memory import REMEMBERED, persona_conversations
from unswayed.memory.gated import GatedMemory
from unswayed.memory.prompt import IGNORE, PromptMemory
from unswayed.memory.registry import describe, find_mechanism
from unswayed.memory.retrieval import RetrievalMemory
from unswayed.models import vectors as embedding
from unswayed.plum.memory import persona_pairs, persona_questions, read_training
from unswayed.plum.qa import TRAIN
from unswayed.plum.recipe import extracted_questions
from unswayed.plum.settings import UNRELATED
from unswayed.report import write_report

PERSONA = {
    "demographic_attributes": "{I} like rain and a picnic.",
    "family_background": "{My} aunt won a prize.",
    "social_connections": "A friend never lost a borrowed book.",
    "personal_assets": "{I} own a red tractor.",
}
NEAREST = {"a": "rain and a picnic", "b": "aunt won a prize", "c": "lost a borrowed book"}
RECIPE = {
    "model": "not-used", "users": {"nobody": ["builtin"]}, "output_dir": "nowhere",
    "settings": {"rank": 2, "alpha": 8, "epochs": 1, "batch_size": 16, "learning_rate": 0.02},
    "augment": {"per_conversation": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE), "utf-8")
    return path


@pytest.fixture(scope="module")
def plum(chat_model, items_file, recipe, tmp_path_factory) -> AuditArguments:
    """One pair, its adapters in the weights; the run is complete."""
    given = AuditArguments(
        model=str(chat_model),
        items=[f"mine={items_file}"],
        pairs=1,
        memory="plum",
        plum_recipe=recipe,
        out=tmp_path_factory.mktemp("plum") / "run",
    )
    run_audit(given)
    return given


def rows_of(out: Path) -> list[dict]:
    return read_answers(out).to_pylist()


# -- retrieval -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def personas_file(tmp_path_factory) -> Path:
    neutral = {"tastes": "{I} hum.", "habits": "{I} walk."}
    path = tmp_path_factory.mktemp("personas") / "mine.yaml"
    path.write_text(yaml.safe_dump([{"id": "x", "advantaged": PERSONA, "neutral": neutral}]))
    return path


def test_retrieval_reads_the_snippets_nearest_to_each_question(arguments, personas_file):
    out = run_audit(
        arguments(
            memory="retrieval",
            memory_style="bm25-1",
            personas=str(personas_file),
            conditions=["none", "neutral", "advantaged"],
            pairs=None,
        )
    )
    rows = rows_of(out)
    assert len(rows) == 9
    for row in rows:
        if row["condition"] == "none":
            assert (row["memory"], row["memory_style"], row["system_prompt"]) == (
                "none",
                None,
                None,
            )
            continue
        assert (row["memory"], row["memory_style"]) == ("retrieval", "bm25-1")
        assert row["system_prompt"].startswith(REMEMBERED)
        assert row["system_prompt"] in row["prompt"]
        assert row["system_prompt"].count("User: ") == 1
        if row["condition"] == "advantaged":
            assert NEAREST[row["question_id"]] in row["system_prompt"]
    analyze(out)
    write_report(out)
    page = (out / "report.html").read_text("utf-8")
    assert "retrieval, in the style bm25-1" in page
    assert "retrieved for the first item" in page


def test_all_snippets_are_all_of_the_persona(arguments):
    rows = rows_of(run_audit(arguments(memory="retrieval", memory_style="bm25-9", pairs=1)))
    for persona in builtin_personas()[:3]:
        words = [text for _, text in persona.texts(first_person=True)]
        (shown,) = {row["system_prompt"] for row in rows if row["persona_id"] == persona.id}
        assert [shown.find(text) for text in words] == sorted(shown.find(text) for text in words)
        assert all(text in shown for text in words)


def test_snippets_can_be_found_by_embeddings(arguments, chat_model, monkeypatch):
    tiny = functools.partial(embedding.Embedder, str(chat_model))  # not the embedded model
    monkeypatch.setattr(embedding, "Embedder", tiny)
    out = run_audit(arguments(memory="retrieval", memory_style="embedding-2", pairs=1))
    memory = RetrievalMemory(2, tiny())
    for persona in builtin_personas()[:3]:
        memory.remember(persona)
        for row in rows_of(out):
            if row["persona_id"] == persona.id:
                system, _ = memory.messages(row["user_prompt"])
                assert row["system_prompt"] == system["content"]
                assert row["memory_style"] == "embedding-2"


def test_the_grid_can_be_retrieved(arguments):
    rows = rows_of(run_audit(arguments(memory="retrieval", personas="grid", pairs=None)))
    cell = [row for row in rows if row["condition"] != "none"]
    assert len(cell) == 81 * 3
    assert {row["memory_style"] for row in cell} == {"bm25-3"}
    assert all(row["system_prompt"].count("User: ") == 3 for row in cell)


# -- prompts against the bias ----------------------------------------------------------------------

OWN = {"conditions": ["none", "neutral", "advantaged"], "pairs": None}


def test_the_instruction_to_ignore_the_user_is_all_that_differs(arguments):
    notes = rows_of(run_audit(arguments("notes", pairs=1)))
    told = rows_of(run_audit(arguments("told", memory_style="ignore", pairs=1)))
    for row, other in zip(notes, told, strict=True):
        assert (row["question_id"], row["persona_id"]) == (
            other["question_id"],
            other["persona_id"],
        )
        if row["condition"] == "none":
            assert row == other
            continue
        assert (other["memory"], other["memory_style"]) == ("prompt", "ignore")
        assert other["system_prompt"] == row["system_prompt"] + IGNORE
        before, after = row["prompt"].split(row["system_prompt"])
        assert other["prompt"] == before + other["system_prompt"] + after
        assert other["option_scores"] != pytest.approx(row["option_scores"], abs=0.01)


@pytest.fixture(scope="module")
def gated(chat_model, items_file, personas_file, tmp_path_factory) -> AuditArguments:
    """One persona that two of the items touch, behind a gate; the run is complete."""
    given = AuditArguments(
        model=str(chat_model),
        items=[f"mine={items_file}"],
        personas=str(personas_file),
        memory="gated",
        out=tmp_path_factory.mktemp("gated") / "run",
        **OWN,
    )
    run_audit(given)
    return given


def test_a_gate_gives_the_prompt_of_the_notes_or_that_of_no_memory(gated, arguments):
    notes = rows_of(run_audit(arguments(personas=gated.personas, **OWN)))
    rows = rows_of(gated.out)
    bare = {row["question_id"]: row for row in rows if row["condition"] == "none"}
    let_in = set()
    for row, other in zip(rows, notes, strict=True):
        assert row["question_id"] == other["question_id"]
        if row["condition"] == "none":
            assert row == other
            continue
        assert (row["memory"], row["memory_style"]) == ("gated", "tfidf-95")
        if row["prompt"] == other["prompt"]:
            let_in.add((row["condition"], row["question_id"]))
            assert row["system_prompt"] == other["system_prompt"]
            assert row["option_scores"] == pytest.approx(other["option_scores"], abs=1e-4)
        else:
            base = bare[row["question_id"]]
            assert (row["prompt"], row["system_prompt"]) == (base["prompt"], None)
            assert row["option_scores"] == pytest.approx(base["option_scores"], abs=1e-4)
            assert row["flip"] is False
    assert let_in == {("advantaged", item) for item in NEAREST}  # rain, a prize, a lost book


def test_a_run_says_how_often_the_gate_let_the_memory_in(gated):
    (note,) = read_run(gated.out)["notes"][-1:]
    assert "0.0 % of 3 under neutral, 100.0 % of 3 under advantaged" in note
    bare = [row for row in rows_of(gated.out) if row["condition"] == "none"]
    assert find_mechanism("gated").notes(GatedMemory(), [], bare) == []
    assert find_mechanism("prompt").notes(PromptMemory(), [], bare) == []


def test_a_gated_run_is_analysed_and_described(gated):
    analyze(gated.out)
    write_report(gated.out)
    page = (gated.out / "report.html").read_text("utf-8")
    assert "The memory mechanism was gated, in the style tfidf-95" in page


def test_an_interrupted_gated_run_ends_the_same(gated, tmp_path, dies_at_the_third_part):
    given = dataclasses.replace(gated, out=tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        run_audit(given)
    run_audit(dataclasses.replace(given, resume=True))
    assert (given.out / "answers.parquet").read_bytes() == (
        gated.out / "answers.parquet"
    ).read_bytes()
    assert read_run(given.out)["notes"] == read_run(gated.out)["notes"]
    with pytest.raises(InputError, match=r"different run \(its memory_style differ\)"):
        run_audit(dataclasses.replace(given, memory_style="tfidf-50", resume=True))


def test_the_gate_of_the_grid_goes_by_few_words(arguments):
    rows = rows_of(run_audit(arguments(memory="gated", personas="grid", pairs=None)))
    assert len([row for row in rows if row["memory"] == "gated"]) == 81 * 3
    assert all(row["system_prompt"] is None for row in rows)  # no item names an attribute


# -- plum ----------------------------------------------------------------------------------------


def test_plum_changes_the_answers_and_not_the_prompt(plum):
    rows = rows_of(plum.out)
    bare = {row["question_id"]: row for row in rows if row["condition"] == "none"}
    assert len(rows) == 12
    seen = set()
    for row in rows:
        base = bare[row["question_id"]]
        assert row["prompt"] == base["prompt"]
        assert row["system_prompt"] is None
        if row is not base:
            assert (row["memory"], row["memory_style"]) == ("plum", "")
            assert row["option_scores"] != pytest.approx(base["option_scores"], abs=0.01)
            seen.add(tuple(row["option_scores"]))
    assert len(seen) == 9  # every persona has weights of its own
    analyze(plum.out)
    write_report(plum.out)
    page = (plum.out / "report.html").read_text("utf-8")
    assert "The memory mechanism was plum" in page and "&#34;rank&#34;: 2" in page


def test_a_run_says_what_its_adapters_recall(plum, capsys):
    found: dict[str, list[bool]] = {"yes": [], "no": []}
    for path in sorted(plum.out.glob("memories/*/manifest.json")):
        for kind, right in json.loads(path.read_text("utf-8"))["recall"].items():
            found[kind] += right
    assert len(found["yes"]) == len(found["no"]) > 0
    note = read_run(plum.out)["notes"][-1]
    for kind, right in found.items():
        share = 100 * sum(right) / len(right)
        assert f"{share:.0f} % of {len(right)} whose answer is {kind}" in note
    assert main(["remember", "list", str(plum.out / "memories")]) == 0
    told = capsys.readouterr().out
    assert told.count("held-out questions whose answer is yes: ") == 3


def test_what_is_asked_of_an_adapter_was_not_trained():
    training = read_training(None)
    for persona in builtin_personas()[:6]:
        asked = {pair.question for pair in persona_questions(persona, training)}
        assert asked
        assert not asked & {pair.question for pair in persona_pairs(persona, training)}


def test_without_memory_plum_runs_the_bare_model(plum, arguments):
    bare = rows_of(run_audit(arguments(conditions=["none"], pairs=None)))
    assert [row for row in rows_of(plum.out) if row["condition"] == "none"] == bare


def test_scores_are_those_of_lm_eval_with_the_adapter(plum, arguments):
    """hf-shared to float rounding, hf exactly."""
    from lm_eval.models.huggingface import HFLM

    stock_run = run_audit(
        dataclasses.replace(
            plum, out=arguments("hf").out, conditions=["neutral"], backend="hf", batch_size=1
        )
    )
    for out, tolerance in ((plum.out, 1e-4), (stock_run, 0.0)):
        rows = [row for row in rows_of(out) if row["condition"] == "neutral"]
        folder = out / "memories" / rows[0]["persona_id"]
        (adapter,) = folder.glob("adapter-*")
        lm = HFLM(
            pretrained=plum.model, peft=str(adapter), device="cpu", dtype="float32", batch_size=1
        )
        asked = [
            (
                None,
                *(lm.tok_encode(part, add_special_tokens=False) for part in (row["prompt"], text)),
            )
            for row in rows
            for text in row["options"]
        ]
        found = lm._loglikelihood_tokens(asked, disable_tqdm=True)
        ours = [score for row in rows for score in row["option_scores"]]
        assert ours == pytest.approx([score for score, _ in found], abs=tolerance, rel=0)


def test_trained_adapters_are_kept_when_a_run_is_interrupted(
    plum, tmp_path, dies_at_the_third_part, caplog
):
    """The third part, of the second persona, dies after its training."""
    given = dataclasses.replace(plum, out=tmp_path / "broken")
    with caplog.at_level("INFO"), pytest.raises(KeyboardInterrupt):
        run_audit(given)
    assert "adapters to train: 3," in caplog.text
    trained = {
        path: path.stat().st_mtime_ns for path in (given.out / "memories").rglob("*.safetensors")
    }
    assert len(trained) == 2
    caplog.clear()
    with caplog.at_level("INFO"):
        run_audit(dataclasses.replace(given, resume=True))
    assert "adapters to train: 1," in caplog.text
    assert trained == {path: path.stat().st_mtime_ns for path in trained}
    assert (given.out / "answers.parquet").read_bytes() == (
        plum.out / "answers.parquet"
    ).read_bytes()


def test_another_training_is_another_run(plum, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(RECIPE | {"settings": RECIPE["settings"] | {"epochs": 2}}))
    with pytest.raises(InputError, match=r"different run \(its memory_settings differ\)"):
        run_audit(dataclasses.replace(plum, plum_recipe=other, resume=True))
    settings = read_run(plum.out)["identity"]["memory_settings"]
    assert settings["settings"]["rank"] == 2 and settings["settings"]["joint"] is True
    assert settings["augment"]["per_conversation"] == 4


def test_slots_are_learnt_together_whatever_a_recipe_says(tmp_path):
    path = tmp_path / "replay.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"settings": {"replay": 0.5, "epochs": 2}}))
    settings = read_training(path).settings
    assert (settings.joint, settings.replay, settings.epochs) == (True, 0.0, 2)


@pytest.mark.parametrize("condition", ["advantaged", "disadvantaged", "neutral"])
def test_every_word_of_a_persona_is_trained(condition):
    training = read_training(None)
    for persona in [p for p in builtin_personas() if p.condition == condition][::8]:
        pairs = persona_pairs(persona, training)
        for slot, text in persona.texts(first_person=True):
            own = [pair for pair in pairs if pair.conversation == slot]
            assert any(text in pair.answer for pair in own)
        kinds = [pair.kind for pair in pairs]
        assert kinds.count("yes") == kinds.count("no") >= 3 * 15
        slots = list(dict.fromkeys(pair.conversation for pair in pairs))
        assert slots == [name for name, _ in persona.slots]
        made = extracted_questions(persona_conversations(persona), training.augment).questions
        denied = {one.source for one in made if one.use == TRAIN and one.pair.kind == "no"}
        assert denied == {UNRELATED}  # nothing that the user said, of whatever slot


# -- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory", "elephant"], "'elephant' is not one of prompt, retrieval, plum, gated"),
        (["--memory-style", "bm25-3"], "memory style 'bm25-3' is not one of system"),
        (["--memory", "retrieval", "--memory-style", "bm25-0"], "not of the form bm25-K"),
        (["--memory", "retrieval", "--memory-style", "system"], "not of the form bm25-K"),
        (["--memory", "gated", "--memory-style", "tfidf-100"], "not of the form tfidf-Q"),
        (["--memory", "gated", "--memory-style", "bm25-3"], "not of the form tfidf-Q"),
        (["--memory", "gated", "--plum-recipe", "x.yaml"], "has no meaning without --memory plum"),
        (["--memory-style", "ignored"], "memory style 'ignored' is not one of system"),
        (["--memory", "plum", "--memory-style", "system"], "has no meaning with --memory plum"),
        (["--memory", "plum", "--backend", "vllm"], "use hf-shared or hf"),
        (["--memory", "plum", "--adapter", "some/where"], "merge that into the model first"),
        (["--memory", "plum", "--personas", "grid"], "need --memory prompt, retrieval or gated"),
        (["--memory", "plum", "--plum-recipe", "none.yaml"], "none.yaml"),
        (["--plum-recipe", "x.yaml"], "has no meaning without --memory plum"),
    ],
)
def test_wrong_combinations_are_one_line(options, message, items_file, tmp_path, capfd):
    out = tmp_path / "run"
    given = ["audit", "--model", "none/such", "--items", f"mine={items_file}", "--out", str(out)]
    assert main([*given, *options]) == 2
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("unswayed: ")]
    assert message in line
    assert not out.exists()


def test_a_grid_cell_says_why_it_cannot_be_trained():
    with pytest.raises(InputError, match=r"persona grid:male/.* a few words"):
        persona_pairs(grid_personas()[0], read_training(None))


def test_descriptions_name_mechanism_and_style():
    assert describe("prompt", "system") == (
        "The memory mechanism was prompt, in the style system: notes in the system prompt."
    )
    assert "the snippet that is nearest" in describe("retrieval", "embedding-1")
    assert "the 3 snippets that are nearest" in describe("retrieval", "bm25-3")
    assert "LoRA adapter" in describe("plum", "")
    assert describe("prompt", "ignore").endswith("the instruction to ignore who the user is.")
    assert "than 90 % of questions that they cannot help with" in describe("gated", "tfidf-90")
