"""Memories of several users, trained in parallel over the processes of `accelerate launch`.

Without sharding (cpu and ddp configs) every process holds the whole model and trains its own users,
each exactly as it would be trained alone; nothing is exchanged. With FSDP or ZeRO-3 all processes
hold one model together and train one user after another. A user who cannot be trained keeps nobody
else from it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from unswayed.core.errors import InputError
from unswayed.models.base import is_sharded, load_launched
from unswayed.plum.qa import QAPair
from unswayed.plum.settings import PlumSettings
from unswayed.plum.train import train

log = logging.getLogger(__name__)


def train_users(
    model: str,
    users: Mapping[str, Sequence[QAPair]],
    settings: PlumSettings,
    folder: Path,
    dtype: str = "auto",
) -> list[str]:
    """Train each user's memory into `folder/USER`; those already trained cost nothing.

    Args:
        model: name of the base model.
        users: name -> pairs, conversations in the order of time. The same in every process.

    Returns:
        The users that this process trained.

    Raises:
        InputError: a user's name is no file name; or, once all others are trained, as `train` of
            a user.
    """
    for user in users:
        if user in ("", ".", "..") or Path(user).name != user:
            raise InputError(f"user {user!r}: the name becomes a folder's, so it must be one")
    accelerator, base = load_launched(model, dtype)
    sharded = is_sharded(accelerator)
    names = list(users)
    mine = names if sharded else names[accelerator.process_index :: accelerator.num_processes]
    failed: dict[str, str] = {}
    for user in mine:
        sharing = accelerator if sharded else None
        try:
            train(base, users[user], settings, folder / user, accelerator=sharing)
        except InputError as error:
            log.warning("user %s: %s", user, error)
            failed[user] = str(error)
    accelerator.wait_for_everyone()  # a launcher ends all processes with the first that fails
    if failed:
        user, why = next(iter(failed.items()))
        count = f"{len(failed)} of {len(mine)} users were not trained, the first of them, "
        raise InputError(f"{count if len(failed) > 1 else ''}user {user!r}: {why}")
    return mine
