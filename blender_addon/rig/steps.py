"""Long work in short steps, so that Blender's window answers while a rig is built.

A function whose name ends in `_steps` is a generator: it yields its progress from 0 to 1 every few milliseconds and
returns its result. A modal operator or a timer takes steps until its share of time is used; scripts take them all.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")
Steps = Generator[float, None, Result]


def finish(steps: Steps[Result]) -> Result:
    """Take all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class Stepper:
    """Takes steps a slice of time at a time: `advance` until `done`, then `result`."""

    def __init__(self, steps: Steps[Result]) -> None:
        self._steps = steps
        self.progress = 0.0
        self.done = False
        self.result: Result | None = None

    def advance(self, seconds: float = 0.02) -> bool:
        """Work for about this long; True when all is done. What a step raises comes out here."""
        until = time.perf_counter() + seconds
        while not self.done and time.perf_counter() < until:
            try:
                self.progress = next(self._steps)
            except StopIteration as end:
                self.done, self.progress, self.result = True, 1.0, end.value
        return self.done
