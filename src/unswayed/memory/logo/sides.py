"""What each side says to each case: everything that an evaluation puts to a model.

First the base model is asked what it makes of a user's own past, then the global module, segment by
segment while it is trained, without that past and with it, and last the base model again where it
is to weigh both. Answers are kept in a journal a batch at a time, so nothing is asked twice. What
is kept holds no prompt.

Over closed labels a side is a distribution over these. In free text each side writes an answer, and
is then a distribution over the two answers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from unswayed.findings import Findings
from unswayed.histories import Event
from unswayed.memory import Message
from unswayed.memory.logo import ask
from unswayed.memory.logo.communities import Communities
from unswayed.memory.logo.globals import evidence_embedder, likely, module_prompt
from unswayed.memory.logo.local import (
    counted_profile,
    local_prompt,
    profile_prompt,
    retrieve,
)
from unswayed.memory.logo.mediator import hint
from unswayed.memory.logo.plan import FIT, Case, Plan
from unswayed.memory.logo.recipe import LogoSettings
from unswayed.progress import Progress

BATCH = 64  # prompts between two lines of the journal
DIGITS = 6  # of a probability that is kept, above float rounding

NONE, RETRIEVAL, PROFILE, GLOBAL, WEIGHTS, PROMPTED = (
    "none", "retrieval", "profile", "global", "logo-weights", "logo-prompt",
)  # fmt: skip
OWN_PAST = (NONE, RETRIEVAL, PROFILE)  # what the base model alone says
MODULE = (GLOBAL, WEIGHTS)  # what the global module says, without the user's past and with it
CALIBRATED = ("local-calibrated", "global-calibrated")  # a side alone, after its calibration
FUSED = ("logo-shrinkage", "logo-gate", "logo-equal")
LOCAL = PROFILE  # the local side of LoGo
NO_CONTENT = "N/A"  # the query of a question without content, as in Zhao et al. 2021


class Asker:
    """Puts prompts to a model in batches and keeps the answers.

    Attributes:
        asked, seconds: prompts and time, by what was asked for.
    """

    def __init__(self, found: Findings) -> None:
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
        heard: segments whose questions the global module has been asked.
    """

    def __init__(
        self, plan: Plan, logo: LogoSettings, methods: Sequence[str], found: Findings
    ) -> None:
        self._plan, self._logo, self._task = plan, logo, plan.task
        self.asker = Asker(found)
        self._wanted = [_needed(case, methods) for case in plan.cases]
        self._free = self._task.labels is not None and bool(set(FUSED) & set(methods))
        self._embedder = evidence_embedder(logo)
        self._profiles: dict[str, str] = {}
        self._evidence: dict[int, tuple[Event, ...]] = {}
        self.said: dict[tuple[int, str], Any] = {}
        self.sides: dict[int, tuple[tuple[str, ...], np.ndarray, np.ndarray]] = {}
        self.content_free: np.ndarray | None = None
        self.heard: set[int] = set()

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
        """What the base model says when it also reads what the global module said."""
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

    # -- the global module -------------------------------------------------------------------------

    def ask_global(self, lm: Any, segment: int, communities: Communities) -> None:
        """What the module says to the questions of a segment; it has learnt all before it.

        By the community alone it is a mean over the likely ones. Where it also reads what is known
        of the user, it is asked about the likeliest alone, which takes half as many prompts or
        fewer; lessons that show evidence are made likewise.
        """
        cases, weights, reads = self._plan.cases, {}, {}
        for method in MODULE:
            for i in self.wants(method):
                case = cases[i]
                if case.question.segment != segment:
                    continue
                shown = case.known if method == WEIGHTS else ()
                p = communities.place(case.known)
                weights[i, method] = {int(np.argmax(p)): 1.0} if shown else likely(p)
                for c in weights[i, method]:
                    reads[i, method, c] = module_prompt(
                        self._task, case.question.event.query, communities.descriptions[c], shown,
                        self._logo, self._embedder,
                    )  # fmt: skip
        state = f"before segment {segment}"
        prompts = self._rendered(lm, reads)
        if self._task.labels is None:
            self._global_texts(lm, state, weights, prompts)
        else:
            found = self._labels(lm, "module", state, prompts.values())
            for key, own in weights.items():
                self.said[key] = sum(w * np.array(found[prompts[*key, c]]) for c, w in own.items())
        self.heard.add(segment)

    # -- free text ---------------------------------------------------------------------------------

    def _candidates(self, place: int) -> tuple[str, ...]:
        """The local answer and the global one, as far as they differ and are not empty."""
        both = self.said[place, LOCAL], self.said[place, GLOBAL]
        return tuple(dict.fromkeys(text for text in both if text))

    def _global_texts(
        self,
        lm: Any,
        state: str,
        weights: Mapping[tuple[int, str], Mapping[int, float]],
        prompts: Mapping[tuple[int, str, int], str],
    ) -> None:
        """The answer for the likeliest community; over both answers, the mean of all."""
        first = {key: prompts[*key, max(own, key=own.__getitem__)] for key, own in weights.items()}
        found = self._texts(lm, "module", state, first.values())
        self.said |= {key: found[prompt] for key, prompt in first.items()}
        candidates = {
            i: self._candidates(i)
            for i, method in weights
            if method == GLOBAL and (i, LOCAL) in self.said
        }
        both = {i: own for i, own in candidates.items() if len(own) == 2}
        asked = {
            (i, c): (prompts[i, GLOBAL, c], *both[i]) for i in both for c in weights[i, GLOBAL]
        }
        scores = self._over_texts(lm, state, asked.values())
        for i, own in both.items():
            p = sum(w * np.array(scores[asked[i, c]]) for c, w in weights[i, GLOBAL].items())
            self.sides[i] = (own, p, p)  # the local one follows

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
        return dict(zip(reads, ask.rendered(lm, list(reads.values())), strict=True))

    def _labels(self, lm: Any, what: str, state: str, prompts: Iterable[str]) -> dict[str, list]:
        def find(batch: list[str]) -> list[list[float]]:
            return [_short(row) for row in ask.label_probabilities(lm, batch, self._task.labels)]

        return self.asker.each(what, state, prompts, find)

    def _texts(self, lm: Any, what: str, state: str, prompts: Iterable[str]) -> dict[str, str]:
        return self.asker.each(
            what, state, prompts, lambda batch: ask.texts(lm, batch, self._logo.new_tokens)
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
