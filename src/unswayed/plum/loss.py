"""The weighted loss of a batch, over whole samples or over the token tree that they form.

    loss = sum over samples and tokens of weight * -log p(token | those before)  /  sum of weights

The normaliser is the sum of the weights, not the number of tokens: lambda then shifts the emphasis
and leaves the size of the loss, and with it the effect of clipping, alone. With lambda = 1 it is
the ordinary mean cross-entropy over the batch's tokens.

All samples begin with the same template tokens, and many questions with the same words. As a tree
(`unswayed.scoring.tree`) each shared token goes through the model once, forward and backward, and
nothing is padded; where samples part, a token simply has several successors to predict, each with
the summed weight of its samples. A token sees what it would see in its own sample, so loss and
gradients are those of the padded batch to float rounding. Where most tokens weigh nothing, only the
others are projected onto the vocabulary, if the model can.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from unswayed.plum.samples import Sample
from unswayed.scoring.attention import tree_mask
from unswayed.scoring.tree import build_tree, make_pack


@dataclasses.dataclass(frozen=True)
class Pass:
    """What one forward pass reads, and the predictions that count.

    Attributes:
        inputs: arguments of the model's forward.
        rows, targets: (N,) long; row of the flattened logits, and the token it is to predict.
        weights: (N,) float32.
    """

    inputs: dict[str, Any]
    rows: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


def total_weight(samples: Sequence[Sample]) -> float:
    """The normaliser."""
    return sum(sum(sample.weights) for sample in samples)


def weighted_loss(model: Any, batch: Pass, normaliser: float) -> torch.Tensor:
    """This pass's part of the loss, a scalar (nats); the passes of a batch add up to its loss."""
    logits = model(**batch.inputs, use_cache=False).logits.flatten(0, 1)
    log_probs = logits.log_softmax(-1, dtype=torch.float32)[batch.rows, batch.targets]
    return -(batch.weights * log_probs).sum() / normaliser


def tree_pass(model: Any, samples: Sequence[Sample]) -> Pass:
    """The samples as one token tree; a last token is predicted and not read."""
    tree = build_tree([(sample.ids[:1], sample.ids[1:]) for sample in samples])
    pack = make_pack(tree, prefix=0)
    counted: dict[tuple[int, int], float] = defaultdict(float)
    for row, read in pack.reads:
        counted[row, read.target] += samples[read.request].weights[read.rank + 1]
    inputs = {
        "input_ids": pack.ids[None].to(model.device),
        "position_ids": pack.positions[None].to(model.device),
        "attention_mask": tree_mask(model, pack, model.device),
    }
    weighty = {key: weight for key, weight in counted.items() if weight} or counted
    rows = sorted({row for row, _ in weighty})
    if (
        len(rows) < len(pack.ids)
        and "logits_to_keep" in inspect.signature(model.forward).parameters
    ):
        inputs["logits_to_keep"] = torch.tensor(rows, device=model.device)
        place = {row: i for i, row in enumerate(rows)}
        weighty = {(place[row], target): weight for (row, target), weight in weighty.items()}
    return _pass(inputs, [(row, target, weight) for (row, target), weight in weighty.items()])


def padded_pass(model: Any, samples: Sequence[Sample]) -> Pass:
    """The samples as rows, padded on the right."""
    width = max(len(sample.ids) for sample in samples) - 1
    ids = torch.zeros(len(samples), width, dtype=torch.long)
    seen = torch.zeros(len(samples), width, dtype=torch.long)
    counted = []
    for i, sample in enumerate(samples):
        read = len(sample.ids) - 1
        ids[i, :read] = torch.tensor(sample.ids[:-1])
        seen[i, :read] = 1
        counted += zip(
            range(i * width, i * width + read), sample.ids[1:], sample.weights[1:], strict=True
        )
    inputs = {"input_ids": ids.to(model.device), "attention_mask": seen.to(model.device)}
    return _pass(inputs, counted)


def _pass(inputs: dict[str, Any], counted: Sequence[tuple[int, int, float]]) -> Pass:
    rows, targets, weights = zip(*counted, strict=True)
    device = inputs["input_ids"].device
    return Pass(
        inputs,
        torch.tensor(rows, device=device),
        torch.tensor(targets, device=device),
        torch.tensor(weights, dtype=torch.float32, device=device),
    )
