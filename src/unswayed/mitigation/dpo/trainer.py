"""trl's DPOTrainer, with what the sequences of a batch share passing the model once.

The chosen and the rejected answer of a pair follow the same prompt, and pairs about the same user
the same memory. trl reads every answer after a whole prompt of its own; here the sequences that
begin alike form a token tree (`unswayed.scoring.tree`), in which a token sees its own ancestors
only. Log-probabilities and gradients are those of the padded batch to float rounding. Losses,
metrics and the reference stay trl's: only the call of the model is replaced, for its duration.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from trl import DPOTrainer
from trl.data_utils import common_prefix_length
from trl.trainer.dpo_trainer import DataCollatorForPreference

from unswayed.errors import InputError
from unswayed.scoring.attention import tree_mask
from unswayed.scoring.tree import Pack, build_tree, make_pack

PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


@dataclasses.dataclass
class GroupCollator(DataCollatorForPreference):
    """trl's, with the pairs' group numbers, `group`: (B,) long."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        groups = torch.tensor([example["group"] for example in examples])
        return super().torch_call(examples) | {"group": groups}


class SharingDPOTrainer(DPOTrainer):
    """A `DPOTrainer` of a PEFT model.

    Args:
        padded: why batches are padded rows, trl's way, or None for trees.
        consistency: weight of `spread` over the chosen answers in the loss.
        others: of `DPOTrainer`; the datasets have a column `group` besides trl's.
    """

    def __init__(self, *args: Any, padded: str | None, consistency: float = 0.0, **kwargs: Any):
        self.padded, self.consistency = padded, consistency
        super().__init__(*args, **kwargs)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        with self._own_forward():
            return super().compute_ref_log_probs(model, _without_group(inputs))

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        with self._own_forward() as outputs:
            loss = super().compute_loss(model, _without_group(inputs))
        if self.consistency:  # the policy's pass is the first; trl may ask the reference next
            log_probs, _ = outputs[0].log_probs.sum(1).chunk(2)
            tokens, _ = inputs["completion_mask"].sum(1).chunk(2)
            term = spread(log_probs / tokens, inputs["group"])
            mode = "train" if self.model.training else "eval"
            self._metrics[mode]["consistency"].append(self.accelerator.gather(term).mean().item())
            loss = loss + self.consistency * term
        return (loss, None) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if not all(torch.isfinite(one).all() for one in (loss, *gradients)):
            raise InputError(
                f"step {self.state.global_step + 1} gave a loss of {float(loss):.3g} or a gradient "
                f"that is not finite: lower learning_rate ({self.args.learning_rate:g}) or check "
                f"the model's weights and dtype; {_last(Path(self.args.output_dir))}"
            )
        return loss

    @contextmanager
    def _own_forward(self) -> Iterator[list[Any]]:
        """Meanwhile the model reads trees; yields the outputs of its passes."""
        model = self.accelerator.unwrap_model(self.model).get_base_model()
        stock, outputs = model.forward, []

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self.padded is None:
                outputs.append(read_as_trees(model, stock, *args, **kwargs))
            else:
                outputs.append(stock(*args, **kwargs))
            return outputs[-1]

        model.forward = forward
        try:
            yield outputs
        finally:
            model.forward = stock


def spread(values: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Mean variance within the groups of two or more, a scalar; 0 if there is none.

    Args:
        values: (B,), here an answer's mean log-probability per token (nats).
        groups: (B,), the number of each value's group.
    """
    same = (groups[:, None] == groups[None]).to(values.dtype)
    sizes = same.sum(1)
    deviations = values - same @ values / sizes
    weights = (sizes > 1) / sizes  # of each group together 1
    return (weights * deviations**2).sum() / weights.sum().clamp(min=1)


def _without_group(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != "group"}


def _last(folder: Path) -> str:
    last = last_checkpoint(folder)
    return f"{last.name} is intact" if last else "there is no checkpoint yet"


def last_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint of a run; the trainer writes its state last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


# -- a padded batch as trees ---------------------------------------------------------------------


def read_as_trees(
    model: Any,
    forward: Callable[..., Any],
    *,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    **kwargs: Any,
) -> Any:
    """What `forward` of a model with trl's fused head returns for a batch padded on the right.

    Args:
        model: the causal model, without PEFT around it.
        forward: its forward.
        input_ids, attention_mask, labels: (B, L); labels are -100 in front of the answer.
        kwargs: others of the forward.

    Returns:
        trl's FusedCausalLMOutput, whose fields are (B, L - 1) and zero where there is no label.
    """
    device, shape = input_ids.device, (len(labels), labels.shape[1] - 1)
    requests = [
        split(ids[:length], target)
        for ids, target, length in zip(
            input_ids.tolist(), labels.tolist(), attention_mask.sum(1).tolist(), strict=True
        )
    ]
    rows = alike([context + answer for context, answer in requests])
    packs = [make_pack(build_tree([requests[i] for i in row]), prefix=0) for row in rows]
    width = max(len(pack.ids) for pack in packs)
    sources, targets, places = [], [], []  # row of the flattened tree, token, (sequence, position)
    for number, (row, pack) in enumerate(zip(rows, packs, strict=True)):
        for offset, read in pack.reads:
            sequence = row[read.request]
            sources.append(number * width + offset)
            targets.append(read.target)
            places.append((sequence, len(requests[sequence][0]) - 1 + read.rank))
    packs = [padded(pack, width) for pack in packs]
    wanted = torch.tensor(sources, device=device)

    def keep_wanted(module: Any, args: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[wanted][None]
        return output

    hook = model.base_model.register_forward_hook(keep_wanted)
    try:
        output = forward(
            input_ids=torch.stack([pack.ids for pack in packs]).to(device),
            position_ids=torch.stack([pack.positions for pack in packs]).to(device),
            attention_mask=_stacked([tree_mask(model, pack, device) for pack in packs]),
            shift_labels=torch.tensor([targets], device=device),
            **kwargs,
        )
    finally:
        hook.remove()
    where = tuple(torch.tensor(places, device=device).T)
    for name in PER_TOKEN:
        if (values := getattr(output, name)) is not None:
            setattr(output, name, values.new_zeros(shape).index_put(where, values[0]))
    output.label_mask = labels[:, 1:] != -100
    return output


def split(ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
    """A sequence in front of its first label, and from there."""
    start = next(i for i, label in enumerate(labels) if label != -100)
    return ids[:start], ids[start:]


def alike(sequences: Sequence[list[int]]) -> list[list[int]]:
    """Indices by tree: neighbours in lexicographic order that share at least half their tokens.

    One tree of everything would share a little more, and its attention would cost far more.
    """
    order = sorted(range(len(sequences)), key=sequences.__getitem__)
    trees = [order[:1]]
    for before, i in itertools.pairwise(order):
        shared = common_prefix_length(sequences[before], sequences[i])
        if 2 * shared >= len(sequences[i]):
            trees[-1].append(i)
        else:
            trees.append([i])
    return trees


def padded(pack: Pack, width: int) -> Pack:
    """A pack with tokens at its end that see themselves and that nobody sees."""
    more = width - len(pack.ids)
    mask = F.pad(pack.mask, (0, more, 0, more)) | torch.eye(width, dtype=torch.bool)
    return Pack(F.pad(pack.ids, (0, more)), F.pad(pack.positions, (0, more)), mask, pack.reads)


def _stacked(masks: Sequence[Any]) -> Any:
    """Masks of single rows, each a tensor or one by kind of layer, as one batch."""
    if isinstance(masks[0], dict):
        return {kind: torch.cat([mask[kind] for mask in masks]) for kind in masks[0]}
    return torch.cat(list(masks))
