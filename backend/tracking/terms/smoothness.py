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

CAUCHY_SCALE = 4.0
"""Standard deviations of the head pose's acceleration at which its smoothness weight is halved. A head that shakes to
15 degrees three times a second is then 1.1 degrees off (median), as it is without smoothness, and not 7."""
_AVERAGING = torch.tensor((1.0, 2.0, 3.0, 2.0, 1.0)) / 9
"""Weights of the moving average over five accelerations. Averaging cancels noise, whose sign alternates, and keeps a
movement, which lasts."""


@dataclass(frozen=True)
class SmoothnessTerm(Term):
    """Gaussian priors on the second differences of the P parameters of F frames in time order.

    Where the head accelerates by far more than its prior expects, the prior of all six pose parameters is weighted down
    by Cauchy's function 1 / (1 + a^2 / c^2), c = CAUCHY_SCALE, because a head rests for seconds and then nods or shakes
    within a moment. Here a^2 is the mean over the pose parameters of the squared moving average of the acceleration, in
    standard deviations.
    """

    precision: Tensor
    """(P,): one over the variance of the second difference."""
    linked: Tensor
    """(F - 1,) bool: a frame and the next belong to one shot."""
    face_found: Tensor
    """(F,) bool: the detector found a face."""
    relax_unobserved: bool = False
    """Divide the pose's weight by CAUCHY_SCALE^2 for second differences that involve a frame without a face, because
    such a head may have moved quickly. Used for the standard deviations."""
    coupling: TemporalCoupling | None = None
    """With the weights for the current estimate, from `reweighted`; None while all weights are 1."""

    def __getitem__(self, index: slice | Tensor) -> Self:
        if not isinstance(index, slice):
            raise TypeError(
                "Smoothness couples neighbouring frames, so it can only be restricted to consecutive frames."
            )
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
        squared = (self.precision[pose] * averaged.T**2).mean(1, keepdim=True)
        weights = torch.ones_like(acceleration)
        weights[:, pose] = 1 / (1 + squared / CAUCHY_SCALE**2)
        if self.relax_unobserved:
            found = self.face_found
            weights[~(found[:-2] & found[1:-1] & found[2:]), pose] /= CAUCHY_SCALE**2
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
        """The coupling of neighbouring frames, with the weights that `reweighted` computed, or with weights of 1."""
        return self.coupling or TemporalCoupling(self.precision, self.linked)
