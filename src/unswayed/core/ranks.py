"""Several processes of one command, as `accelerate launch` or torchrun start them: its ranks.

They exchange the little that they must through the launcher's key-value store
(`torch.distributed.TCPStore`) and never wait in a collective: whoever waits sees that another rank
has failed, or that its sign of life stays away, and ends as well. One line says why.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from unswayed.core.errors import InputError, one_line

if TYPE_CHECKING:
    from unswayed.core.progress import Progress

T = TypeVar("T")

# What makes libraries believe that a launcher started them.
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
GIVEN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
JOIN = 300.0  # seconds within which all ranks must be there
BEAT = 2.0  # seconds between signs of life
SILENCE = 60.0  # seconds without one after which a rank is gone
LAST_WORDS = 10.0  # seconds that a rank has to say why it failed
WRONG_INPUT = 2


def launched() -> int:
    """Processes that the launcher started, over all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class _FailedElsewhere(Exception):
    """Another rank has failed, and says why."""


class Ranks:
    """The processes of a command; by default this one alone.

    All of them call the methods in the same order.

    Attributes:
        rank: number of this process, from 0.
        size: of how many.
        local: its number on this machine.
    """

    def __init__(self, store: Any = None, rank: int = 0, size: int = 1, local: int = 0) -> None:
        self.rank, self.size, self.local = rank, size, local
        self._store, self._calls = store, 0
        # Silence is counted in own signs of life: all may have been stopped for a while.
        self._pulse, self._looked = 0, -1
        self._beats: dict[int, tuple[bytes | None, float]] = {}
        self._progress: Progress | None = None

    def first(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, on every rank; JSON."""
        key = self._next()
        if self.rank == 0:
            value = make()
            if self.size > 1:
                self._store.set(key, json.dumps(value))
            return value
        return json.loads(self._wait_for(key))

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, on rank 0; elsewhere none. JSON."""
        key = self._next()
        if self.rank == 0:
            others = (json.loads(self._wait_for(f"{key}/{i}")) for i in range(1, self.size))
            return [value, *others]
        self._store.set(f"{key}/{self.rank}", json.dumps(value))
        return []

    def meet(self) -> None:
        """Go on when all ranks are here."""
        self.gather(None)
        self.first(lambda: None)

    def check_alike(self, values: Mapping[str, Any]) -> None:
        """All ranks see the same.

        Raises:
            InputError: a value differs from that of rank 0; says which.
        """
        first, *others = self.gather(json.loads(json.dumps(values))) or [{}]

        def compare() -> None:
            for other, theirs in enumerate(others, 1):
                if differing := [name for name in first if theirs[name] != first[name]]:
                    name = differing[0]
                    raise InputError(
                        f"ranks 0 and {other} see different files or settings: {name} "
                        f"{_short(first[name])} and {_short(theirs[name])}. Give every rank the "
                        "same command and the same files, on a shared file system or as equal "
                        "copies"
                    )

        self.first(compare)

    def shares(self, work: Sequence[T], in_step: bool = False) -> Iterator[T]:
        """This rank's share of the work: what is at its own place first, then whatever is the next
        that nobody has begun.

        Args:
            in_step: every rank does everything, in order.
        """
        key, together = self._next(), in_step or self.size == 1
        place = 0 if together else self.rank
        while place < len(work):
            self._look()
            yield work[place]
            place = place + 1 if together else self.size + self._store.add(key, 1) - 1

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Inside, this is a process of its own to all libraries."""
        before = {name: os.environ.pop(name) for name in LAUNCHED if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(before)

    @contextlib.contextmanager
    def counting(self, progress: Progress) -> Iterator[None]:
        """Inside, the progress of rank 0 counts what all ranks do."""
        self._progress, self._counted = progress, progress.done
        try:
            yield
        finally:
            self._progress = None

    # -- waiting and failing -------------------------------------------------------------------

    def _next(self) -> str:
        """The key of a call: the same on all ranks."""
        self._calls += 1
        return f"call/{self._calls}"

    def _wait_for(self, key: str) -> bytes:
        pause = 0.01
        while not self._store.check([key]):
            self._look()
            time.sleep(pause)
            pause = min(2 * pause, 0.5)
        return self._store.get(key)

    def _look(self) -> None:
        """Are the others alive? Rank 0 watches all, these watch rank 0."""
        if self.size == 1:
            return
        if self._store.check(["failed"]):
            raise _FailedElsewhere
        if (now := self._pulse) == self._looked:
            return
        self._looked = now
        for other in [0] if self.rank else range(1, self.size):
            key = f"alive/{other}"
            beat = self._store.get(key) if self._store.check([key]) else None
            before, since = self._beats.get(other, (b"", now))
            self._beats[other] = (beat, since := since if beat == before else now)
            silence = (now - since) * BEAT
            if silence > (JOIN if beat is None else SILENCE):
                raise InputError(
                    f"rank {other} is gone: no sign of life for {silence:.0f} s. It was killed, as "
                    "for want of memory, or its machine cannot be reached; what is finished is kept"
                )

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        """Inside, a thread tells the others that this rank is alive, and how much it has done."""
        stopped, key = threading.Event(), f"alive/{self.rank}"

        def run() -> None:
            with contextlib.suppress(RuntimeError):  # the store is gone; who waits for it says so
                while not stopped.wait(BEAT):
                    self._pulse += 1
                    self._store.set(key, str(self._pulse))
                    if (progress := self._progress) is not None:
                        self._count(progress)

        self._store.set(key, "0")
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def _count(self, progress: Progress) -> None:
        if self.rank:
            self._store.set(f"done/{self.rank}", str(progress.done - self._counted))
            return
        keys = [f"done/{other}" for other in range(1, self.size)]
        progress.others(sum(float(self._store.get(k)) for k in keys if self._store.check([k])))

    def _speaks(self) -> bool:
        """Whether this is the first rank to fail, which says why. The others wait until it has."""
        from torch.distributed import DistError

        me = str(self.rank).encode()
        try:
            if self._store.compare_set("failed", "", me.decode()) == me:
                atexit.register(self._said)
                return True
            end = time.monotonic() + LAST_WORDS
            while not self._store.check(["said"]) and time.monotonic() < end:
                time.sleep(0.05)
            return False
        except DistError:  # nobody is there to be asked
            return self.local == 0

    def _said(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._store.set("said", "")


ALONE = Ranks()


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks of this command. Inside, all but the first are silent; if one fails, the others end
    too, and one of them says why.

    Raises:
        InputError: not all came, or one is gone; a rank ran out of memory or was stopped.
        SystemExit: another rank has said why it failed.
    """
    if launched() == 1:
        yield ALONE
        return
    ranks = _join()
    try:
        with ranks._beating(), _stoppable(), _silent(ranks.rank > 0):
            ranks.meet()
            yield ranks
    except SystemExit:
        raise
    except BaseException as error:
        if not ranks._speaks():
            raise SystemExit(WRONG_INPUT) from None
        raise _in_words(error, ranks.rank) from error


def _join() -> Ranks:
    from torch.distributed import DistError, PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if missing := [name for name in GIVEN if name not in os.environ]:
        raise InputError(
            f"WORLD_SIZE={launched()} is set, as by a launcher of several processes, but not "
            f"{missing[0]}: start with accelerate launch or torchrun, or unset WORLD_SIZE"
        )
    try:
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=JOIN)))
    except (DistError, ValueError) as error:
        raise InputError(
            f"{launched()} processes were started and do not find each other: {one_line(error)}"
        ) from None
    return Ranks(PrefixStore("unswayed", store), rank, size, int(os.environ["LOCAL_RANK"]))


def _in_words(error: BaseException, rank: int) -> BaseException:
    """The error, or that a rank ran out of memory or lost the others, in one line."""
    from accelerate.utils.memory import should_reduce_batch_size
    from torch.distributed import DistError

    if isinstance(error, DistError):
        return InputError(
            f"rank {rank} has lost the others, whose first machine or process is gone: "
            f"{one_line(error, 120)}. What is finished is kept"
        )
    if isinstance(error, MemoryError) or (
        isinstance(error, Exception) and should_reduce_batch_size(error)
    ):
        return InputError(
            f"rank {rank} ran out of memory ({one_line(error, 120)}): start fewer processes on a "
            "machine, or take a smaller dtype. What is finished is kept"
        )
    return error


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Inside, the launcher's SIGTERM is an error in words."""

    def stop(*_: Any) -> None:
        raise InputError(
            "stopped by the launcher: another rank was killed, as for want of memory, or the "
            "launcher itself was stopped; what is finished is kept"
        )

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _silent(silent: bool) -> Iterator[None]:
    """Inside, nothing is printed or logged."""
    if not silent:
        yield
        return
    logging.disable(logging.CRITICAL)
    try:
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            yield
    finally:
        logging.disable(logging.NOTSET)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:16]}..."
