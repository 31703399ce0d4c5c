"""What a loaded model makes of prompts: the likelihood of texts after them, or its own replies.

Everything that is asked of a model goes through here, so that a prompt which does not fit, a model
that is broken and a backend that fails are met in one place.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from unswayed.core.errors import InputError
from unswayed.core.journal import Journal
from unswayed.core.progress import Progress
from unswayed.scoring.backends import HF_SHARED, check_length, first_line, is_service
from unswayed.scoring.chat import ChatFormat, Message
from unswayed.scoring.replies import strip_thinking


def open_prompts(lm: Any, conversations: Sequence[Sequence[Message]]) -> list[str]:
    """Each conversation as the model reads it, ready for the answer.

    A model without a chat template reads the turns as text, up to "Assistant:".
    """
    chat = ChatFormat(lm)
    return [chat.render(list(messages), open_turn=True) for messages in conversations]


class Likelihood(NamedTuple):
    """Of a text after its prompt."""

    nats: float  # sum of its tokens' log-probabilities
    tokens: int | None  # None from a backend without a tokenizer


def likelihoods(
    lm: Any,
    prompts: Sequence[str],
    candidates: Sequence[Sequence[str]],
    backend: str = HF_SHARED,
    names: Sequence[str] = (),
    hint: str = "",
) -> list[list[Likelihood]]:
    """How likely texts are after their prompts: the tokens of a text after those of its prompt.

    What repeats is asked once; with hf-shared, prompts that begin alike pass the model once.

    Args:
        lm: an lm-eval model that gives likelihoods (`models.load`).
        prompts: n rendered conversations.
        candidates: n lists of texts, the format's delimiter in front (`ChatFormat.delimiter`).
        backend: the name under which `lm` was loaded.
        names: n, what an error calls the prompts.
        hint: what may help where the model is broken.

    Returns:
        n lists, a value for each candidate.

    Raises:
        InputError: a request exceeds the model's context, the tokenizer makes nothing of a text,
            the backend fails or gives no likelihoods, or the model gives NaN.
    """
    pairs = dict.fromkeys(
        (prompt, text) for prompt, texts in zip(prompts, candidates, strict=True) for text in texts
    )
    if backend != HF_SHARED:  # which looks itself
        check_lengths(lm, list(pairs), 0)
    with plain_errors(backend):
        results = dict(zip(pairs, _scored(lm, list(pairs)), strict=True)) if pairs else {}
    rows = [
        [results[prompt, text] for text in texts]
        for prompt, texts in zip(prompts, candidates, strict=True)
    ]
    for i, row in enumerate(rows):
        if broken := [result.nats for result in row if not math.isfinite(result.nats)]:
            value = "NaN" if math.isnan(broken[0]) else "an infinite log-probability"
            name = f" for {names[i]}" if names else ""
            raise InputError(f"the model gave {value}{name}: its weights or dtype are broken{hint}")
    return rows


def _scored(lm: Any, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
    """Of texts after their prompts, by whatever the backend offers."""
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM

    if not isinstance(lm, TemplateLM):
        requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
        answers = lm.loglikelihood(requests, disable_tqdm=True)
        return [Likelihood(nats, None) for nats, _ in answers]
    encoded = encode_pairs(lm, pairs)
    progress = Progress(len(encoded), "options", quiet=True)  # moves on that of the caller
    lm.set_cache_hook(SimpleNamespace(add_partial=lambda *_: progress.add(1)))
    answers = lm._loglikelihood_tokens(encoded, disable_tqdm=True)
    return [
        Likelihood(nats, len(ids)) for (nats, _), (_, _, ids) in zip(answers, encoded, strict=True)
    ]


def encode_pairs(
    lm: Any, pairs: Sequence[tuple[str, str]]
) -> list[tuple[tuple[str, str], list[int], list[int]]]:
    """Requests of lm-eval: each pair of a prompt and a text, and the tokens of both.

    Raises:
        InputError: the tokenizer makes nothing of a text.
    """
    encoded = [(pair, *encode_pair(lm, *pair)) for pair in pairs]
    if silent := [text for (_, text), _, ids in encoded if not ids]:
        raise InputError(f"the tokenizer makes no token of {silent[0]!r}: reword it")
    return encoded


def log_probs(
    lm: Any,
    prompts: Sequence[str],
    candidates: Sequence[Sequence[str]],
    names: Sequence[str] = (),
) -> list[list[float]]:
    """The sums (nats) of `likelihoods`, from a model of the backend hf-shared."""
    rows = likelihoods(lm, prompts, candidates, names=names)
    return [[result.nats for result in row] for row in rows]


def encode_pair(lm: Any, prompt: str, text: str) -> tuple[list[int], list[int]]:
    """Tokens of a prompt, and of a text after it as generation would give them.

    The prompt keeps its tokens. lm-eval moves white space at its end, such as a chat template's
    newline after "assistant", into the text and scores it as part of the answer; elsewhere both
    are the same.

    Args:
        lm: an lm-eval model with a tokenizer.
    """
    context, whole = lm.tok_encode(prompt), lm.tok_encode(prompt + text)
    if prompt[-1:].isspace() and whole[: len(context)] != context:  # they would merge
        return context, lm.tok_encode(text, add_special_tokens=False)
    return context, whole[len(context) :]


def replies(lm: Any, prompts: Sequence[str], new_tokens: int) -> list[str]:
    """The model's greedy answers, at most `new_tokens` long, without thinking.

    An answer ends where the chat template would end it, or where a base model goes on with the
    conversation.

    Args:
        lm: a model of the backend hf-shared.
        prompts: of `open_prompts`.

    Raises:
        InputError: a prompt and its answer exceed the model's context.
    """
    plain = lm.tokenizer.chat_template is None
    stops = ["\nUser:"] if plain else ChatFormat(lm).stops
    settings = generation_settings(new_tokens, {}, stops)
    texts = generate(lm, prompts, Journal(None), settings, HF_SHARED)
    return [strip_thinking(text) for text in texts]


def generate(
    lm: Any, prompts: Sequence[str], journal: Journal, settings: Mapping[str, Any], backend: str
) -> list[str]:
    """The model's text for each prompt; what the journal already knows is not asked again.

    Args:
        lm: an lm-eval model (`models.load`).
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
            with plain_errors(backend):
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


def generation_settings(
    max_gen_toks: int, gen_kwargs: Mapping[str, Any], stops: Sequence[str] = ()
) -> dict[str, Any]:
    """lm-eval's settings of a request: greedy, unless `gen_kwargs` has a temperature.

    Args:
        stops: texts at which an answer ends, unless `gen_kwargs` has others (`until`).
    """
    settings = {"until": [*stops], "do_sample": False, "temperature": 0.0}
    settings |= {"max_gen_toks": max_gen_toks, **gen_kwargs}
    if gen_kwargs.get("temperature"):
        settings["do_sample"] = True
    return settings


@contextlib.contextmanager
def plain_errors(backend: str) -> Iterator[None]:
    """Around a call to a backend: whatever one that is not ours raises becomes one line."""
    try:
        yield
    except NotImplementedError as error:
        raise InputError(
            f"--backend {backend} cannot do this: {first_line(error)} If it gives no likelihoods, "
            "use --scoring generate"
        ) from error
    except (InputError, OSError):
        raise
    except Exception as error:
        if backend in (HF_SHARED, "hf"):
            raise
        raise InputError(
            f"--backend {backend} failed with {type(error).__name__}: {first_line(error)} "
            "Finished answers are kept: mend it and run the same command again (an audit with "
            "--resume)"
        ) from error


def check_lengths(lm: Any, requests: list[tuple[str, str]], new_tokens: int) -> None:
    """Refuse what lm-eval's local backends would cut from the left, the memory first.

    Args:
        requests: (prompt, continuation to score) each; the continuation is "" for generation.
        new_tokens: tokens to generate.

    Raises:
        InputError: a request does not fit the model's context.
    """
    if is_service(type(lm)) or not hasattr(lm, "tok_encode"):
        return
    for prompt, continuation in requests:
        check_length(len(lm.tok_encode(prompt + continuation)), new_tokens, lm.max_length, prompt)
