"""Rotations of vertices that turn with the mesh around them, as in `backend.avatar.surface_turns`. Planar arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from ..rig.rotations import quaternion_rows

JOINT_SHARE: Final = np.float32(0.1)
NEWTON_STEPS: Final = 8
LEAST_DETERMINANT: Final = np.float32(1e-4)
"""All three as in `backend.avatar.surface_turns`."""
TINY: Final = np.float32(1e-12)


@dataclass(frozen=True)
class SurfaceTurns:
    """M vertices with J neighbours each, on a head of N."""

    vertices: np.ndarray
    """(M,)"""
    neighbours: np.ndarray
    """(J, M)"""
    rest: np.ndarray
    """(3, N) metres: the head at rest."""

    @cached_property
    def _edges(self) -> np.ndarray:
        """(3, J, M) at rest, divided by the sum of their squares."""
        edges = self.rest[:, self.neighbours] - self.rest[:, None, self.vertices]
        return edges / np.maximum(np.square(edges).sum((0, 1)), TINY)

    def turn(self, quaternions: np.ndarray, posed: np.ndarray) -> None:
        """Replaces the turning vertices' rotations by joints in `quaternions` (4, N), for vertices `posed` (3, N)."""
        by_joints = quaternions[:, self.vertices]
        edges = posed[:, self.neighbours] - posed[:, None, self.vertices]
        joints = quaternion_rows(by_joints)
        matrices = np.einsum("ajm,bjm->abm", edges, self._edges) + JOINT_SHARE * joints
        determinant = _determinant(matrices, _cofactors(matrices))
        proper = determinant > LEAST_DETERMINANT
        x = np.where(proper, matrices / np.cbrt(np.maximum(determinant, LEAST_DETERMINANT)), joints)
        for _ in range(NEWTON_STEPS):
            cofactors = _cofactors(x)
            x = (x + cofactors / _determinant(x, cofactors)) / 2
        quaternions[:, self.vertices] = np.where(proper, _quaternions(x), by_joints)


def _cofactors(m: np.ndarray) -> np.ndarray:
    """(3, 3, M) of (3, 3, M): the cross products of its rows."""
    (a, b, c), (d, e, f), (g, h, i) = m
    return np.array(
        (
            (e * i - f * h, f * g - d * i, d * h - e * g),
            (c * h - b * i, a * i - c * g, b * g - a * h),
            (b * f - c * e, c * d - a * f, a * e - b * d),
        )
    )


def _determinant(m: np.ndarray, cofactors: np.ndarray) -> np.ndarray:
    return (m[0] * cofactors[0]).sum(0)


def _quaternions(m: np.ndarray) -> np.ndarray:
    """Rotations (3, 3, M) -> (4, M): of Shepperd's four solutions the one that divides by the largest number."""
    x, y, z = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    xy, xz, yz = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
    a, b, c = m[0, 0], m[1, 1], m[2, 2]
    solutions = np.array(
        (
            (1 + a + b + c, x, y, z),
            (x, 1 + a - b - c, xy, xz),
            (y, xy, 1 - a + b - c, yz),
            (z, xz, yz, 1 - a - b + c),
        )
    )
    largest = solutions[range(4), range(4)].argmax(0)
    chosen = solutions[largest, :, np.arange(m.shape[2])].T
    return chosen / np.maximum(np.sqrt(np.square(chosen).sum(0)), TINY)
