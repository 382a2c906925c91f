"""The clean plate (the background without the person), and removal of background from the matte with its help.

A matting network works on single frames. Where, for example, the edge of a picture frame on the wall meets dark hair,
the network takes the edge for a strand of hair in every frame, and an avatar learns a strand that hangs from the head
in some poses. In a clip with a static camera the background can be recognised: its pixels have the same colour in
frames where the head is elsewhere. Colour alone cannot distinguish dark hair in front of a dark edge from the edge
itself, so only thin parts are removed from the matte: real strands differ in colour from the wall, and the bulk of the
hair is not thin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, reduce

import cv2
import numpy as np

from ..formats.capture import Capture, read_frame, read_matte

SAMPLE_COUNT = 40
"""Frames, spread evenly over the clip, from which the plate is computed."""
_MATTE_MARGIN = 0.008
"""Share of the image side: the least distance of a background pixel from the matte."""
_MIN_SAMPLES = 3
"""Sampled frames in which a pixel must be background to be known."""
_MAX_DEVIATION = 6.0
"""Standard deviation (of 255) up to which a background pixel counts as static."""
_MAX_DIFFERENCE = 18
"""Difference (of 255, the largest of the three channels) up to which a pixel matches the plate."""
_EXTRAPOLATION = 0.15
"""Share of the image side over which known pixels are extrapolated behind the head."""
_THIN_WIDTH = 0.04
"""Share of the image side: parts of the matte into which an ellipse of this width does not fit are thin."""


@dataclass(frozen=True)
class Plate:
    """The clean plate of a capture with S x S pixels, as P candidates that differ in the extrapolation behind the
    head.
    """

    colors: np.ndarray
    """(P, S, S, 3) uint8 RGB"""
    known: np.ndarray
    """(P, S, S) bool: where `colors` is valid; nowhere if the camera moves."""

    @cached_property
    def _known_in_any(self) -> np.ndarray:
        """(S, S) bool: where any candidate is valid."""
        return np.any(self.known, axis=0)

    def remove_from(self, matte: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """(S, S) uint8: the matte without thin parts that match the plate's colour. `frame` is (S, S, 3) uint8 RGB."""
        if not self._known_in_any.any():
            return matte
        width = 2 * round(_THIN_WIDTH * matte.shape[1] / 2) + 1
        body = open_by_ellipse(matte, width)
        # Flat pixel indices: NumPy is several times slower with pairs of row and column indices.
        thin = np.flatnonzero((matte > body) & self._known_in_any)
        cleaned = matte.copy()
        for colors, known in zip(self.colors, self.known, strict=True):
            pixels = thin[known.reshape(-1).take(thin)]
            if not len(pixels):
                continue
            difference = cv2.absdiff(frame.reshape(-1, 3).take(pixels, 0), colors.reshape(-1, 3).take(pixels, 0))
            same = pixels[(difference <= _MAX_DIFFERENCE) @ np.ones(3, np.uint8) == 3]
            cleaned.reshape(-1)[same] = body.reshape(-1)[same]
        return cleaned


def open_by_ellipse(image: np.ndarray, width: int) -> np.ndarray:
    """The morphological opening of a (H, W) uint8 image with OpenCV's elliptical kernel of an odd width.

    The ellipse is a union of rectangles, so its erosion is the minimum of the rectangles' erosions and its dilation the
    maximum of their dilations. This is faster, because OpenCV's filters for rectangles are separable and its filter for
    an ellipse visits every pixel of the kernel.
    """
    eroded = reduce(cv2.min, (cv2.erode(image, rectangle) for rectangle in _rectangles(width)))
    return reduce(cv2.max, (cv2.dilate(eroded, rectangle) for rectangle in _rectangles(width)))


@cache
def _rectangles(width: int) -> list[np.ndarray]:
    """The rectangular kernels (of ones) whose union is the ellipse."""
    rows = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)).sum(1)[: width // 2 + 1]
    # Among the rows of one width, the topmost gives the tallest rectangle.
    return [np.ones((width - 2 * int((rows == across).argmax()), int(across)), np.uint8) for across in np.unique(rows)]


def find_plate(capture: Capture) -> Plate:
    """The clean plate from frames of the whole clip; all frames of a capture share one crop of the source image."""
    side = capture.size
    margin = np.ones((2 * round(_MATTE_MARGIN * side) + 1,) * 2, np.uint8)
    count = np.zeros((side, side), np.float32)
    total, squares = np.zeros((side, side, 3), np.float32), np.zeros((side, side, 3), np.float32)
    for index in np.unique(np.linspace(0, capture.frame_count - 1, SAMPLE_COUNT).round().astype(int)).tolist():
        clear = (cv2.dilate(read_matte(capture, index), margin) == 0).view(np.uint8)
        frame = read_frame(capture, index)
        count += clear
        cv2.accumulate(frame, total, clear)
        cv2.accumulateSquare(frame, squares, clear)
    samples = np.maximum(count, 1)[..., None]
    mean = total / samples
    deviation = np.sqrt(np.maximum(squares / samples - mean * mean, 0)).max(2)
    color, known = mean.round().astype(np.uint8), (count >= _MIN_SAMPLES) & (deviation <= _MAX_DEVIATION)
    # Edges in rooms are mostly vertical or horizontal, so they are extrapolated along columns and rows.
    candidates = [(color, known)]
    for axis in (0, 1):
        for backwards in (False, True):
            candidates.append(_extrapolate(color, known, axis, backwards, round(_EXTRAPOLATION * side)))
    return Plate(np.stack([colors for colors, _ in candidates]), np.stack([valid for _, valid in candidates]))


def _extrapolate(
    color: np.ndarray, known: np.ndarray, axis: int, backwards: bool, max_distance: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fill unknown pixels with the last known pixel before them along an axis, at most `max_distance` pixels away.

    Returns the colours (S, S, 3) and the filled pixels (S, S) bool.
    """
    order = slice(None, None, -1 if backwards else 1)
    along = np.moveaxis(known, axis, 0)[order]
    positions = np.arange(len(along))[:, None]
    last = np.maximum.accumulate(np.where(along, positions, -1), 0)
    filled = np.take_along_axis(np.moveaxis(color, axis, 0)[order], last.clip(0)[..., None], 0)
    filled_here = ~along & (last >= 0) & (positions - last <= max_distance)
    return np.moveaxis(filled[order], 0, axis), np.moveaxis(filled_here[order], 0, axis)
