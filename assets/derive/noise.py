"""Value noise: the source of irregularity in skin, hair and cloth. It is deterministic and needs no files."""

from __future__ import annotations

import numba
import numpy as np


def value_noise(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """(..., D) lattice coordinates, D of 1 to 3 -> (...) in [-1, 1], smooth, one feature per unit."""
    flat = np.zeros((points[..., 0].size, 3))
    flat[:, : points.shape[-1]] = points.reshape(-1, points.shape[-1])
    return _noise(flat, seed).reshape(points.shape[:-1])


def fractal_noise(points: np.ndarray, octaves: int, seed: int = 0) -> np.ndarray:
    """Octaves of value noise, each twice as fine and half as strong."""
    return sum(  # pyright: ignore[reportReturnType]  (of one array at least)
        value_noise(points * 2.0**octave, seed + octave) / 2.0**octave for octave in range(octaves)
    )


@numba.njit(cache=True, nogil=True)
def _noise(points, seed):
    result = np.empty(len(points))
    for row in range(len(points)):
        x, y, z = np.floor(points[row, 0]), np.floor(points[row, 1]), np.floor(points[row, 2])
        tx, ty, tz = points[row, 0] - x, points[row, 1] - y, points[row, 2] - z
        tx, ty, tz = tx * tx * (3 - 2 * tx), ty * ty * (3 - 2 * ty), tz * tz * (3 - 2 * tz)
        total = 0.0
        for corner in range(8):
            i, j, k = corner & 1, (corner >> 1) & 1, corner >> 2
            weight = (tx if i else 1 - tx) * (ty if j else 1 - ty) * (tz if k else 1 - tz)
            if weight > 0:
                total += weight * _hash(np.int64(x) + i, np.int64(y) + j, np.int64(z) + k, seed)
        result[row] = total
    return result


@numba.njit(cache=True)
def _hash(x, y, z, seed):
    mixed = np.uint64(seed * 974711 + 12345)
    mixed ^= np.uint64(x) * np.uint64(73856093)
    mixed ^= np.uint64(y) * np.uint64(19349663)
    mixed ^= np.uint64(z) * np.uint64(83492791)
    mixed ^= mixed >> np.uint64(13)
    mixed *= np.uint64(1274126177)
    mixed ^= mixed >> np.uint64(16)
    return np.float64(mixed & np.uint64(0xFFFF)) / 32767.5 - 1.0
