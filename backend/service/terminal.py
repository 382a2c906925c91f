"""Progress on a terminal: a bar for each stage with its speed, the time left and the figures that the stage reports.

Where stdout is not a terminal (a log, a pipe, a render farm), plain lines are printed instead, at most one in five
seconds. Progress goes to stdout, so that stderr holds nothing but the one line of an error.
"""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from ..progress import Progress
from .stages import StageClock, describe_stage, shown_metrics

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_OVERVIEWS = 20.0
"""A batch takes hours, and its log is read by people."""


def metrics_in_words(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in shown_metrics(metrics).items())


def minutes_and_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


class PlainProgress(Progress):
    """Lines for a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._clock: StageClock | None = None
        self._last_line = time.monotonic()
        self._last_sentence = ""

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        now = time.monotonic()
        if self._clock is None or self._clock.stage != stage:
            self._clock = StageClock(stage, done, now)
        if now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        parts = [f"{describe_stage(stage)}, {done} of {total}"]
        if (rate := self._clock.rate(done, now)) is not None:
            parts.append(f"{rate:.3g}/s")
        if (left := self._clock.seconds_left(done, total, now)) is not None:
            parts.append(f"{minutes_and_seconds(left)} left")
        if words := metrics_in_words(metrics):
            parts.append(words)
        self.message("  ".join(parts))

    def overview(self, share: float | None, sentence: str) -> None:
        now = time.monotonic()
        if sentence == self._last_sentence or now - self._last_line < SECONDS_BETWEEN_OVERVIEWS:
            return
        self._last_line, self._last_sentence = now, sentence
        self.message(sentence if share is None else f"{share:.0%} done: {sentence}")

    def message(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """There is nothing to close in a log."""


class _RateColumn(ProgressColumn):
    """Shows `12.3/s  0:41 left`."""

    def render(self, task: Task) -> Text:
        clock: StageClock = task.fields["clock"]
        # The bar of a finished stage stays on the screen, and its speed with it.
        now = time.monotonic() if task.stop_time is None else task.stop_time
        done, total = int(task.completed), int(task.total or 0)
        rate, left = clock.rate(done, now), clock.seconds_left(done, total, now)
        if rate is None or left is None:
            return Text("")
        return Text(f"{rate:.3g}/s  {minutes_and_seconds(left)} left" if not task.finished else f"{rate:.3g}/s")


class BarProgress(Progress):
    """A bar for each stage; the bars of finished stages stay above."""

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
            get_time=time.monotonic,
        )
        self._clock: StageClock | None = None
        self._task: TaskID | None = None
        self._overview: RichProgress | None = None

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        task = self._task
        if task is None or self._clock is None or self._clock.stage != stage:
            self._clock = StageClock(stage, done, time.monotonic())
            if task is None:
                self._bars.start()
            else:
                self._bars.stop_task(task)
            self._task = task = self._bars.add_task(
                escape(describe_stage(stage)), total=total, figures="", clock=self._clock
            )
        self._bars.update(task, completed=done, total=total, figures=escape(metrics_in_words(metrics)))

    def overview(self, share: float | None, sentence: str) -> None:
        if self._overview is None:
            self._overview = RichProgress(
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                TextColumn("{task.description}"),
                console=self._bars.console,
                refresh_per_second=2,
            )
            self._overview.add_task("", total=None)
            self._overview.start()
        # A bar without a total moves to and fro.
        total = None if share is None else 1.0
        self._overview.update(TaskID(0), total=total, completed=share or 0.0, description=escape(sentence))

    def message(self, text: str) -> None:
        self._bars.console.print(escape(text), highlight=False)

    def close(self) -> None:
        self._bars.stop()
        if self._overview:
            self._overview.stop()


def terminal_progress(stream: TextIO | None = None) -> PlainProgress | BarProgress:
    """Bars on a terminal, plain lines elsewhere; `stream` is stdout by default."""
    output: TextIO = stream or sys.stdout
    return BarProgress(output) if output.isatty() else PlainProgress(output)
