"""Smoothness over time: the accelerations of a frame's parameters are small."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ..model.camera import Camera
from ..model.frame_state import FrameState
from .temporal_coupling import TemporalCoupling
from .term import NormalEquations, Term

QUICK = 4.0
"""Standard deviations of the head pose's acceleration at which its smoothness weight is halved. A head that shakes to
15 degrees three times a second is then 1.1 degrees off (median), as it is without smoothness, and not 7."""
_AVERAGING = torch.tensor((1.0, 2.0, 3.0, 2.0, 1.0)) / 9
"""Weights of the moving average that tells a moving head from noise: noise changes its sign, a movement goes on."""


@dataclass(frozen=True)
class SmoothnessTerm(Term):
    """Gaussian priors on second differences. The head pose's prior yields where the head accelerates by far more than
    expected: a head rests for seconds and then nods or shakes within moments. The weight is Cauchy's function.
    """

    precision: Tensor
    """(P,): one over the variance of the second difference."""
    linked: Tensor
    """(F - 1,) bool: a frame and the next belong to one shot."""
    face_found: Tensor
    """(F,) bool: the detector found a face. Unobserved frames get the weakest prior, because nothing limits their
    motion; this is applied only where `unobserved_is_quick`."""
    unobserved_is_quick: bool = False
    coupling: TemporalCoupling | None = None
    """With the robust weights for the current estimate, from `reweighted`; None where all weights are 1."""

    def __getitem__(self, index: slice | Tensor) -> Self:
        if not isinstance(index, slice):
            raise TypeError("Smoothness couples neighbouring frames, so it can only be cut into runs of frames.")
        start, stop, _ = index.indices(len(self.face_found))
        linked = self.linked[start : max(stop - 1, start)]
        return replace(self, linked=linked, face_found=self.face_found[index], coupling=None)

    def reweighted(self, state: FrameState, camera: Camera, robust_scale: float) -> Self:
        velocity = state.velocity()
        acceleration = velocity[1:] - velocity[:-1]
        if not len(acceleration):
            return replace(self, coupling=TemporalCoupling(self.precision, self.linked))
        pose = state.layout.pose
        acceleration = acceleration * (self.linked[:-1] & self.linked[1:]).unsqueeze(1)
        padded = torch.nn.functional.pad(acceleration[:, pose].T, (2, 2))
        averaged = padded.unfold(1, len(_AVERAGING), 1) @ _AVERAGING.to(acceleration)
        surprise = (self.precision[pose] * averaged.T**2).mean(1, keepdim=True)
        weights = torch.ones_like(acceleration)
        weights[:, pose] = 1 / (1 + surprise / QUICK**2)
        if self.unobserved_is_quick:
            found = self.face_found
            weights[~(found[:-2] & found[1:-1] & found[2:]), pose] /= QUICK**2
        return replace(self, coupling=TemporalCoupling(self.precision, self.linked, weights))

    def energy(self, state: FrameState, camera: Camera) -> Tensor:
        return self.current_coupling().energy(state.velocity())

    def normal_equations(self, state: FrameState, camera: Camera, *, shared: bool = False) -> NormalEquations:
        velocity, coupling = state.velocity(), self.current_coupling()
        gradient = coupling.gradient(velocity)
        # All of this term's Hessian is in the coupling, its diagonal blocks included.
        none = gradient.new_zeros(()).expand(*gradient.shape, gradient.shape[1])
        return NormalEquations(coupling.energy(velocity), gradient, none, coupling=coupling)

    def current_coupling(self) -> TemporalCoupling:
        """With the weights of the last `reweighted`."""
        return self.coupling or TemporalCoupling(self.precision, self.linked)
