"""What of a head pose is the neck's: an exact change of parameters after the solver.

Landmarks show the skull alone. An animator poses a neck on a body that stays, and the rig's neck ring must follow that body,
so the rigid motion R x + t that was found is split into a body that hardly turns (`head_to_camera`, R' and t') and a neck
rotation N about the neck joint J: R' N = R and R' J + t' = R J + t. Whatever is bound to the neck stays where it was.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

BODY_SECONDS = 2.0
"""Standard deviation, in time, of the smoothing that leaves the body's turning."""
BODY_SHARE = 0.5
"""How much of the slow turning of the head the body takes part in; the rest of the clip's middle pose is the neck's."""
NECK_LIMIT = np.deg2rad(40.0)
"""A neck does not turn further against the body; the body takes what is over."""


def split_neck(
    rotation: np.ndarray,
    translation: np.ndarray,
    neck_joint: np.ndarray,
    good: np.ndarray,
    training_count: int,
    fps: float,
    starts: np.ndarray | tuple[int, ...] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (F, 3, 3) and translations (F, 3) of the skull, neck joint (3,) in head space, `good` (F,) bool: which frames
    are believed, `starts` the first frames of all takes but the first, over whose ends nothing is smoothed.
    Returns neck axis-angle (F, 3) and head_to_camera (F, 4, 4). Held-out frames do not touch training frames.
    """
    weights = np.where(good[:training_count], 1.0, 1e-6)
    middle = Rotation.from_matrix(rotation[:training_count]).mean(weights)
    turn = (middle.inv() * Rotation.from_matrix(rotation)).as_rotvec()
    slow = np.concatenate([_smoothed(take, fps) for take in np.split(turn, np.asarray(starts, int))])
    for take in np.split(np.arange(training_count), [start for start in starts if start < training_count]):
        slow[take] = _smoothed(turn[take], fps)
    body = middle * Rotation.from_rotvec(BODY_SHARE * slow)
    neck = (body.inv() * Rotation.from_matrix(rotation)).as_rotvec()
    angle = np.linalg.norm(neck, axis=1, keepdims=True)
    neck = neck * np.minimum(1, NECK_LIMIT / np.maximum(angle, 1e-9))
    body_matrix = rotation @ Rotation.from_rotvec(-neck).as_matrix()

    head_to_camera = np.tile(np.eye(4), (len(rotation), 1, 1))
    head_to_camera[:, :3, :3] = body_matrix
    head_to_camera[:, :3, 3] = translation + (rotation - body_matrix) @ neck_joint
    return neck, head_to_camera


def _smoothed(turn: np.ndarray, fps: float) -> np.ndarray:
    return gaussian_filter1d(turn, BODY_SECONDS * fps, axis=0, mode="nearest")
