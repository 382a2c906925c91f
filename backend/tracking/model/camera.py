"""The pinhole camera, its derivative, and where a head stands before anything has been solved."""

from __future__ import annotations

import torch
from torch import Tensor

NEAR = 0.05
"""Metres. A step of the solver may throw a head behind the camera for a moment; the division must survive it."""


def project(points: Tensor, focal: Tensor, centre: Tensor) -> Tensor:
    """Camera points (..., 3), focal length in pixels, principal point (2,) -> pixels (..., 2), OpenCV axes."""
    depth = points[..., 2:].clamp_min(NEAR)
    return focal * points[..., :2] / depth + centre


def project_derivative(points: Tensor, focal: Tensor) -> Tensor:
    """d pixels / d camera point: (..., 3) -> (..., 2, 3)."""
    inverse = 1 / points[..., 2].clamp_min(NEAR)
    scale = focal * inverse
    zero = torch.zeros_like(scale)
    return torch.stack(
        (
            torch.stack((scale, zero, -scale * points[..., 0] * inverse), -1),
            torch.stack((zero, scale, -scale * points[..., 1] * inverse), -1),
        ),
        -2,
    )


def stand_head(
    model_points: Tensor, seen: Tensor, weights: Tensor, focal: Tensor, centre: Tensor
) -> tuple[Tensor, Tensor]:
    """Head poses from the detector's own relative depth, by weighted similarity alignment (Umeyama 1991).

    `model_points` (F, L, 3) metres in head space, `seen` (F, L, 3) pixels with relative depth, `weights` (F, L).
    Returns rotations (F, 3, 3) and translations (F, 3): camera = R x + t. A start for the solver, good to some degrees.
    """
    model_points, seen, weights = model_points.double(), seen.double(), weights.double()
    share = (weights / weights.sum(1, keepdim=True).clamp_min(1e-9)).unsqueeze(-1)
    model_mean, seen_mean = (share * model_points).sum(1, keepdim=True), (share * seen).sum(1, keepdim=True)
    model_centred, seen_centred = model_points - model_mean, seen - seen_mean
    u, sigma, vt = torch.linalg.svd((share * seen_centred).transpose(1, 2) @ model_centred)
    flip = torch.linalg.det(u @ vt).sign()
    signs = torch.stack((torch.ones_like(flip), torch.ones_like(flip), flip), -1)
    rotation = u @ (signs.unsqueeze(-1) * vt)
    variance = (share * model_centred**2).sum((1, 2)).clamp_min(1e-12)
    pixels_per_metre = ((sigma * signs).sum(1) / variance).clamp_min(1e-3)
    depth = focal.double() / pixels_per_metre
    place = torch.cat(
        ((seen_mean[:, 0, :2] - centre.double()) / pixels_per_metre.unsqueeze(-1), depth.unsqueeze(-1)), -1
    )
    translation = place - (rotation @ model_mean.transpose(1, 2)).squeeze(-1)
    return rotation.float(), translation.float()
