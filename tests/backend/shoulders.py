"""A tracked capture of a ball on a patterned torso that slides sideways by known pixels while the head stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from small_capture import make_small_capture

from backend.formats.capture import Capture, save_capture
from backend.formats.track import Track
from backend.head.model import HeadModel

SIZE = 192
TOP = 150
"""First row of the torso."""
SHIFTS = np.array([0, 1.5, 3.0, -1.0, -2.5, 0.5, 2.0, 4.0, -4.0, 1.0])
"""Pixels by which the torso is moved to the right in each frame; the last two are held out."""


def make_shoulders(folder: Path) -> tuple[Capture, Track, HeadModel]:
    """Write the capture below `folder`; the track does not follow the torso yet."""
    capture, track, model = make_small_capture(folder, frames=len(SHIFTS))
    intrinsics = track.intrinsics * np.array([[3.0], [3.0], [1.0]], np.float32)
    still = np.zeros_like(track.rotations)
    track = replace(
        track, intrinsics=intrinsics, size=SIZE, rotations=still, expression=np.zeros_like(track.expression)
    )
    capture = replace(capture, size=SIZE, intrinsics=intrinsics.astype(np.float64))
    save_capture(capture)
    (capture.folder / "body_mattes").mkdir()
    pattern = cv2.GaussianBlur(np.random.default_rng(2).random((SIZE, 2 * SIZE, 3)), (0, 0), 2.5)
    pattern = (pattern - pattern.min()) / np.ptp(pattern)
    body = np.zeros((SIZE, SIZE), np.uint8)
    body[TOP:] = 255
    for index, shift in enumerate(SHIFTS):
        image = cv2.imread(str(capture.frame_path(index)))
        image = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        head = cv2.imread(str(capture.head_matte_path(index)), cv2.IMREAD_GRAYSCALE)
        head = cv2.resize(head, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        head[TOP:] = 0
        moved = cv2.warpAffine(pattern, np.float64([[1, 0, shift - SIZE / 2], [0, 1, 0]]), (SIZE, SIZE))
        image[TOP:] = 255 * moved[TOP:]
        for path, pixels in (
            (capture.frame_path(index), image),
            (capture.matte_path(index), head + body),
            (capture.head_matte_path(index), head),
            (capture.body_matte_path(index), body),
        ):
            cv2.imwrite(str(path), pixels)
    return capture, track, model
