"""How near a rendered picture is to the true one: every figure that `metrics.json` holds, for one frame.

Both pictures are square, (H, W, 3) in [0, 1], sRGB-encoded, with everything but head and neck replaced by white: the
papers' protocol. White is easy, so `psnr_head` and `psnr_inner` leave it out; they are the figures to believe.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
import torch

from .perceptual import Distance, feature_distance, hed_features
from .ssim import ssim

INNER_SHARE = 0.025
"""`psnr_inner` leaves out this share of the picture's width inside the matte's edge, where hair and matte err most."""

LANDMARK_SIZE = 512
"""F-LMD is given in pixels of a picture of this side, whatever the avatar's own resolution."""

IBUG_68 = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
"""The detector's point (of 478) at each of the 68 standard (iBUG 300-W) landmarks, in their order: jaw line from the
picture's left, brows, nose bridge and base, eyes, outer lips, inner lips."""


@dataclass(frozen=True)
class PictureMetrics:
    """One frame, or the mean over frames. None: not measured (no weights, no face found)."""

    l2: float
    """Mean squared error."""
    psnr: float
    """dB, data range 1; 10 log10(1 / l2)."""
    ssim: float
    lpips: float | None
    """Only ever the real LPIPS."""
    vgg_hed: float | None
    f_lmd: float | None
    """Mean over 68 landmarks of |dx| + |dy|, pixels at 512."""
    sd: float
    """Sharpness difference, dB, higher is better: see `sharpness_difference`."""
    psnr_head: float | None
    psnr_inner: float | None


def compare(
    picture: np.ndarray,
    truth: np.ndarray,
    matte: np.ndarray,
    *,
    features: list[torch.Tensor] | None = None,
    lpips: Distance | None = None,
    landmarks: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> PictureMetrics:
    """Measure `picture` against `truth`, both (H, W, 3) float32 in [0, 1]; `matte` (H, W) in [0, 1] is the true head's.

    `features` are `hed_features()` of the truth, computed once where several pictures meet the same truth; without them
    `vgg_hed` stays None. `landmarks` are the 68 of picture and truth (see `ibug_landmarks`), None without a face.
    """
    squared = np.square(picture.astype(np.float64) - truth).mean(axis=2)
    a, b = torch.from_numpy(picture)[None], torch.from_numpy(truth)[None]
    with torch.no_grad():
        return PictureMetrics(
            l2=float(squared.mean()),
            psnr=psnr(squared.mean()),
            ssim=float(ssim(a, b)),
            lpips=None if lpips is None else float(lpips(a, b)),
            vgg_hed=None if features is None else float(feature_distance(hed_features()(a), features)),
            f_lmd=landmark_distance(*landmarks, size=picture.shape[0]),
            sd=sharpness_difference(picture, truth),
            psnr_head=_psnr_within(squared, matte >= 0.5),
            psnr_inner=_psnr_within(squared, inner_matte(matte)),
        )


def average(metrics: list[PictureMetrics]) -> PictureMetrics | None:
    """The mean over frames of each figure, over those frames where it was measured; None without frames."""
    if not metrics:
        return None
    means: dict[str, Any] = {}
    for field in fields(PictureMetrics):
        values = [value for entry in metrics if (value := getattr(entry, field.name)) is not None]
        means[field.name] = float(np.mean(values)) if values else None
    return PictureMetrics(**means)


def psnr(mean_squared_error: float) -> float:
    """DB for data range 1; equal pictures give 100 rather than infinity, so that means and JSON stay finite."""
    return float(-10 * np.log10(max(float(mean_squared_error), 1e-10)))


def inner_matte(matte: np.ndarray) -> np.ndarray:
    """(H, W) bool: the head at least INNER_SHARE of the width inside its edge. The picture's border is no edge."""
    radius = max(1, round(INNER_SHARE * matte.shape[1]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.erode((matte >= 0.5).astype(np.uint8), disc).astype(bool)


def sharpness_difference(picture: np.ndarray, truth: np.ndarray) -> float:
    """Tri2-plane, supplement eq. 15 (after Mathieu et al. 2016), in dB: 10 log10(N max^2 / sum |g' - g|).

    g is |difference to the row above| + |difference to the column before|; N counts the summed values, over the three
    colours; max is 1, the largest value a pixel can take. As the formula stands more is better, though the paper's
    tables print it with an arrow downwards. With 0-255 pictures the same formula reads 24 dB more.
    """

    def steps(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        return np.abs(x[1:, 1:] - x[:-1, 1:]) + np.abs(x[1:, 1:] - x[1:, :-1])

    return psnr(np.abs(steps(picture) - steps(truth)).mean())


def ibug_landmarks(points: np.ndarray) -> np.ndarray:
    """(478, 2 or 3) of the detector -> (68, 2), same unit."""
    return points[list(IBUG_68), :2]


def landmark_distance(a: np.ndarray | None, b: np.ndarray | None, *, size: int) -> float | None:
    """F-LMD (Tri2-plane, supplement eq. 14) of two (68, 2) in pixels of a `size` picture; None without a face.

    The paper sums over points and does not say how it averages; this is the mean over points, in pixels at 512.
    """
    if a is None or b is None:
        return None
    return float(np.abs(a - b).sum(axis=1).mean()) * LANDMARK_SIZE / size


def _psnr_within(squared: np.ndarray, where: np.ndarray) -> float | None:
    return psnr(squared[where].mean()) if where.any() else None
