"""Front-to-back blending of the Gaussians of each tile, and its hand-written derivatives.

In a tile, Gaussians are the outer loop and pixels the inner one. The rows that a Gaussian covers are contiguous in a
small scratch array, so that one loop without branches runs over all of them in vector registers. A pixel in these rows
that the Gaussian must not affect is blended with weight zero, not skipped.

The backward pass repeats the front-to-back pass with the same decisions. For every Gaussian of a pixel it needs the
contribution of all Gaussians behind it, which is the final pixel minus what has been blended so far (`rest`). Only its
product with the incoming gradient matters, so one number per pixel suffices. This difference is accurate to about 1e-7
of the pixel, so that a Gaussian seen through a transmittance of 1e-4 still has three digits of its gradient. Each copy
of a Gaussian in a tile writes its sums to its own position, and they are added up afterwards, so that results do not
depend on the number of threads.
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
)  # fmt: skip
from .jit import exp2_of_negative, kernel
from .reference import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN

_WIDE = np.uint64(TILE_WIDTH)
_AREA = np.uint64(TILE_WIDTH * TILE_HEIGHT)
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
"""Number of Gaussians after which a tile checks whether blending has stopped at all of its pixels."""

# Rows of a tile's scratch, each of _AREA floats (indices are unsigned, so that numba need not handle negative ones):
# pixel centres and the transmittance, which is set to zero once blending of the pixel has stopped;
_PX, _PY, _OPEN = (np.uint64(k) * _AREA for k in range(3))
# colour and depth, or the gradients by them;
_R, _G, _B, _D = (np.uint64(k) * _AREA for k in range(3, 7))
# forward: the transmittance, kept for stopped pixels too; backward: `rest`.
_LEFT = _REST = np.uint64(7) * _AREA
_SCRATCH = 8 * TILE_WIDTH * TILE_HEIGHT


@kernel(fast=True)
def _rows_covered(row, left, top):
    """First and one-past-last row of a tile where a Gaussian's alpha reaches ALPHA_MIN: its ellipse, cut to the tile.

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
    # The box may be far larger than the image: it is clamped to the tile before floats are converted to small integers.
    first = min(max(centre - up, _ZERO), _ROWS)
    last = min(max(centre - down, -_ONE), _ROWS - _ONE)
    first_row = np.int32(math.ceil(first))
    past_row = np.int32(math.floor(last)) + 1
    outside = first_dx > wide or last_dx < -wide or past_row <= first_row
    return (0, 0) if outside else (first_row, past_row)


@kernel(fast=True)
def _blend_tile(table, ids, spans, start, end, left, top, scratch):
    """Blend one tile into its scratch; returns one past the last entry of `ids` that can contribute."""
    for batch in range(start, end, _BATCH):
        batch_end = min(batch + _BATCH, end)
        # Computed before the blending, whose loops would otherwise wait for their own length.
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
        for i in range(_AREA):
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
            # Pixels of edge tiles that lie outside the image have ended before they began.
            if left + c < width and top + r < height:
                scratch[_OPEN + i] = _ONE


@kernel()
def blend(part, parts, table, ids, spans, tile_start, tile_end, width, height, color, alpha, depth):
    """Fill a part of colour (B, H, W, 3), alpha and depth (B, H, W).

    Stored for the backward pass: `tile_end` (B, tiles), the result of `_blend_tile`, and `spans` (copies, 2), the rows
    of its tile that each copy covers.
    """
    images = table.shape[0]
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    tiles = columns * ((height + TILE_HEIGHT - 1) // TILE_HEIGHT)
    scratch = np.empty(_SCRATCH, np.float32)
    # Tiles are assigned in turn, because neighbouring tiles take similar time while halves of an image do not.
    for job in range(part, images * tiles, parts):
        b = job // tiles
        tile = job % tiles
        left = (tile % columns) * TILE_WIDTH
        top = (tile // columns) * TILE_HEIGHT
        start, end = tile_start[b, tile], tile_start[b, tile + 1]
        _prepare_tile(scratch, left, top, width, height)
        tile_end[b, tile] = _blend_tile(table[b], ids, spans, start, end, np.float32(left), np.float32(top), scratch)
        for y in range(top, min(top + TILE_HEIGHT, height)):
            for x in range(left, min(left + TILE_WIDTH, width)):
                i = np.uint64((y - top) * TILE_WIDTH + x - left)
                color[b, y, x, 0] = scratch[_R + i]
                color[b, y, x, 1] = scratch[_G + i]
                color[b, y, x, 2] = scratch[_B + i]
                alpha[b, y, x] = _ONE - scratch[_LEFT + i]
                depth[b, y, x] = scratch[_D + i]


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
            shade = red * scratch[_R + i] + green * scratch[_G + i] + blue * scratch[_B + i] + depth * scratch[_D + i]
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
    """Fill a part of `sums` (copies, SUMS) from the images of `blend` and the gradients by them."""
    images = table.shape[0]
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    tiles = columns * ((height + TILE_HEIGHT - 1) // TILE_HEIGHT)
    scratch = np.empty(_SCRATCH, np.float32)
    for job in range(part, images * tiles, parts):
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
        reached = tile_end[b, tile]
        sums[reached:end] = _ZERO
        _blend_tile_backward(table[b], ids, spans, start, reached, np.float32(left), np.float32(top), scratch, sums)
