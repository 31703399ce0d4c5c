"""How preference pairs are made: the settings of a build."""

from __future__ import annotations

from dataclasses import dataclass

from unswayed.core.arguments import option
from unswayed.core.errors import InputError
from unswayed.mitigation.overlap import COSINE, RUN
from unswayed.models.embedded import EMBEDDED
from unswayed.models.load import check_backend, parse_settings
from unswayed.scoring.backends import HF_SHARED

RULES = "rules"


@dataclass
class PreferenceSettings:
    """How the pairs are made."""

    questions: list[str] | None = option(
        None, "builtin, feelings or NAME=FILE, several are joined (default: builtin)"
    )
    n_questions: int | None = option(None, "a random sample of them (default: all)")
    personas: str | None = option(None, "grid, or your own pairs, a YAML file (default: built-in)")
    spare_pairs: int = option(
        15,
        "the first N base personas are not used: `unswayed audit --pairs N` then asks under "
        "users that training has not seen",
    )
    sampled: int | None = option(
        None, "questions whose candidates are sampled (default: all; 0: none)"
    )
    constructed: int = option(0, "constructed pairs per question, each for another user")
    own: int = option(
        0,
        "users per question, neutral ones too, under whose memory the model's own answer "
        "without it is the better one; needs no reference",
    )
    generator: str = option(EMBEDDED, "model that writes the candidates")
    generator_backend: str = option(HF_SHARED, "what runs it, as in `unswayed audit`")
    generator_args: str | None = option(None, "its further arguments, name=value,...")
    gen_kwargs: str | None = option(None, "settings of generation (default: greedy)")
    max_gen_toks: int = option(256, "new tokens per candidate")
    judge: str = option(RULES, "rules, or a model that judges")
    judge_backend: str = option(HF_SHARED, "what runs it")
    judge_args: str | None = option(None, "its further arguments")
    reward: str | None = option(
        None, "sequence-classification model (default: the reference margin under --policy)"
    )
    policy: str = option(EMBEDDED, "model to be trained: reference margin and lengths")
    margin: float = option(0.5, "least difference of the two rewards")
    against: list[str] | None = option(
        None, "items that no pair may resemble: builtin or NAME=FILE (default: builtin)"
    )
    ngram: int = option(RUN, "a run of so many words shared with an item drops a pair")
    similarity: float = option(COSINE, "a cosine so high to an item drops a pair")
    embedder: str = option(EMBEDDED, "model of the embeddings")
    max_length: int = option(1024, "tokens of prompt and answer that the recipe takes")
    test_share: float = option(0.1, "share of the questions kept for testing")
    seed: int = option(0, "of everything that is drawn")
    batch_size: int = option(16, "prompts per pass where candidates are sampled locally")
    device: str | None = option(None, "as in torch (default: a GPU if there is one)")
    work_dir: str = option("runs/preferences", "folder of the stages")

    @property
    def generates(self) -> bool:
        """The generator is asked for texts."""
        return self.sampled != 0 or self.own > 0

    def check(self) -> None:
        """The settings have meaning, alone and together; nothing is loaded.

        Raises:
            InputError: says which has none.
        """
        least = {"n_questions": 1, "spare_pairs": 0, "sampled": 0, "constructed": 0}
        least |= {"max_gen_toks": 1, "margin": 0, "ngram": 2, "max_length": 1, "seed": 0}
        least |= {"batch_size": 1, "own": 0}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and not value >= lowest:
                raise InputError(f"--{name} {value}: give a number from {lowest}")
        for name in ("test_share", "similarity"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"--{name} {getattr(self, name)}: give a number in (0, 1]")
        if self.test_share == 1:
            raise InputError("--test_share 1 leaves no pair to train on: give a smaller share")
        if not (self.generates or self.constructed):
            raise InputError("--sampled 0 alone makes no pair: give --own 2, or --constructed 3")
        if self.generates:
            self._check_model("generator", self.generator_backend, self.generator_args)
        if self.judge != RULES:
            self._check_model("judge", self.judge_backend, self.judge_args)

    def _check_model(self, what: str, backend: str, arguments: str | None) -> None:
        check_backend(
            backend, "generate", parse_settings(f"--{what}_args", arguments), None, None, "auto",
            "auto", {},
        )  # fmt: skip
