"""The mean of several images, in linear light."""

from __future__ import annotations

import numpy as np

from .rendered_frame import EMPTY_ALPHA, RenderedFrame


class FrameSum:
    """Gathers images of one size."""

    def __init__(self) -> None:
        self._count = 0
        self._image = self._alpha = self._depth = np.zeros((), np.float32)
        self._parts = np.zeros((1, 1, 0), np.float32)

    def add(self, frame: RenderedFrame, image: np.ndarray) -> None:
        """`image` (H, W, 4) is the Combined pass of the frame: scene-linear, premultiplied."""
        covered = np.isfinite(frame.depth)
        alpha = np.where(covered, frame.alpha, 0)
        self._count += 1
        self._image = self._image + image
        self._alpha = self._alpha + alpha
        self._depth = self._depth + alpha * np.where(covered, frame.depth, 0)
        # An avatar that enters during the exposure brings parts of its own.
        more = frame.parts.shape[2] - self._parts.shape[2]
        before, now = (
            np.pad(each, ((0, 0), (0, 0), (0, max(n, 0)))) for each, n in ((self._parts, more), (frame.parts, -more))
        )
        self._parts = before + now

    def image(self) -> np.ndarray:
        """The Combined pass (H, W, 4)."""
        return np.asarray(self._image / np.float32(self._count))

    def parts(self) -> np.ndarray:
        """(H, W, M), as `RenderedFrame.parts`."""
        return np.asarray(self._parts / np.float32(self._count))

    def depth(self) -> np.ndarray:
        """(H, W) mean distance of what covers each pixel, by how much it does; infinity where that is nearly nothing,
        metres.
        """
        covered = self._alpha / self._count > EMPTY_ALPHA
        return np.divide(self._depth, self._alpha, out=np.full_like(self._alpha, np.inf), where=covered)
