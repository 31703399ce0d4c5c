"""Does an lm-eval model score what the model scored that was loaded for it?

A dozen log-probabilities are taken from the plain model, before lm-eval gets it, and again from the
finished lm-eval model: anything that changed it in between shows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from unswayed.core.errors import InputError

TEXTS = (
    "A letter from an old friend arrives after years of silence, and she reads it twice.",
    "The assistant answers: you are talking to someone who lost the key to the house.",
    "He waits at the station with 2 tickets, but the last train leaves without them.",
)
SPLITS = (3, 5, 8, 11)  # where contexts end, in tokens; the two behind are scored
SCORED = 2  # tokens
LIMITS = {True: 1e-3, False: 0.25}  # mean difference in nats per token: float32, less


@dataclasses.dataclass
class Plain:
    """What a plain model says.

    Attributes:
        requests: as lm-eval's models take them, (None, context, continuation) in tokens.
        scores: log-probability of each continuation, nats.
        dtype: of the model.
    """

    requests: list[tuple[None, list[int], list[int]]]
    scores: list[float]
    dtype: torch.dtype


@torch.inference_mode()
def plain_scores(model: Any, tokenizer: Any) -> Plain:
    """From one plain pass over each text."""
    requests, scores = [], []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"][: SPLITS[-1] + SCORED]
        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0]
        logits = logits[-len(ids) :]  # prompt tuning puts positions in front
        log_probs = logits[:-1].float().log_softmax(-1).cpu()
        each = log_probs[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        for split in SPLITS:
            if split + SCORED <= len(ids):
                requests.append((None, ids[:split], ids[split : split + SCORED]))
                scores.append(float(each[split - 1 : split - 1 + SCORED].double().sum()))
    return Plain(requests, scores, model.dtype)


def check_scores(lm: Any, plain: Plain, name: str) -> float:
    """The mean difference (nats per token) of an lm-eval model to the plain one.

    Raises:
        InputError: it is more than rounding makes.
    """
    if lm.model.dtype != plain.dtype:
        raise InputError(f"{name} was loaded in {plain.dtype}, but is scored in {lm.model.dtype}")
    scores = [score for score, _ in lm._loglikelihood_tokens(plain.requests, disable_tqdm=True)]
    differences = [abs(a - b) / SCORED for a, b in zip(scores, plain.scores, strict=True)]
    mean = sum(differences) / max(1, len(differences))
    tight = plain.dtype == torch.float32 and lm.mixed_precision_dtype is None
    if not mean <= LIMITS[tight]:
        raise InputError(
            f"{name} is not scored as plain transformers would: {len(scores)} log-probabilities "
            f"differ by {mean:.2g} nats a token on average (limit {LIMITS[tight]:g}). Try "
            "--dtype float32 or --backend hf, and report it"
        )
    return mean
