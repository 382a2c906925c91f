"""The colours of native splats: from those that an avatar's networks give to the attributes of a point cloud.

Blender takes 0.5 + the sum of harmonics for an sRGB-encoded colour and decodes it for each Gaussian, as a ray meets it.
The colours are therefore stored as they are. What differs is the blending: an avatar's Gaussians were trained to be
blended in encoded values, and Cycles and EEVEE blend light. Light is a convex function of the encoded value, so the
blend of Gaussians of different colours comes out too light (Jensen's inequality). `for_blended_light` corrects that.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..player.harmonics import C0, functions
from ..srgb import decode, encode

CELL: Final = 0.01
"""Metres of a head at rest: a Gaussian is blended with those in its own cell and in the cells around it. Of 4, 8, 14
and 24 mm, small ones leave the picture too light and large ones make it too dark (`bench.native_splats_in_blender`)."""
MOST_CELLS: Final = 128
LEAST: Final = 1e-3
"""An encoded colour below which a ratio would be noise."""
MOST: Final = 4.0
"""Of a ratio: a Gaussian that is black from the viewpoint says nothing of its other sides."""


def for_blended_light(colors: np.ndarray, rest: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Encoded colours (G, 3) whose blend in light looks as that of `colors` (G, 3) in encoded values does.

    The light of an encoded value c near the local mean m is decode(m) + decode'(m) (c - m) to the first order. Of
    lights that are linear in c, a blend is the light of the blended c. `weights` (G,) are each Gaussian's share in a
    local mean. `rest` (G, 3), metres, are their anchors on the head at rest: neighbours stay neighbours while the head
    moves, so that no colour jumps.
    """
    local = _local_means(colors, rest, weights)
    slope = np.where(local <= 0.04045, 1 / 12.92, 2.4 / 1.055 * ((np.maximum(local, 0) + 0.055) / 1.055) ** 1.4)
    light = decode(local) + slope * (colors - local)
    return encode(np.maximum(light, 0)).astype(np.float32)


def _local_means(colors: np.ndarray, rest: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(G, 3) the weighted mean colour of the 27 cells around each Gaussian."""
    # A head of any size has at most `MOST_CELLS` on a side.
    cell = max(CELL, float(np.ptp(rest, axis=0).max()) / MOST_CELLS)
    index = ((rest - rest.min(0)) / cell).astype(np.int64) + 1
    shape = tuple(index.max(0) + 2)
    flat = np.ravel_multi_index(tuple(index.T), shape)
    count = int(np.prod(shape))
    sums = np.stack([np.bincount(flat, row, count) for row in (weights, *(weights[:, None] * colors).T)])
    sums = sums.reshape(4, *shape)
    for axis in (1, 2, 3):
        # The border is empty, so that what `roll` brings round is 0.
        sums = sums + np.roll(sums, 1, axis) + np.roll(sums, -1, axis)
    total, *rows = sums.reshape(4, -1)[:, flat]
    return np.stack(rows, -1) / np.maximum(total, 1e-12)[:, None]


def attributes(
    colors: np.ndarray, wanted: np.ndarray, opacities: np.ndarray, harmonics: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The attribute `radiance:base` (G, 4) and the attributes `radiance:sh_N` (H - 1, G, 3).

    `colors` (G, 3) are the avatar's own from the viewpoint and `wanted` (G, 3) those to be seen from there;
    `harmonics` (H, 3, N) are those of the N first Gaussians, and `directions` (3, G) lead from the viewpoint to each.
    """
    count = harmonics.shape[2]
    turning = np.zeros((len(harmonics) - 1, len(colors), 3), np.float32)
    ratio = wanted[:count] / np.maximum(colors[:count], LEAST)
    turning[:, :count] = harmonics[1:].transpose(0, 2, 1) * np.minimum(ratio, MOST)
    values = functions(round(len(harmonics) ** 0.5) - 1, directions)[1:]
    seen = sum((value[:, None] * rows for value, rows in zip(values, turning, strict=True)), np.zeros_like(wanted))
    base = np.concatenate(((wanted - 0.5 - seen) / C0, opacities[:, None]), 1)
    return base.astype(np.float32), turning
