"""Splitting the head pose into body and neck: an exact change of parameters after the solver.

Landmarks show the pose of the skull. An animator rotates a neck on a body that stays, and the rig's neck ring must
follow that body. So the rigid motion R x + t that was estimated is split into a body that hardly rotates
(`head_to_camera`, R' and t') and a neck rotation N about the neck joint J, with R' N = R and R' J + t' = R J + t.
Everything that is bound to the neck stays where it was.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

BODY_SECONDS = 2.0
"""Standard deviation, in time, of the smoothing that leaves the body's rotation."""
BODY_SHARE = 0.5
"""How much of the head's slow rotation the body takes part in; the neck takes the rest, measured from the clip's mean
pose."""
NECK_LIMIT = np.deg2rad(40.0)
"""A neck does not rotate further against the body; the body takes the rest."""


def split_neck(
    rotation: np.ndarray,
    translation: np.ndarray,
    neck_joint: np.ndarray,
    reliable: np.ndarray,
    training_count: int,
    fps: float,
    shot_starts: np.ndarray | tuple[int, ...] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Split head poses into neck rotations and body poses. Held-out frames do not influence training frames.

    Args:
        rotation: (F, 3, 3) of the skull.
        translation: (F, 3) of the skull.
        neck_joint: (3,) in head space.
        reliable: (F,) bool, the frames that the mean pose is taken over.
        training_count: The number of frames in the training part.
        fps: Frames a second.
        shot_starts: First frames of all shots but the first; nothing is smoothed across shots.

    Returns:
        Neck axis-angle (F, 3) and head_to_camera (F, 4, 4).

    """
    weights = np.where(reliable[:training_count], 1.0, 1e-6)
    mean = Rotation.from_matrix(rotation[:training_count]).mean(weights)
    from_mean = (mean.inv() * Rotation.from_matrix(rotation)).as_rotvec()
    slow = np.concatenate([_smoothed(shot, fps) for shot in np.split(from_mean, np.asarray(shot_starts, int))])
    training_starts = [start for start in shot_starts if start < training_count]
    for shot in np.split(np.arange(training_count), training_starts):
        slow[shot] = _smoothed(from_mean[shot], fps)
    body = mean * Rotation.from_rotvec(BODY_SHARE * slow)
    neck = (body.inv() * Rotation.from_matrix(rotation)).as_rotvec()
    angle = np.linalg.norm(neck, axis=1, keepdims=True)
    neck = neck * np.minimum(1, NECK_LIMIT / np.maximum(angle, 1e-9))
    body_matrix = rotation @ Rotation.from_rotvec(-neck).as_matrix()

    head_to_camera = np.tile(np.eye(4), (len(rotation), 1, 1))
    head_to_camera[:, :3, :3] = body_matrix
    head_to_camera[:, :3, 3] = translation + (rotation - body_matrix) @ neck_joint
    return neck, head_to_camera


def _smoothed(rotation_vectors: np.ndarray, fps: float) -> np.ndarray:
    return gaussian_filter1d(rotation_vectors, BODY_SECONDS * fps, axis=0, mode="nearest")
