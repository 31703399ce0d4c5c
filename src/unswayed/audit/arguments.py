"""What to audit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unswayed.audit.trials import (
    CONDITIONS,
    GRID_CONDITIONS,
    PAIR_CONDITIONS,
    other_personas,
)
from unswayed.core.arguments import REQUIRED, Once, option
from unswayed.core.commands import batch_size
from unswayed.core.errors import InputError
from unswayed.data.items import BUILTIN
from unswayed.data.personas import Persona, load_personas
from unswayed.memory.registry import DEFAULT, find_mechanism
from unswayed.scoring.backends import HF_SHARED
from unswayed.scoring.prompts import check_rule

# Settings of a request that follow from the scoring or have an option of their own.
FIXED_SETTINGS = {
    "until", "stop", "max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens",
}  # fmt: skip


@dataclasses.dataclass
class AuditArguments:
    """What to audit; the command line's options with the same names and meanings."""

    model: str = option(REQUIRED, "Hub id, folder, or smollm2-135m (embedded)")
    out: Path = option(REQUIRED, "run directory to write", metavar="DIR")
    adapter: str | None = option(None, "PEFT adapter on top of it, folder or Hub id")
    items: Sequence[str] = option(
        (BUILTIN,),
        "builtin, understanding, management, their first N as in builtin:89, or NAME=FILE (names "
        "steu, stem, emobench_eu, "
        "emobench_ea select a reader, any other the generic form); see docs/items.md",
        metavar="SPEC",
    )
    decisions: Path | None = option(
        None, "annotators' decisions on persona_invariant, JSONL or CSV", metavar="FILE"
    )
    limit: int | None = option(
        None, "only the first N items of each test: a preview, and a run of its own", metavar="N"
    )
    conditions: Sequence[str] | None = option(
        None,
        "any of none neutral advantaged disadvantaged, with --personas grid any of none grid; "
        "default: all",
        metavar="NAME",
    )
    pairs: int | None = option(None, "only the first N persona pairs", metavar="N")
    personas: str | None = option(
        None,
        "grid (81 cells of gender, age, religion and ethnicity) or your own pairs, YAML; see "
        "docs/personas.md; default: 30 built-in pairs",
        metavar="FILE",
    )
    memory: str = option(
        DEFAULT,
        "prompt, retrieval, gated (in the prompt where the question needs it), plum (an adapter is "
        "trained for each persona) or logo (an adapter is trained on the personas that are not "
        "asked about); see docs/memories.md",
    )
    memory_style: str | None = option(
        None,
        "of prompt: system, user, bullets, turns or ignore (default: system); of retrieval: bm25-K "
        "or embedding-K, K snippets (default: bm25-3); of gated: tfidf-Q, Q a percentile (default: "
        "tfidf-95); of logo: shrinkage-K, K slots that the others' word is worth, or weights "
        "(default: shrinkage-5); plum has none",
        metavar="NAME",
    )
    plum_recipe: Path | None = option(
        None,
        "recipe with whose settings, and for plum augment, adapters are trained, YAML; see "
        "recipes/plum",
        metavar="FILE",
    )
    policy: str | None = option(
        None,
        "what is declared before the first question: outcome, margins and least numbers; default, "
        "grid, or a YAML file, see docs/gate.md; default: default, with --personas grid grid",
        metavar="NAME",
        action=Once,
    )
    scoring: str = option("option", "option, letter or generate")
    rule: str | None = option(
        None,
        "of option: what is compared of the options' log-probabilities: sum, char or token "
        "(per character, per token), or pmi (less those without the scenario); default: pmi",
        metavar="NAME",
    )
    orders: int = option(
        1,
        "of letter: in how many orders the options are listed; as many as options cancel what a "
        "place is worth by itself",
        metavar="N",
    )
    seed: int = option(0, "of the order of options and of resampling")
    batch_size: int | str = option(
        "auto",
        "prompts per pass in generation and without shared prefixes, or auto",
        type=batch_size,
    )
    max_gen_toks: int = option(256, "new tokens per generated answer")
    device: str | None = option(None, "as in torch; default: a GPU if there is one")
    dtype: str = option(
        "auto",
        "torch dtype; auto: on a CPU the faster of float32 and bfloat16, else the model's own",
    )
    backend: str = option(
        HF_SHARED,
        "what runs the model: hf-shared, or a backend of lm-eval, such as vllm or "
        "local-chat-completions; see docs/backends.md",
        metavar="NAME",
    )
    model_args: Mapping[str, Any] = option(
        dict,
        "further arguments of the backend, as for lm-eval, or JSON",
        type=str,
        metavar="K=V,...",
    )
    gen_kwargs: Mapping[str, Any] = option(
        dict,
        "further settings of requests for answers in words, or for letters from a chat service, "
        "likewise; without any, greedy",
        type=str,
        metavar="K=V,...",
    )
    resume: bool = option(False, "go on with this run if DIR holds it")

    def __post_init__(self) -> None:
        if self.conditions is None:
            self.conditions = GRID_CONDITIONS if self.personas == "grid" else PAIR_CONDITIONS
        if unknown := [c for c in self.conditions if c not in CONDITIONS]:
            raise InputError(f"condition {unknown[0]!r} is not one of {', '.join(CONDITIONS)}")
        if len(set(self.conditions)) < len(self.conditions):
            raise InputError(f"--conditions names one twice: {' '.join(self.conditions)}")
        if not self.conditions:
            raise InputError("--conditions is empty")
        mechanism = find_mechanism(self.memory)
        if self.memory_style is None:
            self.memory_style = mechanism.default_style
        self.rule = check_rule(self.scoring, self.rule)
        if self.orders < 1:
            raise InputError(f"--orders {self.orders}: give a number from 1")
        if self.orders > 1 and self.scoring != "letter":
            raise InputError(f"--orders has no meaning with --scoring {self.scoring}, only letter")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit {self.limit}: give a number of items from 1")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: give a number from 0")
        if self.max_gen_toks < 1:
            raise InputError(f"--max-gen-toks {self.max_gen_toks}: give a number from 1")
        if self.batch_size != "auto" and int(self.batch_size) < 1:
            raise InputError(f"--batch-size {self.batch_size}: give a number from 1 or auto")
        _check_request(self.scoring, self.gen_kwargs)

    def population(self) -> list[Persona]:
        """All versions of the base personas that are not asked about."""
        return other_personas(load_personas(self.personas), self.pairs)


def _check_request(scoring: str, gen_kwargs: Mapping[str, Any]) -> None:
    """Refuse settings of requests that a way of scoring sets itself or cannot use."""
    if fixed := FIXED_SETTINGS & gen_kwargs.keys():
        raise InputError(
            f"--gen-kwargs {min(fixed)}=...: answers end where the model ends them, or after "
            "--max-gen-toks; for a letter one token is asked"
        )
    listing = {"logprobs"} if scoring == "letter" else {"logprobs", "top_logprobs"}
    if taken := listing & gen_kwargs.keys():
        raise InputError(
            f"--gen-kwargs {min(taken)}=... has no meaning with --scoring {scoring}: "
            "log-probabilities are asked for with --scoring letter, and by it"
        )
    if scoring != "letter":
        return
    if (temperature := gen_kwargs.get("temperature")) not in (None, 0):
        raise InputError(
            f"--gen-kwargs temperature={temperature} has no meaning with --scoring letter, which "
            "reads probabilities and draws nothing: leave it out"
        )
    n_tokens = gen_kwargs.get("top_logprobs", 1)
    if isinstance(n_tokens, bool) or not isinstance(n_tokens, int) or n_tokens < 1:
        raise InputError(f"--gen-kwargs top_logprobs={n_tokens}: give a whole number from 1")
