"""Hair that falls over the shoulders, in one frame: the part of the body below a head's hair that looks like it.

The neck's cut (`backend.tracking.after.neck_cut`) ends hair at the height of the torso. What goes on below, in the
colour that the hair has at the cut, hangs from the head and moves with it.
"""

from __future__ import annotations

import cv2
import numpy as np

_SIMILAR = 0.12
"""Difference of colours in [0, 1], the largest of the three channels, up to which a pixel goes on with the hair above
it."""
_ABOVE = 0.03
"""Share of the image's side: hair above the cut within this distance begins hair below."""
_SMOOTH = 0.01
"""The same of the window in which colours are averaged, because strands differ."""


def hanging_hair(image: np.ndarray, head: np.ndarray, body: np.ndarray, neck: tuple[float, float]) -> np.ndarray:
    """(H, W) bool: hair on the body. `image` (H, W, 3) uint8; `head` and `body` (H, W) uint8 mattes; `neck`: the first
    and the last column of the neck, below which there is none.
    """
    height, width = head.shape
    window = (2 * round(_SMOOTH * width) + 1,) * 2
    colors = cv2.blur(image, window) / np.float32(255)
    above = max(round(_ABOVE * width), 2)
    columns = np.arange(width)
    beside = (columns < neck[0]) | (columns > neck[1])
    hair = np.zeros(head.shape, bool)
    last = np.zeros((width, 3), np.float32)
    for row in range(1, height):
        # The lowest pixels of the head, through its soft edge.
        rows = slice(max(row - above, 0), row)
        seeds = beside & (head[rows] > 200).any(0) & (head[row] < 200) & ~hair[row - 1]
        tip = row - 1 - (head[rows][::-1] > 200).argmax(0)
        last[seeds] = colors[tip[seeds], columns[seeds]]
        grown = cv2.dilate(hair[row - 1].astype(np.uint8)[None], np.ones((1, 3), np.uint8))[0] > 0
        # Beside hair, a pixel is compared with the neighbour that it would go on from.
        nearest = np.where(hair[row - 1], columns, np.where(np.roll(hair[row - 1], 1), columns - 1, columns + 1))
        last[grown & ~seeds] = last[nearest.clip(0, width - 1)][grown & ~seeds]
        similar = np.abs(colors[row] - last).max(1) < _SIMILAR
        hair[row] = (seeds | grown) & similar & (body[row] > 20)
    return hair
