"""One YAML file, one run: `recipes/logo/*.yaml`, checked against the dataclasses here."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.recipes import read_keys
from unswayed.models.embedded import EMBEDDED
from unswayed.plum.recipe import check_values
from unswayed.plum.settings import PlumSettings

PROFILES = ("counted", "written")
NEAR = ("words", "embedding")
ALIKE = ("tastes", "embedding")


@dataclasses.dataclass(frozen=True)
class LogoSettings:
    """How the global memory is made, what the local one shows, and what is asked.

    Attributes:
        segments: T, stretches of time with about equal numbers of events. The global module is
            trained on one after another, up to the last but one.
        communities: K, groups of users; 1 is no communities.
        communities_by: "tastes", or "embedding" of what users dealt with.
        samples_per_segment: answers of training users that are learnt from each segment.
        evidence_share: of the lessons that also show what was known of their user.
        evidence: of the user's own events, how many are shown.
        evidence_by: "words" (BM25) or "embedding".
        profile: "counted", or "written" by the model; the global module always reads the counted
            one.
        embedder: the model whose vectors embeddings are.
        shrinkage: k, how many observations of the user the population's word is worth.
        l2: penalty on what is learned of fit users, the gate and the calibration of both sides: a
            normal prior of variance 1 / l2 against one observation per user.
        fit_share, test_share: of users, who teach the gate and who are asked.
        questions_per_user: at most, in each segment that is asked about.
        asked_segments: test users are asked about the last so many; fit users about as many that
            are earlier, so that the gate knows no later answer than it may.
        cold: histories are also cut to the first so many events.
        new_tokens: the most tokens of an answer in free text, and of a written profile.
    """

    segments: int = 5
    communities: int = 4
    communities_by: str = "tastes"
    samples_per_segment: int = 400
    evidence_share: float = 0.5
    evidence: int = 4
    evidence_by: str = "words"
    profile: str = "counted"
    embedder: str = EMBEDDED
    shrinkage: float = 5.0
    l2: float = 1.0
    fit_share: float = 0.2
    test_share: float = 0.3
    questions_per_user: int = 4
    asked_segments: int = 1
    cold: tuple[int, ...] = (0, 1, 2, 5, 10)
    new_tokens: int = 48

    def __post_init__(self) -> None:
        object.__setattr__(self, "cold", tuple(self.cold))
        for name, ok, need in (
            ("segments", self.segments >= 3, "at least 3: two to learn from, one to ask about"),
            ("communities", self.communities >= 1, "at least 1"),
            ("communities_by", self.communities_by in ALIKE, " or ".join(ALIKE)),
            ("samples_per_segment", self.samples_per_segment >= 1, "at least 1"),
            ("evidence_share", 0 <= self.evidence_share <= 1, "from 0 to 1"),
            ("evidence", self.evidence >= 1, "at least 1"),
            ("evidence_by", self.evidence_by in NEAR, " or ".join(NEAR)),
            ("profile", self.profile in PROFILES, " or ".join(PROFILES)),
            ("shrinkage", self.shrinkage > 0, "above 0"),
            ("l2", self.l2 >= 0, "at least 0"),
            ("questions_per_user", self.questions_per_user >= 1, "at least 1"),
            (
                "asked_segments",
                1 <= self.asked_segments <= self.segments - 2,
                f"from 1 to {self.segments - 2}, two less than segments",
            ),
            ("cold", all(type(n) is int and n >= 0 for n in self.cold), "numbers from 0"),
            ("new_tokens", self.new_tokens >= 1, "at least 1"),
        ):
            if not ok:
                raise InputError(f"{name} is {getattr(self, name)}, it must be {need}")


@dataclasses.dataclass(frozen=True)
class LogoRecipe:
    """A global memory, and how it is evaluated; the seed of all is that of `settings`.

    Attributes:
        model: Hub id, folder or the embedded model's name.
        output_dir: where `train.py` puts the global memory; an evaluation has a folder of its own.
        histories: their source, see `unswayed.data.histories.load_histories`.
        dtype: of the base model, as in torch; "auto" is float32 on CPU, else the checkpoint's.
        logo: everything that is LoGo's own.
        settings: how the global module is trained.
    """

    model: str
    output_dir: str
    histories: str = "builtin"
    dtype: str = "auto"
    logo: LogoSettings = dataclasses.field(default_factory=LogoSettings)
    settings: PlumSettings = dataclasses.field(default_factory=PlumSettings)


SECTIONS = {
    "logo": lambda: typing.get_type_hints(LogoSettings),
    "settings": lambda: typing.get_type_hints(PlumSettings),
}


def read_recipe(paths: Sequence[Path]) -> LogoRecipe:
    """A recipe; with several files, the keys of later ones replace those of earlier ones.

    Raises:
        InputError: names the file and the key that is unknown, missing, twice there or of a wrong
            type.
    """
    keys = read_keys(paths, LogoRecipe, SECTIONS, _check)
    try:
        logo = LogoSettings(**keys.get("logo", {}))
        settings = PlumSettings(**keys.get("settings", {}))
    except InputError as error:
        raise InputError(f"{paths[-1]}: {error}") from None
    return LogoRecipe(**keys | {"logo": logo, "settings": settings})


def _check(hints: dict[str, Any], values: dict[str, Any], where: Any, prefix: str = "") -> None:
    check_values(hints, values, where, prefix)
    if not isinstance(values.get("cold", []), list):
        raise InputError(f"{where}: {prefix}cold must be a list of numbers, e.g. [0, 1, 2]")
