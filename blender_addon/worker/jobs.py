"""Long work in the backend as the panels show it: state, progress, preview and result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from .messages import JobDone, JobEvent, JobFailed, JobMessage, JobPreview, JobProgress

STARTING, RUNNING, STOPPING = "starting", "running", "stopping"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"

HISTORY_MAX: Final = 600
"""Points of a job's curve. When there are more, every second one is removed."""


MESSAGES_MAX: Final = 1000
"""Messages of a job that are kept, the newest."""


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
        self.metrics: dict[str, float | None] = {}
        self.history: list[tuple[int, dict[str, float | None]]] = []
        """(done, metrics) in this stage, for a curve; at most `HISTORY_MAX` points."""
        self.preview: np.ndarray | None = None
        """(H, W, 3) uint8 sRGB, top row first."""
        self.preview_count = 0
        """Number of previews so far, by which a new one is noticed."""
        self.messages: list[str] = []
        self.result: dict[str, Any] | None = None
        self.error: str | None = None
        """Why the job failed or was cancelled, as a sentence."""
        self.on_change: Callable[[Job], None] | None = None
        """Called in `pump` after each change."""
        self._cancel = cancel

    @property
    def finished(self) -> bool:
        return self.state in (DONE, FAILED, CANCELLED)

    @property
    def fraction(self) -> float:
        """Completed fraction of the stage, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0

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
        if self.metrics:
            self.history.append((self.done, self.metrics))
            if len(self.history) > HISTORY_MAX:
                del self.history[1:-1:2]

    def _notify(self) -> None:
        if self.on_change:
            self.on_change(self)
