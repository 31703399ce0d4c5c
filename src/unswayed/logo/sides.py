"""What each side says to each view: everything that an evaluation puts to a model.

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
from unswayed.logo.globals import evidence_embedder, module_prompt, module_weights
from unswayed.logo.local import (
    counted_profile,
    local_prompt,
    profile_prompt,
    retrieve,
)
from unswayed.logo.mediator import hint
from unswayed.logo.plan import FIT, Plan, TargetView
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
        n_prompts, seconds: prompts and time, by what was asked for.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.n_prompts: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()

    def each(
        self, what: str, state: str, requests: Iterable[Any], find: Callable[[list[Any]], list[Any]]
    ) -> dict[Any, Any]:
        """Request -> what `find` gives for a batch of them, as JSON values.

        Batches depend on the requests alone, in the order that lets prompts share the most.

        Args:
            what: under this name they are counted.
            state: of the model; another state gives other answers.
            requests: prompts, or tuples that begin with a prompt; repeated ones are asked once.
        """
        requests, answers = sorted(set(requests)), {}
        with Progress(len(requests), f"prompts ({what})") as progress:
            for start in range(0, len(requests), BATCH):
                batch = requests[start : start + BATCH]
                key = json.dumps([what, state, batch])
                values = self._ledger.once(key, lambda b=batch: find(b))
                answers.update(zip(batch, values, strict=True))
                self.n_prompts[what] += len(batch)
                self.seconds[what] += self._ledger.seconds(key)
                progress.add(len(batch))
        return answers


class Sides:
    """Asks for all views of a plan.

    Args:
        methods: those of OWN_PAST, MODULE, PROMPTED, CALIBRATED and FUSED that are wanted.

    Attributes:
        outputs: (view's place, method) -> what it says: over labels a distribution (L,), in free
            text an answer.
        sides: view's place -> (candidates, local, global): the distributions that are fused.
        content_free: (L,) what the base model says to a question without content, knowing nothing;
            None in free text, or if nothing is fused.
        speakers: (segment, module) pairs: modules that are to answer questions of a segment.
        answered: those that have been asked.
    """

    def __init__(
        self, plan: Plan, logo: LogoSettings, methods: Sequence[str], ledger: Ledger
    ) -> None:
        self._plan, self._logo, self._task = plan, logo, plan.task
        self.asker = Asker(ledger)
        self._methods = [_needed(view, methods) for view in plan.views]
        self._free = self._task.labels is not None and bool(set(FUSED) & set(methods))
        self._embedder = evidence_embedder(logo)
        self._profiles: dict[str, str] = {}
        self._evidence: dict[int, tuple[Event, ...]] = {}
        self.outputs: dict[tuple[int, str], Any] = {}
        self._module_outputs: dict[tuple[tuple[int, str], int], np.ndarray] = {}
        self.sides: dict[int, tuple[tuple[str, ...], np.ndarray, np.ndarray]] = {}
        self.content_free: np.ndarray | None = None
        self._weights = {
            (i, method): self._speaking(i, method)
            for method in MODULE
            for i in self.places_of(method)
        }
        self.speakers = {
            (plan.views[i].target.segment, module)
            for (i, _), weights in self._weights.items()
            for module in weights
        }
        self.answered: set[tuple[int, int]] = set()

    def places_of(self, method: str) -> list[int]:
        """Places of the views to which a method is to say something."""
        return [i for i, methods in enumerate(self._methods) if method in methods]

    # -- the base model and the user's own past ----------------------------------------------------

    def ask_own_past(self, lm: Any) -> None:
        """What the base model says with nothing, evidence, evidence and profile."""
        if self._logo.profile == "written":
            self._write_profiles(lm)
        reads = {
            (i, method): self.reads(i, method)
            for method in OWN_PAST
            for i in self.places_of(method)
        }
        self._keep(lm, "own past", "base", reads)
        if self._free:
            reads = local_prompt(self._task, NO_CONTENT)
            (prompt,) = self._rendered(lm, {NO_CONTENT: reads}).values()
            answers = self._labels(lm, "no content", "base", [prompt])
            self.content_free = np.array(answers[prompt])

    def ask_prompted(self, lm: Any) -> None:
        """What the base model says when it also reads what the global memory said."""
        reads = {(i, PROMPTED): self.reads(i, PROMPTED) for i in self.places_of(PROMPTED)}
        self._keep(lm, PROMPTED, "base", reads)

    def ask_candidates(self, lm: Any) -> None:
        """Fill `sides`; in free text the base model still has to compare the two answers."""
        if self._task.labels is None:
            self._local_over_texts(lm)
            return
        for i in self.places_of(GLOBAL):
            if (i, LOCAL) in self.outputs:
                self.sides[i] = (self._task.labels, self.outputs[i, LOCAL], self.outputs[i, GLOBAL])

    def reads(self, place: int, method: str) -> list[Message]:
        """The prompt of a method of OWN_PAST, or PROMPTED."""
        view, task = self._plan.views[place], self._task
        query = view.target.event.query
        if method == NONE:
            return local_prompt(task, query)
        if place not in self._evidence:
            nearest = retrieve(view.past, query, self._logo.evidence, self._embedder)
            self._evidence[place] = nearest
        evidence = self._evidence[place]
        if method == RETRIEVAL:
            return local_prompt(task, query, evidence)
        hint_text = self._hint(place) if method == PROMPTED else ""
        return local_prompt(task, query, evidence, self._profile(view.past), hint_text)

    def _hint(self, place: int) -> str:
        output = self.outputs[place, GLOBAL]
        if self._task.labels is None:
            return hint(np.ones(1), [output], self._task) if output else ""
        return hint(output, self._task.labels, self._task)

    def _profile(self, past: Sequence[Event]) -> str:
        if self._logo.profile == "counted":
            return counted_profile(past, self._task)
        return self._profiles.get(profile_prompt(past, self._task), "")

    def _write_profiles(self, lm: Any) -> None:
        places = [*self.places_of(LOCAL), *self.places_of(PROMPTED)]
        texts = {profile_prompt(self._plan.views[i].past, self._task) for i in places} - {""}
        prompts = self._rendered(lm, {t: [{"role": "user", "content": t}] for t in sorted(texts)})
        written = self._texts(lm, "profiles", "base", prompts.values())
        self._profiles = {
            text: " ".join(written[prompt].split()) for text, prompt in prompts.items()
        }

    # -- the global memory -------------------------------------------------------------------------

    def _speaking(self, place: int, method: str) -> dict[int, float]:
        """Modules that answer a view, and how much each counts.

        By the communities alone the answer is a mean over the likely ones. Where the module also
        reads what is known of the user, the likeliest alone is asked, which takes half as many
        prompts or fewer; lessons that show evidence are made likewise. A text has one writer too.
        """
        view = self._plan.views[place]
        alone = self._task.labels is None or (method == WEIGHTS and bool(view.past))
        stages = self._plan.stages[: view.target.segment - 1]
        return module_weights(stages, view.past, alone)

    def ask_global(self, lm: Any, segment: int, module: int) -> None:
        """What a module says to the questions of a segment; it has learnt all before it."""
        views, reads = self._plan.views, {}
        for (i, method), weights in self._weights.items():
            if module in weights and views[i].target.segment == segment:
                context = views[i].past if method == WEIGHTS else ()
                query = views[i].target.event.query
                reads[i, method] = module_prompt(
                    self._task, query, context, self._logo, self._embedder
                )
        state = f"community {module + 1} before segment {segment}"
        prompts = self._rendered(lm, reads)
        if self._task.labels is None:
            self._global_texts(lm, state, prompts)
        else:
            answers = self._labels(lm, "module", state, prompts.values())
            self._module_outputs |= {
                (key, module): np.array(answers[prompts[key]]) for key in prompts
            }
        self.answered.add((segment, module))

    def join_global(self) -> None:
        """What the modules said together, when all were asked."""
        for key, weights in self._weights.items():
            if self._task.labels is not None:
                parts = [
                    weights[module] * self._module_outputs[key, module]
                    for module in sorted(weights)
                ]
                self.outputs[key] = np.sum(parts, axis=0)

    # -- free text ---------------------------------------------------------------------------------

    def _candidates(self, place: int) -> tuple[str, ...]:
        """The local answer and the global one, as far as they differ and are not empty."""
        both = self.outputs[place, LOCAL], self.outputs[place, GLOBAL]
        return tuple(dict.fromkeys(text for text in both if text))

    def _global_texts(self, lm: Any, state: str, prompts: Mapping[tuple[int, str], str]) -> None:
        """What the module writes, and how it compares both answers where they differ."""
        answers = self._texts(lm, "module", state, prompts.values())
        self.outputs |= {key: answers[prompt] for key, prompt in prompts.items()}
        candidates = {
            i: self._candidates(i)
            for i, method in prompts
            if method == GLOBAL and (i, LOCAL) in self.outputs
        }
        requests = {
            i: (prompts[i, GLOBAL], *texts) for i, texts in candidates.items() if len(texts) == 2
        }
        scores = self._over_texts(lm, state, requests.values())
        for i, request in requests.items():
            p = np.array(scores[request])
            self.sides[i] = (candidates[i], p, p)  # the local one follows

    def _local_over_texts(self, lm: Any) -> None:
        places = list(self.sides)
        prompts = self._rendered(lm, {i: self.reads(i, LOCAL) for i in places})
        requests = {i: (prompts[i], *self.sides[i][0]) for i in places}
        scores = self._over_texts(lm, "base", requests.values())
        for i in places:
            candidates, _, p_global = self.sides[i]
            self.sides[i] = (candidates, np.array(scores[requests[i]]), p_global)

    # -- asking ------------------------------------------------------------------------------------

    def _keep(self, lm: Any, what: str, state: str, reads: Mapping[Any, list[Message]]) -> None:
        prompts = self._rendered(lm, reads)
        if self._task.labels is None:
            answers = self._texts(lm, what, state, prompts.values())
            self.outputs |= {key: answers[prompt] for key, prompt in prompts.items()}
        else:
            answers = self._labels(lm, what, state, prompts.values())
            self.outputs |= {key: np.array(answers[prompt]) for key, prompt in prompts.items()}

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
        self, lm: Any, state: str, requests: Iterable[tuple[str, ...]]
    ) -> dict[tuple[str, ...], list[float]]:
        def find(batch: list[tuple[str, ...]]) -> list[list[float]]:
            prompts, candidates = (
                [request[0] for request in batch],
                [request[1:] for request in batch],
            )
            return [_short(row) for row in ask.text_probabilities(lm, prompts, candidates)]

        return self.asker.each("candidates", state, requests, find)


def _needed(view: TargetView, methods: Sequence[str]) -> set[str]:
    """What is to be asked for a view: a mediator needs both sides."""
    fused = bool({PROMPTED, *CALIBRATED, *FUSED} & set(methods))
    both = {LOCAL, GLOBAL} if fused else set()
    return both if view.target.part == FIT else both | set(methods)


def _short(row: Iterable[float]) -> list[float]:
    return [float(f"{p:.{DIGITS}g}") for p in row]
