"""Shot cuts inside a clip, across which nothing may be smoothed.

At a cut the face moves by far more than in the frames before and after, and the image changes by far more as well. A
fast head moves fast for several frames, and a failure of the detector moves the landmarks twice, there and back;
neither is a cut. Frames without a face between others are no cut either.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import cv2
import numpy as np

from ...formats.capture import Capture, read_frame

MIN_JUMP: Final = 0.03
"""Share of the face's longer side: the least median motion of the landmarks at a cut."""
CONTRAST: Final = 3.0
"""How many times larger the landmarks' motion and the image's change must be than in the frames before and after."""
NEIGHBOURS: Final = 3
"""Steps on each side that are compared: more than one, for clips that show every frame two or three times."""
NOISE: Final = 0.008
"""Share of the face's longer side: the motion from frame to frame that landmark noise alone may reach."""
THUMBNAIL: Final = 64
IMAGE_NOISE: Final = 1.5
"""Grey values: the mean change of an image that noise and compression alone may make."""


def find_cuts(capture: Capture) -> np.ndarray:
    """(C,) int64: the first frames of all shots but the first."""
    points = capture.landmarks[..., :2].astype(np.float64)
    count = len(points)
    if count < 2 * NEIGHBOURS + 2:
        return np.zeros(0, np.int64)
    sides = (points.max(1) - points.min(1)).max(1)
    # A cut to another shot size changes the face's side as well, so the motion is relative to the smaller one.
    step = np.median(np.linalg.norm(np.diff(points, axis=0), axis=-1), axis=1) / np.fmin(sides[1:], sides[:-1])
    step = np.nan_to_num(step)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(step, NEIGHBOURS), 2 * NEIGHBOURS + 1).copy()
    around[:, NEIGHBOURS] = NOISE
    cut = (step > MIN_JUMP) & (step > CONTRAST * around.max(1))
    # Near the clip's ends there are too few frames to compare with.
    cut[:NEIGHBOURS] = cut[-NEIGHBOURS:] = False
    return np.array([first for first in (np.flatnonzero(cut) + 1).tolist() if _image_changes(capture, first)], np.int64)


def _image_changes(capture: Capture, first: int) -> bool:
    """Whether the image changes far more from the frame before `first` to `first` than in the frames around them."""
    near = range(max(0, first - 1 - NEIGHBOURS), min(capture.frame_count, first + 1 + NEIGHBOURS))
    small = [
        cv2.cvtColor(read_frame(capture, index, THUMBNAIL), cv2.COLOR_RGB2GRAY).astype(np.float32) for index in near
    ]
    change = [float(np.abs(after - before).mean()) for before, after in pairwise(small)]
    here = change.pop(list(near).index(first) - 1)
    return here > CONTRAST * max([IMAGE_NOISE, *change])
