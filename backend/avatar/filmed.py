"""What faces a clip has filmed, and the nearest of them to a face that it has not.

A face is D numbers: expression, jaw and eyes, as in `Pose.conditions`. Two limits keep the networks' input to what they
were trained on; the posed mesh always follows the request:

1. Each number is clamped to its range in the clip (`expression_limits`).
2. Together they are kept near the clip's faces, because a frown whose every part was filmed may never have been filmed
   as a whole. The faces' mean and covariance describe an ellipsoid that just holds all training frames. A face outside
   is replaced by the nearest point of the ellipsoid. The distance is Euclidean, so that what the clip varies most,
   such as an open jaw, is kept, and what it never varied goes. A face so far outside that held-out frames of the same
   clip hardly reach it is drawn from the rig: its input approaches the clip's mean face by up to PULL.

A distance of 1 is the edge of the ellipsoid. Faces inside are not changed. Gaussian blendshapes have the second limit
region by region instead (`filmed_regions`); the ellipsoid then only tells how far a face is.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

EXPRESSION_MARGIN: Final = 0.1
"""Margin beyond the smallest and largest value of each coefficient, or angle in radians: a few times the noise that
training adds to the conditions."""
NOISE: Final = 0.05
"""Standard deviation that is added to the clip's in every direction: the noise of training, and the tracker's errors in
other frames of the same performance."""
FAR: Final = (1.25, 2.0)
"""Distances at which a face begins to approach the mean face, and from which on it does no more. Of the held-out frames
of two clips one in twenty is beyond 1.3 and 1.6; angry and disgusted faces are at 1.8 and more."""
PULL: Final = 0.4
LEAST_AXIS: Final = 1e-6
"""Of an ellipsoid from a file: the square of a much shorter semi-axis is zero. Those of a clip are at least NOISE."""
NEWTON_STEPS: Final = 12
"""In the search for the nearest point, which then has six digits."""


def expression_limits(faces: Tensor) -> Tensor:
    """Faces (F, D) of a clip -> (2, D): lower and upper limits, with a margin."""
    return torch.stack((faces.amin(0) - EXPRESSION_MARGIN, faces.amax(0) + EXPRESSION_MARGIN))


def unlimited_expressions(size: int) -> Tensor:
    """Limits (2, D) that clamp nothing."""
    return torch.tensor((-math.inf, math.inf))[:, None].repeat(1, size)


def beyond_limits(faces: Tensor, limits: Tensor) -> Tensor:
    """Faces (B, D) and limits (2, D) -> (B, D) in [0, 1]: how much of the upper margin each number takes."""
    return ((faces - limits[1]) / EXPRESSION_MARGIN + 1).clamp(0, 1)


def filmed_faces(faces: Tensor) -> Tensor:
    """Faces (F, D) of a clip -> (2 + D, D): centre of the ellipsoid, its semi-axes, and their directions as rows."""
    centre = faces.mean(0)
    offsets = (faces - centre).double()
    variances, directions = torch.linalg.eigh(offsets.T @ offsets / len(faces))
    deviations = (variances.clamp_min(0) + NOISE**2).sqrt()
    radius = (offsets @ directions / deviations).norm(dim=1).amax().clamp_min(1.0)
    return torch.cat((centre[None], (radius * deviations)[None], directions.T)).to(faces)


def unlimited_faces(size: int) -> Tensor:
    """An ellipsoid (2 + D, D) that holds every face."""
    return torch.cat((torch.zeros(1, size), torch.full((1, size), math.inf), torch.eye(size)))


def is_ellipsoid(filmed: Tensor) -> bool:
    """Whether an ellipsoid (2 + D, D) from a file has semi-axes that can be divided by, perhaps infinite ones, and
    all else is finite.
    """
    return bool((filmed[1] > LEAST_AXIS).all() and filmed[0].isfinite().all() and filmed[2:].isfinite().all())


def distance(faces: Tensor, filmed: Tensor) -> Tensor:
    """Faces (B, D) -> (B,): 1 on the ellipsoid's surface, as far as the furthest training frame; 0 at its centre."""
    return _along_axes(faces, filmed).norm(dim=1)


def nearest_filmed(faces: Tensor, filmed: Tensor) -> Tensor:
    """Faces (B, D) -> (B, D): as this module's docstring says; those within a distance of 1 as they are."""
    axes, directions = filmed[1], filmed[2:]
    with torch.no_grad():
        units = _along_axes(faces, filmed)
        away = units.norm(dim=1, keepdim=True)
        # The nearest point has the coordinates units / (1 + shift / axes²) for the shift at which its distance is 1.
        # Newton's steps are those of trust-region methods (Moré & Sorensen 1983), which converge from below.
        curvature, shift = axes.square().reciprocal(), torch.zeros_like(away)
        for _ in range(NEWTON_STEPS):
            found = units / (1 + shift * curvature)
            length = found.norm(dim=1, keepdim=True)
            slope = (found.square() * curvature / (1 + shift * curvature)).sum(1, keepdim=True)
            shift = shift + length.square() / slope.clamp_min(1e-12) * (length - 1).clamp_min(0)
        share = ((away - FAR[0]) / (FAR[1] - FAR[0])).clamp(0, 1)
        pull = PULL * share.square() * (3 - 2 * share)
        kept = (1 - pull) / (1 + shift * curvature)
        outside = away > 1
    # Of each offset along an axis, 1 - kept goes. Inside nothing is added, so that faces stay as they are to the bit.
    offsets = (faces - filmed[0]) @ directions.T
    return torch.where(outside, faces - ((1 - kept) * offsets) @ directions, faces)


def _along_axes(faces: Tensor, filmed: Tensor) -> Tensor:
    """(B, D) -> (B, D) in units of the semi-axes."""
    return (faces - filmed[0]) @ filmed[2:].T / filmed[1]
