"""Texts from any lm-eval backend; what a journal already knows is not asked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.journal import Journal
from unswayed.scoring.backends import HF_SHARED, check_lengths


def generate(
    lm: Any, prompts: Sequence[str], journal: Journal, settings: Mapping[str, Any], backend: str
) -> list[str]:
    """The model's text for each prompt.

    Args:
        lm: an lm-eval model (`load_lm`).
        prompts: rendered conversations (`ChatFormat.render`).
        journal: keeps each answer as it arrives.
        settings: of lm-eval's requests (`generation_settings`).
        backend: the name under which `lm` was loaded.

    Raises:
        InputError: a prompt does not fit, or the service failed; finished answers are kept.
    """
    from lm_eval.api.instance import Instance

    missing = [prompt for prompt in dict.fromkeys(prompts) if journal.get(prompt) is None]
    if missing:
        if backend != HF_SHARED:  # which looks itself
            check_lengths(lm, [(prompt, "") for prompt in missing], settings["max_gen_toks"])
        requests = [
            Instance("generate_until", {}, (prompt, dict(settings)), 0) for prompt in missing
        ]
        lm.set_cache_hook(journal)
        try:
            texts = lm.generate_until(requests, disable_tqdm=True)
        finally:
            journal.close()
        if len(texts) < len(missing):  # some backends only log what went wrong
            raise InputError(
                f"--backend {backend} gave {len(texts)} answers to {len(missing)} questions: the "
                "service failed. What it gave is kept: run the same command again (an audit with "
                "--resume)"
            )
        for prompt, text in zip(missing, texts, strict=True):
            journal.add(prompt, text or "")
        journal.close()
    return [journal.get(prompt) for prompt in prompts]


def generation_settings(max_gen_toks: int, gen_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """lm-eval's settings of a request: greedy, unless `gen_kwargs` has a temperature."""
    settings = {"until": [], "do_sample": False, "temperature": 0.0}
    settings |= {"max_gen_toks": max_gen_toks, **gen_kwargs}
    if gen_kwargs.get("temperature"):
        settings["do_sample"] = True
    return settings
