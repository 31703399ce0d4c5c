"""Which memory an audit is about: from the options to the mechanism, and to words."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from unswayed.audit.trials import other_personas
from unswayed.core.errors import InputError
from unswayed.data.personas import Persona, load_personas, personas_hash
from unswayed.memory import Memory
from unswayed.memory.gated import GatedMemory
from unswayed.memory.prompt import STYLES, PromptMemory
from unswayed.memory.retrieval import RetrievalMemory
from unswayed.scoring.backends import HF_SHARED

log = logging.getLogger(__name__)

PROMPT, RETRIEVAL, PLUM, GATED, LOGO = "prompt", "retrieval", "plum", "gated", "logo"
DEFAULT_STYLES = {
    PROMPT: "system", RETRIEVAL: "bm25-3", PLUM: "", GATED: "tfidf-95", LOGO: "shrinkage-5",
}  # fmt: skip
TRAINED = (PLUM, LOGO)
BM25, EMBEDDING, TFIDF = "bm25", "embedding", "tfidf"
SHRINKAGE, WEIGHTS = "shrinkage", "weights"
IN_PROCESS = (HF_SHARED, "hf")  # backends whose weights can be trained and switched


def check_memory(arguments: Any, personas: Sequence[Persona]) -> None:
    """Check that the memory's options fit each other and the personas; nothing is loaded.

    Raises:
        InputError: they do not.
    """
    if arguments.memory == PROMPT:
        PromptMemory(arguments.memory_style)
    elif arguments.memory == RETRIEVAL:
        parse_style(arguments.memory_style)
    elif arguments.memory == GATED:
        parse_gate(arguments.memory_style)
    if arguments.memory in TRAINED:
        _check_trained(arguments, personas)
    elif arguments.plum_recipe is not None:
        raise InputError("--plum-recipe has no meaning without --memory plum or logo")


def _check_trained(arguments: Any, personas: Sequence[Persona]) -> None:
    memory = arguments.memory
    if memory == PLUM and arguments.memory_style:
        raise InputError(
            f"--memory-style {arguments.memory_style} has no meaning with --memory plum, which "
            "puts nothing into the prompt: leave it out"
        )
    if arguments.backend not in IN_PROCESS:
        raise InputError(
            f"--memory {memory} trains and switches weights in this process, which --backend "
            f"{arguments.backend} cannot: use {' or '.join(IN_PROCESS)}"
        )
    if arguments.adapter:
        raise InputError(
            f"--memory {memory} puts an adapter of its own on the model, so there is no room for "
            "--adapter: merge that into the model first (peft's merge_and_unload), or leave it out"
        )
    if memory == PLUM:
        from unswayed.plum.memory import persona_pairs, read_training

        training = read_training(arguments.plum_recipe)
        for persona in personas:
            persona_pairs(persona, training)
        return
    from unswayed.logo import memory as logo

    if parse_mediator(arguments.memory_style) is not None and arguments.scoring == "generate":
        raise InputError(
            f"--memory-style {arguments.memory_style} fuses the likelihoods of the options, and "
            f"--scoring generate gives none: take --scoring option or letter, or --memory-style "
            f"{WEIGHTS}"
        )
    logo.check_population(_population(arguments))
    logo.read_training(arguments.plum_recipe)


def memory_settings(arguments: Any) -> dict[str, Any]:
    """What else decides what the model knows, for a run's identity."""
    if arguments.memory == LOGO:
        from unswayed.logo import memory as logo

        training = logo.read_training(arguments.plum_recipe)
        return training.as_json() | {"population": personas_hash(_population(arguments))}
    if arguments.memory != PLUM:
        return {}
    from unswayed.plum.memory import read_training

    return read_training(arguments.plum_recipe).as_json()


def make_memory(arguments: Any, lm: Any, waiting: Sequence[Persona]) -> Memory:
    """The mechanism, knowing no user.

    Args:
        lm: the model that will be asked.
        waiting: the personas still to be asked about.
    """
    if arguments.memory == PROMPT:
        return PromptMemory(arguments.memory_style)
    if arguments.memory == RETRIEVAL:
        from unswayed.models.vectors import Embedder

        kind, k = parse_style(arguments.memory_style)
        embedder = Embedder(device=arguments.device) if kind == EMBEDDING and waiting else None
        return RetrievalMemory(k, embedder)
    if arguments.memory == GATED:
        return GatedMemory(parse_gate(arguments.memory_style))
    if arguments.memory == LOGO:
        return _logo_memory(arguments, lm)
    from unswayed.plum.memory import PlumMemory, loaded_base, read_training

    folder = arguments.out / "memories"
    training = read_training(arguments.plum_recipe)
    memory = PlumMemory(loaded_base(lm, arguments.model), folder, training)
    if n := memory.untrained(waiting):
        log.info("adapters to train: %d, one for each persona; they stay in %s", n, folder)
    return memory


def _logo_memory(arguments: Any, lm: Any) -> Memory:
    from unswayed.logo import memory as logo
    from unswayed.plum.memory import loaded_base

    return logo.LogoMemory(
        loaded_base(lm, arguments.model),
        arguments.out / "memories" / "population",
        _population(arguments),
        logo.read_training(arguments.plum_recipe),
        parse_mediator(arguments.memory_style),
    )


def _population(arguments: Any) -> list[Persona]:
    return other_personas(load_personas(arguments.personas), arguments.pairs)


def memory_notes(
    arguments: Any,
    memory: Memory,
    personas: Sequence[Persona],
    rows: Sequence[Mapping[str, Any]],
) -> list[str]:
    """What a reader must know of how well the memory works, in sentences.

    Args:
        rows: all rows of the run (`unswayed.audit.trials.make_row`).
    """
    if arguments.memory == GATED:
        return _opened(rows)
    if arguments.memory == LOGO:
        return memory.notes(personas)
    if arguments.memory != PLUM:
        return []
    recalled = memory.recalled(personas)
    shares = [f"{100 * sum(own) / len(own):.0f} % of {len(own)} whose answer is {kind}"
              for kind, own in recalled.items() if own]  # fmt: skip
    if not shares:
        return []
    return [
        f"Asked what the users of this run had told them, the adapters answered {shares[0]} rightly"
        f"{''.join(f', and {share}' for share in shares[1:])} (held-out questions, {len(personas)} "
        "adapters; chance is 50 %). Where they recall little, small effects say little about the "
        "user."
    ]


def _opened(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How often a gate let the memory in."""
    let_in: dict[str, list[bool]] = {}
    for row in rows:
        if row["persona_id"] is not None:
            let_in.setdefault(row["condition"], []).append(row["system_prompt"] is not None)
    if not let_in:
        return []
    shares = ", ".join(
        f"{100 * sum(found) / len(found):.1f} % of {len(found)} under {condition}"
        for condition, found in let_in.items()
    )
    return [
        f"The gate let the memory into these prompts: {shares}. The others are the prompts without "
        "memory, where nothing can flip."
    ]


def parse_style(style: str) -> tuple[str, int]:
    """Kind of retrieval and number of snippets of a style such as "bm25-3".

    Raises:
        InputError: it has another form.
    """
    if found := re.fullmatch(f"({BM25}|{EMBEDDING})-([1-9][0-9]*)", style):
        return found[1], int(found[2])
    raise InputError(
        f"memory style {style!r} is not of the form bm25-K or embedding-K, which --memory "
        "retrieval has, K the number of snippets"
    )


def parse_gate(style: str) -> int:
    """Percentile of a gate's style such as "tfidf-95".

    Raises:
        InputError: it has another form.
    """
    if found := re.fullmatch(f"{TFIDF}-([1-9][0-9]?)", style):
        return int(found[1])
    raise InputError(
        f"memory style {style!r} is not of the form tfidf-Q, which --memory gated has, Q a "
        "percentile from 1 to 99"
    )


def parse_mediator(style: str) -> int | None:
    """K of a style such as "shrinkage-5"; None if nothing is fused.

    Raises:
        InputError: it has another form.
    """
    if style == WEIGHTS:
        return None
    if found := re.fullmatch(f"{SHRINKAGE}-([1-9][0-9]*)", style):
        return int(found[1])
    raise InputError(
        f"memory style {style!r} is not {WEIGHTS} or of the form shrinkage-K, which --memory logo "
        "has, K how many of the user's slots the population's word is worth"
    )


def describe(memory: str, style: str | None) -> str:
    """A mechanism and its style in a sentence, for reports."""
    if memory == PLUM:
        return (
            "The memory mechanism was plum: what each user says of themself was trained into a "
            "LoRA adapter of their own, and nothing about the user stands in the prompt."
        )
    if memory == RETRIEVAL:
        kind, k = parse_style(style)
        by = "the words they share (BM25)" if kind == BM25 else "the cosine of embeddings"
        best = "snippet that is" if k == 1 else f"{k} snippets that are"
        return (
            f"The memory mechanism was retrieval, in the style {style}: of what the user said of "
            f"themself, the system prompt holds the {best} nearest to the question by {by}."
        )
    if memory == GATED:
        return (
            f"The memory mechanism was gated, in the style {style}: notes about the user stand in "
            "the system prompt only where the question is nearer to one of them, by the words they "
            f"share (TF-IDF), than {parse_gate(style)} % of questions that they cannot help with. "
            "All other prompts are those without memory."
        )
    if memory == LOGO:
        k = parse_mediator(style)
        how = (
            f"what it makes of either side was fused, the population counting {k} / (n + {k}) with "
            "n slots of the user known"
            if k
            else "it read both, with the adapter switched on"
        )
        return (
            f"The memory mechanism was logo, in the style {style}: a local memory, the snippets of "
            "what the user said nearest to the question by the words they share (BM25), and a "
            "global one, a LoRA adapter trained on what users said who were not asked about, which "
            f"reads what is typical of the user's community. The model was asked, and {how}."
        )
    return (
        f"The memory mechanism was {memory}, in the style {style}: "
        f"{STYLES.get(style, 'see its documentation')}."
    )
