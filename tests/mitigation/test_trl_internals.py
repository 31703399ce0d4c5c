"""What the DPO trainer leans on of trl that trl does not promise, against the installed version."""

from __future__ import annotations

import inspect
from typing import Any

import trl


def changes() -> list[str]:
    """A sentence for each of these that is no longer as the trainer needs it."""
    try:
        from unswayed.mitigation.dpo import trl_internals as ours
    except (ImportError, AttributeError) as error:
        return [f"a name that trl_internals.py takes is gone: {error}"]
    from trl.trainer import utils
    from trl.trainer.dpo_trainer import DPOTrainer

    row = {ours.PROMPT_IDS: [1, 2], ours.CHOSEN_IDS: [3], ours.REJECTED_IDS: [4, 5]}
    batch = outcome(lambda: ours.Collator(0)([row]))
    rows = [[1, 2, 3, 0], [1, 2, 4, 5]]
    fields = {field for field in inspect.get_annotations(utils.FusedCausalLMOutput)}
    head = inspect.getsource(utils.add_fused_lm_head)
    loss = inspect.getsource(DPOTrainer._compute_loss)
    reference = inspect.getsource(DPOTrainer.compute_ref_log_probs)
    checks = {
        "DataCollatorForPreference no longer pads prompt_ids + chosen_ids, then + rejected_ids":
            isinstance(batch, dict) and batch["input_ids"].tolist() == rows,
        "DataCollatorForPreference no longer marks answers in completion_mask":
            isinstance(batch, dict)
            and batch["completion_mask"].tolist() == [[0, 0, 1, 0], [0, 0, 1, 1]],
        "common_prefix_length no longer counts the tokens that two sequences begin with":
            outcome(lambda: ours.common_prefix_length([1, 2, 3], [1, 2, 4])) == 2,
        "use_adapter no longer takes a model and an adapter's name":
            list(inspect.signature(ours.use_adapter).parameters) == ["model", "adapter_name"],
        f"FusedCausalLMOutput has other fields than {ours.PER_TOKEN} and label_mask":
            fields >= {*ours.PER_TOKEN, "label_mask"},
        f"the fused head no longer takes {ours.SHIFTED}": ours.SHIFTED in head,
        f"the loss no longer calls the model with {ours.FUSED} and the whole batch":
            f"model(**model_kwargs, labels=labels, {ours.FUSED}=True)" in loss,
        f"the reference is no longer read with {ours.FUSED}, or in compute_ref_log_probs":
            f"model(**model_kwargs, labels=labels, {ours.FUSED}=True)" in reference,
        'the reference is no longer the adapter "ref" where there is one': '"ref" if "ref" in' in
            reference,
        "_prepare_dataset no longer makes the tokens, and nothing else": "tokenize_fn" in
            inspect.getsource(DPOTrainer._prepare_dataset)
            and "self._prepare_dataset(train_dataset, processing_class, args," in
            inspect.getsource(DPOTrainer.__init__),
        "metrics are no longer kept in _metrics by mode": "self._metrics[mode]" in
            inspect.getsource(DPOTrainer.log),
    }  # fmt: skip
    return [what for what, holds in checks.items() if not holds]


def outcome(call: Any) -> Any:
    """What a call returns, or its error."""
    try:
        return call()
    except Exception as error:
        return error


def test_trl_is_as_the_trainer_needs_it():
    assert not (found := changes()), (
        f"trl {trl.__version__} has changed: {'; '.join(found)}. Mend "
        "mitigation/dpo/trl_internals.py and trainer.py, or cap trl in setup.cfg"
    )
