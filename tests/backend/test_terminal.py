"""Progress on a terminal and in a log, moment by moment."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from backend.service import terminal
from backend.service.stages import StageClock
from backend.service.terminal import BarProgress, PlainProgress, minutes_and_seconds, terminal_progress


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the clock of the progress go on by some seconds."""
    now = [50.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    # Rich's own columns show whole seconds.
    monkeypatch.setenv("COLUMNS", "120")

    def go_on(seconds: float) -> None:
        now[0] += seconds

    return go_on


def test_a_log_gets_a_line_after_five_seconds_and_not_before(wait: Callable[[float], None]) -> None:
    log = io.StringIO()
    progress = PlainProgress(log)
    wait(4.875)
    progress.update("Training", 1, 10)
    assert log.getvalue() == ""
    wait(0.125)
    progress.update("Training", 1, 10, psnr=20.125)
    assert log.getvalue() == "Training, 1 of 10  psnr 20.12\n"
    wait(4.875)
    progress.update("Training", 9, 10)
    assert log.getvalue().count("\n") == 1
    wait(0.125)
    progress.update("Training", 10, 10)
    assert log.getvalue().splitlines()[1:] == ["Training, 10 of 10  1.76/s  0:00 left"]


def test_a_new_stage_in_a_log_is_timed_from_its_own_beginning(wait: Callable[[float], None]) -> None:
    log = io.StringIO()
    progress = PlainProgress(log)
    progress.update("cropping", 0, 10)
    wait(20)
    progress.update("skin", 0, 10)
    wait(10)
    progress.update("skin", 5, 10)
    assert log.getvalue().splitlines() == [
        "Aligning frames to the skin, 0 of 10",
        "Aligning frames to the skin, 5 of 10  0.5/s  0:10 left",
    ]


def test_a_batch_says_in_a_log_what_is_new_every_twenty_seconds(wait: Callable[[float], None]) -> None:
    log = io.StringIO()
    progress = PlainProgress(log)
    wait(19.5)
    progress.overview(0.1, "anna: training")
    assert log.getvalue() == ""
    wait(0.5)
    progress.overview(None, "anna: training")
    wait(60)
    progress.overview(0.5, "anna: training")
    assert log.getvalue() == "anna: training\n", "the same sentence is said once"
    progress.overview(0.256, "ben: training")
    assert log.getvalue().splitlines()[1:] == ["26% done: ben: training"]
    wait(19.5)
    progress.overview(0.3, "cleo: training")
    assert log.getvalue().count("\n") == 2


def test_a_message_goes_to_a_log_at_once(wait: Callable[[float], None]) -> None:
    log = io.StringIO()
    PlainProgress(log).message("[A sentence].")
    assert log.getvalue() == "[A sentence].\n"


def test_seconds_are_shown_as_minutes_and_two_digits() -> None:
    assert [minutes_and_seconds(seconds) for seconds in (0.4, 9.6, 59.6, 61, 3600)] == [
        "0:00",
        "0:10",
        "1:00",
        "1:01",
        "60:00",
    ]


def test_speed_is_known_after_half_a_second_and_a_unit() -> None:
    clock = StageClock("Training", first=4, started=10.0)
    assert clock.rate(6, 10.5) is None and clock.seconds_left(6, 8, 10.5) is None
    assert clock.rate(6, 11.0) == pytest.approx(2.0) and clock.rate(4, 11.0) is None and clock.rate(3, 11.0) is None
    assert clock.seconds_left(6, 8, 11.0) == pytest.approx(1.0)
    assert clock.seconds_left(9, 8, 11.0) == 0, "more than was expected is done"


def test_every_stage_has_a_bar_and_finished_ones_stay(wait: Callable[[float], None]) -> None:
    screen = io.StringIO()
    progress = BarProgress(screen)
    progress.update("skin", 0, 16)
    wait(8)
    progress.update("skin", 16, 16)
    progress.update("Training", 0, 10)
    wait(4)
    progress.update("Training", 2, 10, psnr=21.5)
    progress.close()
    first, second = screen.getvalue().split("\n")[:2]
    assert first.startswith("Aligning frames to the skin") and "16/16" in first and first.rstrip().endswith("2/s")
    assert second.startswith("Training") and "2/10" in second and "0.5/s  0:16 left psnr 21.5" in second


@pytest.mark.parametrize(("share", "shown"), [(0.25, "25%"), (1.0, "100%"), (None, "0%")])
def test_a_batch_has_one_bar_for_all_clips(wait: Callable[[float], None], share: float | None, shown: str) -> None:
    screen = io.StringIO()
    progress = BarProgress(screen)
    progress.overview(0.125, "anna: training")
    progress.overview(share, "[ben]: training")
    progress.close()
    line = screen.getvalue().strip()
    assert line.endswith(f"{shown} [ben]: training") and "anna" not in line and "\n" not in line


def test_bars_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(terminal_progress(io.StringIO()), PlainProgress)
    assert isinstance(terminal_progress(Terminal()), BarProgress)
    monkeypatch.setattr(terminal.sys, "stdout", Terminal())
    assert isinstance(terminal_progress(), BarProgress)
