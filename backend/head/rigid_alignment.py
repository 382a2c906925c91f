"""Least-squares rotations and similarity transforms between corresponding points, and the nearest rotation to a matrix.

Finds the rotation R, the scale s and the translation t that minimise

    sum_i w_i | s R x_i + t - y_i |^2

in closed form from a singular value decomposition (Kabsch 1976 for the rotation alone; Umeyama 1991, "Least-squares
estimation of transformation parameters between two point patterns", for the scale and for the sign correction that
excludes reflections). All functions take NumPy arrays, work in float64 and accept any leading batch dimensions. Code on
PyTorch tensors uses `roma.rigid_points_registration` and `roma.special_procrustes`, which solve the same problems.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Similarity(NamedTuple):
    """y = scale * rotation @ x + translation."""

    scale: np.ndarray | float
    """(...,)"""
    rotation: np.ndarray
    """(..., 3, 3)"""
    translation: np.ndarray
    """(..., 3)"""


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The rotations (..., 3, 3) that are nearest to matrices (..., 3, 3) in the Frobenius norm."""
    return _rotation_and_singular_values(np.asarray(matrix, np.float64))[0]


def fit_rotation(source: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The rotations about the origin (..., 3, 3) that take points `source` (..., P, 3) nearest to `target` (..., P, 3).

    `weights` (..., P) are not negative; without them all points count the same.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if weights is not None:
        target = weights[..., None] * target
    return nearest_rotation(np.swapaxes(target, -1, -2) @ source)


def fit_similarity(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None, with_scale: bool = True
) -> Similarity:
    """The similarity transforms that take points `source` (..., P, 3) nearest to `target` (..., P, 3).

    `weights` (..., P) are not negative and not all zero; without them all points count the same. Without `with_scale`
    the transform is rigid: its scale is 1.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if weights is None:
        weights = np.ones(source.shape[:-1])
    share = (weights / weights.sum(-1, keepdims=True))[..., None]
    source_mean, target_mean = (share * source).sum(-2), (share * target).sum(-2)
    source_centred, target_centred = source - source_mean[..., None, :], target - target_mean[..., None, :]
    covariance = np.swapaxes(share * target_centred, -1, -2) @ source_centred
    rotation, singular_values = _rotation_and_singular_values(covariance)
    scale = np.ones(covariance.shape[:-2])
    if with_scale:
        scale = singular_values.sum(-1) / (share * source_centred**2).sum((-2, -1))
    rotated_mean = (rotation @ source_mean[..., None])[..., 0]
    return Similarity(scale, rotation, target_mean - scale[..., None] * rotated_mean)


def _rotation_and_singular_values(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest rotations (..., 3, 3), and singular values (..., 3), the smallest negated where U V^T is a reflection."""
    u, singular_values, vt = np.linalg.svd(matrix)
    signs = np.ones(singular_values.shape)
    signs[..., 2] = np.sign(np.linalg.det(u @ vt))
    return (u * signs[..., None, :]) @ vt, singular_values * signs
