"""What each side says to each case: everything that an evaluation puts to a model.

First the base model is asked what it makes of a user's own past, then the global memory's modules,
segment by segment while they are trained, without that past and with it, and last the base model
again where it is to weigh both. Answers are kept in a journal a batch at a time, so nothing is
asked twice. What is kept holds no prompt.

Over closed labels a side is a distribution over these. In free text each side writes an answer, and
is then a distribution over the two answers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from unswayed.core.ledger import Ledger
from unswayed.core.progress import Progress
from unswayed.data.histories import Event
from unswayed.logo import ask
from unswayed.logo.globals import evidence_embedder, module_prompt, speaking
from unswayed.logo.local import (
    counted_profile,
    local_prompt,
    profile_prompt,
    retrieve,
)
from unswayed.logo.mediator import hint
from unswayed.logo.plan import FIT, Case, Plan
from unswayed.logo.recipe import LogoSettings
from unswayed.scoring.ask import open_prompts, replies
from unswayed.scoring.chat import Message

BATCH = 64  # prompts between two lines of the journal
DIGITS = 6  # of a probability that is kept, above float rounding

NONE, RETRIEVAL, PROFILE, GLOBAL, WEIGHTS, PROMPTED = (
    "none", "retrieval", "profile", "global", "logo-weights", "logo-prompt",
)  # fmt: skip
OWN_PAST = (NONE, RETRIEVAL, PROFILE)  # what the base model alone says
MODULE = (GLOBAL, WEIGHTS)  # what the modules say, without the user's past and with it
CALIBRATED = ("local-calibrated", "global-calibrated")  # a side alone, after its calibration
FUSED = ("logo-shrinkage", "logo-gate", "logo-equal")
LOCAL = PROFILE  # the local side of LoGo
NO_CONTENT = "N/A"  # the query of a question without content, as in Zhao et al. 2021


class Asker:
    """Puts prompts to a model in batches and keeps the answers.

    Attributes:
        asked, seconds: prompts and time, by what was asked for.
    """

    def __init__(self, found: Ledger) -> None:
        self._found = found
        self.asked: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()

    def each(
        self, what: str, state: str, wanted: Iterable[Any], find: Callable[[list[Any]], list[Any]]
    ) -> dict[Any, Any]:
        """Wanted -> what `find` gives for a batch of them, as JSON values.

        Batches depend on what is wanted alone, in the order that lets prompts share the most.

        Args:
            what: under this name they are counted.
            state: of the model; another state gives other answers.
            wanted: prompts, or tuples that begin with a prompt; repeated ones are asked once.
        """
        wanted, answers = sorted(set(wanted)), {}
        progress = Progress(len(wanted), f"prompts ({what})")
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            key = json.dumps([what, state, batch])
            answers.update(zip(batch, self._found.once(key, lambda b=batch: find(b)), strict=True))
            self.asked[what] += len(batch)
            self.seconds[what] += self._found.seconds(key)
            progress.add(len(batch))
        progress.close()
        return answers


class Sides:
    """Asks for all cases of a plan.

    Args:
        methods: those of OWN_PAST, MODULE, PROMPTED, CALIBRATED and FUSED that are wanted.

    Attributes:
        said: (case's place, method) -> what it says: over labels a distribution (L,), in free text
            an answer.
        sides: case's place -> (candidates, local, global): the distributions that are fused.
        content_free: (L,) what the base model says to a question without content, knowing nothing;
            None in free text, or if nothing is fused.
        speakers: (segment, module) pairs: modules that are to answer questions of a segment.
        heard: those that have been asked.
    """

    def __init__(
        self, plan: Plan, logo: LogoSettings, methods: Sequence[str], found: Ledger
    ) -> None:
        self._plan, self._logo, self._task = plan, logo, plan.task
        self.asker = Asker(found)
        self._wanted = [_needed(case, methods) for case in plan.cases]
        self._free = self._task.labels is not None and bool(set(FUSED) & set(methods))
        self._embedder = evidence_embedder(logo)
        self._profiles: dict[str, str] = {}
        self._evidence: dict[int, tuple[Event, ...]] = {}
        self.said: dict[tuple[int, str], Any] = {}
        self._heard: dict[tuple[tuple[int, str], int], np.ndarray] = {}
        self.sides: dict[int, tuple[tuple[str, ...], np.ndarray, np.ndarray]] = {}
        self.content_free: np.ndarray | None = None
        self._weights = {
            (i, method): self._speaking(i, method) for method in MODULE for i in self.wants(method)
        }
        self.speakers = {
            (plan.cases[i].question.segment, module)
            for (i, _), own in self._weights.items()
            for module in own
        }
        self.heard: set[tuple[int, int]] = set()

    def wants(self, method: str) -> list[int]:
        """Places of the cases to which a method is to say something."""
        return [i for i, wanted in enumerate(self._wanted) if method in wanted]

    # -- the base model and the user's own past ----------------------------------------------------

    def ask_own_past(self, lm: Any) -> None:
        """What the base model says with nothing, evidence, evidence and profile."""
        if self._logo.profile == "written":
            self._write_profiles(lm)
        own = {
            (i, method): self.reads(i, method) for method in OWN_PAST for i in self.wants(method)
        }
        self._keep(lm, "own past", "base", own)
        if self._free:
            reads = local_prompt(self._task, NO_CONTENT)
            (prompt,) = self._rendered(lm, {NO_CONTENT: reads}).values()
            found = self._labels(lm, "no content", "base", [prompt])
            self.content_free = np.array(found[prompt])

    def ask_prompted(self, lm: Any) -> None:
        """What the base model says when it also reads what the global memory said."""
        own = {(i, PROMPTED): self.reads(i, PROMPTED) for i in self.wants(PROMPTED)}
        self._keep(lm, PROMPTED, "base", own)

    def ask_candidates(self, lm: Any) -> None:
        """Fill `sides`; in free text the base model still has to compare the two answers."""
        if self._task.labels is None:
            self._local_over_texts(lm)
            return
        for i in self.wants(GLOBAL):
            if (i, LOCAL) in self.said:
                self.sides[i] = (self._task.labels, self.said[i, LOCAL], self.said[i, GLOBAL])

    def reads(self, place: int, method: str) -> list[Message]:
        """The prompt of a method of OWN_PAST, or PROMPTED."""
        case, task = self._plan.cases[place], self._task
        query = case.question.event.query
        if method == NONE:
            return local_prompt(task, query)
        if place not in self._evidence:
            found = retrieve(case.known, query, self._logo.evidence, self._embedder)
            self._evidence[place] = found
        evidence = self._evidence[place]
        if method == RETRIEVAL:
            return local_prompt(task, query, evidence)
        told = self._hint(place) if method == PROMPTED else ""
        return local_prompt(task, query, evidence, self._profile(case.known), told)

    def _hint(self, place: int) -> str:
        said = self.said[place, GLOBAL]
        if self._task.labels is None:
            return hint(np.ones(1), [said], self._task) if said else ""
        return hint(said, self._task.labels, self._task)

    def _profile(self, known: Sequence[Event]) -> str:
        if self._logo.profile == "counted":
            return counted_profile(known, self._task)
        return self._profiles.get(profile_prompt(known, self._task), "")

    def _write_profiles(self, lm: Any) -> None:
        places = [*self.wants(LOCAL), *self.wants(PROMPTED)]
        texts = {profile_prompt(self._plan.cases[i].known, self._task) for i in places} - {""}
        prompts = self._rendered(lm, {t: [{"role": "user", "content": t}] for t in sorted(texts)})
        written = self._texts(lm, "profiles", "base", prompts.values())
        self._profiles = {
            text: " ".join(written[prompt].split()) for text, prompt in prompts.items()
        }

    # -- the global memory -------------------------------------------------------------------------

    def _speaking(self, place: int, method: str) -> dict[int, float]:
        """Modules that answer a case, and how much each counts.

        By the communities alone the answer is a mean over the likely ones. Where the module also
        reads what is known of the user, the likeliest alone is asked, which takes half as many
        prompts or fewer; lessons that show evidence are made likewise. A text has one writer too.
        """
        case = self._plan.cases[place]
        alone = self._task.labels is None or (method == WEIGHTS and bool(case.known))
        stages = self._plan.stages[: case.question.segment - 1]
        return speaking(stages, case.known, alone)

    def ask_global(self, lm: Any, segment: int, module: int) -> None:
        """What a module says to the questions of a segment; it has learnt all before it."""
        cases, reads = self._plan.cases, {}
        for (i, method), own in self._weights.items():
            if module in own and cases[i].question.segment == segment:
                shown = cases[i].known if method == WEIGHTS else ()
                query = cases[i].question.event.query
                reads[i, method] = module_prompt(
                    self._task, query, shown, self._logo, self._embedder
                )
        state = f"community {module + 1} before segment {segment}"
        prompts = self._rendered(lm, reads)
        if self._task.labels is None:
            self._global_texts(lm, state, prompts)
        else:
            found = self._labels(lm, "module", state, prompts.values())
            self._heard |= {(key, module): np.array(found[prompts[key]]) for key in prompts}
        self.heard.add((segment, module))

    def join_global(self) -> None:
        """What the modules said together, when all were asked."""
        for key, own in self._weights.items():
            if self._task.labels is not None:
                said = [own[module] * self._heard[key, module] for module in sorted(own)]
                self.said[key] = np.sum(said, axis=0)

    # -- free text ---------------------------------------------------------------------------------

    def _candidates(self, place: int) -> tuple[str, ...]:
        """The local answer and the global one, as far as they differ and are not empty."""
        both = self.said[place, LOCAL], self.said[place, GLOBAL]
        return tuple(dict.fromkeys(text for text in both if text))

    def _global_texts(self, lm: Any, state: str, prompts: Mapping[tuple[int, str], str]) -> None:
        """What the module writes, and how it compares both answers where they differ."""
        found = self._texts(lm, "module", state, prompts.values())
        self.said |= {key: found[prompt] for key, prompt in prompts.items()}
        candidates = {
            i: self._candidates(i)
            for i, method in prompts
            if method == GLOBAL and (i, LOCAL) in self.said
        }
        asked = {i: (prompts[i, GLOBAL], *own) for i, own in candidates.items() if len(own) == 2}
        scores = self._over_texts(lm, state, asked.values())
        for i, one in asked.items():
            p = np.array(scores[one])
            self.sides[i] = (candidates[i], p, p)  # the local one follows

    def _local_over_texts(self, lm: Any) -> None:
        places = list(self.sides)
        prompts = self._rendered(lm, {i: self.reads(i, LOCAL) for i in places})
        asked = {i: (prompts[i], *self.sides[i][0]) for i in places}
        scores = self._over_texts(lm, "base", asked.values())
        for i in places:
            candidates, _, p_global = self.sides[i]
            self.sides[i] = (candidates, np.array(scores[asked[i]]), p_global)

    # -- asking ------------------------------------------------------------------------------------

    def _keep(self, lm: Any, what: str, state: str, reads: Mapping[Any, list[Message]]) -> None:
        prompts = self._rendered(lm, reads)
        if self._task.labels is None:
            found = self._texts(lm, what, state, prompts.values())
            self.said |= {key: found[prompt] for key, prompt in prompts.items()}
        else:
            found = self._labels(lm, what, state, prompts.values())
            self.said |= {key: np.array(found[prompt]) for key, prompt in prompts.items()}

    @staticmethod
    def _rendered(lm: Any, reads: Mapping[Any, list[Message]]) -> dict[Any, str]:
        return dict(zip(reads, open_prompts(lm, list(reads.values())), strict=True))

    def _labels(self, lm: Any, what: str, state: str, prompts: Iterable[str]) -> dict[str, list]:
        def find(batch: list[str]) -> list[list[float]]:
            return [_short(row) for row in ask.label_probabilities(lm, batch, self._task.labels)]

        return self.asker.each(what, state, prompts, find)

    def _texts(self, lm: Any, what: str, state: str, prompts: Iterable[str]) -> dict[str, str]:
        return self.asker.each(
            what, state, prompts, lambda batch: replies(lm, batch, self._logo.new_tokens)
        )

    def _over_texts(
        self, lm: Any, state: str, asked: Iterable[tuple[str, ...]]
    ) -> dict[tuple[str, ...], list[float]]:
        def find(batch: list[tuple[str, ...]]) -> list[list[float]]:
            prompts, candidates = [one[0] for one in batch], [one[1:] for one in batch]
            return [_short(row) for row in ask.text_probabilities(lm, prompts, candidates)]

        return self.asker.each("candidates", state, asked, find)


def _needed(case: Case, methods: Sequence[str]) -> set[str]:
    """What is to be asked for a case: a mediator needs both sides."""
    fused = bool({PROMPTED, *CALIBRATED, *FUSED} & set(methods))
    both = {LOCAL, GLOBAL} if fused else set()
    return both if case.question.part == FIT else both | set(methods)


def _short(row: Iterable[float]) -> list[float]:
    return [float(f"{p:.{DIGITS}g}") for p in row]
