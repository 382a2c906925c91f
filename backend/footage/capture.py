"""A Capture: what the footage becomes before anything is fitted to it.

Frames cropped to the head by one stable square for the whole clip and scaled to `size`, the person's matte, the
detector's landmarks and blendshape scores, a guess of the intrinsics and where it all came from, in one folder:

    clip.capture/capture.json           CaptureInfo
                 landmarks.npz          landmarks, scores, detector_pose, flags, frame_numbers, frame_times
                 frames/%06d.png        RGB, size x size
                 mattes/%06d.png        grey: 255 = the person
                 head_mattes/%06d.png   written by tracking: the matte without the body below the neck
                 track.npz              written by tracking
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from fractions import Fraction
from pathlib import Path

import numpy as np

SCHEMA = 1
HELD_OUT_SHARE = 0.2


class FrameFlag(IntFlag):
    """Why a frame is kept out of training; zero means that it is good."""

    GOOD = 0
    NO_FACE = 1
    SEVERAL_FACES = 2
    CUT_OFF = 4
    TRACK_UNSURE = 8
    """Set by the tracker: the rig does not explain this frame's landmarks."""


@dataclass(frozen=True)
class Capture:
    """F frames of one clip. Pictures are read one at a time from disk, so that a long clip does not fill memory."""

    folder: Path
    source_name: str
    source_sha256: str
    size: int
    """Side of the square frames, pixels."""
    fps: Fraction
    crop: tuple[float, float, float]
    """x, y of the crop's top-left corner and its side, in pixels of the upright (rotated) source; may reach outside."""
    intrinsics: np.ndarray
    """(3, 3) guess in crop pixels, centre of the top-left pixel at (0.5, 0.5); the principal point is the source's centre
    seen in the crop."""
    frame_numbers: np.ndarray
    """(F,) int64: index in the decoded source."""
    frame_times: np.ndarray
    """(F,) float64 seconds, as the container gives them (variable rate kept); information, never a key."""
    landmarks: np.ndarray
    """(F, 478, 3) float32: x, y in crop pixels, z in the detector's relative depth scaled to crop pixels; NaN without a face."""
    scores: np.ndarray
    """(F, 52) float32: the detector's blendshape scores in its order, `_neutral` first replaced by tongueOut (always 0);
    see `backend.footage.detector.SCORE_NAMES`."""
    detector_pose: np.ndarray
    """(F, 4, 4) float32: the detector's own head pose (centimetres, OpenGL camera); NaN without a face."""
    flags: np.ndarray
    """(F,) int32 of FrameFlag."""

    @property
    def frame_count(self) -> int:
        return len(self.frame_numbers)

    @property
    def training_count(self) -> int:
        """Frames [0, training_count) may be trained on; the rest, the last 20 % in time order, is held out."""
        return self.frame_count - round(self.frame_count * HELD_OUT_SHARE)

    def frame_path(self, index: int) -> Path:
        return self.folder / "frames" / f"{index:06d}.png"

    def matte_path(self, index: int) -> Path:
        return self.folder / "mattes" / f"{index:06d}.png"

    def head_matte_path(self, index: int) -> Path:
        return self.folder / "head_mattes" / f"{index:06d}.png"
