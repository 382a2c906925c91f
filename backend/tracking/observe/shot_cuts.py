"""Cuts inside a clip: where a head is in another place from one frame to the next, a take ends and another begins.

An edited clip jumps. Smoothness over time would then draw the last frames of a take towards the first of the next, so
the takes are tracked apart, of one person through one lens. What tells a cut is that the face moves by far more than
before and after, and that the picture changes by far more as well. A head in quick motion moves quickly for several
frames, and a slip of the detector moves twice, there and back; neither is taken for a cut. Frames without a face
between others end no take.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import cv2
import numpy as np

from ...formats.capture import Capture, read_frame

JUMP: Final = 0.03
"""Of the face's longer side: the least that a cut moves the middle landmark by."""
CONTRAST: Final = 3.0
"""How many times farther, and how many times more of a change in the picture, than in the frames before and after."""
AROUND: Final = 3
"""Steps on each side that are looked at: more than one, for clips that show every frame two or three times."""
STILL: Final = 0.008
"""Motion from frame to frame, of the face's side, that no landmark's noise falls below for certain."""
THUMBNAIL: Final = 64
LEAST_CHANGE: Final = 1.5
"""Grey values: the mean change of a picture that noise and compression alone may make."""


def find_cuts(capture: Capture) -> np.ndarray:
    """(C,) int64: the first frame of every take but the first."""
    points = capture.landmarks[..., :2].astype(np.float64)
    count = len(points)
    if count < 2 * AROUND + 2:
        return np.zeros(0, np.int64)
    sides = (points.max(1) - points.min(1)).max(1)
    # A cut to another size of shot changes the side as well: the smaller one counts.
    step = np.median(np.linalg.norm(np.diff(points, axis=0), axis=-1), axis=1) / np.fmin(sides[1:], sides[:-1])
    step = np.nan_to_num(step)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(step, AROUND), 2 * AROUND + 1).copy()
    around[:, AROUND] = STILL
    cut = (step > JUMP) & (step > CONTRAST * around.max(1))
    # Too near an end there is nothing to compare with, and nothing to keep apart.
    cut[:AROUND] = cut[-AROUND:] = False
    return np.array(
        [first for first in (np.flatnonzero(cut) + 1).tolist() if _picture_changes(capture, first)], np.int64
    )


def _picture_changes(capture: Capture, first: int) -> bool:
    """Whether the picture changes from the frame before `first` to it far more than around."""
    near = range(max(0, first - 1 - AROUND), min(capture.frame_count, first + 1 + AROUND))
    small = [
        cv2.cvtColor(read_frame(capture, index, THUMBNAIL), cv2.COLOR_RGB2GRAY).astype(np.float32) for index in near
    ]
    change = [float(np.abs(after - before).mean()) for before, after in pairwise(small)]
    here = change.pop(list(near).index(first) - 1)
    return here > CONTRAST * max([LEAST_CHANGE, *change])
