"""Which Gaussians colour each texel of a texture, and how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..rig.rotations import quaternion_rows

FAINTEST: Final = 0.01
"""Least value of a Gaussian at a texel: hair is far from the skin that it grows on, and has that skin's texels."""
CHUNK: Final = 1 << 17
"""Texels that are computed at a time."""


@dataclass(frozen=True)
class Surface:
    """T texels of the head's surface, each with the C Gaussians at its triangle's corners."""

    size: int
    """Side of the texture."""
    texels: np.ndarray
    """(T,) index of each into the texture's size × size texels, from the bottom left."""
    gaussians: np.ndarray
    """(T, C) int32"""
    weights: np.ndarray
    """(T, C) float32; rows sum to one."""
    corners: np.ndarray
    """(T, 3) float32 barycentric coordinates."""

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Values (G, c) of the Gaussians -> (T, c) of the texels."""
        made = np.empty((len(self.texels), values.shape[1]), np.float32)
        for start in range(0, len(made), CHUNK):
            part = slice(start, start + CHUNK)
            made[part] = np.einsum("tc,tcd->td", self.weights[part], values[self.gaussians[part]])
        return made

    def spread(self, values: np.ndarray, count: int) -> np.ndarray:
        """The transpose of `mean`: (T, c) of the texels -> (count, c) of the Gaussians."""
        at = self.gaussians.ravel()
        return np.stack(
            [np.bincount(at, (self.weights * row[:, None]).ravel(), count) for row in np.ascontiguousarray(values.T)],
            -1,
        )


def find_surface(
    size: int, uv: np.ndarray, faces: np.ndarray, vertices: np.ndarray, splats: Mapping[str, np.ndarray]
) -> Surface:
    """UV (F, 3, 2) of the corners of the triangles (F, 3), vertices (N, 3) at rest, and the Gaussians of that pose: the
    N anchors first, then k of each.
    """
    triangles, corners = _rasterized(size, uv, faces, vertices)
    texels = np.flatnonzero(triangles >= 0)
    corners, anchors = corners[texels], faces[triangles[texels]]
    count = len(vertices)
    k = len(splats["means"]) // count - 1
    spawned = count + k * anchors[:, :, None] + np.arange(k)
    gaussians = np.concatenate((anchors[:, :, None], spawned), 2).reshape(len(texels), -1).astype(np.int32)
    places = np.einsum("tc,tcd->td", corners, vertices[anchors].astype(np.float32))
    weights = np.repeat(corners, 1 + k, 1)
    rotations = np.ascontiguousarray(quaternion_rows(np.ascontiguousarray(splats["quaternions"].T)).transpose(2, 1, 0))
    for start in range(0, len(texels), CHUNK):
        part = slice(start, start + CHUNK)
        which = gaussians[part]
        away = places[part, None] - splats["means"][which]
        own = np.einsum("tcij,tcj->tci", rotations[which], away) / splats["scales"][which]
        weights[part] *= splats["opacities"][which] * np.maximum(np.exp(-0.5 * (own**2).sum(-1)), FAINTEST)
    weights += 1e-9
    weights /= weights.sum(1, keepdims=True)
    return Surface(size, texels, gaussians, weights.astype(np.float32), corners)


def _rasterized(size: int, uv: np.ndarray, faces: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The triangle of each texel (size²,), -1 outside, and its barycentric coordinates there (size², 3). Where
    triangles share texels, as eyeballs and lids do in a cylindrical UV map, the outermost one has them.
    """
    found, corners = np.full((size, size), -1, np.int32), np.zeros((size, size, 3), np.float32)
    middle = vertices[faces].mean(1)
    for triangle in np.argsort(np.hypot(middle[:, 0], middle[:, 2])):
        a, b, c = size * uv[triangle].astype(np.float64)
        low = np.floor(np.minimum(np.minimum(a, b), c) - 0.5).astype(int).clip(0)
        high = np.ceil(np.maximum(np.maximum(a, b), c) + 0.5).astype(int).clip(None, size)
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if abs(area) < 1e-9 or (low >= high).any():
            continue
        x, y = np.arange(low[0], high[0]) + 0.5, (np.arange(low[1], high[1]) + 0.5)[:, None]
        second = ((x - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (y - a[1])) / area
        third = ((b[0] - a[0]) * (y - a[1]) - (x - a[0]) * (b[1] - a[1])) / area
        inside = (second >= -1e-6) & (third >= -1e-6) & (second + third <= 1 + 1e-6)
        window = slice(low[1], high[1]), slice(low[0], high[0])
        found[window][inside] = triangle
        corners[window][inside] = np.stack((1 - second - third, second, third), -1)[inside]
    return found.ravel(), corners.reshape(-1, 3).clip(0, 1)
