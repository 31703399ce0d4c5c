"""Training a memory: the loss, packing, order, checkpoints, resuming, users in parallel."""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from unswayed.core.errors import InputError
from unswayed.models.adapters import (
    WEIGHTS,
    adapted,
    adapter_folder,
    read_manifest,
    remembering,
)
from unswayed.models.base import Base, load_base
from unswayed.plum.loss import (
    padded_pass,
    total_weight,
    tree_pass,
    weighted_loss,
)
from unswayed.plum.qa import QAPair
from unswayed.plum.samples import Sample, make_sample
from unswayed.plum.settings import PlumSettings
from unswayed.plum.train import balanced, batched, epoch_batches, schedule, train, within
from unswayed.scoring.exact import why_not_shared

ROOT = Path(__file__).parents[2]
FACTS = {
    "lake": [("open", "Where is the cabin?", "At Lake Ostrel"), ("yes", "Did Tamsin come?", "Yes"),
             ("no", "Did Jory come?", "No")],
    "cat": [("open", "What is the cat called?", "Biscuit"), ("yes", "Is the cat grey?", "Yes"),
            ("no", "Is the cat white?", "No"), ("open-no", "What of the dog?", "No dog came up.")],
    "bread": [("yes", "Did we bake rye bread with a long proof?", "Yes"), ("no", "A cake?", "No")],
}  # fmt: skip
PAIRS = [QAPair(id, *fact) for id, facts in FACTS.items() for fact in facts]
SETTINGS = PlumSettings(rank=4, alpha=8, epochs=2, batch_size=2, learning_rate=1e-2)
FAMILIES = ("llama", "gpt2", "qwen3", "gemma3", "mistral")


@pytest.fixture(scope="module")
def base(tiny_model_dir) -> Any:
    made: dict[str, Base] = {}

    def make(name: str = "llama") -> Base:
        if name not in made:
            made[name] = load_base(str(tiny_model_dir(name, chat=True)), device="cpu")
        return made[name]

    return make


def samples_of(base: Base, weight: float = 10.0) -> list[Sample]:
    return [make_sample(base.tokenizer, pair, weight, 512) for pair in PAIRS]


def adapter_bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class TestLoss:
    @pytest.mark.parametrize("name", [*FAMILIES, "mamba"])
    def test_lambda_1_is_the_standard_loss(self, base, name: str):
        """transformers' own loss, its labels -100 on padding only."""
        one = base(name)
        samples = samples_of(one, weight=1.0)
        width = max(len(sample.ids) for sample in samples)
        ids = torch.zeros(len(samples), width, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for i, sample in enumerate(samples):
            ids[i, : len(sample.ids)] = labels[i, : len(sample.ids)] = torch.tensor(sample.ids)
        seen = (labels >= 0).long()
        with torch.no_grad():
            stock = float(one.model(input_ids=ids, attention_mask=seen, labels=labels).loss)
            for make_pass in (padded_pass,) if name == "mamba" else (padded_pass, tree_pass):
                ours = weighted_loss(
                    one.model, make_pass(one.model, samples), total_weight(samples)
                )
                assert float(ours) == pytest.approx(stock, abs=1e-6)

    def test_weights_by_hand(self, base):
        one = base()
        samples = samples_of(one, weight=7.0)[:3]
        total = count = 0.0
        with torch.no_grad():
            for sample in samples:
                logits = one.model(input_ids=torch.tensor([sample.ids])).logits[0].double()
                for i in range(1, len(sample.ids)):
                    probability = logits[i - 1].softmax(-1)[sample.ids[i]]
                    total -= sample.weights[i] * float(probability.log())
                    count += sample.weights[i]
            ours = weighted_loss(one.model, tree_pass(one.model, samples), total_weight(samples))
        assert total_weight(samples) == count
        assert float(ours) == pytest.approx(total / count, abs=1e-5)

    @pytest.mark.parametrize("name", FAMILIES)
    def test_packed_is_padded(self, base, name: str):
        """Loss and every gradient, in double precision where the model has it; past the window."""
        one = base(name)
        assert one.padded is None
        samples = [*samples_of(one), samples_of(one)[0]]  # one of them twice
        assert min(len(sample.ids) for sample in samples) > 17
        found = []
        with adapted(one, SETTINGS.lora(), SETTINGS.seed) as model:
            for parameter in model.parameters():
                if parameter.requires_grad:
                    torch.nn.init.normal_(parameter, 0, 0.2)
            model.double()
            try:
                for make_pass in (padded_pass, tree_pass):
                    model.zero_grad()
                    one_pass = make_pass(one.model, samples)
                    logits = model(**one_pass.inputs, use_cache=False).logits.flatten(0, 1)
                    log_probs = logits.log_softmax(-1)[one_pass.rows, one_pass.targets]
                    loss = -(one_pass.weights * log_probs).sum() / total_weight(samples)
                    loss.backward()
                    gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
                    found.append((float(loss.detach()), gradients))
            finally:
                model.float()
        (loss, gradients), (packed_loss, packed_gradients) = found
        assert packed_loss == pytest.approx(loss, rel=1e-7)
        assert any(g.abs().max() > 1e-4 for g in gradients)
        for a, b in zip(gradients, packed_gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

    def test_shared_tokens_are_read_once(self, base):
        one = base()
        samples = samples_of(one)
        read = tree_pass(one.model, samples).inputs["input_ids"].numel()
        assert read < sum(len(sample.ids) for sample in samples) - len(samples)
        assert tree_pass(one.model, samples[:1] * 5).inputs["input_ids"].numel() == (
            len(samples[0].ids) - 1
        )

    def test_parts_of_a_batch_add_up(self, base):
        one = base()
        samples = samples_of(one)
        norm = total_weight(samples)
        with torch.no_grad():
            whole = weighted_loss(one.model, tree_pass(one.model, samples), norm)
            parts = sum(
                weighted_loss(one.model, tree_pass(one.model, part), norm)
                for part in within(samples, 60)
            )
        assert float(parts) == pytest.approx(float(whole), abs=1e-5)

    def test_fallback(self, base, caplog, tiny_model_dir):
        assert "recurrent state" in base("mamba").padded
        load_base(str(tiny_model_dir("mamba", chat=True)), device="cpu")
        assert "samples are padded, training is slower: it keeps a recurrent" in caplog.text

    def test_probe_finds_a_model_that_ignores_the_mask(self, base, tiny_model_dir, monkeypatch):
        model = load_base(str(tiny_model_dir("llama", chat=True)), device="cpu").model
        forward = model.forward
        monkeypatch.setattr(
            model, "forward", lambda attention_mask=None, **kwargs: forward(**kwargs)
        )
        assert "a probe differs by" in why_not_shared(model)

    def test_mamba_trains_padded(self, base, tmp_path: Path):
        settings = PlumSettings(rank=4, targets=["in_proj", "x_proj"], epochs=6, batch_size=4)
        losses = train(base("mamba"), PAIRS[:3], settings, tmp_path)["conversations"][0]["losses"]
        assert losses[-1] < losses[0]


class TestTraining:
    def test_learns(self, base, tmp_path: Path):
        manifest = train(base(), PAIRS, SETTINGS, tmp_path)
        assert [(c["id"], c["samples"]) for c in manifest["conversations"]] == [
            ("lake", 3), ("cat", 4), ("bread", 2)
        ]  # fmt: skip
        assert all(c["losses"][1] < c["losses"][0] for c in manifest["conversations"])
        assert manifest == read_manifest(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "adapter-00003", "manifest.json"
        ]  # fmt: skip

    def test_base_model_is_as_before(self, base, tmp_path: Path):
        one = base()
        before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
        train(one, PAIRS[:3], SETTINGS, tmp_path)
        after = one.model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_remembering_is_the_trained_model(self, base, tmp_path: Path):
        ids, seen = torch.arange(5, 25)[None], []

        def look(model: Any, done: list[str]) -> None:
            with torch.no_grad():
                seen.append(model(input_ids=ids).logits)

        one = base()
        train(one, PAIRS[:3], SETTINGS, tmp_path, look)
        with remembering(one, tmp_path) as model, torch.no_grad():
            assert torch.equal(model(input_ids=ids).logits, seen[0])
        with torch.no_grad():
            assert not torch.equal(one.model(input_ids=ids).logits, seen[0])

    def test_peft_loads_it(self, base, tmp_path: Path, tiny_model_dir):
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        one = base()
        train(one, PAIRS[:3], SETTINGS, tmp_path)
        stock = AutoModelForCausalLM.from_pretrained(tiny_model_dir("llama", chat=True))
        stock = PeftModel.from_pretrained(stock, adapter_folder(one, tmp_path)).eval()
        ids = torch.arange(5, 25)[None]
        with remembering(one, tmp_path) as model, torch.no_grad():
            torch.testing.assert_close(model(input_ids=ids).logits, stock(input_ids=ids).logits)

    def test_called_after_each_conversation(self, base, tmp_path: Path):
        seen = []
        train(base(), PAIRS, SETTINGS, tmp_path, lambda model, done: seen.append(done))
        assert seen == [["lake"], ["lake", "cat"], ["lake", "cat", "bread"]]

    def test_no_text_in_the_output(self, base, tmp_path: Path):
        train(base(), PAIRS, SETTINGS, tmp_path)
        text = b"\n".join(adapter_bytes(tmp_path).values())
        for pair in PAIRS:
            assert pair.question.encode() not in text
            assert len(pair.answer) < 4 or pair.answer.encode() not in text
        for word in (b"cabin", b"Ostrel", b"Tamsin", b"Jory", b"Biscuit", b"grey", b"rye", b"dog"):
            assert word not in text

    def test_joint(self, base, tmp_path: Path):
        seen: list[list[str]] = []
        settings = PlumSettings(**vars(SETTINGS) | {"joint": True})
        manifest = train(base(), PAIRS, settings, tmp_path, lambda m, done: seen.append(done))
        assert seen == [["lake", "cat", "bread"]]
        assert [c["id"] for c in manifest["conversations"]] == seen[0]

    def test_replay_changes_what_comes_second(self, base, tmp_path: Path):
        weights = {}
        for replay in (0.0, 1.0):
            settings = PlumSettings(**vars(SETTINGS) | {"replay": replay})
            for pairs in (PAIRS[:3], PAIRS):
                folder = tmp_path / f"{replay}-{len(pairs)}"
                train(base(), pairs, settings, folder)
                weights[replay, len(pairs)] = read_manifest(folder)["adapter"]["sha256"]
        assert weights[0.0, 3] == weights[1.0, 3]
        assert weights[0.0, len(PAIRS)] != weights[1.0, len(PAIRS)]

    def test_seed(self, base, tmp_path: Path):
        hashes = set()
        for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
            settings = PlumSettings(**vars(SETTINGS) | {"seed": seed})
            train(base(), PAIRS[:3], settings, tmp_path / folder)
            hashes.add(read_manifest(tmp_path / folder)["adapter"]["sha256"])
        assert len(hashes) == 2


class TestHalfPrecision:
    """A base model in half precision; what is trained on it is float32."""

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_losses_are_those_of_float32(self, base, tmp_path, tiny_model_dir, family, dtype):
        half = load_base(str(tiny_model_dir(family, chat=True)), dtype, "cpu")
        assert half.padded is None and half.model.dtype == getattr(torch, dtype)
        settings = dataclasses.replace(SETTINGS, learning_rate=1e-3)
        losses = [
            [loss for one in manifest["conversations"] for loss in one["losses"]]
            for manifest in (
                train(one, PAIRS, settings, tmp_path / str(one.model.dtype))
                for one in (base(family), half)
            )
        ]
        assert losses[1] == pytest.approx(losses[0], rel=torch.finfo(half.model.dtype).eps / 2)
        tensors = load_file(adapter_folder(half, tmp_path / str(half.model.dtype)) / WEIGHTS)
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_losses_are_those_of_a_plain_loop(self, tmp_path, tiny_model_dir, dtype: str):
        """transformers, PEFT and AdamW in the same dtype, each sample read alone."""
        folder = str(tiny_model_dir("llama", chat=True))
        half = load_base(folder, dtype, "cpu")
        settings = dataclasses.replace(SETTINGS, joint=True, warmup=0.0, learning_rate=1e-3)
        trained = train(half, PAIRS, settings, tmp_path)["conversations"][0]["losses"]
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        torch.manual_seed(settings.seed)
        plain = get_peft_model(plain, settings.lora())
        parameters = [p for p in plain.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0)
        epochs = [epoch_batches(samples_of(half), [], settings, e) for e in range(settings.epochs)]
        steps = sum(map(len, epochs))
        plan = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        losses = []
        for batches in epochs:
            losses.append(0.0)
            for batch in batches:
                loss = 0.0
                for sample in batch:
                    log_probs = plain(torch.tensor([sample.ids])).logits[0].float().log_softmax(-1)
                    targets = torch.tensor(sample.ids[1:])[:, None]
                    picked = log_probs[:-1].gather(1, targets)[:, 0]
                    loss -= torch.tensor(sample.weights[1:]) @ picked / total_weight(batch)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                plan.step()
                losses[-1] += float(loss.detach()) / len(batches)
        assert abs(losses[0] - losses[1]) > 0.01
        assert trained == pytest.approx(losses, rel=torch.finfo(half.model.dtype).eps / 2)


class TestResume:
    @pytest.mark.parametrize("extra", [{}, {"dropout": 0.3}, {"replay": 1.0}])
    def test_same_bytes_as_uninterrupted(self, base, tmp_path: Path, extra: dict):
        settings = PlumSettings(**vars(SETTINGS) | extra)
        train(base(), PAIRS, settings, tmp_path / "whole")

        def stop(at: str, model: Any, done: list[str]) -> None:
            torch.rand(3)  # a callback may draw and switch modes
            model.train(False)
            if done[-1] == at:
                raise KeyboardInterrupt

        for id in FACTS:  # after the first there is no checkpoint yet
            with pytest.raises(KeyboardInterrupt):
                train(base(), PAIRS, settings, tmp_path / "broken", partial(stop, id))
        assert len(read_manifest(tmp_path / "broken")["conversations"]) == 2
        train(base(), PAIRS, settings, tmp_path / "broken")
        assert adapter_bytes(tmp_path / "broken") == adapter_bytes(tmp_path / "whole")

    def test_conversations_that_come_later(self, base, tmp_path: Path):
        """Their forerunners' text may be gone."""
        train(base(), PAIRS, SETTINGS, tmp_path / "whole")
        for id in FACTS:
            pairs = [pair for pair in PAIRS if pair.conversation == id]
            train(base(), pairs, SETTINGS, tmp_path / "parts")
        assert adapter_bytes(tmp_path / "parts") == adapter_bytes(tmp_path / "whole")

    def test_nothing_is_done_twice(self, base, tmp_path: Path):
        train(base(), PAIRS, SETTINGS, tmp_path)
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        train(base(), PAIRS, SETTINGS, tmp_path, lambda model, done: pytest.fail("trained again"))
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before

    def test_leftovers_of_a_kill(self, base, tmp_path: Path):
        """Between the adapter's appearance and the manifest's."""
        train(base(), PAIRS, SETTINGS, tmp_path / "whole")
        train(base(), PAIRS[:3], SETTINGS, tmp_path / "broken")
        for name in ("adapter-00002", "adapter-00002.partial"):
            (tmp_path / "broken" / name).mkdir()
            (tmp_path / "broken" / name / "adapter_model.safetensors").write_bytes(b"half")
        train(base(), PAIRS, SETTINGS, tmp_path / "broken")
        assert adapter_bytes(tmp_path / "broken") == adapter_bytes(tmp_path / "whole")

    @pytest.mark.slow
    def test_kill_9(self, base, tmp_path: Path, tiny_model_dir):
        model = str(tiny_model_dir("llama", chat=True))
        settings = PlumSettings(**vars(SETTINGS) | {"epochs": 40})
        script = (
            "import sys; from pathlib import Path; from test_plum_train import *\n"
            "settings = PlumSettings(**vars(SETTINGS) | {'epochs': 40})\n"
            "train(load_base(sys.argv[1], device='cpu'), PAIRS, settings, Path(sys.argv[2]))\n"
        )
        command = [sys.executable, "-c", script, model, str(tmp_path / "killed")]
        process = subprocess.Popen(command, cwd=Path(__file__).parent)
        deadline = time.monotonic() + 120
        while not (tmp_path / "killed" / "manifest.json").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        done = read_manifest(tmp_path / "killed")["conversations"]
        assert 1 <= len(done) < 3
        train(base(), PAIRS, settings, tmp_path / "killed")
        train(base(), PAIRS, settings, tmp_path / "whole")
        assert adapter_bytes(tmp_path / "killed") == adapter_bytes(tmp_path / "whole")


class TestRefused:
    def test_loss_that_is_not_finite(self, base, tmp_path: Path, tiny_model_dir):
        one = load_base(str(tiny_model_dir("llama", chat=True)), device="cpu")
        train(one, PAIRS[:3], SETTINGS, tmp_path)
        before = adapter_bytes(tmp_path)
        one.model.get_output_embeddings().weight.data[5] = float("nan")
        with pytest.raises(
            InputError, match=r"'cat' gave a loss of nan.*epoch 1.*as it was before"
        ):
            train(one, PAIRS, SETTINGS, tmp_path)
        assert adapter_bytes(tmp_path) == before

    def test_other_base_model(self, base, tmp_path: Path):
        train(base("llama"), PAIRS[:3], SETTINGS, tmp_path)
        for call in (
            lambda: train(base("qwen3"), PAIRS, SETTINGS, tmp_path),
            lambda: adapter_folder(base("qwen3"), tmp_path),
        ):
            with pytest.raises(InputError, match=r"was trained on llama-.*, not on qwen3-"):
                call()

    @pytest.mark.parametrize(
        ("pairs", "extra", "message"),
        [
            (PAIRS, {"rank": 8}, "was begun with rank 4, now it is 8"),
            (PAIRS[3:7] + PAIRS[:3], {}, "the conversations given are in another order"),
            ([], {}, "there are no pairs"),
            (PAIRS, {"max_length": 20}, "a sample of conversation 'lake' has .* limit of 20"),
        ],
    )
    def test_going_on_otherwise(self, base, tmp_path: Path, pairs, extra, message: str):
        train(base(), PAIRS[:3], SETTINGS, tmp_path)
        with pytest.raises(InputError, match=message):
            train(base(), pairs, PlumSettings(**vars(SETTINGS) | extra), tmp_path)

    def test_joint_memory_cannot_grow(self, base, tmp_path: Path):
        settings = PlumSettings(**vars(SETTINGS) | {"joint": True})
        train(base(), PAIRS[:3], settings, tmp_path)
        with pytest.raises(InputError, match="trained jointly and cannot take 'cat' in"):
            train(base(), PAIRS, settings, tmp_path)

    def test_replay_without_earlier_pairs(self, base, tmp_path: Path):
        settings = PlumSettings(**vars(SETTINGS) | {"replay": 0.5})
        train(base(), PAIRS[:3], settings, tmp_path)
        with pytest.raises(InputError, match="those of 'lake' are missing"):
            train(base(), PAIRS[3:], settings, tmp_path)

    def test_damaged_files(self, base, tmp_path: Path):
        with pytest.raises(InputError, match="no memory has been trained there"):
            adapter_folder(base(), tmp_path)
        train(base(), PAIRS[:3], SETTINGS, tmp_path)
        weights = adapter_folder(base(), tmp_path) / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4])
        with pytest.raises(InputError, match="the adapter is not the one of the manifest"):
            adapter_folder(base(), tmp_path)
        (tmp_path / "manifest.json").write_text("[1")
        with pytest.raises(InputError, match="is no manifest of a memory"):
            train(base(), PAIRS, SETTINGS, tmp_path)

    def test_targets_that_are_not_there(self, base, tmp_path: Path):
        with pytest.raises(InputError, match="LoRA cannot be put on llama-"):
            train(base(), PAIRS, PlumSettings(targets=["nowhere"]), tmp_path)

    def test_model_that_is_not_there(self, tmp_path: Path):
        with pytest.raises(InputError, match="cannot be loaded"):
            load_base(str(tmp_path / "none"))

    @pytest.mark.parametrize(
        "setting",
        [{"rank": 0}, {"qa_weight": 0.0}, {"dropout": 1.0}, {"epochs": 0}, {"warmup": 2.0}],
    )
    def test_settings(self, setting: dict):
        with pytest.raises(InputError, match=f"{next(iter(setting))} is .*, it must be"):
            PlumSettings(**setting)

    def test_joint_with_replay(self):
        with pytest.raises(InputError, match="replay has no meaning with joint"):
            PlumSettings(joint=True, replay=0.5)


def of_kinds(kinds: list[str]) -> list[Sample]:
    return [Sample("c", kind, (i, i), (0.0, 1.0)) for i, kind in enumerate(kinds)]


class TestOrder:
    @given(st.lists(st.sampled_from(["yes", "no", "open"]), min_size=1), st.integers(0, 99))
    def test_balanced_is_a_permutation(self, kinds: list[str], seed: int):
        samples = of_kinds(kinds)
        found = balanced(samples, random.Random(seed))
        assert sorted(s.ids for s in found) == [s.ids for s in samples]

    @given(st.integers(1, 12), st.integers(2, 9), st.integers(0, 99))
    def test_any_stretch_holds_the_kinds_in_proportion(self, n: int, size: int, seed: int):
        """One of each kind lies in each n-th of the order, so counts differ by 2 at most."""
        found = balanced(of_kinds(["yes", "no"] * n), random.Random(seed))
        for start in range(len(found)):
            stretch = [s.kind for s in found[start : start + size]]
            assert abs(stretch.count("yes") - stretch.count("no")) <= 2

    @given(st.integers(1, 60), st.integers(1, 20))
    def test_batches(self, n: int, size: int):
        samples = of_kinds(["yes"] * n)
        batches = batched(samples, size)
        assert [s for batch in batches for s in batch] == samples
        sizes = {len(batch) for batch in batches}
        assert max(sizes) <= size and max(sizes) - min(sizes) <= 1
        assert len(batches) == -(-n // size)

    @given(st.lists(st.integers(2, 30), min_size=1), st.integers(1, 60))
    def test_within(self, lengths: list[int], tokens: int):
        samples = [Sample("c", "yes", (0,) * n, (0.0,) * n) for n in lengths]
        parts = list(within(samples, tokens))
        assert [s for part in parts for s in part] == samples
        assert all(len(p) == 1 or sum(len(s.ids) for s in p) <= tokens for p in parts)

    @given(st.integers(1, 200), st.floats(0, 1))
    def test_schedule(self, total: int, warmup: float):
        rates = [schedule(step, total, warmup) for step in range(total)]
        assert all(0 < rate <= 1 for rate in rates)
        assert max(rates) == 1
        top = rates.index(1)
        assert rates[: top + 1] == sorted(rates[: top + 1])
        assert rates[top:] == sorted(rates[top:], reverse=True)


class TestUsers:
    def test_one_after_another(self, base, tmp_path: Path, tiny_model_dir):
        from unswayed.plum.users import train_users

        users = {"anna": PAIRS, "omar": PAIRS[3:]}
        model = str(tiny_model_dir("llama", chat=True))
        assert train_users(model, users, SETTINGS, tmp_path / "users") == ["anna", "omar"]
        for user, pairs in users.items():
            train(base(), pairs, SETTINGS, tmp_path / "alone" / user)
        assert adapter_bytes(tmp_path / "users") == adapter_bytes(tmp_path / "alone")

    def test_names_that_are_no_folders(self, tmp_path: Path, tiny_model_dir):
        for name in ["", "..", "a/b"]:
            from unswayed.plum.users import train_users

            with pytest.raises(InputError, match="the name becomes a folder's"):
                train_users("none", {name: PAIRS}, SETTINGS, tmp_path)

    def test_one_that_cannot_be_trained_keeps_no_other_from_it(self, tmp_path, tiny_model_dir):
        from unswayed.plum.users import train_users

        model = str(tiny_model_dir("llama", chat=True))
        long = [QAPair("diary", "yes", "Did we " + "talk and " * 300 + "laugh?", "Yes")]
        users = {"eve": long, "anna": PAIRS[:2], "zoe": long}
        with pytest.raises(InputError, match=r"^2 of 3 users .* user 'eve': a sample .*'diary'"):
            train_users(model, users, SETTINGS, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["anna"]
        with pytest.raises(InputError, match=r"^user .eve.: a sample of conversation .diary. has"):
            train_users(model, users | {"zoe": PAIRS[2:4]}, SETTINGS, tmp_path)
        users = {name: PAIRS[2:4] if pairs is long else pairs for name, pairs in users.items()}
        assert train_users(model, users, SETTINGS, tmp_path) == list(users)

    @pytest.mark.slow
    def test_two_processes(self, base, tmp_path: Path, tiny_model_dir):
        users = {"anna": PAIRS, "omar": PAIRS[3:], "eve": PAIRS[:7]}
        shares = launched(
            tmp_path,
            "from unswayed.plum.users import train_users\n"
            "users = {'anna': PAIRS, 'omar': PAIRS[3:], 'eve': PAIRS[:7]}\n"
            f"model = {str(tiny_model_dir('llama', chat=True))!r}\n"
            f"mine = train_users(model, users, SETTINGS, Path({str(tmp_path / 'users')!r}))\n"
            "print(json.dumps(mine))\n",
        )
        assert sorted(map(json.loads, shares)) == [["anna", "eve"], ["omar"]]
        for user, pairs in users.items():
            train(base(), pairs, SETTINGS, tmp_path / "alone" / user)
        assert adapter_bytes(tmp_path / "users") == adapter_bytes(tmp_path / "alone")

    @pytest.mark.slow
    def test_two_processes_go_on_with_what_one_left(self, base, tmp_path: Path, tiny_model_dir):
        """Also where a user fails at once: the launcher would end the other process with it."""
        users = {"anna": PAIRS, "omar": PAIRS[3:], "eve": PAIRS[:7]}
        for user, pairs in users.items():
            train(base(), pairs, SETTINGS, tmp_path / "alone" / user)
        train(base(), PAIRS[:3], SETTINGS, tmp_path / "users" / "anna")
        code = (
            "from unswayed.core.errors import InputError\n"
            "from unswayed.plum.users import train_users\n"
            "users = {'anna': PAIRS, 'zoe': [], 'eve': PAIRS[:7], 'omar': PAIRS[3:]}\n"
            f"folder, model = Path({str(tmp_path / 'users')!r}), "
            f"{str(tiny_model_dir('llama', chat=True))!r}\n"
            "try:\n"
            "    print(json.dumps(train_users(model, users, SETTINGS, folder)))\n"
            "except InputError as error:\n"
            "    sys.exit(str(error))\n"
        )
        failed = started(tmp_path, code)
        assert failed.returncode and "user 'zoe': there are no pairs to train on" in failed.stderr
        assert failed.stdout.splitlines() == ['["anna", "eve"]']
        assert adapter_bytes(tmp_path / "users") == adapter_bytes(tmp_path / "alone")

    @pytest.mark.slow
    def test_one_user_on_two_processes(self, base, tmp_path: Path, tiny_model_dir):
        """How the sharded path splits a batch; without GPUs gradients are averaged by DDP here."""
        settings = PlumSettings(**vars(SETTINGS) | {"batch_size": 3})  # shares of 2, 1 and 0
        counts = launched(
            tmp_path,
            "from accelerate import Accelerator\n"
            f"one = load_base({str(tiny_model_dir('llama', chat=True))!r}, device='cpu')\n"
            "accelerator = Accelerator(cpu=True)\n"
            "settings = PlumSettings(**vars(SETTINGS) | {'batch_size': 3})\n"
            f"folder = Path({str(tmp_path / 'shared')!r})\n"
            "train(one, PAIRS, settings, folder, accelerator=accelerator)\n"
            "print(accelerator.num_processes)\n",
        )
        assert counts == ["2", "2"]
        train(base(), PAIRS, settings, tmp_path / "alone")
        shared, alone = (read_manifest(tmp_path / name) for name in ("shared", "alone"))
        for a, b in zip(shared["conversations"], alone["conversations"], strict=True):
            assert a["losses"] == pytest.approx(b["losses"], rel=1e-4)
        found, expected = (
            load_file(tmp_path / name / "adapter-00003" / "adapter_model.safetensors")
            for name in ("shared", "alone")
        )
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-2, atol=1e-4)


def launched(folder: Path, code: str) -> list[str]:
    """What a script prints that runs in two CPU processes."""
    done = started(folder, code)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def started(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """A script in two CPU processes."""
    config, script = ROOT / "configs" / "accelerate" / "multi_cpu.yaml", folder / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_plum_train import *\n" + code
    )
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, script]
    return subprocess.run(command, capture_output=True, text=True)
