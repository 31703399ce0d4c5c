"""A DPO run: what trl.DPOConfig and peft.LoraConfig do not say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from unswayed.core.errors import InputError
from unswayed.models.adapters import read_manifest

REFERENCES = ("base", "adapter")
ORDERS = ("shuffled", "by_persona")


@dataclasses.dataclass(frozen=True)
class DpoRecipe:
    """A training run.

    Attributes:
        model: Hub id, folder or the embedded model's name.
        dataset: preference pairs: a folder, a Hub id or hub:OWNER/NAME[:CONFIG][@REVISION].
        output_dir: for adapter, card, curves and checkpoints.
        config: of the dataset.
        n_pairs: number of preference pairs to train on, drawn by the seed; None takes all.
        mix: pairs of another kind, such as instruction following, named like `dataset`.
        mix_share: share of them among all training pairs, from 0 to below 1.
        adapter: a memory that the policy starts from: a PEFT folder or Hub id, or a user's folder
            that PLUM wrote. None: a new LoRA.
        reference: "base", the model without adapter, or "adapter", the one training starts from.
        order: "shuffled", or "by_persona": pairs under the same memory next to each other, so that
            a batch shares more of its prompts.
        consistency: weight of KL(reference without the memory || policy) over the chosen answers,
            in nats per token, with the memory and without it.
        merge: also save the model with the adapter merged into it.
        dtype: of the base model, as in torch; "auto" is float32 on CPU, else the checkpoint's.
        seed: of LoRA's first weights, the pairs drawn and their order.
        training, lora: fields of trl.DPOConfig and of peft.LoraConfig.
    """

    model: str
    dataset: str
    output_dir: str
    config: str = "constructed"
    n_pairs: int | None = None
    mix: str | None = None
    mix_share: float = 0.0
    adapter: str | None = None
    reference: str = "base"
    order: str = "shuffled"
    consistency: float = 0.0
    merge: bool = False
    dtype: str = "auto"
    seed: int = 0
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    lora: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        count = self.n_pairs
        for name, ok, need in (
            ("n_pairs", count is None or (type(count) is int and count >= 1), "at least 1"),
            ("mix_share", 0 <= self.mix_share < 1, "from 0 to below 1"),
            ("reference", self.reference in REFERENCES, f"one of {', '.join(REFERENCES)}"),
            ("order", self.order in ORDERS, f"one of {', '.join(ORDERS)}"),
            ("consistency", self.consistency >= 0, "at least 0"),
        ):
            if not ok:
                raise InputError(f"{name} is {getattr(self, name)!r}, it must be {need}")
        if (self.mix is not None) != (self.mix_share > 0):
            raise InputError("mix and a mix_share above 0 belong together: give both or neither")
        if self.reference == "adapter" and self.adapter is None:
            raise InputError("reference is adapter, but the recipe names no adapter to start from")
        if self.adapter is not None and self.lora:
            raise InputError(
                "adapter and lora: an adapter that training starts from has its own LoRA settings; "
                "leave lora out"
            )


class DpoRun(TypedDict):
    """run.json of a training run."""

    recipe: dict[str, Any]  # of DpoRecipe
    base: dict[str, str | None]  # model; SHA-256 of its weights, and of the adapter's folder
    private_memory: bool  # trained from a user's memory; earlier versions did not say
    data: dict[str, Any]  # train, test: numbers of pairs; sha256 of them
    reference: str  # in words
    versions: dict[str, str]  # library -> version
    result: NotRequired[dict[str, float]]  # trl's last values, of `curves.last_values`; when done


def start_adapter(recipe: DpoRecipe) -> str | None:
    """What is on the model before training: the adapter that training starts from, if any.

    Raises:
        InputError: it is a memory whose manifest is damaged.
    """
    if recipe.adapter is None:
        return None
    manifest = read_manifest(Path(recipe.adapter), None)  # of a memory
    if manifest is None:
        return recipe.adapter
    return str(Path(recipe.adapter) / manifest["adapter"]["folder"])
