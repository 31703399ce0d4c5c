"""What the trainer leans on of trl that trl does not promise, in one place.

tests/mitigation/test_trl_internals.py says which of these a new version of trl has changed.
"""

from __future__ import annotations

from typing import Any

import trl.data_utils
import trl.trainer.dpo_trainer
import trl.trainer.utils

Collator = trl.trainer.dpo_trainer.DataCollatorForPreference
common_prefix_length = trl.data_utils.common_prefix_length
pad = trl.trainer.utils.pad
use_adapter = trl.trainer.utils.use_adapter

PROMPT_IDS, CHOSEN_IDS, REJECTED_IDS = "prompt_ids", "chosen_ids", "rejected_ids"  # of a row
FUSED = "fused_lm_head"  # keyword of trl's calls of the model; whatever a batch holds is one too
SHIFTED = "shift_labels"  # keyword of the model's fused head: (1, N), the tokens to be scored
# Fields of the fused head's output, (B, L - 1) or None; `label_mask` is another.
PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


def add_metric(trainer: Any, name: str, value: float) -> None:
    """A value of a step, averaged over steps where trl writes its log."""
    trainer._metrics["train" if trainer.model.training else "eval"][name].append(value)


def reference_adapter(peft_model: Any) -> str | None:
    """Name of the adapter that is trl's reference, None: the model without any."""
    return "ref" if "ref" in peft_model.peft_config else None
