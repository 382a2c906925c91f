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
def lens_of(intrinsics, width, height):
    """(fx, fy, cx, cy), then the least and greatest x/z and y/z that the projection's slope follows.

    They are the picture's edges plus a margin: beyond it EWA's linear approximation runs away.
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
    # Where opacity · exp(-d²/2) falls below ALPHA_MIN (Radl et al. 2024, arXiv 2402.00525, B.2), and a hair more.
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
def project(part, parts, means, quaternions, scales, opacities, colors, intrinsics, views, width, height, table, touched):
    """Fill a part of `table` (B, G, FIELDS) and `touched` (B, G), in how many tiles each Gaussian is drawn."""
    pictures, count = opacities.shape
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    rows = (height + TILE_HEIGHT - 1) // TILE_HEIGHT
    for b in range(pictures):
        view = views[b].astype(np.float64)
        lens = lens_of(intrinsics[b].astype(np.float64), width, height)
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


@kernel()
def sort_into_tiles(part, parts, table, touched, columns, rows, base, first, ids, slots, tile_start):
    """List each tile's Gaussians front to back, in every `parts`-th picture.

    `base` (B + 1) is where each picture's part of the flat lists begins. `ids[tile_start[b, t]:tile_start[b, t + 1]]`
    are the Gaussians of tile t. `slots` says the same Gaussian by Gaussian: from `first[b, g]` on it holds where in
    `ids` each of the Gaussian's copies went.
    """
    pictures, count = touched.shape
    tiles = columns * rows
    for b in range(part, pictures, parts):
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
        at = base[b]
        for g in range(count):
            first[b, g] = at
            at += touched[b, g]
        for g in order:
            c0, c1, r0, r1 = tile_range(table[b, g], columns, rows)
            at = first[b, g]
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


@kernel()
def blend(part, parts, table, ids, spans, tile_start, tile_end, width, height, color, alpha, depth):
    """Fill a part of colour (B, H, W, 3), alpha and depth (B, H, W).

    Kept for the way back: `tile_end` (B, tiles), what `_blend_tile` returns, and `spans` (copies, 2), the rows of its
    tile that each copy covers.
    """
    pictures = table.shape[0]
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    tiles = columns * ((height + TILE_HEIGHT - 1) // TILE_HEIGHT)
    scratch = np.empty(_SCRATCH, np.float32)
    # Every so-manieth tile, because neighbours cost alike and halves of a picture do not.
    for job in range(part, pictures * tiles, parts):
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
