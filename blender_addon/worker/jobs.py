"""Long work at the worker, as the panel shows it: state, how far it is, a picture of it, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

STARTING, RUNNING, STOPPING = "starting", "running", "stopping"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"


class Job:
    """One job. Its fields change in `WorkerClient.pump` only, so that what a panel draws does not move under it."""

    def __init__(self, kind: str, params: dict[str, Any], cancel: Callable[[Job], None]) -> None:
        self.kind, self.params = kind, params
        self.name: str | None = None
        """The worker's name for it, once it answered."""
        self.state = STARTING
        self.stage = "Starting"
        self.done = self.total = 0
        self.eta: float | None = None
        """Seconds left in this stage."""
        self.rate: float | None = None
        """Units a second."""
        self.metrics: dict[str, float | None] = {}
        self.history: list[tuple[int, dict[str, float | None]]] = []
        """(done, metrics) of this stage, for a curve; thinned out as it grows."""
        self.preview: np.ndarray | None = None
        """(H, W, 3) uint8 sRGB, top row first."""
        self.preview_count = 0
        """How many pictures there were, to know a new one."""
        self.messages: list[str] = []
        self.result: dict[str, Any] | None = None
        self.error: str | None = None
        """The sentence of a failed or cancelled job."""
        self.on_change: Callable[[Job], None] | None = None
        """Called in `pump` after each change."""
        self._cancel = cancel

    @property
    def finished(self) -> bool:
        return self.state in (DONE, FAILED, CANCELLED)

    @property
    def share(self) -> float:
        """How much of the stage is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    def cancel(self) -> None:
        """Ask it to stop; it is cancelled when `state` says so. What was finished is kept."""
        if not self.finished:
            self.state = STOPPING
            self._cancel(self)

    # --- what the client tells it

    def named(self, name: str) -> None:
        self.name = name
        if self.state == STARTING:
            self.state = RUNNING
        self._changed()

    def told(self, event: str, params: dict[str, Any]) -> None:
        """An event of the worker's: `progress`, `preview`, `message`, `done`, `failed`, `cancelled`."""
        if self.finished:
            return
        if event == "progress":
            if params["stage"] != self.stage:
                self.history = []
            self.stage, self.done, self.total = params["stage"], params["done"], params["total"]
            self.eta, self.rate, self.metrics = params.get("eta"), params.get("rate"), params.get("metrics") or {}
            if self.metrics:
                self.history.append((self.done, self.metrics))
                if len(self.history) > MOST_HISTORY:
                    del self.history[1:-1:2]
        elif event == "preview":
            self.preview, self.preview_count = params["image"], self.preview_count + 1
        elif event == "message":
            self.messages.append(params["text"])
        elif event == "done":
            self.state, self.result, self.eta = DONE, params["result"], None
        else:
            self.end(CANCELLED if event == "cancelled" else FAILED, params["message"])
            return
        self._changed()

    def end(self, state: str, sentence: str) -> None:
        if not self.finished:
            self.state, self.error, self.eta = state, sentence, None
            self._changed()

    def _changed(self) -> None:
        if self.on_change:
            self.on_change(self)


MOST_HISTORY = 600
"""Points of a job's curve; when there are more, every second one is left out."""
