"""The backward half of the CPU rasteriser: derivatives of blending and of projection, written out by hand.

Blending is walked front to back a second time, which repeats exactly the decisions of the first. Behind every Gaussian
of a pixel one needs what all later ones contribute; that is the finished pixel less what has been blended so far
(`rest` below), and since only its product with the incoming gradient matters, one number a pixel carries it.

Each copy of a Gaussian in a tile writes its ten sums to a place of its own and they are added up afterwards, so that
results do not depend on how threads were scheduled.
"""

from __future__ import annotations

import math

import numpy as np

from .cpu_forward import (
    AREA, BLUE, DEPTH, GREEN, LOG_OPACITY, RED, TILE_WIDTH, TILE_HEIGHT, W00, W01, W11, WHITEN, X, Y,
    lens_of, rotation_of,
)  # fmt: skip
from .jit import exp2_of_negative, kernel
from .reference import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN

# Sums that one copy of a Gaussian hands back, with s the derivative by the (natural) exponent at a pixel and (u, v)
# = W (mean - pixel): Σs, Σsu, Σsv, Σsuu, Σsuv, Σsvv, then the derivatives by red, green, blue and depth.
SUMS = 10

_LOG_ALPHA_MIN = np.float32(math.log2(ALPHA_MIN))
_ALPHA_MAX = np.float32(ALPHA_MAX)
_T_MIN = np.float32(TRANSMITTANCE_MIN)
_WIDE = np.uint64(TILE_WIDTH)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_FLOOR = np.float32(-100.0)

# Rows of a tile's scratch: pixel centres, transmittance (zero once the pixel has ended), incoming gradients, `rest`.
_PX, _PY, _OPEN, _R, _G, _B, _D, _REST = (np.uint64(k) * AREA for k in range(8))
_SCRATCH = 8 * TILE_WIDTH * TILE_HEIGHT


@kernel(fast=True)
def _blend_tile_backward(table, ids, spans, start, end, left, top, scratch, sums):
    for k in range(start, end):
        row = table[ids[k]]
        u0 = row[W00] * (row[X] - left) + row[W01] * (row[Y] - top)
        v0 = row[W11] * (row[Y] - top)
        w00, w01, w11, log_opacity = row[W00], row[W01], row[W11], row[LOG_OPACITY]
        red, green, blue, depth = row[RED], row[GREEN], row[BLUE], row[DEPTH]
        s0 = _ZERO
        su = _ZERO
        sv = _ZERO
        suu = _ZERO
        suv = _ZERO
        svv = _ZERO
        to_red = _ZERO
        to_green = _ZERO
        to_blue = _ZERO
        to_depth = _ZERO
        for i in range(np.uint64(spans[k, 0]) * _WIDE, np.uint64(spans[k, 1]) * _WIDE):
            u = u0 - w00 * scratch[_PX + i] - w01 * scratch[_PY + i]
            v = v0 - w11 * scratch[_PY + i]
            exponent = log_opacity - u * u - v * v
            free = exp2_of_negative(max(exponent, _FLOOR))
            alpha = free if free < _ALPHA_MAX else _ALPHA_MAX
            alpha = alpha if exponent >= _LOG_ALPHA_MIN else _ZERO
            before = scratch[_OPEN + i]
            weight = before * alpha
            after = before - weight
            goes_on = after > _T_MIN
            weight = weight if goes_on else _ZERO
            scratch[_OPEN + i] = after if goes_on else _ZERO
            shade = (
                red * scratch[_R + i] + green * scratch[_G + i] + blue * scratch[_B + i] + depth * scratch[_D + i]
            )
            rest = scratch[_REST + i] - weight * shade
            scratch[_REST + i] = rest
            # -alpha times the derivative by alpha, which is before * shade - rest / (1 - alpha).
            s = alpha * rest / (_ONE - alpha) - weight * shade
            s = s if goes_on else _ZERO
            s = s if free <= _ALPHA_MAX else _ZERO
            s0 += s
            su += s * u
            sv += s * v
            suu += s * u * u
            suv += s * u * v
            svv += s * v * v
            to_red += weight * scratch[_R + i]
            to_green += weight * scratch[_G + i]
            to_blue += weight * scratch[_B + i]
            to_depth += weight * scratch[_D + i]
        out = sums[k]
        out[0] = s0
        out[1] = su
        out[2] = sv
        out[3] = suu
        out[4] = suv
        out[5] = svv
        out[6] = to_red
        out[7] = to_green
        out[8] = to_blue
        out[9] = to_depth


@kernel()
def blend_backward(
    part, parts, table, ids, spans, tile_start, tile_end, width, height,
    color, alpha, depth, grad_color, grad_alpha, grad_depth, sums,
):  # fmt: skip
    """Fill a part of `sums` (copies, SUMS) from the pictures of `blend` and the gradients by them."""
    pictures = table.shape[0]
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    tiles = columns * ((height + TILE_HEIGHT - 1) // TILE_HEIGHT)
    scratch = np.empty(_SCRATCH, np.float32)
    for job in range(part, pictures * tiles, parts):
        b = job // tiles
        tile = job % tiles
        left = (tile % columns) * TILE_WIDTH
        top = (tile // columns) * TILE_HEIGHT
        scratch[:] = _ZERO
        for y in range(top, min(top + TILE_HEIGHT, height)):
            for x in range(left, min(left + TILE_WIDTH, width)):
                i = np.uint64((y - top) * TILE_WIDTH + x - left)
                scratch[_PX + i] = np.float32(x - left) + np.float32(0.5)
                scratch[_PY + i] = np.float32(y - top) + np.float32(0.5)
                scratch[_OPEN + i] = _ONE
                scratch[_R + i] = grad_color[b, y, x, 0]
                scratch[_G + i] = grad_color[b, y, x, 1]
                scratch[_B + i] = grad_color[b, y, x, 2]
                scratch[_D + i] = grad_depth[b, y, x]
                # Alpha is one less the final transmittance, whose derivative joins the rest with a minus.
                scratch[_REST + i] = (
                    grad_color[b, y, x, 0] * color[b, y, x, 0]
                    + grad_color[b, y, x, 1] * color[b, y, x, 1]
                    + grad_color[b, y, x, 2] * color[b, y, x, 2]
                    + grad_depth[b, y, x] * depth[b, y, x]
                    - grad_alpha[b, y, x] * (_ONE - alpha[b, y, x])
                )
        start, end = tile_start[b, tile], tile_start[b, tile + 1]
        seen = tile_end[b, tile]
        sums[seen:end] = _ZERO
        _blend_tile_backward(table[b], ids, spans, start, seen, np.float32(left), np.float32(top), scratch, sums)


@kernel(fast=True)
def _project_one_backward(
    mean, quaternion, scale, opacity, lens, view, row, total, r, to_mean, to_quaternion, to_scale
):
    """Carry one Gaussian's summed derivatives `total` (SUMS) to its parameters; returns that by opacity. Float64.

    `r` is room for nine numbers, the derivative by the Gaussian's rotation.
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

    rotation = rotation_of(quaternion[0], quaternion[1], quaternion[2], quaternion[3])
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

    # Camera-space centre, through the picture's centre, the Jacobian and the depth. Where the slope is frozen, the
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
    """Add up the copies of a part of the Gaussians and fill their gradients; zero for those that are not drawn."""
    pictures, count = opacities.shape
    total = np.empty(SUMS)
    by_rotation = np.empty(9)
    for b in range(pictures):
        view = views[b].astype(np.float64)
        lens = lens_of(intrinsics[b].astype(np.float64), width, height)
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
