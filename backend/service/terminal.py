"""Progress on a terminal: a bar for each stage with its rate, the time left and the figures that the stage reports.

Where stdout is not a terminal (a log, a pipe, a render farm) plain lines come instead, at most one in five seconds.
Progress goes to stdout, so that stderr holds nothing but the one line of an error.
"""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from ..progress import Progress

SECONDS_BETWEEN_LINES = 5.0


class Clock:
    """Rate and time left of one stage, from what was done since its first report (resumed work starts above zero)."""

    def __init__(self, stage: str, done: int, now: float) -> None:
        self.stage = stage
        self._first, self._started = done, now

    def rate(self, done: int, now: float) -> float | None:
        """Units a second; None before anything can be said."""
        elapsed = now - self._started
        return (done - self._first) / elapsed if elapsed > 0.5 and done > self._first else None

    def left(self, done: int, total: int, now: float) -> float | None:
        """Seconds."""
        rate = self.rate(done, now)
        return max(total - done, 0) / rate if rate else None


def in_words(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def minutes_and_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


class PlainProgress(Progress):
    """Lines for a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._clock: Clock | None = None
        self._last_line = time.monotonic()

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        now = time.monotonic()
        if self._clock is None or self._clock.stage != stage:
            self._clock = Clock(stage, done, now)
        if now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        parts = [f"{stage}: {done}/{total}"]
        if (rate := self._clock.rate(done, now)) is not None:
            parts.append(f"{rate:.3g}/s")
        if (left := self._clock.left(done, total, now)) is not None:
            parts.append(f"{minutes_and_seconds(left)} left")
        if metrics:
            parts.append(in_words(metrics))
        self.message("  ".join(parts))

    def message(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing stays open in a log."""


class _RateColumn(ProgressColumn):
    """`12.3/s  0:41 left`"""

    def render(self, task: Task) -> Text:
        clock: Clock = task.fields["clock"]
        now = time.monotonic()
        rate, left = clock.rate(int(task.completed), now), clock.left(int(task.completed), int(task.total or 0), now)
        if rate is None or left is None:
            return Text("")
        return Text(f"{rate:.3g}/s  {minutes_and_seconds(left)} left" if not task.finished else f"{rate:.3g}/s")


class BarProgress(Progress):
    """A bar for each stage; finished ones stay above."""

    def __init__(self, stream: TextIO) -> None:
        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _RateColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(file=stream),
            refresh_per_second=5,
        )
        self._clock: Clock | None = None
        self._task = None

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        if self._clock is None or self._clock.stage != stage:
            self._clock = Clock(stage, done, time.monotonic())
            if self._task is None:
                self._bars.start()
            else:
                self._bars.stop_task(self._task)
            self._task = self._bars.add_task(escape(stage), total=total, figures="", clock=self._clock)
        self._bars.update(self._task, completed=done, total=total, figures=escape(in_words(metrics)))

    def message(self, text: str) -> None:
        self._bars.console.print(escape(text), highlight=False)

    def close(self) -> None:
        self._bars.stop()


def terminal_progress(stream: TextIO | None = None) -> PlainProgress | BarProgress:
    """The reporter that suits where stdout goes."""
    stream = stream or sys.stdout
    return BarProgress(stream) if stream.isatty() else PlainProgress(stream)
