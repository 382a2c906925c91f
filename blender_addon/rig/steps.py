"""Long work in short steps, so that Blender's window answers while a rig is built.

A function whose name ends in `_steps` is a generator: it yields its progress from 0 to 1 every few milliseconds and
returns its result. A modal operator or a timer takes steps until its share of time is used; scripts take them all.
"""

from __future__ import annotations

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
