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

from unswayed.core.errors import InputError
from unswayed.mitigation.dpo import trl_internals as inner
from unswayed.scoring.attention import tree_mask
from unswayed.scoring.tree import Pack, build_tree, make_pack

ANSWERS = (inner.CHOSEN_IDS, inner.REJECTED_IDS)  # in trl's order


@dataclasses.dataclass
class PairCollator(inner.Collator):
    """trl's, with `trees`, the batch's sequences as `make_trees` gives them.

    Where the pairs have a column `bare`, the ids of the prompt without the memory, their chosen
    answers stand once more behind it, as the batch `bare`: `input_ids`, `attention_mask`, `labels`,
    (B, L) long, labels -100 in front of the answer, and `trees`.

    Args:
        shared: make the trees.
    """

    shared: bool = True

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        sequences = [(row[inner.PROMPT_IDS], row[part]) for part in ANSWERS for row in examples]
        batch["trees"] = make_trees(sequences) if self.shared else None
        if "bare" in examples[0]:
            sequences = [(row["bare"], row[inner.CHOSEN_IDS]) for row in examples]
            ids = [torch.tensor(prompt + answer) for prompt, answer in sequences]
            labels = [torch.tensor([-100] * len(prompt) + answer) for prompt, answer in sequences]
            batch["bare"] = {
                "input_ids": inner.pad(ids, padding_value=self.pad_token_id),
                "attention_mask": inner.pad(list(map(torch.ones_like, ids)), padding_value=0),
                "labels": inner.pad(labels, padding_value=-100),
                "trees": make_trees(sequences) if self.shared else None,
            }
        return batch


class SharingDPOTrainer(DPOTrainer):
    """A `DPOTrainer` of a PEFT model, which reads the batches of `PairCollator`.

    Args:
        consistency: weight in the loss of KL(reference without the memory || policy with it) and
            of KL(reference without the memory || policy without it), in nats, each the mean over
            all tokens of the batch's chosen answers and a metric: `consistency`, `drift`. The
            datasets then have a column `bare`.
    """

    def __init__(self, *args: Any, consistency: float = 0.0, **kwargs: Any):
        self.consistency = consistency
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        """As it is: `pairs.encoded` has made the tokens, with the answer's end as trl has not."""
        return dataset

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        with self._own_forward():
            return super().compute_ref_log_probs(model, _pairs_of(inputs))

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        with self._own_forward() as outputs:
            loss = super().compute_loss(model, _pairs_of(inputs))
            if self.consistency:  # the policy's pass is the first; trl may ask the reference next
                for name, term in self._divergences(model, outputs[0], inputs["bare"]).items():
                    everywhere = self.accelerator.gather(term.detach()).mean().item()
                    inner.add_metric(self, name, everywhere)
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
        bare = bare | {"use_cache": False, inner.FUSED: True}
        name = inner.reference_adapter(peft_model)
        with torch.no_grad(), inner.use_adapter(peft_model, name):
            reference = self.model(**bare)
            log_probs = head(base, reference.hidden[reference.label_mask]).log_softmax(-1)
        alone = model(**bare)
        chosen = [both.chunk(2)[0] for both in (policy.hidden, policy.label_mask)]
        passes = {"consistency": chosen, "drift": [alone.hidden, alone.label_mask]}
        return {
            name: F.kl_div(
                head(base, hidden[mask]).log_softmax(-1), log_probs, log_target=True,
                reduction="batchmean",
            )
            for name, (hidden, mask) in passes.items()
        }  # fmt: skip

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        gradients = (p.grad for p in self.model.parameters() if p.grad is not None)
        if self.accelerator.scaler is not None:  # it skips a step that overflows (fp16)
            gradients = ()
        if not all(torch.isfinite(tensor).all() for tensor in (loss, *gradients)):
            last = last_checkpoint(Path(self.args.output_dir))
            raise InputError(
                f"step {self.state.global_step + 1} gave a loss of {float(loss):.3g} or a gradient "
                f"that is not finite: lower learning_rate ({self.args.learning_rate:g}) or check "
                "the model's weights and dtype; "
                + (f"{last.name} is intact" if last else "there is no checkpoint yet")
            )
        return loss

    @contextmanager
    def _own_forward(self) -> Iterator[list[Any]]:
        """Meanwhile trl's calls of the model are `read_batch`; yields the outputs, in order."""
        model = self.accelerator.unwrap_model(self.model).get_base_model()
        stock, outputs = model.forward, []

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not kwargs.get(inner.FUSED):
                return stock(*args, **kwargs)
            outputs.append(read_batch(model, stock, *args, **kwargs))
            return outputs[-1]

        with _forward_of(model, forward):
            yield outputs


@contextmanager
def _forward_of(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Meanwhile the module has this forward."""
    stock, module.forward = module.forward, forward
    try:
        yield
    finally:
        module.forward = stock


def _pairs_of(inputs: dict[str, Any]) -> dict[str, Any]:
    """The batch that trl knows: whatever else is in it would go to the model."""
    return {name: value for name, value in inputs.items() if name != "bare"}


@dataclasses.dataclass
class _Hidden(BaseModelOutputWithPast):
    """A backbone's output of which the head may read whatever else its kind has: None."""

    def __getattr__(self, name: str) -> None:
        return None


def head(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """(N, V) float32 logits of a causal model from what its head reads, (N, H).

    By the model's own forward, so that whatever it does to logits (soft caps, scales) is done.
    """
    ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
    with _forward_of(model.base_model, lambda *args, **kwargs: _Hidden(hidden[None])):
        return model(input_ids=ids, use_cache=False).logits[0].float()


def last_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint of a run; the trainer writes its state last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


# -- a batch as trees ----------------------------------------------------------------------------


@dataclasses.dataclass
class Trees:
    """The sequences of a batch, what they share once.

    Attributes:
        packs: a tree each, all T tokens wide.
        sources: (N,) long, what each answer token is predicted from: its place in (packs, T).
        targets: (N,) long, the answer tokens.
        places: (2, N) long, the sequence and the position of each in trl's (B, L - 1).
    """

    packs: list[Pack]
    sources: torch.Tensor
    targets: torch.Tensor
    places: torch.Tensor


def make_trees(sequences: Sequence[tuple[list[int], list[int]]]) -> Trees:
    """Token ids of prompts and answers, neither empty, as trees."""
    rows = alike([prompt + answer for prompt, answer in sequences])
    packs = [make_pack(build_tree([sequences[i] for i in row]), prefix=0) for row in rows]
    width = max(len(pack.ids) for pack in packs)
    sources, targets, *places = torch.tensor(
        [
            (number * width + offset, read.target, i, len(sequences[i][0]) - 1 + read.rank)
            for number, (row, pack) in enumerate(zip(rows, packs, strict=True))
            for offset, read in pack.reads
            for i in [row[read.request]]
        ]
    ).T
    return Trees([padded(pack, width) for pack in packs], sources, targets, torch.stack(places))


def read_batch(
    model: Any,
    forward: Callable[..., Any],
    *,
    labels: torch.Tensor,
    trees: Trees | None,
    **kwargs: Any,
) -> Any:
    """What `forward` of a model with trl's fused head returns for a batch padded on the right.

    Args:
        model: the causal model, without PEFT around it.
        forward: its forward.
        labels: (B, L), -100 in front of the answer.
        trees: the same batch; None: its padded rows are read.
        kwargs: others of the forward, `input_ids` and `attention_mask`, (B, L), among them.

    Returns:
        trl's FusedCausalLMOutput, whose fields are (B, L - 1) and zero where there is no label, and
        with `hidden`, (B, L - 1, H): what the head reads.
    """
    device, states = labels.device, []
    if trees is None:
        kwargs["labels"] = labels
    else:
        sources, places = trees.sources.to(device), tuple(trees.places.to(device))
        masks = [tree_mask(model, pack, device) for pack in trees.packs]
        kwargs |= {
            "input_ids": torch.stack([pack.ids for pack in trees.packs]).to(device),
            "position_ids": torch.stack([pack.positions for pack in trees.packs]).to(device),
            "attention_mask": _stacked(masks),
            inner.SHIFTED: trees.targets[None].to(device),
        }

    def keep(module: Any, args: Any, output: Any) -> Any:
        if trees is not None:
            output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[sources][None]
        states.append(output.last_hidden_state)
        return output

    hook = model.base_model.register_forward_hook(keep)
    try:
        output = forward(**kwargs)
    finally:
        hook.remove()
    if trees is None:
        output.hidden = states[0][:, :-1]
        return output
    shape = (len(labels), labels.shape[1] - 1)
    for name in inner.PER_TOKEN:
        if (values := getattr(output, name)) is not None:
            setattr(output, name, values.new_zeros(shape).index_put(places, values[0]))
    hidden = states[0][0]
    output.hidden = hidden.new_zeros((*shape, hidden.shape[-1])).index_put(places, hidden)
    output.label_mask = labels[:, 1:] != -100
    return output


def alike(sequences: Sequence[list[int]]) -> list[list[int]]:
    """Indices by tree: neighbours in lexicographic order that share at least half their tokens.

    One tree of everything would share a little more, and its attention would cost far more.
    """
    order = sorted(range(len(sequences)), key=sequences.__getitem__)
    trees = [order[:1]]
    for before, i in itertools.pairwise(order):
        shared = inner.common_prefix_length(sequences[before], sequences[i])
        if 2 * shared >= len(sequences[i]):
            trees[-1].append(i)
        else:
            trees.append([i])
    return trees


def padded(pack: Pack, width: int) -> Pack:
    """A pack without blocks and reads; tokens at its end see themselves, and nobody sees them."""
    more = width - len(pack.ids)
    mask = F.pad(pack.mask, (0, more, 0, more)) | torch.eye(width, dtype=torch.bool)
    return Pack(F.pad(pack.ids, (0, more)), F.pad(pack.positions, (0, more)), mask, [], [])


def _stacked(masks: Sequence[Any]) -> Any:
    """Masks of single rows, each a tensor or one by kind of layer, as one batch."""
    if isinstance(masks[0], dict):
        return {kind: torch.cat([mask[kind] for mask in masks]) for kind in masks[0]}
    return torch.cat(list(masks))
