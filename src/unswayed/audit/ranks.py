"""An audit over several ranks (`unswayed.core.ranks`): each asks about users of its own.

A user's part of the run is a file that any rank may write and rank 0 reads, so the answers are the
same as of one process, and another number of ranks can go on with them.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unswayed.audit.arguments import AuditArguments
from unswayed.audit.rundir import Run, identity_of, open_run, read_part, versions
from unswayed.core.errors import InputError
from unswayed.core.ranks import Ranks
from unswayed.data.items import Item
from unswayed.data.personas import Persona
from unswayed.models.dtypes import scoring_dtype
from unswayed.models.load import ModelInfo, default_device
from unswayed.scoring.backends import HF_SHARED

PATIENCE = 10.0  # seconds until a file of another machine is seen
SHARDED = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")
SPREAD = ("parallelize", "device_map")


def in_step(arguments: AuditArguments) -> bool:
    """Whether the ranks hold one model together (tensor parallelism), and ask the same."""
    return bool(arguments.model_args.get("tp_plan"))


def check_launch(ranks: Ranks, arguments: AuditArguments) -> None:
    """Refuse what several ranks cannot do.

    Raises:
        InputError: the backend, the model's arguments or the launcher's do not go with ranks.
    """
    if ranks.size == 1:
        return
    if arguments.backend not in (HF_SHARED, "hf"):
        raise InputError(
            f"--backend {arguments.backend} is asked by one process, and {ranks.size} were started:"
            " leave accelerate launch out. A server takes --model-args num_concurrent=N, vllm "
            "tensor_parallel_size=N or data_parallel_size=N"
        )
    if spread := [name for name in SPREAD if arguments.model_args.get(name)]:
        raise InputError(
            f"--model-args {spread[0]}=... spreads one model over all devices, which {ranks.size} "
            "ranks would want at once: leave accelerate launch out, or the argument"
        )
    if sharded := [name for name in SHARDED if os.environ.get(name) == "true"]:
        raise InputError(
            f"accelerate launch was told to shard the model ({sharded[0]}), which is for training: "
            "use configs/accelerate/ddp.yaml, or for a model that fits no device one process with "
            "--model-args parallelize=True"
        )
    if arguments.device not in (None, "cpu", "cuda"):
        raise InputError(
            f"--device {arguments.device} is one device for {ranks.size} ranks: leave it out, each "
            "takes its own"
        )
    if in_step(arguments) and arguments.memory in ("plum", "logo"):
        raise InputError(
            f"--memory {arguments.memory} trains adapters, which a model split by tp_plan cannot "
            "take: leave tp_plan out"
        )


def begin(
    ranks: Ranks, arguments: AuditArguments, items: list[Item], personas: list[Persona]
) -> Run:
    """The run's record, as rank 0 opens it.

    Raises:
        InputError: as `open_run`; the ranks were given different things or see different folders.
    """
    out = Path(arguments.out)
    if ranks.size > 1:
        ranks.check_alike(identity_of(arguments, items, personas) | versions())

    def opened() -> Run:
        run = open_run(out, arguments, items, personas)
        out.mkdir(parents=True, exist_ok=True)
        return run

    run = ranks.first(opened)
    if ranks.size > 1:
        _check_folder(ranks, out)
    return run


def _check_folder(ranks: Ranks, out: Path) -> None:
    """All ranks see the folder of rank 0."""
    token = out / ranks.first(lambda: f".{secrets.token_hex(8)}")
    try:
        ranks.first(lambda: token.touch())
        end = time.monotonic() + PATIENCE
        while not (seen := token.exists()) and time.monotonic() < end:
            time.sleep(0.1)
        everywhere = ranks.gather(seen)
    finally:
        if ranks.rank == 0:
            token.unlink(missing_ok=True)

    def judge() -> None:
        if not all(everywhere):
            raise InputError(
                f"ranks 0 and {everywhere.index(False)} see different files: what rank 0 writes to "
                f"--out {out} does not appear there. Put it on a file system that all machines "
                "share"
            )

    ranks.first(judge)


def own_arguments(ranks: Ranks, arguments: AuditArguments) -> AuditArguments:
    """With this rank's device, and the dtype that rank 0 chooses.

    Raises:
        InputError: there are fewer GPUs than ranks on this machine.
    """
    if ranks.size == 1 or in_step(arguments):
        return arguments
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    device = arguments.device or ("cpu" if on_cpu else default_device())
    if device == "cuda":
        device = _gpu(ranks.local)
    dtype = ranks.first(lambda: scoring_dtype(arguments.dtype, device))
    return dataclasses.replace(arguments, device=device, dtype=dtype)


def _gpu(local: int) -> str:
    import torch

    if local >= (n := torch.cuda.device_count()):
        raise InputError(
            f"rank {local} of this machine has no GPU of its own, there are {n}: start {n} "
            "processes on it (--num_processes counts those of all machines)"
        )
    return f"cuda:{local}"


def check_model(ranks: Ranks, info: ModelInfo) -> None:
    """All ranks have loaded the same.

    Raises:
        InputError: weights, dtype or the kind of device differ.
    """
    own = ("difference",)  # rounding
    ranks.check_alike({f"model {key}": value for key, value in info.items() if key not in own})


def scored_parts(ranks: Ranks, parts: Iterable[Path], n_rows: int) -> dict[Path, list[dict]]:
    """Finished parts with their rows; the latter are read by rank 0 alone."""
    rows = {part: read_part(part, n_rows) for part in parts} if ranks.rank == 0 else {}
    names = ranks.first(lambda: [part.name for part in rows if rows[part] is not None])
    return {part: rows.get(part, []) for part in parts if part.name in names}


def all_rows(
    ranks: Ranks, parts: Mapping[Path, Any], scored: Mapping[Path, list[dict]], n_rows: int
) -> list[dict]:
    """The rows of all parts, in order; on rank 0, elsewhere none.

    Raises:
        InputError: a part of another rank is missing.
    """
    if ranks.rank:
        return []
    rows = []
    for part in parts:
        of_part = scored.get(part) or read_part(part, n_rows)
        if of_part is None:
            raise InputError(f"{part} was written by another rank and cannot be read by rank 0")
        rows += of_part
    return rows
