"""When a server is asked again, and after how long."""

from __future__ import annotations

import datetime
import email.utils
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tenacity import Retrying

from unswayed.scoring.servers import (
    LONGEST_PAUSE,
    Trouble,
    error_text,
    retry_after,
    tries,
    worth_another_try,
)


def pauses(most: int, after: float | None) -> list[float]:
    """Seconds slept by somebody who fails each time."""
    slept = []

    def fails():
        raise Trouble("no", after)

    with pytest.raises(Trouble):
        Retrying(**tries(most), sleep=slept.append)(fails)
    return slept


@given(st.integers(-2, 9))
def test_pauses_grow_with_jitter_up_to_the_longest(most):
    slept = pauses(most, None)
    assert len(slept) == max(1, most) - 1
    for i, seconds in enumerate(slept):
        assert min(2.0**i, LONGEST_PAUSE) <= seconds <= min(2.0**i + 1, LONGEST_PAUSE)


@given(st.floats(0, 1e9))
def test_a_server_is_given_the_time_it_asks_for_within_limits(after):
    (seconds,) = pauses(2, after)
    assert min(after, LONGEST_PAUSE) <= seconds <= min(1.25 * after, LONGEST_PAUSE)


def test_requests_that_are_refused_together_do_not_come_back_together():
    assert len({pauses(2, 10.0)[0] for _ in range(20)}) > 10
    assert len({pauses(2, None)[0] for _ in range(20)}) > 10


def test_nothing_but_trouble_is_tried_again():
    calls = []

    def breaks():
        calls.append(1)
        raise KeyError("bug")

    with pytest.raises(KeyError):
        Retrying(**tries(5))(breaks)
    assert len(calls) == 1


@given(st.integers(0, 10**6))
def test_retry_after_in_seconds(seconds):
    assert retry_after(str(seconds)) == seconds


@given(st.integers(-(10**6), 10**6), st.sampled_from([None, datetime.UTC]))
def test_retry_after_as_a_date(seconds, zone):
    now = datetime.datetime.now(datetime.UTC)
    date = (now + datetime.timedelta(seconds=seconds)).replace(tzinfo=zone)
    asked = retry_after(email.utils.format_datetime(date, usegmt=zone is not None))
    assert max(0, seconds) - 5 <= asked <= max(0, seconds)


@given(st.one_of(st.none(), st.text(max_size=30)))
@example("soon")
@example("nan")
@example("-inf")
@example("Mon, 99 Foo 2026 25:61:61 GMT")
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("1, 2")
def test_any_header_is_seconds_or_nothing(header):
    asked = retry_after(header)
    assert asked is None or (asked >= 0 and math.isfinite(asked))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": {"message": "too  busy\\n"}}', "too busy"),
        (b'{"detail": "no"}', "no"),
        (b"<b>down</b>", "<b>down</b>"),
        (b"\xff\x00", "\ufffd\x00"),
        (b"x" * 999, "x" * 300),
        (b"", ""),
    ],
)
def test_what_a_server_says(body, text):
    assert error_text(body) == text


def test_which_refusals_pass():
    passing = {status for status in range(400, 600) if worth_another_try(status)}
    assert passing == {408, 409, 425, 429, *range(500, 600)}
