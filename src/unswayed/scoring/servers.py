"""Servers over HTTP: when another try may help, how long to wait, what to say of a failure."""

from __future__ import annotations

import datetime
import email.utils
import json
import math
import os
import random
from typing import Any
from urllib.parse import urlsplit

from tenacity import (
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

TEMPORARY = {408, 409, 425, 429}  # HTTP statuses worth another try, next to all from 500
LONGEST_PAUSE = 60.0  # seconds before another try, whatever the server asks for
BACKOFF = wait_exponential_jitter(initial=1.0, max=LONGEST_PAUSE, jitter=1.0)  # seconds
KEPT = "Finished answers are kept: mend it and run the same command again (an audit with --resume)"


class Trouble(Exception):
    """A request came to nothing, and another try may help.

    Attributes:
        after: seconds for which the server asks (`retry_after`).
    """

    def __init__(self, what: str, after: float | None = None) -> None:
        super().__init__(what)
        self.after = after


def tries(most: int) -> dict[str, Any]:
    """Settings of tenacity: at most `most` tries, and others only after a `Trouble`."""
    return {
        "retry": retry_if_exception_type(Trouble),
        "stop": stop_after_attempt(max(1, most)),
        "wait": pause,
        "reraise": True,
    }


def pause(state: RetryCallState) -> float:
    """Seconds before another try: as the server asks, else twice as many each time.

    Both with jitter, so that requests refused together do not come back together.
    """
    after = getattr(state.outcome.exception(), "after", None)
    if after is None:
        return BACKOFF(state)
    return min(LONGEST_PAUSE, after * random.uniform(1.0, 1.25))


def retry_after(header: str | None) -> float | None:
    """Seconds from now of a header Retry-After, which holds seconds or a date (RFC 9110, 10.2.3).

    None if it is missing or holds neither.
    """
    try:
        seconds = float(header or "")
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(header or "")
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=datetime.UTC)
        seconds = (date - datetime.datetime.now(datetime.UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def worth_another_try(status: int) -> bool:
    return status >= 500 or status in TEMPORARY


def error_text(body: bytes) -> str:
    """What a server says about a refusal, in at most 300 characters."""
    try:
        text = json.loads(body)
    except ValueError:
        text = body.decode("utf-8", "replace")
    for field in ("error", "message", "detail"):  # {"error": {"message": ...}}, {"detail": ...}
        if isinstance(text, dict) and text.get(field):
            text = text[field]
    return " ".join(str(text).split())[:300]


def address(url: str) -> str:
    """Scheme, host and port of a URL; no path, no password."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def root_cause(error: BaseException) -> str:
    """The innermost reason of an error, such as "Connection refused"."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)  # asyncio's own text names an address only
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
