"""The area of the image that holds the picture. Bars above, below or beside it lie outside, like what a crop removed.

A film of another shape than its file has bars: a cinema's film in a file of 16:9, a telephone's upright clip in a wide
one. A bar is one colour, the same in all frames, and ends at a straight edge. A dark wall has no straight edge, and a
fade to black lasts for some frames only, so both stay part of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

_TOLERANCE: Final = 10
"""Levels (of 255) within which a pixel has the bar's colour. Compression at ordinary rates changes bars by up to 6."""
_STEADY_FRAMES: Final = 0.98
"""Share of the frames in which a pixel of a bar has its colour; the others are glitches."""
_STEADY_PIXELS: Final = 0.995
"""Share of a row's pixels that are steady in a bar."""
_TEXT_PIXELS: Final = 0.3
"""Share of a row's pixels, over all frames, that have the bar's colour behind subtitles. Heavy letters from one edge to
the other cover 0.6 of a row."""
_TEXT_HEIGHT: Final = 0.1
"""Share of the image's height, or width, that a line of subtitles takes at most."""
_EDGE_PIXELS: Final = 0.3
"""Share of an edge's length along which the picture begins within `_EDGE_WIDTH` pixels. The top of a head before an
even wall begins along 0.1 of the width."""
_EDGE_WIDTH: Final = 3
"""Pixels of a searched frame: compression and scaling blur an edge."""
_THINNEST: Final = 2
"""Pixels of a searched frame: bars that are thinner are not looked for."""
_LEAST_PICTURE: Final = 0.25
"""Share of the image's width and height that a picture has at least; more than the rest is no bar."""


@dataclass(frozen=True)
class Area:
    """A rectangle of pixels of the upright image; `right` and `bottom` lie outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def corner(self) -> np.ndarray:
        """(2,) x, y of the top-left corner."""
        return np.array([self.left, self.top], np.float64)

    @property
    def size(self) -> np.ndarray:
        """(2,) width, height."""
        return np.array([self.width, self.height], np.float64)


class BorderSearch:
    """Finds the bars of a clip from frames that are spread over it, given one after the other."""

    def __init__(self) -> None:
        self._colours: list[np.ndarray] = []
        """(3,) int16 RGB of the corners' pixels in the first frame: those of bars, if there are bars."""
        self._matches: list[np.ndarray] = []
        """(H, W) int32 for each colour: in how many frames a pixel has it."""
        self._frames = 0

    def look(self, image: np.ndarray) -> None:
        """Takes a (H, W, 3) uint8 frame into account; all frames have one size."""
        if not self._frames:
            corners = [image[:2, :2], image[-2:, -2:]]
            self._colours = [np.median(corner.reshape(-1, 3), 0).astype(np.int16) for corner in corners]
            if np.abs(self._colours[0] - self._colours[1]).max() <= _TOLERANCE / 2:
                self._colours.pop()
            self._matches = [np.zeros(image.shape[:2], np.int32) for _ in self._colours]
        self._frames += 1
        for colour, matches in zip(self._colours, self._matches, strict=True):
            low, high = (np.clip(colour + side, 0, 255).tolist() for side in (-_TOLERANCE, _TOLERANCE))
            matches += cv2.inRange(image, np.array(low), np.array(high)) > 0

    def area(self, width: int, height: int) -> Area:
        """The picture's area in the upright image of `width` x `height` pixels, of which the frames are smaller
        copies.
        """
        if not self._frames:
            return Area(0, 0, width, height)
        rows, columns = self._matches[0].shape
        # In a picture with bars on all sides, the edge of one bar ends at the others.
        top, bottom = self._bars(0, 0, columns)
        left, right = self._bars(1, top, rows - bottom)
        top, bottom = self._bars(0, left, columns - right)
        if columns - left - right < _LEAST_PICTURE * columns or rows - top - bottom < _LEAST_PICTURE * rows:
            return Area(0, 0, width, height)
        across, down = width / columns, height / rows
        return Area(
            int(np.ceil(left * across)),
            int(np.ceil(top * down)),
            width - int(np.ceil(right * across)),
            height - int(np.ceil(bottom * down)),
        )

    def _bars(self, axis: int, first: int, end: int) -> tuple[int, int]:
        """Widths of the bars at both ends of an axis (0: above and below), along the lines [first, end) of the other
        axis.
        """
        shares = [np.moveaxis(matches, axis, 0)[:, first:end] / self._frames for matches in self._matches]
        near, far = (max(_bar(share[::step]) for share in shares) for step in (1, -1))
        return near, far


def _bar(share: np.ndarray) -> int:
    """The width of the bar at the beginning of the first axis. `share` (N, M) says in which share of the frames a pixel
    has the bar's colour.
    """
    steady = np.flatnonzero((share >= _STEADY_FRAMES).mean(1) >= _STEADY_PIXELS)
    if not len(steady) or steady[0]:
        return 0
    # Rows of subtitles may interrupt a bar, but do not end it.
    between = np.diff(steady) - 1
    text = [share[row + 1 : row + 1 + gap].mean(1).min(initial=1.0) for row, gap in zip(steady, between, strict=False)]
    ends = np.flatnonzero((between > _TEXT_HEIGHT * len(share)) | (np.array(text) < _TEXT_PIXELS))
    width = int(steady[ends[0] if len(ends) else -1]) + 1
    edge = share[width : width + _EDGE_WIDTH]
    begins = (edge < _STEADY_FRAMES).any(0).mean() if len(edge) else 0.0
    # Compression blends the picture's outermost row with the bar.
    return width + 1 if width >= _THINNEST and begins >= _EDGE_PIXELS else 0
