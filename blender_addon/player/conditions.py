"""What the blendshapes depend on: expression, jaw, eyes and view, kept within the ranges of the training frames, as
`backend.avatar.posing` and `backend.avatar.views` do it.
"""

from __future__ import annotations

import numpy as np

from .filmed import nearest_filmed
from .head import EYE_L, EYE_R, JAW, NECK, PosedHead

FRONT = np.array((0.0, 0.0, 1.0))


def face_of(expression: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Coefficients (E,) and rotations (5, 3) -> (E + 9,)."""
    return np.concatenate((expression, rotations[JAW : EYE_R + 1].ravel()))


def face_conditions(face: np.ndarray, performed: np.ndarray, filmed: np.ndarray) -> np.ndarray:
    """A face (E + 9,), limits (2, E + 9) and filmed faces (E + 11, E + 9) -> (E + 9,)."""
    return nearest_filmed(np.clip(face, *performed), filmed)


def view_condition(head: PosedHead, eye: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The view condition (3,) of a camera at `eye` (3,), head space, and the matrix (3, 3) that rotates head space into
    the frame in which directions of view are taken: that of the canonical head, turned so far that the view is within
    the range `views` (2, 2).
    """
    turn = head.turns[NECK]
    towards = head.joints[EYE_L : EYE_R + 1].mean(0) - eye
    before = turn.T @ towards
    before /= max(float(np.linalg.norm(before)), 1e-12)
    angles = np.array((np.arctan2(before[0], -before[2]), np.arcsin(np.clip(before[1], -1, 1))))
    yaw, pitch = within = np.clip(angles, views[:, 0], views[:, 1])
    if (within == angles).all():
        return before + FRONT, turn.T
    after = np.array((np.sin(yaw) * np.cos(pitch), np.sin(pitch), -np.cos(yaw) * np.cos(pitch)))
    return after + FRONT, _shortest_rotation(before, after) @ turn.T


def within_views(directions: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Unit directions (3, M), in the canonical head's frame, each turned so far that it is within the range `views`
    (2, 2).
    """
    x, y, z = directions
    yaw, pitch = np.clip(np.arctan2(x, -z), *views[0]), np.clip(np.arcsin(np.clip(y, -1, 1)), *views[1])
    return np.stack((np.sin(yaw) * np.cos(pitch), np.sin(pitch), -np.cos(yaw) * np.cos(pitch)))


def _shortest_rotation(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(3, 3) from one unit vector (3,) to another (Rodrigues' formula); of opposite ones, half a turn about the head's
    vertical axis.
    """
    cosine = float(before @ after)
    if cosine < -1 + 1e-5:
        return np.diag((-1.0, 1.0, -1.0))
    x, y, z = np.cross(before, after)
    skew = np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))
    return np.eye(3) + skew + skew @ skew / max(1 + cosine, 1e-6)
