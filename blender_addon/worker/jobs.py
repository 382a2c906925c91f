"""Long work in the backend as the panels show it: state, progress, preview and result."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from .messages import JobDone, JobEvent, JobFace, JobFailed, JobMessage, JobPreview, JobProgress, WholeJob

STARTING, RUNNING, STOPPING = "starting", "running", "stopping"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"

TRANSFER_SHARE: Final = 0.1
"""Share of the bar for sending files to a worker on another machine, before it says how long its own work takes."""
HISTORY_MAX: Final = 600
"""Points of a job's curve. When there are more, every second one is removed."""


MESSAGES_MAX: Final = 1000
"""Messages of a job that are kept, the newest."""

FACES_MAX: Final = 256
"""Faces that wait to be taken: eight seconds of a camera."""


class Job:
    """One job. Its fields change only in `WorkerClient.pump`, so that they stay the same while a panel is drawn."""

    def __init__(self, kind: str, params: dict[str, Any], cancel: Callable[[Job], None]) -> None:
        self.kind, self.params = kind, params
        self.name: str | None = None
        """The worker's name for the job; None before the worker has answered."""
        self.state = STARTING
        self.stage = "Starting"
        self.done = self.total = 0
        self.unit = ""
        """Of `done` and `total`, such as MB; empty for frames and steps."""
        self.eta: float | None = None
        """Seconds left in this stage."""
        self.rate: float | None = None
        """Units a second."""
        self.whole: WholeJob | None = None
        """Over all stages; None until the worker has said it."""
        self.metrics: dict[str, float | None] = {}
        self.history: list[tuple[int, dict[str, float | None]]] = []
        """(done, metrics) in this stage, for a curve; at most `HISTORY_MAX` points."""
        self.preview: np.ndarray | None = None
        """(H, W, 3) uint8 sRGB, top row first."""
        self.preview_count = 0
        """Number of previews so far, by which a new one is noticed."""
        self.messages: list[str] = []
        self.faces: deque[JobFace] = deque(maxlen=FACES_MAX)
        """What a camera has shown and nobody has taken yet."""
        self.result: dict[str, Any] | None = None
        self.error: str | None = None
        """Why the job failed or was cancelled, as a sentence."""
        self.on_change: Callable[[Job], None] | None = None
        """Called in `pump` after each change."""
        self._cancel = cancel
        self._reported_at = 0.0
        """`time.monotonic` of the last progress."""
        self._sent = 0.0
        """Share of the bar that was shown before the worker's own work began."""
        self._shown = 0.0
        """Share of the bar that was shown last: it never falls."""

    @property
    def finished(self) -> bool:
        return self.state in (DONE, FAILED, CANCELLED)

    @property
    def fraction(self) -> float:
        """Completed fraction, 0 to 1: of the whole job where the worker says it, and then it never falls; otherwise of
        the stage.
        """
        stage = min(1.0, self.done / self.total) if self.total else 0.0
        if self.whole is None:
            if not self.unit:
                return stage
            self._shown = max(self._shown, TRANSFER_SHARE * stage)
            return self._shown
        share = self.whole.share
        if self.whole.left > 0:
            # Some steps report nothing for seconds; meanwhile the bar goes on as expected, to the end of the step.
            share += (1 - share) * (time.monotonic() - self._reported_at) / self.whole.left
        share = min(share, self.whole.ahead)
        self._shown = max(self._shown, self._sent + (1 - self._sent) * share)
        return self._shown

    @property
    def seconds_left(self) -> float | None:
        """To the end of the whole job where the worker says it, otherwise of the stage."""
        if self.whole is None or self.unit:
            return self.eta
        return self.whole.left_after(time.monotonic() - self._reported_at)

    def cancel(self) -> None:
        """Asks the worker to stop the job, which has ended when `state` is CANCELLED. Finished work is kept."""
        if not self.finished:
            self.state = STOPPING
            self._cancel(self)

    def on_started(self, name: str) -> None:
        """The worker has accepted the job under this name. Called by the client."""
        self.name = name
        if self.state == STARTING:
            self.state = RUNNING
        self._notify()

    def on_event(self, event: JobEvent) -> None:
        """Applies an event of the worker. Called by the client."""
        if self.finished:
            return
        match event:
            case JobProgress():
                self._apply_progress(event)
            case JobPreview():
                self.preview, self.preview_count = event.image, self.preview_count + 1
            case JobMessage():
                self.messages.append(event.text)
                del self.messages[:-MESSAGES_MAX]
            case JobFace():
                self.faces.append(event)
            case JobDone():
                self.state, self.result, self.eta = DONE, event.result, None
            case JobFailed():
                self.end(CANCELLED if event.cancelled else FAILED, event.message)
                return
        self._notify()

    def end(self, state: str, message: str) -> None:
        """Ends an unfinished job with `state` FAILED or CANCELLED and a sentence for the user."""
        if not self.finished:
            self.state, self.error, self.eta = state, message, None
            self._notify()

    def _apply_progress(self, progress: JobProgress) -> None:
        if progress.stage != self.stage:
            self.history = []
        self.stage, self.done, self.total, self.unit = progress.stage, progress.done, progress.total, progress.unit
        self.eta, self.rate, self.metrics = progress.eta, progress.rate, progress.metrics
        if progress.whole is not None:
            if self.whole is None:
                self._sent = self._shown
            self.whole = progress.whole
        self._reported_at = time.monotonic()
        if self.metrics:
            self.history.append((self.done, self.metrics))
            if len(self.history) > HISTORY_MAX:
                del self.history[1:-1:2]

    def _notify(self) -> None:
        if self.on_change:
            self.on_change(self)
