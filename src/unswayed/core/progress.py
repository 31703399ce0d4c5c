"""Progress of long work: a bar on a terminal, a quiet line now and then in a log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)

EVERY = 30.0  # seconds between log lines

# Of the step that is under way: moves it on to a share of itself.
_STEP: ContextVar[Callable[[float], None] | None] = ContextVar("step", default=None)


class Progress:
    """Counts units done: rate and time left, as a bar on a terminal, else as log lines.

    Bar and lines come by the clock, also while nothing is finished. One that is made within a
    `step` of another has neither: it moves that step on.

    Args:
        total: units in the whole job.
        what: noun of the unit, plural.
        done: units that an earlier, interrupted run already did; they do not count for the rate.
        quiet: neither bar nor lines.

    Attributes:
        done: units so far, those of an earlier run included.
    """

    def __init__(self, total: int, what: str, done: int = 0, quiet: bool = False) -> None:
        self._total, self._what, self._initial, self.done = total, what, done, float(done)
        self._start, self._lock, self._outer = time.monotonic(), threading.Lock(), _STEP.get()
        self._others = 0.0
        quiet = quiet or self._outer is not None
        self._bar = _bar(quiet, total=total, initial=done, unit=f" {what}", smoothing=0)
        self._clock = None if quiet else _Clock(self._bar, self._say)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def add(self, units: float) -> None:
        """Say that `units` more are done."""
        with self._lock:
            self._move(self.done + units)

    def others(self, units: float) -> None:
        """Say that other processes have done `units` so far."""
        with self._lock:
            self._others = units
            self._move(self.done)

    @contextmanager
    def step(self, units: float) -> Iterator[None]:
        """Inside, whatever counts its own progress is a share of these units; then all are done."""
        start = self.done

        def reach(share: float) -> None:
            with self._lock:  # not back, where something begins again or two count the same
                self._move(max(self.done, start + units * min(share, 1.0)))

        token = _STEP.set(reach)
        try:
            yield
        finally:
            _STEP.reset(token)
        reach(1.0)

    def close(self) -> None:
        if self._clock is not None:
            self._clock.stop()
        self._bar.close()

    def _move(self, done: float) -> None:
        self.done = done
        self._bar.update(int(done + self._others) - self._bar.n)
        if self._outer is not None and self._total:
            self._outer(self.done / self._total)

    def _say(self) -> None:
        seconds = time.monotonic() - self._start
        if (done := int(self.done + self._others)) < self._total:
            log.info("%s", line(done, self._total, self._what, self._initial, seconds))


def line(done: int, total: int, what: str, initial: int, seconds: float) -> str:
    """How far work is after `seconds`; `initial` units were done before."""
    so_far = f"{done:,} of {total:,} {what}"
    if done <= initial:
        return f"{so_far} after {seconds:.0f} s"
    rate = (done - initial) / seconds
    return f"{so_far}, {rate:.1f}/s, {(total - done) / rate:.0f} s left"


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Around work that cannot tell how far it is, such as loading: how long it takes so far."""
    start = time.monotonic()
    bar = _bar(False, desc=what, bar_format="{desc} {elapsed}")
    clock = _Clock(bar, lambda: log.info("%s, %.0f s", what, time.monotonic() - start))
    try:
        yield
    finally:
        clock.stop()
        bar.close()


def _bar(quiet: bool, **settings: Any) -> tqdm:
    """On a terminal only, and gone when it is closed."""
    return tqdm(**settings, disable=quiet or not sys.stderr.isatty(), leave=False)


class _Clock:
    """Draws a bar every second, or where it is hidden says something now and then."""

    def __init__(self, bar: tqdm, say: Callable[[], None]) -> None:
        self._stopped, beat = threading.Event(), (say if bar.disable else bar.refresh)
        pause = EVERY if bar.disable else 1.0

        def run() -> None:
            while not self._stopped.wait(pause):
                beat()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


@contextmanager
def no_bars_in_logs() -> Iterator[None]:
    """Within, bars that other packages draw are hidden unless standard error is a terminal."""
    stock = tqdm.__init__

    def init(self: Any, *args: Any, disable: bool | None = False, **kwargs: Any) -> None:
        stock(self, *args, disable=disable or None, **kwargs)  # None: on a terminal only

    tqdm.__init__ = init
    try:
        yield
    finally:
        tqdm.__init__ = stock
