"""The pinhole camera that a clip is seen through, and a first estimate of head poses in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import roma
import torch
from torch import Tensor

NEAR = 0.05
"""Metres. A solver step may put a head behind the camera for one trial; the division must survive it."""


@dataclass(frozen=True)
class Camera:
    """One clip's camera (OpenCV axes), and the pivot about which the head pose rotates."""

    focal: Tensor
    """() pixels, the same for x and y."""
    centre: Tensor
    """(2,) pixels: the principal point."""
    pivot: Tensor
    """(3,) metres in head space: the point of the head that `FrameState.translation` positions in the camera."""
    pixel: float
    """The size of one pixel of a 512 × 512 image in pixels of this camera's image. Noise levels are stated at 512."""

    @classmethod
    def from_intrinsics(cls, intrinsics: np.ndarray, size: int, pivot: Tensor) -> Camera:
        """From a (3, 3) intrinsic matrix of `size` × `size` images; the focal length is the mean of fx and fy."""
        focal = torch.tensor((intrinsics[0, 0] + intrinsics[1, 1]) / 2, dtype=torch.float32, device=pivot.device)
        centre = torch.as_tensor(intrinsics[:2, 2], dtype=torch.float32, device=pivot.device)
        return cls(focal, centre, pivot, size / 512)

    def with_focal(self, focal: Tensor) -> Camera:
        """The same camera with another focal length () in pixels."""
        return replace(self, focal=focal)

    def intrinsics(self) -> np.ndarray:
        """(3, 3) float64."""
        matrix = np.eye(3)
        matrix[0, 0] = matrix[1, 1] = float(self.focal)
        matrix[:2, 2] = self.centre.cpu().numpy()
        return matrix

    def project(self, points: Tensor) -> Tensor:
        """Camera-space points (..., 3) in metres -> pixels (..., 2)."""
        depth = points[..., 2:].clamp_min(NEAR)
        return self.focal * points[..., :2] / depth + self.centre

    def projection_jacobian(self, points: Tensor) -> Tensor:
        """The derivative of the pixels by the camera-space point: (..., 3) -> (..., 2, 3)."""
        inverse = 1 / points[..., 2].clamp_min(NEAR)
        scale = self.focal * inverse
        zero = torch.zeros_like(scale)
        return torch.stack(
            (
                torch.stack((scale, zero, -scale * points[..., 0] * inverse), -1),
                torch.stack((zero, scale, -scale * points[..., 1] * inverse), -1),
            ),
            -2,
        )


def estimate_head_pose(
    model_points: Tensor, detected: Tensor, weights: Tensor, camera: Camera
) -> tuple[Tensor, Tensor]:
    """Head poses from landmarks with the detector's own relative depth, by weighted similarity alignment (Umeyama
    1991).

    Args:
        model_points: (F, L, 3) metres in head space.
        detected: (F, L, 3) pixels, the third coordinate the detector's relative depth.
        weights: (F, L).
        camera: The camera that the landmarks were seen through.

    Returns:
        Rotations (F, 3, 3) and translations (F, 3) with camera = R x + t. They are a few degrees off, good enough to
        start the solver.

    """
    model_points, detected, weights = model_points.double(), detected.double(), weights.double()
    # A frame without a face has no weights. Its pose must be finite; the caller replaces it.
    weights = torch.where(weights.sum(1, keepdim=True) > 0, weights, 1.0)
    share = weights / weights.sum(1, keepdim=True)
    registration = roma.rigid_points_registration(model_points, detected, weights=share, compute_scaling=True)
    rotation, _, pixels_per_metre = cast("tuple[Tensor, Tensor, Tensor]", registration)
    pixels_per_metre = pixels_per_metre.clamp_min(1e-3)
    model_mean, detected_mean = ((share.unsqueeze(-1) * points).sum(1) for points in (model_points, detected))
    depth = camera.focal.double() / pixels_per_metre
    lateral = (detected_mean[:, :2] - camera.centre.double()) / pixels_per_metre.unsqueeze(-1)
    position = torch.cat((lateral, depth.unsqueeze(-1)), -1)
    translation = position - (rotation @ model_mean.unsqueeze(-1)).squeeze(-1)
    return rotation.float(), translation.float()
