"""Progress reports and cancellation of long-running functions.

Every such function of the backend takes `progress: Progress = SILENT`. It calls `update` often (each call is cheap),
and `raise_if_cancelled` at points where no file is partly written. How progress is shown (in a terminal or by JSON-RPC)
is decided by the service.
"""

from __future__ import annotations

import numpy as np

from .errors import Cancelled


class Progress:
    """Reports nothing and is never cancelled; the service's reporters derive from it."""

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        """`done` of `total` units of `stage` are finished; `metrics` are values to show with it (loss, dB, ...)."""

    def preview(self, image: np.ndarray) -> None:
        """Show an image of the current state: H x W x 3 uint8, sRGB."""

    def overview(self, share: float | None, sentence: str) -> None:
        """Show one bar for work of many parts: `share` of it (0 to 1, None if unknown) is done, and `sentence` says
        what goes on.
        """

    def message(self, text: str) -> None:
        """Show the user a sentence that is not an error, for example about a fallback."""

    def face(self, time: float, age: float, channels: np.ndarray | None, head: np.ndarray | None) -> None:
        """Pass on what a camera sees (`live.watch.LiveFace`)."""

    def cancelled(self) -> bool:
        return False

    def raise_if_cancelled(self) -> None:
        if self.cancelled():
            raise Cancelled(STOPPED_SENTENCE)


STOPPED_SENTENCE = "Stopped by the user; what was finished is kept."

SILENT = Progress()
