"""How questions are made, and how a memory is trained on them."""

from __future__ import annotations

import dataclasses
from typing import Any

from unswayed.core.errors import InputError
from unswayed.plum.qa import TRAIN
from unswayed.plum.words import wording

ALL_LINEAR = "all-linear"
SAID, NEAR, RANDOM, UNRELATED = "said", "near", "random", "unrelated"
NEGATIVES = (NEAR, RANDOM, UNRELATED, "mixed")
SELF = "self"  # the writer is the model that is trained

# `augment` where a recipe has none. A memory in use is not evaluated: hold out the fewest phrases
# possible. Of a persona as much as possible is trained; what other users are is never asked about,
# and nothing that is true of this one is answered with No.
AUGMENT_IN_USE = {"held_out": 2}
AUGMENT_PERSONA = {"negatives": UNRELATED} | AUGMENT_IN_USE


@dataclasses.dataclass(frozen=True)
class AugmentSettings:
    """How questions on conversations are made: the keys of `augment`.

    Attributes:
        per_conversation: training pairs of each.
        seed: of the draws of phrases and wordings.
        positive_share: share of positive pairs, among closed and among open ones.
        open_share: share of open pairs; with no positives or no negatives it stays.
        negatives: "near" (phrases of the most similar conversations), "random" (of any other one),
            "unrelated" (to all), or "mixed" (a third each).
        wordings: number of wordings in which a phrase is asked about, more where phrases are few.
        held_out: closed questions of each held-out set and conversation, half of them yes.
        writer: the model that writes the training pairs, "self" for the one that is trained; then
            only per_conversation, seed and held_out count. "": they are made of key phrases.
    """

    per_conversation: int = 40
    seed: int = 0
    positive_share: float = 0.5
    open_share: float = 0.25
    negatives: str = "mixed"
    wordings: int = 3
    held_out: int = 8
    writer: str = ""

    def __post_init__(self) -> None:
        if self.per_conversation < 1:
            raise InputError(f"per_conversation is {self.per_conversation}, it must be at least 1")
        if self.writer and self.per_conversation % 4:
            raise InputError(
                f"per_conversation is {self.per_conversation}, it must be a multiple of 4: four "
                "kinds of pairs are in balance"
            )
        for name in ("positive_share", "open_share"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise InputError(f"{name} is {share}, it must be from 0 to 1")
        if self.negatives not in NEGATIVES:
            raise InputError(f"negatives {self.negatives!r} is not one of {', '.join(NEGATIVES)}")
        most = len(wording("closed", TRAIN))
        if not 1 <= self.wordings <= most:
            raise InputError(f"wordings is {self.wordings}, it must be from 1 to {most}")
        if self.held_out < 2 or self.held_out % 2:
            raise InputError(f"held_out is {self.held_out}, it must be even and at least 2")


@dataclasses.dataclass(frozen=True)
class PlumSettings:
    """How a memory is trained. What the paper gives: rank, alpha, epochs, qa_weight.

    Attributes:
        rank, alpha, dropout: of LoRA; dropout of the base model itself is off.
        targets: names of the adapted modules, or "all-linear": all but the output layer.
        learning_rate: of AdamW (betas 0.9 and 0.999), at the end of the warm-up.
        warmup: share of a conversation's steps in which the rate rises; then it falls to 0, both
            linearly.
        weight_decay, max_grad_norm: of AdamW, and the norm to which gradients are clipped.
        epochs: passes over one conversation's samples before the next.
        batch_size: samples per step; each batch holds the kinds of pairs in proportion.
        qa_weight: lambda, the weight of question and answer tokens; others have 1.
        replay: samples of earlier conversations added in each epoch, as a share of the
            conversation's own; drawn anew each time.
        joint: train on all conversations together instead of one after another (a control).
        max_length: longest sample in tokens; a longer one is refused.
        pass_tokens: tokens of samples in one forward pass; a larger batch takes several.
        seed: of LoRA's first weights and the order of samples.
    """

    rank: int = 16
    alpha: int = 64
    dropout: float = 0.0
    targets: str | tuple[str, ...] = ALL_LINEAR
    learning_rate: float = 2e-4
    warmup: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    epochs: int = 10
    batch_size: int = 8
    qa_weight: float = 10.0
    replay: float = 0.0
    joint: bool = False
    max_length: int = 1024
    pass_tokens: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.targets, list):  # as YAML and JSON have it
            object.__setattr__(self, "targets", tuple(self.targets))
        for name, ok, need in (
            ("rank", self.rank >= 1, "at least 1"),
            ("alpha", self.alpha > 0, "above 0"),
            ("dropout", 0 <= self.dropout < 1, "from 0 to below 1"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("warmup", 0 <= self.warmup <= 1, "from 0 to 1"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            ("max_grad_norm", self.max_grad_norm > 0, "above 0"),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("qa_weight", self.qa_weight > 0, "above 0"),
            ("replay", self.replay >= 0, "at least 0"),
            ("max_length", self.max_length >= 2, "at least 2"),
            ("pass_tokens", self.pass_tokens >= 1, "at least 1"),
        ):
            if not ok:
                raise InputError(f"{name} is {getattr(self, name)}, it must be {need}")
        if self.joint and self.replay:
            raise InputError("replay has no meaning with joint: all conversations are there anyway")

    def lora(self) -> Any:
        """As a `peft.LoraConfig`."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.targets if isinstance(self.targets, str) else list(self.targets),
            task_type="CAUSAL_LM",
        )
