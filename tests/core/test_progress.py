"""Progress in a log: quiet lines by the clock, with rate and time left."""

from __future__ import annotations

import logging
import re
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from unswayed.core.progress import Progress, line, no_bars_in_logs, waiting

SOON = 0.02  # seconds between lines


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr("unswayed.core.progress.EVERY", SOON)


@pytest.fixture
def lines(caplog):
    """The log's lines, as soon as the clock has had time to write some."""
    caplog.set_level(logging.INFO, logger="unswayed")

    def read() -> list[str]:
        caplog.clear()
        deadline = time.monotonic() + 10
        while len(caplog.messages) < 2 and time.monotonic() < deadline:
            time.sleep(SOON)
        return list(caplog.messages)

    return read


def test_lines_come_by_the_clock_before_anything_is_done(lines):
    with Progress(8099, "options") as progress:
        assert re.fullmatch(r"0 of 8,099 options after \d+ s", lines()[-1])
        progress.add(25)
        pattern = r"25 of 8,099 options, [\d.]+/s, \d+ s left"
        assert re.fullmatch(pattern, lines()[-1])


def test_no_line_when_all_is_done_nor_after_the_end(caplog):
    caplog.set_level(logging.INFO, logger="unswayed")
    with Progress(2, "options") as progress:
        progress.add(2)
        caplog.clear()
        time.sleep(5 * SOON)
    with Progress(2, "options"):
        pass
    time.sleep(5 * SOON)
    assert not caplog.messages


def test_the_rate_is_that_of_this_run():
    assert line(75, 100, "options", 50, 10.0) == "75 of 100 options, 2.5/s, 10 s left"
    assert line(50, 100, "options", 50, 31.2) == "50 of 100 options after 31 s"


def test_hidden_progress_says_nothing(caplog):
    caplog.set_level(logging.INFO, logger="unswayed")
    with Progress(2, "trials", quiet=True) as progress:
        progress.add(1)
        time.sleep(5 * SOON)
    assert not caplog.messages


def test_one_progress_for_the_whole(lines, caplog):
    """What counts its own progress within a step moves that step on, and says nothing itself."""
    with Progress(200, "options") as whole:
        with whole.step(100), Progress(4, "requests") as part:
            part.add(1)
            assert lines()[-1].startswith("25 of 200 options, ")
            with part.step(2), Progress(10, "passes") as pieces:
                pieces.add(5)
                assert lines()[-1].startswith("50 of 200 options, ")
        assert lines()[-1].startswith("100 of 200 options, ")
    assert not any("requests" in text or "passes" in text for text in caplog.messages)


def test_a_step_does_not_go_back_nor_count_twice(lines):
    with Progress(10, "options") as whole, whole.step(8):
        with Progress(4, "passes") as first:
            first.add(2)
        with Progress(4, "passes") as again:  # begun anew, as after a memory error
            again.add(1)
            assert lines()[-1].startswith("4 of 10 options, ")
            again.add(2)
            assert lines()[-1].startswith("6 of 10 options, ")


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 7), st.integers(0, 9)), max_size=6))
def test_steps_end_where_their_units_end(steps):
    """Whatever is counted inside: less than was said, or more."""
    with Progress(sum(units for units, _, _ in steps), "options", quiet=True) as whole:
        so_far = 0
        for units, said, counted in steps:
            with whole.step(units), Progress(said, "passes") as passes:
                for _ in range(counted):
                    passes.add(1)
                    assert so_far <= whole.done <= so_far + units
            so_far += units
            assert whole.done == so_far


def test_the_bar_ticks_while_nothing_is_done(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(10, "options") as progress:
        progress.add(2.5)
        time.sleep(2.3)
    shown = capsys.readouterr().err
    assert "2/10 [00:01" in shown and "2/10 [00:02" in shown


def test_waiting_says_how_long_it_takes(lines, capsys, monkeypatch):
    with waiting("loading tiny"):
        assert re.fullmatch(r"loading tiny, \d+ s", lines()[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with waiting("loading tiny"):
        time.sleep(1.3)
    assert "loading tiny 00:01" in capsys.readouterr().err


def test_bars_of_others_are_kept_out_of_logs(capsys):
    with no_bars_in_logs():
        assert list(tqdm(range(3), disable=False)) == [0, 1, 2]
    assert not capsys.readouterr().err
    assert list(tqdm(range(3))) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err
