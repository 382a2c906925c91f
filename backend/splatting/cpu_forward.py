"""The forward half of the CPU rasteriser: project Gaussians, sort them into tiles, blend the tiles front to back.

Each picture is cut into tiles, 8 pixels wide (a vector register of floats) and 32 high. In a tile, Gaussians are the
outer loop and pixels the inner one: the rows that a Gaussian covers lie one after the other in a small scratch array,
so that one loop without branches runs over all of them in vector registers. A pixel of these rows that a Gaussian must
not touch is blended with weight zero, not skipped. (Tiles of 16 x 16 took a third longer on heads of 15,000 to 30,000.)

A Gaussian's shape is carried as the upper triangular W with WᵀW = (log₂e / 2) Σ'⁻¹, Σ' its covariance in the picture:
|W (mean - pixel)|² is then the base-2 exponent of its falloff and can never be negative by rounding, which the usual
expanded quadratic can. Formulas and constants are those of `reference`, which tests hold against this.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .jit import exp2_of_negative, kernel
from .reference import ALPHA_MAX, ALPHA_MIN, LOW_PASS, MARGIN, NEAR, TRANSMITTANCE_MIN

TILE_WIDTH = 8
TILE_HEIGHT = 32
_WIDE = np.uint64(TILE_WIDTH)
AREA = np.uint64(TILE_WIDTH * TILE_HEIGHT)

# A projected Gaussian is a row of 16 floats, a cache line: centre x, y (px), W's three entries, log2 of opacity, camera
# z (m), colour (3), the half width and height of the box outside which its alpha is below ALPHA_MIN (px), and what
# `_rows_covered` needs to know of the ellipse in that box.
X, Y, W00, W01, W11, LOG_OPACITY, DEPTH, RED, GREEN, BLUE, HALF_WIDTH, HALF_HEIGHT, SLOPE, MIDDLE, BEND, TILT = range(16)
FIELDS = 16

WHITEN = math.sqrt(0.5 / math.log(2.0))
"""√(log₂e / 2): what makes W's squares base-2 exponents."""

_LOG_ALPHA_MIN = np.float32(math.log2(ALPHA_MIN))
_ALPHA_MAX = np.float32(ALPHA_MAX)
_T_MIN = np.float32(TRANSMITTANCE_MIN)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_HALF = np.float32(0.5)
_LAST_COLUMN = np.float32(TILE_WIDTH - 1)
_ROWS = np.float32(TILE_HEIGHT)
_SLACK = np.float32(1e-2)
_FLOOR = np.float32(-100.0)
_CHUNK = 1024
_BATCH = 32
"""After how many Gaussians a tile looks whether all its pixels have ended."""

# Rows of a tile's scratch array, each AREA floats: pixel centres, transmittance (and the same, zero once the pixel
# has ended), colour, depth.
_PX, _PY, _LEFT, _OPEN, _R, _G, _B, _D = (np.uint64(k) * AREA for k in range(8))
_SCRATCH = 8 * TILE_WIDTH * TILE_HEIGHT


@kernel()
def rotation_of(q0, q1, q2, q3):
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
def frozen_slope(slope, focal, centre, size):
    """x/z (or y/z) held within the picture plus a margin: beyond it EWA's linear approximation runs away."""
    spread = MARGIN * 0.5 * size / focal
    return min(max(slope, -(centre / focal + spread)), (size - centre) / focal + spread)


@kernel()
def tile_range(row, columns, rows):
    """First and one-past-last tile column and row that a projected Gaussian's box touches."""
    left = math.ceil(row[X] - row[HALF_WIDTH] - 0.5)
    right = math.floor(row[X] + row[HALF_WIDTH] - 0.5)
    top = math.ceil(row[Y] - row[HALF_HEIGHT] - 0.5)
    bottom = math.floor(row[Y] + row[HALF_HEIGHT] - 0.5)
    c0 = max(left, 0.0) // TILE_WIDTH
    r0 = max(top, 0.0) // TILE_HEIGHT
    c1 = min(right // TILE_WIDTH + 1, columns)
    r1 = min(bottom // TILE_HEIGHT + 1, rows)
    if c1 <= c0 or r1 <= r0 or right < left or bottom < top:
        return 0, 0, 0, 0
    return int(c0), int(c1), int(r0), int(r1)


@kernel()
def _project_one(mean, quaternion, scale, opacity, intrinsics, view, width, height, out):
    """Fill the shape columns of one projected Gaussian; False where it is not to be drawn. Float64 inside."""
    z = view[2, 0] * mean[0] + view[2, 1] * mean[1] + view[2, 2] * mean[2] + view[2, 3]
    if not (z >= NEAR and z < 1e10 and opacity >= ALPHA_MIN):
        return False
    x = view[0, 0] * mean[0] + view[0, 1] * mean[1] + view[0, 2] * mean[2] + view[0, 3]
    y = view[1, 0] * mean[0] + view[1, 1] * mean[1] + view[1, 2] * mean[2] + view[1, 3]
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    slope_x = x / z
    slope_y = y / z
    j00 = fx / z
    j11 = fy / z
    j02 = -j00 * frozen_slope(slope_x, fx, cx, width)
    j12 = -j11 * frozen_slope(slope_y, fy, cy, height)
    rotation = rotation_of(quaternion[0], quaternion[1], quaternion[2], quaternion[3])
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
    out[X] = fx * slope_x + cx
    out[Y] = fy * slope_y + cy
    out[W00] = WHITEN * math.sqrt(c / determinant)
    out[W01] = -WHITEN * b / math.sqrt(c * determinant)
    out[W11] = WHITEN / math.sqrt(c)
    out[LOG_OPACITY] = math.log2(opacity)
    out[DEPTH] = z
    # Where opacity · exp(-d²/2) falls below ALPHA_MIN (Radl et al. 2024, arXiv 2402.00525, B.2), and a hair more.
    extent = math.sqrt(2.0 * math.log(opacity / ALPHA_MIN))
    out[HALF_WIDTH] = extent * math.sqrt(a) + 1e-3
    out[HALF_HEIGHT] = extent * math.sqrt(c) + 1e-3
    out[SLOPE] = b / a
    out[MIDDLE] = extent * extent * determinant / a * (1.0 + 1e-5)
    out[BEND] = determinant / (a * a)
    out[TILT] = extent * b / math.sqrt(c)
    return True


@kernel(parallel=True)
def project(means, quaternions, scales, opacities, colors, intrinsics, views, width, height, table, touched):
    """Fill `table` (B, G, FIELDS) and `touched` (B, G), in how many tiles each Gaussian is drawn."""
    pictures, count = opacities.shape
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    rows = (height + TILE_HEIGHT - 1) // TILE_HEIGHT
    chunks = (count + _CHUNK - 1) // _CHUNK
    for job in numba.prange(pictures * chunks):
        b = job // chunks
        view = views[b].astype(np.float64)
        intrinsic = intrinsics[b].astype(np.float64)
        first = (job % chunks) * _CHUNK
        for g in range(first, min(first + _CHUNK, count)):
            out = table[b, g]
            touched[b, g] = 0
            drawn = _project_one(
                means[b, g], quaternions[b, g], scales[b, g], opacities[b, g], intrinsic, view, width, height, out
            )
            if drawn:
                c0, c1, r0, r1 = tile_range(out, columns, rows)
                touched[b, g] = (c1 - c0) * (r1 - r0)
                out[RED] = colors[b, g, 0]
                out[GREEN] = colors[b, g, 1]
                out[BLUE] = colors[b, g, 2]


@kernel()
def _front_to_back(table, touched):
    """Indices of the drawn Gaussians by camera z, ties in index order: a radix sort on the bits of positive floats."""
    count = touched.shape[0]
    keys = np.empty(count, np.uint32)
    order = np.empty(count, np.int32)
    drawn = 0
    z = np.empty(1, np.float32)
    bits = z.view(np.uint32)
    for g in range(count):
        if touched[g] > 0:
            z[0] = table[g, DEPTH]
            keys[drawn] = bits[0]
            order[drawn] = g
            drawn += 1
    other_keys = np.empty(drawn, np.uint32)
    other = np.empty(drawn, np.int32)
    for shift in (0, 11, 22):
        places = np.zeros(2049, np.int64)
        for i in range(drawn):
            places[((keys[i] >> shift) & 2047) + 1] += 1
        for digit in range(2048):
            places[digit + 1] += places[digit]
        for i in range(drawn):
            digit = (keys[i] >> shift) & 2047
            other_keys[places[digit]] = keys[i]
            other[places[digit]] = order[i]
            places[digit] += 1
        keys, other_keys = other_keys, keys
        order, other = other, order
    return order[:drawn]


@kernel(parallel=True)
def sort_into_tiles(table, touched, columns, rows, base, ids, slots, tile_start):
    """List each tile's Gaussians front to back.

    `base` (B + 1) is where each picture's part of the flat lists begins. `ids[tile_start[b, t]:tile_start[b, t + 1]]`
    are the Gaussians of tile t; `slots` says the same Gaussian by Gaussian: where in `ids` each of its copies went.
    """
    pictures, count = touched.shape
    tiles = columns * rows
    for b in numba.prange(pictures):
        order = _front_to_back(table[b], touched[b])
        starts = tile_start[b]
        starts[:] = 0
        for g in order:
            c0, c1, r0, r1 = tile_range(table[b, g], columns, rows)
            for r in range(r0, r1):
                for c in range(c0, c1):
                    starts[r * columns + c + 1] += 1
        starts[0] = base[b]
        for t in range(tiles):
            starts[t + 1] += starts[t]
        cursor = starts.copy()
        first = np.empty(count, np.int64)
        at = base[b]
        for g in range(count):
            first[g] = at
            at += touched[b, g]
        for g in order:
            c0, c1, r0, r1 = tile_range(table[b, g], columns, rows)
            at = first[g]
            for r in range(r0, r1):
                for c in range(c0, c1):
                    place = cursor[r * columns + c]
                    cursor[r * columns + c] += 1
                    ids[place] = g
                    slots[at] = place
                    at += 1


@kernel(fast=True)
def _rows_covered(row, left, top):
    """First and one-past-last row of a tile in which a Gaussian's alpha reaches ALPHA_MIN: its ellipse, cut to the tile.

    With d = mean - pixel, dy runs between SLOPE dx ± √(MIDDLE - BEND dx²) and is extreme at dx = ±TILT.
    """
    wide, high = row[HALF_WIDTH], row[HALF_HEIGHT]
    slope, middle, bend, tilt = row[SLOPE], row[MIDDLE], row[BEND], row[TILT]
    last_dx = row[X] - left - _HALF
    first_dx = last_dx - _LAST_COLUMN
    dx = min(max(tilt, first_dx), last_dx)
    edge = slope * dx + math.sqrt(max(middle - bend * dx * dx, _ZERO)) + _SLACK
    up = high if dx == tilt else edge
    dx = min(max(-tilt, first_dx), last_dx)
    edge = slope * dx - math.sqrt(max(middle - bend * dx * dx, _ZERO)) - _SLACK
    down = -high if dx == -tilt else edge
    centre = row[Y] - top - _HALF
    # The box may be far larger than the picture: held to the tile before floats become small integers.
    first = min(max(centre - up, _ZERO), _ROWS)
    last = min(max(centre - down, -_ONE), _ROWS - _ONE)
    first_row = np.int32(math.ceil(first))
    past_row = np.int32(math.floor(last)) + 1
    apart = first_dx > wide or last_dx < -wide or past_row <= first_row
    return (0, 0) if apart else (first_row, past_row)


@kernel(fast=True)
def _blend_tile(table, ids, spans, start, end, left, top, scratch):
    """Blend one tile into its scratch; returns one past the last entry of `ids` that could still be seen."""
    for batch in range(start, end, _BATCH):
        batch_end = min(batch + _BATCH, end)
        # Ahead of the blending, whose loops would otherwise have to wait for their own length.
        for k in range(batch, batch_end):
            first, past = _rows_covered(table[ids[k]], left, top)
            spans[k, 0] = first
            spans[k, 1] = past
        for k in range(batch, batch_end):
            row = table[ids[k]]
            u0 = row[W00] * (row[X] - left) + row[W01] * (row[Y] - top)
            v0 = row[W11] * (row[Y] - top)
            w00, w01, w11, log_opacity = row[W00], row[W01], row[W11], row[LOG_OPACITY]
            red, green, blue, depth = row[RED], row[GREEN], row[BLUE], row[DEPTH]
            for i in range(np.uint64(spans[k, 0]) * _WIDE, np.uint64(spans[k, 1]) * _WIDE):
                u = u0 - w00 * scratch[_PX + i] - w01 * scratch[_PY + i]
                v = v0 - w11 * scratch[_PY + i]
                exponent = log_opacity - u * u - v * v
                alpha = exp2_of_negative(max(exponent, _FLOOR))
                alpha = alpha if alpha < _ALPHA_MAX else _ALPHA_MAX
                alpha = alpha if exponent >= _LOG_ALPHA_MIN else _ZERO
                before = scratch[_OPEN + i]
                weight = before * alpha
                after = before - weight
                goes_on = after > _T_MIN
                weight = weight if goes_on else _ZERO
                scratch[_OPEN + i] = after if goes_on else _ZERO
                scratch[_LEFT + i] -= weight
                scratch[_R + i] += weight * red
                scratch[_G + i] += weight * green
                scratch[_B + i] += weight * blue
                scratch[_D + i] += weight * depth
        still_open = _ZERO
        for i in range(AREA):
            still_open += scratch[_OPEN + i]
        if still_open == _ZERO:
            return batch_end
    return end


@kernel()
def _prepare_tile(scratch, left, top, width, height):
    scratch[:] = _ZERO
    for r in range(TILE_HEIGHT):
        for c in range(TILE_WIDTH):
            i = np.uint64(r * TILE_WIDTH + c)
            scratch[_PX + i] = np.float32(c) + np.float32(0.5)
            scratch[_PY + i] = np.float32(r) + np.float32(0.5)
            scratch[_LEFT + i] = _ONE
            # Pixels of edge tiles that lie outside the picture have ended before they began.
            if left + c < width and top + r < height:
                scratch[_OPEN + i] = _ONE


@kernel(parallel=True)
def blend(table, ids, spans, tile_start, tile_end, width, height, workers, color, alpha, depth):
    """With so many `workers`, fill colour (B, H, W, 3), alpha and depth (B, H, W), `tile_end` (B, tiles) with what `_blend_tile`
    returns, and `spans` (copies, 2) with the rows of its tile that each copy covers."""
    pictures = table.shape[0]
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    tiles = columns * ((height + TILE_HEIGHT - 1) // TILE_HEIGHT)
    for worker in numba.prange(workers):
        scratch = np.empty(_SCRATCH, np.float32)
        # Every so-manieth tile to each worker: neighbours cost alike, halves of a picture do not.
        for job in range(worker, pictures * tiles, workers):
            b = job // tiles
            tile = job % tiles
            left = (tile % columns) * TILE_WIDTH
            top = (tile // columns) * TILE_HEIGHT
            start, end = tile_start[b, tile], tile_start[b, tile + 1]
            _prepare_tile(scratch, left, top, width, height)
            tile_end[b, tile] = _blend_tile(
                table[b], ids, spans, start, end, np.float32(left), np.float32(top), scratch
            )
            for y in range(top, min(top + TILE_HEIGHT, height)):
                for x in range(left, min(left + TILE_WIDTH, width)):
                    i = np.uint64((y - top) * TILE_WIDTH + x - left)
                    color[b, y, x, 0] = scratch[_R + i]
                    color[b, y, x, 1] = scratch[_G + i]
                    color[b, y, x, 2] = scratch[_B + i]
                    alpha[b, y, x] = _ONE - scratch[_LEFT + i]
                    depth[b, y, x] = scratch[_D + i]
