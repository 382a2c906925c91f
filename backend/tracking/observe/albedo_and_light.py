"""The skin's albedo at every sample, and the light of each clip.

For Lambertian skin under light that does not move with the head, I = a(sample) h . Y(normal), with Y the first nine
spherical harmonics of the normal in camera space (Ramamoorthi and Hanrahan 2001, eq. 12: nine terms hold 98 % of the
diffuse shading of any light). The albedo a is the person's, the light h the clip's. Both are estimated from posed
frames alternately: the albedo is the mean over frames of the brightness divided by the shading, the light a
least-squares fit to the brightness divided by the albedo. Blurred images give a blurred albedo, so coarse images are
compared with a coarse albedo.

The model leaves out gloss, cast shadows and lamps that move with the head. These vary slowly over the skin, and the
skin patch term gives every patch a brightness of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .skin_samples import PosedClip, Skin, SkinView, sample_frames

_ROUNDS = 4
"""Times that albedo and light are each estimated, alternately."""
_MIN_SHADING = 0.08
"""The smallest shading, as a fraction of the light's constant coefficient, so that its logarithm stays finite."""
_RIDGE = 1e-3
"""Ridge regularisation of the light's least-squares fit, as a fraction of the total weight."""
_MIN_FRAMES = 1.5
"""The sum over frames of a sample's visibility from which on its albedo counts as determined."""


@dataclass(frozen=True)
class PersonAppearance:
    """The albedo of one person's skin, and the light of each of C clips."""

    albedo: np.ndarray
    """(D,) float32: the logarithm of linear reflectance, up to a factor that belongs to the light."""
    determined: np.ndarray
    """(D,) bool: the sample was visible in enough frames to determine its albedo."""
    lights: np.ndarray
    """(C, 9) spherical-harmonic coefficients of each clip's light."""
    blur: float
    """Pixels at 512: the blur of the images that it was learned from."""

    def expected(self, clip: int, view: SkinView) -> np.ndarray:
        """(D,) float32: the logarithm of brightness that an image of clip number `clip` should have at the samples."""
        return self.albedo + log_shading(self.lights[clip], view.normals)


def spherical_harmonics(normals: np.ndarray) -> np.ndarray:
    """Unit vectors (..., 3) -> (..., 9): 1, y, z, x, xy, yz, 3z² - 1, xz, x² - y², without the usual constants."""
    x, y, z = np.moveaxis(normals, -1, 0)
    return np.stack((np.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y), -1)


def log_shading(light: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(...,): the logarithm of the shading by light (9,) at normals (..., 3)."""
    shading = spherical_harmonics(normals) @ light
    return np.log(np.maximum(shading, _MIN_SHADING * max(light[0], 1e-3))).astype(np.float32)


def learn_appearance(skin: Skin, identity: Tensor, clips: Sequence[PosedClip], blur: float) -> PersonAppearance:
    """Learn albedo and light from posed frames of one or several clips of one person; `blur` in pixels at 512."""
    samples: list[tuple[np.ndarray, ...]] = []
    for clip in clips:
        rows = sample_frames(
            skin,
            identity,
            clip,
            blur,
            lambda _, view: (view.sample()[:, 0], view.normals, view.weight.astype(np.float32)),
        )
        samples.append(tuple(np.stack(part) for part in zip(*rows, strict=True)))
    weight = np.sum([weights.sum(0) for _, _, weights in samples], axis=0)
    albedo = np.zeros_like(weight)
    lights = np.zeros((len(clips), 9))
    lights[:, 0] = 1
    for _ in range(_ROUNDS):
        total = np.sum(
            [
                (weights * (values - log_shading(light, normals))).sum(0)
                for (values, normals, weights), light in zip(samples, lights, strict=True)
            ],
            axis=0,
        )
        albedo = total / np.maximum(weight, 1e-6)
        for index, (values, normals, weights) in enumerate(samples):
            lights[index] = fit_light(np.exp(values - albedo), spherical_harmonics(normals), weights)
    frames = sum(len(clip.frames) for clip in clips)
    return PersonAppearance(albedo.astype(np.float32), weight > min(_MIN_FRAMES, 0.3 * frames), lights, blur)


def fit_light(brightness: np.ndarray, harmonics: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(9,): least squares of brightness (F, D) by harmonics (F, D, 9) with weights (F, D). One reweighting reduces the
    influence of outliers such as gloss and shadows.
    """
    rows, flat = harmonics.reshape(-1, 9).astype(np.float64), brightness.ravel()
    current = weight.ravel().astype(np.float64)
    light = np.zeros(9)
    for _ in range(2):
        weighted = rows * current[:, None]
        light = np.linalg.solve(weighted.T @ rows + _RIDGE * current.sum() * np.eye(9), weighted.T @ flat)
        error = np.abs(flat - rows @ light)
        scale = 1.5 * np.median(error[current > 0]) + 1e-6
        current = weight.ravel() / (1 + (error / (2 * scale)) ** 2)
    return light
