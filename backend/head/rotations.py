"""Rotations as axis-angle vectors (tracks), matrices (skinning), quaternions w, x, y, z (splats), all differentiable.

Every function takes any leading batch dimensions and has finite gradients at the identity, which is where every
track and every rest pose starts. The square roots behind an angle have an infinite slope at zero, so the small-angle
branch is a series and the other branch is fed a harmless number there (`torch.where` alone would let a NaN through).
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 1e-4
"""Squared angle below which series replace quotients; their error is then under 1e-14, below float64's needs here."""


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """(..., 3) radians -> (..., 3, 3) by Rodrigues' formula, R = I + (sin t / t) K + ((1 - cos t) / t^2) K^2."""
    squared = (axis_angle * axis_angle).sum(-1, keepdim=True)
    small = squared < _SMALL
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    # 2 sin^2(t/2) instead of 1 - cos t, which cancels in float32.
    first = torch.where(small, 1 - squared / 6 + squared * squared / 120, angle.sin() / angle)
    second = torch.where(small, 0.5 - squared / 24 + squared * squared / 720, 2 * (angle / 2).sin() ** 2 / safe)
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    outer = axis_angle.unsqueeze(-1) * axis_angle.unsqueeze(-2)
    square = outer - squared.unsqueeze(-1) * identity
    return identity + first.unsqueeze(-1) * cross + second.unsqueeze(-1) * square


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """(..., 3, 3) rotation -> (..., 4) unit quaternion w, x, y, z with w >= 0.

    Each of the four components can be had from the diagonal by a square root and the others by division through it;
    the largest one is taken as the divisor (Shepperd 1978), so the result is exact at half turns too.
    """
    m = matrix
    trace_terms = torch.stack(
        (
            1 + m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2],
            1 + m[..., 0, 0] - m[..., 1, 1] - m[..., 2, 2],
            1 - m[..., 0, 0] + m[..., 1, 1] - m[..., 2, 2],
            1 - m[..., 0, 0] - m[..., 1, 1] + m[..., 2, 2],
        ),
        -1,
    )
    """Four times the squares of w, x, y, z; they sum to four, so the largest is at least one."""
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    products = torch.stack(
        (
            torch.stack((trace_terms[..., 0], wx, wy, wz), -1),
            torch.stack((wx, trace_terms[..., 1], xy, xz), -1),
            torch.stack((wy, xy, trace_terms[..., 2], yz), -1),
            torch.stack((wz, xz, yz, trace_terms[..., 3]), -1),
        ),
        -2,
    )
    """Row i: four times the products of component i with w, x, y, z."""
    largest = trace_terms.detach().argmax(-1)
    row = products.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 4)).squeeze(-2)
    squared = trace_terms.gather(-1, largest[..., None])
    quaternion = row / (2 * squared.sqrt())
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


def quaternion_to_axis_angle(quaternion: Tensor) -> Tensor:
    """(..., 4) unit w, x, y, z -> (..., 3) radians, angle in [0, pi]."""
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    w, vector = quaternion[..., :1], quaternion[..., 1:]
    squared = (vector * vector).sum(-1, keepdim=True)
    small = squared < _SMALL
    length = torch.where(small, torch.ones_like(squared), squared).sqrt()
    safe_w = torch.where(small, w, torch.ones_like(w))
    ratio = squared / (safe_w * safe_w)
    series = 2 / safe_w * (1 - ratio / 3 + ratio * ratio / 5)  # atan(s / w) / s
    return vector * torch.where(small, series, 2 * torch.atan2(length, w) / length)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """(..., 3, 3) rotation -> (..., 3) radians, angle in [0, pi]."""
    return quaternion_to_axis_angle(matrix_to_quaternion(matrix))


def axis_angle_to_quaternion(axis_angle: Tensor) -> Tensor:
    """(..., 3) radians -> (..., 4) unit w, x, y, z."""
    squared = (axis_angle * axis_angle).sum(-1, keepdim=True)
    small = squared < _SMALL
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    cosine = torch.where(small, 1 - squared / 8 + squared * squared / 384, (angle / 2).cos())
    factor = torch.where(small, 0.5 - squared / 48 + squared * squared / 3840, (angle / 2).sin() / angle)
    return torch.cat((cosine, factor * axis_angle), -1)


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
