"""Training on preference pairs: trl's losses from trees, the reference, resuming, the card."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from trl import DPOTrainer

from unswayed.core.errors import InputError
from unswayed.mitigation.dpo.card import from_memory, write_card
from unswayed.mitigation.dpo.curves import draw, last_values
from unswayed.mitigation.dpo.pairs import PreferencePair, encoded, without_memory
from unswayed.mitigation.dpo.settings import DpoRecipe
from unswayed.mitigation.dpo.train import (
    ProgressLines,
    make_trainer,
    read_run,
    starting_policy,
    train,
    training_arguments,
)
from unswayed.mitigation.dpo.trainer import alike, head, last_checkpoint
from unswayed.models.base import Base, load_base
from unswayed.models.embedded import EMBEDDED, EMBEDDED_ID
from unswayed.models.hashes import checkpoint_hash
from unswayed.plum.qa import QAPair
from unswayed.plum.settings import PlumSettings
from unswayed.plum.train import train as train_memory
from unswayed.publish.local import read_folder
from unswayed.publish.metadata import metadata

FAMILIES = ("llama", "gpt2", "qwen3", "gemma3", "mistral")
MEMORIES = (
    "You are talking to Anna, a surgeon who lives in a big house with her family and many friends.",
    "You are talking to Omar, a cleaner who lives alone in a small room and has no savings.",
)
QUESTIONS = ("How does she feel?", "What does he feel? A B C", "Who has won?", "E.")

# Of losses (nats), gradients and rewards between a tree and padded rows, by dtype of the base.
TOLERANCE = {"float64": 1e-5, "float32": 1e-5, "float16": 3e-3, "bfloat16": 3e-2}


def pair(memory: str, question: str, chosen: str, rejected: str) -> PreferencePair:
    return {
        "prompt": [{"role": "system", "content": memory}, {"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


# Every question under both memories with the same chosen answer.
PAIRS = [
    pair(memory, question, "relief " * (1 + i % 3) + str(i), "anger shame " * (1 + (i + j) % 2))
    for i, question in enumerate(QUESTIONS)
    for j, memory in enumerate(MEMORIES)
]


def write_pairs(
    folder: Path, train_pairs: list[PreferencePair] = PAIRS, test: list[PreferencePair] = PAIRS[:3]
):
    for split, rows in (("train", train_pairs), ("test", test)):
        (folder / "constructed").mkdir(parents=True, exist_ok=True)
        if rows:
            Dataset.from_list(rows).to_parquet(folder / "constructed" / f"{split}-0.parquet")
    splits = [f"{{split: {s}, path: constructed/{s}-*}}" for s in ("train", "test")]
    (folder / "README.md").write_text(
        f"---\nconfigs: [{{config_name: constructed, data_files: [{', '.join(splits)}]}}]\n---\n"
    )
    return str(folder)


@pytest.fixture
def make(tmp_path: Path, tiny_model_dir):
    """`make(**keys)`: a recipe of a short run but for what is given."""
    data = write_pairs(tmp_path / "data")

    def recipe(family: str = "llama", training: Any = None, **keys: Any) -> DpoRecipe:
        common = {
            "per_device_train_batch_size": 4,
            "num_train_epochs": 2,
            "learning_rate": 1e-2,
            "gradient_checkpointing": False,
            "logging_steps": 1,
            "save_steps": 1,
        }
        return DpoRecipe(
            str(tiny_model_dir(family, chat=True)),
            data,
            str(tmp_path / keys.pop("to", "out")),
            training=common | (training or {}),
            **({} if "adapter" in keys else {"lora": {"r": 4}}) | keys,
        )

    return recipe


def disturbed(trainer: Any) -> Any:
    """The trainer, its adapter no longer that of its first step: losses other than ln 2."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B.default" in name:
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.data = 0.1 * noise
    return trainer


def loss_and_gradients(trainer: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    loss.backward()
    gradients = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
    return loss.detach(), gradients


class StockTrainer(DPOTrainer):
    """trl's, on pairs that are tokens already."""

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset


def stock_trainer(recipe: DpoRecipe, base: Base) -> DPOTrainer:
    return StockTrainer(
        model=base.model,
        args=training_arguments(recipe),
        train_dataset=Dataset.from_list(encoded(PAIRS, base.tokenizer)),
        processing_class=base.tokenizer,
        peft_config=starting_policy(recipe, base)[1],
    )


def our_trainer(recipe: DpoRecipe, base: Base, pairs: list[PreferencePair] = PAIRS) -> Any:
    return make_trainer(recipe, base, training_arguments(recipe), pairs, [])


class TestTrees:
    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("precision", TOLERANCE)
    def test_losses_and_gradients_are_those_of_trl(self, make, family: str, precision: str):
        check_equal(make, family, precision, {})

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_trains_as_float32_does(self, make, dtype: str):
        curves = []
        for one in ("float32", dtype):
            out = train(make(to=one, dtype=one, training={"learning_rate": 1e-3}))
            rows = json.loads((out / "curves.json").read_text())
            curves.append([row["loss"] for row in rows if "loss" in row])
            tensors = load_file(out / "adapter_model.safetensors")
            assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        assert curves[0][-1] < math.log(2) - 0.05
        assert curves[1] == pytest.approx(curves[0], abs=TOLERANCE[dtype])

    @pytest.mark.parametrize(
        "settings",
        [
            {"gradient_checkpointing": True},
            {"precompute_ref_log_probs": False},
            {"loss_type": ["ipo", "sft"], "loss_weights": [1.0, 0.5]},
            {"use_weighting": True},
            {"precompute_ref_log_probs": False, "ld_alpha": 0.3},
        ],
        ids=lambda settings: "-".join(settings),
    )
    def test_with_other_settings(self, make, settings: dict):
        check_equal(make, "llama", "float32", settings)

    def test_a_model_that_reads_no_trees(self, make, caplog):
        with caplog.at_level(logging.WARNING):
            check_equal(make, "mamba", "float32", {}, lora={"target_modules": ["in_proj"]})
        assert "training is slower: it keeps a recurrent state" in caplog.text

    def test_shared_tokens_pass_once(self, make):
        recipe = make(order="by_persona")
        base = load_base(recipe.model, device="cpu")
        pairs = [row for row in PAIRS if MEMORIES[0] in row["prompt"][0]["content"]]
        trainer = our_trainer(recipe, base, pairs)
        batch = next(iter(trainer.get_train_dataloader()))
        passed = []
        embedding = base.model.get_input_embeddings()
        hook = embedding.register_forward_hook(lambda m, args, out: passed.append(args[0].numel()))
        trainer.compute_loss(trainer.model, batch)
        hook.remove()
        prefixes = {
            tuple(ids[:end].tolist())
            for ids, seen in zip(batch["input_ids"], batch["attention_mask"], strict=True)
            for end in range(1, int(seen.sum()))  # the last token is predicted, not read
        }
        assert passed == [len(prefixes)]
        assert 3 * len(prefixes) < batch["attention_mask"].sum()

    @given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=9))
    def test_alike(self, sequences: list[list[int]]):
        trees = alike(sequences)
        assert sorted(i for tree in trees for i in tree) == list(range(len(sequences)))
        for tree in trees:  # what a tree reads is at least halved where it has a neighbour
            for before, i in itertools.pairwise(tree):
                half = math.ceil(len(sequences[i]) / 2)
                assert sequences[before][:half] == sequences[i][:half]


def check_equal(make, family: str, precision: str, settings: dict, **keys: Any):
    results = []
    for build in (stock_trainer, our_trainer):
        recipe = make(family, settings | {"train_sampling_strategy": "sequential"}, **keys)
        base = load_base(recipe.model, precision, device="cpu")
        assert (base.padded is None) == (family != "mamba")
        trainer = disturbed(build(recipe, base))
        results.append((trainer, *loss_and_gradients(trainer)))
    (stock, loss, gradients), (ours, our_loss, our_gradients) = results
    assert abs(loss - math.log(2)) > 0.01
    close = TOLERANCE[precision]
    torch.testing.assert_close(our_loss, loss, rtol=0, atol=close)
    assert our_gradients.keys() == gradients.keys()
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 5e-4
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32 or precision == "float64"
        torch.testing.assert_close(our_gradients[name], gradient, rtol=close, atol=close)
    assert ours._metrics["train"].keys() == stock._metrics["train"].keys()
    for name, values in stock._metrics["train"].items():
        assert ours._metrics["train"][name] == pytest.approx(values, abs=10 * close), name


class TestConsistency:
    @pytest.mark.parametrize(
        ("family", "start"),
        [
            *((family, None) for family in (*FAMILIES, "mamba")),
            ("llama", "base"),
            ("llama", "adapter"),
        ],
    )
    def test_adds_to_the_loss(self, make, memory, family: str, start: str | None):
        """Against a plain forward of each answer; the reference is trl's."""
        keys: dict[str, Any] = {}
        if family == "mamba":
            keys = {"lora": {"target_modules": ["in_proj"]}}
        if start:
            keys = {"adapter": memory(family), "reference": start}
        results = {}
        for weight in (0.0, 2.0):
            recipe = make(family, order="by_persona", consistency=weight, **keys)
            base = load_base(recipe.model, device="cpu")
            trainer = disturbed(our_trainer(recipe, base))
            results[weight] = loss_and_gradients(trainer)
        terms = [trainer._metrics["train"][name][0] for name in ("consistency", "drift")]
        expected: list[list[float]] = [[], []]
        plain = AutoModelForCausalLM.from_pretrained(recipe.model)
        if start == "adapter":
            plain = PeftModel.from_pretrained(plain, recipe.adapter)
        with torch.no_grad():
            for row in PAIRS[:4]:
                theirs = answer_distribution(plain, base.tokenizer, without_memory(row))
                for values, prompt in zip(expected, (row, without_memory(row)), strict=True):
                    ours = answer_distribution(trainer.model, base.tokenizer, prompt)
                    values += (theirs.exp() * (theirs - ours)).sum(-1).tolist()
        for term, values in zip(terms, expected, strict=True):
            assert term == pytest.approx(sum(values) / len(values), rel=1e-3) and term > 1e-4
        assert float(results[2.0][0] - results[0.0][0]) == pytest.approx(2 * sum(terms), rel=1e-3)
        gradients = [gradient for _, gradient in results.values()]
        assert any(
            not torch.allclose(gradients[0][name], gradients[1][name]) for name in gradients[0]
        )

    @pytest.mark.parametrize("family", ["llama", "gemma3"])
    def test_the_head_is_the_models_own(self, tiny_model_dir, family: str):
        """Gemma's logits can be capped."""
        soft = {"final_logit_softcapping": 2.0} if family == "gemma3" else {}
        model = AutoModelForCausalLM.from_pretrained(tiny_model_dir(family, chat=True, **soft))
        model.eval()
        ids = torch.tensor([[1, 5, 9, 3]])
        with torch.no_grad():
            whole = model(input_ids=ids, output_hidden_states=True)
            results = head(model, whole.hidden_states[-1][0, 1:])
            again = model(input_ids=ids)
        torch.testing.assert_close(results, whole.logits[0, 1:])
        assert (float(results.abs().max()) < 2) == bool(soft)
        torch.testing.assert_close(again.logits, whole.logits)

    def test_training_lowers_it(self, make):
        """Training with the term brings the answers under a memory to those without row."""
        distances = {}
        for weight in (0.0, 5.0):
            recipe = make(
                consistency=weight, to=f"out-{weight}",
                training={"num_train_epochs": 6, "save_strategy": "no"},
            )  # fmt: skip
            train(recipe)
            base = load_base(recipe.model, device="cpu")
            with torch.no_grad():
                bare = [answer_distribution(base.model, base.tokenizer, without_memory(row))
                        for row in PAIRS]  # fmt: skip
                model = PeftModel.from_pretrained(base.model, recipe.output_dir)
                adapted = [answer_distribution(model, base.tokenizer, row) for row in PAIRS]
            distances[weight] = sum(
                float((a.exp() * (a - b)).sum(-1).mean())
                for a, b in zip(bare, adapted, strict=True)
            )
        assert distances[5.0] < distances[0.0] / 2


def answer_distribution(
    model: Any, tokenizer: Any, row: PreferencePair, part: str = "chosen"
) -> torch.Tensor:
    """(T, V) log-probabilities at each of the answer's tokens, by a plain forward."""
    prompt, ids = tokens_of(tokenizer, row, part)
    return model(input_ids=ids).logits.double().log_softmax(-1)[0, prompt - 1 : -1]


def answer_log_probs(model: Any, tokenizer: Any, row: PreferencePair, part: str) -> torch.Tensor:
    """(T,), of the answer's tokens."""
    prompt, ids = tokens_of(tokenizer, row, part)
    return answer_distribution(model, tokenizer, row, part).gather(1, ids[0, prompt:, None])[:, 0]


def tokens_of(tokenizer: Any, row: PreferencePair, part: str) -> tuple[int, torch.Tensor]:
    """Tokens of the prompt, and the ids of prompt and answer, without white space around it."""
    encode = tokenizer.apply_chat_template
    prompt = encode(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    answer = {"role": "assistant", "content": row[part][0]["content"].strip()}
    whole = encode([*row["prompt"], answer], tokenize=False).removesuffix("\n")
    return len(prompt), torch.tensor([tokenizer(whole, add_special_tokens=False)["input_ids"]])


@pytest.fixture
def memory(tmp_path: Path, tiny_model_dir):
    """`memory(family)`: a PEFT adapter that changes the tiny model a lot."""

    def make(family: str = "llama") -> str:
        model = AutoModelForCausalLM.from_pretrained(tiny_model_dir(family, chat=True))
        torch.manual_seed(5)
        policy = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear"))
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.2)
        folder = tmp_path / f"memory-{family}"
        policy.save_pretrained(folder, save_embedding_layers=False)
        return str(folder)

    return make


class TestReference:
    @pytest.mark.parametrize("reference", ["base", "adapter"])
    def test_its_log_probs(self, make, memory, reference: str):
        recipe = make(adapter=memory(), reference=reference)
        base = load_base(recipe.model, device="cpu")
        trainer = our_trainer(recipe, base)
        plain = AutoModelForCausalLM.from_pretrained(recipe.model)
        by_hand = {"base": {}, "adapter": {}}
        with torch.no_grad():
            for name in by_hand:  # the base first: PEFT changes it in place
                model = PeftModel.from_pretrained(plain, memory()) if name == "adapter" else plain
                for part in ("chosen", "rejected"):
                    by_hand[name][part] = [
                        float(answer_log_probs(model, base.tokenizer, row, part).sum())
                        for row in PAIRS
                    ]
            policy = [
                float(answer_log_probs(trainer.model, base.tokenizer, row, "chosen").sum())
                for row in PAIRS
            ]
        for part in ("chosen", "rejected"):
            log_probs = trainer.train_dataset[f"ref_{part}_logps"]
            assert list(log_probs) == pytest.approx(by_hand[reference][part], abs=1e-3)
        assert policy == pytest.approx(by_hand["adapter"]["chosen"], abs=1e-3)
        differences = [
            abs(a - b)
            for a, b in zip(by_hand["base"]["chosen"], by_hand["adapter"]["chosen"], strict=True)
        ]
        assert max(differences) > 1

    @pytest.mark.parametrize("reference", ["base", "adapter"])
    def test_whole_run_is_said(self, make, memory, caplog, reference: str):
        recipe = make(adapter=memory(), reference=reference)
        with caplog.at_level(logging.INFO):
            out = train(recipe)
        words = {"base": "without an adapter", "adapter": "with the adapter memory-llama"}
        assert words[reference] in read_run(out)["reference"]
        assert f"reference: {read_run(out)['reference']}" in caplog.text
        assert f"Reference: {read_run(out)['reference']}." in (out / "README.md").read_text()
        assert not (out / "ref").exists()
        before, after = (load_file(Path(f) / "adapter_model.safetensors") for f in (memory(), out))
        assert before.keys() == after.keys()
        assert any(not torch.equal(before[name], after[name]) for name in before)

    def test_a_memory_of_plum(self, make, tmp_path: Path):
        base = load_base(make().model, device="cpu")
        facts = [QAPair("lake", "yes", "Did Tamsin come?", "Yes")]
        train_memory(base, facts, PlumSettings(rank=2, epochs=1), tmp_path / "anna")
        recipe = make(adapter=str(tmp_path / "anna"), reference="adapter")
        out = train(recipe)
        assert "anna" in read_run(out)["reference"]
        with pytest.raises(InputError, match="was trained on from a user's memory, which is priva"):
            read_folder(out, "apache-2.0", "me/llama")
        (tmp_path / "other").mkdir()
        manifest = json.loads((tmp_path / "anna" / "manifest.json").read_text())
        manifest["base"]["weights"] = "0" * 64
        (tmp_path / "anna" / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match="this memory was trained on"):
            train(make(adapter=str(tmp_path / "anna"), reference="adapter", to="again"))

    def test_a_memory_stays_private_in_what_is_trained_from_it(self, make, tmp_path: Path):
        base = load_base(make().model, device="cpu")
        facts = [QAPair("lake", "yes", "Did Tamsin come?", "Yes")]
        train_memory(base, facts, PlumSettings(rank=2, epochs=1), tmp_path / "anna")
        once = {"max_steps": 1}
        first = train(make(adapter=str(tmp_path / "anna"), merge=True, training=once))
        recipes = {
            "adapter": make(adapter=str(first), to="second", training=once),
            "merged": dataclasses.replace(
                make(to="third", training=once), model=str(first / "merged")
            ),
        }
        with pytest.raises(InputError, match="was trained on from a user's memory"):
            read_folder(last_checkpoint(first / "checkpoints"), "apache-2.0", "me/llama")
        for recipe in recipes.values():
            out = train(recipe)
            for _ in range(2):
                with pytest.raises(InputError, match="was trained on from a user's memory"):
                    read_folder(out, "apache-2.0", "me/llama")
                write_card(out, read_run(out))  # as after the audits
        plain = train(make(to="plain", training=once))
        assert not read_run(plain)["private_memory"] and not from_memory(plain)
        assert not from_memory(Path("owner/name"))

    @pytest.mark.parametrize("metadata", ["unswayed: {private_memory", "- a list"])
    def test_a_card_that_cannot_be_read(self, make, memory, metadata: str):
        start = memory()
        (Path(start) / "README.md").write_text(f"---\n{metadata}\n---\n\n# Anna\n")
        with pytest.raises(InputError, match=r"README\.md: its metadata cannot be read.*mend it"):
            train(make(adapter=start))

    @pytest.mark.parametrize("reference", ["base", "adapter"])
    @pytest.mark.parametrize("family", ["gpt2", "gemma3"])
    def test_an_adapter_of_another_model(self, make, memory, family: str, reference: str):
        recipe = make(adapter=memory(family), reference=reference)
        with pytest.raises(InputError, match=f"memory-{family} does not fit llama.*trained on"):
            train(recipe)


class Killed(Exception):
    pass


@pytest.fixture
def kill(monkeypatch):
    """`kill(step)`: training ends with an exception after that step, before its checkpoint."""

    def at(step: int | None) -> None:
        def on_step_end(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                raise Killed

        monkeypatch.setattr(ProgressLines, "on_step_end", on_step_end)

    return at


def adapter_bytes(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


class TestResume:
    @pytest.mark.parametrize(
        ("reference", "order"),
        [(None, "shuffled"), ("base", "by_persona"), ("adapter", "shuffled")],
    )
    def test_the_same_adapter(self, make, memory, kill, reference: str | None, order: str):
        if reference:
            keys = {"adapter": memory(), "reference": reference}
        else:
            keys = {"lora": {"r": 4, "lora_dropout": 0.2}}
        keys |= {"order": order, "training": {"save_steps": 2}}
        kill(3)
        with pytest.raises(Killed):
            train(make(to="killed", **keys))
        kill(None)
        killed, whole = train(make(to="killed", **keys)), train(make(to="whole", **keys))
        assert adapter_bytes(killed) == adapter_bytes(whole)
        histories = [json.loads((f / "curves.json").read_text()) for f in (killed, whole)]
        for first, second in zip(*histories, strict=True):
            for key in first.keys() | second.keys():
                if not re.search("runtime|per_second|num_tokens|train_loss", key):
                    assert first[key] == second[key], key

    def test_a_checkpoint_that_is_half_there(self, make, kill):
        recipe = make(training={"save_steps": 1})
        kill(3)
        with pytest.raises(Killed):
            train(recipe)
        checkpoints = Path(recipe.output_dir) / "checkpoints"
        (checkpoints / "checkpoint-2" / "trainer_state.json").unlink()
        assert last_checkpoint(checkpoints).name == "checkpoint-1"
        kill(None)
        again = train(recipe)
        whole = train(make(to="whole", training={"save_steps": 1}))
        assert adapter_bytes(again) == adapter_bytes(whole)

    @pytest.mark.parametrize("killed", [None, 3])
    def test_a_start_adapter_that_was_trained_anew(self, make, memory, kill, killed: int | None):
        start = Path(memory())
        recipe = make(adapter=str(start))
        kill(killed)
        with contextlib.suppress(Killed):
            train(recipe)
        kill(None)
        assert read_run(Path(recipe.output_dir))["base"]["adapter"] == checkpoint_hash(str(start))
        assert ("result" in read_run(Path(recipe.output_dir))) == (killed is None)
        before = adapter_bytes(start)
        tensors = load_file(start / "adapter_model.safetensors")
        save_file(
            {name: 1.1 * tensor for name, tensor in tensors.items()},
            start / "adapter_model.safetensors",
        )
        with pytest.raises(InputError, match=r"was begun with base\.adapter"):
            train(recipe)
        (start / "adapter_model.safetensors").write_bytes(before)
        assert "result" in read_run(train(recipe))

    def test_a_run_of_a_version_that_kept_no_start_adapter(self, make, memory):
        for keys, fits in ({}, True), ({"adapter": memory(), "to": "from"}, False):
            out = train(recipe := make(**keys))
            earlier = read_run(out)
            del earlier["base"]["adapter"], earlier["private_memory"]
            (out / "run.json").write_text(json.dumps(earlier))
            if fits:
                assert train(recipe) == out and read_run(out) == earlier
                write_card(out, earlier)
            else:
                with pytest.raises(InputError, match=r"was begun with base\.adapter None"):
                    train(recipe)


class TestNotFinite:
    def test_a_scaler_may_overflow(self, make):
        """Scaled losses of half precision: the step is skipped, and the scale becomes smaller."""
        recipe = make(training={"beta": 10, "max_grad_norm": 0, "save_strategy": "no"})
        trainer = our_trainer(recipe, load_base(recipe.model, device="cpu"))
        scaler = torch.amp.GradScaler("cpu", init_scale=3e38, backoff_factor=1e-36)
        trainer.accelerator.scaler = scaler
        before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        trainer.train()
        assert scaler.get_scale() == pytest.approx(300, rel=0.1)
        after = dict(trainer.model.named_parameters())
        assert all(tensor.isfinite().all() for tensor in after.values())
        assert any(not torch.equal(before[name], tensor) for name, tensor in after.items())
        next(p for p in trainer.model.parameters() if p.requires_grad).data[:] = math.inf
        with pytest.raises(InputError, match="gave a loss of nan"):
            trainer.training_step(trainer.model, next(iter(trainer.get_train_dataloader())))

    def test_last_checkpoint_is_intact(self, make, kill, monkeypatch):
        recipe = make()

        def on_step_begin(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:  # in the third step
                next(p for p in kwargs["model"].parameters() if p.requires_grad).data[:] = math.inf

        monkeypatch.setattr(ProgressLines, "on_step_begin", on_step_begin)
        with pytest.raises(InputError, match=r"step 3 gave a loss of nan .*checkpoint-2 is intact"):
            train(recipe)
        checkpoints = Path(recipe.output_dir) / "checkpoints"
        assert not (checkpoints / "checkpoint-3").exists()
        monkeypatch.undo()
        again = train(recipe)
        tensors = load_file(again / "adapter_model.safetensors")
        assert all(tensor.isfinite().all() for tensor in tensors.values())


HISTORY = [
    {"step": 1, "loss": 0.7, "rewards/margins": 0.0, "rewards/accuracies": 0.5},
    {"step": 2, "loss": 0.6, "rewards/margins": 0.2, "rewards/accuracies": 0.75},
    {"step": 2, "eval_loss": 0.65, "eval_rewards/margins": 0.1, "eval_rewards/accuracies": 1.0},
    {"step": 2, "train_runtime": 3.0},
]


class TestCurvesAndCard:
    def test_last_values(self):
        assert last_values(HISTORY) == {
            "loss": 0.6, "rewards/margins": 0.2, "rewards/accuracies": 0.75,
            "eval_loss": 0.65, "eval_rewards/margins": 0.1, "eval_rewards/accuracies": 1.0,
        }  # fmt: skip

    def test_drawing_is_deterministic(self):
        drawn = draw(HISTORY)
        assert drawn == draw(HISTORY) and drawn != draw(HISTORY[:3] + HISTORY[:1])
        assert all(word in drawn for word in ("loss", "reward margin", "preference accuracy"))
        assert draw([]).startswith("<?xml")

    def test_card(self, make, tmp_path: Path):
        from huggingface_hub import RepoCard

        out = train(make(n_pairs=6))
        facts = read_run(out)
        card = RepoCard.load(out / "README.md")
        assert card.data.library_name == "peft" and "dpo" in card.data.tags
        for text in (facts["data"]["sha256"], "6 pairs to train on, 3 to test on", "| lora.r | 4 |",
                     "Not measured yet", f"{facts['result']['eval_loss']:.4g}"):  # fmt: skip
            assert text in card.text
        write_card(out, facts, [{"measure": "flip rate", "before": "19.5 %", "after": "11.0 %"}])
        card = RepoCard.load(out / "README.md")
        assert "| flip rate | 19.5 % | 11.0 % |" in card.text
        assert "Not measured yet" not in card.text

    def test_cards_of_adapter_and_merged_model_are_what_publishing_needs(self, make):
        out = train(make(merge=True))
        fixed = {"license": "apache-2.0", "base_model": "me/llama"}
        adapter, merged = (read_folder(folder, **fixed) for folder in (out, out / "merged"))
        common = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
        assert adapter.files.keys() == common | {
            "adapter_config.json", "adapter_model.safetensors", "curves.json", "curves.svg"
        }  # fmt: skip
        assert merged.files.keys() == common | {
            "config.json", "generation_config.json", "model.safetensors"
        }  # fmt: skip
        for local, library, words in (
            (adapter, "peft", "A LoRA adapter, trained"),
            (merged, "transformers", "The model with a LoRA adapter in its weights, trained"),
        ):
            assert metadata(local.card, "").items() >= (fixed | {"library_name": library}).items()
            assert words in local.card and ("curves.svg" in local.card) == (library == "peft")
        with pytest.raises(InputError, match="names no licence"):
            read_folder(out, base_model="me/llama")

    def test_the_embedded_model_has_its_name_on_the_hub(self, make, tmp_path: Path):
        facts = read_run(train(make()))
        facts["base"]["model"] = EMBEDDED
        write_card(tmp_path, facts)
        assert metadata((tmp_path / "README.md").read_text(), "")["base_model"] == EMBEDDED_ID

    def test_merged_model_is_the_model_with_its_adapter(self, make):
        recipe = make(merge=True)
        out = train(recipe)
        base = load_base(recipe.model, device="cpu")
        adapted = PeftModel.from_pretrained(base.model, out)
        merged = AutoModelForCausalLM.from_pretrained(out / "merged")
        with torch.no_grad():
            ours, theirs = (
                answer_log_probs(m, base.tokenizer, PAIRS[0], "chosen") for m in (adapted, merged)
            )
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)

    def test_training_prefers_the_chosen(self, make):
        result = read_run(train(make(training={"num_train_epochs": 6})))["result"]
        assert result["rewards/accuracies"] == 1.0 and result["eval_rewards/margins"] > 1
        assert result["loss"] < math.log(2) / 2
