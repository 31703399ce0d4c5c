"""The audit with LoGo as memory: fused or in one pass, on a population that is not asked about."""

from __future__ import annotations

import dataclasses
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import softmax

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_answers, read_run
from unswayed.audit.summary import analyze
from unswayed.audit.trials import other_personas
from unswayed.cli import main
from unswayed.core.errors import InputError
from unswayed.data.personas import builtin_personas, grid_personas, read_personas
from unswayed.logo.memory import mean_loss
from unswayed.logo.population import (
    ALIKE,
    HELPFUL,
    LONGEST,
    PHRASES,
    LatentSemantics,
    LogoTraining,
    clauses,
    events_of,
    make_lessons,
    persona_communities,
    read_training,
    split,
)
from unswayed.memory.conversation_memory import REMEMBERED
from unswayed.memory.registry import describe
from unswayed.models.base import Base
from unswayed.plum.samples import Sample
from unswayed.plum.settings import PlumSettings
from unswayed.report import write_report

RECIPE = {
    "model": "not-used", "users": {"nobody": ["builtin"]}, "output_dir": "nowhere",
    "settings": {"rank": 2, "alpha": 8, "epochs": 1, "batch_size": 8, "learning_rate": 0.02},
    "augment": {"per_conversation": 4},
}  # fmt: skip
CONDITIONS = ["none", "advantaged", "disadvantaged"]
K, SLOTS = 5, 4


@pytest.fixture(scope="module")
def given(chat_model, items_file, tmp_path_factory) -> AuditArguments:
    """The arguments of all runs here: two of five base personas are asked about."""
    folder = tmp_path_factory.mktemp("given")
    bank = yaml.safe_load(
        (files("unswayed.data.personas") / "bank" / "pairs.yaml").read_text("utf-8")
    )
    (folder / "five.yaml").write_text(yaml.safe_dump(bank[:5], sort_keys=False), "utf-8")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE), "utf-8")
    return AuditArguments(
        model=str(chat_model),
        items=[f"mine={items_file}"],
        personas=str(folder / "five.yaml"),
        pairs=2,
        conditions=CONDITIONS,
        plum_recipe=folder / "recipe.yaml",
        memory="logo",
        out=folder / "logo",
    )


@pytest.fixture(scope="module")
def logo(given) -> AuditArguments:
    run_audit(given)
    return given


@pytest.fixture(scope="module")
def others(given) -> list[Path]:
    """Runs with the other memories."""
    outs = []
    for memory in ("prompt", "retrieval", "plum"):
        recipe = given.plum_recipe if memory == "plum" else None
        own = dataclasses.replace(
            given, memory=memory, memory_style=None, plum_recipe=recipe,
            out=given.out.with_name(memory),
        )  # fmt: skip
        outs.append(run_audit(own))
    return outs


def rows_of(out: Path) -> list[dict]:
    return read_answers(out).to_pylist()


def population_folder(out: Path) -> Path:
    return out / "memories" / "population"


def global_prompt(out: Path, row: dict) -> tuple[int, str]:
    """The community of a row's user, and the global side's prompt, written by hand."""
    people = read_personas(Path(read_run(out)["arguments"]["personas"]))
    learnt, _ = split(other_personas(people, 2))
    found = persona_communities(learnt, LogoTraining(PlumSettings(seed=0)))
    (asked,) = [one for one in people if one.id == row["persona_id"]]
    c = found.nearest(events_of(asked))
    text = json.loads((population_folder(out) / "communities.json").read_text("utf-8"))
    return c, (
        f"<|im_start|>system\n{HELPFUL}{text['descriptions'][c]}<|im_end|>\n"
        f"<|im_start|>user\n{row['user_prompt']}<|im_end|>\n<|im_start|>assistant\n"
    )


def stock_scores(given: AuditArguments, pairs: list[tuple[str, str]], peft: bool) -> list[float]:
    """What lm-eval's own hf gives, with the population's adapter or without."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    (adapter,) = population_folder(given.out).glob("adapter-*")
    lm = HFLM(
        pretrained=given.model, device="cpu", dtype="float32", batch_size=1, add_bos_token=False,
        **({"peft": str(adapter)} if peft else {}),
    )  # fmt: skip
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    return [score for score, _ in lm.loglikelihood(requests, disable_tqdm=True)]


# -- the answers ---------------------------------------------------------------------------------


def test_answers_are_fused_from_the_two_sides(logo, others):
    """By hand: the local side as in the run of `retrieval`, the global one by lm-eval's hf."""
    local = {(r["question_id"], r["persona_id"]): r for r in rows_of(others[1])}
    rows = [row for row in rows_of(logo.out) if row["persona_id"]]
    assert len(rows) == 3 * 4
    prompts = [global_prompt(logo.out, row)[1] for row in rows]
    blind = [
        prompt.replace(row["user_prompt"], "Answer:")
        for prompt, row in zip(prompts, rows, strict=True)
    ]
    everyone, prior = (
        iter(
            stock_scores(
                logo,
                [(prompt, text) for prompt, row in zip(asked, rows, strict=True)
                 for text in row["options"]],
                peft=True,
            )
        )
        for asked in (prompts, blind)
    )  # fmt: skip
    g = K / (SLOTS + K)
    moved = 0
    for row in rows:
        other = local[row["question_id"], row["persona_id"]]
        assert (row["memory"], row["memory_style"]) == ("logo", "shrinkage-5")
        assert [row[name] for name in ("prompt", "system_prompt", "user_prompt")] == [
            other[name] for name in ("prompt", "system_prompt", "user_prompt")
        ]
        p_local = softmax(np.subtract(other["option_scores"], other["option_priors"]))
        # The template's newline, which lm-eval counts in, is the same for all options.
        p_global = softmax([next(everyone) - next(prior) for _ in row["options"]])
        p = p_local ** (1 - g) * p_global**g
        p /= p.sum()
        assert row["option_scores"] == pytest.approx(np.log(p).tolist(), abs=1e-4)
        assert row["answer"] == row["options"][int(np.argmax(p))]
        moved += not np.allclose(p, p_local, atol=1e-3)
    assert moved > len(rows) / 2


def test_in_one_pass_the_adapted_model_reads_both_sides(logo):
    out = logo.out.with_name("weights")
    run_audit(dataclasses.replace(logo, memory_style="weights", out=out, conditions=CONDITIONS[:2]))
    rows = [row for row in rows_of(out) if row["persona_id"]]
    for row in rows:
        system = row["system_prompt"]
        assert row["memory_style"] == "weights" and system in row["prompt"]
        assert system.startswith(REMEMBERED) and system.count("User: ") == 3
        said = system[system.index(ALIKE) :]
        assert said in global_prompt(logo.out, row)[1]
    pairs = [(row["prompt"], text) for row in rows for text in row["options"]]
    given = dataclasses.replace(logo, out=out)
    with_it, without = (iter(stock_scores(given, pairs, peft=peft)) for peft in (True, False))
    apart = []
    for row in rows:  # lm-eval counts the template's newline into every option
        added = np.array([next(with_it) - score for score in row["option_scores"]])
        assert np.ptp(added) < 1e-4
        apart.append(np.ptp([next(without) - score for score in row["option_scores"]]))
    assert max(apart) > 0.01


def test_letters_are_fused_by_their_sums(logo):
    out = logo.out.with_name("letters")
    run_audit(
        dataclasses.replace(
            logo, scoring="letter", rule=None, out=out, conditions=["advantaged"], pairs=1
        )
    )
    for row in rows_of(out):
        assert np.exp(row["option_scores"]).sum() == pytest.approx(1)
        best = row["options"].index(row["answer"])
        assert row["option_scores"][best] == max(row["option_scores"])


def test_without_memory_neither_side_is_there(logo, others):
    bare = [row for row in rows_of(logo.out) if row["condition"] == "none"]
    assert len(bare) == 3 and {row["memory"] for row in bare} == {"none"}
    for out in others:
        assert [row for row in rows_of(out) if row["condition"] == "none"] == bare


def test_the_memories_stand_side_by_side(logo, others, tmp_path, capsys):
    outs = [logo.out, *others]
    for out in outs:
        analyze(out)
    assert main(["compare", *map(str, outs), "--out", str(tmp_path / "all")]) == 0
    found = json.loads((tmp_path / "all" / "compare.json").read_text("utf-8"))
    assert found["reference"] == "prompt"
    names = [one["name"] for one in found["memories"]]
    assert names == ["logo", "prompt", "retrieval", "plum"]
    assert {one["n_bare_differing"] for one in found["memories"]} == {0}
    compared = {row["memory"] for test in found["tests"].values() for row in test["differences"]}
    assert compared == {"logo", "retrieval", "plum"}
    write_report(logo.out)
    assert "The memory mechanism was logo" in (logo.out / "report.html").read_text("utf-8")


# -- the population ------------------------------------------------------------------------------


def test_no_asked_or_held_out_user_is_learnt_from(logo):
    people = read_personas(Path(logo.personas))
    asked = {row["pair_id"] for row in rows_of(logo.out)} - {None}
    folder = population_folder(logo.out)
    trained = json.loads((folder / "manifest.json").read_text("utf-8"))["users"]
    by_id = {one.id: one for one in people}
    learnt = {by_id[entry["id"]].pair_id for entry in trained}
    (held,) = {one.pair_id for one in people} - asked - learnt
    assert len(asked) == 2 and len(learnt) == 2 and held not in asked
    assert len(trained) == 2 * 3 and {entry["samples"] for entry in trained} == {SLOTS}
    kept = (folder / "communities.json").read_text("utf-8")
    for one in people:
        if one.pair_id not in learnt:
            for _, text in one.texts(first_person=True):
                assert not any(json.dumps(f'"{part}"')[1:-1] in kept for part in clauses(text))


def test_a_run_says_what_the_population_is_and_whether_it_was_learnt(logo):
    made, placed, learnt, weight = read_run(logo.out)["notes"][-4:]
    assert "learnt from 6 users, versions of 2 base personas that were not asked about" in made
    for condition in CONDITIONS[1:]:
        own = {
            row["persona_id"]: global_prompt(logo.out, row)[0]
            for row in rows_of(logo.out)
            if row["condition"] == condition
        }
        for c in set(own.values()):
            assert f"{list(own.values()).count(c)} in {c + 1}" in placed.split(condition)[1]
    loss = json.loads((population_folder(logo.out) / "manifest.json").read_text("utf-8"))
    loss = loss["held_out"]
    assert loss["lessons"] == 3 * SLOTS and loss["after"] != loss["before"]
    assert f"{loss['after']:.3f} nats" in learnt and f"{loss['before']:.3f} without" in learnt
    assert "56 % with 4 slots known" in weight


def test_the_held_out_loss_is_the_mean_over_the_answers_tokens(tiny_model_dir):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir("llama"))
    samples = [
        Sample("a", "x", (1, 5, 9, 7, 3), (0.0, 0.0, 0.0, 1.0, 1.0)),
        Sample("b", "y", (1, 5, 8, 4), (0.0, 0.0, 1.0, 1.0)),
    ]
    wanted = []
    for sample in samples:
        logits = model(torch.tensor([sample.ids])).logits[0].log_softmax(-1)
        wanted += [
            -float(logits[i - 1, sample.ids[i]].detach())
            for i, weight in enumerate(sample.weights)
            if weight
        ]
    for padded in (None, "why not"):
        base = Base("tiny", "0", model, None, None, padded)
        found = mean_loss(base, model, samples, PlumSettings(pass_tokens=4))
        assert found == pytest.approx(np.mean(wanted), rel=1e-5)


def test_communities_tell_the_built_in_versions_apart():
    people = builtin_personas()
    learnt, held = split(other_personas(people, 6))
    assert (len(learnt), len(held)) == (21 * 3, 3 * 3)
    found = persona_communities(learnt, LogoTraining())
    of = {one.id: found.nearest(events_of(one)) for one in people}
    groups = [[one.condition for one in learnt if of[one.id] == c] for c in range(4)]
    pure = sum(max(map(own.count, own)) for own in groups)
    assert pure / len(learnt) > 0.9
    usual = [max(own, key=own.count) for own in groups]
    asked = people[: 6 * 3]
    assert np.mean([usual[of[one.id]] == one.condition for one in asked]) > 0.9
    said = " ".join(text for one in learnt for _, text in one.texts(first_person=True))
    for text in found.descriptions:
        lines = text.removeprefix(ALIKE).splitlines()
        assert len(lines) == PHRASES
        assert all(line[3:-1] in said and len(line.split()) <= LONGEST + 1 for line in lines)
        assert not any(one.id in text or one.pair_id in text for one in people)
    assert len(set(found.descriptions)) == 4


def test_a_lesson_reads_nothing_of_its_own_answer():
    """Other words in one slot leave that slot's lesson as it was, but for the answer."""
    learnt, _ = split(other_personas(builtin_personas(), 24))
    found = persona_communities(learnt, LogoTraining())
    lessons = make_lessons(learnt, found)
    assert len(lessons) == len(learnt) * SLOTS
    one = learnt[0]
    (slot, _), *rest = one.slots
    changed = dataclasses.replace(one, slots=((slot, "I like rain."), *rest))
    again = make_lessons([changed, *learnt[1:]], found)
    assert again[0].reads == lessons[0].reads and again[SLOTS:] == lessons[SLOTS:]
    assert again[0].answer == 'You said: "I like rain."'
    spoken = slot.replace("_", " ")
    assert len({x.reads[1]["content"] for x in lessons if spoken in x.reads[1]["content"]}) == 4


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("I own a car, and a house by the sea. Gone.", ["I own a car", "a house by the sea"]),
        ("Short.", ["Short"]),
        ("a b c d e f g h i j k l", ["a b c d e f g h i"]),
    ],
)
def test_phrases_are_short(text, wanted):
    assert [part.rstrip(".") for part in clauses(text)] == wanted


def test_a_text_without_a_known_word_is_nowhere():
    rows = LatentSemantics(["red rain falls", "the tractor is old"]).embed(["red rain", "zzz"])
    assert np.linalg.norm(rows[0]) == pytest.approx(1) and not rows[1].any()


def test_personas_behind_the_asked_ones_are_the_population():
    people = builtin_personas()
    assert [one.pair_id for one in other_personas(people, 29)] == ["p30"] * 3
    assert other_personas(people, None) == other_personas(grid_personas(), None) == []


# -- the run directory ---------------------------------------------------------------------------


def test_an_interrupted_run_ends_the_same_and_trains_once(logo, tmp_path, dies_at_the_third_part):
    own = dataclasses.replace(logo, out=tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        run_audit(own)
    kept = [path for path in population_folder(own.out).rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(before) >= 4
    run_audit(dataclasses.replace(own, resume=True))
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (own.out / "answers.parquet").read_bytes() == (logo.out / "answers.parquet").read_bytes()
    assert read_run(own.out)["notes"] == read_run(logo.out)["notes"]


def test_another_population_or_training_is_another_run(logo, tmp_path):
    settings = read_run(logo.out)["identity"]["memory_settings"]
    assert settings["communities"] == 4 and settings["settings"]["rank"] == 2
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(RECIPE | {"settings": {"rank": 4}}), "utf-8")
    with pytest.raises(InputError, match=r"different run \(its memory_settings differ\)"):
        run_audit(dataclasses.replace(logo, plum_recipe=other, resume=True))
    people = yaml.safe_load(Path(logo.personas).read_text("utf-8"))
    fewer = tmp_path / "four.yaml"
    fewer.write_text(yaml.safe_dump(people[:4], sort_keys=False), "utf-8")
    with pytest.raises(InputError, match=r"different run \(its memory_settings differ\)"):
        run_audit(dataclasses.replace(logo, personas=str(fewer), resume=True))


def test_of_a_recipe_only_the_settings_count(logo):
    assert read_training(None) == LogoTraining()
    settings = read_training(logo.plum_recipe).settings
    assert (settings.rank, settings.epochs, settings.joint, settings.replay) == (2, 1, True, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "and 0 are left, of at least 2 that it needs: ask about fewer with --pairs N"),
        (["--pairs", "29"], "and 1 are left"),
        (["--personas", "grid"], "the cells of --personas grid are no base personas"),
        (["--pairs", "6", "--memory-style", "shrinkage-0"], "of the form shrinkage-K"),
        (["--pairs", "6", "--memory-style", "bm25-3"], "of the form shrinkage-K"),
        (["--pairs", "6", "--scoring", "generate"], "--scoring generate gives none"),
        (["--pairs", "6", "--backend", "vllm"], "use hf-shared or hf"),
        (["--pairs", "6", "--adapter", "x/y"], "--memory logo puts an adapter of its own on"),
        (["--pairs", "6", "--plum-recipe", "none.yaml"], "none.yaml"),
    ],
)
def test_wrong_combinations_are_one_line(options, message, items_file, tmp_path, capfd):
    out = tmp_path / "run"
    own = ["audit", "--model", "none/such", "--items", f"mine={items_file}", "--out", str(out)]
    assert main([*own, "--memory", "logo", *options]) == 2
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("unswayed: ")]
    assert message in line
    assert not out.exists()


def test_texts_that_are_too_long_for_the_adapter_name_the_persona(logo, tmp_path):
    short = tmp_path / "short.yaml"
    short.write_text(yaml.safe_dump(RECIPE | {"settings": {"max_length": 40}}), "utf-8")
    out = tmp_path / "run"
    own = dataclasses.replace(logo, plum_recipe=short, out=out, conditions=["advantaged"])
    with pytest.raises(InputError, match=r"persona p\d\d-\w+ makes a sample of \d+ tokens"):
        run_audit(own)
    assert not (population_folder(out) / "manifest.json").exists()


def test_descriptions_say_what_was_fused():
    assert "the population counting 5 / (n + 5)" in describe("logo", "shrinkage-5")
    assert "it read both, with the adapter switched on" in describe("logo", "weights")
