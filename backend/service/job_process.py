"""`python -m backend.service.job_process`: one job in a process of its own, told what to do on stdin.

The first line on stdin is the order. After it, a line is a request to stop, and the end of stdin means that the worker
is gone: the job stops as if cancelled, so that a training leaves its checkpoint and nothing is half-written, and it
ends in any case after some seconds. This needs nothing of the operating system but pipes. Events go to stdout, a line
each: `progress`, `preview`, `message`, and one last `done`, `failed` or `cancelled`.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from ..errors import Cancelled, EffigyError
from ..progress import Progress
from .protocol import ArrayFolders, Channel

SECONDS_BETWEEN_UPDATES = 0.1
SECONDS_BETWEEN_PREVIEWS = 1.0
SECONDS_BETWEEN_GLIMPSES = 2.0
"""Of commands that show no pictures themselves: drawing one takes some milliseconds of the work's own thread."""
PATIENCE = {"cancel": (10.0, 30.0), "orphan": (4.0, 4.0)}
"""Seconds until a job that was told to stop is interrupted, and from there until it is ended."""


class _ChannelProgress(Progress):
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._clock: Any = None
        self._updated = self._shown = self._glimpsed = 0.0
        self.stopped = False
        self.glimpse: Callable[[int, int], np.ndarray | None] = lambda done, total: None
        """A picture of what is `done` of `total`, if there is one."""

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        from .terminal import Clock

        now = time.monotonic()
        new = self._clock is None or self._clock.stage != stage
        if new:
            self._clock = Clock(stage, done, now)
        if not new and done != total and now - self._updated < SECONDS_BETWEEN_UPDATES:
            return
        self._updated = now
        self._channel.send(
            {
                "event": "progress",
                "stage": stage,
                "done": done,
                "total": total,
                "metrics": metrics,
                "eta": self._clock.left(done, total, now),
                "rate": self._clock.rate(done, now),
            }
        )
        if now - self._glimpsed >= SECONDS_BETWEEN_GLIMPSES and (image := self.glimpse(done, total)) is not None:
            self._glimpsed = now
            self._show(image)

    def preview(self, image: np.ndarray) -> None:
        if time.monotonic() - self._shown >= SECONDS_BETWEEN_PREVIEWS:
            self._shown = time.monotonic()
            self._show(image)

    def _show(self, image: np.ndarray) -> None:
        # A picture that there is no room for is no reason to lose hours of work.
        with suppress(EffigyError):
            self._channel.send({"event": "preview", "image": np.asarray(image, np.uint8)})

    def message(self, text: str) -> None:
        self._channel.send({"event": "message", "text": text})

    def cancelled(self) -> bool:
        return self.stopped


def main() -> None:
    arrays = ArrayFolders([""])
    channel = Channel(arrays)
    lines = channel.messages()
    order = next(lines, None)
    if order is None:
        return
    arrays.inline, arrays.folders = order["inline"], order["folders"]
    progress = _ChannelProgress(channel)

    def watch() -> None:
        cancelled = next(lines, None) is not None
        progress.stopped = True
        until_interrupted, until_ended = PATIENCE["cancel" if cancelled else "orphan"]
        if cancelled:
            # A second order to stop, or the worker's end, is not made to wait.
            threading.Thread(target=lambda: (next(lines, None), _end_within(*PATIENCE["orphan"])), daemon=True).start()
        _end_within(until_interrupted, until_ended)

    threading.Thread(target=watch, daemon=True).start()
    channel.send(_outcome(order["kind"], order["commands"], order["params"], progress))
    with suppress(OSError):
        sys.stderr.flush()
    # Threads of libraries may hold the interpreter up; whatever was to be written is written.
    os._exit(0)


def _end_within(until_interrupted: float, until_ended: float) -> None:
    time.sleep(until_interrupted)
    # Unwinds the main thread, which removes what was half-written.
    _thread.interrupt_main()
    time.sleep(until_ended)
    os._exit(1)


def _outcome(
    kind: str, commands: list[list[str]], params: dict[str, Any], progress: _ChannelProgress
) -> dict[str, Any]:
    """Do the work; the event that says how it ended."""
    try:
        if kind == "doctor":
            from .doctor import examine

            return {"event": "done", "result": {"rows": [[row.subject, row.state, row.said] for row in examine()]}}
        from .cli import perform
        from .job_kinds import result_of
        from .previews import Glimpses, show_afterwards

        said = []
        for arguments in commands:
            progress.raise_if_cancelled()
            progress.glimpse = Glimpses(arguments[0], params).picture
            said.append(perform(arguments, progress))
            show_afterwards(arguments[0], params, progress)
        return {"event": "done", "result": result_of(kind, params, said)}
    except (Cancelled, KeyboardInterrupt) as stop:
        return {"event": "cancelled", "message": str(stop) or "Stopped by the user; what was finished is kept."}
    except EffigyError as error:
        return {"event": "failed", "message": str(error)}
    except ImportError as error:
        traceback.print_exc()
        return {"event": "failed", "message": f"The backend's Python lacks {error.name or error}: install it again."}
    except Exception as error:
        traceback.print_exc()
        return {
            "event": "failed",
            "message": f"This met a defect of Effigy ({type(error).__name__}: {error}); the "
            "worker's log holds the details.",
        }


if __name__ == "__main__":
    main()
