"""Rotations of vertices that turn with the mesh around them.

Joints alone rotate a Gaussian by its skinning weights. At the corners of a mouth that opens, the rows of the lips'
vertices turn from across to down, while the jaw only tips them forward: Gaussians that are long along their row were
horizontal dashes there, and the rim of an open mouth looked torn. Such a vertex v takes the rotation that is nearest to

    sum over its neighbours of (posed edge) (edge at rest)^T / sum of |edge at rest|^2 + JOINT_SHARE R

with R its rotation by the joints, which decides where the edges lie in one plane or line. Where that matrix mirrors, R
is taken. `blender_addon/player`, the web page and docs/read_avatar.py do the same. Lids gained nothing by it, and the
whole face a tenth of a decibel on one clip of two, with ten times the vertices (bench/results/sliders.md).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..head.model import HeadModel
from ..head.rotations import matrix_to_quaternion, quaternion_to_matrix
from ..head.topology import mesh_edges

JOINT_SHARE: Final = 0.1
NEWTON_STEPS: Final = 8
"""Towards the nearest rotation: enough for seven digits where the edges lie nearly in one line."""
LEAST_DETERMINANT: Final = 1e-4
"""Of the matrix: a hundredth of what it has where all edges lie in one line."""
TINY: Final = 1e-12
"""Square metres: less than the edges of any vertex have together."""


class SurfaceTurns(NamedTuple):
    """M vertices that turn with the mesh, each with J neighbours: itself in place of those that it lacks."""

    vertices: Tensor
    """(M,) int64"""
    neighbours: Tensor
    """(M, J) int64"""

    def of_vertices(self, rest: Tensor, posed: Tensor, by_joints: Tensor) -> Tensor:
        """Unit quaternions (B, N, 4) from those `by_joints` (B, N, 4), for meshes `rest` (1 or B, N, 3) and `posed`
        (B, N, 3). Without gradients.
        """
        with torch.no_grad():
            before, after = (mesh[:, self.neighbours] - mesh[:, self.vertices, None] for mesh in (rest, posed))
            lengths = before.square().sum((-1, -2)).clamp_min(TINY)[..., None, None]
            own = by_joints[:, self.vertices]
            turned = nearest_rotations(
                after.transpose(-1, -2) @ before / lengths + JOINT_SHARE * quaternion_to_matrix(own), own
            )
            return by_joints.index_copy(1, self.vertices, turned)


def turning_lips(model: HeadModel, device: torch.device | str = "cpu") -> SurfaceTurns | None:
    """The vertices of the lips; None for a head without them."""
    lips, edges = model.regions["lips"], mesh_edges(model.faces)[0]
    both = np.concatenate((edges, edges[:, ::-1]))
    around = [both[both[:, 0] == vertex, 1] for vertex in lips]
    if not around:
        return None
    neighbours = np.repeat(lips[:, None], max(map(len, around)), 1)
    for row, found in zip(neighbours, around, strict=True):
        row[: len(found)] = found
    return SurfaceTurns(*(torch.as_tensor(part.astype(np.int64), device=device) for part in (lips, neighbours)))


def nearest_rotations(matrices: Tensor, instead: Tensor) -> Tensor:
    """The rotations nearest to `matrices` (..., 3, 3), as unit quaternions (..., 4); `instead` of those that mirror.

    Newton's iteration for the polar decomposition (Higham 1986), because a step on a GPU would wait for a singular
    value decomposition.
    """
    determinant = _determinant(matrices)[..., None, None]
    proper = determinant > LEAST_DETERMINANT
    x = torch.where(
        proper, matrices / determinant.clamp_min(LEAST_DETERMINANT).pow(1 / 3), quaternion_to_matrix(instead)
    )
    for _ in range(NEWTON_STEPS):
        x = (x + _cofactors(x) / _determinant(x)[..., None, None]) / 2
    return torch.where(proper[..., 0], matrix_to_quaternion(x), instead)


def _cofactors(matrices: Tensor) -> Tensor:
    a, b, c = matrices.unbind(-2)
    cross = torch.linalg.cross
    return torch.stack((cross(b, c), cross(c, a), cross(a, b)), -2)


def _determinant(matrices: Tensor) -> Tensor:
    a, b, c = matrices.unbind(-2)
    return (a * torch.linalg.cross(b, c)).sum(-1)
