"""Tiles of an image, and the lists of projected Gaussians that touch each tile, sorted front to back.

A tile is 8 pixels wide (a vector register of floats) and 32 high. Tiles of 16 x 16 took a third longer on heads of
15,000 to 30,000 Gaussians, because half of their columns were computed without effect.
"""

from __future__ import annotations

import math

import numpy as np

from .jit import kernel

TILE_WIDTH = 8
TILE_HEIGHT = 32

# A projected Gaussian is a row of 16 floats, a cache line: centre x, y (px), the three entries of W (`cpu_project`),
# log2 of opacity, camera z (m), colour (3), the half width and height of the box outside which its alpha is below
# ALPHA_MIN (px), and what `_rows_covered` (`cpu_blend`) needs to know of the ellipse in that box.
FIELDS = 16
X, Y, W00, W01, W11, LOG_OPACITY, DEPTH, RED, GREEN, BLUE, HALF_WIDTH, HALF_HEIGHT = range(12)
SLOPE, MIDDLE, BEND, TILT = range(12, FIELDS)


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
def _front_to_back(table, touched):
    """Indices of the drawn Gaussians sorted by camera z, ties by index: a radix sort on the bits of positive floats."""
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
        offsets = np.zeros(2049, np.int64)
        for i in range(drawn):
            offsets[((keys[i] >> shift) & 2047) + 1] += 1
        for digit in range(2048):
            offsets[digit + 1] += offsets[digit]
        for i in range(drawn):
            digit = (keys[i] >> shift) & 2047
            other_keys[offsets[digit]] = keys[i]
            other[offsets[digit]] = order[i]
            offsets[digit] += 1
        keys, other_keys = other_keys, keys
        order, other = other, order
    return order[:drawn]


@kernel()
def sort_into_tiles(part, parts, table, touched, columns, rows, base, first, ids, slots, tile_start):
    """List each tile's Gaussians front to back, in every `parts`-th image.

    `base` (B + 1) is the start of each image's part of the flat lists. `ids[tile_start[b, t]:tile_start[b, t + 1]]` are
    the Gaussians of tile t. `slots` is the inverse: from `first[b, g]` on it holds the positions in `ids` of the copies
    of Gaussian g.
    """
    images, count = touched.shape
    tiles = columns * rows
    for b in range(part, images, parts):
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
                    position = cursor[r * columns + c]
                    cursor[r * columns + c] += 1
                    ids[position] = g
                    slots[at] = position
                    at += 1
