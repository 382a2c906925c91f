"""How long work tells what it is doing: stage, done of total, figures, pictures, and whether to stop.

Every long function of the backend takes `progress: Progress = SILENT`, calls `update` often (each call is cheap) and
`raise_if_cancelled` at points where nothing is half-written. Who shows it (a terminal, JSON-RPC) is the service's
business.
"""

from __future__ import annotations

import numpy as np

from .errors import Cancelled


class Progress:
    """Reports nothing and is never cancelled; the service's reporters derive from it."""

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        """`done` of `total` units of `stage`; `metrics` are figures worth showing beside it (loss, dB, ...)."""

    def preview(self, image: np.ndarray) -> None:
        """A picture of the work so far: H x W x 3 uint8, sRGB."""

    def message(self, text: str) -> None:
        """A sentence for the user that is not an error (flags, fallbacks)."""

    def cancelled(self) -> bool:
        return False

    def raise_if_cancelled(self) -> None:
        if self.cancelled():
            raise Cancelled(STOPPED_SENTENCE)


STOPPED_SENTENCE = "Stopped by the user; what was finished is kept."

SILENT = Progress()
