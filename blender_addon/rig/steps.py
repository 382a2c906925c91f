"""Long work in short steps, so that Blender's window keeps responding while a rig is built.

A function whose name ends in `_steps` is a generator. It yields its progress from 0 to 1 every few milliseconds and
returns its result. A modal operator or a timer runs steps for some milliseconds at a time; a script runs all of them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")
Steps = Generator[float | None, None, Result]
"""Yields progress from 0 to 1, or None while it waits for the worker; returns the result."""


def part(steps: Steps[Result], begin: float, end: float) -> Steps[Result]:
    """Steps whose progress from 0 to 1 is that from `begin` to `end` of a larger work."""
    try:
        while True:
            progress = next(steps)
            yield None if progress is None else begin + (end - begin) * progress
    except StopIteration as stop:
        return stop.value
    finally:
        # A work that is stopped cleans up from the inside outwards.
        steps.close()


def finish(steps: Steps[Result]) -> Result:
    """Runs all steps and returns the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
