"""Rotations as axis-angle vectors (tracks), matrices (skinning) and quaternions w, x, y, z (splats); differentiable.

Conversions, except `matrix_to_quaternion`, are those of RoMa (Brégier 2021, "Deep Regression on Manifolds: A 3D
Rotation Case Study"), adapted from its quaternions x, y, z, w to ours. Every function takes any leading batch
dimensions and has finite gradients at the identity, where every track and every rest pose starts. NumPy code uses
`scipy.spatial.transform.Rotation` instead.

`quaternion_multiply` and `quaternion_to_matrix` are written out here because they run over all Gaussians in every
training step: for 20,000 of them, RoMa's product with the reordered components takes twice as long (0.66 ms in place of
0.31 ms forward, 2.6 ms in place of 1.2 ms with the backward pass), and its matrix takes 1.2 times as long.
"""

from __future__ import annotations

import roma
import torch
from torch import Tensor


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """(..., 3) radians -> (..., 3, 3)."""
    return roma.rotvec_to_rotmat(axis_angle)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """(..., 3, 3) rotation -> (..., 3) radians, angle in [0, pi]."""
    return roma.unitquat_to_rotvec(matrix_to_quaternion(matrix).roll(-1, -1))


def axis_angle_to_quaternion(axis_angle: Tensor) -> Tensor:
    """(..., 3) radians -> (..., 4) unit w, x, y, z."""
    return roma.rotvec_to_unitquat(axis_angle).roll(1, -1)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """(..., 3, 3) rotation -> (..., 4) unit w, x, y, z with w >= 0.

    Shepperd 1978, "Quaternion from Rotation Matrix": row i of `candidates` is 4 q_i q, and the row with the largest
    4 q_i^2 is normalised. RoMa 1.6 selects rows by their indices, for which a training step would wait for the GPU, and
    later versions of it take 1.4 seconds more to start, because they import PyTorch's compiler.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in matrix.unbind(-2))
    candidates = torch.stack(
        (
            *(1 + xx + yy + zz, zy - yz, xz - zx, yx - xy),
            *(zy - yz, 1 + xx - yy - zz, yx + xy, xz + zx),
            *(xz - zx, yx + xy, 1 - xx + yy - zz, zy + yz),
            *(yx - xy, xz + zx, zy + yz, 1 - xx - yy + zz),
        ),
        -1,
    ).unflatten(-1, (4, 4))
    largest = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = candidates.take_along_dim(largest[..., None, None], -2).squeeze(-2)
    quaternion = chosen / chosen.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """(..., 4) w, x, y, z of any length but zero -> (..., 3, 3)."""
    w, x, y, z = quaternion.unbind(-1)
    scale = 2 / (quaternion * quaternion).sum(-1)
    return torch.stack(
        (
            1 - scale * (y * y + z * z),
            scale * (x * y - z * w),
            scale * (x * z + y * w),
            scale * (x * y + z * w),
            1 - scale * (x * x + z * z),
            scale * (y * z - x * w),
            scale * (x * z - y * w),
            scale * (y * z + x * w),
            1 - scale * (x * x + y * y),
        ),
        -1,
    ).unflatten(-1, (3, 3))


def quaternion_multiply(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton product of (..., 4) w, x, y, z: rotation `right` first, then `left`. Leading dimensions broadcast."""
    aw, ax, ay, az = left.unbind(-1)
    bw, bx, by, bz = right.unbind(-1)
    return torch.stack(
        (
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ),
        -1,
    )
