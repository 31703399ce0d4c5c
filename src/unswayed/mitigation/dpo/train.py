"""Train a model on preference pairs, as a recipe says.

`output_dir` then holds the PEFT adapter, README.md (its card), run.json (what went in and came
out), curves.json and curves.svg, with `merge` the merged model in merged/. checkpoints/ is for
going on after an interruption: the same recipe again continues after the last checkpoint, to the
same adapter bit for bit (on CPU, with as many threads).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import peft
import torch
import transformers
from transformers.integrations import get_available_reporting_integrations
from transformers.trainer_callback import PrinterCallback, TrainerCallback
from trl import DPOConfig

from unswayed.core.errors import InputError, one_line
from unswayed.core.files import read_json, write_json, write_text
from unswayed.core.ledger import as_json, check_same
from unswayed.mitigation.dpo.card import MERGED, from_memory, mark_private, write_card
from unswayed.mitigation.dpo.curves import MEASURES, draw, last_values
from unswayed.mitigation.dpo.pairs import (
    PreferencePair,
    by_persona,
    check_lengths,
    encoded,
    pairs_hash,
    read_splits,
    training_pairs,
    without_memory,
)
from unswayed.mitigation.dpo.settings import DpoRecipe, DpoRun, start_adapter
from unswayed.mitigation.dpo.trainer import PairCollator, SharingDPOTrainer, last_checkpoint
from unswayed.models.adapters import MANIFEST, adapter_folder
from unswayed.models.base import Base, load_base
from unswayed.models.embedded import model_path
from unswayed.models.hashes import checkpoint_hash
from unswayed.scoring.checkpoint import adapter_tokenizer, adapter_weights, refusing

log = logging.getLogger(__name__)

RUN = "run.json"
IDENTITY = ("recipe", "base", "data")  # of what is in it: what makes two runs the same
SHARDING = ("FSDP", "DEEPSPEED")  # as accelerate launch tells its processes


def train(recipe: DpoRecipe) -> Path:
    """Train, or go on with an interrupted run; a finished one is left as it is.

    Returns:
        The adapter's folder, `output_dir`.

    Raises:
        InputError: model, adapter, data or settings do not fit, the folder holds another run, or
            the loss is not finite; checkpoints stay.
    """
    with quiet():
        return _train(recipe, Path(recipe.output_dir))


def _train(recipe: DpoRecipe, out: Path) -> Path:
    arguments = training_arguments(recipe)
    train_pairs, test_pairs = recipe_pairs(recipe, arguments)
    start = start_adapter(recipe)
    sharded = any(os.environ.get(f"ACCELERATE_USE_{how}") == "true" for how in SHARDING)
    base = load_base(recipe.model, recipe.dtype, "cpu" if sharded else str(arguments.device))
    facts: DpoRun = {
        "recipe": dataclasses.asdict(recipe),
        "base": {
            "model": base.name,
            "weights": base.weights,
            "adapter": checkpoint_hash(start) if start else None,
        },
        "private_memory": any(
            from_memory(Path(place)) for place in (recipe.model, recipe.adapter) if place
        ),
        "data": {
            "train": len(train_pairs),
            "test": len(test_pairs),
            "sha256": pairs_hash([*train_pairs, *test_pairs]),
        },
        "reference": f"{base.name} with the adapter {Path(recipe.adapter).name}, as training starts"
        if recipe.reference == "adapter"
        else f"{base.name} without an adapter",
        "versions": {name: version(name) for name in ("peft", "torch", "transformers", "trl")},
    }
    before, last = read_run(out), last_checkpoint(Path(arguments.output_dir))
    if before is not None and (last or "result" in before):
        check_goes_on(before, facts, out)
        if "result" in before:
            return out
    log.info("reference: %s", facts["reference"])
    if arguments.precompute_ref_log_probs:
        log.info("it reads all %d pairs first", len(train_pairs) + len(test_pairs))
    try:
        trainer = make_trainer(recipe, base, arguments, train_pairs, test_pairs)
        if trainer.is_world_process_zero():
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / RUN, facts, indent=2)
        if facts["private_memory"]:
            trainer.add_callback(MarkPrivate())
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    except InputError:
        raise
    except ValueError as error:  # settings that trl checks late, such as an unknown loss_type
        raise InputError(f"trl refuses: {one_line(error)}") from error
    history = trainer.state.log_history
    if test_pairs and not any(
        "eval_loss" in row and row["step"] == trainer.state.global_step for row in history
    ):
        trainer.evaluate()
    write_result(trainer, recipe, base, facts, out)
    trainer.accelerator.wait_for_everyone()
    return out


# -- what goes in --------------------------------------------------------------------------------


def training_arguments(recipe: DpoRecipe) -> DPOConfig:
    """trl's settings: its own defaults, ours, the recipe's.

    Raises:
        InputError: a value is refused, or a reporting package is not installed.
    """
    ours = {
        "bf16": False,  # the recipe's dtype says it
        "precompute_ref_log_probs": True,
        "report_to": "none",
        "disable_tqdm": not sys.stderr.isatty(),
        "dataloader_pin_memory": torch.accelerator.is_available(),
    }
    fixed = {
        "output_dir": str(Path(recipe.output_dir) / "checkpoints"),
        "seed": recipe.seed,
        "train_sampling_strategy": "random" if recipe.order == "shuffled" else "sequential",
        "remove_unused_columns": False,
        "prediction_loss_only": True,
    }
    try:
        arguments = DPOConfig(**ours | recipe.training | fixed)
    except (TypeError, ValueError) as error:
        raise InputError(f"training: {one_line(error)}") from None
    if arguments.ld_alpha is not None and arguments.precompute_ref_log_probs:
        raise InputError(
            "training.ld_alpha changes the reference's log-probabilities, but trl keeps computed "
            "ones without noting it: add precompute_ref_log_probs: false"
        )
    installed = get_available_reporting_integrations()
    if missing := [name for name in arguments.report_to if name not in installed]:
        raise InputError(
            f"training.report_to: {missing[0]} is not installed: `pip install {missing[0]}`, or "
            "leave report_to out; curves.json and curves.svg are written anyway"
        )
    return arguments


def recipe_pairs(
    recipe: DpoRecipe, arguments: DPOConfig
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Pairs to train on, drawn, and pairs to evaluate on, maybe none; both in order.

    Raises:
        InputError: no pairs.
    """
    splits = read_splits(recipe.dataset, recipe.config)
    mixed = read_splits(recipe.mix)["train"] if recipe.mix is not None else []
    drawn = training_pairs(splits["train"], recipe.n_pairs, mixed, recipe.mix_share, recipe.seed)
    test = splits.get("test", [])
    if recipe.order == "by_persona":
        drawn = by_persona(drawn, arguments.per_device_train_batch_size, recipe.seed)
        test = by_persona(test, arguments.per_device_eval_batch_size, recipe.seed)
    return drawn, test


def make_trainer(
    recipe: DpoRecipe,
    base: Base,
    arguments: DPOConfig,
    train_pairs: list[PreferencePair],
    test_pairs: list[PreferencePair],
) -> SharingDPOTrainer:
    """The trainer, policy and reference as the recipe says, nothing trained yet.

    Raises:
        InputError: a pair is too long, or the adapter does not fit the model.
    """
    limits = {"max_length": arguments.max_length, f"positions of {base.name}": base.max_length}
    tables = {}
    for name, pairs in (("training", train_pairs), ("test", test_pairs)):
        rows = encoded(pairs, base.tokenizer)
        check_lengths(pairs, rows, limits, name)
        if recipe.consistency:
            bare = encoded([without_memory(pair) for pair in pairs], base.tokenizer)
            rows = [
                row | {"bare": other["prompt_ids"]} for row, other in zip(rows, bare, strict=True)
            ]
        tables[name] = datasets.Dataset.from_list(rows) if rows else None
    policy, config, tensors = starting_policy(recipe, base)
    if base.tokenizer.pad_token is None:
        base.tokenizer.pad_token = base.tokenizer.eos_token
    trainer = SharingDPOTrainer(
        model=policy,
        args=arguments,
        data_collator=PairCollator(base.tokenizer.pad_token_id, shared=base.padded is None),
        train_dataset=tables["training"],
        eval_dataset=tables["test"],
        processing_class=base.tokenizer,
        peft_config=config,
        callbacks=[ProgressLines()],
        consistency=recipe.consistency,
    )
    trainer.remove_callback(PrinterCallback)
    if config is not None and tensors is not None:
        peft.set_peft_model_state_dict(trainer.model, tensors)
    return trainer


def starting_policy(
    recipe: DpoRecipe, base: Base
) -> tuple[Any, peft.PeftConfig | None, dict[str, torch.Tensor] | None]:
    """Model, LoRA configuration and adapter weights for trl.

    trl's reference is a copy of the adapter if the model comes with one, and the model with its
    adapter off if trl is to make the adapter. So, where training starts from an adapter and the
    reference is the base model, the weights are loaded into the adapter that trl has made.

    Raises:
        InputError: the adapter cannot be read, or does not fit the model.
    """
    if recipe.adapter is None:
        try:
            defaults = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
            return base.model, peft.LoraConfig(**defaults | recipe.lora), None
        except (TypeError, ValueError) as error:
            raise InputError(f"lora: {one_line(error)}") from None
    path = str(Path(recipe.adapter))
    if (Path(path) / MANIFEST).exists():
        path = str(adapter_folder(base, Path(path)))
    tensors = adapter_weights(path)
    with refusing(path, what="adapter"):
        config = peft.PeftConfig.from_pretrained(path)
    if adapter_tokenizer(path, lambda: base.tokenizer)[1]:
        raise InputError(
            f"adapter {recipe.adapter} was trained with another tokenizer or chat template than "
            f"{base.name} has: merge it into that model (peft's merge_and_unload), save its "
            "tokenizer there too, and name the result as model"
        )
    config.inference_mode = False
    why = ""
    try:
        policy = peft.get_peft_model(base.model, config)
    except ValueError as error:
        why = one_line(error, 160)
    else:
        shapes = [
            {name: tuple(tensor.shape) for name, tensor in weights.items()}
            for weights in (peft.get_peft_model_state_dict(policy), tensors)
        ]
        if differing := sorted(shapes[0].items() ^ shapes[1].items()):
            why = f"{differing[0][0]} has another shape"
    if why:
        raise InputError(
            f"adapter {recipe.adapter} does not fit {base.name} ({why}): give the model that it "
            "was trained on"
        )
    if recipe.reference == "adapter":
        peft.set_peft_model_state_dict(policy, tensors)
        return policy, None, tensors
    return policy.unload(), config, tensors


# -- a run's folder ------------------------------------------------------------------------------


def read_run(folder: Path) -> DpoRun | None:
    """What is known of a run (`run.json`), None if none was begun there; `result` if it is done.

    Raises:
        InputError: the file is damaged.
    """
    return read_json(folder / RUN, IDENTITY, "is damaged: restore it, or take another folder")


def check_goes_on(before: DpoRun, now: DpoRun, folder: Path) -> None:
    """The run in the folder was begun with the same recipe, model, start and data.

    Raises:
        InputError: names what differs.
    """

    def identity(facts: DpoRun) -> dict[str, Any]:
        parts = {part: facts[part] for part in IDENTITY}
        return parts | {"recipe": facts["recipe"] | {"output_dir": None}}

    remedy = "go on with the same, or name another output_dir"
    check_same(identity(before), identity(as_json(now)), folder, remedy)


def write_result(
    trainer: SharingDPOTrainer, recipe: DpoRecipe, base: Base, facts: DpoRun, out: Path
) -> None:
    """Adapter, curves and card; run.json, now with `result`, is written last."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # all processes take part
    if not trainer.is_world_process_zero():
        return
    policy = trainer.accelerator.unwrap_model(trainer.model)
    config = policy.peft_config["default"]
    config.base_model_name_or_path = base.name  # no path of this machine
    config.target_modules = sorted(config.target_modules)  # a set has no fixed order
    policy.save_pretrained(
        str(out), state_dict=state, selected_adapters=["default"], save_embedding_layers=False
    )
    base.tokenizer.save_pretrained(out)
    history = trainer.state.log_history
    write_json(out / "curves.json", history, indent=2)
    write_text(out / "curves.svg", draw(history))
    if recipe.merge:
        save_merged(recipe, base, out)
    facts = facts | {"result": last_values(history)}
    write_card(out, facts)
    write_json(out / RUN, facts, indent=2)


def save_merged(recipe: DpoRecipe, base: Base, out: Path) -> None:
    """The whole model with the adapter in its weights, in merged/."""
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        model_path(recipe.model), dtype=base.model.dtype
    )
    peft.PeftModel.from_pretrained(plain, str(out)).merge_and_unload().save_pretrained(out / MERGED)
    base.tokenizer.save_pretrained(out / MERGED)


@contextmanager
def quiet() -> Iterator[None]:
    """Without bars in a log, and without what trl and peft provoke in transformers."""
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # trl's own bars, which would fill a log
    try:
        with warnings.catch_warnings():  # a setting that has a new name
            warnings.filterwarnings("ignore", ".*gradient_checkpointing", FutureWarning)
            yield
    finally:
        if bars:
            datasets.enable_progress_bars()


class ProgressLines(TrainerCallback):
    """One line per log: how far the run is."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        for kind in ("", "eval_"):
            if state.is_world_process_zero and f"{kind}loss" in logs:
                values = (logs[f"{kind}{key}"] for key in MEASURES)
                where = (state.global_step, state.max_steps, ", test" if kind else "")
                log.info("step %d of %d%s: loss %.4f, margin %.3f, accuracy %.2f", *where, *values)


class MarkPrivate(TrainerCallback):
    """Checkpoints of a training that starts from a user's memory say so."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            mark_private(Path(args.output_dir) / f"checkpoint-{state.global_step}")
