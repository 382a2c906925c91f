"""The light on a head as a few lamps and an ambient light, fitted to brightness on matte skin.

The light is a sum of lamps without size and of six wide lights along the camera's axes. A unit of either, from the
direction w, gives a surface with the normal n the irradiance k(n . w), with k(c) = max(c, 0) for a lamp
(`cap_irradiance` for a wide light). With the albedo a of a point of the skin, its brightness is

    I = a sum_j L_j k_j(n . w_j),  L >= 0                      (Lambertian skin, linear light)

What is sought is L. Of two points whose normals differ, the albedo may explain a difference of brightness as well as
the light does. So the logarithm of the albedo is taken to vary over the skin by a standard deviation `ALBEDO`, and an
error `MODEL` is allowed in every brightness (gloss, cast shadows, the mesh). A point whose normal turns shows the light
regardless of its albedo. With the albedo integrated out, the energy is a sum of squares within each point over the
frames, and of squares of each point's mean, which weighs the less the fewer different orientations the point was seen
in.

A penalty on lamps (the lasso) keeps their number small, and lamps that are near each other are put together. Then their
directions are refined. Nothing tells lamps behind the head, which light no skin that the camera sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from scipy.optimize import minimize, nnls

ALBEDO: Final = 0.25
"""Standard deviation of the logarithm of the albedo over the face: lips, brows, cheeks, stubble."""
MODEL: Final = 0.12
"""Standard deviation of the relative error of a brightness."""
AXES: Final = np.concatenate((np.eye(3), -np.eye(3)))
"""(6, 3): the directions of the wide lights, in camera space."""
HALF_ANGLE: Final = np.radians(60.0)
"""Of the cap of the sky that a wide light fills."""
MOST_LAMPS: Final = 3
LEAST_LAMP: Final = 0.1
"""A lamp that is weaker than this share of the strongest one is left out."""
TOGETHER: Final = np.cos(np.radians(40.0))
"""Lamps that are nearer to each other than this are one."""
_CANDIDATES: Final = 100
"""Directions that are tried for a lamp: 20 degrees apart, and the best are then refined."""
_LASSO: Final = 0.01
"""Penalty on the lamps' irradiance, as a share of the data's weight."""
_EVEN: Final = 0.03
"""Weight with which the wide lights are drawn towards their mean, as a share of the data's weight: those behind the
head light nothing that is seen."""
_ROUNDS: Final = 6
_FLOOR: Final = 0.1
"""The least brightness to which errors are relative, as a share of the mean."""
_DARKEST: Final = 0.01
"""The least brightness whose logarithm is taken, by that of average skin."""
_LUMINANCE: Final = np.array((0.2126, 0.7152, 0.0722))


@dataclass(frozen=True)
class SkinBrightness:
    """Brightness at D points of the skin in F frames."""

    color: np.ndarray
    """(F, D, 3) linear light."""
    normals: np.ndarray
    """(F, D, 3) unit, in camera space."""
    weight: np.ndarray
    """(F, D): 0 where a point is not seen. Frames with similar head poses share a weight of 1."""


@dataclass(frozen=True)
class HeadLight:
    """The light of a clip, in camera space (OpenCV's axes). Units are those of irradiance times the skin's mean
    reflectance: what matte skin of average albedo would show, in linear light.
    """

    lamps: np.ndarray
    """(K, 3) unit vectors towards the lamps, the strongest first; K may be 0."""
    lamp_colors: np.ndarray
    """(K, 3) red, green, blue of skin that faces the lamp."""
    ambient: np.ndarray
    """(6, 3) of skin that faces each of the wide lights `AXES`."""

    def shading(self, normals: np.ndarray) -> np.ndarray:
        """(..., 3): linear colour of average skin with these normals (..., 3)."""
        lamps = np.maximum(normals @ self.lamps.T, 0) @ self.lamp_colors
        return lamps + cap_irradiance(normals @ AXES.T) @ self.ambient


def cap_irradiance(cosine: np.ndarray) -> np.ndarray:
    """The irradiance by a wide light on surfaces at an angle to it, by that on a surface that faces it."""
    grid, values = _cap_table()
    return np.interp(cosine, grid, values)


@cache
def _cap_table() -> tuple[np.ndarray, np.ndarray]:
    """Cosines from -1 to 1, and the irradiance by a cap of even radiance."""
    # Rings of the cap, each with the same solid angle, and points around them.
    rings, around = 200, 180
    height = np.cos(HALF_ANGLE) + (1 - np.cos(HALF_ANGLE)) * (np.arange(rings) + 0.5) / rings
    across = np.sqrt(1 - height**2)
    turn = np.cos((np.arange(around) + 0.5) * np.pi / around)
    grid = np.linspace(-1, 1, 201)
    received = [np.maximum(c * height[:, None] + np.sqrt(1 - c * c) * across[:, None] * turn, 0).mean() for c in grid]
    return grid, np.array(received) / height.mean()


def fit_light(seen: SkinBrightness) -> HeadLight:
    """The light that explains the brightness best."""
    typical = _typical(seen.color, seen.weight)
    brightness = seen.color @ _LUMINANCE / (typical @ _LUMINANCE)
    fit = _Fit(brightness, seen.normals, seen.weight)
    directions = _sphere(_CANDIDATES)
    fit.solve(directions, _LASSO)
    lamps = _clusters(directions, fit.strengths[: len(directions)])
    if len(lamps):
        lamps = fit.refined(lamps)
    colors = np.empty((len(lamps) + len(AXES), 3))
    for channel in range(3):
        one = _Fit(seen.color[..., channel] / typical[channel], seen.normals, seen.weight)
        one.solve(lamps, 0.0)
        colors[:, channel] = one.strengths * typical[channel]
    order = np.argsort(-(colors[: len(lamps)] @ _LUMINANCE))
    return HeadLight(lamps[order], colors[order], colors[len(lamps) :])


def facing_average(light: HeadLight) -> np.ndarray:
    """(3,): the mean shading over all normals that face the camera."""
    normals = _sphere(400)
    return light.shading(normals[normals[:, 2] < 0]).mean(0)


class _Fit:
    """Strengths of lamps and wide lights for one channel (F, D), whose weighted median is 1."""

    def __init__(self, brightness: np.ndarray, normals: np.ndarray, weight: np.ndarray) -> None:
        rows = np.nonzero(weight > 0)
        self._brightness, self._normals, self._weight = brightness[rows], normals[rows], weight[rows]
        self._point = np.unique(rows[1], return_inverse=True)[1]
        self._order = np.argsort(self._point, kind="stable")
        self._starts = np.flatnonzero(np.diff(self._point[self._order], prepend=-1))
        self._predicted = np.ones(len(self._brightness))
        self._robust = self._plausible()
        self.strengths = np.zeros(0)
        self.energy = np.inf

    def solve(self, lamps: np.ndarray, lasso: float, rounds: int = _ROUNDS) -> None:
        """Fits the strengths (K + 6,) of lamps with these directions (K, 3) and of the wide lights."""
        columns = np.concatenate((np.maximum(self._normals @ lamps.T, 0), cap_irradiance(self._normals @ AXES.T)), 1)
        for _ in range(rounds):
            self._step(columns, len(lamps), lasso)

    def _step(self, columns: np.ndarray, lamps: int, lasso: float) -> None:
        scale = np.maximum(self._predicted, _FLOOR)
        wanted, gave = self._brightness / scale, columns / scale[:, None]
        weight = self._weight * self._robust
        total = np.maximum(self._sum(weight), 1e-9)
        k = (MODEL / ALBEDO) ** 2
        mean_wanted, mean_gave = self._sum(weight * wanted) / total, self._sum(weight[:, None] * gave) / total[:, None]
        # Between the points: one row each, with the weight that is left when the albedo is integrated out.
        between = np.sqrt(total * k / (total + k))[:, None]
        within = np.sqrt(weight)[:, None]
        matrix = np.concatenate((within * (gave - mean_gave[self._point]), between * mean_gave))
        target = np.concatenate((within[:, 0] * (wanted - mean_wanted[self._point]), between[:, 0] * mean_wanted))
        normal, right = matrix.T @ matrix, matrix.T @ target
        amount = float((between**2).sum())
        even = np.zeros((6, len(normal)))
        even[:, lamps:] = np.eye(6) - 1 / 6
        normal += _EVEN * amount * even.T @ even
        right[:lamps] -= lasso * amount
        root = np.linalg.cholesky(normal + 1e-8 * np.trace(normal) / len(normal) * np.eye(len(normal)))
        self.strengths = nnls(root.T, np.linalg.solve(root, right))[0]
        error = target - matrix @ self.strengths
        self.energy = float(error @ error)
        self._predicted = columns @ self.strengths
        self._robust = self._plausible()

    def _plausible(self) -> np.ndarray:
        """(N,) weights (Geman and McClure 1987) of brightness by what the light gives average skin: hair and glasses
        before the skin, cast shadows and gloss lie far from it, and an albedo that differs as usual does not.
        """
        ratio = np.maximum(self._brightness, _DARKEST) / np.maximum(self._predicted, _FLOOR)
        return 1 / (1 + (np.log(ratio) / (2 * np.hypot(MODEL, ALBEDO))) ** 2) ** 2

    def refined(self, lamps: np.ndarray) -> np.ndarray:
        """The directions (K, 3) near these with the least energy."""

        def turned(angles: np.ndarray) -> np.ndarray:
            moved = lamps + np.einsum("ki,kic->kc", angles.reshape(-1, 2), _tangents(lamps))
            return moved / np.linalg.norm(moved, axis=1, keepdims=True)

        def energy(angles: np.ndarray) -> float:
            self.solve(turned(angles), 0.0, rounds=1)
            return self.energy

        self.solve(lamps, 0.0)
        result = minimize(
            energy, np.zeros(2 * len(lamps)), method="Powell", options={"maxfev": 60, "xtol": 0.01, "ftol": 1e-4}
        )
        return turned(result.x)

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """Sums of rows (N, ...) over the frames of each point."""
        return np.add.reduceat(values[self._order], self._starts, axis=0)


def _typical(color: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(3,): the weighted median of colours (F, D, 3), which hair before the skin does not darken."""
    seen = weight > 0
    order = np.argsort(color[seen], axis=0)
    shares = np.cumsum(weight[seen][order], axis=0)
    middle = (shares < shares[-1] / 2).sum(0)
    return np.maximum(np.take_along_axis(color[seen], order, 0)[middle, range(3)], 1e-6)


def _clusters(directions: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """(K, 3) at most `MOST_LAMPS` lamps that stand for all with these directions and strengths."""
    left, sums = strengths.copy(), []
    while len(sums) < MOST_LAMPS and left.max(initial=0) > 0:
        near = directions @ directions[left.argmax()] > TOGETHER
        sums.append((left[near] @ directions[near], left[near].sum()))
        left[near] = 0
    total = max((strength for _, strength in sums), default=0.0)
    kept = [vector for vector, strength in sums if strength > LEAST_LAMP * total]
    return np.array([vector / np.linalg.norm(vector) for vector in kept]).reshape(-1, 3)


def _tangents(directions: np.ndarray) -> np.ndarray:
    """(K, 2, 3): two unit vectors across each direction."""
    other = np.eye(3)[np.abs(directions).argmin(1)]
    first = np.cross(directions, other)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return np.stack((first, np.cross(directions, first)), 1)


def _sphere(count: int) -> np.ndarray:
    """(count, 3) directions, evenly spread (a Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z, turn = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    across = np.sqrt(1 - z * z)
    return np.stack((across * np.cos(turn), across * np.sin(turn), z), 1)
