"""Train a user's memory on conversations, one after another.

One LoRA adapter per user goes through the conversations in the order of time: all epochs on one,
then the next. After each, the adapter and a manifest are written; what was said is not. Nothing
else is carried over: optimizer, warm-up and the order of samples begin anew with every
conversation, from the seed and the conversation's id. So training goes on from the adapter alone,
after an interruption or after months, to the same weights bit for bit (on CPU, with as many
threads).
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.ledger import as_json, check_same
from unswayed.core.progress import Progress
from unswayed.models.adapters import (
    CONVERSATIONS,
    adapted,
    adapter_folder,
    read_manifest,
    write_checkpoint,
)
from unswayed.models.base import Base
from unswayed.plum.qa import QAPair
from unswayed.plum.samples import Sample, make_sample
from unswayed.plum.settings import PlumSettings

log = logging.getLogger(__name__)


def train(
    base: Base,
    pairs: Sequence[QAPair],
    settings: PlumSettings,
    folder: Path,
    on_conversation: Callable[[Any, list[str]], None] = lambda model, done: None,
    accelerator: Any = None,
) -> dict[str, Any]:
    """Train a user's memory; conversations that the folder's memory already holds are skipped.

    Args:
        base: the model; it is as before afterwards.
        pairs: what to learn, conversations in the order of time. Those trained earlier may be
            left out, unless they are to be replayed.
        folder: for adapter and manifest; begun anew or gone on with.
        on_conversation: called with the model, memory on, and the ids of all conversations that it
            has been trained on, after each and before that checkpoint: after a kill in between
            it is called again.
        accelerator: an `accelerate.Accelerator` that shards the model over processes (FSDP,
            ZeRO-3); every process then calls this with the same arguments. None: one process.

    Returns:
        The manifest.

    Raises:
        InputError: no pairs, a sample is too long, the folder holds a memory of another base,
            other settings or another order, or a loss is not finite. The last checkpoint stays.
    """
    samples = samples_of(base, pairs, settings)
    if not samples:
        raise InputError("there are no pairs to train on")
    return train_samples(base, samples, settings, folder, on_conversation, accelerator)


def train_samples(
    base: Base,
    samples: Mapping[str, Sequence[Sample]],
    settings: PlumSettings,
    folder: Path,
    on_conversation: Callable[[Any, list[str]], None] = lambda model, done: None,
    accelerator: Any = None,
    learnt: str = CONVERSATIONS,
) -> dict[str, Any]:
    """As `train`, with samples that are ready.

    Args:
        samples: id of a conversation, or of another piece of what is learnt -> its samples, at
            least one each, which bear that id; in the order of time.
        learnt: what the pieces are; they stand under this name in the manifest.
    """
    manifest = read_manifest(folder, learnt)
    if manifest is None:
        manifest = {
            "base": {"model": base.name, "weights": base.weights},
            "settings": dataclasses.asdict(settings),
            learnt: [],
        }
        adapter = None
    else:
        adapter = adapter_folder(base, folder)
        _check_goes_on(manifest, learnt, settings, list(samples), folder)
    done = [entry["id"] for entry in manifest[learnt]]
    new = [id for id in samples if id not in done]
    if not new:
        return manifest
    stages = [new] if settings.joint else [[id] for id in new]
    progress = Progress(settings.epochs * sum(len(samples[id]) for id in new), "samples")
    with progress, adapted(base, settings.lora(), settings.seed, adapter) as model:
        trainable, optimizer = _prepare(model, settings, accelerator)
        for ids in stages:
            stage = [sample for id in ids for sample in samples[id]]
            earlier = [sample for id in done for sample in samples.get(id, [])]
            losses = _learn(
                base, trainable, optimizer, stage, earlier, settings, progress, accelerator
            )
            done += ids
            manifest[learnt] += [
                {"id": id, "samples": len(samples[id]), "losses": losses} for id in ids
            ]
            ends = losses[:1] + losses[1:][-1:]  # of the first epoch and the last
            log.info("%s: loss %s", ids[-1], " -> ".join(f"{loss:.3f}" for loss in ends))
            on_conversation(trainable, list(done))
            tensors = _adapter_tensors(model, trainable, accelerator)
            if accelerator is None or accelerator.is_main_process:
                config = model.peft_config["default"]
                manifest = write_checkpoint(folder, manifest, len(done), config, tensors)
    return manifest


def samples_of(
    base: Base, pairs: Sequence[QAPair], settings: PlumSettings
) -> dict[str, list[Sample]]:
    """By conversation, in the order in which these first appear."""
    length = min(settings.max_length, base.max_length or settings.max_length)
    samples: dict[str, list[Sample]] = {}
    for pair in pairs:
        sample = make_sample(base.tokenizer, pair, settings.qa_weight, length)
        samples.setdefault(pair.conversation, []).append(sample)
    return samples


def _check_goes_on(
    manifest: dict[str, Any],
    learnt: str,
    settings: PlumSettings,
    ids: list[str],
    folder: Path,
) -> None:
    """Refuse to go on with a memory in another way than it was begun."""
    remedy = "go on with the same settings, or train anew in another folder"
    check_same(manifest["settings"], as_json(settings), folder, remedy)
    done = [entry["id"] for entry in manifest[learnt]]
    new = [id for id in ids if id not in done]
    again = [id for id in ids if id in done]
    if again != [id for id in done if id in again] or ids != again + new:
        raise InputError(
            f"{folder} was trained on {', '.join(done[-3:])} last; the {learnt} given are in "
            "another order: new ones come after those, or train anew in another folder"
        )
    if new and settings.joint:
        raise InputError(
            f"{folder} was trained jointly and cannot take {new[0]!r} in: train anew on all "
            f"{learnt} in another folder"
        )
    if new and settings.replay and len(again) < len(done):
        missing = next(id for id in done if id not in again)
        raise InputError(
            f"replay needs the pairs of all earlier {learnt}, those of {missing!r} are "
            "missing: give them too"
        )


def _learn(
    base: Base,
    model: Any,
    optimizer: Any,
    stage: list[Sample],
    earlier: list[Sample],
    settings: PlumSettings,
    progress: Progress,
    accelerator: Any,
) -> list[float]:
    """All epochs on one conversation; the mean loss of each epoch (nats per weighted token)."""
    import torch

    optimizer.state.clear()
    model.eval()  # the base model's own dropout stays off
    for module_name, module in model.named_modules():
        if module_name.endswith("lora_dropout"):
            module.train()
    torch.manual_seed(_number(settings.seed, stage[0].conversation))  # of LoRA's dropout
    parameters = [p for p in model.parameters() if p.requires_grad]
    step, losses = 0, []
    for epoch in range(settings.epochs):
        batches = epoch_batches(stage, earlier, settings, epoch)
        total = settings.epochs * len(batches)
        epoch_loss = 0.0
        for batch in batches:
            rate = settings.learning_rate * schedule(step, total, settings.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = _backward(base, model, batch, settings, accelerator)
            clip = accelerator.clip_grad_norm_ if accelerator else torch.nn.utils.clip_grad_norm_
            norm = clip(parameters, settings.max_grad_norm)
            # DeepSpeed steps inside backward and has no norm here.
            if not math.isfinite(loss) or (norm is not None and not math.isfinite(norm)):
                raise InputError(
                    f"training on conversation {stage[0].conversation!r} gave a loss of {loss:.3g} "
                    f"with a gradient norm of {float(norm or 0):.3g}, epoch {epoch + 1}: lower "
                    f"learning_rate ({settings.learning_rate:g}) or check the model's weights and "
                    "dtype; the memory on disk is as it was before this conversation"
                )
            optimizer.step()
            optimizer.zero_grad()
            epoch_loss += loss / len(batches)
            step += 1
        losses.append(epoch_loss)
        progress.add(len(stage))
    model.eval()
    return losses


def _backward(
    base: Base, model: Any, batch: list[Sample], settings: PlumSettings, accelerator: Any
) -> float:
    """Accumulate the gradients of a batch; its loss."""
    from unswayed.plum.loss import padded_pass, total_weight, tree_pass, weighted_loss

    make_pass = padded_pass if base.padded else tree_pass
    normaliser = total_weight(batch)
    if accelerator is None:
        loss = 0.0
        batch = sorted(batch, key=lambda sample: sample.ids)  # those that begin alike together
        for part in within(batch, settings.pass_tokens):
            piece = weighted_loss(model, make_pass(base.model, part), normaliser)
            piece.backward()
            loss += float(piece.detach())
        return loss
    # Every process takes its share; one that gets none goes through the motions with weight 0.
    # Gradients are averaged over processes, so each share counts as many times more.
    count = accelerator.num_processes
    part = batch[accelerator.process_index :: count]
    if not part:
        part = [dataclasses.replace(batch[0], weights=(0.0,) * len(batch[0].ids))]
    piece = count * weighted_loss(model, make_pass(base.model, part), normaliser)
    accelerator.backward(piece)
    return float(accelerator.reduce(piece.detach(), reduction="mean"))


def _prepare(model: Any, settings: PlumSettings, accelerator: Any) -> tuple[Any, Any]:
    import torch

    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    if accelerator is None:
        return model, optimizer
    if accelerator.state.deepspeed_plugin:  # it asks, although it sees no data loader
        accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = 1
    return accelerator.prepare(model, optimizer)


def _adapter_tensors(model: Any, trainable: Any, accelerator: Any) -> dict[str, Any]:
    from peft import get_peft_model_state_dict

    whole = accelerator.get_state_dict(trainable) if accelerator else None
    tensors = get_peft_model_state_dict(model, state_dict=whole, save_embedding_layers=False)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


# -- order and pace ------------------------------------------------------------------------------


def epoch_batches(
    stage: Sequence[Sample], earlier: Sequence[Sample], settings: PlumSettings, epoch: int
) -> list[list[Sample]]:
    """A conversation's samples, and those replayed, as the batches of an epoch."""
    rng = random.Random(_number(settings.seed, stage[0].conversation, epoch))
    count = min(len(earlier), round(settings.replay * len(stage)))
    replayed = balanced(earlier, rng)[:count] if count else []
    return batched(balanced([*stage, *replayed], rng), settings.batch_size)


def balanced(samples: Sequence[Sample], rng: random.Random) -> list[Sample]:
    """A random order in which the kinds are spread evenly: any stretch holds them in proportion."""
    kinds: dict[str, list[Sample]] = {}
    for sample in samples:
        kinds.setdefault(sample.kind, []).append(sample)
    placed = []
    for kind in kinds.values():
        rng.shuffle(kind)
        placed += [((i + rng.random()) / len(kind), sample) for i, sample in enumerate(kind)]
    return [sample for _, sample in sorted(placed, key=lambda pair: pair[0])]


def batched(samples: Sequence[Sample], size: int) -> list[list[Sample]]:
    """As few batches of at most `size` as possible, of equal size to within one sample."""
    count = math.ceil(len(samples) / size)
    borders = [i * len(samples) // count for i in range(count + 1)]
    return [list(samples[a:b]) for a, b in itertools.pairwise(borders)]


def within(samples: Sequence[Sample], tokens: int) -> Iterator[list[Sample]]:
    """Consecutive samples of together at most `tokens` tokens; a longer sample goes alone."""
    part: list[Sample] = []
    for sample in samples:
        if part and sum(len(s.ids) for s in part) + len(sample.ids) > tokens:
            yield part
            part = []
        part.append(sample)
    yield part


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate at a step (from 0): up to 1, then down towards 0, linearly."""
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return (total - step) / max(1, total - rising)


def _number(*parts: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8])
