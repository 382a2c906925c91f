"""Poses the head's vertices and joints: expression, pose correctives and linear blend skinning, as
`backend.head.forward` does it. Planar arrays; head space, metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..rig.rotations import axis_angle_to_quaternion, matrix_to_quaternion, quaternion_to_matrix
from .surface_turns import SurfaceTurns

PARENTS: Final = (-1, 0, 1, 1, 1)
ROOT, NECK, JAW, EYE_L, EYE_R = range(5)


@dataclass(frozen=True)
class HeadDeltas:
    """What expressions and pose correctives add to the vertices at rest; float32, E expressions, P correctives."""

    expression: np.ndarray
    """(E, 3, N) metres for a coefficient of 1."""
    corrective: np.ndarray
    """(P, 3, N) metres for an entry of 1."""
    corrective_index: np.ndarray
    """(P,) which of the 36 entries of R - I of neck, jaw, eye_L and eye_R, row-major, scales each corrective."""


@dataclass(frozen=True)
class PosedHead:
    """A head in one pose."""

    vertices: np.ndarray
    """(3, N) float32."""
    joints: np.ndarray
    """(5, 3)"""
    turns: np.ndarray
    """(5, 3, 3) rotation of each joint from rest, its parents' included."""
    quaternions: np.ndarray
    """(4, N) float32 w, x, y, z, unit: each vertex's rotation from rest, blended with the skinning weights or
    that of the mesh around it."""


def pose_head(
    vertices: np.ndarray,
    joints: np.ndarray,
    skinning: np.ndarray,
    deltas: HeadDeltas,
    expression: np.ndarray,
    rotations: np.ndarray,
    surface: SurfaceTurns | None = None,
) -> PosedHead:
    """Vertices (3, N) and joints (5, 3) at rest, weights (5, N), coefficients (E,), rotations (5, 3) axis-angle. The
    vertices of `surface` turn with the mesh around them, all others with the joints.
    """
    own = quaternion_to_matrix(axis_angle_to_quaternion(rotations))
    count = vertices.shape[1]
    shaped = vertices + (expression.astype(np.float32) @ deltas.expression.reshape(len(expression), -1)).reshape(3, -1)
    if len(deltas.corrective):
        entries = (own[NECK:] - np.eye(3)).reshape(-1)[deltas.corrective_index].astype(np.float32)
        shaped += (entries @ deltas.corrective.reshape(len(entries), -1)).reshape(3, -1)
    turns, shifts = np.empty((5, 3, 3)), np.empty((5, 3))
    for joint, parent in enumerate(PARENTS):
        turn, shift = own[joint], joints[joint] - own[joint] @ joints[joint]
        if parent >= 0:
            turn, shift = turns[parent] @ turn, turns[parent] @ shift + shifts[parent]
        turns[joint], shifts[joint] = turn, shift
    transforms = np.concatenate((turns, shifts[:, :, None]), 2).astype(np.float32)
    blended = (transforms.reshape(5, 12).T @ skinning).reshape(3, 4, count)
    posed = (blended[:, :3] * shaped).sum(1) + blended[:, 3]
    quaternions = blend_rotations(turns, skinning)
    if surface is not None:
        surface.turn(quaternions, posed)
    return PosedHead(posed, np.einsum("jab,jb->ja", turns, joints) + shifts, turns, quaternions)


def blend_rotations(turns: np.ndarray, skinning: np.ndarray) -> np.ndarray:
    """Joint rotations (J, 3, 3), weights (J, N) -> (4, N): the weighted average of quaternions whose signs are aligned
    with those of the second, the neck.
    """
    quaternions = matrix_to_quaternion(turns)
    quaternions = np.where((quaternions @ quaternions[NECK])[:, None] < 0, -quaternions, quaternions)
    blended = quaternions.T.astype(np.float32) @ skinning
    return blended / np.maximum(np.sqrt(np.einsum("cn,cn->n", blended, blended)), 1e-12)
