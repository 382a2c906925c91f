"""A Track: one identity and focal length for the clip, and per frame expression, joint rotations and head pose."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

SCHEMA = 1


@dataclass(frozen=True)
class Track:
    """F frames, float32. The posed mesh (head space, metres) goes into the camera by `head_to_camera`."""

    head_name: str
    head_fingerprint: str
    identity: np.ndarray
    """(S,)"""
    expression: np.ndarray
    """(F, E) in the head model's own units."""
    rotations: np.ndarray
    """(F, 5, 3) axis-angle of root, neck, jaw, eye_L, eye_R. The root stays zero: its motion is `head_to_camera`."""
    head_to_camera: np.ndarray
    """(F, 4, 4): head space (root) to OpenCV camera."""
    intrinsics: np.ndarray
    """(3, 3) pixels of a `size` x `size` picture."""
    size: int
    fps: Fraction
    residual: np.ndarray
    """(F,) median landmark error, pixels at `size`; NaN where there was no face."""
    flags: np.ndarray
    """(F,) int32 of `backend.footage.capture.FrameFlag`: the capture's flags and the tracker's own."""
    training_count: int
    """Identity and focal length were fitted on frames [0, training_count) alone."""
