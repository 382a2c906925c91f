"""What the worker has sent and Blender's main thread has not taken yet.

The main thread may be busy for minutes, and a worker on another machine may send without an end. Neither fills the
memory: while much is waiting, further lines of the log, progress and previews are left out, which nobody misses,
because newer ones follow.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

from .messages import JobEvent, JobFace, JobPreview, JobProgress

MOST_WAITING: Final = 2000
"""A job reports its progress ten times a second at most."""
MOST_EVENTS: Final = 2 * MOST_WAITING
"""The other events of jobs are few: a worker that sends so many of them is no worker of Effigy."""
MOST_PREVIEWS: Final = 4


class Arrivals:
    """Filled from any thread, emptied by one."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._previews = threading.Semaphore(MOST_PREVIEWS)
        self._lines_left_out = 0

    def __len__(self) -> int:
        return self._waiting.qsize()

    def put(self, deliver: Callable[[], None]) -> None:
        """Adds what must not get lost."""
        self._waiting.put(deliver)

    def put_line(self, line: str, show: Callable[[str], None]) -> None:
        """Adds a line of the log, or counts it."""
        if len(self) >= MOST_WAITING:
            self._lines_left_out += 1
            return
        if left_out := self._lines_left_out:
            self._lines_left_out = 0
            self.put(lambda: show(f"{left_out} lines of the log were left out, because they came too fast."))
        self.put(lambda: show(line))

    def put_event(self, event: JobEvent, deliver: Callable[[], None]) -> None:
        """Adds an event of a job, or leaves it out."""
        if len(self) >= (MOST_WAITING if isinstance(event, (JobFace, JobProgress, JobPreview)) else MOST_EVENTS):
            return
        if not isinstance(event, JobPreview):
            self.put(deliver)
        elif self._previews.acquire(blocking=False):

            def deliver_preview() -> None:
                self._previews.release()
                deliver()

            self.put(deliver_preview)

    def take(self) -> Callable[[], None] | None:
        """The oldest of them, or None."""
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None
