"""trl's DPOTrainer, with what the sequences of a batch share passing the model once.

The chosen and the rejected answer of a pair follow the same prompt, and pairs about the same user
the same memory. trl reads every answer after a whole prompt of its own; here the sequences that
begin alike form a token tree (`unswayed.scoring.tree`), in which a token sees its own ancestors
only. Log-probabilities and gradients are those of the padded batch to float rounding. Losses,
metrics and the reference stay trl's: only the call of the model is replaced, for its duration.

What trl lacks is the consistency term: the policy, with the memory and without it, is drawn to what
the reference that knows nobody would say, token by token of the chosen answer. Without the second
half the answers to somebody unknown drift, and what was won under the memory is lost against them.
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
from transformers.modeling_outputs import BaseModelOutputWithPast
from trl import DPOTrainer
from trl.data_utils import common_prefix_length
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import pad, use_adapter

from unswayed.core.errors import InputError
from unswayed.scoring.attention import tree_mask
from unswayed.scoring.tree import Pack, build_tree, make_pack

BARE = "bare_"
PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


@dataclasses.dataclass
class BareCollator(DataCollatorForPreference):
    """trl's; where the pairs have a column `bare`, the ids of the prompt without the memory, their
    chosen answers stand once more behind it: `bare_input_ids`, `bare_attention_mask` and
    `bare_labels`, (B, L) long, labels -100 in front of the answer."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        found = super().torch_call(examples)
        if "bare" in examples[0]:
            ids = [torch.tensor(one["bare"] + one["chosen_ids"]) for one in examples]
            labels = [
                F.pad(torch.tensor(one["chosen_ids"]), (len(one["bare"]), 0), value=-100)
                for one in examples
            ]
            seen = [torch.ones_like(one) for one in ids]
            found[f"{BARE}input_ids"] = pad(ids, padding_value=self.pad_token_id)
            found[f"{BARE}attention_mask"] = pad(seen, padding_value=0)
            found[f"{BARE}labels"] = pad(labels, padding_value=-100)
        return found


class SharingDPOTrainer(DPOTrainer):
    """A `DPOTrainer` of a PEFT model.

    Args:
        padded: why batches are padded rows, trl's way, or None for trees.
        consistency: weight in the loss of KL(reference without the memory || policy with it) and
            of KL(reference without the memory || policy without it), in nats, each the mean over
            all tokens of the batch's chosen answers and a metric: `consistency`, `drift`. The
            datasets then have a column `bare`, see `BareCollator`.
        others: of `DPOTrainer`.
    """

    def __init__(self, *args: Any, padded: str | None, consistency: float = 0.0, **kwargs: Any):
        self.padded, self.consistency = padded, consistency
        super().__init__(*args, **kwargs)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        with self._own_forward():
            return super().compute_ref_log_probs(model, _parted(inputs)[0])

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        pairs, bare = _parted(inputs)
        with self._own_forward() as outputs:
            loss = super().compute_loss(model, pairs)
            if self.consistency:  # the policy's pass is the first; trl may ask the reference next
                mode = "train" if self.model.training else "eval"
                for name, term in self._divergences(model, outputs[0], bare).items():
                    everywhere = self.accelerator.gather(term.detach()).mean().item()
                    self._metrics[mode][name].append(everywhere)
                    loss = loss + self.consistency * term
        return (loss, None) if return_outputs else loss

    def _divergences(
        self, model: Any, policy: Any, bare: dict[str, Any]
    ) -> dict[str, torch.Tensor]:
        """The two halves of the consistency term by their metrics' names, scalars.

        Args:
            model: the policy.
            policy: output of its pass over chosen and rejected answers.
            bare: batch of the chosen answers behind their bare prompts.
        """
        peft_model = self.accelerator.unwrap_model(self.model)
        base = peft_model.get_base_model()
        reference = "ref" if "ref" in peft_model.peft_config else None  # as trl has it
        with torch.no_grad(), use_adapter(peft_model, reference):
            other = self.model(**bare, use_cache=False, fused_lm_head=True)
            wanted = head(base, other.hidden[other.label_mask]).log_softmax(-1)
        told = [whole.chunk(2)[0] for whole in (policy.hidden, policy.label_mask)]
        alone = model(**bare, use_cache=False, fused_lm_head=True)
        found = {"consistency": told, "drift": [alone.hidden, alone.label_mask]}
        return {
            name: F.kl_div(
                head(base, hidden[mask]).log_softmax(-1), wanted, log_target=True,
                reduction="batchmean",
            )
            for name, (hidden, mask) in found.items()
        }  # fmt: skip

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        found = [loss]
        if self.accelerator.scaler is None:  # else it skips a step that overflows (fp16)
            found += [p.grad for p in self.model.parameters() if p.grad is not None]
        if not all(torch.isfinite(one).all() for one in found):
            raise InputError(
                f"step {self.state.global_step + 1} gave a loss of {float(loss):.3g} or a gradient "
                f"that is not finite: lower learning_rate ({self.args.learning_rate:g}) or check "
                f"the model's weights and dtype; {_last(Path(self.args.output_dir))}"
            )
        return loss

    @contextmanager
    def _own_forward(self) -> Iterator[list[Any]]:
        """Meanwhile the model reads trees; yields the outputs of its passes, each with `hidden`,
        (B, L - 1, H): what its head reads."""
        model = self.accelerator.unwrap_model(self.model).get_base_model()
        read = read_as_trees if self.padded is None else read_padded
        stock, outputs = model.forward, []

        def forward(*args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
            if not fused_lm_head:
                return stock(*args, **kwargs)
            outputs.append(read(model, stock, *args, fused_lm_head=True, **kwargs))
            return outputs[-1]

        model.forward = forward
        try:
            yield outputs
        finally:
            model.forward = stock


def _parted(inputs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """trl's batch, and that of `BareCollator`."""
    bare = {name: inputs[name] for name in inputs if name.startswith(BARE)}
    pairs = {name: inputs[name] for name in inputs if name not in bare}
    return pairs, {name.removeprefix(BARE): bare[name] for name in bare}


@dataclasses.dataclass
class _Hidden(BaseModelOutputWithPast):
    """A backbone's output of which the head may read whatever else its kind has: None."""

    def __getattr__(self, name: str) -> None:
        return None


def head(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """(N, V) float32 logits of a causal model from what its head reads, (N, H).

    By the model's own forward, so that whatever it does to logits (soft caps, scales) is done.
    """
    backbone = model.base_model
    stock = backbone.forward
    backbone.forward = lambda *args, **kwargs: _Hidden(hidden[None])
    try:
        ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        return model(input_ids=ids, use_cache=False).logits[0].float()
    finally:
        backbone.forward = stock


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
        trl's FusedCausalLMOutput, whose fields are (B, L - 1) and zero where there is no label, and
        with `hidden`, (B, L - 1, H) likewise.
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
    kept = []

    def keep_wanted(module: Any, args: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[wanted][None]
        kept.append(output.last_hidden_state[0])
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
    output.hidden = kept[0].new_zeros((*shape, kept[0].shape[-1])).index_put(where, kept[0])
    output.label_mask = labels[:, 1:] != -100
    return output


def read_padded(model: Any, forward: Callable[..., Any], **kwargs: Any) -> Any:
    """The same of a model that reads no trees, from the padded batch."""
    kept = []
    hook = model.base_model.register_forward_hook(
        lambda module, args, output: kept.append(output.last_hidden_state[:, :-1])
    )
    try:
        output = forward(**kwargs)
    finally:
        hook.remove()
    output.hidden = kept[0]
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
