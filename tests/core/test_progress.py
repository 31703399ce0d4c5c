"""Progress in a log: quiet lines with rate and time left."""

from __future__ import annotations

import logging

from tqdm import tqdm

from unswayed.core.progress import Progress, no_bars_in_logs


def run(caplog, every: float, done: int = 0) -> list[str]:
    caplog.set_level(logging.INFO, logger="unswayed")
    progress = Progress(100, "trials", done=done, every=every)
    for _ in range(done, 100, 25):
        progress.add(25)
    progress.close()
    return caplog.messages


def test_a_line_per_interval_and_none_at_the_end(caplog):
    lines = run(caplog, every=0)
    assert [line.split(",")[0] for line in lines] == [
        "25 of 100 trials", "50 of 100 trials", "75 of 100 trials",
    ]  # fmt: skip
    assert all("/s, " in line and line.endswith(" s left") for line in lines)


def test_what_an_earlier_run_did_does_not_count_for_the_rate(caplog, monkeypatch):
    clock = iter([0.0, 10.0, 20.0, 30.0])
    monkeypatch.setattr("unswayed.core.progress.time.monotonic", lambda: next(clock))
    assert run(caplog, every=5, done=50) == ["75 of 100 trials, 2.5/s, 10 s left"]


def test_nothing_done_yet_is_no_news(caplog):
    caplog.set_level(logging.INFO, logger="unswayed")
    progress = Progress(2, "trials", every=0)
    progress.add(0)
    assert not caplog.messages


def test_hidden_progress_says_nothing(caplog):
    caplog.set_level(logging.INFO, logger="unswayed")
    progress = Progress(2, "trials", every=0, quiet=True)
    progress.add(1)
    progress.close()
    assert not caplog.messages


def test_bars_of_others_are_kept_out_of_logs(capsys):
    with no_bars_in_logs():
        assert list(tqdm(range(3), disable=False)) == [0, 1, 2]
    assert not capsys.readouterr().err
    assert list(tqdm(range(3))) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err


def test_short_work_says_nothing(caplog):
    assert run(caplog, every=60) == []
