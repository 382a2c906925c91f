"""The one border between head space and Blender space.

Head space (and every camera and pose that the worker sees) is metres, +Y up, +Z out of the face, the person's left +X.
Blender is +Z up, a character faces -Y, her left is +X: (x, y, z) of head space is (x, -z, y) in Blender. Both are
right-handed, so that the border is one rotation and angles keep their sign.

Cameras: OpenCV looks along +Z with +Y downwards, a Blender camera along -Z with +Y upwards.
Quaternions are w, x, y, z; axis-angle vectors are radians.
"""

from __future__ import annotations

from typing import Final

import numpy as np

HEAD_TO_BLENDER: Final = np.array(((1, 0, 0, 0), (0, 0, -1, 0), (0, 1, 0, 0), (0, 0, 0, 1)), np.float64)
BLENDER_TO_HEAD: Final = HEAD_TO_BLENDER.T.copy()
OPENCV_AXES: Final = np.diag((1.0, -1.0, -1.0, 1.0))
"""From the axes of an OpenCV camera to those of a Blender camera, and back."""

UPWARDS: Final = np.eye(3)
FORWARDS: Final = np.array(((1, 0, 0), (0, 0, -1), (0, 1, 0)), np.float64)
BONE_AXES: Final = {"root": UPWARDS, "neck": UPWARDS, "jaw": FORWARDS, "eye_L": FORWARDS, "eye_R": FORWARDS}
"""Columns: a bone's own x, y, z axes in head space. A bone lies along its y axis: the neck upwards, jaw and eyes out of
the face. All have head space's x axis, so that a positive x rotation nods, opens the mouth or looks down."""


def points_to_blender(points: np.ndarray) -> np.ndarray:
    """(..., 3) head space -> (..., 3) Blender space."""
    return np.stack((points[..., 0], -points[..., 2], points[..., 1]), -1)


def points_to_head(points: np.ndarray) -> np.ndarray:
    """(..., 3) Blender space -> (..., 3) head space."""
    return np.stack((points[..., 0], points[..., 2], -points[..., 1]), -1)


def transform_to_head(matrix: np.ndarray) -> np.ndarray:
    """(..., 4, 4) motion of Blender's world -> the same motion in head-space axes."""
    return BLENDER_TO_HEAD @ matrix @ HEAD_TO_BLENDER


def transform_to_blender(matrix: np.ndarray) -> np.ndarray:
    """(..., 4, 4) motion in head-space axes -> the same motion of Blender's world."""
    return HEAD_TO_BLENDER @ matrix @ BLENDER_TO_HEAD


def world_to_camera(matrix_world: np.ndarray) -> np.ndarray:
    """(4, 4) `matrix_world` of a Blender camera -> OpenCV world-to-camera (4, 4), its world in head-space axes.

    A camera's scale means nothing to Blender's view and is taken out.
    """
    placed = BLENDER_TO_HEAD @ np.asarray(matrix_world, np.float64) @ OPENCV_AXES
    turn = placed[:3, :3] / np.linalg.norm(placed[:3, :3], axis=0)
    result = np.eye(4)
    result[:3, :3] = turn.T
    result[:3, 3] = -turn.T @ placed[:3, 3]
    return result


def stage_of(head_to_camera: np.ndarray) -> np.ndarray:
    """(F, 4, 4) head to OpenCV camera -> (4, 4): where that camera's axes lie in Blender's world.

    Footage does not say which way is up, so the camera is held level and looks along +Y, as Blender's front view does;
    it stands where the performer's head is, on the whole, at the world's origin.
    """
    stage = np.array(((1, 0, 0, 0), (0, 0, 1, 0), (0, -1, 0, 0), (0, 0, 0, 1)), np.float64)
    stage[:3, 3] = -stage[:3, :3] @ np.nanmedian(head_to_camera[:, :3, 3].astype(np.float64), axis=0)
    return stage


def axis_angle_to_quaternion(axis_angle: np.ndarray) -> np.ndarray:
    """(..., 3) -> (..., 4)."""
    vector = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    # sin(t/2)/t by sinc, which is finite at no rotation.
    return np.concatenate((np.cos(angle / 2), vector * np.sinc(angle / (2 * np.pi)) / 2), -1)


def quaternion_to_axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """(..., 4), any sign and length -> (..., 3) of at most half a turn: q and -q are the same rotation."""
    quaternion = np.asarray(quaternion, np.float64)
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    sine = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[..., :1])
    return quaternion[..., 1:] * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0)


def matrix_to_quaternion(matrix: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotations -> (..., 4).

    The quaternion is the eigenvector of a symmetric matrix of the rotation's entries (Bar-Itzhack 2000), exact at half
    turns and forgiving where the matrix is not quite a rotation.
    """
    m = np.asarray(matrix, np.float64)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    rows = (
        (xx + yy + zz, wx, wy, wz),
        (wx, xx - yy - zz, xy, xz),
        (wy, xy, yy - xx - zz, yz),
        (wz, xz, yz, zz - xx - yy),
    )
    symmetric = np.stack([np.stack(row, -1) for row in rows], -2)
    quaternion = np.linalg.eigh(symmetric)[1][..., -1]
    return np.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def continuous(quaternions: np.ndarray) -> np.ndarray:
    """(F, 4) -> the same rotations with each sign nearest to its predecessor: keys are interpolated singly."""
    flips = np.where((quaternions[1:] * quaternions[:-1]).sum(-1) < 0, -1.0, 1.0)
    return quaternions * np.concatenate(((1.0,), np.cumprod(flips)))[:, None]
