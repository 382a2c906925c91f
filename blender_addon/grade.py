"""The grade of an avatar: exposure, white balance and black level, by which its colours meet those of a plate.

The grade is affine in sRGB-encoded values, in which Gaussians are blended: to grade each Gaussian or to grade the
premultiplied picture gives the same, whoever draws it. Light times a gain g is affine there as well: an encoded value v
above the curve's short straight part becomes k v + 0.055 (k - 1) with k = g ** (1 / 2.4). This module uses no `bpy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

_TOE, _POWER = 0.055, 2.4
"""Of the sRGB curve."""
_LUMINANCE: Final = np.array((0.2126, 0.7152, 0.0722))
DARK, LIGHT = 5, 95
"""Percentiles of luminance that are matched; what lies outside is a highlight, a speck or a mistake."""
MOST_BLACK: Final = 0.3
"""Of the black level that a match sets, in both directions."""
MOST_STOPS: Final = 4.0
"""Of the exposure that a match sets, in both directions."""
GAINS: Final = (0.25, 4.0)
"""Of red and blue that a match sets."""
_LEAST: Final = 1 / 255


@dataclass(frozen=True)
class Grade:
    """The neutral one by default."""

    exposure: float = 0.0
    """Stops: light is multiplied by 2 to this power."""
    red: float = 1.0
    """Gain on red light."""
    blue: float = 1.0
    """Gain on blue light."""
    black: float = 0.0
    """Encoded value that black becomes, while white stays."""

    @property
    def neutral(self) -> bool:
        return self == NEUTRAL

    @property
    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Factor (3,) and offset (3,) for encoded, straight colours."""
        slope = (2.0**self.exposure * np.array((self.red, 1.0, self.blue))) ** (1 / _POWER)
        factor = (1 - self.black) * slope
        offset = (1 - self.black) * _TOE * (slope - 1) + self.black
        return factor.astype(np.float32), offset.astype(np.float32)

    def colors(self, colors: np.ndarray) -> np.ndarray:
        """Straight, encoded colours (G, 3), graded; the same array by a neutral grade."""
        if self.neutral:
            return colors
        factor, offset = self.affine
        return colors * factor + offset


NEUTRAL: Final = Grade()


def graded_picture(
    color: np.ndarray, alpha: np.ndarray, grades: Sequence[Grade], shares: np.ndarray | None = None
) -> np.ndarray:
    """A picture's encoded, premultiplied colour (H, W, 3), graded. `shares` (H, W, M) are those of each pixel that each
    of the M `grades` covers, and add up to `alpha` (H, W); None for one grade. Of heads in one pixel, which the picture
    does not tell apart, each takes its share of the colour.
    """
    if all(grade.neutral for grade in grades):
        return color
    factors, offsets = (np.stack(each) for each in zip(*(grade.affine for grade in grades), strict=True))
    if shares is None:
        return color * factors[0] + alpha[..., None] * offsets[0]
    total = np.maximum(shares.sum(-1, keepdims=True), 1e-6)
    return color * (shares / total @ factors) + shares / total * alpha[..., None] @ offsets


def match(picture: np.ndarray, plate: np.ndarray) -> Grade:
    """The grade that gives an avatar's pixels (N, 3) the look of a plate's (M, 3), both straight and encoded.

    The 5th and 95th percentiles of luminance give the black level. Then the means of red, green and blue between these
    percentiles give exposure and the gains of red and blue.
    """
    (dark, light, means), (plate_dark, plate_light, plate_means) = _look(picture), _look(plate)
    # A picture without contrast does not tell black from exposure.
    steep = (plate_light - plate_dark) / (light - dark) if min(light - dark, plate_light - plate_dark) > 0.05 else None
    black = 0.0 if steep is None else (plate_dark + _TOE - steep * (dark + _TOE)) / (1 + _TOE)
    black = float(np.clip(black, -MOST_BLACK, min(MOST_BLACK, plate_means.min())))
    slopes = ((plate_means - black) / (1 - black) + _TOE) / (means + _TOE)
    gains = np.maximum(slopes, _LEAST) ** _POWER
    return Grade(
        float(np.clip(np.log2(gains[1]), -MOST_STOPS, MOST_STOPS)),
        float(np.clip(gains[0] / gains[1], *GAINS)),
        float(np.clip(gains[2] / gains[1], *GAINS)),
        black,
    )


def _look(pixels: np.ndarray) -> tuple[float, float, np.ndarray]:
    """The percentiles `DARK` and `LIGHT` of luma, and the mean (3,) of the pixels between them."""
    pixels = np.asarray(pixels, np.float64)
    luma = pixels @ _LUMINANCE
    dark, light = np.percentile(luma, (DARK, LIGHT))
    return float(dark), float(light), pixels[(luma >= dark) & (luma <= light)].mean(0)
