"""One experiment: train a memory on conversations, and ask about them while it grows.

After every conversation, or every k-th, all held-out closed questions on the conversations learnt
so far are asked. A folder holds the experiment: the memory, `journal.jsonl` while it goes on, and
at the end `result.json`. What was asked once is never asked again, and an interrupted experiment
goes on from the trainer's last checkpoint to the same result. The folder holds no word of the
conversations, so results can be shown to anyone.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unswayed.core.errors import InputError
from unswayed.core.files import read_json, without_folders, write_json
from unswayed.core.ledger import Ledger, as_json, check_same, digest
from unswayed.data.conversations import (
    Conversation,
    builtin_facts,
    builtin_near,
    load_conversations,
)
from unswayed.memory.baselines import FullMemory, SummaryMemory
from unswayed.memory.prompt import PromptMemory
from unswayed.memory.retrieval import RetrievalMemory
from unswayed.memory.told import ToldMemory
from unswayed.models.base import Base
from unswayed.models.embedded import EMBEDDED, model_label
from unswayed.plum.ability import ability_change, check_ability
from unswayed.plum.adapter import remembering
from unswayed.plum.augment import TRAIN, bank_pairs, extract_pairs
from unswayed.plum.forgetting import forgetting
from unswayed.plum.pairs import Pair
from unswayed.plum.recall import (
    CLOSED,
    NO,
    YES,
    compare,
    loaded_lm,
    recall,
    share_of,
    summarise,
)
from unswayed.plum.recipe import training_pairs
from unswayed.plum.samples import make_sample
from unswayed.plum.settings import PlumSettings
from unswayed.plum.train import epoch_batches, train

log = logging.getLogger(__name__)

RESULT, JOURNAL, MEMORY = "result.json", "journal.jsonl", "memory"
ALL = "all"  # sets of questions together
HELD_OUT = "held_out"  # the set of questions that the built-in conversations have of their own
ABILITY_TASKS = ("mmlu", "arc", "hellaswag")
ABILITY_NUMBERS = ("questions", "seed", "shots")
LATER = ("open", "baselines", "ability")  # can be asked of a finished experiment too
TOP_K = (1, 3, 5)  # of the baselines that retrieve


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What is trained and what is asked; the seed is that of `settings`, and of `augment`.

    Attributes:
        model: Hub id, folder or the embedded model's name.
        conversations: sources: builtin, oasst=FILE, sharegpt=FILE or chat=FILE.
        first: take this many of them, in the order of time; None takes all.
        learn: train and ask about the first so many of these only; the others still lend their
            phrases to negatives. None takes all.
        dtype: as in a recipe.
        augment: arguments of `augment.extract_pairs`; without it, the built-in conversations' own
            questions are taken.
        settings: how to train.
        evaluate_every: conversations between evaluations; after the last there is always one.
        open: at the end, answer open questions too (slow). This, ability and baselines can also be
            asked of a finished experiment.
        ability: where the data of mmlu, arc and hellaswag are, and questions, seed, shots: settings
            of the ability tasks, asked before and after. None asks none.
        baselines: ask the same under no memory, retrieval, a summary and the full context.
        embedder: the model whose vectors the retrieval by embeddings compares.
    """

    model: str
    conversations: list[str] | None = None
    first: int | None = None
    learn: int | None = None
    dtype: str = "auto"
    augment: dict[str, Any] | None = None
    settings: PlumSettings = dataclasses.field(default_factory=PlumSettings)
    evaluate_every: int = 1
    open: bool = False
    ability: dict[str, Any] | None = None
    baselines: bool = False
    embedder: str = EMBEDDED

    def __post_init__(self) -> None:
        given = self.conversations
        if not (isinstance(given, list) and given and all(isinstance(one, str) for one in given)):
            raise InputError(
                f"conversations are {given!r}: give a list of sources in the file, or "
                "--conversations SPEC"
            )
        for name in ("first", "learn"):
            number = getattr(self, name)
            if number is not None and (type(number) is not int or number < 1):
                raise InputError(f"{name} is {number!r}, it must be a whole number from 1")
        if self.evaluate_every < 1:
            raise InputError(f"evaluate_every is {self.evaluate_every}, it must be at least 1")
        ability = self.ability or {}
        known = (*ABILITY_TASKS, *ABILITY_NUMBERS)
        if unknown := ability.keys() - set(known):
            raise InputError(f"unknown key ability.{min(unknown)}; known are {', '.join(known)}")
        if ability and not ability.keys() & set(ABILITY_TASKS):
            raise InputError(
                f"ability names no data: give one of {', '.join(ABILITY_TASKS)} with a source"
            )


def seeded(experiment: Experiment, seed: int) -> Experiment:
    """The experiment with this seed for its questions and its training."""
    augment = experiment.augment
    return dataclasses.replace(
        experiment,
        settings=dataclasses.replace(experiment.settings, seed=seed),
        augment=None if augment is None else augment | {"seed": seed},
    )


# -- questions -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Asked:
    """A held-out question.

    Attributes:
        set: "rephrased" or "new_phrase", as `augment.Question.use`; or "held_out".
        source: what it asks about, as `augment.Question.source`; "" if unknown.
    """

    set: str
    source: str
    pair: Pair


@dataclasses.dataclass(frozen=True)
class Material:
    """What an experiment trains and asks.

    Attributes:
        conversations: all of them, those without questions included.
        pairs: to train on, conversations in the order of time.
        asked: held-out questions, conversations in the same order.
        left_out: conversation's id, reason and number of the questions that could not be made.
    """

    conversations: list[Conversation]
    pairs: list[Pair]
    asked: list[Asked]
    left_out: list[list[Any]]

    @property
    def order(self) -> list[str]:
        """Ids of the conversations that are learnt, in order."""
        return list(dict.fromkeys(pair.conversation for pair in self.pairs))


def make_material(experiment: Experiment) -> Material:
    """The conversations and questions of an experiment.

    Raises:
        InputError: as `load_conversations`, `extract_pairs` and `training_pairs`; or fewer
            conversations than `first`.
    """
    told = load_conversations(experiment.conversations)
    if experiment.first is not None and experiment.first > len(told):
        sources = ", ".join(map(without_folders, experiment.conversations))
        raise InputError(
            f"first is {experiment.first}, but {sources} holds {len(told)} conversations"
        )
    told = told[: experiment.first]
    if experiment.augment is None:
        pairs, held_out = training_pairs(told, None), bank_pairs(builtin_facts())[1]
        ids = {one.id for one in told}
        asked = [Asked(HELD_OUT, "", pair) for pair in held_out if pair.conversation in ids]
        return _learnt(Material(told, pairs, _in_order(asked, pairs), []), experiment.learn)
    made = extract_pairs(told, **{"near": builtin_near()} | experiment.augment)
    asked = [Asked(q.use, q.source, q.pair) for q in made.questions if q.use != TRAIN]
    left_out = [[*key, count] for key, count in made.left_out.items()]
    material = Material(told, made.pairs(), _in_order(asked, made.pairs()), left_out)
    return _learnt(material, experiment.learn)


def _learnt(material: Material, learn: int | None) -> Material:
    """Only what concerns the first conversations."""
    ids = set(material.order[:learn])
    return dataclasses.replace(
        material,
        pairs=[pair for pair in material.pairs if pair.conversation in ids],
        asked=[one for one in material.asked if one.pair.conversation in ids],
    )


def _in_order(asked: list[Asked], pairs: list[Pair]) -> list[Asked]:
    place = {id: i for i, id in enumerate(dict.fromkeys(pair.conversation for pair in pairs))}
    return sorted(asked, key=lambda one: place[one.pair.conversation])  # stable


def make_identity(experiment: Experiment, base: Base, material: Material) -> dict[str, Any]:
    """What makes two experiments the same, as JSON, without paths of this machine."""
    found = dataclasses.asdict(experiment) | {
        "model": base.name,
        "weights": base.weights,
        "conversations": list(map(without_folders, experiment.conversations)),
        "embedder": model_label(experiment.embedder),
        "hashes": {
            name: digest([dataclasses.astuple(one) for one in several])[:16]
            for name, several in {
                "conversations": material.conversations,
                "training": material.pairs,
                "held_out": material.asked,
            }.items()
        },
    }
    for later in LATER:
        del found[later]
    return as_json(found)


# -- running it ----------------------------------------------------------------------------------


def finished(experiment: Experiment, base: Base, folder: Path) -> dict[str, Any] | None:
    """The result of an experiment if it is finished and holds all that was to be asked, else None.

    Raises:
        InputError: the folder holds the result of another experiment.
    """
    complaint = "is no result of an experiment: remove it, and it is run again"
    result = read_json(folder / RESULT, ["identity"], complaint)
    if result is None:
        return None
    identity = make_identity(experiment, base, make_material(experiment))
    check_same(result["identity"], identity, folder)
    if _missing(experiment, result):
        return None
    return result | summary(rows_of(result), result["conversations"])


def run_experiment(
    experiment: Experiment, base: Base, folder: Path, record: dict[str, Any]
) -> dict[str, Any]:
    """Run an experiment, or what is left of it, and write `result.json`.

    Args:
        base: the model, as `load_base(experiment.model, experiment.dtype)` gives it.
        folder: of this experiment alone.
        record: put into the result as it is, such as name, seed and command.

    Returns:
        The record, and identity, conversations (ids, in order), left_out, recall (set ->
        `summarise` and by_source), forgetting (set -> `forgetting.forgetting` and halves), ability
        (`ability_change` or None) and ability_asked (with which settings), baselines (set -> rows
        of `compare`), training (per stage: conversations, samples, tokens, losses, seconds),
        evaluations (after, seconds), machine, versions, and rows, from which `rows_of` makes those
        of `recall` again. Seconds aside, the same whether it was interrupted or not.

    Raises:
        InputError: the folder holds another experiment; or as `make_material`, `train`, `recall`.
    """
    plain = dataclasses.replace(experiment, open=False, baselines=False, ability=None)
    result = finished(plain, base, folder) or _train_and_ask(plain, base, folder, record)
    if _missing(experiment, result):
        _ask_more(result, experiment, base, folder)
    return result


def _train_and_ask(
    experiment: Experiment, base: Base, folder: Path, record: dict[str, Any]
) -> dict[str, Any]:
    """The result without what can be asked later."""
    material = make_material(experiment)
    identity = make_identity(experiment, base, material)
    with Ledger(folder / JOURNAL, identity) as found:
        evaluation = _evaluation(experiment, base, material, found)
        manifest = train(base, material.pairs, experiment.settings, folder / MEMORY, evaluation)
    result = record | {
        "identity": identity,
        "conversations": material.order,
        "left_out": material.left_out,
        "baselines": {},
        "ability": None,
        "ability_asked": None,
        "training": _stages(base, material, experiment.settings, manifest, found),
        "machine": _machine(base),
        "versions": {
            name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")
        },
    }
    checkpoints = [n for n in range(len(material.order) + 1) if f"after {n}" in found]
    result["evaluations"] = [
        {"after": n, "seconds": found.seconds(f"after {n}")} for n in checkpoints
    ]
    result["rows"] = {
        "questions": [
            [one.set, one.source, material.order.index(one.pair.conversation), one.pair.kind]
            for one in material.asked
        ],
        "margins": {str(n): found.value(f"after {n}") for n in checkpoints},
        "open": None,
    }
    result |= summary(rows_of(result), material.order)
    write_json(folder / RESULT, result)
    found.remove()
    return result


def _missing(experiment: Experiment, result: dict[str, Any]) -> list[str]:
    """What of `LATER` an experiment names and its result lacks."""
    lacks = {
        "open": experiment.open and result["rows"]["open"] is None,
        "baselines": experiment.baselines and not result["baselines"],
        "ability": _ability_asked(experiment) not in (None, result["ability_asked"]),
    }
    return [name for name in LATER if lacks[name]]


def _ask_more(result: dict[str, Any], experiment: Experiment, base: Base, folder: Path) -> None:
    """Ask what a result lacks, of the memory on disk, and write it again."""
    material, missing = make_material(experiment), _missing(experiment, result)
    asked = _ability_asked(experiment)

    def ability(lm: Any) -> dict[str, list[float]]:
        tasks = [f"ability_{name}" for name in ABILITY_TASKS if name in experiment.ability]
        return check_ability(lm, tasks, experiment.ability)

    with Ledger(folder / JOURNAL) as found:
        if "baselines" in missing or "ability" in missing:
            lm = loaded_lm(base.model, base.tokenizer)
            if "baselines" in missing:
                result["baselines"] = _baselines(experiment, material, lm, found)
            if "ability" in missing:
                before = found.once(f"ability before {asked}", lambda: ability(lm))
        if "open" in missing or "ability" in missing:
            with remembering(base, folder / MEMORY) as model:
                lm = loaded_lm(model, base.tokenizer)
                if "open" in missing:
                    result["rows"]["open"] = found.once("open", lambda: _opened(lm, material.asked))
                if "ability" in missing:
                    after = found.once(f"ability after {asked}", lambda: ability(lm))
                    changes = {"ability": ability_change(before, after), "ability_asked": asked}
                    result.update(changes)
    result.update(summary(rows_of(result), material.order))
    write_json(folder / RESULT, result)
    found.remove()


def _ability_asked(experiment: Experiment) -> dict[str, Any] | None:
    """The settings of the ability tasks, without paths of this machine."""
    return experiment.ability and {
        key: Path(value).name if key in ABILITY_TASKS and Path(value).exists() else value
        for key, value in experiment.ability.items()
    }


def _evaluation(
    experiment: Experiment, base: Base, material: Material, found: Ledger
) -> Callable[[Any, list[str]], None]:
    """What `train` calls after each conversation; it asks what is to be asked then."""
    lm, clock = None, time.perf_counter()

    def evaluate(model: Any, done: list[str]) -> None:
        nonlocal lm, clock
        after, last = len(done), len(done) == len(material.order)
        seconds = round(time.perf_counter() - clock, 2)
        found.once(f"trained {after}", lambda: seconds)
        lm = lm or loaded_lm(model, base.tokenizer)
        if last or after % experiment.evaluate_every == 0:
            questions, key = _closed(material.asked, done), f"after {after}"
            margins = found.once(key, lambda: _margins(lm, questions))
            right = {kind: _right(questions, margins, kind) for kind in CLOSED}
            message = "%d of %d conversations: yes %s, no %s of %d questions (asked in %.0f s)"
            log.info(
                message, after, len(material.order), *right.values(), len(questions),
                found.seconds(key),
            )  # fmt: skip
        clock = time.perf_counter()

    return evaluate


def _closed(asked: Sequence[Asked], done: Sequence[str]) -> list[Asked]:
    """The closed questions on the conversations learnt so far."""
    learnt = set(done)
    return [one for one in asked if one.pair.kind in CLOSED and one.pair.conversation in learnt]


def _margins(lm: Any, questions: Sequence[Asked]) -> list[float]:
    """log P(Yes) - log P(No) in nats, of each closed question, to five digits."""
    rows = recall(lm, [one.pair for one in questions], PromptMemory())
    return [float(f"{row['margin']:.5g}") for row in rows]


def _opened(lm: Any, asked: Sequence[Asked]) -> list[bool]:
    """Whether each open question is answered correctly."""
    pairs = [one.pair for one in asked if one.pair.kind not in CLOSED]
    return [row["correct"] for row in recall(lm, pairs, PromptMemory())]


def _right(questions: Sequence[Asked], margins: Sequence[float], kind: str) -> str:
    """Share of the questions of a kind answered correctly, in percent."""
    both = zip(questions, margins, strict=True)
    right = [(margin > 0) == (kind == "yes") for one, margin in both if one.pair.kind == kind]
    return f"{100 * sum(right) / len(right):.0f} %" if right else "-"


def baseline_memories(embedder: Any) -> list[ToldMemory | None]:
    """No memory, retrieval by words and by embeddings, an extractive summary, the full context."""
    by_words = [RetrievalMemory(k) for k in TOP_K]
    by_meaning = [RetrievalMemory(k, embedder) for k in TOP_K]
    return [None, *by_words, *by_meaning, SummaryMemory(), FullMemory()]


def _baselines(
    experiment: Experiment, material: Material, lm: Any, found: Ledger
) -> dict[str, list[dict[str, Any]]]:
    """Set of questions -> rows of `compare`; all conversations are told."""
    from unswayed.models.vectors import Embedder

    closed = _closed(material.asked, material.order)
    pairs = {name: [one.pair for one in closed if one.set == name] for name in _sets(closed)}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in pairs}
    for number, memory in enumerate(baseline_memories(Embedder(experiment.embedder))):
        for name in pairs:

            def ask(memory=memory, asked=pairs[name]) -> dict[str, Any]:
                return compare(lm, [memory], material.conversations, asked)[0]

            rows[name].append(found.once(f"baseline {number} {name}", ask))
    return rows


def _sets(asked: Sequence[Asked]) -> list[str]:
    return list(dict.fromkeys(one.set for one in asked))


def _stages(
    base: Base,
    material: Material,
    settings: PlumSettings,
    manifest: dict[str, Any],
    found: Ledger,
) -> list[dict[str, Any]]:
    """What was trained at a time, with the tokens that went through the model in all epochs."""
    samples: dict[str, list] = {}
    for pair in material.pairs:
        sample = make_sample(base.tokenizer, pair, settings.qa_weight, settings.max_length)
        samples.setdefault(pair.conversation, []).append(sample)
    losses = {entry["id"]: entry["losses"] for entry in manifest["conversations"]}
    stages, done = [], []
    for ids in [material.order] if settings.joint else [[id] for id in material.order]:
        own = [sample for id in ids for sample in samples[id]]
        earlier = [sample for id in done for sample in samples[id]]
        batches = (
            batch
            for epoch in range(settings.epochs)
            for batch in epoch_batches(own, earlier, settings, epoch)
        )
        done += ids
        stages.append(
            {
                "conversations": ids,
                "samples": len(own),
                "tokens": sum(len(sample.ids) for batch in batches for sample in batch),
                "losses": losses[ids[0]],
                "seconds": found.value(f"trained {len(done)}"),
            }
        )
    return stages


def _machine(base: Base) -> str:
    import torch

    return f"{torch.get_num_threads()} threads, {platform.machine()}, {base.model.device.type}"


# -- figures -------------------------------------------------------------------------------------


def rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows as of `recall`, without texts, with set, source and after; open ones at the end."""
    rows, order = result["rows"], result["conversations"]

    def row(question: list, after: int, correct: bool, margin: float | None) -> dict[str, Any]:
        name, source, place, kind = question
        return {
            "set": name,
            "source": source,
            "conversation": order[place],
            "kind": kind,
            "text": None if margin is None else YES if margin > 0 else NO,
            "correct": correct,
            "margin": margin,
            "after": after,
        }

    found = []
    for after, margins in ((int(n), margins) for n, margins in rows["margins"].items()):
        asked = [q for q in rows["questions"] if q[3] in CLOSED and q[2] < after]
        for q, margin in zip(asked, margins, strict=True):
            found.append(row(q, after, (margin > 0) == (q[3] == "yes"), margin))
    if rows["open"] is not None:
        asked = [q for q in rows["questions"] if q[3] not in CLOSED]
        for q, correct in zip(asked, rows["open"], strict=True):
            found.append(row(q, len(order), correct, None))
    return found


def summary(rows: Sequence[dict[str, Any]], order: Sequence[str]) -> dict[str, Any]:
    """recall and forgetting of each set of questions and of all together, see `run_experiment`."""
    found: dict[str, Any] = {"recall": {}, "forgetting": {}}
    sets = list(dict.fromkeys(row["set"] for row in rows))
    for name in [*sets, ALL] if len(sets) > 1 else sets:
        own = [row for row in rows if name in (row["set"], ALL)]
        end = [row for row in own if row["after"] == len(order)]
        closed = [row for row in end if row["kind"] in CLOSED]
        sources = dict.fromkeys(row["source"] for row in closed)
        found["recall"][name] = summarise(end) | {
            "by_source": {
                s: share_of([row for row in closed if row["source"] == s]) for s in sources
            }
        }
        if closed:
            curve = forgetting(own, order)
            found["forgetting"][name] = curve | {"halves": halves(own, order)}
    return found


def halves(rows: Sequence[dict[str, Any]], order: Sequence[str]) -> dict[str, Any]:
    """Recall on closed questions on the first half of the conversations, when only these had been
    learnt and at the end, and on the second half at the end; None where nothing was asked.
    """
    half = len(order) // 2

    def at(after: int, ids: Sequence[str]) -> dict[str, Any] | None:
        wanted = set(ids)
        return share_of(
            [
                row
                for row in rows
                if row["after"] == after and row["conversation"] in wanted and row["kind"] in CLOSED
            ]
        )

    return {
        "first_when_learnt": at(half, order[:half]),
        "first_at_end": at(len(order), order[:half]),
        "second_at_end": at(len(order), order[half:]),
    }
