"""Projection of Gaussians to ellipses in the image (EWA splatting), forward and backward.

A projected shape is stored as the upper triangular W with WᵀW = (log₂e / 2) Σ'⁻¹, where Σ' is the image-space
covariance. |W (mean - pixel)|² is then the base-2 exponent of the falloff and, unlike the usual expanded quadratic
form, cannot become negative by rounding. Formulas and constants are those of `reference`, against which tests compare
this module. All arithmetic is float64: there are few numbers, and long thin Gaussians need the precision.
"""

from __future__ import annotations

import math

import numpy as np

from .cpu_tiles import (
    BEND,
    BLUE,
    DEPTH,
    GREEN,
    HALF_HEIGHT,
    HALF_WIDTH,
    LOG_OPACITY,
    MIDDLE,
    RED,
    SLOPE,
    TILE_HEIGHT,
    TILE_WIDTH,
    TILT,
    W00,
    W01,
    W11,
    X,
    Y,
    tile_range,
)  # fmt: skip
from .jit import kernel
from .reference import ALPHA_MIN, LOW_PASS, MARGIN, NEAR

WHITEN = math.sqrt(0.5 / math.log(2.0))
"""√(log₂e / 2), the factor by which |W d|² is a base-2 exponent."""

SUMS = 10
"""Number of sums that the backward pass of blending returns for each Gaussian. With s the derivative by the (natural)
exponent at a pixel and (u, v) = W (mean - pixel): Σs, Σsu, Σsv, Σsuu, Σsuv, Σsvv, then the derivatives by red, green,
blue and depth."""


@kernel()
def _rotation_of(q0, q1, q2, q3):
    """Quaternion (w, x, y, z) → its rotation's nine entries, row by row, and one over its length."""
    scale = 1.0 / max(math.sqrt(q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3), 1e-12)
    w, x, y, z = q0 * scale, q1 * scale, q2 * scale, q3 * scale
    return (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        scale,
    )  # fmt: skip


@kernel()
def _lens_of(intrinsics, width, height):
    """(fx, fy, cx, cy), then the limits (lowest and highest x/z, then y/z) to which the slope in the Jacobian is
    clamped.

    They are the image's edges plus a margin, beyond which EWA's linear approximation diverges.
    """
    lens = np.empty(8)
    for k, size in enumerate((width, height)):
        focal = intrinsics[k, k]
        centre = intrinsics[k, 2]
        spread = MARGIN * 0.5 * size / focal
        lens[k] = focal
        lens[2 + k] = centre
        lens[4 + 2 * k] = -(centre / focal + spread)
        lens[5 + 2 * k] = (size - centre) / focal + spread
    return lens


@kernel(fast=True)
def _project_one(mean, quaternion, scale, opacity, lens, view, out):
    """Fill the shape columns of one projected Gaussian; False where it is not to be drawn. Float64 inside."""
    z = view[2, 0] * mean[0] + view[2, 1] * mean[1] + view[2, 2] * mean[2] + view[2, 3]
    if not (z >= NEAR and z < 1e10 and opacity >= ALPHA_MIN):
        return False
    x = view[0, 0] * mean[0] + view[0, 1] * mean[1] + view[0, 2] * mean[2] + view[0, 3]
    y = view[1, 0] * mean[0] + view[1, 1] * mean[1] + view[1, 2] * mean[2] + view[1, 3]
    per_z = 1.0 / z
    slope_x = x * per_z
    slope_y = y * per_z
    j00 = lens[0] * per_z
    j11 = lens[1] * per_z
    j02 = -j00 * min(max(slope_x, lens[4]), lens[5])
    j12 = -j11 * min(max(slope_y, lens[6]), lens[7])
    rotation = _rotation_of(quaternion[0], quaternion[1], quaternion[2], quaternion[3])
    a = LOW_PASS
    b = 0.0
    c = LOW_PASS
    for k in range(3):
        m0 = (view[0, 0] * rotation[k] + view[0, 1] * rotation[3 + k] + view[0, 2] * rotation[6 + k]) * scale[k]
        m1 = (view[1, 0] * rotation[k] + view[1, 1] * rotation[3 + k] + view[1, 2] * rotation[6 + k]) * scale[k]
        m2 = (view[2, 0] * rotation[k] + view[2, 1] * rotation[3 + k] + view[2, 2] * rotation[6 + k]) * scale[k]
        p0 = j00 * m0 + j02 * m2
        p1 = j11 * m1 + j12 * m2
        a += p0 * p0
        b += p0 * p1
        c += p1 * p1
    determinant = a * c - b * b
    if not (determinant > 0.0 and determinant < 1e30):
        return False
    high = math.sqrt(c)
    per_high = 1.0 / high
    per_a = 1.0 / a
    root = math.sqrt(determinant)
    per_root = WHITEN / root
    out[X] = lens[0] * slope_x + lens[2]
    out[Y] = lens[1] * slope_y + lens[3]
    out[W00] = per_root * high
    out[W01] = -per_root * b * per_high
    out[W11] = WHITEN * per_high
    log_opacity = math.log2(opacity)
    out[LOG_OPACITY] = log_opacity
    out[DEPTH] = z
    # Extent at which opacity · exp(-d²/2) falls below ALPHA_MIN (Radl et al. 2024, arXiv 2402.00525, B.2), plus a small
    # tolerance.
    reach = 2.0 * math.log(2.0) * max(log_opacity - math.log2(ALPHA_MIN), 0.0)
    extent = math.sqrt(reach)
    out[HALF_WIDTH] = extent * math.sqrt(a) + 1e-3
    out[HALF_HEIGHT] = extent * high + 1e-3
    out[SLOPE] = b * per_a
    out[MIDDLE] = reach * determinant * per_a * (1.0 + 1e-5)
    out[BEND] = determinant * per_a * per_a
    out[TILT] = extent * b * per_high
    return True


@kernel()
def project(
    part, parts, means, quaternions, scales, opacities, colors, intrinsics, views, width, height, table, touched
):
    """Fill a part of `table` (B, G, FIELDS) and of `touched` (B, G), the number of tiles in which each Gaussian is
    drawn.
    """
    images, count = opacities.shape
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    rows = (height + TILE_HEIGHT - 1) // TILE_HEIGHT
    for b in range(images):
        view = views[b].astype(np.float64)
        lens = _lens_of(intrinsics[b].astype(np.float64), width, height)
        for g in range(count * part // parts, count * (part + 1) // parts):
            out = table[b, g]
            touched[b, g] = 0
            drawn = _project_one(means[b, g], quaternions[b, g], scales[b, g], opacities[b, g], lens, view, out)
            if drawn:
                c0, c1, r0, r1 = tile_range(out, columns, rows)
                touched[b, g] = (c1 - c0) * (r1 - r0)
                out[RED] = colors[b, g, 0]
                out[GREEN] = colors[b, g, 1]
                out[BLUE] = colors[b, g, 2]


@kernel(fast=True)
def _project_one_backward(
    mean, quaternion, scale, opacity, lens, view, row, total, r, to_mean, to_quaternion, to_scale
):
    """Backpropagate one Gaussian's summed derivatives `total` (SUMS) to its parameters; returns the one by opacity.
    Float64.

    `r` is scratch memory for nine numbers, the derivative by the Gaussian's rotation.
    """
    x = view[0, 0] * mean[0] + view[0, 1] * mean[1] + view[0, 2] * mean[2] + view[0, 3]
    y = view[1, 0] * mean[0] + view[1, 1] * mean[1] + view[1, 2] * mean[2] + view[1, 3]
    z = view[2, 0] * mean[0] + view[2, 1] * mean[1] + view[2, 2] * mean[2] + view[2, 3]
    per_z = 1.0 / z
    slope_x = x * per_z
    slope_y = y * per_z
    frozen_x = min(max(slope_x, lens[4]), lens[5])
    frozen_y = min(max(slope_y, lens[6]), lens[7])
    j00 = lens[0] * per_z
    j11 = lens[1] * per_z
    j02 = -j00 * frozen_x
    j12 = -j11 * frozen_y

    # Exponent = ½ dᵀ Σ'⁻¹ d, d = mean - pixel: by the mean it is Σ'⁻¹ d, by Σ' it is -½ Σ'⁻¹ d dᵀ Σ'⁻¹. With
    # WᵀW = WHITEN² Σ'⁻¹ both are products of W with the whitened sums.
    unit = 1.0 / (WHITEN * WHITEN)
    w00, w01, w11 = float(row[W00]), float(row[W01]), float(row[W11])
    by_x = unit * w00 * total[1]
    by_y = unit * (w01 * total[1] + w11 * total[2])
    half = -0.5 * unit * unit
    g00 = half * w00 * w00 * total[3]
    g01 = half * w00 * (w01 * total[3] + w11 * total[4])
    g11 = half * (w01 * w01 * total[3] + 2.0 * w01 * w11 * total[4] + w11 * w11 * total[5])

    rotation = _rotation_of(quaternion[0], quaternion[1], quaternion[2], quaternion[3])
    by_j00 = 0.0
    by_j02 = 0.0
    by_j11 = 0.0
    by_j12 = 0.0
    for k in range(3):
        n0 = view[0, 0] * rotation[k] + view[0, 1] * rotation[3 + k] + view[0, 2] * rotation[6 + k]
        n1 = view[1, 0] * rotation[k] + view[1, 1] * rotation[3 + k] + view[1, 2] * rotation[6 + k]
        n2 = view[2, 0] * rotation[k] + view[2, 1] * rotation[3 + k] + view[2, 2] * rotation[6 + k]
        p0 = (j00 * n0 + j02 * n2) * scale[k]
        p1 = (j11 * n1 + j12 * n2) * scale[k]
        # Σ' = P Pᵀ + low pass, P = J N diag(scale), N = view rotation times Gaussian rotation.
        by_p0 = 2.0 * (g00 * p0 + g01 * p1)
        by_p1 = 2.0 * (g01 * p0 + g11 * p1)
        by_j00 += by_p0 * n0 * scale[k]
        by_j02 += by_p0 * n2 * scale[k]
        by_j11 += by_p1 * n1 * scale[k]
        by_j12 += by_p1 * n2 * scale[k]
        by_n0 = j00 * by_p0
        by_n1 = j11 * by_p1
        by_n2 = j02 * by_p0 + j12 * by_p1
        to_scale[k] = by_n0 * n0 + by_n1 * n1 + by_n2 * n2
        by_n0 *= scale[k]
        by_n1 *= scale[k]
        by_n2 *= scale[k]
        r[k] = view[0, 0] * by_n0 + view[1, 0] * by_n1 + view[2, 0] * by_n2
        r[3 + k] = view[0, 1] * by_n0 + view[1, 1] * by_n1 + view[2, 1] * by_n2
        r[6 + k] = view[0, 2] * by_n0 + view[1, 2] * by_n1 + view[2, 2] * by_n2

    length = rotation[9]
    qw, qx, qy, qz = quaternion[0] * length, quaternion[1] * length, quaternion[2] * length, quaternion[3] * length
    by_w = 2.0 * (qx * (r[7] - r[5]) + qy * (r[2] - r[6]) + qz * (r[3] - r[1]))
    by_qx = 2.0 * (-2.0 * qx * (r[4] + r[8]) + qy * (r[1] + r[3]) + qz * (r[2] + r[6]) + qw * (r[7] - r[5]))
    by_qy = 2.0 * (qx * (r[1] + r[3]) - 2.0 * qy * (r[0] + r[8]) + qz * (r[5] + r[7]) + qw * (r[2] - r[6]))
    by_qz = 2.0 * (qx * (r[2] + r[6]) + qy * (r[5] + r[7]) - 2.0 * qz * (r[0] + r[4]) + qw * (r[3] - r[1]))
    along = by_w * qw + by_qx * qx + by_qy * qy + by_qz * qz
    to_quaternion[0] = (by_w - along * qw) * length
    to_quaternion[1] = (by_qx - along * qx) * length
    to_quaternion[2] = (by_qy - along * qy) * length
    to_quaternion[3] = (by_qz - along * qz) * length

    # Camera-space centre, through the image's centre, the Jacobian and the depth. Where the slope is frozen, the
    # Jacobian's last column depends on z alone.
    by_cx = j00 * by_x
    by_cy = j11 * by_y
    by_cz = total[9] - j00 * slope_x * by_x - j11 * slope_y * by_y - (j00 * by_j00 + j11 * by_j11) * per_z
    if frozen_x == slope_x:
        by_cx -= j00 * per_z * by_j02
        by_cz -= 2.0 * j02 * per_z * by_j02
    else:
        by_cz -= j02 * per_z * by_j02
    if frozen_y == slope_y:
        by_cy -= j11 * per_z * by_j12
        by_cz -= 2.0 * j12 * per_z * by_j12
    else:
        by_cz -= j12 * per_z * by_j12
    to_mean[0] = view[0, 0] * by_cx + view[1, 0] * by_cy + view[2, 0] * by_cz
    to_mean[1] = view[0, 1] * by_cx + view[1, 1] * by_cy + view[2, 1] * by_cz
    to_mean[2] = view[0, 2] * by_cx + view[1, 2] * by_cy + view[2, 2] * by_cz
    return -total[0] / opacity


@kernel()
def project_backward(
    part, parts, means, quaternions, scales, opacities, intrinsics, views, width, height, table, touched, first, slots,
    sums, to_means, to_quaternions, to_scales, to_opacities, to_colors,
):  # fmt: skip
    """Sum over the copies of a part of the Gaussians and fill their gradients; zero for those that are not drawn."""
    images, count = opacities.shape
    total = np.empty(SUMS)
    by_rotation = np.empty(9)
    for b in range(images):
        view = views[b].astype(np.float64)
        lens = _lens_of(intrinsics[b].astype(np.float64), width, height)
        for g in range(count * part // parts, count * (part + 1) // parts):
            if touched[b, g] == 0:
                to_means[b, g] = 0.0
                to_quaternions[b, g] = 0.0
                to_scales[b, g] = 0.0
                to_opacities[b, g] = 0.0
                to_colors[b, g] = 0.0
                continue
            total[:] = 0.0
            for copy in range(first[b, g], first[b, g] + touched[b, g]):
                for k in range(SUMS):
                    total[k] += sums[slots[copy], k]
            to_opacities[b, g] = _project_one_backward(
                means[b, g], quaternions[b, g], scales[b, g], opacities[b, g], lens, view,
                table[b, g], total, by_rotation, to_means[b, g], to_quaternions[b, g], to_scales[b, g],
            )  # fmt: skip
            for k in range(3):
                to_colors[b, g, k] = total[6 + k]
