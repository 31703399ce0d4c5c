"""Progress of long work: a bar on a terminal, a quiet line now and then in a log."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)


class Progress:
    """Counts units done: rate and time left, as a bar on a terminal, else as log lines.

    Args:
        total: units in the whole job.
        what: noun of the unit, plural.
        done: units that an earlier, interrupted run already did; they do not count for the rate.
        every: seconds between log lines.
        quiet: neither bar nor lines.
    """

    def __init__(
        self, total: int, what: str, done: int = 0, every: float = 30.0, quiet: bool = False
    ) -> None:
        hidden = quiet or not sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, unit=f" {what}", disable=hidden, leave=False)
        self._total, self._what, self._initial, self._done = total, what, done, done
        self._every, self._start = (math.inf if quiet else every), time.monotonic()
        self._logged = self._start

    def add(self, units: int) -> None:
        """Say that `units` more are done."""
        self._done += units
        self._bar.update(units)
        now = time.monotonic()
        news = self._initial < self._done < self._total
        if self._bar.disable and now - self._logged >= self._every and news:
            self._logged = now
            rate = (self._done - self._initial) / (now - self._start)
            left = (self._total - self._done) / rate
            message = "%d of %d %s, %.1f/s, %.0f s left"
            log.info(message, self._done, self._total, self._what, rate, left)

    def close(self) -> None:
        self._bar.close()


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
