"""Conversions between rotations for arrays with any number of leading dimensions.

`mathutils` converts one rotation at a time and stores single precision; these functions take a whole performance or all
splats at once. Quaternions are w, x, y, z; axis-angle vectors are in radians.
"""

from __future__ import annotations

import numpy as np


def axis_angle_to_quaternion(axis_angle: np.ndarray) -> np.ndarray:
    """(..., 3) -> (..., 4) unit quaternions."""
    vector = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    # sin(angle / 2) / angle, written as a sinc, which is finite for a rotation by zero.
    return np.concatenate((np.cos(angle / 2), vector * np.sinc(angle / (2 * np.pi)) / 2), -1)


def quaternion_to_axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """(..., 4) of any length and sign -> (..., 3), angles from 0 to pi. q and -q are the same rotation."""
    quaternion = np.asarray(quaternion, np.float64)
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    sine = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[..., :1])
    return quaternion[..., 1:] * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0)


def matrix_to_quaternion(matrix: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotation matrices -> (..., 4) unit quaternions with w >= 0.

    The quaternion is the eigenvector to the largest eigenvalue of a symmetric matrix of the rotation's entries
    (Bar-Itzhack 2000). This is exact for rotations by pi, and gives a good rotation where the matrix is not quite
    orthogonal.
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


def quaternion_to_matrix(quaternions: np.ndarray) -> np.ndarray:
    """(G, 4) of any length -> (G, 3, 3) rotation matrices of the same dtype."""
    return quaternion_rows(quaternions.T).transpose(2, 0, 1)


def quaternion_rows(quaternions: np.ndarray) -> np.ndarray:
    """(4, G) of any length -> (3, 3, G): the rotation matrices' entries as rows of G numbers, of the same dtype."""
    w, x, y, z = quaternions
    length = np.maximum(np.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    w, x, y, z = w / length, x / length, y / length, z / length
    return np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
    )


def quaternion_multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product of one quaternion (4,) with many (G, 4): the rotation `b` followed by `a`. In the dtype of `b`."""
    w, x, y, z = a
    matrix = np.array(((w, -x, -y, -z), (x, w, -z, y), (y, z, w, -x), (z, -y, x, w)), b.dtype)
    return b @ matrix.T


def align_signs(quaternions: np.ndarray) -> np.ndarray:
    """(F, 4) -> the same rotations, each with the sign that brings it nearest to its predecessor. Blender interpolates
    the components of keyframes separately, so a change of sign would be a full turn between two frames.
    """
    flips = np.where((quaternions[1:] * quaternions[:-1]).sum(-1) < 0, -1.0, 1.0)
    return quaternions * np.concatenate(((1.0,), np.cumprod(flips)))[:, None]
