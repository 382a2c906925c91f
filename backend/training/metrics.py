"""Image metrics of one rendered frame against the true one: every metric that `metrics.json` holds.

Both images are square, (H, W, 3) in [0, 1], sRGB-encoded, with everything but head and neck replaced by white, which is
the papers' protocol. White raises the scores, so `psnr_head` and `psnr_inner` leave it out; judge an avatar by these
two.

White also hides fringes: half-covered pixels of the truth show the room in which the person was filmed, and an avatar
that has learnt the room's colour scores well. `psnr_rim` shows image and truth over other backgrounds, the truth in the
foreground's own colours (`backend.footage.foreground`).

Papers also give AKD, the average distance of keypoints that a detector finds in both images (Siarohin et al. 2019).
That is `f_lmd`, whose distance is |dx| + |dy| in pixels at LANDMARK_SIZE, so it is not measured twice. CSIM, the cosine
of two embeddings of face recognition, is left out: the usual networks (ArcFace, FaceNet) were trained on VGGFace2,
MS-Celeb-1M or CASIA-WebFace, which are for research only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
import torch

from ..correspondence.landmark_sets import IBUG_68
from .perceptual import Distance, feature_distance, hed_features
from .ssim import ssim

INNER_SHARE = 0.025
"""`psnr_inner` leaves out a rim of this share of the image's width inside the matte's edge, where hair and matte are
least accurate."""

RIM_SHARE = 0.01
"""`psnr_rim` counts the pixels that the head covers in part, and those within this share of the image's width."""

LANDMARK_SIZE = 512
"""F-LMD is given in pixels of an image of this size, whatever the avatar's own resolution."""


@dataclass(frozen=True)
class ImageMetrics:
    """One frame, or the mean over frames. None: not measured (no weights, no face found)."""

    l2: float
    """Mean squared error."""
    psnr: float
    """dB, data range 1; 10 log10(1 / l2)."""
    ssim: float
    lpips: float | None
    """The original LPIPS only, never an approximation of it."""
    vgg_hed: float | None
    f_lmd: float | None
    """Mean over 68 landmarks of |dx| + |dy|, pixels at 512."""
    sd: float
    """Sharpness difference, dB, higher is better: see `sharpness_difference`."""
    psnr_head: float | None
    psnr_inner: float | None
    psnr_rim: float | None
    """At the head's outline over other backgrounds: see `rim_psnr`."""


def compare(
    image: np.ndarray,
    truth: np.ndarray,
    matte: np.ndarray,
    *,
    features: list[torch.Tensor] | None = None,
    lpips: Distance | None = None,
    landmarks: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    cutouts: tuple[np.ndarray, np.ndarray] | None = None,
) -> ImageMetrics:
    """Measure `image` against `truth`, both (H, W, 3) float32 in [0, 1]; `matte` (H, W) in [0, 1] is the true head's.

    `features` are `hed_features()` of the truth, computed once where several images are compared to it; without them
    `vgg_hed` is None. `landmarks` are the 68 landmarks of image and truth (see `ibug_landmarks`), None without a face.
    `cutouts` are the arguments of `rim_psnr`.
    """
    squared = np.square(image.astype(np.float64) - truth).mean(axis=2)
    a, b = torch.from_numpy(image)[None], torch.from_numpy(truth)[None]
    with torch.no_grad():
        return ImageMetrics(
            l2=float(squared.mean()),
            psnr=psnr(squared.mean()),
            ssim=float(ssim(a, b)),
            lpips=None if lpips is None else float(lpips(a, b)),
            vgg_hed=None if features is None else float(feature_distance(hed_features()(a), features)),
            f_lmd=landmark_distance(*landmarks, size=image.shape[0]),
            sd=sharpness_difference(image, truth),
            psnr_head=_psnr_within(squared, matte >= 0.5),
            psnr_inner=_psnr_within(squared, inner_matte(matte)),
            psnr_rim=rim_psnr(*cutouts) if cutouts else None,
        )


def average(metrics: list[ImageMetrics]) -> ImageMetrics | None:
    """The mean of each metric over the frames in which it was measured; None without frames."""
    if not metrics:
        return None
    means: dict[str, Any] = {}
    for field in fields(ImageMetrics):
        values = [value for entry in metrics if (value := getattr(entry, field.name)) is not None]
        means[field.name] = float(np.mean(values)) if values else None
    return ImageMetrics(**means)


def psnr(mean_squared_error: float) -> float:
    """DB for data range 1; equal images give 100 rather than infinity, so that means and JSON stay finite."""
    return float(-10 * np.log10(max(float(mean_squared_error), 1e-10)))


def inner_matte(matte: np.ndarray) -> np.ndarray:
    """(H, W) bool: the head eroded by INNER_SHARE of the image's width. The image's border does not count as an
    edge.
    """
    radius = max(1, round(INNER_SHARE * matte.shape[1]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.erode((matte >= 0.5).astype(np.uint8), disc).astype(bool)


def rim_psnr(image: np.ndarray, truth: np.ndarray) -> float | None:
    """DB at the outline of two heads, (H, W, 4) float32 in [0, 1] premultiplied by alpha, over black, a medium blue and
    a gradient; None where the truth has no half-covered pixels.
    """
    height, width = truth.shape[:2]
    radius = max(1, round(RIM_SHARE * width))
    partial = ((truth[..., 3] > 0.02) & (truth[..., 3] < 0.98)).astype(np.uint8)
    rim = cv2.dilate(partial, np.ones((2 * radius + 1,) * 2, np.uint8)) > 0
    difference = image.astype(np.float64) - truth
    down, across = np.mgrid[:height, :width] / max(height, width)
    backgrounds = (np.zeros(3), np.array((0.2, 0.3, 0.7)), np.stack((across, down, 1 - across), 2))
    errors = [np.square(difference[..., :3] - difference[..., 3:] * behind).mean(2) for behind in backgrounds]
    return _psnr_within(np.mean(errors, 0), rim)


def sharpness_difference(image: np.ndarray, truth: np.ndarray) -> float:
    """Tri2-plane, supplement eq. 15 (after Mathieu et al. 2016), in dB: 10 log10(N max^2 / sum |g' - g|).

    g is |difference to the row above| + |difference to the column before|; N counts the summed values over the three
    colour channels; max is 1, the largest value of a pixel. By this formula higher is better, though the paper's tables
    print it with a downward arrow. On images of range 0-255 the same formula gives 24 dB more.
    """

    def steps(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        return np.abs(x[1:, 1:] - x[:-1, 1:]) + np.abs(x[1:, 1:] - x[1:, :-1])

    return psnr(np.abs(steps(image) - steps(truth)).mean())


def ibug_landmarks(points: np.ndarray) -> np.ndarray:
    """(478, 2 or 3) of the detector -> (68, 2), same unit."""
    return points[IBUG_68, :2]


def landmark_distance(a: np.ndarray | None, b: np.ndarray | None, *, size: int) -> float | None:
    """F-LMD (Tri2-plane, supplement eq. 14) of two (68, 2) arrays in pixels of an image of `size`; None without a face.

    The paper sums over points and does not say how it averages; this is the mean over points, in pixels at 512.
    """
    if a is None or b is None:
        return None
    return float(np.abs(a - b).sum(axis=1).mean()) * LANDMARK_SIZE / size


def _psnr_within(squared: np.ndarray, where: np.ndarray) -> float | None:
    return psnr(squared[where].mean()) if where.any() else None
