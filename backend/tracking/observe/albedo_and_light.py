"""What a person's skin looks like: an albedo at every place, under each clip's own light.

Lambertian skin under light that does not move with the head: I = a(place) h . Y(normal), Y the first nine spherical
harmonics of the normal in the camera's space (Ramamoorthi and Hanrahan 2001, eq. 12: nine hold 98 % of what diffuse skin
shows of any light). Albedo is the person's, light is the clip's. Both are found from frames whose heads are placed by other
evidence, in turn: albedo is a mean over frames of what is left when the light is taken out, light a least-squares fit to
what is left when albedo is. Blurred pictures give a blurred albedo, so coarse pictures are compared with coarse albedo.

What the model leaves out (gloss, cast shadows, a lamp that turns with the head) varies slowly over the skin, and who compares
a frame with it lets every patch have a brightness of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...formats.capture import Capture
from ..model.frame_state import FrameState
from ..terms.landmarks import Evidence
from .skin_samples import Skin, View, look_at

ROUNDS = 4
"""Albedo and light, in turn."""
_DIMMEST = 0.08
"""Of the ambient light: what shines on a place that no light reaches."""
_RIDGE = 1e-3
_LEAST_SEEN = 1.5
"""Frames in which a place must be plainly seen to have an albedo."""


@dataclass(frozen=True)
class Appearance:
    albedo: np.ndarray
    """(D,) float32: logarithm of linear reflectance, times a factor that is the light's."""
    known: np.ndarray
    """(D,) bool: seen in enough frames."""
    lights: np.ndarray
    """(C, 9) spherical-harmonic coefficients, one set a clip."""
    blur: float
    """Pixels at 512."""

    def expected(self, clip: int, view: View) -> np.ndarray:
        """(D,) float32: the logarithm of brightness that a picture should have under the places."""
        return self.albedo + shading(self.lights[clip], view.normals)


def harmonics(normals: np.ndarray) -> np.ndarray:
    """Unit vectors (..., 3) -> (..., 9): 1, y, z, x, xy, yz, 3z² - 1, xz, x² - y², without the usual constants."""
    x, y, z = np.moveaxis(normals, -1, 0)
    return np.stack((np.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y), -1)


def shading(light: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(..., ) the logarithm of how brightly light (9,) shines on normals (..., 3)."""
    return np.log(np.maximum(harmonics(normals) @ light, _DIMMEST * max(light[0], 1e-3))).astype(np.float32)


@dataclass(frozen=True)
class Lit:
    """Frames of one clip whose heads are placed."""

    capture: Capture
    state: FrameState
    which: np.ndarray
    """(F,) indices of the frames."""
    evidence: Evidence


def learn_appearance(skin: Skin, identity: torch.Tensor, clips: Sequence[Lit], blur: float) -> Appearance:
    """From frames of one or several clips of one person; `blur` in pixels at 512."""
    seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for clip in clips:
        rows = list(
            look_at(
                skin,
                clip.capture,
                identity,
                clip.state,
                clip.which,
                clip.evidence,
                blur,
                lambda _, view: (view.look()[:, 0], view.normals, view.weight.astype(np.float32)),
            )
        )
        seen.append(tuple(np.stack(part) for part in zip(*rows, strict=True)))
    weight = sum(weights.sum(0) for _, _, weights in seen)
    lights = np.zeros((len(clips), 9))
    lights[:, 0] = 1
    for _ in range(ROUNDS):
        total = sum(
            (weights * (values - shading(light, normals))).sum(0)
            for (values, normals, weights), light in zip(seen, lights, strict=True)
        )
        albedo = total / np.maximum(weight, 1e-6)
        for index, (values, normals, weights) in enumerate(seen):
            lights[index] = _light(np.exp(values - albedo), harmonics(normals), weights)
    return Appearance(
        albedo.astype(np.float32), weight > min(_LEAST_SEEN, 0.3 * sum(len(clip.which) for clip in clips)), lights, blur
    )


def _light(brightness: np.ndarray, shapes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(9,) least squares over (F, D), outliers (gloss, shadows) tamed once."""
    shapes, flat, trust = (
        shapes.reshape(-1, 9).astype(np.float64),
        brightness.ravel(),
        weight.ravel().astype(np.float64),
    )
    light = np.zeros(9)
    for _ in range(2):
        across = shapes * trust[:, None]
        light = np.linalg.solve(across.T @ shapes + _RIDGE * trust.sum() * np.eye(9), across.T @ flat)
        error = np.abs(flat - shapes @ light)
        middle = 1.5 * np.median(error[trust > 0]) + 1e-6
        trust = weight.ravel() / (1 + (error / (2 * middle)) ** 2)
    return light
