"""The background behind the person (in film: the clean plate), and what the matte takes from it for a part of the
person.

A matting network looks at one frame. The edge of a picture on the wall that meets dark hair looks like a strand of it,
in every frame alike, and an avatar learns a strand that hangs from the head in some poses. Over a clip with a still
camera the wall gives itself away: the same pixels, seen when the head is elsewhere, have the same colour. Colour alone
cannot tell dark hair in front of a dark edge from the edge itself, so only what is also thin is taken from the matte:
strands that are really hair differ from the wall, and the hair's body is not thin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, reduce

import cv2
import numpy as np

from ..formats.capture import Capture, read_frame, read_matte

_LOOKS = 40
"""Frames, spread over the clip, from which the plate is put together."""
_CLEAR = 0.008
"""Share of the side that a pixel must lie outside the matte to be background."""
_SEEN = 3
"""Looks in which a pixel must be background."""
_STILL = 6.0
"""Standard deviation (of 255) up to which a background pixel is taken to be still."""
_SAME = 18
"""Difference (of 255, the largest of the three channels) up to which a pixel shows the plate."""
_CONTINUED = 0.15
"""Share of the side over which the plate is continued behind the head from what is known of it."""
_THIN = 0.04
"""Share of the side: what an ellipse of this width does not fit into is thin."""


@dataclass(frozen=True)
class Plate:
    """Of S x S pixels of a capture. Behind the head it is guessed in P ways, as seen here or there beside it."""

    colors: np.ndarray
    """(P, S, S, 3) uint8 RGB"""
    known: np.ndarray
    """(P, S, S) bool: where `colors` says something; nowhere if the camera moves."""

    @cached_property
    def _somewhere(self) -> np.ndarray:
        """(S, S) bool: where any of the guesses says something."""
        return np.any(self.known, axis=0)

    def remove_from(self, matte: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """(S, S) uint8: the matte without thin parts that look like the plate. `frame` is (S, S, 3) uint8 RGB."""
        if not self._somewhere.any():
            return matte
        width = 2 * round(_THIN * matte.shape[1] / 2) + 1
        body = open_by_ellipse(matte, width)
        # Places are indices into the flat picture: NumPy is several times slower with rows and columns.
        thin = np.flatnonzero((matte > body) & self._somewhere)
        cleaned = matte.copy()
        for colors, known in zip(self.colors, self.known, strict=True):
            places = thin[known.reshape(-1).take(thin)]
            if not len(places):
                continue
            difference = cv2.absdiff(frame.reshape(-1, 3).take(places, 0), colors.reshape(-1, 3).take(places, 0))
            same = places[(difference <= _SAME) @ np.ones(3, np.uint8) == 3]
            cleaned.reshape(-1)[same] = body.reshape(-1)[same]
        return cleaned


def open_by_ellipse(picture: np.ndarray, width: int) -> np.ndarray:
    """The morphological opening of a (H, W) uint8 picture by OpenCV's ellipse of an odd width.

    The ellipse is a union of rectangles, so erosion by it is the least of the erosions by them and dilation the
    greatest; for rectangles OpenCV goes along rows and then columns, where for an ellipse it looks at each of its
    pixels.
    """
    eroded = reduce(cv2.min, (cv2.erode(picture, rectangle) for rectangle in _rectangles(width)))
    return reduce(cv2.max, (cv2.dilate(eroded, rectangle) for rectangle in _rectangles(width)))


@cache
def _rectangles(width: int) -> list[np.ndarray]:
    """Of ones: those whose union is the ellipse."""
    rows = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)).sum(1)[: width // 2 + 1]
    # The topmost of the rows of one width spans the most.
    return [np.ones((width - 2 * int((rows == across).argmax()), int(across)), np.uint8) for across in np.unique(rows)]


def find_plate(capture: Capture) -> Plate:
    """From the whole clip: a capture's crop stands still in the picture."""
    side = capture.size
    reach = np.ones((2 * round(_CLEAR * side) + 1,) * 2, np.uint8)
    count = np.zeros((side, side), np.float32)
    total, squares = np.zeros((side, side, 3), np.float32), np.zeros((side, side, 3), np.float32)
    for index in np.unique(np.linspace(0, capture.frame_count - 1, _LOOKS).round().astype(int)).tolist():
        clear = (cv2.dilate(read_matte(capture, index), reach) == 0).view(np.uint8)
        frame = read_frame(capture, index)
        count += clear
        cv2.accumulate(frame, total, clear)
        cv2.accumulateSquare(frame, squares, clear)
    looks = np.maximum(count, 1)[..., None]
    mean = total / looks
    deviation = np.sqrt(np.maximum(squares / looks - mean * mean, 0)).max(2)
    color, known = mean.round().astype(np.uint8), (count >= _SEEN) & (deviation <= _STILL)
    # What stands in rooms stands upright or lies: edges behind the head go on along columns or rows.
    guesses = [(color, known)]
    for axis in (0, 1):
        for backwards in (False, True):
            guesses.append(_continued(color, known, axis, backwards, round(_CONTINUED * side)))
    return Plate(np.stack([guess for guess, _ in guesses]), np.stack([place for _, place in guesses]))


def _continued(
    color: np.ndarray, known: np.ndarray, axis: int, backwards: bool, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where nothing is known, the last known pixel before it along an axis, at most `most` pixels away, and where."""
    order = slice(None, None, -1 if backwards else 1)
    along = np.moveaxis(known, axis, 0)[order]
    places = np.arange(len(along))[:, None]
    last = np.maximum.accumulate(np.where(along, places, -1), 0)
    filled = np.take_along_axis(np.moveaxis(color, axis, 0)[order], last.clip(0)[..., None], 0)
    there = ~along & (last >= 0) & (places - last <= most)
    return np.moveaxis(filled[order], 0, axis), np.moveaxis(there[order], 0, axis)
