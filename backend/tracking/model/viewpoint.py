"""Where a camera of a rig stands: several cameras that saw the same moments share one head pose.

The frames' parameters are those in the rig's first camera. In camera i the head pose is viewpoint_i after it:
R_i = V R and t_i = V t + v. A step of the solver with the left tangent w and the translation d is V w and V d there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .frame_state import FrameState


@dataclass(frozen=True)
class Viewpoint:
    """The rigid motion from the space of the rig's first camera to that of another, OpenCV axes."""

    rotation: Tensor
    """(3, 3)"""
    translation: Tensor
    """(3,) metres"""

    def seen(self, state: FrameState) -> FrameState:
        """The frames' parameters in this camera, from those in the first."""
        return replace(
            state,
            rotation=self.rotation @ state.rotation,
            translation=state.translation @ self.rotation.T + self.translation,
        )

    def inverse(self) -> Viewpoint:
        return Viewpoint(self.rotation.T, -self.rotation.T @ self.translation)

    def matrix(self) -> Tensor:
        """(4, 4) float64."""
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[:3, :3], matrix[:3, 3] = self.rotation.double(), self.translation.double()
        return matrix
