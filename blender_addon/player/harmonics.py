"""Spherical harmonics of degree 0 to 3, real, with the signs and the order of 3D Gaussian Splatting, as
`backend.splatting.spherical_harmonics` and Blender's native splats have them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

C0: Final = 0.28209479177387814
_C1: Final = 0.4886025119029199
_C2: Final = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
_C3: Final = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)
_SAMPLES: Final = 256
"""Directions by which harmonics are mixed; there are 16 functions at most."""


def functions(degree: int, directions: np.ndarray) -> list[Any]:
    """The values of the (degree + 1)² functions, each (M,) or a number, in unit directions (3, M)."""
    x, y, z = directions
    xx, yy, zz = x * x, y * y, z * z
    values: list[Any] = [np.float32(C0)]
    if degree >= 1:
        values += [-_C1 * y, _C1 * z, -_C1 * x]
    if degree >= 2:
        values += [
            _C2[0] * x * y, -_C2[0] * y * z, _C2[1] * (2 * zz - xx - yy), -_C2[0] * x * z, _C2[2] * (xx - yy),
        ]  # fmt: skip
    if degree >= 3:
        values += [
            -_C3[0] * y * (3 * xx - yy),
            _C3[1] * x * y * z,
            -_C3[2] * y * (4 * zz - xx - yy),
            _C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            -_C3[2] * x * (4 * zz - xx - yy),
            _C3[4] * z * (xx - yy),
            -_C3[0] * x * (xx - 3 * yy),
        ]
    return values


def colors_from(directions: np.ndarray, harmonics: np.ndarray) -> np.ndarray:
    """Unit directions (3, N) from the viewpoint and harmonics ((degree + 1)², 3, N) -> colours (3, N), at least 0."""
    values = functions(_degree(harmonics), directions)
    total = sum(value * coefficient for value, coefficient in zip(values, harmonics, strict=True))
    return np.maximum(total + np.float32(0.5), 0)


def turned(harmonics: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Harmonics ((degree + 1)², 3, N) for directions d, from those for the directions `rotation` (3, 3) @ d. This is
    exact: a rotation mixes the functions of a degree among themselves.
    """
    return taken_at(harmonics, lambda directions: rotation @ directions)


def taken_at(harmonics: np.ndarray, source: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Harmonics ((degree + 1)², 3, N) that give for directions d what `harmonics` give for the directions `source` of
    d, (3, M) -> (3, M), in least squares over the sphere. One mixture of the functions serves all N.
    """
    degree = _degree(harmonics)
    directions = np.random.default_rng(0).normal(size=(3, _SAMPLES))
    directions /= np.linalg.norm(directions, axis=0)
    before, after = (
        np.stack([np.broadcast_to(value, _SAMPLES) for value in functions(degree, each)], -1)
        for each in (source(directions), directions)
    )
    mixture = np.linalg.lstsq(after, before, rcond=None)[0].astype(np.float32)
    return np.tensordot(mixture, harmonics, 1)


def _degree(harmonics: np.ndarray) -> int:
    return round(len(harmonics) ** 0.5) - 1
