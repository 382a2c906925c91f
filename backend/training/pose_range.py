"""Which held-out frames have a head pose outside the range of the training frames, so that the avatar extrapolates."""

from __future__ import annotations

import numpy as np

from ..avatar.posing import head_rotation
from ..formats.track import Track

MARGIN_DEGREES = 1.0
"""Tolerance at the limits of the range: the accuracy of the tracked angles."""


def head_angles(track: Track) -> np.ndarray:
    """(F, 3) yaw, pitch and roll of the head relative to the camera, degrees; zero is upright, facing the lens.

    Yaw is positive when the face turns to the image's right, pitch when it looks down, roll when the crown tips to the
    image's right. The rotations of neck and root are combined, because a tracker may put a head rotation into either.
    """
    rotation = track.head_to_camera[:, :3, :3] @ head_rotation(track.rotations)
    forward, up = rotation[:, :, 2], rotation[:, :, 1]
    yaw = np.arctan2(forward[:, 0], -forward[:, 2])
    pitch = np.arcsin(np.clip(forward[:, 1], -1, 1))
    # Roll is measured against the upright head of the same yaw and pitch, so that a nod of a turned head is not a roll.
    level = np.stack([np.cos(yaw), np.zeros_like(yaw), np.sin(yaw)], axis=1)
    upright = np.cross(forward, level)
    roll = np.arctan2((up * level).sum(axis=1), (up * upright).sum(axis=1))
    return np.degrees(np.stack([yaw, pitch, roll], axis=1))


def outside_training(track: Track, training: np.ndarray, queried: np.ndarray) -> np.ndarray:
    """(Q,) bool: whether yaw, pitch or roll of the frames `queried` lies outside its range over the frames
    `training`.
    """
    angles = head_angles(track)
    low, high = angles[training].min(axis=0) - MARGIN_DEGREES, angles[training].max(axis=0) + MARGIN_DEGREES
    return ((angles[queried] < low) | (angles[queried] > high)).any(axis=1)
