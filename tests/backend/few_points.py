"""A head of a few surface points with arbitrary bases, in float64: small enough for finite differences."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from backend.head.rotations import axis_angle_to_matrix
from backend.tracking.model.camera import Camera
from backend.tracking.model.frame_state import Bounds, FrameState
from backend.tracking.model.landmark_surface import NO_JOINT, LandmarkSurface, LinearBasis

IDENTITIES, EXPRESSIONS = 2, 3
FACING = torch.diag(torch.tensor((1.0, -1.0, -1.0))).double()
"""The rotation of a head that looks into the camera."""


def surface_of(points: np.ndarray | list[int], seed: int = 0, dtype: torch.dtype = torch.float64) -> LandmarkSurface:
    """A surface with random bases at these detector's landmarks; its points take turns to follow jaw, eyes and none."""
    generator = torch.Generator().manual_seed(seed)
    count = len(points)

    def linear(scale: float) -> LinearBasis:
        def drawn(*shape: int) -> Tensor:
            return scale * torch.randn(count, 3, *shape, generator=generator).to(dtype)

        return LinearBasis(drawn(), 0.2 * drawn(IDENTITIES), 0.2 * drawn(EXPRESSIONS), 0.05 * drawn(27))

    return LandmarkSurface(
        np.asarray(points),
        np.ones(count, bool),
        linear(0.05),
        linear(0.02),
        torch.arange(count) % (NO_JOINT + 1),
        torch.rand(count, generator=generator).to(dtype),
    )


def camera_of(focal: float = 900.0, pixel: float = 1.0) -> Camera:
    return Camera(
        torch.tensor(focal).double(),
        torch.tensor((250.0, 260.0)).double(),
        torch.tensor((0.0, 0.01, 0.05)).double(),
        pixel,
    )


def state_of(frames: int, seed: int = 1, expressions: int = EXPRESSIONS) -> FrameState:
    """Heads that look about, 60 cm away."""
    generator = torch.Generator().manual_seed(seed)
    face = 0.3 * torch.randn(frames, expressions + 7, generator=generator).double()
    turn = axis_angle_to_matrix(0.2 * torch.randn(frames, 3, generator=generator).double())
    place = torch.tensor((0.01, -0.02, 0.6)).double() + 0.01 * torch.randn(frames, 3, generator=generator).double()
    return FrameState(face, turn @ FACING, place)


def wide_bounds(state: FrameState) -> Bounds:
    bound = torch.full((state.face.shape[1],), 99.0).double()
    return Bounds(-bound, bound, torch.zeros(state.layout.size, dtype=torch.bool))


def differences(function: object, size: int, step: float = 1e-5) -> Tensor:
    """(..., size): central differences of a function of a vector (size,), at zero."""
    unit = torch.eye(size).double() * step
    return torch.stack([(function(row) - function(-row)) / (2 * step) for row in unit], -1)
