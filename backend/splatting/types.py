"""Input and output of the rasterisers: B images of G Gaussians each; float32; conventions as in gsplat.

World space is in metres; quaternions are (w, x, y, z) and normalised by the rasteriser; scales are linear standard
deviations in metres; opacities lie in [0, 1]; colours are RGB, to which spherical harmonics are evaluated beforehand
(see `spherical_harmonics`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Splats:
    means: torch.Tensor
    """(B, G, 3)"""
    quaternions: torch.Tensor
    """(B, G, 4)"""
    scales: torch.Tensor
    """(B, G, 3)"""
    opacities: torch.Tensor
    """(B, G)"""
    colors: torch.Tensor
    """(B, G, 3)"""


@dataclass(frozen=True)
class Cameras:
    """B pinhole cameras, OpenCV axes, one image size."""

    intrinsics: torch.Tensor
    """(B, 3, 3) pixels; the centre of the top-left pixel is (0.5, 0.5)."""
    world_to_camera: torch.Tensor
    """(B, 4, 4)"""
    width: int
    height: int

    def seen(self, points: torch.Tensor) -> torch.Tensor:
        """World space (B, N, 3) -> the space of each camera."""
        view = self.world_to_camera
        return points @ view[:, :3, :3].transpose(1, 2) + view[:, None, :3, 3]

    def pixels(self, points: torch.Tensor) -> torch.Tensor:
        """The space of each camera (B, N, 3) -> where it sees them, (B, N, 2) pixels."""
        landed = points @ self.intrinsics.transpose(1, 2)
        return landed[..., :2] / landed[..., 2:].clamp_min(1e-6)


@dataclass(frozen=True)
class Raster:
    color: torch.Tensor
    """(B, H, W, 3) premultiplied by alpha, on black."""
    alpha: torch.Tensor
    """(B, H, W)"""
    depth: torch.Tensor
    """(B, H, W) accumulated depth (sum of weight x camera z); divide by alpha for expected depth, metres."""
