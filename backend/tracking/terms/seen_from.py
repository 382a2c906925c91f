"""A term that measures the head in one camera of a rig, as a term of the pose in the rig's first camera."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ..model.camera import Camera
from ..model.frame_state import FrameState
from ..model.viewpoint import Viewpoint
from .term import NormalEquations, Term


@dataclass(frozen=True)
class SeenFrom(Term):
    """`term` with the frames' parameters as `camera` at `viewpoint` sees them; the camera that a method gets is not
    used.
    """

    term: Term
    camera: Camera
    viewpoint: Viewpoint

    def __getitem__(self, index: slice | Tensor) -> Self:
        return replace(self, term=self.term[index])

    def reweighted(self, state: FrameState, camera: Camera, robust_scale: float) -> Self:
        return replace(self, term=self.term.reweighted(self.viewpoint.seen(state), self.camera, robust_scale))

    def energy(self, state: FrameState, camera: Camera) -> Tensor:
        return self.term.energy(self.viewpoint.seen(state), self.camera)

    def normal_equations(self, state: FrameState, camera: Camera, *, shared: bool = False) -> NormalEquations:
        """Gradient and Hessian by the parameters in the first camera. A rig takes no part in fitting a person, so there
        are no blocks of shared parameters.
        """
        here = self.term.normal_equations(self.viewpoint.seen(state), self.camera)
        layout = state.layout
        jacobian = torch.eye(layout.size, dtype=here.gradient.dtype, device=here.gradient.device)
        jacobian[layout.rotation, layout.rotation] = self.viewpoint.rotation
        jacobian[layout.translation, layout.translation] = self.viewpoint.rotation
        return NormalEquations(here.energy, here.gradient @ jacobian, jacobian.T @ here.hessian @ jacobian)
