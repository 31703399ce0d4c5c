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

from unswayed.core.files import read_json, write_json
from unswayed.core.ledger import Ledger, check_same
from unswayed.memory.baselines import FullMemory, SummaryMemory
from unswayed.memory.conversation_memory import ConversationMemory
from unswayed.memory.prompt import PromptMemory
from unswayed.memory.retrieval import RetrievalMemory
from unswayed.models.adapters import remembering
from unswayed.models.base import Base
from unswayed.models.load import loaded_lm
from unswayed.plum.ability import ability_change, check_ability
from unswayed.plum.figures import ExperimentResult, TrainingStage, rows_of, summary
from unswayed.plum.material import (
    ABILITY_TASKS,
    LATER,
    Material,
    PlumExperiment,
    make_identity,
    make_material,
    with_written,
)
from unswayed.plum.qa import CLOSED, LabelledPair
from unswayed.plum.recall import compare, recall
from unswayed.plum.train import epoch_batches, samples_of, train

log = logging.getLogger(__name__)

RESULT, JOURNAL, MEMORY = "result.json", "journal.jsonl", "memory"
TOP_K = (1, 3, 5)  # of the baselines that retrieve


def finished(experiment: PlumExperiment, base: Base, folder: Path) -> ExperimentResult | None:
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
    experiment: PlumExperiment, base: Base, folder: Path, record: dict[str, Any]
) -> ExperimentResult:
    """Run an experiment, or what is left of it, and write `result.json`.

    Args:
        base: the model, as `load_base(experiment.model, experiment.dtype)` gives it.
        folder: of this experiment alone.
        record: put into the result as it is: name, seed and command.

    Raises:
        InputError: the folder holds another experiment; or as `make_material`, `train`, `recall`.
    """
    plain = dataclasses.replace(experiment, open=False, baselines=False, ability=None)
    result = finished(plain, base, folder) or _train_and_ask(plain, base, folder, record)
    if _missing(experiment, result):
        _ask_more(result, experiment, base, folder)
    return result


def _train_and_ask(
    experiment: PlumExperiment, base: Base, folder: Path, record: dict[str, Any]
) -> ExperimentResult:
    """The result without what can be asked later."""
    import torch

    material = make_material(experiment)
    identity = make_identity(experiment, base, material)
    with Ledger(folder / JOURNAL, identity) as ledger:
        material = with_written(experiment, material)
        evaluation = _evaluation(experiment, base, material, ledger)
        manifest = train(base, material.pairs, experiment.settings, folder / MEMORY, evaluation)
    order, threads = material.order, torch.get_num_threads()
    checkpoints = [n for n in range(len(order) + 1) if f"after {n}" in ledger]
    result = record | {
        "identity": identity,
        "conversations": order,
        "left_out": material.left_out,
        "baselines": {},
        "ability": None,
        "ability_asked": None,
        "training": _stages(experiment, base, material, manifest, ledger),
        "machine": f"{threads} threads, {platform.machine()}, {base.model.device.type}",
        "versions": {
            name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")
        },
        "evaluations": [{"after": n, "seconds": ledger.seconds(f"after {n}")} for n in checkpoints],
        "rows": {
            "questions": [
                [test.use, test.source, order.index(test.pair.conversation), test.pair.kind]
                for test in material.tests
            ],
            "margins": {str(n): ledger.value(f"after {n}") for n in checkpoints},
            "open": None,
        },
    }
    result |= summary(rows_of(result), order)
    write_json(folder / RESULT, result)
    ledger.remove()
    return result


def _missing(experiment: PlumExperiment, result: ExperimentResult) -> list[str]:
    """What of `LATER` an experiment names and its result lacks."""
    lacks = {
        "open": experiment.open and result["rows"]["open"] is None,
        "baselines": experiment.baselines and not result["baselines"],
        "ability": _ability_settings(experiment) not in (None, result["ability_asked"]),
    }
    return [name for name in LATER if lacks[name]]


def _ask_more(
    result: ExperimentResult, experiment: PlumExperiment, base: Base, folder: Path
) -> None:
    """Ask what a result lacks, of the memory on disk, and write it again."""
    material, missing = make_material(experiment), _missing(experiment, result)
    order, settings = result["conversations"], _ability_settings(experiment)
    tests = [test for test in material.tests if test.pair.conversation in order]

    def ability(lm: Any) -> dict[str, list[float]]:
        tasks = [f"ability_{name}" for name in ABILITY_TASKS if name in experiment.ability]
        return check_ability(lm, tasks, experiment.ability)

    with Ledger(folder / JOURNAL) as ledger:
        if "baselines" in missing or "ability" in missing:
            lm = loaded_lm(base.model, base.tokenizer)
            if "baselines" in missing:
                result["baselines"] = _baselines(experiment, material, tests, lm, ledger)
            if "ability" in missing:
                before = ledger.once(f"ability before {settings}", lambda: ability(lm))
        if "open" in missing or "ability" in missing:
            with remembering(base, folder / MEMORY) as model:
                lm = loaded_lm(model, base.tokenizer)
                if "open" in missing:
                    result["rows"]["open"] = ledger.once("open", lambda: _open_answers(lm, tests))
                if "ability" in missing:
                    after = ledger.once(f"ability after {settings}", lambda: ability(lm))
                    result["ability"] = ability_change(before, after)
                    result["ability_asked"] = settings
    result.update(summary(rows_of(result), order))
    write_json(folder / RESULT, result)
    ledger.remove()


def _ability_settings(experiment: PlumExperiment) -> dict[str, Any] | None:
    """The settings of the ability tasks, without paths of this machine."""
    return experiment.ability and {
        key: Path(value).name if key in ABILITY_TASKS and Path(value).exists() else value
        for key, value in experiment.ability.items()
    }


def _evaluation(
    experiment: PlumExperiment, base: Base, material: Material, ledger: Ledger
) -> Callable[[Any, list[str]], None]:
    """What `train` calls after each conversation; it asks what is to be asked then."""
    lm, clock, total = None, time.perf_counter(), len(material.order)

    def evaluate(model: Any, done: list[str]) -> None:
        nonlocal lm, clock
        after = len(done)
        seconds = round(time.perf_counter() - clock, 2)
        ledger.once(f"trained {after}", lambda: seconds)
        lm = lm or loaded_lm(model, base.tokenizer)
        if after == total or after % experiment.evaluate_every == 0:
            tests, key = _closed(material.tests, done), f"after {after}"
            margins = ledger.once(key, lambda: _margins(lm, tests))
            right = [_right(tests, margins, kind) for kind in CLOSED]
            message = "%d of %d conversations: yes %s, no %s of %d questions (asked in %.0f s)"
            log.info(message, after, total, *right, len(tests), ledger.seconds(key))
        clock = time.perf_counter()

    return evaluate


def _closed(tests: Sequence[LabelledPair], done: Sequence[str]) -> list[LabelledPair]:
    """The closed questions on the conversations learnt so far."""
    learnt = set(done)
    return [t for t in tests if t.pair.kind in CLOSED and t.pair.conversation in learnt]


def _margins(lm: Any, tests: Sequence[LabelledPair]) -> list[float]:
    """log P(Yes) - log P(No) in nats, of each closed question, to five digits."""
    rows = recall(lm, [test.pair for test in tests], PromptMemory())
    return [float(f"{row['margin']:.5g}") for row in rows]


def _open_answers(lm: Any, tests: Sequence[LabelledPair]) -> list[bool]:
    """Whether each open question is answered correctly."""
    pairs = [test.pair for test in tests if test.pair.kind not in CLOSED]
    return [row["correct"] for row in recall(lm, pairs, PromptMemory())]


def _right(tests: Sequence[LabelledPair], margins: Sequence[float], kind: str) -> str:
    """Share of the questions of a kind answered correctly, in percent."""
    both = zip(tests, margins, strict=True)
    right = [(margin > 0) == (kind == "yes") for test, margin in both if test.pair.kind == kind]
    return f"{100 * sum(right) / len(right):.0f} %" if right else "-"


def baseline_memories(embedder: Any) -> list[ConversationMemory | None]:
    """No memory, retrieval by words and by embeddings, an extractive summary, the full context."""
    by_words = [RetrievalMemory(k) for k in TOP_K]
    by_meaning = [RetrievalMemory(k, embedder) for k in TOP_K]
    return [None, *by_words, *by_meaning, SummaryMemory(), FullMemory()]


def _baselines(
    experiment: PlumExperiment,
    material: Material,
    tests: Sequence[LabelledPair],
    lm: Any,
    ledger: Ledger,
) -> dict[str, list[dict[str, Any]]]:
    """Set of questions -> rows of `compare`; all conversations are told."""
    from unswayed.models.vectors import Embedder

    pairs: dict[str, list] = {}
    for test in _closed(tests, [test.pair.conversation for test in tests]):
        pairs.setdefault(test.use, []).append(test.pair)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in pairs}
    for number, memory in enumerate(baseline_memories(Embedder(experiment.embedder))):
        for name in pairs:

            def ask(memory=memory, closed=pairs[name]) -> dict[str, Any]:
                return compare(lm, [memory], material.conversations, closed)[0]

            rows[name].append(ledger.once(f"baseline {number} {name}", ask))
    return rows


def _stages(
    experiment: PlumExperiment,
    base: Base,
    material: Material,
    manifest: dict[str, Any],
    ledger: Ledger,
) -> list[TrainingStage]:
    """What was trained at a time."""
    settings = experiment.settings
    samples = samples_of(base, material.pairs, settings)
    losses = {entry["id"]: entry["losses"] for entry in manifest["conversations"]}
    stages, done = [], []
    for ids in [material.order] if settings.joint else [[id] for id in material.order]:
        new = [sample for id in ids for sample in samples[id]]
        earlier = [sample for id in done for sample in samples[id]]
        batches = (
            batch
            for epoch in range(settings.epochs)
            for batch in epoch_batches(new, earlier, settings, epoch)
        )
        done += ids
        stages.append(
            {
                "conversations": ids,
                "samples": len(new),
                "tokens": sum(len(sample.ids) for batch in batches for sample in batch),
                "losses": losses[ids[0]],
                "seconds": ledger.value(f"trained {len(done)}"),
            }
        )
    return stages
